"""How far apart do samples of a clip put a subject that comes back? Read it beside how wrong they are.

Memory says where somebody is who walked out of the picture; a model without it guesses, and its samples differ. Samples
that agree may agree on the wrong place (`position-error`), and those in which nobody was found are left out
(`reappearance-recall`). Spread along the line of sight is not seen.
Shape letters: K samples, J judged frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hmcli.metrics.contract import OTHER_SAMPLES, ClipCameras, Detection, Metric, NothingToJudge, Stretch, Tracks
from hmcli.metrics.reentry import JUDGED, NEEDS, TAKEN, clip_tracks, re_entries

Detected = Sequence[Sequence[Detection]]


def spread(
    prediction: np.ndarray,
    reference: np.ndarray,
    detections: Detected,
    tracks: Tracks,
    cameras: ClipCameras,
    other_samples: Sequence[tuple[np.ndarray, Detected]],
) -> dict[Stretch, float]:
    """Body lengths for each re-entry: the mean over frames of how far samples lie from their middle."""
    samples = [(prediction, detections), *other_samples]
    found = [re_entries(clip_tracks(video, reference, seen, tracks, cameras), tracks) for video, seen in samples]
    judged = {}
    for of in zip(*found, strict=True):  # frames are judged by the truth, so they are the same in all samples
        off_KJ2 = np.stack([one.track.off_T2[one.judged_J] for one in of])
        several_J = np.isfinite(off_KJ2[..., 0]).sum(axis=0) > 1
        if several_J.any():
            judged[of[0].stretch] = float(_apart(off_KJ2[:, several_J]).mean())
    if not judged:
        raise NothingToJudge("no frame in which a subject is back has it in two samples")
    return judged


def _apart(off_KJ2: np.ndarray) -> np.ndarray:
    """(J,) the root of the summed variances of both axes, over the samples that have it (of n of them: n - 1)."""
    return np.asarray(np.sqrt(np.nanvar(off_KJ2, axis=0, ddof=1).sum(axis=-1)))


reentry_spread = Metric(
    name="reentry-spread",
    function=spread,
    needs=(*NEEDS, OTHER_SAMPLES),
    unit="body lengths",
    better="neither",
    range=(0, math.inf),
    definition="for each certified stretch after which its subject is back in the target: the mean over judged frames "
    "of sqrt(var x + var y) over the clip's samples (n - 1), x and y being the middle of the box of what was taken "
    "for it in a sample, in body lengths at its true distance; frames in which fewer than two samples have it are not "
    f"judged. {JUDGED.capitalize()}; {TAKEN}",
    partial=True,
    per="stretch",
)
