"""sample.count: several samples of a clip, each from noise of its own, beside one that stays what it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from warm import WarmCommand, ok

from hmcli.errors import UsageError
from hmcli.recipe.sections import PosesConfig
from hmcli.stages.latents.view import open_latents
from hmcli.stages.sampling.generations import open_generation
from hmcli.stages.sampling.samples import items_of
from hmcli.store.manifest import read_manifest


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
