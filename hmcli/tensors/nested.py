"""Which part of a checkpoint is the model: trainers wrap a state dict in others, beside counters and averages.

A part is named by the keys that lead to it (`state_dict/module`). Where there are several, the one first in
`PARTS` is taken, and what else was there is said; averages (EMA) come last, so they are taken when named or alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hmcli.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

# Keys under which trainers keep a model's weights, in the order in which they are taken.
PARTS = (
    "state_dict", "model_state_dict", "model_state", "module", "model", "transformer", "dit", "generator", "student",
    "net", "network", "params", "weights", "ema_state_dict", "model_ema_state_dict", "generator_ema", "model_ema",
    "ema_model", "params_ema", "module_ema", "shadow_params", "ema",
)  # fmt: skip
_DEEPEST = 4  # dicts inside dicts
# What wrappers of torch put in the middle of names.
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


@dataclass(frozen=True, kw_only=True)
class Found:
    """Tensors by name, where in the file they lay, and which other parts lay there too."""

    state: dict[str, Tensor]
    part: str = ""  # empty: the file itself
    others: tuple[str, ...] = ()


def find_state(content: object, file: object, part: str = "") -> Found:
    """The state dict in what a file held. `part` names one where there are several.

    Raises DataError where there is none, UsageError where `part` is not among them.
    """
    parts = dict(_parts(content, ()))
    if not parts:
        raise DataError(
            "the file holds no state dict (names with tensors)", where={"file": file, "it holds": _told(content)},
            fix=f"tensors by name are read from the file itself, or from under {', '.join(PARTS[:5])}, ... in it",
        )  # fmt: skip
    taken = part or min(parts, key=_rank)
    if taken not in parts:
        raise UsageError(
            f"the file has no part {part!r}", where={"file": file, "parts": ", ".join(parts)}, fix="name one of them"
        )
    state = {_unwrapped(name): tensor for name, tensor in parts[taken].items()}
    return Found(state=state, part=taken, others=tuple(name for name in parts if name != taken))


def _parts(content: object, path: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every state dict in it, by the keys that lead there."""
    import torch

    if not isinstance(content, Mapping):
        return
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    inner = [(name, value) for name, value in content.items() if name in PARTS] if len(path) < _DEEPEST else []
    found = [pair for name, value in inner for pair in _parts(value, (*path, name))]
    if not found and tensors and all(isinstance(name, str) for name in tensors):
        _refuse_groups(content, path)
        found = [("/".join(path), tensors)]
    yield from found


def _refuse_groups(content: Mapping[Any, Any], path: tuple[str, ...]) -> None:
    """Numbers and words beside tensors are counters; anything that may hold tensors is not passed over in silence."""
    odd = [str(name) for name, value in content.items() if isinstance(value, (Mapping, list, tuple)) and _holds(value)]
    if odd:
        raise DataError(
            "beside tensors there are groups of tensors under names that are not known",
            where={"part": "/".join(path) or "the file itself", "names": ", ".join(odd[:6])},
            fix="save the model's state dict alone",
        )


def _holds(value: object) -> bool:
    import torch

    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return any(isinstance(item, torch.Tensor) for item in inner)


def _rank(part: str) -> list[int]:
    return [PARTS.index(key) for key in part.split("/") if key]


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _told(content: object) -> str:
    if isinstance(content, Mapping):
        return ", ".join(f"{str(name)[:60]} ({type(value).__name__})" for name, value in list(content.items())[:8])
    return type(content).__name__
