"""Scores by what clips and stretches are like: against means formed by hand, and through `hm eval`."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hmcli.metrics.contract import Metric
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.data.opening import read_rows
from hmcli.stages.scoring import evaluate
from hmcli.stages.scoring.layout import SLICE_COLUMNS, StretchRow, Values
from hmcli.stages.scoring.slices import HEIGHTS, SECONDS, class_of, index_of, slice_table
from hmcli.world.files.tables import RenderedRow
from hmcli.world.staging.splits import is_held_out


def about(clip: str, *subjects: str, trajectory: str = "pan_left", split: str | None = "easy") -> RenderedRow:
    return RenderedRow(
        id=clip, seed=1, index=0, draw=0, scene="meadow", subjects=subjects, paths=(), trajectory=trajectory, fps=10,
        context_frames=9, target_frames=9, hidden={}, caption="", caption_plain="", split=split,
    )  # fmt: skip


def values(clip: str, metric: str, *found: float | None, stretches: tuple[StretchRow, ...] | None = None) -> Values:
    return Values(format=1, clip=clip, metric=metric, unit="", first_frame=0, values=found, stretches=stretches)


def stretch(seconds: float, reason: str = "occluded", **more: Any) -> StretchRow:
    return StretchRow(subject="s", first=3, last=8, reason=reason, absent=False, hidden_seconds=seconds, **more)


def metric(**changes: Any) -> Metric:
    said = {"name": "m", "function": lambda: None, "needs": (), "unit": "dB", "definition": "d"} | changes
    return Metric(**said)


def sliced(found: list[Values], of: Metric, *index: RenderedRow, average: Any = "frames") -> dict[tuple[str, str], Any]:
    rows = list(slice_table(found, {"m": of}, average, {row.id: row for row in index}))
    assert all(tuple(row) == SLICE_COLUMNS for row in rows)
    return {(row["slice"], row["class"]): (row["value"], row["values"], row["clips"]) for row in rows}


def test_an_edge_belongs_to_the_class_that_it_begins():
    assert [class_of(value, SECONDS) for value in (0, 0.49, 0.5, 8, 99)] == [
        "0 to 0.5", "0 to 0.5", "0.5 to 1", "8+", "8+",
    ]  # fmt: skip
    assert [class_of(value, HEIGHTS) for value in (0.24, 0.25, 0.5)] == ["0 to 0.25", "0.25 to 0.5", "0.5+"]


def test_stretches_are_sliced_each_by_itself():
    rows = (stretch(0.7, family="dog", height=0.3), stretch(3.0, "left the frame", family="king", height=0.6))
    found = sliced(
        [values("a", "m", 1.0, 5.0, stretches=rows), values("b", "m", 2.0, stretches=rows[:1])],
        metric(per="stretch"), about("a", "dog", "king"), about("b", "dog"),
    )  # fmt: skip
    assert found["hidden seconds", "0.5 to 1"] == (1.5, 2, 2)
    assert found["hidden seconds", "2 to 4"] == (5.0, 1, 1)
    assert found["reason", "occluded"] == (1.5, 2, 2)
    assert found["height", "0.25 to 0.5"] == (1.5, 2, 2)
    assert found["subjects", "2"] == (3.0, 2, 1)
    assert (is_held_out("dog"), is_held_out("king")) == (False, True)
    assert found["families", "unseen"] == (5.0, 1, 1)
    assert found["families", "seen"] == (1.5, 2, 2)


def test_frames_are_sliced_by_their_clip_as_means_are_formed():
    found = [values("a", "m", 1.0, None, 3.0), values("b", "m", 8.0), values("c", "m")]
    index = [about("a", "dog"), about("b", "dog", "fox", "pig", "cow", split="hard"), about("c", "dog")]
    got = sliced(found, metric(partial=True), *index)
    assert got["split", "easy"] == (2.0, 2, 1)
    assert got["split", "hard"] == (8.0, 1, 1)
    assert got["subjects", "3+"] == (8.0, 1, 1)
    assert got["camera", "seen"] == (4.0, 3, 2)
    assert sliced(found, metric(partial=True), *index, average="videos")["camera", "seen"] == (5.0, 3, 2)


def test_what_is_pooled_is_pooled_in_every_slice():
    def ratio(parts: np.ndarray) -> float:
        right, claimed = parts.sum(axis=0)
        return float(right / claimed) if claimed else math.nan

    of = metric(per="clip", parts=("right", "claimed"), pooled=ratio)
    found = [values("a", "m", 1.0, 2.0), values("b", "m", 3.0, 3.0), values("c", "m", 0.0, 0.0)]
    got = sliced(found, of, about("a", "dog"), about("b", "dog"), about("c", "dog", split="hard"))
    assert got["split", "easy"] == (0.8, 2, 2)
    assert got["split", "hard"] == ("", 1, 1)


def test_of_clips_that_nobody_describes_only_stretches_are_sliced():
    assert sliced([values("a", "m", 1.0)], metric()) == {}
    found = sliced([values("a", "m", 1.0, stretches=(stretch(0.7),))], metric(per="stretch"))
    assert set(found) == {("hidden seconds", "0.5 to 1"), ("reason", "occluded")}
    assert index_of("") == {}


def test_an_evaluation_writes_its_slices(generation: Path, clips: Path, tmp_path: Path):
    done = evaluate.run(
        load_recipe(), generation=generation, reference=clips, metrics=("psnr", "psnr-stretch"), out=tmp_path / "e",
        reporter=Silent(),
    ).path  # fmt: skip
    with (done / "slices.csv").open() as file:
        rows = {(row["metric"], row["slice"], row["class"]): row for row in csv.DictReader(file)}
    with (done / "per_stretch.csv").open() as file:
        stretches = list(csv.DictReader(file))
    assert {row["family"] for row in stretches} <= {of for row in read_rows(clips).values() for of in row.subjects}
    assert all(0 < float(row["height"]) <= 1 for row in stretches)
    for reason in {row["reason"] for row in stretches}:
        own = [float(row["value"]) for row in stretches if row["reason"] == reason]
        assert float(rows["psnr-stretch", "reason", reason]["value"]) == pytest.approx(np.mean(own))
        assert rows["psnr-stretch", "reason", reason]["values"] == str(len(own))
    splits = {row.split for row in read_rows(clips).values()}
    assert {kind for metric, name, kind in rows if (metric, name) == ("psnr", "split")} == splits
