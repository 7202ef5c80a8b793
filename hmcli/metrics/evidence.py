"""What speaks for a verdict: how a subject that is back differs from the truth, in a few numbers per stretch.

Both videos are seen by one detector. What it finds in the prediction where it finds somebody in the truth who is no
subject (a cactus) is left out, and a frame counts only where it finds the subject in the truth: the detector's own
mistakes are nobody's fault. Distances are in body lengths at the subject's true distance.
Shape letters: T target frames, J judged frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hmcli.metrics.consistency import cosine
from hmcli.metrics.contract import ClipCameras, Detection, Stretch, Tracks
from hmcli.metrics.dsc import GREY, on_square
from hmcli.metrics.regions import covered, until
from hmcli.metrics.tracks import FoundTrack, FoundTracks, found_tracks, middle
from hmcli.metrics.views import projected

AT = 0.5  # body lengths: who is no further off is in its place (by as much may the oracle of a certified stretch err)
FAR = 2.5  # body lengths: further off, somebody found is not taken for the subject ...
STILL = 0.35  # ... unless so near to where it would be seen had it stood since it left
SAME = 0.5  # overlap from which on two detections of one frame are of one thing
LIKE_SIZE = (0.3, 3.0)  # area of a double, as a multiple of the true one's
CROPS = 5  # frames of a stretch whose pictures are compared
LEAST = 3  # judged frames that a verdict needs
COVERED = 0.25  # of the area that it truly shows: as much of what the detector takes for nobody is a trace of it
MOVED = 0.25  # body lengths that the truth must move for standing still to show
Unsure = Callable[[np.ndarray], Sequence[Sequence[Detection]]]
Features = Callable[[np.ndarray], np.ndarray]
Pair = tuple[Detection, Detection, int]  # the subject in prediction and truth, and the target frame


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Of one stretch, over its judged frames; NaN where nobody was found, or too little is seen to measure it."""

    frames: int
    found: float  # share in which somebody is taken for it
    traced: float  # share in which nobody is, but in its place something that the detector is not sure about
    in_place: float  # share in which one is no further off than AT
    doubled: float  # share in which there is a second one, of about its size
    off: float  # median distance from its true place
    from_still: float  # median distance from where it would be seen had it stood since it left
    progress: float  # of the way that it truly goes meanwhile, how much it goes: 0 stands, 1 as the truth
    jerk: float  # of the overlap of both masks in the picture: upper quartile of its second differences
    shaking: float  # the same of how far its middle is from the true one, in body lengths
    alike: float  # median cosine of features of what its mask shows in both videos


