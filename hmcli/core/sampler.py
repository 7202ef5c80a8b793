"""The denoising loop: Euler steps along the predicted flow, guided by caption and by history.

Paper: docs/paper-map.md row "sampling". Known differences: docs/parity.md.
Shape letters here: B batch, C latent channels, Fc context frames, Ft target frames, h and w latent pixels, L text rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hmcli.core import caching
from hmcli.core.flow import TIMESTEP_SCALE, FlowSchedule, euler_step
from hmcli.core.inspection import CAPTION, NEGATIVE, sampling
from hmcli.core.memory import ContextMemory
from hmcli.core.retrieval import RetrievalInputs
from hmcli.core.transformer import HydraTransformer3DModel

NO_HISTORY = "no history"  # the branch of guidance whose context is masked by noise
AfterStep = Callable[[int, Tensor], None]  # number of the step, target latents after it


def start_noise(shape: tuple[int, ...], generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """Normal noise, drawn in float32 on the generator's device so that every device starts alike."""
    return torch.randn(shape, generator=generator, device=generator.device).to(device)


def sample(
    model: HydraTransformer3DModel,
    *,
    generator: torch.Generator,
    frames: int,
    size: tuple[int, int],
    camera: Tensor,
    context: Tensor | None = None,
    history_guidance: float = 1.0,
    **denoising: Any,
) -> Tensor:
    """Target latents (B, C, `frames`, h, w) from noise: what every caller that wants a video goes through.

    `size` is (h, w) in latent pixels. Noise is drawn first, then that of masked history; latents are float32 at least
    in the loop, whatever the model computes in. The rest is handed to `denoise`.
    """
    precise = torch.promote_types(model.dtype, torch.float32)
    shape = (camera.shape[0], model.config.in_channels, frames, *size)
    noise = start_noise(shape, generator, model.device).to(precise)
    history_noise = None
    if history_guidance != 1 and context is not None:
        history_noise = start_noise(tuple(context.shape), generator, model.device).to(precise)
    return denoise(
        model, noise, camera=camera, context=context, history_guidance=history_guidance, history_noise=history_noise,
        **denoising,
    )  # fmt: skip


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
    history_guidance: float = 1.0,
    history_noise: Tensor | None = None,
    after_step: AfterStep | None = None,
) -> Tensor:
    """Turn target noise (B, C, Ft, h, w) into clean target latents.

    The past comes as `context` latents (B, C, Fc, h, w) or, for frozen models, as `memory`; `camera` (B, Fc + Ft, 12)
    covers context and target, or the target alone beside `memory`. A frozen model runs its context once for all steps
    and both branches. `text` and `negative_text` are (B, L, D); `guidance` above 1 needs the negative one:
    flow = negative + guidance * (positive - negative). `history_guidance` above 1 needs a joint model trained with
    noise per frame, and adds (history_guidance - 1) * (positive - without): the branch without history sees
    `history_noise` (shaped as the context) where the context was. `after_step` sees the target after every step.
    """
    if guidance != 1 and negative_text is None:
        raise ValueError(f"sample.guidance={guidance} needs the embedding of a negative caption")
    if context is not None and memory is not None:
        raise ValueError("context latents and a context memory both bring the past: give one of them")
    if history_guidance != 1:
        _check_history(model, history_guidance, context, history_noise)
    frames = 0 if context is None else context.shape[2]
    if context is not None and model.config.context == "frozen":
        memory = model.encode_context(context, camera[:, :frames], retrieval)
        context, camera, frames = None, camera[:, frames:], 0

    def predict(latents: Tensor, step: int, branch: str) -> Tensor:
        words = negative_text if branch == NEGATIVE and negative_text is not None else text
        past = history_noise if branch == NO_HISTORY else context
        whole = latents if past is None else torch.cat([past.to(latents), latents], dim=2)
        timestep = model_timestep(model, schedule.timesteps[step], whole.shape, frames, masked=branch == NO_HISTORY)
        at = (step, len(schedule.sigmas), schedule.sigmas[step])
        with sampling(step, branch), caching.branch(model, branch, *at):
            flow = model(
                whole, timestep.to(latents.device), words, camera, frames, retrieval, memory, return_dict=False
            )[0]
        return flow[:, :, frames:]

    caching.start(model)
    latents = noise
    for step, sigma in enumerate(schedule.sigmas):
        flow = positive = predict(latents, step, CAPTION)
        if guidance != 1:
            negative = predict(latents, step, NEGATIVE)
            flow = negative + guidance * (positive - negative)
        if history_guidance != 1:
            flow = flow + (history_guidance - 1) * (positive - predict(latents, step, NO_HISTORY))
        latents = euler_step(latents, flow, sigma, schedule.next_sigma(step), model.config.flow_target)
        if after_step is not None:
            after_step(step, latents)
    return latents


def model_timestep(
    model: HydraTransformer3DModel, timestep: Tensor, shape: torch.Size, frames: int, *, masked: bool = False
) -> Tensor:
    """What a model reads when the target of latents of this shape, after `frames` context frames, is at `timestep`.

    (B,), the same for all frames; for a joint model trained with noise per frame (B, F), its context being at 0, or,
    when masked by noise, at the noisiest.
    """
    if not frames or model.config.flow_noise == "shared":
        return timestep.expand(shape[0])
    past = TIMESTEP_SCALE if masked else 0.0
    return torch.cat([timestep.new_full((frames,), past), timestep.expand(shape[2] - frames)]).expand(shape[0], -1)


def _check_history(
    model: HydraTransformer3DModel, weight: float, context: Tensor | None, history_noise: Tensor | None
) -> None:
    """Raise ValueError where the flow without history is not what the model has learned, or cannot be asked for."""
    if model.config.context != "joint" or model.config.flow_noise != "per-frame":
        raise ValueError(
            f"sample.history_guidance={weight} needs a joint model trained with flow.noise=per-frame, this one is "
            f"{model.config.context} and was trained with {model.config.flow_noise} noise"
        )
    if context is None or history_noise is None or history_noise.shape != context.shape:
        raise ValueError(f"sample.history_guidance={weight} needs context latents, and history_noise of their shape")
