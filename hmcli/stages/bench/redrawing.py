"""Drawing a rendered clip's target again, as it is and otherwise: without its subjects, or with them standing still.

The world is deterministic: a data set's manifest says the recipe and the seed, its index the draw of every clip. A clip
counts as drawn again only when its poses and tracks are those on disk and its pictures look the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hmcli.errors import DataError, HMError
from hmcli.recipe.reading import from_dict
from hmcli.recipe.sections import WorldConfig
from hmcli.stages.bench.definition import chosen_clips
from hmcli.stages.bench.prints import poses_hash, thumbnails, tracks_hash, values_described, values_on_disk
from hmcli.stages.data.opening import ClipSource, Dataset, read_rows
from hmcli.store.hashing import hash_json
from hmcli.store.manifest import is_artifact, read_manifest
from hmcli.store.video import read_video, write_video
from hmcli.world.files.layout import RENDERED_INDEX
from hmcli.world.files.tables import DATASET
from hmcli.world.staging.clip import ClipDescription, describe_clip
from hmcli.world.staging.variants import target_alone
from hmcli.world.views.warps import widened

EDGE = 2  # pixels around a subject that its colours run into: smoothed edges, video compression
_STEP = 1e-5  # metres (parts of a rotation, strides) to which poses and tracks are rounded before they are compared
_LEVELS = 4.0  # of 255, between mean colours of parts of a picture, as in a frozen benchmark


@dataclass(frozen=True, kw_only=True)
class Origin:
    """How a data set's clips were drawn, as it says itself; `draws` are (index, draw) by clip."""

    seed: int
    world: Mapping[str, Any]
    draws: Mapping[str, tuple[int, int]]

    def of(self, clip: str) -> str:
        """A hash of what is said of one clip."""
        return hash_json([self.seed, dict(self.world), self.draws.get(clip)])


def origin_of(dataset: Dataset) -> Origin | None:
    """None for a folder that no `hm render` made, or that does not say how."""
    if not is_artifact(dataset.path):
        return None
    manifest = read_manifest(dataset.path, kinds=(DATASET,))
    if not isinstance(manifest.recipe.get("world"), dict) or not (dataset.path / RENDERED_INDEX).is_file():
        return None
    draws = {clip: (row.index, row.draw) for clip, row in read_rows(dataset.path).items()}
    return Origin(seed=manifest.seed, world=manifest.recipe["world"], draws=draws)


@dataclass(frozen=True, kw_only=True)
class Redrawn:
    """A clip whose target this hm draws as it is on disk; `target` (T, H, W, 3) is drawn so."""

    clip: ClipDescription
    world: WorldConfig
    target: np.ndarray

    def otherwise(self, video: np.ndarray, vary: Callable[[ClipDescription], ClipDescription]) -> np.ndarray:
        """The video on disk where nothing changes, and a variant of the clip's target where something does."""
        other = _draw(vary(self.clip), self.world)
        changed = widened((other != self.target).any(-1), EDGE)
        return np.where(changed[..., None], other, video)


def redraw(origin: Origin | None, source: ClipSource, video: np.ndarray) -> Redrawn:
    """Draw the target of a clip again, whose target on disk is `video`. Raises DataError, saying why it cannot be."""
    if origin is None or source.id not in origin.draws:
        raise DataError("the data set does not say how it was drawn")
    try:
        clip, world = _described(origin, source.id)
    except (HMError, LookupError) as error:
        raise DataError(f"this hm does not describe it: {str(error).splitlines()[0]}") from error
    try:
        here, there = values_described(clip), values_on_disk(source)
    except DataError as error:
        raise DataError("its files do not say how its camera and its subjects move") from error
    if (poses_hash(here, _STEP), tracks_hash(here, _STEP)) != (poses_hash(there, _STEP), tracks_hash(there, _STEP)):
        raise DataError("this hm moves its camera or its subjects otherwise")
    target = _draw(target_alone(clip), world)
    if target.shape != video.shape or _apart(_compressed(target, source.context_info.fps), video) > _LEVELS:
        raise DataError("this hm draws other pictures of it")
    return Redrawn(clip=clip, world=world, target=target)


def _described(origin: Origin, name: str) -> tuple[ClipDescription, WorldConfig]:
    """The clip, and the world with the size at which it is drawn; it was chosen at that of a frozen benchmark."""
    recipe = from_dict({"seed": origin.seed, "world": dict(origin.world)})
    index, draw = origin.draws[name]
    chosen = chosen_clips(recipe)
    world = recipe.world if chosen is None else replace(recipe.world, size=chosen[index].size)
    return describe_clip(world, origin.seed, index, first_draw=draw), recipe.world


def _draw(clip: ClipDescription, world: WorldConfig) -> np.ndarray:
    from hmcli.world.render import draw_clip  # torch loads here

    return draw_clip(clip, world.size, antialias=world.antialias).rgb


def _compressed(video: np.ndarray, fps: float) -> np.ndarray:
    """The video as it comes back from a file: small pictures lose more to compression than another world would."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "target.mp4"
        write_video(file, video, fps=fps)
        return read_video(file)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """Levels between the mean colours of parts of their first, middle and last frames, at most."""
    parts = (thumbnails(video, video).astype(np.int64) for video in (one, other))
    return float(np.abs(np.subtract(*parts)).max())
