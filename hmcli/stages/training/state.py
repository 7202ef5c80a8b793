"""The training state of a checkpoint: what going on exactly needs besides the weights that generate.

Two files: tensors in safetensors, numbers in JSON. No pickle, so equal states are equal files and opening one runs no
code. Batches, noise and learning rate of a step follow from the run's seed and the step alone (hmcli.stages.training.
learning): of generators, data order and schedule these two numbers are all there is to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmcli.errors import DataError
from hmcli.stages.shared.typed import LeftOut, from_json, to_json
from hmcli.stages.training.scaling import LossScale
from hmcli.store.files import read_json, write_json
from hmcli.store.weights import load_state_dict, save_weights

if TYPE_CHECKING:
    from diffusers.training_utils import EMAModel
    from torch import Tensor, nn
    from torch.optim import Optimizer

TENSORS = "training_state.safetensors"
NUMBERS = "training_state.json"
FILES = (TENSORS, NUMBERS)
PICKLED = "training_state.pt"  # of hm before the state was safetensors and JSON
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class OptimizerState:
    """torch's state of one optimizer, with names of parameters where torch has numbers."""

    kind: str
    groups: list[dict[str, Any]]  # lr, betas, weight_decay, ...; `params` are names
    tensors: dict[str, dict[str, Tensor]]  # name of a parameter -> exp_avg, momentum, ...


@dataclass(frozen=True, kw_only=True)
class _Form:
    """What tells whether the numbers of a state can be read."""

    format: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class _Optimizer:
    """An optimizer in the numbers; see OptimizerState."""

    kind: str
    groups: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class _Numbers:
    """The numbers of a state."""

    format: int
    step: int
    seed: int
    updates: int
    optimizers: tuple[_Optimizer, ...]
    scale: LeftOut[LossScale] = None


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Everything after `step` steps; tensors by the name of their parameter."""

    step: int
    seed: int
    optimizers: list[OptimizerState]
    weights: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    updates: int = 0  # of the average
    scale: LossScale | None = None


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """What trains, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def take_state(
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    average: EMAModel | None,
    *,
    step: int,
    seed: int,
    scale: LossScale | None = None,
) -> TrainingState:
    """The state as it is now, with the weights that train and their average; tensors are shared with the model."""
    weights = {name: parameter.detach() for name, parameter in trained(model).items()}
    return TrainingState(
        step=step, seed=seed, weights=weights, optimizers=[_named(optimizer, model) for optimizer in optimizers],
        average={} if average is None else dict(zip(weights, average.shadow_params, strict=True)),
        updates=0 if average is None else average.optimization_step,
        scale=None if scale is None else replace(scale),
    )  # fmt: skip


def put_state(
    state: TrainingState,
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    average: EMAModel | None,
    scale: LossScale | None = None,
) -> None:
    """Make model, optimizers and average those of `state`. Raises DataError where it is the state of others."""
    if scale is not None and state.scale is not None:
        scale.factor, scale.calm, scale.skipped = state.scale.factor, state.scale.calm, state.scale.skipped
    parameters = trained(model)
    for name, value in state.weights.items():
        parameters[name].data.copy_(value)
    if average is not None:
        average.optimization_step = state.updates
        for name, shadow in zip(parameters, average.shadow_params, strict=True):
            shadow.copy_(state.average[name])
    for optimizer, saved in zip(optimizers, state.optimizers, strict=True):
        _restore(optimizer, saved, model)


def write_state(folder: Path, state: TrainingState) -> None:
    """Write both files into `folder`."""
    save_weights(folder / TENSORS, flat(state), {})
    write_numbers(folder, state)


def flat(state: TrainingState) -> dict[str, Tensor]:
    """All tensors of a state, by section and name."""
    tensors = {f"weights.{name}": value for name, value in state.weights.items()}
    tensors |= {f"average.{name}": value for name, value in state.average.items()}
    for optimizer in state.optimizers:
        for name, parts in optimizer.tensors.items():
            tensors |= {f"optimizer.{part}.{name}": value for part, value in parts.items()}
    return tensors


