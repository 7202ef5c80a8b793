"""`hm generate --profile`: where time and memory went, part by part.

A part inside another one counts for itself alone. Nothing is measured unless somebody asks (`with profiled() as of:`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

LOADING, CONTEXT, DENOISING, DECODING, WRITING = "loading weights", "context", "denoising", "decoding", "writing"


@dataclass(kw_only=True)
class Spent:
    """What a part took, over all its times."""

    seconds: float = 0.0
    times: int = 0
    peak_bytes: int = 0  # on CUDA of torch's allocator within the part, else of the whole process until its end


@dataclass(kw_only=True)
class Profile:
    """All parts by name, in the order in which they began."""

    device: str
    parts: dict[str, Spent] = field(default_factory=dict)
    inside: list[float] = field(default_factory=list)  # seconds of parts inside those that are open

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")


_PROFILE: ContextVar[Profile | None] = ContextVar("hm_profile", default=None)


@contextmanager
def profiled(device: str) -> Iterator[Profile]:
    """Measure the parts that run in here."""
    profile = Profile(device=device)
    token = _PROFILE.set(profile)
    try:
        yield profile
    finally:
        _PROFILE.reset(token)


@contextmanager
def part(name: str) -> Iterator[None]:
    """What runs in here is this part, if somebody measures."""
    if (profile := _PROFILE.get()) is None:
        yield
        return
    spent = profile.parts.setdefault(name, Spent())
    _settle(profile, fresh=True)
    profile.inside.append(0.0)
    start = time.perf_counter()
    try:
        yield
    finally:
        _settle(profile)
        whole = time.perf_counter() - start
        spent.seconds += whole - profile.inside.pop()
        spent.times += 1
        spent.peak_bytes = max(spent.peak_bytes, _peak(profile))
        if profile.inside:
            profile.inside[-1] += whole


def peak_so_far(device: str) -> int:
    """Bytes that were used at most until now, as `Spent` counts them; 0 where the system does not tell."""
    profile = _PROFILE.get() or Profile(device=device)  # whoever measures parts counts the device's peak anew in each
    return max([_peak(profile), *(spent.peak_bytes for spent in profile.parts.values())])


def lines(profile: Profile) -> list[str]:
    """A table for a person; empty where nothing ran."""
    total = sum(spent.seconds for spent in profile.parts.values())
    if not total:
        return []
    what = "in the part" if profile.cuda else "of the process until then"
    return [
        f"{total:.1f} s in all; peak memory {what}",
        *(
            f"{name:16} {spent.seconds:8.2f} s {100 * spent.seconds / total:4.0f} %  {spent.times:4} times  "
            f"{spent.peak_bytes / 2**20:8.0f} MiB"
            for name, spent in profile.parts.items()
        ),
    ]


def _settle(profile: Profile, *, fresh: bool = False) -> None:
    """Wait for the device; with `fresh` its peak is counted anew."""
    if profile.cuda:
        import torch

        torch.cuda.synchronize(profile.device)
        if fresh:
            torch.cuda.reset_peak_memory_stats(profile.device)


def _peak(profile: Profile) -> int:
    if profile.cuda:
        import torch

        return int(torch.cuda.max_memory_allocated(profile.device))
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
