"""Hand-made clips for metrics of detections: cameras, subjects, and detections where somebody is painted.

The camera stands at the origin and looks along +z of its own frame, which is +y of the world; a subject is ten metres
ahead, and its box is BODY wide and high: one body length at that distance. T target frames follow N context frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hmcli.metrics.contract import ClipCameras, Detection, Stretch, SubjectTrack, Tracks

N, T, H, W, FPS = 10, 20, 64, 160, 10.0
FOCAL, AWAY, LENGTH = 100.0, 10.0, 2.0
BODY = FOCAL * LENGTH / AWAY  # pixels of one body length: 20
Path = Callable[[int], tuple[float, float] | None]  # target frame -> where the middle of it is, in pixels

BACK = 6  # the target frame in which the subject is back


def walk(t: int) -> tuple[float, float]:
    """A pixel and a half to the right per frame."""
    return 60 + 1.5 * t, 32.0


def cameras() -> ClipCameras:
    pose = np.eye(4)
    pose[:3, :3] = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # columns: right, down, forward in the world
    return ClipCameras(
        context_N44=np.tile(pose, (N, 1, 1)), target_T44=np.tile(pose, (T, 1, 1)),
        intrinsics_4=np.array([FOCAL, FOCAL, W / 2, H / 2]),
    )  # fmt: skip


def box(x: float, y: float, size: float = BODY) -> np.ndarray:
    return np.array([x - size / 2, y - size / 2, x + size / 2, y + size / 2])


def subject(
    number: int, path: Path = walk, back: int | None = BACK, *, first: int = 3, family: str = "fox",
    last_seen: tuple[float, float] = (20.0, 32.0), reason: str = "left the frame", certified: bool = True,
) -> SubjectTrack:  # fmt: skip
    """One that is hidden from clip frame `first` on, and is back in target frame `back` (None: never) on `path`.

    Before it is hidden it stands at `last_seen`.
    """
    position_A3, box_A4 = np.zeros((N + T, 3)), np.full((N + T, 4), np.nan)
    for frame in range(N + T):
        t = frame - N
        at = last_seen if frame < first else path(t)
        if at is None:
            at = last_seen
        elif frame < first or (back is not None and t >= back):
            box_A4[frame] = box(*at)
        position_A3[frame] = world(*at)
    gone = Stretch(
        subject=number, name=f"s{number}", first=first, last=N + (T if back is None else back) - 1, back=back,
        reason=reason, certified=certified, absent=back is None, hidden_seconds=1.3,
    )  # fmt: skip
    return SubjectTrack(
        name=f"s{number}", number=number + 1, family=family, body_length=LENGTH, position_A3=position_A3,
        visible_A=np.isfinite(box_A4[:, 0]).astype(float), box_A4=box_A4, stretches=(gone,),
    )  # fmt: skip


def world(x: float, y: float) -> np.ndarray:
    """The point AWAY metres ahead that is seen at this pixel."""
    return np.array([(x - W / 2) * AWAY / FOCAL, AWAY, -(y - H / 2) * AWAY / FOCAL])


def tracks(*subjects: SubjectTrack) -> Tracks:
    return Tracks(subjects=subjects, context_N=np.arange(N), target_T=np.arange(N, N + T), fps=FPS)


def seen(*paths: Path, since: int = BACK, size: float = BODY) -> list[list[Detection]]:
    """Detections of what is on these paths from target frame `since` on; where a path says None, nobody is."""
    found: list[list[Detection]] = []
    for t in range(T):
        places: Sequence[tuple[float, float] | None] = [path(t) for path in paths] if t >= since else []
        frame = [Detection(box_4=box(*at, size), score=0.99 - 0.01 * k) for k, at in enumerate(places) if at]
        found.append(frame)
    return found


def moved(right: float, down: float = 0.0, path: Path = walk) -> Path:
    """So many body lengths away from a path."""

    def elsewhere(t: int) -> tuple[float, float] | None:
        at = path(t)
        return at and (at[0] + right * BODY, at[1] + down * BODY)

    return elsewhere
