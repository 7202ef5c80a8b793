"""`hm bench verify`: are these the benchmark's clips? Names every clip that is missing, foreign or different."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hmcli.contracts import Description, Quarantined, Reporter
from hmcli.errors import DataError, UsageError
from hmcli.recipe.sections import PosesConfig
from hmcli.stages.bench.definition import (
    Benchmark,
    FrozenClip,
    FrozenSplit,
    find_benchmark,
    refuse_draft,
    refuse_retired,
)
from hmcli.stages.bench.prints import (
    ClipValues,
    differences,
    poses_hash,
    print_of,
    tracks_hash,
    value_differences,
    values_described,
    values_on_disk,
)
from hmcli.stages.data.opening import ClipSource, Dataset, open_dataset
from hmcli.world.staging.clip import describe_clip

_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """What of one split a folder of clips holds. `size` is the pictures' height and width."""

    split: str
    path: Path
    fingerprint: str
    size: tuple[int, int]
    agree: tuple[str, ...]
    missing: tuple[str, ...]
    differ: Mapping[str, str] = field(default_factory=dict)  # clip -> what is different


def run(paths: Sequence[Path], *, benchmark: str, reporter: Reporter) -> Description:
    """Compare folders of clips with a benchmark; see `hm bench verify --help`."""
    frozen = find_benchmark(benchmark)
    reports: list[SplitReport] = []
    foreign: list[Quarantined] = []
    for path in paths:
        dataset = open_dataset(path, PosesConfig())
        reports += verify_dataset(frozen, dataset, reporter)
        foreign += [
            Quarantined(item=clip.id, reason=f"no clip of {frozen.name}")
            for clip in dataset.clips
            if frozen.split_of(clip.id) is None
        ]
    refuse_twice(reports)
    lines = [line for report in reports for line in _lines(frozen, report)]
    lines += [f"{item.item}: {item.reason}" for item in foreign[:_SHOWN]]
    troubled = [
        *(Quarantined(item=clip, reason=why) for report in reports for clip, why in report.differ.items()),
        *(Quarantined(item=clip, reason="missing") for report in reports for clip in report.missing),
        *foreign,
    ]
    return Description(text="\n".join(lines), data=_data(frozen, reports, troubled), quarantined=tuple(troubled))


def verify_dataset(frozen: Benchmark, dataset: Dataset, reporter: Reporter) -> list[SplitReport]:
    """A report for every split the folder has clips of. Raises DataError when it has none of any, UsageError when the
    benchmark is retired, or a draft."""
    refuse_retired(frozen)
    refuse_draft(frozen)
    found = {clip.id: clip for clip in dataset.clips}
    broken = {item.item: item.reason for item in dataset.quarantined}
    ids = {*found, *broken}
    splits = {name: split for name, split in frozen.splits.items() if ids & {clip.id for clip in split.clips}}
    if not splits:
        one = next(iter(frozen.splits.values())).clips[0].id
        raise DataError(
            f"no clip of this folder is of {frozen.name}",
            where={"data": dataset.path, "its first clip": min(ids), "a clip of the benchmark": one},
            fix=f"hm render bench/{frozen.name}-{next(iter(frozen.splits))}, which fixes the seed, too",
        )
    reports = []
    total = sum(clip.id in ids for split in splits.values() for clip in split.clips)
    with reporter.progress("verifying", total, "clip") as advance:
        for name, split in splits.items():
            differ, agree = {}, []
            for clip in split.clips:
                if clip.id not in ids:
                    continue
                source = found.get(clip.id)
                said = [broken[clip.id]] if source is None else clip_differences(frozen, split, clip, source)
                if said:
                    differ[clip.id] = "; ".join(said)
                else:
                    agree.append(clip.id)
                advance(1)
            missing = tuple(clip.id for clip in split.clips if clip.id not in ids)
            reports.append(
                SplitReport(
                    split=name, path=dataset.path, fingerprint=dataset.fingerprint, size=_size(dataset),
                    agree=tuple(agree), missing=missing, differ=differ,
                )
            )  # fmt: skip
    return reports


