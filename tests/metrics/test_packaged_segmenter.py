"""The subject segmenter that ships: its card, its size, and that it finds somebody where somebody is."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from hmcli import registry
from hmcli.metrics.backbones.networks import file_hash
from hmcli.metrics.detectors.quality import tally
from hmcli.metrics.detectors.segmenter import PACKAGED, SURE, Segmenter
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import EvalConfig
from hmcli.world.render import draw_clip
from hmcli.world.staging.clip import describe_clip
from hmcli.world.staging.variants import target_alone, without_subjects

MEGABYTES = 4


@pytest.fixture(scope="module")
def detector() -> Segmenter:
    found: Segmenter = registry.find("detector", EvalConfig().detector)(EvalConfig().detector_path, "cpu")
    return found


def test_the_card_is_of_these_weights(detector: Segmenter):
    card = (PACKAGED.parent / "README.md").read_text()
    assert re.findall(r"sha256:[0-9a-f]{64}", card) == [f"sha256:{file_hash(PACKAGED)}"]
    assert detector.about["weights"] in card
    assert PACKAGED.stat().st_size < MEGABYTES * 1e6
    recipe = load_recipe("mini/segmenter")
    assert (recipe.train.part, recipe.data.size) == ("segmenter", (64, 128))
    assert f"{recipe.train.steps} steps" in card
    assert f"seed {recipe.seed}" in card


def test_it_finds_subjects_where_they_are_and_nobody_where_they_were(detector: Segmenter):
    world = replace(load_recipe("nano/clips").world, context_frames=33, hidden_seconds=0.6, visible_seconds=0.8)
    clip = target_alone(describe_clip(world, 77, 0))
    drawn = draw_clip(clip, world.size)
    counted = tally(detector(drawn.rgb), drawn.instances)
    assert counted.subjects.sum() > 5
    assert counted.recall > 0.8
    assert counted.iou > 0.6
    assert counted.precision > 0.6
    empty = draw_clip(without_subjects(clip), world.size).rgb[::2]
    assert sum(map(bool, detector(empty))) < 0.25 * len(empty)
    faint = (drawn.rgb * 0.25 + empty_mean(drawn.rgb) * 0.75).astype(np.uint8)
    scores = [one.score for seen in detector.unsure(faint) for one in seen]
    assert scores  # what is hardly there is not taken for somebody, and not overlooked
    assert max(scores) < SURE
    assert all(one.score >= SURE for seen in detector(faint) for one in seen)


def empty_mean(frames: np.ndarray) -> np.ndarray:
    """(1, 1, 1, 3): the mean colour."""
    return frames.mean((0, 1, 2), keepdims=True)
