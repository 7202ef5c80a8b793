"""The subject segmenter: from maps to subjects, its network and file, its training's pictures, loss and measures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import torch
from torch import Generator

from hmcli import registry
from hmcli.errors import DataError, MissingPartError, NotFiniteError
from hmcli.metrics.contract import Detection
from hmcli.metrics.detectors import damage, learning
from hmcli.metrics.detectors.instances import LEAST_PIXELS, subjects_in
from hmcli.metrics.detectors.quality import Tally, tally
from hmcli.metrics.detectors.segmenter import WEIGHTS, load_segmenter, packed
from hmcli.metrics.detectors.unet import SubjectNet, new_subject_net
from hmcli.store.weights import save_weights

HEIGHT, WIDTH = 24, 40
SMALL = (4, 8, 12)  # widths


def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def maps(*subjects: tuple[np.ndarray, tuple[float, float]], chance: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """What a network says that is sure of these masks, each with its middle (x, y)."""
    chances, ways = np.full((HEIGHT, WIDTH), 0.05), np.zeros((2, HEIGHT, WIDTH))
    for mask, (x, y) in subjects:
        rows, columns = np.nonzero(mask)
        chances[mask] = chance
        ways[:, rows, columns] = [x - columns, y - rows]
    return chances, ways


# --- from maps to subjects -------------------------------------------------------------------------------------------


def test_two_that_touch_are_two_by_the_middles_they_point_to():
    one, two = box(4, 6, 12, 20), box(12, 4, 22, 20)
    found = subjects_in(*maps((one, (8, 13)), (two, (17, 12))), 0.5)
    assert [found_one.box_4.tolist() for found_one in sorted(found, key=lambda of: of.box_4[0])] == [
        [4, 6, 12, 20], [12, 4, 22, 20],
    ]  # fmt: skip
    masks = [of.mask_HW for of in sorted(found, key=lambda of: of.box_4[0])]
    assert (masks[0] == one).all()
    assert (masks[1] == two).all()


def test_noise_in_the_ways_divides_nobody():
    chances, ways = maps((box(4, 4, 24, 22), (14, 13)))
    ways += np.random.default_rng(0).normal(0, 3, ways.shape)
    assert len(subjects_in(chances, ways, 0.5)) == 1


def test_parts_before_and_behind_a_pole_are_one_subject_and_two_subjects_stay_two():
    cut = box(4, 4, 24, 20) & ~box(12, 0, 15, HEIGHT)
    (found,) = subjects_in(*maps((cut, (14, 12))), 0.5)
    assert (found.mask_HW == cut).all()
    assert len(subjects_in(*maps((box(2, 4, 12, 20), (7, 12)), (box(26, 4, 36, 20), (31, 12))), 0.5)) == 2


def test_spots_and_unsure_pixels_are_nobody_and_the_surest_is_first():
    small = np.zeros((HEIGHT, WIDTH), bool)
    small.flat[: LEAST_PIXELS - 1] = True
    assert subjects_in(*maps((small, (4, 0))), 0.5) == []
    assert subjects_in(*maps((box(4, 4, 14, 14), (9, 9)), chance=0.49), 0.5) == []
    chances, ways = maps((box(2, 2, 10, 10), (6, 6)), (box(20, 2, 30, 12), (25, 7)))
    chances[box(20, 2, 30, 12)] = 0.97
    found = subjects_in(chances, ways, 0.5)
    assert [one.score for one in found] == pytest.approx([0.97, 0.9])
    assert found[0].box_4.tolist() == [20, 2, 30, 12]


# --- network and file ------------------------------------------------------------------------------------------------


def random_net(seed: int = 2) -> SubjectNet:
    """One whose outputs differ from pixel to pixel."""
    net = new_subject_net(seed, SMALL)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=Generator().manual_seed(seed)) * 0.3)
        net.head.weight *= torch.tensor([10.0, 0.02, 0.02]).view(3, 1, 1, 1)  # sure, and near itself
    return net


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("segmenter") / WEIGHTS
    save_weights(place, *packed(random_net()))
    return place


def frames_of(count: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    coarse = np.random.default_rng(3).integers(0, 256, (count, height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]


def test_a_file_gives_back_the_network_that_was_packed(file: Path):
    net, frames = random_net().half().float(), frames_of(2)
    with torch.no_grad():
        logits, ways = net(torch.from_numpy(frames).permute(0, 3, 1, 2).float())
    for path in (file, file.parent):
        found = registry.find("detector", "segmenter")(str(path), "cpu").maps(frames)
        np.testing.assert_allclose(found[0], logits.sigmoid(), atol=1e-5)
        np.testing.assert_allclose(found[1], ways, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(24, 40), (17, 31), (48, 56)])
def test_frames_of_any_size_and_number_are_seen_each_by_itself(file: Path, height: int, width: int):
    detector, frames = load_segmenter(file, "cpu"), frames_of(18, height, width)
    found = detector(frames)
    assert len(found) == 18
    assert any(found)
    for seen, frame in zip(found, frames, strict=True):
        alone = detector(frame[None])[0]
        assert [one.box_4.tolist() for one in seen] == [one.box_4.tolist() for one in alone]
        assert all(one.mask_HW.shape == (height, width) for one in seen if one.mask_HW is not None)


def test_weights_that_are_none_and_places_without_any_are_refused(tmp_path: Path):
    load = registry.find("detector", "segmenter")
    with pytest.raises(MissingPartError, match="no weights"):
        load(str(tmp_path), "cpu")
    bad = tmp_path / WEIGHTS
    bad.write_bytes(b"nothing")
    with pytest.raises(DataError, match="the file is plain text, not weights"):
        load(str(bad), "cpu")
    state, about = packed(random_net())
    del state["head.bias"]
    save_weights(bad, state, about)
    with pytest.raises(DataError, match=r"head\.bias"):
        load(str(bad), "cpu")


def test_equal_seeds_start_equal_networks():
    one, two, other = (new_subject_net(seed, SMALL).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


# --- the pictures it learns from -------------------------------------------------------------------------------------


def picture(seed: int, count: int = 2) -> torch.Tensor:
    smooth = np.random.default_rng(seed).uniform(0, 255, (count, 3, HEIGHT, WIDTH))
    return torch.from_numpy(scipy.ndimage.gaussian_filter(smooth, (0, 0, 2, 2))).float()


def test_blur_and_waves_are_those_of_scipy():
    frames = picture(0)
    wanted = scipy.ndimage.gaussian_filter(frames.numpy(), (0, 0, 1.7, 1.7), mode="nearest", truncate=3.3)
    np.testing.assert_allclose(damage.blurred(frames, 1.7), wanted, atol=0.3)
    np.testing.assert_allclose(damage.cosines(8), scipy.fft.dct(np.eye(8), norm="ortho", axis=0), atol=1e-6)


def test_every_damage_changes_pictures_and_keeps_them_pictures():
    frames = picture(1, 6)
    for kind in (damage._tinted, damage._coarser, damage._blurred, damage._blocky, damage._noisy):
        found = kind(frames, Generator().manual_seed(0))
        assert found.shape == frames.shape
        assert ((found - frames).abs().mean((1, 2, 3)) > 0.1).all(), kind
    found = damage.damaged(frames, Generator().manual_seed(0))
    assert (found.min() >= 0, found.max() <= 255, torch.equal(found, found.round())) == (True, True, True)
    assert torch.equal(found, damage.damaged(frames, Generator().manual_seed(0)))


def test_subjects_go_where_their_pixels_go():
    labels = torch.zeros(8, HEIGHT, WIDTH, dtype=torch.long)
    labels[:, 6:18, 10:24] = 3
    frames = (labels > 0).float()[:, None].expand(-1, 3, -1, -1) * 255
    moved, found = damage.reframed(frames, labels, Generator().manual_seed(4))
    assert (((moved[:, 0] > 127) == (found > 0)).float().mean() > 0.97).item()
    assert set(found.unique().tolist()) <= {0, 3}
    assert not torch.equal(found, labels)


def test_subjects_alone_wear_other_colours_and_keep_how_light_they_are():
    labels = torch.zeros(60, HEIGHT, WIDTH, dtype=torch.long)
    labels[:, 6:18, 10:24] = 2
    frames = torch.tensor([150.0, 90.0, 120.0]).view(1, 3, 1, 1).expand(60, 3, HEIGHT, WIDTH).clone()
    found = damage.recoloured(frames, labels, Generator().manual_seed(1))
    inside = (labels > 0)[:, None].expand_as(frames)
    assert torch.equal(found[~inside], frames[~inside])
    worn = found[:, :, 10, 15]
    same = (worn - frames[:, :, 10, 15]).abs().amax(1) < 1e-3
    assert 0.3 < same.float().mean() < 0.7
    grey = worn.mean(1) - 120.0
    assert grey.abs().max() <= 40.5
    vivid = (worn - worn.mean(1, keepdim=True)).norm(dim=1) / frames[0, :, 0, 0].sub(120).norm()
    assert (vivid.min() >= 0.29, vivid.max() <= 1.51) == (True, True)
    assert len({tuple(of.argsort().tolist()) for of in worn}) > 3, "which channel leads varies"


def test_pasted_subjects_have_numbers_of_their_own_and_some_pictures_lose_theirs():
    count = 200
    labels = torch.zeros(count, 12, 16, dtype=torch.long)
    labels[:, 2:8, 3:6] = 1
    labels[: count // 2, 2:8, 9:12] = 2
    frames = labels[:, None].expand(-1, 3, -1, -1).float() * 100
    mixed, found = damage.mixed(frames, labels, Generator().manual_seed(0))
    gone = ~(found > 0).any((1, 2))
    assert 0.05 < gone.float().mean() < 0.3
    assert (mixed[gone][:, :, 2:8, 3:6] < 50).all(), "erased"
    pasted = (found > 2).any((1, 2))
    assert 0.1 < pasted.float().mean() < 0.45
    kept = ~gone & ~pasted
    assert torch.equal(found[kept], labels[kept])
    assert torch.equal(mixed[kept], frames[kept])


def test_who_is_erased_leaves_the_colours_beside():
    frames = torch.full((1, 3, HEIGHT, WIDTH), 40.0)
    frames[:, :, :, WIDTH // 2 :] = 200.0
    labels = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.long)
    labels[:, 8:14, 4:8] = 1
    labels[:, 8:14, 30:34] = 2
    shown = torch.where(labels[:, None] > 0, 120.0, frames)
    assert (damage.erased(shown, labels) - frames).abs().max() < 2


# --- loss and measures -----------------------------------------------------------------------------------------------


def test_ways_lead_to_the_middle_of_the_box():
    labels = torch.zeros(1, 6, 9, dtype=torch.long)
    labels[0, 1:4, 2:7] = 5
    labels[0, 1, 2] = 0
    ways, sizes = learning.ways_to_middles(labels)
    for row in range(6):
        for column in range(9):
            inside = bool(labels[0, row, column])
            assert ways[0, :, row, column].tolist() == ([4 - column, 2 - row] if inside else [0, 0])
            assert sizes[0, row, column] == (14 if inside else 0)


def test_the_loss_is_small_for_the_truth_and_says_what_is_wrong():
    labels = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.long)
    labels[0, 4:16, 8:20] = 1
    ways, _ = learning.ways_to_middles(labels)
    sure = torch.where(labels > 0, 20.0, -20.0)
    right, parts = learning.segmenter_loss(sure, ways, labels)
    assert right < 1e-3
    assert max(parts.values()) < 1e-3
    missed, parts = learning.segmenter_loss(torch.full_like(sure, -20.0), ways, labels)
    assert parts["overlap"] > 0.9
    assert missed > 1
    _, parts = learning.segmenter_loss(sure, ways + 16, labels)
    assert float(parts["middle"]) == pytest.approx(1.0, abs=1e-5)  # smooth L1 of one unit, on both axes


@dataclass
class Video:
    clip: str
    frames: np.ndarray
    subjects: np.ndarray


def test_steps_on_one_picture_learn_it_and_a_gradient_that_is_not_finite_changes_nothing():
    frames = np.full((1, 16, 24, 3), 60, np.uint8)
    subjects = np.zeros((1, 16, 24), np.uint8)
    frames[:, 4:12, 6:14], subjects[:, 4:12, 6:14] = (220, 40, 40), 1
    pictures, labels, names = learning.draw_batch([Video("a", frames, subjects)], 4, np.random.default_rng(0))
    assert (pictures.shape, labels.shape, names) == ((4, 3, 16, 24), (4, 16, 24), ["a"] * 4)
    net = new_subject_net(0, SMALL)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.0)
    optimizer.param_groups[0]["scale"] = 1.0
    x, y = torch.from_numpy(frames).permute(0, 3, 1, 2).float(), torch.from_numpy(subjects).long()
    steps = [learning.train_step(net, [optimizer], x, y, lr=5e-3, clip_norm=1.0) for _ in range(40)]
    assert steps[-1]["pixels"] < 0.1 * steps[0]["pixels"]
    assert steps[-1]["overlap"] < 0.1
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(NotFiniteError, match="the loss is nan"):
        learning.train_step(net, [optimizer], x * math.nan, y, lr=5e-3, clip_norm=1.0)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def seen(mask: np.ndarray, score: float = 0.9) -> Detection:
    return Detection(box_4=np.zeros(4), score=score, mask_HW=mask)


def test_measures_of_hand_made_frames():
    labels = np.zeros((4, HEIGHT, WIDTH), np.uint8)
    labels[0][box(2, 2, 6, 6)] = 1  # 16 pixels
    labels[0][box(20, 2, 30, 12)] = 2  # 100
    labels[1][box(2, 2, 20, 20)] = 1  # 324
    labels[3][box(0, 0, 3, 3)] = 1  # 9: too few to count
    found = [
        [seen(box(2, 2, 6, 6)), seen(box(20, 2, 30, 6))],  # the second overlaps by .4
        [seen(box(2, 2, 20, 20)), seen(box(2, 2, 20, 19))],  # twice: one of them is too many
        [seen(box(0, 0, 9, 9))],
        [],
    ]
    counted = tally(found, labels)
    assert (counted.frames, counted.empty, counted.alarmed, counted.detections) == (4, 1, 1, 5)
    assert counted.by_size == [1.0, 0.0, 1.0]
    assert counted.recall == pytest.approx(2 / 3)
    assert counted.precision == pytest.approx(2 / 5)
    assert counted.iou == pytest.approx((16 + 40 + 324) / (16 + 100 + 324 + 81 + 9))
    assert math.isnan(Tally().recall)
    with pytest.raises(ValueError, match="without a mask"):
        tally([[Detection(box_4=np.zeros(4), score=0.5)]], labels[:1])
