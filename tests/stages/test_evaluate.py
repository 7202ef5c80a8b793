"""hm eval as a stage: what it computes and refuses, what it counts as failed, and that it goes on where it stopped."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import small_generations as small
import torch
from random_lpips import write_random_lpips
from sealing import edit, list_again

from hmcli.contracts import StageResult
from hmcli.errors import DataError, MissingPartError, RecipeError, UsageError
from hmcli.metrics.backbones import effnet
from hmcli.metrics.backbones.hog import hog
from hmcli.metrics.consistency import subject_consistency
from hmcli.metrics.lpips import load_lpips
from hmcli.metrics.pixel import psnr, ssim
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.scoring import evaluate
from hmcli.stages.scoring import videos as generated_videos
from hmcli.store.artifact import ArtifactWriter, verify
from hmcli.store.files import write_json, write_json_lines
from hmcli.store.hashing import hash_json
from hmcli.store.manifest import is_artifact, read_manifest
from hmcli.store.video import read_video, write_video
from hmcli.world.views.cameras import unreal_from_world

HEIGHT, WIDTH, CONTEXT = 16, 24, 9
FOUR = ("psnr", "ssim", "subject-consistency", "background-consistency")
LENGTHS = {"one": 5, "two": 9, "three": 13}  # target frames


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


class Notes(Silent):
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    warn = note


def moving(frames: int, seed: int) -> np.ndarray:
    """A smooth random picture that slides by a pixel per frame: (frames, HEIGHT, WIDTH, 3) uint8."""
    rng = np.random.default_rng(seed)
    wide = rng.uniform(0, 255, (HEIGHT // 4, WIDTH // 4 + 8, 3)).repeat(4, axis=0).repeat(4, axis=1)
    return np.stack([wide[:, i : i + WIDTH] for i in range(frames)]).astype(np.uint8)


def make_data(folder: Path, lengths: dict[str, int], targets: bool = True) -> Path:
    """A data set in the released layout, stored without loss."""
    for seed, (clip, frames) in enumerate(lengths.items()):
        place = folder / clip
        place.mkdir(parents=True)
        write_video(place / "cond.mp4", moving(CONTEXT, seed), fps=15, quality="lossless")
        if targets:
            write_video(place / "tgt.mp4", moving(frames, seed + 50), fps=15, quality="lossless")
        cameras = {
            name: {str(i): matrix.tolist() for i, matrix in enumerate(unreal_from_world(np.tile(np.eye(4), (n, 1, 1))))}
            for name, n in (("cond_cam", CONTEXT), ("tgt_cam", frames))
        }
        (place / "camera.json").write_text(json.dumps(cameras))
    return folder


def make_generation(
    folder: Path, lengths: dict[str, int], source: Path | None = None, left_out: tuple[str, ...] = (), seed: int = 0
) -> Path:
    """A generation artifact: the true targets with noise on them."""
    rows = []
    with ArtifactWriter(folder, "generation", recipe={"sample": {}}, inputs={}, seed=seed, reporter=Silent()) as writer:
        for index, (clip, frames) in enumerate(lengths.items()):
            noise = np.random.default_rng(seed + index).normal(0, 12, (frames, HEIGHT, WIDTH, 3))
            video = np.clip(moving(frames, index + 50) + noise, 0, 255).astype(np.uint8)
            with writer.item_file(clip, hash_json([clip, seed]), suffix=".mp4", parent="videos") as place:
                write_video(place, video, fps=15, quality="near-lossless")
            rows.append(small.row(clip, frames, HEIGHT, WIDTH, seed=seed))
        for clip in left_out:
            writer.quarantine(clip, "its context is cut short")
        write_json_lines(writer.staged / "generations.jsonl", rows)
        data = dataclasses.replace(load_recipe().data, size=(HEIGHT, WIDTH))
        writer.finish(list(lengths), attributes=small.attributes(data, source=source or ""))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A data set and a generation of its three clips."""
    root = tmp_path_factory.mktemp("made")
    make_data(root / "data", LENGTHS)
    make_generation(root / "gen", LENGTHS, source=root / "data")
    return root


def evaluated(generation: Path, out: Path, *settings: str, **options) -> StageResult:
    given = {"reference": None, "metrics": FOUR, "reporter": Silent(), **options}
    return evaluate.run(load_recipe(None, ["eval.backbone=hog", *settings]), generation=generation, out=out, **given)


def scores(result: StageResult) -> dict:
    return json.loads((result.path / "scores.json").read_text())["metrics"]


