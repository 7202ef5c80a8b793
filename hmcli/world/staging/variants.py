"""Variants of a clip: its target alone, as it is, without subjects, or with subjects that are otherwise than they were.

The world is deterministic, so what would have been seen otherwise can be drawn: same place, light, camera and textures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from hmcli.world.staging.clip import Actor, ClipDescription
from hmcli.world.staging.paths import Walk


def target_alone(clip: ClipDescription) -> ClipDescription:
    """The target frames as a clip of their own: nothing of the context is drawn with them."""
    frames = np.arange(clip.context_frames, clip.frames)
    return replace(
        clip, actors=tuple(at_moments(actor, frames) for actor in clip.actors),
        needs=replace(clip.needs, context_frames=0), world_from_camera=clip.world_from_camera[frames],
    )  # fmt: skip


def without_subjects(clip: ClipDescription) -> ClipDescription:
    """The same clip of an empty place: neither bodies nor their shadows."""
    return replace(clip, actors=())


def standing(clip: ClipDescription, since: Mapping[int, int]) -> ClipDescription:
    """The target alone, each subject as it was in one frame of the clip: number of the subject -> frame.

    Subjects without a frame are not there.
    """
    moments = {number: np.full(clip.target_frames, frame) for number, frame in since.items()}
    still = tuple(at_moments(actor, moments[actor.number]) for actor in clip.actors if actor.number in moments)
    return replace(target_alone(clip), actors=still)


def with_instead(clip: ClipDescription, number: int, instead: Callable[[Actor], tuple[Actor, ...]]) -> ClipDescription:
    """The target alone, with what `instead` makes of one subject in its place. It is given that of the whole clip."""
    others = target_alone(clip).actors
    own = next(actor for actor in clip.actors if actor.number == number)
    actors = [[actor] if actor.number != number else instead(own) for actor in others]
    return replace(target_alone(clip), actors=tuple(one for of in actors for one in of))


def at_moments(actor: Actor, moments_T: np.ndarray) -> Actor:
    """The actor as it was in other frames, one for each frame that is to be drawn."""
    walk = Walk(
        position=actor.walk.position[moments_T], heading=actor.walk.heading[moments_T],
        distance=actor.walk.distance[moments_T],
    )  # fmt: skip
    return replace(actor, walk=walk, phase=actor.phase[moments_T], lift=actor.lift[moments_T])
