"""Features and flow are made once of the same pixels by the same network, in a run and over runs; else anew."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_clip import write_random_clip

from hmcli.errors import DataError
from hmcli.metrics import motion, revisited
from hmcli.metrics.backbones.hog import Hog
from hmcli.metrics.backbones.regions import ClipRegions, clip_regions
from hmcli.metrics.contract import Detection
from hmcli.metrics.dsc import crop_features
from hmcli.metrics.revisited import background_revisited
from hmcli.recipe.reading import load_recipe
from hmcli.registry import find
from hmcli.runtime import Silent
from hmcli.stages.bench import rows
from hmcli.stages.rendering import render
from hmcli.stages.sampling.generations import open_generation
from hmcli.stages.scoring import evaluate, features
from hmcli.stages.scoring.features import Features
from hmcli.stages.scoring.plan import Plan
from hmcli.store.arrays_kept import ArrayStore

FRAMES = np.random.default_rng(3).integers(0, 255, (3, 40, 60, 3), np.uint8)
BOX = np.array([[4.0, 5.0, 30.0, 35.0]])


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The pixels that the backbone hog has looked at, by call."""
    seen: list[bytes] = []
    real = Hog.__call__

    def watched(hog: Hog, frames: np.ndarray) -> np.ndarray:
        seen.append(frames.tobytes())
        return real(hog, frames)

    monkeypatch.setattr(Hog, "__call__", watched)
    return seen


@pytest.fixture
def plan(generation: Path) -> Plan:
    recipe = load_recipe(None, ["eval.backbone=hog"])
    plan = Plan(
        generated=open_generation(generation, recipe.poses), clips=(), reference=None, columns=(),
        settings=recipe.eval, device="cpu", versions={"hmcli": "1"},
    )  # fmt: skip
    plan.__dict__["backbones"] = {"hog": Hog()}
    return plan


def features_of(plan: Plan, frames: np.ndarray) -> np.ndarray:
    of_clip = Features(plan, ArrayStore())
    found = of_clip.backbone("hog")(frames)
    of_clip.flush()
    return found


def test_features_are_found_again_as_they_were_made(plan: Plan, made: list[bytes]):
    first = features_of(plan, FRAMES)
    again = features_of(plan, FRAMES.copy())
    assert len(made) == 1
    assert (again.dtype, again.tobytes()) == (first.dtype, first.tobytes())
    np.testing.assert_array_equal(first, Hog()(FRAMES))


def other_weights(plan: Plan) -> None:
    plan.backbones["hog"].about["weights"] = "others"


def other_preprocessing(plan: Plan) -> None:
    plan.backbones["hog"].about["resize"] = "another"


def another_name(plan: Plan) -> None:
    plan.backbones["hog"].name = "hog2"


