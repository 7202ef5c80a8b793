"""Identity AUC: known answers, the crops it is measured on, the control, and what is said of a column."""

from __future__ import annotations

import json

import numpy as np
import pytest
from benchmark_files import load_benchmark

from hmcli.errors import UsageError
from hmcli.metrics import identity as measured
from hmcli.metrics.backbones.colours import LEVELS, colours
from hmcli.metrics.identity import Crops, auc, auc_interval, identity, identity_note, measured_auc, record
from hmcli.registry import find, names


def crops(features: list[list[float]], subjects: str, families: str) -> Crops:
    return Crops(features=np.array(features, np.float32), subjects=list(subjects), families=list(families))


def test_auc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    same, other = rng.integers(0, 9, 17), rng.integers(0, 7, 23)
    pairs = [(a > b) + 0.5 * (a == b) for a in same for b in other]
    assert auc(same, other) == pytest.approx(np.mean(pairs))


def test_subjects_that_look_like_themselves_are_known_again_and_swapped_ones_are_not():
    before = crops([[1, 0, 0], [0, 1, 0], [0, 0, 1]], "abc", "xyz")
    right = crops([[2, 0.1, 0], [0, 3, 0.1], [0.1, 0, 1]], "abc", "xyz")
    assert identity(before, right) == measured.Identity(auc=1.0, nearest=1.0)
    swapped = crops([[0, 1, 0], [0, 0, 1], [1, 0, 0]], "abc", "xyz")
    assert identity(before, swapped) == measured.Identity(auc=0.25, nearest=0.0)


def test_others_of_the_same_family_are_left_out():
    """Two of family x look the same: neither a wrong answer nor a right one."""
    before = crops([[1, 0], [1, 0], [0, 1]], "abc", "xxy")
    assert identity(before, crops([[1, 0], [1, 0], [0, 1]], "abc", "xxy")).auc == 1
    with pytest.raises(ValueError, match="another family"):
        identity(*[crops([[1, 0], [0, 1]], "ab", "xx")] * 2)


def test_the_interval_holds_the_value_and_shrinks_to_it_where_every_subject_is_known():
    rng = np.random.default_rng(0)
    names, families = [f"{n // 2}" for n in range(40)], [f"f{n // 2}" for n in range(40)]
    sure = Crops(features=np.repeat(np.eye(20), 2, axis=0), subjects=names, families=families)
    assert auc_interval(sure, sure, seed=0) == (1, 1)
    unsure = Crops(features=sure.features + rng.normal(0, 0.4, (40, 20)), subjects=names, families=families)
    low, high = auc_interval(sure, unsure, seed=0)
    assert 0.6 < low < identity(sure, unsure).auc < high < 1
    assert auc_interval(sure, unsure, seed=0) == (low, high)


# --- crops -----------------------------------------------------------------------------------------------------------


def test_crops_show_the_subject_alone_where_it_is_whole_and_large_enough():
    benchmark = load_benchmark("identity")
    video = np.random.default_rng(0).integers(0, 100, (5, 40, 50, 3)).astype(np.uint8)
    video = np.concatenate([video, video[:3]])
    labels = np.zeros((8, 40, 50), np.uint8)
    labels[0, 10:30, 12:20] = 2  # whole
    labels[1, 10:30, 0:8] = labels[5, 10:30, 42:50] = labels[6, :20, 12:20] = labels[7, 20:, 12:20] = (
        2  # cut by an edge
    )
    labels[2, 10:15, 12:20] = 2  # small
    labels[3, 8:32, 12:20], labels[3, 20, 20] = 2, 1  # whole, beside another one
    found = benchmark.portraits(video, labels, 2, "clip/subject", "dog")
    assert [one.height for one in found] == [20, 24]
    assert [one.picture.shape for one in found] == [(24, 24, 3), (29, 29, 3)]
    assert np.array_equal(found[0].picture[2:22, 8:16], video[0, 10:30, 12:20])
    outside = np.ones((24, 24), bool)
    outside[2:22, 8:16] = False
    assert (found[0].picture[outside] == 127).all()


def test_at_most_four_crops_of_a_side_are_taken_spread_over_it():
    benchmark = load_benchmark("identity")
    labels = np.zeros((30, 40, 50), np.uint8)
    labels[:, 10:30, 12:20] = 1
    video = np.arange(30, dtype=np.uint8)[:, None, None, None].repeat(40, 1).repeat(50, 2).repeat(3, 3)
    found = benchmark.portraits(video, labels, 1, "s", "dog")
    assert [int(one.picture[12, 12, 0]) for one in found] == [0, 10, 19, 29]


def test_the_record_keeps_what_was_measured_elsewhere(tmp_path):
    benchmark, file = load_benchmark("identity"), tmp_path / "identity.json"
    file.write_text(json.dumps({"hog": {"9x9": {"auc": 0.5}, "64x112": {"auc": 0.1}}}))
    benchmark.keep([{"backbone": "hog", "size": "64x112", "auc": 0.8}], file)
    assert json.loads(file.read_text()) == {"hog": {"9x9": {"auc": 0.5}, "64x112": {"auc": 0.8}}}


# --- what ships, and what is said ------------------------------------------------------------------------------------


def test_what_ships_was_measured_of_backbones_and_weights_that_are_there():
    assert set(record()) == {"effnet-lite0", "hog", "colours"} <= set(names("backbone"))
    for backbone, sizes in record().items():
        weights = find("backbone", backbone)("", "cpu").about["weights"]
        assert set(sizes) == {"64x112", "64x128"}
        for entry in sizes.values():
            assert entry["weights"] == weights
            assert entry["interval"][0] <= entry["auc"] <= entry["interval"][1]


def test_a_column_says_how_well_its_backbone_knows_subjects(monkeypatch):
    known = {"good": {"64x112": {"auc": 0.984}}, "bad": {"64x112": {"auc": 0.8963}}, "best": {"64x112": {"auc": 1.0}}}
    monkeypatch.setattr(measured, "record", lambda: known)
    assert identity_note("good", (64, 112)) == "identity AUC .98"
    assert identity_note("bad", (64, 112)) == "identity AUC .89, unreliable"
    assert identity_note("best", (64, 112)) == "identity AUC 1.00"
    assert identity_note("good", (64, 128)) == identity_note("other", (64, 112)) == "identity not measured"
    assert measured_auc("other", (64, 112)) is None


def test_the_colour_histogram_knows_colours_and_nothing_else():
    frames = np.zeros((3, 4, 6, 3), np.uint8)
    frames[0, :, :3] = 255
    frames[1, :, 3:] = 255  # the same colours elsewhere
    features = colours("", "cpu")(frames)
    assert (features.shape, features.dtype) == ((3, LEVELS**3), np.float32)
    assert np.array_equal(features[0], features[1])
    assert features[0, -1] == features[0, 0] == pytest.approx(0.5**0.5)
    assert features[2, 0] == 1
    with pytest.raises(UsageError, match="no weights"):
        colours("somewhere", "cpu")
