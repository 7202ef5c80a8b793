"""Weights on disk: reading them safely, the names released <-> ours, and checking that they fit.

Nothing here knows a model: names are text, shapes are tuples. Files that could run code when opened are read with
torch's safe unpickler or not at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmcli.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

# One row per part: the name in released Wan and HyDRA checkpoints, and ours (diffusers' plus what HyDRA adds).
NAMES: tuple[tuple[str, str], ...] = (
    ("patch_embedding", "patch_embedding"),
    ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("time_projection.1", "condition_embedder.time_proj"),
    ("head.modulation", "scale_shift_table"),
    ("head.head", "proj_out"),
)
_ATTENTION = (
    ("q", "to_q"),
    ("k", "to_k"),
    ("v", "to_v"),
    ("o", "to_out.0"),
    ("norm_q", "norm_q"),
    ("norm_k", "norm_k"),
)
BLOCK_NAMES: tuple[tuple[str, str], ...] = (
    ("modulation", "scale_shift_table"),
    *((f"self_attn.{released}", f"attn1.{ours}") for released, ours in _ATTENTION),
    *((f"cross_attn.{released}", f"attn2.{ours}") for released, ours in _ATTENTION),
    ("norm3", "norm2"),
    ("ffn.0", "ffn.net.0.proj"),
    ("ffn.2", "ffn.net.2"),
    ("self_attn.tokenizer.conv", "attn1.tokenizer.conv"),
    ("cam_encoder_con", "camera.context"),
    ("cam_encoder_tgt", "camera.target"),
    ("projector", "projector"),
)
# Parts of a block that HyDRA adds to plain Wan, in our names; they start fresh when a plain model is upgraded.
ADDED_TO_WAN = ("attn1.tokenizer.", "camera.", "projector.")

_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_SUFFIXES = (".weight", ".bias")
_SINGLE = {".safetensors", ".pth", ".pt", ".ckpt", ".bin"}


def ours_from_released(name: str) -> str:
    """Our name of a parameter of a released checkpoint. Raises KeyError for a name that is not in the table."""
    return _translate(name, dict(NAMES), dict(BLOCK_NAMES))


def released_from_ours(name: str) -> str:
    """The inverse of `ours_from_released`."""
    return _translate(name, {b: a for a, b in NAMES}, {b: a for a, b in BLOCK_NAMES})


def _translate(name: str, top: Mapping[str, str], block: Mapping[str, str]) -> str:
    suffix = next((s for s in _SUFFIXES if name.endswith(s)), "")
    part = name.removesuffix(suffix)
    if match := _BLOCK.fullmatch(part):
        return f"blocks.{match[1]}.{block[match[2]]}{suffix}"
    return top[part] + suffix


def to_ours(state: Mapping[str, Tensor], *, where: Path | str = "") -> dict[str, Tensor]:
    """A released state dict (HyDRA or plain Wan) under our names. DataError lists names it cannot place."""
    return _renamed(state, ours_from_released, "released Wan or HyDRA", where)


def to_released(state: Mapping[str, Tensor], *, where: Path | str = "") -> dict[str, Tensor]:
    """Our state dict under the released names."""
    return _renamed(state, released_from_ours, "hm", where)


def _renamed(state: Mapping[str, Tensor], translate: Any, kind: str, where: Path | str) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in state.items():
        try:
            renamed[translate(name)] = tensor
        except KeyError:
            unknown.append(name)
    if unknown:
        raise DataError(
            f"{len(unknown)} of {len(state)} weights have names that no {kind} model has",
            where=({"file": where} if str(where) else {}) | {"names": _few(unknown)},
            fix="check that this is a Wan2.1 text-to-video or HyDRA transformer; a common prefix can be removed with "
            "hmcli.store.weights.without_prefix",
        )
    return renamed


def without_prefix(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Cut what trainers put in front of every name (`model.`, `module.`, `pipe.dit.`); returns (state, prefix)."""
    anchor = "patch_embedding.weight"
    found = [name.removesuffix(anchor) for name in state if name == anchor or name.endswith("." + anchor)]
    if len(found) != 1 or not all(name.startswith(found[0]) for name in state):
        return dict(state), ""
    return {name.removeprefix(found[0]): tensor for name, tensor in state.items()}, found[0]


def is_released(state: Mapping[str, Any]) -> bool:
    """Whether names are released ones (otherwise diffusers' or ours)."""
    return any(".self_attn." in name or name.startswith(("time_embedding.", "head.")) for name in state)


# --- files -----------------------------------------------------------------------------------------------------------


def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from one file, a sharded index, or a folder that holds one of them; on the CPU.

    Reads .safetensors, .safetensors.index.json, and .pth/.pt/.ckpt/.bin, bare or inside {"state_dict": ...}.
    Raises DataError for anything else, and for pickles that hold more than tensors.
    """
    path = Path(path)
    if path.is_dir():
        path = _weights_in(path)
    if not path.is_file():
        raise DataError("there are no weights here", where={"file": path}, fix="check the path")
    if path.name.endswith(".index.json"):
        return _load_shards(path)
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    if path.suffix in _SINGLE:
        return _load_pickle(path)
    raise DataError(
        f"weights of kind {path.suffix or path.name!r} are not known",
        where={"file": path},
        fix=f"known: {', '.join(sorted(_SINGLE))}, .safetensors.index.json, or a folder with one of them",
    )


def _weights_in(folder: Path) -> Path:
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    files = indexes or sorted(file for file in folder.iterdir() if file.suffix in _SINGLE)
    if len(files) != 1:
        raise DataError(
            f"expected one file of weights in this folder, found {len(files)}",
            where={"folder": folder} | ({"files": _few([file.name for file in files])} if files else {}),
            fix="name the file itself",
        )
    return files[0]


def _load_shards(index: Path) -> dict[str, Tensor]:
    try:
        place = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError("the index of a sharded checkpoint cannot be read", where={"file": index}) from error
    state: dict[str, Tensor] = {}
    for shard in sorted(set(place.values())):
        if not (file := index.parent / shard).is_file():
            raise DataError("a shard of the checkpoint is missing", where={"index": index, "shard": shard})
        state |= _load_safetensors(file)
    if missing := sorted(set(place) - set(state)):
        raise DataError("shards lack weights that the index names", where={"index": index, "names": _few(missing)})
    return state


def _load_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise DataError(
            "the file is not whole or no safetensors file", where={"file": file, "because": error}, fix="fetch it again"
        ) from error


def _load_pickle(file: Path) -> dict[str, Tensor]:
    import pickle

    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise DataError(
            "the file is not whole, or holds more than tensors and is refused",
            where={"file": file, "because": str(error).partition("\n")[0]},
            fix="fetch it again, or convert it to safetensors where you trust it",
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DataError("the file holds no state dict (names with tensors)", where={"file": file})
    return dict(state)


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
        places[f"missing ({len(missing)})"] = _few(missing)
    if extra:
        places[f"extra ({len(extra)})"] = _few(extra)
    if wrong:
        shapes = [f"{n} is {list(got[n])}, expected {list(expected[n])}" for n in wrong]
        places[f"misshapen ({len(wrong)})"] = _few(shapes)
    raise DataError(
        "the weights do not fit the model",
        where=places,
        fix="use the recipe the weights were made with (layers, dim, heads, ffn_dim, memory.kernel), or other weights",
    )


def _few(names: list[str], most: int = 6) -> str:
    rest = f"\n... and {len(names) - most} more" if len(names) > most else ""
    return "\n".join(names[:most]) + rest
