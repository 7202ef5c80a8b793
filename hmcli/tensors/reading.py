"""One file of tensors: safetensors, or a pickle through torch's safe unpickler; no code in a file is ever run."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

from hmcli.errors import DataError
from hmcli.tensors.impostors import check_no_impostor
from hmcli.tensors.nested import Found, find_state

PICKLED = {".pth", ".pt", ".ckpt", ".bin"}


def read_tensors(file: Path, part: str = "") -> Found:
    """Tensors by name, still on disk where the format allows it, scales not yet applied (hmcli.tensors.scaled).

    Of a pickle that holds several state dicts `part` names one (hmcli.tensors.nested). Raises DataError for damaged
    files, for what is no weights at all, and for pickles that hold more than tensors.
    """
    check_no_impostor(file)
    if file.suffix in PICKLED:
        return find_state(unpickled(file), file, part)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return find_state(load_file(file), file, part)
    except (SafetensorError, OSError) as error:
        raise DataError(
            "the file is not whole or no safetensors file", where={"file": file, "because": error}, fix="fetch it again"
        ) from error


def unpickled(file: Path) -> Any:
    """Its content, through the safe unpickler; tensors are mapped where the file is of torch's newer kind."""
    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # the unpickler meets damage with errors of any kind
        raise DataError(
            "the file is not whole, or holds more than tensors and is refused",
            where={"file": file, "because": _reason(error)},
            fix="fetch it again, or convert it to safetensors where you trust it",
        ) from error


def _reason(error: Exception) -> str:
    """Why a pickle was refused, without torch's advice to load it unsafely."""
    if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"it holds {named[1]}, which is no tensor"
    return "it is no pickle of tensors" if isinstance(error, pickle.UnpicklingError) else repr(error)
