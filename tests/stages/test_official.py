"""The published DSC in an evaluation: of the clip's own masks, the run's detector, and the network at eval.dsc_path."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from small_clip import write_random_clip
from small_detector import write_random_detector

from hmcli import registry
from hmcli.errors import MissingPartError
from hmcli.metrics.backbones.regions import clip_regions
from hmcli.metrics.contract import NothingToJudge
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.data.loading import load_clip
from hmcli.stages.data.opening import open_dataset
from hmcli.stages.sampling.generations import open_generation
from hmcli.stages.scoring import evaluate
from hmcli.store.video import read_video

METRICS = ("dsc-ctx-official", "dsc-gt-official")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_it_is_of_the_clips_masks_and_of_what_the_detector_finds(generation: Path, clips: Path, tmp_path: Path):
    vision, objects = write_random_clip(tmp_path / "vision"), write_random_detector(tmp_path / "detector")
    settings = ["eval.detector=transformers", f"eval.detector_path={objects}", f"eval.dsc_path={vision}"]
    done = evaluate.run(
        load_recipe(None, settings), generation=generation, reference=clips, metrics=METRICS, out=tmp_path / "eval",
        reporter=Silent(),
    ).path  # fmt: skip
    found = json.loads((done / "scores.json").read_text())["metrics"]
    assert list(found) == [f"{name} (clip-regions, transformers)" for name in METRICS]
    detector = registry.find("detector", "transformers")(str(objects), "cpu")
    regions, data = clip_regions(str(vision), "cpu"), open_generation(generation, load_recipe().poses).data
    wanted: dict[str, list[float]] = {name: [] for name in METRICS}
    for source in open_dataset(clips, load_recipe().poses).clips:
        whole = load_clip(source, data)
        video = read_video(next((generation / "videos").glob(f"{source.id}*")))
        shared = {"prediction": video, "detections": detector(video), "regions": regions}
        of_context = {"context": whole.context, "context_masks": whole.context_mask}
        of_truth = {"reference": whole.target, "masks": whole.target_mask}
        for name, other in zip(METRICS, (of_context, of_truth), strict=True):
            with contextlib.suppress(NothingToJudge):
                wanted[name].append(registry.find("metric", name)(**shared, **other))
    for name, values in wanted.items():
        assert values
        entry = found[f"{name} (clip-regions, transformers)"]
        assert (entry["n"], entry["mean"]) == (len(values), pytest.approx(sum(values) / len(values), rel=1e-6))
    card = json.loads((done / "manifest.json").read_text())["attributes"]["protocol"]
    assert "shift" in card["Backbone"]["resize"]
    assert json.loads((done / "manifest.json").read_text())["recipe"]["eval"]["dsc_path"] == str(vision)


def test_without_its_network_it_is_left_out_with_a_note_or_refused_by_name(
    generation: Path, clips: Path, tmp_path: Path
):
    notes: list[str] = []

    class Notes(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    evaluate.run(
        load_recipe(None, ["eval.backbone=hog"]), generation=generation, reference=clips, metrics=(),
        out=tmp_path / "all", reporter=Notes(), dry_run=True,
    )  # fmt: skip
    assert any(note.startswith(f"without {', '.join(METRICS)}: eval.dsc_path is empty") for note in notes)
    with pytest.raises(MissingPartError, match="dsc_path is empty"):
        evaluate.run(
            load_recipe(), generation=generation, reference=clips, metrics=METRICS, out=tmp_path / "asked",
            reporter=Silent(),
        )  # fmt: skip
