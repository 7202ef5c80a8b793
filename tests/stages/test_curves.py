"""hm inspect RUN --out: curves of a training, and what is shown while it trains."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training_runs import sets
from warm import WarmCommand, ok

from hmcli.reports.curves import HIGH, WIDE, Panel, draw_curves, running_mean
from hmcli.runtime import Console, Silent, say_beside
from hmcli.stages.inspecting.curves import panels_of


def test_the_curves_of_a_run_are_drawn_also_before_it_is_done(
    hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path
):
    settings = sets("train.held_out=1", "train.batch=1")
    made = hm("train", nano, "--latents", latents, "--out", tmp_path / "run", *settings)
    assert all(word in made.stderr for word in ("loss ", "gradient ", "lr ", "samples/s", " GB"))
    run = ok(made)
    picture = ok(hm("inspect", run, "--out", tmp_path / "curves.png"))
    with Image.open(picture) as opened:
        assert opened.size == (2 * WIDE, 4 * HIGH)  # loss, gradient, rate, held-out loss and errors, pace, memory
    half = shutil.copytree(run, tmp_path / "half")
    (half / "manifest.json").unlink()
    with (half / "steps.jsonl").open("a") as log:
        log.write('{"step": 5, "lo')
    unfinished = ok(hm("inspect", half, "--out", tmp_path / "half.png"))
    assert unfinished.read_bytes() == picture.read_bytes()


def test_only_what_was_trained_has_curves_and_they_are_a_png(hm: WarmCommand, run: Path, latents: Path, tmp_path: Path):
    for line, said in (
        ([latents, "--out", tmp_path / "curves.png"], "there is no log of steps"),
        ([run, "--out", tmp_path / "curves.svg"], "is no PNG"),
        ([run, "--out", tmp_path / "curves.png", "--verify"], "--verify has no effect with --out"),
    ):
        refused = hm("inspect", *line)
        assert refused.returncode == 2
        assert said in refused.stderr
    assert not list(tmp_path.iterdir())


def test_numbers_of_a_log_become_panels_and_what_is_not_finite_is_left_out():
    rows = [
        {"step": 1, "loss": 2.0, "held_out_errors": {"0.9": 1.0, "0.4": 3.0}},
        {"step": 2, "loss": float("nan"), "note": "text"},
        {"step": 3, "loss": 1.0},
        {"step": 0, "held_out_errors": {"0.9": 5.0}, "metrics": {"psnr": 20.0, "following": None}},
        {"step": 1, "held_out_errors": {"0.9": 1.0, "0.4": 3.0}, "at": 1.7e9},
    ]
    assert panels_of(rows) == [
        Panel(title="loss", lines={"": [(1, 2.0), (3, 1.0)]}),
        Panel(title="held out errors", lines={"0.9": [(0, 5.0), (1, 1.0)], "0.4": [(1, 3.0)]}),
        Panel(title="psnr", lines={"": [(0, 20.0)]}),
    ]
    assert panels_of([]) == []
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_curves([])


def blue(panel: Panel) -> list[int]:
    """For each column of the picture, the middle row of what is drawn in the first line's colour; -1: nothing."""
    drawn = (draw_curves([panel]) == np.array([0, 114, 178])).all(axis=2)
    return [int(np.mean(np.flatnonzero(column))) if column.any() else -1 for column in drawn.T]


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0], [1.0, 100.0, 10_000.0]], ids=["linear", "logarithmic"])
def test_a_curve_goes_up_where_values_do_and_is_straight_on_its_axis(values: list[float]):
    """Rows count from the top."""
    rows = [row for row in blue(Panel(title="x", lines={"": list(enumerate(values))})) if row >= 0]
    assert len(rows) > 0.8 * (WIDE - 82)
    assert rows[0] > rows[len(rows) // 2] > rows[-1]
    middle = (rows[0] + rows[-1]) / 2
    assert abs(rows[len(rows) // 2] - middle) <= 3


def test_the_mean_of_the_last_values_stands_on_top():
    assert running_mean([1.0, 3.0, 5.0, 7.0], 2) == [1.0, 2.0, 4.0, 6.0]
    jumping = Panel(title="x", lines={"": [(n, 1.0 + n % 2) for n in range(200)]})
    rows = [row for row in blue(jumping) if row >= 0]
    assert np.ptp(rows[len(rows) // 4 :]) <= 2, "the mean of jumps is flat"


def test_what_stands_beside_the_progress_is_said_with_it():
    console = Console(io.StringIO())
    with console.progress("training", 2, "step") as advance:
        say_beside(console, "loss 0.5")
        advance(2)
    with console.progress("encoding", 1, "clip") as advance:
        advance(1)
    first, second = console.stream.getvalue().splitlines()
    assert first.endswith("s left, loss 0.5")
    assert "loss" not in second
    say_beside(Silent(), "nobody looks")
