"""One step of training a transformer: what it is made on, what it changes, and what the log says of it.

What is asked of the model is in hmcli.stages.training.objective; which steps there are, in train.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hmcli.aligned import tensor_of
from hmcli.contracts import Reporter
from hmcli.errors import NotFiniteError, UsageError
from hmcli.recipe.sections import LoraConfig, Recipe
from hmcli.runtime import pick_dtype
from hmcli.stages.latents.view import LatentClip, LatentsView
from hmcli.stages.memory.layout import SlotDescription
from hmcli.stages.memory.policy_inputs import retrieval_inputs
from hmcli.stages.models.folders import build_model
from hmcli.stages.models.layout import Step
from hmcli.stages.training.learning import freeze, learning_rate, make_average
from hmcli.stages.training.objective import (
    Among,
    Batch,
    Question,
    ask,
    at_level,
    make_batch,
    pixel_weights,
    returned_pixels,
)
from hmcli.stages.training.ranks import ALONE, Ranks
from hmcli.stages.training.runs import naming
from hmcli.stages.training.scaling import LossScale, loss_scale

if TYPE_CHECKING:
    import torch
    from diffusers.training_utils import EMAModel

    from hmcli.core.flow import FlowSchedule
    from hmcli.core.retrieval import RetrievalInputs
    from hmcli.core.transformer import HydraTransformer3DModel


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What one step trains on, but for the weights; of a batch of `whole` samples those from `first` on."""

    step: int
    chosen: list[str]  # clips of the whole batch
    clips: list[LatentClip]
    first: int
    batch: Batch
    question: Question
    retrieval: RetrievalInputs | None

    @property
    def whole(self) -> int:
        return len(self.chosen)

    def share(self, number: int, parts: int) -> Prepared:
        """Piece `number` of `parts` of the whole batch: the same samples, with the same noise."""
        if parts == 1:
            return self
        of = piece_of(self.whole, number, parts)
        part = slice(of.start - self.first, of.stop - self.first)
        if part.start < 0 or part.stop > len(self.clips):
            raise ValueError(f"samples {of.start} to {of.stop} of the batch are not held here")
        return replace(
            self, clips=self.clips[part], first=of.start, batch=self.batch.share(part),
            question=self.question.share(part),
            retrieval=None if self.retrieval is None else self.retrieval.share(part),
        )  # fmt: skip


