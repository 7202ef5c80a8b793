"""What `hm convert` was given: found out from the names and shapes of its weights, which stay on disk.

Known are the released HyDRA checkpoint and Wan2.1's transformer under their original names, diffusers folders of
both kinds (a transformer or a whole pipeline), runs and checkpoints of hm, and Wan2.1's VAE.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hmcli.errors import DataError, UsageError
from hmcli.hub import fetch_hint
from hmcli.stages.models.folders import find_model
from hmcli.stages.models.layout import CHECKPOINT, CONFIG, RUN, TRANSFORMER
from hmcli.store.adapters import is_adapter
from hmcli.store.files import read_json
from hmcli.store.listed import listed as listed_in
from hmcli.store.manifest import is_artifact, read_manifest
from hmcli.store.names import has_memory, is_released, listed, to_ours, under_prefix
from hmcli.store.weights import Opened, find_weights, open_weights, shapes_of, weight_files

if TYPE_CHECKING:
    from torch import Tensor

_OF_A_VAE = ("decoder.conv1.weight", "decoder.conv_in.weight")  # original, diffusers
_FOREIGN = {
    "token_embedding.weight": "the UMT5 text encoder in its original form; text.path takes its transformers folder",
    "shared.weight": "a text encoder; text.path takes the folder that holds text_encoder/ and tokenizer/",
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A transformer's weights under our names, or a VAE, and what lies beside it."""

    path: Path
    part: Literal["transformer", "vae"]
    form: str  # what it is, for people
    files: list[Path]  # what it is made of, for its fingerprint
    state: dict[str, Tensor] = field(default_factory=dict)  # our names; empty for a VAE
    config: Mapping[str, Any] = field(default_factory=dict)  # config.json beside the weights
    recipe: Mapping[str, Any] | None = None  # that a model of hm was made with
    parts: Path | None = None  # folder that may hold vae/, text_encoder/ and tokenizer/
    taken: str = ""  # where in the file it lay: the keys that lead to it, and the prefix of its names
    others: tuple[str, ...] = ()  # where other models of the same kind lie in it
    left_out: tuple[str, ...] = ()  # what else the file holds, in words

    @property
    def ours(self) -> bool:
        """Whether its configuration says all about memory."""
        return self.config.get("_class_name") == "HydraTransformer3DModel"

    @property
    def has_memory(self) -> bool:
        """Whether the parts that HyDRA adds to Wan are in it."""
        return has_memory(self.state)


def look(path: Path, part: str = "") -> Source:
    """What lies at `path`; of a file that holds several state dicts, the part of that name.

    Raises UsageError where there is nothing, DataError for what cannot be converted.
    """
    if str(path) == "mini" or (is_artifact(path) and read_manifest(path).kind in (RUN, CHECKPOINT)):
        _refuse_part(path, part)
        model = find_model(path)
        model.check_whole(TRANSFORMER)
        found = _transformer(model.path / TRANSFORMER, open_weights(model.path / TRANSFORMER))
        return replace(found, path=path, form="a model of hm", recipe=model.manifest.recipe, parts=model.path)
    if not path.exists():
        raise UsageError(
            "there is nothing here to convert", where={"source": path}, fix=f"name a file or a folder{fetch_hint(path)}"
        )
    if (path / TRANSFORMER).is_dir():
        _refuse_part(path, part)
        _check_listed(path)
        found = _transformer(path / TRANSFORMER, open_weights(path / TRANSFORMER))
        return replace(found, path=path, form=f"a pipeline with {found.form}", parts=path)
    opened = open_weights(path, part.partition(":")[0])
    if any(name in opened.state for name in _OF_A_VAE):
        return Source(path=path, part="vae", form="a Wan VAE", files=_files(path))
    return _transformer(path, opened, part)


def _refuse_part(path: Path, part: str) -> None:
    if part:
        raise UsageError("--part names a state dict in a file of weights", where={"source": path}, fix="leave it out")


def _check_listed(path: Path) -> None:
    """Raise DataError where the folder is an artifact whose weights are not as they were written."""
    if is_artifact(path):
        files = listed_in(path)
        for name in files.below(TRANSFORMER):
            files.check(name)


