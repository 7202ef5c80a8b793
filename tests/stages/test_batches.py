"""sample.batch: clips made together are what they are alone but for rounding; a row says what it was made beside."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from warm import WarmCommand, ok

from hmcli.errors import RecipeError
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Heard, Silent
from hmcli.stages.models.folders import find_model
from hmcli.stages.sampling import fits, generate
from hmcli.stages.sampling.generate import Generator
from hmcli.stages.sampling.job import Job, generate_latents, generate_together, open_job

TOLERANCE = 2e-5  # of latents with unit variance, float32


def opened(model: Path, latents: Path, *changes: str) -> Job:
    recipe = load_recipe(None, list(changes), dict(find_model(model).manifest.recipe))
    return open_job(recipe, find_model(model), latents, [], None, (), "cpu", Silent())[0]


@pytest.mark.parametrize("context", ["frozen", "joint"])
def test_latents_of_a_batch_are_those_of_its_clips_alone(context: str, run: Path, joint_run: Path, latents: Path):
    job = opened(run if context == "frozen" else joint_run, latents, "sample.branches=together")
    videos = [(job.view.clip(clip), number) for clip in job.view.ids() for number in (1, 2)]
    together = generate_together(job, videos)
    alone = [generate_latents(job, clip, number) for clip, number in videos]
    assert all(np.abs(a - b).max() < TOLERANCE for a, b in zip(together, alone, strict=True))
    assert np.abs(alone[0] - alone[2]).max() > 0.1  # others are far


def rows_of(generation: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (generation / "generations.jsonl").read_text().splitlines()]


def test_a_row_of_a_batch_says_what_it_was_made_beside_and_is_made_again_bit_for_bit(
    hm: WarmCommand, run: Path, latents: Path, generation: Path, tmp_path: Path
):
    made = ok(hm("generate", latents, "--model", run, "--out", tmp_path / "gen", "--set", "sample.batch=2"))
    rows, alone = rows_of(made), rows_of(generation)
    ids = [row["id"] for row in alone]
    assert [row["id"] for row in rows] == ids
    assert [row["seed"] for row in rows] == [row["seed"] for row in alone]
    assert [row["again"].get("beside") for row in rows] == [[[ids[0], 1], [ids[1], 1]]] * 2 + [None]
    done = hm("generate", "--replay", f"{made}/generations.jsonl:2", "--out", tmp_path / "again.mp4")
    ok(done)
    assert "the same pixels, bit for bit" in done.stderr


class Full:
    """A model that runs out of memory with more than so many videos."""

    def __init__(self, most: int) -> None:
        self.most, self.tried = most, list[int]()

    def __call__(self, job: Job, videos: Any) -> list[np.ndarray]:
        self.tried.append(len(videos))
        if len(videos) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return generate_together(job, videos)


def test_what_does_not_fit_together_is_made_in_smaller_batches_aloud(
    run: Path, latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    heard, full = Heard(), Full(1)
    job = dataclasses.replace(opened(run, latents, "sample.batch=3"), reporter=heard)
    monkeypatch.setattr(generate, "generate_together", full)
    ids = job.view.ids()
    unit = dataclasses.replace(
        generate.job_unit(job, ids[0]), items={clip: job.key(clip) for clip in ids}, clips=len(ids)
    )
    made = Generator(job, tmp_path / "chunks", clips={ids[0]: ids}).make(unit, tmp_path / "made")
    assert [row.id for row in made if not isinstance(row, generate.Failed)] == ids
    assert full.tried == [3, 1, 1, 1]
    assert any("sample.batch=3 does not fit into memory, 1 at a time" in text for _, text in heard.said)


def test_a_clip_that_cannot_be_made_is_left_out_and_the_others_of_its_batch_are_not(
    run: Path, latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    job = opened(run, latents, "sample.batch=3")
    ids = job.view.ids()

    def one_is_not_finite(job: Job, videos: Any) -> list[np.ndarray]:
        made = generate_together(job, videos)
        made[1][0] = np.nan
        return made

    monkeypatch.setattr(generate, "generate_together", one_is_not_finite)
    done = generate.run(
        job.recipe, source=latents, model=run, memory=(), clips=(), out=tmp_path / "gen", force=False, device="cpu",
        reporter=Silent(),
    )  # fmt: skip
    assert [left.item for left in done.quarantined] == [ids[1]]
    assert [row["id"] for row in rows_of(tmp_path / "gen")] == [ids[0], ids[2]]


def test_a_batch_is_made_smaller_before_it_starts_where_the_least_does_not_fit(
    run: Path, latents: Path, monkeypatch: pytest.MonkeyPatch
):
    heard = Heard()
    job = dataclasses.replace(opened(run, latents, "sample.batch=8"), reporter=heard)
    shape = job.view.where[job.view.ids()[0]][0].shape
    two = fits.least_bytes(job, shape.context, shape.target, "float32", videos=2)
    monkeypatch.setattr(fits, "free_bytes", lambda device: two)
    assert fits.batch_that_fits(job, job.view.ids()) == 2
    assert "sample.batch=8 does not fit into memory, 2 at a time" in heard.said[0][1]


def test_a_rollout_is_made_clip_by_clip(nano: Path):
    with pytest.raises(RecipeError, match=r"sample.batch=2 with sample.chunk=9"):
        load_recipe(nano, ["sample.batch=2", "sample.chunk=9"])


def test_kept_memory_is_read_clip_by_clip(hm: WarmCommand, run: Path, latents: Path, tmp_path: Path):
    memory = ok(hm("tokenize-memory", latents, "--model", run, "--out", tmp_path / "memory"))
    done = hm("generate", latents, "--model", run, "--memory", memory, "--set", "sample.batch=2")
    assert done.returncode == 2
    assert "sample.batch=2" in done.stderr
