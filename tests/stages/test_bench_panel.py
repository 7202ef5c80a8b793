"""What a benchmark requires of scores: metrics with what sees for them, by weights that it was frozen with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import tiny_bench as tiny
from noisy_generations import generated

from hmcli.bench import __main__ as maintaining
from hmcli.bench.freeze import draft, freeze, prepare
from hmcli.errors import DataError, UsageError
from hmcli.metrics.contract import DETECTIONS
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import Recipe, WorldConfig
from hmcli.registry import find
from hmcli.runtime import Silent
from hmcli.stages.bench import card, score, score_file
from hmcli.stages.bench.definition import Benchmark, find_benchmark, is_of, write_benchmark
from hmcli.stages.scoring import evaluate

PANEL = load_recipe("bench/hm-bench-2-panel").eval
WORLD = WorldConfig(
    clips=1, context_frames=13, target_frames=17, fps=5, size=(64, 112), hold_out="all", subjects_per_clip=(1, 1),
    subjects=("walker",), split="easy",
)  # fmt: skip
RECIPES = {"easy": Recipe(seed=33, world=WORLD)}
PART = ("psnr", "ssim", "psnr-returned", "reappearance-recall")
ROWS = ("last-frame", "truth")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def frozen(work: Path) -> tuple[Path, Benchmark]:
    """Its file, and itself; the split was prepared before, by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(work / "cache"))
        how = {"work": work, "processes": 1, "reporter": Silent()}
        _, scored = prepare("easy", RECIPES["easy"], PANEL, rows=ROWS, **how)
        before = {file: file.stat().st_mtime_ns for file in work.rglob("*") if file.is_file() and "easy" in str(file)}
        one = freeze("panel", RECIPES, PANEL, baselines=ROWS, **how)
        assert {file: file.stat().st_mtime_ns for file in before} == before  # nothing is made twice
    assert {row: dict(of.means) for row, of in scored.items()} == one.splits["easy"].baselines
    write_benchmark(work / "panel.json", one)
    return work / "panel.json", one


def scored(work: Path, file: Path, name: str, *metrics: str) -> Path:
    """A score file of the noisy truth."""
    generation = work / "noisy.gen"
    if not generation.exists():
        generated(work / "easy", generation, 3)
    path = evaluate.run(
        Recipe(eval=PANEL), generation=generation, reference=None, metrics=metrics or PANEL.metrics,
        out=work / f"{name}.evaluation", reporter=Silent(),
    ).path  # fmt: skip
    return score.run(
        [path], benchmark=str(file), out=work / f"{name}.json", reporter=Silent(), data=(work / "easy",), name=name,
        training_data="nothing", hardware="a core", force=True,
    ).path  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(work, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(work / "cache"))


def test_the_panel_asks_for_memory_and_every_metric_of_it_has_a_range():
    names = set(PANEL.metrics)
    assert {"psnr", "ssim", "psnr-returned", "ssim-returned", "reappearance-recall", "reappearance-precision"} < names
    assert {"position-error", "identity-rank1", "false-alarms"} < names
    assert sum(name.startswith("verdict-") for name in names) == 7
    assert tuple(score_file.required(PANEL)) == find_benchmark("hm-bench-2").required_metrics
    for name in names:
        least, most = find("metric", name).range
        assert least >= (-1 if "ssim" in name else 0)
        assert most > least


def test_a_frozen_benchmark_holds_the_panel_of_its_rows_and_the_weights_that_saw_for_it(frozen):
    file, one = frozen
    assert find_benchmark(file) == one
    rows = one.splits["easy"].baselines
    assert list(rows) == list(ROWS)
    assert all(list(means) == score_file.required(PANEL) for means in rows.values())
    for label in ("psnr", "ssim-returned", "reappearance-recall (segmenter)"):
        assert rows["truth"][label] > rows["last-frame"][label]
    assert rows["last-frame"]["identity-rank1 (effnet-lite0, segmenter)"] is None  # nobody was found
    assert set(one.judges) == {"effnet-lite0", "segmenter"}
    assert all(weights.startswith("sha256:") for weights in one.judges.values())
    text = card.card(str(file)).text
    assert "verdict-frozen (effnet-lite0, segmenter)" in text
    assert one.judges["segmenter"] in text


