"""SSIM and perceptual distances by region, against definitions restated pixel by pixel and place by place."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from random_lpips import write_random_lpips
from scipy.ndimage import correlate1d

from hmcli import registry
from hmcli.metrics.backbones.effnet import load_effnet
from hmcli.metrics.contract import Metric, NothingToJudge, Stretch, SubjectBoxes, SubjectTrack, Tracks
from hmcli.metrics.inside import filled_shares
from hmcli.metrics.lpips import load_lpips
from hmcli.metrics.perceptual import effnet_distances
from hmcli.metrics.pixel import similarity

T, H, W = 5, 40, 56
FOX, HEN = (10.4, 8, 30, 25.5), (33, 20, 52, 44)  # left, top, right, bottom; the hen reaches below the picture
REGIONS = ("visible", "hidden", "returned", "outside", "outside-returned")


def stretch(subject: int, first: int, last: int, *, certified: bool = True) -> Stretch:
    return Stretch(
        subject=subject, name=f"s{subject}", first=first, last=last, back=max(last - 3, 0), reason="left the frame",
        certified=certified, absent=False, hidden_seconds=0.2,
    )  # fmt: skip


def clip() -> tuple[SubjectBoxes, Tracks]:
    """Four context frames before the target; the fox is hidden in target frames 1 and 2, the hen is always there.

    A stretch of the hen that nobody certified is in target frame 3.
    """
    amodal = np.tile(np.array([FOX, HEN], float), (T, 1, 1))
    amodal[1:3, 0] = math.nan
    amodal[3, 1] = math.nan
    returned = np.zeros((T, 2), bool)
    returned[3:, 0] = True
    stretches = ((stretch(0, 5, 6),), (stretch(1, 7, 7, certified=False),))
    subjects = tuple(
        SubjectTrack(
            name=f"s{number}", number=number + 1, family="fox", body_length=1.0, position_A3=np.zeros((4 + T, 3)),
            visible_A=np.ones(4 + T), box_A4=np.full((4 + T, 4), np.nan), stretches=of,
        )
        for number, of in enumerate(stretches)
    )  # fmt: skip
    tracks = Tracks(subjects=subjects, context_N=np.arange(4), target_T=np.arange(4, 4 + T), fps=15.0)
    return SubjectBoxes(amodal_TS4=amodal, returned_TS=returned), tracks


def by_hand() -> dict[str, np.ndarray]:
    """(T, H, W) of each region of that clip."""
    fox, hen = np.zeros((H, W), bool), np.zeros((H, W), bool)
    fox[8:26, 10:30] = hen[20:40, 33:52] = True
    found = {name: np.zeros((T, H, W), bool) for name in REGIONS}
    found["visible"][0] = fox
    found["hidden"][1:3] = True
    found["returned"][3:] = fox
    for frame, boxes in enumerate((fox | hen, hen, hen, fox, fox | hen)):
        found["outside"][frame] = ~boxes
        if frame >= 3:
            found["outside-returned"][frame] = ~boxes
    return found


def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    true = rng.integers(0, 256, (T, H // 4, W // 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return np.clip(true + rng.normal(0, 40, true.shape), 0, 255).astype(np.uint8), true.astype(np.uint8)


def judged(name: str, made: np.ndarray, true: np.ndarray, **more: object) -> list[float | None]:
    boxes, tracks = clip()
    metric: Metric = registry.find("metric", name)
    found: list[float | None] = metric(prediction=made, reference=true, boxes=boxes, tracks=tracks, **more).tolist()
    return found


def close(values: list[float | None], wanted: list[float | None], rel: float = 1e-5) -> bool:
    return values == [None if value is None else pytest.approx(value, rel=rel) for value in wanted]


@pytest.mark.parametrize("region", REGIONS)
def test_ssim_is_the_mean_of_its_map_over_the_region(region: str):
    """Wang et al. 2004, windows at the edges of mirrored pixels."""
    made, true = pair()
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()

    def blur(image: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(image, taps, axis=0, mode="reflect"), taps, axis=1, mode="reflect")

    def index(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        mx, my = blur(x), blur(y)
        vx, vy, vxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        return ((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))

    wanted: list[float | None] = []
    for a, b, inside in zip(made.astype(float), true.astype(float), by_hand()[region], strict=True):
        channels = [index(a[..., c], b[..., c])[inside] for c in range(3)]
        wanted.append(float(np.mean(channels)) if inside.any() else None)
    assert close(judged(f"ssim-{region}", made, true), wanted)


@pytest.mark.parametrize("region", REGIONS)
def test_psnr_is_of_the_regions_pixels(region: str):
    made, true = pair()
    wanted: list[float | None] = []
    for a, b, inside in zip(made.astype(float), true.astype(float), by_hand()[region], strict=True):
        wanted.append(10 * math.log10(255**2 / np.mean((a[inside] - b[inside]) ** 2)) if inside.any() else None)
    assert close(judged(f"psnr-{region}", made, true), wanted)


def over_places(maps: list[np.ndarray], inside: np.ndarray) -> float:
    """Each place of a map (h, w) counts as often as pixels of its part of the frame are inside, by loops."""
    total = 0.0
    for of in maps:
        rows, columns = of.shape
        weights = np.zeros(of.shape)
        for r in range(rows):
            for c in range(columns):
                part = [
                    inside[y, x]
                    for y in range(H)
                    for x in range(W)
                    if (y + 1) * rows > r * H and y * rows < (r + 1) * H
                    and (x + 1) * columns > c * W and x * columns < (c + 1) * W
                ]  # fmt: skip
                weights[r, c] = np.mean(part)
        total += float((of * weights).sum() / weights.sum())
    return total


@pytest.mark.parametrize("region", ["returned", "outside-returned"])
def test_perceptual_distances_are_over_the_places_of_the_region(region: str, tmp_path):
    made, true = pair()
    network = load_effnet("cpu")
    wanted: list[float | None] = []
    with torch.inference_mode():
        for a, b, inside in zip(made, true, by_hand()[region], strict=True):
            if not inside.any():
                wanted.append(None)
                continue
            taps = (network.taps(torch.tensor(video)[None].permute(0, 3, 1, 2).float()) for video in (a, b))
            cosines = [torch.cosine_similarity(x.double(), y.double(), dim=1)[0] for x, y in zip(*taps, strict=True)]
            wanted.append(over_places([2 - 2 * cosine.numpy() for cosine in cosines], inside))
    assert close(judged(f"perceptual-effnet-{region}", made, true), wanted, rel=1e-4)
    lpips = load_lpips("alex", str(write_random_lpips(tmp_path, "alex")), "cpu")
    maps = lpips(made, true).maps
    wanted = [
        over_places([of[frame] for of in maps], inside) if inside.any() else None
        for frame, inside in enumerate(by_hand()[region])
    ]
    assert close(judged(f"lpips-{region}", made, true, lpips=lpips), wanted)


def test_a_region_of_whole_frames_has_the_distance_of_the_frames():
    made, true = pair()
    whole = effnet_distances(made, true).values_T.tolist()
    assert close(judged("perceptual-effnet-hidden", made, true), [None, whole[1], whole[2], None, None])
    mean = similarity(made, true).map_THW.mean(axis=(1, 2)).tolist()
    assert close(judged("ssim-hidden", made, true), [None, mean[1], mean[2], None, None])


@pytest.mark.parametrize("name", ["psnr", "ssim", "perceptual-effnet"])
def test_damage_counts_where_it_is(name: str):
    """SSIM and distances see a little beyond a region's edge, and most of it inside."""
    true = pair()[1]
    inside, beside = true.copy(), true.copy()
    inside[:, 12:22, 14:26] = 255 - inside[:, 12:22, 14:26]  # in the fox's box
    beside[:, 30:39, 2:12] = 255 - beside[:, 30:39, 2:12]  # in nobody's
    better = min if registry.find("metric", name).better == "lower" else max

    def mean(region: str, made: np.ndarray) -> float:
        return float(np.mean([value for value in judged(f"{name}-{region}", made, true) if value is not None]))

    for region, good, bad in (("returned", beside, inside), ("outside-returned", inside, beside)):
        values = mean(region, good), mean(region, bad)
        assert better(values) == values[0] != values[1]


