"""sample.count: several samples of a clip, each from noise of its own, beside one that stays what it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from warm import WarmCommand, ok

from hmcli.errors import UsageError
from hmcli.metrics.contract import Metric
from hmcli.metrics.pixel import frame_psnr, psnr
from hmcli.recipe.sections import EvalConfig, PosesConfig
from hmcli.stages.data.opening import open_dataset
from hmcli.stages.latents.view import open_latents
from hmcli.stages.sampling.generations import open_generation
from hmcli.stages.sampling.samples import items_of
from hmcli.stages.scoring.clip import Clip
from hmcli.stages.scoring.plan import Column, Plan, columns_of
from hmcli.store.hashing import HashCache
from hmcli.store.manifest import read_manifest
from hmcli.store.video import read_video


def videos(generation: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((generation / "videos").iterdir())}


@pytest.fixture(scope="module")
def generate(hm: WarmCommand, run: Path, latents: Path) -> Callable[..., Any]:
    def generate(out: Path, count: int, *more: object) -> Any:
        return hm("generate", latents, "--model", run, "--out", out, "--set", f"sample.count={count}", *more)

    return generate


@pytest.fixture(scope="module")
def three(generate: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ok(generate(tmp_path_factory.mktemp("three") / "gen", 3))


def test_every_sample_is_a_video_of_its_own_and_the_first_is_that_of_one_alone(
    three: Path, generation: Path, latents: Path
):
    made, alone = videos(three), videos(generation)
    assert made.items() >= alone.items()
    assert len(made) == len(set(made.values())) == 3 * len(alone)
    rows = [json.loads(line) for line in (three / "generations.jsonl").read_text().splitlines()]
    ids = open_latents(latents).ids()
    assert [(row["id"], row["sample"]) for row in rows] == [
        *((clip, 1) for clip in ids), *((clip, number) for clip in ids for number in (2, 3))
    ]  # fmt: skip
    assert len({row["seed"] for row in rows}) == len({row["video"] for row in rows}) == len(rows)
    assert read_manifest(three).counts == {"clips": len(ids), "videos": 3 * len(ids)}
    opened = open_generation(three, PosesConfig())
    assert {clip: [row.sample for row in of] for clip, of in opened.samples.items()} == {
        clip: [1, 2, 3] for clip in ids
    }
    assert all(opened.rows[clip].sample == 1 for clip in ids)


def test_more_samples_are_added_to_those_there_are(
    generate: Callable[..., Any], three: Path, generation: Path, tmp_path: Path
):
    out = tmp_path / "gen"
    assert videos(ok(generate(out, 1))) == videos(generation)
    times = {file: file.stat().st_mtime_ns for file in (out / "videos").iterdir()}
    assert videos(ok(generate(out, 3))) == videos(three)
    assert {file: file.stat().st_mtime_ns for file in times} == times
    assert read_manifest(out).fingerprint == read_manifest(three).fingerprint
    refused = generate(out, 2)
    assert refused.returncode == 2, "one sample of every clip would go"
    assert videos(ok(generate(out, 2, "--prune"))).items() < videos(three).items()


def test_samples_of_one_clip_or_made_by_several_processes_are_the_same(
    generate: Callable[..., Any], three: Path, latents: Path, tmp_path: Path
):
    last = open_latents(latents).ids()[-1]
    alone = ok(generate(tmp_path / "alone", 3, "--clips", last))
    assert len(videos(alone)) == 3
    assert videos(alone).items() < videos(three).items()
    spread = ok(generate(tmp_path / "spread", 3, "--num-processes", 2))
    assert read_manifest(spread).fingerprint == read_manifest(three).fingerprint


def test_parts_with_several_samples_merge_into_what_is_made_at_once(
    hm: WarmCommand, generate: Callable[..., Any], three: Path, tmp_path: Path
):
    parts = [ok(generate(tmp_path / f"part{number}", 3, "--shard", f"{number}/2")) for number in range(2)]
    whole = ok(hm("merge", *parts, "--out", tmp_path / "whole"))
    assert videos(whole) == videos(three)
    assert read_manifest(whole).fingerprint == read_manifest(three).fingerprint
    assert read_manifest(whole).counts == read_manifest(three).counts
    lines = (whole / "generations.jsonl").read_text(), (three / "generations.jsonl").read_text()
    ids = [[(row["id"], row["sample"]) for row in map(json.loads, text.splitlines())] for text in lines]
    assert ids[0] == ids[1]


def test_a_clip_that_has_the_name_of_a_sample_is_refused():
    assert list(items_of(["a", "b"], 2)) == ["a", "b", "a.sample-2", "b.sample-2"]
    with pytest.raises(UsageError, match=r"a\.sample-2"):
        items_of(["a", "a.sample-2"], 2)
    assert len(items_of(["a", "a.sample-2"], 1)) == 2


def test_samples_of_a_policy_that_chooses_by_chance_depend_on_no_other_sample(
    hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path
):
    chance = ["--set", "model.memory.policy=random"]
    run = ok(hm("train", nano, "--latents", latents, "--out", tmp_path / "run", *chance))
    made = {}
    for count in (3, 2):
        place = tmp_path / f"{count}"
        line = ["generate", latents, "--model", run, "--out", place, "--set", f"sample.count={count}"]
        made[count] = videos(ok(hm(*line)))
    assert made[2].items() < made[3].items()


# --- scoring several -------------------------------------------------------------------------------------------------


def test_single_samples_are_scored_and_their_mean_picture_beside_them(
    hm: WarmCommand, three: Path, clips: Path, tmp_path: Path
):
    metrics = ["--metric", "psnr", "--metric", "subject-consistency", "--metric", "psnr-stretch"]
    done = ok(hm("eval", three, "--reference", clips, *metrics, "--out", tmp_path / "e", "--set", "eval.backbone=hog"))
    scores = json.loads((done / "scores.json").read_text())["metrics"]
    mean = "[mean picture of 3]"
    assert list(scores) == [
        "psnr", "subject-consistency (hog)", "psnr-stretch", f"psnr {mean}", f"psnr-stretch {mean}",
    ]  # fmt: skip
    dataset, rows = open_dataset(clips, PosesConfig()), open_generation(three, PosesConfig()).samples
    single, blurred = [], []
    for source in dataset.clips:
        true = read_video(source.files["target"])
        made = [read_video(three / row.video) for row in rows[source.id]]
        single.append(np.mean([frame_psnr(video, true) for video in made]))
        picture = np.floor(np.mean(made, axis=0) + 0.5).astype(np.uint8)
        blurred.append(frame_psnr(picture, true).mean())
    assert scores["psnr"]["mean"] == pytest.approx(np.mean(single), rel=1e-9)
    assert scores[f"psnr {mean}"]["mean"] == pytest.approx(np.mean(blurred), rel=1e-9)
    assert scores[f"psnr {mean}"]["mean"] > scores["psnr"]["mean"], "PSNR rewards a blur"
    assert "3: scores are of single samples" in (done / "protocol.md").read_text()


def test_a_changed_sample_is_another_value_and_a_lost_one_fails_its_clip(
    hm: WarmCommand, three: Path, generation: Path, clips: Path, tmp_path: Path
):
    lost = shutil.copytree(three, tmp_path / "lost")
    victim = next(file for file in (lost / "videos").iterdir() if "sample-3" in file.name)
    victim.unlink()
    done = hm("eval", lost, "--reference", clips, "--metric", "psnr", "--out", tmp_path / "e")
    assert done.returncode in (3, 4), done.stderr
    one, several = (
        FirstClip(place, clips, columns_of([psnr], EvalConfig(), (32, 48), open_generation(place, PosesConfig()).count))
        for place in (generation, three)
    )
    keys = {column.name: several.key(column) for column in several.columns}
    assert set(keys) == {"psnr", "psnr.mean-3"}
    assert len({*keys.values(), one.key(one.columns[0])}) == 3


def test_a_metric_that_compares_samples_is_computed_once_with_all_of_them(three: Path, clips: Path):
    given: list[dict[str, Any]] = []

    def look(**inputs: Any) -> float:
        given.append(inputs)
        return 1.0

    needs = ("prediction", "reference", "detections", "other_samples")
    metric = Metric(name="look", function=look, needs=needs, unit="", definition="", per="clip")
    opened = open_generation(three, PosesConfig())
    (column,) = columns_of([metric], EvalConfig(), (32, 48), opened.count)  # none of their mean picture
    clip = FirstClip(three, clips, (column,))
    assert clip.values(column).values.tolist() == [1.0]
    (inputs,) = given
    made = [read_video(three / row.video) for row in opened.samples[clip.id]]
    seen = [(inputs["prediction"], inputs["detections"]), *inputs["other_samples"]]
    for (video, detections), true in zip(seen, made, strict=True):
        np.testing.assert_array_equal(video, true)
        assert len(detections) == len(true)


def test_the_spread_of_a_single_sample_is_refused_and_left_out(
    hm: WarmCommand, generation: Path, three: Path, clips: Path, tmp_path: Path
):
    line = ["eval", generation, "--reference", clips, "--out", tmp_path / "e", "--dry-run"]
    done = hm(*line, "--metric", "reentry-spread")
    assert done.returncode == 2
    assert "compares samples, and the generation has one sample of every clip" in done.stderr
    assert "without reentry-spread: the generation has one sample" in hm(*line, "--set", "eval.backbone=hog").stderr
    done = ok(hm("eval", three, "--reference", clips, "--out", tmp_path / "s", "--metric", "reentry-spread"))
    (label,) = json.loads((done / "scores.json").read_text())["metrics"]
    assert label == "reentry-spread (segmenter)"


class FirstClip(Clip):
    """The first clip of a generation, and the columns that are asked of it."""

    def __init__(self, generation: Path, clips: Path, columns: tuple[Column, ...]) -> None:
        self.columns, generated = columns, open_generation(generation, PosesConfig())
        first = generated.clips[0]
        plan = Plan(
            generated=generated, clips=(first,), reference=open_dataset(clips, PosesConfig()), columns=columns,
            settings=EvalConfig(), device="cpu", versions={},
        )  # fmt: skip
        super().__init__(plan, first, HashCache())
