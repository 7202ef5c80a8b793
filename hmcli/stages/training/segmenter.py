"""`hm train` with `train.part: segmenter`: the network that finds subjects in videos, on clips with instance masks.

Everything random in step n depends on (seed, n) alone, so a run that was stopped ends as one that was not. The artifact
holds segmenter.safetensors in half precision: set `eval.detector: segmenter` and `eval.detector_path` to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hmcli.contracts import Reporter, StageResult
from hmcli.errors import DataError
from hmcli.recipe.readers import reads
from hmcli.recipe.sections import Recipe
from hmcli.runtime import stopping_at_boundaries
from hmcli.stages.data.opening import Dataset, open_dataset
from hmcli.stages.models.layout import LOG, RECIPE, SegmenterAttributes, SegmenterStep, step_name
from hmcli.stages.models.layout import SEGMENTER as KIND
from hmcli.stages.shared.outcome import planned, result_of
from hmcli.stages.shared.typed import to_json
from hmcli.stages.training import stepping
from hmcli.stages.training.checkpoints import kept_steps
from hmcli.stages.training.footage import read_footage, refuse_unread
from hmcli.stages.training.learning import freeze, learning_rate, make_average
from hmcli.stages.training.runs import naming, refuse_another_run
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.weights import save_weights

if TYPE_CHECKING:
    import torch
    from diffusers.training_utils import EMAModel
    from torch import nn

    from hmcli.codecs.training import Footage
    from hmcli.metrics.detectors.segmenter import Segmenter
    from hmcli.metrics.detectors.unet import SubjectNet

SOURCES = "data set"
KERNEL_RATE = 2.0  # of inner kernels, which Muon trains: times the recipe's learning rate
SMALLEST_KERNEL = 2000  # values; smaller kernels are left to AdamW
_SCORED = 8  # frames of each held-out video, evenly spaced


def run(
    recipe: Recipe,
    *,
    data: Path,
    out: Path,
    reporter: Reporter,
    device: str = "cpu",
    force: bool = False,
    prune: bool = False,
    dry_run: bool = False,
) -> StageResult:
    """Train to `train.steps` and write a segmenter; see `hm train --help`.

    Raises RecipeError for settings that have no effect on it, UsageError when `out` holds another run, DataError when
    no clip can be trained on, StoppedEarly on SIGTERM.
    """
    refuse_unread(recipe.train, "segmenter")
    dataset = open_dataset(data, recipe.poses, needs_captions=False, fps=recipe.data.fps)
    inputs = {"clips": dataset.fingerprint}
    key = run_key(recipe, inputs)
    if dry_run:
        plan = f"{len(dataset.clips)} clips, {recipe.train.steps} steps of {recipe.train.batch} frames on {device}"
        return planned(
            out, KIND, plan, reporter, look=lambda writer: refuse_another_run(writer, key, SOURCES), prune=prune,
            counts={"clips": len(dataset.clips)},
        )  # fmt: skip
    recorded = reads(recipe, "segmenter")
    with (
        ArtifactWriter(
            out, KIND, recipe=recorded, inputs=inputs, seed=recipe.seed, reporter=reporter, force=force, prune=prune
        ) as writer,
        stopping_at_boundaries() as stop,
    ):
        refuse_another_run(writer, key, SOURCES)
        training, held_out = _load_videos(dataset, recipe, writer)
        if recipe.train.steps not in kept_steps(writer, key):
            prepared = _prepare(recipe, training, device)
            stepping.take_steps(prepared, writer, key, reporter, stop, label="training the segmenter")
        return _finish(recipe, len(training), held_out, writer, key, device)


def run_key(recipe: Recipe, inputs: dict[str, str]) -> str:
    """What makes a run this run."""
    return stepping.run_key(recipe, inputs, "segmenter")


def _load_videos(dataset: Dataset, recipe: Recipe, writer: ArtifactWriter) -> tuple[list[Footage], list[Footage]]:
    """Context and target of every clip as videos of their own: those trained on, and those held out."""
    training: list[Footage] = []
    unseen: list[Footage] = []
    for held_out, videos in read_footage(dataset, recipe, writer, instances=True):
        (unseen if held_out else training).extend(videos)
    if not any(video.subjects.any() for video in training):
        raise DataError("no clip that can be trained on shows a subject", where={"data": dataset.path})
    return training, unseen


@dataclass(kw_only=True)
class SegmenterTraining:
    """Everything a step changes or needs."""

    recipe: Recipe
    videos: Sequence[Footage]
    model: SubjectNet
    parameters: list[nn.Parameter]
    optimizers: list[torch.optim.Optimizer]
    average: EMAModel | None
    device: str

    def step(self, step: int) -> SegmenterStep:
        """Train on one batch, which follows from (seed, step). Returns what the log says of it."""
        import torch

        from hmcli.metrics.detectors.learning import draw_batch, train_step

        train, rng = self.recipe.train, np.random.default_rng([self.recipe.seed, step])
        frames, subjects, names = draw_batch(self.videos, train.batch, rng)
        with naming(step, names):
            parts = train_step(
                self.model, self.optimizers, frames.to(self.device, memory_format=torch.channels_last),
                subjects.to(self.device),
                lr=learning_rate(train, step), clip_norm=train.clip_norm,
            )  # fmt: skip
        if self.average is not None:
            self.average.step(self.parameters)
        return SegmenterStep(step=step + 1, **parts)


def _prepare(recipe: Recipe, videos: Sequence[Footage], device: str) -> SegmenterTraining:
    """Network and optimizers at step 0. With channels last in memory, a CPU takes a fifth less time."""
    import torch

    from hmcli.metrics.detectors.unet import new_subject_net
    from hmcli.stages.training.muon import make_optimizers

    net = new_subject_net(recipe.seed).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    parameters = freeze(net, recipe.train)
    return SegmenterTraining(
        recipe=recipe, videos=videos, model=net, parameters=parameters, device=device,
        optimizers=make_optimizers(net, recipe.train, is_inner_kernel, KERNEL_RATE),
        average=make_average(parameters, recipe.train.ema),
    )  # fmt: skip


def is_inner_kernel(name: str, parameter: nn.Parameter) -> bool:
    """Is this a convolution that neither reads pixels nor is small?"""
    return parameter.ndim == 4 and parameter.numel() >= SMALLEST_KERNEL and not name.startswith(("stem", "fine"))


def _finish(
    recipe: Recipe, videos: int, held_out: list[Footage], writer: ArtifactWriter, key: str, device: str
) -> StageResult:
    """Export the averaged weights, score them, and complete the artifact."""
    from hmcli.metrics.detectors.segmenter import WEIGHTS, load_segmenter, packed
    from hmcli.metrics.detectors.unet import new_subject_net

    order = [step_name(step) for step in kept_steps(writer, key)]
    if writer.unchanged(order) and (writer.path / WEIGHTS).is_file():
        writer.reporter.note(f"already trained to step {recipe.train.steps}")
        manifest = writer.finish(order)
        return result_of(writer, manifest, **manifest.attributes)
    net = new_subject_net(recipe.seed)
    freeze(net, recipe.train)
    state = stepping.last_state(writer, key, recipe.seed)
    assert state is not None  # training has just ended, or was found finished
    stepping.put_averaged(net, state)
    save_weights(writer.staged / WEIGHTS, *packed(net))
    counts = {"steps": state.step, "videos": videos, "held_out": len(held_out)}
    scores = _scores(load_segmenter(writer.staged / WEIGHTS, device), held_out)
    manifest = writer.finish(order, counts=counts, attributes=to_json(scores), files=[LOG, RECIPE])
    return result_of(writer, manifest, **manifest.attributes)


def _scores(detector: Segmenter, held_out: Sequence[Footage]) -> SegmenterAttributes:
    """How well subjects are found in some frames of clips that were not trained on."""
    from hmcli.metrics.detectors.quality import Tally, tally

    counted = Tally()
    for video in held_out:
        some = np.unique(np.linspace(0, len(video.frames) - 1, _SCORED).round().astype(int))
        tally(detector(video.frames[some]), video.subjects[some], counted)
    shares = {"iou": counted.iou, "recall": counted.recall, "false_alarms": counted.false_alarms}
    return SegmenterAttributes(**{name: value for name, value in shares.items() if not math.isnan(value)})
