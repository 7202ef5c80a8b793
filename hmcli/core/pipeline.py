"""HydraPipeline: the parts of a checkpoint as one diffusers pipeline (`model_index.json` and a folder per part)."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from hmcli.aligned import own_weights
from hmcli.core.flow import make_schedule
from hmcli.core.loading import own_fetched_weights
from hmcli.core.memory import ContextMemory
from hmcli.core.retrieval import RetrievalInputs
from hmcli.core.sampler import sample
from hmcli.core.transformer import HydraTransformer3DModel


class HydraPipeline(DiffusionPipeline):
    """Transformer, VAE and schedule (its shift); the text encoder may be left to a reference elsewhere.

    The module path of the transformer stands in every saved `model_index.json`, so it does not move.
    """

    transformer: HydraTransformer3DModel
    scheduler: Any
    model_cpu_offload_seq = "text_encoder->transformer->vae"  # type: ignore[assignment]
    _optional_components = ["vae", "text_encoder", "tokenizer"]  # noqa: RUF012  (diffusers' convention)

    def __init__(
        self,
        transformer: HydraTransformer3DModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
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

    @torch.no_grad()
    def __call__(
        self,
        *,
        camera: Tensor,
        prompt_embeds: Tensor,
        generator: torch.Generator,
        num_frames: int,
        context_latents: Tensor | None = None,
        memory: ContextMemory | None = None,
        size: tuple[int, int] | None = None,
        negative_prompt_embeds: Tensor | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 5.0,
        history_guidance_scale: float = 1.0,
        retrieval: RetrievalInputs | None = None,
    ) -> Tensor:
        """Target latents (B, C, num_frames, h, w), normalised as the context latents are.

        The past comes as `context_latents` (B, C, Fc, h, w), or as `memory` of a frozen model with the latent `size`
        (h, w); `camera` covers context and target, or the target alone beside `memory`; `retrieval` is what the memory
        policy needs. The rest as in `hmcli.core.sampler.denoise`, through which `hm generate` goes too: given the same
        generator state, it makes the same latents.
        """
        if context_latents is not None:
            size = (context_latents.shape[3], context_latents.shape[4])
        if size is None:
            raise ValueError("without context_latents the latent size (h, w) is needed")
        with self.progress_bar(total=num_inference_steps) as bar:
            return sample(
                self.transformer, generator=generator, frames=num_frames, size=size,
                schedule=make_schedule(num_inference_steps, self.scheduler.config.shift), camera=camera,
                text=prompt_embeds, negative_text=negative_prompt_embeds, guidance=guidance_scale,
                context=context_latents, memory=memory, retrieval=retrieval, history_guidance=history_guidance_scale,
                after_step=lambda _step, _latents: bar.update(),
            )  # fmt: skip
