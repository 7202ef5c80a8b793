"""hm eval of returned subjects: whose boxes are read, how they are framed, and what a clip without any counts as."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_generations as small
from sealing import edit

from hmcli.contracts import StageResult
from hmcli.errors import UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import DataConfig, SplitConfig
from hmcli.runtime import Silent
from hmcli.stages.scoring import evaluate
from hmcli.stages.scoring import videos as generated_videos
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.files import write_json, write_json_lines
from hmcli.store.hashing import hash_json
from hmcli.store.manifest import read_manifest
from hmcli.store.video import read_video, write_video
from hmcli.world.files.schema import Box, HiddenStretch, SubjectState, states_json
from hmcli.world.views.cameras import unreal_from_world
from hmcli.world.views.framing import resize_frames

SOURCE, SIZE = (40, 80), (16, 24)  # height, width of the clips and of what is compared
CONTEXT, TARGET = 9, 5  # frames
BOX = (20, 10, 40, 30)  # pixels of the source
FRAMED = {"crop": (slice(4, 12), slice(4, 12)), "stretch": (slice(4, 12), slice(6, 12))}  # the same, by hand
NAME = "psnr-returned"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def stretch(first: int, last: int, *, certified: bool = True, absent: bool | None = False) -> HiddenStretch:
    return HiddenStretch(
        first=first, last=last, reason="left the frame", certified=certified, absent=absent, visible_seconds=1.0,
        shown_seconds=1.0, hidden_seconds=1.0, error_degrees={}, error_metres={}, error_bodies={}, law="still",
    )  # fmt: skip


def subject(
    *hidden: HiddenStretch, number: int = 1, frames: int = CONTEXT + TARGET, shown: Callable[[int], Box | None] | None
) -> SubjectState:
    """A subject with a box in every frame, or where `shown` has one."""
    boxes = tuple(BOX if shown is None else shown(frame) for frame in range(frames))
    return SubjectState(
        name=f"subject {number}", number=number, family="fox", kind="animal", height=0.4, body_length=0.9, radius=0.2,
        path="line", speed=1.5, position=np.zeros((frames, 3)), heading=np.zeros(frames), phase=np.zeros(frames),
        box=boxes, amodal_box=boxes, visible=np.ones(frames), hidden=hidden,
    )  # fmt: skip


HIDDEN = stretch(6, 10)  # so that it is back in frame 2 of the target
BACK = subject(HIDDEN, shown=None)


def picture(frames: int, seed: int) -> np.ndarray:
    cells = np.random.default_rng(seed).integers(40, 216, (frames, SOURCE[0] // 8, SOURCE[1] // 8, 3), np.uint8)
    return cells.repeat(8, axis=1).repeat(8, axis=2)


def make(
    root: Path, clips: dict[str, list[SubjectState] | None], target: int = TARGET, **framing: Any
) -> tuple[Path, Path]:
    """A data set of clips with these subjects (None: without annotations), and a generation: its targets with noise."""
    data = dataclasses.replace(DataConfig(), size=SIZE, **framing)
    for seed, (clip, states) in enumerate(clips.items()):
        place = root / "data" / clip
        place.mkdir(parents=True)
        for name, frames, camera in (("cond", CONTEXT, seed), ("tgt", target, seed + 50)):
            write_video(place / f"{name}.mp4", picture(frames, camera), fps=15, quality="lossless")
        still = {n: unreal_from_world(np.tile(np.eye(4), (f, 1, 1))) for n, f in (("cond", CONTEXT), ("tgt", target))}
        cameras = {f"{n}_cam": {str(i): m.tolist() for i, m in enumerate(poses)} for n, poses in still.items()}
        write_json(place / "camera.json", cameras)
        if states is not None:
            write_json(place / "subjects.json", states_json(states))
    rows = []
    with ArtifactWriter(
        root / "gen", "generation", recipe={"sample": {}}, inputs={}, seed=0, reporter=Silent()
    ) as writer:
        for seed, clip in enumerate(clips):
            true = resize_frames(true_frames(root, clip, data), SIZE, data.fit)
            noise = np.random.default_rng(seed).normal(0, 12, true.shape)
            with writer.item_file(clip, hash_json([clip]), suffix=".mp4", parent="videos") as place:
                write_video(place, np.clip(true + noise, 0, 255).astype(np.uint8), fps=15, quality="near-lossless")
            rows.append(small.row(clip, len(true), *SIZE))
        write_json_lines(writer.staged / "generations.jsonl", rows)
        writer.finish(list(clips), attributes=small.attributes(data, source=root / "data"))
    return root / "data", root / "gen"


def true_frames(root: Path, clip: str, data: DataConfig) -> np.ndarray:
    if data.split:
        return read_video(root / "data" / clip / "cond.mp4")[data.split.context :][: data.split.target]
    target = read_video(root / "data" / clip / "tgt.mp4")
    keep = {"refuse": len(target), "trim": 5, "pad": 9}[data.frames]
    return np.concatenate([target, target[-1:].repeat(9, axis=0)])[:keep]


def evaluated(generation: Path, out: Path, **options: Any) -> StageResult:
    given = {"reference": None, "metrics": (NAME,), "reporter": Silent(), **options}
    return evaluate.run(load_recipe(None, ["eval.backbone=hog"]), generation=generation, out=out, **given)


def frames(result: StageResult, clip: str = "one") -> dict[str, Any]:
    return json.loads((result.path / "frames" / f"{clip}.{NAME}.json").read_text())


def score(result: StageResult) -> dict[str, Any]:
    return json.loads((result.path / "scores.json").read_text())["metrics"][NAME]


def judged(root: Path, states: list[SubjectState], **framing: Any) -> list[bool]:
    """Which target frames of a clip with these subjects are judged."""
    _, generation = make(root, {"one": states}, **framing)
    return [value is not None for value in frames(evaluated(generation, root / "eval"))["values"]]


# --- which pixels of which frames ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_the_box_is_framed_as_the_frames_are(fit: str, tmp_path: Path):
    data, generation = make(tmp_path, {"one": [BACK]}, fit=fit)
    result = evaluated(generation, tmp_path / "eval")
    made = read_video(generation / "videos" / "one.mp4").astype(float)
    true = resize_frames(read_video(data / "one" / "tgt.mp4"), SIZE, fit).astype(float)
    expected = [10 * np.log10(255**2 / ((made - true)[t][FRAMED[fit]] ** 2).mean()) for t in range(2, TARGET)]
    values = frames(result)["values"]
    assert values[:2] == [None, None]
    assert values[2:] == pytest.approx(expected, rel=1e-12)
    assert score(result)["mean"] == pytest.approx(np.mean(expected), rel=1e-12)
    assert (score(result)["n"], score(result)["frames"], score(result)["not_judged"]) == (1, 3, 0)


def test_a_subject_counts_from_its_return_on_while_its_box_is_in_the_picture(tmp_path: Path):
    gone_again = subject(HIDDEN, stretch(13, 13, certified=False), shown=lambda t: None if t in (9, 13) else BOX)
    assert judged(tmp_path / "gone", [gone_again]) == [False, False, True, True, False]
    later = subject(stretch(5, 11), number=2, shown=None)
    assert judged(tmp_path / "two", [gone_again, later]) == [False, False, True, True, True]
    cut_away = subject(HIDDEN, shown=lambda t: (0, 10, 10, 30) if t < 12 else (0, 10, 11, 30))  # crop leaves 10 to 70
    assert judged(tmp_path / "cut", [cut_away]) == [False, False, False, True, True]


@pytest.mark.parametrize(
    "hidden",
    [stretch(6, 13, certified=False, absent=True), stretch(6, 10, absent=True), stretch(6, 10, certified=False)],
)
def test_a_stretch_that_is_not_certified_or_says_absent_brings_nobody_back(hidden: HiddenStretch, tmp_path: Path):
    _, generation = make(tmp_path, {"one": [subject(hidden, shown=None)]})
    assert "no subject comes back" in frames(evaluated(generation, tmp_path / "eval"))["not_judged"]


def test_a_stretch_from_before_absence_was_measured_counts(tmp_path: Path):
    assert judged(tmp_path, [subject(stretch(6, 10, absent=None), shown=None)]) == [False, False, True, True, True]


def test_boxes_are_cut_to_length_as_the_target_is(tmp_path: Path):
    seven = subject(stretch(6, 12), frames=CONTEXT + 7, shown=lambda t: None if t == 15 else BOX)
    assert judged(tmp_path / "trim", [seven], target=7, frames="trim") == [False] * 4 + [True]
    assert judged(tmp_path / "pad", [seven], target=7, frames="pad") == [False] * 4 + [True, True] + [False] * 3


def test_a_clip_cut_from_the_context_has_the_contexts_boxes(tmp_path: Path):
    back_in_context = subject(stretch(2, 5), shown=lambda t: BOX if t < CONTEXT else None)
    split = SplitConfig(context=1, target=5)  # frames 1 to 5 of the context, then 6 and 7
    assert judged(tmp_path / "hidden", [back_in_context], split=split) == [False] * 5
    seen = dataclasses.replace(back_in_context, hidden=(stretch(2, 3),))
    assert judged(tmp_path / "seen", [seen], split=split) == [False] * 3 + [True] * 2


# --- clips with nothing to judge -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> tuple[Path, Path]:
    """Three clips; in the second nobody comes back, the third has a subject less."""
    nobody = subject(stretch(6, 13, certified=False, absent=True), shown=None)
    return make(tmp_path_factory.mktemp("mixed"), {"one": [BACK], "two": [nobody], "three": []})


def test_a_clip_with_nothing_to_judge_is_no_failure_and_no_zero_and_is_counted_everywhere(mixed, tmp_path: Path):
    notes = Notes()
    result = evaluated(mixed[1], tmp_path / "eval", metrics=(NAME, "psnr"), reporter=notes)
    found = score(result)
    assert (found["n"], found["failed"], found["not_judged"]) == (1, 0, 2)
    assert [one["clip"] for one in found["unjudged"]] == ["two", "three"]
    assert found["mean"] == pytest.approx(np.mean(frames(result)["values"][2:]), rel=1e-12)
    assert result.quarantined == ()
    assert result.counts == {"clips": 3, "scores": 4, "failed": 0, "not_judged": 2}
    with (result.path / "per_clip.csv").open(newline="") as file:
        rows = {row["clip"]: row for row in csv.DictReader(file) if row["metric"] == NAME}
    assert [rows[clip]["status"] for clip in ("one", "two", "three")] == ["ok", "not judged", "not judged"]
    assert (rows["two"]["value"], rows["two"]["frames"]) == ("", "0")
    assert "no subject comes back" in rows["two"]["reason"]
    card = (result.path / "protocol.md").read_text()
    assert "## Not judged" in card
    assert "| psnr-returned | two | no subject comes back" in card
    assert "Left out of the means" not in card
    assert any(text.startswith(NAME) and text.endswith("(1 clips, 3 frames, 2 not judged)") for text in notes.said)


def test_where_no_clip_has_anything_to_judge_there_is_no_mean_and_no_failure(tmp_path: Path):
    _, generation = make(tmp_path, {"one": [subject(shown=None)]})
    result = evaluated(generation, tmp_path / "eval")
    assert (score(result)["mean"], score(result)["n"], score(result)["failed"]) == (None, 0, 0)
    assert result.quarantined == ()


def test_a_clip_that_is_not_judged_is_not_looked_at_again(mixed, tmp_path: Path):
    evaluated(mixed[1], tmp_path / "eval")
    notes = Notes()
    evaluated(mixed[1], tmp_path / "eval", reporter=notes)
    assert "3 items kept" in notes.said


def test_changed_annotations_make_the_values_anew_and_no_others(tmp_path: Path):
    data, generation = make(tmp_path, {"one": [BACK], "two": [BACK]})
    first = evaluated(generation, tmp_path / "eval", metrics=(NAME, "psnr"))
    earlier = subject(stretch(6, 9), shown=None)
    write_json(data / "two" / "subjects.json", states_json([earlier]))
    notes = Notes()
    again = evaluated(generation, tmp_path / "eval", metrics=(NAME, "psnr"), reporter=notes)
    assert "3 items kept" in notes.said
    assert "1 items stale: redone" in notes.said
    assert again.fingerprint != first.fingerprint
    assert frames(again, "two")["values"][1] is not None


def test_annotations_that_change_while_they_are_used_give_no_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data, generation = make(tmp_path, {"one": [BACK]})
    read = generated_videos.read_video

    def changes_them(video: Any) -> np.ndarray:
        write_json(data / "one" / "subjects.json", states_json([subject(stretch(6, 9), shown=None)]))
        return read(video)

    monkeypatch.setattr(generated_videos, "read_video", changes_them)
    (failure,) = score(evaluated(generation, tmp_path / "eval"))["failures"]
    assert "changed while" in failure["reason"]


# --- data without annotations ----------------------------------------------------------------------------------------


def test_without_annotations_the_metric_is_left_out_with_a_note(tmp_path: Path):
    _, generation = make(tmp_path, {"one": None})
    notes = Notes()
    result = evaluated(generation, tmp_path / "eval", metrics=(), reporter=notes)
    assert NAME not in json.loads((result.path / "scores.json").read_text())["metrics"]
    assert any(
        text.startswith(f"without {NAME}, ") and ": no clip of " in text and "subjects.json" in text
        for text in notes.said
    )
    assert NAME not in read_manifest(result.path).recipe["eval"]["metrics"]


def test_without_annotations_the_metric_asked_for_is_refused_by_what_is_missing(tmp_path: Path):
    _, generation = make(tmp_path, {"one": None})
    with pytest.raises(UsageError, match=r"psnr-returned needs boxes, and no clip of .* has subjects.json"):
        evaluated(generation, tmp_path / "eval")


def test_a_clip_that_alone_lacks_annotations_fails_and_says_so(tmp_path: Path):
    _, generation = make(tmp_path, {"one": [BACK], "two": None})
    (failure,) = score(evaluated(generation, tmp_path / "eval"))["failures"]
    assert failure["clip"] == "two"
    assert "its reference has no subjects.json" in failure["reason"]


def test_annotations_of_another_length_or_damaged_fail_by_name(tmp_path: Path):
    short = subject(HIDDEN, frames=CONTEXT + TARGET - 1, shown=None)
    data, generation = make(tmp_path, {"one": [BACK], "two": [short], "three": [BACK]})
    edit(data / "three" / "subjects.json", lambda values: values["subject 1"].pop("amodal_box"))
    reasons = {one["clip"]: one["reason"] for one in score(evaluated(generation, tmp_path / "eval"))["failures"]}
    assert "subjects.json is of 13 frames, the clip has 14" in reasons["two"]
    assert "the keys are" in reasons["three"]
