"""Camera presets: a way of the camera in words, such as `pan-right-return:40deg` or `truck-left:3m+pan-left`.

A word is a move and its side (docs/world.md), or `still`; with `-return` it comes back in its second half.
Amounts follow after `:`, degrees that it turns (`40deg`), metres to the middle of the scene, by which slides and drives
are measured (`6m`). Words joined by `+` follow one another and take equal parts of the time. Nothing is drawn by
chance: where a trajectory of a rendered clip has a range, a preset takes its middle.
World metres, Z up, as in hmcli.world.views.trajectories; the camera starts at the origin's `EYE` and looks along +y.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from hmcli import registry
from hmcli.errors import UsageError
from hmcli.registry import normal
from hmcli.world.views.moves import NONE, Range
from hmcli.world.views.trajectories import SIDES, CameraTrack, Shot, Timing, film, trajectory

DEGREES, METRES = 40.0, 6.0  # where a preset does not say
EYE = 1.6  # metres above the ground
STILL, RETURN = "still", "-return"
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)(deg|m)")
_MOST = {"deg": 180.0, "m": 1000.0}


@dataclass(frozen=True, kw_only=True)
class Word:
    """One part of a preset."""

    name: str  # of a trajectory; empty: the camera stands
    returns: bool
    degrees: float
    metres: float


def parse_preset(text: str) -> tuple[Word, ...]:
    """The words of a preset. Raises UsageError for one that is not understood, with what is known."""
    return tuple(_word(part.strip(), text) for part in text.split("+"))


def preset_poses(words: tuple[Word, ...], frames: int) -> np.ndarray:
    """(1 + frames, 4, 4) float64 world_from_camera, metres: where the camera stands first, then where it goes.

    Raises UsageError for fewer frames than words.
    """
    if frames < len(words):
        raise UsageError(f"{len(words)} camera moves need as many frames, there are {frames}")
    poses = CameraTrack(eye=np.array([[0.0, 0.0, EYE]]), yaw=np.array([np.pi / 2])).world_from_camera()
    ends = np.linspace(0, frames, len(words) + 1).round().astype(int)
    for word, length in zip(words, np.diff(ends), strict=True):
        way = _way(word, int(length))
        poses = np.concatenate([poses, poses[-1] @ np.linalg.inv(way[0]) @ way[1:]])
    return poses


def fastest_turn(poses: np.ndarray, fps: float) -> float:
    """Degrees per second: the fastest turn from one of the (T, 4, 4) poses to the next."""
    turned = np.einsum("tji,tjk->tik", poses[:-1, :3, :3], poses[1:, :3, :3])
    cosine = (np.trace(turned, axis1=1, axis2=2) - 1) / 2
    return float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))).max(initial=0.0) * fps)


def _word(part: str, whole: str) -> Word:
    name, *amounts = part.split(":")
    name = normal(name.strip().lower())
    said = {"deg": DEGREES, "m": METRES}
    for amount in amounts:
        found = _AMOUNT.fullmatch(amount.strip().lower())
        if found is None or not 0 < float(found[1]) <= _MOST[found[2]]:
            raise UsageError(
                f"--cameras {whole!r}: {amount!r} is no amount",
                fix="write degrees as 40deg (180 at most), metres as 6m (1000 at most)",
            )  # fmt: skip
        said[found[2]] = float(found[1])
    returns, name = name.endswith(RETURN), name.removesuffix(RETURN)
    if name == STILL and not returns:
        return Word(name="", returns=False, degrees=said["deg"], metres=said["m"])
    known = [f"{move}-{side}" for move in registry.names("move") for side in SIDES]
    if name not in known:
        raise UsageError(
            f"--cameras {whole!r}: unknown camera move {part!r}", fix=registry.suggestion(name, [STILL, *known])
        )
    return Word(name=name.replace("-", "_"), returns=returns, degrees=said["deg"], metres=said["m"])


def _way(word: Word, frames: int) -> np.ndarray:
    """(1 + frames, 4, 4): one word by itself."""
    eye, away = np.array([0.0, 0.0, EYE]), frames / 2 if word.returns else float(frames)
    if not word.name:
        return np.repeat(CameraTrack(eye=eye[None], yaw=np.array([np.pi / 2])).world_from_camera(), 1 + frames, axis=0)
    move, side = trajectory(word.name)
    turn = np.deg2rad(word.degrees) if move.pan != NONE else 0.0
    shot = Shot(
        eye=eye, pivot=np.array([0.0, word.metres]), yaw=np.pi / 2, pan=float(side * turn),
        slide=word.metres * np.array([-side * _middle(move.truck), _middle(move.dolly)]),
        orbit=float(side * np.deg2rad(_middle(move.orbit))), rise=EYE * _middle(move.crane),
        undone=1.0, aside=0.0, rolled=np.zeros((1 + frames, 2)),
    )  # fmt: skip
    timing = Timing(
        arrive=-1, arrive_frames=1, away=0, away_frames=away, back=away if word.returns else 2 * frames,
        back_frames=away,
    )  # fmt: skip
    return film(shot, timing, 0.0).world_from_camera()


def _middle(of: Range) -> float:
    return (of[0] + of[1]) / 2
