"""A verdict per stretch: what became of a subject that was hidden, now that it should be back.

Videos of these models fail in few ways: the subject vanishes, stands where it left, comes back broken, jerks, is
elsewhere, or is there twice. Each certified stretch after which its subject is back gets one verdict, and each verdict
is a metric: the share of stretches that get it. Source: the paper's words for what goes wrong; thresholds are ours, and
were chosen on clips damaged by hand (docs/metrics.md, Verdicts).
What they cannot see: what the detector does not see in the truth (such stretches are not judged), a subject so broken
that it leaves the detector no trace (vanished), and a body that slides along its true way without moving its legs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from hmcli.metrics.contract import (
    BACKBONE,
    CAMERAS,
    DETECTIONS,
    PREDICTION,
    REFERENCE,
    TRACKS,
    TRUE_DETECTIONS,
    UNSURE,
    ClipCameras,
    Detection,
    Metric,
    NothingToJudge,
    Stretch,
    Tracks,
    check_pair,
)
from hmcli.metrics.evidence import (
    AT,
    COVERED,
    CROPS,
    FAR,
    LEAST,
    MOVED,
    STILL,
    Evidence,
    Features,
    Unsure,
    sights,
    stretch_evidence,
)

VERDICTS = ("right", "vanished", "frozen", "distorted", "stuttering", "misplaced", "duplicated")
FOUND = 0.5  # share of frames in which somebody must be there; fewer: it vanished
DOUBLED = 0.2  # share of frames with a second one from which on it is duplicated: truth itself stays below .06
STANDS = 0.35  # share of its way: who goes less froze; the truth goes .9 and more
PLACED = 0.5  # share of frames in which it must be in its place
BROKEN = 0.785  # likeness below which it is broken, whatever else; by hand, jerking ones stay above
JERKY = 0.25  # second differences of overlap from which on it stutters: truth stays below .07, other paints below .2
SHAKEN = 0.2  # the same of its place, in body lengths: truth stays below .03, other paints below .11
UNLIKE = 0.87  # likeness below which it is broken where nothing else is wrong; the truth, compressed, has .94 and more


def verdict(of: Evidence) -> str:
    """The first that applies: later ones are measured on a subject that is there, and in its place."""
    if of.found < FOUND:
        return "distorted" if of.found + of.traced >= FOUND else "vanished"
    if of.doubled >= DOUBLED:
        return "duplicated"
    goes = of.progress > STANDS  # NaN: the truth hardly moves, so that nothing is said
    stands = of.progress <= STANDS
    if stands or (of.from_still <= STILL and of.from_still < of.off and not goes):
        return "frozen"
    if of.in_place < PLACED:
        return "misplaced"
    if of.alike < BROKEN:
        return "distorted"
    if of.jerk >= JERKY or of.shaking >= SHAKEN:
        return "stuttering"
    return "distorted" if of.alike < UNLIKE else "right"


def clip_verdicts(
    prediction: np.ndarray, reference: np.ndarray, tracks: Tracks, cameras: ClipCameras,
    detections: Sequence[Sequence[Detection]], true_detections: Sequence[Sequence[Detection]], unsure: Unsure,
    backbone: Features,
) -> dict[Stretch, str]:  # fmt: skip
    """The verdict on each certified stretch after which its subject is back, and seen. Raises NothingToJudge."""
    check_pair(prediction, reference)
    if not len(detections) == len(true_detections) == len(tracks.target_T) == len(prediction):
        raise ValueError(f"the prediction has {len(prediction)} frames, its detections or tracks others")
    back = [stretch for stretch in tracks.certified if stretch.back is not None]
    if not back:
        raise NothingToJudge("no subject comes back in the target after a certified stretch without it")
    seen, found = sights(detections, true_detections, tracks, cameras), {}
    for stretch in back:
        if (evidence := stretch_evidence(stretch, prediction, reference, seen, unsure, backbone)) is not None:
            found[stretch] = verdict(evidence)
    if not found:
        raise NothingToJudge("the detector does not see the subject that comes back in the truth itself")
    return found


def share_of(name: str, verdicts: Mapping[Stretch, str]) -> dict[Stretch, float]:
    """1 for each stretch with this verdict, 0 for the others."""
    return {stretch: float(of == name) for stretch, of in verdicts.items()}


_DEFINITION = (
    "; a verdict is the first that applies: vanished (somebody within "
    f"{FAR:g} body lengths, or where it would stand, in fewer than {FOUND:.0%} of its frames; distorted where "
    f"together with frames in whose box of it what the detector takes for nobody covers {COVERED:.0%} of it they are), "
    f"duplicated (a second one of about its size in {DOUBLED:.0%} of them), "
    f"frozen (it goes {STANDS:.0%} of its way at most, where the truth goes {MOVED:g} body lengths; or it is within "
    f"{STILL:g} body lengths of where it would be seen had it stood since it left, nearer than to its true place), "
    f"misplaced (within {AT:g} body lengths of its true place in fewer than {PLACED:.0%}), "
    f"distorted (likeness below {BROKEN:g}), "
    "stuttering (upper quartile of second differences over frames: of the overlap of both masks in the picture at "
    f"least {JERKY:g}, or of its place at least {SHAKEN:g} body lengths), distorted (likeness below {UNLIKE:g}), "
    "right. Likeness: median cosine of features of what the masks of prediction and truth show at one time, on grey "
    f"({CROPS} frames). Judged are frames from its return to its next stretch or the end in which the same detector "
    f"finds it in the truth, where the truth shows enough of it ({LEAST} frames at least); what it finds in the truth "
    "that is no subject is left out of both"
)


_ROW = {"right": "erased", "vanished": "erased", "frozen": "frozen"}  # the row without a model that gets it wrong


def _metric(name: str) -> Metric:
    return Metric(
        name=f"verdict-{name}",
        function=partial(share_of, name),
        shared=clip_verdicts,
        needs=(PREDICTION, REFERENCE, TRACKS, CAMERAS, DETECTIONS, TRUE_DETECTIONS, UNSURE, BACKBONE),
        unit="share",
        range=(0, 1),
        better="higher" if name == "right" else "lower",
        definition=f"share of certified stretches after which the subject is back whose verdict is {name}{_DEFINITION}",
        partial=True,
        per="stretch",
        order=("truth", _ROW[name]) if name in _ROW else ("truth",),
    )


right, vanished, frozen, distorted, stuttering, misplaced, duplicated = map(_metric, VERDICTS)
