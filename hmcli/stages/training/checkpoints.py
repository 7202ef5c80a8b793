"""Checkpoints of a run: a diffusers folder for whoever generates, and the training state for whoever goes on.

Each is an item of the run's artifact: written whole or not at all, hashed, set aside when damaged. With a weight
average (`train.ema`) transformer/ holds the average, and the raw weights lie in the training state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hmcli.errors import NotFiniteError
from hmcli.recipe.reading import to_dict
from hmcli.recipe.sections import Recipe
from hmcli.stages.latents.view import LatentsView
from hmcli.stages.models.checkpoint_folder import write_diffusers_folder
from hmcli.stages.models.layout import (
    CHECKPOINT,
    CHECKPOINTS,
    MODEL,
    TRANSFORMER,
    CheckpointAttributes,
    Resumed,
    TrainedWith,
    step_name,
)
from hmcli.stages.shared.typed import to_json
from hmcli.stages.training.ranks import ALONE, Ranks
from hmcli.stages.training.runs import about_checkpoint
from hmcli.stages.training.scaling import LossScale
from hmcli.stages.training.sharded import SHARES, as_shares, is_sharded, read_shares, whole, write_shares
from hmcli.stages.training.state import (
    FILES,
    TrainingState,
    put_state,
    read_state,
    take_state,
    write_numbers,
    write_state,
)
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.hashing import hash_json, hash_tree
from hmcli.store.manifest import Manifest, make_manifest, write_manifest

if TYPE_CHECKING:
    import torch
    from diffusers.training_utils import EMAModel
    from torch import Tensor

    from hmcli.core.transformer import HydraTransformer3DModel


def kept_steps(writer: ArtifactWriter, key: str) -> list[int]:
    """Steps of the whole checkpoints of this run, in order; a damaged one is set aside by the writer."""
    return sorted(int(item) for item in writer.items if writer.kept(item, key))


def last_checkpoint(writer: ArtifactWriter, key: str) -> Path | None:
    """The folder of the newest whole checkpoint of this run, looked at byte by byte."""
    steps = kept_steps(writer, key)
    return writer.place(step_name(steps[-1])) if steps else None


@contextmanager
def naming_the_last(writer: ArtifactWriter, key: str) -> Iterator[None]:
    """Say of numbers that are not finite which checkpoint is the last good one."""
    try:
        yield
    except NotFiniteError as error:
        error.where |= {"last good checkpoint": last_checkpoint(writer, key) or "none yet"}
        raise


def drop_old(writer: ArtifactWriter, key: str, keep: int) -> None:
    """Delete the oldest checkpoints beyond `keep`."""
    for old in kept_steps(writer, key)[:-keep]:
        writer.discard(step_name(old))


def write_checkpoint(
    writer: ArtifactWriter,
    key: str,
    step: int,
    recipe: Recipe,
    view: LatentsView,
    model: HydraTransformer3DModel,
    optimizers: Sequence[torch.optim.Optimizer],
    average: EMAModel | None,
    resumed: tuple[Resumed, ...] = (),
    ranks: Ranks = ALONE,
    scale: LossScale | None = None,
) -> None:
    """Add checkpoint `step` to the run, and drop the oldest beyond `train.keep`.

    Of a sharded model every other rank calls `write_share` meanwhile. Raises NotFiniteError where a weight or moment is
    not finite; nothing is written or dropped then.
    """
    state = take_state(model, optimizers, average, step=step, seed=recipe.seed, scale=scale)
    with writer.item_folder(step_name(step), key, parent=CHECKPOINTS, meta=about_checkpoint(writer, resumed)) as folder:
        if is_sharded(model):
            ranks.told(str(folder))
            write_numbers(folder, state)
            plain = whole_model(model, _put_together(folder, state, model))
            write_diffusers_folder(folder, plain, recipe)
        else:
            write_state(folder, _without_repeats(state, model))
            write_diffusers_folder(folder, model, recipe, average)
        write_manifest(folder, checkpoint_manifest(folder, step, recipe, view, model))
    drop_old(writer, key, recipe.train.keep)


def write_share(
    model: HydraTransformer3DModel,
    optimizers: Sequence[torch.optim.Optimizer],
    average: EMAModel | None,
    ranks: Ranks,
) -> None:
    """What a rank that is not the first adds to a checkpoint of a sharded model; of another it adds nothing."""
    if is_sharded(model):
        state = take_state(model, optimizers, average, step=0, seed=0)
        _put_together(Path(ranks.told("")), state, model)


def _put_together(folder: Path, state: TrainingState, model: HydraTransformer3DModel) -> dict[str, Tensor]:
    """Write this rank's shares; returns the whole weights that generate: the average's, where there is one."""
    write_shares(folder, state)
    return whole({**model.state_dict(), **state.average})


def whole_weights(model: HydraTransformer3DModel, average: EMAModel | None) -> dict[str, Tensor]:
    """The whole weights that generate, the average's where there is one, of a model of which every rank has a share.

    All ranks call it together.
    """
    return whole({**model.state_dict(), **take_state(model, [], average, step=0, seed=0).average})


def whole_model(model: HydraTransformer3DModel, weights: dict[str, Tensor]) -> HydraTransformer3DModel:
    """A model of the same form that holds these weights, on the CPU."""
    plain: Any = type(model).from_config(model.config)
    plain.load_state_dict(weights)
    return cast("HydraTransformer3DModel", plain)


def _without_repeats(state: TrainingState, model: HydraTransformer3DModel) -> TrainingState:
    """The state without what transformer/ holds: the average, or else the weights; adapters are in neither."""
    from hmcli.core.lora import has_lora

    if has_lora(model):
        return state
    return dataclasses.replace(state, average={}) if state.average else dataclasses.replace(state, weights={})


def checkpoint_manifest(
    folder: Path, step: int, recipe: Recipe, view: LatentsView, model: HydraTransformer3DModel
) -> Manifest:
    """What a checkpoint says of itself; its fingerprint covers what generates, not the training state."""
    files = hash_tree(folder)
    parts = {
        path: entry["hash"] for path, entry in files.items() if path not in FILES and not path.startswith(f"{SHARES}/")
    }
    about = CheckpointAttributes(
        parameters=sum(p.numel() for p in model.parameters()), size=view.size,
        trained_with=TrainedWith(codec=view.manifest.inputs["codec"], text=view.manifest.inputs["text"]),
    )  # fmt: skip
    return make_manifest(
        CHECKPOINT, recipe=to_dict(recipe), inputs=view.inputs, seed=recipe.seed,
        items={MODEL: {"hash": hash_json(parts)}}, files=files, counts={"step": step}, attributes=to_json(about),
    )  # fmt: skip


def read_checkpoint(
    folder: Path,
    model: HydraTransformer3DModel,
    optimizers: Sequence[torch.optim.Optimizer],
    average: EMAModel | None,
    seed: int,
    scale: LossScale | None = None,
) -> int:
    """Put the state of a checkpoint (see `last_checkpoint`) into what trains; returns its step."""
    from hmcli.core.lora import has_lora
    from hmcli.store.weights import load_state_dict

    again = f"train on from its weights into another --out: --set model.base={folder}; or from the start: --force"
    if (folder / SHARES).is_dir():
        state = read_state(folder, seed=seed, instead=again, read=partial(read_shares, model=model))
        put_state(state, model, optimizers, average, scale)
        return state.step
    state = read_state(folder, seed=seed, instead=again)
    weights = {} if has_lora(model) else load_state_dict(folder / TRANSFORMER)
    if is_sharded(model):
        state, weights = _shares_of(state, model), as_shares(weights, dict(model.named_parameters()))
    if weights:  # under adapters, what does not train is what it was at the start
        model.load_state_dict(weights)
        state = dataclasses.replace(state, average=weights)
    put_state(state, model, optimizers, average, scale)
    return state.step


def _shares_of(state: TrainingState, model: HydraTransformer3DModel) -> TrainingState:
    """The state of a model that was whole, divided as this one is."""
    like = dict(model.named_parameters())
    optimizers = []
    for optimizer in state.optimizers:
        tensors = {
            name: {part: as_shares({name: value}, like)[name] if value.ndim else value for part, value in parts.items()}
            for name, parts in optimizer.tensors.items()
        }
        optimizers.append(dataclasses.replace(optimizer, tensors=tensors))
    return dataclasses.replace(state, optimizers=optimizers, weights=as_shares(state.weights, like))
