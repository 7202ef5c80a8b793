"""DSC as the published script has it, written step by step: processor, tokens, RoI-align, all pairs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_clip import PATCH, SIDE, WIDTH, write_random_clip

from hmcli.errors import DataError, MissingPartError
from hmcli.metrics.backbones.regions import ClipRegions, clip_regions, line_weights
from hmcli.metrics.contract import Detection, NothingToJudge
from hmcli.metrics.dsc_official import around_detections, around_masks, dsc_ctx_official, dsc_gt_official

CELLS = SIDE // PATCH
H, W = 40, 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def regions(folder: Path) -> ClipRegions:
    return clip_regions(str(folder), "cpu")


def noise(frames: int, seed: int, height: int = H, width: int = W) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


# --- the published steps, one after the other ------------------------------------------------------------------------


def tokens(folder: Path, frame: np.ndarray) -> np.ndarray:
    """(CELLS, CELLS, WIDTH) by transformers' own image processor and model."""
    from transformers import CLIPVisionModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, resample=3
    )
    pixels = processor(images=frame, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        found = CLIPVisionModel.from_pretrained(folder).eval()(pixel_values=pixels).last_hidden_state[0, 1:]
    return found.reshape(CELLS, CELLS, WIDTH).double().numpy()


def at(grid: np.ndarray, y: float, x: float) -> np.ndarray:
    """Between cells, as RoI-align reads it."""
    if y < -1 or y > CELLS or x < -1 or x > CELLS:
        return np.zeros(WIDTH)
    y, x = max(y, 0.0), max(x, 0.0)
    top, left = min(int(y), CELLS - 1), min(int(x), CELLS - 1)
    y, x = (y if top < CELLS - 1 else top), (x if left < CELLS - 1 else left)
    below, right = min(top + 1, CELLS - 1), min(left + 1, CELLS - 1)
    down, over = y - top, x - left
    upper = (1 - over) * grid[top, left] + over * grid[top, right]
    lower = (1 - over) * grid[below, left] + over * grid[below, right]
    return (1 - down) * upper + down * lower


def roi_align(grid: np.ndarray, box: tuple[float, ...]) -> np.ndarray:
    """The mean of 7 x 7 bins, bin by bin and place by place; the box in pixels of the whole frame."""
    left, top, right, bottom = (
        edge * CELLS / side for edge, side in zip(box, (W, H, W, H), strict=True)
    )  # fmt: skip
    wide, high = max(right - left, 1.0), max(bottom - top, 1.0)
    bins = []
    for row in range(7):
        for column in range(7):
            rows, columns = math.ceil(high / 7), math.ceil(wide / 7)
            places = [
                at(grid, top + (row + (i + 0.5) / rows) * high / 7, left + (column + (j + 0.5) / columns) * wide / 7)
                for i in range(rows)
                for j in range(columns)
            ]
            bins.append(np.mean(places, axis=0))
    return np.mean(bins, axis=0)


BOXES = [(5.0, 3.0, 30.0, 33.0), (0.0, 0.0, W, H), (84.0, 30.0, 90.0, 40.0), (-9.0, 2.0, 12.5, 60.0), (40, 11, 41, 12)]


@pytest.mark.parametrize("box", BOXES)
def test_features_of_a_region_are_those_of_the_published_steps(box, folder: Path, regions: ClipRegions):
    frames = noise(2, 3)
    found = regions(frames, np.array([box, BOXES[0]], float))
    for frame, one, made in zip(frames, (box, BOXES[0]), found, strict=True):
        np.testing.assert_allclose(made, roi_align(tokens(folder, frame), one), rtol=2e-5, atol=2e-6)


def test_lines_are_averaged_by_weights_that_add_up_inside_and_to_less_beyond():
    for start, end in ((0, 6), (1.2, 3.9), (2.5, 2.6), (0, 1)):
        assert line_weights(start, end, 6).sum() == pytest.approx(1)
    assert line_weights(-30, -20, 6).sum() == 0
    assert line_weights(8, 9, 6).sum() == 0


def test_in_a_wide_frame_a_box_lies_beside_its_subject_and_in_a_square_one_on_it(regions: ClipRegions):
    box = np.array([[2.0, 8.0, 14.0, 30.0]])
    wide, square = noise(1, 5), noise(1, 5, H, H)
    for frames, moves in ((wide, False), (square, True)):
        changed = frames.copy()
        changed[:, 8:30, 2:14] = 255 - changed[:, 8:30, 2:14]
        assert np.array_equal(regions(frames, box), regions(changed, box)) != moves


# --- pairs of frames -------------------------------------------------------------------------------------------------


def cut(frames: np.ndarray, box_n4: np.ndarray) -> np.ndarray:
    """Features that are easy to say: the mean colour inside the box."""
    boxes = box_n4.astype(int)
    return np.stack([f[t:b, left:r].mean(axis=(0, 1)) for f, (left, t, r, b) in zip(frames, boxes, strict=True)])


def masks(*boxes: tuple[int, int, int, int] | None) -> np.ndarray:
    found = np.zeros((len(boxes), H, W), np.uint8)
    for frame, box in enumerate(boxes):
        if box is not None:
            found[frame, box[1] : box[3], box[0] : box[2]] = 1 + frame % 2
    return found


def seen(*boxes: tuple[float, float, float, float]) -> list[Detection]:
    return [Detection(box_4=np.array(box, float), score=0.9) for box in boxes]


def test_all_frames_of_one_video_meet_all_of_the_other():
    prediction, context = noise(3, 0), noise(4, 1)
    found = [seen((3, 4, 9, 20)), [], seen((30, 6, 40, 30), (50, 2, 60, 11))]
    true = masks((1, 2, 30, 20), None, (7, 7, 20, 39), (60, 0, 90, 12))
    made = [prediction[0, 4:20, 3:9], prediction[2, 2:30, 30:60]]  # around both
    then = [context[0, 2:20, 1:30], context[2, 7:39, 7:20], context[3, 0:12, 60:90]]
    means = [[part.reshape(-1, 3).mean(axis=0) for part in parts] for parts in (made, then)]
    pairs = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in means[0] for b in means[1]]
    given = {"prediction": prediction, "detections": found, "regions": cut}
    assert dsc_ctx_official(context=context, context_masks=true, **given) == pytest.approx(np.mean(pairs))
    whole = {"reference": context[:3], "masks": true[:3]}
    pairs = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in means[0] for b in means[1][:2]]
    assert dsc_gt_official(**whole, **given) == pytest.approx(np.mean(pairs))


