"""What identifies the weights a stage uses: hashes of the files behind a recipe's codec and text sections."""

from __future__ import annotations

from pathlib import Path

from hmcli.errors import MissingPartError
from hmcli.recipe.sections import CodecConfig, TextConfig
from hmcli.stages.models.folders import PACKAGED
from hmcli.store.hashing import HashCache, hash_file, hash_json
from hmcli.store.weights import INDEX, weight_files


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
