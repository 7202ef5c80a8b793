"""Weights on disk: reading them safely and lazily, writing them, and checking that they fit.

Nothing here knows a model: names are text, shapes are tuples. Files that could run code when opened are read with
torch's safe unpickler or not at all (hmcli.tensors). What is computed with is read into memory of its own
(hmcli.aligned); what only passes from file to file stays in the file, mapped.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmcli.aligned import own
from hmcli.errors import DataError, UsageError
from hmcli.store.files import OutsideError, is_plain_path
from hmcli.store.finite import require_finite_weights
from hmcli.store.names import listed
from hmcli.tensors.reading import PICKLED, read_tensors, unpickled
from hmcli.tensors.scaled import unscaled
from hmcli.tensors.variants import only_variant, variants_in

if TYPE_CHECKING:
    from torch import Tensor

_SINGLE = {".safetensors", *PICKLED}
_INDEX = re.compile(r".+\.safetensors\.index(\.[\w-]+)?\.json")
_OF_DIFFUSERS = "diffusion_pytorch_model"  # how diffusers and Wan name a model's own weights in a folder


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Tensors by name, still on disk, and what had to be decided or done to read them."""

    state: dict[str, Tensor]
    part: str = ""  # of a file that holds several state dicts, the one that this is
    others: tuple[str, ...] = ()  # the parts that were not taken
    scaled: str = ""  # what was done to weights in 8-bit floats, in words


def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from one file, a sharded index, or a folder that holds one of them; each in memory of its own.

    Raises as `map_state_dict`.
    """
    state = map_state_dict(path)
    return {name: own(state.pop(name)) for name in list(state)}


def map_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The same, still on disk: for names and shapes, and for weights that go into another file as they are.

    Raises as `open_weights`.
    """
    return open_weights(path).state


def open_weights(path: str | Path, part: str = "") -> Opened:
    """Tensors of .safetensors, an index of shards, and .pth/.pt/.ckpt/.bin, bare or inside other dicts.

    `part` names one of several state dicts in a file (hmcli.tensors.nested). Weights in 8-bit floats become float32,
    in memory. Raises DataError for anything else, for damaged files, for what is no file of weights although it is
    called one, and for pickles that hold more than tensors.
    """
    path = find_weights(path)
    if is_index(path):
        if part:
            raise UsageError("shards have no parts", where={"index": path, "part": part}, fix="leave --part out")
        state, scaled = unscaled(_load_shards(path), path)
        return Opened(state=state, scaled=scaled)
    found = read_tensors(path, part)
    state, scaled = unscaled(found.state, path)
    return Opened(state=state, part=found.part, others=found.others, scaled=scaled)


def is_index(path: Path) -> bool:
    """Is it an index of shards, by its name?"""
    return _INDEX.fullmatch(path.name) is not None


def find_weights(path: str | Path) -> Path:
    """The file of weights, or the index of shards, at `path`: itself, or the one in that folder."""
    path = Path(path)
    if path.is_dir():
        path = _weights_in(path)
    if not path.is_file():
        raise DataError("there are no weights here", where={"file": path}, fix="check the path")
    if path.suffix not in _SINGLE and not is_index(path):
        raise DataError(
            f"weights of kind {path.suffix or path.name!r} are not known",
            where={"file": path},
            fix=f"known: {', '.join(sorted(_SINGLE))}, .safetensors.index.json, or a folder with one of them",
        )
    return path


def weight_files(path: str | Path) -> list[Path]:
    """Every file that holds what `map_state_dict` reads."""
    path = find_weights(path)
    return [path, *(path.parent / shard for shard in _shards(path))] if is_index(path) else [path]


def _weights_in(folder: Path) -> Path:
    """The one file of weights in a folder; where there are others too, the one named as a model's own."""
    named = variants_in(folder)
    if named and any(file.name.startswith(_OF_DIFFUSERS) or is_index(file) for file in named.values()):
        return named[only_variant(folder)]
    indexes = sorted(file for file in folder.iterdir() if is_index(file))
    files = indexes or sorted(file for file in folder.iterdir() if file.suffix in _SINGLE)
    own = [file for file in files if file.name.startswith(_OF_DIFFUSERS)]
    files = own if len(own) == 1 else files
    if len(files) != 1:
        raise DataError(
            f"expected one file of weights in this folder, found {len(files)}",
            where={"folder": folder} | ({"files": listed([file.name for file in files])} if files else {}),
            fix="name the file itself",
        )
    return files[0]


