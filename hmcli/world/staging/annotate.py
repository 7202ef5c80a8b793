"""Annotations of a rendered clip, as hmcli.world.files.schema knows them: what its files and its row of a table say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hmcli.world.files.schema import Box, Event, HiddenStretch, Presence, SubjectState, SubjectTrack
from hmcli.world.files.tables import RenderedRow
from hmcli.world.hidden.certify import GUESSES, Certificate
from hmcli.world.hidden.events import Visibility, find_events
from hmcli.world.staging.clip import ClipDescription
from hmcli.world.staging.verdict import Certificates
from hmcli.world.views.cameras import PartName

DECIMALS = 4  # of shares, seconds, metres and degrees that are written


def parts(clip: ClipDescription) -> dict[PartName, slice]:
    """Frames of the context and of the target."""
    return {"context": slice(0, clip.context_frames), "target": slice(clip.context_frames, clip.frames)}


def cameras(clip: ClipDescription) -> dict[PartName, np.ndarray]:
    """world_from_camera of each part, metres."""
    return {part: clip.world_from_camera[frames] for part, frames in parts(clip).items()}


def tracks(clip: ClipDescription) -> list[SubjectTrack]:
    """The place of every subject's feet."""
    places = {
        actor.name: {part: actor.walk.position[frames] for part, frames in parts(clip).items()} for actor in clip.actors
    }
    return [SubjectTrack(name=name, context=of["context"], target=of["target"]) for name, of in places.items()]


def presences(clip: ClipDescription, seen: Sequence[Visibility]) -> list[Presence]:
    """A frame per exit and per entry, by subject and part."""
    found = []
    for actor, of in zip(clip.actors, seen, strict=True):
        events = find_events(of, clip.context_frames)
        for part in parts(clip):
            frames = tuple((event.frame, event.kind == "entry") for event in events if event.part == part)
            found.append(Presence(part=part, actor=actor.name, character=actor.subject.family, frames=frames))
    return found


def events(clip: ClipDescription, seen: Sequence[Visibility]) -> list[Event]:
    """Every exit and entry in order of time."""
    found = [event for of in seen for event in find_events(of, clip.context_frames)]
    found.sort(key=lambda event: (event.part != "context", event.frame, event.subject))
    return found


def states(
    clip: ClipDescription, seen: Sequence[Visibility], instances_THW: np.ndarray, amodal_STHW: np.ndarray,
    found: Certificates,
) -> list[SubjectState]:  # fmt: skip
    """Each subject's state per frame over context and target together, and when it is hidden."""
    return [
        SubjectState(
            name=actor.name, number=actor.number, family=actor.subject.family, kind=actor.subject.kind,
            height=actor.subject.tall, body_length=actor.subject.body_length, radius=actor.subject.radius,
            path=actor.path, speed=float(actor.walk.distance[-1] / ((clip.frames - 1) / clip.fps)),
            position=actor.walk.position, heading=actor.walk.heading, phase=actor.phase,
            box=boxes(instances_THW == actor.number), amodal_box=boxes(amodal),
            visible=np.round(of.share(), DECIMALS), hidden=hidden(found[actor.name], clip.fps),
        )
        for actor, of, amodal in zip(clip.actors, seen, amodal_STHW, strict=True)
    ]  # fmt: skip


def hidden(found: Sequence[Certificate], fps: float) -> tuple[HiddenStretch, ...]:
    """A subject's hidden stretches; None where it was seen too little before, or does not come back."""
    return tuple(_stretch(one, fps) for one in found)


def _stretch(one: Certificate, fps: float) -> HiddenStretch:
    metres = one.metres or dict.fromkeys(GUESSES)
    degrees = one.degrees or dict.fromkeys(GUESSES)
    return HiddenStretch(
        first=one.first, last=one.last, reason=one.reason, certified=one.certified, absent=one.absent,
        visible_seconds=round(one.visible_frames / fps, DECIMALS),
        shown_seconds=round(one.shown_frames / fps, DECIMALS),
        hidden_seconds=round(one.hidden_frames / fps, DECIMALS),
        error_degrees={name: _rounded(error) for name, error in degrees.items()},
        error_metres={name: _rounded(error) for name, error in metres.items()},
        error_bodies={
            name: None if error is None else _rounded(error / one.body_length) for name, error in metres.items()
        },
        law=one.law,
    )  # fmt: skip


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)


def amodal_bits(amodal_STHW: np.ndarray) -> np.ndarray:
    """(S, T, H, W) bool, S at most 8 -> (T, H, W) uint8: bit k-1 is set where subject k is."""
    if len(amodal_STHW) > 8:
        raise ValueError(f"{len(amodal_STHW)} subjects do not fit into 8 bits")
    return np.packbits(amodal_STHW, axis=0, bitorder="little")[0]


def amodal_masks(bits_THW: np.ndarray, subjects: int) -> np.ndarray:
    """What `amodal_bits` packed: (T, H, W) uint8 -> (S, T, H, W) bool."""
    return np.unpackbits(bits_THW[None], axis=0, bitorder="little", count=subjects).astype(bool)


def boxes(mask_THW: np.ndarray) -> tuple[Box | None, ...]:
    """Smallest box around each frame's mask, None where it is empty."""
    found: list[Box | None] = []
    for mask in mask_THW:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        whole = len(rows) > 0
        found.append((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if whole else None)
    return tuple(found)


def index_row(clip: ClipDescription, found: Certificates, caption: str, plain: str) -> RenderedRow:
    """The clip's line of the data set's table."""
    return RenderedRow(
        id=clip.id, seed=clip.seed, index=clip.index, draw=clip.draw, further_seeds=clip.further_seeds,
        split=clip.split, scene=clip.scene.family,
        subjects=tuple(actor.subject.family for actor in clip.actors),
        paths=tuple(actor.path for actor in clip.actors),
        trajectory=clip.trajectory, start=clip.start, follows=clip.follows, fps=clip.fps,
        context_frames=clip.context_frames, target_frames=clip.target_frames,
        hidden={name: hidden(several, clip.fps) for name, several in found.items()},
        caption=caption, caption_plain=plain,
    )  # fmt: skip
