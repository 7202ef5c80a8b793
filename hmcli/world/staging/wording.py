"""Wording: captions from a clip's description. They tell what can be seen in the context, and nothing of the target.

The plain variant has no colours and no names of families: who does what, in what kind of place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hmcli.world.hidden.events import Visibility
from hmcli.world.staging.clip import Actor, ClipDescription

_NOTICED = 3  # frames of the context in which a subject must be visible to be mentioned
_HEAD_ON = 0.85  # share of a movement along the view axis from which it goes away or comes closer
_MANNERS = {
    "pace_change": "", "straight": "", "arc": " in a bend", "loop": " in a circle", "spiral": " in a spiral",
    "weave": " in gentle curves", "zigzag": " in zigzags", "figure_eight": " in wide loops",
    "turn_back": " in a narrow round", "stop_and_go": ", stopping again and again",
}  # fmt: skip


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
    return way + _MANNERS[actor.path]


def _sentence(names: Sequence[str], manners: Sequence[str], place: str) -> str:
    told: list[str] = []
    for number, (name, manner) in enumerate(zip(names, manners, strict=True)):
        again = name in names[:number]
        told.append(f"{f'another {name.split(maxsplit=1)[1]}' if again else name} {manner}")
    start = ", ".join(told[:-1]) + (" and " if told[1:] else "") + told[-1] if told else "nobody is seen"
    text = f"{start}, {place}."
    return text[0].upper() + text[1:]
