"""How often a verdict is the right word: on the truth, and on clips damaged by hand, whose answer is known.

    python benchmarks/verdicts.py DATA... [--clips N] [--backbone effnet-lite0] [--detector segmenter] [--sheet FILE]

For every data set of `hm render`: each certified stretch after which its subject is back, in the truth and with every
damage of hmcli.stages.bench.damage, written as a generation writes its videos. A damage counts where it shows: in SHOWN
of the judged frames enough of the damaged subject is seen, and one that should be elsewhere is APART from its true
place. One line of JSON each; --sheet draws strips, truth above each damage.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hmcli.metrics.contract import Backbone, Detection, Stretch, Tracks
from hmcli.metrics.evidence import AT
from hmcli.metrics.regions import until
from hmcli.metrics.tracks import body_pixels, found_tracks
from hmcli.metrics.verdicts import clip_verdicts
from hmcli.recipe.sections import DataConfig, PosesConfig
from hmcli.registry import find
from hmcli.stages.bench.damage import KINDS, Damaged, Returning, damaged
from hmcli.stages.bench.redrawing import origin_of
from hmcli.stages.bench.row_clip import RowClip, depth_hash
from hmcli.stages.data import pieces
from hmcli.stages.data.opening import Dataset, open_dataset, own_file
from hmcli.stages.data.subjects import subject_tracks
from hmcli.store.files import read_json
from hmcli.store.video import read_video, write_video
from hmcli.world.files.layout import STATES
from hmcli.world.files.schema import parse_states

SHOWN = 0.7  # share of the judged frames in which the damaged subject must be seen ...
PIXELS = 48  # ... with so many pixels
APART = 0.75  # body lengths from the true place, where the damage is to be elsewhere
ELSEWHERE = ("frozen", "misplaced", "delayed")
WORTHLESS = "not judged"  # what the detector does not see in the truth


@dataclass
class Found:
    """Verdicts on what should have got `wanted`."""

    wanted: str
    said: Counter[str] = field(default_factory=Counter)
    unseen: int = 0  # the damage does not show

    def to_json(self) -> dict[str, object]:
        judged = self.said.total() - self.said[WORTHLESS]
        share = round(self.said[self.wanted] / judged, 3) if judged else None
        return {"wanted": self.wanted, "share": share, "said": dict(self.said), "does not show": self.unseen}


@dataclass
class Judge:
    """One detector and one backbone, for all clips."""

    detector: Callable[[np.ndarray], list[list[Detection]]]
    backbone: Backbone
    found: dict[str, Found] = field(
        default_factory=lambda: {"truth": Found("right")} | {name: Found(of.verdict) for name, of in KINDS.items()}
    )

    def clip(self, clip: RowClip, rng: np.random.Generator) -> Iterator[tuple[str, str, np.ndarray]]:
        """Judge a clip in every way; yields what was done, the verdict, and the video."""
        data = DataConfig(size=clip.target.shape[1:3])
        file = own_file(clip.source, STATES)
        assert file is not None
        tracks = subject_tracks(clip.source, parse_states(read_json(file)), data)
        cameras, seen = pieces.clip_cameras(clip.source, data), self.detector(clip.target)
        true = found_tracks(seen, tracks, cameras)

        def said(video: np.ndarray, stretch: Stretch) -> str:
            found = clip_verdicts(
                prediction=video, reference=clip.target, tracks=tracks, cameras=cameras,
                detections=self.detector(video), true_detections=seen, unsure=self.detector.unsure,
                backbone=self.backbone,
            )  # fmt: skip
            return found.get(stretch, WORTHLESS)

        for stretch in [one for one in tracks.certified if one.back is not None]:
            of = true.subjects[stretch.subject]
            back = np.zeros(len(clip.target), bool)
            back[stretch.back : until(stretch, tracks)] = True
            judged = np.flatnonzero(back & of.clear_T & of.within(AT))
            if len(judged) < 3:
                self.found["truth"].said[WORTHLESS] += 1
                continue
            for kind in self.found:
                video, shows = clip.target, True
                if kind != "truth":
                    assert clip.redrawn is not None
                    whom = Returning(number=of.subject.number, back=stretch.back, left=stretch.first - 1)
                    broken = damaged(clip.redrawn, clip.target, whom, kind, rng)
                    video, shows = broken.video, self.shows(kind, broken, clip, stretch, tracks, cameras, judged)
                if not shows:
                    self.found[kind].unseen += 1
                    continue
                video = written(video, clip.fps)
                verdict = said(video, stretch)
                self.found[kind].said[verdict] += 1
                yield kind, verdict, video[judged]

    @staticmethod
    def shows(kind, broken: Damaged, clip: RowClip, stretch: Stretch, tracks: Tracks, cameras, judged) -> bool:
        """Can the damage be seen in the judged frames?"""
        if kind == "vanished":
            return True
        subject = tracks.subjects[stretch.subject]
        enough = [t for t in judged if broken.own_THW[t].sum() >= PIXELS]
        if len(enough) < SHOWN * len(judged):
            return False
        body_T2, own = body_pixels(subject, tracks, cameras), clip.target_labels == subject.number
        apart = [np.linalg.norm((middle(broken.own_THW[t]) - middle(own[t])) / body_T2[t]) for t in enough]
        return kind not in ELSEWHERE or float(np.median(apart)) >= APART


def middle(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()])


def written(video: np.ndarray, fps: float) -> np.ndarray:
    """As it comes back from a generation's file."""
    with tempfile.TemporaryDirectory() as folder:
        write_video(Path(folder) / "video.mp4", video, fps=fps)
        return read_video(Path(folder) / "video.mp4")


def measured(judge: Judge, dataset: Dataset, clips: int, sheet: Path | None) -> None:
    origin, rows = origin_of(dataset), []
    for number, source in enumerate(dataset.clips[:clips]):
        clip = RowClip(source=source, depth_hash=depth_hash(source), origin=origin)
        if clip.redrawn is None:
            print(f"{source.id} is not drawn again: {clip.why_not_redrawn}", flush=True)
            continue
        for kind, verdict, video in judge.clip(clip, np.random.default_rng(number)):
            wanted = judge.found[kind].wanted
            if verdict != wanted:
                print(f"{source.id}: {kind} is said to be {verdict}", flush=True)
            picks = video[np.linspace(0, len(video) - 1, 6).astype(int)]
            rows.append(np.concatenate(list(picks), axis=1))
    if sheet is not None:
        from PIL import Image

        Image.fromarray(np.concatenate(rows)).save(sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--backbone", default="effnet-lite0")
    parser.add_argument("--detector", default="segmenter")
    parser.add_argument("--sheet", type=Path)
    asked = parser.parse_args()
    for path in asked.data:
        judge = Judge(find("detector", asked.detector)("", "cpu"), find("backbone", asked.backbone)("", "cpu"))
        measured(judge, open_dataset(path, PosesConfig()), asked.clips, asked.sheet)
        by_hand = [of for name, of in judge.found.items() if name != "truth"]
        right = sum(of.said[of.wanted] for of in by_hand)
        judged = sum(of.said.total() - of.said[WORTHLESS] for of in by_hand)
        found = {name: of.to_json() for name, of in judge.found.items()}
        print(json.dumps({"data": str(path), "damages right": round(right / max(judged, 1), 3), **found}), flush=True)


if __name__ == "__main__":
    main()
