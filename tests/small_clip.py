"""A CLIP of random weights, small enough to be written and loaded in a test."""

from __future__ import annotations

from pathlib import Path

import torch

SIDE, PATCH, WIDTH = 24, 4, 12


def write_random_clip(folder: Path, seed: int = 1) -> Path:
    """The vision part, as transformers saves it."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        image_size=SIDE, patch_size=PATCH, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=20, projection_dim=10,
    )  # fmt: skip
    CLIPVisionModel(config).save_pretrained(folder)
    return folder
