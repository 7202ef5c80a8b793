"""Listing the benchmarks, and the protocol card of one: everything that is fixed, on one page."""

from __future__ import annotations

from hmcli.contracts import Description
from hmcli.registry import find
from hmcli.reports.tables import markdown_table, score_text
from hmcli.stages.bench.definition import RETIRED, Benchmark, benchmark_names, find_benchmark
from hmcli.world.staging.choices import choices

_DRAFT = "A draft: it is not frozen, its clips may still change, and no scores are published on it.\n"


def names() -> Description:
    """The packaged benchmarks, a line each."""
    found = {name: find_benchmark(name) for name in benchmark_names()}
    lines = [
        f"{name}: " + ", ".join(f"{split.count} {key}" for key, split in one.splits.items()) + f" clips{_state(one)}"
        for name, one in found.items()
    ]
    data = {name: None if one.is_draft else one.fingerprint for name, one in found.items()}
    return Description(text="\n".join(lines), data=data)


def _state(one: Benchmark) -> str:
    if one.is_draft:
        return "; a draft, not frozen"
    return "; retired" if one.name in RETIRED else ""


def card(name: str) -> Description:
    """The protocol card of a benchmark, in Markdown."""
    frozen = find_benchmark(name)
    parts = [f"# {frozen.name}: protocol card\n", *[_DRAFT] * frozen.is_draft]
    parts += [_splits(frozen), "\n## Rules\n", _rules(frozen)]
    if not frozen.is_draft:
        parts += ["\n## Scores without a model\n", _baselines(frozen), "\n## The same clips\n", _tolerances(frozen)]
    data = {
        "name": frozen.name, "draft": frozen.is_draft, "fingerprint": None if frozen.is_draft else frozen.fingerprint,
        "frozen_by": dict(frozen.frozen_by),
        "splits": {
            key: {"seed": split.seed, "world": dict(split.world), "baselines": split.baselines,
                  "clips": [clip.id for clip in split.clips]}
            for key, split in frozen.splits.items()
        },
    }  # fmt: skip
    return Description(text="\n".join(parts).rstrip(), data=data)


def _splits(frozen: Benchmark) -> str:
    header = ["split", "clips", "seed", "frames", "frames per second", "field of view", "subjects"]
    rows = []
    for name, split in frozen.splits.items():
        world = split.recipe.world
        counts = sorted({len(clip.subjects) for clip in split.clips} or choices(world).counts)
        rows.append([
            name, str(split.count), str(split.seed), f"{world.context_frames} + {world.target_frames}",
            str(world.fps), f"{world.field_of_view:g} degrees", ", ".join(map(str, counts)),
        ])  # fmt: skip
    return markdown_table(header, rows)


def _rules(frozen: Benchmark) -> str:
    rows = [
        ["given", "context frames, all cameras, intrinsics, the caption; nothing else of the clip's annotations"],
        ["predicted", "all target frames, at the size of the clips (each size is a benchmark of its own)"],
        ["seed of sampling", "one for all clips, stated; one sample per clip, none is chosen"],
        ["training", frozen.training],
        *[[f"held-out {what}", ", ".join(names)] for what, names in frozen.held_out.items()],
        ["metrics", f"{', '.join(frozen.required_metrics)} are required; any other may be added, with its backbone"],
        *[[f"weights of {name}", weights] for name, weights in frozen.judges.items()],
        ["a clip's score", "mean over its frames, or stretches, that are judged"],
        ["a split's score", "mean over its clips; overall: mean of the splits"],
        ["intervals", "95 %, percentile bootstrap over clips, 2000 draws, seeded"],
        ["a clip without a score", "is in no mean; the result is incomplete and not comparable with complete ones"],
        ["better", "two results differ when the interval of each leaves out the other's mean; else it is a tie"],
    ]
    return markdown_table(["", ""], rows)


def _baselines(frozen: Benchmark) -> str:
    header = ["video", "split", *frozen.required_metrics]
    rows = [
        [name, f"{key} at {split.size[0]}x{split.size[1]}",
         *(score_text(values[metric], _unit(metric)) for metric in frozen.required_metrics)]
        for key, split in frozen.splits.items()
        for name, values in split.baselines.items()
    ]  # fmt: skip
    return markdown_table(header, rows)


def _unit(label: str) -> str:
    unit: str = find("metric", label.partition(" ")[0]).unit
    return unit


def _tolerances(frozen: Benchmark) -> str:
    allowed = frozen.tolerances
    rounded = f"equal after rounding to {allowed.step:g} (metres, parts of a rotation, strides)"
    all_but = f"equal, but for {allowed.event_frames} frame beside each exit and entry"
    rows = [
        ["poses and tracks", rounded, "equal"],
        ["hidden subjects", all_but, f"certified stretches, within {allowed.other_event_frames} frames"],
        ["parts of a picture", f"{allowed.thumbnail_levels:g} levels of 255", f"{allowed.other_thumbnail_levels:g}"],
        ["mean of a frame", f"{allowed.frame_levels:g} levels of 255", f"{allowed.other_frame_levels:g}"],
        ["caption", "equal", "equal"],
    ]
    by = frozen.frozen_by
    what = f"Frozen by hm {by['hmcli']}; fingerprint {frozen.fingerprint}\n\n"
    return what + markdown_table(["", "at the size it was frozen at", "at another size"], rows)
