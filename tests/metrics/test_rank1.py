"""Who comes back: rank-1 on hand-made clips in which a subject is recoloured, swapped or somebody else."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hand_made import BACK, FPS, H, Path, T, W, box, cameras, moved, seen, subject, tracks, walk

from hmcli.metrics.backbones.colours import Colours
from hmcli.metrics.contract import Detection, NothingToJudge, SubjectTrack
from hmcli.metrics.distractors import PICTURES, PICTURES_ARE, features_of_others, pictures
from hmcli.metrics.dsc import GREY
from hmcli.metrics.rank1 import AT_MOST, alone, identity_rank1

RED, BLUE, GREEN = (220, 30, 30), (30, 30, 220), (30, 220, 30)
Painted = tuple[Path, tuple[int, int, int]]


def place(at: tuple[float, float]) -> tuple[slice, slice]:
    left, top, right, bottom = (round(side) for side in box(*at))
    return slice(top, bottom), slice(left, right)


def video(*painted: Painted) -> np.ndarray:
    """Squares on paths, on a green ground, from when subjects are back."""
    frames = np.full((T, H, W, 3), GREEN, np.uint8)
    for path, colour in painted:
        for t in range(BACK, T):
            if (at := path(t)) is not None:
                frames[t][place(at)] = colour
    return frames


def labels(*paths: Path) -> np.ndarray:
    found = np.zeros((T, H, W), np.uint8)
    for number, path in enumerate(paths, 1):
        for t in range(BACK, T):
            if (at := path(t)) is not None:
                found[t][place(at)] = number
    return found


def masked(*paths: Path) -> list[list[Detection]]:
    """Detections with masks."""
    covered = [labels(path) > 0 for path in paths]
    return [
        [
            Detection(box_4=one.box_4, score=one.score, mask_HW=covered[number][t])
            for number, one in enumerate(frame)
        ]
        for t, frame in enumerate(seen(*paths))
    ]  # fmt: skip


def rank1(prediction: np.ndarray, detections: Any, truth: tuple[Painted, ...], *who: SubjectTrack) -> list[float]:
    paths = [path for path, _ in truth]
    given = {"tracks": tracks(*who or [subject(0)]), "cameras": cameras(), "masks": labels(*paths)}
    return list(
        identity_rank1(
            prediction=prediction, reference=video(*truth), detections=detections, backbone=Colours(), **given
        ).values()
    )


def test_the_same_one_is_right_and_a_recoloured_one_is_somebody_else():
    truth: tuple[Painted, ...] = ((walk, RED),)
    assert rank1(video((walk, RED)), masked(walk), truth) == [1.0]
    assert rank1(video((walk, BLUE)), masked(walk), truth) == [0.0]


def test_who_is_who_does_not_depend_on_where_it_stands():
    elsewhere = moved(1.5)
    assert rank1(video((elsewhere, RED)), masked(elsewhere), ((walk, RED),)) == [1.0]


def test_two_who_have_changed_places_are_both_wrong():
    other = moved(3.0)
    truth: tuple[Painted, ...] = ((walk, RED), (other, BLUE))
    who = subject(0), subject(1, other)
    assert rank1(video(*truth), masked(walk, other), truth, *who) == [1.0, 1.0]
    # three body lengths apart: place outweighs looks
    swapped: tuple[Painted, ...] = ((walk, BLUE), (other, RED))
    assert rank1(video(*swapped), masked(walk, other), truth, *who) == [0.0, 0.0]


def test_the_share_of_frames_is_told_and_of_a_few_frames_alone():
    half = video((walk, RED))
    judged = range(BACK, BACK + int(FPS))
    spread = [judged[round(place)] for place in np.linspace(0, len(judged) - 1, AT_MOST)]
    for t in spread[:2]:
        half[t] = video((walk, BLUE))[t]
    assert rank1(half, masked(walk), ((walk, RED),)) == [pytest.approx(1 - 2 / AT_MOST)]
    asked: list[int] = []

    class Counting(Colours):
        def __call__(self, frames: np.ndarray) -> np.ndarray:
            asked.append(len(frames))
            return super().__call__(frames)

    identity_rank1(
        prediction=half, reference=video((walk, RED)), detections=masked(walk), backbone=Counting(),
        tracks=tracks(subject(0)), cameras=cameras(), masks=labels(walk),
    )  # fmt: skip
    assert len(asked) == 2 * AT_MOST + len(pictures())  # nobody of the clip's family, fox, is among the pictures


def test_more_frames_of_somebody_else_are_never_better():
    right, wrong, found = video((walk, RED)), video((walk, BLUE)), []
    for last in range(BACK, BACK + int(FPS) + 1):
        mixed = right.copy()
        mixed[BACK:last] = wrong[BACK:last]
        found += rank1(mixed, masked(walk), ((walk, RED),))
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (1, 0)


def test_who_looks_more_like_somebody_else_is_not_right_however_alike():
    somebody = pictures()["king.0"]
    side = len(somebody)
    truth, taken = np.zeros((2, T, H, W, 3), np.uint8)
    mask = np.zeros((T, H, W), np.uint8)
    mask[BACK:, :side, :side] = 1
    taken[:, :side, :side] = truth[:, :side, :side] = somebody
    truth[:, : side // 5, :side] = RED
    detections = [[Detection(box_4=of.box_4, score=0.9, mask_HW=mask[-1] > 0) for of in frame] for frame in seen(walk)]
    given = {
        "reference": truth, "detections": detections, "tracks": tracks(subject(0)), "cameras": cameras(),
        "masks": mask, "backbone": Colours(),
    }  # fmt: skip
    both = [Colours()(video[:1, :side, :side])[0] for video in (truth, taken)]
    assert both[0] @ both[1] > 0.7
    assert [*identity_rank1(prediction=taken, **given).values()] == [0.0]
    assert [*identity_rank1(prediction=truth, **given).values()] == [1.0]


def test_without_masks_the_whole_box_is_looked_at():
    assert rank1(video((walk, RED)), seen(walk), ((walk, RED),)) == [1.0]
    assert rank1(video((walk, BLUE)), seen(walk), ((walk, RED),)) == [0.0]


def test_nobody_found_is_not_judged_nor_anybody_too_small():
    with pytest.raises(NothingToJudge):
        rank1(video(), [[] for _ in range(T)], ((walk, RED),))
    small = [
        [Detection(box_4=one.box_4, score=0.9, mask_HW=np.arange(H * W).reshape(H, W) // W == 32) for one in frame]
        for frame in seen(walk)
    ]
    with pytest.raises(NothingToJudge):
        rank1(video((walk, RED)), small, ((walk, RED),))


def test_a_crop_is_what_its_mask_covers_on_grey():
    frame = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
    mask = np.zeros((H, W), bool)
    mask[10:30, 50:56] = True
    mask[12, 56:60] = True
    picture = alone(frame, mask)
    assert picture is not None
    assert picture.shape == (20, 20, 3)
    np.testing.assert_array_equal(picture[:, 5:11], frame[10:30, 50:56])
    np.testing.assert_array_equal(picture[2, 11:15], frame[12, 56:60])
    rest = np.ones((20, 20), bool)
    rest[:, 5:11] = rest[2, 11:15] = False
    assert (picture[rest] == GREY).all()
    assert alone(frame, mask & (np.arange(H)[:, None] < 21)) is None


def test_the_packaged_pictures_are_those_of_the_definition():
    assert hashlib.sha256(PICTURES.read_bytes()).hexdigest().startswith(PICTURES_ARE.partition(":")[2])
    assert PICTURES_ARE in identity_rank1.definition
    families = {name.partition(".")[0] for name in pictures()}
    assert len(families) == 40
    assert all(
        picture.shape[0] == picture.shape[1] >= 12 and picture.dtype == np.uint8 for picture in pictures().values()
    )
    some = features_of_others(Colours(), {"dog", "king"})
    assert len(some) == sum(name.partition(".")[0] not in ("dog", "king") for name in pictures()) < len(pictures())


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match="masks of shape"):
        identity_rank1(
            prediction=video(), reference=video(), detections=seen(walk), tracks=tracks(subject(0)), cameras=cameras(),
            masks=labels(walk)[1:], backbone=Colours(),
        )  # fmt: skip
