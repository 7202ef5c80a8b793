"""`hm train`: flow matching on target frames, with checkpoints from which training goes on exactly.

Everything random in step n depends on (seed, n) alone: which clips, which noise, which timestep, which anchor. A run
stopped anywhere therefore ends with the same weights as one that was never stopped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from hmcli.contracts import Reporter, StageResult
from hmcli.errors import DataError, RecipeError, UsageError
from hmcli.recipe.keys import Reader
from hmcli.recipe.readers import reads
from hmcli.recipe.reading import from_dict, sections, to_yaml
from hmcli.recipe.sections import Recipe, TrainConfig
from hmcli.runtime import Silent, StopFlag, say_beside, stopping_at_boundaries
from hmcli.stages.latents.stores import LatentsStores, open_stores
from hmcli.stages.latents.view import LatentClip, LatentsView
from hmcli.stages.memory.policy_inputs import open_descriptions, reads_geometry
from hmcli.stages.models.folders import ModelFolder, check_memory_fits, find_base, model_arguments, read_otherwise
from hmcli.stages.models.layout import (
    CHECKPOINTS,
    LOG,
    PACE,
    RECIPE,
    RUN,
    VALIDATION,
    RunAttributes,
    Step,
    picture_of,
    step_name,
)
from hmcli.stages.shared.devices import stated_rate
from hmcli.stages.shared.outcome import planned, result_of
from hmcli.stages.shared.typed import to_json
from hmcli.stages.training.checkpoints import (
    kept_steps,
    last_checkpoint,
    naming_the_last,
    read_checkpoint,
    whole_weights,
    write_checkpoint,
    write_share,
)
from hmcli.stages.training.feeding import Feed, held_out, order_of, prepared_ahead
from hmcli.stages.training.logbook import open_logbook
from hmcli.stages.training.objective import LEVELS
from hmcli.stages.training.pace import Pace
from hmcli.stages.training.ranks import Place, Ranks, joined
from hmcli.stages.training.resuming import GoingOn, go_on_with
from hmcli.stages.training.runs import (
    SEEN,
    held_out_fall,
    is_converged,
    logged_steps,
    refuse_another_run,
    say_stopped,
)
from hmcli.stages.training.sharded import is_sharded
from hmcli.stages.training.trainer import Training, prepare_training
from hmcli.stages.training.validating import is_due, validate
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.files import write_text
from hmcli.store.hashing import hash_json
from hmcli.store.manifest import is_artifact, read_manifest

ENCODED = ("data", "poses", "codec", "text")  # sections that encode has read
# of the train section, when a run is continued
_CAME_LATER = ("shuffle", "camera_dropout")  # left as they are, a run is what it was before there was a choice
_MAY_CHANGE = ("steps", "checkpoint_every", "keep", "parallel", "offload", "compile", *SEEN)
SOURCES = "latents (or model.base, or --memory)"
PACKED = ("compressor", "keep_bits")  # of the data section
FROM_NOTHING = "the start"  # in place of a checkpoint


def run(
    recipe: Recipe,
    *,
    latents: Path | Sequence[Path],
    out: Path,
    force: bool,
    device: str,
    reporter: Reporter,
    memory: Path | None = None,
    prune: bool = False,
    dry_run: bool = False,
    processes: int = 1,
    place: Place | None = None,
    resume_with: Collection[str] = (),
    flop_of: Callable[[Recipe, Path], float] | None = None,
) -> StageResult:
    """Train to `train.steps` and write a run; see `hm train --help`.

    `place`: as one of several ranks. `processes`: how many there are to be, for a dry run. `resume_with`: keys of the
    recipe that may differ from those of the run that goes on. `flop_of`: what a step on these latents computes, to hold
    it against the device's stated rate.

    Raises UsageError when `out` holds another run, DataError when no clip can be trained on, StoppedEarly on SIGTERM.
    """
    if place is not None:
        device = place.device(device)
        reporter = Silent() if place.rank else reporter
    check_shares(recipe.train, processes if place is None else place.count)
    if recipe.train.compile == "blocks":
        from hmcli.core.compiled import check_compiler

        check_compiler("train.compile", device)
    if recipe.train.offload and device == "cpu":
        raise UsageError(
            "train.offload=true moves shares from a GPU into the machine's memory; on a CPU they are there",
            where={"recipe": "train.offload", "device": device}, fix="leave it out, or train with --device cuda",
        )  # fmt: skip
    if recipe.train.optimizer == "adamw8bit":
        from hmcli.stages.training.eight_bit import check_package

        check_package()
    view = open_stores(latents)
    view.say_left_out(reporter)
    if view.distant and recipe.train.shuffle == "clips":
        reporter.note("latents are at a URL: with train.shuffle=shards every file of them is read in one stretch")
    clips = _usable(view, recipe)
    recipe = as_encoded(recipe, view, reporter)
    inputs = view.inputs
    if (base := _check_model(recipe, view, clips, reporter)) is not None:
        inputs["base"] = base.fingerprint
    described = None
    if memory is not None and isinstance(view, LatentsStores):
        raise UsageError(
            "--memory describes the clips of one latents artifact, several are given", where={"memory": memory},
            fix="leave --memory out: what slots show is computed from the latents then",
        )  # fmt: skip
    if recipe.train.validate_metrics and isinstance(view, LatentsStores):
        raise UsageError(
            "train.validate_metrics compares with the clips of one latents artifact, several are given",
            where={"recipe": "train.validate_metrics"}, fix="leave it out: errors and pictures are of several, too",
        )  # fmt: skip
    if memory is not None:
        described = open_descriptions(memory, view, recipe.model.memory, clips, reporter)
        inputs["memory"] = read_manifest(memory).fingerprint
    key = run_key(recipe, inputs)
    if dry_run:

        def look(writer: ArtifactWriter) -> None:
            if not resume_with:
                refuse_another_run(writer, key, SOURCES)

        plan = f"{len(clips)} clips, {recipe.train.steps} steps of {recipe.train.batch} on {device}"
        plan += f" in {processes} ranks" if processes > 1 else ""
        return planned(out, RUN, plan, reporter, look=look, prune=prune, counts={"clips": len(clips)})
    if place is not None and place.rank:
        with joined(place, device) as ranks, stopping_at_boundaries() as stop:
            if start := ranks.told(""):
                _train(prepare_training(recipe, view, device, described, reporter, ranks), clips, start, None, stop)
        return StageResult(path=out, kind=RUN)
    with (
        ArtifactWriter(
            out, RUN, recipe=_read(recipe), inputs=inputs, seed=recipe.seed, reporter=reporter, force=force,
            prune=prune,
        ) as writer,
        joined(place, device) as ranks,
        stopping_at_boundaries() as stop,
    ):  # fmt: skip
        going = _going_on(writer, key, resume_with)
        if going.step < recipe.train.steps:
            start = ranks.told(str(going.folder or FROM_NOTHING))
            training = prepare_training(recipe, view, device, described, reporter, ranks)
            _train(training, clips, start, Keeper(writer, going, _pace(training, flop_of)), stop)
        else:
            ranks.told("")
            reporter.note(f"already trained to step {going.step}, {recipe.train.steps} were asked for")
            if is_artifact(writer.path):
                writer.recipe = read_manifest(writer.path).recipe  # as it was trained, whatever was asked now
        return _finish(writer, recipe, going, ranks)


def _going_on(writer: ArtifactWriter, key: str, resume_with: Collection[str]) -> GoingOn:
    """Where the run goes on, and as what. Raises UsageError where `out` holds another one."""
    if resume_with:
        return go_on_with(writer, key, resume_with)
    refuse_another_run(writer, key, SOURCES)
    folder = last_checkpoint(writer, key)
    return GoingOn(key=key, step=max(kept_steps(writer, key), default=0), folder=folder)


def check_shares(train: TrainConfig, ranks: int) -> None:
    """Raise UsageError where a batch has too few clips for every rank to have some, or there is nothing to share."""
    if train.parallel == "fsdp" and ranks == 1:
        raise UsageError(
            "train.parallel=fsdp divides a model among ranks, and there is one", where={"recipe": "train.parallel"},
            fix="give --num-processes N, or --set train.parallel=ddp: a run may go on either way",
        )  # fmt: skip
    if (pieces := ranks * train.accumulate) > train.batch:
        raise UsageError(
            f"train.batch={train.batch} clips cannot be divided among {ranks} ranks in {train.accumulate} pieces each",
            where={"recipe": "train.batch, train.accumulate"},
            fix=f"set train.batch to {pieces} or more (it is that of all ranks together)",
        )


def run_key(recipe: Recipe, inputs: dict[str, str]) -> str:
    """What makes a run this run: all that changes its weights, but for its length. `inputs` are fingerprints."""
    read = _read(recipe)
    kept = {name: value for name, value in read["train"].items() if name not in _MAY_CHANGE}
    if recipe.train.decay != "constant":
        kept["steps"] = recipe.train.steps
    data = {name: value for name, value in read["data"].items() if name not in PACKED}  # the latents say what they are
    usual = TrainConfig()
    for name in _CAME_LATER:
        if kept[name] == getattr(usual, name):
            del kept[name]
    return hash_json({**read, "train": kept, "data": data, "inputs": inputs})


def _read(recipe: Recipe) -> dict[str, Any]:
    """What of the recipe a run depends on, and what its latents were encoded with."""
    views: tuple[Reader, ...] = ("views",) if reads_geometry(recipe.model.memory, recipe.model.positions) else ()
    return reads(recipe, "train", *views) | sections(recipe, *ENCODED)


def _usable(view: LatentsView, recipe: Recipe) -> list[str]:
    """Ids of clips that have a target. Raises what keeps the latents and the recipe apart."""
    made_with = view.manifest.recipe
    for section in ("codec", "text"):
        wanted = sections(recipe, section)[section]["name"]
        if made_with[section]["name"] != wanted:
            name = made_with[section]["name"]
            raise DataError(
                f"latents were encoded with {section} {name!r}, the recipe wants {wanted!r}",
                where={"artifact": f"{view.path} (manifest: {section}.name)", "recipe": f"{section}.name"},
                fix="encode again with this recipe: hm encode DATA --recipe RECIPE",
            )
    clips = [clip for group in view.groups if group.shape.has_target for clip in group.ids]
    if not clips:
        raise DataError(
            "no clip has target frames to learn from", where={"latents": view.path},
            fix="encode with data.split to cut each clip in two, e.g. --set 'data.split={context: 37, target: 37}'",
        )  # fmt: skip
    return clips


def as_encoded(recipe: Recipe, view: LatentsView, reporter: Reporter) -> Recipe:
    """The recipe with the sections that encode read as it read them, so that a run records what it was trained on.

    Raises RecipeError where the recipe's tokens are thought of in latents of another codec.
    """
    if recipe.codec.stride != (stride := view.attributes.stride):
        raise RecipeError(
            f"codec.stride={recipe.codec.stride}, but the latents stand for {stride} pixels each",
            where={"recipe": "codec.stride", "latents": view.path},
            fix=f"set codec.stride={stride}, with model.patch and model.memory.kernel that fit",
        )
    made_with = {"format": recipe.format} | {name: view.manifest.recipe[name] for name in ENCODED}
    encoded = from_dict(made_with)
    for name in ENCODED:
        if reads(encoded, "encode")[name] != reads(recipe, "encode")[name]:
            reporter.note(f"{name}: recorded as the latents were encoded, which is not what the recipe says")
    codec = dataclasses.replace(encoded.codec, stride=stride)
    return dataclasses.replace(recipe, **{name: getattr(encoded, name) for name in ENCODED} | {"codec": codec})


def _check_model(recipe: Recipe, view: LatentsView, clips: list[str], reporter: Reporter) -> ModelFolder | None:
    """Raise, before anything is built, what keeps the recipe's model from these clips; returns what it starts from."""
    wanted = model_arguments(recipe, channels=view.channels, text_dim=view.text_shape[1])
    base = find_base(recipe, wanted)
    if base is not None and (changed := read_otherwise(base, wanted)):
        changes = ", ".join(f"{key} {change}" for key, change in changed.items())
        anew = "; its memory tokenizers start anew" if "kernel" in changed else ""
        reporter.note(f"starting from {base.path}, which read memory otherwise: {changes}{anew}")
    for clip in clips:
        shape = view.where[clip][0].shape
        check_memory_fits(wanted, clip, context=shape.context, target=shape.target, size=view.latent_size)
    return base


