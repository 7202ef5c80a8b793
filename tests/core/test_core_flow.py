"""Noise levels per frame, losses over all frames, and guidance by history (DFoT), against their definitions."""

from __future__ import annotations

import hashlib

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from reference.small import CONTEXT, TARGET, small_clip, small_inputs, small_model
from torch import Tensor

from hmcli.core.flow import (
    add_noise,
    clean_frames,
    draw_levels,
    euler_step,
    flow_loss,
    flow_target,
    flow_to,
    make_schedule,
    with_clean_context,
)  # fmt: skip
from hmcli.core.pipeline import HydraPipeline
from hmcli.core.sampler import denoise, model_timestep, start_noise

FRAMES = CONTEXT + TARGET


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_schedules_have_the_same_bits_on_every_cpu():
    """Those of `torch.linspace` hang on what a CPU can do; the released ones are in tests/core/test_golden_flow.py."""
    digest = hashlib.sha256()
    for steps, shift, strength in ((50, 5.0, 1.0), (4, 5.0, 1.0), (1000, 5.0, 1.0), (13, 3.0, 0.6), (1, 1.0, 1.0)):
        schedule = make_schedule(steps, shift, strength=strength, weighting="bell")
        even = torch.linspace(strength, 0, steps + 1, dtype=torch.float64)[:-1]
        wanted = shift * even / (1 + (shift - 1) * even)
        assert (schedule.sigmas - wanted).abs().max() <= 2e-7
        assert torch.equal(schedule.timesteps, schedule.sigmas * 1000)
        assert schedule.sigmas.dtype == schedule.timesteps.dtype == schedule.weights.dtype == torch.float32
        digest.update(schedule.sigmas.numpy().tobytes() + schedule.timesteps.numpy().tobytes())
    assert digest.hexdigest()[:16] == "bde329cc2fda4053"


def test_levels_are_one_per_clip_or_one_of_its_own_for_every_frame():
    shared = draw_levels(1000, 400, 6, "shared", generator())
    assert shared.shape == (400,)
    own = draw_levels(1000, 400, 6, "per-frame", generator())
    assert own.shape == (400, 6)
    assert torch.corrcoef(own.T.double()).fill_diagonal_(0).abs().max() < 0.2  # independent
    assert (own.double().mean(dim=0) - 499.5).abs().max() < 60  # uniform: a mean of 400 has a deviation of 14
    assert own.min() < 20
    assert own.max() > 980
    assert torch.equal(shared, torch.randint(1000, (400,), generator=generator()))
    with pytest.raises(ValueError, match=r"flow\.noise='each'"):
        draw_levels(10, 2, 3, "each", generator())  # type: ignore[arg-type]


def test_logit_normal_levels_are_the_sigmoid_of_normal_numbers_before_the_shift():
    drawn = draw_levels(1000, 20_000, 6, "shared", generator(), "logit-normal")
    even = 1 - drawn.double() / 1000  # level before the shift
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):  # quantiles of a normal number, through the sigmoid
        wanted = torch.special.ndtri(torch.tensor(share, dtype=torch.float64)).sigmoid()
        assert float(even.quantile(share)) == pytest.approx(float(wanted), abs=0.012)
    assert 0 <= int(drawn.min()) <= int(drawn.max()) <= 999
    assert draw_levels(10, 2, 3, "per-frame", generator(), "logit-normal").shape == (2, 3)
    with pytest.raises(ValueError, match="logit-normal"):
        draw_levels(10, 2, 3, "shared", generator(), "normal")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("noise", "how", "clean"),
    [("shared", "joint", 5), ("shared", "frozen", 5), ("per-frame", "frozen", 5), ("per-frame", "joint", 0)],
)
def test_context_stays_clean_unless_a_joint_models_frames_each_have_their_level(noise, how, clean):
    assert clean_frames(5, noise, how) == clean
    latents, noisy = (torch.randn(2, 3, 8, 2, 3, generator=generator(s)) for s in (0, 1))
    sigma = make_schedule(100, 3.0).sigmas[draw_levels(100, 2, 8, noise, generator())]
    got = with_clean_context(latents, noisy, sigma, clean_frames(5, noise, how))
    for b in range(2):
        for f in range(8):
            level = 0.0 if f < clean else (sigma[b] if noise == "shared" else sigma[b, f])
            assert torch.allclose(got[b, :, f], (1 - level) * latents[b, :, f] + level * noisy[b, :, f])


