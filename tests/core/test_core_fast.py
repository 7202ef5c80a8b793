"""The fast forms of attention against the plain one, forward and backward, at odd shapes and in every type."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.small import CONTEXT, small_clip, small_model
from torch import Tensor

from hmcli.core import fast
from hmcli.core.attention import dense_attention, plain_attention
from hmcli.core.fast import fast_attention, gathered_attention
from hmcli.core.merged import can_merge, merged_attention, window_runs
from hmcli.core.reading import local_window, window_frames

F64 = torch.float64


def tiny(batch: int, frames: int, tokens: int, slots: int, slot_tokens: int, keep: int, window: int, seed: int,
         before: int = 0, dtype: torch.dtype = F64):  # fmt: skip
    """Parts, windows and chosen slots; `before` frames have keys but no queries."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, 3, 4, generator=generator, dtype=dtype).requires_grad_()

    keys = (batch, before + frames, tokens)
    parts = [normal(batch, frames, tokens), *(normal(*keys) for _ in range(2))]
    parts += [normal(batch, slots, slot_tokens) for _ in range(2)]
    order = torch.rand(batch, frames, slots, generator=generator).argsort(dim=-1)[..., :keep]
    return parts, window_frames(*local_window(before, frames, before + frames, window)), order


def assert_same(form, parts: list[Tensor], windows: Tensor, chosen: Tensor, tolerance: float = 1e-12, **options: int):
    plain, other = plain_attention(*parts, windows, chosen), form(*parts, windows, chosen, **options)
    assert torch.allclose(plain, other, rtol=0, atol=tolerance)
    upstream = torch.linspace(-1, 1, plain.numel(), dtype=plain.dtype).reshape(plain.shape)
    for a, b in zip(gradients(plain, upstream, parts), gradients(other, upstream, parts), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=tolerance)


def gradients(out: Tensor, upstream: Tensor, parts: list[Tensor]) -> list[Tensor]:
    grads = torch.autograd.grad((out * upstream).sum(), parts, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(grads, parts, strict=True)]


SHAPES = {
    "batch": st.integers(1, 3), "frames": st.integers(1, 9), "before": st.integers(0, 3), "slots": st.integers(1, 4),
    "window": st.integers(1, 12), "seed": st.integers(0, 99), "data": st.data(),
}  # fmt: skip


@settings(max_examples=25)
@given(gather_bytes=st.sampled_from([1, 20_000, 2**28]), **SHAPES)
def test_gathered_equals_plain_forward_and_backward(batch, frames, before, slots, window, seed, data, gather_bytes):
    keep = data.draw(st.integers(0, slots))
    parts = tiny(batch, frames, 5, slots, 2, keep, window, seed, before)
    assert_same(gathered_attention, *parts, gather_bytes=gather_bytes)


@settings(max_examples=60)
@given(chunk_bytes=st.sampled_from([1, 4_000, 9_000, 2**23]), **SHAPES)
def test_merged_equals_plain_forward_and_backward(batch, frames, before, slots, window, seed, data, chunk_bytes):
    keep = data.draw(st.integers(0, slots))
    parts = tiny(batch, frames, 5, slots, 2, keep, window, seed, before)
    assert can_merge(parts[0][0], parts[1])
    assert_same(merged_attention, *parts, chunk_bytes=chunk_bytes)


@pytest.mark.parametrize("form", [gathered_attention, merged_attention])
def test_gradients_are_those_of_finite_differences(form):
    parts, windows, chosen = tiny(2, 4, 2, 3, 1, 2, 3, seed=3, before=1)
    assert torch.autograd.gradcheck(lambda *x: form(*x, windows, chosen), parts)


@pytest.mark.parametrize("form", [gathered_attention, merged_attention])
def test_large_scores_of_one_part_do_not_overflow_the_merge(form):
    parts, windows, chosen = tiny(1, 5, 3, 4, 2, 2, 3, seed=5, dtype=torch.float32)
    for large in (1, 3):  # keys of the window, keys of the slots: scores in the hundreds
        scaled = [part.detach() * (100 if n == large else 1) for n, part in enumerate(parts)]
        wanted = plain_attention(*(part.double() for part in scaled), windows, chosen)
        assert torch.allclose(form(*scaled, windows, chosen), wanted.float(), atol=1e-4)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", [fast_attention, dense_attention])
def test_half_precision_on_a_cpu_is_float32_rounded_once(form, dtype: torch.dtype, autocast: bool):
    parts, windows, chosen = tiny(2, 6, 3, 4, 2, 2, 3, seed=1, dtype=dtype)
    parts, choice = (parts, (windows, chosen)) if form is fast_attention else (parts[:3], ())
    single = [part.detach().float().requires_grad_() for part in parts]
    exact = form(*single, *choice)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        half = form(*parts, *choice)
    assert half.dtype == dtype
    assert torch.equal(half, exact.to(dtype))
    upstream = torch.linspace(-1, 1, half.numel()).reshape(half.shape).to(dtype)
    for a, b in zip(gradients(half, upstream, parts), gradients(exact, upstream.float(), single), strict=True):
        assert torch.equal(a, b.to(dtype))


