"""Golden set a: retrieval attention on its own, and the window and mask tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from reference.golden import FRAMES, HEADS, TOP_K, WINDOW, Golden, assert_close
from torch import Tensor

from hmcli.core.attention import dense_attention, plain_attention
from hmcli.core.fast import gathered_attention
from hmcli.core.memory import released_slot_spans
from hmcli.core.merged import merged_attention
from hmcli.core.reading import inside_window, local_window, window_frames
from hmcli.core.retrieval import topk_slots

RELEASED_MASK = -1e9  # ours is below every score in every type; the released number stands in the vectors
SPANS = released_slot_spans(FRAMES, FRAMES // 2)
NEAR = inside_window(SPANS, *local_window(0, FRAMES, FRAMES, WINDOW))
WINDOWS = window_frames(*local_window(0, FRAMES, FRAMES, WINDOW))


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return Golden(shared, "a_retrieval_attention")


def heads(tokens: Tensor, frames: int) -> Tensor:
    """(B, F * P, C) -> (B, F, P, H, D)."""
    return tokens.unflatten(1, (frames, -1)).unflatten(-1, (HEADS, -1))


def inputs(golden: Golden, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    full = [heads(golden[f"main.{name}"].to(dtype), FRAMES) for name in ("q", "k", "v")]
    slots = [heads(golden[f"main.{name}"].to(dtype), FRAMES // 2) for name in ("k_comp", "v_comp")]
    return [part.requires_grad_() for part in full + slots]


def flat(x: Tensor) -> Tensor:
    return x.flatten(-2).flatten(1, 2)


def test_windows_and_masks_are_the_released_ones(golden: Golden):
    assert torch.equal(WINDOWS.expand(2, -1, -1), golden["main.local_indices"].long())
    assert torch.equal(NEAR, golden["main.masked"])


@pytest.mark.parametrize(("name", "keep"), [("main", TOP_K), ("exact", 4)])
def test_the_same_slots_are_chosen_in_the_same_order(golden: Golden, name: str, keep: int):
    assert torch.equal(topk_slots(golden["main.similarity"], NEAR, keep), golden[f"{name}.topk_indices"].long())


def test_scores_of_chosen_slots_are_copies(golden: Golden):
    scores = golden["main.similarity"]
    chosen = topk_slots(scores, NEAR, TOP_K)
    assert torch.equal(scores.gather(-1, chosen), golden["main.topk_values"])


def test_asking_for_all_slots_takes_the_masked_ones_last(golden: Golden):
    scores = golden["main.similarity"]
    chosen = topk_slots(scores, NEAR, FRAMES // 2)
    assert torch.equal(chosen.sort().values, golden["all.topk_indices"].long().sort().values)
    masked = scores.masked_fill(NEAR, RELEASED_MASK)
    assert torch.equal(masked.gather(-1, chosen), golden["all.topk_values"])


@pytest.mark.parametrize("form", [plain_attention, gathered_attention, merged_attention])
@pytest.mark.parametrize(("name", "keep"), [("main", TOP_K), ("all", 6), ("exact", 4)])
def test_outputs_agree(golden: Golden, form, name: str, keep: int):
    chosen = topk_slots(golden["main.similarity"], NEAR, keep)
    assert_close(flat(form(*inputs(golden), WINDOWS, chosen)), golden[f"{name}.out"], 5e-6)


@pytest.mark.parametrize("form", [plain_attention, gathered_attention, merged_attention])
def test_outputs_agree_in_float64(golden: Golden, form):
    chosen = topk_slots(golden["main.similarity"], NEAR, TOP_K)
    assert_close(flat(form(*inputs(golden, torch.float64), WINDOWS, chosen)), golden["main.out_f64"], 1e-12)


@pytest.mark.parametrize("gather_bytes", [1, 2**30])
def test_gradients_agree(golden: Golden, gather_bytes: int):
    parts = inputs(golden)
    chosen = topk_slots(golden["main.similarity"], NEAR, TOP_K)
    out = gathered_attention(*parts, WINDOWS, chosen, gather_bytes=gather_bytes)
    grads = torch.autograd.grad((flat(out) * golden["main.grad_out"]).sum(), parts)
    for name, grad in zip(("q", "k", "v", "k_comp", "v_comp"), grads, strict=True):
        assert_close(flat(grad), golden[f"main.grad_{name}"], 1e-5)


def test_retrieval_of_full_frames_agrees(golden: Golden):
    spans = torch.arange(FRAMES)[:, None].expand(-1, 2)
    near = inside_window(spans, *local_window(0, FRAMES, FRAMES, WINDOW))
    chosen = topk_slots(golden["frame.similarity"], near, TOP_K + 1)
    selected = torch.cat([WINDOWS.expand(2, -1, -1), chosen], dim=-1)
    assert torch.equal(selected, golden["frame.selected_indices"].long())
    query, keys, values = inputs(golden)[:3]
    assert_close(
        flat(gathered_attention(query, keys, values, keys, values, WINDOWS, chosen)), golden["frame.out"], 5e-6
    )


def test_dense_attention_agrees(golden: Golden):
    assert_close(flat(dense_attention(*inputs(golden)[:3])), golden["dense.out"], 5e-6)


def test_tables_of_other_sizes_agree(shared: Path):
    tables = Golden(shared, "a_retrieval_tables")
    sizes = {key.split(".")[0] for key in tables.names("f")}
    assert len(sizes) >= 12
    for size in sorted(sizes):
        frames, slots, window = (int(number) for number in re.findall(r"\d+", size))
        first, last = local_window(0, frames, frames, window)
        assert torch.equal(first, tables[f"{size}.local_start"].long()), size
        near = inside_window(released_slot_spans(frames, slots), first, last)
        assert torch.equal(near, tables[f"{size}.masked"]), size
    near = inside_window(released_slot_spans(40, 20), *local_window(0, 40, 40, 5))
    chosen = topk_slots(tables["f40_m20_w5.similarity"], near, 10)
    assert torch.equal(chosen, tables["f40_m20_w5.topk_indices"].long())
