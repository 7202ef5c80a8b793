"""One rendered clip: draw it, and write its folder. What the processes of `hm render` share out among them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmcli.errors import HMError
from hmcli.recipe import WorldConfig
from hmcli.stages.bench.definition import Chosen
from hmcli.store.files import write_json
from hmcli.store.video import write_video
from hmcli.world import annotate, wording
from hmcli.world.clip import ClipDescription, describe_clip
from hmcli.world.events import Visibility, visibility
from hmcli.world.verdict import Certificates, certificates, refusal

if TYPE_CHECKING:
    from hmcli.world.render import RenderedClip

_AHEAD = 2  # clips given out per process: none waits for another to be collected


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


def render_clip(job: Job) -> dict[str, Any]:
    """Draw a clip and write its folder; returns its line of clips.jsonl."""
    drawn = _drawn(job)
    if job.chosen is not None:
        text, plain = job.chosen.caption, job.chosen.caption_plain
    else:
        text, plain = (tell(drawn.clip, drawn.seen) for tell in (wording.caption, wording.plain_caption))
    job.folder.mkdir()
    _write_pictures(job.folder, drawn.clip, drawn.pictures)
    _write_depth(job.folder, drawn.clip, drawn.pictures.depth)
    _write_annotations(job.folder, drawn, job.world.size)
    return annotate.index_row(drawn.clip, drawn.found, text, plain)


def render_clips(jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Jobs with their lines of clips.jsonl, in the order in which they are done; with one process, in this one."""
    if processes == 1 or len(jobs) < 2:
        for job in jobs:
            yield job, render_clip(job)
        return
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")  # torch and CUDA do not survive a fork
    pool = ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context, initializer=_begin_worker)
    try:
        waiting = iter(jobs)
        running: dict[Future[dict[str, Any]], Job] = {}
        while True:
            for job in _some(waiting, processes * _AHEAD - len(running)):
                running[pool.submit(render_clip, job)] = job
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), _result(future)
    finally:
        for child in set(multiprocessing.active_children()) - others:  # nobody waits for what they are at
            child.terminate()
        pool.shutdown(cancel_futures=True)


def _some(jobs: Iterator[Job], count: int) -> Iterator[Job]:
    for _, job in zip(range(count), jobs, strict=False):
        yield job


def _result(future: Future[dict[str, Any]]) -> dict[str, Any]:
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


def _drawn(job: Job) -> Drawn:
    """Draw until the masks show what the description promises; it ends with an error after a number of draws."""
    if job.chosen is not None:
        return _pictured(job, _chosen_clip(job, job.chosen))
    draw = 0
    while True:
        drawn = _pictured(job, describe_clip(job.world, job.seed, job.index, first_draw=draw))
        if not refusal(drawn.clip, drawn.seen, drawn.found):
            return drawn
        draw = drawn.clip.draw + 1


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


def _pictured(job: Job, clip: ClipDescription) -> Drawn:
    """A clip with its pictures, and what its masks say."""
    from hmcli.world.render import draw_clip  # torch loads here

    pictures = draw_clip(clip, job.world.size, job.device, antialias=job.world.antialias)
    seen = [
        visibility(actor.name, actor.number, pictures.instances, amodal)
        for actor, amodal in zip(clip.actors, pictures.amodal, strict=True)
    ]
    return Drawn(clip=clip, pictures=pictures, seen=seen, found=certificates(clip, seen))


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
