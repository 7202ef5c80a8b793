"""Files of a Wan VAE: a diffusers folder, or the original single file with the original key names.

Nothing is fetched and no pickled code is run; a missing, extra or misshapen weight is an error, never a warning.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from safetensors import SafetensorError

from hmcli.aligned import own_weights
from hmcli.codecs.places import CONFIG, vae_folder
from hmcli.errors import DataError, MissingPartError
from hmcli.tensors.reading import read_tensors
from hmcli.tensors.scaled import unscaled
from hmcli.tensors.variants import only_variant

PUBLISHED_LATENTS = 16  # channels whose mean and standard deviation are published for the single file
KEYS_SHOWN = 4


def load_wan_vae(path: Path, dtype: torch.dtype) -> AutoencoderKLWan:
    """The VAE from a folder (its own, or one with vae/ inside) or from the original .pth or .safetensors file."""
    if path.is_file():
        return load_original(path, dtype)
    folder = vae_folder(path)
    if not (folder / CONFIG).is_file():
        raise MissingPartError(
            "there is no VAE at this path",
            where={"codec.path": path},
            fix="hm fetch wan2.1-1.3b, then codec.path is its vae/; or put a diffusers folder or Wan2.1_VAE.pth there",
        )
    return load_folder(folder, dtype)


def load_folder(folder: Path, dtype: torch.dtype) -> AutoencoderKLWan:
    """A diffusers folder with safetensors weights, also where they are a variant (`*.fp16.safetensors`)."""
    variant = only_variant(folder)
    try:
        vae, info = AutoencoderKLWan.from_pretrained(
            str(folder), torch_dtype=dtype, output_loading_info=True, local_files_only=True, use_safetensors=True,
            variant=variant or None,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        raise DataError(
            "the VAE cannot be loaded", where={"folder": folder, "reason": first_line(error)}, fix="download it again"
        ) from error
    own_weights(vae)
    refuse_wrong_keys(folder, missing=info["missing_keys"], extra=info["unexpected_keys"])
    return vae


def load_original(path: Path, dtype: torch.dtype) -> AutoencoderKLWan:
    """The single file as Wan published it; sizes are read from its tensors."""
    weights, _ = unscaled(read_tensors(path).state, path)
    try:
        sizes = {
            "base_dim": weights["encoder.conv1.weight"].shape[0],
            "decoder_base_dim": weights["decoder.head.2.weight"].shape[1],
            "z_dim": weights["conv2.weight"].shape[0],
        }
    except KeyError as error:
        raise DataError(f"this file is no Wan2.1 VAE: it has no {error}", where={"file": path}) from error
    if sizes["z_dim"] != PUBLISHED_LATENTS:
        raise DataError(
            f"this VAE has {sizes['z_dim']} latent channels, the published statistics are for {PUBLISHED_LATENTS}",
            where={"file": path},
            fix="use a diffusers folder, whose config.json carries latents_mean and latents_std",
        )
    vae = AutoencoderKLWan(**sizes)
    try:  # copies: the weights stand in memory of their own
        found = vae.load_state_dict(convert_wan_vae_to_diffusers(weights), strict=False)
    except RuntimeError as error:
        raise DataError("the VAE's weights have other shapes", where={"file": path, "reason": str(error)}) from error
    refuse_wrong_keys(path, missing=found.missing_keys, extra=found.unexpected_keys)
    return vae.to(dtype)


def refuse_wrong_keys(path: Path, *, missing: list[str], extra: list[str]) -> None:
    """Raise DataError naming the weights that a file lacks or has too many."""
    if not missing and not extra:
        return
    where: dict[str, object] = {"weights": path}
    for label, keys in (("missing", missing), ("unknown", extra)):
        if keys:
            rest = f" and {len(keys) - KEYS_SHOWN} more" if len(keys) > KEYS_SHOWN else ""
            where[label] = ", ".join(sorted(keys)[:KEYS_SHOWN]) + rest
    raise DataError("the weights do not fit the VAE", where=where, fix="use weights and config.json of one model")


def first_line(error: Exception) -> str:
    """What another library's error says, without its lists."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
