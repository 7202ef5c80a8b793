"""What is made of frames or a reference alone - features, flow, what a detector sees - made once for all evaluations.

Kept by content: the pixels themselves (of a crop these are what its box covers), what is computed from them by which
weights after which preprocessing, the code and the versions that compute it, and the kind of device. A reference's
features are so found again whichever generation it judges, and wherever its file lies.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hmcli.metrics import motion
from hmcli.metrics.contract import Detection, Metric
from hmcli.registry import find
from hmcli.stages.scoring.layout import FORMAT, NetworkKey, ReferenceKey
from hmcli.stages.scoring.plan import Plan
from hmcli.stages.scoring.sightings import checked, packed, unpacked
from hmcli.stages.shared.typed import LeftOut, key_of
from hmcli.store.arrays_kept import ArrayStore
from hmcli.store.hashing import hash_arrays, hash_file, hash_json

OfFrames = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class FeaturesKey:
    """All that decides what is made of frames."""

    format: int
    network: NetworkKey
    code: str  # hash of the files it is written in
    versions: dict[str, str]
    device: str  # cpu, cuda: their last bits differ
    frames: str  # hash of the pixels, and of their shape
    boxes: LeftOut[str] = None  # hash of the boxes, where regions of whole frames are looked at


@dataclass(frozen=True, kw_only=True)
class OfReferenceKey:
    """All that decides what a metric makes of its reference alone."""

    format: int
    metric: str
    definition: str
    code: str
    versions: dict[str, str]
    reference: ReferenceKey


class Features:
    """What is made of the frames of one clip. `flush` writes it for others."""

    def __init__(self, plan: Plan, store: ArrayStore) -> None:
        self._plan, self._store = plan, store
        self._made: dict[str, np.ndarray] = {}

    def backbone(self, name: str) -> OfFrames:
        """A backbone of the run."""
        used = self._plan.backbones[name]
        return self._kept(used, NetworkKey(name=used.name, about=used.about), code_of(find("backbone", name)))

    def flow(self) -> OfFrames:
        """Flow between successive frames (hmcli.metrics.motion)."""
        about = NetworkKey(name="flow", about={"definition": motion.FLOW})
        return self._kept(motion.pair_flow, about, code_of(motion.pair_flow))

    def regions(self, name: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """The network that looks at boxes of frames (hmcli.metrics.backbones.regions)."""
        from hmcli.metrics.backbones.regions import clip_regions

        used: Any = self._plan.backbones[name]
        about, code = NetworkKey(name=used.name, about=used.about), code_of(clip_regions)
        return lambda frames, box_A4: self._kept(lambda of: used(of, box_A4), about, code, boxes=box_A4)(frames)

    def seen(self, frames: np.ndarray) -> list[list[Detection]]:
        """What the run's detector sees, as it says it."""
        finder = self._plan.detector
        assert finder is not None
        about = NetworkKey(name=f"detector {finder.name}", about=finder.about)
        code = code_of(find("detector", finder.name))
        return unpacked(self._kept(lambda of: packed(checked(finder(of), of)), about, code)(frames))

    def flush(self) -> None:
        self._store.flush()

    def _kept(self, make: OfFrames, network: NetworkKey, code: str, *, boxes: np.ndarray | None = None) -> OfFrames:
        of_boxes = None if boxes is None else hash_arrays({"boxes": boxes})

        def made(frames: np.ndarray) -> np.ndarray:
            key = key_of(
                FeaturesKey(
                    format=FORMAT, network=network, code=code, versions=dict(self._plan.versions),
                    device=self._plan.device.partition(":")[0], frames=hash_arrays({"frames": frames}), boxes=of_boxes,
                )
            )  # fmt: skip
            return self._once(key, lambda: make(frames), keep=bool(code))

        return made

    def of_reference(self, metric: Metric, reference: ReferenceKey, make: Callable[[], np.ndarray]) -> np.ndarray:
        """What a metric makes of the reference alone (`Metric.shared`)."""
        code = code_of(metric.shared)
        key = key_of(
            OfReferenceKey(
                format=FORMAT, metric=metric.name, definition=metric.definition, code=code,
                versions=dict(self._plan.versions), reference=reference,
            )
        )  # fmt: skip
        return self._once(key, make, keep=bool(code))

    def _once(self, key: str, make: Callable[[], np.ndarray], *, keep: bool) -> np.ndarray:
        if key not in self._made:
            known = None if self._plan.fresh or not keep else self._store.get(key)
            found = np.asarray(make() if known is None else known).view()
            found.setflags(write=False)  # other metrics are given the same array
            self._made[key] = found
            if known is None and keep:
                self._store.put(key, found)
        return self._made[key]


@cache
def code_of(made_by: Any) -> str:
    """Hash of the modules beside the one that something is written in; empty where it is in no file."""
    file = getattr(sys.modules.get(getattr(made_by, "__module__", "")), "__file__", None)
    if file is None:
        return ""
    return hash_json({place.name: hash_file(place) for place in sorted(Path(file).parent.glob("*.py"))})
