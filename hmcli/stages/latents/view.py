"""Reading latents artifacts: rows of Zarr arrays -> the numbers of one clip, as the other stages need them.

Written by `hmcli.stages.latents.encode`; what both share stands in `hmcli.stages.latents.layout`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from hmcli.contracts import Quarantined, Reporter
from hmcli.errors import DataError, UsageError
from hmcli.stages.latents.layout import (
    CAMERA,
    INTRINSICS,
    KIND,
    LATENTS,
    POSES,
    SUBJECTS,
    TEXT,
    TEXT_INDEX,
    ClipAbout,
    Group,
    LatentsAttributes,
    caption_item,
    clip_item,
    latent_rate,
)
from hmcli.stages.latents.subjects import UNDEFINED
from hmcli.stages.shared.typed import from_json, to_json
from hmcli.store.arrays import ROOT, StackReader
from hmcli.store.files import inside
from hmcli.store.hashing import hash_json
from hmcli.store.manifest import Manifest, read_manifest
from hmcli.store.remote import url_of

KEPT_BYTES = 256 << 20  # what is known of the subjects of all clips stays in memory when it is no more


@dataclass(frozen=True, kw_only=True)
class LatentClip:
    """One clip as the model reads it. Shapes: C channels, F latent frames, L text rows, D text width."""

    id: str
    latents: (
        np.ndarray
    )  # (C, F, h, w) float32, normalised; context first; without target frames when has_target is False
    context: int  # latent frames
    target: int  # latent frames, also where there is no target video
    has_target: bool
    camera: np.ndarray  # (context + target, 12) float32, relative to the first target camera
    poses: np.ndarray | None  # (context + target, 4, 4) float64 world_from_camera at latent rate; None: rows only
    frame_poses: np.ndarray | None  # (T, 4, 4) the same of every video frame, of the context's and then the target's
    intrinsics: np.ndarray | None  # (4,) float64: fx, fy, cx, cy in pixels of the encoded size
    text: np.ndarray  # (L, D) float32, zero padded
    caption: str
    fps: float

    @property
    def context_latents(self) -> np.ndarray:
        return self.latents[:, : self.context]

    def world_poses(self) -> np.ndarray:
        """`poses`, for what frozen context needs. Raises DataError when the clip came with ready camera rows only."""
        if self.poses is None:
            raise DataError(
                "frozen context needs camera poses, but this clip's file holds ready rows",
                where={"clip": self.id}, fix="use model.memory.context=joint",
            )  # fmt: skip
        return self.poses


class LatentsView:
    """An opened latents artifact."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: Manifest = read_manifest(path, kinds=(KIND,))
        self.attributes = from_json(LatentsAttributes, self.manifest.attributes, "the description", latents=path)
        self.groups = self.attributes.groups
        self._readers: dict[str, StackReader] = {}
        self._subjects: dict[str, dict[str, np.ndarray]] = {}

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    @property
    def inputs(self) -> dict[str, str]:
        """As what is made of these latents names them."""
        return {KIND: self.fingerprint}

    @property
    def channels(self) -> int:
        return self.attributes.channels

    @property
    def size(self) -> tuple[int, int]:
        """Pixels: height, width of the encoded videos."""
        return self.attributes.size

    @property
    def latent_size(self) -> tuple[int, int]:
        """Latent pixels: height, width of a latent frame."""
        height, width = self.size
        return height // self.attributes.stride, width // self.attributes.stride

    @property
    def text_shape(self) -> tuple[int, int]:
        """Rows and width of a text embedding as the model sees it."""
        return self.attributes.text_length, self.attributes.text_dim

    @property
    def name(self) -> str:
        """The folder's name without the suffix hm gave it."""
        return PurePosixPath(url_of(self.path) or self.path.name).name.removesuffix(f".{KIND}").removesuffix(".zarr")

    @property
    def distant(self) -> bool:
        """Are files brought from a URL when they are read?"""
        return url_of(self.path) is not None

    @cached_property
    def shards(self) -> dict[str, tuple[str, int]]:
        """Clip id -> the file that holds its latents: of which group, and which of its files."""
        found: dict[str, tuple[str, int]] = {}
        for group in self.groups:
            rows = self._reader(f"{group.name}/{LATENTS}").rows_per_shard
            found |= {clip: (group.name, row // rows) for row, clip in enumerate(group.ids)}
        return found

    @cached_property
    def where(self) -> dict[str, tuple[Group, int]]:
        """Clip id -> its group and row."""
        return {clip: (group, row) for group in self.groups for row, clip in enumerate(group.ids)}

    def ids(self, only: Iterable[str] = ()) -> list[str]:
        """Clip ids in order, or those asked for. Raises UsageError naming the ones that are not there."""
        wanted = list(only)
        if missing := [clip for clip in wanted if clip not in self.where]:
            raise UsageError(
                f"no clip {', '.join(repr(m) for m in missing)} in the latents",
                where={"latents": self.path}, fix=f"clips there: {', '.join(list(self.where)[:10])}",
            )  # fmt: skip
        return wanted or list(self.where)

    def clip(self, clip: str) -> LatentClip:
        """Read one clip. Raises DataError when its row is damaged."""
        group, row = self.where[clip]
        about, shape = self.about(clip), group.shape
        poses = self._row(group, POSES, row) if POSES in group.arrays else None
        return LatentClip(
            id=clip,
            latents=self._row(group, LATENTS, row).astype(np.float32),
            context=shape.context,
            target=shape.target,
            has_target=shape.has_target,
            camera=self._row(group, CAMERA, row),
            poses=None if poses is None else latent_rate(poses, shape),
            frame_poses=poses,
            intrinsics=self._row(group, INTRINSICS, row) if INTRINSICS in group.arrays else None,
            text=self.text(int(self._row(group, TEXT_INDEX, row))),
            caption=about.caption,
            fps=about.fps,
        )

    def about(self, clip: str) -> ClipAbout:
        """What is said of a clip beside its arrays."""
        return from_json(
            ClipAbout, self._record(clip_item(clip)).get("meta"), "a clip's record", latents=self.path, clip=clip
        )

    def latents_hash(self, clip: str) -> str:
        """Hash of what is stored of a clip but for its caption: arrays, counts of frames, and their size."""
        shape = to_json(self.where[clip][0].shape)
        return hash_json([self._record(clip_item(clip))["hash"], shape, list(self.size)])

    def embedding_hash(self, caption: str) -> str:
        """Hash of a caption's stored embedding."""
        return str(self._record(caption_item(caption))["hash"])

    def _record(self, item: str) -> dict[str, Any]:
        if (record := self.manifest.items.get(item)) is None:
            raise DataError("the manifest lacks what the arrays hold", where={"latents": self.path, "item": item})
        return record

    @property
    def left_out(self) -> tuple[Quarantined, ...]:
        """Clips that could not be encoded, and have no earlier row either."""
        return tuple(Quarantined(**row) for row in self.manifest.quarantined if row["item"] not in self.where)

    def say_left_out(self, reporter: Reporter) -> None:
        """Name the clips that could not be encoded: they are in no later artifact either."""
        if missing := [left.item for left in self.left_out]:
            reporter.note(f"{len(missing)} clips were left out when the latents were made: {', '.join(missing[:5])}")

    def subjects(self, clip: str) -> dict[str, np.ndarray]:
        """What is known of subjects at latent rate: `masks` (F, h, w), `boxes` (F, S, 4), `visibility` (F, S)."""
        if (known := self._subjects.get(clip)) is not None:
            return known
        group, row = self.where[clip]
        found = {name: self._row(group, name, row) for name in SUBJECTS if name in group.arrays}
        if len(self.where) * sum(array.nbytes for array in found.values()) <= KEPT_BYTES:  # every step asks again
            self._subjects[clip] = found
        return found

    def text(self, index: int) -> np.ndarray:
        """A stored embedding, zero padded to the length the model sees; index 0 is the empty caption."""
        return self._reader(TEXT)[index] if index else self._no_text

    @cached_property
    def _no_text(self) -> np.ndarray:
        return self._reader(TEXT)[0]

    def _row(self, group: Group, name: str, row: int) -> np.ndarray:
        return self._reader(f"{group.name}/{name}")[row]

    def _reader(self, path: str) -> StackReader:
        if path not in self._readers:
            undefined = path.rpartition("/")[2] in UNDEFINED
            self._readers[path] = StackReader(inside(self.path, f"{ROOT}/{path}"), undefined=undefined)
        return self._readers[path]


def open_latents(path: Path) -> LatentsView:
    """Open a latents artifact. Raises DataError when it is unfinished or of another kind."""
    view = LatentsView(path)
    if not view.where:
        raise DataError(
            "the latents hold no clip", where={"latents": path}, fix="see its quarantined items: hm inspect"
        )
    return view
