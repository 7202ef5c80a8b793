"""A place of soft colours far away, filmed by cameras that only turn: flow and views have known answers."""

from __future__ import annotations

import numpy as np

from hmcli.metrics.contract import ClipCameras, ClipDepth, SubjectBoxes, Tracks

H, W, FOCAL = 64, 96, 120.0
INTRINSICS = np.array([FOCAL, FOCAL, W / 2, H / 2])


def pose(yaw: float) -> np.ndarray:
    """(4, 4): right, down, forward; turned to the right by `yaw` radians."""
    turned = np.eye(4)
    turned[:3, 0] = np.cos(yaw), 0, -np.sin(yaw)
    turned[:3, 2] = np.sin(yaw), 0, np.cos(yaw)
    return turned


def filmed(yaws: np.ndarray, seed: int = 0) -> np.ndarray:
    """(T, H, W, 3) uint8: what cameras of these directions see."""
    rng = np.random.default_rng(seed)
    waves = rng.normal(size=(12, 3)) * 25
    phases, colours = rng.uniform(0, 2 * np.pi, 12), rng.uniform(-20, 20, (12, 3))
    x, y = np.meshgrid((np.arange(W) + 0.5 - W / 2) / FOCAL, (np.arange(H) + 0.5 - H / 2) / FOCAL)
    ray = np.stack([x, y, np.ones_like(x)], -1)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    frames = [128 + np.sin((ray @ pose(yaw)[:3, :3].T) @ waves.T + phases) @ colours for yaw in yaws]
    return np.stack(frames).clip(0, 255).round().astype(np.uint8)


def cameras(context: np.ndarray, target: np.ndarray) -> ClipCameras:
    return ClipCameras(
        context_N44=np.stack([pose(yaw) for yaw in context]), target_T44=np.stack([pose(yaw) for yaw in target]),
        intrinsics_4=INTRINSICS,
    )  # fmt: skip


def depth(context: int, target: int, metres: float = np.inf) -> ClipDepth:
    far = np.full((context + target, H, W), metres, np.float32)
    return ClipDepth(context_NHW=far[:context], target_THW=far[context:])


def boxes(frames: int, *places: tuple[float, ...]) -> SubjectBoxes:
    amodal = np.tile(np.array(places, float).reshape(-1, 4), (frames, 1, 1))
    return SubjectBoxes(amodal_TS4=amodal, returned_TS=np.zeros((frames, len(places)), bool))


def nobody(context: int, target: int) -> Tracks:
    return Tracks(subjects=(), context_N=np.arange(context), target_T=np.arange(context, context + target), fps=15.0)
