"""Subjects of clips without a video are missed by name; a broken file costs the metrics that read it and no other."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hmcli import registry
from hmcli.contracts import StageResult
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.data.annotations import read_annotations
from hmcli.stages.data.opening import open_dataset
from hmcli.stages.parts.merge import run as merge
from hmcli.stages.scoring import evaluate
from hmcli.stages.scoring.clip import INPUTS
from hmcli.stages.shared.shards import Shard


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def score(tmp_path: Path, told: list[str]) -> Any:
    class Notes(Silent):
        def note(self, text: str) -> None:
            told.append(text)

    def score(folder: Path, reference: Path, *metrics: str, out: str = "eval", **options: Any) -> StageResult:
        return evaluate.run(
            load_recipe(None, ["eval.backbone=hog", "eval.detector=''"]), generation=folder, reference=reference,
            metrics=metrics, out=tmp_path / out, reporter=Notes(), **options,
        )  # fmt: skip

    return score


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))


def ids(clips: Path) -> list[str]:
    return [clip.id for clip in open_dataset(clips, load_recipe().poses).clips]


@pytest.fixture
def one_video(clips: Path, tmp_path: Path) -> Path:
    """A folder of somebody's videos that has the first clip's alone."""
    (tmp_path / "theirs").mkdir()
    shutil.copy(clips / ids(clips)[0] / "tgt.mp4", tmp_path / "theirs" / f"{ids(clips)[0]}.mp4")
    return tmp_path / "theirs"


def test_subjects_of_clips_without_a_video_are_listed_with_how_often_they_should_be_back(
    score: Any, clips: Path, one_video: Path, told: list[str]
):
    result = score(one_video, clips, "psnr")
    wanted = []
    for clip in ids(clips)[1:]:
        frames = len(json.loads((clips / clip / "camera.json").read_text())["cond_cam"])
        for state in read_annotations(clips / clip).subjects:
            back = [of for of in state.hidden if of.certified and not of.absent and frames <= of.last + 1]
            back = [of for of in back if of.last + 1 < len(state.position)]
            wanted.append((clip, state.name, state.family, str(len(back)), "the folder has no video of this clip"))
    assert wanted
    assert [tuple(row.values()) for row in rows_of(result.path / "missed.csv")] == wanted
    assert result.counts["missed_subjects"] == len(wanted)
    returns = sum(int(row[3]) for row in wanted)
    assert any(note.startswith(f"{len(wanted)} subjects of") and f"{returns} re-entries" in note for note in told)


def test_where_no_clip_is_missing_nobody_is(score: Any, clips: Path, generation: Path):
    result = score(generation, clips, "psnr")
    assert not (result.path / "missed.csv").exists()
    assert "missed_subjects" not in result.counts


def test_a_clip_whose_subjects_cannot_be_read_is_missed_without_names(
    score: Any, clips: Path, one_video: Path, tmp_path: Path
):
    data = shutil.copytree(clips, tmp_path / "data")
    (data / ids(clips)[1] / "subjects.json").write_text("{")
    row = next(row for row in rows_of(score(one_video, data, "psnr").path / "missed.csv") if not row["subject"])
    assert row["clip"] == ids(clips)[1]
    assert "its subjects are not known" in row["reason"]


def test_parts_miss_what_the_whole_misses(score: Any, clips: Path, one_video: Path, tmp_path: Path):
    whole = score(one_video, clips, "psnr")
    parts = [score(one_video, clips, "psnr", out=f"part{n}", shard=Shard(index=n, of=2)).path for n in range(2)]
    merged = merge(tuple(parts), out=tmp_path / "merged", reporter=Silent())
    assert (merged.path / "missed.csv").read_text() == (whole.path / "missed.csv").read_text()
    assert merged.counts == whole.counts


BROKEN = {"tgt_instances.mp4": "masks", "depth.npz": "depth"}


@pytest.mark.parametrize("file", BROKEN)
def test_a_broken_mask_or_depth_costs_the_metrics_that_need_it_by_name_and_no_other(
    file: str, score: Any, clips: Path, generation: Path, tmp_path: Path
):
    data, first = shutil.copytree(clips, tmp_path / "data"), ids(clips)[0]
    place = data / first / file
    place.write_bytes(place.read_bytes()[:100])
    result = score(generation, data)
    failed = {row["metric"].partition(" ")[0] for row in rows_of(result.path / "per_clip.csv") if
              (row["clip"], row["status"]) == (first, "failed")}  # fmt: skip
    computed = {entry["metric"] for entry in json.loads((result.path / "scores.json").read_text())["metrics"].values()}
    assert failed == {name for name in computed if BROKEN[file] in registry.find("metric", name).needs} != set()
    assert result.counts["failed"] == len(failed)
    assert {of.item.partition(".")[0] for of in result.quarantined} == {first}


@pytest.mark.parametrize("metrics", [(), ("consistency",)])
def test_without_the_truth_there_are_only_columns_that_need_none(
    metrics: tuple[str, ...], score: Any, one_video: Path, told: list[str]
):
    result = score(one_video, None, *(f"subject-{name}" for name in metrics))
    names = {of["metric"] for of in json.loads((result.path / "scores.json").read_text())["metrics"].values()}
    free = {"subject-consistency", "background-consistency", "motion-amount", "drift-sharpness", "drift-colour"}
    assert names == ({"subject-consistency"} if metrics else free)
    for name in names:
        assert not any(INPUTS[need].of_reference for need in registry.find("metric", name).needs)
    assert any("only what needs no truth is scored" in note for note in told)
