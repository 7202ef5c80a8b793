"""Looking at a model while it trains, apart from checkpoints: what it makes of a few clips that are held out.

Noise follows from the recipe's seed and the clip, so that pictures of two steps, or of two runs of one seed, differ in
the model alone. What generates is what a checkpoint of this step would: the average of the weights, where there is one.
Training draws nothing from what is drawn here, and gets its model back as it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from hmcli.contracts import Reporter
from hmcli.errors import UsageError
from hmcli.recipe.reading import to_dict
from hmcli.recipe.sections import Recipe, TrainConfig
from hmcli.runtime import Silent, pick_dtype
from hmcli.stages.models.folders import ModelFolder
from hmcli.stages.models.layout import (
    CHECKPOINT,
    PICTURES,
    CheckpointAttributes,
    TrainedWith,
    Validation,
    picture_of,
)
from hmcli.stages.sampling import generate
from hmcli.stages.sampling.job import Job
from hmcli.stages.sampling.layout import SHEET
from hmcli.stages.scoring import evaluate
from hmcli.stages.scoring.layout import SCORES
from hmcli.stages.shared.typed import to_json
from hmcli.stages.training.checkpoints import whole_model
from hmcli.stages.training.trainer import Training
from hmcli.store.files import read_json
from hmcli.store.manifest import make_manifest

if TYPE_CHECKING:
    from torch import Tensor

    from hmcli.core.transformer import HydraTransformer3DModel


def is_due(train: TrainConfig, step: int) -> bool:
    """Is the model looked at after so many steps? Before the first, every `validate_every`, and at the end."""
    return train.validate_every > 0 and (step % train.validate_every == 0 or step == train.steps)


def validate(
    training: Training,
    step: int,
    clips: list[str],
    errors: Mapping[str, Any],
    run: Path,
    reporter: Reporter,
    weights: dict[str, Tensor] | None = None,
) -> Validation:
    """Sample the first of `clips` into RUN/validation/NNN.png and score them; `errors` is what is known already.

    `weights` are the whole ones, where this rank's model holds a share of them. Raises UsageError for a metric whose
    inputs are not there.
    """
    train = training.recipe.train
    folder, chosen = run / PICTURES, clips[: train.validate_clips]
    if not chosen:
        return Validation(step=step, **errors)
    folder.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix=".making-", dir=folder) as place, _looked_at(training, weights) as model:
        made = Path(place) / "generation"
        recipe = replace(training.recipe, sample=few_steps(training.recipe))
        generate.from_job(_job(training, recipe, model, run, reporter), chosen, made, _Warnings(reporter))
        if (made / SHEET).is_file():
            os.replace(made / SHEET, picture_of(run, step))
        scores = _scores(training, recipe, made, Path(place) / "scores", reporter) if train.validate_metrics else None
    return Validation(step=step, metrics=scores, **errors)


def few_steps(recipe: Recipe) -> Any:
    """How held-out clips are sampled: as the recipe says, but once, all at once, with memory, and in fewer steps."""
    return replace(
        recipe.sample, steps=recipe.train.validate_steps, count=1, chunk=0, cache="none", branches="apart",
        memory="on", compile="none", quantize="none", offload="none", max_history=0, anchor_radius=0.0,
    )  # fmt: skip


# --- the model as it is ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LiveJob(Job):
    """A job whose model is in memory already, under the attention kernel and in the precision of its training."""

    live: HydraTransformer3DModel

    @property
    def network(self) -> HydraTransformer3DModel:
        return self.live

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.live.config)


def _job(
    training: Training, recipe: Recipe, model: HydraTransformer3DModel, run: Path, reporter: Reporter
) -> LiveJob:  # fmt: skip
    view = training.view
    inputs = view.manifest.inputs
    about = CheckpointAttributes(
        parameters=sum(p.numel() for p in model.parameters()), size=view.size,
        trained_with=TrainedWith(codec=inputs["codec"], text=inputs["text"]),
    )  # fmt: skip
    manifest = make_manifest(
        CHECKPOINT, recipe=to_dict(recipe), inputs={"latents": view.fingerprint}, seed=recipe.seed,
        attributes=to_json(about),
    )  # fmt: skip
    return LiveJob(
        recipe=recipe, view=view, model=ModelFolder(path=run, manifest=manifest), history=None,
        described=training.described, device=training.device, reporter=reporter, live=model,
    )  # fmt: skip


@contextmanager
def _looked_at(training: Training, weights: dict[str, Tensor] | None) -> Iterator[HydraTransformer3DModel]:
    """The model with the weights that generate; afterwards it is again as it was."""
    from hmcli.stages.training.together import autocast

    train, average = training.recipe.train, training.average
    if weights is not None:
        model = whole_model(training.model, weights)
        model.to(training.device).eval()  # type: ignore[arg-type]
        model.set_attention(train.attention, dtype=pick_dtype(train.dtype))
        with autocast(training.device, train):
            yield model
        return
    if average is not None:
        average.store(training.parameters)
        average.copy_to(training.parameters)
    training.model.eval()
    try:
        with autocast(training.device, train):
            yield training.model
    finally:
        training.model.train()
        if average is not None:
            average.restore(training.parameters)


def _scores(training: Training, recipe: Recipe, made: Path, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Means of the metrics asked for, by label."""
    import torch

    metrics = recipe.train.validate_metrics
    try:
        with torch.autocast(torch.device(training.device).type, enabled=False):
            evaluate.run(
                recipe, generation=made, reference=None, metrics=metrics, out=out, device=training.device,
                reporter=_Warnings(reporter),
            )  # fmt: skip
    except UsageError as error:
        error.where |= {"recipe": "train.validate_metrics"}
        error.fix = "leave the metric out of train.validate_metrics, or bring its inputs"
        raise
    return {label: score["mean"] for label, score in read_json(out / SCORES)["metrics"].items()}


@dataclass(frozen=True)
class _Warnings(Silent):
    """Of what stages have to say, what a user should know."""

    outer: Reporter

    def warn(self, text: str) -> None:
        self.outer.warn(text)
