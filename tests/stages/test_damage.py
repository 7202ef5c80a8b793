"""Damage is noticed before anything is made of it, in every kind of artifact: by whoever reads it, and by --verify."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from sealing import unseal
from warm import WarmCommand, ok

from hmcli.errors import DataError
from hmcli.recipe.sections import CodecConfig, PosesConfig
from hmcli.runtime import Silent
from hmcli.stages.bench.score import open_evaluation
from hmcli.stages.data.opening import open_dataset
from hmcli.stages.latents.view import LatentsView
from hmcli.stages.memory.kept import MemoryView, RowCache
from hmcli.stages.memory.layout import read_description
from hmcli.stages.models.folders import PACKAGED, find_model
from hmcli.stages.models.identity import codec_hash, open_codec
from hmcli.stages.models.sources import look
from hmcli.stages.sampling.generations import open_generation
from hmcli.store.artifact import verify
from hmcli.store.hashing import hash_tree
from hmcli.store.manifest import make_manifest, read_manifest, write_manifest

# --- reading as the stages do ----------------------------------------------------------------------------------------


def read_latents(place: Path, _: Path) -> None:
    view = LatentsView(place)
    for clip in view.ids():
        view.clip(clip)
        view.subjects(clip)


def read_memory(place: Path, run: Path) -> None:
    view = MemoryView(place, find_model(run))
    for clip in view.manifest.items:
        read_description(place, clip)
        view.anchor(clip)
        for block in view.load(clip, "cpu", torch.float32, RowCache()).blocks:
            block.slots.read(torch.arange(1))
            block.tail.read(torch.arange(1))


def read_model(place: Path, _: Path) -> None:
    find_model(place).codec()
    find_model(place).config()
    find_model(place).load(torch.float32, "cpu")


READ: dict[str, Callable[[Path, Path], object]] = {
    "dataset": lambda place, _: open_dataset(place, PosesConfig()),
    "latents": read_latents,
    "memory": read_memory,
    "run": read_model,
    "checkpoint": read_model,
    "weights": lambda place, _: look(place),
    "codec": lambda place, _: codec_hash(CodecConfig(name="mini", path=str(place))),
    "generation": lambda place, _: open_generation(place, PosesConfig()),
    "evaluation": lambda place, _: open_evaluation(place),
}


@pytest.fixture(scope="session")
def memory(hm: WarmCommand, latents: Path, run: Path, place: Path) -> Path:
    return ok(hm("tokenize-memory", latents, "--model", run, "--out", place / "damage.memory"))


@pytest.fixture(scope="session")
def scores(hm: WarmCommand, generation: Path, place: Path) -> Path:
    return ok(hm("eval", generation, "--metric", "psnr", "--out", place / "damage.evaluation"))


@pytest.fixture(scope="session")
def every(
    place: Path, clips: Path, latents: Path, memory: Path, run: Path, generation: Path, scores: Path
) -> dict[str, Path]:
    """One artifact of every kind."""
    parts = {kind: place / f"damage.{kind}" for kind in ("codec", "weights")}
    for kind, folder in parts.items():
        part = "vae" if kind == "codec" else "transformer"
        shutil.copytree(PACKAGED / part, folder / part)
        write_manifest(folder, make_manifest(kind, recipe={}, inputs={}, seed=0, files=hash_tree(folder)))
    checkpoint = run / "checkpoints" / "000004"
    return parts | {
        "dataset": clips, "latents": latents, "memory": memory, "run": run, "checkpoint": checkpoint,
        "generation": generation, "evaluation": scores,
    }  # fmt: skip


@pytest.mark.parametrize("kind", READ)
def test_a_whole_artifact_is_read_and_verified(every, run, kind):
    READ[kind](every[kind], run)
    assert verify(every[kind], Silent()) == []


# --- files -----------------------------------------------------------------------------------------------------------


def flip(pattern: str) -> Callable[[Path], None]:
    """One bit in the middle of the first file that matches."""

    def damage(place: Path) -> None:
        file = sorted(file for file in place.glob(pattern) if file.is_file())[0]
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)

    return damage


def other_values(pattern: str) -> Callable[[Path], None]:
    """Other numbers in a sound shard, as if it were one of another artifact."""

    def damage(place: Path) -> None:
        array = zarr.open_array(str(sorted(place.glob(pattern))[0]), mode="r+")
        array[...] = np.asarray(array[...]) + np.ones((), array.dtype)

    return damage


def swap(first: str, second: str) -> Callable[[Path], None]:
    def damage(place: Path) -> None:
        a, b = sorted(place.glob(first))[0], sorted(place.glob(second))[-1]
        assert a != b
        a.rename(place / "aside")
        b.rename(a)
        (place / "aside").rename(b)

    return damage


def replace(pattern: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(place: Path) -> None:
        file = sorted(place.glob(pattern))[0]
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    return damage


FILES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "latents with a flipped bit": ("latents", flip("data.zarr/*/latents/c/**/*")),
    "latents of something else": ("latents", other_values("data.zarr/*/latents")),
    "cameras of something else": ("latents", other_values("data.zarr/*/camera")),
    "captions of something else": ("latents", other_values("data.zarr/text")),
    "masks of something else": ("latents", other_values("data.zarr/*/visibility")),
    "latents of another dtype": ("latents", replace("data.zarr/*/latents/zarr.json", '"float16"', '"int16"')),
    "rows in another order": ("latents", other_values("data.zarr/*/text_index")),
    "slot keys of something else": ("memory", other_values("data.zarr/*/block_01/slot_keys")),
    "tail values of another block": (
        "memory", swap("data.zarr/*/block_00/tail_values", "data.zarr/*/block_01/tail_values"),
    ),
    "descriptors with a flipped bit": ("memory", flip("data.zarr/*/block_00/descriptors/c/**/*")),
    "slots of something else": ("memory", other_values("data.zarr/*/slot_span")),
    "an anchor of something else": ("memory", other_values("data.zarr/*/kept/anchor")),
    "swapped checkpoints": ("run", swap("checkpoints/*", "checkpoints/*")),
    "weights with a flipped bit": ("run", flip("checkpoints/000004/transformer/*.safetensors")),
    "a model read otherwise": (
        "checkpoint", replace("transformer/config.json", '"window": 3', '"window": 5'),
    ),
    "a VAE with a flipped bit in a checkpoint": ("checkpoint", flip("vae/*.safetensors")),
    "a VAE with a flipped bit": ("codec", flip("vae/*.safetensors")),
    "exported weights with a flipped bit": ("weights", flip("transformer/*.safetensors")),
    "an edited list of videos": ("generation", replace("generations.jsonl", '"seed": ', '"seed": 1')),
    "edited scores": ("evaluation", replace("scores.json", '"mean": ', '"mean": 1')),
    "an edited table of scores": ("evaluation", replace("per_clip.csv", ",ok,", ",OK,")),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_not_those_written_are_never_read(every, run, tmp_path, name):
    kind, damage = FILES[name]
    place = shutil.copytree(every[kind], tmp_path / kind)
    damage(place)
    with pytest.raises(DataError, match="not as it was written"):
        READ[kind](place, run)
    assert verify(place, Silent()) != []


def test_weights_at_a_path_that_change_between_being_hashed_and_loaded_are_noticed(tmp_path):
    """Keys were made of other weights than those that were loaded."""
    shutil.copytree(PACKAGED / "vae", tmp_path / "vae")
    config = CodecConfig(name="mini", path=str(tmp_path / "vae"))
    codec_hash(config)
    open_codec(config, "cpu")
    replace("config.json", "{", "{ ")(tmp_path / "vae")
    with pytest.raises(DataError, match="weights changed while they were being used"):
        open_codec(config, "cpu")
    codec_hash(config)
    open_codec(config, "cpu")


# --- what manifests say ----------------------------------------------------------------------------------------------


def first_item(values: dict[str, Any]) -> dict[str, Any]:
    return next(item for name, item in values["items"].items() if not name.startswith("caption"))


SAYINGS: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "attributes": ("latents", lambda values: values["attributes"].update(size=[64, 64])),
    "clips in another order": (
        "latents", lambda values: values["attributes"]["groups"][0]["ids"].reverse(),
    ),
    "a caption": ("latents", lambda values: first_item(values)["meta"].update(caption="A cat.")),
    "frames per second": ("latents", lambda values: first_item(values)["meta"].update(fps=30)),
    "a row": ("latents", lambda values: first_item(values)["rows"]["latents"].__setitem__(1, 2)),
    "a dtype": ("latents", lambda values: next(iter(values["arrays"].values())).update(dtype="int8")),
    "the recipe": ("run", lambda values: values["recipe"].update(seed=99)),
    "which checkpoint": ("run", lambda values: values["attributes"].update(checkpoint="checkpoints/000002")),
    "counts": ("dataset", lambda values: values["counts"].update(clips=99)),
    "the dtype of memory": ("memory", lambda values: first_item(values)["meta"]["memory"].update(dtype="bfloat16")),
    "the codec": ("checkpoint", lambda values: values["recipe"]["codec"].update(dtype="bfloat16")),
    "the data": ("generation", lambda values: values["attributes"].update(source_dataset="elsewhere")),
    "the protocol": ("evaluation", lambda values: values["attributes"]["protocol"].update(Metrics={})),
    "the seed": ("codec", lambda values: values.update(seed=3)),
    "who made it": ("weights", lambda values: values["made_by"].update(hmcli="9")),
}  # fmt: skip


@pytest.mark.parametrize("name", SAYINGS)
def test_an_edited_manifest_is_never_believed(every, run, tmp_path, name):
    kind, change = SAYINGS[name]
    place = shutil.copytree(every[kind], tmp_path / kind)
    values = json.loads((place / "manifest.json").read_text())
    change(values)
    (place / "manifest.json").write_text(json.dumps(values))
    for read in (READ[kind], lambda path, _: verify(path, Silent()), lambda path, _: read_manifest(path)):
        with pytest.raises(DataError, match="edited or damaged"):
            read(place, run)


@pytest.mark.parametrize("kind", READ)
def test_an_artifact_of_the_earlier_format_is_read_with_a_note(every, run, tmp_path, kind):
    """Format 1 had no seal."""
    place = shutil.copytree(every[kind], tmp_path / kind)
    before = read_manifest(place)
    unseal(place / "manifest.json")
    READ[kind](place, run)
    assert (read_manifest(place).format, read_manifest(place).fingerprint) == (1, before.fingerprint)
    assert verify(place, Silent()) == []


# --- commands --------------------------------------------------------------------------------------------------------


def test_a_command_makes_nothing_of_damaged_clips_and_the_one_before_it_heals_them(hm, latents, run, tmp_path):
    place = shutil.copytree(latents, tmp_path / "latents")
    other_values("data.zarr/*/latents")(place)
    group = sorted(place.glob("data.zarr/*/latents"))[0].parent.name
    damaged = [clip for clip, (own, _) in LatentsView(place).where.items() if own.name == group]
    done = hm("generate", place, "--model", run, "--out", tmp_path / "out")
    assert (done.returncode, "not as it was written" in done.stderr) == (4, True)
    made = read_manifest(tmp_path / "out")
    assert [left["item"] for left in made.quarantined] == sorted(damaged)
    assert not made.items.keys() & set(damaged)
    checked = hm("inspect", place, "--verify")
    assert (checked.returncode, "latents/c/0" in checked.stderr) == (3, True)
    again = ok(
        hm("encode", read_manifest(latents).attributes["source"], "--recipe", run / "recipe.yaml", "--out", place)
    )
    assert verify(again, Silent()) == []


def test_a_command_says_that_a_manifest_is_of_an_earlier_hm(hm, scores, tmp_path):
    place = shutil.copytree(scores, tmp_path / "e")
    unseal(place / "manifest.json")
    done = hm("inspect", place)
    assert (done.returncode, "of an earlier hm" in done.stderr) == (0, True)
    assert "of an earlier hm" not in hm("inspect", scores).stderr
