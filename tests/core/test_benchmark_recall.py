"""The benchmark of recall: what geometry finds where it can, and where it cannot."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from benchmark_files import load_benchmark

from hmcli.core.camera import Lens
from hmcli.recipe.sections import MemoryConfig

MEMORY = MemoryConfig(top_k=2, window=3, kernel=(2, 2, 2))
CONTEXT, TARGET = 12, 7  # latent frames
LENS = Lens(intrinsics_B4=torch.tensor([[60.0, 60.0, 20.0, 15.0]]), size=(30, 40), near=1.0, far=20.0)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_benchmark("recall")


def turned(degrees: list[float]) -> torch.Tensor:
    """Camera rows of a camera that stands and looks so far to the right."""
    rows = []
    for angle in torch.deg2rad(torch.tensor(degrees, dtype=torch.float64)):
        cos, sin = torch.cos(angle), torch.sin(angle)
        rows.append([cos, 0, sin, 0, 0, 1, 0, 0, -sin, 0, cos, 0])
    return torch.tensor(rows, dtype=torch.float64)


def seen_in(frames: list[int]) -> torch.Tensor:
    seen = torch.zeros(CONTEXT + TARGET, 1, dtype=torch.bool)
    seen[frames] = True
    return seen


def shot(benchmark: ModuleType, degrees: list[float], frames: list[int]):
    return benchmark.Shot(camera_AR=turned(degrees), context=CONTEXT, seen_AS=seen_in(frames), lens=LENS)


def test_geometry_finds_the_subject_where_the_camera_looks_to_it_alone(benchmark):
    """It looks ahead in slots 0 and 1, then aside, and back in the last frame: the slots that saw this are right."""
    degrees = [0.0] * 4 + [90.0] * (CONTEXT - 4) + [90.0] * (TARGET - 1) + [0.0]
    found = benchmark.compared(shot(benchmark, degrees, [0, 1, 2, 3, CONTEXT + TARGET - 1]), MEMORY)
    assert found.policies["fov"] == found.policies["fov, context slots"] == found.policies["oracle"] == (1.0, 1.0)
    assert (found.right, found.free) == (2, 8)
    assert found.policies["random"] == pytest.approx((2 / 8, 2 / 8))
    assert found.shown == pytest.approx(2 / 6)


def test_geometry_misses_a_subject_that_was_seen_elsewhere(benchmark):
    """The subject walks on: it was seen ahead, and is back where the camera looks aside."""
    degrees = [0.0] * 4 + [90.0] * (CONTEXT - 4 + TARGET)
    found = benchmark.compared(shot(benchmark, degrees, [0, 1, 2, 3, CONTEXT + TARGET - 1]), MEMORY)
    assert found.policies["fov"] == found.policies["fov, context slots"] == (0.0, 0.0)
    assert found.policies["oracle"] == (1.0, 1.0)


def test_the_policy_may_prefer_the_target_to_the_context(benchmark):
    """The camera is back long before the subject: the policy takes slots of the target, which show nobody."""
    degrees = [0.0] * 4 + [90.0] * (CONTEXT - 4) + [5.0] * TARGET
    found = benchmark.compared(shot(benchmark, degrees, [0, 1, 2, 3, CONTEXT + TARGET - 1]), MEMORY)
    assert found.policies["fov"] == (0.0, 0.0)
    assert found.policies["fov, context slots"] == (1.0, 1.0)


def test_where_nobody_comes_back_there_is_no_recall(benchmark):
    found = benchmark.compared(shot(benchmark, [0.0] * (CONTEXT + TARGET), [0, 1, 2, 3]), MEMORY)
    assert found.shown == 0
    for recall, precision in found.policies.values():
        assert recall != recall
        assert precision != precision


def test_slots_of_a_joint_context_are_not_compared(benchmark):
    with pytest.raises(SystemExit, match="joint context"):
        benchmark.main(["clips", "--recipe", "wan1.3b/hydra"])