def test_when_a_subject_is_does_not_matter_to_the_published_number():
    reference, true = noise(4, 2), masks(*[(10, 5, 30, 25)] * 4)
    given = {"reference": reference, "masks": true, "detections": [seen((10, 5, 30, 25))] * 4, "regions": cut}
    assert dsc_gt_official(prediction=reference[::-1], **given) == pytest.approx(
        dsc_gt_official(prediction=reference, **given)
    )


def test_where_one_video_shows_nobody_the_clip_is_not_judged():
    video, nobody = noise(2, 4), [[], []]
    shared = {"prediction": video, "reference": video, "regions": cut}
    with pytest.raises(NothingToJudge, match="published script leaves such a clip out"):
        dsc_gt_official(masks=masks((1, 1, 9, 9), None), detections=nobody, **shared)
    with pytest.raises(NothingToJudge, match="target shows no subject"):
        dsc_gt_official(masks=masks(None, None), detections=[seen((1, 1, 9, 9))] * 2, **shared)
    with pytest.raises(ValueError, match="masks of shape"):
        dsc_gt_official(masks=masks(None), detections=nobody, **shared)


def test_boxes_are_around_everybody():
    both = masks((3, 4, 5, 6), None)
    both[0, 20:30, 50:70] = 2
    np.testing.assert_array_equal(around_masks(both), [[3, 4, 70, 30], [np.nan] * 4])
    found = around_detections([seen((3, 4, 5, 6), (50, 2, 70, 30)), []])
    np.testing.assert_array_equal(found, [[3, 2, 70, 30], [np.nan] * 4])


def test_weights_are_asked_for_by_their_key(tmp_path: Path):
    with pytest.raises(MissingPartError, match="dsc_path is empty"):
        clip_regions("", "cpu")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="weights"):
        clip_regions(str(tmp_path), "cpu")
