"""The benchmark of evaluations runs, on a clip of the smallest size, and says what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmark_files import load_benchmark

from hmcli import registry

MORE = {"lpips", "regions", "other_samples"}  # networks that are no part of the package, and several samples


def test_it_times_every_metric_and_finds_features_again(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "before"))  # the benchmark names others; put back afterwards
    out = tmp_path / "eval.json"
    load_benchmark("eval").main([str(clips), "--clips", "1", "--processes", "1", "--json", str(out)])
    found = json.loads(out.read_text())
    assert found["seconds_per_clip"] == found["measured"]["clock"]
    assert {name.partition(".")[0] for name in found["by_metric"]} == {
        name for name in registry.BUILT_IN["metric"] if not MORE & {*registry.find("metric", name).needs}
    }
    assert found["cache_mib"] > 0
    assert "in two processes" in capsys.readouterr().out
    assert not (tmp_path / "before").exists()


def test_more_clips_than_there_are_are_refused(clips: Path):
    with pytest.raises(SystemExit, match="hm render nano/test --clips 500"):
        load_benchmark("eval").main([str(clips), "--clips", "500"])
