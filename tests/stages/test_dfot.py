"""History guidance is for models that saw masked history in training (its effect: test_policies.py)."""

from __future__ import annotations

from pathlib import Path

from warm import WarmCommand


def test_history_guidance_of_a_model_trained_otherwise_is_refused_by_name(
    hm: WarmCommand, joint_run: Path, nano: Path, latents: Path, tmp_path: Path
):
    guided = ("--set", "sample.history_guidance=2")
    done = hm("generate", latents, "--model", joint_run, "--recipe", nano, "--out", tmp_path / "gen", *guided)
    assert done.returncode == 2
    assert "needs a joint model trained with flow.noise=per-frame" in done.stderr
    assert not (tmp_path / "gen").exists()
