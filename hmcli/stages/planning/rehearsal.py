"""A training step, and the other runs of a model, rehearsed: the code that will run, on tensors without memory.

Operations run on weightless tensors, so that peaks are exact but for what kernels take inside themselves, at any size
and in seconds. Blocks are alike: one and two of them are counted, and the line through both says the rest.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from hmcli.core.flow import make_schedule
from hmcli.core.retrieval import RetrievalInputs
from hmcli.core.transformer import HydraTransformer3DModel
from hmcli.recipe.sections import Recipe, TrainConfig
from hmcli.stages.models.folders import model_arguments
from hmcli.stages.planning.eight_bit import CountedEightBit
from hmcli.stages.planning.ledger import Ledger
from hmcli.stages.planning.shapes import ClipShape
from hmcli.stages.planning.weightless import Making
from hmcli.stages.training.learning import freeze, make_average
from hmcli.stages.training.muon import Inner, is_block_matrix, make_optimizers
from hmcli.stages.training.objective import Batch, ask, loss_of
from hmcli.stages.training.together import autocast

WEIGHTS, GRADIENTS, OPTIMIZER, AVERAGE, BATCH = "weights", "gradients", "optimizer", "average", "batch"
FORWARD, ACTIVATIONS, BACKWARD = "forward", "activations", "backward"
_KEPT = 256  # accounts, of the recipes planned last
_PAN = math.radians(4)  # of the camera from one latent frame to the next


@dataclasses.dataclass(frozen=True, kw_only=True)
class Account:
    """What one run of a model takes. Every number grows by the same amount with every block."""

    parameters: float = 0
    trained: float = 0
    weights: float = 0  # bytes, as all below
    gradients: float = 0
    optimizer: float = 0
    average: float = 0
    activations: float = 0  # kept from forward for backward
    attention: float = 0  # what one layer's attention takes while it runs, beyond what it leaves
    forward: float = 0  # highest bytes of the phase, everything counted
    backward: float = 0
    update: float = 0
    flop: float = 0
    kept: float = 0  # bytes that memory keeps of one clip (runs over context)

    @property
    def peak(self) -> float:
        return max(self.forward, self.backward, self.update)

    def line(self, other: Account, count: int) -> Account:
        """This is of one block, `other` of two: the same of `count` blocks."""
        both = ((getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))
        values = (one + (two - one) * (count - 1) for one, two in both)
        return Account(**dict(zip((f.name for f in dataclasses.fields(self)), values, strict=True)))


def training_account(recipe: Recipe, shape: ClipShape, *, on_cpu: bool) -> Account:
    """One step of `hm train`, with the optimizer's state already there. Elsewhere than `on_cpu`: as on CUDA."""
    return of_few_blocks(recipe, lambda few: _step_of(what_counts(few), one_clip(shape), on_cpu))


def activations(recipe: Recipe, shape: ClipShape, *, on_cpu: bool) -> float:
    """What a step of `hm train` keeps from forward for backward, bytes; sooner told than all of a step."""
    return of_few_blocks(recipe, lambda few: _forward_of(what_counts(few), one_clip(shape), on_cpu)).activations


def whole_step(recipe: Recipe, shape: ClipShape, *, on_cpu: bool) -> Account:
    """The same with every block counted: slower, and no line."""
    return _step_of(what_counts(recipe), one_clip(shape), on_cpu)


def of_few_blocks(recipe: Recipe, count: Callable[[Recipe], Account]) -> Account:
    """Count one block and two; the line through both says what all of the recipe's take."""
    one = count(with_layers(recipe, 1))
    return one if recipe.model.layers == 1 else one.line(count(with_layers(recipe, 2)), recipe.model.layers)


def what_counts(recipe: Recipe) -> Recipe:
    """The recipe with what no account depends on left as it is by default: recipes that then agree share theirs."""
    usual = Recipe()
    train = {name: getattr(usual.train, name) for name in ("steps", "lr", "warmup", "checkpoint_every", "keep")}
    return dataclasses.replace(
        usual, model=recipe.model, codec=recipe.codec, flow=recipe.flow, sample=recipe.sample,
        train=dataclasses.replace(recipe.train, **train),
    )  # fmt: skip


def one_clip(shape: ClipShape) -> ClipShape:
    return dataclasses.replace(shape, clips=1)


def with_layers(recipe: Recipe, layers: int) -> Recipe:
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, layers=layers))


# --- a step ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(kw_only=True)
class Changed:
    """What a step changes."""

    model: Any
    trained: list[nn.Parameter]
    optimizers: list[torch.optim.Optimizer]
    average: Any


@dataclasses.dataclass(kw_only=True)
class Stage(Changed):
    """And what a transformer's step reads: clips that show nothing."""

    batch: Batch
    inputs: RetrievalInputs
    device: str = "cpu"


