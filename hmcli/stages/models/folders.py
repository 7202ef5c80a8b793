"""Models for stages: built from a recipe, opened from a run, a checkpoint or the packaged weights.

A checkpoint is a diffusers folder (model_index.json, transformer/, scheduler/, vae/ where the codec is a folder) with
the training state beside it; its manifest says which codec and text encoder the model was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmcli.codecs.places import VAE
from hmcli.contracts import TIME_STRIDE
from hmcli.errors import DataError, MissingPartError, RecipeError, UsageError
from hmcli.hub import fetch_hint
from hmcli.recipe.sections import CodecConfig, Recipe, TextConfig
from hmcli.stages.models.layout import CHECKPOINT, CONFIG, RUN, TRANSFORMER, CheckpointAttributes, RunAttributes
from hmcli.stages.shared.typed import from_json
from hmcli.store.files import inside, parse_json
from hmcli.store.finite import require_finite_weights
from hmcli.store.listed import listed
from hmcli.store.manifest import Manifest, is_artifact, read_manifest
from hmcli.store.records import MANIFEST
from hmcli.store.weights import weight_files

if TYPE_CHECKING:
    import torch

    from hmcli.core.transformer import HydraTransformer3DModel

# Settings that a training may choose otherwise than its base. Only the kernel has weights: a tokenizer of another one
# starts anew.
READS_MEMORY = ("policy", "affinity", "top_k", "window", "tokenizer", "max_history", "context", "flow_noise", "kernel")
_TOKENIZER = ".tokenizer."  # in the names of its weights
PACKAGED = Path(__file__).parents[2] / "weights" / "mini"
LATER_SETTINGS = {
    "flow_noise": "shared",
    "positions": "screen",
}  # what configurations saved before a setting existed mean


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """Where a model lies and what it was made with. `path` is the folder that holds transformer/."""

    path: Path
    manifest: Manifest

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    @property
    def about(self) -> CheckpointAttributes:
        return from_json(CheckpointAttributes, self.manifest.attributes, "the description", model=self.path)

    def check_whole(self, part: str) -> None:
        """Raise DataError unless every file of `part` (transformer, vae) is as it was written."""
        files = listed(self.path)
        for name in files.below(part):
            files.check(name)
        if (self.path / part).is_dir():
            weight_files(self.path / part)  # an index names files beside it only

    def config(self) -> dict[str, Any]:
        """What the transformer was built with."""
        name = f"{TRANSFORMER}/{CONFIG}"
        return dict(LATER_SETTINGS | parse_json(listed(self.path).read(name).data, self.path / name))

    def codec(self) -> CodecConfig:
        """The codec the model's latents come from; a vae/ in the checkpoint itself is preferred to a path elsewhere."""
        values = dict(self.manifest.recipe["codec"])
        if (self.path / VAE).is_dir():
            self.check_whole(VAE)
            values["path"] = str(self.path / VAE)
        return _config(CodecConfig, values)

    def text(self) -> TextConfig:
        return _config(TextConfig, dict(self.manifest.recipe["text"]))

    @property
    def names_codec(self) -> bool:
        """Does it say by path where its codec's weights lie? Otherwise they lie in it, or come with the package."""
        return bool(self.manifest.recipe["codec"]["path"]) and not (self.path / VAE).is_dir()

    @property
    def names_text(self) -> bool:
        """Does it say by path where its text encoder lies?"""
        return bool(self.manifest.recipe["text"]["path"])

    def load(
        self, dtype: torch.dtype, device: str, policy: str | None = None, max_history: int | None = None
    ) -> HydraTransformer3DModel:
        """The transformer, with its own memory policy and `max_history` or others; all files and weights are checked.

        Raises DataError for any that cannot be used.
        """
        from hmcli.core.transformer import load_model

        self.check_whole(TRANSFORMER)
        model: Any = load_model(self.path / TRANSFORMER, dtype, policy, max_history)
        require_finite_weights(model.state_dict(), where={"model": self.path})
        model.to(device)
        model.eval()
        return model


def _config(kind: Any, values: dict[str, Any]) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind).validate_python(values)


def find_model(model: Path) -> ModelFolder:
    """A run (its last checkpoint), a checkpoint, or `mini` (the packaged weights).

    Raises UsageError when there is nothing there or `mini` is a folder here too, DataError when it is unfinished,
    MissingPartError when the package came without its weights.
    """
    if str(model) == "mini":
        if model.exists():
            raise UsageError(
                "mini is the packaged weights, and also something in the working folder",
                where={"here": model.absolute()},
                fix="give the absolute path to mean that one; to mean the packaged weights, work in another folder",
            )  # fmt: skip
        if not is_artifact(PACKAGED):
            raise MissingPartError("this installation has no packaged weights", where={"looked in": PACKAGED})
        return ModelFolder(path=PACKAGED, manifest=read_manifest(PACKAGED))
    if not model.is_dir():
        raise UsageError(
            "there is no such model",
            where={"model": model},
            fix=f"give a run, a checkpoint, or mini{fetch_hint(model)}",
        )
    manifest = read_manifest(model, kinds=(RUN, CHECKPOINT))
    if manifest.kind == RUN:
        name = from_json(RunAttributes, manifest.attributes, "the description", run=model).checkpoint
        folder = inside(model, name)
        listed(model).check(f"{name}/{MANIFEST}")  # it is the one that this run wrote
        return ModelFolder(path=folder, manifest=read_manifest(folder, kinds=(CHECKPOINT,)))
    return ModelFolder(path=model, manifest=manifest)


