"""Windows, masks, scores and choices against the equations written as loops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import equations

from hmcli.core.memory import (
    MemorySlots,
    MemoryTokenizer,
    exact_slot_spans,
    kernel_in_tokens,
    released_slot_spans,
    slot_spans,
)
from hmcli.core.policies.affinity import affinity
from hmcli.core.policies.everything import everything
from hmcli.core.policies.window_only import window_only
from hmcli.core.retrieval import (
    RetrievalInputs,
    RetrievalRequest,
    check_inputs,
    inside_window,
    local_window,
    needs,
    needs_of,
    pooled_affinity,
    spatial_affinity,
    topk_slots,
    window_frames,
)  # fmt: skip
from hmcli.errors import UsageError
from hmcli.registry import find

sizes = st.integers(1, 24)


@given(frames=sizes, window=st.integers(1, 30))
def test_windows_are_those_of_the_loops(frames: int, window: int):
    got = window_frames(*local_window(0, frames, frames, window))
    assert got.tolist() == [equations.window(f, frames, window) for f in range(frames)]


@given(context=sizes, target=sizes, window=st.integers(1, 12))
def test_windows_of_a_target_alone_reach_back_less_than_one_window(context: int, target: int, window: int):
    whole = window_frames(*local_window(0, context + target, context + target, window))
    alone = window_frames(*local_window(context, target, context + target, window))
    assert torch.equal(alone, whole[context:])
    assert alone.min() >= context - (window - 1)  # so a tail of window - 1 frames is enough


@given(frames=st.integers(1, 60), slots=st.integers(1, 40))
def test_released_spans_are_those_of_the_loops(frames: int, slots: int):
    got = released_slot_spans(frames, slots).tolist()
    assert got == [list(equations.released_span(m, frames, slots)) for m in range(slots)]


@given(half=st.integers(1, 40))
def test_exact_and_released_spans_agree_for_pairs_of_an_even_frame_count(half: int):
    assert torch.equal(slot_spans(2 * half, 2, "exact"), slot_spans(2 * half, 2, "released"))


@given(frames=st.integers(1, 40), kernel=st.integers(1, 5))
def test_exact_spans_cover_every_whole_cell_once(frames: int, kernel: int):
    spans = slot_spans(frames, kernel, "exact")
    covered = [f for first, end in spans.tolist() for f in range(first, end + 1)]
    assert covered == list(range(frames // kernel * kernel))


@given(frames=st.integers(2, 14), kernel=st.integers(1, 3), window=st.integers(1, 16), seed=st.integers(0, 99),
       data=st.data(), spans=st.sampled_from(["exact", "released"]))  # fmt: skip
def test_choices_are_those_of_the_loops_for_every_top_k(frames, kernel, window, seed, data, spans):
    slots = frames // kernel
    keep = data.draw(st.integers(0, slots))
    levels = torch.randint(0, 4, (2, frames, slots), generator=torch.Generator().manual_seed(seed))  # many ties
    span = slot_spans(frames, kernel, spans)
    got = topk_slots(levels.float(), inside_window(span, *local_window(0, frames, frames, window)), keep)
    pairs = [(first, end) for first, end in span.tolist()]
    for b in range(2):
        for f in range(frames):
            near = equations.window(f, frames, window)
            assert got[b, f].tolist() == equations.choose(levels[b, f].tolist(), pairs, near, keep)


def tiny(frames: int = 5, grid: tuple[int, int] = (5, 7), slots: int = 3, batch: int = 2, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, frames, grid[0] * grid[1], 6, generator=generator)
    keys = torch.randn(batch, slots, (grid[0] // 2) * (grid[1] // 3), 6, generator=generator)
    return query, keys


def test_pooled_scores_are_those_of_the_loops():
    query, keys = tiny()
    scores = pooled_affinity(query, keys.mean(dim=2))
    for b, f, m in [(0, 0, 0), (1, 4, 2), (0, 3, 1)]:
        assert scores[b, f, m].item() == pytest.approx(equations.pooled_score(query[b, f], keys[b, m]), rel=1e-5)


def test_spatial_scores_are_those_of_the_loops_and_drop_odd_rows_and_columns():
    query, keys = tiny()
    scores = spatial_affinity(query, keys, (5, 7), (2, 2, 3))
    for b, f, m in [(0, 0, 0), (1, 4, 2), (1, 2, 1)]:
        wanted = equations.spatial_score(query[b, f].reshape(5, 7, 6), keys[b, m].reshape(2, 2, 6), (2, 3))
        assert scores[b, f, m].item() == pytest.approx(wanted, rel=1e-4)


TABLE_4 = [(2, 2, 2), (2, 4, 4), (2, 8, 8), (1, 4, 4)]  # tokenizer kernels in latent pixels; a patch is 1 x 2 x 2


@settings(max_examples=10)
@given(rows=st.integers(4, 7), columns=st.integers(4, 9), frames=st.integers(2, 5), seed=st.integers(0, 99))
@pytest.mark.parametrize("kernel", TABLE_4)
def test_spatial_scores_are_eq_4_for_the_kernels_of_table_4_at_odd_sizes(kernel, rows, columns, frames, seed):
    """From patch tokens to scores: slots by the tokenizer, with the query pooled to the very cells they stand for."""
    generator = torch.Generator().manual_seed(seed)
    time, down, across = cell = kernel_in_tokens(kernel, (1, 2, 2))
    tokens = torch.randn(1, frames, rows, columns, 6, generator=generator, dtype=torch.float64)
    query = torch.randn(2, 3, rows, columns, 6, generator=generator, dtype=torch.float64)
    keys = MemoryTokenizer(6, cell, "mean").double()(tokens)
    assert keys.shape == (1, frames // time, rows // down, columns // across, 6)
    got = spatial_affinity(query.flatten(2, 3), keys.flatten(2, 3).expand(2, -1, -1, -1), (rows, columns), cell)
    for b, f, m in [(0, 0, 0), (1, 2, keys.shape[1] - 1)]:
        cells = tokens[0, m * time : (m + 1) * time]
        slot = [
            [cells[:, r * down : (r + 1) * down, c * across : (c + 1) * across].mean(dim=(0, 1, 2))
             for c in range(columns // across)] for r in range(rows // down)
        ]  # fmt: skip
        wanted = equations.spatial_score(
            query[b, f], torch.stack([torch.stack(row) for row in slot]).detach(), (down, across)
        )
        assert got[b, f, m].item() == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("top_k", [5, 10, 15])
def test_as_many_slots_as_table_5_names_are_read_best_first(top_k: int):
    """40 latent frames of the paper's clips make 20 slots of two."""
    span = exact_slot_spans(20, 2)
    scores = torch.randn(2, 40, 20, generator=torch.Generator().manual_seed(0))
    first, last = local_window(0, 40, 40, 5)
    got = topk_slots(scores, inside_window(span, first, last), top_k)
    assert got.shape == (2, 40, top_k)
    for f in (0, 19, 39):
        pairs = [(a, b) for a, b in span.tolist()]
        assert got[1, f].tolist() == equations.choose(scores[1, f].tolist(), pairs, equations.window(f, 40, 5), top_k)
        assert all(not (first[f] <= a and b <= last[f]) for a, b in span[got[1, f]].tolist())


