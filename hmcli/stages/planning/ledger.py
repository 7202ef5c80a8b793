"""A ledger of bytes and products: what operations of torch allocate, keep and compute while they run in it.

It works on tensors with memory and on weightless ones alike; of these only shapes exist, so that a step of any size is
counted on any machine. What kernels take inside themselves is not in it.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from hmcli.stages.planning.weightless import storage_of, tensors_in

WORK = "work"  # the label of what is allocated, unless another is set


@dataclass
class _Entry:
    """One piece of memory."""

    label: str
    size: int  # bytes


class Ledger(TorchDispatchMode):
    """Live bytes by label, their peak and what it was made of, and floating point operations in products."""

    def __init__(self) -> None:
        super().__init__()
        self.label = WORK
        self.live: Counter[str] = Counter()
        self.total = 0
        self.flop = 0.0
        self.restart_peak()
        self._entries: weakref.WeakKeyDictionary[Any, _Entry] = weakref.WeakKeyDictionary()

    def restart_peak(self) -> None:
        """Forget the peak: what is live now is the highest so far."""
        self.peak, self.at_peak = self.total, Counter(self.live)

    def put_down(self, tensors: Iterable[Tensor], label: str) -> None:
        """Say what tensors are, those that were there before and those written down under another label."""
        for tensor in tensors:
            entry = self._entry(tensor)
            self.live[entry.label] -= entry.size
            self.live[label] += entry.size
            entry.label = label

    def rename(self, old: str, new: str) -> None:
        """Everything live under one label is another from now on."""
        for entry in self._entries.values():
            if entry.label == old:
                entry.label = new
        self.live[new] += self.live.pop(old, 0)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled in it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        for tensor in tensors_in((args, tuple(kwargs.values()), out)):  # also what was there: tables of a cache
            self._entry(tensor)
        self.flop += _flop(func.overloadpacket, args, kwargs, out)
        return out

    def _entry(self, tensor: Tensor) -> _Entry:
        """The memory of a tensor, written down now if it is new."""
        storage = storage_of(tensor)
        if (found := self._entries.get(storage)) is not None:
            return found
        self._entries[storage] = entry = _Entry(self.label, storage.nbytes())
        weakref.finalize(storage, self._gone, entry)
        self.total += entry.size
        self.live[entry.label] += entry.size
        if self.total > self.peak:
            self.restart_peak()
        return entry

    def _gone(self, entry: _Entry) -> None:
        self.total -= entry.size
        self.live[entry.label] -= entry.size


def _flop(packet: Any, args: Any, kwargs: Any, out: Any) -> float:
    """Floating point operations of one product of matrices, convolution or attention; 0 of anything else."""
    aten = torch.ops.aten
    if packet is aten._scaled_dot_product_flash_attention_for_cpu:
        return float(sdpa_flop_count(*(part.shape for part in args[:3])))
    if packet is aten._scaled_dot_product_flash_attention_for_cpu_backward:
        return float(sdpa_backward_flop_count(*(part.shape for part in args[:4])))
    formula = flop_registry.get(packet)
    return 0.0 if formula is None else float(formula(*args, **kwargs, out_val=out))