def test_the_loss_over_all_frames_weighs_each_by_its_own_level():
    prediction, target = (torch.randn(2, 3, 7, 4, 6, generator=generator(s)) for s in (0, 1))
    weight = torch.rand(2, 7, generator=generator(2))
    wanted = [
        weight[b, f].item() * (prediction[b, :, f] - target[b, :, f]).square().mean().item()
        for b in range(2) for f in range(7)
    ]  # fmt: skip
    assert flow_loss(prediction, target, weight, 0).item() == pytest.approx(sum(wanted) / 14, rel=1e-5)


@pytest.mark.parametrize("policy", ["recent", "affinity"])
def test_a_step_of_dfot_trains_every_frame_at_its_own_level(policy: str):
    """Noise on context and target, loss on both: gradient comes from every frame's own flow."""
    model, clip, schedule = small_model(policy=policy, flow_noise="per-frame"), small_clip(), make_schedule(1000, 3.0)
    clean, noise = clip["hidden_states"], torch.randn(clip["hidden_states"].shape, generator=generator()).double()
    level = draw_levels(1000, 2, FRAMES, model.config.flow_noise, generator())
    noisy = with_clean_context(
        clean, noise, schedule.sigmas[level], clean_frames(CONTEXT, model.config.flow_noise, model.config.context)
    )
    assert torch.equal(noisy, add_noise(clean, noise, schedule.sigmas[level]))
    prediction = model(
        **(clip | {"hidden_states": noisy, "timestep": schedule.timesteps[level]}), num_context_frames=CONTEXT
    ).sample
    prediction.retain_grad()
    flow_loss(prediction, flow_target(clean, noise, model.config.flow_target), schedule.weights[level], 0).backward()
    per_frame = prediction.grad.abs().amax(dim=(1, 3, 4))
    assert (per_frame > 0).all()
    assert model.blocks[0].camera.context.weight.grad.abs().max() > 0


# --- sampling --------------------------------------------------------------------------------------------------------


