"""HydraPipeline: the parts of a checkpoint as one diffusers pipeline (`model_index.json` and a folder per part).

It is the one way to sample: `hm generate` goes through it too, and from the same generator state it makes the same
latents. Letters of shapes: B clips, C latent channels, F latent frames, Fc of the context, h and w latent pixels,
T video frames, L text rows, D their width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from diffusers import SchedulerMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import BaseOutput, logging
from PIL import Image
from torch import Tensor, nn

from hmcli import registry
from hmcli.aligned import own_weights
from hmcli.contracts import VideoCodec
from hmcli.core import caching
from hmcli.core.loading import own_fetched_weights
from hmcli.core.memory import ContextMemory
from hmcli.core.retrieval import RetrievalInputs
from hmcli.core.sampler import sample
from hmcli.core.schedulers import levels_of
from hmcli.core.transformer import HydraTransformer3DModel
from hmcli.errors import ran_out

OutputType = Literal["latent", "uint8", "np", "pt", "pil"]
StepEnd = Callable[["HydraPipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor]]
logger = logging.get_logger(__name__)


@dataclass
class HydraPipelineOutput(BaseOutput):
    """What a pipeline returns."""

    frames: Any  # latents or videos, as `output_type` says


class HydraPipeline(DiffusionPipeline):
    """Transformer, VAE and scheduler (flow Euler, or another of hmcli.core.schedulers); embeddings of text are given.

    The module path of the transformer stands in every saved `model_index.json`, so it does not move.
    """

    transformer: HydraTransformer3DModel
    scheduler: Any
    model_cpu_offload_seq = "text_encoder->transformer->vae"  # type: ignore[assignment]
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012  (diffusers' convention)
    _optional_components = ["vae", "text_encoder", "tokenizer"]  # noqa: RUF012  (diffusers' convention)

    def __init__(
        self,
        transformer: HydraTransformer3DModel,
        scheduler: SchedulerMixin,
        vae: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            transformer=transformer, scheduler=scheduler, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer
        )

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """diffusers' own; on the CPU the weights of every part end in memory of their own (hmcli.aligned)."""
        loaded = super().from_pretrained(*args, **kwargs)
        for part in (loaded.vae, loaded.text_encoder):  # the transformer sees to its own
            if isinstance(part, nn.Module):
                own_weights(part)
        return loaded

    def enable_group_offload(self, *args: Any, **kwargs: Any) -> None:
        """diffusers' own; what a part fetches from disk ends in memory of its own."""
        super().enable_group_offload(*args, **kwargs)
        for part in self.components.values():
            if isinstance(part, nn.Module):
                own_fetched_weights(part)

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents (B, C, F, h, w) -> pixels (B, T, H, W, 3) uint8 on the CPU, T = 1 + 4 (F - 1)."""
        if self.vae is None:
            raise ValueError("this pipeline has no VAE: give it one (vae=), or take latents (output_type='latent')")
        caching.fetch(self.vae)
        codec: VideoCodec = registry.find("vae", type(self.vae).__name__)(self.vae, self._execution_device)
        pixels = torch.cat([codec.decode(one[None].float()) for one in latents])
        return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().movedim(1, -1).cpu()

    @torch.no_grad()
    def __call__(
        self,
        *,
        camera: Tensor,
        prompt_embeds: Tensor,
        num_frames: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
        context_latents: Tensor | None = None,
        memory: ContextMemory | None = None,
        size: tuple[int, int] | None = None,
        negative_prompt_embeds: Tensor | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 5.0,
        history_guidance_scale: float = 1.0,
        history_level: float = 0.0,
        retrieval: RetrievalInputs | None = None,
        together: bool = False,
        output_type: OutputType = "latent",
        return_dict: bool = True,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> HydraPipelineOutput | tuple[Any]:
        """Videos of `num_frames` latent frames: targets that go on from their context along their cameras.

        The past comes as `context_latents` (B, C, Fc, h, w), or as `memory` of a frozen model with the latent `size`
        (h, w); `camera` (B, F, 12) covers context and target, or the target alone beside `memory`; `retrieval` is what
        the memory policy needs. Text is (B, L, D). One generator draws the noise of all B clips, a list that of each as
        it would be alone; None: seeded from torch's own, which `torch.manual_seed` sets. With `together` both guidance
        branches are one run of the model where memory allows, else, which is said, one after the other.
        `callback_on_step_end(pipeline, step, timestep, {"latents": ...})` may return other latents to go on with.
        `output_type`: "latent" (B, C, num_frames, h, w), float32 at least; "uint8", "np" or "pt" (floats in [0, 1], (B,
        T, H, W, 3) or for "pt" (B, T, 3, H, W)), "pil" lists of pictures. The rest is handed to
        `hmcli.core.sampler.denoise`.
        """
        _check_outputs(output_type, callback_on_step_end_tensor_inputs)
        if context_latents is not None:
            size = (context_latents.shape[3], context_latents.shape[4])
        if size is None:
            raise ValueError("without context_latents the latent size (h, w) is needed")
        if generator is None:
            generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        device = self._execution_device
        timesteps = levels_of(self.scheduler, num_inference_steps, generator)[0].timesteps
        with self.progress_bar(total=len(timesteps)) as bar:

            def after_step(step: int, latents: Tensor) -> Tensor | None:
                bar.update()
                if callback_on_step_end is None:
                    return None
                given = {"latents": latents} if callback_on_step_end_tensor_inputs else {}
                return callback_on_step_end(self, step, timesteps[step], given).get("latents")

            latents = self._sampled(
                together, generator, num_inference_steps, frames=num_frames, size=size, camera=camera.to(device),
                text=prompt_embeds.to(device), negative_text=_to(negative_prompt_embeds, device),
                guidance=guidance_scale, context=_to(context_latents, device), memory=memory, retrieval=retrieval,
                history_guidance=history_guidance_scale, history_level=history_level,
                after_step=after_step, device=device,
            )  # fmt: skip
        frames = latents if output_type == "latent" else pictures(self.decode(latents), output_type)
        self.maybe_free_model_hooks()
        return HydraPipelineOutput(frames=frames) if return_dict else (frames,)

    def _sampled(
        self, together: bool, generator: torch.Generator | list[torch.Generator], steps: int, **given: Any
    ) -> Tensor:
        """Target latents; where one run for all branches does not fit into memory, from the same noise with several."""
        drawn = [generator] if isinstance(generator, torch.Generator) else generator
        states = [one.get_state() for one in drawn]

        def made(at_once: bool) -> Tensor:
            schedule, advance = levels_of(self.scheduler, steps, generator)
            return sample(
                self.transformer, generator=generator, schedule=schedule, advance=advance, together=at_once, **given
            )

        try:
            return made(together)
        except (MemoryError, RuntimeError) as error:
            if not (together and ran_out(error)):
                raise
        logger.warning("guidance branches do not fit into memory together: they run one after the other")
        for one, state in zip(drawn, states, strict=True):
            one.set_state(state)
        return made(False)


def pictures(pixels: Tensor, kind: OutputType) -> Any:
    """(B, T, H, W, 3) uint8 in the form asked for (see `HydraPipeline.__call__`)."""
    if kind == "pil":
        return [[Image.fromarray(frame) for frame in video] for video in pixels.numpy()]
    if kind == "uint8":
        return pixels.numpy()
    floats = pixels.float() / 255
    return floats.numpy() if kind == "np" else floats.movedim(-1, 2)


def _to(value: Tensor | None, device: torch.device) -> Tensor | None:
    return None if value is None else value.to(device)


def _check_outputs(output_type: str, inputs: Sequence[str]) -> None:
    if output_type not in get_args(OutputType):
        raise ValueError(f"output_type={output_type!r}: known are {', '.join(get_args(OutputType))}")
    if unknown := set(inputs) - {"latents"}:
        raise ValueError(f"a callback can be given latents, not {', '.join(sorted(unknown))}")
