"""What identifies the weights a stage uses: hashes of the files behind a recipe's codec and text sections."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from hmcli import registry
from hmcli.codecs.places import VAE, vae_folder
from hmcli.contracts import TextEncoder, VideoCodec
from hmcli.errors import DataError, MissingPartError
from hmcli.hub import fetch_hint
from hmcli.recipe.sections import CodecConfig, TextConfig
from hmcli.stages.models.folders import PACKAGED, ModelFolder
from hmcli.stages.models.layout import TrainedWith
from hmcli.store.hashing import HashCache, forget, hash_file, hash_json
from hmcli.store.listed import listed
from hmcli.store.manifest import is_artifact
from hmcli.store.weights import is_index, weight_files


def codec_hash(codec: CodecConfig) -> str:
    """Hash of the codec's weight files and configuration, whatever they are called."""
    path = Path(codec.path) if codec.path else PACKAGED / VAE
    if not codec.path and codec.name != "mini":
        raise MissingPartError(
            f"codec {codec.name!r} needs its weights", where={"recipe": "codec.path"},
            fix="set codec.path to the VAE's diffusers folder or original file (hm fetch wan2.1-1.3b brings one: vae/)",
        )  # fmt: skip
    return hash_json([codec.name, _look_up(_vae(path))])


def open_codec(codec: CodecConfig, device: str) -> VideoCodec:
    """The codec, with the weights that `codec_hash` is of. Raises DataError when they changed meanwhile."""
    opened: VideoCodec = registry.find("codec", codec.name)(codec, device)
    if codec.path:
        _check_hashed(_vae(Path(codec.path)))
    return opened


def open_text(text: TextConfig, device: str) -> TextEncoder:
    """The text encoder, with the files that `text_hash` is of. Raises DataError when they changed meanwhile."""
    opened: TextEncoder = registry.find("text", text.name)(text, device)
    if text.path:
        _check_hashed(Path(text.path))
    return opened


def text_hash(text: TextConfig) -> str:
    """Hash of the text encoder's files; `mini` has none, its name says all."""
    if not text.path:
        return hash_json([text.name])
    return hash_json([text.name, _look_up(Path(text.path))])


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


def _require_same(model: ModelFolder, section: Literal["codec", "text"], path: str, found: str) -> None:
    """Raise DataError unless the model records that it was trained with weights of this hash."""
    trained_with = model.about.trained_with or TrainedWith()
    recorded = trained_with.codec if section == "codec" else trained_with.text
    if recorded is None and path == model.manifest.recipe[section]["path"]:
        return  # made before this was recorded, and its path is as it was
    if recorded != found:
        what = "are not those the model was trained with" if recorded else "cannot be compared: the model records none"
        raise DataError(
            f"the {section} weights {what}", where={"model": model.path, f"{section}.path": path},
            fix=f"set {section}.path to where the weights now lie that were there: {model.manifest.recipe[section]}",
        )  # fmt: skip


def _vae(path: Path) -> Path:
    """The VAE's own folder, or file. Raises DataError where it lies in an artifact and is not as it was written."""
    folder = vae_folder(path)
    if is_artifact(folder.parent):
        files = listed(folder.parent)
        for name in files.below(folder.name):
            files.check(name)
    return folder


_LOOKED_UP: dict[Path, dict[str, str]] = {}  # in this process, last: what keys were made of


def _look_up(path: Path) -> dict[str, str]:
    _LOOKED_UP[path] = _files(path)
    return _LOOKED_UP[path]


def _check_hashed(path: Path) -> None:
    """Weights were looked up by their hashes, which may be remembered ones: once they are loaded, hash their bytes."""
    known, now = _LOOKED_UP.get(path) or _look_up(path), _files(path, remembered=False)
    if changed := [name for name in known if now.get(name) != known[name]]:
        for name in changed:
            forget(path / name, HashCache())
        raise DataError(
            "weights changed while they were being used", where={"weights": path, "file": changed[0]},
            fix="run the same command again when nothing writes them any more",
        )  # fmt: skip


def _files(path: Path, *, remembered: bool = True) -> dict[str, str]:
    """Hashes of a file, or of a folder's weights, configurations and tokenizers, by relative name."""
    if not path.exists():
        raise MissingPartError(
            "the weights are not there", where={"path": path}, fix=f"correct the path in the recipe{fetch_hint(path)}"
        )
    cache = HashCache() if remembered else None
    if path.is_file():
        return {"": hash_file(path, cache=cache)}
    for index in filter(is_index, path.rglob("*.json")):
        weight_files(index)  # every shard lies beside it, or it is refused before anything reads it
    names = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".") and p.suffix != ".md")
    return {p.relative_to(path).as_posix(): hash_file(p, cache=cache) for p in names}
