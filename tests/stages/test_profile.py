"""hm generate --profile: every part counts for itself, and nothing is measured unless asked for."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from warm import WarmCommand, ok

from hmcli.stages.sampling import profile as module
from hmcli.stages.sampling.profile import Profile, lines, part, profiled


def test_a_part_inside_another_counts_for_itself_alone(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(module, "_peak", lambda _: 3 * 2**20)
    with part("unheard"):
        now[0] += 1
    with profiled("cpu") as found:
        for _ in range(2):
            with part("writing"):
                now[0] += 1
                with part("denoising"):
                    now[0] += 5
                    with part("context"):
                        now[0] += 2
                now[0] += 1
    spent = {name: (of.seconds, of.times) for name, of in found.parts.items()}
    assert spent == {"writing": (4, 2), "denoising": (10, 2), "context": (4, 2)}
    said = lines(found)
    assert "18.0 s in all" in said[0]
    assert said[2].split() == ["denoising", "10.00", "s", "56", "%", "2", "times", "3", "MiB"]
    assert lines(Profile(device="cpu")) == []


@pytest.mark.parametrize("chunk", [0, 13])
def test_the_command_says_where_time_and_memory_went(
    hm: WarmCommand, run: Path, latents: Path, tmp_path: Path, chunk: int
):
    settings = ("--set", "sample.steps=1", "--set", f"sample.chunk={chunk}")
    command = ("generate", latents, "--model", run, "--out", tmp_path / "gen", *settings, "--profile")
    done = hm(*command, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["details"]["profile"]
    assert set(found) == {"loading weights", "context", "denoising", "decoding", "writing"}
    chunks = 2 if chunk else 1
    assert [found[name]["times"] for name in ("denoising", "decoding", "writing")] == [3 * chunks, 3 * chunks, 3]
    assert found["context"]["times"] == 3 * chunks
    assert all(of["peak_bytes"] > 2**20 and of["seconds"] > 0 for of in found.values())
    assert "denoising" in done.stderr
    again = hm(*command)
    ok(again)
    assert "nothing was measured" in again.stderr
    refused = hm(*command, "--num-processes", 2)
    assert (refused.returncode, "one process" in refused.stderr) == (2, True)
