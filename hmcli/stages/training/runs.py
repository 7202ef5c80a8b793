"""What every training shares: its log, its recipe on disk, whose run a folder holds, and how it ends early."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hmcli.errors import NotFiniteError, StoppedEarly, UsageError
from hmcli.stages.models.layout import LOG, RECIPE, CheckpointAbout, Logged, MadeFrom, Resumed, Step
from hmcli.stages.shared.typed import from_json, to_json
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.asked import Asked
from hmcli.store.files import write_text

CONVERGED = 0.01  # a held-out loss that falls by more in the last fifth would go on falling
SEEN = ("trackers", "validate_every", "validate_clips", "validate_steps", "validate_metrics")  # changes no weight
# may change when a run is continued
LENGTH = tuple(f"train.{name}" for name in ("steps", "checkpoint_every", "keep", "parallel", "compile", *SEEN))


def refuse_another_run(writer: ArtifactWriter, key: str, source: str) -> None:
    """Weights are never thrown away because a recipe changed: another run in `out` is refused, unless it is pruned.

    Then it goes when this one is finished. Checkpoints of this run come and go as `train.keep` says.
    """
    others = {item for item, record in writer.items.items() if record["key"] != key}
    if others and not writer.prune:
        about = from_json(CheckpointAbout, writer.items[max(others)]["meta"], "a checkpoint's record", run=writer.path)
        changed = {}
        if about.made_from is not None and writer.recipe:  # else it does not say, or it is only looked at
            changed = _changed(about.made_from, made_from(writer))
        raise UsageError(
            f"the output folder holds a run of another recipe, seed or {source}: {len(others)} checkpoints would go",
            where={"run": writer.path, "its recipe": writer.path / RECIPE, **changed},
            fix=f"choose another --out, or --prune to let that run go; to go on with it, {_back(changed)}"
            + ("" if about.resumed is None else "; it went on with --resume-with, and does only so"),
        )
    writer.ask(Asked(keys={}, helps=lambda item: item not in others, seeded=False))


def about_checkpoint(writer: ArtifactWriter, resumed: tuple[Resumed, ...] = ()) -> dict[str, Any]:
    """What the record of a checkpoint says of the run it belongs to."""
    return to_json(CheckpointAbout(made_from=made_from(writer), resumed=resumed or None))


def made_from(writer: ArtifactWriter) -> MadeFrom:
    """What the run is made from that is written now."""
    return MadeFrom(seed=writer.seed, inputs=writer.inputs, recipe=writer.recipe)


def differences(then: MadeFrom, now: MadeFrom) -> dict[str, tuple[Any, Any]]:
    """What a run would be made from otherwise: name -> (then, now)."""
    before, after = dict(_flat(to_json(then))), dict(_flat(to_json(now)))
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: (before.get(name), after.get(name)) for name in names}


def in_words(changes: Mapping[str, tuple[Any, Any]]) -> dict[str, str]:
    return {name: f"{_short(then)} then, {_short(now)} now" for name, (then, now) in changes.items()}


def _changed(then: MadeFrom, now: MadeFrom) -> dict[str, str]:
    """The differences in words. Lengths are named only where nothing else is."""
    found = differences(then, now)
    return in_words({name: found[name] for name in found if name not in LENGTH} or found)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys of a recipe by their paths, other values by their names."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, "" if not prefix and name in ("inputs", "recipe") else f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _short(value: Any) -> str:
    return value[:19] if isinstance(value, str) and value.startswith("sha256:") else repr(value)


def _back(changed: Mapping[str, str]) -> str:
    return f"give {', '.join(changed)} as then" if changed else "give the recipe, seed and inputs it was made from"


def log_until(path: Path, step: int) -> Any:
    """The step log, cut back to `step` so that a resumed run logs every step once."""
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else [""]
    whole = lines[:-1]  # a process that ended in the middle left half a line behind the last end of line
    kept = [line for line in whole if from_json(Logged, json.loads(line), "a line of the log", file=path).step <= step]
    write_text(path, "".join(line + "\n" for line in kept))
    return path.open("a", encoding="utf-8")


def logged_steps(writer: ArtifactWriter) -> list[Step]:
    """All logged steps; a log that is gone is said, and an empty one takes its place."""
    file = writer.path / LOG
    if not file.is_file():
        writer.reporter.warn(f"{LOG} is gone: the losses of this run are lost, its weights are whole")
        write_text(file, "")
    lines = file.read_text(encoding="utf-8").splitlines()
    return [from_json(Step, json.loads(line), "a line of the log", file=file) for line in lines]


def held_out_fall(steps: Sequence[Step]) -> float | None:
    """Which share of the held-out loss went in about the last fifth of a run; None where checkpoints do not tell.

    From the last checkpoint before that fifth, which must stand behind three fifths, to the end.
    """
    told = [(step.step, step.held_out_loss) for step in steps if step.held_out_loss is not None]
    if not told:
        return None
    last, loss = told[-1]
    before = [(step, value) for step, value in told if 0.6 * last <= step <= 0.8 * last]
    return None if not before else 1 - loss / before[-1][1]


@contextmanager
def naming(step: int, clips: Sequence[str]) -> Iterator[None]:
    """Say of a loss or gradient that is not finite in which step it came up and on which clips."""
    try:
        yield
    except NotFiniteError as error:
        raise NotFiniteError(
            f"{error.what} in step {step + 1}, which is not applied", where={"clips": ", ".join(dict.fromkeys(clips))},
            fix="look at these clips (hm inspect), lower train.lr or lengthen train.warmup; run again, with the same "
            "recipe or into another --out: the last good checkpoint is whole",
        ) from error  # fmt: skip


def is_converged(fall: float | None) -> bool | None:
    """Is what went of the held-out loss in the last fifth (`held_out_fall`) little? None where that is not known."""
    return None if fall is None else fall <= CONVERGED


def say_stopped(number: int | None, step: int, steps: int) -> None:
    """Raise what a signal of this number ends a training with."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise StoppedEarly(f"stopped at step {step} of {steps}", fix="run the same command again: it goes on from there")
