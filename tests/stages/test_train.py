"""hm train: the right loss, exact resuming, freezing, what a run holds, and what it refuses."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.training_utils import EMAModel
from reference.misaligned import astray, mapped
from safetensors.torch import load_file
from warm import WarmCommand, ok, wait_for

from hmcli.core.flow import make_schedule
from hmcli.core.pipeline import HydraPipeline
from hmcli.core.transformer import HydraTransformer3DModel, load_model
from hmcli.errors import RecipeError, UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import FlowConfig, TrainConfig
from hmcli.runtime import Silent
from hmcli.stages.latents.view import open_latents
from hmcli.stages.models.folders import build_model, find_model
from hmcli.stages.models.layout import Step
from hmcli.stages.training.checkpoints import last_checkpoint, read_checkpoint, write_checkpoint
from hmcli.stages.training.feeding import held_out, prepared_ahead
from hmcli.stages.training.learning import batches, freeze, learning_rate, make_average
from hmcli.stages.training.objective import (
    Question,
    anchored_rows,
    ask,
    at_level,
    errors_of,
    loss_of,
    make_batch,
    pixel_weights,
    returned_pixels,
)
from hmcli.stages.training.runs import held_out_fall, is_converged, log_until
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.manifest import read_manifest

CAPTIONED = TrainConfig(text_dropout=0.0)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(find_model(run).path / "transformer" / "diffusion_pytorch_model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_holds_checkpoints_that_load_as_a_diffusers_pipeline(run: Path):
    manifest = read_manifest(run)
    assert manifest.counts == {"steps": 4}
    assert sorted(manifest.items) == ["000002", "000004"]
    folder = run / manifest.attributes["checkpoint"]
    assert read_manifest(folder).kind == "checkpoint"
    model = load_model(folder / "transformer")
    assert model.config.flow_target == "noise_minus_clean"
    pipeline = HydraPipeline.from_pretrained(str(folder), local_files_only=True)
    assert pipeline.vae is not None
    assert pipeline.scheduler.config.shift == 5.0
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    assert [row["step"] for row in steps] == [1, 2, 3, 4]


def test_training_moves_the_weights_and_lowers_the_loss(hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path):
    longer = ["--set", "train.steps=60", "--set", "train.lr=5e-3", "--set", "train.checkpoint_every=60"]
    made = ok(hm("train", nano, "--latents", latents, "--out", tmp_path / "run", *longer))
    losses = [json.loads(line)["loss"] for line in (made / "steps.jsonl").read_text().splitlines()]
    assert np.mean(losses[-15:]) < 0.8 * np.mean(losses[:5])


@pytest.mark.parametrize(
    ("number", "optimizer"), [(signal.SIGKILL, "muon"), (signal.SIGTERM, "adamw"), (signal.SIGINT, "adamw")]
)
def test_stopped_in_the_middle_it_ends_with_the_same_weights(
    hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path, number: signal.Signals, optimizer: str
):
    longer = ["--set", "train.steps=30", "--set", "train.checkpoint_every=3", "--set", "train.ema=0.9"]
    longer += ["--set", f"train.optimizer={optimizer}"]
    whole = ok(hm("train", nano, "--latents", latents, "--out", tmp_path / "whole", *longer))
    running = hm.start("train", nano, "--latents", latents, "--out", tmp_path / "stopped", *longer)
    wait_for(lambda: (tmp_path / "stopped" / "checkpoints" / "000003").is_dir())
    running.send_signal(number)
    ended = running.wait()
    expected = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 75, signal.SIGINT: 130}[number]
    assert ended.returncode == expected, ended.stderr
    assert "Traceback" not in ended.stderr
    resumed = hm("train", nano, "--latents", latents, "--out", tmp_path / "stopped", *longer)
    assert "going on from step" in resumed.stderr
    assert same(weights_of(ok(resumed)), weights_of(whole))
    assert read_manifest(tmp_path / "stopped").fingerprint == read_manifest(whole).fingerprint
    steps = [json.loads(line) for line in (tmp_path / "stopped" / "steps.jsonl").read_text().splitlines()]
    assert steps == [json.loads(line) for line in (whole / "steps.jsonl").read_text().splitlines()]


def test_a_run_can_be_made_longer_but_not_into_another_run(
    hm: WarmCommand, nano: Path, latents: Path, run: Path, tmp_path: Path
):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    assert "already trained" in hm("train", nano, "--latents", latents, "--out", copy).stderr
    longer = hm("train", nano, "--latents", latents, "--out", copy, "--set", "train.steps=6")
    assert "going on from step 4" in longer.stderr
    assert read_manifest(ok(longer)).counts["steps"] == 6
    other = hm("train", nano, "--latents", latents, "--out", copy, "--set", "train.lr=1e-2")
    assert other.returncode == 2
    assert "run of another recipe" in other.stderr
    assert re.search(r"train\.lr +0\.001 then, 0\.01 now", other.stderr)
    assert "to go on with it, give train.lr as then" in other.stderr
    assert read_manifest(copy).counts["steps"] == 6


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_taken(
    hm: WarmCommand, nano: Path, latents: Path, run: Path, tmp_path: Path
):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    state = copy / "checkpoints" / "000004" / "training_state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    done = hm("train", nano, "--latents", latents, "--out", copy)
    assert "going on from step 2" in done.stderr
    assert same(weights_of(ok(done)), weights_of(run))
    assert list((copy / "quarantine").iterdir())


def test_latents_of_another_codec_are_refused_with_both_names(
    hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path
):
    done = hm("train", nano, "--latents", latents, "--out", tmp_path / "r", "--set", "codec.name=wan2.1")
    assert done.returncode == 3
    assert "'mini'" in done.stderr
    assert "'wan2.1'" in done.stderr


def test_a_base_of_another_shape_is_refused_with_every_difference(
    hm: WarmCommand, nano: Path, latents: Path, run: Path, tmp_path: Path
):
    overrides = ["--set", f"model.base={run}", "--set", "model.layers=3", "--set", "model.positions=rays"]
    done = hm("train", nano, "--latents", latents, "--out", tmp_path / "r", *overrides)
    assert done.returncode == 2
    assert "num_layers  2 in the base, 3 in the recipe" in done.stderr
    assert "positions   screen in the base, rays in the recipe" in done.stderr


def test_what_is_read_from_memory_may_differ_from_the_base(
    hm: WarmCommand, nano: Path, latents: Path, run: Path, tmp_path: Path
):
    """Rows of a comparison start from one base: the weights are its own, the policy is the recipe's."""
    still = ["--set", "train.lr=1e-30", "--set", "train.steps=1", "--set", "train.weight_decay=0"]
    other = ["--set", f"model.base={run}", "--set", "model.memory.policy=none", "--set", "model.memory.top_k=0"]
    done = hm("train", nano, "--latents", latents, "--out", tmp_path / "r", *still, *other)
    assert "policy affinity -> none, top_k 1 -> 0" in done.stderr
    assert load_model(find_model(ok(done)).path / "transformer").config.policy == "none"
    assert same(weights_of(tmp_path / "r"), weights_of(run))


