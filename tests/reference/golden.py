"""Helpers of the golden tests: reading arrays, comparing, and building modules with given weights.

Golden arrays are numbers of the released implementation on small random inputs: 12 frames of 4 x 6 patch tokens, half
of them context, 2 heads of 20 channels, 2 slots kept, a window of 5.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hmcli.core.attention import HydraAttention
from hmcli.core.memory import released_slot_spans, slot_cameras
from hmcli.core.policies.affinity import affinity
from hmcli.core.retrieval import Policy
from hmcli.core.rope import full_table, slot_table, slot_times
from hmcli.core.stretch import Stretch
from hmcli.core.transformer import HydraTransformer3DModel
from hmcli.store.names import ours_from_released


class Golden:
    """One file of golden arrays as tensors."""

    def __init__(self, shared: Path, name: str) -> None:
        self.arrays = np.load(shared / "golden" / f"{name}.npz", allow_pickle=False)

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    def names(self, prefix: str) -> list[str]:
        return [key for key in self.arrays.files if key.startswith(prefix)]

    def weights(self, prefix: str, ours_prefix: str = "", cut: str = "") -> dict[str, Tensor]:
        """Arrays `prefix + released name` under our names, `cut` removed from their front."""
        return {
            ours_from_released(ours_prefix + key.removeprefix(prefix)).removeprefix(cut): self[key]
            for key in self.names(prefix)
        }


def assert_close(got: Tensor, wanted: Tensor, rel: float) -> None:
    """max|a - b| / max|b| <= rel, compared in the wanted type."""
    assert got.shape == wanted.shape
    error = (got.detach().double() - wanted.double()).abs().max() / wanted.double().abs().max()
    assert error <= rel, f"relative error {error:.2e} > {rel:.0e}"


def golden_model(golden: Golden, dtype: torch.dtype = torch.float32, **changes: object) -> HydraTransformer3DModel:
    """The two-layer model of d_model.npz."""
    settings: dict[str, object] = {
        "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 20, "ffn_dim": 96, "freq_dim": 32,
        "text_dim": 20, "top_k": 2,
        "window": 5, "spans": "released",
    }  # fmt: skip
    model = HydraTransformer3DModel(**(settings | changes))
    load_all(model, golden.weights("sd."))
    return model.to(dtype)


def load_all(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load, every name required."""
    module.load_state_dict(state, strict=True)


FRAMES, GRID, HEADS, HEAD_DIM, TOP_K, WINDOW, KERNEL = 12, (4, 6), 2, 20, 2, 5, (2, 2, 2)


def golden_stretch(camera: Tensor, dtype: torch.dtype, slot_rotary: Tensor | None = None) -> Stretch:
    """All golden frames in one joint run; `slot_rotary` replaces our table of the slots."""
    slots = FRAMES // KERNEL[0]
    table = slot_table(slot_times(slots, KERNEL[0]), (2, 3), KERNEL, HEAD_DIM, dtype)
    return Stretch(
        part="joint",
        camera_BFR=camera,
        camera_BAR=camera,
        slot_camera_BMR=slot_cameras(camera, KERNEL[0]),
        num_context=FRAMES // 2,
        grid=GRID,
        first_frame=0,
        span_M2=released_slot_spans(FRAMES, slots),
        key_table=full_table(torch.arange(FRAMES).double(), GRID, HEAD_DIM, dtype),
        slot_table=table if slot_rotary is None else slot_rotary,
    )


def golden_attention(policy: Policy = affinity) -> HydraAttention:
    return HydraAttention(
        heads=HEADS, head_dim=HEAD_DIM, eps=1e-6, policy=policy, affinity="pooled", top_k=TOP_K, window=WINDOW,
        kernel=KERNEL, tokenizer="conv", block=0,
    )  # fmt: skip
