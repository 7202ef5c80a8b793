"""Names of weights: released Wan and HyDRA checkpoints <-> ours (diffusers' plus what HyDRA adds).

Nothing here knows a model or reads a file: names are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from hmcli.errors import DataError, UsageError

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

T = TypeVar("T")  # what stands behind a name: a tensor, a shape

_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_SUFFIXES = (".weight", ".bias")
_ANCHOR = "patch_embedding.weight"  # a name that every one of these models has once


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


def to_ours(state: Mapping[str, T], *, where: object = "") -> dict[str, T]:
    """A released state dict (HyDRA or plain Wan) under our names. DataError lists names it cannot place."""
    return _renamed(state, ours_from_released, "released Wan or HyDRA", where)


def to_released(state: Mapping[str, T], *, where: object = "") -> dict[str, T]:
    """Our state dict under the released names."""
    return _renamed(state, released_from_ours, "hm", where)


def _renamed(state: Mapping[str, T], translate: Callable[[str], str], kind: str, where: object) -> dict[str, T]:
    renamed: dict[str, T] = {}
    unknown = []
    for name, tensor in state.items():
        try:
            renamed[translate(name)] = tensor
        except KeyError:
            unknown.append(name)
    if unknown:
        raise DataError(
            f"{len(unknown)} of {len(state)} weights have names that no {kind} model has",
            where=({"file": where} if str(where) else {}) | {"names": listed(unknown)},
            fix="check that this is a Wan2.1 text-to-video or HyDRA transformer, and nothing else beside it",
        )
    return renamed


@dataclass(frozen=True, kw_only=True)
class Prefixed(Generic[T]):
    """One model's weights out of a state dict, without what stood before each of their names."""

    state: dict[str, T]
    prefix: str = ""
    others: tuple[str, ...] = ()  # prefixes of other models of the kind in it
    left: tuple[str, ...] = ()  # names that are of none of them


def under_prefix(state: Mapping[str, T], prefix: str = "") -> Prefixed[T]:
    """Cut what trainers put in front of every name (`model.`, `module.`, `pipe.dit.`).

    Where several models lie side by side (`model.`, `model_ema.`), the one of `prefix`, else the first that is no
    average; weights of other parts (a VAE, a text encoder) are left and named. UsageError for a prefix that is none.
    """
    found = sorted(
        (name.removesuffix(_ANCHOR) for name in state if name == _ANCHOR or name.endswith("." + _ANCHOR)),
        key=lambda prefix: ("ema" in prefix, len(prefix)),
    )
    if prefix and prefix not in found:
        raise UsageError(
            f"no weights of a transformer lie under {prefix!r}", where={"prefixes": ", ".join(map(repr, found))},
            fix="name one of them",
        )  # fmt: skip
    if not found or (not prefix and found[0] == ""):
        return Prefixed(state=dict(state))
    taken = prefix or found[0]
    others = tuple(other for other in found if other != taken)
    return Prefixed(
        state={name.removeprefix(taken): tensor for name, tensor in state.items() if name.startswith(taken)},
        prefix=taken,
        others=others,
        left=tuple(name for name in state if not name.startswith((taken, *(other for other in others if other)))),
    )


def is_released(names: Iterable[str]) -> bool:
    """Whether names are released ones (otherwise diffusers' or ours)."""
    return any(".self_attn." in name or name.startswith(("time_embedding.", "head.")) for name in names)


def has_memory(names: Iterable[str]) -> bool:
    """Whether names (ours) hold the parts HyDRA adds to plain Wan."""
    return any(part in name for name in names for part in ADDED_TO_WAN)


def listed(names: list[str], most: int = 6) -> str:
    """The first names, one a line, and how many more there are."""
    rest = f"\n... and {len(names) - most} more" if len(names) > most else ""
    return "\n".join(names[:most]) + rest