# --- the loop ------------------------------------------------------------------------------------------------------


def _train(training: Training, clips: list[str], start: str, keeper: Keeper | None, stop: StopFlag) -> None:
    """Step from the checkpoint `start` to `train.steps`, with checkpoints; ends early, at a checkpoint, when stopped.

    Every rank does this; the first one has the keeper, which writes what is kept.
    """
    train, view, ranks = training.recipe.train, training.view, training.ranks
    watch, first = ranks.watch, 0
    if start != FROM_NOTHING:
        first = read_checkpoint(
            Path(start), training.model, training.optimizers, training.average, training.recipe.seed, training.scale
        )
    if stopped := ranks.largest(stop.signal or 0):
        say_stopped(stopped, first, train.steps)
    order = order_of(view, held_out(clips, train), train, training.recipe.seed)
    for _ in range(first):
        next(order)
    tested = [view.clip(clip) for clip in held_out(clips, train)]
    feed = Feed(training, clips)
    jobs = zip(range(first, train.steps), order, strict=False)
    with nullcontext() if keeper is None else keeper.open(training.recipe, first):

        def look(step: int, errors: dict[str, Any]) -> None:
            """All ranks at once: the first one looks, the others wait."""
            saving, watch.saving = watch.saving, True
            weights = whole_weights(training.model, training.average) if is_sharded(training.model) else None
            if keeper is not None:
                keeper.look(step, training, [clip.id for clip in tested], errors, weights)
            ranks.largest(0)
            watch.saving = saving

        if is_due(train, first) and ranks.told("" if keeper is None or keeper.has_looked(first) else "look"):
            look(first, _tested(training, tested))
        for prepared in prepared_ahead(feed.prepare, jobs, feed.ahead):
            watch.step()
            step, row = prepared.step, training.step(prepared)
            last, stopped = step + 1 == train.steps, ranks.largest(stop.signal or 0)
            saves = last or stopped or (step + 1) % train.checkpoint_every == 0
            looks = is_due(train, step + 1) and not stopped
            errors = _tested(training, tested) if tested and (saves or looks) else {}
            if saves:
                row = dataclasses.replace(row, **errors)
            if keeper is not None:
                keeper.log(row)
            watch.saving = bool(saves)
            if looks:
                look(step + 1, errors)
            if saves and keeper is not None:
                keeper.save(step + 1, training)
            elif saves:
                write_share(training.model, training.optimizers, training.average, ranks)
            if saves:
                ranks.largest(0)  # the others wait: one that ends meanwhile would end the first, too
                watch.saving = False
            if stopped and not last:
                say_stopped(stopped, step + 1, train.steps)
    watch.saving = True  # the first rank writes the run yet