def table(result: StageResult) -> list[dict[str, str]]:
    with (result.path / "per_clip.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_metric_whose_inputs_are_there_is_computed_from_the_decoded_videos(made, tmp_path):
    result = evaluated(made / "gen", tmp_path / "eval", metrics=())
    videos = {clip: read_video(made / "gen" / "videos" / f"{clip}.mp4") for clip in LENGTHS}
    truth = {clip: read_video(made / "data" / clip / "tgt.mp4") for clip in LENGTHS}
    backbone = hog("", "cpu")
    expected = {
        "psnr": [psnr(prediction=videos[clip], reference=truth[clip]) for clip in LENGTHS],
        "ssim": [ssim(prediction=videos[clip], reference=truth[clip]) for clip in LENGTHS],
        "subject-consistency (hog)": [subject_consistency(prediction=v, backbone=backbone) for v in videos.values()],
    }
    found = scores(result)
    assert list(found) == [
        "psnr",
        "ssim",
        "perceptual-effnet",
        "subject-consistency (hog)",
        "background-consistency (hog)",
        "motion-amount",
        "drift-error",
        "drift-sharpness",
        "drift-colour",
    ]
    for label, values in expected.items():
        assert found[label]["mean"] == pytest.approx(np.concatenate(values).mean(), rel=1e-12)
        assert (found[label]["n"], found[label]["failed"]) == (3, 0)
        per_clip = {row["clip"]: float(row["value"]) for row in table(result) if row["metric"] == label}
        assert per_clip == pytest.approx({c: v.mean() for c, v in zip(LENGTHS, values, strict=True)}, rel=1e-12)
    assert found["psnr"]["frames"] == 5 + 9 + 13
    assert found["subject-consistency (hog)"]["frames"] == 4 + 8 + 12
    assert 20 < found["psnr"]["mean"] < 40
    assert (result.quarantined, result.kind) == ((), "evaluation")
    assert verify(result.path, Silent()) == []


def test_the_average_over_videos_differs_where_clips_differ_in_length(made, tmp_path):
    result = evaluated(made / "gen", tmp_path / "eval", "eval.average=videos", metrics=("psnr",))
    means = [float(row["value"]) for row in table(result)]
    assert scores(result)["psnr"]["mean"] == pytest.approx(np.mean(means), rel=1e-12)
    assert "mean over clips of each clip's mean" in (result.path / "protocol.md").read_text()


def test_the_value_of_every_frame_is_kept(made, tmp_path):
    result = evaluated(made / "gen", tmp_path / "eval", metrics=("subject_consistency", "psnr"))
    content = json.loads((result.path / "frames" / "two.subject-consistency.hog.json").read_text())
    assert (content["first_frame"], len(content["values"])) == (1, 8)
    assert json.loads((result.path / "frames" / "two.psnr.json").read_text())["first_frame"] == 0


def test_the_protocol_card_names_every_choice(made, tmp_path):
    result = evaluated(made / "gen", tmp_path / "eval")
    card = (result.path / "protocol.md").read_text()
    for text in (
        "data_range=255", "gaussian_weights=True", "sigma=1.5", "clamped at 0", "128x128", "not comparable",
        "data.fit=crop", "13x16x24", "scikit-image", read_manifest(made / "gen").fingerprint,
        read_manifest(result.path).inputs["reference"],
        "published numbers use dino, this is hog", "published numbers use clip, this is hog",
    ):  # fmt: skip
        assert text in card


def test_the_evaluation_records_its_inputs_and_the_metrics_it_used(made, tmp_path):
    manifest = read_manifest(evaluated(made / "gen", tmp_path / "eval", metrics=("ssim",)).path)
    assert manifest.inputs["generation"] == read_manifest(made / "gen").fingerprint
    assert manifest.recipe["eval"]["metrics"] == ["ssim"]


# --- inputs that are missing -----------------------------------------------------------------------------------------


def test_without_a_reference_the_rest_is_computed_and_said(tmp_path):
    gen, notes = make_generation(tmp_path / "gen", {"one": 5}), Notes()
    result = evaluated(gen, tmp_path / "eval", metrics=(), reporter=notes)
    alone = [
        "subject-consistency (hog)",
        "background-consistency (hog)",
        "motion-amount",
        "drift-sharpness",
        "drift-colour",
    ]
    assert list(scores(result)) == alone
    assert any("without psnr, ssim, perceptual-effnet" in text and "--reference" in text for text in notes.said)
    assert "reference" not in read_manifest(result.path).inputs


def test_a_metric_asked_for_without_its_reference_is_refused_and_says_why(tmp_path):
    gen = make_generation(tmp_path / "gen", {"one": 5}, source=tmp_path / "gone")
    with pytest.raises(UsageError, match=r"psnr compares with a reference.*gone.* is not there") as caught:
        evaluated(gen, tmp_path / "eval", metrics=("psnr",))
    assert "--reference" in caught.value.fix
    assert not (tmp_path / "eval").exists()


def test_a_source_that_changed_since_is_no_reference_unless_it_is_named(tmp_path):
    data = make_data(tmp_path / "data", {"one": 5})
    gen = make_generation(tmp_path / "gen", {"one": 5}, source=data)
    edit(gen / "manifest.json", lambda values: values["attributes"].update(source_dataset_fingerprint="sha256:other"))
    with pytest.raises(UsageError, match="has changed since"):
        evaluated(gen, tmp_path / "eval", metrics=("psnr",))
    assert scores(evaluated(gen, tmp_path / "eval", metrics=("psnr",), reference=data))["psnr"]["n"] == 1


def test_a_reference_without_targets_is_refused(tmp_path, made):
    data = make_data(tmp_path / "data", LENGTHS, targets=False)
    with pytest.raises(DataError, match="no clip of the reference has a target video"):
        evaluated(made / "gen", tmp_path / "eval", reference=data)


def test_a_reference_that_nothing_compares_with_is_refused(made, tmp_path):
    with pytest.raises(UsageError, match="no effect"):
        evaluated(made / "gen", tmp_path / "eval", reference=made / "data", metrics=("subject-consistency",))


def test_an_unknown_metric_lists_the_known_ones(made, tmp_path):
    with pytest.raises(UsageError, match="unknown metric 'pnsr'") as caught:
        evaluated(made / "gen", tmp_path / "eval", metrics=("pnsr",))
    assert "psnr" in caught.value.fix


def test_a_backbone_without_weights_is_a_missing_part_only_where_it_is_needed(made, tmp_path):
    with pytest.raises(MissingPartError):
        evaluated(made / "gen", tmp_path / "eval", "eval.backbone=dino")
    assert scores(evaluated(made / "gen", tmp_path / "eval", "eval.backbone=dino", metrics=("psnr",)))["psnr"]["n"] == 3


def test_the_default_backbone_is_a_missing_part_without_its_extra_and_nothing_takes_its_place(
    made, tmp_path, monkeypatch
):
    default = {"metrics": ("subject-consistency",), "generation": made / "gen", "reporter": Silent(), "reference": None}
    result = evaluate.run(load_recipe(), out=tmp_path / "eval", **default)
    assert list(scores(result)) == ["subject-consistency (effnet-lite0)"]
    monkeypatch.setitem(sys.modules, effnet.PACKAGE, None)
    with pytest.raises(MissingPartError, match="effnet-lite0"):
        evaluate.run(load_recipe(), out=tmp_path / "again", **default)
    assert not (tmp_path / "again").exists()


@pytest.fixture(scope="module")
def dino(tmp_path_factory) -> Path:
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    shape = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 40}
    model = ViTModel(ViTConfig(**shape, image_size=32, patch_size=8))
    model.save_pretrained(folder := tmp_path_factory.mktemp("dino"))
    return folder


