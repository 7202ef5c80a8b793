"""Recipes: YAML plus `--set key=value`, checked whole and frozen.

A recipe is one YAML file for one experiment; every stage reads the sections it needs. Every key has a default, so an
empty recipe is the embedded `mini` scale. Unknown keys, wrong types and impossible values are reported all at once.
This module imports no torch: `hm --help` and `--dry-run` stay instant.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from hmcli import registry
from hmcli.contracts import SPACE_STRIDE, TIME_STRIDE
from hmcli.errors import RecipeError

FORMAT = 1
SCENES = (  # what hmcli.world knows, here because importing it is slow (tests/cli compares them)
    "street", "market", "night-city", "meadow", "snow", "autumn", "bamboo", "beach", "harbour", "desert", "canyon",
    "temple", "lunar", "museum", "warehouse", "playground", "stadium",
)  # fmt: skip
SUBJECTS = (
    "walker", "hiker", "jogger", "office-worker", "builder", "firefighter", "doctor", "chef", "farmer",
    "schoolchild", "elder", "rain-walker", "porter", "monk", "wizard", "knight", "pirate", "cowboy", "astronaut",
    "diver", "clown", "ninja", "king", "bride", "ballerina", "scarecrow", "robot", "dog", "deer", "horse", "cow",
    "pig", "sheep", "fox", "bear", "panda", "elephant", "giraffe", "zebra", "camel", "lion", "tiger", "tortoise",
    "crocodile", "rabbit", "ostrich", "flamingo", "penguin", "kangaroo",
)  # fmt: skip
_MOVES = ("pan", "sweep", "truck", "truck-with-pan", "truck-against-pan", "dolly-in", "dolly-out", "orbit-with-pan",
          "orbit-against-pan", "crane-up", "crane-down", "truck-and-rise", "swoop", "diagonal")  # fmt: skip
TRAJECTORIES = ("any", *(f"{move}-{side}" for move in _MOVES for side in ("left", "right")))
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True)
class CameraPathConfig:
    trajectory: str = "any"  # a name of hmcli.world.views.trajectories, or any
    degrees: float = 50.0  # how far a pan turns


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """What `hm render` draws."""

    clips: int = 8
    context_frames: int = 49  # 4k+1
    target_frames: int = 49  # 4k+1
    fps: int = 15
    size: tuple[int, int] = (64, 112)  # pixels: height, width
    field_of_view: float = 37.0  # degrees, horizontal
    scenes: tuple[str, ...] = ()  # names of hmcli.world.scenes; empty: all
    subjects: tuple[str, ...] = ()  # names of hmcli.world.subjects; empty: all
    subjects_per_clip: tuple[int, int] = (1, 3)  # fewest and most
    split: Literal["easy", "hard", "crowd", "mixed"] = "mixed"  # what the hidden motion asks for (docs/world.md)
    hold_out: Literal["train", "test", "all"] = "all"  # families of scenes and subjects: those of one side, or all
    visible_seconds: float = 2.0  # a subject is seen so long, then hidden so long, and comes back within the target
    hidden_seconds: float = 1.5
    captioner: str = ""  # folder of an image-text-to-text model; empty: captions from the scene's description
    benchmark: str = ""  # whose frozen clips are drawn, at any size (docs/benchmark.md); empty: clips of the seed
    camera: CameraPathConfig = field(default_factory=CameraPathConfig)
    antialias: bool = True


@dataclass(frozen=True, kw_only=True)
class PosesConfig:
    """`reference` repairs text poses as the released loader does (docs/parity.md); `refuse` names the bad frame."""

    repair: Literal["refuse", "reference"] = "refuse"


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Cut one clip into context and target, in video frames from its start (each 4k+1)."""

    context: int
    target: int


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How clips become tensors."""

    size: tuple[int, int] = (64, 112)  # pixels: height, width, multiples of 8 x patch
    fit: Literal["crop", "stretch"] = "crop"  # crop: scale to cover, cut the middle out
    frames: Literal["refuse", "trim", "pad"] = "refuse"  # what happens to a frame count that is not 4k+1
    split: SplitConfig | None = None


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Pixels <-> latents."""

    name: str = "mini"  # a codec of hmcli.registry: mini, wan2.1
    path: str = ""  # diffusers folder or original single file; empty: the packaged weights (mini only)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    tile: tuple[int, int] | None = None  # pixels: height, width of a tile; none: whole frames
    chunk_frames: int = 0  # latent frames encoded at once, causally exact; 0: the codec's own


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Captions -> embeddings."""

    name: str = "mini"  # a text encoder of hmcli.registry: mini, umt5
    path: str = ""  # folder with text_encoder/ and tokenizer/; unused by mini
    length: int = 32  # rows the model sees; padding is zero and attended
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """HyDRA's memory: what a query frame reads besides its window."""

    policy: str = "affinity"  # a policy of hmcli.registry
    affinity: Literal["pooled", "spatial"] = "pooled"  # pooled: released weights; spatial: Eq. 4
    context: Literal["joint", "frozen"] = "frozen"
    top_k: int = 3
    window: int = 3  # latent frames always read at full resolution
    kernel: tuple[int, int, int] = (2, 2, 2)  # tokenizer, time x height x width in latent pixels (Table 4)
    tokenizer: Literal["conv", "mean"] = "conv"  # conv: learned (Eq. 3); mean: starts as an average
    spans: Literal["exact", "released"] = "exact"  # which frames a slot stands for (docs/parity.md)
    max_history: int = 0  # frozen only: older memory is placed this many latent frames back; 0: where it was
    near: float = 1.0  # metres: fields of view are compared between near ...
    far: float = 30.0  # ... and far
    field_of_view: float | None = None  # degrees, horizontal, of clips whose source names no intrinsics


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The diffusion transformer. `base` starts from existing weights; then the shape fields must agree with them."""

    base: str = ""  # empty: random initialisation; mini: the packaged weights; or a run or checkpoint (hm convert)
    layers: int = 6
    dim: int = 192
    heads: int = 4
    ffn_dim: int = 768
    freq_dim: int = 128
    patch: tuple[int, int, int] = (1, 2, 2)
    memory: MemoryConfig = field(default_factory=MemoryConfig)


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Flow matching (Eq. 1)."""

    shift: float = 5.0
    target: Literal["noise_minus_clean", "clean_minus_noise"] = "noise_minus_clean"  # stored in the checkpoint
    weighting: Literal["uniform", "bell"] = "uniform"  # bell: the released weight, 0 at t=1000, for fine-tuning
    timesteps: int = 1000
    noise: Literal["shared", "per-frame"] = "shared"  # per-frame: each frame its own level; stored in the checkpoint
    loss: Literal["target", "all"] = "target"  # frames that are scored; all needs per-frame noise on the context too


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters: they are trained instead of the weights they sit on (docs/weights.md)."""

    rank: int = 16
    alpha: float = 16.0  # the adapter counts alpha / rank
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")  # ends of names of the layers that get one


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    part: Literal["transformer", "codec"] = "transformer"
    steps: int = 40
    batch: int = 2
    lr: float = 3.0e-4
    warmup: int = 10  # steps from 0 to lr
    decay: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 1.0
    text_dropout: float = 0.1  # share of samples trained on the empty caption, for guidance
    train_only: tuple[str, ...] = ()  # parts of parameter names that stay trainable; empty: everything
    lora: LoraConfig | None = None  # then only the adapters train, and what train_only names
    gradient_checkpointing: bool = False
    attention: str = "auto"  # kernel, by a name of hmcli.core.backends
    dtype: Literal["float32", "bfloat16"] = "float32"
    checkpoint_every: int = 20  # steps
    keep: int = 2  # checkpoints kept
    ema: float = 0.0  # decay of the weight average that is saved; 0: none
    frames: int = 17  # part codec only: video frames per sample, 4k+1


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Denoising (Euler on the shifted flow schedule)."""

    steps: int = 20
    guidance: float = 3.0  # 1: without guidance
    history_guidance: float = 1.0  # 1: without; more needs a joint model trained with flow.noise=per-frame
    shift: float = 5.0
    negative: str = ""  # caption of the guidance branch
    attention: str = "auto"  # kernel, by a name of hmcli.core.backends
    dtype: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    metrics: tuple[str, ...] = ()  # empty: every metric whose inputs are there
    backbone: str = "hog"  # features of the consistency metrics: hog (offline), or dino / clip with backbone_path
    backbone_path: str = ""
    average: Literal["frames", "videos"] = "frames"  # VBench: over all frames (one device) or over videos (several)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment. Sections are read by: world render; data, poses, codec, text encode; model, flow, train train."""

    format: int = FORMAT
    seed: int = 0
    world: WorldConfig = field(default_factory=WorldConfig)
    data: DataConfig = field(default_factory=DataConfig)
    poses: PosesConfig = field(default_factory=PosesConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    text: TextConfig = field(default_factory=TextConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)


def _forbid_unknown_keys(kind: type) -> None:
    """Tell pydantic, once per section, that unknown keys are errors."""
    kind.__pydantic_config__ = _STRICT  # type: ignore[attr-defined]
    for hint in get_type_hints(kind).values():
        for part in (hint, *get_args(hint)):
            if dataclasses.is_dataclass(part) and isinstance(part, type):
                _forbid_unknown_keys(part)


_forbid_unknown_keys(Recipe)
_ADAPTER = TypeAdapter(Recipe)


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain YAML/JSON values, defaults included."""
    return _ADAPTER.dump_python(recipe, mode="json")


def sections(recipe: Recipe, *names: str) -> dict[str, Any]:
    """The named top-level sections as plain values: what a stage read, for its fingerprint."""
    whole = to_dict(recipe)
    return {name: whole[name] for name in names}


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe as YAML that `load_recipe` reads back to the same value."""
    return yaml.safe_dump(to_dict(recipe), sort_keys=False, width=120)


def recipe_folder() -> Path:
    """Where the packaged recipes are: inside the wheel, or the checkout's recipes/ in an editable install."""
    packaged = Path(__file__).parents[1] / "recipes"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "recipes"


def recipe_names() -> list[str]:
    """Names of the packaged recipes, such as `mini/hydra`."""
    root = recipe_folder()
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def find_recipe(name: str | Path) -> Path:
    """A path as it is, or a packaged recipe by name (`mini/hydra` or `mini/hydra.yaml`)."""
    path = Path(name)
    if path.is_file():
        return path
    wanted = str(name).removesuffix(".yaml").removeprefix("recipes/")
    if wanted in (known := recipe_names()):
        return recipe_folder() / f"{wanted}.yaml"
    close = difflib.get_close_matches(wanted, known, n=1)
    raise RecipeError(
        f"there is no recipe {str(name)!r}",
        fix=(f"did you mean {close[0]!r}? " if close else "") + f"packaged recipes: {', '.join(known)}",
    )


def load_recipe(
    name: str | Path | None = None, overrides: list[str] | None = None, base: dict[str, Any] | None = None
) -> Recipe:
    """Read, override and check a recipe. Raises RecipeError with every problem in one report.

    `name` is a YAML file or the name of a packaged recipe; None means `base` (a recipe recorded in a manifest) or all
    defaults. Each override is `section.key=value`, the value read as YAML.
    """
    unnamed = "the model's own" if base else "the defaults"
    source = unnamed if name is None else str(path := find_recipe(name))
    values = copy.deepcopy(base or {}) if name is None else _read_yaml(path)
    problems: list[str] = []
    for override in overrides or []:
        problems += _override(values, override)
    problems += _unknown_keys(values, Recipe)
    recipe: Recipe | None = None
    try:
        recipe = _ADAPTER.validate_python(values)
        problems += _impossible(recipe) + _unknown_names(recipe)
    except ValidationError as error:
        problems += [_sentence(item) for item in error.errors() if item["type"] not in _OWN_REPORT]
        with contextlib.suppress(ValidationError):  # the rest of the recipe is still checked
            rest = _ADAPTER.validate_python(_without(values, [item["loc"] for item in error.errors()]))
            problems += _impossible(rest) + _unknown_names(rest)
    if problems or recipe is None:
        raise RecipeError(
            f"{len(problems)} problem{'s' * (len(problems) != 1)} in the recipe",
            where={"recipe": source, **{f"({i})": text for i, text in enumerate(problems, 1)}},
            fix="correct the keys above; `hm recipes show mini/hydra` prints a whole recipe",
        )
    return recipe


def from_dict(values: dict[str, Any]) -> Recipe:
    """A recipe from a manifest. Raises RecipeError when this version cannot read it."""
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        raise RecipeError(
            "the recorded recipe does not fit this version of hm",
            where={f"({i})": _sentence(item) for i, item in enumerate(error.errors(), 1)},
            fix="make the artifact again with this version",
        ) from error


def _without(values: dict[str, Any], places: list[tuple[int | str, ...]]) -> dict[str, Any]:
    """A copy of nested values without the refused ones, so that their defaults stand in for the remaining checks."""
    rest = copy.deepcopy(values)
    for place in places:
        inner: Any = rest
        for part in place[:-1]:
            inner = inner.get(part) if isinstance(inner, dict) and isinstance(inner.get(part), dict) else inner
        if isinstance(inner, dict):
            for part in place:
                inner.pop(part, None)
    return rest


_OWN_REPORT = {"unexpected_keyword_argument", "extra_forbidden"}  # reported by _unknown_keys, with a suggestion


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError("the recipe is not valid YAML", where={"recipe": path, "at": str(error)}) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise RecipeError("a recipe is a mapping of sections", where={"recipe": path})
    return values


def _override(values: dict[str, Any], text: str) -> list[str]:
    """Set `a.b.c=value` in nested dicts; returns what is wrong with it."""
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        return [f"--set {text!r}: write section.key=value"]
    *folders, last = key.strip().replace("-", "_").split(".")
    place = values
    for depth, folder in enumerate(folders, 1):
        if place.get(folder) is None:
            place[folder] = {}
        if not isinstance(place[folder], dict):
            return [f"--set {text!r}: {'.'.join(folders[:depth])} is not a section"]
        place = place[folder]
    try:
        place[last] = yaml.safe_load(raw)
    except yaml.YAMLError:
        return [f"--set {text!r}: the value is not valid YAML"]
    return []


def _sections_of(kind: type) -> dict[str, type | None]:
    """Field name -> the dataclass it holds, or None for a plain value."""
    found: dict[str, type | None] = {}
    for name, hint in get_type_hints(kind).items():
        options = [hint] if get_origin(hint) is None else list(get_args(hint))
        found[name] = next((o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)), None)
    return found


