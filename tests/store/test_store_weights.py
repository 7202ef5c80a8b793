"""Names released <-> ours, safe reading of weight files, and what is said when weights do not fit."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hmcli.errors import DataError, UsageError
from hmcli.store.names import (
    BLOCK_NAMES,
    NAMES,
    is_released,
    ours_from_released,
    released_from_ours,
    to_ours,
    to_released,
    under_prefix,
)
from hmcli.store.weights import (
    about_weights,
    check_keys,
    load_state_dict,
    save_weights,
    shapes_of,
    weight_files,
)

STATE = {"patch_embedding.weight": torch.ones(2, 3), "blocks.11.self_attn.norm_q.weight": torch.zeros(4)}


def test_every_row_of_the_table_goes_there_and_back():
    names = [f"{released}.weight" for released, _ in NAMES]
    names += [f"blocks.12.{released}.bias" for released, _ in BLOCK_NAMES]
    assert len({ours_from_released(name) for name in names}) == len(names)
    assert [released_from_ours(ours_from_released(name)) for name in names] == names


def test_renaming_keeps_the_tensors():
    ours = to_ours(STATE)
    assert set(ours) == {"patch_embedding.weight", "blocks.11.attn1.norm_q.weight"}
    assert to_released(ours).keys() == STATE.keys()
    assert ours["patch_embedding.weight"] is STATE["patch_embedding.weight"]
    assert is_released(STATE)
    assert not is_released(ours)


def test_names_of_no_such_model_are_listed():
    with pytest.raises(DataError, match=r"1 of 3 weights") as caught:
        to_ours(STATE | {"blocks.0.self_attn.qkv.weight": torch.ones(1)}, where="x.pth")
    assert "blocks.0.self_attn.qkv.weight" in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "model.", "pipe.dit."])
def test_a_common_prefix_is_cut_and_told(prefix: str):
    found = under_prefix({prefix + name: tensor for name, tensor in STATE.items()})
    assert (found.state, found.prefix, found.others, found.left) == (STATE, prefix, (), ())


def test_other_models_and_other_parts_beside_a_prefix_are_named():
    mixed = {f"{p}{name}": name for p in ("model_ema.", "model.") for name in STATE} | {"vae.x": "", "y": ""}
    found = under_prefix(mixed)
    assert (found.prefix, found.others, found.left) == ("model.", ("model_ema.",), ("vae.x", "y"))
    assert under_prefix(mixed, "model_ema.").prefix == "model_ema."
    with pytest.raises(UsageError, match=r"'model\.', 'model_ema\.'"):
        under_prefix(mixed, "net.")


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.ckpt", "a.pt"])
def test_single_files_and_their_folders_are_read(tmp_path: Path, name: str):
    write = save_file if name.endswith("safetensors") else torch.save
    write(STATE, tmp_path / name)
    for place in (tmp_path / name, tmp_path):
        got = load_state_dict(place)
        assert got.keys() == STATE.keys()
        assert torch.equal(got["patch_embedding.weight"], STATE["patch_embedding.weight"])


def test_a_state_dict_inside_a_checkpoint_is_found(tmp_path: Path):
    torch.save({"state_dict": STATE, "epoch": 3}, tmp_path / "a.ckpt")
    assert load_state_dict(tmp_path / "a.ckpt").keys() == STATE.keys()


def sharded(folder: Path) -> Path:
    names = list(STATE)
    for number, name in enumerate(names):
        save_file({name: STATE[name]}, folder / f"m-{number}.safetensors")
    index = folder / "m.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {n: f"m-{i}.safetensors" for i, n in enumerate(names)}}), encoding="utf-8"
    )
    return index


def test_shards_are_joined(tmp_path: Path):
    index = sharded(tmp_path)
    assert load_state_dict(index).keys() == load_state_dict(tmp_path).keys() == STATE.keys()


def test_a_missing_shard_is_named(tmp_path: Path):
    index = sharded(tmp_path)
    (tmp_path / "m-1.safetensors").unlink()
    with pytest.raises(DataError, match=r"m-1\.safetensors"):
        load_state_dict(index)


class Evil:
    def __reduce__(self):
        return print, ("this ran",)


def test_pickles_that_hold_more_than_tensors_are_refused_unrun(tmp_path: Path, capsys):
    torch.save({"state_dict": STATE, "x": Evil()}, tmp_path / "a.pth")
    with pytest.raises(DataError, match="refused"):
        load_state_dict(tmp_path / "a.pth")
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt"])
def test_what_is_written_is_read_back_with_what_was_said_of_it(tmp_path: Path, name: str):
    save_weights(tmp_path / "new" / name, STATE, {"key": "k1"})
    got = load_state_dict(tmp_path / "new" / name)
    assert got.keys() == STATE.keys()
    assert all(torch.equal(got[n], STATE[n]) for n in STATE)
    assert about_weights(tmp_path / "new" / name)["key"] == "k1"
    assert [file.name for file in (tmp_path / "new").iterdir()] == [name]


def test_a_folder_like_the_published_one_is_read_by_its_own_weights(tmp_path: Path):
    save_file(STATE, tmp_path / "diffusion_pytorch_model.safetensors")
    torch.save({"x": torch.ones(1)}, tmp_path / "Wan2.1_VAE.pth")
    assert load_state_dict(tmp_path).keys() == STATE.keys()
    assert weight_files(tmp_path) == [tmp_path / "diffusion_pytorch_model.safetensors"]


def test_plain_weights_are_read_where_a_variant_lies_beside_them_in_shards(tmp_path: Path):
    save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors.index.fp16.json").write_text('{"weight_map": {}}')
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]


def test_old_pickles_without_a_zip_around_them_are_read_too(tmp_path: Path):
    torch.save(STATE, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert load_state_dict(tmp_path / "a.pth").keys() == STATE.keys()


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_truncated_files_are_bad_data(tmp_path: Path, name: str):
    write = save_file if name.endswith("safetensors") else torch.save
    write(STATE, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not whole"):
        load_state_dict(tmp_path / name)


def test_whatever_is_wrong_with_a_pickle_it_is_bad_data_and_no_advice_to_load_it_unsafely(tmp_path: Path):
    torch.save(STATE, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    whole, rng = (tmp_path / "a.pth").read_bytes(), random.Random(0)
    bad = [b"", b"junk" * 9, b"\x80\x02}.", *(bytes([*whole[:n], rng.randrange(256)]) for n in range(40, 400, 9))]
    for number, content in enumerate(bad):
        (tmp_path / f"{number}.pth").write_bytes(content)
        with pytest.raises(DataError) as caught:
            load_state_dict(tmp_path / f"{number}.pth")
        assert "weights_only" not in str(caught.value)


def test_what_a_refused_pickle_holds_beside_tensors_is_named(tmp_path: Path):
    torch.save({"state_dict": STATE, "args": argparse.Namespace(a=1)}, tmp_path / "a.ckpt")
    with pytest.raises(DataError, match=r"it holds argparse\.Namespace, which is no tensor"):
        load_state_dict(tmp_path / "a.ckpt")


def test_absent_unknown_and_ambiguous_places_are_named(tmp_path: Path):
    with pytest.raises(DataError, match="no weights here"):
        load_state_dict(tmp_path / "none.pth")
    (tmp_path / "a.gguf").write_bytes(b"x")
    with pytest.raises(DataError, match=r"\.gguf"):
        load_state_dict(tmp_path / "a.gguf")
    with pytest.raises(DataError, match="found 0"):
        load_state_dict(tmp_path)


def test_everything_that_does_not_fit_is_listed_at_once():
    expected = {"a": (1,), "b": (2, 3), "c": (4,)}
    with pytest.raises(DataError) as caught:
        check_keys(expected, {"b": (3, 2), "c": (4,), "d": (1,)}, where="w.pth")
    text = str(caught.value)
    for part in ("missing (1)", "extra (1)", "misshapen (1)", "b is [3, 2], expected [2, 3]", "w.pth"):
        assert part in text


def test_a_fitting_state_is_silent_and_parts_may_be_allowed_to_lack():
    check_keys(shapes_of(STATE), shapes_of(STATE))
    check_keys({"a": (1,), "blocks.0.camera.context.bias": (2,)}, {"a": (1,)}, may_lack=("camera.",))