def test_a_run_from_a_base_that_has_changed_since_is_another_run(
    hm: WarmCommand, nano: Path, latents: Path, run: Path, tmp_path: Path
):
    base = tmp_path / "base"
    shutil.copytree(run, base)
    command = ["train", nano, "--latents", latents, "--out", tmp_path / "r", "--set", f"model.base={base}"]
    assert read_manifest(ok(hm(*command))).inputs["base"] == find_model(run).fingerprint
    ok(hm("train", nano, "--latents", latents, "--out", base, "--set", "train.steps=5"))
    again = hm(*command)
    assert again.returncode == 2
    assert "run of another recipe, seed or latents" in again.stderr
    assert re.search(r"base +sha256:\w{12} then, sha256:\w{12} now", again.stderr)
    assert "to go on with it, give base as then" in again.stderr


def test_only_what_the_recipe_names_is_trained(hm: WarmCommand, nano: Path, latents: Path, run: Path, tmp_path: Path):
    overrides = ["--set", f"model.base={run}", "--set", "train.train_only=[attn1, camera, projector]"]
    made = weights_of(ok(hm("train", nano, "--latents", latents, "--out", tmp_path / "r", *overrides)))
    before = weights_of(run)
    moved = {name for name in made if not torch.equal(made[name], before[name])}
    assert moved
    assert all(any(part in name for part in ("attn1", "camera", "projector")) for name in moved)
    wrong = hm("train", nano, "--latents", latents, "--out", tmp_path / "w", "--set", "train.train_only=[attention]")
    assert wrong.returncode == 2
    assert "names no parameter" in wrong.stderr


