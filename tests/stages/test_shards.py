"""Parts of an artifact, joined, are what one process writes, byte for byte; what is no set of parts is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contents import content
from hypothesis import given
from hypothesis import strategies as st
from sealing import edit, list_again
from warm import WarmCommand, ok

from hmcli.errors import DataError, UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.latents import encode
from hmcli.stages.latents.view import LatentsView
from hmcli.stages.parts import merge
from hmcli.stages.sampling import generate
from hmcli.stages.sampling.layout import STRIPS
from hmcli.stages.scoring import evaluate, results
from hmcli.stages.scoring.layout import SCORES
from hmcli.stages.shared.shards import Parts, Shard, parse_shard, share
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.files import write_json
from hmcli.store.manifest import Manifest, make_manifest, read_manifest
from hmcli.store.parts import Part, hash_clips

Stages = Mapping[str, Callable[..., Any]]


def made_in_parts(stage: Callable[..., Any], of: int, folder: Path) -> list[Path]:
    """The parts, each an artifact of its own, made in an order that is not theirs."""
    for index in reversed(range(of)):
        stage(out=folder / f"{index}-of-{of}", shard=Shard(index=index, of=of), reporter=Silent())
    return [folder / f"{index}-of-{of}" for index in range(of)]


def joined(parts: Sequence[Path], out: Path, **options: Any) -> Any:
    return merge.run(parts, out=out, reporter=Silent(), **options)


# --- which clips are whose -------------------------------------------------------------------------------------------


@given(count=st.integers(1, 60), of=st.integers(1, 60), rows=st.sampled_from([1, 3, 8]))
def test_every_clip_is_in_one_part_and_shards_of_rows_are_not_cut(count: int, of: int, rows: int):
    clips = [f"clip {number}" for number in range(count)]
    if of > count:
        with pytest.raises(UsageError, match=f"{count} clips cannot be divided into {of} parts"):
            share(Shard(index=0, of=of), clips, rows=rows)
        return
    shares = [share(Shard(index=index, of=of), clips, rows=rows) for index in range(of)]
    assert [clip for own in shares for clip in own.clips] == clips
    sizes = [len(own.clips) for own in shares]
    if count >= rows * of:
        assert all(size % rows == 0 for size in sizes[:-1])
        assert max(sizes) - min(sizes) < 2 * rows
    else:
        assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 0
    assert {own.part.whole for own in shares if own.part} == {hash_clips(clips)}


@pytest.mark.parametrize("text", ["2/2", "1", "1/", "/2", "-1/2", "1/2/3", "a/b", "0/0", "1.0/2", ""])
def test_what_is_no_part_is_refused(text: str):
    with pytest.raises(UsageError, match="0 <= i < n"):
        parse_shard(text)
    assert parse_shard("1/2") == Shard(index=1, of=2)


def test_what_stays_of_an_earlier_run_comes_after_the_clips_of_the_whole():
    def manifest(index: int, clips: list[str], items: list[str]) -> Manifest:
        part = Part(index=index, of=2, clips=tuple(clips), whole="")
        made = make_manifest("memory", recipe={}, inputs={}, seed=0, items={item: {"hash": ""} for item in items})
        return replace(made, part=part.to_json())

    parts = (manifest(0, ["b"], ["b", "a"]), manifest(1, ["c", "d"], ["d"]))
    assert Parts(paths=(Path("0"), Path("1")), manifests=parts).items == ["b", "d", "a"]


# --- every stage -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def at_once(stages: Stages, clips: Path, latents: Path, generation: Path, tmp_path_factory: Any) -> Callable[..., Path]:
    """What one process writes of a stage."""
    there = {"render": clips, "encode": latents, "generate": generation}

    def one(stage: str) -> Path:
        if stage not in there:
            there[stage] = tmp_path_factory.mktemp("one") / stage
            stages[stage](out=there[stage], reporter=Silent())
        return there[stage]

    return one


@pytest.mark.parametrize("stage", ["render", "encode", "slots", "memory", "generate", "eval", "inspect"])
def test_parts_joined_are_what_one_process_writes(
    stage: str, stages: Stages, at_once: Callable[..., Path], tmp_path: Path
):
    whole = content(at_once(stage))
    for of in (2, 3) if stage in ("slots", "eval") else (2,):
        parts = made_in_parts(stages[stage], of, tmp_path)
        before = [content(part) for part in parts]
        result = joined(list(reversed(parts)), tmp_path / f"joined-{of}")
        assert content(result.path) == whole
        assert result.fingerprint == whole["manifest"]["fingerprint"]
        assert [content(part) for part in parts] == before
        written = (result.path / "manifest.json").read_bytes()
        joined(parts, result.path)
        stages[stage](out=result.path, reporter=Silent())
        assert (result.path / "manifest.json").read_bytes() == written, "it is finished: nothing is left to do"


def test_the_contact_sheet_shows_the_first_clips_of_the_whole(
    stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(generate, "SHEET_CLIPS", 2)
    stages["generate"](out=tmp_path / "one", reporter=Silent())
    parts = made_in_parts(stages["generate"], 2, tmp_path)
    assert content(joined(parts, tmp_path / "joined").path) == content(tmp_path / "one")
    (parts[1] / STRIPS).write_bytes(b"of another program")
    list_again(parts[1], STRIPS)
    with pytest.raises(DataError, match="rows of a contact sheet cannot be read"):
        joined(parts, tmp_path / "again")


def test_clips_that_cannot_be_scored_are_told_of_all_parts(nano: Path, generation: Path, clips: Path, tmp_path: Path):
    names = sorted(folder.name for folder in clips.iterdir() if folder.is_dir())
    shutil.copytree(clips / names[1], tmp_path / "data" / names[1])

    def stage(**options: Any) -> Any:
        return evaluate.run(
            load_recipe(nano), generation=generation, reference=tmp_path / "data", metrics=("psnr",), force=False,
            device="cpu", reporter=Silent(), **options,
        )  # fmt: skip

    stage(out=tmp_path / "one")
    parts = [tmp_path / f"{index}" for index in range(3)]
    for index, part in enumerate(parts):
        stage(out=part, shard=Shard(index=index, of=3))
    result = joined(parts, tmp_path / "joined")
    assert content(result.path) == content(tmp_path / "one")
    assert [left.item for left in result.quarantined] == [names[0], names[2]]
    assert result.counts == {"clips": 3, "scores": 1, "failed": 2, "not_judged": 0}


def test_clips_in_which_nothing_is_judged_are_counted_over_all_parts(
    nano: Path, generation: Path, clips: Path, tmp_path: Path
):
    data = shutil.copytree(clips, tmp_path / "data")
    first = min(folder for folder in data.iterdir() if folder.is_dir())
    states = json.loads((first / "subjects.json").read_text())
    for subject in states.values():
        subject["hidden"] = []  # nobody comes back
    (first / "subjects.json").write_text(json.dumps(states))

    def stage(**options: Any) -> Any:
        return evaluate.run(
            load_recipe(nano), generation=generation, reference=data, metrics=("psnr-returned",), force=False,
            device="cpu", reporter=Silent(), **options,
        )  # fmt: skip

    one = stage(out=tmp_path / "one")
    parts = [tmp_path / f"{index}" for index in range(2)]
    for index, part in enumerate(parts):
        stage(out=part, shard=Shard(index=index, of=2))
    result = joined(parts, tmp_path / "joined")
    assert content(result.path) == content(tmp_path / "one")
    assert result.counts == one.counts
    assert result.counts["not_judged"] >= 1


@pytest.fixture(scope="module")
def seventeen(clips: Path, tmp_path_factory: Any) -> Path:
    """A folder of clips with captions that several share; one of them cannot be read."""
    data = tmp_path_factory.mktemp("data") / "seventeen"
    sources = sorted(folder for folder in clips.iterdir() if folder.is_dir())
    captions = ["a dog", "a cat", "a dog", "a goat", "a bird"]
    data.mkdir()
    for number in range(17):
        shutil.copytree(sources[number % 3], data / f"c{number}")
    (data / "c3" / "cond.mp4").write_bytes(b"nothing")
    lines = [f"c{number}\t{captions[number % 5]}" for number in range(17)]
    (data / "caption.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return data


def few(data: Path, count: int, place: Path) -> Path:
    """The first clips of a folder."""
    for number in range(count):
        shutil.copytree(data / f"c{number}", place / f"c{number}")
    lines = (data / "caption.txt").read_text(encoding="utf-8").splitlines(keepends=True)[:count]
    (place / "caption.txt").write_text("".join(lines), encoding="utf-8")
    return place


def test_captions_that_parts_share_are_stored_once_and_clips_left_out_are_listed(
    nano: Path, seventeen: Path, tmp_path: Path
):
    data = few(seventeen, 5, tmp_path / "five")

    def stage(**options: Any) -> Any:
        return encode.run(load_recipe(nano), data=data, force=False, device="cpu", **options)

    stage(out=tmp_path / "one", reporter=Silent())
    parts = made_in_parts(stage, 3, tmp_path)
    assert [len(read_manifest(part).part["clips"]) for part in parts] == [1, 2, 2]
    result = joined(parts, tmp_path / "joined")
    assert content(result.path) == content(tmp_path / "one")
    assert [left.item for left in result.quarantined] == ["c3"]
    view = LatentsView(result.path)
    said = {clip: view.clip(clip).caption for clip in view.ids()}
    assert said == {"c0": "a dog", "c1": "a cat", "c2": "a dog", "c4": "a bird"}
    assert result.counts == {"clips": 4, "captions": 4}


def test_a_part_may_hold_nothing_but_what_it_left_out(nano: Path, seventeen: Path, tmp_path: Path):
    data = few(seventeen, 4, tmp_path / "four")

    def stage(**options: Any) -> Any:
        return encode.run(load_recipe(nano), data=data, force=False, device="cpu", **options)

    stage(out=tmp_path / "one", reporter=Silent())
    parts = made_in_parts(stage, 4, tmp_path)
    assert content(joined(parts, tmp_path / "joined").path) == content(tmp_path / "one")


def test_parts_of_latents_begin_at_whole_shards_and_captions_do_not_count(nano: Path, seventeen: Path, tmp_path: Path):
    def planned(index: int) -> list[str]:
        made = encode.run(
            load_recipe(nano), data=seventeen, out=tmp_path / "out", force=False, device="cpu", reporter=Silent(),
            dry_run=True, shard=Shard(index=index, of=2),
        )  # fmt: skip
        return sorted(made.details["clips"], key=lambda clip: int(clip[1:]))

    assert [len(planned(0)), len(planned(1))] == [8, 9]
    assert planned(0)[-1] == "c7"
    assert not (tmp_path / "out").exists()


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slots(stages: Stages, tmp_path_factory: Any) -> list[Path]:
    return made_in_parts(stages["slots"], 3, tmp_path_factory.mktemp("slots"))


@pytest.fixture
def parts(slots: list[Path], tmp_path: Path) -> list[Path]:
    """Three parts that a test may change."""
    for part in slots:
        shutil.copytree(part, tmp_path / part.name)
    return [tmp_path / part.name for part in slots]


def test_a_missing_a_doubled_and_a_foreign_artifact_are_refused(
    parts: list[Path], latents: Path, at_once: Callable[..., Path], tmp_path: Path
):
    for given_parts, reason in {
        (parts[0], parts[2]): "1 of 3 parts are missing: 1",
        (parts[1],): "2 of 3 parts are missing: 0, 2",
        (*parts, parts[1]): "part 1 is given twice",
        (*parts, at_once("slots")): "it is no part",
        (latents,): "it is no part",
    }.items():
        with pytest.raises(UsageError, match=reason):
            joined(given_parts, tmp_path / "out")
    with pytest.raises(UsageError, match="one of the parts"):
        joined(parts, parts[1])
    with pytest.raises(DataError, match="no such artifact"):
        joined([*parts[:2], tmp_path / "nowhere"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda values: values.update(seed=6), {"seed": "5 and 6"}),
        (lambda values: values["recipe"].update(layout=99), {"recipe.layout": None}),
        (lambda values: values["inputs"].update(latents="sha256:0"), {"inputs.latents": None}),
        (lambda values: values["made_by"].update(torch="1.0"), {"made_by.torch": None}),
        (lambda values: values["part"].update(of=4), {"parts": "3 and 4"}),
        (lambda values: values["part"].update(whole="sha256:0"), {"clips": None}),
        (lambda values: values.update(kind="generation"), {"kind": "memory and generation"}),
    ],
    ids=["seed", "recipe", "inputs", "versions", "of", "clips", "kind"],
)
def test_parts_of_different_wholes_are_refused_by_what_differs(
    change: Callable[[dict[str, Any]], object], named: dict[str, str | None], parts: list[Path], tmp_path: Path
):
    edit(parts[1] / "manifest.json", change)
    with pytest.raises(UsageError, match="parts of different wholes") as caught:
        joined(parts, tmp_path / "out")
    for label, text in named.items():
        assert label in caught.value.what
        assert text in (None, caught.value.where[label])
    assert not (tmp_path / "out").exists()


def test_parts_that_another_version_made_are_refused(parts: list[Path], tmp_path: Path):
    for part in parts:
        edit(part / "manifest.json", lambda values: values["made_by"].update(hmcli="0.0.1"))
    with pytest.raises(UsageError, match="other versions") as caught:
        joined(parts, tmp_path / "out")
    assert "0.0.1" in caught.value.where["made_by.hmcli"]


def test_a_clip_in_two_parts_and_clips_of_another_whole_are_refused(parts: list[Path], tmp_path: Path):
    manifest = read_manifest(parts[0])
    edit(parts[1] / "manifest.json", lambda values: values["items"].update(manifest.items))
    with pytest.raises(DataError, match="lies in two parts"):
        joined(parts, tmp_path / "out")
    edit(parts[1] / "manifest.json", lambda values: values["part"].update(clips=["another"]))
    with pytest.raises(DataError, match="do not hold the clips of their whole"):
        joined(parts, tmp_path / "out")


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "manifest.json", "quarantine/a"])
def test_a_part_that_leads_out_of_its_items_is_refused(path: str, parts: list[Path], tmp_path: Path):
    edit(parts[1] / "manifest.json", lambda values: next(iter(values["items"].values())).update(path=path))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="forged or damaged"):
        joined(parts, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_parts_of_an_evaluation_score_the_same_metrics(tmp_path: Path):
    entry = {"metric": "psnr", "mean": 1.0, "unit": "dB", "better": "higher", "n": 1, "frames": 1, "failed": 0,
             "failures": []}  # fmt: skip
    for number, label in enumerate(["psnr", "ssim"]):
        with ArtifactWriter(
            tmp_path / f"{number}", "evaluation", recipe={}, inputs={}, seed=0, reporter=Silent()
        ) as writer:
            scores = {"format": 1, "average": "frames", "clips": 1, "metrics": {label: entry}}
            write_json(writer.staged / SCORES, scores)
            writer.finish([])
    paths = (tmp_path / "0", tmp_path / "1")
    with pytest.raises(DataError, match="same metrics"):
        results.scores_of(Parts(paths=paths, manifests=tuple(map(read_manifest, paths))))


# --- stopping, damage, the rule for finished work --------------------------------------------------------------------


class Stops(Silent):
    """Ctrl-C after the first item."""

    def progress(self, what: str, total: int, unit: str) -> Any:
        def stop(n: int) -> None:
            raise KeyboardInterrupt

        return nullcontext(stop)


def test_a_merge_that_was_stopped_goes_on_and_damage_is_healed_by_who_made_the_part(
    parts: list[Path], stages: Stages, at_once: Callable[..., Path], tmp_path: Path
):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        merge.run(parts, out=out, reporter=Stops())
    assert not (out / "manifest.json").exists()
    damaged = next((parts[2] / "data.zarr").rglob("c/0/0"))
    damaged.write_bytes(damaged.read_bytes()[::-1])
    with pytest.raises(DataError, match="not as it was written") as caught:
        joined(parts, out)
    assert "the command that made it, run again" in caught.value.fix
    assert not (out / "manifest.json").exists()
    stages["slots"](out=parts[2], shard=Shard(index=2, of=3), reporter=Silent())
    joined(parts, out)
    assert content(out) == content(at_once("slots"))


def test_a_part_that_was_stopped_is_refused_until_it_is_finished(
    stages: Stages, at_once: Callable[..., Path], tmp_path: Path
):
    parts = [tmp_path / "0", tmp_path / "1"]
    stages["slots"](out=parts[0], shard=Shard(index=0, of=2), reporter=Silent())
    with pytest.raises(KeyboardInterrupt):
        stages["slots"](out=parts[1], shard=Shard(index=1, of=2), reporter=Stops())
    with pytest.raises(DataError, match="unfinished"):
        joined(parts, tmp_path / "out")
    begun = {file: file.read_bytes() for file in parts[1].rglob("unfinished/items/*.json")}
    assert len(begun) == 1
    result = stages["slots"](out=parts[1], shard=Shard(index=1, of=2), reporter=Silent())
    assert result.counts == {"clips": 2}
    assert content(joined(parts, tmp_path / "out").path) == content(at_once("slots"))


def test_what_the_whole_holds_already_follows_the_rule_for_finished_work(
    parts: list[Path], at_once: Callable[..., Path], tmp_path: Path
):
    out = tmp_path / "out"
    shutil.copytree(at_once("slots"), out)
    manifest = read_manifest(out)
    more = {**manifest.items, "more": next(iter(manifest.items.values())) | {"path": "data.zarr/more"}}
    shutil.copytree(out / next(iter(manifest.items.values()))["path"], out / "data.zarr" / "more")
    last = list(manifest.items)[-1]
    shutil.rmtree(out / more.pop(last)["path"])  # so that there is something to take
    edit(out / "manifest.json", lambda values: values.update(items=more))
    before = content(out)
    for options in ({}, {"dry_run": True}):
        with pytest.raises(UsageError, match="1 finished items would go"):
            joined(parts, out, **options)
    assert content(out) == before
    assert joined(parts, out, dry_run=True, prune=True).details["dry_run"]
    joined(parts, out, prune=True)
    assert content(out) == content(at_once("slots"))


def test_the_only_part_becomes_the_whole_and_the_whole_a_part(
    stages: Stages, at_once: Callable[..., Path], tmp_path: Path
):
    out = tmp_path / "out"
    stages["slots"](out=out, shard=Shard(index=0, of=1), reporter=Silent())
    assert read_manifest(out).part["of"] == 1
    stages["slots"](out=out, reporter=Silent())
    assert content(out) == content(at_once("slots"))
    stages["slots"](out=out, shard=Shard(index=0, of=1), reporter=Silent())
    assert read_manifest(out).part["of"] == 1


def test_a_part_asked_for_other_clips_lets_none_go(stages: Stages, parts: list[Path]):
    with pytest.raises(UsageError, match="1 finished items would go"):
        stages["slots"](out=parts[1], shard=Shard(index=0, of=3), reporter=Silent())


# --- on the command line ---------------------------------------------------------------------------------------------


def test_parts_are_named_after_their_number_looked_at_and_joined(
    hm: WarmCommand, nano: Path, latents: Path, at_once: Callable[..., Path], tmp_path: Path
):
    command = ("tokenize-memory", latents, "--recipe", nano)
    parts = [ok(hm(*command, "--shard", f"{i}/2", cwd=tmp_path)) for i in range(2)]
    assert [part.name for part in parts] == ["latents.0-of-2.memory", "latents.1-of-2.memory"]
    looked = hm("inspect", parts[1], "--verify")
    assert "part 1 of 2 (2 clips)" in looked.stdout
    plan = hm("merge", *parts, "--out", tmp_path / "whole", "--dry-run")
    assert (plan.returncode, plan.stdout) == (0, "")
    assert "2 parts, 3 items of kind memory" in plan.stderr
    assert content(ok(hm("merge", *parts, "--out", tmp_path / "whole"))) == content(at_once("slots"))
    refused = hm("merge", parts[0], "--out", tmp_path / "half")
    assert refused.returncode == 2
    assert "1 of 2 parts are missing: 1" in refused.stderr


def test_what_is_made_of_a_part_says_so(hm: WarmCommand, stages: Stages, tmp_path: Path):
    part = made_in_parts(stages["encode"], 3, tmp_path)[0]
    done = hm("tokenize-memory", part, "--out", tmp_path / "memory")
    assert len(read_manifest(ok(done)).items) == 1
    assert f"{part} is a part" in done.stderr
    refused = hm("merge", tmp_path / "memory", "--out", tmp_path / "whole")
    assert (refused.returncode, "it is no part" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--shard", "2/2"], "0 <= i < n"),
        (["--shard", "0/4"], "3 clips cannot be divided into 4 parts"),
        (["--shards", "2"], "--shards has no effect without --on"),
        (["--on", "ray"], "it needs --shards, and no --shard"),
        (["--on", "ray", "--shards", "2", "--shard", "0/2"], "it needs --shards, and no --shard"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: list[str], reason: str, hm: WarmCommand, latents: Path, tmp_path: Path
):
    refused = hm("tokenize-memory", latents, *options, cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert reason in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_clips_is_not_encoded_by_every_part(hm: WarmCommand, clips: Path, run: Path, tmp_path: Path):
    refused = hm("generate", clips, "--model", run, "--shard", "0/2", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--shard 0/2 needs latents" in refused.stderr
    assert list(tmp_path.iterdir()) == []
