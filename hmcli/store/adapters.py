"""Adapters (LoRA) as trainers save them: what a file's names mean, and what each layer's weight is changed by.

One table says how names begin, one how they end; what stands between is a layer, under our names, those of released
Wan and HyDRA, or either with `_` for `.` (kohya, musubi). Nothing here knows a model: layers are names with shapes.
Everything in a file is used or named in an error: no half of a pair is made up, no key is passed over.

    delta = alpha / rank * (up @ down)      alpha / sqrt(rank) where peft's configuration says use_rslora
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmcli.errors import DataError
from hmcli.store.names import listed, released_from_ours
from hmcli.store.weights import find_weights, open_weights

if TYPE_CHECKING:
    from torch import Tensor

# How names begin, by who writes them so; cut again and again, as trainers put them before each other.
PREFIXES = (
    "base_model.model.",  # peft
    "transformer.", "unet.",  # diffusers
    "model.diffusion_model.", "diffusion_model.",  # ComfyUI
    "lora_unet__", "lora_unet_", "lycoris_",  # Wan-Fun; kohya and musubi; LyCORIS
    "pipe.dit.", "dit.", "model.", "module.",  # DiffSynth; trainers
)  # fmt: skip
# How names end -> which part of a change it is. The word in peft's names is the adapter's.
ENDINGS: tuple[tuple[str, str], ...] = (
    (r"\.lora_A(?:\.\w+)?\.weight|\.lora_down\.weight|\.lora\.down\.weight|\.lora_A|\.lora_down", "down"),
    (r"\.lora_B(?:\.\w+)?\.weight|\.lora_up\.weight|\.lora\.up\.weight|\.lora_B|\.lora_up", "up"),
    (r"\.alpha|\.lora_alpha", "alpha"),
    (r"\.lora_B(?:\.\w+)?\.bias", "bias"),
    (r"\.diff", "diff"),
    (r"\.diff_b", "diff_b"),
)
# Endings of methods whose change is no product of two matrices.
OTHER_METHODS: tuple[tuple[str, str], ...] = (
    (r"\.dora_scale|\.lora_magnitude_vector.*", "DoRA"),
    (r"\.lokr_\w+(?:\.\w+)?", "LoKr"),
    (r"\.hada_\w+(?:\.\w+)?", "LoHa"),
    (r"\.oft_\w+(?:\.\w+)*", "OFT"),
    (r"\.boft_\w+(?:\.\w+)*", "BOFT"),
    (r"\.ia3_\w+(?:\.\w+)*|\.on_input", "IA3"),
    (r"\.glora_\w+|\.[ab][12]\.weight", "GLoRA"),
    (r"\.lora_mid\.weight", "LoCon with a third matrix (Tucker)"),
    (r"\.(?:w_norm|b_norm|set_weight|reshape_weight)", "weights that are replaced, not changed"),
    (r"\.vera_\w+(?:\.\w+)*", "VeRA"),
)
CONFIG = "adapter_config.json"  # of peft, beside its weights
_IN_FILE = "lora_adapter_metadata"  # diffusers' place for the same, in a safetensors file
_ENDINGS = [(re.compile(rf"(.+?)(?:{end})"), kind) for end, kind in ENDINGS]
_OTHERS = [(re.compile(rf"(.+?)(?:{end})"), method) for end, method in OTHER_METHODS]
_FULL = (".weight", "")  # what `diff` changes: a layer's weight, or a table that is no layer


@dataclass(kw_only=True)
class Change:
    """What a file says of one layer."""

    raw: str  # the layer as the file calls it
    parts: dict[str, Tensor] = field(default_factory=dict)  # by the words of ENDINGS
    keys: dict[str, str] = field(default_factory=dict)  # the same -> the key
    scale: float = 1.0  # alpha / rank


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """All changes by layer (our names), and how they are scaled, in words."""

    changes: dict[str, Change]
    told: str
    files: tuple[Path, ...]


def is_adapter(names: Mapping[str, Any]) -> bool:
    """Do names say that this is an adapter, of whatever method, and no model?"""
    pairs = (*(p for p, kind in _ENDINGS if kind in ("down", "up")), *(pattern for pattern, _ in _OTHERS))
    return any(pattern.fullmatch(name) for name in names for pattern in pairs)


def read_adapter(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Adapter:
    """The adapter in a file or folder for a model with weights of these shapes (our names).

    Raises DataError for half pairs, keys that are on no layer of the model, other methods, and shapes that do not fit:
    each lists every key.
    """
    file = find_weights(path)
    state = open_weights(file).state
    if not is_adapter(state) and not any(_split(key)[1] for key in state):
        raise DataError(
            "this is no adapter", where={"lora": file, f"names ({len(state)})": listed(sorted(state))},
            fix="give the file of a LoRA; a whole model is converted without --lora",
        )  # fmt: skip
    _refuse_other_methods(state, file)
    changes = _placed(state, shapes, file)
    _refuse_halves(changes, file)
    _refuse_misshapen(changes, shapes, file)
    config, where = _config(file)
    if config.get("use_dora") or config.get("peft_type", "LORA") != "LORA":
        method = "DoRA" if config.get("use_dora") else str(config["peft_type"])[:40]
        raise _unusable(file, f"{method} ({where})", [])
    told = _scale(changes, config, where, file)
    beside = file.parent / CONFIG
    return Adapter(changes=changes, told=told, files=(file, beside) if where == CONFIG else (file,))


def changed(name: str, weight: Tensor, adapter: Adapter) -> Tensor:
    """A weight of the model with the adapter in it, in its own type; the sum is made in float32."""
    layer, _, last = name.rpartition(".")
    deltas = [
        delta
        for place, kind in ((layer, last), (name, "weight"))
        if (change := adapter.changes.get(place)) is not None and (delta := _delta(change, kind)) is not None
    ]
    if not deltas:
        return weight
    total = weight.float()
    for delta in deltas:
        total = total + delta.reshape(weight.shape)
    return total.to(weight.dtype)


def _delta(change: Change, kind: str) -> Tensor | None:
    """What a layer's weight or bias is changed by, in float32."""
    parts = {name: part.float() for name, part in change.parts.items()}
    found = []
    if kind == "weight":
        if "down" in parts:
            found.append(change.scale * (parts["up"].flatten(1) @ parts["down"].flatten(1)))
        if "diff" in parts:
            found.append(parts["diff"].reshape(found[0].shape) if found else parts["diff"])
    elif kind == "bias":
        found += [change.scale * parts["bias"]] if "bias" in parts else []
        found += [parts["diff_b"]] if "diff_b" in parts else []
    return sum(found[1:], start=found[0]) if found else None


