"""Training the subject segmenter on a folder of clips: the artifact, exact resume, refusals."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hmcli import registry
from hmcli.errors import DataError, RecipeError, UsageError
from hmcli.metrics.detectors.segmenter import WEIGHTS
from hmcli.recipe.sections import DataConfig, Recipe, TrainConfig
from hmcli.runtime import Silent
from hmcli.stages.training import segmenter
from hmcli.store.manifest import is_artifact, read_manifest

RECIPE = Recipe(
    seed=5,
    data=DataConfig(size=(32, 56)),
    train=TrainConfig(part="segmenter", steps=5, batch=2, lr=1e-3, warmup=1, ema=0.5, checkpoint_every=2, keep=2),
)


class Stopping(Silent):
    """Interrupts the work after some steps, as Ctrl-C between two steps does, and keeps notes."""

    def __init__(self, after: int) -> None:
        self.after, self.notes = after, list[str]()

    def note(self, text: str) -> None:
        self.notes.append(text)

    @contextlib.contextmanager
    def progress(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        done = 0

        def advance(n: int) -> None:
            nonlocal done
            done += n
            if done == self.after:
                raise KeyboardInterrupt

        yield advance


@pytest.fixture(scope="module")
def trained(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "segmenter"
    return segmenter.run(RECIPE, data=clips, out=out, reporter=Silent()).path


def test_the_artifact_is_a_detector(trained: Path):
    manifest = read_manifest(trained, kinds=("segmenter",))
    assert manifest.counts["steps"] == 5
    assert manifest.recipe["train"]["batch"] == 2
    assert [path.name for path in sorted((trained / "checkpoints").iterdir())] == ["000004", "000005"]
    steps = [json.loads(line) for line in (trained / "steps.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5]
    assert all(set(step) == {"step", "pixels", "overlap", "middle"} for step in steps)
    detector = registry.find("detector", "segmenter")(str(trained), "cpu")
    assert len(detector(np.zeros((2, 32, 56, 3), np.uint8))) == 2


def test_a_run_that_was_interrupted_ends_with_the_same_bytes(trained: Path, clips: Path, tmp_path: Path):
    out = tmp_path / "segmenter"
    with pytest.raises(KeyboardInterrupt):
        segmenter.run(RECIPE, data=clips, out=out, reporter=Stopping(3))
    assert not is_artifact(out)
    again = Stopping(0)
    segmenter.run(RECIPE, data=clips, out=out, reporter=again)
    assert "going on from step 2" in again.notes
    assert (out / WEIGHTS).read_bytes() == (trained / WEIGHTS).read_bytes()
    assert (out / "steps.jsonl").read_text() == (trained / "steps.jsonl").read_text()
    assert read_manifest(out).fingerprint == read_manifest(trained).fingerprint
    segmenter.run(RECIPE, data=clips, out=out, reporter=again)
    assert "already trained to step 5" in again.notes


def test_held_out_clips_are_scored(clips: Path, tmp_path: Path):
    """Every tenth clip is held out: ten copies of one."""
    first = min(place for place in clips.iterdir() if (place / "cond.mp4").is_file())
    for number in range(10):
        shutil.copytree(first, tmp_path / "data" / f"clip-{number:02}")
    recipe = replace(RECIPE, train=replace(RECIPE.train, steps=1))
    out = segmenter.run(recipe, data=tmp_path / "data", out=tmp_path / "out", reporter=Silent()).path
    manifest = read_manifest(out)
    assert (manifest.counts["videos"], manifest.counts["held_out"]) == (18, 2)
    assert 0 <= manifest.attributes["iou"] <= 1
    assert 0 <= manifest.attributes["recall"] <= 1


def test_clips_without_instance_masks_are_left_out_and_none_is_refused(clips: Path, tmp_path: Path):
    data = shutil.copytree(clips, tmp_path / "data", ignore=shutil.ignore_patterns("*_instances.mp4", "manifest.json"))
    (data / "clips.jsonl").unlink()
    with pytest.raises(DataError, match="no clip can be trained on"):
        segmenter.run(RECIPE, data=data, out=tmp_path / "out", reporter=Silent())


def test_what_has_no_effect_on_it_is_refused_and_another_run_is_not_overwritten(trained: Path, clips: Path):
    other = replace(RECIPE, train=replace(RECIPE.train, frames=9))
    with pytest.raises(RecipeError, match=r"train\.frames=9"):
        segmenter.run(other, data=clips, out=trained, reporter=Silent())
    with pytest.raises(UsageError, match="another recipe"):
        segmenter.run(replace(RECIPE, seed=6), data=clips, out=trained, reporter=Silent())


def test_the_command_trains_what_the_recipe_says(hm, clips: Path, tmp_path: Path):
    planned = hm("train", "mini/segmenter", "--latents", clips, "--out", tmp_path / "x", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "steps of 24 frames" in planned.stderr
    refused = hm("train", "mini/segmenter", "--latents", clips, "--set", "train.text_dropout=0.2", "--dry-run")
    assert refused.returncode == 2
    assert "train.part=transformer" in refused.stderr