def refuse_twice(reports: Sequence[SplitReport]) -> None:
    """Raise UsageError when two folders hold clips of one split."""
    seen: dict[str, Path] = {}
    for report in reports:
        if report.split in seen:
            where = {"data": seen[report.split], "and": report.path}
            raise UsageError(f"two folders hold clips of the split {report.split}", where=where, fix="name one of them")
        seen[report.split] = report.path


def clip_differences(frozen: Benchmark, split: FrozenSplit, clip: FrozenClip, source: ClipSource) -> list[str]:
    """How a clip on disk differs from the frozen one; empty: it is the same."""
    step = frozen.tolerances.step
    info = source.context_info
    try:
        values = values_on_disk(source)
        found = print_of(source, values, step)
    except DataError as error:
        return [str(error)]
    said = differences(found, clip.print, frozen.tolerances, same_size=(info.height, info.width) == split.size)
    wrong = [
        what
        for what, one, other in (("poses", found.poses, clip.print.poses), ("tracks", found.tracks, clip.print.tracks))
        if one != other
    ]
    return [*_explained(wrong, frozen, split, clip, values), *said] if wrong else said


def describe_frozen(split: FrozenSplit, clip: FrozenClip) -> ClipValues:
    """Poses and tracks of a frozen clip as this version of hm describes it, without drawing it."""
    recipe = split.recipe
    return values_described(describe_clip(recipe.world, recipe.seed, clip.index, first_draw=clip.draw))


def _explained(
    wrong: Sequence[str], frozen: Benchmark, split: FrozenSplit, clip: FrozenClip, values: ClipValues
) -> list[str]:
    """What is behind hashes that differ, where this hm still describes the clip as it was frozen."""
    step = frozen.tolerances.step
    hashes = f"{' and '.join(wrong)} have another hash"
    try:
        true = describe_frozen(split, clip)
    except UsageError:
        return [f"{hashes} (this hm does not find the clip any more)"]
    if (poses_hash(true, step), tracks_hash(true, step)) != (clip.print.poses, clip.print.tracks):
        by = frozen.frozen_by["hmcli"]
        return [f"{hashes} (this hm describes the clip differently from hm {by}, which froze {frozen.name})"]
    return value_differences(values, true, step) or [hashes]


def _size(dataset: Dataset) -> tuple[int, int]:
    sizes = {(clip.context_info.height, clip.context_info.width) for clip in dataset.clips}
    if len(sizes) != 1:
        raise DataError("the clips differ in size", where={"data": dataset.path, "sizes": sorted(sizes)})
    return sizes.pop()


def _lines(frozen: Benchmark, report: SplitReport) -> list[str]:
    total = len(frozen.splits[report.split].clips)
    size = f"{report.size[0]}x{report.size[1]}"
    head = f"{frozen.name} {report.split} at {size}: {len(report.agree)} of {total} clips agree"
    counts = [f"{len(report.differ)} differ"] * bool(report.differ)
    counts += [f"{len(report.missing)} missing"] * bool(report.missing)
    lines = [", ".join([head, *counts])]
    return lines + [f"  {clip}: {why}" for clip, why in list(report.differ.items())[:_SHOWN]]


def _data(frozen: Benchmark, reports: Sequence[SplitReport], troubled: Sequence[Quarantined]) -> dict[str, object]:
    return {
        "benchmark": frozen.name,
        "fingerprint": frozen.fingerprint,
        "splits": {
            one.split: {
                "data": str(one.path), "size": list(one.size), "agree": list(one.agree), "differ": dict(one.differ),
                "missing": list(one.missing),
            }
            for one in reports
        },
        "troubled": [{"item": item.item, "reason": item.reason} for item in troubled],
    }  # fmt: skip