def _unknown_keys(values: dict[str, Any], kind: type, prefix: str = "") -> list[str]:
    known = _sections_of(kind)
    problems = []
    for key, value in values.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f", did you mean {prefix}{close[0]}?" if close else f", known here: {', '.join(known)}"
            problems.append(f"unknown key {prefix}{key}{hint}")
        elif (inner := known[key]) is not None and isinstance(value, dict):
            problems += _unknown_keys(value, inner, f"{prefix}{key}.")
    return problems


def _sentence(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"])
    return f"{place or 'recipe'}: {item['msg'][:1].lower()}{item['msg'][1:]}, got {item['input']!r}"


def _unknown_names(r: Recipe) -> list[str]:
    """Names nothing stands for, each with the known ones."""
    places = (("world.scenes", r.world.scenes, SCENES), ("world.subjects", r.world.subjects, SUBJECTS),
              ("world.camera.trajectory", (r.world.camera.trajectory,), TRAJECTORIES))  # fmt: skip
    found = [
        f"{key}: unknown name {name!r}, {registry.suggestion(name, known)}"
        for key, asked, known in places
        for name in asked
        if registry.normal(name) not in known
    ]
    registered = (("codec.name", "codec", (r.codec.name,)), ("text.name", "text", (r.text.name,)),
                  ("model.memory.policy", "policy", (r.model.memory.policy,)),
                  ("eval.metrics", "metric", r.eval.metrics),
                  ("eval.backbone", "backbone", (r.eval.backbone,)))  # fmt: skip
    return found + [
        f"{key}: unknown {kind} {name!r}, {registry.suggestion(name, registry.names(kind))}"
        for key, kind, asked in registered
        for name in asked
        if not registry.is_known(kind, name)
    ]


def _impossible(r: Recipe) -> list[str]:
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
        ("world.clips", r.world.clips), ("world.fps", r.world.fps), ("text.length", r.text.length),
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
