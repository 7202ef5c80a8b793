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
from hmcli.world.staging.verdict import Certificates, certificates, refusal
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
class Drawn:
    """A clip with its pictures, and what its masks say."""

    clip: ClipDescription
    pictures: RenderedClip
    seen: list[Visibility]
    found: Certificates
    refused: int = 0  # drawings of this clip whose masks did not show what it promises


def render_batch(jobs: Sequence[Job]) -> list[RenderedRow]:
    """Draw clips together and write their folders; returns their lines of clips.jsonl."""
    rows = []
    for job, drawn in zip(jobs, drawn_until_kept(jobs), strict=True):
        if job.chosen is not None:
            text, plain = job.chosen.caption, job.chosen.caption_plain
        else:
            text, plain = (tell(drawn.clip, drawn.seen) for tell in (wording.caption, wording.plain_caption))
        job.folder.mkdir()
        _write_pictures(job.folder, drawn.clip, drawn.pictures)
        _write_depth(job.folder, drawn.clip, drawn.pictures.depth)
        _write_annotations(job.folder, drawn, job.world.size)
        rows.append(annotate.index_row(drawn.clip, drawn.found, text, plain))
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
    """Draw until the masks show what each description promises; that ends with an error after a number of draws."""
    done: dict[int, Drawn] = {}
    waiting, draws, refused = list(jobs), {job.index: 0 for job in jobs}, {job.index: 0 for job in jobs}
    while waiting:
        clips = [
            describe_clip(job.world, job.seed, job.index, first_draw=draws[job.index])
            if job.chosen is None
            else _chosen_clip(job, job.chosen)
            for job in waiting
        ]
        for job, drawn in zip(waiting, _pictured(waiting[0], clips), strict=True):
            if job.chosen is None and refusal(drawn.clip, drawn.seen, drawn.found):
                draws[job.index], refused[job.index] = drawn.clip.draw + 1, refused[job.index] + 1
            else:
                done[job.index] = replace(drawn, refused=refused[job.index])
        waiting = [job for job in waiting if job.index not in done]
    return [done[job.index] for job in jobs]


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


def _pictured(job: Job, clips: Sequence[ClipDescription]) -> list[Drawn]:
    """Clips with their pictures, and what their masks say; all at the size and on the device of `job`."""
    from hmcli.world.render import draw_clips  # torch loads here

    found = []
    for clip, pictures in zip(
        clips, draw_clips(clips, job.world.size, job.device, antialias=job.world.antialias), strict=True
    ):
        seen = [
            visibility(actor.name, actor.number, pictures.instances, amodal)
            for actor, amodal in zip(clip.actors, pictures.amodal, strict=True)
        ]
        found.append(Drawn(clip=clip, pictures=pictures, seen=seen, found=certificates(clip, seen)))
    return found


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
    clip, seen, pictures = drawn.clip, drawn.seen, drawn.pictures
    states = annotate.states(clip, seen, pictures.instances, pictures.amodal, drawn.found)
    write_json(folder / CAMERA, pair_file(annotate.cameras(clip)))
    write_json(folder / CHARACTER, schema.subjects_json(annotate.tracks(clip)))
    write_json(folder / CHECK, schema.check_json(annotate.presences(clip, seen)))
    write_json(folder / INTRINSICS, schema.intrinsics_json(clip.intrinsics(size), size))
    write_json(folder / EVENTS, schema.events_json(annotate.events(clip, seen)))
    write_json(folder / STATES, schema.states_json(states))