def set_up(
    recipe: Recipe,
    shape: ClipShape,
    *,
    on_cpu: bool,
    mode: AbstractContextManager[Any] | None = None,
    device: torch.device | None = None,
) -> Stage:
    """Model, optimizers and clips as training has them; in a fake `mode` without memory, or on a real `device`."""
    train = recipe.train
    model = empty_model(recipe, channels=shape.channels, text_dim=shape.text_dim)
    with mode or nullcontext():
        give_memory(model)
        latents = torch.zeros(train.batch, shape.channels, shape.frames, shape.height, shape.width)
        text = torch.zeros(train.batch, shape.text_rows, shape.text_dim)
        weights = torch.ones(train.batch, shape.frames, shape.height, shape.width) if train.subject_weight else None
    if device is not None:
        nn.Module.to(model, device)
    model.train()
    if train.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    as_there(model, recipe.train.attention, on_cpu)
    trained = freeze(model, train)
    batch = Batch(
        latents=latents, camera=panning(train.batch, shape), text=text, context=shape.context, older=train.older,
        pixels=weights,
    )  # fmt: skip
    return Stage(
        model=model, trained=trained,
        optimizers=optimizers_of(model, train, is_block_matrix if train.optimizer == "muon" else None, on_cpu=on_cpu),
        average=make_average(trained, train.ema), batch=batch, inputs=inputs_of(recipe, shape, train.batch),
        device=str(device or "cpu"),
    )  # fmt: skip


def empty_model(recipe: Recipe, *, channels: int, text_dim: int) -> HydraTransformer3DModel:
    """The recipe's model with its adapters, on the meta device: shapes alone."""
    with torch.device("meta"):
        model = HydraTransformer3DModel(**model_arguments(recipe, channels=channels, text_dim=text_dim))
    if (lora := recipe.train.lora) is not None:
        from hmcli.core.lora import add_lora

        add_lora(model, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, generator=torch.Generator())
    return model


