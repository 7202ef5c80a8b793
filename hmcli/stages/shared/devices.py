"""What a device holds and computes: by name as its maker states, or this machine as it is found.

`hm plan` says from it how long steps take, training which share of the stated rate its steps reach.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from hmcli.errors import UsageError

GIB = 2**30
STEP_SHARE = 0.4  # of a stated rate that training steps reach, as large runs report it
HERE_SHARE = 0.7  # of the rate of products alone that a step reaches on a CPU (docs/performance.md)
CONTEXT = 1.5 * GIB  # of a GPU's memory: its context, libraries, and what the allocator cannot use


@dataclass(frozen=True, kw_only=True)
class Device:
    """Memory in bytes, and floating point operations a second by type."""

    name: str
    memory: float
    rates: dict[str, float] = field(default_factory=dict)
    called: str = ""  # how the driver calls it, as a regular expression, without its maker
    share: float = STEP_SHARE
    on_cpu: bool = False

    @property
    def room(self) -> float:
        """What a step may take."""
        return self.memory if self.on_cpu else self.memory - CONTEXT

    def seconds(self, flop: float, dtype: str) -> float:
        """Time for so many operations in steps or runs of a model."""
        return flop / (self.rates[dtype] * self.share)


def _stated(name: str, called: str, gib: float, bfloat16: float, float32: float) -> Device:
    """Rates in 10^12 a second, dense; float32 without TF32, which torch leaves off."""
    return Device(
        name=name, called=called, memory=gib * GIB, rates={"bfloat16": bfloat16 * 1e12, "float16": bfloat16 * 1e12,
                                            "float32": float32 * 1e12},
    )  # fmt: skip


DEVICES = {
    device.name: device
    for device in (
        _stated("a100", "A100-.*", 79.2, 312, 19.5),
        _stated("h100", "H100 80GB HBM3", 79.1, 989, 67),
        _stated("h200", "H200", 139.8, 989, 67),
        _stated("l40s", "L40S", 44.4, 362, 91.6),
        _stated("rtx4090", "GeForce RTX 4090", 23.5, 165, 82.6),
    )
}


def device_named(name: str) -> Device:
    """A device of the table, or `here`: this machine's CPU."""
    if name == "here":
        return here()
    if name not in DEVICES:
        raise UsageError(f"no rates are known for the device {name!r}", fix=f"known: here, {', '.join(DEVICES)}")
    return DEVICES[name]


def device_called(name: str) -> Device | None:
    """The device of the table that a driver gives this name; None: none that is known (an H100 PCIe is slower)."""
    own = name.removeprefix("NVIDIA ")
    return next((device for device in DEVICES.values() if re.fullmatch(device.called, own)), None)


def stated_rate(device: str, dtype: str) -> float | None:
    """Operations a second of a torch device by its maker; None where that is not known, as of CPUs."""
    import torch

    if torch.device(device).type != "cuda":
        return None
    known = device_called(torch.cuda.get_device_name(device))
    return None if known is None else known.rates[dtype]


def here() -> Device:
    """This machine's CPU: memory that a process may take, and the rate of products of matrices, tried for a moment."""
    rate = _rate_here()
    return Device(
        name="here", memory=_memory_here(), share=HERE_SHARE, on_cpu=True,
        rates={"float32": rate, "bfloat16": rate, "float16": rate},
    )  # fmt: skip


def _memory_here() -> float:
    """Of the machine, or of the control group that this process is in."""
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    return total if text == "max" else min(total, float(text))


def _rate_here(side: int = 768, seconds: float = 0.3) -> float:
    """Products of float32 matrices, operations a second; the best of a few."""
    import torch

    matrix, best, until = torch.randn(side, side), 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        matrix @ matrix
        best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best
