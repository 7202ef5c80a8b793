"""The benchmark of foretelling: its samples hide a walker and bring it back, and every kind of positions is judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmark_files import load_benchmark


def test_a_walker_is_seen_hidden_and_back_and_no_sample_comes_twice():
    foretell = load_benchmark("foretell")
    given = foretell.samples(64, torch.Generator().manual_seed(3))
    light_BF = given.latents[:, 0].amax(dim=(2, 3))
    assert given.latents.shape == (64, 4, 18, 1, 8)
    seen, hidden = light_BF > 1.5, light_BF < 0.1
    context, target = slice(0, foretell.CONTEXT), slice(foretell.CONTEXT, None)
    assert seen[:, context].any(dim=1).all()
    assert hidden[:, context].any(dim=1).float().mean() > 0.95
    assert seen[:, target].any(dim=1).float().mean() > 0.8
    assert len({sample.numpy().tobytes() for sample in given.latents}) == 64


def test_a_model_that_knows_the_mean_is_at_one_and_every_kind_of_positions_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    foretell, out = load_benchmark("foretell"), tmp_path / "foretell.json"
    truth = foretell.samples(foretell.JUDGED, torch.Generator().manual_seed(99)).latents[:, :, foretell.CONTEXT :]
    means = truth.mean(dim=(0, 2, 3, 4), keepdim=True)
    with monkeypatch.context() as patched:
        patched.setattr(foretell, "errors", lambda model, given, noise: (truth - means).square())
        walker, _ = foretell.judge(None)
    assert walker == pytest.approx(1, abs=1e-3)
    monkeypatch.setattr(foretell, "JUDGED", 4)
    monkeypatch.setattr(foretell, "BATCH", 2)
    kinds = ["screen", "relative-rays"]
    foretell.main(["--positions", *kinds, "--steps", "9", "--stop", "2", "--every", "1", "--json", str(out)])
    found = json.loads(out.read_text())
    assert {name: [one["samples"] for one in looks] for name, looks in found.items()} == {
        name: [2, 4] for name in kinds
    }
    assert found["screen"][0]["walker"] != found["relative-rays"][0]["walker"]
    assert "| relative-rays | 4 |" in capsys.readouterr().out
