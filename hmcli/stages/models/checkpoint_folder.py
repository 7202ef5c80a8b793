"""A model as a diffusers folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmcli.recipe.sections import Recipe
from hmcli.store.files import write_json

if TYPE_CHECKING:
    from hmcli.core.transformer import HydraTransformer3DModel
    from hmcli.stages.training.learning import Average


def write_diffusers_folder(
    folder: Path, model: HydraTransformer3DModel, recipe: Recipe, average: Average | None = None
) -> None:
    """transformer/, scheduler/, vae/ (when the codec is a folder here) and model_index.json.

    Adapters are put into the weights of transformer/ and also lie alone in lora/.
    """
    import diffusers
    import torch

    from hmcli.core.lora import fused_model, has_lora, save_lora

    scheduler: Any = diffusers.FlowMatchEulerDiscreteScheduler(shift=recipe.flow.shift)
    parameters = dict(model.named_parameters())
    kept = {} if average is None else {name: parameters[name].detach().clone() for name in average.weights}
    with torch.no_grad():
        for name, value in average.weights.items() if average is not None else ():
            parameters[name].copy_(value)
        fused_model(model).save_pretrained(folder / "transformer")
        if has_lora(model):
            save_lora(model, folder / "lora")
        for name, value in kept.items():
            parameters[name].copy_(value)
    scheduler.save_pretrained(folder / "scheduler")
    index: dict[str, Any] = {
        "_class_name": ["hmcli.core.pipeline", "HydraPipeline"],
        "_diffusers_version": diffusers.__version__,
        "transformer": ["hmcli.core.transformer", "HydraTransformer3DModel"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "vae": [None, None],
        "text_encoder": [None, None],
        "tokenizer": [None, None],
    }
    if (vae := codec_folder(recipe)) is not None:
        shutil.copytree(vae, folder / "vae", ignore=shutil.ignore_patterns("manifest.json"))
        index["vae"] = ["diffusers", "AutoencoderKLWan"]
    write_json(folder / "model_index.json", index)


def codec_folder(recipe: Recipe) -> Path | None:
    """The diffusers folder of the recipe's VAE, or None when it is a single file."""
    from hmcli.stages.models.folders import PACKAGED

    if not recipe.codec.path:
        return PACKAGED / "vae" if recipe.codec.name == "mini" else None
    path = Path(recipe.codec.path)
    return next((p for p in (path, path / "vae") if (p / "config.json").is_file()), None)
