"""A model as a diffusers folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmcli.recipe.sections import Recipe
from hmcli.store.files import write_json
from hmcli.store.finite import require_finite_weights

if TYPE_CHECKING:
    from diffusers.training_utils import EMAModel

    from hmcli.core.transformer import HydraTransformer3DModel


def write_diffusers_folder(
    folder: Path, model: HydraTransformer3DModel, recipe: Recipe, average: EMAModel | None = None
) -> None:
    """transformer/, scheduler/, vae/ (when the codec is a folder here) and model_index.json.

    Adapters are put into the weights of transformer/ and also lie alone in lora/. With an `average` its weights are
    written; the model is as it was afterwards. Raises NotFiniteError for weights that are not finite.
    """
    import diffusers
    import torch

    from hmcli.core.lora import fused_model, has_lora, save_lora

    scheduler: Any = diffusers.FlowMatchEulerDiscreteScheduler(shift=recipe.flow.shift)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if average is not None:
        average.store(parameters)
        average.copy_to(parameters)
    with torch.no_grad():
        whole = fused_model(model)
        require_finite_weights(whole.state_dict())
        whole.save_pretrained(folder / "transformer")
        if has_lora(model):
            save_lora(model, folder / "lora")
    if average is not None:
        average.restore(parameters)
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
