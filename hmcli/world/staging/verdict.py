"""Verdict: does a drawn clip, by its masks, show what it promises?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hmcli.world.hidden.certify import Certificate, certify
from hmcli.world.hidden.events import Visibility, covered_frames, hidden_stretches
from hmcli.world.staging.clip import ClipDescription
from hmcli.world.staging.splits import COVERED_SECONDS, SPLITS

Certificates = Mapping[str, Sequence[Certificate]]  # by subject, in order of time


def certificates(clip: ClipDescription, seen: Sequence[Visibility]) -> dict[str, list[Certificate]]:
    """Every stretch in which a subject that had been visible is hidden, measured."""
    found: dict[str, list[Certificate]] = {}
    for actor, of in zip(clip.actors, seen, strict=True):
        track, length = actor.walk.position[:, :2], actor.subject.body_length
        found[actor.name] = [
            certify(stretch, of.seen > 0, of.clear(), track, clip.fps, length, clip.needs)
            for stretch in hidden_stretches(of)
            if stretch.first > 0
        ]
    return found


def refusal(clip: ClipDescription, seen: Sequence[Visibility], found: Certificates) -> str:
    """Why the clip does not belong into its split, or nothing."""
    split = SPLITS[clip.split]
    if not all(of.clear().any() for of in seen):
        return "a subject is never clearly visible"
    certified = [one for several in found.values() for one in several if one.certified]
    if not certified:
        return "no subject leaves, is hidden long enough and comes back where that can be foretold"
    if split.turns and not any(one.turns for one in certified):
        return "no subject turns, stops or changes its pace enough while it is hidden"
    if split.crowd and max(map(covered_frames, seen)) < COVERED_SECONDS * clip.fps:
        return "no subject is long enough behind another one or behind a thing"
    return ""