CHANGES: dict[str, Callable[[Plan], Any]] = {
    "weights": other_weights,
    "preprocessing": other_preprocessing,
    "backbone": another_name,
    "versions": lambda plan: dataclasses.replace(plan, versions={"hmcli": "2"}),
    "device": lambda plan: dataclasses.replace(plan, device="cuda:1"),
    "asked to": lambda plan: dataclasses.replace(plan, fresh=True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_features_are_made_anew_where_what_made_them_changes(change: str, plan: Plan, made: list[bytes]):
    features_of(plan, FRAMES)
    changed = CHANGES[change](plan) or plan
    changed.__dict__["backbones"] = plan.backbones
    features_of(changed, FRAMES)
    assert len(made) == 2


def test_features_are_made_anew_where_the_code_changes(plan: Plan, made: list[bytes], monkeypatch: pytest.MonkeyPatch):
    features_of(plan, FRAMES)
    monkeypatch.setattr(features, "code_of", lambda made_by: "other code")
    features_of(plan, FRAMES)
    assert len(made) == 2


def test_code_is_of_all_modules_that_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_backbone.py").write_text("from my_network import network\n\ndef factory():\n    return network\n")
    (tmp_path / "my_network.py").write_text("network = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    factory = __import__("my_backbone").factory
    before = features.code_of.__wrapped__(factory)
    (tmp_path / "my_network.py").write_text("network = 2\n")
    assert features.code_of.__wrapped__(factory) != before
    assert features.code_of.__wrapped__(len) == ""  # in no file: kept for the clip alone


@pytest.mark.parametrize("changed", ["pixel", "frames", "shape"])
def test_features_are_made_anew_of_other_pixels(changed: str, plan: Plan, made: list[bytes]):
    features_of(plan, FRAMES)
    other = FRAMES.copy()
    other[1, 7, 8, 2] ^= 1
    features_of(plan, {"pixel": other, "frames": FRAMES[:2], "shape": FRAMES.reshape(3, 60, 40, 3)}[changed])
    assert len(made) == 2


def test_features_of_a_crop_are_those_of_its_box(plan: Plan, made: list[bytes]):
    of_clip = Features(plan, ArrayStore())
    for moved in (0.0, 0.0, 1.0):
        crop_features(FRAMES[:1], BOX + moved, of_clip.backbone("hog"))
    assert len(made) == 2


def test_features_of_a_region_are_made_anew_for_another_box(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    network, boxes = clip_regions(str(write_random_clip(tmp_path / "vision")), "cpu"), BOX.repeat(3, axis=0)
    plan.__dict__["backbones"] = {network.name: network}
    asked: list[bytes] = []
    real = ClipRegions.__call__

    def watched(of: ClipRegions, frames: np.ndarray, box_n4: np.ndarray) -> np.ndarray:
        asked.append(box_n4.tobytes())
        return real(of, frames, box_n4)

    monkeypatch.setattr(ClipRegions, "__call__", watched)
    for given in (boxes, boxes, boxes + 1, boxes):
        of_clip = Features(plan, ArrayStore())
        np.testing.assert_array_equal(of_clip.regions(network.name)(FRAMES, given), real(network, FRAMES, given))
        of_clip.flush()
    assert asked == [boxes.tobytes(), (boxes + 1).tobytes()]


METRICS = ("subject-consistency", "dsc-ctx", "dsc-gt", "motion-amount", "camera-following", "camera-followed")


def scored(generation: Path, clips: Path, out: Path, **options: Any) -> dict[str, bytes]:
    done = evaluate.run(
        load_recipe(None, ["eval.backbone=hog"]), generation=generation, reference=clips, metrics=METRICS, out=out,
        reporter=Silent(), **options,
    ).path  # fmt: skip
    return {file.name: file.read_bytes() for file in (done / "frames").iterdir()}


def test_a_run_makes_everything_once_and_another_run_nothing(
    generation: Path, clips: Path, tmp_path: Path, made: list[bytes], monkeypatch: pytest.MonkeyPatch
):
    flows: list[bytes] = []
    real = motion.pair_flow

    def watched(video: np.ndarray) -> np.ndarray:
        flows.append(video.tobytes())
        return real(video)

    watched.__module__ = real.__module__
    monkeypatch.setattr(motion, "pair_flow", watched)
    first = scored(generation, clips, tmp_path / "one")
    count = len(list((generation / "videos").iterdir()))
    assert len(made) == len(set(made)) > count
    assert len(flows) == len(set(flows)) == 2 * count  # of predictions and references, for three metrics
    made.clear()
    flows.clear()
    assert scored(generation, clips, tmp_path / "two") == first
    assert made == flows == []
    assert scored(generation, clips, tmp_path / "two", force=True) == first
    assert made
    assert flows
    assert scored(generation, clips, tmp_path / "three", force=True, processes=2) == first


def test_what_metrics_share_none_of_them_can_change(plan: Plan):
    of_clip = Features(plan, ArrayStore())
    for found in (of_clip.backbone("hog")(FRAMES), features_of(plan, FRAMES), features_of(plan, FRAMES)):
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 0


# --- what a metric makes of its reference alone -----------------------------------------------------------------------


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Frames of each target whose revisited background was looked for."""
    found: list[int] = []
    real = revisited.revisited

    def watched(boxes: Any, tracks: Any, cameras: Any, depth: Any) -> np.ndarray:
        found.append(len(depth.target_THW))
        return real(boxes, tracks, cameras, depth)

    watched.__module__ = real.__module__
    one = dataclasses.replace(background_revisited, shared=watched)
    monkeypatch.setattr(evaluate, "find", lambda kind, name: one if name == one.name else find(kind, name))
    return found


def test_revisited_background_is_looked_for_once_for_all_models(looked: list[int], tmp_path: Path):
    small = ["clips=1", "context_frames=33", "target_frames=25", "hidden_seconds=0.6", "visible_seconds=0.8"]
    recipe = load_recipe("nano/clips", [f"world.{setting}" for setting in small])
    data = render.run(recipe, out=tmp_path / "data", device="cpu", reporter=Silent()).path
    rows.run(data, out=tmp_path / "rows", rows=("truth", "last-frame"), reporter=Silent())

    def score(row: str, out: str, **options: Any) -> float:
        done = evaluate.run(
            load_recipe(), generation=tmp_path / "rows" / row, reference=data, out=tmp_path / out,
            metrics=(background_revisited.name,), reporter=Silent(), **options,
        ).path  # fmt: skip
        (of,) = json.loads((done / "scores.json").read_text())["metrics"].values()
        return float(of["mean"])

    truth, other = score("truth", "one"), score("last-frame", "two")
    assert looked == [25]
    assert truth > other + 3
    assert score("last-frame", "three", force=True) == other
    assert looked == [25, 25]
    clip = next(folder for folder in data.iterdir() if (folder / "depth.npz").is_file())
    held = dict(np.load(clip / "depth.npz"))
    np.savez_compressed(clip / "depth.npz", **{name: of[::-1] if of.ndim == 3 else of for name, of in held.items()})
    score("last-frame", "four")
    assert looked == [25, 25, 25], "other depth"


# --- what a detector sees ---------------------------------------------------------------------------------------------


class Finder:
    """Sees somebody in every frame but the first: by a mask, and once more by a box alone."""

    name = "segmenter"

    def __init__(self, weights: str = "1") -> None:
        self.about = {"weights": weights}
        self.looked = 0

    def __call__(self, frames: np.ndarray) -> list[list[Detection]]:
        self.looked += 1
        masks = frames[..., 0] > 200
        surest = [Detection(box_4=np.array([1, 2, 9.5, 8]), score=1 / 3, mask_HW=mask) for mask in masks[1:]]
        return [[], *([one, Detection(box_4=np.array([0.0, 0, 4, 4]), score=0.25)] for one in surest)]


def seen(plan: Plan, finder: Finder, frames: np.ndarray = FRAMES) -> list[list[Detection]]:
    plan.__dict__["detector"] = finder
    of_clip = Features(plan, ArrayStore())
    found = of_clip.seen(frames)
    of_clip.flush()
    return found


def test_detections_are_found_again_to_the_bit(plan: Plan):
    finder = Finder()
    again = [seen(plan, finder) for _ in range(2)][1]
    assert finder.looked == 1
    for found, made_of in zip(again, finder(FRAMES), strict=True):
        for one, wanted in zip(found, made_of, strict=True):
            assert one.box_4.tolist() == wanted.box_4.tolist()
            assert one.score == wanted.score
            assert (one.mask_HW is None) == (wanted.mask_HW is None)
            assert wanted.mask_HW is None or np.array_equal(one.mask_HW, wanted.mask_HW)
    assert sum(map(len, again)) == 4


def test_nothing_seen_is_found_again_too(plan: Plan):
    assert [seen(plan, Finder(), FRAMES[:1]) for _ in range(2)] == [[[]], [[]]]


def test_detections_are_made_anew_by_other_weights_and_of_other_pixels(plan: Plan):
    seen(plan, Finder())
    seen(plan, other := Finder("2"))
    other_frames = FRAMES.copy()
    other_frames[1, 7, 8, 0] ^= 255
    seen(plan, other, other_frames)
    seen(dataclasses.replace(plan, fresh=True), other, other_frames)
    assert other.looked == 3


def test_what_a_detector_must_not_return_is_refused_before_it_is_kept(plan: Plan, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Finder, "__call__", lambda finder, frames: [])
    with pytest.raises(DataError, match="0 lists for 3 frames"):
        seen(plan, Finder())
