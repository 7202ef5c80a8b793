"""What a recipe cannot ask for: keys that do not go together, names nothing stands for.

What a key may be by itself stands in its field (hmcli.recipe.sections).
"""

from __future__ import annotations

from collections.abc import Iterator

from hmcli import registry
from hmcli.recipe.keys import keys_of, value_at
from hmcli.recipe.sections import Recipe


def unknown_names(r: Recipe) -> list[str]:
    """Names nothing stands for, each with the known ones."""
    found = []
    for key in keys_of(Recipe):
        held = value_at(r, key.path) if key.named else ()
        found += [
            f"{key.path}: unknown {key.named} {name!r}, {registry.suggestion(name, key.names)}"
            for name in ((held,) if isinstance(held, str) else held)
            if not key.holds(name)
        ]
    return found


def impossible(r: Recipe, *, own_model: bool = True) -> list[str]:
    """Values that are possible each for itself but not together, and what would be.

    Without `own_model` it is another recipe's model that samples: what this one says of training tells nothing of it.
    """
    rules = (_world, _shapes, _memory, _flow, _train, _eval, _made, *((_sample,) if own_model else ()))
    return [problem for rule in rules for problem in rule(r)]


_WITHOUT_SLOTS = ("none", "all", "frames-fov", "recent")  # policies that read no memory slots


def dropped(r: Recipe) -> str:
    """What of a frame its memory slots leave out, in words; empty where they cover it, or where there are none.

    Possible, and as released, but seldom meant: a tokenizer drops what does not fill a whole kernel.
    """
    if registry.normal(r.model.memory.policy) in _WITHOUT_SLOTS:
        return ""
    sides = [side // r.codec.stride for side in r.data.size]
    step = r.model.memory.kernel[1:]
    rest = [side % cells for side, cells in zip(sides, step, strict=True)]
    if not any(rest):
        return ""
    unit = [cells * r.codec.stride for cells in step]
    return (
        f"memory slots leave out the last {rest[0]} rows and {rest[1]} columns of {sides[0]}x{sides[1]} latent pixels: "
        f"model.memory.kernel={list(r.model.memory.kernel)} covers a whole frame where the sides of data.size are "
        f"multiples of {unit[0]} and {unit[1]}"
    )


def _world(r: Recipe) -> Iterator[str]:
    if r.world.split == "crowd" and r.world.subjects_per_clip[1] < 2:
        asked = list(r.world.subjects_per_clip)
        yield f"world.split=crowd with world.subjects_per_clip={asked}: one is no crowd, set it to [1, 2] or [1, 3]"


def _shapes(r: Recipe) -> Iterator[str]:
    rows, columns = (side // r.codec.stride for side in r.data.size)
    patch, kernel = r.model.patch, r.model.memory.kernel
    if rows % patch[1] or columns % patch[2]:
        yield f"data.size={list(r.data.size)} is {rows}x{columns} latent pixels: not a multiple of model.patch"
    if any(k % p for k, p in zip(kernel, patch, strict=True)):
        yield f"model.memory.kernel={list(kernel)} must be a positive multiple of model.patch={list(patch)}"
    if r.model.dim % r.model.heads:
        yield "model.dim must be a multiple of model.heads"
    elif (head := r.model.dim // r.model.heads) % 2 or head < 6:
        yield f"model.dim / model.heads = {head}: rotary positions need an even number >= 6"


def _memory(r: Recipe) -> Iterator[str]:
    if r.model.memory.near >= r.model.memory.far:
        yield f"model.memory.near={r.model.memory.near:g} must be below model.memory.far={r.model.memory.far:g}"


def _flow(r: Recipe) -> Iterator[str]:
    if r.flow.loss == "all" and not _own_levels(r):
        yield (
            "flow.loss=all needs flow.noise=per-frame and model.memory.context=joint: clean context has no noise in it"
        )


def _sample(r: Recipe) -> Iterator[str]:
    if r.sample.history_guidance != 1 and not _own_levels(r):
        yield (
            f"sample.history_guidance={r.sample.history_guidance} needs flow.noise=per-frame and "
            "model.memory.context=joint: other models never saw context masked by noise"
        )
    if r.sample.history_level and r.sample.history_guidance == 1:
        yield f"sample.history_level={r.sample.history_level} has no effect: sample.history_guidance is 1"


def _own_levels(r: Recipe) -> bool:
    """Do context frames have noise levels of their own?"""
    return r.flow.noise == "per-frame" and r.model.memory.context == "joint"


def _train(r: Recipe) -> Iterator[str]:
    if r.train.draws > 1 and r.model.memory.context != "frozen":
        yield (
            f"train.draws={r.train.draws} needs model.memory.context=frozen: "
            "a joint context sees the target's noise level"
        )
    for name in ("anchor_turn", "anchor_shift", "older"):
        if (value := getattr(r.train, name)) and r.model.memory.context != "frozen":
            yield f"train.{name}={value:g} needs model.memory.context=frozen: memory of a joint model is never kept"
    if r.train.validate_every and not r.train.held_out:
        yield f"train.validate_every={r.train.validate_every} needs train.held_out: clips that are not trained on"
    if r.train.validate_metrics and not (r.train.validate_every and r.train.validate_clips):
        yield "train.validate_metrics needs train.validate_every and train.validate_clips: they are of sampled clips"
    if r.train.lora is not None and r.train.part != "transformer":
        yield "train.lora is for train.part=transformer"
    if r.train.offload and r.train.parallel != "fsdp":
        yield "train.offload=true needs train.parallel=fsdp: it is shares of a model that it moves out of GPUs"
    if r.train.parallel == "fsdp":
        if r.train.optimizer == "muon":
            yield "train.parallel=fsdp with train.optimizer=muon: its update needs whole matrices, use adamw or ddp"
        if r.train.optimizer == "adamw8bit":
            yield "train.parallel=fsdp with train.optimizer=adamw8bit: shares would cut its blocks of values, use adamw"
        if r.train.lora is not None:
            yield "train.parallel=fsdp with train.lora: adapters are small, use ddp"
        if r.train.compile != "none":
            yield "train.parallel=fsdp with train.compile=blocks: they have not been tried together, leave one out"


def _made(r: Recipe) -> Iterator[str]:
    if r.sample.batch > 1 and r.sample.chunk:
        yield f"sample.batch={r.sample.batch} with sample.chunk={r.sample.chunk}: a rollout is made clip by clip"
    if r.sample.compile != "none" and r.sample.cache != "none":
        yield (
            f"sample.cache={r.sample.cache} with sample.compile={r.sample.compile}: a cache decides between steps "
            "which blocks run, leave one out"
        )
    if r.sample.quantize != "none" and r.sample.offload != "none":
        yield (
            f"sample.offload={r.sample.offload} with sample.quantize={r.sample.quantize}: rounded weights cannot be "
            "written to disk, and fetching them was not tried; leave one out"
        )
    for name in ("quantize", "offload"):
        if r.sample.compile != "none" and (value := getattr(r.sample, name)) != "none":
            yield f"sample.{name}={value} with sample.compile={r.sample.compile} was not tried, leave one out"


def _eval(r: Recipe) -> Iterator[str]:
    if r.eval.detector_path and not r.eval.detector:
        yield "eval.detector_path without eval.detector: name the detector, such as eval.detector=transformers"
