"""A benchmark as a file: which clips, how to draw them again at any size, and what they must look like.

A frozen clip names its draw (hmcli/world/staging/clip.py), so that drawing it again judges nothing: not the pictures'
size, not the machine. Beside it stand hashes of poses, tracks and events, and coarse pictures that any honest rendering
matches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from hmcli.errors import DataError, UsageError
from hmcli.recipe.reading import from_dict
from hmcli.recipe.sections import Recipe, WorldConfig
from hmcli.store.files import read_json, write_json
from hmcli.store.hashing import hash_json

FORMAT = 1
PACKAGED = Path(__file__).parents[2] / "bench"
RETIRED = ("hm-bench-1",)  # kept as a record: the world of today draws other clips from their seeds
_NOT_BENCHMARKS = ("scores.schema",)  # other JSON files that are packaged beside them
_MAX_ASPECT_CHANGE = 0.02  # of height by width: 480x832 is 1 % higher than 64x112
_FREE = ("clips", "size", "benchmark")  # keys of `world` that may differ from the frozen ones


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """How far clips may be from the frozen ones and still be them; `other` counts where the pictures' size differs."""

    step: float  # metres (parts of a rotation, of a stride) to which positions are rounded before they are hashed
    event_frames: int  # next to an exit or an entry, in which a subject may be hidden or not
    other_event_frames: int  # by which a certified stretch may begin or end earlier or later
    thumbnail_levels: float  # of 255, for the mean colour of each part of a thumbnail
    other_thumbnail_levels: float
    frame_levels: float  # of 255, for the mean colour of a frame
    other_frame_levels: float


@dataclass(frozen=True, kw_only=True)
class Absence:
    """A subject is hidden from frame `first` to `last`, counted over context and target together."""

    subject: str
    first: int
    last: int
    reason: str
    certified: bool


@dataclass(frozen=True, kw_only=True)
class Happening:
    """An event as it was frozen: a subject stops (`exit`), or starts (`entry`), being visible."""

    subject: str
    kind: str
    frame: int  # counted over context and target together
    reason: str


_LEFT_OUT = Field(exclude_if=lambda value: not value)
Number = float | Literal["inf", "-inf"] | None


@dataclass(frozen=True, kw_only=True)
class Print:
    """What identifies a clip: hashes (sha256) of rounded values, when subjects are hidden, and coarse pictures."""

    caption: str
    poses: str
    tracks: str  # place, heading and gait of every subject in every frame
    events: str
    absences: tuple[Absence, ...]
    thumbnails: str  # base64 of (frames of THUMBNAIL_FRAMES, 8, 8, 3) uint8: mean colours of the parts of a picture
    frame_means: str  # base64 of (T, 3) uint8: mean colour of every frame
    # what benchmarks of before have not frozen, and do not compare
    lens: Annotated[tuple[float, ...], _LEFT_OUT] = ()  # fx, fy, cx in widths of the picture, cy in heights
    happenings: Annotated[tuple[Happening, ...], _LEFT_OUT] = ()
    masks: Annotated[str, _LEFT_OUT] = ""  # base64 of (4, 8, 8, subjects) uint8: shares of their parts
    mask_shares: Annotated[str, _LEFT_OUT] = ""  # base64 of (T, subjects) uint8: roots of shares of the picture


@dataclass(frozen=True, kw_only=True)
class FrozenClip:
    """One clip: how to draw it again (`index` and `draw` of the split's seed), what it shows, and its print."""

    id: str
    index: int
    draw: int
    scene: str
    subjects: tuple[str, ...]
    paths: tuple[str, ...]
    trajectory: str
    caption_plain: str
    print: Print


