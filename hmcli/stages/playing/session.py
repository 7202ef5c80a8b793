"""A walk: where the camera is, what was made, and what memory was read for it. No server is needed.

A chunk is made when somebody asks for the next one, along the cameras that keys lead to, by the rollout that
`hm generate` uses (`sample.chunk`). Two of them know the same past: the model's own, and one whose memory is turned
off; a switch decides which makes the next chunk. Latent frames are counted from the first of the context on.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hmcli.contracts import TIME_STRIDE
from hmcli.stages.latents.pixels import decode_video
from hmcli.stages.latents.view import LatentClip
from hmcli.stages.playing.motion import Pace, Speed, moved
from hmcli.stages.sampling.job import Job
from hmcli.stages.sampling.profile import DECODING, part, profiled
from hmcli.stages.sampling.rollout import Chunk, Rollout

if TYPE_CHECKING:
    from hmcli.core.inspection import Recorded

LATEST = 5  # chunks that the rate is of


@dataclass(frozen=True, kw_only=True)
class Read:
    """A slot, or a frame, that was read: latent frames `first` to `last` of the walk. `weight` is the share of the
    model's readings (every block at every step) that chose it."""

    first: int
    last: int
    weight: float


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Where a rendered subject is: (T, 2) metres on the ground, from the first context frame on. What it does after
    the clip's end nobody knows."""

    name: str
    place: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Made:
    """One chunk."""

    number: int
    frames: np.ndarray  # (T, H, W, 3) uint8
    poses: np.ndarray  # (T, 4, 4) world_from_camera
    latents: tuple[int, ...]  # numbers of its latent frames
    reads: tuple[tuple[Read, ...], ...]  # of each latent frame, the most read first
    memory: bool
    held: tuple[str, ...]
    seconds: dict[str, float]  # where the time went, by part
    took: float  # seconds in all

    @property
    def rate(self) -> float:
        """Frames a second."""
        return len(self.frames) / self.took


@dataclass(kw_only=True)
class Session:
    """One walk. Not for several threads at a time."""

    on: Job
    off: Job  # the same with `sample.memory=off`
    clip: LatentClip
    place: Path  # of what is made, while the walk lasts
    truth: Sequence[Truth] = ()
    pace: Pace = field(default_factory=Pace)
    memory: bool = True  # which of both makes the next chunk
    chunks: list[Made] = field(default_factory=list)  # without their frames, which lie in `place`

    def __post_init__(self) -> None:
        assert self.clip.frame_poses is not None
        self._rollouts = {
            on: Rollout(job, self.clip, 1, self.place / name)
            for on, job, name in ((True, self.on, "with"), (False, self.off, "without"))
        }
        self.context_frames = decode_video(self.clip.context_latents, self.on.codec, self.on.device)
        self.context_poses = np.asarray(self.clip.frame_poses[: len(self.context_frames)])
        self._speed = Speed()

    @property
    def length(self) -> int:
        """Frames of a chunk."""
        return self.on.sample.chunk

    @property
    def pose(self) -> np.ndarray:
        """Where the camera is, (4, 4) world_from_camera."""
        return (self.chunks[-1].poses if self.chunks else self.context_poses)[-1]

    @property
    def rate(self) -> float:
        """Distinct generated frames a second, of the latest chunks; 0 before there are any."""
        latest = self.chunks[-LATEST:]
        return len(latest) * self.length / sum(made.took for made in latest) if latest else 0.0

    def step(self, held: Collection[str]) -> Made:
        """Make the next chunk while these keys are held (`motion.KEYS`).

        Raises ValueError for an unknown key, NotFiniteError where the model fails; the walk stays as it was then.
        """
        from hmcli.core.inspection import recorded

        start, number = time.perf_counter(), len(self.chunks)
        chunk = Chunk(number=number, start=number * self.length, stop=(number + 1) * self.length)
        poses, speed = moved(
            self.pose, self._speed, held, frames=chunk.frames, fps=self.clip.fps, pace=self.pace
        )  # fmt: skip
        latent_poses, rollout = poses[::TIME_STRIDE], self._rollouts[self.memory]
        try:
            with profiled(self.on.device) as spent, recorded() as heard:
                made = rollout.make(chunk, latent_poses)
                with part(DECODING):
                    frames = decode_video(made, self.on.codec, self.on.device)
        except BaseException:
            rollout.forget(chunk)  # the next try goes another way
            raise
        before = rollout.reached
        for one in self._rollouts.values():
            one.add(chunk, made, latent_poses)
        first = self.clip.context + number * chunk.latents
        latents = tuple(range(first, first + chunk.latents))
        numbers = np.concatenate([before, np.asarray(latents)])
        np.save(self._frames_file(number), frames, allow_pickle=False)
        done = Made(
            number=number, frames=frames, poses=poses, latents=latents, reads=slots_read(heard, numbers, latents),
            memory=self.memory, held=tuple(sorted(held)),
            seconds={name: of.seconds for name, of in spent.parts.items()}, took=time.perf_counter() - start,
        )  # fmt: skip
        self._speed = speed
        self.chunks.append(dataclasses.replace(done, frames=frames[:0]))
        return done

    def frames_of(self, number: int) -> np.ndarray:
        """(T, H, W, 3) uint8 of a chunk that was made."""
        return np.asarray(np.load(self._frames_file(number), allow_pickle=False))

    def latent_pose(self, number: int) -> np.ndarray:
        """(4, 4) world_from_camera of a latent frame of the walk."""
        if number < self.clip.context:
            pose: np.ndarray = self.clip.world_poses()[number]
            return pose
        chunk, frame = divmod(number - self.clip.context, len(self.chunks[0].latents))
        return np.asarray(self.chunks[chunk].poses[frame * TIME_STRIDE])

    def _frames_file(self, number: int) -> Path:
        return self.place / f"{number:05d}.frames.npy"


def slots_read(
    heard: Sequence[Recorded], numbers: np.ndarray, latents: Sequence[int]
) -> tuple[tuple[Read, ...], ...]:  # fmt: skip
    """What the query frames `latents` read: `heard` in the model's own numbering of latent frames, where frame n is
    number `numbers[n]` of the walk."""
    counts = [Counter[tuple[int, int]]() for _ in latents]
    total = 0
    for reading in heard:
        if reading.step < 0 or (reading.slots_BFK is None and reading.everywhere_BN is None):
            continue
        total += 1
        if reading.everywhere_BN is not None:
            frames = [(n, n) for n in reading.everywhere_BN[0].tolist() if n < len(numbers) - len(latents)]
            for count in counts:
                count.update(frames)
        elif reading.slots_BFK is not None and reading.span_M2 is not None:
            own = reading.slots_BFK[0, max(0, reading.num_context - reading.first_frame) :]
            for count, slots_K in zip(counts, own, strict=True):
                count.update({(int(a), int(b)) for a, b in reading.span_M2[slots_K].tolist()})
    return tuple(
        tuple(
            Read(first=int(numbers[a]), last=int(numbers[min(b, len(numbers) - 1)]), weight=times / total)
            for (a, b), times in sorted(count.items(), key=lambda item: (-item[1], item[0]))
        )
        for count in counts
    )
