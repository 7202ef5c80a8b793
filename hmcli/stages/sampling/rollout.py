"""Rollouts: a target longer than a model makes at once, made a chunk after the other (`sample.chunk`).

What was made is the past of what follows. A frozen model runs each chunk once as context and keeps its memory on disk:
every frame stays reachable, and a chunk costs the same however long the history is. A joint model sees the latest
latent frames, as many as its context has. A chunk is a video of 4k+1 frames of its own: it is decoded by itself, and
its noise depends on its number alone, so that a rollout that was stopped goes on to the same end.

Memory is true under the anchor pose it was made with. Where cameras go further from that than `sample.anchor_radius`,
the chunk's first camera is the new anchor, and the past that lies within the radius of it is run again; what lies
further away waits on disk, as latents, for an anchor near it.
"""

from __future__ import annotations

import dataclasses
import io
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmcli.aligned import tensor_of
from hmcli.contracts import TIME_STRIDE
from hmcli.errors import DataError, UsageError
from hmcli.stages.latents.view import LatentClip
from hmcli.stages.memory.kept import RowCache, anchor_of, compute_memory, rows_from, stored_block, write_block
from hmcli.stages.memory.layout import block_group
from hmcli.stages.memory.policy_inputs import ALL_FRAMES, SHOWS, SLOTS, needs_of_policy
from hmcli.stages.models.folders import frames_a_slot
from hmcli.stages.sampling.job import NOTHING, Job, denoised, frozen_past, inputs_of
from hmcli.stages.sampling.profile import CONTEXT, part
from hmcli.stages.sampling.samples import chunk_seed
from hmcli.store.files import write_bytes
from hmcli.world.views.cameras import relative_camera_rows

if TYPE_CHECKING:
    from hmcli.core.memory import BlockMemory, ContextMemory
    from hmcli.core.transformer import PutAway

EVERYTHING = "all"  # the policy that chooses nothing


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Frames `start` up to `stop` of a target, made as a video of `frames` = 4k+1 whose last ones may be cut off."""

    number: int
    start: int
    stop: int

    @property
    def frames(self) -> int:
        return -(-(self.stop - self.start - 1) // TIME_STRIDE) * TIME_STRIDE + 1

    @property
    def latents(self) -> int:
        return 1 + (self.frames - 1) // TIME_STRIDE


def chunks_of(frames: int, chunk: int) -> list[Chunk]:
    """A target of `frames` in chunks of `chunk` frames, the last one shorter. Raises UsageError unless it is 4k+1."""
    if chunk % TIME_STRIDE != 1:
        low = max(1, (chunk - 1) // TIME_STRIDE * TIME_STRIDE + 1)
        raise UsageError(
            f"sample.chunk={chunk}: a codec makes 4k+1 frames at a time", fix=f"set it to {low} or {low + TIME_STRIDE}"
        )
    starts = range(0, frames, chunk)
    return [Chunk(number=n, start=at, stop=min(at + chunk, frames)) for n, at in enumerate(starts)]


def check_rollout(job: Job) -> None:
    """Raise UsageError for what a rollout cannot do with this model, DataError for clips without poses."""
    if SHOWS in needs_of_policy(job.memory.policy) or job.described is not None:
        raise UsageError(
            f"sample.chunk: policy {job.memory.policy} reads what is known of given frames, not of generated ones",
            where={"model": job.model.path}, fix="set sample.chunk=0",
        )  # fmt: skip
    if job.sample.anchor_radius:
        _check_anchors(job)
    latents = chunks_of(job.sample.chunk, job.sample.chunk)[0].latents
    memory, config = job.memory, job.model.config()
    if memory.context == "frozen":
        _say_what_grows(job)
    if memory.context == "frozen" and SLOTS in needs_of_policy(memory.policy):
        _check_slots(job, latents, frames_a_slot(config), memory.top_k)


def _check_anchors(job: Job) -> None:
    """Raise UsageError where the past cannot be run again, or only all of it read as one."""
    asked = f"sample.anchor_radius={job.sample.anchor_radius:g}"
    if ALL_FRAMES in needs_of_policy(job.memory.policy):
        raise UsageError(
            f"{asked}: policy {job.memory.policy} reads any frame of the past, and some would be left out",
            where={"model": job.model.path}, fix="set sample.anchor_radius=0",
        )  # fmt: skip
    if job.history is not None and len(job.history.views) > 1:
        raise UsageError(
            f"{asked}: what came before the clip is memory alone, and cannot be run again under another anchor",
            where={"memory": job.history.views[0].path}, fix="set sample.anchor_radius=0",
        )  # fmt: skip


def _say_what_grows(job: Job) -> None:
    """What of a frozen model's rollout has no limit that somebody could set."""
    if not job.config.get("max_history"):
        job.reporter.note(
            "memory may get older than any of training: sample.max_history=N reads it as N latent frames old at most"
        )
    if job.memory.policy == EVERYTHING:
        job.reporter.note(f"policy {EVERYTHING} reads all of the past: a chunk takes longer, the more there is")


