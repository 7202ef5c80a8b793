"""How wrong is a subject that comes back: where it is, how far it got, when it comes, how fast it is.

Each number is of one re-entry (hmcli.metrics.reentry) and of what was taken for the subject there, however far off it
is: one that is not there at all has no place, and is `reappearance-recall`'s; only `time-error` counts it, as coming
after the last frame. So read all of them beside the recall: whoever shows the easy ones alone has small errors.
What none of them can see: who it is, and errors along the line of sight.
Shape letters: T target frames, J judged frames, F of them with somebody found.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from hmcli.metrics.contract import ClipCameras, Metric, Tracks
from hmcli.metrics.reentry import JUDGED, NEEDS, TAKEN, ReEntry, of_each
from hmcli.metrics.tracks import FoundTracks
from hmcli.metrics.views import projected

FEWEST = 4  # frames from which a velocity is read
LEAST_AXIS = 1.0  # body lengths between the frozen and the true place: below it, both are the same guess
LOWEST, HIGHEST = -1.0, 2.0  # of the progress: a single detection far away must not decide a mean
IN_A_ROW = 2  # frames in which somebody is seen, from which on the subject has come back: one may be a flicker


def place_bodies(of: ReEntry, found: FoundTracks, tracks: Tracks, cameras: ClipCameras) -> float | None:
    """The mean distance in body lengths over the frames in which somebody was found."""
    return float(of.track.distance[of.found_J].mean()) if len(of.found_J) else None


def place_degrees(of: ReEntry, found: FoundTracks, tracks: Tracks, cameras: ClipCameras) -> float | None:
    """The same as an angle seen from the camera."""
    return float(of.track.degrees_T[of.found_J].mean()) if len(of.found_J) else None


def progress(of: ReEntry, found: FoundTracks, tracks: Tracks, cameras: ClipCameras) -> float | None:
    """Where the subject was found between the place where it was last seen (0) and the true one (1).

    None where nobody was found, and where both places are less than LEAST_AXIS apart in the pictures of all frames.
    """
    frozen_F2 = frozen_off(of, tracks, cameras)[of.found_J]
    long_F = np.linalg.norm(frozen_F2, axis=-1) >= LEAST_AXIS  # NaN is not: behind the camera
    if not long_F.any():
        return None
    off_F2, frozen_F2 = of.track.off_T2[of.found_J][long_F], frozen_F2[long_F]
    return float(np.clip(1 - (off_F2 * frozen_F2).sum() / (frozen_F2**2).sum(), LOWEST, HIGHEST))


def frozen_off(of: ReEntry, tracks: Tracks, cameras: ClipCameras) -> np.ndarray:
    """(T, 2) body lengths to the right and down from where the subject is to where it was last seen, in the pictures.

    Of its feet, which is what tracks tell. NaN where it has never been seen, or that place is behind the camera.
    """
    if of.stretch.first == 0:
        return np.full(of.track.pixels_T2.shape, np.nan)
    position_A3 = of.track.subject.position_A3
    at = [
        projected(point_3, pose, cameras.intrinsics_4)[0]
        for frame, pose in zip(tracks.target_T, cameras.target_T44, strict=True)
        for point_3 in (position_A3[of.stretch.first - 1], position_A3[frame])
    ]
    last_T2, true_T2 = np.array(at[::2]), np.array(at[1::2])
    return np.asarray((last_T2 - true_T2) / of.track.pixels_T2)


def frames_off(of: ReEntry, found: FoundTracks, tracks: Tracks, cameras: ClipCameras) -> float:
    """Between the first judged frame and the one in which somebody is there, sooner or later.

    Who comes sooner is nobody's: the truth shows nothing yet. Who never comes counts as coming after the last frame.
    """
    hidden_since = int(np.searchsorted(tracks.target_T, of.stretch.first))
    there_T = of.track.found | np.array([bool(of_frame) for of_frame in found.nobodys])
    came = next((t for t in range(hidden_since, of.until) if there_T[t : t + IN_A_ROW].sum() == IN_A_ROW), of.until)
    return float(abs(came - of.judged_J[0]))


def velocity_off(of: ReEntry, found: FoundTracks, tracks: Tracks, cameras: ClipCameras) -> float | None:
    """Body lengths per second between the velocities of what was found and of the truth, across the line of sight.

    That is the slope of what lies between both, by least squares: the camera's own motion is in both, and drops out.
    """
    if len(of.found_J) < FEWEST:
        return None
    seconds_F = of.seconds_T[of.found_J] - of.seconds_T[of.found_J].mean()
    if not (seconds_F**2).sum():
        return None  # the clip repeats its last frame
    slope_2 = (seconds_F[:, None] * of.track.off_T2[of.found_J]).sum(axis=0) / (seconds_F**2).sum()
    return float(np.linalg.norm(slope_2))


_FOUND = f"{JUDGED.capitalize()}; {TAKEN}. Frames in which nothing was taken for the subject are not judged"

position_error = Metric(
    name="position-error",
    function=partial(of_each, value=place_bodies, otherwise="nobody was found in the place of a subject that is back"),
    needs=NEEDS,
    unit="body lengths",
    range=(0, math.inf),
    better="lower",
    definition="for each certified stretch after which its subject is back in the target: the mean distance in the "
    "picture between the middles of the box of the detection taken for it and of the box of what the truth shows of "
    f"it, in body lengths at its true distance. {_FOUND}",
    partial=True,
    per="stretch",
    order=("truth", "frozen"),
)

position_error_degrees = Metric(
    name="position-error-degrees",
    function=partial(of_each, value=place_degrees, otherwise="nobody was found in the place of a subject that is back"),
    needs=NEEDS,
    unit="degrees",
    range=(0, 180),
    better="lower",
    definition="as position-error, but the angle between the rays of the true camera through both middles. " + _FOUND,
    partial=True,
    per="stretch",
    order=("truth", "frozen"),
)

state_progress = Metric(
    name="state-progress",
    function=partial(
        of_each, value=progress, otherwise="nobody was found, or whoever stands still would be right by chance"
    ),
    needs=NEEDS,
    unit="",
    range=(LOWEST, HIGHEST),
    definition="for each certified stretch after which its subject is back in the target: 1 - sum(o . f) / sum(f . f), "
    f"from {LOWEST:g} to {HIGHEST:g}: 1 at the true place, 0 where it would be seen had it stood still since it was "
    "last seen. o: from the middle of the box of what the truth shows of it to that of the detection taken for it, f: "
    "from its true feet to those last seen, in body lengths at its true distance, in the true camera's picture. "
    f"Frames in which f is shorter than {LEAST_AXIS:g} are not judged. {_FOUND}",
    partial=True,
    per="stretch",
    order=("truth", "frozen"),
)

time_error = Metric(
    name="time-error",
    function=partial(of_each, value=frames_off, otherwise=""),
    needs=NEEDS,
    unit="frames",
    range=(0, math.inf),
    better="lower",
    definition="for each certified stretch after which its subject is back in the target: frames between the first "
    f"judged one and the first of {IN_A_ROW} in a row, since the subject was hidden, in which a detection was taken "
    "for it, or for nobody while the truth shows nothing of it; without such frames: to the end, or its next stretch. "
    f"{JUDGED.capitalize()}; {TAKEN}",
    partial=True,
    per="stretch",
    order=("truth", "erased"),
)

velocity_error = Metric(
    name="velocity-error",
    function=partial(of_each, value=velocity_off, otherwise=f"nobody was found in {FEWEST} frames"),
    needs=NEEDS,
    unit="body lengths per second",
    range=(0, math.inf),
    better="lower",
    definition="for each certified stretch after which its subject is back in the target: the length of the slope, by "
    "least squares over time, of the way from the middle of the box of what the truth shows of it to that of the "
    "detection taken for it, in body lengths at its true distance; the difference of both "
    f"velocities in the picture. With fewer than {FEWEST} frames it has none. {_FOUND}",
    partial=True,
    per="stretch",
    order=("truth", "frozen"),
)