def test_the_loss_is_that_of_the_target_frames_alone(latents: Path):
    """Context frames are clean and carry no loss: their noise changes nothing, and their flow is not compared."""
    recipe = load_recipe(
        None, ["model.layers=1", "model.dim=24", "model.heads=2", "model.memory.top_k=1", "model.memory.context=joint"]
    )
    view = open_latents(latents)
    model = build_model(recipe, channels=16, text_dim=64).eval()
    batch = make_batch(
        [view.clip(c) for c in view.ids()[:2]],
        view.text(0),
        frozen=False,
        train=CAPTIONED,
        rng=np.random.default_rng(0),
    )
    schedule = make_schedule(1000, 5.0)
    question = ask(batch, schedule, recipe.flow, context="joint", seed=3)
    loss = loss_of(model, batch, question, recipe.flow, device="cpu")
    generator = torch.Generator().manual_seed(3)
    index = torch.randint(1000, (2,), generator=generator)
    noise = torch.randn(batch.latents.shape, generator=generator)
    sigma = schedule.sigmas[index].view(2, 1, 1, 1, 1)
    target = batch.latents[:, :, 6:]
    mixed = (1 - sigma) * target + sigma * noise[:, :, 6:]
    inputs = torch.cat([batch.latents[:, :, :6], mixed], dim=2)
    flow = model(inputs, schedule.timesteps[index], batch.text, batch.camera, 6, return_dict=False)[0][:, :, 6:]
    torch.testing.assert_close(loss, ((flow - (noise[:, :, 6:] - target)) ** 2).mean(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("context", ["joint", "frozen"])
@pytest.mark.parametrize("noise", ["shared", "per-frame"])
def test_errors_at_a_level_are_of_the_flow_of_each_clip_at_that_noise(latents: Path, context: str, noise: str):
    sets = [
        "model.layers=1",
        "model.dim=24",
        "model.heads=2",
        "model.memory.top_k=1",
        f"model.memory.context={context}",
    ]
    recipe, view = load_recipe(None, [*sets, f"flow.noise={noise}", "flow.weighting=bell"]), open_latents(latents)
    model = build_model(recipe, channels=16, text_dim=64).eval()
    clips = [view.clip(c) for c in view.ids()[:2]]
    rng = np.random.default_rng(0)
    batch = make_batch(clips, view.text(0), frozen=context == "frozen", train=CAPTIONED, rng=rng)
    asked = at_level(batch, 0.7, recipe.flow, context=context, seed=3)
    noise_drawn = torch.randn(batch.latents.shape, generator=_after_one_draw(3))
    target, drawn = batch.latents[:, :, 6:], noise_drawn[:, :, 6:]
    inputs = torch.cat([batch.latents[:, :, :6], 0.3 * target + 0.7 * drawn], dim=2)
    flow = model(inputs, torch.tensor([700.0, 700.0]), batch.text, batch.camera, 6, return_dict=False)[0][:, :, 6:]
    wanted = [(flow[b] - (drawn[b] - target[b])).square().mean() for b in range(2)]
    found = errors_of(model, batch, asked, device="cpu")
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-4, atol=0)


def _after_one_draw(seed: int) -> torch.Generator:
    """The generator of a question after its levels were drawn."""
    generator = torch.Generator().manual_seed(seed)
    torch.randint(1, (2,), generator=generator)
    return generator


def test_several_draws_share_one_run_over_a_frozen_context(latents: Path):
    """Their loss and its gradient are the means of those of each draw alone."""
    view, flow = open_latents(latents), FlowConfig()
    recipe = load_recipe(None, ["model.layers=1", "model.dim=24", "model.heads=2", "model.memory.top_k=1"])
    model = build_model(recipe, channels=16, text_dim=64)
    clips = [view.clip(c) for c in view.ids()[:2]]
    batch = make_batch(clips, view.text(0), frozen=True, train=CAPTIONED, rng=np.random.default_rng(0))
    batch = dataclasses.replace(batch, pixels=pixel_weights(view, clips, 2.0))
    together = ask(batch, make_schedule(1000, 5.0), flow, context="frozen", draws=3, seed=3)
    assert together.latents.shape[0] == 6
    assert together.latents.shape[2] == batch.latents.shape[2] - batch.context
    loss = loss_of(model, batch, together, flow, device="cpu")
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    context, alone = batch.latents[:, :, : batch.context], []
    for draw in range(3):
        part = slice(2 * draw, 2 * draw + 2)
        whole = Question(
            latents=torch.cat([context, together.latents[part]], dim=2), timesteps=together.timesteps[part],
            wanted=torch.cat([context, together.wanted[part]], dim=2), weights=together.weights[part],
        )  # fmt: skip
        alone.append(loss_of(model, batch, whole, flow, device="cpu"))
    torch.testing.assert_close(loss, sum(alone) / 3)
    (sum(alone) / 3).backward()
    for name, parameter in model.named_parameters():
        if name in found:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("told", "fall"),
    [
        ({}, None), ({100: 2.0}, None), ({50: 2.0, 100: 1.0}, None), ({80: 2.0, 100: 1.9}, 0.05),
        ({20: 9.0, 60: 4.0, 80: 2.0, 100: 1.99}, 0.005), ({70: 1.0, 90: 0.5, 100: 1.1}, -0.1),
    ],
)  # fmt: skip
def test_what_of_the_held_out_loss_went_in_the_last_fifth(told: dict[int, float], fall: float | None):
    steps = [Step(step=n, loss=1.0, grad_norm=1.0, lr=0.1, held_out_loss=told.get(n)) for n in range(1, 101)]
    assert held_out_fall(steps) == (None if fall is None else pytest.approx(fall))


