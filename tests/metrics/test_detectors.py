"""Detectors: what any object detector of transformers sees, written out again, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small_detector import NAMES, write_random_detector
from transformers import AutoImageProcessor, YolosForObjectDetection

from hmcli import registry
from hmcli.errors import DataError, MissingPartError
from hmcli.metrics.backbones.networks import BATCH
from hmcli.metrics.detectors.objects import THRESHOLD, ObjectDetector, subject_labels

HEIGHT, WIDTH = 32, 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_detector(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="module")
def detector(folder: Path) -> ObjectDetector:
    found: ObjectDetector = registry.find("detector", "transformers")(str(folder), "cpu")
    return found


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (BATCH + 2, HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def test_detections_are_the_people_and_animals_that_the_network_is_sure_of(
    folder: Path, detector: ObjectDetector, frames: np.ndarray
):
    model = YolosForObjectDetection.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor([Image.fromarray(frame) for frame in frames], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        outputs = model(pixel_values=pixels)
    counts = {"kept": 0, "others": 0, "unsure": 0}
    for found, logits, boxes in zip(detector(frames), outputs.logits, outputs.pred_boxes, strict=True):
        wanted = []
        for query, (x, y, w, h) in zip(logits.softmax(-1)[:, :-1], boxes.tolist(), strict=True):
            score, label = float(query.max()), NAMES[int(query.argmax())]
            counts["kept" if label in ("person", "Dog") and score > THRESHOLD else
                   "unsure" if score <= THRESHOLD else "others"] += 1  # fmt: skip
            if label in ("person", "Dog") and score > THRESHOLD:
                corners = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * [WIDTH, HEIGHT, WIDTH, HEIGHT]
                wanted.append((score, corners.clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT])))
        wanted.sort(key=lambda one: -one[0])
        assert [one.score for one in found] == pytest.approx([score for score, _ in wanted], abs=1e-5)
        for one, (_, box) in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one.box_4, box, atol=1e-3)
            assert one.mask_HW is None
    assert min(counts.values()) > 0, counts


def test_a_frame_is_seen_alike_whatever_stands_beside_it(detector: ObjectDetector, frames: np.ndarray):
    together = detector(frames)
    alone = [found for frame in frames for found in detector(frame[None])]
    assert [len(found) for found in together] == [len(found) for found in alone]
    for ours, theirs in zip(together[BATCH], alone[BATCH], strict=True):
        np.testing.assert_allclose(ours.box_4, theirs.box_4, atol=1e-3)


def test_the_card_tells_classes_threshold_and_weights(detector: ObjectDetector):
    assert detector.about["finds"].startswith("boxes of Dog, person;")
    assert str(THRESHOLD) in detector.about["threshold"]
    assert detector.about["weights"].startswith("sha256:")


def test_classes_are_subjects_by_their_names():
    assert subject_labels({0: "Person", 1: "bicycle", 2: "dog", 3: "dining table"}) == {0: "Person", 2: "dog"}


def test_another_preprocessing_is_another_detector(detector: ObjectDetector, tmp_path: Path):
    folder = write_random_detector(tmp_path / "same")
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_normalize": False}))
    other = registry.find("detector", "transformers")(str(folder), "cpu")
    assert other.about["weights"] != detector.about["weights"]


@pytest.mark.parametrize("path", ["", "nowhere"])
def test_without_weights_the_fix_names_the_key(path: str):
    with pytest.raises(MissingPartError, match="needs weights") as raised:
        registry.find("detector", "transformers")(path, "cpu")
    assert "eval.detector_path" in str(raised.value.fix)


def test_a_detector_of_things_is_refused(tmp_path: Path):
    folder = write_random_detector(tmp_path, ("car", "chair"))
    with pytest.raises(DataError, match="no people and no animals"):
        registry.find("detector", "transformers")(str(folder), "cpu")


def test_weights_that_do_not_fill_the_network_are_refused(tmp_path: Path):
    folder = write_random_detector(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["class_labels_classifier.layers.0.bias"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match="do not fill"):
        registry.find("detector", "transformers")(str(folder), "cpu")