def write_numbers(folder: Path, state: TrainingState) -> None:
    """Write what is no tensor into `folder`."""
    optimizers = tuple(_Optimizer(kind=optimizer.kind, groups=optimizer.groups) for optimizer in state.optimizers)
    numbers = _Numbers(
        format=FORMAT, step=state.step, seed=state.seed, updates=state.updates, optimizers=optimizers, scale=state.scale
    )
    write_json(folder / NUMBERS, to_json(numbers))


def read_state(
    folder: Path, *, seed: int, instead: str, read: Callable[[Path], Mapping[str, Tensor]] | None = None
) -> TrainingState:
    """The state in `folder`, as `write_state` wrote it; `read` brings its tensors from elsewhere there.

    Raises DataError for a state of another seed or a newer format, and for one of an older hm, which is a pickle and
    not opened; then `instead` says what to do.
    """
    if (folder / PICKLED).exists() and not (folder / NUMBERS).exists():
        raise DataError(
            "the training state of this checkpoint is a pickle, written by an older hm, and is not opened",
            where={"state": folder / PICKLED}, fix=instead,
        )  # fmt: skip
    content, what = read_json(folder / NUMBERS), "the training state"
    form = from_json(_Form, content, what, state=folder / NUMBERS)
    if form.format != FORMAT or form.seed != seed:
        raise DataError(
            f"the training state has format {form.format} and seed {form.seed}, not {FORMAT} and {seed}",
            where={"state": folder / NUMBERS}, fix=instead,
        )  # fmt: skip
    numbers = from_json(_Numbers, content, what, state=folder / NUMBERS)
    sections: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "optimizer": {}}
    tensors = load_state_dict(folder / TENSORS) if read is None else read(folder)
    for name, value in tensors.items():
        section, _, rest = name.partition(".")
        sections[section][rest] = value
    return TrainingState(
        step=numbers.step, seed=seed, weights=sections["weights"], average=sections["average"],
        updates=numbers.updates, scale=numbers.scale,
        optimizers=[_gathered(saved, sections["optimizer"]) for saved in numbers.optimizers],
    )  # fmt: skip


def _gathered(saved: _Optimizer, tensors: Mapping[str, Tensor]) -> OptimizerState:
    """One optimizer's part of `tensors`, which are named by part and parameter."""
    own: dict[str, dict[str, Tensor]] = {name: {} for group in saved.groups for name in group["params"]}
    for key, value in tensors.items():
        part, _, name = key.partition(".")
        if name in own:
            own[name][part] = value
    return OptimizerState(kind=saved.kind, groups=saved.groups, tensors={n: t for n, t in own.items() if t})


# --- torch numbers parameters, files name them -----------------------------------------------------------------------


def _order(optimizer: Optimizer, model: nn.Module) -> list[str]:
    """Names of an optimizer's parameters, in the order in which torch numbers them."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _named(optimizer: Optimizer, model: nn.Module) -> OptimizerState:
    order, state = _order(optimizer, model), optimizer.state_dict()
    return OptimizerState(
        kind=type(optimizer).__name__,
        groups=[{**group, "params": [order[i] for i in group["params"]]} for group in state["param_groups"]],
        tensors={order[i]: dict(parts) for i, parts in state["state"].items()},
    )


def _restore(optimizer: Optimizer, saved: OptimizerState, model: nn.Module) -> None:
    order = _order(optimizer, model)
    names = [name for group in saved.groups for name in group["params"]]
    if (saved.kind, names) != (type(optimizer).__name__, order):
        raise DataError(
            f"the training state is that of {saved.kind} over {len(names)} weights, "
            f"here is {type(optimizer).__name__} over {len(order)}",
            fix="train again into another --out",
        )
    number = {name: i for i, name in enumerate(order)}
    groups = [{**group, "params": [number[name] for name in group["params"]]} for group in saved.groups]
    state = {number[name]: parts for name, parts in saved.tensors.items()}
    optimizer.load_state_dict({"state": state, "param_groups": groups})
