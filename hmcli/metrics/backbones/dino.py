"""DINO ViT-B/16, fed as VBench feeds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import ViTModel
from hmcli.metrics.backbones.networks import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Network,
    about_network,
    input_side,
    load_network,
    normalised,
    shorter_side,
    weights_folder,
)


class DinoFeatures:
    """Class token of a ViT at any input size, with position embeddings stretched as the DINO repository does.

    DINO enlarges the table by (cells + 0.1) / side along each axis and keeps that factor for the coordinates, where
    transformers passes the wanted size; the grids agree, the values differ a little, and scores with them.
    """

    def __init__(self, model: ViTModel) -> None:
        self._config = model.config
        self._weights = dict(model.named_parameters()) | dict(model.named_buffers())
        self._shells: dict[tuple[int, int], ViTModel] = {}  # the architecture at one input size, without weights

    def _positions(self, height: int, width: int) -> Tensor:
        """(1, 1 + cells, D): the table of the class token and of every patch of a (height, width) input, in pixels."""
        import torch
        from torch.nn import functional

        table = self._weights["embeddings.position_embeddings"]
        side = round((table.shape[1] - 1) ** 0.5)
        patch_height, patch_width = self._weights["embeddings.patch_embeddings.projection.weight"].shape[-2:]
        cells = (height // patch_height, width // patch_width)
        if cells == (side, side) and height == width:
            return table
        grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        factor = [(count + 0.1) / side for count in cells]
        stretched = functional.interpolate(grid, scale_factor=factor, mode="bicubic")
        return torch.cat([table[:, :1], stretched.flatten(2).mT], dim=1)

    def __call__(self, pixels: Tensor) -> Tensor:
        import copy

        import torch
        from transformers import ViTModel

        size = (pixels.shape[-2], pixels.shape[-1])
        if size not in self._shells:
            config = copy.deepcopy(self._config)
            config.image_size = size
            with torch.device("meta"):
                self._shells[size] = ViTModel(config, add_pooling_layer=False).eval()
        weights = self._weights | {"embeddings.position_embeddings": self._positions(*size)}
        output = torch.func.functional_call(self._shells[size], weights, (pixels,), strict=True)
        return output.last_hidden_state[:, 0]


def dino(path: str, device: str) -> Network:
    """DINO ViT-B/16 (VBench's subject consistency): class token, shorter side 224, whole frame."""
    from transformers import ViTModel

    folder = weights_folder("dino", path, "DINO ViT-B/16 as transformers saves a ViTModel (facebook/dino-vitb16)")
    model = load_network(ViTModel, folder, device, add_pooling_layer=False)
    side = input_side("dino", folder, model.config.image_size)
    return Network(
        "dino",
        pixels=lambda frames: normalised(shorter_side(frames, side, "bilinear"), IMAGENET_MEAN, IMAGENET_STD),
        features=DinoFeatures(model),
        device=device,
        about=about_network(
            f"class token of a ViT with {model.config.num_hidden_layers} layers of width {model.config.hidden_size} on "
            f"patches of {model.config.patch_size}, position embeddings stretched as in the DINO repository",
            f"shorter side to {side}, bilinear, no antialiasing, no crop, float pixels; ImageNet mean and std",
            folder,
        ),
    )