def test_several_backbones_score_in_one_run_each_metric_by_its_own(made, tmp_path, dino):
    both = ["eval.backbone=[hog,dino]", f"eval.backbone_path=['',{dino}]"]
    result = evaluated(
        made / "gen", tmp_path / "eval", *both, metrics=("subject-consistency", "background-consistency")
    )
    assert list(scores(result)) == [
        "subject-consistency (dino)",  # as published
        "background-consistency (hog)", "background-consistency (dino)",
    ]  # fmt: skip
    for name, path, label in (
        ("dino", str(dino), "subject-consistency (dino)"), ("hog", "", "background-consistency (hog)")
    ):  # fmt: skip
        alone = evaluated(
            made / "gen", tmp_path / name, f"eval.backbone={name}", f"eval.backbone_path=[{path}]",
            metrics=(label.split()[0],),
        )  # fmt: skip
        assert scores(alone)[label] == scores(result)[label]
    protocol = read_manifest(result.path).attributes["protocol"]
    assert {"Backbone hog", "Backbone dino"} < set(protocol)
    assert "subject-consistency (dino) against published" in protocol["Backbone dino"]


def test_a_path_too_many_is_refused(made, tmp_path):
    with pytest.raises(RecipeError, match=r"names 1 backbones, eval\.backbone_path 2 folders"):
        evaluated(made / "gen", tmp_path / "eval", "eval.backbone=hog", "eval.backbone_path=[a,b]")


