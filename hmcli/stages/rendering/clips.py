"""Rendered clips: draw them, and write their folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hmcli.contracts import Reporter
from hmcli.errors import HMError
from hmcli.recipe.sections import WorldConfig
from hmcli.stages.bench.definition import Chosen
from hmcli.stages.shared.makers import Unit
from hmcli.store.files import write_json
from hmcli.store.video import write_video
from hmcli.world.files import schema
from hmcli.world.files.layout import CAMERA, CHARACTER, CHECK, DEPTH, EVENTS, INTRINSICS, STATES, video_file
from hmcli.world.files.tables import RenderedRow
from hmcli.world.hidden.events import Visibility, visibility
from hmcli.world.staging import annotate, wording
from hmcli.world.staging.clip import ClipDescription, describe_clip
from hmcli.world.staging.verdict import Certificates, certificates, refusal, refusal_at_sight
from hmcli.world.views.cameras import PREFIXES, pair_file

if TYPE_CHECKING:
    from hmcli.world.render import RenderedClip

BATCH_PIXELS = 16 * 66 * 64 * 112  # drawn at once on a GPU: 16 clips of 66 small frames


@dataclass(frozen=True, kw_only=True)
class Job:
    """Clip `index` of a seed, to be written into `folder`, which does not exist yet."""

    world: WorldConfig
    seed: int
    index: int
    device: str
    folder: Path
    chosen: Chosen | None  # what a benchmark fixed: nothing is looked for then


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A clip, what its masks say, and how many draws before it did not show what they promise."""

    clip: ClipDescription
    seen: list[Visibility]
    found: Certificates
    refused: int


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A clip with its pictures."""

    shown: Shown
    pictures: RenderedClip


def render_batch(jobs: Sequence[Job]) -> list[RenderedRow]:
    """Draw clips together and write their folders; returns their lines of clips.jsonl."""
    rows = []
    for job, drawn in zip(jobs, drawn_until_kept(jobs), strict=True):
        shown, clip = drawn.shown, drawn.shown.clip
        if job.chosen is not None:
            text, plain = job.chosen.caption, job.chosen.caption_plain
        else:
            text, plain = (tell(clip, shown.seen) for tell in (wording.caption, wording.plain_caption))
        job.folder.mkdir()
        _write_pictures(job.folder, clip, drawn.pictures)
        _write_depth(job.folder, clip, drawn.pictures.depth)
        _write_annotations(job.folder, drawn, job.world.size)
        rows.append(annotate.index_row(clip, shown.found, text, plain))
    return rows


def drawn_at_once(clips: Sequence[str], world: WorldConfig, device: str) -> list[Sequence[str]]:
    """Clips in the batches that are drawn at once: one by one on a CPU, where that is as fast, several on a GPU."""
    if device == "cpu":
        return [[clip] for clip in clips]
    pixels = (world.context_frames + world.target_frames) * world.size[0] * world.size[1]
    count = max(1, BATCH_PIXELS // pixels)
    return [clips[start : start + count] for start in range(0, len(clips), count)]


@dataclass(frozen=True, kw_only=True)
class Drawer:
    """Draws clips of a seed by their ids (hmcli.stages.shared.makers.Maker); each gets a folder in `place`."""

    world: WorldConfig
    seed: int
    device: str
    chosen: Sequence[Chosen] | None
    numbers: Mapping[str, int]  # of the clips, by id
    imports: tuple[str, ...] = ("hmcli.world.render",)

    def reporting_to(self, reporter: Reporter) -> Drawer:
        return self  # it tells nothing

    def load(self) -> None:
        pass  # there are no weights

    def make(self, unit: Unit, place: Path) -> dict[str, RenderedRow]:
        """By clip, its line of clips.jsonl."""
        place.mkdir()
        numbers = [self.numbers[clip] for clip in unit.items]
        jobs = [
            Job(
                world=self.world, seed=self.seed, index=index, device=self.device, folder=place / clip,
                chosen=None if self.chosen is None else self.chosen[index],
            )
            for clip, index in zip(unit.items, numbers, strict=True)
        ]  # fmt: skip
        return dict(zip(unit.items, render_batch(jobs), strict=True))


def drawn_until_kept(jobs: Sequence[Job]) -> list[Drawn]:
    """At least one clip: those whose masks show what their descriptions promise, or an error after a number of draws.

    Masks are drawn first, which takes a small part of the time that pictures take.
    """
    from hmcli.world.render import draw_clips  # torch loads here

    kept, first = [_kept(job) for job in jobs], jobs[0]
    pictures = draw_clips(
        [one.clip for one in kept], first.world.size, first.device, antialias=first.world.antialias
    )  # fmt: skip
    return [Drawn(shown=shown, pictures=drawn) for shown, drawn in zip(kept, pictures, strict=True)]


def _kept(job: Job) -> Shown:
    """The first draw that shows what it promises; the draw that a benchmark chose, whatever it shows."""
    if job.chosen is not None:
        clip = _chosen_clip(job, job.chosen)
        seen = _seen(job, clip)
        return Shown(clip=clip, seen=seen, found=certificates(clip, seen), refused=0)
    draw = refused = 0
    while True:
        clip = describe_clip(job.world, job.seed, job.index, first_draw=draw)
        seen = _seen(job, clip)
        if not refusal_at_sight(clip, seen):  # before certificates, which are dear
            found = certificates(clip, seen)
            if not refusal(clip, seen, found):
                return Shown(clip=clip, seen=seen, found=found, refused=refused)
        draw, refused = clip.draw + 1, refused + 1


def _seen(job: Job, clip: ClipDescription) -> list[Visibility]:
    from hmcli.world.render import draw_masks  # torch loads here

    masks = draw_masks(clip, job.world.size, job.device)
    return [
        visibility(actor.name, actor.number, masks.instances, amodal)
        for actor, amodal in zip(clip.actors, masks.amodal, strict=True)
    ]


def _chosen_clip(job: Job, chosen: Chosen) -> ClipDescription:
    """The draw a benchmark names, at the size at which it was chosen."""
    world = replace(job.world, size=chosen.size)
    clip = describe_clip(world, job.seed, job.index, first_draw=chosen.draw)
    if clip.draw != chosen.draw:
        raise HMError(
            f"this hm does not find the clip that {job.world.benchmark} names: draw {chosen.draw} is refused",
            where={"clip": clip.id}, fix="use the version of hm that froze the benchmark (hm bench show)",
        )  # fmt: skip
    return clip


def _write_pictures(folder: Path, clip: ClipDescription, pictures: RenderedClip) -> None:
    bits = annotate.amodal_bits(pictures.amodal)
    for part, frames in annotate.parts(clip).items():
        instances = pictures.instances[frames]
        write_video(folder / video_file(part), pictures.rgb[frames], fps=clip.fps)
        white = np.repeat(np.where(instances > 0, 255, 0).astype(np.uint8)[..., None], 3, axis=-1)
        write_video(folder / video_file(part, "mask"), white, fps=clip.fps)
        write_video(folder / video_file(part, "instances"), instances, fps=clip.fps, quality="lossless")
        write_video(folder / video_file(part, "amodal"), bits[frames], fps=clip.fps, quality="lossless")


def _write_depth(folder: Path, clip: ClipDescription, depth: np.ndarray) -> None:
    arrays = {PREFIXES[part]: depth[frames].astype(np.float16) for part, frames in annotate.parts(clip).items()}
    np.savez_compressed(folder / DEPTH, allow_pickle=False, **arrays)


def _write_annotations(folder: Path, drawn: Drawn, size: tuple[int, int]) -> None:
    clip, seen, pictures = drawn.shown.clip, drawn.shown.seen, drawn.pictures
    states = annotate.states(clip, seen, pictures.instances, pictures.amodal, drawn.shown.found)
    write_json(folder / CAMERA, pair_file(annotate.cameras(clip)))
    write_json(folder / CHARACTER, schema.subjects_json(annotate.tracks(clip)))
    write_json(folder / CHECK, schema.check_json(annotate.presences(clip, seen)))
    write_json(folder / INTRINSICS, schema.intrinsics_json(clip.intrinsics(size), size))
    write_json(folder / EVENTS, schema.events_json(annotate.events(clip, seen)))
    write_json(folder / STATES, schema.states_json(states))
