"""CLIP ViT-B/32, fed as VBench feeds it."""

from __future__ import annotations

from hmcli.metrics.backbones.networks import (
    CLIP_MEAN,
    CLIP_STD,
    Network,
    about_network,
    centre,
    input_side,
    load_network,
    normalised,
    shorter_side,
    weights_folder,
)


def clip(path: str, device: str) -> Network:
    """CLIP ViT-B/32 (VBench's background consistency): projected image features, shorter side 224, centre crop."""
    from transformers import CLIPVisionModelWithProjection

    folder = weights_folder(
        "clip", path, "CLIP ViT-B/32 as transformers saves a CLIPModel (openai/clip-vit-base-patch32)"
    )
    model = load_network(CLIPVisionModelWithProjection, folder, device)
    side = input_side("clip", folder, model.config.image_size)
    return Network(
        "clip",
        pixels=lambda frames: normalised(centre(shorter_side(frames, side, "bicubic"), side), CLIP_MEAN, CLIP_STD),
        features=lambda pixels: model(pixel_values=pixels).image_embeds,
        device=device,
        about=about_network(
            f"projected image features of a ViT with {model.config.num_hidden_layers} layers of width "
            f"{model.config.hidden_size} on patches of {model.config.patch_size}",
            f"shorter side to {side}, bicubic, no antialiasing, centre crop, float pixels; CLIP mean and std",
            folder,
        ),
    )
