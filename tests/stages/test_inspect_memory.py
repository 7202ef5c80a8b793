"""hm inspect --latents: what it draws, measures and refuses, and that it goes on where it stopped."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from benchmark_files import load_benchmark
from PIL import Image
from sealing import edit
from warm import WarmCommand, ok

from hmcli.errors import UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.reporting import report
from hmcli.stages.scoring import evaluate
from hmcli.store.manifest import read_manifest
from hmcli.store.video import read_video

PICTURES = {"affinity-step-000.png", "affinity-step-001.png", "timeline.png", "frames.png", "numbers.png"}


@pytest.fixture(scope="module")
def inspection(hm: WarmCommand, run: Path, latents: Path, place: Path) -> Path:
    return ok(hm("inspect", run, "--latents", latents, "--out", place / "looked"))


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "layers.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def picture(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image).copy()


def clips_of(inspection: Path) -> list[Path]:
    return sorted((inspection / "clips").iterdir())


def test_every_clip_gets_pictures_readings_and_numbers(inspection: Path, latents: Path):
    manifest = read_manifest(inspection)
    assert manifest.kind == "inspection"
    assert len(clips_of(inspection)) == manifest.counts["clips"] == 3
    for folder in clips_of(inspection):
        found = {file.name for file in folder.iterdir()}
        assert found == PICTURES | {"readings.npz", "layers.csv", "numbers.json"}
        for name in PICTURES:
            assert min(picture(folder / name).shape[:2]) > 100
    numbers = json.loads((inspection / "numbers.json").read_text())
    assert list(numbers["clips"]) == list(manifest.items)
    assert (inspection / "numbers.md").read_text().startswith("|  | model | random | oracle |")


def test_the_table_has_each_branch_step_layer_and_chooser_once(inspection: Path):
    for folder in clips_of(inspection):
        rows = [(r["branch"], r["step"], r["layer"], r["choice"]) for r in table(folder)]
        assert len(rows) == len(set(rows)) == 2 * 2 * 2 * 3


def test_numbers_follow_from_the_readings(inspection: Path):
    """Recall and mass of the first layer and step, made again from what was read."""
    for folder in clips_of(inspection):
        with np.load(folder / "readings.npz") as arrays:
            read = dict(arrays)
        assert read["slots"].shape[0] == len(read["branch"]) == 2 * 2 * 2
        first = next(row for row in table(folder) if row["choice"] == "model")
        relevant, chosen = read["relevant"], read["slots"][0]
        found = np.take_along_axis(relevant, chosen, axis=1).sum(axis=1)
        counted = relevant.any(axis=1)
        assert int(first["counted_frames"]) == counted.sum()
        assert int(first["query_frames"]) == len(relevant) == len(read["query_frame"])
        recall = (found[counted] / relevant.sum(axis=1)[counted]).mean()
        assert float(first["recall"]) == pytest.approx(recall)
        assert float(first["mass"]) == pytest.approx(read["mass_model"][0].mean(), rel=1e-5)
        assert not (relevant & read["inside_window"]).any()


def test_the_oracle_is_above_the_model_and_chance(inspection: Path):
    for folder in clips_of(inspection):
        by = {(r["step"], r["layer"], r["branch"], r["choice"]): r for r in table(folder)}
        for (*place, choice), row in by.items():
            best = by[(*place, "oracle")]
            assert float(row["recall"]) <= float(best["recall"]) + 1e-9
            assert 0 < float(row["mass"]) < 1, choice


def test_the_benchmark_of_recall_finds_the_same_without_a_model(
    inspection: Path, clips: Path, nano: Path, tmp_path: Path
):
    benchmark = load_benchmark("recall")
    (found,) = benchmark.main([str(clips), "--recipe", str(nano), "--json", str(tmp_path / "recall.json")])
    mean = json.loads((inspection / "numbers.json").read_text())["mean"]
    for policy in ("random", "oracle"):
        assert found[policy]["recall"] == pytest.approx(mean["recall"][policy]["mean"])
        assert found[policy]["precision"] == pytest.approx(mean["precision"][policy]["mean"])
    assert found["with_returns"] == mean["recall"]["oracle"]["clips"]
    assert json.loads((tmp_path / "recall.json").read_text()) == [found]


def test_it_listens_to_what_generate_does(hm: WarmCommand, inspection: Path, generation: Path, run: Path, place: Path):
    """The frames on the sheet are those of hm generate: same noise, same model."""
    clip = clips_of(inspection)[0]
    video = read_video(generation / "videos" / f"{clip.name}.mp4")
    with np.load(clip / "readings.npz") as arrays:
        relevant = arrays["relevant"]
    row = int(np.flatnonzero(relevant.any(axis=1))[0])
    wanted = Image.fromarray(video[4 * row]).resize((150, 100), Image.Resampling.BICUBIC)
    sheet = picture(clip / "frames.png")[52:152, 4:154]
    assert np.abs(sheet[5:-5, 5:-5].astype(int) - np.asarray(wanted)[5:-5, 5:-5]).mean() < 3


def test_a_second_run_changes_nothing_and_another_sampler_redoes_it(
    hm: WarmCommand, inspection: Path, run: Path, latents: Path, place: Path
):
    before, copy = read_manifest(inspection), place / "looked-again"
    shutil.copytree(inspection, copy)
    again = hm("inspect", run, "--latents", latents, "--out", copy)
    assert ok(again) == copy
    assert "3 items kept" in again.stderr
    assert read_manifest(copy) == before
    clip = clips_of(copy)[0].name
    other = ["--clips", clip, "--prune", "--set", "sample.guidance=1"]
    done = hm("inspect", run, "--latents", latents, "--out", copy, *other)
    assert "1 items stale: redone" in done.stderr
    assert read_manifest(ok(done)).fingerprint != before.fingerprint
    assert {row["branch"] for row in table(copy / "clips" / clip)} == {"caption"}


def test_a_memory_artifact_gives_the_same_readings(
    hm: WarmCommand, inspection: Path, run: Path, latents: Path, place: Path
):
    memory = ok(hm("tokenize-memory", latents, "--model", run, "--out", place / "inspected.memory"))
    clip = clips_of(inspection)[0].name
    done = hm("inspect", run, "--latents", latents, "--memory", memory, "--clips", clip, "--out", place / "from-memory")
    with (
        np.load(ok(done) / "clips" / clip / "readings.npz") as kept,
        np.load(inspection / "clips" / clip / "readings.npz") as computed,
    ):
        for name in computed.files:
            np.testing.assert_array_equal(kept[name], computed[name], err_msg=name)


def test_history_from_before_the_clip_is_counted_in(
    hm: WarmCommand, inspection: Path, run: Path, latents: Path, place: Path
):
    clip = clips_of(inspection)[0].name
    first = ok(hm("tokenize-memory", latents, "--model", run, "--clips", clip, "--out", place / "h1.memory"))
    settings = ("--model", run, "--clips", clip, "--after", first)
    second = ok(hm("tokenize-memory", latents, *settings, "--out", place / "h2.memory"))
    parts = ("--memory", first, "--memory", second)
    done = ok(hm("inspect", run, "--latents", latents, "--clips", clip, *parts, "--out", place / "long"))
    with (
        np.load(done / "clips" / clip / "readings.npz") as long,
        np.load(inspection / "clips" / clip / "readings.npz") as short,
    ):
        context = int(short["query_frame"][0])
        assert long["query_frame"][0] == 2 * context
        earlier = len(long["span"]) - len(short["span"])
        assert (long["span"][earlier:] == short["span"] + context).all()
        assert not long["relevant"][:, :earlier].any()
        assert (long["relevant"][:, earlier:] == short["relevant"]).all()
    assert set(PICTURES) < {file.name for file in (done / "clips" / clip).iterdir()}


def test_joint_models_are_looked_into_too(hm: WarmCommand, joint_run: Path, latents: Path, place: Path):
    done = ok(hm("inspect", joint_run, "--latents", latents, "--out", place / "looked-joint"))
    with np.load(clips_of(done)[0] / "readings.npz") as arrays:
        frames = arrays["query_frame"]
        assert frames[0] == 0  # context frames are queries too ...
        context = int(len(frames) // 2)
        assert not arrays["relevant"][:context].any()  # ... but nothing is asked of them
    assert int(table(clips_of(done)[0])[0]["query_frames"]) == len(frames) - context


@pytest.mark.parametrize("policy", ["none", "all"])
def test_a_model_without_slots_is_refused_with_the_reason(
    hm: WarmCommand, policy: str, nano: Path, latents: Path, place: Path
):
    settings = ("--set", f"model.memory.policy={policy}", "--set", "train.steps=1")
    plain = ok(hm("train", nano, "--latents", latents, "--out", place / f"run-{policy}", *settings))
    done = hm("inspect", plain, "--latents", latents, "--out", place / "never")
    assert done.returncode == 2
    assert f"memory policy is '{policy}': it reads frames and has no memory slots" in done.stderr
    assert not (place / "never").exists()


def test_options_without_effect_are_refused(hm: WarmCommand, run: Path, latents: Path):
    done = hm("inspect", run, "--clips", "a", "--set", "sample.steps=1")
    assert done.returncode == 2
    assert "--clips, --set has no effect without --latents" in done.stderr
    done = hm("inspect", run, "--latents", latents, "--verify")
    assert done.returncode == 2
    assert "--verify has no effect with --latents" in done.stderr


def test_a_dry_run_writes_nothing(hm: WarmCommand, run: Path, latents: Path, place: Path):
    done = hm("inspect", run, "--latents", latents, "--out", place / "planned", "--dry-run")
    assert done.returncode == 0
    assert "3 clips, 2 steps each" in done.stderr
    assert not (place / "planned").exists()


def test_a_report_shows_what_a_row_read_beside_what_shows_the_subject(
    hm: WarmCommand, inspection: Path, generation: Path, tmp_path: Path
):
    evaluate.run(
        load_recipe(), generation=generation, reference=None, metrics=("psnr",), out=tmp_path / "gen.evaluation",
        reporter=Silent(),
    )  # fmt: skip

    def reported(**options) -> list[dict]:
        given = {"bundle": None, "tables": None, "clips": (), "generations": (), "reference": None, "title": "t"}
        page = tmp_path / "r.html"
        report.run([tmp_path / "gen.evaluation"], **given, out=page, reporter=Silent(), **options)
        found = re.search(r'json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
        return json.loads(found[1])["clips"]

    numbers = json.loads((inspection / "numbers.json").read_text())["clips"]
    assert [clip["memory"] for clip in reported()] == [[None]] * 3  # it does not lie beside the evaluation
    for clip in reported(inspections=(inspection,)):
        (read,) = clip["memory"]
        with np.load(inspection / "clips" / clip["id"] / "readings.npz") as arrays:
            chosen = [arrays["slots"][number] for number in np.flatnonzero(arrays["branch"] == "caption")]
            spans, relevant = arrays["span"], arrays["relevant"]
        said = numbers[clip["id"]]
        frames = said["target_frames"]
        assert read["starts"] == [0, *range(1, clip["frames"][1], 4)]
        assert read["spans"] == spans.tolist()
        assert len(read["share"]) == len(read["inside"]) == len(read["starts"]) == frames
        for at, shares in enumerate(read["share"]):
            row = len(relevant) - frames + at
            wanted = [np.mean([slot in of[row] for of in chosen]) for slot in range(len(spans))]
            np.testing.assert_allclose(shares, wanted, atol=6e-4)
            assert read["relevant"][at] == np.flatnonzero(relevant[row]).tolist()
        assert read["recall"] == said["recall"]
        assert read["readings"] == len(chosen)

    other = tmp_path / "other"
    shutil.copytree(inspection, other)
    edit(other / "manifest.json", lambda manifest: manifest["recipe"]["sample"].update(steps=99))
    with pytest.raises(UsageError, match="this inspection is of no row"):
        reported(inspections=(other,))
    ok(hm("report", tmp_path / "gen.evaluation", "--inspection", inspection, "--out", tmp_path / "cli.html"))
    assert '"share": [[' in (tmp_path / "cli.html").read_text()
