"""A codec of four pixels to a latent through the whole chain: stride and channels are the codec's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from warm import WarmCommand, ok

from hmcli.stages.latents.view import open_latents
from hmcli.store.video import read_video


def of_fine(nano: Path) -> str:
    """The recipe, with a codec of stride 4 and tokens as large as before."""
    text = nano.read_text(encoding="utf-8").replace(
        "codec: {name: mini}", "codec: {name: mini, stride: 4, channels: 6}"
    )
    return text.replace("kernel: [2, 2, 2]", "kernel: [2, 4, 4]").replace("model:\n", "model:\n  patch: [1, 4, 4]\n")


@pytest.fixture(scope="module")
def fine(hm: WarmCommand, clips: Path, nano: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The nano chain with a codec of stride 4 and a patch of 4: as many tokens as with 8 and 2."""
    place = tmp_path_factory.mktemp("fine")
    recipe = place / "fine.yaml"
    recipe.write_text(of_fine(nano), encoding="utf-8")
    codec = ok(
        hm("train", recipe, "--latents", clips, "--out", place / "codec", "--set", "train.part=codec", "--set",
           "train.frames=5", "--set", "train.steps=1")
    )  # fmt: skip
    path = ("--set", f"codec.path={codec}")
    latents = ok(hm("encode", clips, "--recipe", recipe, "--out", place / "latents", *path))
    run = ok(hm("train", recipe, "--latents", latents, "--out", place / "run"))
    memory = ok(hm("tokenize-memory", latents, "--model", run, "--out", place / "memory"))
    videos = ok(hm("generate", latents, "--model", run, "--out", place / "videos"))
    return {"latents": latents, "run": run, "memory": memory, "videos": videos, "clips": clips}


def test_latents_and_masks_are_four_pixels_apart(fine: dict[str, Path]):
    view = open_latents(fine["latents"])
    clip = view.ids()[0]
    assert view.attributes.stride == 4
    assert view.latent_size == (8, 12) == view.clip(clip).latents.shape[2:] == view.subjects(clip)["masks"].shape[1:]


def test_videos_have_the_size_of_the_clips(fine: dict[str, Path]):
    made = read_video(next(fine["videos"].rglob("*.mp4")))
    assert made.shape[1:3] == (32, 48)
    assert np.ptp(made) > 0


def test_a_model_is_not_trained_on_latents_of_another_stride(hm: WarmCommand, fine: dict[str, Path], nano: Path):
    refused = hm("train", nano, "--latents", fine["latents"], "--out", fine["latents"].with_name("never"))
    assert refused.returncode == 2
    assert "codec.stride=8, but the latents stand for 4 pixels each" in refused.stderr


def test_a_patch_is_checked_against_the_latents_of_the_codec(hm: WarmCommand, nano: Path, tmp_path: Path):
    recipe, there = tmp_path / "tall.yaml", tmp_path / "clips"
    there.mkdir()
    for stride, ends, says in (
        (8, 2, "5x6 latent pixels: not a multiple of model.patch"),
        (4, 2, "10x12 latent"),
        (4, 3, ""),
    ):
        height = 40 if ends == 2 else 48
        text = of_fine(nano).replace("stride: 4", f"stride: {stride}")
        recipe.write_text(text.replace("data: {size: [32, 48]}", f"data: {{size: [{height}, 48]}}"), encoding="utf-8")
        refused = hm("encode", there, "--recipe", recipe)
        assert (refused.returncode, says in refused.stderr) == (ends, True)
