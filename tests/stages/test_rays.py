"""model.positions=rays through the chain: train, memory, generate by both roads, inspect, convert."""

from __future__ import annotations

from pathlib import Path

import pytest
from warm import WarmCommand, ok

from hmcli.stages.models.folders import find_model
from hmcli.store.files import read_json

RAYS = ("--set", "model.positions=rays")


@pytest.fixture(scope="module")
def rays_run(hm: WarmCommand, nano: Path, latents: Path, place: Path) -> Path:
    return ok(hm("train", nano, "--latents", latents, "--out", place / "rays", *RAYS))


def videos(generation: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((generation / "videos").iterdir())}


def test_memory_artifact_and_latents_give_the_same_videos(
    hm: WarmCommand, rays_run: Path, latents: Path, generation: Path, tmp_path: Path
):
    memory = ok(hm("tokenize-memory", latents, "--model", rays_run, "--out", tmp_path / "memory.zarr"))
    read = ok(hm("generate", latents, "--model", rays_run, "--memory", memory, "--out", tmp_path / "read"))
    live = ok(hm("generate", latents, "--model", rays_run, "--out", tmp_path / "live"))
    assert videos(read) == videos(live)
    assert videos(read) != videos(generation)
    assert read_json(find_model(rays_run).path / "transformer" / "config.json")["positions"] == "rays"


def test_a_joint_model_learns_generates_and_is_looked_into(hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path):
    settings = ("--set", "model.memory.context=joint", "--set", "train.steps=1")
    joint = ok(hm("train", nano, "--latents", latents, "--out", tmp_path / "joint", *RAYS, *settings))
    assert len(videos(ok(hm("generate", latents, "--model", joint, "--out", tmp_path / "gen")))) == 3
    found = ok(hm("inspect", joint, "--latents", latents, "--out", tmp_path / "look"))
    assert (found / "numbers.json").is_file()


def test_memory_is_made_with_the_models_own_positions(
    hm: WarmCommand, nano: Path, rays_run: Path, latents: Path, tmp_path: Path
):
    done = hm("tokenize-memory", latents, "--model", rays_run, "--recipe", nano, "--out", tmp_path / "memory.zarr")
    assert done.returncode == 2
    assert "model.positions is rays in the model, screen in the recipe" in done.stderr


def test_a_base_with_other_positions_is_refused_by_name(
    hm: WarmCommand, nano: Path, rays_run: Path, latents: Path, tmp_path: Path
):
    done = hm("train", nano, "--latents", latents, "--out", tmp_path / "run", "--set", f"model.base={rays_run}")
    assert done.returncode == 2
    assert "positions" in done.stderr
    assert "rays in the base, screen in the recipe" in done.stderr


def test_a_training_may_go_on_with_heads_that_turn(
    hm: WarmCommand, nano: Path, rays_run: Path, latents: Path, tmp_path: Path
):
    moving = ("--set", "model.positions=moving-rays", "--set", f"model.base={rays_run}")
    run = hm("train", nano, "--latents", latents, "--out", tmp_path / "run", *moving)
    assert "positions rays -> moving-rays" in run.stderr
    assert read_json(find_model(ok(run)).path / "transformer" / "config.json")["positions"] == "moving-rays"
    still, turning = (
        videos(ok(hm("generate", latents, "--model", model, "--out", tmp_path / name)))
        for name, model in (("still", rays_run), ("turning", tmp_path / "run"))
    )
    assert still.keys() == turning.keys()
    assert still != turning


def test_positions_survive_conversion_and_are_not_lost_without_a_word(hm: WarmCommand, rays_run: Path, tmp_path: Path):
    made = ok(hm("convert", find_model(rays_run).path / "transformer", "--out", tmp_path / "model"))
    assert read_json(find_model(made).path / "transformer" / "config.json")["positions"] == "rays"
    released = hm("convert", rays_run, "--to", "released", "--out", tmp_path / "released.safetensors")
    assert released.returncode == 0
    assert "positions screen (here rays)" in released.stderr
    plain = hm("convert", rays_run, "--to", "diffusers", "--out", tmp_path / "plain")
    assert plain.returncode == 2
    assert "positions=rays" in plain.stderr
