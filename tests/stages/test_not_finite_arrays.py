"""Not-a-number and infinity in arrays: what holds them is set aside by name, on the way into artifacts and out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from warm import WarmCommand

from hmcli import registry
from hmcli.codecs.text import MiniText
from hmcli.codecs.video import MINI_WEIGHTS, mini_codec
from hmcli.contracts import Reporter
from hmcli.errors import DataError, NotFiniteError
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import CodecConfig, TextConfig
from hmcli.runtime import Silent
from hmcli.stages.latents import encode
from hmcli.stages.latents.pixels import decode_video, encode_video
from hmcli.stages.latents.view import open_latents
from hmcli.stages.memory.layout import write_group
from hmcli.stages.shared.each import each
from hmcli.stages.shared.makers import Unit
from hmcli.store.arrays import StackReader, bfloat16_bits, write_stack
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.manifest import is_artifact

NAN, INF = float("nan"), float("inf")
DTYPES = ["float16", "float32", "float64", "bfloat16"]


def spoiled(dtype: str, value: float) -> np.ndarray:
    values = np.ones((5, 7), np.float64)
    values[3, 4] = value
    return bfloat16_bits(values.astype(np.float32)) if dtype == "bfloat16" else values.astype(dtype)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_item_that_is_not_finite_is_refused_by_name_and_the_others_stay(tmp_path: Path, dtype: str, value: float):
    half = ["x"] if dtype == "bfloat16" else []
    with ArtifactWriter(tmp_path / "a", "latents", recipe={}, inputs={}, seed=0, reporter=Silent()) as writer:
        writer.put_arrays("good", "key", {"x": spoiled(dtype, 2.0)}, bfloat16=half)
        with pytest.raises(NotFiniteError, match=r"x: 1 of 35 numbers are not finite\n.*item +bad"):
            writer.put_arrays("bad", "key", {"n": np.arange(3), "x": spoiled(dtype, value)}, bfloat16=half)
        assert list(writer.items) == ["good"]


def test_nan_is_let_through_only_where_it_means_something_and_infinity_nowhere(tmp_path: Path):
    with ArtifactWriter(tmp_path / "a", "latents", recipe={}, inputs={}, seed=0, reporter=Silent()) as writer:
        writer.put_arrays("a", "key", {"boxes": spoiled("float32", NAN)}, undefined=["boxes"])
        for name, value in (("boxes", INF), ("latents", NAN)):
            with pytest.raises(NotFiniteError, match=name):
                writer.put_arrays("b", "key", {name: spoiled("float32", value)}, undefined=["boxes"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_that_is_not_finite_is_not_read(tmp_path: Path, dtype: str):
    rows = [spoiled(dtype, 2.0), spoiled(dtype, INF), spoiled(dtype, NAN)]
    described = {"axes": ["row", "y", "x"], "units": "", "dtype": dtype}
    write_stack(tmp_path / "data.zarr", "", "x", rows, count=3, shape=(5, 7), **described)
    reader = StackReader(tmp_path / "data.zarr" / "x")
    assert reader[0].shape == (5, 7)
    for row in (1, 2):
        with pytest.raises(NotFiniteError, match="not finite"):
            reader[row]
        with pytest.raises(NotFiniteError, match="not finite"):
            StackReader(reader.path, bits=True)[row]


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("name", ["slot_keys", "slot_values", "descriptors", "tail_keys", "tail_values"])
def test_memory_that_is_not_finite_is_not_written(tmp_path: Path, name: str, value: float):
    for dtype in ("float32", "bfloat16"):
        values = spoiled(dtype, value)[:, None] if name != "descriptors" else spoiled(dtype, value)
        with pytest.raises(NotFiniteError, match=name):
            write_group(tmp_path / dtype, {name: values}, (name,) if dtype == "bfloat16" else ())


# --- the codec -------------------------------------------------------------------------------------------------------


def spoiled_vae(folder: Path, weight: str, value: float, **config: object) -> Path:
    """The packaged VAE with one weight, or its config, changed."""
    shutil.copytree(MINI_WEIGHTS, folder)
    file = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state[weight].view(-1)[0] = value
    save_file(state, file, metadata={"format": "pt"})
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(about | config))
    return folder


@pytest.mark.parametrize("value", [NAN, INF])
def test_pixels_that_are_not_finite_never_become_a_picture(tmp_path: Path, value: float):
    """Infinite ones would be white, the others black."""
    folder = spoiled_vae(tmp_path / "vae", "decoder.conv_out.bias", value)
    codec = mini_codec(CodecConfig(name="mini", path=str(folder)), "cpu")
    with pytest.raises(NotFiniteError, match="pixels that are not finite"):
        decode_video(np.zeros((codec.channels, 1, 4, 4), np.float32), codec, "cpu")


@pytest.mark.parametrize("value", [NAN, INF])
def test_latents_that_are_not_finite_are_no_latents(tmp_path: Path, value: float):
    folder = spoiled_vae(tmp_path / "vae", "quant_conv.bias", value)
    codec = mini_codec(CodecConfig(name="mini", path=str(folder)), "cpu")
    with pytest.raises(NotFiniteError, match="latents that are not finite"):
        encode_video(np.zeros((1, 32, 32, 3), np.uint8), codec, "cpu")


def test_latents_beyond_float16_are_set_aside_and_when_all_are_the_command_ends_with_3(
    hm: WarmCommand, nano: Path, clips: Path, tmp_path: Path
):
    about = json.loads((MINI_WEIGHTS / "config.json").read_text())
    tiny = [1e-7 * std for std in about["latents_std"]]
    folder = spoiled_vae(tmp_path / "vae", "quant_conv.bias", 0.0, latents_std=tiny)
    ended = hm("encode", clips, "--recipe", nano, "--set", f"codec.path={folder}", "--out", tmp_path / "l.zarr")
    assert ended.returncode == 3
    for row in (clips / "clips.jsonl").read_text().splitlines():
        assert f"{json.loads(row)['id']} is left out: latents reaches" in ended.stderr
    assert "float16 ends at 65504" in ended.stderr
    assert not is_artifact(tmp_path / "l.zarr")


# --- one clip of several ---------------------------------------------------------------------------------------------


class Overflowing:
    """The packaged codec, but for the call (two a clip, from 0) from which latents come out with `value` in them."""

    def __init__(self, value: float, call: int) -> None:
        self.value, self.call, self.calls = value, call, 0
        self.codec = mini_codec(CodecConfig(name="mini"), "cpu")
        self.name, self.channels, self.stride = "mini", self.codec.channels, self.codec.stride
        self.decode = self.codec.decode

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        latents = self.codec.encode(video)
        latents[0, 0, 0, 0, 0] = self.value if self.calls == self.call else 0.0
        self.calls += 1
        return latents


class Mumbling(MiniText):
    """An encoder of text whose embedding of some captions is not finite."""

    spoils: tuple[str, ...] = ()

    def encode(self, captions: list[str]) -> list[np.ndarray]:
        rows = super().encode(captions)
        return [r * (NAN if caption in self.spoils else 1) for r, caption in zip(rows, captions, strict=True)]


@pytest.mark.parametrize("value", [NAN, INF, 7e4])
def test_a_clip_whose_latents_are_not_finite_is_set_aside_and_the_others_are_encoded(
    nano: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
):
    names = [json.loads(row)["id"] for row in (clips / "clips.jsonl").read_text().splitlines()]
    find = registry.find
    given = {("codec", "mini"): lambda *_: Overflowing(value, 2)}
    monkeypatch.setattr(registry, "find", lambda kind, name: given.get((kind, name)) or find(kind, name))
    done = encode.run(
        load_recipe(str(nano)), data=clips, out=tmp_path / "l", force=False, device="cpu", reporter=Silent()
    )
    assert [left.item for left in done.quarantined] == [names[1]]
    assert "latents" in done.quarantined[0].reason
    assert open_latents(done.path).ids() == [names[0], names[2]]


def test_clips_are_set_aside_whose_captions_embedding_is_not_finite(
    nano: Path, clips: Path, latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    view, find = open_latents(latents), registry.find
    caption = view.clip(view.ids()[1]).caption
    silent = [name for name in view.ids() if view.clip(name).caption == caption]

    def mumbling(config: TextConfig, device: str) -> Mumbling:
        return Mumbling(name="mini", length=config.length)

    monkeypatch.setattr(registry, "find", lambda kind, name: mumbling if kind == "text" else find(kind, name))
    monkeypatch.setattr(Mumbling, "spoils", (caption,))
    settings = {"data": clips, "force": False, "device": "cpu", "reporter": Silent()}
    done = encode.run(load_recipe(str(nano)), out=tmp_path / "l", **settings)
    assert [left.item for left in done.quarantined] == silent
    assert {left.reason for left in done.quarantined} == {"the embedding of its caption is not finite"}
    assert open_latents(done.path).ids() == [name for name in view.ids() if name not in silent]
    for spoils in (("",), tuple(view.clip(name).caption for name in view.ids())):
        monkeypatch.setattr(Mumbling, "spoils", spoils)
        with pytest.raises(DataError, match=r"embedding of its caption is not finite|none of the"):
            encode.run(load_recipe(str(nano)), out=tmp_path / "none", **settings)
        assert not is_artifact(tmp_path / "none")


def test_the_boxes_of_subjects_that_are_not_seen_stay_undefined(latents: Path):
    view = open_latents(latents)
    assert any(np.isnan(view.subjects(clip)["boxes"]).any() for clip in view.ids())


class Counting:
    """Makes as many numbers as a unit's id says, the second unit's not finite."""

    imports: tuple[str, ...] = ()

    def reporting_to(self, reporter: Reporter) -> Counting:
        return self

    def load(self) -> None:
        pass

    def make(self, unit: Unit, place: Path) -> np.ndarray:
        return np.full(4, INF if unit.id == "b" else 1.0)


def test_whatever_a_stage_makes_is_set_aside_when_the_artifact_refuses_it(tmp_path: Path):
    with ArtifactWriter(tmp_path / "a", "latents", recipe={}, inputs={}, seed=0, reporter=Silent()) as writer:

        def keep(unit: Unit, made: np.ndarray, _: Path) -> None:
            writer.put_arrays(unit.id, "key", {"camera": made})

        units = [Unit(id=name, items={name: "key"}) for name in "abc"]
        assert each(writer, units, Counting(), keep, label="", processes=1) == ["a", "c"]
        assert [(left.item, left.reason.splitlines()[0]) for left in writer.quarantined] == [
            ("b", "camera: 4 of 4 numbers are not finite")
        ]
