"""How well a segmenter finds subjects in clips it has not seen, and how often it finds one where there is none.

    python benchmarks/segmenter.py DATA... [--detector segmenter] [--path PATH] [--erased]

For every data set of `hm render`: overlap, recall by size of the subject, precision, and the share of frames without a
subject in which one is found: of the clips' own such frames, and with --erased of the targets drawn again without
subjects. One line of JSON each. Frames are those of the files, compressed once.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hmcli.errors import DataError
from hmcli.metrics.contract import Detector
from hmcli.metrics.detectors.quality import SIZES, Tally, tally
from hmcli.recipe.sections import PosesConfig
from hmcli.registry import find
from hmcli.stages.bench.redrawing import origin_of, redraw
from hmcli.stages.data.opening import Dataset, open_dataset
from hmcli.store.video import read_video
from hmcli.world.staging.variants import target_alone, without_subjects


def measured(detector: Detector, dataset: Dataset, *, erased: bool) -> dict[str, object]:
    """What the card says of one data set."""
    counted, alarms, again = Tally(), Tally(), 0
    origin = origin_of(dataset) if erased else None
    for clip in dataset.clips:
        for role in ("context", "target"):
            labels = read_video(clip.read(f"{role}_instances"))[..., 0]
            tally(detector(read_video(clip.read(role))), labels, counted)
        if origin is not None:
            video = read_video(clip.read("target"))
            try:
                empty = redraw(origin, clip, video).otherwise(video, lambda of: target_alone(without_subjects(of)))
            except DataError as error:
                print(f"{clip.id} is not drawn again: {error}")
                continue
            again += 1
            tally(detector(empty), labels * 0, alarms)
    sizes = {f"{low} pixels and more": (round(share, 3), int(count))
             for low, share, count in zip(SIZES, counted.by_size, counted.subjects, strict=True)}  # fmt: skip
    found: dict[str, object] = {
        "data": str(dataset.path), "clips": len(dataset.clips), "frames": counted.frames, "iou": round(counted.iou, 3),
        "recall": round(counted.recall, 3), "recall by size, and how many": sizes,
        "precision": round(counted.precision, 3), "frames without a subject": counted.empty,
        "false alarms in them": round(counted.false_alarms, 3),
    }  # fmt: skip
    if erased:
        found |= {"erased clips": again, "false alarms in erased frames": round(alarms.false_alarms, 3)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--detector", default="segmenter")
    parser.add_argument("--path", default="")
    parser.add_argument("--erased", action="store_true")
    asked = parser.parse_args()
    detector: Detector = find("detector", asked.detector)(asked.path, "cpu")
    for path in asked.data:
        print(json.dumps(measured(detector, open_dataset(path, PosesConfig()), erased=asked.erased)), flush=True)


if __name__ == "__main__":
    main()
