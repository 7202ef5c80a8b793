"""hm bench score and check: one file from evaluations over verified clips, from which every number follows."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from noisy_generations import MODEL, generated
from tiny_bench import TinyBench

from hmcli.contracts import StageResult
from hmcli.errors import DataError, UsageError
from hmcli.metrics.intervals import RESAMPLES, bootstrap_means, interval
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.bench import score, score_file
from hmcli.stages.bench.definition import PACKAGED
from hmcli.stages.bench.score_file import Row, is_complete, means_of, read_scores, schema
from hmcli.stages.scoring import evaluate
from hmcli.store.video import read_video, write_video

NOISE = {"easy": 10, "mixed": 25}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def evaluated(generation: Path, *metrics: str) -> Path:
    out = generation.with_name(f"{generation.name}-{'-'.join(metrics)}")
    chosen = metrics or ("psnr", "ssim")
    return evaluate.run(
        load_recipe(None, ["eval.backbone=hog"]),
        generation=generation,
        reference=None,
        metrics=chosen,
        out=out,
        reporter=Silent(),
    ).path


@pytest.fixture(scope="module")
def evaluations(tiny_bench: TinyBench, tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("scored")
    return {
        name: evaluated(generated(tiny_bench.data / name, place / name, noise)) for name, noise in NOISE.items()
    }  # fmt: skip


def scored(tiny_bench: TinyBench, paths: list[Path], out: Path, **options) -> StageResult:
    given = {
        "data": (), "name": "noise", "training_data": "nothing", "hardware": "two cores", "force": False, **options
    }  # fmt: skip
    return score.run(paths, benchmark=str(tiny_bench.file), out=out, reporter=Silent(), **given)


def test_the_score_file_holds_what_the_evaluations_measured(tiny_bench, evaluations, tmp_path):
    result = scored(tiny_bench, list(evaluations.values()), tmp_path / "scores.json")
    assert (result.quarantined, result.counts) == ((), {"clips": 4, "scores": 8, "missing": 0})
    scores = read_scores(result.path)
    assert scores.complete
    assert (scores.benchmark, scores.benchmark_fingerprint) == ("tiny", tiny_bench.frozen.fingerprint)
    assert (scores.model.name, scores.model.fingerprint, scores.size) == ("noise", MODEL, (32, 48))
    assert (scores.sample, scores.seed, scores.seconds_per_clip) == ({"steps": 3, "guidance": 1.5}, 8, 2.5)
    assert [row.clip for row in scores.clips[::2]] == ["s31-00000", "s31-00001", "s32-00000", "s32-00001"]
    for name, path in evaluations.items():
        content = json.loads((path / "scores.json").read_text())["metrics"]
        for metric in ("psnr", "ssim"):
            assert scores.means[name][metric].mean == pytest.approx(content[metric]["mean"], abs=1e-6)
            with (path / "per_clip.csv").open(newline="") as file:
                rows = {row["clip"]: float(row["value"]) for row in csv.DictReader(file) if row["metric"] == metric}
            assert {r.clip: r.value for r in scores.clips if (r.split, r.metric) == (name, metric)} == rows
    both = [scores.means[name]["psnr"].mean for name in NOISE]
    assert scores.means["overall"]["psnr"].mean == pytest.approx(np.mean(both), abs=2e-6)
    assert "peak_signal_noise_ratio" in scores.metrics["psnr"].definition
    described = score_file.check(result.path, benchmark=str(tiny_bench.file))
    assert described.quarantined == ()
    assert described.text.startswith("noise: complete")


def test_metrics_may_come_from_several_evaluations_of_one_generation(tiny_bench, evaluations, tmp_path):
    more = [evaluated(path.with_name(name), "subject-consistency") for name, path in evaluations.items()]
    result = scored(tiny_bench, [*evaluations.values(), *more], tmp_path / "scores.json")
    scores = read_scores(result.path)
    assert list(scores.metrics) == ["psnr", "ssim", "subject-consistency (hog)"]
    assert scores.metrics["psnr"].backbone == {}
    assert scores.metrics["subject-consistency (hog)"].backbone["name"] == "hog"
    assert scores.complete


def test_a_clip_that_was_not_generated_makes_the_file_incomplete(tiny_bench, evaluations, tmp_path):
    lacking = evaluated(generated(tiny_bench.data / "mixed", tmp_path / "mixed", 25, left_out="s32-00001"))
    result = scored(tiny_bench, [evaluations["easy"], lacking], tmp_path / "scores.json")
    assert [item.item for item in result.quarantined] == ["s32-00001.psnr", "s32-00001.ssim"]
    assert "its context is cut short" in result.quarantined[0].reason
    scores = read_scores(result.path)
    assert not scores.complete
    entry = scores.means["mixed"]["psnr"]
    assert (entry.scored, entry.missing) == (1, 1)
    described = score_file.check(result.path, benchmark=str(tiny_bench.file))
    assert [item.item for item in described.quarantined] == ["s32-00001.psnr", "s32-00001.ssim"]
    assert "INCOMPLETE" in described.text


def test_a_split_that_is_left_out_is_missing_and_there_is_no_overall_score(tiny_bench, evaluations, tmp_path):
    result = scored(tiny_bench, [evaluations["easy"]], tmp_path / "scores.json")
    scores = read_scores(result.path)
    assert not scores.complete
    assert scores.means["overall"]["psnr"].mean is None
    assert (scores.means["mixed"]["psnr"].scored, scores.means["mixed"]["psnr"].missing) == (0, 2)
    assert list(scores.splits) == ["easy"]
    assert len(score_file.check(result.path, benchmark=str(tiny_bench.file)).quarantined) == 4
    assert len(result.quarantined) == 4


def test_clips_that_a_metric_has_nothing_to_judge_in_lack_nothing(tiny_bench, evaluations, tmp_path):
    """Subjects are said to come back in one clip of the split `easy` alone."""
    clips = tmp_path / "clips"
    for split in NOISE:
        shutil.copytree(tiny_bench.data / split, clips / split)
        for number, file in enumerate(sorted((clips / split).glob("*/subjects.json"))):
            states = json.loads(file.read_text())
            for state in states.values():
                comes_back = (split, number) == ("easy", 0)
                state["hidden"] = [{**gone, "certified": comes_back} for gone in state["hidden"]]
            file.write_text(json.dumps(states))
    paths = []
    for split, noise in NOISE.items():
        made = generated(tiny_bench.data / split, tmp_path / split, noise)
        paths.append(
            evaluate.run(
                load_recipe(), generation=made, reference=clips / split, metrics=("psnr", "ssim", "psnr-returned"),
                out=tmp_path / f"{split}-scores", reporter=Silent(),
            ).path
        )  # fmt: skip
    result = scored(tiny_bench, paths, tmp_path / "scores.json")
    scores = read_scores(result.path)
    assert (result.quarantined, result.counts) == ((), {"clips": 4, "scores": 9, "missing": 0})
    assert scores.complete
    easy, mixed, overall = (scores.means[name]["psnr-returned"] for name in ("easy", "mixed", "overall"))
    assert (easy.scored, easy.missing, easy.not_judged) == (1, 0, 1)
    assert (mixed.mean, mixed.scored, mixed.missing, mixed.not_judged) == (None, 0, 0, 2)
    assert (overall.mean, overall.scored, overall.missing, overall.not_judged) == (easy.mean, 1, 0, 3)
    described = score_file.check(result.path, benchmark=str(tiny_bench.file))
    assert described.quarantined == ()
    assert "(1 not judged)" in described.text
    assert "- (2 not judged)" in described.text
    assert "2 of 2" in described.text
    told = json.loads(result.path.read_text())
    assert [row.get("judged", True) for row in told["clips"] if row["metric"] == "psnr"] == [True] * 4
    assert all("judged" not in row for row in told["clips"] if row["metric"] == "psnr")
    assert "not_judged" not in told["means"]["easy"]["psnr"]


def test_a_score_is_of_one_model(tiny_bench, evaluations, tmp_path):
    other = evaluated(generated(tiny_bench.data / "mixed", tmp_path / "mixed", 25, model="sha256:other"))
    with pytest.raises(UsageError, match="different models"):
        scored(tiny_bench, [evaluations["easy"], other], tmp_path / "scores.json")
    again = evaluated(generated(tiny_bench.data / "easy", tmp_path / "easy", 12))
    with pytest.raises(UsageError, match="two evaluations hold"):
        scored(tiny_bench, [evaluations["easy"], again], tmp_path / "scores.json")
    assert not (tmp_path / "scores.json").exists()


def test_clips_that_are_not_the_benchmarks_are_not_scored(tiny_bench, tmp_path):
    data = tmp_path / "easy"
    shutil.copytree(tiny_bench.data / "easy", data, ignore=shutil.ignore_patterns("manifest.json", "clips.jsonl"))
    video = 255 - read_video(data / "s31-00000" / "cond.mp4")
    write_video(data / "s31-00000" / "cond.mp4", video, fps=5, quality="lossless")
    wrong = evaluated(generated(data, tmp_path / "gen", 10))
    with pytest.raises(DataError, match="1 clips are not those of tiny"):
        scored(tiny_bench, [wrong], tmp_path / "scores.json")


def test_clips_that_were_changed_after_they_were_scored_are_refused(tiny_bench, tmp_path):
    data = tmp_path / "easy"
    shutil.copytree(tiny_bench.data / "easy", data)
    path = evaluated(generated(data, tmp_path / "gen", 10))
    moved = data.rename(tmp_path / "moved")
    assert scored(tiny_bench, [path], tmp_path / "scores.json", data=(moved,)).path.is_file()
    with pytest.raises(DataError, match="not there, or were changed"):
        scored(tiny_bench, [path], tmp_path / "other.json")
    shutil.copy(moved / "s31-00000" / "cond.mp4", moved / "s31-00001" / "cond.mp4")
    with pytest.raises(DataError, match="not there, or were changed"):
        scored(tiny_bench, [path], tmp_path / "other.json", data=(moved,))


def test_videos_of_another_length_are_refused(tiny_bench, tmp_path):
    short = evaluated(generated(tiny_bench.data / "easy", tmp_path / "gen", 10, frames=13), "subject-consistency")
    with pytest.raises(DataError, match="13 frames of 32x48"):
        scored(tiny_bench, [short], tmp_path / "scores.json")


def test_a_file_that_is_there_is_not_replaced(tiny_bench, evaluations, tmp_path):
    (tmp_path / "scores.json").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        scored(tiny_bench, [evaluations["easy"]], tmp_path / "scores.json")
    scored(tiny_bench, [evaluations["easy"]], tmp_path / "scores.json", force=True)
    assert read_scores(tmp_path / "scores.json").model.name == "noise"


# --- checking --------------------------------------------------------------------------------------------------------


@pytest.fixture
def content(tiny_bench: TinyBench, evaluations, tmp_path) -> dict:
    """A complete score file, to be tampered with."""
    return json.loads(scored(tiny_bench, list(evaluations.values()), tmp_path / "good.json").path.read_text())


def better(content: dict) -> None:
    content["means"]["mixed"]["psnr"]["mean"] += 0.1


def best_row(content: dict) -> None:
    content["clips"][0]["value"] += 3


def without_a_row(content: dict) -> None:
    content["clips"].pop()


def of_another_split(content: dict) -> None:
    content["clips"][0]["split"] = "mixed"


def of_no_clip(content: dict) -> None:
    content["clips"][0] |= {"value": None, "reason": "lost"}


def from_nowhere(content: dict) -> None:
    del content["splits"]["mixed"]


def of_another_benchmark(content: dict) -> None:
    content["benchmark_fingerprint"] = "sha256:0"


def excused(content: dict) -> None:
    content["clips"][0] |= {"value": None, "reason": "nothing to judge", "judged": False}


def beyond(content: dict) -> None:
    next(row for row in content["clips"] if row["metric"] == "ssim")["value"] = 1.2


def below(content: dict) -> None:
    next(row for row in content["clips"] if row["metric"] == "psnr")["value"] = "-inf"


def twice(content: dict) -> None:
    content["clips"].append(content["clips"][0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (better, "mean of psnr in mixed does not follow"), (best_row, "mean of psnr in easy does not follow"),
        (without_a_row, "complete is true, which its rows contradict"), (twice, "two rows for one metric"),
        (of_another_split, "s31-00000 is no clip of the split mixed"), (of_no_clip, "complete is true"),
        (excused, "s31-00000: psnr is not left unjudged"),
        (beyond, "ssim is 1.2, and cannot be outside of -1 to 1"),
        (below, "psnr is -inf, and cannot be outside of 0 to inf"),
        (from_nowhere, "does not say which data the scores of mixed are from"),
        (of_another_benchmark, "it is of tiny sha256:0"),
    ],
)  # fmt: skip
def test_numbers_that_do_not_follow_from_the_rows_are_named(change, said, tiny_bench, content, tmp_path):
    change(content)
    (tmp_path / "s.json").write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        score_file.check(tmp_path / "s.json", benchmark=str(tiny_bench.file))
    assert said in str(error.value)


def test_a_file_of_another_form_says_where(content, tmp_path):
    content["model"]["colour"] = "blue"
    content["clips"][2]["value"] = "high"
    del content["size"]
    (tmp_path / "s.json").write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        read_scores(tmp_path / "s.json")
    for place in ("model.colour", "clips.2.value", "size"):
        assert place in str(error.value)


def test_an_infinite_score_is_written_and_read_back(tiny_bench):
    rows = [
        Row(split=name, clip=clip.id, metric="psnr", value="inf" if name == "easy" else 20.0, reason="")
        for name, split in tiny_bench.frozen.splits.items()
        for clip in split.clips
    ]
    found = means_of(rows, tiny_bench.frozen, ["psnr"])
    assert (found["easy"]["psnr"].mean, found["easy"]["psnr"].high) == ("inf", "inf")
    assert (found["mixed"]["psnr"].low, found["overall"]["psnr"].mean) == (20.0, "inf")
    assert not is_complete(rows, tiny_bench.frozen, ["psnr"])  # ssim is required, too
    only = dataclasses.replace(tiny_bench.frozen, required_metrics=("psnr",))
    assert is_complete(rows, only, ["psnr"])


def test_the_packaged_schema_is_that_of_the_score_file():
    """If not: python -m hmcli.bench schema."""
    assert json.loads((PACKAGED / "scores.schema.json").read_text()) == schema()


def test_intervals_hold_the_mean_narrow_with_more_clips_and_are_the_same_every_time():
    values = np.random.default_rng(3).normal(20, 2, 400)
    few, many = (interval(float(v.mean()), bootstrap_means(v, seed=1)) for v in (values[:25], values))
    assert few.low < few.mean < few.high
    assert many.high - many.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert few.high - few.low > 3 * (many.high - many.low)
    np.testing.assert_array_equal(bootstrap_means(values, seed=1), bootstrap_means(values, seed=1))
    assert len(bootstrap_means([1.0], seed=0)) == RESAMPLES
    with pytest.raises(ValueError, match="no value"):
        bootstrap_means([], seed=0)