def test_a_place_counts_by_how_much_of_its_part_of_the_frame_is_inside():
    inside = np.zeros((4, 6), bool)
    inside[1:3, 1:4] = True
    np.testing.assert_allclose(filled_shares(inside, 2, 3), [[0.25, 0.5, 0.0], [0.25, 0.5, 0.0]])
    np.testing.assert_array_equal(filled_shares(inside, 4, 6), inside)
    column = np.array([[True], [False], [False], [True], [True]])
    np.testing.assert_allclose(filled_shares(column, 2, 1), [[1 / 3], [2 / 3]])  # the third row is in both parts


@pytest.mark.parametrize("region", REGIONS)
def test_an_empty_region_is_nothing_to_judge_and_frames_that_do_not_pair_are_refused(region: str):
    made, true = pair()
    boxes, tracks = clip()
    metric = registry.find("metric", f"ssim-{region}")
    nobody = replace(tracks, subjects=tuple(replace(one, stretches=()) for one in tracks.subjects))
    amodal = np.tile(np.array([(-1.0, -1, W + 1, H + 1)]), (T, 2, 1))
    everywhere = SubjectBoxes(amodal_TS4=amodal, returned_TS=np.zeros((T, 2), bool))
    with pytest.raises(NothingToJudge):
        metric(prediction=made, reference=true, boxes=everywhere, tracks=nobody)
    with pytest.raises(ValueError, match="are of 5 frames, the reference has 4"):
        metric(prediction=made[1:], reference=true[1:], boxes=boxes, tracks=tracks)