def _check_slots(job: Job, latents: int, frames_a_slot: int, top_k: int) -> None:
    """A chunk is run as context, whose frames choose among its own slots. Raises UsageError for one with too few;
    says how many of its frames no slot stands for."""
    if (slots := latents // frames_a_slot) < top_k:
        raise UsageError(
            f"sample.chunk={job.sample.chunk}: {latents} latent frames make {slots} memory slots, but "
            f"model.memory.top_k is {top_k}", where={"model": job.model.path},
            fix=f"set it to {1 + TIME_STRIDE * (top_k * frames_a_slot - 1)} or more",
        )  # fmt: skip
    if left := latents % frames_a_slot:
        fits = job.sample.chunk - TIME_STRIDE * left
        job.reporter.note(
            f"the last {left} of a chunk's {latents} latent frames are in no memory slot and are out of reach once "
            f"they are past (sample.chunk={fits} or {fits + TIME_STRIDE * frames_a_slot} leaves none out)"
        )


def roll_out(job: Job, clip: LatentClip, number: int, place: Path) -> Iterator[np.ndarray]:
    """Latents (C, F, h, w) float32 of one chunk after the other, of a sample of a clip.

    Those made earlier are read from `place`, where every chunk is kept as soon as it is made.
    """
    if clip.frame_poses is None:
        raise DataError(
            "a rollout needs a camera pose of every frame, this clip's file holds ready rows", where={"clip": clip.id},
            fix="set sample.chunk=0",
        )  # fmt: skip
    rollout, wanted = Rollout(job, clip, number, place), kept_frames(job, clip)
    for chunk in chunks_of(wanted, job.sample.chunk):
        poses = target_poses(clip, chunk)
        made = rollout.make(chunk, poses)
        yield made
        if chunk.stop < wanted:
            rollout.add(chunk, made, poses)


class Rollout:
    """A sample of a clip, a chunk after the other, along cameras that need not be known before their chunk is made."""

    def __init__(self, job: Job, clip: LatentClip, number: int, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.job, self.clip, self.number, self.place = job, clip, number, place
        frozen = job.network.config.context == "frozen"
        self._past: _Past = _Frozen(job, clip, place) if frozen else _Sliding(job, clip)

    def make(self, chunk: Chunk, poses: np.ndarray) -> np.ndarray:
        """Latents (C, F, h, w) float32 of the next chunk along the poses (F, 4, 4) of its latent frames, which are
        world_from_camera; read from disk where it was made earlier. It is no past yet (`add`)."""
        file, moved = _file_of(self.place, chunk), self._past.come_to(poses)
        if (made := _kept(file)) is None:
            if moved:
                self.job.reporter.note(f"{self.clip.id}, frame {chunk.start}: {moved}")
            seed = chunk_seed(self.job.recipe.seed, self.clip.id, self.number, chunk.number)
            past = self._past.arguments(chunk, poses)
            made = denoised(self.job, self.clip, self.number, seed, chunk.latents, past)
            _keep(file, made)
        return made

    def add(self, chunk: Chunk, made: np.ndarray, poses: np.ndarray) -> None:
        """The chunk is past now, also one that another rollout made."""
        if not (file := _file_of(self.place, chunk)).is_file():
            _keep(file, made)
        self._past.add(chunk, made, poses)

    def forget(self, chunk: Chunk) -> None:
        """A chunk that was made and is no past yet will be made anew, along other cameras for instance."""
        _file_of(self.place, chunk).unlink(missing_ok=True)

    @property
    def reached(self) -> np.ndarray:
        """(A,) int64: which latent frames, counted from the first of the context on, the model numbers 0, 1, ...: all
        of the past that the next chunk may read, in order."""
        return self._past.numbers()


def _file_of(place: Path, chunk: Chunk) -> Path:
    return place / f"{chunk.number:05d}.npy"


def _keep(file: Path, made: np.ndarray) -> None:
    data = io.BytesIO()
    np.save(data, made, allow_pickle=False)
    write_bytes(file, data.getvalue())


def _kept(file: Path) -> np.ndarray | None:
    """What was kept there. Raises DataError for a file that is damaged."""
    if not file.is_file():
        return None
    try:
        return np.asarray(np.load(file, allow_pickle=False))
    except (ValueError, OSError, EOFError) as error:
        raise DataError(
            "a chunk that was made earlier cannot be read", where={"file": file, "because": error},
            fix=f"remove {file.parent}: its chunks are made again",
        ) from error  # fmt: skip


def target_frames(clip: LatentClip) -> int:
    """Video frames of the target."""
    return 1 + TIME_STRIDE * (clip.target - 1)


def kept_frames(job: Job, clip: LatentClip) -> int:
    """Video frames of the target that are wanted. Raises DataError where it has fewer than `sample.frames`."""
    check_frames(job.sample.frames, clip.id, clip.target)
    return job.sample.frames or target_frames(clip)


def check_frames(asked: int, clip: str, latents: int) -> None:
    """Raise DataError where a target of so many latent frames has fewer than `sample.frames`."""
    if asked > (there := 1 + TIME_STRIDE * (latents - 1)):
        raise DataError(
            f"sample.frames={asked}, but the target has {there}", where={"clip": clip},
            fix="leave it out, or give cameras of more frames",
        )  # fmt: skip


def target_poses(clip: LatentClip, chunk: Chunk) -> np.ndarray:
    """(F, 4, 4) world_from_camera of a chunk's latent frames; the target's last pose stands for those after it."""
    assert clip.frame_poses is not None
    first = len(clip.frame_poses) - target_frames(clip)
    frames = np.minimum(chunk.start + TIME_STRIDE * np.arange(chunk.latents), target_frames(clip) - 1)
    return np.asarray(clip.frame_poses[first + frames])


class _Past(ABC):
    """What the next chunk sees of the frames before it."""

    def __init__(self, job: Job, clip: LatentClip) -> None:
        self.job, self.clip = job, clip

    @abstractmethod
    def numbers(self) -> np.ndarray:
        """`Rollout.reached`."""

    def come_to(self, poses: np.ndarray) -> str:
        """The next chunk has these cameras (F, 4, 4). Says what that changes of the past; empty: nothing."""
        return ""

    @abstractmethod
    def arguments(self, chunk: Chunk, poses: np.ndarray) -> dict[str, Any]:
        """Arguments of `HydraPipeline` that bring the past and the cameras of a chunk."""

    @abstractmethod
    def add(self, chunk: Chunk, made: np.ndarray, poses: np.ndarray) -> None:
        """The chunk is past now."""


@dataclass(frozen=True, kw_only=True)
class _Stretch:
    """A part of the past that is run by itself: the context (chunk None), or a chunk."""

    chunk: Chunk | None
    poses: np.ndarray  # (F, 4, 4) world_from_camera of its latent frames
    first: int = 0  # number of its first latent frame, of all
    gap: int = 0  # latent frames between its end and the present that are in no memory

    def near(self, anchor: np.ndarray, radius: float) -> bool:
        """Does one of its cameras stand within the radius (metres) of the anchor?"""
        return bool(_metres(self.poses, anchor).min() <= radius)


class _Frozen(_Past):
    """Memory of the context and of every chunk; that of chunks lies on disk. It is made when it is first read."""

    def __init__(self, job: Job, clip: LatentClip, place: Path) -> None:
        super().__init__(job, clip)
        self.place, self.cache = place, RowCache()
        self.anchor = anchor_of(clip) if job.history is None else job.history.views[0].anchor(clip.id)
        self.first_anchor = True
        self.stretches = [_Stretch(chunk=None, poses=clip.world_poses()[: clip.context])]
        self.inside = list(self.stretches)  # those in reach of this anchor
        self.waiting = list(self.stretches)  # those whose memory under this anchor is not made yet
        self.made: ContextMemory | None = None

    @property
    def memory(self) -> ContextMemory:
        """All of the past that is in reach of this anchor; of what no policy can read, only the latest part."""
        if self.job.memory.policy == NOTHING and len(self.waiting) > 1:
            self._leave_out()
        for stretch in self.waiting:
            later = self._of_context() if stretch.chunk is None else self._of_chunk(stretch.chunk, stretch.poses)
            later = later.starting_at(0 if self.made is None else self.made.num_context_frames)
            later = later.older_by(stretch.gap) if stretch.gap else later
            self.made = later if self.made is None else self.made.then(later)
        self.waiting = []
        assert self.made is not None
        return self.made

    def arguments(self, chunk: Chunk, poses: np.ndarray) -> dict[str, Any]:
        retrieval = inputs_of(self.job, self.clip, chunk.number)
        return {
            "memory": self.memory, "camera": rows_from(poses, self.anchor, self.job.device), "retrieval": retrieval,
        }  # fmt: skip

    def come_to(self, poses: np.ndarray) -> str:
        radius = self.job.sample.anchor_radius
        if not radius or _metres(poses, self.anchor).max() <= radius:
            return ""
        self.anchor, self.first_anchor, self.cache, self.made = poses[0], False, RowCache(), None
        kept, gap, after = list[_Stretch](), 0, 0
        for stretch in reversed(self.stretches):
            in_window = after < max(1, self.job.config["window"] - 1)  # its frames are read in full
            if in_window or stretch.near(self.anchor, radius):
                kept.append(dataclasses.replace(stretch, gap=gap))
            else:
                gap += len(stretch.poses)
            after += len(stretch.poses)
        self.inside = self.waiting = kept[::-1]
        return f"a new anchor pose: {len(kept)} of {len(self.stretches)} stretches of the past are run again"

    def add(self, chunk: Chunk, made: np.ndarray, poses: np.ndarray) -> None:
        last = self.stretches[-1]
        self.stretches.append(_Stretch(chunk=chunk, poses=poses, first=last.first + len(last.poses)))
        self.inside = [*self.inside, self.stretches[-1]]
        self.waiting = [*self.waiting, self.stretches[-1]]

    def numbers(self) -> np.ndarray:
        return np.concatenate([stretch.first + np.arange(len(stretch.poses)) for stretch in self.inside])

    def _leave_out(self) -> None:
        """What lies before all windows is not run: no slot is read, so nobody would know."""
        kept, frames = list[_Stretch](), 0
        for stretch in reversed(self.inside):
            if kept and frames >= max(1, self.job.config["window"] - 1):
                break
            kept.append(stretch)
            frames += len(stretch.poses)
        if len(kept) < len(self.inside):
            self.inside = self.waiting = kept[::-1]
            self.made = None

    def _of_context(self) -> ContextMemory:
        if self.first_anchor:  # it may come from an artifact
            memory: ContextMemory = frozen_past(self.job, self.clip)["memory"]
            return memory
        return self._run(self.clip, 0)

    def _of_chunk(self, chunk: Chunk, poses: np.ndarray) -> ContextMemory:
        made = _kept(_file_of(self.place, chunk))
        if made is None:
            raise DataError("a chunk that was made earlier is gone", where={"file": _file_of(self.place, chunk)})
        folder = self.place / f"{chunk.number:05d}.memory"
        shutil.rmtree(folder, ignore_errors=True)  # of another anchor, or of a run that was stopped while it wrote
        dtype = str(self.job.network.dtype).removeprefix("torch.")

        def put_away(number: int, kept: BlockMemory) -> BlockMemory:
            write_block(folder / block_group(number), kept)
            return stored_block(folder / block_group(number), dtype, self.job.device, self.cache)

        return self._run(_as_context(self.clip, made, poses), chunk.number, put_away)

    def _run(self, clip: LatentClip, number: int, put_away: PutAway | None = None) -> ContextMemory:
        inputs = inputs_of(self.job, self.clip, number)
        with part(CONTEXT):
            return compute_memory(self.job.network, clip, self.anchor, inputs, self.job.device, put_away)


def _metres(poses: np.ndarray, anchor: np.ndarray) -> np.ndarray:
    """(F,) from the anchor to each camera."""
    found: np.ndarray = np.linalg.norm(poses[:, :3, 3] - anchor[:3, 3], axis=1)
    return found


class _Sliding(_Past):
    """The latest latent frames, as many as the context has."""

    def __init__(self, job: Job, clip: LatentClip) -> None:
        super().__init__(job, clip)
        self.latents, self.poses = clip.context_latents, clip.world_poses()[: clip.context]
        self._numbers = np.arange(clip.context)

    def arguments(self, chunk: Chunk, poses: np.ndarray) -> dict[str, Any]:
        rows = relative_camera_rows(np.concatenate([self.poses, poses]), poses[0]).astype(np.float32)
        return {
            "context_latents": tensor_of(self.latents)[None].to(self.job.device),
            "camera": tensor_of(rows)[None].to(self.job.device),
            "history_guidance_scale": self.job.sample.history_guidance,
            "history_level": self.job.sample.history_level,
            "retrieval": inputs_of(self.job, self.clip, chunk.number),
        }

    def add(self, chunk: Chunk, made: np.ndarray, poses: np.ndarray) -> None:
        self.latents = np.concatenate([self.latents, made], axis=1)[:, -self.clip.context :]
        self.poses = np.concatenate([self.poses, poses])[-self.clip.context :]
        numbers = self._numbers[-1] + 1 + np.arange(len(poses))
        self._numbers = np.concatenate([self._numbers, numbers])[-self.clip.context :]

    def numbers(self) -> np.ndarray:
        return self._numbers


def _as_context(clip: LatentClip, made: np.ndarray, poses: np.ndarray) -> LatentClip:
    """A chunk as the context of a clip."""
    return dataclasses.replace(
        clip, latents=made, context=made.shape[1], target=0, has_target=False, poses=poses, frame_poses=None
    )
