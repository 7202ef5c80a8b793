"""Rendered clips: draw them, and write their folders. What the processes of `hm render` share out among them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmcli.errors import HMError
from hmcli.recipe.sections import WorldConfig
from hmcli.stages.bench.definition import Chosen
from hmcli.store.files import write_json
from hmcli.store.video import write_video
from hmcli.world.hidden.events import Visibility, visibility
from hmcli.world.staging import annotate, wording
from hmcli.world.staging.clip import ClipDescription, describe_clip
from hmcli.world.staging.verdict import Certificates, certificates, refusal

if TYPE_CHECKING:
    from hmcli.world.render import RenderedClip

_AHEAD = 2  # batches given out per process: none waits for another to be collected
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


def render_batch(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Draw clips together and write their folders; returns their lines of clips.jsonl."""
    rows = []
    for job, drawn in zip(jobs, _drawn(jobs), strict=True):
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


def batches(jobs: Sequence[Job]) -> list[Sequence[Job]]:
    """Jobs in the batches that are drawn at once: one by one on a CPU, where that is as fast, several on a GPU."""
    if not jobs or jobs[0].device == "cpu":
        return [[job] for job in jobs]
    world = jobs[0].world
    pixels = (world.context_frames + world.target_frames) * world.size[0] * world.size[1]
    count = max(1, BATCH_PIXELS // pixels)
    return [jobs[start : start + count] for start in range(0, len(jobs), count)]


def render_clips(jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Jobs with their lines of clips.jsonl, in the order in which they are done; with one process, in this one."""
    together = batches(jobs)
    if processes == 1 or len(together) < 2:
        for batch in together:
            yield from zip(batch, render_batch(batch), strict=True)
        return
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")  # torch and CUDA do not survive a fork
    pool = ProcessPoolExecutor(min(processes, len(together)), mp_context=context, initializer=_begin_worker)
    try:
        waiting = iter(together)
        running: dict[Future[list[dict[str, Any]]], Sequence[Job]] = {}
        while True:
            for batch in islice(waiting, processes * _AHEAD - len(running)):
                running[pool.submit(render_batch, batch)] = batch
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield from zip(running.pop(future), _result(future), strict=True)
    finally:
        for child in set(multiprocessing.active_children()) - others:  # nobody waits for what they are at
            child.terminate()
        pool.shutdown(cancel_futures=True)


def _result(future: Future[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    from concurrent.futures.process import BrokenProcessPool

    try:
        return future.result()
    except BrokenProcessPool as error:
        raise HMError(
            "a process that was drawing clips died (out of memory?)",
            fix="run the same command again with a smaller --num-processes: finished clips are kept",
        ) from error


def _begin_worker() -> None:
    """One process per core beats torch's own threads; and no process outlives the one that started it."""
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides

    def end_with_parent() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            with contextlib.suppress(OSError):
                parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _drawn(jobs: Sequence[Job]) -> list[Drawn]:
    """Draw until the masks show what each description promises; that ends with an error after a number of draws."""
    done: dict[int, Drawn] = {}
    waiting, draws = list(jobs), {job.index: 0 for job in jobs}
    while waiting:
        clips = [
            describe_clip(job.world, job.seed, job.index, first_draw=draws[job.index])
            if job.chosen is None
            else _chosen_clip(job, job.chosen)
            for job in waiting
        ]
        for job, drawn in zip(waiting, _pictured(waiting[0], clips), strict=True):
            if job.chosen is None and refusal(drawn.clip, drawn.seen, drawn.found):
                draws[job.index] = drawn.clip.draw + 1
            else:
                done[job.index] = drawn
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
    for prefix, frames in annotate.parts(clip).items():
        instances = pictures.instances[frames]
        write_video(folder / f"{prefix}.mp4", pictures.rgb[frames], fps=clip.fps)
        white = np.repeat(np.where(instances > 0, 255, 0).astype(np.uint8)[..., None], 3, axis=-1)
        write_video(folder / f"{prefix}_mask.mp4", white, fps=clip.fps)
        write_video(folder / f"{prefix}_instances.mp4", instances, fps=clip.fps, quality="lossless")
        write_video(folder / f"{prefix}_amodal.mp4", bits[frames], fps=clip.fps, quality="lossless")


def _write_depth(folder: Path, clip: ClipDescription, depth: np.ndarray) -> None:
    context, target = (depth[frames].astype(np.float16) for frames in annotate.parts(clip).values())
    np.savez_compressed(folder / "depth.npz", cond=context, tgt=target)


def _write_annotations(folder: Path, drawn: Drawn, size: tuple[int, int]) -> None:
    clip, seen, pictures = drawn.clip, drawn.seen, drawn.pictures
    write_json(folder / "camera.json", annotate.camera(clip))
    write_json(folder / "character.json", annotate.character(clip))
    write_json(folder / "check.json", annotate.check(clip, seen))
    write_json(folder / "intrinsics.json", annotate.intrinsics(clip, size))
    write_json(folder / "events.json", annotate.events(clip, seen))
    found = annotate.subjects(clip, seen, pictures.instances, pictures.amodal, drawn.found)
    write_json(folder / "subjects.json", found)
