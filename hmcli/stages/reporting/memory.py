"""What memory a row's model read, from an inspection of it (`hm inspect MODEL --latents`): who chose which slot when.

An inspection samples as `hm generate` does; it is of a row where model, latents, memory, seed and settings are its own.
Shape letters: R readings (a layer in a step), F query frames, K choices, M slots.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from hmcli.contracts import TIME_STRIDE
from hmcli.errors import DataError, HMError, UsageError
from hmcli.reports.report_page import MemoryRead
from hmcli.stages.inspecting.layout import CLIPS, KIND, NUMBERS, READINGS, ClipNumbers, Numbers
from hmcli.stages.reporting.evaluations import Evaluated
from hmcli.stages.reporting.rows import Row
from hmcli.stages.shared.typed import from_json
from hmcli.store.files import parse_json
from hmcli.store.listed import listed
from hmcli.store.manifest import Manifest, is_artifact, read_manifest

BRANCH = "caption"  # the branch of guidance that is shown
_ALONE = ("count",)  # settings of samples that an inspection, which makes one, does not share


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """An inspection artifact."""

    path: Path
    manifest: Manifest
    numbers: Numbers

    def read(self, clip: str) -> MemoryRead | None:
        """What was read in a clip; None where it was not looked at. Raises DataError for what is damaged."""
        if clip not in self.numbers.clips or clip not in self.manifest.items:
            return None
        folder = str(self.manifest.items[clip]["path"])
        if not folder.startswith(f"{CLIPS}/"):
            raise DataError("its inspection is damaged", where={"inspection": self.path, "clip": clip})
        file = f"{folder}/{READINGS}"
        try:
            with np.load(io.BytesIO(listed(self.path).read(file).data), allow_pickle=False) as arrays:
                return _memory_read({name: arrays[name] for name in arrays.files}, self.numbers.clips[clip])
        except (ValueError, KeyError, OSError, IndexError, BadZipFile) as error:
            raise DataError("what was read of memory cannot be opened", where={"file": self.path / file}) from error


def open_inspection(path: Path) -> Inspection:
    manifest = read_manifest(path, kinds=(KIND,))
    content = parse_json(listed(path).read(NUMBERS).data, path / NUMBERS)
    numbers = from_json(Numbers, content, "what was seen of memory", file=path / NUMBERS)
    return Inspection(path=path, manifest=manifest, numbers=numbers)


def find_inspections(rows: Sequence[Row], named: Sequence[Path]) -> list[Inspection | None]:
    """By row an inspection of its (first) model: one of those that are named, else one beside the evaluation.

    Raises UsageError for one that is named and of no row.
    """
    given = [open_inspection(path) for path in named]
    found = [_first(row.members[0], given) or _beside(row.members[0]) for row in rows]
    for one in given:
        if not any(of is one for of in found):
            what = "this inspection is of no row: its model, latents, memory, seed or sampler are others"
            fix = "hm inspect MODEL --latents LATENTS, with what the row was generated with"
            raise UsageError(what, where={"inspection": one.path}, fix=fix)
    return found


def _first(of: Evaluated, among: Sequence[Inspection]) -> Inspection | None:
    return next((one for one in among if _fits(of, one.manifest)), None)


def _beside(of: Evaluated) -> Inspection | None:
    for place in sorted(path for path in of.path.absolute().parent.iterdir() if path.is_dir()):
        try:
            if is_artifact(place) and (manifest := read_manifest(place)).kind == KIND and _fits(of, manifest):
                return open_inspection(place)
        except HMError:
            continue
    return None


def _fits(of: Evaluated, manifest: Manifest) -> bool:
    made = of.about.generation
    same = not made.model_free and manifest.inputs == made.inputs and manifest.seed == made.seed
    return same and _sampled(manifest.recipe) == _sampled(made.recipe)


def _sampled(recipe: Mapping[str, object]) -> dict[str, object]:
    sample = recipe.get("sample")
    return {key: value for key, value in sample.items() if key not in _ALONE} if isinstance(sample, dict) else {}


def _memory_read(arrays: Mapping[str, np.ndarray], numbers: ClipNumbers) -> MemoryRead:
    """Raises ValueError, KeyError or IndexError for arrays that are not those of a clip."""
    target = slice(len(arrays["query_frame"]) - numbers.target_frames, None)  # a joint model's context asks too
    slots_RFK = arrays["slots"][arrays["branch"] == BRANCH][:, target]
    count = len(arrays["span"])
    picked_RFM = (slots_RFK[..., None] == np.arange(count)).any(axis=2)
    if not (len(picked_RFM) and picked_RFM.shape[1] == numbers.target_frames):
        raise ValueError("there are no readings of the target")
    relevant = arrays.get("relevant")
    frames = np.arange(numbers.target_frames)
    starts = np.where(frames == 0, 0, 1 + TIME_STRIDE * (frames - 1))  # of the target's video frames
    return MemoryRead(
        starts=tuple(starts.tolist()), spans=tuple((int(first), int(last)) for first, last in arrays["span"]),
        share=tuple(tuple(row) for row in picked_RFM.mean(axis=0).round(3).tolist()),
        inside=_told(arrays["inside_window"][target]),
        relevant=None if relevant is None else _told(relevant[target]),
        readings=len(picked_RFM), recall=dict(numbers.recall), mass=numbers.mass.get("model"),
    )  # fmt: skip


def _told(found_FM: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """The slots of each frame for which it is true."""
    return tuple(tuple(np.flatnonzero(row).tolist()) for row in found_FM)
