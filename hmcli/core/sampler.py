"""The denoising loop: steps along the predicted flow, guided by caption and by history.

Paper: docs/paper-map.md row "sampling". Known differences: docs/parity.md.
Shape letters here: B batch, C latent channels, Fc context frames, Ft target frames, h and w latent pixels, L text rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hmcli.core import caching
from hmcli.core.flow import TIMESTEP_SCALE, FlowSchedule, add_noise, euler_step, to_noise
from hmcli.core.inspection import CAPTION, NEGATIVE, sampling
from hmcli.core.memory import ContextMemory
from hmcli.core.retrieval import RetrievalInputs
from hmcli.core.schedulers import Advance
from hmcli.core.transformer import HydraTransformer3DModel

NO_HISTORY = "no history"  # the branch of guidance whose context is masked by noise
SOME_HISTORY = "some history"  # the one whose context has some noise: its coarse shapes are left
TOGETHER = "together"  # all branches in one run of the model
AfterStep = Callable[
    [int, Tensor], Tensor | None
]  # number of the step, target latents after it -> others to go on with


def start_noise(
    shape: tuple[int, ...],
    generator: torch.Generator | Sequence[torch.Generator],
    device: torch.device | str = "cpu",
) -> Tensor:
    """Normal noise, drawn in float32 on the generator's device so that every device starts alike.

    Of several generators each draws the noise of its own sample, as it would alone.
    """
    if isinstance(generator, torch.Generator):
        return torch.randn(shape, generator=generator, device=generator.device).to(device)
    if len(generator) != shape[0]:
        raise ValueError(f"{len(generator)} generators for {shape[0]} samples: give one, or one for each")
    return torch.cat([start_noise((1, *shape[1:]), of, device) for of in generator])


def sample(
    model: HydraTransformer3DModel,
    *,
    generator: torch.Generator | Sequence[torch.Generator],
    frames: int,
    size: tuple[int, int],
    camera: Tensor,
    context: Tensor | None = None,
    history_guidance: float = 1.0,
    device: torch.device | None = None,
    **denoising: Any,
) -> Tensor:
    """Target latents (B, C, `frames`, h, w) from noise: what every caller that wants a video goes through.

    `size` is (h, w) in latent pixels. Noise is drawn first, then that of masked history; latents are float32 at least
    in the loop, whatever the model computes in, on the model's device unless told otherwise (offloaded weights lie
    elsewhere). The rest is handed to `denoise`.
    """
    precise, device = torch.promote_types(model.dtype, torch.float32), device or model.device
    shape = (camera.shape[0], model.config.in_channels, frames, *size)
    noise = start_noise(shape, generator, device).to(precise)
    history_noise = None
    if history_guidance != 1 and context is not None:
        history_noise = start_noise(tuple(context.shape), generator, device).to(precise)
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
    history_level: float = 0.0,
    together: bool = False,
    advance: Advance | None = None,
    after_step: AfterStep | None = None,
) -> Tensor:
    """Turn target noise (B, C, Ft, h, w) into clean target latents.

    The past comes as `context` latents (B, C, Fc, h, w) or, for frozen models, as `memory`; `camera` (B, Fc + Ft, 12)
    covers context and target, or the target alone beside `memory`. A frozen model runs its context once for all steps
    and both branches. `text` and `negative_text` are (B, L, D); `guidance` above 1 needs the negative one:
    flow = negative + guidance * (positive - negative). `history_guidance` above 1 needs a joint model trained with
    noise per frame, and adds (history_guidance - 1) * (positive - without): the branch without history sees
    `history_noise` (shaped as the context) where the context was. `history_level` above 0 makes that fractional: what
    is added is (history_guidance - 1) * (some - without), where `some` sees the context with this share of that noise.
    With `together` all branches are one run of the
    model, which takes their memory at once and rounds otherwise. `advance` takes
    each step instead of Euler's rule (hmcli.core.schedulers); `after_step` sees the target after every step.
    """
    if guidance != 1 and negative_text is None:
        raise ValueError(f"sample.guidance={guidance} needs the embedding of a negative caption")
    if context is not None and memory is not None:
        raise ValueError("context latents and a context memory both bring the past: give one of them")
    if history_level and (history_guidance == 1 or not 0 < history_level < 1):
        raise ValueError(f"history_level={history_level} lies between 0 and 1, and needs history_guidance above 1")
    if history_guidance != 1:
        _check_history(model, history_guidance, context, history_noise)
    if context is not None and model.config.context == "frozen":
        frames = context.shape[2]
        memory = model.encode_context(context, camera[:, :frames], retrieval)
        context, camera = None, camera[:, frames:]
    branches = [_Branch(name=CAPTION, text=text, past=context)]
    if guidance != 1 and negative_text is not None:
        branches.append(_Branch(name=NEGATIVE, text=negative_text, past=context))
    if history_guidance != 1:
        branches.append(_Branch(name=NO_HISTORY, text=text, past=history_noise, level=1.0))
    if history_guidance != 1 and history_level and context is not None and history_noise is not None:
        some = add_noise(context.to(history_noise), history_noise, torch.full((len(context),), history_level))
        branches.append(_Branch(name=SOME_HISTORY, text=text, past=some, level=history_level))
    asking = _Asking(
        model=model, schedule=schedule, camera=camera, memory=memory, retrieval=retrieval, branches=tuple(branches)
    )
    if together and len(branches) > 1:
        asking = asking.together()

    caching.start(model)
    latents = noise
    for step, sigma in enumerate(schedule.sigmas):
        flows = asking.flows(latents, step)
        flow = positive = flows[CAPTION]
        if guidance != 1:
            flow = flows[NEGATIVE] + guidance * (positive - flows[NEGATIVE])
        if history_guidance != 1:
            flow = flow + (history_guidance - 1) * (flows.get(SOME_HISTORY, positive) - flows[NO_HISTORY])
        kind = model.config.flow_target
        if advance is None:
            latents = euler_step(latents, flow, sigma, schedule.next_sigma(step), kind)
        else:
            latents = advance(latents, to_noise(flow, kind), step)
        if after_step is not None and (others := after_step(step, latents)) is not None:
            latents = others
    return latents


@dataclass(frozen=True, kw_only=True)
class _Branch:
    """One of the flows that guidance compares."""

    name: str
    text: Tensor  # (B, L, D)
    past: Tensor | None  # frames before the target, (B, C, Fc, h, w)
    level: float = 0.0  # share of noise in them


@dataclass(frozen=True, kw_only=True)
class _Asking:
    """What the model is given at every step of one denoising."""

    model: HydraTransformer3DModel
    schedule: FlowSchedule
    camera: Tensor
    memory: ContextMemory | None
    retrieval: RetrievalInputs | None
    branches: tuple[_Branch, ...]
    at_once: bool = False

    def together(self) -> _Asking:
        """The same with one run for all branches: everything that they share is there once for each."""
        times, retrieval = len(self.branches), self.retrieval
        if retrieval is not None and isinstance(retrieval.generator, torch.Generator):
            if len(self.camera) > 1:
                raise ValueError("branches of several samples choose alike only with a retrieval generator for each")
            retrieval = replace(retrieval, generator=[retrieval.generator])
        return replace(
            self, camera=self.camera.repeat(times, 1, 1), at_once=True,
            memory=None if self.memory is None else self.memory.repeated(times),
            retrieval=None if retrieval is None else retrieval.repeated(times),
        )  # fmt: skip

    def flows(self, latents: Tensor, step: int) -> dict[str, Tensor]:
        """The flow of the target in every branch, by its name."""
        if not self.at_once:
            return {of.name: self._run(latents, step, of.name, (of,)) for of in self.branches}
        whole = self._run(latents, step, TOGETHER, self.branches)
        return {of.name: flow for of, flow in zip(self.branches, whole.chunk(len(self.branches)), strict=True)}

    def _run(self, latents: Tensor, step: int, name: str, branches: tuple[_Branch, ...]) -> Tensor:
        """One run of the model, for these branches one after the other."""
        model, level = self.model, self.schedule.timesteps[step]
        wholes = [latents if of.past is None else torch.cat([of.past.to(latents), latents], dim=2) for of in branches]
        frames = wholes[0].shape[2] - latents.shape[2]
        times = [model_timestep(model, level, wholes[0].shape, frames, past=of.level) for of in branches]
        at = (step, len(self.schedule.sigmas), self.schedule.sigmas[step])
        with sampling(step, name), caching.branch(model, name, *at):
            flow = model(
                _all(wholes), _all(times).to(latents.device), _all([of.text for of in branches]), self.camera, frames,
                self.retrieval, self.memory, return_dict=False,
            )[0]  # fmt: skip
        return flow[:, :, frames:]


def _all(parts: list[Tensor]) -> Tensor:
    """One after the other along the batch; a single one as it is."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def model_timestep(
    model: HydraTransformer3DModel, timestep: Tensor, shape: torch.Size, frames: int, *, past: float = 0.0
) -> Tensor:
    """What a model reads when the target of latents of this shape, after `frames` context frames, is at `timestep`.

    (B,), the same for all frames; for a joint model trained with noise per frame (B, F), its context being at 0, or,
    with a share `past` of noise, at 1000 times that.
    """
    if not frames or model.config.flow_noise == "shared":
        return timestep.expand(shape[0])
    level = TIMESTEP_SCALE * past
    return torch.cat([timestep.new_full((frames,), level), timestep.expand(shape[2] - frames)]).expand(shape[0], -1)


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