def _load_shards(index: Path) -> dict[str, Tensor]:
    place = _shards(index)
    state: dict[str, Tensor] = {}
    for shard in place:
        state |= read_tensors(index.parent / shard).state
    if missing := sorted({name for names in place.values() for name in names} - set(state)):
        raise DataError(
            "shards lack weights that the index names", where={"index": index, "names": listed(missing)},
            fix="fetch the shards again",
        )  # fmt: skip
    return state


def _shards(index: Path) -> dict[str, list[str]]:
    """File name of each shard -> names of its weights, as the index says; every file is there."""
    found: dict[str, list[str]] = {}
    try:
        for name, shard in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items():
            found.setdefault(_beside(index, shard), []).append(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            "the index of a sharded checkpoint cannot be read", where={"file": index}, fix="fetch it again"
        ) from error
    if absent := [shard for shard in found if not (index.parent / shard).is_file()]:
        raise DataError(
            "shards of the checkpoint are missing", where={"index": index, "shards": listed(absent)},
            fix="fetch them into the same folder",
        )  # fmt: skip
    return dict(sorted(found.items()))


def _beside(index: Path, shard: object) -> str:
    """The name of a shard, which lies beside its index (it may be a link there: the hub's cache is made of them)."""
    if not is_plain_path(shard) or "/" in str(shard):
        raise OutsideError(
            "the index of a sharded checkpoint names a file elsewhere", where={"index": index, "path": str(shard)},
            fix="do not use this checkpoint unless you know who made it",
        )  # fmt: skip
    return str(shard)


# --- writing ---------------------------------------------------------------------------------------------------------


def check_target(path: Path) -> None:
    """Raise UsageError unless one file of weights can be written at `path`."""
    if path.suffix not in _SINGLE:
        raise UsageError(
            f"weights cannot be written as {path.suffix or path.name!r}", where={"file": path},
            fix=f"end the name in {' or '.join(sorted(_SINGLE))}",
        )  # fmt: skip
    if path.is_dir():
        raise UsageError("there is a folder in the place of the file", where={"file": path}, fix="choose another --out")


def save_weights(path: Path, state: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write one file, by rename: safetensors, or {"state_dict": ...} for .pth, .pt, .ckpt and .bin.

    `about` is kept in the file (`about_weights`). A failure leaves the place as it was; NotFiniteError for weights
    that are not finite.
    """
    import torch
    from safetensors.torch import save_file

    require_finite_weights(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".tmp-{os.getpid()}-{path.name}"
    try:
        if path.suffix in PICKLED:
            torch.save({"state_dict": dict(state), "about": dict(about)}, temporary)
        else:
            solid = {name: tensor.contiguous() for name, tensor in state.items()}
            save_file(solid, temporary, metadata=dict(about))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def about_weights(path: Path) -> dict[str, str]:
    """What `save_weights` was told about a file; nothing for other files, damaged ones included."""
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix in PICKLED:
            content = unpickled(path)
            about = content.get("about") if isinstance(content, dict) else None
            return about if isinstance(about, dict) else {}
        with safe_open(str(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError, DataError):
        return {}


# --- fit -------------------------------------------------------------------------------------------------------------


def shapes_of(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of tensors, also on the meta device."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def check_keys(
    expected: Mapping[str, tuple[int, ...]],
    got: Mapping[str, tuple[int, ...]],
    *,
    where: Path | str = "",
    may_lack: tuple[str, ...] = (),
) -> None:
    """Raise DataError listing what is missing, extra and misshapen; silent when every name and shape agrees.

    A missing name that contains one of `may_lack` is accepted: `ADDED_TO_WAN` when a plain Wan model is upgraded.
    """
    missing = sorted(n for n in expected if n not in got and not any(part in n for part in may_lack))
    extra = sorted(name for name in got if name not in expected)
    wrong = sorted(n for n in expected if n in got and tuple(expected[n]) != tuple(got[n]))
    if not (missing or extra or wrong):
        return
    places: dict[str, object] = {"file": where} if str(where) else {}
    if missing:
        places[f"missing ({len(missing)})"] = listed(missing)
    if extra:
        places[f"extra ({len(extra)})"] = listed(extra)
    if wrong:
        shapes = [f"{n} is {list(got[n])}, expected {list(expected[n])}" for n in wrong]
        places[f"misshapen ({len(wrong)})"] = listed(shapes)
    raise DataError(
        "the weights do not fit the model",
        where=places,
        fix="use the recipe the weights were made with (layers, dim, heads, ffn_dim, memory.kernel), or other weights",
    )
