"""A tiny model with random weights, and clips with cameras that turn away and come back, for tests of policies."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hmcli.core.retrieval import RetrievalInputs
from hmcli.core.transformer import HydraTransformer3DModel

F64 = torch.float64
SMALL = {
    "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 10, "ffn_dim": 24, "freq_dim": 16, "text_dim": 6,
    "in_channels": 3, "out_channels": 3, "top_k": 2, "window": 3,
}  # fmt: skip
CONTEXT, TARGET = 7, 4  # an odd number of context frames: its last one fills no slot


def small_model(seed: int = 0, **changes: object) -> HydraTransformer3DModel:
    """A float64 model whose every parameter is random, so that every path matters."""
    model = HydraTransformer3DModel(**(SMALL | changes)).double()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=F64))
    return model


def camera_rows(yaw_degrees: Tensor, position: Tensor) -> Tensor:
    """Level cameras turned to the right by yaw (...,) at positions (..., 3) metres: rows (..., 12)."""
    angle = torch.deg2rad(yaw_degrees)
    pose = torch.zeros(*yaw_degrees.shape, 3, 4, dtype=F64)
    pose[..., 0, 0] = pose[..., 2, 2] = angle.cos()
    pose[..., 0, 2], pose[..., 2, 0] = angle.sin(), -angle.sin()
    pose[..., 1, 1] = 1
    pose[..., 3] = position
    return pose.flatten(-2)


def small_clip(context: int = CONTEXT, target: int = TARGET, batch: int = 2, seed: int = 1) -> dict[str, Tensor]:
    """Arguments of a forward: random latents, text, timesteps and cameras, different for every sample."""
    generator, frames = torch.Generator().manual_seed(seed), context + target

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=F64)

    return {
        "hidden_states": normal(batch, 3, frames, 4, 6),
        "timestep": 1000 * torch.rand(batch, frames, generator=generator, dtype=F64),
        "encoder_hidden_states": normal(batch, 5, 6),
        "camera": camera_rows(25 * normal(batch, frames), normal(batch, frames, 3)),
    }


def small_inputs(batch: int = 2, context: int = CONTEXT, seed: int = 2) -> RetrievalInputs:
    """All that any policy may need, different for every sample."""
    focal = torch.linspace(50, 90, batch, dtype=F64)
    centre = torch.tensor([40.0, 24.0], dtype=F64).expand(batch, 2)
    visible = torch.arange(context // 2) % 3 == torch.arange(batch)[:, None] % 3
    return RetrievalInputs(
        intrinsics_B4=torch.cat([focal[:, None], focal[:, None], centre], dim=1), image_size=(48, 80), near=0.5,
        far=20.0, visibility_BM=visible, generator=[torch.Generator().manual_seed(seed + b) for b in range(batch)],
    )  # fmt: skip


def of_sample(inputs: RetrievalInputs, b: int) -> RetrievalInputs:
    """The inputs of one sample of a batch."""
    return replace(
        inputs, intrinsics_B4=inputs.intrinsics_B4[b : b + 1], visibility_BM=inputs.visibility_BM[b : b + 1],
        generator=[inputs.generator[b]],  # type: ignore[index]
    )  # fmt: skip
