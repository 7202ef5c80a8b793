"""Wording: captions from a clip's description. They tell what can be seen in the context, and nothing of the target.

How a subject walks is read off the frames in which it is visible, never off the law that it follows: who has not yet
turned walks straight on. The plain variant has no colours and no names of families: who does what, in what kind of
place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hmcli.world.hidden.events import Visibility, stretches
from hmcli.world.staging.clip import Actor, ClipDescription

_NOTICED = 3  # frames of the context in which a subject must be visible to be mentioned
_HEAD_ON = 0.85  # share of a movement along the view axis from which it goes away or comes closer
_STANDS = 0.2  # share of its fastest pace below which a subject stands still
_TURNS = 0.5  # radians by which a heading changes before it is called a turn
_ROUND = 4.5  # radians of a turn to one side from which on it is called a circle


def caption(clip: ClipDescription, seen: Sequence[Visibility]) -> str:
    """One sentence: the subjects that are visible in the context, how they walk, where, in what light."""
    noticed = _noticed(clip, seen)
    place = f"{clip.scene.preposition} {clip.scene.words} {clip.light.words}"
    return _sentence([actor.subject.words for actor, _ in noticed], _manners(clip, noticed), place)


def plain_caption(clip: ClipDescription, seen: Sequence[Visibility]) -> str:
    """The same without colours and names."""
    noticed = _noticed(clip, seen)
    names = [actor.subject.plain for actor, _ in noticed]
    return _sentence(names, _manners(clip, noticed), f"in {clip.scene.plain}")


def _noticed(clip: ClipDescription, seen: Sequence[Visibility]) -> list[tuple[Actor, np.ndarray]]:
    """The subjects that are visible in the context, with the frames in which they are."""
    frames = [np.flatnonzero(of.seen[: clip.context_frames]) for of in seen]
    return [(actor, when) for actor, when in zip(clip.actors, frames, strict=True) if len(when) >= _NOTICED]


def _manners(clip: ClipDescription, noticed: Sequence[tuple[Actor, np.ndarray]]) -> list[str]:
    return [_manner(clip, actor, when) for actor, when in noticed]


def _manner(clip: ClipDescription, actor: Actor, when: np.ndarray) -> str:
    """How a subject walks over the frames in which it is visible, as seen from where the camera is at first."""
    step = actor.walk.position[when[-1]] - actor.walk.position[when[0]]
    aside, _, ahead = clip.world_from_camera[when[0], :3, :3].T @ (step / max(float(np.linalg.norm(step)), 1e-9))
    if abs(ahead) > _HEAD_ON:
        way = "walks away" if ahead > 0 else "walks closer"
    else:
        way = "walks to the right" if aside > 0 else "walks to the left"
    return way + _stops(actor, when) + _turns(actor.walk.heading[when])


def _stops(actor: Actor, when: np.ndarray) -> str:
    """Whether it is seen to stop and go on: stops count that lie between visible steps."""
    steps = np.flatnonzero(np.diff(when) == 1)
    pace = np.diff(actor.walk.distance)[when[steps]]
    stands = pace < _STANDS * pace.max(initial=0.0)
    moving = np.flatnonzero(~stands)
    between = stands[moving[0] : moving[-1] + 1] if moving.size else stands[:0]
    stops = len(stretches(between))
    return ", stopping again and again" if stops > 1 else ", stopping once" if stops else ""


def _turns(heading: np.ndarray) -> str:
    """What shape the visible way has, from its headings (n,) radians: each turn to one side is one bend."""
    bends = _bends(heading)
    if not bends:
        return ""
    if len(bends) > 1:
        return " in curves to both sides"
    return " in a circle" if abs(bends[0]) >= _ROUND else " in a bend"


def _bends(heading: np.ndarray) -> list[float]:
    """Turns to alternating sides, radians, small ones to and fro left out."""
    bends: list[float] = []
    start = extreme = float(heading[0])
    for angle in heading[1:].tolist():
        if abs(angle - start) > abs(extreme - start) and (angle - start) * (extreme - start) >= 0:
            extreme = angle
        elif abs(angle - extreme) >= _TURNS:
            if abs(extreme - start) >= _TURNS:
                bends.append(extreme - start)
            start, extreme = extreme, angle
    return [*bends, extreme - start] if abs(extreme - start) >= _TURNS else bends


def _sentence(names: Sequence[str], manners: Sequence[str], place: str) -> str:
    told: list[str] = []
    for number, (name, manner) in enumerate(zip(names, manners, strict=True)):
        again = name in names[:number]
        told.append(f"{f'another {name.split(maxsplit=1)[1]}' if again else name} {manner}")
    start = ", ".join(told[:-1]) + (" and " if told[1:] else "") + told[-1] if told else "nobody is seen"
    text = f"{start}, {place}."
    return text[0].upper() + text[1:]
