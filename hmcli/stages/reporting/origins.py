"""Where the videos of evaluations are: generations and data sets as they were recorded, named, or lying beside.

An evaluation holds numbers alone; what it was made from is known by fingerprint, and nothing else is shown for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hmcli.errors import DataError, HMError, UsageError
from hmcli.recipe.sections import EvalConfig, PosesConfig
from hmcli.stages.data.opening import Dataset, open_dataset
from hmcli.stages.reporting.evaluations import Evaluated
from hmcli.stages.sampling.foreign import is_plain_folder, open_foreign
from hmcli.stages.sampling.generations import Generated, open_generation
from hmcli.stages.sampling.layout import KIND as GENERATION
from hmcli.store.manifest import is_artifact, read_manifest


def find_generation(one: Evaluated, named: Sequence[Path]) -> Generated | str:
    """The generation that was scored, or why it cannot be shown."""
    wanted = one.manifest.inputs.get("generation", "")
    recorded = [Path(one.about.generation.path)] if one.about.generation.path else []
    beside = sorted(path for path in one.path.absolute().parent.iterdir() if path.is_dir())
    for place in [*named, *recorded, *beside]:
        try:
            if (found := _folder(one, place)) is not None and found.manifest.fingerprint == wanted:
                return found
            if is_artifact(place) and read_manifest(place, kinds=(GENERATION,)).fingerprint == wanted:
                return open_generation(place, PosesConfig())
        except HMError:
            continue
    said = f"{recorded[0]} is not there any more, or has changed" if recorded else "where it lies is not recorded"
    return f"the videos of {one.name} are not shown: {said} (--generation names it)"


def _folder(one: Evaluated, place: Path) -> Generated | None:
    """A plain folder of videos, read as it was read when it was scored; None where that was no such folder."""
    said = one.about.generation.recipe.get("folder")
    if said is None or not is_plain_folder(place):
        return None
    truth = Path(one.about.reference) if one.about.reference else None
    dataset = open_dataset(truth, PosesConfig()) if truth is not None and truth.is_dir() else None
    return open_foreign(place, dataset, EvalConfig(videos=said["videos"], resize=said["resize"]), PosesConfig())


def check_named(named: Sequence[Path], evaluations: Sequence[Evaluated]) -> None:
    """Raise UsageError for a generation that nothing here was scored from, DataError for what is none."""
    wanted = {one.manifest.inputs.get("generation") for one in evaluations}
    for path in named:
        if is_plain_folder(path):
            continue
        if read_manifest(path, kinds=(GENERATION,)).fingerprint not in wanted:
            what = "no evaluation here is of this generation"
            raise UsageError(what, where={"generation": path}, fix="leave it out, or evaluate it")


def find_data(evaluations: Sequence[Evaluated], named: Path | None) -> Dataset | str:
    """The clips with context and truth, or why they cannot be shown. A folder that was named must be usable."""
    if named is not None:
        return open_dataset(named, PosesConfig(), needs_captions=False)
    said = [(one.about.reference, one.manifest.inputs.get("reference", "")) for one in evaluations]
    said += [(one.about.generation.source, one.about.generation.source_fingerprint) for one in evaluations]
    for folder, fingerprint in dict.fromkeys(said):
        if not folder or not Path(folder).is_dir():
            continue
        try:
            dataset = open_dataset(Path(folder), PosesConfig(), needs_captions=False)
        except DataError:
            continue
        if dataset.fingerprint == fingerprint:
            return dataset
    folders = ", ".join(dict.fromkeys(folder for folder, _ in said if folder))
    why = f"{folders} is not there any more, or has changed" if folders else "no folder of clips is recorded"
    return f"truth, context and subjects are not shown: {why} (--reference names it)"