def stretch_evidence(
    stretch: Stretch, prediction: np.ndarray, reference: np.ndarray, seen: Sights, unsure: Unsure,
    backbone: Features,
) -> Evidence | None:  # fmt: skip
    """None where the detector sees too little of the subject in the truth, or the truth too little of the subject."""
    found, true = seen.found.subjects[stretch.subject], seen.true.subjects[stretch.subject]
    since = np.zeros(len(prediction), bool)
    since[stretch.back : until(stretch, seen.tracks)] = True
    judged_J = np.flatnonzero(since & true.clear_T & true.within(AT))
    if len(judged_J) < LEAST:
        return None
    off_J2 = (found.centre - true.centre)[judged_J] / found.pixels_T2[judged_J]
    off_J = np.linalg.norm(off_J2, axis=-1)
    still_J = _from_still(stretch, seen, found, true)[judged_J]
    taken_J = (np.nan_to_num(off_J, nan=np.inf) <= FAR) | (np.nan_to_num(still_J, nan=np.inf) <= STILL)
    pairs = [
        (seen.detections[t][found.which_T[t]], seen.true_detections[t][true.which_T[t]], int(t))
        for t in judged_J[taken_J]
    ]
    return Evidence(
        frames=len(judged_J),
        found=float(taken_J.mean()),
        traced=_traced(prediction, unsure, true, seen, judged_J[~taken_J]) / len(judged_J),
        in_place=float((off_J[taken_J] <= AT).sum() / len(judged_J)),
        doubled=float(np.mean([seen.doubles(int(t), true) > 0 for t in judged_J])), off=_median(off_J[taken_J]),
        from_still=_median(still_J[taken_J]),
        progress=_progress(seen, found, true, judged_J[taken_J]),
        jerk=_jerk({t: np.array([overlap(one, other)]) for one, other, t in pairs}),
        shaking=_jerk({t: (_middle(one) - _middle(other)) / true.pixels_T2[t] for one, other, t in pairs}),
        alike=_alike(prediction, reference, pairs, backbone),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sights:
    """Both videos of a clip as one detector sees them."""

    tracks: Tracks
    cameras: ClipCameras
    detections: Sequence[Sequence[Detection]]
    true_detections: Sequence[Sequence[Detection]]
    found: FoundTracks
    true: FoundTracks

    def doubles(self, t: int, true: FoundTrack) -> int:
        """How many of a frame's detections are nobody's, and about as large as the subject is there."""
        area = _area(self.true_detections[t][true.which_T[t]])
        sizes = [_area(self.detections[t][one]) / area for one in self.found.nobodys[t]]
        return sum(LIKE_SIZE[0] <= size <= LIKE_SIZE[1] for size in sizes)


def sights(
    detections: Sequence[Sequence[Detection]],
    true_detections: Sequence[Sequence[Detection]],
    tracks: Tracks,
    cameras: ClipCameras,
) -> Sights:
    """Give both videos' detections to the subjects."""
    true = found_tracks(true_detections, tracks, cameras)
    kept = []
    for t, seen in enumerate(detections):
        own = {int(of.which_T[t]) for of in true.subjects if of.within(AT)[t]}
        things = [one for number, one in enumerate(true_detections[t]) if number not in own]
        kept.append([one for one in seen if all(overlap(one, thing) < SAME for thing in things)])
    found = found_tracks(kept, tracks, cameras)
    return Sights(
        tracks=tracks, cameras=cameras, detections=kept, true_detections=true_detections, found=found, true=true
    )


def _traced(prediction: np.ndarray, unsure: Unsure, true: FoundTrack, seen: Sights, without: np.ndarray) -> int:
    """In how many of the frames without it there is something in its place."""
    count = 0
    for t, faint in zip(without, unsure(prediction[without]) if len(without) else (), strict=True):
        own = seen.true_detections[t][true.which_T[t]]
        count += sum(_inside(one, own.box_4) for one in faint) >= COVERED * _area(own)
    return count


# --- where it is, and how it moves -----------------------------------------------------------------------------------


def _still(place_3: np.ndarray, seen: Sights) -> np.ndarray:
    """(T, 2) where a point of the world is seen in the target frames; NaN behind the camera."""
    return np.stack([projected(place_3, pose, seen.cameras.intrinsics_4)[0] for pose in seen.cameras.target_T44])


def _from_still(stretch: Stretch, seen: Sights, found: FoundTrack, true: FoundTrack) -> np.ndarray:
    """(T,) body lengths from where its middle would be seen had it stood still since it was last seen."""
    track = found.subject
    feet_T2 = np.stack([
        projected(place, pose, seen.cameras.intrinsics_4)[0]
        for place, pose in zip(track.position_A3[seen.tracks.target_T], seen.cameras.target_T44, strict=True)
    ])  # fmt: skip
    still_T2 = _still(track.position_A3[max(stretch.first - 1, 0)], seen)
    above_T2 = (true.centre - feet_T2) / true.pixels_T2  # the middle of what is seen, from its feet
    middle_T2 = still_T2 + np.nanmedian(above_T2, axis=0) * true.pixels_T2
    return np.asarray(np.linalg.norm((found.centre - middle_T2) / found.pixels_T2, axis=-1))


def _progress(seen: Sights, found: FoundTrack, true: FoundTrack, taken_J: np.ndarray) -> float:
    """How much of the way that the subject truly goes over these frames, as the camera sees it, the found one goes."""
    if len(taken_J) < LEAST:
        return float("nan")
    first = taken_J[0]
    still_J2 = _still(found.subject.position_A3[seen.tracks.target_T[first]], seen)[taken_J]
    gone = [(of.centre[taken_J] - still_J2) / true.pixels_T2[taken_J] for of in (found, true)]
    mine_J2, true_J2 = (way - way[0] for way in gone)
    if np.linalg.norm(true_J2, axis=-1).max() < MOVED:
        return float("nan")
    return float((mine_J2 * true_J2).sum() / (true_J2**2).sum())


def _jerk(series: Mapping[int, np.ndarray]) -> float:
    """Upper quartile of the length of the second differences of what is known of some frames.

    0 for one that is off by the same, or drifts evenly. Places alone say little of somebody who walks towards the
    camera, and nothing of legs, which overlaps do; overlaps say nothing of one who shakes evenly about its place.
    """
    runs = [
        np.linalg.norm(of - 2 * series[t + 1] + series[t + 2])
        for t, of in series.items()
        if t + 1 in series and t + 2 in series
    ]
    return float(np.quantile(runs, 0.75)) if len(runs) >= LEAST else float("nan")


def _middle(one: Detection) -> np.ndarray:
    """(2,) x and y of the middle of its pixels, of its box where it has no mask."""
    if one.mask_HW is None:
        return middle(one.box_4)
    rows, columns = np.nonzero(one.mask_HW)
    return np.array([columns.mean(), rows.mean()])


# --- how it looks ----------------------------------------------------------------------------------------------------


def _alike(prediction: np.ndarray, reference: np.ndarray, pairs: Sequence[Pair], backbone: Features) -> float:
    """Of some of the frames, evenly over the stretch."""
    some = [pairs[k] for k in np.unique(np.linspace(0, len(pairs) - 1, CROPS).round().astype(int))] if pairs else []
    found = []
    for one, other, t in some:
        crops = _cut(prediction[t], one), _cut(reference[t], other)
        found.append(float(cosine(*(backbone(crop[None])[0].astype(np.float64) for crop in crops))))
    return _median(found)


def _cut(frame: np.ndarray, one: Detection) -> np.ndarray:
    """(side, side, 3): what a detection's mask (its box, where it has none) shows, on grey."""
    if one.mask_HW is not None:
        frame = np.where(one.mask_HW[..., None], frame, np.uint8(GREY))
    return on_square(frame, one.box_4)


def _area(one: Detection) -> float:
    return float(np.prod(one.box_4[2:] - one.box_4[:2])) if one.mask_HW is None else float(one.mask_HW.sum())


def _inside(one: Detection, box_4: np.ndarray) -> float:
    """How many pixels of a detection a box holds."""
    if one.mask_HW is not None:
        return float(one.mask_HW[covered(box_4, *one.mask_HW.shape)].sum())
    low, high = np.maximum(one.box_4[:2], box_4[:2]), np.minimum(one.box_4[2:], box_4[2:])
    return float(np.prod(np.maximum(high - low, 0)))


def overlap(one: Detection, other: Detection) -> float:
    """Intersection over union: of masks, where both have one, else of boxes."""
    if one.mask_HW is not None and other.mask_HW is not None:
        return float((one.mask_HW & other.mask_HW).sum() / max(1, (one.mask_HW | other.mask_HW).sum()))
    both = _inside(replace(one, mask_HW=None), other.box_4)
    sizes = [float(np.prod(of.box_4[2:] - of.box_4[:2])) for of in (one, other)]
    return both / max(sum(sizes) - both, 1e-9)


def _median(values: Sequence[float] | np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")
