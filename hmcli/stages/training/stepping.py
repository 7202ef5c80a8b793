"""Steps from the last checkpoint to the last step, for trainings that hold their model alone: codecs, the segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from hmcli.contracts import Reporter
from hmcli.recipe.keys import Reader
from hmcli.recipe.readers import reads
from hmcli.recipe.reading import to_yaml
from hmcli.recipe.sections import Recipe
from hmcli.runtime import StopFlag
from hmcli.stages.models.layout import CHECKPOINTS, RECIPE, step_name
from hmcli.stages.training.checkpoints import drop_old, last_checkpoint, naming_the_last
from hmcli.stages.training.logbook import open_logbook
from hmcli.stages.training.pace import Pace
from hmcli.stages.training.runs import about_checkpoint, say_stopped
from hmcli.stages.training.state import TrainingState, put_state, read_state, take_state, trained, write_state
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.files import write_text
from hmcli.store.hashing import hash_json

if TYPE_CHECKING:
    import torch
    from diffusers.training_utils import EMAModel

_MAY_CHANGE = ("checkpoint_every", "keep", "trackers")  # of the train section, when a run is continued


class Stepping(Protocol):
    """Everything that steps change or need."""

    @property
    def recipe(self) -> Recipe: ...
    @property
    def model(self) -> Any: ...
    @property
    def optimizers(self) -> Sequence[torch.optim.Optimizer]: ...
    @property
    def average(self) -> EMAModel | None: ...
    @property
    def device(self) -> str: ...
    def step(self, step: int) -> Any:
        """Train on one batch, which follows from (seed, step). Returns what the log says of it."""


def run_key(recipe: Recipe, inputs: dict[str, str], reader: Reader) -> str:
    """What makes a run this run: all that changes its weights. `inputs` are fingerprints."""
    read = reads(recipe, reader)
    kept = {name: value for name, value in read["train"].items() if name not in _MAY_CHANGE}
    return hash_json({**read, "train": kept, "inputs": inputs})


def take_steps(
    training: Stepping, writer: ArtifactWriter, key: str, reporter: Reporter, stop: StopFlag, *, label: str
) -> None:
    """Step from the last checkpoint to `train.steps`, with checkpoints; ends early, at a checkpoint, when stopped."""
    train, seed, changing = training.recipe.train, training.recipe.seed, (training.model, training.optimizers)
    start = 0
    if (state := last_state(writer, key, seed)) is not None:
        put_state(state, *changing, training.average)
        reporter.note(f"going on from step {state.step}")
        start = state.step
    _ = writer.staged  # from here on the run is unfinished
    write_text(writer.path / RECIPE, to_yaml(training.recipe))
    pace = Pace(samples=train.batch, device=training.device)
    log = open_logbook(writer.path, training.recipe, key, start, pace, reporter.note)
    shown = reporter.progress(label, train.steps - start, "step")
    with log as logbook, shown as advance, naming_the_last(writer, key):
        for step in range(start, train.steps):
            logbook.step(training.step(step))
            advance(1)
            last = step + 1 == train.steps
            if last or stop or (step + 1) % train.checkpoint_every == 0:
                logbook.sync()
                meta = about_checkpoint(writer)
                with writer.item_folder(step_name(step + 1), key, parent=CHECKPOINTS, meta=meta) as folder:
                    write_state(folder, take_state(*changing, training.average, step=step + 1, seed=seed))
                drop_old(writer, key, train.keep)
                pace.restart()
            if stop and not last:
                say_stopped(stop.signal, step + 1, train.steps)


def last_state(writer: ArtifactWriter, key: str, seed: int) -> TrainingState | None:
    """The state of the newest whole checkpoint of this run."""
    if (folder := last_checkpoint(writer, key)) is None:
        return None
    return read_state(folder, seed=seed, instead="train again from the start: --force, or another --out")


def put_averaged(model: Any, state: TrainingState) -> None:
    """Give a model what a finished run exports: the average of its weights, or the weights where there is none."""
    for name, parameter in trained(model).items():
        parameter.data.copy_((state.average or state.weights)[name])
