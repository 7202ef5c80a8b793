"""Verdicts: each kind of damage, made by hand with a known answer, gets the word for it, and the truth is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import hand_made as hand
import numpy as np
import pytest
from hand_made import BACK, BODY, H, Path, T, W, box, moved, seen, subject, walk

from hmcli import registry
from hmcli.metrics.backbones.colours import Colours
from hmcli.metrics.contract import Detection, NothingToJudge, Stretch, Tracks
from hmcli.metrics.evidence import Evidence, Unsure
from hmcli.metrics.verdicts import VERDICTS, clip_verdicts, verdict

RED, BLUE = (200, 40, 30), (20, 60, 220)
LEFT = (20.0, 32.0)  # where the subject was last seen


def held(t: int) -> tuple[float, float] | None:
    """The walk, seen every fourth frame only."""
    return walk(t - (t - BACK) % 4)


def stands(t: int) -> tuple[float, float]:
    return LEFT


def returns_and_stands(t: int) -> tuple[float, float]:
    return walk(BACK)


def shaken(t: int) -> tuple[float, float]:
    x, y = walk(t)
    return x + (4 if t % 2 else -4), y


def video(*paths: Path, colour: Sequence[int] = RED) -> np.ndarray:
    """Grey, with a square of a colour on each path from BACK on."""
    frames = np.full((T, H, W, 3), 120, np.uint8)
    for t in range(BACK, T):
        for path in paths:
            if (at := path(t)) is not None:
                left, top, right, bottom = box(*at).round().astype(int)
                frames[t, max(top, 0) : bottom, max(left, 0) : right] = colour
    return frames


def nothing(frames: np.ndarray) -> list[list[Detection]]:
    """A detector that is always sure."""
    return [[] for _ in frames]


def judged(
    prediction: np.ndarray,
    detections: list[list[Detection]],
    of: Tracks | None = None,
    truth: list[list[Detection]] | None = None,
    unsure: Unsure = nothing,
) -> dict[Stretch, str]:
    return clip_verdicts(
        prediction, video(walk), of or hand.tracks(subject(0)), hand.cameras(), detections,
        seen(walk) if truth is None else truth, unsure, Colours(),
    )  # fmt: skip


CASES: dict[str, tuple[str, tuple[Path, ...]]] = {
    "the truth": ("right", (walk,)),
    "a tenth of a body off": ("right", (moved(0.1),)),
    "nobody": ("vanished", ()),
    "somebody at the other end of the picture": ("vanished", (moved(2.6),)),
    "where it left": ("frozen", (stands,)),
    "it stops where it comes back": ("frozen", (returns_and_stands,)),
    "aside": ("misplaced", (moved(1.2),)),
    "held and jumping": ("stuttering", (held,)),
    "shaken": ("stuttering", (shaken,)),
    "twice": ("duplicated", (walk, moved(2.0))),
}


@pytest.mark.parametrize(("says", "paths"), CASES.values(), ids=CASES)
def test_each_damage_gets_its_verdict(says: str, paths: tuple[Path, ...]):
    (found,) = judged(video(*paths), seen(*paths)).values()
    assert found == says


def test_who_looks_otherwise_in_its_place_is_distorted():
    (found,) = judged(video(walk, colour=BLUE), seen(walk)).values()
    assert found == "distorted"


def test_a_speck_beside_it_is_no_second_one():
    specks = seen(moved(2.0), size=BODY / 4)
    both = [[*one, *speck] for one, speck in zip(seen(walk), specks, strict=True)]
    (found,) = judged(video(walk), both).values()
    assert found == "right"


def test_likeness_is_of_what_masks_show():
    painted = video(walk)
    painted[:, 32:][(painted[:, 32:] == RED).all(-1)] = BLUE  # what its lower half hides
    upper = np.zeros((H, W), bool)
    upper[:32] = True
    masked = [[replace(one, mask_HW=upper & _inside(one)) for one in frame] for frame in seen(walk)]
    (found,) = judged(painted, masked, truth=masked).values()
    assert found == "right"
    (found,) = judged(painted, seen(walk)).values()
    assert found == "distorted"


def _inside(one: Detection) -> np.ndarray:
    """(H, W) bool: the pixels of its box."""
    left, top, right, bottom = one.box_4.round().astype(int)
    mask = np.zeros((H, W), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_a_body_of_another_shape_at_another_place_is_misplaced_first():
    (found,) = judged(video(moved(1.2), colour=BLUE), seen(moved(1.2))).values()
    assert found == "misplaced"


def test_what_the_detector_finds_in_the_truth_too_and_is_no_subject_is_nobody():
    thing: Path = lambda t: (100.0, 40.0)  # noqa: E731
    truth = seen(walk, thing)
    (found,) = judged(video(walk), seen(walk, thing), truth=truth).values()
    assert found == "right"
    (found,) = judged(video(), seen(thing), truth=truth).values()
    assert found == "vanished"
    (found,) = judged(video(walk), seen(walk, thing), truth=seen(walk)).values()
    assert found == "duplicated"


def test_where_the_detector_is_not_sure_somebody_is_broken_and_not_gone():
    def faint(apart: float) -> Unsure:
        """Something half as wide as the subject, so far from its place."""
        return lambda frames: [[Detection(box_4=box(*_middle(frame, apart), BODY / 2), score=0.6)] for frame in frames]

    red = video(walk)  # what is there; nobody is found
    for apart, says in ((0.0, "distorted"), (1.0, "vanished")):
        (found,) = judged(red, seen(), unsure=faint(apart)).values()
        assert found == says


def _middle(frame: np.ndarray, apart: float) -> tuple[float, float]:
    """Of what is painted into a frame, body lengths to the right."""
    _, columns = np.nonzero((frame != 120).any(-1))
    return float(columns.mean()) + 0.5 + apart * BODY, 32.0


def test_a_subject_that_the_detector_misses_in_the_truth_is_not_judged():
    with pytest.raises(NothingToJudge, match="does not see the subject"):
        judged(video(walk), seen(walk), truth=seen())
    late: Path = lambda t: walk(t) if t >= T - 2 else None  # noqa: E731
    with pytest.raises(NothingToJudge, match="does not see the subject"):
        judged(video(walk), seen(walk), truth=seen(late))


def test_only_certified_stretches_after_which_it_is_back_have_a_verdict():
    for of in (subject(0, certified=False), subject(0, back=None)):
        with pytest.raises(NothingToJudge, match="no subject comes back"):
            judged(video(walk), seen(walk), of=hand.tracks(of))


def test_two_subjects_have_a_verdict_each():
    high: Path = lambda t: (40 + 1.5 * t, 14.0)  # noqa: E731
    low: Path = lambda t: (60 + 1.5 * t, 50.0)  # noqa: E731
    two = hand.tracks(subject(0, high, last_seen=(10.0, 14.0)), subject(1, low, last_seen=(10.0, 50.0)))
    found = clip_verdicts(
        video(high), video(high, low), two, hand.cameras(), seen(high), seen(high, low), nothing, Colours()
    )  # fmt: skip
    assert {stretch.name: of for stretch, of in found.items()} == {"s0": "right", "s1": "vanished"}


TRUTH = Evidence(
    frames=10, found=1.0, traced=0.0, in_place=1.0, doubled=0.0, off=0.0, from_still=1.5, progress=1.0,
    jerk=0.02, shaking=0.0, alike=0.98,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "right"),
        ({"found": 0.49, "doubled": 1.0}, "vanished"),
        ({"found": 0.3, "traced": 0.2}, "distorted"),
        ({"doubled": 0.21, "progress": 0.0}, "duplicated"),
        ({"progress": 0.34}, "frozen"),
        ({"progress": float("nan"), "from_still": 0.3, "off": 0.9, "in_place": 0.0}, "frozen"),
        (
            {"progress": 0.9, "from_still": 0.3, "off": 0.9, "in_place": 0.0},
            "misplaced",
        ),  # it is there by chance, and walks
        ({"progress": float("nan"), "from_still": 0.3, "off": 0.2}, "right"),  # nearer to its true place
        ({"in_place": 0.49, "alike": 0.2}, "misplaced"),
        ({"alike": 0.7, "jerk": 0.5}, "distorted"),
        ({"alike": 0.82, "jerk": 0.5}, "stuttering"),
        ({"alike": 0.82}, "distorted"),
        ({"shaking": 0.3}, "stuttering"),
        ({"jerk": float("nan"), "shaking": float("nan")}, "right"),  # too short to say
    ],
)
def test_the_first_verdict_that_applies_counts(changes: dict[str, float], says: str):
    assert verdict(replace(TRUTH, **changes)) == says


def test_verdicts_are_metrics_whose_shares_sum_to_one():
    detector_and_truth = {
        "prediction": video(stands), "reference": video(walk), "tracks": hand.tracks(subject(0)),
        "cameras": hand.cameras(), "detections": seen(stands), "true_detections": seen(walk), "unsure": nothing,
        "backbone": Colours(),
    }  # fmt: skip
    metrics = [registry.find("metric", f"verdict-{name}") for name in VERDICTS]
    values = {metric.name: metric(**detector_and_truth) for metric in metrics}
    assert {name: list(of.values()) for name, of in values.items() if list(of.values()) != [0.0]} == {
        "verdict-frozen": [1.0]
    }
    assert [metric.better for metric in metrics] == ["higher", *("lower",) * 6]
    assert {metric.shared for metric in metrics} == {clip_verdicts}


def test_other_lengths_are_refused():
    with pytest.raises(ValueError, match="others"):
        judged(video(walk), seen(walk)[:-1])
