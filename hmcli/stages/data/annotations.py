"""Annotations of a rendered clip, read back as they were written: what `load_clip` does not need for a model.

Everything has the videos' own size and length. Shape letters: S subjects, T frames (context, then target), H rows,
W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hmcli.errors import DataError
from hmcli.store.files import read_json
from hmcli.store.video import read_labels
from hmcli.world.files import schema
from hmcli.world.staging.annotate import amodal_masks


@dataclass(frozen=True, kw_only=True)
class ClipAnnotations:
    """`instances` (T, H, W) uint8, 0 for none; `amodal` (S, T, H, W) bool in the subjects' order; `depth` (T, H, W)."""

    subjects: tuple[schema.SubjectState, ...]
    events: tuple[schema.Event, ...]
    instances: np.ndarray
    amodal: np.ndarray
    depth: np.ndarray  # float16 metres along the camera's forward axis, infinite for the sky


def read_annotations(folder: Path) -> ClipAnnotations:
    """The annotations in a clip's folder. Raises DataError for one that is missing, damaged or of another length."""
    states = schema.parse_states(read_json(folder / "subjects.json"))
    instances, bits = (
        np.concatenate([read_labels(folder / f"{prefix}_{name}.mp4") for prefix in ("cond", "tgt")])
        for name in ("instances", "amodal")
    )
    depth = _depth(folder / "depth.npz")
    found = ClipAnnotations(
        subjects=states, events=schema.parse_events(read_json(folder / "events.json")), instances=instances,
        amodal=amodal_masks(bits, len(states)), depth=depth,
    )  # fmt: skip
    lengths = {"instances": len(instances), "amodal": len(bits), "depth": len(depth)}
    lengths |= {f"subjects.json, {state.name}": len(state.position) for state in states}
    if len(set(lengths.values())) != 1:
        where = {"clip": folder, **{name: f"{frames} frames" for name, frames in lengths.items()}}
        raise DataError("the annotations of a clip differ in length", where=where)
    return found


def _depth(file: Path) -> np.ndarray:
    try:
        with np.load(file) as parts:
            return np.concatenate([parts["cond"], parts["tgt"]])
    except (OSError, ValueError, KeyError) as error:
        raise DataError("the depth cannot be read", where={"file": file, "at": error}) from error
