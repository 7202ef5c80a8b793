"""Every memory policy, in joint and frozen models: what it reads, batches, memory kept and read back, gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from reference import equations
from reference.small import CONTEXT, TARGET, of_sample, small_clip, small_inputs, small_model
from torch import Tensor

import hmcli.core.policies.fov as fov_module
from hmcli import registry
from hmcli.core.camera import camera_overlap
from hmcli.core.policies.chance import draw
from hmcli.core.policies.oracle import showing_first
from hmcli.core.reading import local_window
from hmcli.core.retrieval import Reading, RetrievalInputs, RetrievalRequest
from hmcli.core.transformer import HydraTransformer3DModel

OF_SLOTS = ("affinity", "fov", "random", "oracle")
OF_FRAMES = ("frames-fov", "recent")
POLICIES = (*OF_SLOTS, "none", "all", *OF_FRAMES)
every_policy = pytest.mark.parametrize("policy", POLICIES)
either_context = pytest.mark.parametrize("how", ["joint", "frozen"])


class Listener:
    """A policy that notes what another one was asked, and what it answered."""

    def __init__(self, policy: Callable[[RetrievalRequest], Reading]) -> None:
        self.policy, self.heard = policy, list[tuple[RetrievalRequest, Reading]]()
        self.needs, self.plan = policy.needs, policy.plan  # type: ignore[attr-defined]

    def __call__(self, asked: RetrievalRequest) -> Reading:
        self.heard.append((asked, reading := self.policy(asked)))
        return reading


def listened(model: HydraTransformer3DModel) -> Listener:
    listener = Listener(model.policy)
    for block in model.blocks:
        block.attn1.policy = listener
    return listener


def read_everywhere(got: Reading) -> list[list[int]]:
    """Numbers of the frames that every query frame of a sample reads."""
    return got.frames.numbers(got.frames.everywhere_BN).tolist()


def run(model: HydraTransformer3DModel, clip: dict[str, Tensor], inputs: RetrievalInputs) -> Tensor:
    """The flow of the target frames."""
    return model(**clip, num_context_frames=CONTEXT, retrieval=inputs).sample[:, :, CONTEXT:]


def heard_of_target(policy: str, how: str, inputs: RetrievalInputs | None = None, **changes: object):
    """What the first block of a run over the target (and in joint models the context) asked for and got."""
    model = small_model(policy=policy, context=how, **changes)
    listener = listened(model)
    with torch.no_grad():
        run(model, small_clip(), inputs or small_inputs())
    return next((asked, got) for asked, got in listener.heard if asked.part != "context")


# --- what holds for all of them --------------------------------------------------------------------------------------


def test_these_are_all_the_policies_there_are():
    assert set(POLICIES) == set(registry.BUILT_IN["policy"])


@either_context
@every_policy
@pytest.mark.parametrize("per_frame", [False, True])
def test_a_batch_is_its_samples_run_alone_each_at_its_own_timesteps(policy: str, how: str, per_frame: bool):
    model, clip, inputs = small_model(policy=policy, context=how), small_clip(), small_inputs()
    if not per_frame:
        clip["timestep"] = clip["timestep"][:, 0]
    with torch.no_grad():
        together = run(model, clip, inputs)
        for b in range(2):
            alone = run(model, {name: value[b : b + 1] for name, value in clip.items()}, of_sample(inputs, b))
            assert torch.allclose(together[b : b + 1], alone, rtol=0, atol=1e-9)
        clip["timestep"] = clip["timestep"].flip(0)
        assert not torch.allclose(together, run(model, clip, inputs), atol=1e-3)


@every_policy
def test_memory_made_beforehand_gives_what_live_context_gives(policy: str):
    model, clip, inputs = small_model(policy=policy, context="frozen"), small_clip(), small_inputs()
    target = {name: clip[name][:, CONTEXT:] for name in ("timestep", "camera")}
    with torch.no_grad():
        live = run(model, clip, inputs)
        memory = model.encode_context(clip["hidden_states"][:, :, :CONTEXT], clip["camera"][:, :CONTEXT], inputs)
        latents = clip["hidden_states"][:, :, CONTEXT:]
        kept = model(**(clip | target | {"hidden_states": latents}), num_context_frames=0, retrieval=inputs,
                     memory=memory).sample  # fmt: skip
    assert torch.equal(live, kept)


@either_context
@every_policy
def test_gradient_flows_through_what_is_read_and_not_through_the_choice(policy: str, how: str):
    model, clip, inputs = small_model(policy=policy, context=how), small_clip(), small_inputs()
    listener = listened(model)
    run(model, clip, inputs).square().sum().backward()
    for _, got in listener.heard:
        assert got.scores_BFM is None or not got.scores_BFM.requires_grad
    reads_memory = model.blocks[1].attn1.tokenizer.conv.weight.grad
    assert (reads_memory is not None and reads_memory.abs().max() > 0) == (policy in OF_SLOTS)
    camera_of_context = model.blocks[0].camera.context.weight.grad
    assert camera_of_context is not None
    assert camera_of_context.abs().max() > 0


@either_context
@every_policy
def test_gradient_checkpointing_repeats_the_choice(policy: str, how: str):
    grads = []
    for checkpointing in (False, True):
        model = small_model(policy=policy, context=how).train()
        if checkpointing:
            model.enable_gradient_checkpointing()
        run(model, small_clip(), small_inputs()).square().sum().backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])


@either_context
@every_policy
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_by_autocast_is_near_and_trains(policy: str, how: str, dtype: torch.dtype):
    model, clip = small_model(policy=policy, context=how).to(torch.float32), small_clip()
    clip = {name: value.float() for name, value in clip.items()}
    listener = listened(model)
    with torch.autocast("cpu", dtype):
        got = run(model, clip, small_inputs())
    got.float().square().mean().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    assert all(got.scores_BFM is None or got.scores_BFM.dtype != dtype for _, got in listener.heard)
    with torch.no_grad():
        exact = run(model, clip, small_inputs())
    assert (got.float() - exact).square().mean().sqrt() < 0.03 * exact.square().mean().sqrt()


@pytest.mark.parametrize("policy", [p for p in POLICIES if p not in ("affinity", "none", "all", "recent")])
def test_a_policy_whose_inputs_are_missing_is_refused_by_name(policy: str):
    with pytest.raises(ValueError, match=f"policy {policy.replace('-', '_')} needs retrieval inputs"):
        small_model(policy=policy)(**small_clip(), num_context_frames=CONTEXT)


@either_context
@pytest.mark.parametrize("policy", OF_SLOTS)
def test_more_slots_than_there_are_is_refused_and_more_than_are_free_takes_some_in_the_window(policy: str, how: str):
    slots = (CONTEXT + TARGET) // 2 if how == "joint" else CONTEXT // 2
    model = small_model(policy=policy, context=how, top_k=slots, window=5)
    with torch.no_grad():
        assert run(model, small_clip(), small_inputs()).isfinite().all()
        with pytest.raises(ValueError, match=rf"top_k={slots + 1}.*only {slots} memory slots"):
            run(small_model(policy=policy, context=how, top_k=slots + 1), small_clip(), small_inputs())


@either_context
@pytest.mark.parametrize("top_k", [0, CONTEXT + 1])
@pytest.mark.parametrize("policy", OF_FRAMES)
def test_more_context_frames_than_there_are_or_none_is_refused(policy: str, how: str, top_k: int):
    with pytest.raises(ValueError, match=rf"top_k={top_k}.*all {CONTEXT} context frames"):
        run(small_model(policy=policy, context=how, top_k=top_k), small_clip(), small_inputs())


# --- fov -------------------------------------------------------------------------------------------------------------


@either_context
def test_fov_chooses_the_slots_that_saw_most_of_what_the_frame_sees(how: str):
    asked, got = heard_of_target("fov", how)
    cameras = asked.camera_BAR[:, asked.first_frame :]
    overlap = camera_overlap(cameras, asked.slot_camera_BMR, small_inputs().lens())
    spans = [(first, last) for first, last in asked.span_M2.tolist()]
    assert len({round(value, 6) for value in overlap.flatten().tolist()}) > 4
    for b in range(2):
        for f in range(asked.frames):
            near = equations.window(asked.first_frame + f, asked.total_frames, 3)
            assert got.slots_BFK[b, f].tolist() == equations.choose(overlap[b, f].tolist(), spans, near, 2)


@either_context
def test_overlaps_made_beforehand_are_used_and_only_what_they_lack_is_computed(how: str):
    asked, got = heard_of_target("fov", how)
    assert got.scores_BFM is not None
    frames, slots = asked.total_frames, got.scores_BFM.shape[2]
    opposite = torch.full((2, frames, slots), torch.nan)
    opposite[:, asked.first_frame :] = 1 - got.scores_BFM.float()
    _, other = heard_of_target("fov", how, replace(small_inputs(), overlap_BAM=opposite))
    assert torch.equal(other.scores_BFM, opposite[:, asked.first_frame :].to(other.scores_BFM))
    assert not torch.equal(other.slots_BFK, got.slots_BFK)
    _, partly = heard_of_target("fov", how, replace(small_inputs(), overlap_BAM=opposite[:, :-1, :2]))
    assert torch.equal(partly.scores_BFM[:, :-1, :2], other.scores_BFM[:, :-1, :2])
    assert torch.equal(partly.scores_BFM[:, :, 2:], got.scores_BFM[:, :, 2:])
    assert torch.equal(partly.scores_BFM[:, -1], got.scores_BFM[:, -1])


@pytest.mark.parametrize(("how", "runs"), [("joint", 1), ("frozen", 2)])
def test_overlaps_are_computed_once_for_all_blocks(how: str, runs: int, monkeypatch: pytest.MonkeyPatch):
    made, compute = [], fov_module.slot_overlap
    monkeypatch.setattr(fov_module, "slot_overlap", lambda asked: made.append(asked.part) or compute(asked))
    with torch.no_grad():
        run(small_model(policy="fov", context=how), small_clip(), small_inputs())
    assert len(made) == runs


# --- random and oracle -----------------------------------------------------------------------------------------------


def test_random_choices_are_even_and_never_inside_the_window_while_others_are_free():
    taken = torch.zeros(5)
    inputs = small_inputs()
    for seed in range(60):
        generators = [torch.Generator().manual_seed(1000 * seed + b) for b in range(2)]
        model_inputs = replace(inputs, generator=generators)
        if seed == 0:
            asked, _ = heard_of_target("random", "joint", model_inputs, window=1)
        got = registry.find("policy", "random")(replace(asked, inputs=model_inputs, memo={}))
        taken += torch.bincount(got.slots_BFK.flatten(), minlength=5)
    # a window of one frame never holds a slot of two: each of 5 slots is one of 2 with chance 0.4
    expected = 60 * 2 * asked.frames * 0.4
    assert ((taken - expected).abs() < 4 * (expected * 0.6) ** 0.5).all()
    asked, got = heard_of_target("random", "joint", inputs, window=5)
    first, last = local_window(0, asked.frames, asked.frames, 5)
    spans = asked.span_M2[got.slots_BFK]
    assert not ((spans[..., 0] >= first[:, None]) & (spans[..., 1] <= last[:, None])).any()


def test_random_reads_its_generator_without_advancing_it_and_alike_in_all_blocks():
    model, inputs = small_model(policy="random"), small_inputs()
    listener = listened(model)
    before = inputs.generator[0].get_state()
    with torch.no_grad():
        first, second = (run(model, small_clip(), inputs) for _ in range(2))
        inputs.generator[0].manual_seed(77)
        third = run(model, small_clip(), inputs)
    assert torch.equal(first, second)
    assert not torch.equal(first[0], third[0])
    assert torch.equal(first[1], third[1])
    assert torch.equal(torch.Generator().manual_seed(2).get_state(), before)
    assert len({tuple(got.slots_BFK.flatten().tolist()) for _, got in listener.heard[:2]}) == 1


def test_one_generator_serves_a_batch_and_a_wrong_number_is_refused():
    numbers = draw(torch.Generator().manual_seed(3), 2, 3, 4)
    assert numbers.shape == (2, 3, 4)
    assert not torch.equal(*numbers)
    with pytest.raises(ValueError, match="3 generators for 2 samples"):
        draw([torch.Generator()] * 3, 2, 3, 4)


@either_context
@pytest.mark.parametrize("affinity", ["pooled", "spatial"])
def test_the_oracle_takes_what_shows_the_subject_first_and_goes_by_affinity_otherwise(how: str, affinity: str):
    asked, got = heard_of_target("oracle", how, affinity=affinity, top_k=3)
    _, by_affinity = heard_of_target("affinity", how, affinity=affinity, top_k=3)
    spans = [(first, last) for first, last in asked.span_M2.tolist()]
    shows = small_inputs().visibility_BM.tolist()
    for b in range(2):
        for f in range(asked.frames):
            scores = by_affinity.scores_BFM[b, f].tolist()
            bonus = [1e3 * (m < len(shows[b]) and shows[b][m]) + score for m, score in enumerate(scores)]
            near = equations.window(asked.first_frame + f, asked.total_frames, 3)
            assert got.slots_BFK[b, f].tolist() == equations.choose(bonus, spans, near, 3)


def test_the_oracle_ranks_affinities_that_differ_in_the_last_digit():
    affinity = torch.tensor([[[1.0, 1.0 + 1e-7, -5.0, 1.0]]])
    ranked = showing_first(affinity, torch.tensor([[False, False, True, False]]))
    assert ranked[0, 0].argsort(descending=True).tolist() == [2, 1, 0, 3]


def test_the_oracle_ranks_more_slots_than_half_precision_can_count():
    affinity = torch.linspace(0, 1, 3000).to(torch.float16)[None, None]
    ranked = showing_first(affinity, torch.zeros(1, 3000, dtype=torch.bool))
    assert ranked.unique().numel() == 3000


# --- whole frames ----------------------------------------------------------------------------------------------------


@either_context
def test_recent_is_dense_attention_over_a_shorter_history(how: str):
    """Rotary positions are relative, so frames that nobody reads might as well not be there."""
    clip, drop = small_clip(), CONTEXT - 3
    shorter = {name: value[:, drop:] for name, value in clip.items() if name in ("timestep", "camera")}
    shorter["hidden_states"] = clip["hidden_states"][:, :, drop:]
    with torch.no_grad():
        got = run(small_model(policy="recent", context=how, top_k=3), clip, small_inputs())
        dense = small_model(policy="all", context=how)(**(clip | shorter), num_context_frames=3).sample[:, :, 3:]
    assert torch.allclose(got, dense, rtol=0, atol=1e-9)


@either_context
@pytest.mark.parametrize("policy", OF_FRAMES)
def test_reading_all_context_frames_is_dense_attention(policy: str, how: str):
    with torch.no_grad():
        got = run(small_model(policy=policy, context=how, top_k=CONTEXT), small_clip(), small_inputs())
        dense = run(small_model(policy="all", context=how), small_clip(), small_inputs())
    assert torch.allclose(got, dense, rtol=0, atol=1e-9)


@either_context
def test_context_as_memory_reads_the_target_and_the_frames_that_saw_most_of_it(how: str):
    asked, got = heard_of_target("frames-fov", how, top_k=3)
    camera = small_clip()["camera"]
    overlap = camera_overlap(camera[:, CONTEXT:], camera[:, :CONTEXT], small_inputs().lens())
    for b in range(2):
        mean = [sum(overlap[b, f, a].item() for f in range(TARGET)) / TARGET for a in range(CONTEXT)]
        best = sorted(range(CONTEXT), key=lambda a: (-mean[a], a))[:3]
        assert read_everywhere(got)[b] == [*sorted(best), *range(CONTEXT, CONTEXT + TARGET)]
    assert asked.part == ("joint" if how == "joint" else "target")
    assert read_everywhere(got)[0] != read_everywhere(got)[1]


def test_what_context_as_memory_does_not_read_does_not_matter():
    clip, model = small_clip(batch=1), small_model(policy="frames-fov", top_k=3)
    listener = listened(model)
    with torch.no_grad():
        before = run(model, clip, small_inputs(batch=1))
        read = set(read_everywhere(listener.heard[0][1])[0])
        for frame in range(CONTEXT):
            changed = clip["hidden_states"].clone()
            changed[:, :, frame] += 1
            after = run(model, clip | {"hidden_states": changed}, small_inputs(batch=1))
            assert torch.equal(before, after) == (frame not in read)
