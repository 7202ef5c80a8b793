"""Any object detector of transformers, from a folder: its people and animals are the subjects."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hmcli.aligned import own
from hmcli.errors import DataError, MissingPartError
from hmcli.metrics.backbones.networks import BATCH, load_network, versions, weights_hash
from hmcli.metrics.contract import Detection, check_video

NAME = "transformers"
THRESHOLD = 0.5  # of a detection's score: below it the network itself thinks it more likely wrong than right
_NAMES = """
person man woman boy girl child pedestrian bird cat dog horse sheep cow pig goat elephant bear zebra giraffe lion tiger
deer fox wolf rabbit camel monkey panda kangaroo penguin ostrich flamingo tortoise turtle crocodile chicken duck swan
donkey antelope yak hippo
"""
SUBJECTS = frozenset(_NAMES.split())
_FIX = "pass a folder with config.json, model.safetensors and preprocessor_config.json: --set eval.detector_path=FOLDER"


class ObjectDetector:
    """A loaded detector: frames are fed as its own image processor feeds them."""

    name = NAME

    def __init__(self, model: Any, processor: Any, device: str, about: dict[str, str]) -> None:
        self.about = about
        self._model, self._processor, self._device = model, processor, device
        self._subjects = subject_labels(model.config.id2label)
        self._takes = signature(model.forward).parameters.keys() & {"pixel_values", "pixel_mask"}

    def __call__(self, frames: np.ndarray) -> list[list[Detection]]:
        check_video("frames", frames)
        batches = (frames[start : start + BATCH] for start in range(0, len(frames), BATCH))
        return [found for batch in batches for found in self._found(batch)]

    def _found(self, frames: np.ndarray) -> list[list[Detection]]:
        import torch

        inputs = self._processor(images=[Image.fromarray(frame) for frame in frames], return_tensors="pt")
        with torch.inference_mode():
            outputs = self._model(**{name: own(inputs[name].to(self._device)) for name in self._takes})
            sizes = [frames.shape[1:3]] * len(frames)
            every = self._processor.post_process_object_detection(outputs, threshold=THRESHOLD, target_sizes=sizes)
        return [self._subjects_of(one, *frames.shape[1:3]) for one in every]

    def _subjects_of(self, found: dict[str, Any], height: int, width: int) -> list[Detection]:
        """Detections of subjects, the surest first, their boxes cut to the frame."""
        boxes = found["boxes"].double().cpu().numpy().clip(0, [width, height, width, height])
        seen = [
            Detection(box_4=box, score=score)
            for box, score, label in zip(boxes, found["scores"].tolist(), found["labels"].tolist(), strict=True)
            if label in self._subjects
        ]
        return sorted(seen, key=lambda one: -one.score)


def transformers_objects(path: str, device: str) -> ObjectDetector:
    """A detector from a folder that transformers saved. Raises MissingPartError without, DataError for another's."""
    folder = _folder(path)
    model, processor = _loaded(folder, device)
    if not (found := subject_labels(model.config.id2label)):
        raise DataError(
            "the detector knows no people and no animals", where={"file": folder / "config.json", "key": "id2label"},
            fix="use one trained on COCO or Objects365, whose classes have names",
        )  # fmt: skip
    return ObjectDetector(
        model, processor, device,
        about={
            "finds": f"boxes of {', '.join(sorted(map(str, found.values())))}; no masks",
            "network": f"{type(model).__name__}, fed by {type(processor).__name__} as the folder says",
            "threshold": f"score of at least {THRESHOLD}; no further suppression",
            "weights": f"sha256:{weights_hash(folder, 'preprocessor_config.json')}",
            "precision": "float32",
            "versions": versions("torch", "transformers"),
        },
    )  # fmt: skip


def subject_labels(id2label: dict[int, str]) -> dict[int, str]:
    """The classes that are subjects: people and animals, by their names in any case."""
    return {int(number): name for number, name in id2label.items() if str(name).strip().lower() in SUBJECTS}


def _folder(path: str) -> Path:
    folder = Path(path)
    if path and all((folder / name).is_file() for name in ("config.json", "preprocessor_config.json")):
        return folder
    raise MissingPartError(
        f"the detector {NAME} needs weights" + ("" if path else ", and eval.detector_path is empty"),
        where={"expected": f"{folder}: config.json and preprocessor_config.json"} if path else None, fix=_FIX,
    )  # fmt: skip


def _loaded(folder: Path, device: str) -> tuple[Any, Any]:
    """Model and image processor. The processor works on PIL pictures: torchvision is never asked for."""
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    try:
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
        model = load_network(AutoModelForObjectDetection, folder, device)
    except ImportError as error:
        raise MissingPartError(
            f"this detector needs another package: {error}", where={"folder": folder},
            fix="install it, or use a detector without it",
        ) from error  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"the image processor cannot be read: {error}", where={"folder": folder}, fix=_FIX) from error
    return model, processor
