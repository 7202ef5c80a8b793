"""Keys: what a key of a recipe may be, what it means, and which commands read it.

Every field of hmcli.recipe.sections is declared with `key`. Ranges are checked, names are looked up, the reference page
(docs/reference.md), the JSON schema and the refusal of `--set` keys without effect are all made from that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from hmcli import registry
from hmcli.contracts import SIDE_STEP, TIME_STRIDE

Reader = Literal[
    "render", "encode", "slots", "memory", "train", "codec", "blocks", "segmenter", "views", "generate", "clips",
    "codec path", "text path", "inspect", "eval", "features", "lpips", "official", "detections",
    "foreign", "folder", "convert", "released", "diffusers", "checkpoint", "dataset",
]  # fmt: skip
READERS: dict[Reader, str] = {  # who reads a key; a command is several of them where its inputs decide
    "render": "hm render",
    "encode": "hm encode",
    "slots": "hm tokenize-memory without --model",
    "memory": "hm tokenize-memory --model",
    "train": "hm train (train.part=transformer)",
    "codec": "hm train (train.part=codec)",
    "blocks": "hm train (train.part=blocks)",
    "segmenter": "hm train (train.part=segmenter)",
    "views": "hm train, generate and inspect where the policy compares fields of view or model.positions is not screen",
    "generate": "hm generate",
    "clips": "hm generate from a folder of clips",
    "codec path": "hm generate and inspect with a model that names its codec by path",
    "text path": "hm generate and inspect with a model that names its text encoder by path",
    "inspect": "hm inspect --latents",
    "eval": "hm eval",
    "features": "hm eval with a metric that needs a backbone",
    "lpips": "hm eval with the metric lpips",
    "official": "hm eval with dsc-ctx-official or dsc-gt-official",
    "detections": "hm eval with a metric that needs a detector",
    "foreign": "hm eval of videos that do not say how their cameras were read",
    "folder": "hm eval of a plain folder of videos",
    "convert": "hm convert",
    "released": "hm convert --to released",
    "diffusers": "hm convert --to diffusers",
    "checkpoint": "hm convert --to checkpoint",
    "dataset": "hm dataset check, split, caption and show",
}
EVERYBODY: tuple[Reader, ...] = get_args(Reader)
Plain = dict[str, Any]  # a section as plain values


def key(
    meaning: str,
    *,
    by: tuple[Reader, ...],
    unit: str = "",
    hint: str = "",
    names: str = "",
    also: tuple[str, ...] = (),
    ends: tuple[str, ...] = ("",),
    **limits: Any,
) -> Any:
    """What one key means (`meaning`, `unit`), who reads it (`by`), and what it may be (pydantic's `ge`, `lt`, ...).

    `hint` is said to who sets it where nobody reads it.

    A key that holds names of the registry says their kind in `names`, what else is allowed in `also`, and in `ends`
    what each name is followed by.
    """
    about: Plain = {"read_by": list(by)} | ({"unit": unit} if unit else {})
    about |= {"hint": hint} if hint else {}
    about |= {"names": names, "also": list(also), "ends": list(ends)} if names else {}
    return Field(description=meaning, json_schema_extra=about, **limits)


# --- values with rules of their own ----------------------------------------------------------------------------------


def _four_k_plus_one(frames: int) -> int:
    """Video lengths that the causal autoencoder takes: 1 + 4k frames."""
    if frames < 1 or frames % TIME_STRIDE != 1:
        low = max(1, (frames - 1) // TIME_STRIDE * TIME_STRIDE + 1)
        near = f"{low} or {low + TIME_STRIDE}" if frames > 0 else "1"
        raise PydanticCustomError("hm", "is not 4k+1: set it to {near}", {"near": near})
    return frames


def _whole_latents(size: tuple[int, int], smallest: int = SIDE_STEP) -> tuple[int, int]:
    """Heights and widths that autoencoders take: multiples of 8."""
    if any(side < smallest or side % SIDE_STEP for side in size):
        near = [max(smallest, side // SIDE_STEP * SIDE_STEP) for side in size]
        text = "must have sides that are multiples of {stride}, at least {smallest}: {near} is nearest below"
        about = {"stride": SIDE_STEP, "smallest": smallest, "near": str(near)}
        raise PydanticCustomError("hm", text, about)
    return size


def _tile(size: tuple[int, int]) -> tuple[int, int]:
    """Tiles overlap by a quarter, in whole latent pixels."""
    return _whole_latents(size, 2 * SIDE_STEP)


def _patch(patch: tuple[int, int, int]) -> tuple[int, int, int]:
    if patch[0] != 1 or min(patch) < 1:
        raise PydanticCustomError("hm", "must start with 1 (latent frames are token frames), the others positive")
    return patch


def _fewest_and_most(counts: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= counts[0] <= counts[1] <= MOST_SUBJECTS:
        text = "must be from 1 to {most}, the smaller number first"
        raise PydanticCustomError("hm", text, {"most": MOST_SUBJECTS})
    return counts


def _lowest_and_highest(shares: tuple[float, float]) -> tuple[float, float]:
    if not SMALLEST_SUBJECT <= shares[0] <= shares[1] <= 1:
        text = "must be from {smallest} to 1, the smaller number first"
        raise PydanticCustomError("hm", text, {"smallest": SMALLEST_SUBJECT})
    return shares


def _switch(value: Any) -> Any:
    """YAML reads on and off as true and false."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


def _one_or_more(value: Any) -> Any:
    """One name stands for a list of it; an empty one for an empty list."""
    return ((value,) if value else ()) if isinstance(value, str) else value


MOST_SUBJECTS = 3  # of a clip
SMALLEST_SUBJECT = 0.1  # of the picture's height
Frames = Annotated[int, AfterValidator(_four_k_plus_one)]
_Side = Annotated[int, Field(json_schema_extra={"minimum": SIDE_STEP, "multipleOf": SIDE_STEP})]
Size = Annotated[tuple[_Side, _Side], AfterValidator(_whole_latents)]
Tile = Annotated[tuple[_Side, _Side], AfterValidator(_tile)]
_Cells = Annotated[int, Field(ge=1)]
Kernel = tuple[_Cells, _Cells, _Cells]
Patch = Annotated[tuple[int, int, int], AfterValidator(_patch)]
Counts = Annotated[tuple[int, int], AfterValidator(_fewest_and_most)]
Heights = Annotated[tuple[float, float], AfterValidator(_lowest_and_highest)]
Switch = Annotated[Literal["on", "off"], BeforeValidator(_switch)]
_ONE_OR_MORE = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_more), WithJsonSchema(_ONE_OR_MORE)]
Beta = Annotated[float, Field(ge=0, lt=1)]
FRAMES, SIZE = "video frames, 4k+1", f"pixels: height, width, multiples of {SIDE_STEP}"  # their units


