"""A tiny object detector with random weights, as transformers saves one, and a metric that counts detections."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hmcli.metrics.contract import DETECTIONS, PREDICTION, Detection, Metric

NAMES = ("Dog", "person", "car", "chair")


def _count(prediction: np.ndarray, detections: list[list[Detection]]) -> list[float]:
    assert len(prediction) == len(detections)
    return [float(len(seen)) for seen in detections]


FOUND = Metric(
    name="found",
    function=_count,
    needs=(PREDICTION, DETECTIONS),
    unit="subjects",
    definition="subjects found in a frame",
)


def write_random_detector(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    import torch
    from transformers import YolosConfig, YolosForObjectDetection
    from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil

    torch.manual_seed(5)
    config = YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=[32, 48],
        patch_size=8, num_detection_tokens=12, id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )  # fmt: skip
    model = YolosForObjectDetection(config)
    with torch.no_grad():  # else all queries find the same, whatever the picture
        model.vit.embeddings.detection_tokens.normal_()
        for layer in (model.vit.encoder.layer[0], model.vit.embeddings.patch_embeddings):
            for weight in layer.parameters():
                weight *= 20
        for layer in (*model.class_labels_classifier.layers, *model.bbox_predictor.layers):
            layer.weight.normal_(0, 0.6)
    model.save_pretrained(folder)
    YolosImageProcessorPil(size={"shortest_edge": 40, "longest_edge": 80}).save_pretrained(folder)
    return folder
