"""Tensors with a shape, a type and a place, and no memory: operations on them say what comes out, and compute nothing.

torch's own fake tensors do the same and more (other devices, symbols in shapes), and take ten times as long. Here an
operation runs on torch's meta tensors, whose storage stands for the memory there would be; what came out of one that
makes tensors of its own is known from then on by the shapes that went in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

META, CPU = torch.device("meta"), torch.device("cpu")
_KNOWN: dict[Any, Any] = {}  # by operation and what went in: shape, strides and type of what comes out


class Weightless(Tensor):
    """A tensor on the CPU, so that autocast and attention take it for one, over a meta tensor."""

    meta: Tensor

    @staticmethod
    def __new__(cls, meta: Tensor) -> Weightless:
        made = Tensor._make_wrapper_subclass(
            cls, meta.shape, meta.stride(), meta.storage_offset(), dtype=meta.dtype, device=CPU
        )
        made.meta = meta
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Weightless({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _run(func, args, kwargs or {})


class Making(TorchDispatchMode):
    """Tensors made here have no memory."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled in it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        makes = any(argument.name == "device" for argument in func._schema.arguments)
        return _run(func, args, {**(kwargs or {}), "device": META} if makes else kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation; what it returns of its own arguments stays what it was.

    A number that is asked for is 0: there are none to look at, and every check passes.
    """
    if func is torch.ops.aten._local_scalar_dense.default:
        return args[0].dtype == torch.bool or 0.0
    kind = _kind(func)
    if kind == "writes":
        return args[0]
    if kind != "makes":
        return _on_meta(func, args, kwargs)
    if (key := _key((func, args, kwargs))) not in _KNOWN:
        made = _on_meta(func, args, kwargs)
        if _memory_of(made) & _memory_of((args, tuple(kwargs.values()))):  # a view, whatever its schema says
            return made
        _KNOWN[key] = _described(_as_laid_out(func, args, made))
    known = _KNOWN[key]
    return [_made(each) for each in known] if isinstance(known, list) else _made(known)


@cache
def _kind(func: Any) -> str:
    """Does an operation only write into its first argument, only make new tensors, or may it do anything else?"""
    schema = func._schema
    if not schema.returns or not all("Tensor" in str(each.type) for each in schema.returns):
        return "other"
    into = [argument.alias_info is not None and argument.alias_info.is_write for argument in schema.arguments]
    back = [each.alias_info is not None for each in schema.returns]
    if back == [True] and into[:1] == [True] and not any(into[1:]):
        return "writes"
    return "other" if any(into) or any(back) else "makes"


def _key(value: Any) -> Any:
    """What of an argument decides what comes out."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, tuple | list):
        return tuple([_key(each) for each in value])
    if isinstance(value, dict):
        return tuple([(name, _key(each)) for name, each in value.items()])
    return type(value), value


def _memory_of(value: Any) -> set[int]:
    return {storage_of(tensor)._cdata for tensor in tensors_in(value)}


def storage_of(tensor: Tensor) -> torch.UntypedStorage:
    """The memory of a tensor, or what stands for it."""
    return (tensor.meta if isinstance(tensor, Weightless) else tensor).untyped_storage()


def _described(made: Any) -> Any:
    if isinstance(made, tuple | list):
        return [_described(each) for each in made]
    return (made.shape, made.stride(), made.dtype) if isinstance(made, Tensor) else made


def _made(known: Any) -> Any:
    if not isinstance(known, tuple):
        return known
    shape, stride, dtype = known
    return Weightless(torch.empty_strided(shape, stride, dtype=dtype, device=META))


def _as_laid_out(func: Any, args: Any, made: Any) -> Any:
    """Convolutions put channels last where their input does, which meta tensors do not tell."""
    if func is torch.ops.aten.convolution.default:
        image, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args
        return made.to(memory_format=_order_of(image, weight, bias, stride, padding, dilation, transposed,
                                               output_padding, groups))  # fmt: skip
    if func is torch.ops.aten.convolution_backward.default:
        _, image, weight, sizes, stride, padding, dilation, transposed, output_padding, groups, _ = args
        order = _order_of(image, weight, None, stride, padding, dilation, transposed, output_padding, groups, sizes)
        return [each if each is None or each.ndim < 4 else each.to(memory_format=order) for each in made]
    return made


def _order_of(image: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
              output_padding: Any, groups: int, bias_sizes: Any = None) -> torch.memory_format:  # fmt: skip
    backend = torch._C._select_conv_backend(
        image, weight, bias, stride, padding, dilation, transposed, output_padding, groups, bias_sizes
    )
    return torch._C._conv_determine_backend_memory_format(image, weight, backend)


def _on_meta(func: Any, args: Any, kwargs: Any) -> Any:
    """Run it on the meta tensors beneath. Tensors with memory among the arguments are read as if they had none."""
    given: dict[int, Tensor] = {}

    def beneath(value: Tensor) -> Tensor:
        meta = value.meta if isinstance(value, Weightless) else value.detach().to(META) if value.ndim else value
        given[id(meta)] = value
        return meta

    def above(value: Tensor) -> Tensor:
        return given[id(value)] if id(value) in given else Weightless(value)

    kwargs = {name: _each(beneath, value) for name, value in kwargs.items()}
    if kwargs.get("device") is not None:
        kwargs["device"] = META
    return _each(above, func(*[_each(beneath, value) for value in args], **kwargs))


def _each(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """An argument, or what came out, with its tensors changed."""
    if isinstance(value, Tensor):
        return change(value)
    return type(value)([_each(change, each) for each in value]) if type(value) in (tuple, list) else value


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors among arguments, or among what came out."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from tensors_in(each)
