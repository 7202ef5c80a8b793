"""Small runs of `hm train` in tests: settings, and what lies in a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.latents.view import open_latents
from hmcli.stages.training.train import as_encoded
from hmcli.stages.training.trainer import Training, prepare_training


def sets(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]


def state(run: Path, step: str) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / step / "training_state.safetensors")


def files(run: Path, step: str) -> dict[str, bytes]:
    folder = run / "checkpoints" / step
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))}


def training_of(nano: Path, latents: Path, *settings: str) -> Training:
    view = open_latents(latents)
    recipe = as_encoded(load_recipe(str(nano), [*settings]), view, Silent())
    return prepare_training(recipe, view, "cpu", None, Silent())


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """How far two tensors are apart, relative to the second."""
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30))


def lines(run: Path) -> list[str]:
    log = run / "steps.jsonl"
    return log.read_text().splitlines() if log.is_file() else []


def ranks_of(pid: int) -> list[int]:
    """Children of a process, in the order in which they were started."""
    return sorted(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
