"""Where a training is shown beside its own logs, by `train.trackers`: TensorBoard, W&B, trackio.

The logs in the run are what counts; a tracker is told what stands in them, every step once, also when the run goes on.
Nothing leaves the machine but where WANDB_MODE asks for it. A tracker is a name of the registry's kind `tracker`: a
factory `(Shown) -> Tracker`.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hmcli import registry
from hmcli.errors import MissingPartError
from hmcli.recipe.reading import to_dict
from hmcli.recipe.sections import Recipe
from hmcli.stages.models.layout import EVENTS, TRACKERS
from hmcli.store.files import read_json, write_json


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a tracker is told of a run."""

    folder: Path
    key: str  # the same whenever the run goes on
    recipe: Recipe
    note: Callable[[str], None]

    @property
    def id(self) -> str:
        """One name for the run in a tracker's own store, whatever else is called alike."""
        return f"{self.folder.name}-{self.key.removeprefix('sha256:')[:12]}"


@dataclass(frozen=True, kw_only=True)
class Told:
    """Numbers of a line of a log, a picture that goes with it, or both; `at` in seconds since 1970."""

    log: str  # which
    step: int
    at: float
    values: Mapping[str, Any]
    picture: Path | None = None  # a PNG


class Tracker(Protocol):
    """Shows what it is told."""

    anew: bool  # does it forget what it was told before the run went on?

    def numbers(self, step: int, values: Mapping[str, float], at: float) -> None: ...

    def picture(self, step: int, name: str, pixels: np.ndarray, at: float) -> None:
        """(H, W, 3) uint8."""

    def close(self) -> None: ...


class Trackers:
    """All trackers of a run, as one."""

    def __init__(self, known: Mapping[str, tuple[Tracker, Mapping[str, int]]]) -> None:
        self._known = known  # name -> tracker, and for each log the step up to which it was told before

    def tell(self, told: Told) -> None:
        from PIL import Image

        values, pixels = flat(told.values), None
        for tracker, until in self._known.values():
            if told.step <= until.get(told.log, -1):
                continue
            if values:
                tracker.numbers(told.step, values, told.at)
            if told.picture is not None and told.picture.is_file():
                if pixels is None:
                    with Image.open(told.picture) as opened:
                        pixels = np.asarray(opened.convert("RGB"))
                tracker.picture(told.step, "validation", pixels, told.at)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The finite numbers of a line of a log, those of one kind as `kind/name`."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}/")
        elif name != "step" and isinstance(value, int | float) and math.isfinite(value):
            found[prefix + name] = float(value)
    return found


@contextmanager
def showing(names: Sequence[str], shown: Shown, before: Iterable[Told], until: Mapping[str, int]) -> Iterator[Trackers]:
    """Trackers of a run that begins or goes on.

    `before` is what its logs hold, `until` the last step that each ever held.

    Raises MissingPartError for one whose package is not there.
    """
    file = shown.folder / TRACKERS
    earlier = read_json(file) if any(until.values()) and file.is_file() else {}
    with contextlib.ExitStack() as open_ones:
        known: dict[str, tuple[Tracker, Mapping[str, int]]] = {}
        for name in dict.fromkeys(map(registry.normal, names)):
            tracker: Tracker = registry.find("tracker", name)(shown)
            open_ones.callback(tracker.close)
            known[name] = (tracker, until if earlier.get(name) == shown.id and not tracker.anew else {})
        write_json(file, {**earlier, **dict.fromkeys(known, shown.id)})
        trackers = Trackers(known)
        for told in before:
            trackers.tell(told)
        yield trackers


def _package(name: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a library that is not ours
            return import_module(name)
    except ImportError as error:
        raise MissingPartError(
            f"train.trackers names {name}, which is not installed",
            fix=f"pip install 'hmcli[{name}]', or leave it out of train.trackers",
        ) from error


# --- TensorBoard -----------------------------------------------------------------------------------------------------


class TensorBoard:
    """Event files in the run, written anew from its logs when it goes on: `tensorboard --logdir RUN`."""

    anew = True

    def __init__(self, shown: Shown) -> None:
        from tensorboardX import SummaryWriter

        shutil.rmtree(shown.folder / EVENTS, ignore_errors=True)
        self._writer = SummaryWriter(str(shown.folder / EVENTS), flush_secs=10)

    def numbers(self, step: int, values: Mapping[str, float], at: float) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step, at)

    def picture(self, step: int, name: str, pixels: np.ndarray, at: float) -> None:
        self._writer.add_image(name, pixels, step, at, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


# --- W&B and trackio -------------------------------------------------------------------------------------------------

_PROJECT = "hmcli"


class Wandb:
    """A run of W&B. Kept below the run until `wandb sync` sends it; WANDB_MODE=online sends it at once."""

    anew = False

    def __init__(self, shown: Shown) -> None:
        self._wandb = _package("wandb")
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode == "offline":
            shown.note(f"W&B: kept in {shown.folder / 'wandb'}; `wandb sync` sends it, WANDB_MODE=online at once")
        with contextlib.redirect_stdout(sys.stderr):
            self._run = self._wandb.init(
                project=os.environ.get("WANDB_PROJECT", _PROJECT), name=shown.folder.name, id=shown.id,
                dir=str(shown.folder), resume="allow", mode=mode, config=to_dict(shown.recipe),
                settings=self._wandb.Settings(console="off", silent=True),
            )  # fmt: skip

    def numbers(self, step: int, values: Mapping[str, float], at: float) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, pixels: np.ndarray, at: float) -> None:
        self._run.log({name: self._wandb.Image(pixels)}, step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A run of trackio, in its own store on this machine: `trackio show`."""

    anew = False

    def __init__(self, shown: Shown) -> None:
        self._trackio = _package("trackio")
        with contextlib.redirect_stdout(sys.stderr):
            self._run = self._trackio.init(
                project=_PROJECT, name=shown.id, resume="allow", config=to_dict(shown.recipe), embed=False,
            )  # fmt: skip

    def numbers(self, step: int, values: Mapping[str, float], at: float) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, pixels: np.ndarray, at: float) -> None:
        self._run.log({name: self._trackio.Image(pixels)}, step=step)

    def close(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._run.finish()
