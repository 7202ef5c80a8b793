"""Text <-> embeddings: UMT5 as Wan uses it, and `mini`, an embedding of words that needs no weights.

Both clean the caption the same way, return one row per token and store no padding; the model pads with zero rows.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import torch

from hmcli.aligned import own_weights
from hmcli.errors import DataError, MissingPartError, UsageError
from hmcli.recipe.sections import TextConfig
from hmcli.tensors.variants import only_variant

MINI_DIM = 64  # channels of a mini row: one sign bit of a hash each
MINI_POSITION = 0.25  # length of the position code added to a word's unit vector
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?|[^\w\s]")


def clean_caption(caption: str) -> str:
    """Repair broken unicode and HTML entities and collapse white space, as Wan's pipelines do before the tokenizer."""
    repaired = html.unescape(html.unescape(ftfy.fix_text(caption)))
    return re.sub(r"\s+", " ", repaired).strip()


class MiniText:
    """Words as fixed pseudo-random unit vectors: a word is the same vector in every caption, on every machine.

    A word (lower case; punctuation marks are words) is hashed, and the 64 bits of the hash are the signs of its 64
    channels, each 1/8 in size. A weak code of the position is added, so that word order is not lost. Unlike a language
    model it knows nothing of meaning: similar words are as far apart as any two. A caption without words is one row,
    that of the empty word. Words beyond `length` are cut off, as UMT5's are.
    """

    def __init__(self, *, name: str, length: int) -> None:
        self.name = name
        self.dim = MINI_DIM
        self.length = length

    def encode(self, captions: list[str]) -> list[np.ndarray]:
        """One (n, 64) float32 array per caption, 1 <= n <= length."""
        return _each_distinct_once(captions, self._encode_one)

    def token_count(self, caption: str) -> int:
        """Rows the whole caption would take; more than `length` means that `encode` cuts it."""
        return len(_words(caption))

    def _encode_one(self, caption: str) -> np.ndarray:
        words = _words(caption)[: self.length]
        rows = np.stack([word_vector(word) for word in words])
        return (rows + MINI_POSITION * position_code(len(words))).astype(np.float32)


def _words(caption: str) -> list[str]:
    return _WORD.findall(clean_caption(caption).lower()) or [""]


def word_vector(word: str) -> np.ndarray:
    """The word's (64,) float32 unit vector: signs from a 64-bit hash."""
    digest = hashlib.blake2b(word.encode("utf-8"), digest_size=MINI_DIM // 8).digest()
    bits = np.unpackbits(np.frombuffer(digest, np.uint8)).astype(np.float32)
    return (2.0 * bits - 1.0) / np.float32(MINI_DIM**0.5)


def position_code(rows: int) -> np.ndarray:
    """(rows, 64) float32 sines and cosines of the row number, unit length; rounded, so equal on every machine."""
    speeds = 1.0 / 100.0 ** (np.arange(MINI_DIM // 2) / (MINI_DIM // 2))
    angles = np.arange(rows)[:, None] * speeds
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=1) / (MINI_DIM // 2) ** 0.5
    return np.round(waves, 5).astype(np.float32)


class Umt5Text:
    """The text encoder of Wan. Each caption runs alone and unpadded, so its rows never depend on its neighbours."""

    def __init__(self, model: Any, tokenizer: Any, *, name: str, length: int, device: str | torch.device) -> None:
        self.name = name
        self.dim = int(model.config.d_model)
        self.length = length
        self._model = model.to(device).eval()
        self._tokenizer = tokenizer
        self._device = torch.device(device)

    def encode(self, captions: list[str]) -> list[np.ndarray]:
        """One (n, dim) float32 array per caption, n <= length; tokens beyond `length` are cut, the end mark is kept."""
        return _each_distinct_once(captions, self._encode_one)

    def token_count(self, caption: str) -> int:
        """Rows the whole caption would take; more than `length` means that `encode` cuts it."""
        return len(self._tokenizer(clean_caption(caption), add_special_tokens=True, verbose=False).input_ids)

    @torch.no_grad()
    def _encode_one(self, caption: str) -> np.ndarray:
        tokens = self._tokenizer(
            clean_caption(caption),
            max_length=self.length, truncation=True, add_special_tokens=True, return_tensors="pt",
        )  # fmt: skip
        ids, mask = tokens.input_ids.to(self._device), tokens.attention_mask.to(self._device)
        rows = self._model(ids, attention_mask=mask).last_hidden_state[0]
        return rows.float().cpu().numpy()


def _each_distinct_once(captions: list[str], encode_one: Callable[[str], np.ndarray]) -> list[np.ndarray]:
    rows = {caption: encode_one(caption) for caption in dict.fromkeys(captions)}
    return [rows[caption] for caption in captions]


def mini_text(config: TextConfig, device: str | torch.device) -> MiniText:
    """The offline embedding. It has no weights, so a path is refused; it computes in float32, whatever the device."""
    for key, given in (("text.path", config.path), ("text.dtype", config.dtype != "float32" and config.dtype)):
        if given:
            raise UsageError(
                f"the text encoder mini has no weights: {key} has no effect", where={"recipe": f"{key}={given}"},
                fix=f"leave {key} out, or set text.name to umt5",
            )  # fmt: skip
    return MiniText(name="mini", length=config.length)


def umt5_text(config: TextConfig, device: str | torch.device) -> Umt5Text:
    """UMT5 from the folders text_encoder/ and tokenizer/ in `text.path`, as in a diffusers Wan folder."""
    root = Path(config.path)
    parts = (root / "text_encoder" / "config.json", root / "tokenizer" / "tokenizer_config.json")
    absent = [str(part.relative_to(root)) for part in parts if not part.is_file()]
    if not config.path or absent:
        raise MissingPartError(
            "text encoder 'umt5' needs its weights and tokenizer",
            where={"text.path": config.path or "(empty)", "missing": ", ".join(absent)},
            fix="hm fetch wan2.1-1.3b, then text.path is the folder it prints (it holds text_encoder/ and tokenizer/)",
        )
    return Umt5Text(
        _load_umt5(root / "text_encoder", getattr(torch, config.dtype)),
        _load_tokenizer(root / "tokenizer"),
        name="umt5", length=config.length, device=device,
    )  # fmt: skip


def _load_umt5(folder: Path, dtype: torch.dtype) -> Any:
    from safetensors import SafetensorError
    from transformers import UMT5EncoderModel

    variant = only_variant(folder)
    try:
        loaded: Any = UMT5EncoderModel.from_pretrained(
            folder, dtype=dtype, output_loading_info=True, local_files_only=True, use_safetensors=True,
            variant=variant or None,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        where = {"folder": folder, "reason": (str(error).strip() or type(error).__name__).splitlines()[0]}
        raise DataError("the text encoder cannot be loaded", where=where, fix="download it again") from error
    model, info = loaded
    wrong = {key: ", ".join(sorted(map(str, info[key]))[:4]) for key in _WRONG if info[key]}
    if wrong:
        raise DataError("the weights do not fit the text encoder", where={"folder": folder, **wrong})
    own_weights(model)
    return model


_WRONG = ("missing_keys", "unexpected_keys", "mismatched_keys")


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer  # T5Tokenizer(vocab_file=...) would silently build an empty vocabulary

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        where = {"folder": folder, "reason": (str(error).strip() or type(error).__name__).splitlines()[0]}
        raise DataError("the tokenizer cannot be loaded", where=where, fix="download it again") from error
