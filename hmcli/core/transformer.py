"""The diffusion transformer with hybrid memory: the whole architecture, one screen after another.

Paper: section "Model" of docs/paper-map.md. Known differences: docs/parity.md.
Shape letters here: B batch, F latent frames, R rows and K columns in patch tokens, P = R * K, C model channels,
L text rows. Parameter names are those of diffusers' Wan transformer, plus `camera`, `projector` and `tokenizer`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin, FeedForward
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.embeddings import PixArtAlphaTextProjection, TimestepEmbedding
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor
from torch import Tensor, nn

from hmcli import registry
from hmcli.core import backends, caching
from hmcli.core.attention import HydraAttention, RMSNorm
from hmcli.core.camera import CAMERA_ROW, CameraEncoder
from hmcli.core.compiled import plain
from hmcli.core.flow import flow_to
from hmcli.core.loading import AlignedLoading
from hmcli.core.memory import BlockMemory, ContextMemory, absolute_times, kernel_in_tokens
from hmcli.core.retrieval import Policy, RetrievalInputs, check_inputs
from hmcli.core.rope import axis_split
from hmcli.core.stretch import Part, Stretch, make_stretch
from hmcli.errors import DataError

PutAway = Callable[[int, BlockMemory], BlockMemory]


def sinusoid(timestep: Tensor, channels: int) -> Tensor:
    """Cosines, then sines, of the timestep at geometric frequencies; (...,) -> (..., channels) float64."""
    half = channels // 2
    frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=timestep.device) / half)
    angle = timestep.double()[..., None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class ConditionEmbedder(nn.Module):
    """Timestep and text as the blocks read them."""

    def __init__(self, dim: int, freq_dim: int, text_dim: int) -> None:
        super().__init__()
        self.freq_dim = freq_dim
        self.time_embedder = TimestepEmbedding(in_channels=freq_dim, time_embed_dim=dim)
        self.time_proj = nn.Linear(dim, 6 * dim)
        self.text_embedder = PixArtAlphaTextProjection(text_dim, dim, act_fn="gelu_tanh")

    def forward(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Timesteps (B,) or (B, F) -> embedding (B, F or 1, C) and six modulations of a block (B, F or 1, 6, C)."""
        per_frame = timestep if timestep.ndim == 2 else timestep[:, None]
        waves = sinusoid(per_frame, self.freq_dim).to(self.time_proj.weight.dtype)
        embedding = self.time_embedder(waves)
        return embedding, self.time_proj(nn.functional.silu(embedding)).unflatten(-1, (6, -1))


class HydraBlock(nn.Module):
    """Self-attention over window and memory, cross-attention to text, feed-forward; modulated by the timestep."""

    def __init__(self, dim: int, ffn_dim: int, eps: float, attention: HydraAttention) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps, elementwise_affine=False)
        self.camera = CameraEncoder(dim)
        self.attn1 = attention
        self.projector = nn.Linear(dim, dim)
        nn.init.eye_(self.projector.weight)
        nn.init.zeros_(self.projector.bias)
        self.norm2 = nn.LayerNorm(dim, eps, elementwise_affine=True)
        self.attn2 = WanAttention(
            dim, attention.heads, dim // attention.heads, eps=eps, cross_attention_dim_head=dim // attention.heads,
            processor=WanAttnProcessor(),
        )  # fmt: skip
        self.attn2.norm_q, self.attn2.norm_k = (RMSNorm(dim, eps=eps) for _ in range(2))
        self.norm3 = nn.LayerNorm(dim, eps, elementwise_affine=False)
        self.ffn = FeedForward(dim, inner_dim=ffn_dim, activation_fn="gelu-approximate")
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(
        self, x_BFPC: Tensor, text_BLC: Tensor | None, modulation_BF6C: Tensor, stretch: Stretch
    ) -> Tensor | tuple[Tensor, BlockMemory | None]:
        """One block; without text cross-attention is skipped. Of frozen context also returns what memory keeps."""
        table_BF61C = (self.scale_shift_table + modulation_BF6C).unsqueeze(-2)
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = table_BF61C.unbind(dim=2)

        y = self.norm1(x_BFPC) * (1 + scale) + shift
        y = y + self.camera(stretch.camera_BFR, stretch.num_context).unsqueeze(2)
        y, kept = self.attn1(y, stretch)
        x_BFPC = x_BFPC + gate * self.projector(y)

        if text_BLC is not None:
            tokens_BNC = self.norm2(x_BFPC).flatten(1, 2)
            x_BFPC = x_BFPC + self.attn2(tokens_BNC, text_BLC).unflatten(1, x_BFPC.shape[1:3])

        y = self.norm3(x_BFPC) * (1 + ffn_scale) + ffn_shift
        x_BFPC = x_BFPC + ffn_gate * self.ffn(y)
        return (x_BFPC, kept) if stretch.part == "context" else x_BFPC