def test_a_score_file_of_the_whole_panel_is_complete_and_one_without_a_part_is_not(frozen, work):
    file, one = frozen
    path = scored(work, file, "whole")
    scores = score_file.read_scores(path)
    assert scores.complete
    assert all(any(is_of(label, wanted) for label in scores.metrics) for wanted in one.required_metrics)
    assert len(one.required_metrics) == len(PANEL.metrics)
    for label, entry in scores.metrics.items():
        assert ("weights" in entry.detector) == (DETECTIONS in find("metric", label.partition(" ")[0]).needs)
    assert score_file.check(path, benchmark=str(file)).quarantined == ()
    part = scored(work, file, "part", *PART)
    assert not score_file.read_scores(part).complete
    missing = {item.item for item in score_file.check(part, benchmark=str(file)).quarantined}
    assert "s33-00000.identity-rank1 (effnet-lite0, segmenter)" in missing
    assert not any("reappearance-recall" in item for item in missing)


def test_a_panel_seen_by_another_backbone_is_not_the_panel(frozen):
    wanted = list(frozen[1].required_metrics)
    assert score_file.lacking(wanted, frozen[1]) == []
    others = [label.replace("effnet-lite0", "hog") for label in wanted]
    assert score_file.lacking(others, frozen[1]) == [label for label in wanted if "effnet" in label]