@pytest.mark.parametrize(("window", "frames"), [(4, [1, 2, 3, 4]), (5, [1, 2, 3, 4, 5])])
def test_an_even_window_reaches_one_frame_further_back_than_ahead(window: int, frames: list[int]):
    assert window_frames(*local_window(0, 9, 9, window))[3].tolist() == frames


def request(top_k: int = 1, **changes) -> RetrievalRequest:
    query, keys = tiny()
    slots = MemorySlots(keys_BMQC=keys, values_BMQC=keys, descriptors_BMC=keys.mean(dim=2), grid=(2, 2))
    given = {
        "query_BFPC": query, "slots": slots, "span_M2": exact_slot_spans(3, 2), "device": query.device,
        "first_frame": 0, "total_frames": 5, "window": 3,
        "top_k": top_k, "affinity": "pooled",
        "grid": (5, 7), "kernel": (2, 2, 3), "camera_BAR": torch.zeros(2, 5, 12), "part": "joint", "num_context": 3,
    }  # fmt: skip
    return RetrievalRequest(**(given | changes))


def test_more_slots_than_there_are_is_an_error_that_names_both_numbers():
    with pytest.raises(ValueError, match=r"model\.memory\.top_k=4.*only 3"):
        affinity(request(top_k=4))


def test_no_gradient_flows_through_the_choice():
    asked = request()
    asked.query_BFPC.requires_grad_()
    assert not affinity(asked).scores_BFM.requires_grad


@pytest.mark.parametrize("form", ["pooled", "spatial"])
def test_affinities_beyond_half_precision_choose_as_in_float32_under_autocast(form: str):
    asked = request(affinity=form, top_k=3)
    large = replace(asked, query_BFPC=2e5 * asked.query_BFPC.float(), memo={})
    exact = affinity(large)
    with torch.autocast("cpu", torch.float16):
        got = affinity(large)
    assert exact.scores_BFM.abs().max() > torch.finfo(torch.float16).max
    assert torch.equal(got.scores_BFM, exact.scores_BFM)
    assert torch.equal(got.slots_BFK, exact.slots_BFK)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_slot_in_the_window_comes_last_in_every_type(dtype: torch.dtype):
    lowest = torch.finfo(dtype).min
    scores = torch.tensor([[[9.0, lowest, lowest]]], dtype=dtype)
    assert topk_slots(scores, torch.tensor([[True, False, False]]), 3).tolist() == [[[1, 2, 0]]]


def test_policies_are_found_by_name_and_say_what_they_need():
    assert (find("policy", "affinity"), find("policy", "none"), find("policy", "all")) == (
        affinity, window_only, everything,
    )  # fmt: skip
    assert needs_of(affinity) == {"slots"}
    assert needs_of(window_only) == frozenset()
    assert needs_of(everything) == {"all frames"}
    with pytest.raises(UsageError, match="unknown policy"):
        find("policy", "afinity")


def test_a_policy_that_misses_an_input_is_refused_by_name():
    @needs("slots", "intrinsics_B4", "near")
    def greedy(asked):
        return window_only(asked)

    with pytest.raises(ValueError, match="greedy needs retrieval inputs intrinsics_B4"):
        check_inputs(greedy, RetrievalInputs(near=0.1))
    check_inputs(greedy, RetrievalInputs(near=0.1, intrinsics_B4=torch.ones(1, 4)))


def test_only_the_window_is_read_without_memory():
    reading = window_only(request(slots=None))
    assert reading.slots_BFK is None
    frames = reading.frames
    assert frames.numbers(frames.windows_FW).tolist() == [[0, 1, 2], [0, 1, 2], [1, 2, 3], [2, 3, 4], [2, 3, 4]]
    frames = everything(request(slots=None)).frames
    assert frames.windows_FW is None
    assert frames.everywhere_BN is None
    assert frames.table_rows_G is None  # all that there are
