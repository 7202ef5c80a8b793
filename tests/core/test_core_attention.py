"""Plain attention, rotary positions and memory tokens against loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import equations
from torch import Tensor

from hmcli.core.attention import plain_attention
from hmcli.core.memory import MemoryTokenizer, kernel_in_tokens, slot_cameras
from hmcli.core.reading import local_window, window_frames
from hmcli.core.rope import axis_split, full_table, rotate, slot_table, slot_times, table_rows

F64 = torch.float64


def tiny(batch: int, frames: int, tokens: int, slots: int, slot_tokens: int, keep: int, window: int, seed: int):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, 3, 4, generator=generator, dtype=F64)

    full = [normal(batch, frames, tokens) for _ in range(3)]
    memory = [normal(batch, slots, slot_tokens) for _ in range(2)]
    order = torch.rand(batch, frames, slots, generator=generator).argsort(dim=-1)[..., :keep]
    return full + memory, window_frames(*local_window(0, frames, frames, window)), order


def test_plain_attention_is_one_softmax_over_window_and_slots():
    parts, windows, chosen = tiny(2, 4, 3, 3, 2, 2, 3, 1)
    query, keys, values, slot_keys, slot_values = parts
    out = plain_attention(query, keys, values, slot_keys, slot_values, windows, chosen)
    for b, f, p, h in [(0, 0, 0, 0), (1, 3, 2, 2), (1, 1, 0, 1)]:
        near, far = windows[f].tolist(), chosen[b, f].tolist()
        all_keys = [k for n in near for k in keys[b, n, :, h]] + [k for m in far for k in slot_keys[b, m, :, h]]
        all_values = [v for n in near for v in values[b, n, :, h]] + [v for m in far for v in slot_values[b, m, :, h]]
        wanted = equations.attend(query[b, f, p, h], torch.stack(all_keys), torch.stack(all_values))
        assert torch.allclose(out[b, f, p, h], wanted, atol=1e-12)


@given(head_dim=st.integers(3, 80).map(lambda half: 2 * half))
def test_the_axis_split_is_the_papers_and_the_released_one_where_that_is_legal(head_dim: int):
    split = axis_split(head_dim)
    assert split == equations.axis_split(head_dim)
    assert sum(split) == head_dim
    if head_dim // 3 % 2 == 0:
        assert split == (head_dim - 2 * (head_dim // 3), head_dim // 3, head_dim // 3)


@pytest.mark.parametrize("head_dim", [4, 7, 21])
def test_head_sizes_that_cannot_be_rotated_are_refused(head_dim: int):
    with pytest.raises(ValueError, match="even head dimension"):
        axis_split(head_dim)


@settings(max_examples=20)
@given(head_dim=st.sampled_from([6, 10, 16, 20]), first=st.integers(-9, 5), seed=st.integers(0, 9))
def test_rotation_of_full_tokens_is_that_of_the_loops(head_dim: int, first: int, seed: int):
    x = torch.randn(1, 2 * 3 * 2, 2, head_dim, generator=torch.Generator().manual_seed(seed), dtype=F64)
    times = torch.arange(first, first + 2, dtype=F64)
    got = rotate(x, full_table(times, (3, 2), head_dim, F64))
    for n in range(12):
        place = (first + n // 6, n // 2 % 3, n % 2)
        wanted = torch.tensor(equations.rotate(x[0, n, 1].tolist(), place), dtype=F64)
        assert torch.allclose(got[0, n, 1], wanted, atol=1e-12)


@given(kernel=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)))
def test_a_slot_sits_mid_time_and_at_its_first_row_and_column(kernel: tuple[int, int, int]):
    x = torch.ones(1, 2 * 2 * 3, 1, 6, dtype=F64)
    got = rotate(x, slot_table(slot_times(2, kernel[0]), (2, 3), kernel, 6, F64))
    for n in range(12):
        place = (kernel[0] * (n // 6) + (kernel[0] - 1) / 2, kernel[1] * (n // 3 % 2), kernel[2] * (n % 3))
        assert torch.allclose(got[0, n, 0], torch.tensor(equations.rotate([1.0] * 6, place), dtype=F64), atol=1e-12)


def test_attention_depends_only_on_differences_of_time():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 1, 8, generator=generator, dtype=F64)
    scores = []
    for origin in (0, -11):
        turned = rotate(x, full_table(torch.arange(4).double() + origin, (1, 1), 8, F64))[0, :, 0]
        scores.append(turned @ turned.T)
    assert torch.allclose(scores[0], scores[1], atol=1e-12)


def test_the_gradient_of_a_rotation_turns_back():
    x = torch.randn(2, 6, 3, 10, generator=torch.Generator().manual_seed(0), dtype=F64, requires_grad=True)
    table = full_table(torch.arange(3).double(), (1, 2), 10, F64)
    assert torch.autograd.gradcheck(lambda y: rotate(y, table), x)
    (back,) = torch.autograd.grad(rotate(x, table), x, rotate(x, table))
    assert torch.allclose(back, x, atol=1e-12)


def test_bfloat16_is_rotated_in_float32():
    x = torch.randn(1, 4, 2, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    times = torch.tensor([300.0, 301.0])
    got = rotate(x, full_table(times, (1, 2), 8, torch.bfloat16))
    exact = rotate(x.double(), full_table(times, (1, 2), 8, F64))
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, exact.bfloat16())


def test_a_table_is_made_once_and_serves_training_after_inference():
    def make(first: int, dtype: torch.dtype) -> Tensor:
        return full_table(torch.arange(first, first + 3), (2, 5), 8, dtype)

    with torch.inference_mode():
        table = make(77, torch.float32)
    assert make(77, torch.float32) is table
    assert make(77, torch.bfloat16) is table  # both are rotated in float32
    assert make(78, torch.float32) is not table
    assert make(77, F64).dtype == F64
    x = torch.ones(1, 30, 2, 8, requires_grad=True)
    rotate(x, table).sum().backward()
    assert x.grad is not None


def test_rows_of_a_table_are_those_of_the_numbered_frames():
    table = full_table(torch.arange(-2, 3), (2, 3), 8, F64)
    assert table_rows(table, None, 6) is table
    some = table_rows(table, torch.tensor([1, 4]), 6)
    assert torch.equal(some, full_table(torch.tensor([-1, 2]), (2, 3), 8, F64))
    each = table_rows(table, torch.tensor([[1, 4], [4, 4]]), 6)
    assert torch.equal(each[0], some)
    assert torch.equal(each[1], torch.cat([some[6:], some[6:]]))


@settings(max_examples=15)
@given(frames=st.integers(1, 5), rows=st.integers(2, 5), columns=st.integers(3, 5), seed=st.integers(0, 9))
def test_memory_tokens_are_those_of_the_loops_at_odd_sizes(frames: int, rows: int, columns: int, seed: int):
    x = torch.randn(2, frames, rows, columns, 3, generator=torch.Generator().manual_seed(seed), dtype=F64)
    tokenizer = MemoryTokenizer(3, (2, 2, 3), "conv").double()
    got = tokenizer(x)
    assert got.shape == (2, frames // 2, rows // 2, columns // 3, 3)
    wanted = equations.tokenize(x[1], tokenizer.conv.weight.detach(), tokenizer.conv.bias.detach())
    assert torch.allclose(got[1].detach(), wanted, atol=1e-12)


def test_the_mean_tokenizer_starts_as_an_average():
    x = torch.randn(1, 4, 4, 6, 5, generator=torch.Generator().manual_seed(0))
    got = MemoryTokenizer(5, (2, 2, 3), "mean")(x)
    cell = x[0, 2:4, 2:4, 3:6].reshape(-1, 5).mean(dim=0)
    assert torch.allclose(got[0, 1, 1, 1], cell, atol=1e-6)


def test_kernels_are_given_in_latent_pixels():
    assert kernel_in_tokens((2, 4, 4), (1, 2, 2)) == (2, 2, 2)
    assert kernel_in_tokens((1, 4, 6), (1, 2, 2)) == (1, 2, 3)
    with pytest.raises(ValueError, match=r"model\.memory\.kernel=\[2, 3, 4\]"):
        kernel_in_tokens((2, 3, 4), (1, 2, 2))


def test_a_kernel_larger_than_the_frame_is_an_error_not_an_empty_memory():
    with pytest.raises(ValueError, match="no slot fits"):
        MemoryTokenizer(3, (2, 4, 2), "conv")(torch.zeros(1, 4, 3, 5, 3))


def test_the_camera_of_a_slot_is_the_mean_of_its_frames():
    camera = torch.arange(2 * 5 * 12.0).reshape(2, 5, 12)
    got = slot_cameras(camera, 2)
    assert got.shape == (2, 2, 12)
    assert torch.equal(got[1, 1], (camera[1, 2] + camera[1, 3]) / 2)