def parts() -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Context, target noise, and what else denoising takes."""
    clip = small_clip()
    latents = clip["hidden_states"]
    rest = {"camera": clip["camera"], "text": clip["encoder_hidden_states"]}
    return latents[:, :, :CONTEXT], latents[:, :, CONTEXT:], rest


def test_history_is_clean_at_its_own_timestep_only_where_training_gave_frames_their_own():
    shape, now = torch.Size((2, 3, FRAMES, 4, 6)), torch.tensor(640.0)
    shared = model_timestep(small_model(), now, shape, CONTEXT)
    assert shared.tolist() == [640.0] * 2
    own = small_model(flow_noise="per-frame")
    assert model_timestep(own, now, shape, CONTEXT).tolist() == [[0.0] * CONTEXT + [640.0] * TARGET] * 2
    assert model_timestep(own, now, shape, CONTEXT, past=1.0).tolist() == [[1000.0] * CONTEXT + [640.0] * TARGET] * 2
    assert model_timestep(own, now, torch.Size((2, 3, TARGET, 4, 6)), 0).tolist() == [640.0] * 2


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize(("weight", "level"), [(1.0, 0.0), (2.5, 0.0), (2.5, 0.5)])  # of float32 too
def test_history_guidance_moves_away_from_the_flow_without_history(weight: float, level: float, guidance: float):
    """Vanilla; with a level fractional: from no history towards one that is partly masked."""
    model, schedule = small_model(policy="recent", top_k=3, flow_noise="per-frame"), make_schedule(2, 3.0)
    context, latents, rest = parts()
    masked = torch.randn(context.shape, generator=generator(9)).double()
    empty = torch.zeros_like(rest["text"])
    got = denoise(
        model, latents, schedule=schedule, context=context, history_guidance=weight, history_noise=masked,
        guidance=guidance, negative_text=empty, history_level=level, **rest,
    )  # fmt: skip

    def flow(past: Tensor, past_timestep: float, text: Tensor, step: int) -> Tensor:
        timestep = torch.full((2, FRAMES), float(schedule.timesteps[step]))
        timestep[:, :CONTEXT] = past_timestep
        return model(
            torch.cat([past, latents], dim=2), timestep, text, rest["camera"], CONTEXT
        ).sample[:, :, CONTEXT:]  # fmt: skip

    with torch.no_grad():
        for step in range(2):
            positive = flow(context, 0.0, rest["text"], step)
            without, negative = flow(masked, 1000.0, rest["text"], step), flow(context, 0.0, empty, step)
            some = flow((1 - level) * context + level * masked, 1000 * level, rest["text"], step)
            guided = positive + (guidance - 1) * (positive - negative) + (weight - 1) * (some - without)
            latents = euler_step(latents, guided, schedule.sigmas[step], schedule.next_sigma(step), "noise_minus_clean")
    assert torch.allclose(got, latents, rtol=0, atol=1e-9)


@pytest.mark.parametrize("changes", [{"flow_noise": "shared"}, {"flow_noise": "per-frame", "context": "frozen"}])
def test_history_guidance_of_a_model_that_never_saw_masked_history_is_refused(changes: dict[str, str]):
    context, latents, rest = parts()
    with pytest.raises(ValueError, match=r"needs a joint model trained with flow\.noise=per-frame"):
        denoise(
            small_model(**changes), latents, schedule=make_schedule(2, 3.0), context=context, history_guidance=2.0,
            history_noise=context, **rest,
        )  # fmt: skip


@pytest.mark.parametrize(("level", "weight"), [(0.4, 1.0), (1.0, 2.0), (-0.1, 2.0)])
def test_a_level_of_history_without_guidance_or_beyond_masking_is_refused(level: float, weight: float):
    context, latents, rest = parts()
    with pytest.raises(ValueError, match="between 0 and 1, and needs history_guidance"):
        denoise(
            small_model(flow_noise="per-frame"), latents, schedule=make_schedule(2, 3.0), context=context,
            history_guidance=weight, history_noise=context, history_level=level, **rest,
        )  # fmt: skip


def test_history_guidance_needs_noise_shaped_like_the_context():
    context, latents, rest = parts()
    for noise in (None, context[:, :, 1:]):
        with pytest.raises(ValueError, match="history_noise of their shape"):
            denoise(
                small_model(flow_noise="per-frame"), latents, schedule=make_schedule(2, 3.0), context=context,
                history_guidance=2.0, history_noise=noise, **rest,
            )  # fmt: skip


def test_the_pipeline_hands_on_what_policies_and_history_guidance_need():
    model = small_model(policy="frames-fov", top_k=3, flow_noise="per-frame")
    context, _, rest = parts()
    pipe = HydraPipeline(model, FlowMatchEulerDiscreteScheduler(shift=3.0))
    pipe.set_progress_bar_config(disable=True)
    got = pipe(
        camera=rest["camera"], prompt_embeds=rest["text"], generator=generator(4), num_frames=TARGET,
        context_latents=context, num_inference_steps=2, guidance_scale=1.0, history_guidance_scale=2.0,
        retrieval=small_inputs(),
    ).frames  # fmt: skip
    same = generator(4)
    noise = start_noise((2, 3, TARGET, 4, 6), same).double()
    wanted = denoise(
        model, noise, schedule=make_schedule(2, 3.0), context=context, history_guidance=2.0,
        history_noise=start_noise(tuple(context.shape), same).double(), retrieval=small_inputs(), **rest,
    )  # fmt: skip
    assert torch.equal(got, wanted)


def test_predicted_clean_latents_are_turned_into_the_flow_that_leads_to_them():
    chance = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(2, 3, 4, 2, 2, generator=chance, dtype=torch.float64) for _ in range(2))
    for sigma in (torch.tensor([0.3, 1.0]), torch.tensor([[0.2, 0.4, 0.6, 1.0]] * 2)):
        flow = flow_to(clean, add_noise(clean, noise, sigma), 1000 * sigma)
        assert torch.allclose(flow, flow_target(clean, noise, "clean"), atol=1e-6)
        assert torch.allclose(flow, noise - clean, atol=1e-6)
    half = flow_to(clean.half(), clean.half(), torch.zeros(2))
    assert half.dtype == torch.float32
    assert not half.any(), "of context it says nothing, and nothing infinite"


def test_capped_weights_make_errors_of_clean_latents_count_alike_at_little_noise():
    schedule = make_schedule(1000, 3.0, weighting="capped")
    sigma = schedule.sigmas.double()
    assert torch.allclose(schedule.weights.double() / sigma**2, 1 / sigma.clamp(min=0.3) ** 2, rtol=1e-5)