def give_memory(model: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Every parameter of a meta model on the CPU, small numbers in it."""
    for module in model.modules():
        for name, held in list(module.named_parameters(recurse=False)):
            value = (torch.randn(held.shape) * 0.02).to(dtype)
            module.register_parameter(name, nn.Parameter(value, requires_grad=held.requires_grad))


def as_there(model: HydraTransformer3DModel, kernel: str, on_cpu: bool) -> None:
    """On CUDA attention is one fused call on gathered keys, whichever kernel; a CPU has a form of its own."""
    name = kernel if on_cpu or kernel == "math" else "sdpa"
    if name != "auto":
        model.set_attention(name, backward=True)


def optimizers_of(
    model: nn.Module, train: TrainConfig, inner: Inner | None, *, on_cpu: bool, rate: float = 1.0
) -> list[torch.optim.Optimizer]:
    """As training makes them (hmcli.stages.training.muon), to be used there."""
    if train.optimizer == "adamw8bit":
        return [CountedEightBit([parameter for parameter in model.parameters() if parameter.requires_grad])]
    made = make_optimizers(model, train, inner, rate)
    for group in (group for optimizer in made for group in optimizer.param_groups if "foreach" in group):
        group["foreach"] = not on_cpu  # torch updates all parameters at once on CUDA, one by one here
    return made


def panning(batch: int, shape: ClipShape) -> Tensor:
    """Camera rows (B, F, 12) of a camera that turns."""
    turned = _PAN * (torch.arange(shape.frames) - shape.context)
    rows = torch.eye(3, 4).repeat(shape.frames, 1, 1)
    rows[:, 0, 0] = rows[:, 2, 2] = turned.cos()
    rows[:, 0, 2], rows[:, 2, 0] = turned.sin(), -turned.sin()
    return rows.flatten(1).expand(batch, -1, -1).clone()


def inputs_of(recipe: Recipe, shape: ClipShape, batch: int) -> RetrievalInputs:
    """All that a policy may ask for: lenses of 60 degrees, and slots of which half show a subject."""
    height, width = shape.pixels
    focal = width / 2 / math.tan(math.radians(30))
    shows = torch.arange(shape.frames).expand(batch, -1) % 2
    return RetrievalInputs(
        intrinsics_B4=torch.tensor([focal, focal, width / 2, height / 2]).repeat(batch, 1), image_size=(height, width),
        near=recipe.model.memory.near, far=recipe.model.memory.far, visibility_BM=shows,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip


@lru_cache(maxsize=_KEPT)
def _step_of(recipe: Recipe, shape: ClipShape, on_cpu: bool) -> Account:
    """Count one step on tensors without memory."""
    stage, ledger = _written_down(recipe, shape, on_cpu)
    with ledger:
        loss, forward = _forward(recipe, stage, ledger)
        return count_backward(recipe.train.clip_norm, stage, ledger, loss, forward)


@lru_cache(maxsize=_KEPT)
def _forward_of(recipe: Recipe, shape: ClipShape, on_cpu: bool) -> Account:
    """The same of forward alone."""
    stage, ledger = _written_down(recipe, shape, on_cpu)
    with ledger:
        return _forward(recipe, stage, ledger)[1]


def _written_down(recipe: Recipe, shape: ClipShape, on_cpu: bool) -> tuple[Stage, Ledger]:
    stage = set_up(recipe, shape, on_cpu=on_cpu, mode=Making())
    given = (stage.batch.latents, stage.batch.text, stage.batch.camera)
    return stage, opened(stage, given if stage.batch.pixels is None else (*given, stage.batch.pixels))


def opened(changed: Changed, given: Iterable[Tensor]) -> Ledger:
    """A ledger of what is there before a step, which will know gradients from other memory."""
    ledger = Ledger()
    ledger.put_down(changed.model.parameters(), WEIGHTS)
    ledger.put_down(changed.model.buffers(), WEIGHTS)
    ledger.put_down(given, BATCH)
    ledger.put_down([] if changed.average is None else changed.average.shadow_params, AVERAGE)
    for parameter in changed.trained:
        parameter.register_post_accumulate_grad_hook(lambda p: ledger.put_down([p.grad], GRADIENTS))
    return ledger


def _forward(recipe: Recipe, stage: Stage, ledger: Ledger) -> tuple[Tensor, Account]:
    ledger.label = FORWARD
    ledger.restart_peak()
    with _watched(stage.model.blocks[0].attn1, ledger) as attention:
        loss = loss_in(recipe, stage)
    return loss, Account(
        activations=ledger.live[FORWARD], attention=max(attention, default=0), forward=ledger.peak, flop=ledger.flop
    )


def count_backward(clip_norm: float, changed: Changed, ledger: Ledger, loss: Tensor, forward: Account) -> Account:
    """The rest of a step, in the ledger."""
    ledger.rename(FORWARD, ACTIVATIONS)
    ledger.label = BACKWARD
    ledger.restart_peak()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(changed.trained, clip_norm)
    backward, gradients = ledger.peak, ledger.live[GRADIENTS]
    del loss
    ledger.label = OPTIMIZER
    before = ledger.live[OPTIMIZER]
    ledger.restart_peak()
    for optimizer in changed.optimizers:
        optimizer.step()
    state = ledger.live[OPTIMIZER] - before
    _clear(changed)
    if changed.average is not None:
        changed.average.step(changed.trained)
    parameters = list(changed.model.parameters())
    return dataclasses.replace(
        forward, parameters=sum(p.numel() for p in parameters), trained=sum(p.numel() for p in changed.trained),
        weights=ledger.live[WEIGHTS], gradients=gradients, optimizer=state, average=ledger.live[AVERAGE],
        forward=forward.forward + state, backward=backward + state, update=ledger.peak, flop=ledger.flop,
    )  # fmt: skip


def loss_in(recipe: Recipe, stage: Stage) -> Tensor:
    """Forward, as `hm train` runs it."""
    flow, train = recipe.flow, recipe.train
    schedule = make_schedule(flow.timesteps, flow.shift, weighting=flow.weighting)
    question = ask(
        stage.batch, schedule, flow, context=recipe.model.memory.context, draws=train.draws, seed=recipe.seed
    )
    with autocast(stage.device, train):
        return loss_of(stage.model, stage.batch, question, flow, device=stage.device, retrieval=stage.inputs)


def _clear(changed: Changed) -> None:
    for optimizer in changed.optimizers:
        optimizer.zero_grad(set_to_none=True)


@contextmanager
def _watched(layer: nn.Module, ledger: Ledger) -> Iterator[list[float]]:
    """What a layer takes while it runs, beyond what it leaves; a number for each of its runs.

    The ledger's peak goes on as if nobody had looked.
    """
    found: list[float] = []
    before: list[tuple[int, Any]] = []

    def enter(*_: Any) -> None:
        before.append((ledger.peak, ledger.at_peak))
        ledger.restart_peak()

    def leave(*_: Any) -> None:
        found.append(ledger.peak - ledger.total)
        peak, at_peak = before.pop()
        if peak > ledger.peak:
            ledger.peak, ledger.at_peak = peak, at_peak

    hooks = layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave)
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


# --- a step with memory, timed ---------------------------------------------------------------------------------------


def timed_step(recipe: Recipe, shape: ClipShape) -> float:
    """Seconds of one real step on this machine's CPU, after one that warms up."""
    stage = set_up(recipe, shape, on_cpu=True)
    real_step(recipe, stage)
    started = time.perf_counter()
    real_step(recipe, stage)
    return time.perf_counter() - started


def real_step(recipe: Recipe, stage: Stage) -> None:
    """A step that is taken."""
    take(recipe.train.clip_norm, stage, loss_in(recipe, stage))


def take(clip_norm: float, changed: Changed, loss: Tensor) -> None:
    """The rest of a step that is taken."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(changed.trained, clip_norm)
    for optimizer in changed.optimizers:
        optimizer.step()
    _clear(changed)
    if changed.average is not None:
        changed.average.step(changed.trained)
