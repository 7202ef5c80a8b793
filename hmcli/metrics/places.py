"""Where subjects of a prediction are seen, frame by frame, for people to look at; no score.

Who is who is what all metrics of re-entries say (`hmcli.metrics.reentry.clip_tracks`). A box tells in which direction
somebody is seen, not how far away: a place is the true one, moved sideways until its direction is that of the box, at
the true distance along the camera's axis.
Shape letters: T target frames.
"""

from __future__ import annotations

import numpy as np

from hmcli.metrics.contract import ClipCameras, Metric, Tracks
from hmcli.metrics.reentry import NEEDS, TAKEN, clip_tracks
from hmcli.metrics.tracks import FoundTrack, middle

PLACES = Metric(
    name="places", function=clip_tracks, needs=NEEDS, unit="", per="clip",
    definition=f"{TAKEN}; places are at the subject's true distance along the camera's axis",
)  # fmt: skip


def seen_places(found: FoundTrack, tracks: Tracks, cameras: ClipCameras) -> np.ndarray:
    """(T, 2) metres on the ground, x and y of the clip's world; NaN where nobody was taken for the subject."""
    true_T3, pose_T44 = found.subject.position_A3[tracks.target_T], cameras.target_T44
    ahead_T = np.einsum("td,td->t", true_T3 - pose_T44[:, :3, 3], pose_T44[:, :3, 2])
    right_T = (found.centre - middle(found.true_T4))[:, 0] * ahead_T / cameras.intrinsics_4[0]
    return np.asarray((true_T3 + right_T[:, None] * pose_T44[:, :3, 0])[:, :2])