def test_half_precision_is_gathered_in_its_own_type_for_a_kernel_asked_for_by_name():
    parts, windows, chosen = tiny(2, 6, 3, 4, 2, 2, 3, seed=1, dtype=torch.bfloat16)
    wanted = plain_attention(*(part.detach().double() for part in parts), windows, chosen)
    named, auto = (fast_attention(*parts, windows, chosen, backend=name) for name in ("sdpa", "auto"))
    assert torch.allclose(named.double(), wanted, atol=2e-2)
    assert not torch.equal(named, auto)


def test_windows_with_gaps_are_gathered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fast, "SMALL_BYTES", 0)
    parts, _, chosen = tiny(2, 4, 3, 3, 2, 2, 3, seed=2)
    windows = torch.tensor([[0, 2, 3], [0, 1, 2], [1, 2, 3], [3, 1, 0]])
    assert not can_merge(parts[0], windows)
    assert_same(fast_attention, parts, windows, chosen)


@pytest.mark.parametrize("small_bytes", [0, 2**40])
def test_the_automatic_choice_equals_plain_with_a_batch_that_chose_differently(
    small_bytes: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fast, "SMALL_BYTES", small_bytes)
    parts, windows, chosen = tiny(2, 7, 5, 6, 3, 4, 5, seed=7)
    assert not torch.equal(chosen[0], chosen[1])
    assert_same(fast_attention, parts, windows, chosen)


@pytest.mark.parametrize("context", ["joint", "frozen"])
def test_a_model_that_merges_equals_one_that_gathers(context: str, monkeypatch: pytest.MonkeyPatch):
    model, clip, results = small_model(policy="affinity", context=context), small_clip(), []
    for small_bytes in (2**40, 0):
        monkeypatch.setattr(fast, "SMALL_BYTES", small_bytes)
        flow = model(**clip, num_context_frames=CONTEXT, return_dict=False)[0]
        results.append((flow, *torch.autograd.grad(flow.square().sum(), list(model.parameters()), allow_unused=True)))
    for a, b in zip(*results, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def test_a_kernel_asked_for_by_name_computes_the_same():
    parts, windows, chosen = tiny(1, 4, 3, 3, 2, 2, 3, seed=4)
    math = fast_attention(*parts, windows, chosen, backend="math")
    assert torch.allclose(math, plain_attention(*parts, windows, chosen), atol=1e-12)


def test_parts_that_need_no_gradient_get_none():
    parts, windows, chosen = tiny(1, 5, 3, 4, 2, 2, 3, seed=8)
    for part in parts[1:]:
        part.requires_grad_(False)
    merged_attention(*parts, windows, chosen).sum().backward()
    assert parts[0].grad is not None
    assert all(part.grad is None for part in parts[1:])


def test_parts_may_lie_in_memory_in_any_order():
    parts, windows, chosen = tiny(2, 5, 4, 3, 2, 2, 3, seed=9)
    shuffled = [part.detach().permute(4, 2, 0, 3, 1).contiguous().permute(2, 4, 1, 3, 0) for part in parts]
    assert not shuffled[0].is_contiguous()
    assert_same(merged_attention, [part.requires_grad_() for part in shuffled], windows, chosen)


def test_a_window_of_all_frames_without_slots_is_dense_attention():
    (query, keys, values, *slots), windows, chosen = tiny(2, 5, 4, 2, 3, 0, 9, seed=2)
    dense = dense_attention(query, keys, values)
    for form in (gathered_attention, merged_attention):
        assert torch.allclose(dense, form(query, keys, values, *slots, windows, chosen), atol=1e-12)


@given(first=st.lists(st.integers(0, 15), min_size=1, max_size=20), window=st.integers(1, 6), most=st.integers(1, 4))
def test_every_query_frame_lies_in_one_run_beside_its_own_window(first: list[int], window: int, most: int):
    seen = []
    for run in window_runs(first, window, most):
        frames, keys = list(range(len(first)))[run.frames], range(99)[run.keys]
        assert len(frames) == run.count * run.shared
        assert run.count <= most
        assert len(keys) == run.count * window
        assert [first[f] for f in frames] == [keys[n * window] for n in range(run.count) for _ in range(run.shared)]
        seen += frames
    assert sorted(seen) == list(range(len(first)))


def test_a_clip_takes_one_run_per_frame_of_the_window_and_one_for_each_end():
    first_F = local_window(0, 40, 40, 5)[0].tolist()
    runs = window_runs(first_F, 5, 99)
    assert len(runs) == 2 + 5
    assert sum(run.count * run.shared for run in runs) == 40