def test_lpips_is_scored_by_the_files_that_are_named(made, tmp_path):
    """Random ones under the published names."""
    write_random_lpips(tmp_path, "vgg")
    named = ["eval.lpips=vgg", f"eval.lpips_path={tmp_path}"]
    result = evaluated(made / "gen", tmp_path / "eval", *named, metrics=("lpips", "psnr"))
    assert list(scores(result)) == ["lpips (vgg)", "psnr"]
    network = load_lpips("vgg", str(tmp_path), "cpu")
    pairs = [(made / "gen" / "videos" / f"{clip}.mp4", made / "data" / clip / "tgt.mp4") for clip in LENGTHS]
    values = np.concatenate([network(*map(read_video, pair)).values_T for pair in pairs])
    assert scores(result)["lpips (vgg)"]["mean"] == pytest.approx(values.mean(), rel=1e-6)
    assert network.about["weights"] in (result.path / "protocol.md").read_text()
    assert read_manifest(result.path).recipe["eval"]["lpips"] == "vgg"


def test_lpips_without_its_files_is_refused_when_asked_for_and_else_left_out_with_a_note(made, tmp_path):
    with pytest.raises(MissingPartError, match="needs alexnet"):
        evaluated(made / "gen", tmp_path / "eval", metrics=("lpips",))
    notes = Notes()
    result = evaluated(made / "gen", tmp_path / "eval", metrics=(), reporter=notes, dry_run=True)
    assert not any("lpips" in label for label in result.details["metrics"])
    assert any(
        text.startswith("without lpips, lpips-returned") and "eval.lpips_path is empty" in text for text in notes.said
    )


def test_another_kind_of_artifact_is_refused(made, tmp_path):
    evaluated(made / "gen", tmp_path / "eval", metrics=("psnr",))
    with pytest.raises(DataError, match="'evaluation', needed is 'generation'"):
        evaluated(tmp_path / "eval", tmp_path / "again")


def test_a_dry_run_writes_nothing(made, tmp_path):
    result = evaluated(made / "gen", tmp_path / "eval", dry_run=True)
    assert result.counts == {"clips": 3}
    assert not (tmp_path / "eval").exists()


# --- clips that fail -------------------------------------------------------------------------------------------------


def test_a_clip_of_another_length_fails_with_both_numbers_and_the_others_are_scored(tmp_path):
    data = make_data(tmp_path / "data", {"one": 5, "two": 13})
    gen = make_generation(tmp_path / "gen", {"one": 5, "two": 9})
    result = evaluated(gen, tmp_path / "eval", reference=data)
    found = scores(result)
    assert [found[name]["failed"] for name in found] == [1, 1, 0, 0]
    assert found["psnr"]["n"] == 1
    (failure,) = found["psnr"]["failures"]
    assert failure["clip"] == "two"
    assert "has 9 frames, the reference 13" in failure["reason"]
    assert {item.item for item in result.quarantined} == {"two.psnr", "two.ssim"}
    (row,) = [row for row in table(result) if row["clip"] == "two" and row["metric"] == "psnr"]
    assert (row["value"], row["status"]) == ("", "failed")
    assert "the reference 13" in row["reason"]
    assert "the reference 13" in (result.path / "protocol.md").read_text()


def test_a_damaged_video_and_a_clip_never_generated_are_counted_in_every_metric(tmp_path):
    data = make_data(tmp_path / "data", {"one": 5, "two": 9})
    gen = make_generation(tmp_path / "gen", {"one": 5, "two": 9}, source=data, left_out=("three",))
    video = gen / "videos" / "two.mp4"
    video.write_bytes(video.read_bytes()[:-40])
    result = evaluated(gen, tmp_path / "eval")
    reasons = {item.item: item.reason for item in result.quarantined}
    assert list(reasons) == ["three", "two"]
    assert "changed or damaged after it was written" in reasons["two"]
    assert "not generated: its context is cut short" in reasons["three"]
    assert {(entry["n"], entry["failed"]) for entry in scores(result).values()} == {(1, 2)}
    assert result.counts["clips"] == 3


