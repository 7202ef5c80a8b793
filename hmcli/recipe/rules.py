"""What a recipe cannot ask for: values that do not work together, names nothing stands for."""

from __future__ import annotations

from hmcli import registry
from hmcli.contracts import SPACE_STRIDE, TIME_STRIDE
from hmcli.recipe.sections import FORMAT, Recipe


def unknown_names(r: Recipe) -> list[str]:
    """Names nothing stands for, each with the known ones."""
    places = (("world.scenes", "scene", r.world.scenes), ("world.subjects", "subject", r.world.subjects),
              ("codec.name", "codec", (r.codec.name,)), ("text.name", "text", (r.text.name,)),
              ("model.memory.policy", "policy", (r.model.memory.policy,)),
              ("eval.metrics", "metric", r.eval.metrics),
              ("eval.backbone", "backbone", (r.eval.backbone,)))  # fmt: skip
    found = [
        f"{key}: unknown {kind} {name!r}, {registry.suggestion(name, registry.names(kind))}"
        for key, kind, asked in places
        for name in asked
        if not registry.is_known(kind, name)
    ]
    asked, known = r.world.camera.trajectory, trajectories()
    if registry.normal(asked) not in known:
        found.append(f"world.camera.trajectory: unknown name {asked!r}, {registry.suggestion(asked, known)}")
    return found


def trajectories() -> list[str]:
    """What `world.camera.trajectory` may be: a move to the left or to the right, or any of them."""
    return ["any", *(f"{move}-{side}" for move in registry.names("move") for side in ("left", "right"))]


def impossible(r: Recipe) -> list[str]:
    """Values of the right type that cannot work, each with the nearest ones that can."""
    found: list[str] = []

    def need(good: bool, text: str) -> None:
        if not good:
            found.append(text)

    def four_k_plus_one(key: str, frames: int) -> None:
        low = max(1, (frames - 1) // TIME_STRIDE * TIME_STRIDE + 1)
        near = f"{low} or {low + TIME_STRIDE}" if frames > 0 else "1"
        need(frames > 0 and frames % TIME_STRIDE == 1, f"{key}={frames} is not 4k+1: set it to {near}")

    need(r.format == FORMAT, f"format={r.format}: this version reads format {FORMAT}")
    four_k_plus_one("world.context_frames", r.world.context_frames)
    four_k_plus_one("world.target_frames", r.world.target_frames)
    four_k_plus_one("train.frames", r.train.frames)
    if r.data.split is not None:
        four_k_plus_one("data.split.context", r.data.split.context)
        four_k_plus_one("data.split.target", r.data.split.target)
    for key, size in (("world.size", r.world.size), ("data.size", r.data.size)):
        sides_ok = all(side > 0 and side % SPACE_STRIDE == 0 for side in size)
        need(sides_ok, f"{key}={list(size)}: height and width must be positive multiples of {SPACE_STRIDE}")
    rows, columns = r.data.size[0] // SPACE_STRIDE, r.data.size[1] // SPACE_STRIDE
    patch, kernel = r.model.patch, r.model.memory.kernel
    need(
        min(patch) >= 1 and patch[0] == 1, f"model.patch={list(patch)}: the first entry must be 1, the others positive"
    )
    if min(patch) >= 1 and all(side % SPACE_STRIDE == 0 for side in r.data.size):
        fits = rows % patch[1] == 0 and columns % patch[2] == 0
        need(fits, f"data.size={list(r.data.size)} is {rows}x{columns} latent pixels: not a multiple of model.patch")
    if min(patch) >= 1:
        whole = min(kernel) >= 1 and all(k % p == 0 for k, p in zip(kernel, patch, strict=True))
        need(whole, f"model.memory.kernel={list(kernel)} must be a positive multiple of model.patch={list(patch)}")
    need(r.model.heads > 0 and r.model.dim % max(r.model.heads, 1) == 0, "model.dim must be a multiple of model.heads")
    if r.model.heads > 0 and r.model.dim % r.model.heads == 0:
        head = r.model.dim // r.model.heads
        need(
            head % 2 == 0 and head >= 6, f"model.dim / model.heads = {head}: rotary positions need an even number >= 6"
        )
    for key, value in (
        ("world.clips", r.world.clips), ("codec.channels", r.codec.channels),
        ("world.fps", r.world.fps), ("text.length", r.text.length),
        ("model.layers", r.model.layers), ("model.memory.window", r.model.memory.window),
        ("train.steps", r.train.steps), ("train.batch", r.train.batch),
        ("train.checkpoint_every", r.train.checkpoint_every),
        ("train.keep", r.train.keep), ("sample.steps", r.sample.steps), ("flow.timesteps", r.flow.timesteps),
    ):  # fmt: skip
        need(value >= 1, f"{key}={value} must be at least 1")
    for key, seconds in (("visible", r.world.visible_seconds), ("hidden", r.world.hidden_seconds)):
        need(seconds > 0, f"world.{key}_seconds={seconds:g} must be positive")
    need(r.model.memory.top_k >= 0, f"model.memory.top_k={r.model.memory.top_k} must not be negative")
    need(0 < r.model.memory.near < r.model.memory.far, "model.memory.near must be positive and below model.memory.far")
    need(r.model.memory.max_history >= 0, "model.memory.max_history must not be negative (0: no limit)")
    need(0 <= r.train.ema < 1, f"train.ema={r.train.ema} must be in [0, 1)")
    need(0 <= r.train.text_dropout < 1, f"train.text_dropout={r.train.text_dropout} must be in [0, 1)")
    need(r.train.draws >= 1, f"train.draws={r.train.draws} must be at least 1")
    need(
        r.train.draws == 1 or r.model.memory.context == "frozen",
        f"train.draws={r.train.draws} needs model.memory.context=frozen: a joint context sees the target's noise level",
    )
    need(r.train.held_out >= 0, f"train.held_out={r.train.held_out} must not be negative")
    need(r.train.subject_weight >= 0, f"train.subject_weight={r.train.subject_weight} must not be negative")
    need(r.train.lr > 0, f"train.lr={r.train.lr} must be positive")
    if (lora := r.train.lora) is not None:
        need(r.train.part == "transformer", "train.lora is for train.part=transformer")
        need(lora.rank >= 1, f"train.lora.rank={lora.rank} must be at least 1")
        need(lora.alpha > 0, f"train.lora.alpha={lora.alpha} must be positive")
        need(bool(lora.targets), "train.lora.targets is empty: name layers such as to_q, to_v, ffn.net.2")
    for key, weight in (("guidance", r.sample.guidance), ("history_guidance", r.sample.history_guidance)):
        need(weight >= 1, f"sample.{key}={weight} must be at least 1 (1 is without guidance)")
    own_levels = r.flow.noise == "per-frame" and r.model.memory.context == "joint"  # of context frames
    need(
        r.flow.loss == "target" or own_levels,
        "flow.loss=all needs flow.noise=per-frame and model.memory.context=joint: clean context has no noise in it",
    )
    need(
        r.sample.history_guidance == 1 or own_levels,
        f"sample.history_guidance={r.sample.history_guidance} needs flow.noise=per-frame and "
        "model.memory.context=joint: other models never saw context masked by noise",
    )
    reads_frames = registry.normal(r.model.memory.policy) in ("frames-fov", "recent")
    need(
        not reads_frames or r.model.memory.top_k >= 1,
        f"model.memory.top_k=0: policy {r.model.memory.policy} reads at least one context frame",
    )
    return found
