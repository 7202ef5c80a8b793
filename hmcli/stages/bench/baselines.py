"""Baselines that need no model: what the scores of a video without any understanding are, to read others against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hmcli.metrics.averages import mean_score
from hmcli.metrics.contract import PREDICTION, REFERENCE
from hmcli.registry import find
from hmcli.stages.data.opening import ClipSource, read_cameras
from hmcli.store.video import read_video

METRES_PER_RADIAN = 5.0  # what a turn counts against a step, about the distance to a subject


def last_frame(context: np.ndarray, context_poses: np.ndarray, target_poses: np.ndarray) -> np.ndarray:
    """The last frame of the context, repeated: (T, H, W, 3) for T target poses."""
    return np.repeat(context[-1:], len(target_poses), axis=0)


def nearest_view(context: np.ndarray, context_poses: np.ndarray, target_poses: np.ndarray) -> np.ndarray:
    """For each target camera the context frame whose camera was nearest: (T, H, W, 3). Poses are (.., 4, 4)."""
    step = np.linalg.norm(target_poses[:, None, :3, 3] - context_poses[None, :, :3, 3], axis=-1)
    cosine = np.einsum("tij,cij->tc", target_poses[:, :3, :3], context_poses[:, :3, :3])
    turn = np.arccos(np.clip((cosine - 1) / 2, -1, 1))
    return context[(step + METRES_PER_RADIAN * turn).argmin(1)]


BASELINES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "last context frame, repeated": last_frame,
    "nearest context view": nearest_view,
}


def baseline_scores(clips: Sequence[ClipSource], metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    """Name of the baseline -> metric -> mean over clips. Metrics that compare with the true target."""
    found: dict[str, dict[str, list[list[float]]]] = {name: {one: [] for one in metrics} for name in BASELINES}
    for source in clips:
        cameras = read_cameras(source)
        context, target = read_video(source.files["context"]), read_video(source.files["target"])
        if cameras.context is None or cameras.target is None:
            raise ValueError(f"clip {source.id} has no poses")
        for name, predict in BASELINES.items():
            guess = predict(context, cameras.context, cameras.target)
            for metric in metrics:
                values = find("metric", metric)(**{PREDICTION: guess, REFERENCE: target})
                found[name][metric].append(values.tolist())
    return {name: {one: round(_mean(values), 4) for one, values in scores.items()} for name, scores in found.items()}


def _mean(values: list[list[float]]) -> float:
    mean = mean_score(values, "videos")
    assert mean is not None  # there are clips
    return mean
