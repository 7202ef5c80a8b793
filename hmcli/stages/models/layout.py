"""How runs, checkpoints, trained codecs and converted weights are laid out (docs/artifacts.md).

Shared by their writers (training, convert.py) and readers (folders.py, identity.py, and training that goes on). A
checkpoint is an item of a run, and an artifact itself: a diffusers folder. Beside it lies its training state
(hmcli.stages.training.state). Where a codec's VAE lies: hmcli.codecs.places.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmcli.stages.shared.typed import LeftOut

RUN, CHECKPOINT, CODEC, WEIGHTS, SEGMENTER = "run", "checkpoint", "codec", "weights", "segmenter"  # kinds
TRANSFORMER, SCHEDULER, LORA = "transformer", "scheduler", "lora"  # folders of a checkpoint, beside vae/
CONFIG = "config.json"  # in transformer/: what it was built with
INDEX = "model_index.json"  # of a checkpoint: says that it is a diffusers pipeline
MODEL = "model"  # the item of a checkpoint
CHECKPOINTS = "checkpoints"  # folder of a run's items, and a codec's
LOG = "steps.jsonl"  # of a run, one Step a line; of a codec, CodecStep; of a segmenter, SegmenterStep
RECIPE = "recipe.yaml"
PACE = "pace.jsonl"  # of a run, one PaceStep a line: what depends on the clock
VALIDATION = "validation.jsonl"  # of a run, one Validation a line
PICTURES = "validation"  # folder of a run: a contact sheet for each of them
EVENTS = "events"  # folder of a run: TensorBoard's files
TRACKERS = "trackers.json"  # of a run: who was told of it, under which name


def step_name(step: int) -> str:
    """The item of the checkpoint after `step` steps, sortable."""
    return f"{step:06d}"


def picture_of(run: Path, step: int) -> Path:
    """Where the contact sheet of a step lies."""
    return run / PICTURES / f"{step_name(step)}.png"


# --- runs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """A run that went on with another learning rate or schedule (`hm train --resume-with`)."""

    step: int  # the checkpoint it went on from
    changed: dict[str, str]  # key of the recipe -> "0.001 then, 0.0001 now"


@dataclass(frozen=True, kw_only=True)
class RunAttributes:
    """What the manifest of a run says besides. Losses are left out when the log is lost."""

    checkpoint: str  # the last one, as a path in the run
    loss_first: LeftOut[float] = None
    loss_last_tenth: LeftOut[float] = None  # mean
    held_out_fall: LeftOut[float] = None  # share of the held-out loss that went in the last fifth of the steps
    converged: LeftOut[bool] = None  # no more than 1 % of it did; left out where no checkpoint stands before that fifth
    ranks: LeftOut[int] = None  # that trained together to the end, where it was more than one
    resumed: LeftOut[tuple[Resumed, ...]] = None  # how it went on otherwise than it began, in order


@dataclass(frozen=True, kw_only=True)
class MadeFrom:
    """What makes a run this run."""

    seed: int
    inputs: dict[str, str]
    recipe: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CheckpointAbout:
    """What the record of a checkpoint says of the run it belongs to; runs of an older hm do not."""

    made_from: LeftOut[MadeFrom] = None
    resumed: LeftOut[tuple[Resumed, ...]] = None  # before it


@dataclass(frozen=True, kw_only=True)
class Logged:
    """What every line of a log says."""

    step: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """A training step in the log, numbered from 1."""

    step: int
    loss: float
    grad_norm: LeftOut[float] = None  # before clipping; of a step that was skipped there is none
    lr: float
    loss_scale: LeftOut[float] = None  # in float16: the factor on the loss, after this step
    skipped: LeftOut[int] = None  # there too: steps so far whose gradients were too large for it, which changed nothing
    held_out_loss: LeftOut[float] = None  # with a checkpoint, where clips are held out
    held_out_errors: LeftOut[dict[str, float]] = None  # there too: mean squared error of the flow by level of noise
    held_out_returned: LeftOut[dict[str, float]] = None  # of it, on pixels of subjects that were hidden and are back


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What the model makes of clips that are held out, after so many steps; the first three as in Step."""

    step: int
    held_out_loss: float
    held_out_errors: dict[str, float]
    held_out_returned: LeftOut[dict[str, float]] = None
    metrics: LeftOut[dict[str, float | str | None]] = None  # of hm eval, means over the clips sampled; null: no clip


@dataclass(frozen=True, kw_only=True)
class PaceStep:
    """How fast a step was taken."""

    step: int
    at: float  # when it ended: seconds since 1970
    samples_per_s: float
    memory_gb: float  # 10^9 bytes at most so far: of tensors on a GPU, else of the process
    mfu: LeftOut[float] = None  # share of the device's stated rate, 0 to 1; left out where none is known


@dataclass(frozen=True, kw_only=True)
class CodecStep:
    """A step of a codec's training: the parts of its loss."""

    step: int
    l1: float
    square: float
    edge: float
    kl: float


@dataclass(frozen=True, kw_only=True)
class CodecAttributes:
    """What the manifest of a trained codec says of its reconstructions, in dB; what there was none of is left out."""

    psnr_training: float
    psnr_held_out: LeftOut[float] = None
    psnr_held_out_subjects: LeftOut[float] = None  # in boxes of subjects


# --- segmenters ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SegmenterStep:
    """A step of a segmenter's training: the parts of its loss."""

    step: int
    pixels: float
    overlap: float
    middle: float


@dataclass(frozen=True, kw_only=True)
class SegmenterAttributes:
    """What the manifest of a trained segmenter says of clips it was not trained on; left out without such clips."""

    iou: LeftOut[float] = None  # of all pixels of subjects
    recall: LeftOut[float] = None  # share of the subjects found
    false_alarms: LeftOut[float] = None  # share of the frames without a subject in which one is found


# --- checkpoints and weights -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TrainedWith:
    """Hashes of the codec and text encoder behind a model's latents, where they are known."""

    codec: LeftOut[str] = None
    text: LeftOut[str] = None


@dataclass(frozen=True, kw_only=True)
class CheckpointAttributes:
    """What the manifest of a checkpoint says besides."""

    parameters: int
    size: tuple[int, int]  # height, width of the videos it was trained on
    source: LeftOut[str] = None  # of a converted one: what it was made of, in words
    fresh: LeftOut[tuple[str, ...]] = None  # of a converted one: weights that its source lacked
    trained_with: LeftOut[TrainedWith] = None  # older checkpoints do not say


@dataclass(frozen=True, kw_only=True)
class ConvertedAttributes:
    """What the manifest of a converted codec, or of exported weights, says besides."""

    parameters: int
    source: str
