r"""Which backbone knows subjects again at a given size of frames? Identity AUC on clips of families held out.

    hm render nano/test --clips 32 --out nano-held
    hm render mini/hydra --set world.hold_out=test --set world.scenes=[] --set world.subjects=[] --set seed=3100 \
      --clips 32 --out mini-held
    python benchmarks/identity.py nano-held mini-held                 # effnet-lite0, hog, and colours as a control
    python benchmarks/identity.py nano-held mini-held --record hmcli/metrics/backbones/identity.json

Crops are what a subject's mask covers, on grey, in a square a little larger than its box; some of the context and some
of the target, of subjects that are whole inside the picture and large enough to be seen. Pairs of the same subject are
a crop of the context with one of the target; different ones are of two families (docs/metrics.md, "Identity").
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hmcli.metrics.identity import RELIABLE, Crops, auc_interval, identity
from hmcli.recipe.sections import DataConfig, PosesConfig
from hmcli.registry import find
from hmcli.reports.tables import markdown_table
from hmcli.stages.data.loading import load_clip
from hmcli.stages.data.opening import ClipSource, open_dataset, own_file
from hmcli.store.files import read_json
from hmcli.world.files.layout import STATES
from hmcli.world.files.schema import parse_states

GREY = 127
PER_SIDE = 4  # crops of a subject in the context, and in the target
LEAST = 12  # pixels of height: smaller subjects are not asked about
MARGIN = 0.1  # of the box's longer side, around it


@dataclass(frozen=True, kw_only=True, eq=False)
class Portrait:
    """A subject on grey in a frame: (side, side, 3) uint8."""

    picture: np.ndarray
    subject: str
    family: str
    height: int  # of its box, in pixels


def portraits(video: np.ndarray, labels: np.ndarray, number: int, subject: str, family: str) -> list[Portrait]:
    """At most PER_SIDE crops of a subject, spread over the frames in which it is whole and large enough."""
    whole = [frame for frame, label in enumerate(labels) if _box(label == number) is not None]
    picked = [whole[place] for place in np.linspace(0, len(whole) - 1, min(PER_SIDE, len(whole))).round().astype(int)]
    found = []
    for frame in picked:
        box = _box(labels[frame] == number)
        assert box is not None
        picture = on_grey(video[frame], labels[frame] == number, box)
        found.append(Portrait(picture=picture, subject=subject, family=family, height=box[2] - box[0]))
    return found


def _box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """Top, left, bottom, right; None for a subject that the picture's edge cuts, or that is too small."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0 or rows[-1] + 1 - rows[0] < LEAST:
        return None
    if rows[0] == 0 or columns[0] == 0 or rows[-1] == mask.shape[0] - 1 or columns[-1] == mask.shape[1] - 1:
        return None
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def on_grey(frame: np.ndarray, mask: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The subject alone, in the middle of a grey square."""
    top, left, bottom, right = box
    side = round(max(bottom - top, right - left) * (1 + 2 * MARGIN))
    picture = np.full((side, side, 3), GREY, np.uint8)
    y, x = (side - (bottom - top)) // 2, (side - (right - left)) // 2
    inside = (slice(top, bottom), slice(left, right))
    picture[y : y + bottom - top, x : x + right - left][mask[inside]] = frame[inside][mask[inside]]
    return picture


def sides_of(source: ClipSource) -> Iterator[tuple[list[Portrait], list[Portrait]]]:
    """(crops before, crops after) of each subject of a clip that has both."""
    info = source.context_info
    clip = load_clip(source, DataConfig(size=(info.height, info.width)))
    if (file := own_file(source, STATES)) is None or clip.context_mask is None or clip.target_mask is None:
        raise SystemExit(f"{source.id} lacks {STATES} or masks: clips of `hm render` have them")
    assert clip.target is not None
    for state in parse_states(read_json(file)):
        who = (state.number, f"{source.id}/{state.name}", state.family)
        before, after = portraits(clip.context, clip.context_mask, *who), portraits(clip.target, clip.target_mask, *who)
        if before and after:
            yield before, after


def crops_of(every: Sequence[Portrait], backbone: Any) -> Crops:
    return Crops(
        features=np.concatenate([backbone(portrait.picture[None]) for portrait in every]),
        subjects=[portrait.subject for portrait in every], families=[portrait.family for portrait in every],
    )  # fmt: skip


def measure(folder: Path, backbones: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each backbone."""
    dataset = open_dataset(folder, PosesConfig())
    pairs = [pair for source in dataset.clips for pair in sides_of(source)]
    every = [[portrait for pair in pairs for portrait in pair[side]] for side in (0, 1)]
    info, rows = dataset.clips[0].context_info, []
    for name in backbones:
        backbone = find("backbone", name)("", "cpu")
        before, after = (crops_of(side, backbone) for side in every)
        found, (low, high) = identity(before, after), auc_interval(before, after, seed=0)
        rows.append({
            "backbone": name, "size": f"{info.height}x{info.width}", "auc": round(found.auc, 4),
            "interval": [round(low, 4), round(high, 4)], "nearest": round(found.nearest, 4), "subjects": len(pairs),
            "families": len(set(before.families)), "crops": len(every[0]) + len(every[1]),
            "height": float(np.median([portrait.height for side in every for portrait in side])),
            "clips": dataset.fingerprint, "weights": backbone.about["weights"],
        })  # fmt: skip
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    head = [
        "frames",
        "backbone",
        "identity AUC",
        "95 %",
        "nearest is right",
        "subjects (families)",
        "crops",
        "height, px",
        "",
    ]
    return markdown_table(head, [
        [
            row["size"], row["backbone"], f"{row['auc']:.3f}", "{:.3f} to {:.3f}".format(*row["interval"]),
            f"{row['nearest']:.2f}", f"{row['subjects']} ({row['families']})", f"{row['crops']}",
            f"{row['height']:.0f}", "" if row["auc"] >= RELIABLE else "unreliable",
        ]
        for row in rows
    ])  # fmt: skip


def keep(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Write what was measured into the record; other backbones and sizes in it stay."""
    record = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for row in rows:
        rest = {key: value for key, value in row.items() if key not in ("backbone", "size")}
        record.setdefault(row["backbone"], {})[row["size"]] = rest
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="folders of clips of `hm render`")
    parser.add_argument("--backbones", default="effnet-lite0,hog,colours", help="names, with commas between them")
    parser.add_argument("--record", type=Path, metavar="JSON", help="write what was measured into this file")
    return parser


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    given = options().parse_args(arguments)
    rows = [row for folder in given.data for row in measure(folder, given.backbones.split(","))]
    print(table(rows))
    if given.record:
        keep(rows, given.record)
    return rows


if __name__ == "__main__":
    main()
