"""Verdict: does a drawn clip, by its masks, show what it promises?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hmcli.world.hidden.certify import Certificate, Watched, certify
from hmcli.world.hidden.events import Visibility, covered_frames, hidden_stretches
from hmcli.world.staging.clip import ClipDescription
from hmcli.world.staging.splits import COVERED_SECONDS, SPLITS

Certificates = Mapping[str, Sequence[Certificate]]  # by subject, in order of time


def certificates(clip: ClipDescription, seen: Sequence[Visibility]) -> dict[str, list[Certificate]]:
    """Every stretch in which a subject that had been visible is hidden, measured."""
    found: dict[str, list[Certificate]] = {}
    for actor, of in zip(clip.actors, seen, strict=True):
        shown = clip.inside(actor) * of.share()
        watched = Watched(
            track_T2=actor.walk.position[:, :2], seen_T=of.seen > 0, clear_T=of.clear(), half_T=shown >= 0.5,
            camera=clip.camera, half_angle=clip.half_angle, body_length=actor.subject.body_length, fps=clip.fps,
        )  # fmt: skip
        found[actor.name] = [
            certify(stretch, watched, clip.needs, np.random.default_rng([clip.seed, clip.index, actor.number, number]))
            for number, stretch in enumerate(hidden_stretches(of))
            if (of.seen[: stretch.first] > 0).any()
        ]
    return found


def refusal_at_sight(clip: ClipDescription, seen: Sequence[Visibility]) -> str:
    """Why the clip does not belong into its split, as far as masks alone tell, or nothing."""
    if not all(of.clear().any() for of in seen):
        return "a subject is never clearly visible"
    if SPLITS[clip.split].crowd and max(map(covered_frames, seen)) < COVERED_SECONDS * clip.fps:
        return "no subject is long enough behind another one or behind a thing"
    return ""


def refusal(clip: ClipDescription, seen: Sequence[Visibility], found: Certificates) -> str:
    """Why the clip does not belong into its split, or nothing."""
    split = SPLITS[clip.split]
    if refused := refusal_at_sight(clip, seen):
        return refused
    certified = [one for several in found.values() for one in several if one.certified]
    if split.absent:
        return _absence(found, certified)
    if not certified:
        return "no subject leaves, is hidden long enough and comes back where that can be foretold"
    if split.turns and not any(one.turns for one in certified):
        return "no subject turns, stops or changes its pace enough while it is hidden"
    return ""


def _absence(found: Certificates, certified: Sequence[Certificate]) -> str:
    """Why the clip is not one of an empty place, or nothing."""
    if not any(one.absent for several in found.values() for one in several):
        return "no subject is surely elsewhere where the camera looks for it again"
    return "a subject comes back" if certified else ""
