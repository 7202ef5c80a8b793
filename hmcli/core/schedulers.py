"""From noise to clean latents: flow Euler as released, or a flow scheduler of diffusers.

Each function of `hmcli.registry`, kind scheduler, makes one for a shift of the noise levels. A scheduler of diffusers
has levels of its own; the model is told the noise that there really is (1000 * sigma), not the rounded timestep.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import diffusers
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from hmcli.core.flow import TIMESTEP_SCALE, FlowSchedule, make_schedule

Advance = Callable[[Tensor, Tensor, int], Tensor]  # latents, their flow to noise, number of the step -> next latents
Chance = torch.Generator | Sequence[torch.Generator]


def euler(shift: float) -> Any:
    """First order along the predicted flow, as HyDRA samples."""
    make: Any = FlowMatchEulerDiscreteScheduler
    return make(shift=shift)


def heun(shift: float) -> Any:
    """Second order; two runs of the model for every step but the last."""
    return diffusers.FlowMatchHeunDiscreteScheduler(shift=shift)


def lcm(shift: float) -> Any:
    """Clean latents are predicted and noised anew at every step: for models distilled to few steps."""
    return diffusers.FlowMatchLCMScheduler(shift=shift)


def _flow(name: str, shift: float, **more: Any) -> Any:
    """A scheduler that also knows other processes than flow matching."""
    return getattr(diffusers, name)(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, num_train_timesteps=1000, **more
    )


def unipc(shift: float) -> Any:
    """UniPC, second order, which Wan's pipelines use."""
    return _flow("UniPCMultistepScheduler", shift)


def dpm(shift: float) -> Any:
    """DPM-Solver++, multistep."""
    return _flow("DPMSolverMultistepScheduler", shift)


def levels_of(scheduler: Any, steps: int, generator: Chance) -> tuple[FlowSchedule, Advance | None]:
    """Noise levels at which the model runs, and how latents go on from each; None: by the sampler's own Euler step.

    A scheduler that keeps a state does so in a copy, for one denoising; one that draws noise draws from `generator`.
    Raises ValueError for a scheduler that is not of flow matching.
    """
    settings = scheduler.config
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return make_schedule(steps, settings.shift), None
    if not (type(scheduler).__name__.startswith("FlowMatch") or settings.get("use_flow_sigmas")):
        raise ValueError(f"{type(scheduler).__name__} as it is set does not follow a flow: use_flow_sigmas is off")
    own = copy.deepcopy(scheduler)
    with warnings.catch_warnings():  # diffusers hands tensors to numpy in a way that numpy 2 deprecates
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        own.set_timesteps(steps)
    times, sigmas = own.timesteps, own.sigmas[: len(own.timesteps)].float().cpu()
    chance = {"generator": generator} if "generator" in inspect.signature(own.step).parameters else {}

    def advance(latents: Tensor, flow: Tensor, step: int) -> Tensor:
        moved: Tensor = own.step(flow.to(latents.dtype), times[step], latents, return_dict=False, **chance)[0]
        return moved.to(latents)

    schedule = FlowSchedule(sigmas=sigmas, timesteps=sigmas * TIMESTEP_SCALE, weights=torch.ones_like(sigmas))
    return schedule, advance
