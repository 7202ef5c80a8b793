"""What is recorded of a run, attention mass against a softmax written out, and what others would have chosen."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hmcli.core.flow import make_schedule
from hmcli.core.inspection import (
    CAPTION,
    NEGATIVE,
    Recorded,
    expected_random_hits,
    hidden_from,
    hits,
    memory_mass,
    oracle_choice,
    random_choice,
    recall_and_precision,
    record_mass,
    recorded,
    relevant_slots,
)
from hmcli.core.memory import exact_slot_spans, slot_spans
from hmcli.core.reading import inside_window, local_window, window_frames
from hmcli.core.sampler import denoise
from hmcli.core.transformer import HydraTransformer3DModel

B, F, P, H, D, G, M, Q = 2, 3, 5, 2, 4, 6, 4, 3
WINDOWS = torch.tensor([[0, 1], [2, 3], [4, 5]])


def tokens(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query, keys, slots = (
        torch.randn(*shape, generator=generator) for shape in ((B, F, P, H, D), (B, G, P, H, D), (B, M, Q, H, D))
    )
    return query, keys, slots


def mass_by_loops(query, keys, slots, chosen_BFK) -> torch.Tensor:
    """The share of each softmax that falls on slot tokens, one token at a time."""
    share = torch.zeros(B, F)
    for b in range(B):
        for f in range(F):
            for p in range(P):
                for h in range(H):
                    near = [keys[b, g, n, h] @ query[b, f, p, h] for g in WINDOWS[f] for n in range(P)]
                    far = [slots[b, m, n, h] @ query[b, f, p, h] for m in chosen_BFK[b, f] for n in range(Q)]
                    weights = (torch.stack(far + near) / D**0.5).softmax(dim=0)
                    share[b, f] += weights[: len(far)].sum() / (P * H)
    return share


def test_attention_mass_is_the_share_of_the_softmax_that_falls_on_slots():
    query, keys, slots = tokens()
    chosen = torch.rand(2, B, F, M, generator=torch.Generator().manual_seed(1)).argsort(dim=-1)[..., :2]
    found = memory_mass(query, keys, WINDOWS, [slots], {"one": chosen[:1], "mean of two": chosen})
    first, second = (mass_by_loops(query, keys, slots, draw) for draw in chosen)
    torch.testing.assert_close(found["one"], first)
    torch.testing.assert_close(found["mean of two"], (first + second) / 2)


def test_attention_mass_does_not_depend_on_how_it_is_cut_into_pieces():
    query, keys, slots = tokens(2)
    choices = {"all": torch.arange(M).expand(1, B, F, M), "last": torch.full((1, B, F, 1), M - 1)}
    whole = memory_mass(query, keys, WINDOWS, [slots], choices)
    cut = memory_mass(query, keys, WINDOWS, iter(slots.split([1, 3], dim=1)), choices, max_bytes=1)
    for name in choices:
        torch.testing.assert_close(cut[name], whole[name])
    assert (whole["all"] > whole["last"]).all()


def test_without_slots_no_attention_goes_to_memory():
    query, keys, slots = tokens()
    nothing = torch.empty(1, B, F, 0, dtype=torch.int64)
    assert (memory_mass(query, keys, WINDOWS, [slots], {"nothing": nothing})["nothing"] == 0).all()


def test_nothing_is_computed_when_nobody_listens():
    def untouchable():
        raise AssertionError("keys were asked for")
        yield

    query, keys, _ = tokens()
    record_mass(query, keys, WINDOWS, untouchable())


# --- a model ---------------------------------------------------------------------------------------------------------


def tiny_model(**changes) -> HydraTransformer3DModel:
    torch.manual_seed(3)
    given = {
        "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 20, "freq_dim": 8,
        "text_dim": 6, "policy": "affinity", "top_k": 2, "window": 3, "context": "frozen",
    }  # fmt: skip
    return HydraTransformer3DModel(**(given | changes)).eval()


def sampled(model: HydraTransformer3DModel, steps: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    context, noise = (torch.randn(1, 16, frames, 4, 8, generator=generator) for frames in (6, 5))
    text = torch.randn(2, 1, 3, 6, generator=generator)
    camera = torch.randn(1, 11, 12, generator=generator)
    return denoise(
        model, noise, schedule=make_schedule(steps, 3.0), camera=camera, text=text[0], negative_text=text[1],
        guidance=1.5, context=context,
    )  # fmt: skip


def own_choice(reading: Recorded) -> dict[str, torch.Tensor]:
    return {} if reading.slots_BFK is None else {"model": reading.slots_BFK[None]}


def test_readings_know_part_step_branch_and_block():
    with recorded() as readings:
        sampled(tiny_model())
    assert [(r.part, r.step, r.branch, r.block) for r in readings] == [
        ("context", -1, "", 0), ("context", -1, "", 1),
        ("target", 0, CAPTION, 0), ("target", 0, CAPTION, 1), ("target", 0, NEGATIVE, 0), ("target", 0, NEGATIVE, 1),
        ("target", 1, CAPTION, 0), ("target", 1, CAPTION, 1), ("target", 1, NEGATIVE, 0), ("target", 1, NEGATIVE, 1),
    ]  # fmt: skip
    target = readings[-1]
    assert (target.first_frame, target.num_context, target.top_k) == (6, 6, 2)
    assert target.span_M2.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert target.near_FM.nonzero().tolist() == [[0, 3], [1, 3], [2, 4], [3, 4], [4, 4]]
    assert all(not reading.mass_BF for reading in readings)


@pytest.mark.parametrize("context", ["joint", "frozen"])
def test_listening_changes_no_number(context: str):
    model = tiny_model(context=context)
    quiet = sampled(model)
    with recorded(own_choice) as readings:
        heard = sampled(model)
    assert torch.equal(quiet, heard)
    assert all(set(reading.mass_BF) == {"model"} for reading in readings)


def test_the_recorded_mass_is_what_the_values_of_slots_bring_into_the_output():
    """With value 1 in slots and 0 in frames, attention itself returns the mass."""
    model = tiny_model(num_layers=1)
    shares = []

    def watched(query, keys, values, slot_keys, slot_values, *rest, **named):
        out = original(query, keys, torch.zeros_like(values), slot_keys, torch.ones_like(slot_values), *rest, **named)
        shares.append(out.mean(dim=(2, 3, 4)))
        return original(query, keys, values, slot_keys, slot_values, *rest, **named)

    import hmcli.core.attention as module

    original = module.fast_attention
    with pytest.MonkeyPatch.context() as patch, recorded(own_choice) as readings:
        patch.setattr(module, "fast_attention", watched)
        sampled(model, steps=1)
    assert len(shares) == len(readings) == 3
    for share, reading in zip(shares, readings, strict=True):
        torch.testing.assert_close(reading.mass_BF["model"], share)


def test_a_model_without_slots_is_recorded_without_them():
    with recorded(own_choice) as readings:
        sampled(tiny_model(policy="none"))
    assert readings
    assert all(r.slots_BFK is None and r.span_M2 is None and not r.mass_BF for r in readings)


# --- who would have chosen what --------------------------------------------------------------------------------------


def test_a_subject_is_back_after_the_last_stretch_between_two_sightings():
    seen = torch.tensor([[0, 1], [1, 1], [0, 0], [1, 0], [1, 1], [0, 0], [1, 0]], dtype=torch.bool)
    assert hidden_from(seen).T.tolist() == [[-1, -1, -1, 2, 2, -1, 5], [-1, -1, -1, -1, 2, -1, -1]]


def reading_of(frames: int, first: int, context: int, window: int, kernel: int, top_k: int) -> Recorded:
    span = exact_slot_spans(frames // kernel, kernel)
    first_F, last_F = local_window(first, frames - first, frames, window)
    near = inside_window(span, first_F, last_F)
    return Recorded(
        frames_FW=window_frames(first_F, last_F), block=0, part="target", step=0, branch=CAPTION, first_frame=first,
        num_context=context, top_k=top_k, span_M2=span, near_FM=near,
    )  # fmt: skip


@settings(max_examples=60)
@given(
    frames=st.integers(3, 12), kernel=st.integers(1, 3), window=st.integers(1, 5), joint=st.booleans(),
    seed=st.integers(0, 999), data=st.data(),
)  # fmt: skip
def test_relevant_slots_are_those_of_the_definition(frames, kernel, window, joint, seed, data):
    context = data.draw(st.integers(1, frames - 1))
    reading = reading_of(frames, 0 if joint else context, context, window, kernel, 1)
    seen = torch.rand(frames, 2, generator=torch.Generator().manual_seed(seed)) < 0.5
    got = relevant_slots(seen, reading)
    for f in range(got.shape[0]):
        for m, (start, end) in enumerate(reading.span_M2.tolist()):
            frame = reading.first_frame + f
            wanted = False
            for s in range(2):
                sightings = [a for a in range(frame) if seen[a, s]]
                hiding = [a for a in range(frame) if not seen[a, s] and any(seen[:a, s])]
                if frame >= context and seen[frame, s] and hiding:
                    last_before = max(a for a in sightings if a < hiding[-1])
                    wanted |= any(a <= last_before and start <= a <= end for a in sightings)
            assert got[f, m] == (wanted and not reading.near_FM[f, m])


def test_a_reading_beyond_what_is_known_of_subjects_is_refused():
    with pytest.raises(ValueError, match=r"known in 5 frames.*goes on to frame 7"):
        relevant_slots(torch.ones(5, 1, dtype=torch.bool), reading_of(8, 4, 4, 3, 2, 1))


def test_a_released_span_may_reach_behind_the_last_frame_where_nothing_is_seen():
    seen = torch.tensor([[1], [1], [0], [0], [1], [1]], dtype=torch.bool)
    exact = reading_of(6, 0, 3, 1, 1, 1)
    guessed = replace(exact, span_M2=slot_spans(6, 1, "released"), near_FM=torch.zeros(6, 6, dtype=torch.bool))
    assert guessed.span_M2[-1].tolist() == [5, 6]
    assert relevant_slots(seen, guessed)[4:].tolist() == [[True, True, False, False, False, False]] * 2


@given(slots=st.integers(1, 9), top_k=st.integers(0, 9), seed=st.integers(0, 99))
def test_the_oracle_finds_all_that_fit_into_k(slots: int, top_k: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    near = torch.rand(3, slots, generator=generator) < 0.3
    relevant = (torch.rand(3, slots, generator=generator) < 0.4) & ~near
    scores, top_k = torch.randn(3, slots, generator=generator), min(top_k, slots)
    for given_scores in (None, scores):
        chosen = oracle_choice(relevant, near, top_k, given_scores)
        assert hits(chosen, relevant).tolist() == [min(top_k, count) for count in relevant.sum(dim=1).tolist()]


def test_the_oracle_breaks_ties_by_score_then_by_age():
    relevant = torch.tensor([[0, 1, 0, 1, 0]], dtype=torch.bool)
    near = torch.tensor([[0, 0, 0, 0, 1]], dtype=torch.bool)
    assert oracle_choice(relevant, near, 4, torch.tensor([[5.0, 1.0, 7.0, 2.0, 9.0]])).tolist() == [[3, 1, 2, 0]]
    assert oracle_choice(relevant, near, 3, None).tolist() == [[1, 3, 0]]


def test_expected_hits_of_chance_are_the_mean_of_its_draws():
    generator = torch.Generator().manual_seed(0)
    near = torch.tensor([[1, 0, 0, 0, 0, 0], [1, 1, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    relevant = torch.tensor([[0, 1, 0, 1, 1, 0], [0, 0, 1, 0, 0, 0], [0] * 6], dtype=torch.bool)
    draws = torch.stack([hits(random_choice(near, 3, generator), relevant) for _ in range(3000)]).mean(dim=0)
    expected = expected_random_hits(relevant, near, 3)
    assert expected.tolist() == [3 * 3 / 5, 1.0, 0.0]
    torch.testing.assert_close(draws, expected, atol=0.05, rtol=0)


def test_chance_follows_its_generator_and_spends_no_slot_inside_the_window():
    near = torch.tensor([[1, 0, 0, 0, 1, 0]], dtype=torch.bool).expand(200, -1)
    first, second = (random_choice(near, 2, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, second)
    assert set(first.flatten().tolist()) == {1, 2, 3, 5}


def test_recall_and_precision_are_means_over_frames_that_have_something_to_find():
    relevant = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    chosen = torch.tensor([[0, 2], [0, 1], [3, 1]])
    recall, precision = recall_and_precision(hits(chosen, relevant), relevant, 2)
    assert recall == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert precision == pytest.approx((1 / 2 + 2 / 2) / 2)
    nowhere = torch.zeros_like(relevant)
    assert all(math.isnan(value) for value in recall_and_precision(hits(chosen, nowhere), nowhere, 2))
