"""torch.compile for the blocks of a model: the same numbers up to rounding, what works element by element fused.

All blocks share their graphs: what stands before the reading of memory, and what stands after it. The reading itself
(`HydraAttention` decorates it) is chosen by values, may come from disk, and runs as it is written.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

from torch import nn

from hmcli.errors import MissingPartError


def compile_blocks(model: nn.Module, backend: str = "inductor") -> None:
    """Compile every block when it is first called; parameters, their names and the model's own code stay."""
    blocks: Any = model.get_submodule("blocks")
    for block in blocks:
        block.compile(backend=backend)


def plain(block: Any) -> Any:
    """A block as it is called without compiling, with its hooks."""
    return block._call_impl


def check_compiler(key: str, device: str) -> None:
    """Raise MissingPartError unless what torch.compile needs on this device is installed; `key` of a recipe asked."""
    found = _missing_on_cuda() if device.startswith("cuda") else _missing_on_cpu()
    if found is not None:
        missing, fix = found
        raise MissingPartError(
            f"{key}=blocks needs {missing}, and there is none", where={"recipe": key, "device": device},
            fix=f"{fix}, or set {key}=none",
        )  # fmt: skip


def _missing_on_cpu() -> tuple[str, str] | None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "a C++ compiler", "install one (apt install g++; CXX may name it)"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "Python's headers (Python.h)", "install them (apt install python3-dev)"
    return None


def _missing_on_cuda() -> tuple[str, str] | None:
    from torch.utils._triton import has_triton

    return None if has_triton() else ("Triton", "install it (hmcli[cuda] asks for it: pip install triton)")
