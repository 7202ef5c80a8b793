"""What identifies the weights a stage uses: hashes of the files behind a recipe's codec and text sections."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hmcli.errors import DataError, MissingPartError
from hmcli.recipe.sections import CodecConfig, TextConfig
from hmcli.stages.models.folders import PACKAGED, ModelFolder
from hmcli.store.hashing import HashCache, hash_file, hash_json
from hmcli.store.weights import INDEX, weight_files

TRAINED_WITH = "trained_with"  # attribute of a checkpoint: hashes of the codec and text encoder behind its latents


def codec_hash(codec: CodecConfig) -> str:
    """Hash of the codec's weight files and configuration, whatever they are called."""
    path = Path(codec.path) if codec.path else PACKAGED / "vae"
    if not codec.path and codec.name != "mini":
        raise MissingPartError(
            f"codec {codec.name!r} needs its weights", where={"recipe": "codec.path"},
            fix="set codec.path to the VAE's diffusers folder or original file (docs/quickstart.md, real weights)",
        )  # fmt: skip
    return hash_json([codec.name, _files(path / "vae" if (path / "vae" / "config.json").is_file() else path)])


def text_hash(text: TextConfig) -> str:
    """Hash of the text encoder's files; `mini` has none, its name says all."""
    if not text.path:
        return hash_json([text.name])
    return hash_json([text.name, _files(Path(text.path))])


def codec_of(model: ModelFolder, path: str) -> CodecConfig:
    """The codec a model was trained with; its weights lie at `path` where the model only names them by one.

    Raises DataError when they are not those it was trained with.
    """
    codec = model.codec()
    if not model.names_codec:
        return codec
    codec = dataclasses.replace(codec, path=path or codec.path)
    _require_same(model, "codec", codec.path, codec_hash(codec))
    return codec


def text_of(model: ModelFolder, path: str) -> TextConfig:
    """The text encoder a model was trained with, at `path` where the model only names it by one; see `codec_of`."""
    text = model.text()
    if not model.names_text:
        return text
    text = dataclasses.replace(text, path=path or text.path)
    _require_same(model, "text", text.path, text_hash(text))
    return text


def _require_same(model: ModelFolder, section: str, path: str, found: str) -> None:
    """Raise DataError unless the model records that it was trained with weights of this hash."""
    recorded = model.manifest.attributes.get(TRAINED_WITH, {}).get(section)
    if recorded is None and path == model.manifest.recipe[section]["path"]:
        return  # made before this was recorded, and its path is as it was
    if recorded != found:
        what = "are not those the model was trained with" if recorded else "cannot be compared: the model records none"
        raise DataError(
            f"the {section} weights {what}", where={"model": model.path, f"{section}.path": path},
            fix=f"set {section}.path to where the weights now lie that were there: {model.manifest.recipe[section]}",
        )  # fmt: skip


def _files(path: Path) -> dict[str, str]:
    """Hashes of a file, or of a folder's weights, configurations and tokenizers, by relative name."""
    if not path.exists():
        raise MissingPartError("the weights are not there", where={"path": path}, fix="correct the path in the recipe")
    cache = HashCache()
    if path.is_file():
        return {"": hash_file(path, cache=cache)}
    for index in path.rglob(f"*{INDEX}"):
        weight_files(index)  # every shard lies beside it, or it is refused before anything reads it
    names = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".") and p.suffix != ".md")
    return {p.relative_to(path).as_posix(): hash_file(p, cache=cache) for p in names}
