"""The keys of a recipe, section by section: names, types, defaults, ranges, units, meaning, and who reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from hmcli.recipe.keys import (
    EVERYBODY,
    FRAMES,
    SIZE,
    Beta,
    Counts,
    Frames,
    Heights,
    Kernel,
    Names,
    Patch,
    Reader,
    Size,
    Switch,
    Tile,
    key,
)

FORMAT = 1
FloatType = Literal["float32", "bfloat16", "float16"]

_RENDER: tuple[Reader, ...] = ("render",)
MANTISSA = 10  # bits of float16's
_CLIPS: tuple[Reader, ...] = ("encode", "clips")
_CODEC: tuple[Reader, ...] = ("encode", "checkpoint")  # what a checkpoint says of its codec, hm generate uses
_CODECS: tuple[Reader, ...] = ("codec", "blocks")
_FOOTAGE: tuple[Reader, ...] = (*_CODECS, "segmenter")
_TRAIN: tuple[Reader, ...] = ("train",)
_STEPS: tuple[Reader, ...] = ("train", "codec", "segmenter")
_SHAPE: tuple[Reader, ...] = ("train", "convert")
_SETTING: tuple[Reader, ...] = ("train", "released", "checkpoint")
_VIEW: tuple[Reader, ...] = ("slots", "memory", "views", "checkpoint")
_SAMPLE: tuple[Reader, ...] = ("generate", "inspect", "checkpoint")  # a checkpoint's are those used by default
_KERNEL: tuple[Reader, ...] = ("memory", "generate", "inspect", "checkpoint")


@dataclass(frozen=True, kw_only=True)
class CameraPathConfig:
    """How the camera leaves the subject and comes back."""

    trajectory: Annotated[
        str,
        key("A camera move, to one side or to both; any: all of them, dealt evenly.", by=_RENDER, names="move",
            also=("any",), ends=("", "-left", "-right")),
    ] = "any"  # fmt: skip
    degrees: Annotated[float, key("How far a pan turns.", by=_RENDER, unit="degrees", gt=0, le=180)] = 50.0
    follow: Annotated[
        float, key("Share of follow shots: a dolly carries the camera along with the first subject.", by=_RENDER, ge=0,
                   le=1)
    ] = 0.4  # fmt: skip
    cut: Annotated[
        float, key("Share of a close subject that the lower edge may cut off.", by=_RENDER, ge=0, le=0.5)
    ] = 0.25


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """What `hm render` draws."""

    clips: Annotated[int, key("How many clips.", by=_RENDER, ge=1)] = 8
    context_frames: Annotated[Frames, key("Frames of the context.", by=_RENDER, unit=FRAMES)] = 49
    target_frames: Annotated[Frames, key("Frames of the target.", by=_RENDER, unit=FRAMES)] = 49
    fps: Annotated[int, key("Frame rate.", by=_RENDER, unit="frames per second", ge=1)] = 15
    size: Annotated[Size, key("Size of the pictures.", by=_RENDER, unit=SIZE)] = (64, 112)
    field_of_view: Annotated[
        float, key("Horizontal field of view of the camera.", by=_RENDER, unit="degrees", ge=5, le=120)
    ] = 37.0
    scenes: Annotated[
        tuple[str, ...], key("Families of places that clips show; empty: all.", by=_RENDER, names="scene")
    ] = ()
    places: Annotated[
        int,
        key(
            "Places of each family that clips share, with their light, whatever the seed; 0: every clip has its own.",
            by=_RENDER, ge=0,
        ),
    ] = 0  # fmt: skip
    subjects: Annotated[
        tuple[str, ...], key("Families of people and animals; empty: all.", by=_RENDER, names="subject")
    ] = ()
    looks: Annotated[
        int,
        key(
            "Looks of each family that clips share, size and colours, whatever the seed; 0: every subject has its own.",
            by=_RENDER, ge=0,
        ),
    ] = 0  # fmt: skip
    paths: Annotated[
        tuple[str, ...],
        key("Paths that subjects walk, of those of the split (docs/world.md); empty: all of them.", by=_RENDER),
    ] = ()
    subjects_per_clip: Annotated[
        Counts, key("Fewest and most subjects of a clip; a crowd has the most.", by=_RENDER, unit="subjects, 1 to 3")
    ] = (1, 3)
    subject_height: Annotated[
        Heights,
        key(
            "Share of the picture's height that the first subject fills, lowest and highest.",
            by=_RENDER,
            unit="0.1 to 1",
        ),
    ] = (0.3, 0.95)
    detail: Annotated[Literal["full", "low"], key("low: flat textures and few clouds.", by=_RENDER)] = "full"
    split: Annotated[
        Literal["easy", "hard", "crowd", "mixed", "absent"],
        key("What the hidden motion asks for (docs/world.md).", by=_RENDER),
    ] = "mixed"
    hold_out: Annotated[
        Literal["train", "test", "all"],
        key(
            "Families of scenes and subjects, and camera moves: those training may see, those it never sees, or all.",
            by=_RENDER,
        ),
    ] = "all"
    visible_seconds: Annotated[
        float, key("A subject is seen at least so long before it leaves.", by=_RENDER, unit="seconds", gt=0)
    ] = 2.0
    hidden_seconds: Annotated[
        float, key("Then it is hidden at least so long, and comes back.", by=_RENDER, unit="seconds", gt=0)
    ] = 1.5
    longest_seconds: Annotated[
        float, key("The camera films it no longer before it turns away; 0: no limit.", by=_RENDER, unit="seconds", ge=0)
    ] = 0.0
    captioner: Annotated[
        str,
        key("Folder of an image-text-to-text model that writes captions; empty: they tell what was drawn.", by=_RENDER),
    ] = ""
    benchmark: Annotated[
        str,
        key("Benchmark whose frozen clips are drawn, at any size (docs/benchmark.md); empty: clips of the seed.",
            by=_RENDER),
    ] = ""  # fmt: skip
    camera: CameraPathConfig = field(default_factory=CameraPathConfig)
    antialias: Annotated[bool, key("Smooth edges.", by=_RENDER)] = True


@dataclass(frozen=True, kw_only=True)
class PosesConfig:
    """How camera files are read."""

    repair: Annotated[
        Literal["refuse", "reference"],
        key("Text poses with holes: refuse names the bad frame, reference repairs as the released loader does "
            "(docs/parity.md).", by=(*_CLIPS, *_FOOTAGE, "dataset", "foreign")),
    ] = "refuse"  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Cut one clip into context and target, counted from its start."""

    context: Annotated[Frames, key("Frames that become the context.", by=_CLIPS, unit=FRAMES)]
    target: Annotated[Frames, key("The frames after them that become the target.", by=_CLIPS, unit=FRAMES)]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How clips become tensors."""

    size: Annotated[
        Size, key("Size videos are brought to.", by=(*_CLIPS, *_FOOTAGE), unit=f"{SIZE} x patch")
    ] = (64, 112)  # fmt: skip
    fit: Annotated[
        Literal["crop", "stretch"],
        key("crop: scale to cover, cut the middle out; stretch: scale both sides.", by=(*_CLIPS, *_FOOTAGE)),
    ] = "crop"
    frames: Annotated[
        Literal["refuse", "trim", "pad"],
        key("What happens to a frame count that is not 4k+1.", by=_CLIPS),
    ] = "refuse"
    fps: Annotated[
        float | None,
        key("Rate that videos are brought to, by leaving out frames; null: all frames, as the files have them.",
            by=(*_CLIPS, *_FOOTAGE), unit="frames per second", gt=0),
    ] = None  # fmt: skip
    compressor: Annotated[
        Literal["zstd", "blosc", "none"],
        key("How arrays are packed, without loss; blosc: bits of all numbers sorted by place, then zstd.",
            by=("encode",)),
    ] = "zstd"  # fmt: skip
    keep_bits: Annotated[
        int,
        key("Bits of the mantissa that latents keep, of the 10 of float16; the rest is rounded away and packs well.",
            by=("encode",), unit="bits", ge=1, le=MANTISSA)
    ] = MANTISSA  # fmt: skip
    split: SplitConfig | None = None


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Pixels <-> latents."""

    name: Annotated[str, key("Which codec.", by=(*_CODEC, "train"), names="codec")] = "mini"
    path: Annotated[
        str,
        key("Diffusers folder or original single file of its weights, or hf://owner/name/vae; empty: the packaged "
            "ones (mini only). Training a codec: what it starts from; empty: random weights.",
            by=(*_CODEC, "codec", "codec path")),
    ] = ""  # fmt: skip
    channels: Annotated[
        int, key("Latent channels of a codec that is trained from nothing.", by=_CODECS, ge=1)
    ] = 16  # fmt: skip
    stride: Annotated[
        Literal[4, 8],
        key("Pixels per latent pixel along a side, of a codec that is trained from nothing; of the latents, where a "
            "model is trained on them.", by=(*_CODECS, "train"), unit="pixels"),
    ] = 8  # fmt: skip
    whitening: Annotated[
        float,
        key(
            "Latents of a code of blocks are divided by their channels' deviation to this power: 1 makes all equally "
            "loud, 0 leaves the pixels' own balance.", by=("blocks",), ge=0, le=1,
        ),
    ] = 0.5  # fmt: skip
    dtype: Annotated[FloatType, key("What it computes in.", by=_CODEC)] = "float32"
    tile: Annotated[Tile | None, key("Size of a tile; null: whole frames.", by=_CODEC, unit=SIZE)] = None
    chunk_frames: Annotated[
        int, key("Latent frames in work at once, causally exact; 0: the codec's own number.", by=_CODEC,
                 unit="latent frames", ge=0)
    ] = 0  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Captions -> embeddings."""

    name: Annotated[str, key("Which text encoder.", by=(*_CODEC, "train"), names="text")] = "mini"
    path: Annotated[
        str,
        key("Folder with text_encoder/ and tokenizer/, or owner/name of the hub (mini has none).",
            by=(*_CODEC, "text path")),
    ] = ""  # fmt: skip
    length: Annotated[
        int, key("Rows the model sees; padding is zero and attended.", by=_CODEC, unit="rows of text", ge=1)
    ] = 32
    dtype: Annotated[FloatType, key("What it computes in (mini: float32).", by=_CODEC)] = "float32"


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """HyDRA's memory: what a query frame reads besides its window."""

    policy: Annotated[
        str, key("Who chooses what is read.", by=(*_SETTING, "diffusers"), names="policy",
            hint="sample.memory=off generates without memory")
    ] = "affinity"  # fmt: skip
    affinity: Annotated[Literal["pooled", "spatial"], key("pooled: released weights; spatial: Eq. 4.", by=_SETTING)] = (
        "pooled"
    )
    context: Annotated[
        Literal["joint", "frozen"],
        key("joint: recomputed at every step and sees the target, as released; frozen: run once and kept.",
            by=(*_SETTING, "slots", "diffusers")),
    ] = "frozen"  # fmt: skip
    top_k: Annotated[int, key("Slots (or frames) a query frame reads.", by=_SETTING, unit="slots", ge=0)] = 3
    window: Annotated[
        int, key("Frames around a query frame that are always read in full.", by=_SETTING, unit="latent frames", ge=1)
    ] = 3
    kernel: Annotated[
        Kernel,
        key("What a token of a slot stands for: time x height x width (Table 4).", by=("train", "convert", "slots"),
            unit="latent pixels, multiples of model.patch"),
    ] = (2, 2, 2)  # fmt: skip
    tokenizer: Annotated[
        Literal["conv", "mean"],
        key("How the learned tokenizer (Eq. 3) starts: as a random convolution, or as an average.",
            by=("train", "checkpoint")),
    ] = "conv"  # fmt: skip
    spans: Annotated[
        Literal["exact", "released"],
        key("Which frames a slot stands for (docs/parity.md).", by=(*_SETTING, "slots")),
    ] = "exact"
    max_history: Annotated[
        int,
        key("Frozen context: older memory is placed so far back; 0: where it was.", by=("train", "checkpoint"),
            unit="latent frames", ge=0),
    ] = 0  # fmt: skip
    near: Annotated[float, key("Fields of view are compared from here ...", by=_VIEW, unit="metres", gt=0)] = 1.0
    far: Annotated[float, key("... to here.", by=_VIEW, unit="metres", gt=0)] = 30.0
    field_of_view: Annotated[
        float | None,
        key("Horizontal, of clips whose source names no intrinsics; null: not known.", by=_VIEW, unit="degrees", gt=0,
            lt=180),
    ] = None  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The diffusion transformer. With `base` the shapes must be those of the weights it names."""

    base: Annotated[
        str,
        key("What training starts from: a run, a checkpoint, mini (the packaged weights); empty: random weights.",
            by=_TRAIN),
    ] = ""  # fmt: skip
    layers: Annotated[int, key("Blocks.", by=_SHAPE, ge=1)] = 6
    dim: Annotated[int, key("Channels of a token.", by=_SHAPE, unit="channels, a multiple of heads", ge=1)] = 192
    heads: Annotated[int, key("Attention heads.", by=_SHAPE, ge=1)] = 4
    ffn_dim: Annotated[int, key("Inner channels of the feed-forward layers.", by=_SHAPE, unit="channels", ge=1)] = 768
    freq_dim: Annotated[
        int, key("Channels of the timestep's sinusoid.", by=_SHAPE, unit="channels, even", ge=2, multiple_of=2)
    ] = 128
    patch: Annotated[
        Patch,
        key("What a token stands for: time (1) x height x width.", by=_SHAPE, unit="latent pixels"),
    ] = (1, 2, 2)
    positions: Annotated[
        Literal["screen", "rays", "moving-rays", "relative-rays"],
        key("Rotary rows and columns: of the screen, as released; of world rays; of these as moving frames see them; "
            "or of these, of values too (docs/parity.md).",
            by=(*_SETTING, "diffusers")),
    ] = "screen"  # fmt: skip
    memory: MemoryConfig = field(default_factory=MemoryConfig)


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Flow matching (Eq. 1)."""

    shift: Annotated[
        float, key("Shift of the noise levels trained on.", by=("train", "checkpoint"), gt=0)
    ] = 5.0  # fmt: skip
    target: Annotated[
        Literal["noise_minus_clean", "clean_minus_noise", "clean"],
        key("What is predicted: the flow, or the clean latents it comes from (for tokens of more numbers than "
            "model.dim); stored in the checkpoint.", by=(*_SETTING, "diffusers")),
    ] = "noise_minus_clean"  # fmt: skip
    weighting: Annotated[
        Literal["uniform", "bell", "capped"],
        key("Weight of the timesteps; bell: as released, 0 at t=1000, for fine-tuning; capped: less below t=300, for "
            "flow.target=clean.", by=_TRAIN),
    ] = "uniform"  # fmt: skip
    timesteps: Annotated[int, key("Noise levels that are drawn from.", by=_TRAIN, ge=1)] = 1000
    density: Annotated[
        Literal["uniform", "logit-normal"], key("How often a noise level is drawn, before the shift.", by=_TRAIN)
    ] = "uniform"
    noise: Annotated[
        Literal["shared", "per-frame"],
        key("One noise level per clip, or one per frame; stored in the checkpoint.", by=("train", "checkpoint")),
    ] = "shared"
    loss: Annotated[
        Literal["target", "all"], key("Frames that are scored; all needs noise on the context too.", by=_TRAIN)
    ] = "target"


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters: they are trained instead of the weights they sit on (docs/weights.md)."""

    rank: Annotated[int, key("Rank.", by=_TRAIN, ge=1)] = 16
    alpha: Annotated[float, key("An adapter counts alpha / rank.", by=_TRAIN, gt=0)] = 16.0
    targets: Annotated[
        tuple[str, ...],
        key("Ends of names of the layers that get one, such as to_q, ffn.net.2.", by=_TRAIN, min_length=1),
    ] = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training, of a transformer on latents or of a codec on clips."""

    part: Annotated[
        Literal["transformer", "codec", "blocks", "segmenter"],
        key(
            "What is trained: codec is a VAE, blocks a linear code, which takes no steps, segmenter finds subjects.",
            by=(*_STEPS, "blocks"),
        ),
    ] = "transformer"
    steps: Annotated[int, key("Steps in all.", by=_STEPS, unit="steps", ge=1)] = 40
    batch: Annotated[int, key("Clips of a step, of all ranks together.", by=_STEPS, unit="clips", ge=1)] = 2
    accumulate: Annotated[
        int, key("Pieces in which a rank goes through its share of the batch: less memory, the same gradient.",
                 by=_TRAIN, unit="pieces", ge=1)
    ] = 1  # fmt: skip
    parallel: Annotated[
        Literal["ddp", "fsdp"],
        key("What ranks hold: ddp the whole model each, fsdp a share of weights, gradients, moments and average.",
            by=_TRAIN),
    ] = "ddp"  # fmt: skip
    offload: Annotated[
        bool,
        key("fsdp on GPUs: shares lie in the machine's memory, and the optimizer works there; slower.", by=_TRAIN),
    ] = False  # fmt: skip
    shuffle: Annotated[
        Literal["clips", "shards"],
        key("Order of clips in an epoch: all by chance; or files of the latents by chance, then the clips of a few "
            "files, so that every file is read once.", by=_TRAIN),
    ] = "clips"  # fmt: skip
    lr: Annotated[float, key("Highest learning rate.", by=_STEPS, gt=0)] = 3.0e-4
    warmup: Annotated[int, key("Steps from 0 to lr.", by=_STEPS, unit="steps", ge=0)] = 10
    decay: Annotated[
        Literal["constant", "cosine"], key("The learning rate after the warm-up.", by=_STEPS)
    ] = "constant"  # fmt: skip
    optimizer: Annotated[
        Literal["adamw", "adamw8bit", "muon"],
        key("adamw8bit: AdamW with moments of 8 bits (hmcli[8bit]); muon: for the matrices of attention and "
            "feed-forward, AdamW for the rest. A codec's is always muon.", by=_TRAIN),
    ] = "adamw"  # fmt: skip
    weight_decay: Annotated[float, key("Of AdamW and Muon.", by=_STEPS, ge=0)] = 0.01
    betas: Annotated[tuple[Beta, Beta], key("Of AdamW.", by=_STEPS, unit="0 to below 1")] = (0.9, 0.999)
    clip_norm: Annotated[float, key("Longer gradients are cut to this length.", by=_STEPS, gt=0)] = 1.0
    draws: Annotated[
        int, key("Noise draws per pass over a frozen context, which is most of a step.", by=_TRAIN, ge=1)
    ] = 1
    anchor_turn: Annotated[
        float, key("Frozen context: the anchor pose, that of a frame, is turned about its vertical, up to so far.",
                   by=_TRAIN, unit="degrees", ge=0, le=180)
    ] = 0.0  # fmt: skip
    anchor_shift: Annotated[
        float, key("Frozen context: the anchor pose is moved along each of its axes, up to so far.", by=_TRAIN,
                   unit="metres", ge=0)
    ] = 0.0  # fmt: skip
    older: Annotated[
        int, key("Frozen context: slots are placed further back in time than they were, up to so far.", by=_TRAIN,
                 unit="latent frames", ge=0)
    ] = 0  # fmt: skip
    held_out: Annotated[
        int,
        key("Clips (the last ones) that are not trained on: their loss is logged with every checkpoint.", by=_TRAIN,
            unit="clips", ge=0),
    ] = 0  # fmt: skip
    validate_every: Annotated[
        int,
        key("Steps from look to look at the held-out clips, apart from checkpoints (the first is before step 1); 0: "
            "none.", by=_TRAIN, unit="steps", ge=0),
    ] = 0  # fmt: skip
    validate_clips: Annotated[
        int, key("Held-out clips, the first ones, that are sampled for pictures and metrics, at most.", by=_TRAIN,
                 unit="clips", ge=0)
    ] = 2  # fmt: skip
    validate_steps: Annotated[
        int, key("Denoising steps of these; the rest is as the recipe's sample section says.", by=_TRAIN,
                 unit="steps", ge=1)
    ] = 8  # fmt: skip
    validate_metrics: Annotated[
        tuple[str, ...], key("Metrics of hm eval of these, as the recipe's eval section says.", by=_TRAIN,
                             names="metric")
    ] = ()  # fmt: skip
    text_dropout: Annotated[
        float, key("Share of samples trained on the empty caption, for guidance.", by=_TRAIN, unit="share", ge=0, lt=1)
    ] = 0.1
    camera_dropout: Annotated[
        float,
        key("Share of samples whose cameras are taken to stand still, as those of a video without poses are.",
            by=_TRAIN, unit="share", ge=0, lt=1)
    ] = 0.0  # fmt: skip
    train_only: Annotated[
        tuple[str, ...], key("Parts of names of the parameters that train; empty: all.", by=_STEPS)
    ] = ()  # fmt: skip
    lora: LoraConfig | None = None
    gradient_checkpointing: Annotated[
        bool, key("Compute activations again instead of keeping them.", by=_TRAIN)
    ] = False  # fmt: skip
    attention: Annotated[str, key("Attention kernel, a name of hmcli.core.backends.", by=_TRAIN)] = "auto"
    dtype: Annotated[
        FloatType, key("What steps compute in. float16: with a factor on the loss that finds its size.", by=_TRAIN)
    ] = "float32"
    compile: Annotated[
        Literal["none", "blocks"],
        key("blocks: torch.compile for the model's blocks; the first steps wait for it. It rounds otherwise.",
            by=("train",)),
    ] = "none"  # fmt: skip
    checkpoint_every: Annotated[int, key("Steps from checkpoint to checkpoint.", by=_STEPS, unit="steps", ge=1)] = 20
    keep: Annotated[int, key("Checkpoints kept, the newest ones.", by=_STEPS, unit="checkpoints", ge=1)] = 2
    ema: Annotated[float, key("Decay of the weight average that is saved; 0: none.", by=_STEPS, ge=0, lt=1)] = 0.0
    trackers: Annotated[
        tuple[str, ...],
        key("Where curves are shown, beside the run's own logs: tensorboard (event files in the run), wandb, trackio.",
            by=_STEPS, names="tracker"),
    ] = ("tensorboard",)  # fmt: skip
    frames: Annotated[Frames, key("Codec: frames of a sample.", by=("codec",), unit=FRAMES)] = 17
    subject_weight: Annotated[
        float,
        key(
            "How much more a subject's pixel (of latents or videos) counts than another's.",
            by=(*_TRAIN, *_CODECS),
            ge=0,
        ),
    ] = 0.0


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Denoising along the predicted flow. Those a model was made with count where none is given."""

    steps: Annotated[int, key("Denoising steps.", by=_SAMPLE, unit="steps", ge=1)] = 20
    count: Annotated[
        int, key("Samples of every clip, each from noise of its own.", by=("generate",), unit="samples", ge=1)
    ] = 1
    batch: Annotated[
        int,
        key("Videos made at a time, of clips of one shape; fewer where memory does not allow. More than 1 may round "
            "otherwise.", by=("generate",), unit="videos", ge=1)
    ] = 1  # fmt: skip
    chunk: Annotated[
        int,
        key("Frames made at a time (4k+1); what was made is the past of what follows. 0: the whole target at once.",
            by=("generate",), unit=FRAMES, ge=0)
    ] = 0  # fmt: skip
    frames: Annotated[
        int, key("Frames of each target that are kept, from its first one on; 0: all.", by=("generate",),
                 unit="video frames", ge=0)
    ] = 0  # fmt: skip
    max_history: Annotated[
        int,
        key("Frozen context: older memory is read as if it were so old (what training had: its context, and "
            "train.older); 0: as model.memory.max_history says.", by=("generate", "inspect"), unit="latent frames",
            ge=0),
    ] = 0  # fmt: skip
    anchor_radius: Annotated[
        float,
        key("Rollouts of frozen context: a chunk with a camera further than this from the anchor pose gets a new one, "
            "and the past within this distance of it is run again; 0: never.", by=("generate",), unit="metres", ge=0),
    ] = 0.0  # fmt: skip
    scheduler: Annotated[
        str, key("How it steps from noise to clean latents; euler: as released.", by=("generate", "inspect"),
                 names="scheduler")
    ] = "euler"  # fmt: skip
    branches: Annotated[
        Literal["apart", "together"],
        key("together: the branches of guidance are one run of the model where memory allows. It rounds otherwise.",
            by=("generate", "inspect")),
    ] = "apart"  # fmt: skip
    cache: Annotated[
        str,
        key("Skip blocks at steps where little changes: first-block, sea or taylor, each with its threshold or "
            "interval (first-block:0.1); none. What it costs in pixels: docs/performance.md.", by=("generate",)),
    ] = "none"  # fmt: skip
    compile: Annotated[
        Literal["none", "blocks"],
        key("blocks: torch.compile for the model's blocks; the first steps wait for it. It rounds otherwise.",
            by=("generate",)),
    ] = "none"  # fmt: skip
    quantize: Annotated[
        Literal["none", "int8"],
        key("int8: the weights of the linear layers in blocks rounded to 8 bits (hmcli[8bit]). What it costs in "
            "pixels: docs/performance.md.", by=("generate",)),
    ] = "none"  # fmt: skip
    offload: Annotated[
        Literal["none", "memory", "disk"],
        key("Where weights lie until their block runs: memory (a GPU's, in that of the CPU) or disk (TMPDIR). The same "
            "numbers, in less memory and more time.", by=("generate",)),
    ] = "none"  # fmt: skip
    guidance: Annotated[float, key("Guidance by the caption; 1: without.", by=_SAMPLE, ge=1)] = 3.0
    history_guidance: Annotated[
        float,
        key("Guidance by the context; 1: without; more needs a joint model trained with flow.noise=per-frame.",
            by=_SAMPLE, ge=1),
    ] = 1.0  # fmt: skip
    history_level: Annotated[
        float,
        key("Share of noise in the context that history guidance leads towards: 0 is the clean one (vanilla), more is "
            "fractional, towards its coarse shapes.", by=("generate", "inspect"), ge=0, lt=1),
    ] = 0.0  # fmt: skip
    shift: Annotated[float, key("Shift of the noise levels.", by=_SAMPLE, gt=0)] = 5.0
    negative: Annotated[str, key("Caption of the guidance branch.", by=_SAMPLE)] = ""
    attention: Annotated[str, key("Attention kernel, a name of hmcli.core.backends.", by=_KERNEL)] = "auto"
    dtype: Annotated[FloatType, key("What the model computes in, and its weights are.", by=_KERNEL)] = "float32"
    memory: Annotated[
        Switch,
        key(
            "off: with the same weights, what policy none reads: local windows alone (the floor to compare with).",
            by=("generate", "inspect", "checkpoint"),
        ),
    ] = "on"


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Scoring."""

    metrics: Annotated[
        tuple[str, ...], key("Empty: every metric whose inputs are there.", by=("eval",), names="metric")
    ] = ()  # fmt: skip
    backbone: Annotated[
        Names,
        key("Features of the consistency metrics: effnet-lite0 (offline, hmcli[features]), hog (no weights), or "
            "networks at backbone_path. Of several, each metric is computed with all; one with published numbers with "
            "its own alone, where that is among them.",
            by=("features",), names="backbone", min_length=1),
    ] = ("effnet-lite0",)  # fmt: skip
    backbone_path: Annotated[
        Names,
        key("Folders of the backbones' weights (or owner/name of the hub), in their order; empty: none needs any.",
            by=("features",)),
    ] = ()  # fmt: skip
    lpips: Annotated[Literal["alex", "vgg"], key("Network of the metric lpips.", by=("lpips",))] = "alex"
    lpips_path: Annotated[
        str, key("Folder with LPIPS's two files under their published names (docs/metrics.md).", by=("lpips",))
    ] = ""
    dsc_path: Annotated[
        str,
        key("Folder of CLIP ViT-B/16 (or owner/name of the hub), for DSC as the published script has it; empty: "
            "without.", by=("official",)),
    ] = ""  # fmt: skip
    detector: Annotated[
        str,
        key("What finds the subjects of a prediction: segmenter (HM-World's subjects, offline), transformers (an "
            "object detector at detector_path). Empty: none, and metrics of detections are left out.",
            by=("detections",), names="detector", also=("",)),
    ] = "segmenter"  # fmt: skip
    detector_path: Annotated[
        str, key("Folder of the detector's weights (or owner/name of the hub); empty: the packaged ones (segmenter).",
                 by=("detections",))
    ] = ""  # fmt: skip
    videos: Annotated[
        Literal["target", "joined"],
        key("What the videos of a plain folder hold: the target alone, or the context before it.", by=("folder",)),
    ] = "target"
    resize: Annotated[
        Literal["refuse", "crop", "stretch"],
        key("What happens to videos of a plain folder of another size than the true clips.", by=("folder",)),
    ] = "refuse"
    average: Annotated[
        Literal["frames", "videos"],
        key("VBench's means: over all frames (as on one device) or over videos (as on several).", by=("eval",)),
    ] = "frames"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment. Every stage reads the keys that are its own."""

    format: Annotated[int, key("Version of recipes.", by=EVERYBODY, ge=1, le=FORMAT)] = FORMAT
    seed: Annotated[
        int,
        key("What everything drawn by chance depends on.", ge=0,
            by=("render", "memory", *_STEPS, "generate", "inspect", "checkpoint")),
    ] = 0  # fmt: skip
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
