"""A linear code of blocks fitted by `hm train`, and a model of clean latents trained on what it encodes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from warm import WarmCommand, ok

from hmcli.codecs.blocks import load_blocks
from hmcli.core.pipeline import HydraPipeline
from hmcli.stages.latents.view import open_latents
from hmcli.store.manifest import read_manifest
from hmcli.store.video import read_video

WEIGHTS = "diffusion_pytorch_model.safetensors"
FIT = ("--set", "data.size=[32, 48]", "--set", "codec.channels=24")


def of_blocks(nano: Path) -> str:
    """The recipe with a code of blocks, tokens as large as before, and a model that predicts clean latents."""
    text = nano.read_text(encoding="utf-8").replace("codec: {name: mini}", "codec: {name: blocks, stride: 4}")
    text = text.replace("kernel: [2, 2, 2]", "kernel: [2, 4, 4]").replace("model:\n", "model:\n  patch: [1, 4, 4]\n")
    return text + "flow: {target: clean, weighting: capped}\n"


@pytest.fixture(scope="module")
def recipe(nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blocks") / "blocks.yaml"
    path.write_text(of_blocks(nano), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def code(hm: WarmCommand, recipe: Path, clips: Path) -> Path:
    return ok(hm("train", "nano/blocks", "--latents", clips, "--out", recipe.with_name("code"), *FIT))


@pytest.fixture(scope="module")
def made(hm: WarmCommand, recipe: Path, code: Path, clips: Path) -> dict[str, Path]:
    """The chain on it."""
    place = recipe.parent
    latents = ok(hm("encode", clips, "--recipe", recipe, "--out", place / "latents", "--set", f"codec.path={code}"))
    run = ok(hm("train", recipe, "--latents", latents, "--out", place / "run"))
    memory = ok(hm("tokenize-memory", latents, "--model", run, "--out", place / "memory"))
    videos = ok(hm("generate", latents, "--model", run, "--out", place / "videos"))
    return {"latents": latents, "run": run, "memory": memory, "videos": videos}


def test_the_artifact_is_a_codec_and_says_how_well_it_gives_clips_back(code: Path):
    manifest = read_manifest(code, kinds=("codec",))
    assert manifest.counts == {"videos": 6, "held_out": 0}
    assert manifest.attributes["psnr_training"] > 22
    assert list(manifest.items) == ["vae"]
    assert manifest.recipe["codec"] == {"channels": 24, "stride": 4, "whitening": 0.5}
    assert load_blocks(code, torch.float32).config.z_dim == 24


def test_the_same_clips_give_the_same_code_and_a_finished_one_is_kept(
    hm: WarmCommand, code: Path, clips: Path, tmp_path
):
    again = ok(hm("train", "nano/blocks", "--latents", clips, "--out", tmp_path / "again", *FIT))
    one, other = (load_file(path / "vae" / WEIGHTS) for path in (code, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    before = (again / "manifest.json").read_bytes()
    ok(hm("train", "nano/blocks", "--latents", clips, "--out", again, *FIT))
    assert (again / "manifest.json").read_bytes() == before
    (again / "vae" / WEIGHTS).write_bytes(b"half")
    ok(hm("train", "nano/blocks", "--latents", clips, "--out", again, *FIT))
    assert torch.equal(load_file(again / "vae" / WEIGHTS)["pictures"], one["pictures"])


def test_subjects_pixels_count_as_the_recipe_says(hm: WarmCommand, code: Path, clips: Path, tmp_path: Path):
    other = ok(
        hm("train", "nano/blocks", "--latents", clips, "--out", tmp_path / "o", *FIT, "--set", "train.subject_weight=0")
    )
    one, two = (load_file(path / "vae" / WEIGHTS)["mean"] for path in (code, other))
    assert not torch.allclose(one, two, atol=1e-3)


def test_what_a_code_does_not_read_is_refused(hm: WarmCommand, nano: Path, clips: Path, tmp_path: Path):
    refused = hm("train", nano, "--latents", clips, "--out", tmp_path / "x", "--set", "train.part=blocks")
    assert refused.returncode == 2
    assert "training blocks does not use train.steps=4" in refused.stderr
    planned = hm("train", "nano/blocks", "--latents", clips, "--out", tmp_path / "x", "--dry-run", *FIT)
    assert "24 channels of 4 pixels" in planned.stderr
    assert not (tmp_path / "x").exists()
    memory = hm("train", "nano/blocks", "--latents", clips, "--memory", clips, "--out", tmp_path / "x", *FIT)
    assert "no effect with train.part=blocks" in memory.stderr


def test_clips_that_cannot_be_read_are_left_out_and_none_at_all_is_an_error(
    hm: WarmCommand, clips: Path, tmp_path: Path
):
    data = tmp_path / "data"
    shutil.copytree(clips, data)
    folders = sorted(path.parent for path in data.rglob("cond.mp4"))
    for folder in folders[1:]:
        (folder / "cond.mp4").write_bytes(b"no video")
    some = hm("train", "nano/blocks", "--latents", data, "--out", tmp_path / "some", *FIT)
    assert read_manifest(tmp_path / "some").counts == {"videos": 2, "held_out": 0}
    assert len(read_manifest(tmp_path / "some").quarantined) == len(folders) - 1, some.stderr
    (folders[0] / "cond.mp4").write_bytes(b"no video")
    none = hm("train", "nano/blocks", "--latents", data, "--out", tmp_path / "none", *FIT)
    assert none.returncode == 3
    assert "none of the 3 clips can be used" in none.stderr


def test_latents_and_videos_go_through_the_whole_chain(made: dict[str, Path]):
    view = open_latents(made["latents"])
    clip = view.clip(view.ids()[0])
    assert view.attributes.stride == 4
    assert clip.latents.shape[0] == 24
    assert clip.latents.shape[2:] == (8, 12) == view.subjects(clip.id)["masks"].shape[1:]
    video = read_video(next(made["videos"].rglob("*.mp4")))
    assert video.shape[1:3] == (32, 48)
    assert np.ptp(video) > 0


def test_a_checkpoint_carries_its_code_and_is_a_pipeline(made: dict[str, Path], code: Path):
    checkpoint = made["run"] / "checkpoints" / "000004"
    index = json.loads((checkpoint / "model_index.json").read_text())
    assert index["vae"] == ["hmcli.codecs.blocks", "LinearBlocks"]
    pipeline = HydraPipeline.from_pretrained(checkpoint, local_files_only=True)
    assert torch.equal(pipeline.vae.pictures, load_blocks(code, torch.float32).pictures)
    assert pipeline.transformer.config.flow_target == "clean"


def test_latents_are_not_encoded_anew_by_a_networks_codec(
    hm: WarmCommand, recipe: Path, code: Path, clips: Path, tmp_path
):
    refused = hm(
        "encode", clips, "--recipe", recipe, "--out", tmp_path / "l", "--set", "codec.name=mini", "--set",
        f"codec.path={code}",
    )  # fmt: skip
    assert refused.returncode == 3
    assert "do not fit" in refused.stderr or "cannot be loaded" in refused.stderr
