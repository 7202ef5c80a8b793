"""What runs without gradients take: a model over context, or for a step of denoising, and the VAE over a video."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from hmcli.codecs.video import MINI_CHUNK, WAN_CHUNK, WanCodec
from hmcli.contracts import TIME_STRIDE
from hmcli.core.memory import ContextMemory, Held
from hmcli.recipe.sections import CodecConfig, Recipe
from hmcli.runtime import pick_dtype
from hmcli.stages.planning.ledger import Ledger
from hmcli.stages.planning.rehearsal import (
    WEIGHTS,
    Account,
    as_there,
    empty_model,
    give_memory,
    inputs_of,
    of_few_blocks,
    one_clip,
    panning,
    what_counts,
)
from hmcli.stages.planning.shapes import ClipShape, vae_config
from hmcli.stages.planning.weightless import Making

_PIECES = 3  # of a video: from the second one on they cost the same


def context_account(recipe: Recipe, shape: ClipShape, *, on_cpu: bool) -> Account:
    """One clip of `hm tokenize-memory --model`, for a frozen model."""
    return of_few_blocks(recipe, lambda few: _runs_of(what_counts(few), one_clip(shape), on_cpu)[0])


def denoising_account(recipe: Recipe, shape: ClipShape, *, on_cpu: bool) -> Account:
    """One evaluation of the model in `hm generate`: one clip, one guidance branch, one step."""
    return of_few_blocks(recipe, lambda few: _runs_of(what_counts(few), one_clip(shape), on_cpu)[1])


@dataclasses.dataclass(kw_only=True)
class _Clip:
    """A model ready to run, and one clip for it."""

    model: Any
    latents: Tensor
    text: Tensor
    camera: Tensor


def _set_up(recipe: Recipe, shape: ClipShape, on_cpu: bool) -> _Clip:
    dtype = pick_dtype(recipe.sample.dtype)
    plain = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, lora=None))  # adapters are put in
    model = empty_model(plain, channels=shape.channels, text_dim=shape.text_dim).requires_grad_(False)
    with Making():
        give_memory(model, dtype)
        latents = torch.zeros(1, shape.channels, shape.frames, shape.height, shape.width)
        text = torch.zeros(1, shape.text_rows, shape.text_dim)
    as_there(model, recipe.sample.attention, on_cpu)
    return _Clip(model=model.eval(), latents=latents, text=text, camera=panning(1, shape))


@lru_cache(maxsize=64)
def _runs_of(recipe: Recipe, shape: ClipShape, on_cpu: bool) -> tuple[Account, Account]:
    """Over the context (nothing, where the model keeps none), and over the target."""
    clip = _set_up(recipe, shape, on_cpu)
    n, inputs, memory, latents, camera = shape.context, inputs_of(recipe, shape, 1), None, clip.latents, clip.camera
    before = Account()
    with torch.no_grad():
        if recipe.model.memory.context == "frozen":
            with _ledger(clip) as ledger:
                memory = clip.model.encode_context(latents[:, :, :n], camera[:, :n], inputs)
            before = _account(clip, ledger, kept_bytes(memory))
            latents, camera, n = latents[:, :, n:], camera[:, n:], 0
        with _ledger(clip) as ledger:
            clip.model(latents, torch.full((1,), 500.0), clip.text, camera, n, inputs, memory, return_dict=False)
    return before, _account(clip, ledger, before.kept)


def _ledger(clip: _Clip) -> Ledger:
    made = Ledger()
    made.put_down(clip.model.parameters(), WEIGHTS)
    return made


def _account(clip: _Clip, ledger: Ledger, kept: float) -> Account:
    parameters = sum(p.numel() for p in clip.model.parameters())
    return Account(
        parameters=parameters, weights=ledger.live[WEIGHTS], forward=ledger.peak, flop=ledger.flop, kept=kept
    )


def kept_bytes(memory: ContextMemory) -> int:
    """Size of what frozen context keeps of a clip: slots, tail and descriptors of all blocks."""
    found = 0
    for block in memory.blocks:
        for part in (block.slots, block.tail):
            assert isinstance(part, Held)  # it has just been computed
            found += part.keys_BNQC.nbytes + part.values_BNQC.nbytes
        found += block.descriptors_BMC.nbytes
    return found


# --- the VAE ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class VaeAccount:
    """What encoding and decoding one video takes."""

    parameters: int
    weights: int  # bytes
    encode_peak: int
    decode_peak: int
    encode_flop: float  # of one video
    decode_flop: float


def vae_account(recipe: Recipe, shape: ClipShape) -> VaeAccount | None:
    """The recipe's VAE over a video of the target's length; None for a codec without a network."""
    config = vae_config(recipe)
    return None if config is None else _vae_of(recipe.codec, json.dumps(config), one_clip(shape))


@lru_cache(maxsize=16)
def _vae_of(of: CodecConfig, config: str, shape: ClipShape) -> VaeAccount:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    with torch.device("meta"):
        vae: Any = AutoencoderKLWan.from_config(json.loads(config)) if json.loads(config) else AutoencoderKLWan()
    chunk = of.chunk_frames or (WAN_CHUNK if of.name == "wan2.1" else MINI_CHUNK)
    codec = WanCodec(vae, name=of.name, device="meta", tile=of.tile, chunk=chunk)
    codec.device = torch.device("cpu")
    with Making():
        give_memory(codec.vae, pick_dtype(of.dtype))
    pieces = 1 + (shape.target - 1 + chunk - 1) // chunk
    encoded = _over_pieces(codec, codec.encode_pieces, (3, *shape.pixels), TIME_STRIDE * chunk, pieces)
    decoded = _over_pieces(codec, codec.decode_pieces, (shape.channels, shape.height, shape.width), chunk, pieces)
    weights = list(codec.vae.parameters())
    return VaeAccount(
        parameters=sum(p.numel() for p in weights), weights=sum(p.nbytes for p in weights),
        encode_peak=encoded[0], decode_peak=decoded[0], encode_flop=encoded[1], decode_flop=decoded[1],
    )  # fmt: skip


def _over_pieces(codec: WanCodec, run: Any, size: tuple[int, int, int], step: int, count: int) -> tuple[int, float]:
    """Peak bytes, and floating point operations of `count` pieces, of which few are run."""
    channels, height, width = size
    ledger, marks = Ledger(), list[float]()
    ledger.put_down(codec.vae.parameters(), WEIGHTS)

    def pieces() -> Iterator[Tensor]:
        for number in range(min(count, _PIECES)):
            with Making():
                piece = torch.zeros(1, channels, step if number else 1, height, width)
            yield piece

    with ledger:
        for _ in run(pieces()):
            marks.append(ledger.flop)
    rest = (count - len(marks)) * (marks[-1] - marks[-2]) if count > len(marks) else 0.0
    return ledger.peak, marks[-1] + rest
