"""What metrics are given, what is read for it, on what files their values depend, and values of every grain."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_detector import FOUND, write_random_detector

from hmcli import registry
from hmcli.errors import DataError, UsageError
from hmcli.metrics.contract import (
    BOXES,
    CAMERAS,
    CONTEXT,
    DEPTH,
    DETECTIONS,
    MASKS,
    PREDICTION,
    REFERENCE,
    TRACKS,
    TRUE_DETECTIONS,
    UNSURE,
    Detection,
    Metric,
    NothingToJudge,
)
from hmcli.metrics.detectors.objects import ObjectDetector
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import Recipe
from hmcli.runtime import Silent
from hmcli.stages.data import loading
from hmcli.stages.data.annotations import read_annotations
from hmcli.stages.data.loading import load_clip
from hmcli.stages.data.opening import open_dataset
from hmcli.stages.data.subjects import subject_tracks
from hmcli.stages.parts.merge import run as merge
from hmcli.stages.sampling.generations import open_generation
from hmcli.stages.scoring import clip as scored
from hmcli.stages.scoring import evaluate, sightings
from hmcli.stages.scoring.plan import Plan, columns_of
from hmcli.stages.shared.shards import Shard
from hmcli.store.video import read_video
from hmcli.world.views.framing import resize_boxes

SEEN: dict[str, Any] = {}


def _keep(**inputs: Any) -> list[float]:
    """A metric that looks at what it is given."""
    SEEN.update(inputs)
    return [0.0] * len(inputs[PREDICTION])


def probe(*needs: str, **more: Any) -> Metric:
    given = {"name": "probe", "function": _keep, "needs": (PREDICTION, *needs), "unit": "", "definition": "a probe"}
    return Metric(**{**given, **more})


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[Metric], None]:
    """Makes metrics known under their names."""
    found: dict[str, Metric] = {}
    real = registry.find

    def find(kind: str, name: str) -> Any:
        return found[name] if kind == "metric" and name in found else real(kind, name)

    for module in ("hmcli.stages.scoring.evaluate", "hmcli.stages.scoring.results"):
        monkeypatch.setattr(f"{module}.find", find)
    return lambda metric: found.update({metric.name: metric})


@pytest.fixture
def score(generation: Path, tmp_path: Path) -> Callable[..., Path]:
    def score(*metrics: str, reference: Path, out: str = "eval", **options: Any) -> Path:
        return evaluate.run(
            load_recipe(), generation=generation, reference=reference, metrics=metrics, out=tmp_path / out,
            reporter=Silent(), **options,
        ).path  # fmt: skip

    return score


def test_inputs_are_those_of_the_clip_framed_as_its_videos_are(known: Any, score: Any, generation: Path, clips: Path):
    known(probe(REFERENCE, CONTEXT, MASKS, TRACKS, CAMERAS, DEPTH, BOXES))
    dataset = open_dataset(clips, load_recipe().poses)
    last, data = dataset.clips[-1], open_generation(generation, load_recipe().poses).data
    score("probe", reference=clips)
    whole = load_clip(last, data)
    true = read_annotations(last.files["context"].parent)
    n, t = len(whole.context), len(whole.target)
    np.testing.assert_array_equal(SEEN[REFERENCE], whole.target)
    np.testing.assert_array_equal(SEEN[CONTEXT], whole.context)
    np.testing.assert_array_equal(SEEN[MASKS], whole.target_mask)
    np.testing.assert_array_equal(SEEN[CAMERAS].context_N44, whole.context_poses)
    np.testing.assert_array_equal(SEEN[CAMERAS].target_T44, whole.target_poses)
    np.testing.assert_array_equal(SEEN[CAMERAS].intrinsics_4, whole.intrinsics)
    assert SEEN[DEPTH].context_NHW.shape == whole.context.shape[:3]
    assert SEEN[DEPTH].target_THW.shape == whole.target.shape[:3]
    if true.depth.shape[1:] == whole.target.shape[1:3]:
        np.testing.assert_array_equal(SEEN[DEPTH].target_THW, true.depth[n : n + t].astype(np.float32))
    tracks = SEEN[TRACKS]
    assert tracks.target_T.tolist() == list(range(n, n + t))
    assert tracks.context_N.tolist() == list(range(n))
    rendered, (height, width) = (last.context_info.height, last.context_info.width), whole.target.shape[1:3]
    for subject, state in zip(tracks.subjects, true.subjects, strict=True):
        assert (subject.name, subject.number, subject.family) == (state.name, state.number, state.family)
        np.testing.assert_array_equal(subject.position_A3, state.position)
        for box, shown in zip(subject.box_A4, state.box, strict=True):
            framed = resize_boxes(np.array(shown or (np.nan,) * 4), rendered, (height, width), data.fit)
            np.testing.assert_array_equal(box, framed)
        for stretch, gone in zip(subject.stretches, state.hidden, strict=True):
            assert (stretch.first, stretch.last, stretch.certified) == (gone.first, gone.last, gone.certified)
            back = gone.last + 1 - n
            assert stretch.back == (back if 0 <= back < t and not gone.absent else None)


def test_of_the_clips_videos_only_the_target_is_decoded(score: Any, clips: Path, monkeypatch: pytest.MonkeyPatch):
    decoded: list[str] = []

    def watched(content: Any, **options: Any) -> np.ndarray:
        decoded.append(Path(getattr(content, "path", content)).name)
        return read_video(content, **options)

    monkeypatch.setattr(loading, "read_video", watched)
    score("psnr", reference=clips)
    assert set(decoded) == {"tgt.mp4"}


def test_a_broken_mask_costs_only_the_metrics_that_need_it(score: Any, clips: Path, tmp_path: Path):
    data = shutil.copytree(clips, tmp_path / "data")
    first = sorted(clip.name for clip in data.iterdir() if (clip / "tgt.mp4").is_file())[0]
    mask = next((data / first).glob("tgt_instances.mp4"))
    mask.write_bytes(mask.read_bytes()[:200])
    done = score("psnr", "psnr-subjects", reference=data)
    with (done / "per_clip.csv").open() as file:
        rows = {(row["clip"], row["metric"]): row for row in csv.DictReader(file)}
    assert rows[first, "psnr"]["status"] == "ok"
    assert rows[first, "psnr-subjects"]["status"] == "failed"
    others = {row["status"] for (clip, name), row in rows.items() if clip != first and name == "psnr-subjects"}
    assert others <= {"ok", "not judged"}


CHANGED = {  # file of the clip -> metrics whose values depend on it
    "tgt.mp4": {"psnr", "psnr-subjects", "psnr-stretch", "psnr-outside", "psnr-returned", "dsc-gt"},
    "cond.mp4": {"dsc-ctx"},
    "tgt_instances.mp4": {"psnr-subjects"},
    "subjects.json": {"psnr-stretch", "psnr-outside", "psnr-returned", "dsc-ctx", "dsc-gt"},
    "depth.npz": {"by-depth"},
    "intrinsics.json": {"by-cameras"},
    "camera.json": {"by-cameras"},
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_value_depends_on_the_files_that_it_is_made_from_and_on_no_other(
    name: str, generation: Path, clips: Path, tmp_path: Path
):
    metrics = [registry.find("metric", of) for of in sorted(CHANGED["tgt.mp4"] | CHANGED["cond.mp4"])]
    metrics += [probe(DEPTH, name="by-depth"), probe(CAMERAS, name="by-cameras")]
    data = shutil.copytree(clips, tmp_path / "data")
    clip = sorted(place.name for place in data.iterdir() if (place / "tgt.mp4").is_file())[0]
    before = keys(generation, data, clip, metrics)
    (file,) = (data / clip).glob(name)
    content = bytearray(file.read_bytes())
    if name.endswith(".json"):
        file.write_text(json.dumps(json.loads(content), indent=7))  # other bytes, and still readable
    else:
        file.write_bytes(content + b"\0")
    after = keys(generation, data, clip, metrics)
    assert {metric for metric in before if before[metric] != after[metric]} == CHANGED[name]


def keys(
    generation: Path, data: Path, clip: str, metrics: list[Metric], recipe: Recipe | None = None
) -> dict[str, str]:
    recipe = recipe or load_recipe()
    plan = Plan(
        generated=open_generation(generation, recipe.poses), clips=(clip,), reference=open_dataset(data, recipe.poses),
        columns=columns_of(metrics, recipe.eval, (32, 48)), settings=recipe.eval, device="cpu", versions={},
    )  # fmt: skip
    inputs = scored.Clip(plan, clip, evaluate.HashCache())
    return {column.metric.name: inputs.key(column) for column in plan.columns}


# --- subjects found in the prediction ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found_by(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = write_random_detector(tmp_path_factory.mktemp("detector"))
    return ["eval.detector=transformers", f"eval.detector_path={folder}"]


def test_detections_are_what_the_detector_sees_in_the_prediction_asked_once(
    known: Any, generation: Path, tmp_path: Path, found_by: list[str], monkeypatch: pytest.MonkeyPatch
):
    known(FOUND)
    known(dataclasses.replace(FOUND, name="found-again"))
    recipe, asked = load_recipe(None, found_by), []
    real = ObjectDetector.__call__

    def watched(detector: ObjectDetector, frames: np.ndarray) -> Any:
        asked.append(frames.tobytes())
        return real(detector, frames)

    monkeypatch.setattr(ObjectDetector, "__call__", watched)
    done = evaluate.run(
        recipe, generation=generation, reference=None, metrics=("found", "found-again"), out=tmp_path / "eval",
        reporter=Silent(),
    ).path  # fmt: skip
    assert len(asked) == len(set(asked)) == len(list((generation / "videos").iterdir()))
    detector = registry.find("detector", "transformers")(recipe.eval.detector_path, "cpu")
    for video in (generation / "videos").iterdir():
        (file,) = (done / "frames").glob(f"{video.stem}.found.transformers.json")
        values = json.loads(file.read_text())
        assert values["metric"] == "found (transformers)"
        assert values["values"] == [len(seen) for seen in detector(read_video(video))]
    assert set(json.loads((done / "scores.json").read_text())["metrics"]) == {
        "found (transformers)", "found-again (transformers)",
    }  # fmt: skip
    card = json.loads((done / "manifest.json").read_text())["attributes"]["protocol"]
    assert card["Detector"] == {"name": "transformers", **detector.about}


def test_what_metrics_share_is_computed_once_and_one_detector_sees_the_truth_too(
    known: Any, generation: Path, clips: Path, tmp_path: Path, found_by: list[str]
):
    asked: list[tuple[np.ndarray, Any, Any]] = []

    def both(prediction: np.ndarray, detections: Any, true_detections: Any, unsure: Any) -> tuple[int, int]:
        assert unsure(prediction[:2]) == [[], []]  # this detector is always sure
        asked.append((prediction, detections, true_detections))
        return len(detections[0]), len(true_detections[0])

    one = Metric(
        name="first", function=lambda counts: counts[0], shared=both, unit="", definition="of the prediction",
        needs=(PREDICTION, DETECTIONS, TRUE_DETECTIONS, UNSURE), per="clip",
    )  # fmt: skip
    other = dataclasses.replace(one, name="second", function=lambda counts: counts[1], definition="of the truth")
    known(one)
    known(other)
    done = evaluate.run(
        load_recipe(None, found_by), generation=generation, reference=clips, metrics=("first", "second"),
        out=tmp_path / "eval", reporter=Silent(),
    ).path  # fmt: skip
    videos = sorted((generation / "videos").iterdir())
    assert len(asked) == len(videos)
    detector = registry.find("detector", "transformers")(found_by[1].partition("=")[2], "cpu")
    for video in videos:
        for name, file in (("first", video), ("second", clips / video.stem / "tgt.mp4")):
            values = json.loads((done / "frames" / f"{video.stem}.{name}.transformers.json").read_text())
            assert values["values"] == [len(detector(read_video(file)[:1])[0])]
    with pytest.raises(ValueError, match="is read beside"):
        dataclasses.replace(one, needs=(PREDICTION, TRUE_DETECTIONS))


def test_metrics_of_different_needs_share_what_is_made_of_the_needs_of_both(
    known: Any, generation: Path, clips: Path, tmp_path: Path
):
    asked: list[np.ndarray] = []

    def differences(prediction: np.ndarray, reference: np.ndarray) -> np.ndarray:
        asked.append(prediction)
        return np.abs(prediction.astype(float) - reference).mean(axis=(1, 2, 3))

    first = Metric(
        name="all-frames", function=lambda of: of, shared=differences, needs=(PREDICTION, REFERENCE), unit="",
        definition="of all frames",
    )  # fmt: skip
    known(first)
    known(dataclasses.replace(
        first, name="by-tracks", needs=(PREDICTION, REFERENCE, TRACKS), shares=(PREDICTION, REFERENCE),
        function=lambda of, tracks: of + len(tracks.subjects), definition="and the subjects' number",
    ))  # fmt: skip
    done = evaluate.run(
        load_recipe(), generation=generation, reference=clips, metrics=("by-tracks", "all-frames"),
        out=tmp_path / "eval", reporter=Silent(),
    ).path  # fmt: skip
    videos = sorted((generation / "videos").iterdir())
    assert len(asked) == len(videos)
    for video in videos:
        subjects = len(json.loads((clips / video.stem / "subjects.json").read_text()))
        one, other = (
            json.loads((done / "frames" / f"{video.stem}.{name}.json").read_text())["values"]
            for name in ("all-frames", "by-tracks")
        )
        assert other == pytest.approx([value + subjects for value in one])
    with pytest.raises(ValueError, match="shares names needs"):
        dataclasses.replace(first, shares=(TRACKS,))


def test_values_depend_on_the_detector(generation: Path, clips: Path, tmp_path: Path):
    def key(names: tuple[str, ...]) -> str:
        folder = write_random_detector(tmp_path / names[0], names)
        recipe = load_recipe(None, ["eval.detector=transformers", f"eval.detector_path={folder}"])
        clip = sorted(place.name for place in clips.iterdir() if (place / "tgt.mp4").is_file())[0]
        return keys(generation, clips, clip, [FOUND], recipe)["found"]

    assert key(("person", "dog")) != key(("dog", "person"))


def test_without_a_detector_its_metrics_are_left_out_or_refused_by_name(
    known: Any, score: Any, generation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    known(FOUND)
    with pytest.raises(UsageError, match="needs a detector"):
        evaluate.run(
            load_recipe(None, ["eval.detector=''"]), generation=generation, reference=None, metrics=("found",),
            out=tmp_path / "none", reporter=Silent(),
        )  # fmt: skip
    monkeypatch.setitem(registry.BUILT_IN["metric"], "found", "small_detector:FOUND")
    notes: list[str] = []

    class Notes(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    evaluate.run(
        load_recipe(None, ["eval.backbone=hog", "eval.detector=''"]), generation=generation, reference=None, metrics=(),
        out=tmp_path / "all", reporter=Notes(), dry_run=True,
    )  # fmt: skip
    assert any(note.startswith("without ") and " found: eval.detector is empty" in note for note in notes)


BOX = np.array([0.0, 0.0, 4.0, 4.0])


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([], "lists for"),
        ([[Detection(box_4=BOX, score=0.2), Detection(box_4=BOX, score=0.4)]], "from 1 down to 0"),
        ([[Detection(box_4=BOX, score=1.5)]], "from 1 down to 0"),
        ([[Detection(box_4=BOX * np.nan, score=0.2)]], "no box"),
        ([[Detection(box_4=BOX, score=0.2, mask_HW=np.zeros((3, 4), bool))]], "mask"),
        ([[Detection(box_4=BOX, score=0.2, mask_HW=np.zeros((6, 8), np.uint8))]], "mask"),
        ([[Detection(box_4=BOX[:3], score=0.2)]], "no box"),
    ],
)
def test_a_detector_that_breaks_its_promise_is_refused(found: Any, says: str):
    with pytest.raises(DataError, match=says):
        sightings.checked(found, np.zeros((1, 6, 8, 3), np.uint8))


def test_detections_with_and_without_masks_are_taken_as_they_are():
    found = [[Detection(box_4=BOX, score=1.0, mask_HW=np.ones((6, 8), bool)), Detection(box_4=BOX, score=0.0)], []]
    assert sightings.checked(found, np.zeros((2, 6, 8, 3), np.uint8)) is found


# --- values of every grain -------------------------------------------------------------------------------------------


def test_a_metric_of_stretches_has_a_row_for_each(score: Any, clips: Path):
    done = score("psnr-stretch", reference=clips)
    with (done / "per_stretch.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = []
    for source in open_dataset(clips, load_recipe().poses).clips:
        for state in read_annotations(source.files["context"].parent).subjects:
            wanted += [(source.id, state.name, str(gone.first), str(gone.last)) for gone in state.hidden
                       if gone.certified and not gone.absent]  # fmt: skip
    assert sorted((row["clip"], row["subject"], row["first"], row["last"]) for row in rows) == sorted(wanted)
    found = json.loads((done / "scores.json").read_text())["metrics"]["psnr-stretch"]
    assert (found["per"], found["frames"]) == ("stretch", len(rows))
    assert found["mean"] == pytest.approx(np.mean([float(row["value"]) for row in rows]))


def _counts(prediction: np.ndarray) -> list[float]:
    """Bright frames, and frames."""
    return [float((prediction.mean(axis=(1, 2, 3)) > 120).sum()), float(len(prediction))]


def _share(parts_nk: np.ndarray) -> float:
    hits, frames = parts_nk.sum(axis=0)
    return float(hits / frames) if frames else float("nan")


BRIGHT = Metric(
    name="bright", function=_counts, needs=(PREDICTION,), unit="", definition="share of bright frames", per="clip",
    parts=("bright frames", "frames"), pooled=_share,
)  # fmt: skip


def test_a_number_of_the_set_is_pooled_from_the_parts_of_its_clips(
    known: Any, score: Any, clips: Path, generation: Path, tmp_path: Path
):
    known(BRIGHT)
    done = score("bright", reference=None)
    parts = [json.loads(file.read_text())["values"] for file in sorted((done / "frames").glob("*.bright.json"))]
    assert parts == [_counts(read_video(file)) for file in sorted((generation / "videos").iterdir())]
    found = json.loads((done / "scores.json").read_text())["metrics"]["bright"]
    assert (found["mean"], found["per"], found["n"]) == (_share(np.array(parts)), "clip", len(parts))
    shards = [
        score("bright", reference=None, out=f"part{number}", shard=Shard(index=number, of=2)) for number in range(2)
    ]
    merged = merge(tuple(shards), out=tmp_path / "merged", reporter=Silent())
    for name in ("scores.json", "per_clip.csv"):
        assert (merged.path / name).read_text() == (done / name).read_text()


@pytest.mark.parametrize(
    ("returned", "says"),
    [([1.0], "promised"), ([1.0, float("nan")], "not a number"), (np.ma.masked_all(2), "no value")],
)
def test_parts_that_are_no_numbers_fail_the_clip(known: Any, score: Any, returned: Any, says: str):
    known(Metric(**{**vars(BRIGHT), "function": lambda prediction: returned}))
    found = json.loads((score("bright", reference=None) / "scores.json").read_text())["metrics"]["bright"]
    assert (found["mean"], found["n"]) == (None, 0)
    assert found["failed"] == len(found["failures"]) > 0
    assert all(says in failure["reason"] for failure in found["failures"])


def test_stretches_without_any_are_not_judged(known: Any, score: Any, clips: Path):
    def nothing(prediction: np.ndarray) -> Any:
        raise NothingToJudge("nobody hides")

    known(probe(name="never", function=nothing, per="stretch", partial=True))
    done = score("never", reference=None)
    found = json.loads((done / "scores.json").read_text())["metrics"]["never"]
    assert (found["mean"], found["n"], found["failed"]) == (None, 0, 0)
    assert found["not_judged"] == len(list((done / "frames").iterdir()))
    assert not (done / "per_stretch.csv").exists()


def test_subjects_are_compared_in_the_boxes_of_the_clip_as_its_videos_are_framed(
    clips: Path, generation: Path, tmp_path: Path
):
    done = evaluate.run(
        load_recipe(None, ["eval.backbone=hog"]), generation=generation, reference=clips, metrics=("dsc-ctx", "dsc-gt"),
        out=tmp_path / "eval", reporter=Silent(),
    ).path  # fmt: skip
    found = json.loads((done / "scores.json").read_text())["metrics"]
    assert list(found) == ["dsc-ctx (hog, truth)", "dsc-gt (hog, truth)"]
    backbone, generated = (
        registry.find("backbone", "hog")("", "cpu"),
        open_generation(generation, load_recipe().poses),
    )
    wanted: dict[str, list[float]] = {"dsc-ctx": [], "dsc-gt": []}
    for source in open_dataset(clips, load_recipe().poses).clips:
        whole = load_clip(source, generated.data)
        tracks = subject_tracks(source, read_annotations(source.files["context"].parent).subjects, generated.data)
        prediction = read_video(next((generation / "videos").glob(f"{source.id}*")))
        shared = {"prediction": prediction, "tracks": tracks, "backbone": backbone}
        for name, other in (("dsc-ctx", {"context": whole.context}), ("dsc-gt", {"reference": whole.target})):
            with contextlib.suppress(NothingToJudge):
                wanted[name].append(registry.find("metric", name)(**shared, **other))
    for name, values in wanted.items():
        entry = found[f"{name} (hog, truth)"]
        assert (entry["per"], entry["n"]) == ("clip", len(values))
        assert values
        assert entry["mean"] == pytest.approx(np.mean(values), rel=1e-5)


# --- what stands in a column's name ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "label"),
    [
        ((64, 128), "subject-consistency (hog, identity AUC .88, unreliable)"), ((32, 48), "subject-consistency (hog)"),
    ],
)  # fmt: skip
def test_how_well_a_backbone_knows_subjects_stands_in_the_name_where_it_was_measured(size: Any, label: str):
    settings = dataclasses.replace(load_recipe().eval, backbone=("hog",))
    metrics = [registry.find("metric", name) for name in ("psnr", "subject-consistency", "perceptual-effnet")]
    assert [column.label for column in columns_of(metrics, settings, size)] == ["psnr", label, "perceptual-effnet"]
    names = [column.name for column in columns_of(metrics, settings, size)]
    assert names == ["psnr", "subject-consistency.hog", "perceptual-effnet"]
