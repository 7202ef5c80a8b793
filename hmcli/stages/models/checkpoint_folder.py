"""A model as a diffusers folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmcli.codecs.places import CONFIG, VAE, vae_folder
from hmcli.recipe.sections import Recipe
from hmcli.stages.models.layout import INDEX, LORA, SCHEDULER, TRANSFORMER
from hmcli.store.files import read_json, write_json
from hmcli.store.finite import require_finite_weights
from hmcli.store.records import MANIFEST

if TYPE_CHECKING:
    from diffusers.training_utils import EMAModel

    from hmcli.core.transformer import HydraTransformer3DModel

_OURS = {"LinearBlocks": "hmcli.codecs.blocks"}  # classes of vae/ that are not of diffusers


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
        whole.save_pretrained(folder / TRANSFORMER)
        if has_lora(model):
            save_lora(model, folder / LORA)
    if average is not None:
        average.restore(parameters)
    scheduler.save_pretrained(folder / SCHEDULER)
    index: dict[str, Any] = {
        "_class_name": ["hmcli.core.pipeline", "HydraPipeline"],
        "_diffusers_version": diffusers.__version__,
        TRANSFORMER: ["hmcli.core.transformer", "HydraTransformer3DModel"],
        SCHEDULER: ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        VAE: [None, None],
        "text_encoder": [None, None],
        "tokenizer": [None, None],
    }
    if (vae := codec_folder(recipe)) is not None:
        shutil.copytree(vae, folder / VAE, ignore=shutil.ignore_patterns(MANIFEST))
        name = read_json(folder / VAE / CONFIG)["_class_name"]
        index[VAE] = [_OURS.get(name, "diffusers"), name]
    write_json(folder / INDEX, index)


def codec_folder(recipe: Recipe) -> Path | None:
    """The diffusers folder of the recipe's VAE, or None when it is a single file."""
    from hmcli.stages.models.folders import PACKAGED

    if not recipe.codec.path:
        return PACKAGED / VAE if recipe.codec.name == "mini" else None
    folder = vae_folder(Path(recipe.codec.path))
    return folder if (folder / CONFIG).is_file() else None
