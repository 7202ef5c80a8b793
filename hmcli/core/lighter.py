"""Weights that take less room while a model samples: rounded to 8 bits, or lying elsewhere until a block needs them.

Rounding is torchao's (int8, one scale for each output of a layer, of the linear layers of blocks), fetching is
diffusers' group offloading, one block at a time. Rounded weights change the numbers; fetched ones do not.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import weakref
from typing import Any

from torch import nn

from hmcli.errors import MissingPartError

FILES = "hm-weights-"  # how folders of weights that are fetched from disk begin


def round_weights(model: nn.Module) -> None:
    """The weights of all linear layers in blocks as int8 with a scale for each output; all else stays as it is."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(model.get_submodule("blocks"), Int8WeightOnlyConfig())


def check_torchao(key: str) -> None:
    """Raise MissingPartError unless torchao is installed; `key` of a recipe asked for it."""
    if importlib.util.find_spec("torchao") is None:
        raise MissingPartError(
            f"{key}=int8 needs torchao, which is not installed", where={"recipe": key},
            fix=f"pip install 'hmcli[8bit]', or set {key}=none",
        )  # fmt: skip


def offload_blocks(model: Any, device: str, *, to_disk: bool) -> None:
    """Keep weights in memory of the CPU, or as files; a block's come to `device` when it runs, and go.

    The files lie in a folder below TMPDIR, which goes when the model does.
    """
    where = {}
    if to_disk:
        where["offload_to_disk_path"] = folder = tempfile.mkdtemp(prefix=FILES)
        weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
    model.enable_group_offload(
        onload_device=device, offload_device="cpu", offload_type="block_level", num_blocks_per_group=1, **where
    )
