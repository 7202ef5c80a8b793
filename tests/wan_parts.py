"""Tiny random parts in the forms in which Wan2.1 published its own: VAE in a single file, text encoder in folders."""

from __future__ import annotations

import json
import random
from pathlib import Path

import sentencepiece
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import save_file
from transformers import UMT5Config, UMT5EncoderModel

WORDS = [
    "a",
    "the",
    "dog",
    "cat",
    "walks",
    "runs",
    "across",
    "behind",
    "red",
    "blue",
    "house",
    "street",
    "park",
    "tree",
]
RESIDUAL = {
    "norm1.gamma": "residual.0.gamma", "norm2.gamma": "residual.3.gamma",
    "conv1.weight": "residual.2.weight", "conv1.bias": "residual.2.bias",
    "conv2.weight": "residual.6.weight", "conv2.bias": "residual.6.bias",
    "conv_shortcut.weight": "shortcut.weight", "conv_shortcut.bias": "shortcut.bias",
}  # fmt: skip


def original_name(name: str) -> str:
    """Wan's own name of a parameter that diffusers calls `name` (four levels, two residual blocks each)."""
    if name.startswith(("quant_conv.", "post_quant_conv.")):
        return name.replace("post_quant_conv", "conv2").replace("quant_conv", "conv1")
    half, rest = name.split(".", 1)
    for ours, theirs in (("conv_in.", "conv1."), ("norm_out.", "head.0."), ("conv_out.", "head.2.")):
        if rest.startswith(ours):
            return f"{half}.{theirs}{rest.removeprefix(ours)}"
    parts = rest.split(".")
    if parts[:2] == ["mid_block", "attentions"]:
        return f"{half}.middle.1.{'.'.join(parts[3:])}"
    if parts[:2] == ["mid_block", "resnets"]:
        return f"{half}.middle.{2 * int(parts[2])}.{RESIDUAL['.'.join(parts[3:])]}"
    if parts[0] == "down_blocks":
        return f"{half}.downsamples.{parts[1]}.{RESIDUAL.get('.'.join(parts[2:]), '.'.join(parts[2:]))}"
    number = 4 * int(parts[1]) + (int(parts[3]) if parts[2] == "resnets" else 3)
    return f"{half}.upsamples.{number}.{RESIDUAL.get('.'.join(parts[4:]), '.'.join(parts[4:]))}"


def original_file(folder: Path, suffix: str, seed: int = 1) -> tuple[Path, AutoencoderKLWan]:
    """A tiny random VAE of the published layout in the original file's names."""
    torch.manual_seed(seed)
    vae = AutoencoderKLWan(base_dim=4, decoder_base_dim=6)
    weights = {original_name(name): value for name, value in vae.state_dict().items()}
    assert len(weights) == len(vae.state_dict())
    path = folder / f"Wan2.1_VAE{suffix}"
    if suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    return path, vae


def text_folder(root: Path, seed: int = 0) -> Path:
    """text_encoder/ and tokenizer/ as in a Wan folder: a tiny random UMT5 and a tiny sentencepiece model."""
    tokenizer, shuffled = root / "tokenizer", random.Random(0)
    tokenizer.mkdir(parents=True)
    corpus = root / "corpus.txt"
    corpus.write_text("\n".join(" ".join(shuffled.choices(WORDS, k=8)) for _ in range(200)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(tokenizer / "spiece"), vocab_size=40, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    settings = {
        "tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
        "extra_ids": 0, "model_max_length": 512,
    }  # fmt: skip
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(seed)
    config = UMT5Config(vocab_size=64, d_model=24, d_kv=6, d_ff=40, num_layers=2, num_heads=3)
    UMT5EncoderModel(config).save_pretrained(root / "text_encoder")
    return root