def test_scores_by_other_weights_than_the_frozen_ones_are_refused(frozen, work, tmp_path):
    file, one = frozen
    path = scored(work, file, "part", *PART)
    other = dataclasses.replace(one, judges=one.judges | {"segmenter": "sha256:0"})
    write_benchmark(tmp_path / "other.json", other)
    with pytest.raises(DataError, match="computed with other weights of segmenter than panel was frozen with"):
        scored(work, tmp_path / "other.json", "part", *PART)
    content = json.loads(path.read_text())
    label = "reappearance-recall (segmenter)"
    content["metrics"][label]["detector"]["weights"] = "sha256:1"
    (tmp_path / "forged.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="other weights of segmenter"):
        score_file.check(tmp_path / "forged.json", benchmark=str(file))


def outside(content: dict, label: str, value: float) -> dict:
    found = next(name for name in content["metrics"] if is_of(name, label))
    next(row for row in content["clips"] if row["metric"] == found)["value"] = value
    return content


@pytest.mark.parametrize(
    ("label", "value"),
    [("reappearance-recall (segmenter)", 1.01), ("ssim-returned", -1.2), ("position-error (segmenter)", -0.1),
     ("verdict-right (effnet-lite0, segmenter)", 2.0)],
)  # fmt: skip
def test_values_of_the_panel_stay_in_their_ranges(label, value, frozen, work, tmp_path):
    file, _ = frozen
    content = json.loads((work / "whole.json").read_text() if (work / "whole.json").exists()
                         else scored(work, file, "whole").read_text())  # fmt: skip
    (tmp_path / "s.json").write_text(json.dumps(outside(content, label, value)))
    with pytest.raises(DataError, match="cannot be outside of"):
        score_file.check(tmp_path / "s.json", benchmark=str(file))


def test_a_label_is_of_the_required_score_that_it_begins_with():
    assert is_of("psnr", "psnr")
    assert not is_of("psnr-returned", "psnr")
    assert is_of(
        "identity-rank1 (effnet-lite0, segmenter, identity AUC .97)", "identity-rank1 (effnet-lite0, segmenter)"
    )
    assert not is_of("identity-rank1 (effnet-lite0, segmenter2)", "identity-rank1 (effnet-lite0, segmenter)")


def command(monkeypatch, folder: Path, *arguments: str) -> list[dict]:
    """What `python -m hmcli.bench` asks of freezing, with the package's benchmarks in `folder`."""
    asked = []
    monkeypatch.setattr(maintaining, "PACKAGED", folder)
    monkeypatch.setattr(maintaining, "freeze", lambda name, *_, **how: asked.append(how) or how["found"])
    monkeypatch.setattr("sys.argv", ["hmcli.bench", *arguments])
    maintaining.main()
    return asked


def half_frozen(folder: Path) -> Benchmark:
    """The packaged benchmark, before its split `hard` was frozen."""
    whole = find_benchmark("hm-bench-2")
    open_ = dataclasses.replace(whole.splits["hard"], clips=(), baselines={})
    write_benchmark(
        folder / "hm-bench-2.json",
        half := dataclasses.replace(whole, splits={**whole.splits, "hard": open_}, frozen_by={}),
    )
    return half


def test_the_command_freezes_one_split_into_the_package(monkeypatch, tmp_path):
    """What is frozen is tested below, at a size that takes seconds: here, what the command asks for."""
    half = half_frozen(tmp_path)
    (how,) = command(monkeypatch, tmp_path, "freeze", str(tmp_path / "work"), "--only", "hard")
    assert (how["only"], how["found"], how["work"]) == ("hard", half, tmp_path / "work")
    assert find_benchmark(tmp_path / "hm-bench-2.json") == half


@pytest.mark.parametrize("arguments", [["draft"], ["freeze", "work"], ["freeze", "work", "--only", "easy"]])
def test_the_command_never_writes_over_what_is_frozen(monkeypatch, tmp_path, arguments):
    half = half_frozen(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"hm-bench-2 is frozen: .*easy"):
        command(monkeypatch, tmp_path, *arguments)
    assert find_benchmark(tmp_path / "hm-bench-2.json") == half
    (tmp_path / "hm-bench-2.json").unlink()
    command(monkeypatch, tmp_path, "draft")
    drawn = find_benchmark(tmp_path / "hm-bench-2.json")
    assert drawn.is_draft
    assert not any(split.clips for split in drawn.splits.values())


def test_splits_frozen_one_after_the_other_are_what_is_frozen_at_once(tiny_bench, tmp_path):
    def frozen(only: str, found: Benchmark) -> Benchmark:
        return freeze(
            "tiny", tiny.RECIPES, tiny.PANEL, work=tiny_bench.data, processes=1, reporter=Silent(),
            baselines=tiny.BASELINES, only=only, found=found,
        )  # fmt: skip

    half = frozen("mixed", draft("tiny", tiny.RECIPES, tiny.PANEL))
    assert half.is_draft
    assert {name: len(split.clips) for name, split in half.splits.items()} == {"easy": 0, "mixed": 2}
    write_benchmark(tmp_path / "half.json", half)
    whole = frozen("easy", find_benchmark(tmp_path / "half.json"))
    assert not whole.is_draft
    assert whole.fingerprint == tiny_bench.frozen.fingerprint

    other_seed = dataclasses.replace(half.splits["mixed"], seed=9)
    again = frozen("easy", dataclasses.replace(half, splits=half.splits | {"mixed": other_seed}))
    assert again.splits["mixed"].clips == (), "not what its recipe asks for now"


def test_a_split_that_other_weights_judged_is_not_kept_beside_this_one(frozen, work):
    _, one = frozen
    (split,) = one.splits
    recipes = RECIPES | {"other": dataclasses.replace(RECIPES[split], seed=34)}
    kept = draft("panel", recipes, PANEL)
    kept = dataclasses.replace(
        kept, judges=one.judges | {"segmenter": "sha256:0"},
        splits=kept.splits | {"other": dataclasses.replace(kept.splits["other"], clips=one.splits[split].clips)},
    )  # fmt: skip
    with pytest.raises(DataError, match="other weights saw for the splits that are frozen: segmenter"):
        freeze(
            "panel", recipes, PANEL, work=work, processes=1, reporter=Silent(), baselines=ROWS,
            only=split, found=kept,
        )  # fmt: skip