@pytest.mark.parametrize(("fall", "said"), [(None, None), (0.015, False), (0.01, True), (0.0, True), (-0.2, True)])
def test_a_run_has_converged_when_little_of_its_held_out_loss_went(fall: float | None, said: bool | None):
    assert is_converged(fall) is said


def test_a_run_says_whether_it_would_have_gone_on_learning(hm, nano, latents, tmp_path):
    settings = ["train.held_out=1", "train.checkpoint_every=4", "train.warmup=0"]
    line = ["train", nano, "--latents", latents, *(part for setting in settings for part in ("--set", setting))]
    early = hm(*line, "--out", tmp_path / "early", "--set", "train.steps=20", "--set", "train.lr=8e-3")
    about = read_manifest(ok(early)).attributes
    assert about["held_out_fall"] > 0.01
    assert about["converged"] is False
    assert "not converged" in early.stderr
    still = hm(*line, "--out", tmp_path / "still", "--set", "train.steps=20", "--set", "train.lr=1e-9")
    assert read_manifest(ok(still)).attributes["converged"] is True
    assert "not converged" not in still.stderr


def test_subjects_cannot_count_more_where_no_masks_say_where_they_are(hm, nano, clips, tmp_path):
    """Clips of someone else's, without masks."""
    bare = shutil.copytree(clips, tmp_path / "bare")
    for file in [*bare.rglob("*mask*"), *bare.rglob("*instances*")]:
        file.unlink()
    encoded = ok(hm("encode", bare, "--recipe", nano, "--out", tmp_path / "latents"))
    refused = hm("train", nano, "--latents", encoded, "--out", tmp_path / "run", "--set", "train.subject_weight=2")
    assert refused.returncode == 3, refused.stderr
    assert "train.subject_weight=0" in refused.stderr


