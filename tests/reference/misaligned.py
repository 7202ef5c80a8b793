"""Files whose numbers start at unlucky addresses, and a look at where tensors lie."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from torch import Tensor, nn

from hmcli.aligned import ALIGNMENT

OFFSETS = (8, 24, 56)  # of a file's data, modulo 64: where kernels of an AMD EPYC were seen to round another way


def shift_data(file: Path, offset: int) -> None:
    """Pad a safetensors file's header with spaces, which are legal there, until its data lie `offset` off."""
    raw = file.read_bytes()
    length = 8 + int.from_bytes(raw[:8], "little")
    header = raw[8:length].rstrip(b" ")
    header += b" " * ((offset - 8 - len(header)) % ALIGNMENT)
    file.write_bytes(len(header).to_bytes(8, "little") + header + raw[length:])


def shift_folder(folder: Path, offset: int) -> None:
    """The same for every safetensors file below a folder."""
    files = list(folder.rglob("*.safetensors"))
    assert files
    for file in files:
        shift_data(file, offset)


def astray(*parts: nn.Module | Tensor) -> list[str]:
    """Which tensors are not contiguous from an aligned address on."""
    named = [(str(number), part) for number, part in enumerate(parts) if isinstance(part, Tensor)]
    for part in parts:
        if isinstance(part, nn.Module):
            named += [*part.named_parameters(), *part.named_buffers()]
    return [name for name, tensor in named if tensor.data_ptr() % ALIGNMENT or not tensor.is_contiguous()]


def mapped(files: Iterable[Path]) -> list[str]:
    """Which of the files this process has mapped into its memory."""
    if sys.platform != "linux":
        pytest.skip("mappings are looked up in /proc")
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    return [file.name for file in files if str(file.resolve()) in maps]