# --- names -----------------------------------------------------------------------------------------------------------


def _placed(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], file: Path) -> dict[str, Change]:
    """Every tensor of the file at its layer. Raises DataError listing the keys that are on none."""
    spelled = _spellings(shapes)
    changes: dict[str, Change] = {}
    lost = []
    for key, tensor in state.items():
        raw, kind = _split(key)
        layer = _layer(raw, spelled)
        if not kind or layer is None:
            lost.append(key)
            continue
        change = changes.setdefault(layer, Change(raw=raw))
        if kind in change.parts:
            raise DataError(
                "two keys of the adapter mean the same", where={"lora": file, "keys": f"{change.keys[kind]}\n{key}"},
                fix="leave one of them out: which is meant cannot be told",
            )  # fmt: skip
        change.parts[kind], change.keys[kind] = tensor, key
    if lost or not changes:
        raise DataError(
            f"{len(lost)} of {len(state)} keys of the adapter are on no layer of the model",
            where={"lora": file, "keys": listed(sorted(lost), most=40)},
            fix="use an adapter of Wan2.1 text-to-video 1.3B or of this model (image-to-video, 14B and Wan2.2 differ)",
        )
    return changes


def _split(key: str) -> tuple[str, str]:
    """The layer as a key calls it and which part of its change this is; ("", "") for a key of no known form."""
    for pattern, kind in _ENDINGS:
        if match := pattern.fullmatch(key):
            return match[1], kind
    return "", ""


