"""Annotations of a rendered clip, read back as they were written: what `load_clip` does not need for a model.

Everything has the videos' own size and length. Shape letters: S subjects, T frames (context, then target), H rows,
W columns.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hmcli.errors import DataError
from hmcli.store.files import read_json
from hmcli.store.hashing import Content
from hmcli.store.video import read_labels
from hmcli.world.files import schema
from hmcli.world.files.layout import DEPTH, EVENTS, STATES, VideoName, video_file
from hmcli.world.staging.annotate import amodal_masks
from hmcli.world.views.cameras import PREFIXES


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
    states = schema.parse_states(read_json(folder / STATES))
    instances, bits = _labels(folder, "instances"), _labels(folder, "amodal")
    depth = np.concatenate(read_depth(folder / DEPTH))
    found = ClipAnnotations(
        subjects=states, events=schema.parse_events(read_json(folder / EVENTS)), instances=instances,
        amodal=amodal_masks(bits, len(states)), depth=depth,
    )  # fmt: skip
    lengths = {"instances": len(instances), "amodal": len(bits), "depth": len(depth)}
    lengths |= {f"{STATES}, {state.name}": len(state.position) for state in states}
    if len(set(lengths.values())) != 1:
        where = {"clip": folder, **{name: f"{frames} frames" for name, frames in lengths.items()}}
        raise DataError("the annotations of a clip differ in length", where=where)
    return found


def _labels(folder: Path, name: VideoName) -> np.ndarray:
    """(T, H, W) uint8 of a lossless video over both parts."""
    return np.concatenate([read_labels(folder / video_file(part, name)) for part in PREFIXES])


def read_depth(file: Path | Content) -> tuple[np.ndarray, np.ndarray]:
    """Depth of context and target, each (T, H, W), from a file or its bytes. Raises DataError when it is damaged."""
    place = file.path if isinstance(file, Content) else file
    try:
        with np.load(io.BytesIO(file.data if isinstance(file, Content) else file.read_bytes())) as parts:
            context, target = (parts[prefix] for prefix in PREFIXES.values())
            return context, target
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError("the depth cannot be read", where={"file": place, "at": error}) from error