def _transformer(path: Path, opened: Opened, part: str = "") -> Source:
    state: Mapping[str, Tensor] = opened.state
    for name, what in _FOREIGN.items():
        if name in state:
            raise DataError(f"this is {what}", where={"source": path})
    if is_adapter(state):
        raise UsageError(
            "this is an adapter (LoRA), no model", where={"source": path}, fix="convert its base with --lora THIS_FILE"
        )
    found = under_prefix(state, part.partition(":")[2])
    original = is_released(found.state)
    named = to_ours(found.state, where=path) if original else found.state
    if not any(name.startswith(("blocks.", "patch_embedding.")) for name in named):
        raise DataError(
            "these are no weights of a Wan or HyDRA transformer",
            where={"source": path, f"names ({len(state)})": listed(sorted(state))},
            fix="docs/weights.md lists what can be converted",
        )
    kind = "HyDRA" if has_memory(named) else "plain Wan"
    form = f"a {kind} transformer, {'original' if original else 'diffusers'} names"
    form += f", each after {found.prefix!r}" if found.prefix else ""
    form += f", from {opened.part!r} in the file" if opened.part else ""
    form += f"; {opened.scaled}" if opened.scaled else ""
    config = find_weights(path).parent / CONFIG
    others = (*opened.others, *(f"{opened.part}:{prefix}" for prefix in found.others))
    return Source(
        path=path, part="transformer", form=form, state=named, files=_files(path),
        config=read_json(config) if config.is_file() else {}, taken=f"{opened.part}:{found.prefix}", others=others,
        left_out=tuple(_left_out(others, found.left)),
    )  # fmt: skip


def _left_out(others: tuple[str, ...], names: tuple[str, ...]) -> Iterator[str]:
    if others:
        yield f"the file also holds {', '.join(map(repr, others))}: --part NAME takes another"
    if names:
        yield f"{len(names)} other weights in the file are no part of it and are left: {', '.join(names[:4])}" + (
            ", ..." if len(names) > 4 else ""
        )


def _files(path: Path) -> list[Path]:
    files = weight_files(path)
    config = files[0].parent / CONFIG
    return [*files, config] if config.is_file() else files


def read_shapes(source: Source) -> dict[str, Any]:
    """What shapes say of a transformer: keys of the recipe's model section, and `channels` and `text_dim`.

    Where blocks differ the most frequent shape counts, so that the others are told as misshapen; what no weight tells
    is left out.
    """
    shapes = shapes_of(source.state)
    found: dict[str, Any] = {}
    if (patch := shapes.get("patch_embedding.weight")) is not None and len(patch) == 5:
        found |= {"dim": patch[0], "channels": patch[1], "patch": list(patch[2:])}
    blocks = [int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")]
    if blocks:
        found["layers"] = max(blocks) + 1
    if (ffn := _common(shapes, ".ffn.net.0.proj.weight")) is not None:
        found["ffn_dim"] = ffn[0]
    if (time := shapes.get("condition_embedder.time_embedder.linear_1.weight")) is not None:
        found["freq_dim"] = time[1]
    if (text := shapes.get("condition_embedder.text_embedder.linear_1.weight")) is not None:
        found["text_dim"] = text[1]
    kernel = _common(shapes, ".attn1.tokenizer.conv.weight")
    if kernel is not None and len(kernel) == 5 and "patch" in found:
        found["memory.kernel"] = [tokens * side for tokens, side in zip(kernel[2:], found["patch"], strict=True)]
    return found


def _common(shapes: Mapping[str, tuple[int, ...]], end: str) -> tuple[int, ...] | None:
    counted = Counter(shape for name, shape in shapes.items() if name.startswith("blocks.") and name.endswith(end))
    return counted.most_common(1)[0][0] if counted else None


def heads_beside(source: Source) -> int | None:
    """The number of heads, which no shape tells, as config.json says it."""
    heads = source.config.get("num_attention_heads") or source.config.get("num_heads")
    return None if heads is None else int(heads)