class HydraTransformer3DModel(AlignedLoading, ModelMixin, ConfigMixin, PeftAdapterMixin, CacheMixin, AttentionMixin):  # type: ignore[misc]
    """Predicts the flow of target latents from context latents, cameras and text, through hybrid memory."""

    config: Any  # a FrozenDict whose keys are attributes too
    _gradient_checkpointing_func: Any  # set by diffusers' enable_gradient_checkpointing
    _supports_gradient_checkpointing = True
    _no_split_modules = ["HydraBlock"]  # type: ignore[assignment]  # noqa: RUF012
    _repeated_blocks = ["HydraBlock"]  # noqa: RUF012
    _keep_in_fp32_modules = None  # one dtype throughout: float64 runs stay float64, and `.to` agrees with loading
    _skip_layerwise_casting_patterns = ["patch_embedding", "condition_embedder", "norm"]  # type: ignore[assignment]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        num_layers: int = 30,
        num_attention_heads: int = 12,
        attention_head_dim: int = 128,
        ffn_dim: int = 8960,
        freq_dim: int = 256,
        text_dim: int = 4096,
        in_channels: int = 16,
        out_channels: int = 16,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        eps: float = 1e-6,
        policy: str = "affinity",  # a policy of hmcli.registry
        affinity: str = "pooled",  # pooled: released weights; spatial: Eq. 4
        context: str = "joint",  # joint: recomputed at every step; frozen: run once and kept
        top_k: int = 10,  # slots read by a query frame
        window: int = 5,  # latent frames read at full resolution
        kernel: tuple[int, int, int] = (2, 4, 4),  # tokenizer, time x height x width in latent pixels
        tokenizer: str = "conv",  # conv: torch's initialisation; mean: starts as an average
        spans: str = "exact",  # exact, or the released guess
        max_history: int = 0,  # frozen memory further back than this many latent frames sits here; 0: no limit
        flow_target: str = "noise_minus_clean",  # what is predicted; or clean_minus_noise, or clean latents
        flow_noise: str = "shared",  # trained with one noise level per clip; or one per frame (per-frame)
        positions: str = "screen",  # rotary rows and columns: of the screen; or of world rays (the others)
    ) -> None:
        super().__init__()
        _check_choices(
            affinity=affinity, context=context, spans=spans, flow_target=flow_target, flow_noise=flow_noise,
            positions=positions,
        )  # fmt: skip
        if patch_size[0] != 1:
            raise ValueError(f"model.patch={list(patch_size)}: must start with 1: latent frames are token frames")
        axis_split(attention_head_dim)
        dim = num_attention_heads * attention_head_dim
        patch = (patch_size[0], patch_size[1], patch_size[2])  # saved configurations bring lists
        self.kernel_tokens = kernel_in_tokens((kernel[0], kernel[1], kernel[2]), patch)
        self.policy: Policy = registry.find("policy", policy)

        self.patch_embedding = nn.Conv3d(in_channels, dim, patch, stride=patch)
        self.condition_embedder = ConditionEmbedder(dim, freq_dim, text_dim)
        self.blocks = nn.ModuleList()
        for block in range(num_layers):
            attention = HydraAttention(
                heads=num_attention_heads, head_dim=attention_head_dim, eps=eps, policy=self.policy,
                affinity=affinity, top_k=top_k, window=window, kernel=self.kernel_tokens, tokenizer=tokenizer,
                block=block, turns_values=positions == "relative-rays",
            )  # fmt: skip
            self.blocks.append(HydraBlock(dim, ffn_dim, eps, attention))
        self.norm_out = nn.LayerNorm(dim, eps, elementwise_affine=False)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)
        self.proj_out = nn.Linear(dim, out_channels * math.prod(patch_size))
        self.gradient_checkpointing = False

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        camera: Tensor,
        num_context_frames: int,
        retrieval: RetrievalInputs | None = None,
        memory: ContextMemory | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Predict the flow of every frame given, (B, C, F, h, w) like `hidden_states`, context frames first.

        `timestep` is (B,) or (B, F) on a scale of 0..1000; `camera` is (B, F, 12); text padding rows are zero and
        attended. A `frozen` model either computes its context here (with gradients; its flow is returned as zeros
        and its timesteps are not read, context runs at 0) or reads `memory` made by `encode_context`, then with
        `num_context_frames=0`. A `joint` model cannot read memory.
        """
        self._check_call(hidden_states, timestep, camera, num_context_frames, retrieval, memory)
        if num_context_frames == hidden_states.shape[2]:
            raise ValueError(f"all {num_context_frames} frames are context: there is no target to predict")
        text_BLC = self.condition_embedder.text_embedder(encoder_hidden_states.to(self.dtype))
        if self.config.context == "joint":
            stretch = self._stretch("joint", hidden_states, camera, num_context_frames, None, retrieval)
            flow = self._run(hidden_states, timestep, text_BLC, stretch)[0]
        else:
            n = num_context_frames
            if n and self.is_cache_enabled:
                raise ValueError("a cache skips blocks, frozen context runs whole: give memory made by encode_context")
            if n:
                memory = self.encode_context(hidden_states[:, :, :n], camera[:, :n], retrieval)
            target = hidden_states[:, :, n:]
            stretch = self._stretch("target", target, camera[:, n:], 0, memory, retrieval)
            flow = self._run(target, timestep[:, n:] if timestep.ndim == 2 else timestep, text_BLC, stretch)[0]
            if n:
                flow = torch.cat([flow.new_zeros((*flow.shape[:2], n, *flow.shape[3:])), flow], dim=2)
        return Transformer2DModelOutput(sample=flow) if return_dict else (flow,)

    def encode_context(
        self,
        latents: Tensor,
        camera: Tensor,
        retrieval: RetrievalInputs | None = None,
        put_away: PutAway | None = None,
    ) -> ContextMemory:
        """Run clean context latents (B, C, Fc, h, w) once, at timestep 0 and without text; keep what targets read.

        `camera` (B, Fc, 12) is relative to an anchor pose that the caller keeps beside the memory. `put_away` is given
        the number and the memory of every block as soon as it has run, and returns what is kept in memory of it.
        """
        if self.config.context != "frozen":
            raise ValueError(f"model.memory.context is {self.config.context!r}: only frozen models keep context memory")
        zero = torch.zeros(latents.shape[0], device=latents.device)
        self._check_call(latents, zero, camera, latents.shape[2], retrieval, None)
        stretch = self._stretch("context", latents, camera, latents.shape[2], None, retrieval)
        with caching.whole_run(self):
            _, blocks = self._run(latents, zero, None, stretch, put_away)
        slots = blocks[0].descriptors_BMC.shape[1]
        step = self.kernel_tokens
        return ContextMemory(
            blocks=blocks,
            span_M2=stretch.span_M2,
            time_M=absolute_times(slots, step[0], 0),
            camera_BMR=stretch.slot_camera_BMR,
            frame_camera_BAR=stretch.camera_BAR,
            grid=stretch.grid,
            slot_grid=(stretch.grid[0] // step[1], stretch.grid[1] // step[2]),
            num_context_frames=latents.shape[2],
        )

    def enable_cache(self, config: Any) -> None:
        """Skip blocks at some steps as one of diffusers' caches does; refuses those that cannot be right here."""
        super().enable_cache(caching.fitting_config(self, config))

    def set_attention(self, name: str, *, dtype: torch.dtype | None = None, backward: bool = False) -> str:
        """Compute attention by the kernel named (hmcli.core.backends), in self- and cross-attention; for a log, which.

        Call it where the model will run; `dtype` is what attention computes in (default: the model's). Raises
        UsageError when the kernel is unknown or cannot do it there.
        """
        place = (self.device, dtype or self.dtype, self.config.attention_head_dim)
        backends.check_backend(name, *place, backward=backward)
        blocks: Any = self.blocks
        for block in blocks:
            block.attn1.backend = name
            block.attn2.processor._attention_backend = backends.cross_attention_backend(name)
        return backends.described(name, *place)

    def _run(
        self,
        latents: Tensor,
        timestep: Tensor,
        text_BLC: Tensor | None,
        stretch: Stretch,
        put_away: PutAway | None = None,
    ) -> tuple[Tensor, tuple[BlockMemory, ...]]:
        """Patch, all blocks, head, unpatch; the flow is of no use for context (part "context")."""
        x_BFPC = self.patch_embedding(latents.to(self.dtype)).flatten(3).permute(0, 2, 3, 1)
        embedding_BFC, modulation_BF6C = self.condition_embedder(timestep)
        kept: list[BlockMemory] = []
        first: Any = self.blocks[0]
        first.attn1.plan(stretch)
        blocks: Any = self.blocks
        if stretch.part == "context" and not torch.is_grad_enabled():  # once, and the same whoever asks for its memory
            blocks = [plain(block) for block in blocks]
        for number, block in enumerate(blocks):
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                made = self._gradient_checkpointing_func(block, x_BFPC, text_BLC, modulation_BF6C, stretch)
            else:
                made = block(x_BFPC, text_BLC, modulation_BF6C, stretch)
            if stretch.part != "context":
                x_BFPC = made
                continue
            x_BFPC, keep = made
            kept.append(keep if put_away is None else put_away(number, keep))
        if stretch.part == "context":
            return latents[:, :, :0], tuple(kept)
        shift, scale = (self.scale_shift_table + embedding_BFC.unsqueeze(2)).unsqueeze(-2).unbind(dim=2)
        out = self.proj_out(self.norm_out(x_BFPC) * (1 + scale) + shift)
        predicted = self._unpatch(out, stretch.grid)
        return flow_to(predicted, latents, timestep) if self.config.flow_target == "clean" else predicted, ()

    def _unpatch(self, out_BFPC: Tensor, grid: tuple[int, int]) -> Tensor:
        """Channels of a token are (row, column, channel) of its patch: (B, F, P, .) -> (B, C, F, h, w)."""
        _, rows, columns = self.config.patch_size
        patches = out_BFPC.unflatten(2, grid).unflatten(-1, (rows, columns, -1))  # B F R K rows columns C
        return patches.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)

    def _stretch(
        self,
        part: Part,
        latents: Tensor,
        camera: Tensor,
        num_context: int,
        memory: ContextMemory | None,
        inputs: RetrievalInputs | None,
    ) -> Stretch:
        return make_stretch(
            part, latents, camera, num_context, memory, inputs,
            config=self.config, policy=self.policy, kernel=self.kernel_tokens, dtype=self.dtype,
        )  # fmt: skip

    def _check_call(
        self,
        latents: Tensor,
        timestep: Tensor,
        camera: Tensor,
        num_context: int,
        inputs: RetrievalInputs | None,
        memory: ContextMemory | None,
    ) -> None:
        """Raise ValueError for arguments that do not fit each other or this model."""
        B, channels, F, rows, columns = latents.shape
        _, patch_rows, patch_columns = self.config.patch_size
        if channels != self.config.in_channels:
            raise ValueError(f"latents have {channels} channels, the model takes {self.config.in_channels}")
        if rows % patch_rows or columns % patch_columns:
            raise ValueError(f"latents of {rows} x {columns} are not a multiple of the patch {self.config.patch_size}")
        if camera.shape != (B, F, CAMERA_ROW):
            raise ValueError(
                f"camera is {tuple(camera.shape)}, expected {(B, F, CAMERA_ROW)}, one row per latent frame"
            )
        if timestep.shape not in ((B,), (B, F)):
            raise ValueError(f"timestep is {tuple(timestep.shape)}, expected {(B,)} or {(B, F)}")
        if not 0 <= num_context <= F:
            raise ValueError(f"num_context_frames={num_context}, but {F} frames were given")
        check_inputs(self.policy, inputs)
        if self.config.positions != "screen":
            if inputs is None or inputs.intrinsics_B4 is None or inputs.image_size is None:
                raise ValueError(
                    f"model.positions={self.config.positions} needs retrieval inputs intrinsics_B4 and image_size"
                )
            if inputs.intrinsics_B4.shape != (B, 4):
                raise ValueError(f"intrinsics_B4 is {tuple(inputs.intrinsics_B4.shape)}, expected {(B, 4)}")
        if memory is not None:
            self._check_memory(memory, B, num_context, (rows // patch_rows, columns // patch_columns))

    def _check_memory(self, memory: ContextMemory, batch: int, num_context: int, grid: tuple[int, int]) -> None:
        if self.config.context == "joint":
            raise ValueError(
                "a joint model cannot read a context memory: its context sees the target and runs at the target's "
                "timestep, so its keys change at every step; only models with model.memory.context=frozen can"
            )
        if memory.first_frame:
            raise ValueError(f"memory that starts at frame {memory.first_frame} is read joined to what is before it")
        if num_context:
            raise ValueError(f"memory and num_context_frames={num_context} both bring context: give one of them")
        if len(memory.blocks) != len(self.blocks):
            raise ValueError(f"memory of {len(memory.blocks)} blocks, the model has {len(self.blocks)}")
        if memory.grid != grid or memory.batch != batch:
            raise ValueError(
                f"memory of {memory.batch} samples of {memory.grid} tokens (rows, columns), "
                f"the target has {batch} of {grid}"
            )


_CHOICES = {
    "affinity": ("pooled", "spatial"),
    "context": ("joint", "frozen"),
    "spans": ("exact", "released"),
    "flow_target": ("noise_minus_clean", "clean_minus_noise", "clean"),
    "flow_noise": ("shared", "per-frame"),
    "positions": ("screen", "rays", "moving-rays", "relative-rays"),
}


def _check_choices(**given: str) -> None:
    for name, value in given.items():
        if value not in _CHOICES[name]:
            raise ValueError(f"{name}={value!r}: known are {' and '.join(_CHOICES[name])}")


def load_model(
    path: str | Path, dtype: torch.dtype = torch.float32, policy: str | None = None, max_history: int | None = None
) -> HydraTransformer3DModel:
    """Load a saved transformer folder; unlike `from_pretrained`, refuses weights that do not fit exactly.

    With `policy` the same weights read memory by another one than they were saved with, with `max_history` old memory
    elsewhere in time.
    """
    otherwise = {"policy": policy, "max_history": max_history}
    model, found = HydraTransformer3DModel.from_pretrained(
        str(path), torch_dtype=dtype, output_loading_info=True, local_files_only=True,
        **{name: value for name, value in otherwise.items() if value is not None},
    )  # fmt: skip
    wrong = {
        kind: [str(name) for name in found.get(f"{kind}_keys", [])] for kind in ("missing", "unexpected", "mismatched")
    }
    if any(wrong.values()):
        raise DataError(
            "the weights do not fit the model's configuration",
            where={"model": path}
            | {f"{kind} ({len(names)})": ", ".join(names[:5]) for kind, names in wrong.items() if names},
            fix="save the transformer again; released or plain Wan weights go through `hm convert`",
        )
    return model