def model_arguments(recipe: Recipe, *, channels: int, text_dim: int) -> dict[str, Any]:
    """Constructor arguments of the transformer a recipe describes."""
    m, memory = recipe.model, recipe.model.memory
    return {
        "num_layers": m.layers, "num_attention_heads": m.heads, "attention_head_dim": m.dim // m.heads,
        "ffn_dim": m.ffn_dim, "freq_dim": m.freq_dim, "text_dim": text_dim, "in_channels": channels,
        "out_channels": channels, "patch_size": m.patch, "policy": memory.policy, "affinity": memory.affinity,
        "context": memory.context, "top_k": memory.top_k, "window": memory.window, "kernel": memory.kernel,
        "tokenizer": memory.tokenizer, "spans": memory.spans, "max_history": memory.max_history,
        "flow_target": recipe.flow.target, "flow_noise": recipe.flow.noise, "positions": m.positions,
    }  # fmt: skip


def build_model(recipe: Recipe, *, channels: int, text_dim: int) -> HydraTransformer3DModel:
    """A transformer to train: random from the recipe's seed, or starting from `model.base`."""
    import torch

    from hmcli.core.transformer import HydraTransformer3DModel, load_model

    wanted = model_arguments(recipe, channels=channels, text_dim=text_dim)
    base = find_base(recipe, wanted)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = HydraTransformer3DModel(**wanted)
    if base is not None:
        base.check_whole(TRANSFORMER)
        weights = load_model(base.path / TRANSFORMER, torch.float32).state_dict()
        require_finite_weights(weights, where={"model.base": base.path})
        if "kernel" in read_otherwise(base, wanted):
            new = {name: value for name, value in model.state_dict().items() if _TOKENIZER in name}
            weights = {name: value for name, value in weights.items() if _TOKENIZER not in name} | new
        model.load_state_dict(weights)
    return model


def read_otherwise(base: ModelFolder, wanted: dict[str, Any]) -> dict[str, str]:
    """What a model takes from memory otherwise than the base its weights come from: key -> from what to what."""
    config = base.config()
    return {
        key: f"{config[key]} -> {_plain(value)}"
        for key, value in wanted.items()
        if config[key] != _plain(value) and _may_differ(key, config[key], value)
    }


def find_base(recipe: Recipe, wanted: dict[str, Any]) -> ModelFolder | None:
    """The model that `model.base` names; None when training starts from random weights.

    What is read from memory (`READS_MEMORY`) is the recipe's own choice, and so is which kind of rays says where tokens
    sit. Raises RecipeError listing everything else in which the base differs from the recipe. Reads no weights.
    """
    if not recipe.model.base:
        return None
    base = find_model(Path(recipe.model.base))
    config = base.config()
    differing = {
        key: f"{config[key]} in the base, {_plain(value)} in the recipe"
        for key, value in wanted.items()
        if config[key] != _plain(value) and not _may_differ(key, config[key], value)
    }
    if differing:
        raise RecipeError(
            f"model.base={recipe.model.base!r} is another model than the recipe describes", where=differing,
            fix="set the model section to the base's values, or model.base='' to start from random weights",
        )  # fmt: skip
    return base


def _may_differ(key: str, was: Any, now: Any) -> bool:
    return key in READS_MEMORY or (key == "positions" and "screen" not in (was, now))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def check_memory_fits(
    config: Any, clip: str, *, context: int, target: int, size: tuple[int, int] | None
) -> None:  # fmt: skip
    """Raise DataError when a clip has too few latent frames for `memory.top_k`, or too small ones for the kernel.

    A frozen model tokenizes context alone, and its context frames retrieve among those slots. `size` is height and
    width in latent pixels; None: not known yet.
    """
    from hmcli import registry
    from hmcli.core.retrieval import CONTEXT_FRAMES, SLOTS, needs_of

    needs = needs_of(registry.find("policy", config["policy"]))
    if CONTEXT_FRAMES in needs and config["top_k"] < 1:
        raise RecipeError(f"model.memory.top_k=0: policy {config['policy']} reads at least one context frame")
    if CONTEXT_FRAMES in needs and context < config["top_k"]:
        raise DataError(
            f"there are {context} context latent frames, but model.memory.top_k is {config['top_k']}",
            where={"clip": clip, "policy": config["policy"]},
            fix=f"use longer clips ({video_frames(config['top_k'])} frames of context), or a model with "
            f"top_k <= {context}",
        )
    if SLOTS not in needs:
        return
    if size is not None:
        check_kernel_fits(config["kernel"], clip, size)
    time = frames_a_slot(config)
    frozen = config["context"] == "frozen"
    frames, whose = (context, "context") if frozen else (context + target, "context and target together")
    if (slots := frames // time) < config["top_k"]:
        raise DataError(
            f"{frames} latent frames make {slots} memory slots, but model.memory.top_k is {config['top_k']}",
            where={"clip": clip, "kernel": f"{time} latent frames a slot"},
            fix=f"use longer clips ({video_frames(time * config['top_k'])} frames of {whose}), or a model with "
            f"top_k <= {slots}",
        )


def frames_a_slot(config: Mapping[str, Any]) -> int:
    """Latent frames that a slot of a model of this configuration stands for."""
    return int(config["kernel"][0] // config["patch_size"][0])


def video_frames(latent: int) -> int:
    """Frames of a video with so many latent frames."""
    return 1 + TIME_STRIDE * (latent - 1)


def check_kernel_fits(kernel: Sequence[int], clip: str, size: tuple[int, int]) -> None:
    """Raise DataError when a slot is larger than a frame of `size`, height and width in latent pixels."""
    _, rows, columns = kernel
    if rows > size[0] or columns > size[1]:
        raise DataError(
            f"model.memory.kernel covers {rows} x {columns} latent pixels, but a frame has {size[0]} x {size[1]}",
            where={"clip": clip}, fix="use larger frames, or a smaller model.memory.kernel",
        )  # fmt: skip
