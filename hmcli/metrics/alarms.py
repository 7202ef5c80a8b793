"""Is somebody there while the one who is watched for is gone? False alarms of a prediction, stretch by stretch.

A model that has to show somebody shows the subject where it was last seen, though it walked on; or invents another one.
What cannot be seen: who it is, what the detector does not see, and how long a frame's alarm looks like a subject.
Source: the false alarm rate of detection; the detector's own mistakes are left out as they are of verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hmcli.metrics.contract import (
    CAMERAS,
    DETECTIONS,
    PREDICTION,
    REFERENCE,
    TRACKS,
    TRUE_DETECTIONS,
    ClipCameras,
    Detection,
    Metric,
    NothingToJudge,
    Stretch,
    Tracks,
    check_pair,
)
from hmcli.metrics.evidence import SAME, sights


def alarms(
    prediction: np.ndarray,
    reference: np.ndarray,
    detections: Sequence[Sequence[Detection]],
    true_detections: Sequence[Sequence[Detection]],
    tracks: Tracks,
    cameras: ClipCameras,
) -> dict[Stretch, float]:
    """For each stretch that hides a watched subject in the target: the share of those frames with somebody too many.

    Raises NothingToJudge where there is none, ValueError where lengths disagree.
    """
    check_pair(prediction, reference)
    hidden = {stretch: tracks.hidden_T(stretch) for stretch in tracks.watched}
    if not (judged := {stretch: of_T for stretch, of_T in hidden.items() if of_T.any()}):
        raise NothingToJudge("no certified or absent stretch reaches into the target")
    found = sights(detections, true_detections, tracks, cameras).found
    many_T = np.array([bool(of) for of in found.nobodys])
    return {stretch: float(many_T[of_T].mean()) for stretch, of_T in judged.items()}


false_alarms = Metric(
    name="false-alarms",
    function=alarms,
    needs=(PREDICTION, REFERENCE, DETECTIONS, TRUE_DETECTIONS, TRACKS, CAMERAS),
    unit="share",
    range=(0, 1),
    better="lower",
    definition="for each certified stretch, and each after which its subject is certain to be elsewhere (split "
    "absent), that reaches into the target: the share of its target frames in which the detector finds somebody beside "
    f"the subjects that the truth shows there. What overlaps by {SAME:g} with something that the detector finds in the "
    "truth where it shows no subject is left out",
    partial=True,
    per="stretch",
    order=("truth", "frozen"),
)
