"""A tiny transformer of random weights, whose cameras say something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hmcli.core.transformer import HydraTransformer3DModel


def small(**changes: Any) -> HydraTransformer3DModel:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 40, "freq_dim": 16,
        "text_dim": 10, "context": "frozen", "top_k": 2, "window": 3, "kernel": (2, 2, 2),
    }  # fmt: skip
    model = HydraTransformer3DModel(**sizes | changes).eval()
    with torch.no_grad():
        for block in model.blocks:  # cameras say nothing at first
            for layer in (block.camera.context, block.camera.target):  # type: ignore[union-attr]
                layer.weight.normal_(std=0.1)  # type: ignore[union-attr]
    return model


def no_rows(file: Path) -> list[str]:
    """Values of a graph that hold nothing: onnxruntime-web (1.30) opens no graph with one."""
    from onnx import load

    return [
        value.name
        for value in load(str(file)).graph.value_info
        if any(side.HasField("dim_value") and side.dim_value == 0 for side in value.type.tensor_type.shape.dim)
    ]