# --- all keys --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key:
    """One key of a recipe, as it was declared."""

    path: str  # model.memory.top_k
    kind: Any  # its type, without what is said of it
    default: Any  # REQUIRED where a section that may be left out needs it
    field: FieldInfo

    @property
    def about(self) -> Plain:
        extra = self.field.json_schema_extra
        assert isinstance(extra, dict)  # made by `key`
        return extra

    @property
    def meaning(self) -> str:
        return str(self.field.description)

    @property
    def unit(self) -> str:
        return str(self.about.get("unit", ""))

    @property
    def hint(self) -> str:
        return str(self.about.get("hint", ""))

    @property
    def readers(self) -> tuple[Reader, ...]:
        return tuple(self.about["read_by"])

    @property
    def named(self) -> str:
        """The registry's kind of the names it holds; empty where it holds none."""
        return str(self.about.get("names", ""))

    @property
    def names(self) -> list[str]:
        """The names it may hold."""
        known = registry.names(self.named)
        return [*self.about["also"], *(name + end for name in known for end in self.about["ends"])]

    def holds(self, name: str) -> bool:
        """May it hold this name? Other packages are looked through only for a name that is not ours."""
        asked = registry.normal(name)
        ends = [end for end in self.about["ends"] if asked.endswith(end)]
        return asked in self.about["also"] or any(registry.is_known(self.named, asked.removesuffix(e)) for e in ends)


REQUIRED = object()


def keys_of(kind: type, prefix: str = "") -> Iterator[Key]:
    """Every key of a section and of the sections in it, in the order in which they are declared."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, path = hints[field.name], f"{prefix}{field.name}"
        if (inner := section_in(hint)) is not None:
            yield from keys_of(inner, f"{path}.")
            continue
        said = next((part for part in get_args(hint) if isinstance(part, FieldInfo)), None)
        if said is None:
            raise TypeError(f"{path} is not declared with hmcli.recipe.keys.key")
        default = REQUIRED if field.default is dataclasses.MISSING else field.default
        yield Key(path=path, kind=get_args(hint)[0], default=default, field=said)


def section_in(hint: Any) -> type | None:
    """The section a field holds (or may hold), None for a plain value."""
    options = (hint, *get_args(hint))
    return next((o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)), None)


def value_at(section: Any, path: str) -> Any:
    """The value of a key; None where a section that may be left out is."""
    for name in path.split("."):
        section = None if section is None else getattr(section, name)
    return section