def test_batches_prepared_ahead_are_those_made_one_by_one():
    jobs = [(step, [str(step)]) for step in range(7)]
    now = list(prepared_ahead(lambda step, clips: (step, clips), jobs, 0))
    assert list(prepared_ahead(lambda step, clips: (step, clips), jobs, 3)) == now == jobs


def test_clips_held_out_are_never_trained_on_and_their_loss_is_logged(hm, nano, latents, tmp_path):
    out = ok(hm("train", nano, "--latents", latents, "--out", tmp_path / "run", "--set", "train.held_out=1"))
    rows = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    saved = [row["step"] for row in rows if "held_out_loss" in row]
    assert saved == [number for number in range(1, len(rows) + 1) if number % 2 == 0]
    levels = [row["held_out_errors"] for row in rows if "held_out_errors" in row]
    assert [list(errors) for errors in levels] == [["0.98", "0.9", "0.7", "0.4"]] * len(saved)
    assert len({tuple(errors.values()) for errors in levels}) == len(saved) > 1  # of the weights of that checkpoint
    returned = [row["held_out_returned"] for row in rows if "held_out_errors" in row]
    assert all(of.keys() == errors.keys() and of != errors for of, errors in zip(returned, levels, strict=True))
    assert held_out(["a", "b", "c"], TrainConfig(held_out=2)) == ["b", "c"]
    assert held_out(["a"], TrainConfig()) == []
    none_left = hm("train", nano, "--latents", latents, "--out", tmp_path / "n", "--set", "train.held_out=99")
    assert none_left.returncode == 2
    assert "leaves none" in none_left.stderr


def test_batches_stand_in_aligned_memory_of_their_own(latents: Path):
    view = open_latents(latents)
    clips = [view.clip(clip) for clip in view.ids()]
    for frozen in (False, True):
        rng = np.random.default_rng(0)
        batch = make_batch(clips, view.text(0), frozen=frozen, train=TrainConfig(text_dropout=0.5), rng=rng)
        assert not astray(batch.latents, batch.camera, batch.text)


def test_what_a_run_goes_on_from_stands_in_aligned_memory_of_its_own(latents: Path, tmp_path: Path):
    recipe = load_recipe(None, ["model.layers=1", "model.dim=24", "model.heads=2", "model.memory.top_k=1"])

    def parts() -> tuple[HydraTransformer3DModel, torch.optim.AdamW, EMAModel]:
        model = build_model(recipe, channels=16, text_dim=64)
        return model, torch.optim.AdamW(model.parameters(), lr=1e-2), EMAModel(model.parameters(), decay=0.9)

    (model, optimizer, average), (again, its_optimizer, its_average) = parts(), parts()
    model(
        *(torch.ones(shape) for shape in ((1, 16, 12, 4, 4), (1,), (1, 3, 64), (1, 12, 12))), 6
    ).sample.sum().backward()
    optimizer.step()
    average.step(model.parameters())
    place = tmp_path / "run"
    with ArtifactWriter(place, "run", recipe={}, inputs={}, seed=0, reporter=Silent()) as writer:
        write_checkpoint(writer, "key", 1, recipe, open_latents(latents), model, [optimizer], average)
        folder = last_checkpoint(writer, "key")
        assert read_checkpoint(folder, again, [its_optimizer], its_average, recipe.seed) == 1
    moments = [value for state in its_optimizer.state.values() for value in state.values()]
    assert len(moments) == 3 * len(list(model.parameters()))
    assert not astray(again, *moments, *its_average.shadow_params)
    assert not mapped(file for file in place.rglob("*") if file.is_file())
    assert same(again.state_dict(), model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(its_average.shadow_params, average.shadow_params, strict=True))


