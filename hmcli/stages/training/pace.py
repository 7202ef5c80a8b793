"""How fast steps are: the time from one to the next, and which share of its device's stated rate they reach.

What depends on the clock has a log of its own: that of losses is the same whenever a run is made again.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from hmcli.runtime import peak_memory
from hmcli.stages.models.layout import PaceStep, Step

_RECENT = 20  # steps that what is shown is the mean of


@dataclass(kw_only=True)
class Pace:
    """Of a run in this process. `flop` is what a step of all ranks computes, `rate` what their devices could."""

    samples: int  # of a step
    device: str
    flop: float | None = None
    rate: float | None = None
    _since: float = field(default_factory=time.monotonic)
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def restart(self) -> None:
        """What was done since the last step was no step: a checkpoint, or a look at clips that are held out."""
        self._since = time.monotonic()

    def taken(self, step: int) -> PaceStep:
        """A step has ended."""
        now = time.monotonic()
        seconds = max(now - self._since, 1e-9)
        self._since = now
        self._recent.append(seconds)
        return PaceStep(
            step=step, at=round(time.time(), 3), samples_per_s=_short(self.samples / seconds),
            memory_gb=round(peak_memory(self.device) / 1e9, 2), mfu=self._mfu(seconds),
        )  # fmt: skip

    def _mfu(self, seconds: float) -> float | None:
        return None if self.flop is None or self.rate is None else _short(self.flop / seconds / self.rate)

    def said(self, row: Step) -> str:
        """What a person sees beside the progress."""
        seconds = sum(self._recent) / len(self._recent)
        mfu = "" if (share := self._mfu(seconds)) is None else f", MFU {share:.1%}"
        gradient = "too large" if row.grad_norm is None else f"{row.grad_norm:.3g}"
        return (
            f"loss {row.loss:.4g}, gradient {gradient}, lr {row.lr:.3g}, "
            f"{self.samples / seconds:.3g} samples/s{mfu}, {peak_memory(self.device) / 1e9:.1f} GB"
        )


def _short(value: float) -> float:
    """Four digits of it."""
    return float(f"{value:.4g}")
