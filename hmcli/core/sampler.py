"""The denoising loop: Euler steps along the predicted flow, with guidance.

Paper: docs/paper-map.md row "sampling". Known differences: docs/parity.md.
Shape letters here: B batch, C latent channels, Fc context frames, Ft target frames, h and w latent pixels, L text rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hmcli.core.flow import FlowSchedule, euler_step
from hmcli.core.memory import ContextMemory
from hmcli.core.retrieval import RetrievalInputs
from hmcli.core.transformer import HydraTransformer3DModel

AfterStep = Callable[[int, Tensor], None]  # number of the step, target latents after it


def start_noise(shape: tuple[int, ...], generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """Normal noise, drawn in float32 on the generator's device so that every device starts alike."""
    return torch.randn(shape, generator=generator, device=generator.device).to(device)


@torch.no_grad()
def denoise(
    model: HydraTransformer3DModel,
    noise: Tensor,
    *,
    schedule: FlowSchedule,
    camera: Tensor,
    text: Tensor,
    negative_text: Tensor | None = None,
    guidance: float = 1.0,
    context: Tensor | None = None,
    memory: ContextMemory | None = None,
    retrieval: RetrievalInputs | None = None,
    after_step: AfterStep | None = None,
) -> Tensor:
    """Turn target noise (B, C, Ft, h, w) into clean target latents.

    The past comes as `context` latents (B, C, Fc, h, w) or, for frozen models, as `memory`; `camera` (B, Fc + Ft, 12)
    covers context and target, or the target alone beside `memory`. A frozen model runs its context once for all steps
    and both branches. `text` and `negative_text` are (B, L, D); `guidance` above 1 needs the negative one:
    flow = negative + guidance * (positive - negative). `after_step` sees the target latents after every step.
    """
    if guidance != 1 and negative_text is None:
        raise ValueError(f"sample.guidance={guidance} needs the embedding of a negative caption")
    if context is not None and memory is not None:
        raise ValueError("context latents and a context memory both bring the past: give one of them")
    frames = 0 if context is None else context.shape[2]
    if context is not None and model.config.context == "frozen":
        memory = model.encode_context(context, camera[:, :frames], retrieval)
        context, camera, frames = None, camera[:, frames:], 0

    def predict(latents: Tensor, timestep: Tensor, words: Tensor) -> Tensor:
        whole = latents if context is None else torch.cat([context.to(latents), latents], dim=2)
        flow = model(whole, timestep, words, camera, frames, retrieval, memory, return_dict=False)[0]
        return flow[:, :, frames:]

    latents = noise
    for step, sigma in enumerate(schedule.sigmas):
        timestep = schedule.timesteps[step].to(latents.device).expand(latents.shape[0])
        flow = predict(latents, timestep, text)
        if guidance != 1 and negative_text is not None:
            negative = predict(latents, timestep, negative_text)
            flow = negative + guidance * (flow - negative)
        latents = euler_step(latents, flow, sigma, schedule.next_sigma(step), model.config.flow_target)
        if after_step is not None:
            after_step(step, latents)
    return latents