def test_every_epoch_shows_every_clip_and_shapes_are_not_mixed():
    groups = [["a", "b", "c"], ["x", "y"]]
    drawn = list(itertools.islice(batches(groups, 2, seed=4), 9))  # 3 batches an epoch
    for epoch in range(3):
        clips = [clip for batch in drawn[3 * epoch : 3 * epoch + 3] for clip in batch]
        assert set(clips) == {"a", "b", "c", "x", "y"}
    assert all(set(batch) <= {"a", "b", "c"} or set(batch) <= {"x", "y"} for batch in drawn)
    assert drawn == list(itertools.islice(batches(groups, 2, seed=4), 9))
    assert drawn != list(itertools.islice(batches(groups, 2, seed=5), 9))


def test_anchored_rows_are_the_identity_at_the_anchor(latents: Path):
    view = open_latents(latents)
    clip = view.clip(view.ids()[0])
    chosen = int(np.random.default_rng(0).integers(len(clip.camera)))
    rows = anchored_rows(clip, 0, 0, rng=np.random.default_rng(0))
    np.testing.assert_allclose(rows[chosen], [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0], atol=1e-6)
    assert not np.allclose(rows[0], rows[chosen])


def test_anchors_are_turned_about_their_vertical_and_moved_as_far_as_asked(latents: Path):
    view, turns, moves = open_latents(latents), [], []
    clip = view.clip(view.ids()[0])
    for seed in range(200):
        own, away = (np.random.default_rng(seed) for _ in range(2))
        chosen = int(own.integers(len(clip.camera)))
        rows = anchored_rows(clip, 70, 3, rng=away).reshape(-1, 3, 4)
        camera_in_anchor = rows[chosen]
        np.testing.assert_allclose(camera_in_anchor[1, :3], [0, 1, 0], atol=1e-6)
        turns.append(np.degrees(np.arctan2(camera_in_anchor[0, 2], camera_in_anchor[2, 2])))
        moves.append(camera_in_anchor[:, :3].T @ camera_in_anchor[:, 3])
        plain = anchored_rows(clip, 0, 0, rng=np.random.default_rng(seed)).reshape(-1, 3, 4)
        apart = [
            rows[:, :, :3].transpose(0, 2, 1) @ (rows[:, :, 3] - rows[0, :, 3])[..., None] for rows in (plain, rows)
        ]
        np.testing.assert_allclose(*apart, atol=1e-4)
    assert 60 < np.max(np.abs(turns)) <= 70
    assert np.min(turns) < -50 < 50 < np.max(turns)
    assert 2.5 < np.max(np.abs(moves)) <= 3
    assert np.abs(np.mean(moves)) < 0.4


def test_a_tested_batch_is_as_in_use(latents: Path):
    view = open_latents(latents)
    clips = [view.clip(clip) for clip in view.ids()]
    far = TrainConfig(text_dropout=0.999, camera_dropout=0.999, anchor_turn=180, anchor_shift=9, older=40)
    tested, plain = (
        make_batch(clips, view.text(0), frozen=True, train=train, tested=said, rng=np.random.default_rng(1))
        for train, said in ((far, True), (CAPTIONED, False))
    )
    assert torch.equal(tested.camera, plain.camera)
    assert torch.equal(tested.text, plain.text)
    assert tested.older == 0
    ages = {
        make_batch(clips, view.text(0), frozen=True, train=far, rng=np.random.default_rng(n)).older for n in range(300)
    }
    assert (min(ages), max(ages)) == (0, 40)