def _pace(training: Training, flop_of: Callable[[Recipe, Path], float] | None) -> Pace:
    """How fast steps will be; of a device whose rate is known also as a share of it."""
    recipe, pace = training.recipe, Pace(samples=training.recipe.train.batch, device=training.device)
    rate = None if flop_of is None else stated_rate(training.device, recipe.train.dtype)
    if flop_of is not None and rate is not None:
        pace.flop, pace.rate = flop_of(recipe, training.view.path), rate * training.ranks.count
    return pace


class Keeper:
    """What the first rank writes: the log, the checkpoints, and how far it is."""

    def __init__(self, writer: ArtifactWriter, going: GoingOn, pace: Pace) -> None:
        self.writer, self.key, self.resumed, self.pace = writer, going.key, going.resumed, pace

    @contextmanager
    def open(self, recipe: Recipe, first: int) -> Iterator[None]:
        """For a run that goes on from step `first`; from here on it is unfinished."""
        reporter = self.writer.reporter
        if first:
            reporter.note(f"going on from step {first}")
        _ = self.writer.staged
        write_text(self.writer.path / RECIPE, to_yaml(recipe))
        logs = open_logbook(self.writer.path, recipe, self.key, first, self.pace, reporter.note)
        shown = reporter.progress("training", recipe.train.steps - first, "step")
        with logs as self._logs, shown as self._advance, naming_the_last(self.writer, self.key):
            self.pace.restart()
            yield

    def log(self, row: Step) -> None:
        """A line of the log, and what a person sees of it."""
        self._logs.step(row)
        say_beside(self.writer.reporter, self.pace.said(row))
        self._advance(1)

    def has_looked(self, step: int) -> bool:
        """Was the model looked at after so many steps? A run that was stopped then has not."""
        return self._logs.validated(step)

    def look(
        self, step: int, training: Training, clips: list[str], errors: dict[str, Any], weights: dict[str, Any] | None
    ) -> None:
        """Look at the model as it is, apart from checkpoints."""
        run = self.writer.path
        row = validate(training, step, clips, errors, run, self.writer.reporter, weights)
        self._logs.validation(row, picture_of(run, step))
        self.pace.restart()

    def save(self, step: int, training: Training) -> None:
        """A checkpoint; the log is not behind it, whatever happens to the machine."""
        self._logs.sync()
        write_checkpoint(
            self.writer, self.key, step, training.recipe, training.view, training.model, training.optimizers,
            training.average, self.resumed, training.ranks, training.scale,
        )  # fmt: skip
        self.pace.restart()


