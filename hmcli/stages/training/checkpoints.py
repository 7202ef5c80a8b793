"""Checkpoints of a run: a diffusers folder for whoever generates, and the training state for whoever goes on.

Each is an item of the run's artifact: written whole or not at all, hashed, set aside when damaged. With a weight
average (`train.ema`) transformer/ holds the average, and the raw weights lie in the training state.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmcli.recipe.reading import to_dict
from hmcli.recipe.sections import Recipe
from hmcli.stages.latents.view import LatentsView
from hmcli.stages.models.checkpoint_folder import write_diffusers_folder
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.hashing import hash_json, hash_tree
from hmcli.store.manifest import Manifest, make_manifest, write_manifest

if TYPE_CHECKING:
    import torch

    from hmcli.core.transformer import HydraTransformer3DModel
    from hmcli.stages.training.learning import Average

CHECKPOINTS = "checkpoints"
STATE = "training_state.pt"


def step_name(step: int) -> str:
    """The name of a checkpoint: its step, sortable."""
    return f"{step:06d}"


def kept_steps(writer: ArtifactWriter, key: str) -> list[int]:
    """Steps of the whole checkpoints of this run, in order; a damaged one is set aside by the writer."""
    return sorted(int(item) for item in writer.items if writer.kept(item, key))


def write_checkpoint(
    writer: ArtifactWriter,
    key: str,
    step: int,
    recipe: Recipe,
    view: LatentsView,
    model: HydraTransformer3DModel,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
) -> None:
    """Add checkpoint `step` to the run, and drop the oldest beyond `train.keep`."""
    import torch

    from hmcli.core.lora import has_lora

    state: dict[str, Any] = {"step": step, "optimizer": optimizer.state_dict()}
    if average is not None or has_lora(model):
        state["raw"] = {name: p.detach().cpu() for name, p in model.named_parameters() if p.requires_grad}
    if average is not None:
        state["updates"] = average.updates
        if has_lora(model):  # transformer/ holds them inside the weights
            state["average"] = {name: value.cpu() for name, value in average.weights.items()}
    with writer.item_folder(step_name(step), key, parent=CHECKPOINTS) as folder:
        torch.save(state, folder / STATE)
        write_diffusers_folder(folder, model, recipe, average)
        write_manifest(folder, checkpoint_manifest(folder, step, recipe, view, model))
    for old in kept_steps(writer, key)[: -recipe.train.keep]:
        writer.discard(step_name(old))


def checkpoint_manifest(
    folder: Path, step: int, recipe: Recipe, view: LatentsView, model: HydraTransformer3DModel
) -> Manifest:
    """What a checkpoint says of itself; its fingerprint covers what generates, not the training state."""
    files = hash_tree(folder)
    parts = {path: entry["hash"] for path, entry in files.items() if path != STATE}
    return make_manifest(
        "checkpoint", recipe=to_dict(recipe), inputs={"latents": view.fingerprint}, seed=recipe.seed,
        items={"model": {"hash": hash_json(parts)}}, files=files, counts={"step": step},
        attributes={"parameters": sum(p.numel() for p in model.parameters()), "size": list(view.size)},
    )  # fmt: skip


def read_checkpoint(
    writer: ArtifactWriter,
    key: str,
    model: HydraTransformer3DModel,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
) -> int:
    """Put the newest checkpoint's state into model, optimizer and average; returns its step, 0 without one."""
    import torch

    from hmcli.core.lora import has_lora
    from hmcli.store.weights import load_state_dict

    if not (steps := kept_steps(writer, key)):
        return 0
    folder = writer.path / CHECKPOINTS / step_name(steps[-1])
    state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    adapted = has_lora(model)  # then what does not train is what it was at the start
    weights = {} if adapted else load_state_dict(folder / "transformer")
    if average is not None:
        saved = state["average"] if adapted else weights
        average.weights = {name: saved[name].to(value.device) for name, value in average.weights.items()}
        average.updates = state["updates"]
    model.load_state_dict(weights | state.get("raw", {}), strict=not adapted)
    optimizer.load_state_dict(state["optimizer"])
    writer.reporter.note(f"going on from step {state['step']}")
    return int(state["step"])
