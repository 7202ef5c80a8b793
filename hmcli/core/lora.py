"""Low-rank adapters on the transformer, through peft: put on, kept in a file, put into the weights.

An adapter is trained beside weights that stay as they are; a model that generates carries it inside its weights.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from hmcli.core.transformer import HydraTransformer3DModel

FILE = "pytorch_lora_weights.safetensors"
ADAPTER = "default"


def add_lora(
    model: HydraTransformer3DModel, *, rank: int, alpha: float, targets: tuple[str, ...], generator: torch.Generator
) -> None:
    """Put an adapter without effect yet on every layer whose name ends in one of `targets`; only it stays trainable.

    Raises ValueError for a target that names no layer that can have one.
    """
    from peft import LoraConfig

    layers = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv3d))]
    if unused := [part for part in targets if not any(name == part or name.endswith(f".{part}") for name in layers)]:
        raise ValueError(f"train.lora.targets names no layer: {', '.join(unused)}")
    ends = "|".join(re.escape(part) for part in targets)  # a pattern: peft would keep a list as a set, in any order
    model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=rf"(.*\.)?({ends})"), ADAPTER)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_A." in name:  # peft draws from the global generator
                bound = parameter[0].numel() ** -0.5
                drawn = torch.rand(parameter.shape, generator=generator, device=generator.device)
                parameter.copy_(bound * (2 * drawn - 1))


def has_lora(model: nn.Module) -> bool:
    """Whether adapters sit on the model."""
    return any(".lora_A." in name for name, _ in model.named_parameters())


def save_lora(model: HydraTransformer3DModel, folder: Path) -> None:
    """Write the adapter alone, as `load_lora` and diffusers' `load_lora_adapter` read it."""
    from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    about = json.dumps(model.peft_config[ADAPTER].to_dict(), sort_keys=True)
    state = {
        name: part.contiguous().cpu() for name, part in get_peft_model_state_dict(model, adapter_name=ADAPTER).items()
    }
    save_file(state, folder / FILE, metadata={LORA_ADAPTER_METADATA_KEY: about})


def load_lora(model: HydraTransformer3DModel, file: Path) -> None:
    """Put an adapter from a file on the model."""
    model.load_lora_adapter(
        str(file.parent), prefix=None, weight_name=file.name, use_safetensors=True, local_files_only=True,
        adapter_name=ADAPTER,
    )  # fmt: skip


@torch.no_grad()
def fused_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict the model would have with its adapters put into its weights; the model stays as it is."""
    state = {}
    adapted: dict[str, Any] = {n: m for n, m in model.named_modules() if ADAPTER in getattr(m, "lora_A", {})}
    for name, tensor in model.state_dict().items():
        if ".lora_" in name:
            continue
        layer, _, last = name.rpartition(".base_layer.")
        if not layer:
            state[name] = tensor
        else:
            delta = adapted[layer].get_delta_weight(ADAPTER) if last == "weight" else 0
            state[f"{layer}.{last}"] = tensor + delta
    return state


def fused_model(model: HydraTransformer3DModel) -> HydraTransformer3DModel:
    """A model without adapters that computes the same; the model itself where it has none."""
    if not has_lora(model):
        return model
    with torch.device("meta"):
        plain: Any = type(model).from_config(model.config)
    plain.load_state_dict(fused_weights(model), assign=True)
    return plain
