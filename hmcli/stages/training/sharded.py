"""Training states of sharded models (train.parallel=fsdp) on disk: every rank writes its shares, any number reads them.

torch's distributed checkpoint (DCP) through its safetensors storage: tensors in safetensors, where a share lies in its
header. DCP's usual storage keeps its index as a pickle; here nothing that is read can run code.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hmcli.errors import DataError
from hmcli.stages.training.state import TrainingState, flat, trained
from hmcli.store.finite import require_finite_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

SHARES = "training_state"  # folder of a checkpoint, in place of training_state.safetensors
_STEP = "optimizer.step."  # AdamW's count of a parameter's updates


def is_sharded(model: nn.Module) -> bool:
    """Does this rank hold shares of the weights alone?"""
    from torch.distributed.tensor import DTensor

    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def write_shares(folder: Path, state: TrainingState) -> None:
    """Write this rank's shares; every rank calls it, and returns when all have written."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.tensor import DTensor

    tensors = {name: _lined(value.detach()) for name, value in flat(state).items()}
    require_finite_weights(
        {n: value.to_local() if isinstance(value, DTensor) else value for n, value in tensors.items()}
    )
    writer = dcp.HuggingFaceStorageWriter(str(folder / SHARES), save_distributed=True)
    dcp.save(tensors, storage_writer=writer)


def read_shares(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    """What of `write_shares` this rank needs: shares where the model is sharded, over however many ranks, or all of it.

    Raises DataError where files are not what `write_shares` wrote, or are of another model.
    """
    import torch.distributed.checkpoint as dcp

    try:
        reader = dcp.HuggingFaceStorageReader(str(folder / SHARES))
        names = list(reader.read_metadata().state_dict_metadata)
        found = {name: _room(name, trained(model)) for name in names}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process reads all shares
            dcp.load(found, storage_reader=reader)
    except Exception as error:  # of safetensors, of DCP (its own is no Exception's child), of the disk
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise _unread(folder, reason[0]) from error
    except dcp.CheckpointException as error:
        raise _unread(folder, "a rank could not read its part") from error
    return {name: value.reshape(()) if name.startswith(_STEP) else value for name, value in found.items()}


def _room(name: str, parameters: Mapping[str, Tensor]) -> Tensor:
    """An empty tensor for one of the file's: a row of one for AdamW's count, for all others like their parameter."""
    import torch

    if name.startswith(_STEP):
        return torch.zeros(1)
    of = name.partition(".")[2]
    return torch.empty_like(parameters[of.partition(".")[2] if name.startswith("optimizer.") else of]).detach()


def _unread(folder: Path, reason: str) -> DataError:
    return DataError(
        f"the shares of the training state cannot be read: {reason}", where={"state": folder / SHARES},
        fix="let the checkpoint before be taken (move this one away), or train on from its weights into another --out",
    )  # fmt: skip


def as_shares(values: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors divided as those of the same names are; every rank calls it."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    return {
        name: distribute_tensor(value.to(at.device), at.device_mesh, at.placements)
        if isinstance(at := like.get(name), DTensor)
        else value
        for name, value in values.items()
    }


def whole(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Shares put together, on the CPU; every rank calls it."""
    from torch.distributed.tensor import DTensor

    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().cpu()
        for name, value in values.items()
    }


def _lined(value: Tensor) -> Tensor:
    """A number as a row of one: a share has an offset along an axis."""
    return value.reshape(1) if not value.ndim else value
