"""The weights that a folder is named for: diffusers' and transformers' own names, also where only a variant is there.

A variant is a word in the name: `diffusion_pytorch_model.fp16.safetensors`, `model.safetensors.index.fp16.json`.
"""

from __future__ import annotations

import re
from pathlib import Path

from hmcli.errors import DataError
from hmcli.tensors.impostors import check_no_impostors_in

_OWN = r"(?:diffusion_pytorch_model|model)"
_WORD = r"((?:(?!-\d+-of-)[\w-])+)"  # fp16, but not fp16-00001-of-00002
_INDEX = re.compile(rf"{_OWN}\.safetensors\.index(?:\.{_WORD})?\.json|{_OWN}\.{_WORD}\.safetensors\.index\.json")
_FILE = re.compile(rf"{_OWN}(?:\.{_WORD})?\.safetensors")


def variants_in(folder: Path) -> dict[str, Path]:
    """Variant ("" for none) -> its file of weights or its index of shards, as far as they have a model's own names."""
    found: dict[str, Path] = {}
    for pattern in (_FILE, _INDEX):  # an index is preferred to one of its parts
        for file in sorted(folder.iterdir()):
            if match := pattern.fullmatch(file.name):
                found["".join(word for word in match.groups() if word)] = file
    return found


def only_variant(folder: Path) -> str:
    """The variant to load: none where the plain weights are there (or nothing is), else the only one.

    Raises DataError where there are several and no plain one, and for files that are no weights at all.
    """
    found = variants_in(folder)
    if len(found) > 1 and "" not in found:
        raise DataError(
            "the folder has several variants of the weights, and none without one", where={
                "folder": folder, "variants": ", ".join(found)}, fix="leave one of them in a folder of its own",
        )  # fmt: skip
    check_no_impostors_in(folder)
    return "" if "" in found or not found else next(iter(found))
