"""The benchmark of the renderer runs, at a tiny size, and counts what it says it counts."""

from __future__ import annotations

import json
import math
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from benchmark_files import load_benchmark

from hmcli.stages.rendering import clips
from hmcli.world import render
from hmcli.world.render import draw_clip, draw_clips
from hmcli.world.staging.clip import describe_clip

PROJECT = Path(__file__).resolve().parents[2]
NAME = "python benchmarks/render.py"
SIZE = (16, 24)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_benchmark("render")


@pytest.fixture(scope="module")
def work(benchmark):
    return benchmark.Work(size=SIZE, frames=66, seed=3, clips=2)


def test_clips_have_the_frames_asked_for_and_differ(work):
    one, other = work.described()
    assert one.frames == other.frames == 66
    assert one.context_frames % 4 == one.target_frames % 4 == 1
    assert one.scene.family != other.scene.family


def test_what_drawing_takes_is_counted_clip_by_clip(benchmark, work):
    spent = benchmark.draw(work)
    assert len(spent) == 2
    for one in spent:
        assert one.processor_seconds > 0
        assert one.seconds > 0
        assert one.peak_bytes > 2**26


def test_what_testing_every_shape_takes_is_counted(benchmark, work):
    assert benchmark.plain_frame(work.described()[0], SIZE, 0) > 0


def test_the_first_frames_of_a_clip_are_those_of_the_clip(benchmark, work):
    clip = work.described()[0]
    some = draw_clip(benchmark.first_frames(clip, 5), SIZE)
    np.testing.assert_array_equal(some.rgb, draw_clip(clip, SIZE).rgb[:5])


def test_growth_is_that_of_the_clock_in_frames_and_in_clips(benchmark, work, monkeypatch):
    """The clock ticks once a drawn frame, so drawing would take a time in proportion to frames and to clips."""
    clock = [0]

    def drawn(clips, size):
        videos = draw_clips(clips, size)
        clock[0] += sum(len(video.rgb) for video in videos)
        return videos

    monkeypatch.setattr(benchmark, "draw_clips", drawn)
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(process_time=lambda: clock[0]))
    assert benchmark.growth(work) == {"frames": pytest.approx(1, abs=0.02), "clips": pytest.approx(1)}
    assert clock[0] == sum((16, 33, 49, 66)) + 66 * sum((1, 2, 3, 4))


def test_the_exponent_of_a_power_law_is_found(benchmark):
    assert benchmark.exponent([20, 40, 80], [2e-3 * many**1.25 for many in (20, 40, 80)]) == pytest.approx(1.25)
    assert math.isnan(benchmark.exponent([3], [0.1]))


def test_what_is_no_size_is_refused_with_an_example(benchmark):
    with pytest.raises(SystemExit, match="64x112"):
        benchmark.size("64")


def test_the_commands_of_the_docs_are_understood(benchmark):
    lines = (PROJECT / "docs" / "performance.md").read_text(encoding="utf-8").splitlines()
    commands = [line.strip().split("  #")[0] for line in lines if line.startswith(f"    {NAME}")]
    assert commands
    for command in commands:
        given = benchmark.options().parse_args(shlex.split(command.removeprefix(NAME)))
        for text in (given.sizes or benchmark.SIZES).split(","):
            benchmark.size(text)
        for split in given.splits.split(",") if given.splits else ():
            benchmark.world_of(split, SIZE, 66)


def test_the_world_of_a_split_has_the_size_asked_for_and_that_of_a_recipe_its_own(benchmark):
    crowd, nano = benchmark.world_of("crowd", SIZE, 66), benchmark.world_of("nano/test", SIZE, 66)
    assert (crowd.split, crowd.size, crowd.context_frames + crowd.target_frames) == ("crowd", SIZE, 66)
    assert (nano.size, nano.context_frames + nano.target_frames) == ((64, 128), 110)


def test_a_split_s_clip_is_what_describing_and_drawing_take_whatever_is_refused(benchmark, monkeypatch):
    """The clock ticks once a description and ten times a drawing; the first two masks of `hard` are said to refuse."""
    clock, refused = [0], []

    def described(world, seed, index, first_draw=0):
        clock[0] += 1
        return describe_clip(world, seed, index, first_draw)

    def drawn(*given, **how):
        clock[0] += 10
        return draw_clips(*given, **how)

    def refusal(clip, seen, found):
        again = clip.split == "hard" and len(refused) < 2
        return again and refused.append(clip.draw) is None

    for module in (benchmark, clips):
        monkeypatch.setattr(module, "describe_clip", described)
    monkeypatch.setattr(render, "draw_clips", drawn)
    monkeypatch.setattr(clips, "refusal_at_sight", lambda clip, seen: "")
    monkeypatch.setattr(clips, "refusal", refusal)
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(process_time=lambda: clock[0]))
    easy, hard = benchmark.measure_splits(["easy", "hard"], SIZE, 66, seed=3, clips=2)
    assert (easy["describing"], easy["whole"], easy["draws"]) == (1, 11, 1)
    assert (hard["describing"], hard["whole"], hard["draws"]) == (1, 12, 2)  # means of one and three descriptions
    assert (easy["over_cheapest"], hard["over_cheapest"]) == (1, pytest.approx(12 / 11))
    assert easy["whole_per_megapixel"] == pytest.approx(11 / (66 * 16 * 24 / 1e6))
    assert "the dearest costs 1.09 x the cheapest" in benchmark.splits_table([easy, hard])


@pytest.mark.slow
def test_it_measures_everything_and_writes_it_down(tmp_path: Path):
    out = tmp_path / "speed.json"
    command = [sys.executable, str(PROJECT / "benchmarks" / "render.py"), "--sizes", "16x24", "--frames", "66"]
    done = subprocess.run([*command, "--clips", "1", "--json", str(out)], capture_output=True, text=True, check=True)
    (size,) = json.loads(out.read_text())["sizes"]
    assert size["alone"]["clips"] == 1
    assert size["side by side"]["clips"] == 2
    for name in ("alone", "side by side"):
        row = size[name]
        assert row["seconds_per_frame"] == pytest.approx(row["seconds"] / 66)
        assert row["peak_bytes"] > 2**26
    assert size["times_faster_than_plain"] > 1
    assert math.isfinite(json.loads(out.read_text())["growth"]["clips"])
    assert "| 16x24 | 66 | 2 | 2 |" in done.stdout