def test_when_every_clip_fails_there_is_no_mean_and_the_table_is_still_written(tmp_path):
    gen = make_generation(tmp_path / "gen", {"one": 1})
    result = evaluated(gen, tmp_path / "eval", metrics=FOUR[2:])
    entry = scores(result)["subject-consistency (hog)"]
    assert (entry["mean"], entry["n"], entry["failed"]) == (None, 0, 1)
    assert "at least 2, this one has 1" in entry["failures"][0]["reason"]
    assert len(table(result)) == 2


def test_a_clip_the_reference_lacks_is_named(made, tmp_path):
    data = make_data(tmp_path / "data", {"one": 5})
    result = evaluated(made / "gen", tmp_path / "eval", reference=data, metrics=("psnr",))
    assert {item.item for item in result.quarantined} == {"two", "three"}
    assert "no clip of this id" in result.quarantined[0].reason


def test_an_identical_video_scores_infinite_psnr_in_valid_json(tmp_path):
    data = make_data(tmp_path / "data", {"one": 5})
    gen = make_generation(tmp_path / "gen", {"one": 5})
    same = tmp_path / "same"
    shutil.copytree(data, same)
    write_video(same / "one" / "tgt.mp4", read_video(gen / "videos" / "one.mp4"), fps=15, quality="lossless")
    result = evaluated(gen, tmp_path / "eval", reference=same, metrics=("psnr", "ssim"))
    assert scores(result)["psnr"]["mean"] == "inf"
    assert scores(result)["ssim"]["mean"] == 1.0
    assert [row["value"] for row in table(result)] == ["inf", "1.0"]


# --- resuming --------------------------------------------------------------------------------------------------------


def test_the_same_evaluation_again_changes_nothing(made, tmp_path):
    first = evaluated(made / "gen", tmp_path / "eval")
    stamp, notes = (first.path / "manifest.json").read_bytes(), Notes()
    again = evaluated(made / "gen", tmp_path / "eval", reporter=notes)
    assert again.fingerprint == first.fingerprint
    assert (first.path / "manifest.json").read_bytes() == stamp
    assert "12 items kept" in notes.said


def test_a_killed_evaluation_goes_on_with_what_is_done(made, tmp_path, monkeypatch):
    whole = evaluated(made / "gen", tmp_path / "whole")
    read, seen = generated_videos.read_video, []

    def stops_at_the_third(video: Path) -> np.ndarray:
        seen.append(video)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return read(video)

    monkeypatch.setattr(generated_videos, "read_video", stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        evaluated(made / "gen", tmp_path / "eval")
    assert not is_artifact(tmp_path / "eval")
    notes = Notes()
    monkeypatch.setattr(generated_videos, "read_video", read)
    resumed = evaluated(made / "gen", tmp_path / "eval", reporter=notes)
    assert "8 items kept" in notes.said
    assert resumed.fingerprint == whole.fingerprint
    assert (resumed.path / "scores.json").read_bytes() == (whole.path / "scores.json").read_bytes()


def test_only_what_changed_is_scored_again(tmp_path):
    data = make_data(tmp_path / "data", LENGTHS)
    gen, other = make_generation(tmp_path / "gen", LENGTHS), make_generation(tmp_path / "other", LENGTHS, seed=1)
    evaluated(gen, tmp_path / "eval", reference=data)
    write_video(data / "two" / "tgt.mp4", moving(9, 99), fps=15, quality="lossless")
    notes = Notes()
    evaluated(gen, tmp_path / "eval", reference=data, reporter=notes)
    assert "10 items kept" in notes.said
    assert "2 items stale: redone" in notes.said
    notes = Notes()
    fresh = evaluated(other, tmp_path / "eval", reference=data, reporter=notes)
    assert "12 items stale: redone" in notes.said
    assert scores(fresh) == scores(evaluated(other, tmp_path / "fresh", reference=data))


def test_a_generation_that_lacks_what_is_needed_is_refused(tmp_path):
    gen = make_generation(tmp_path / "gen", {"one": 5})
    rows = [json.loads(line) for line in (gen / "generations.jsonl").read_text().splitlines()]
    del rows[0]["frames"]
    write_json_lines(gen / "generations.jsonl", rows)
    list_again(gen, "generations.jsonl")
    with pytest.raises(DataError, match=r"line +1\n +frames +field required"):
        evaluated(gen, tmp_path / "eval")
    write_json(gen / "generations.jsonl", {"id": "one"})
    list_again(gen, "generations.jsonl")
    with pytest.raises(DataError, match="not valid JSON"):
        evaluated(gen, tmp_path / "eval")