@pytest.mark.parametrize(("draws", "noise"), [(1, "shared"), (2, "shared"), (1, "per-frame"), (2, "per-frame")])
def test_older_memory_is_read_as_if_time_had_passed(latents: Path, draws: int, noise: str):
    view, flow = open_latents(latents), FlowConfig(noise=noise)
    recipe = load_recipe(None, ["model.layers=1", "model.dim=24", "model.heads=2", "model.memory.top_k=1"])
    model = build_model(recipe, channels=16, text_dim=64)
    clips = [view.clip(c) for c in view.ids()[:2]]
    batch = make_batch(clips, view.text(0), frozen=True, train=CAPTIONED, rng=np.random.default_rng(0))
    question = ask(batch, make_schedule(1000, 5.0), flow, context="frozen", draws=draws, seed=3)
    losses = [
        float(loss_of(model, dataclasses.replace(batch, older=age), question, flow, device="cpu").detach())
        for age in (0, 9)
    ]
    assert losses[0] != losses[1]
    memory = model.encode_context(batch.latents[:, :, : batch.context], batch.camera[:, : batch.context])
    assert torch.equal(memory.older_by(9).time_M, memory.time_M - 9)
    n, part = batch.context, question if draws > 1 else question.after(batch.context)
    predicted = model(
        part.latents, part.timesteps, batch.text.repeat(draws, 1, 1), batch.camera[:, n:].repeat(draws, 1, 1), 0, None,
        memory.older_by(9).repeated(draws), return_dict=False,
    )[0]  # fmt: skip
    assert losses[1] == pytest.approx(float((predicted - part.wanted).square().mean().detach()), rel=1e-5)


def test_anchors_and_ages_are_for_memory_that_is_kept():
    for setting in ("anchor_turn=20", "anchor_shift=1", "older=3"):
        with pytest.raises(RecipeError, match=r"needs model\.memory\.context=frozen"):
            load_recipe(None, [f"train.{setting}", "model.memory.context=joint"])


def test_dropped_captions_become_the_empty_one(latents: Path):
    view = open_latents(latents)
    clips = [view.clip(c) for c in view.ids()]
    rng = np.random.default_rng(0)
    dropped = make_batch(clips, view.text(0), frozen=False, train=TrainConfig(text_dropout=0.999), rng=rng)
    kept = make_batch(clips, view.text(0), frozen=False, train=CAPTIONED, rng=rng)
    assert all(torch.equal(row, torch.from_numpy(view.text(0))) for row in dropped.text)
    assert not torch.equal(kept.text[0], dropped.text[0])


@pytest.mark.parametrize("frozen", [False, True])
def test_dropped_cameras_stand_still_and_nothing_else_is_drawn_otherwise(latents: Path, frozen: bool):
    view = open_latents(latents)
    clips = [view.clip(view.ids()[0])] * 200
    kept, some = (
        make_batch(
            clips, view.text(0), frozen=frozen, train=TrainConfig(text_dropout=0.5, camera_dropout=share),
            rng=np.random.default_rng(0),
        )
        for share in (0.0, 0.25)
    )  # fmt: skip
    row = torch.eye(4)[:3].flatten()  # rotation and translation side by side: of the anchor to itself
    still = torch.tensor([torch.equal(rows, row.expand_as(rows)) for rows in some.camera])
    assert 30 < int(still.sum()) < 70
    assert torch.equal(some.camera[~still], kept.camera[~still])
    assert not torch.equal(some.camera[still], kept.camera[still])
    assert torch.equal(some.text, kept.text)


def test_the_learning_rate_warms_up_and_decays():
    train = TrainConfig(steps=20, warmup=4, lr=1.0, decay="cosine")
    rates = [learning_rate(train, step) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert all(a > b for a, b in itertools.pairwise(rates[4:]))


def test_the_average_follows_early_steps_closely_and_then_by_its_decay():
    """diffusers' average has the decay our own had; in float64 the two are equal within rounding."""
    weights = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    average, ours = make_average([weights], 0.6), torch.zeros(5, dtype=torch.float64)
    assert average is not None
    for update in range(1, 40):
        weights.data = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(update))
        average.step([weights])
        ours.lerp_(weights.detach(), 1 - min(0.6, (1 + update) / (10 + update)))
        torch.testing.assert_close(average.shadow_params[0], ours, rtol=0, atol=1e-14)
    assert make_average([weights], 0.0) is None


