"""Frozen memory of clips: computed from latents, and read back from memory artifacts, with one and the same result.

The layout of a memory artifact (docs/artifacts.md) is written by `hmcli.stages.tokenize_memory`; this is its reader.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmcli.errors import DataError, UsageError
from hmcli.stages.latents import LatentClip
from hmcli.stages.models import ModelFolder
from hmcli.store.manifest import Manifest, read_manifest
from hmcli.world.cameras import relative_camera_rows

if TYPE_CHECKING:
    import torch

    from hmcli.core.memory import ContextMemory
    from hmcli.core.transformer import HydraTransformer3DModel

# Arrays over blocks, and the tensors of hmcli.core.memory they stack: name -> axes after the block axis
PER_BLOCK: dict[str, list[str]] = {
    "slot_keys": ["slot", "token", "channel"],
    "slot_values": ["slot", "token", "channel"],
    "descriptors": ["slot", "channel"],
    "tail_keys": ["frame", "token", "channel"],
    "tail_values": ["frame", "token", "channel"],
}
ANCHOR = "anchor"


def anchor_of(clip: LatentClip) -> np.ndarray:
    """The pose that frozen camera rows are relative to: the last context frame's, (4, 4) world_from_camera."""
    return clip.world_poses()[clip.context - 1]


def rows_from(poses: np.ndarray, anchor: np.ndarray, device: str) -> torch.Tensor:
    """Camera rows (1, F, 12) of poses (F, 4, 4) relative to an anchor pose."""
    import torch

    return torch.from_numpy(relative_camera_rows(poses, anchor).astype(np.float32))[None].to(device)


def compute_memory(model: HydraTransformer3DModel, clip: LatentClip, device: str) -> ContextMemory:
    """Run a frozen model once over a clip's context."""
    import torch

    cameras = rows_from(clip.world_poses()[: clip.context], anchor_of(clip), device)
    latents = torch.from_numpy(clip.context_latents)[None].to(device, model.dtype)
    with torch.no_grad():
        return model.encode_context(latents, cameras)


def memory_arrays(memory: ContextMemory) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """One clip's memory as arrays stacked over blocks (bfloat16 as its bits) and what else it takes to read them."""
    import torch

    tensors, about = memory.to_tensors()
    stacked = {
        name: torch.stack([tensors[f"blocks.{block}.{name}"][0] for block in range(about["blocks"])]).cpu()
        for name in PER_BLOCK
    }
    about |= {"bfloat16": [name for name, values in stacked.items() if values.dtype == torch.bfloat16]}
    bits = {n: v.view(torch.uint16) if v.dtype == torch.bfloat16 else v for n, v in stacked.items()}
    arrays = {name: value.numpy() for name, value in bits.items()}
    arrays |= {"slot_span": tensors["span"].numpy(), "slot_time": tensors["time"].numpy()}
    cameras = {"slot_camera": tensors["camera"], "frame_camera": tensors["frame_camera"]}
    return arrays | {name: rows[0].cpu().numpy() for name, rows in cameras.items()}, about


class MemoryView:
    """An opened memory artifact that holds keys and values of a frozen model."""

    def __init__(self, path: Path, model: ModelFolder) -> None:
        self.path = path
        self.manifest: Manifest = read_manifest(path, kinds=("memory",))
        made_with = self.manifest.inputs.get("model")
        if made_with is None:
            raise UsageError(
                "this memory artifact holds no keys and values: it was made without a model", where={"memory": path},
                fix=f"hm tokenize-memory LATENTS --model {model.path}",
            )  # fmt: skip
        if made_with != model.fingerprint:
            raise DataError(
                "the memory was made by another checkpoint than the model", where={"memory": path, "model": model.path},
                fix=f"make it again: hm tokenize-memory LATENTS --model {model.path}",
            )  # fmt: skip

    def load(self, clip: str, latents: str, device: str) -> tuple[ContextMemory, np.ndarray]:
        """A clip's memory and the anchor pose (4, 4) its camera rows are relative to.

        `latents` is the hash of the clip's latents. Raises DataError when the memory was made from others.
        """
        import torch

        from hmcli.core.memory import ContextMemory
        from hmcli.store.arrays import read_item_array

        if clip not in self.manifest.items:
            raise DataError(
                "the memory artifact lacks this clip", where={"memory": self.path, "clip": clip},
                fix="make the memory again without --clips, or name this clip too",
            )  # fmt: skip
        record = self.manifest.items[clip]
        if record["meta"]["latents"] != latents:
            raise DataError(
                "the memory of this clip was made from other latents", where={"memory": self.path, "clip": clip},
                fix="make it again from these latents: hm tokenize-memory LATENTS --model MODEL",
            )  # fmt: skip
        about, folder = record["meta"]["memory"], self.path / record["path"]
        tensors = {}
        for name in PER_BLOCK:
            bits = name in about["bfloat16"]
            values = torch.from_numpy(read_item_array(folder, name, bits=bits))
            for block in range(about["blocks"]):
                part = values[block].view(torch.bfloat16) if bits else values[block]
                tensors[f"blocks.{block}.{name}"] = part[None].to(device)
        tensors["span"] = torch.from_numpy(read_item_array(folder, "slot_span"))
        tensors["time"] = torch.from_numpy(read_item_array(folder, "slot_time"))
        for name, array in (("camera", "slot_camera"), ("frame_camera", "frame_camera")):
            tensors[name] = torch.from_numpy(read_item_array(folder, array))[None].to(device)
        return ContextMemory.from_tensors(tensors, about), read_item_array(folder, ANCHOR)
