"""Golden sets b and c: the self-attention layer and the whole block."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from reference.golden import (
    FRAMES,
    GRID,
    HEAD_DIM,
    KERNEL,
    Golden,
    assert_close,
    golden_attention,
    golden_stretch,
    load_all,
)  # fmt: skip
from torch import Tensor

from hmcli.core.attention import HydraAttention
from hmcli.core.inspection import recorded
from hmcli.core.policies.everything import everything
from hmcli.core.rope import full_table, slot_table, slot_times
from hmcli.core.stretch import Stretch
from hmcli.core.transformer import HydraBlock

F32, F64 = torch.float32, torch.float64


@pytest.fixture(scope="module")
def layer_golden(shared: Path) -> Golden:
    return Golden(shared, "b_self_attention")


@pytest.fixture(scope="module")
def block_golden(shared: Path) -> Golden:
    return Golden(shared, "c_dit_block")


def layer(golden: Golden, policy=None) -> HydraAttention:
    attention = golden_attention() if policy is None else golden_attention(policy)
    load_all(attention, golden.weights("w.", "blocks.0.self_attn.", "blocks.0.attn1."))
    return attention


def block(golden: Golden, policy=None) -> HydraBlock:
    module = HydraBlock(40, 96, 1e-6, golden_attention() if policy is None else golden_attention(policy))
    load_all(module, golden.weights("w.", "blocks.0.", "blocks.0."))
    return module


def no_camera(batch: int, dtype: torch.dtype = F32) -> Tensor:
    return torch.zeros(batch, FRAMES, 12, dtype=dtype)


def frames(x: Tensor) -> Tensor:
    return x.unflatten(1, (FRAMES, -1))


def test_rotary_tables_agree(layer_golden: Golden):
    full = full_table(torch.arange(FRAMES).double(), GRID, HEAD_DIM, F64)
    assert (full - layer_golden["rope_cos_sin"]).abs().max() <= 1e-12
    slots = slot_table(slot_times(FRAMES // 2, 2), (2, 3), KERNEL, HEAD_DIM, F64)
    assert (slots - layer_golden["rope_mem_cos_sin"]).abs().max() <= 2e-6


def test_every_step_of_the_layer_agrees(layer_golden: Golden):
    g, attention = layer_golden, layer(layer_golden)
    x, stretch = frames(g["x"]), golden_stretch(no_camera(2), F32)
    with torch.no_grad(), recorded() as readings:
        attention(x, stretch)
        slots = attention.make_slots(x, stretch)
        query, keys, values = (
            attention.norm_q(attention.to_q(x)), attention.norm_k(attention.to_k(x)), attention.to_v(x),
        )  # fmt: skip
        attended = attention._attend(query, keys, values, slots, stretch)
    reading = readings[0]
    assert_close(attention.tokenizer(x.unflatten(2, GRID)).flatten(1, 3), g["memory_tokens"], 1e-5)
    assert torch.equal(reading.frames_FW.expand(2, -1, -1), g["local_indices"].long())
    assert torch.equal(reading.slots_BFK, g["topk_indices"].long())
    assert_close(reading.scores_BFM, g["similarity"], 5e-6)
    assert_close(reading.scores_BFM.gather(-1, reading.slots_BFK), g["topk_values"], 5e-6)
    assert_close(placed(attention, query, stretch.key_table), g["q_roped"], 5e-6)
    assert_close(placed(attention, keys, stretch.key_table), g["k_roped"], 5e-6)
    assert_close(placed(attention, slots.keys_BMQC, stretch.slot_table), g["k_comp_roped"], 5e-6)
    assert_close(slots.values_BMQC.flatten(1, 2), g["v_comp"], 5e-6)
    assert_close(attended.flatten(-2).flatten(1, 2), g["attn_out"], 1e-5)


def placed(attention: HydraAttention, tokens: Tensor, table: Tensor) -> Tensor:
    return attention._placed(tokens, table).flatten(-2).flatten(1, 2)


def test_output_and_gradients_of_the_layer_agree(layer_golden: Golden):
    g, attention = layer_golden, layer(layer_golden)
    x = g["x"].clone().requires_grad_()
    out = attention(frames(x), golden_stretch(no_camera(2), F32))[0].flatten(1, 2)
    assert_close(out, g["out"], 1e-5)
    (out * g["grad_out"]).sum().backward()
    assert_close(x.grad, g["grad_x"], 1e-5)
    wanted = g.weights("grad.", "blocks.0.self_attn.", "blocks.0.attn1.")
    assert set(wanted) <= {name for name, _ in attention.named_parameters()}
    assert len(wanted) >= 10
    for name, parameter in attention.named_parameters():
        if name in wanted:
            assert_close(parameter.grad, wanted[name], 1e-5)


@pytest.mark.parametrize(("released_table", "tolerance"), [(False, 1e-7), (True, 1e-12)])
def test_the_layer_agrees_in_float64(layer_golden: Golden, released_table: bool, tolerance: float):
    """The released code makes the slots' rotary table in float32 always; with that table the last digits agree."""
    g, attention = layer_golden, layer(layer_golden).double()
    rotary = g["rope_mem_cos_sin"].double() if released_table else None
    stretch = golden_stretch(no_camera(2, F64), F64, rotary)
    with torch.no_grad(), recorded() as readings:
        out = attention(frames(g["x"].double()), stretch)[0]
    assert_close(out.flatten(1, 2), g["out_f64"], tolerance)
    assert_close(readings[0].scores_BFM, g["similarity_f64"], 1e-12)


@pytest.mark.parametrize(("dtype", "name", "tolerance"), [(F32, "dense_out", 1e-5), (F64, "dense_out_f64", 1e-12)])
def test_the_dense_layer_agrees(layer_golden: Golden, dtype: torch.dtype, name: str, tolerance: float):
    attention = layer(layer_golden, everything).to(dtype)
    out = attention(frames(layer_golden["x"].to(dtype)), golden_stretch(no_camera(2, dtype), dtype))[0]
    assert_close(out.flatten(1, 2), layer_golden[name], tolerance)


def run_block(golden: Golden, dtype: torch.dtype, policy=None, rotary: Tensor | None = None) -> Tensor:
    camera = torch.cat([golden["cam_con"], golden["cam_tgt"]], dim=1).to(dtype)
    stretch: Stretch = golden_stretch(camera, dtype, rotary)
    modulation = golden["t_mod"].to(dtype).unsqueeze(1)
    module = block(golden, policy).to(dtype)
    with torch.no_grad():
        return module(frames(golden["x"].to(dtype)), golden["context"].to(dtype), modulation, stretch).flatten(1, 2)


def test_the_block_agrees(block_golden: Golden):
    with recorded() as readings:
        assert_close(run_block(block_golden, F32), block_golden["out_hydra"], 1e-5)
    assert_close(readings[0].scores_BFM, block_golden["similarity"], 5e-6)
    assert torch.equal(readings[0].slots_BFK, block_golden["topk_indices"].long())
    assert_close(run_block(block_golden, F32, everything), block_golden["out_dense"], 1e-5)


def test_the_block_agrees_in_float64(block_golden: Golden, layer_golden: Golden):
    assert_close(run_block(block_golden, F64), block_golden["out_hydra_f64"], 1e-7)
    assert_close(run_block(block_golden, F64, everything), block_golden["out_dense_f64"], 1e-12)
    released = layer_golden["rope_mem_cos_sin"].double()
    assert_close(run_block(block_golden, F64, rotary=released), block_golden["out_hydra_f64"], 1e-12)