def _tested(training: Training, clips: list[LatentClip]) -> dict[str, Any]:
    """What the log says of the current weights on clips never trained on."""
    errors = {f"{sigma}": training.held_out_errors(clips, sigma) for sigma in LEVELS}
    returned = {level: _mean(of) for level, (_, of) in errors.items() if of}
    return {
        "held_out_loss": training.held_out_loss(clips),
        "held_out_errors": {level: _mean(of) for level, (of, _) in errors.items()},
        "held_out_returned": returned or None,
    }


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 6)


# --- the run as an artifact ----------------------------------------------------------------------------------------


def _finish(writer: ArtifactWriter, recipe: Recipe, going: GoingOn, ranks: Ranks) -> StageResult:
    kept = kept_steps(writer, going.key)
    steps = logged_steps(writer)
    losses, fall = [step.loss for step in steps], held_out_fall(steps)
    tail = losses[-max(1, len(losses) // 10) :]
    about = RunAttributes(
        checkpoint=f"{CHECKPOINTS}/{step_name(kept[-1])}", loss_first=losses[0] if losses else None,
        loss_last_tenth=sum(tail) / len(tail) if tail else None,
        held_out_fall=None if fall is None else round(fall, 4), converged=is_converged(fall),
        resumed=going.resumed or None, ranks=ranks.count if ranks.count > 1 else None,
    )  # fmt: skip
    if about.converged is False:
        writer.reporter.note(
            f"not converged: the loss on held-out clips fell by {fall:.1%} in the last fifth of the steps"
        )
    manifest = writer.finish(
        [step_name(step) for step in kept],
        counts={"steps": kept[-1]},
        attributes=to_json(about),
        files=[LOG, RECIPE, *(name for name in (PACE, VALIDATION) if (writer.path / name).is_file())],
    )
    return result_of(writer, manifest, **to_json(about))