def test_freezing_an_unknown_part_is_an_error():
    model = build_model(load_recipe(None, ["model.layers=1", "model.dim=24", "model.heads=2"]), channels=16, text_dim=8)
    with pytest.raises(UsageError, match="names no parameter: nothing"):
        freeze(model, TrainConfig(train_only=("nothing",)))
    assert len(freeze(model, TrainConfig(train_only=("projector",)))) == 2


def test_a_run_records_how_its_latents_were_encoded(hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path):
    other = tmp_path / "other.yaml"
    other.write_text(nano.read_text().replace("data: {size: [32, 48]}", "data: {size: [64, 112]}"))
    done = hm("train", other, "--latents", latents, "--out", tmp_path / "run")
    recorded = read_manifest(ok(done)).recipe
    assert recorded["data"]["size"] == [32, 48]
    assert "data: recorded as the latents were encoded" in done.stderr


def test_a_finished_run_stays_as_it_is_whatever_else_is_asked(
    hm: WarmCommand, nano: Path, latents: Path, run: Path, tmp_path: Path
):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    before = (copy / "manifest.json").read_bytes()
    other = tmp_path / "other.yaml"
    other.write_text(nano.read_text().replace("sample: {steps: 2", "sample: {steps: 9"))
    for recipe, change in ((other, ()), (nano, ("--set", "train.steps=2"))):
        ok(hm("train", recipe, "--latents", latents, "--out", copy, *change))
        assert (copy / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("left", ["", '{"step": 4, "loss": 1.0, "held_out_errors": {"0.98": 1.0}', '{"st'])
def test_what_a_kill_leaves_of_the_log_is_cut_to_whole_lines(tmp_path: Path, left: str):
    log = tmp_path / "steps.jsonl"
    log.write_text("".join(json.dumps({"step": n, "loss": 1.0}) + "\n" for n in (1, 2, 3)) + left)
    with log_until(log, 2) as file:
        file.write(json.dumps({"step": 3}) + "\n")
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3]


class _Seen:
    """Latents of one clip: subject 1 is seen, hidden in frame 2, and back; 2 comes later and stays; 3 is back early."""

    visibility = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 1], [1, 1, 1], [1, 1, 1]], np.float32)
    masks = np.tile(np.array([[0, 1], [2, 3]]), (5, 1, 1))

    def subjects(self, clip: str) -> dict[str, np.ndarray]:
        return {"masks": self.masks, "visibility": self.visibility}


def test_returned_pixels_are_those_of_subjects_that_were_hidden_in_between():
    clip = dataclasses.make_dataclass("Clip", ["id", "context"])("a", 3)
    found = returned_pixels(_Seen(), clip)
    assert found.tolist() == [[[False, False], [False, False]]] * 3 + [[[False, True], [False, True]]] * 2
    assert (
        returned_pixels(dataclasses.make_dataclass("View", [], namespace={"subjects": lambda s, c: {}})(), clip) is None
    )


def test_errors_of_chosen_pixels_are_the_means_over_these_alone(latents: Path):
    recipe, view = load_recipe(None, ["model.layers=1", "model.dim=24", "model.heads=2"]), open_latents(latents)
    model = build_model(recipe, channels=16, text_dim=64).eval()
    clips = [view.clip(c) for c in view.ids()[:2]]
    batch = make_batch(clips, view.text(0), frozen=True, train=CAPTIONED, rng=np.random.default_rng(0))
    asked = at_level(batch, 0.7, recipe.flow, context="frozen", seed=3)
    everywhere = errors_of(model, batch, asked, device="cpu")
    shape = (2, batch.latents.shape[2], *batch.latents.shape[3:])
    halves = torch.zeros(shape, dtype=torch.bool)
    halves[0, :, :2] = True
    parts = [errors_of(model, batch, asked, device="cpu", where=where) for where in (halves, ~halves)]
    torch.testing.assert_close(parts[0][0], everywhere)
    share = halves[0].float().mean()
    torch.testing.assert_close(share * parts[0][1][0] + (1 - share) * parts[1][1][0], everywhere[0])
    assert parts[0][1][0] != everywhere[0]
    assert torch.isnan(parts[0][1][1])