@dataclass(frozen=True, kw_only=True)
class FrozenSplit:
    """Clips of one seed and one `world` section. `baselines`: row -> metric -> mean, at the section's own size.

    A mean is null where the metric finds nothing to judge in any clip, "inf" where it is infinite. A draft has neither
    baselines nor clips yet.
    """

    seed: int
    world: Mapping[str, Any]
    baselines: Mapping[str, Mapping[str, Number]]
    clips: tuple[FrozenClip, ...]

    @property
    def count(self) -> int:
        """How many clips it has, or is to have."""
        return len(self.clips) or self.recipe.world.clips

    @property
    def recipe(self) -> Recipe:
        """The recipe the clips were drawn with."""
        return from_dict({"seed": self.seed, "world": dict(self.world)})

    @property
    def size(self) -> tuple[int, int]:
        """Pixels, height and width, at which the clips were chosen and frozen."""
        return self.recipe.world.size


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Everything that is fixed. `frozen_by` says which program froze it, and is no part of the fingerprint.

    `required_metrics` are labels of scores, with the names of backbone and detector that see for them: a score file's
    labels may say more after these (`is_of`). `judges` are the weights of both, by name. Where nobody has frozen it yet
    it is a draft: seeds and recipes of its splits, which may still change.
    """

    format: int
    name: str
    required_metrics: tuple[str, ...]
    training: str  # what a model may have been trained on
    tolerances: Tolerances
    held_out: Mapping[str, tuple[str, ...]]  # families kept from training: scenes, subjects
    splits: Mapping[str, FrozenSplit]
    frozen_by: Mapping[str, Any]
    judges: Annotated[Mapping[str, str], _LEFT_OUT] = field(default_factory=dict)

    @property
    def is_draft(self) -> bool:
        return not self.frozen_by

    @property
    def fingerprint(self) -> str:
        content = _ADAPTER.dump_python(self, mode="json")
        del content["frozen_by"]
        return hash_json(content)

    def split_of(self, clip: str) -> str | None:
        """The split a clip id belongs to, or None for a clip that is not of this benchmark."""
        return next((name for name, split in self.splits.items() if any(one.id == clip for one in split.clips)), None)


def is_of(label: str, required: str) -> bool:
    """Is this the label of the required score? More may be known of its backbone, and said: `a (b)`, `a (b, known)`."""
    return label == required or (required.endswith(")") and label.startswith(f"{required[:-1]}, "))


def forbid_unknown_keys(*kinds: type) -> None:
    """Tell pydantic that files of these dataclasses hold their fields and nothing else."""
    for kind in kinds:
        kind.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[attr-defined]


forbid_unknown_keys(Tolerances, Absence, Happening, Print, FrozenClip, FrozenSplit, Benchmark)
_ADAPTER = TypeAdapter(Benchmark)


def benchmark_names() -> list[str]:
    """The packaged benchmarks."""
    return sorted(file.stem for file in PACKAGED.glob("*.json") if file.stem not in _NOT_BENCHMARKS)


def find_benchmark(name: str | Path) -> Benchmark:
    """A packaged benchmark by name, or one's own by the path of its JSON file."""
    file = Path(name)
    if not file.is_file():
        if str(name) not in benchmark_names():
            known = ", ".join(benchmark_names())
            raise UsageError(f"there is no benchmark {str(name)!r}", fix=f"known: {known}; or the path of a JSON file")
        file = PACKAGED / f"{name}.json"
    values = read_json(file)
    if isinstance(values, dict) and isinstance(values.get("format"), int) and values["format"] > FORMAT:
        what = f"the benchmark has format {values['format']}, this hm reads up to {FORMAT}"
        raise DataError(what, where={"file": file}, fix="install a newer hm")
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        where: dict[str, object] = {"file": file}
        where |= {".".join(map(str, item["loc"])): item["msg"] for item in error.errors()[:5]}
        raise DataError("the file is no benchmark", where=where) from error


def refuse_retired(benchmark: Benchmark) -> None:
    """Raise UsageError for a benchmark whose clips this version of hm cannot draw any more."""
    if benchmark.name not in RETIRED:
        return
    by = f"hm {benchmark.frozen_by['hmcli']}, commit {benchmark.frozen_by['commit']}"
    raise UsageError(
        f"{benchmark.name} is retired: the world draws other clips now", where={"benchmark": benchmark.name},
        fix=f"use {by}, which draws and verifies its clips; score files that name it can still be checked here",
    )  # fmt: skip


def refuse_draft(benchmark: Benchmark) -> None:
    """Raise UsageError for a benchmark that is not frozen: it has no clips to compare with, and no scores."""
    if benchmark.is_draft:
        raise UsageError(
            f"{benchmark.name} is a draft: it is not frozen yet, and its clips may still change",
            where={"benchmark": benchmark.name},
            fix="wait for the version of hm that freezes it; until then compare on one folder of its clips",
        )  # fmt: skip


def write_benchmark(file: Path, benchmark: Benchmark) -> None:
    write_json(file, _ADAPTER.dump_python(benchmark, mode="json"))


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What the benchmark fixed of one clip: `hm render` looks for nothing, and tells of the clip what was told then."""

    draw: int
    size: tuple[int, int]  # pixels, height and width, the clip was chosen at
    caption: str
    caption_plain: str


def chosen_clips(recipe: Recipe) -> list[Chosen] | None:
    """The frozen clips `world.benchmark` asks for, in order; None where it is empty, or asks for a draft.

    Raises UsageError when the recipe asks for anything else than the benchmark's clips, at any size.
    """
    if not recipe.world.benchmark:
        return None
    benchmark = find_benchmark(recipe.world.benchmark)
    refuse_retired(benchmark)
    where = {"benchmark": benchmark.name, "recipe": "world.benchmark"}
    if recipe.world.split not in benchmark.splits:
        fix = f"set world.split to {' or '.join(benchmark.splits)}"
        raise UsageError(f"{benchmark.name} has no split {recipe.world.split!r}", where=where, fix=fix)
    split = benchmark.splits[recipe.world.split]
    fixed = {"seed": (recipe.seed, split.seed)} | {
        f"world.{field.name}": (getattr(recipe.world, field.name), getattr(split.recipe.world, field.name))
        for field in dataclasses.fields(WorldConfig)
        if field.name not in _FREE
    }
    if changed := {key: f"{asked}, frozen is {frozen}" for key, (asked, frozen) in fixed.items() if asked != frozen}:
        raise UsageError(
            f"these would not be the clips of {benchmark.name}", where=where | changed,
            fix="only world.size and the number of clips may differ; for other clips set world.benchmark=''",
        )  # fmt: skip
    if recipe.world.clips > split.count:
        raise UsageError(f"{benchmark.name} has {split.count} clips of the split {recipe.world.split}", where=where)
    (height, width), (asked_height, asked_width) = split.size, recipe.world.size
    if abs(asked_height * width / (asked_width * height) - 1) > _MAX_ASPECT_CHANGE:
        raise UsageError(
            f"pictures of {asked_height}x{asked_width} would show more, or less, than those of {benchmark.name}",
            where=where, fix=f"set world.size to about {height}:{width}, such as [480,832] for [64,112]",
        )  # fmt: skip
    if benchmark.is_draft:
        return None
    return [
        Chosen(draw=clip.draw, size=split.size, caption=clip.print.caption, caption_plain=clip.caption_plain)
        for clip in split.clips[: recipe.world.clips]
    ]