def piece_of(whole: int, number: int, parts: int) -> slice:
    """The samples of a batch that make piece `number` of `parts`."""
    return slice(whole * number // parts, whole * (number + 1) // parts)


class Resident:
    """Latents of clips on the device, each brought there when it is first asked for."""

    SHARE = 16  # part of a device's memory that they may take

    def __init__(self, device: str) -> None:
        self.device = device
        self._latents: dict[str, torch.Tensor] = {}

    def stacked(self, clips: list[LatentClip]) -> torch.Tensor:
        """(B, C, F, h, w) float32. Several threads may ask at once."""
        import torch

        for clip in clips:
            if clip.id not in self._latents:
                self._latents[clip.id] = tensor_of(clip.latents).to(self.device)
        return torch.stack([self._latents[clip.id] for clip in clips])

    @classmethod
    def on(cls, device: str, nbytes: int) -> Resident | None:
        """For so many bytes; None where a processor computes, or the device is too small for them."""
        import torch

        if not device.startswith("cuda") or nbytes > torch.cuda.get_device_properties(device).total_memory // cls.SHARE:
            return None
        return cls(device)


@dataclass(kw_only=True)
class Training:
    """Everything a step changes or needs."""

    recipe: Recipe
    view: LatentsView
    model: HydraTransformer3DModel
    parameters: list[torch.nn.Parameter]
    optimizers: list[torch.optim.Optimizer]
    average: EMAModel | None
    schedule: FlowSchedule
    device: str
    ranks: Ranks
    objective: torch.nn.Module  # prepared -> loss, whose gradients are the mean over ranks
    described: dict[str, SlotDescription] | None  # of the clips' slots, where they were described beforehand
    scale: LossScale | None = None  # in float16
    resident: Resident | None = None  # clips that stay on the device

    def own(self, chosen: list[str]) -> slice:
        """The clips of a batch that this rank reads."""
        return piece_of(len(chosen), self.ranks.rank, self.ranks.count)

    def prepare(
        self, step: int, clips: list[LatentClip], *, tested: bool = False, of: tuple[list[str], int] | None = None
    ) -> Prepared:
        """One batch and what it is asked; everything random comes from (seed, step). Changes nothing: may run ahead.

        `of`: the ids of a larger batch, and where `clips` begin in it. What is drawn for them is the same then.
        """
        recipe, rng = self.recipe, np.random.default_rng((self.recipe.seed, 2 if tested else 1, step))
        chosen, first = of or ([clip.id for clip in clips], 0)
        context, among = recipe.model.memory.context, Among(first=first, whole=len(chosen))
        batch = make_batch(
            clips, self.view.text(0), frozen=context == "frozen", train=recipe.train, tested=tested, rng=rng,
            among=among, latents=None if tested or self.resident is None else self.resident.stacked(clips),
        )  # fmt: skip
        batch = replace(batch, pixels=pixel_weights(self.view, clips, recipe.train.subject_weight))
        if not tested:  # on clips never trained on every device sees the same noise
            batch = batch.to(self.device)
        seed = int(rng.integers(2**62))
        retrieval = retrieval_inputs(
            clips, self.view, recipe.model.memory, seed=seed + 1 + first, device=self.device,
            described=self.described, positions=recipe.model.positions, each=True,
        )  # fmt: skip
        question = ask(
            batch, self.schedule, recipe.flow, context=context, draws=recipe.train.draws, seed=seed, among=among
        )
        return Prepared(
            step=step, chosen=chosen, clips=clips, first=first, batch=batch, question=question, retrieval=retrieval
        )

    def step(self, prepared: Prepared) -> Step:
        """Train on one batch. Returns what the log says of it.

        Raises NotFiniteError, and changes no weight, where loss or gradient is not finite. In float16 a gradient may
        be too large for a while: such a step changes no weight either and is counted.
        """
        train, step = self.recipe.train, prepared.step
        rate = learning_rate(train, step)
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = rate * group["scale"]
        with naming(step, prepared.chosen):
            value = _finite("the loss", self._gradients(prepared))
            norm = float(self._clip(train.clip_norm))
            taken = (
                math.isfinite(_finite("the gradient's norm", norm)) if self.scale is None else self.scale.settle(norm)
            )
        for optimizer in self.optimizers:
            if taken:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.average is not None and taken:
            self.average.step(self.parameters)
        row = Step(step=step + 1, loss=value, grad_norm=norm if taken else None, lr=rate)
        return row if self.scale is None else replace(row, loss_scale=self.scale.factor, skipped=self.scale.skipped)

    def _gradients(self, prepared: Prepared) -> float:
        """Leave the gradients of the whole batch's loss at the parameters; returns that loss.

        A piece counts by its share of the samples. Ranks exchange gradients once, after the last piece.
        """
        from hmcli.stages.training.together import unsynchronised

        each, whole = self.recipe.train.accumulate, prepared.whole
        value, factor = 0.0, 1.0 if self.scale is None else self.scale.factor
        for piece in range(each):
            share = prepared.share(self.ranks.rank * each + piece, self.ranks.count * each)
            counts = len(share.clips) / whole
            with nullcontext() if piece + 1 == each else unsynchronised(self.objective):
                loss = self.objective(share)
                (loss * (counts * self.ranks.count * factor)).backward()
            value += counts * float(loss.detach())
        if self.scale is not None:
            self.scale.take_off(self.parameters)
        return self.ranks.total([value])[0]

    def _clip(self, most: float) -> torch.Tensor:
        """Cut the gradients to this length; returns what it was."""
        import torch.distributed.tensor

        norm = torch.nn.utils.clip_grad_norm_(self.parameters, most)
        return norm.full_tensor() if isinstance(norm, torch.distributed.tensor.DTensor) else norm

    def loss(self, prepared: Prepared) -> torch.Tensor:
        """Loss of the current weights, without exchange between ranks."""
        alone: torch.Tensor = getattr(self.objective, "module", self.objective)(prepared)
        return alone

    def held_out_loss(self, clips: list[LatentClip]) -> float:
        """Mean loss of the current weights on clips never trained on; the same noise and levels at every checkpoint."""
        losses = self._over(clips, lambda prepared: [float(self.loss(prepared))] * len(prepared.clips))
        return sum(losses) / len(losses)

    def held_out_errors(self, clips: list[LatentClip], sigma: float) -> tuple[list[float], list[float]]:
        """Mean squared error of the flow at one level of noise, for each clip; the same noise at every checkpoint.

        And over the pixels of subjects that are back alone, for each clip that has some.
        """
        returned = list[float]()

        def measure(prepared: Prepared) -> list[float]:
            errors, of_returned = self._errors(prepared, sigma)
            returned.extend(error for error in of_returned if not math.isnan(error))
            return errors

        return self._over(clips, measure), returned

    def _errors(self, prepared: Prepared, sigma: float) -> tuple[list[float], list[float]]:
        batch, seed = prepared.batch, self.recipe.seed + prepared.step
        asked = at_level(batch, sigma, self.recipe.flow, context=self.recipe.model.memory.context, seed=seed)
        nowhere = np.zeros((batch.latents.shape[2], *batch.latents.shape[3:]), bool)
        pixels = [returned_pixels(self.view, clip) for clip in prepared.clips]
        where = tensor_of(np.stack([nowhere if of is None else of for of in pixels]))
        found = getattr(self.objective, "module", self.objective)(prepared, asked, where)
        everywhere, of_returned = ([float(error) for error in row] for row in found)
        return everywhere, of_returned

    def _over(self, clips: list[LatentClip], measure: Callable[[Prepared], list[float]]) -> list[float]:
        """One number for each clip, measured in batches without gradients."""
        import torch

        size, values = self.recipe.train.batch, list[float]()
        with torch.no_grad():
            for number, first in enumerate(range(0, len(clips), size)):
                values += measure(self.prepare(number, clips[first : first + size], tested=True))
        return [_finite("the error on a held-out clip", value) for value in values]


def prepare_training(
    recipe: Recipe,
    view: LatentsView,
    device: str,
    described: dict[str, SlotDescription] | None,
    reporter: Reporter,
    ranks: Ranks = ALONE,
) -> Training:
    """Model, optimizers and schedule at step 0, on this rank."""
    import torch

    from hmcli.core.compiled import compile_blocks
    from hmcli.core.flow import make_schedule
    from hmcli.stages.training.muon import is_block_matrix, make_optimizers
    from hmcli.stages.training.together import Objective, together

    train = recipe.train
    model = build_model(recipe, channels=view.channels, text_dim=view.text_shape[1])
    torch.nn.Module.to(model, device)
    model.train()
    if train.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    reporter.note(model.set_attention(train.attention, dtype=pick_dtype(train.dtype), backward=True))
    if train.lora is not None:
        _add_adapters(model, train.lora, recipe.seed)
    freeze(model, train)
    if train.compile == "blocks":
        compile_blocks(model)
    objective = together(Objective(model, recipe, device), ranks, device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return Training(
        recipe=recipe, view=view, model=model, parameters=parameters, device=device, described=described,
        optimizers=make_optimizers(model, train, is_block_matrix if train.optimizer == "muon" else None),
        average=make_average(parameters, train.ema), ranks=ranks,
        objective=objective, scale=loss_scale(train),
        schedule=make_schedule(recipe.flow.timesteps, recipe.flow.shift, weighting=recipe.flow.weighting),
    )  # fmt: skip


def _add_adapters(model: HydraTransformer3DModel, lora: LoraConfig, seed: int) -> None:
    import torch

    from hmcli.core.lora import add_lora

    generator = torch.Generator().manual_seed(seed)
    try:
        add_lora(model, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, generator=generator)
    except ValueError as error:
        raise UsageError(str(error), fix="use ends of layer names such as to_q, to_v, ffn.net.2, projector") from error


def _finite(what: str, value: float) -> float:
    if not math.isfinite(value):
        raise NotFiniteError(f"{what} is {value}")
    return value
