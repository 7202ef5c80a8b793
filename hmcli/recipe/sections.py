"""The keys of a recipe, section by section: names, types, defaults, meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FORMAT = 1


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
    channels: int = 16  # latent channels of a codec that is trained from nothing (train.part=codec)
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
    draws: int = 1  # noise draws per pass over a frozen context: the context is most of a step
    held_out: int = 0  # clips (the last ones) that are not trained on: their loss is logged with every checkpoint
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
    subject_weight: float = 0.0  # part codec only: how much more a subject's pixel counts than another's


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
