"""Schedulers: every one of them follows a straight flow to its end, and the model hears the noise that there is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from reference.small import CONTEXT, TARGET, small_clip, small_model

from hmcli import registry
from hmcli.core.flow import euler_step, make_schedule
from hmcli.core.pipeline import HydraPipeline
from hmcli.core.schedulers import levels_of

NAMES = sorted(registry.BUILT_IN["scheduler"])


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def followed(name: str, steps: int, clean: torch.Tensor, noise: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Latents at the end of the true flow from noise to clean ones, as a model that knows it would predict it."""
    schedule, advance = levels_of(registry.find("scheduler", name)(3.0), steps, chance(seed))
    latents = noise
    for step, sigma in enumerate(schedule.sigmas):
        flow = (latents - clean) / sigma
        if advance is None:
            latents = euler_step(latents, flow, sigma, schedule.next_sigma(step), "noise_minus_clean")
        else:
            latents = advance(latents, flow, step)
    return latents


@pytest.mark.parametrize("steps", [2, 7])
@pytest.mark.parametrize("name", NAMES)
def test_a_scheduler_follows_the_true_flow_to_the_clean_latents(name: str, steps: int):
    clean, noise = torch.randn(2, 2, 3, 4, 5, 6, generator=chance(3)).unbind()
    end = followed(name, steps, clean, noise)
    assert torch.allclose(end, clean, rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_told_the_noise_that_there_is_from_the_noisiest_down(name: str):
    schedule, _ = levels_of(registry.find("scheduler", name)(5.0), 6, chance())
    assert torch.equal(schedule.timesteps, 1000 * schedule.sigmas)
    assert schedule.sigmas[0] > 0.99
    assert bool((schedule.sigmas.diff() <= 0).all())
    assert len(schedule.sigmas) == (11 if name == "heun" else 6)
    other, _ = levels_of(registry.find("scheduler", name)(1.0), 6, chance())
    assert schedule.sigmas[3] > other.sigmas[3]  # its shift


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["noise_minus_clean", "clean_minus_noise"])
def test_a_pipeline_samples_with_it_alike_each_time_whichever_way_the_flow_points(name: str, kind: str):
    clip, model = small_clip(), small_model(flow_target=kind)
    scheduler = registry.find("scheduler", name)(3.0)

    def made(seed: int = 0) -> Any:
        pipe = HydraPipeline(model, scheduler)
        pipe.set_progress_bar_config(disable=True)
        return pipe(
            camera=clip["camera"], prompt_embeds=clip["encoder_hidden_states"], num_frames=TARGET, guidance_scale=1.0,
            context_latents=clip["hidden_states"][:, :, :CONTEXT], num_inference_steps=4, generator=chance(seed),
        ).frames  # fmt: skip

    first = made()
    assert first.isfinite().all()
    assert torch.equal(made(), first)
    assert not torch.equal(made(1), first)
    if kind == "clean_minus_noise":
        with torch.no_grad():
            for parameter in model.proj_out.parameters():
                parameter.neg_()
        model.register_to_config(flow_target="noise_minus_clean")
        assert torch.allclose(made(), first, rtol=0, atol=1e-9)


def test_euler_is_the_released_sampler_and_other_processes_are_refused():
    schedule, advance = levels_of(registry.find("scheduler", "euler")(5.0), 4, chance())
    assert advance is None
    assert torch.equal(schedule.sigmas, make_schedule(4, 5.0).sigmas)
    assert isinstance(registry.find("scheduler", "euler")(5.0), FlowMatchEulerDiscreteScheduler)
    for other in (DDIMScheduler(), UniPCMultistepScheduler()):
        with pytest.raises(ValueError, match="does not follow a flow"):
            levels_of(other, 4, chance())