def _spellings(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Every way to write a layer -> our name of it."""
    spelled = {}
    for name in shapes:
        layer = name.removesuffix(".weight").removesuffix(".bias")
        released = released_from_ours(name).removesuffix(".weight").removesuffix(".bias")
        for spelling in (layer, released, layer.replace(".", "_"), released.replace(".", "_")):
            spelled[spelling] = layer
    return spelled


def _layer(raw: str, spelled: Mapping[str, str]) -> str | None:
    while raw not in spelled:
        prefix = next((prefix for prefix in PREFIXES if raw.startswith(prefix)), None)
        if prefix is None:
            return None
        raw = raw.removeprefix(prefix)
    return spelled[raw]


# --- what is refused -------------------------------------------------------------------------------------------------


def _refuse_other_methods(state: Mapping[str, Tensor], file: Path) -> None:
    found = {key: method for key in state for pattern, method in _OTHERS if pattern.fullmatch(key)}
    if found:
        raise _unusable(file, ", ".join(sorted(set(found.values()))), sorted(found))


def _unusable(file: Path, method: str, keys: list[str]) -> DataError:
    return DataError(
        f"the adapter cannot be used: {method}",
        where={"lora": file} | ({f"keys ({len(keys)})": listed(keys)} if keys else {}),
        fix="use a plain LoRA (two matrices a layer), or put it into the weights with the tool that made it",
    )


def _refuse_halves(changes: Mapping[str, Change], file: Path) -> None:
    halves = []
    for change in changes.values():
        if ("down" in change.parts) != ("up" in change.parts):
            there, lacking = ("down", "up") if "down" in change.parts else ("up", "down")
            halves.append(f"{change.keys[there]} has no {lacking} matrix to it")
        elif "down" not in change.parts and ("alpha" in change.parts or "bias" in change.parts):
            halves += [f"{key} has no matrices to it" for kind, key in change.keys.items() if kind in ("alpha", "bias")]
    if halves:
        raise DataError(
            "pairs of the adapter are not whole", where={"lora": file, f"halves ({len(halves)})": listed(halves)},
            fix="fetch the file again, or save it again with both matrices of every layer",
        )  # fmt: skip


def _refuse_misshapen(changes: Mapping[str, Change], shapes: Mapping[str, tuple[int, ...]], file: Path) -> None:
    wrong = []
    for layer, change in changes.items():
        weight = shapes.get(f"{layer}.weight", shapes.get(layer, ()))
        for kind, fits in _fits(change, weight, shapes.get(f"{layer}.bias", ())).items():
            if not fits:
                wrong.append(f"{change.keys[kind]} {list(change.parts[kind].shape)} on a layer of {list(weight)}")
    if wrong:
        raise DataError(
            "the adapter does not fit the model", where={"lora": file, f"wrong ({len(wrong)})": listed(wrong)},
            fix="use an adapter that was trained on this model",
        )  # fmt: skip


def _fits(change: Change, weight: tuple[int, ...], bias: tuple[int, ...]) -> dict[str, bool]:
    """Which parts have the shapes that the layer's weight and bias ask for."""
    sizes = {kind: tuple(part.shape) for kind, part in change.parts.items()}
    inner = _count(weight[1:])
    fits = {}
    if "down" in sizes and "up" in sizes:
        down, up = sizes["down"], sizes["up"]
        fits["down"] = len(weight) > 1 and len(down) > 1 and down[0] > 0 and _count(down[1:]) == inner
        fits["up"] = len(up) > 1 and up[0] == weight[0] and _count(up[1:]) == down[0] if weight else False
    if "diff" in sizes:
        fits["diff"] = bool(weight) and _count(sizes["diff"]) == _count(weight)
    for kind in ("bias", "diff_b"):
        if kind in sizes:
            fits[kind] = bool(bias) and sizes[kind] == bias
    if "alpha" in sizes:
        fits["alpha"] = _count(sizes["alpha"]) == 1
    return fits


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total


# --- alpha -----------------------------------------------------------------------------------------------------------


def _config(file: Path) -> tuple[dict[str, Any], str]:
    """peft's configuration of the adapter and where it stood; empty where there is none.

    adapter_config.json beside the file, or what a safetensors file says of itself (diffusers, kohya).
    """
    beside = file.parent / CONFIG
    if beside.is_file():
        return _json(beside.read_bytes(), beside), CONFIG
    about = _metadata(file)
    if _IN_FILE in about:
        config = _json(about[_IN_FILE].encode("utf-8"), file)
        return {key.rpartition("transformer.")[2]: value for key, value in config.items()}, "the file's metadata"
    if "ss_network_alpha" in about:
        alpha = about["ss_network_alpha"]
        if alpha not in ("None", ""):
            return {"lora_alpha": alpha}, "ss_network_alpha in the file's metadata"
    return {}, ""


def _json(data: bytes, file: Path) -> dict[str, Any]:
    try:
        config = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError("the configuration of the adapter cannot be read", where={"file": file, "at": error}) from error
    if not isinstance(config, dict):
        raise DataError("the configuration of the adapter is no JSON mapping", where={"file": file})
    return config


def _metadata(file: Path) -> dict[str, str]:
    from safetensors import safe_open

    if file.suffix != ".safetensors":
        return {}
    with safe_open(str(file), framework="pt") as opened:
        return dict(opened.metadata() or {})


def _scale(changes: Mapping[str, Change], config: Mapping[str, Any], where: str, file: Path) -> str:
    """Set the scale of each change: by its own alpha, the configuration's, else alpha = rank; says which, in words."""
    counted: dict[str, int] = {}
    for change in changes.values():
        if "down" not in change.parts:
            continue
        rank = len(change.parts["down"])
        alpha, source = _alpha(change, config, where, file)
        root = bool(config.get("use_rslora")) and "alpha" not in change.parts
        change.scale = 1.0 if alpha is None else alpha / (rank**0.5 if root else rank)
        said = f"rank {rank}, " + (
            f"no alpha is stated: taken as {rank}, the rank (the change as it is)"
            if alpha is None
            else f"alpha {alpha:g} from {source}{', over the root of the rank' if root else ''}"
        )
        counted[said] = counted.get(said, 0) + 1
    more = sum(any(kind in change.parts for kind in ("diff", "diff_b")) for change in changes.values())
    told = [f"{count} layers with {said}" for said, count in counted.items()]
    return "; ".join([*told, *([f"{more} layers changed directly (diff)"] if more else [])])


def _alpha(change: Change, config: Mapping[str, Any], where: str, file: Path) -> tuple[float | None, str]:
    if "alpha" in change.parts:
        return _number(change.parts["alpha"].item(), change.keys["alpha"], file), "the file's alpha keys"
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise DataError("alpha_pattern of the adapter's configuration is no mapping", where={"file": file})
    for pattern, alpha in patterns.items():
        if _matches(pattern, change.raw, file):
            return _number(alpha, f"alpha_pattern.{pattern}", file), f"alpha_pattern in {where}"
    if config.get("lora_alpha") is not None:
        return _number(config["lora_alpha"], "lora_alpha", file), where
    return None, ""


def _matches(pattern: str, layer: str, file: Path) -> bool:
    """As peft matches: the end of a name, which may be a regular expression."""
    try:
        return re.fullmatch(rf"(?:.*\.)?(?:{pattern})", layer) is not None
    except re.error as error:
        raise DataError("a key of alpha_pattern cannot be read", where={"file": file, "key": pattern}) from error


def _number(value: object, key: str, file: Path) -> float:
    try:
        alpha = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        alpha = float("nan")
    if not abs(alpha) < float("inf"):
        raise DataError("an alpha of the adapter is no number", where={"lora": file, "key": key, "value": value})
    return alpha
