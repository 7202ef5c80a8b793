"""The step of `hm train` against training written plainly, on one screen: equal to the last bit, step after step."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hmcli.core.flow import make_schedule
from hmcli.core.lora import add_lora
from hmcli.core.transformer import HydraTransformer3DModel
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import Recipe, TrainConfig
from hmcli.runtime import Silent
from hmcli.stages.latents.view import LatentsView, open_latents
from hmcli.stages.models.folders import build_model
from hmcli.stages.training import train
from hmcli.stages.training.learning import batches
from hmcli.stages.training.muon import Muon
from hmcli.stages.training.state import read_state
from hmcli.stages.training.trainer import prepare_training
from hmcli.store.manifest import read_manifest
from hmcli.store.weights import load_state_dict
from hmcli.world.views.cameras import relative_camera_rows

SHARP = [  # every setting of a step far from its default, so that leaving it out shows
    "train.steps=5", "train.lr=2e-2", "train.warmup=3", "train.betas=[0.6, 0.8]", "train.weight_decay=0.5",
    "train.clip_norm=0.05", "train.text_dropout=0.5", "train.keep=1",
]  # fmt: skip
RECIPES = {
    "frozen context": [],
    "joint context with an average": ["model.memory.context=joint", "train.ema=0.3"],
    "an average that is still warming up": ["train.ema=0.999"],
    "weighed timesteps, cosine": ["flow.weighting=bell", "train.decay=cosine"],
    "the other sign, every caption": ["flow.target=clean_minus_noise", "train.text_dropout=0.0"],
    "clean latents, capped": ["flow.target=clean", "flow.weighting=capped"],
    "adapters with an average": ["train.lora={rank: 2, alpha: 3.0}", "train.ema=0.5"],
    "muon": ["train.optimizer=muon", "train.ema=0.5"],
    "subjects count more": ["train.subject_weight=3.0"],
    "subjects count more, joint context": ["train.subject_weight=3.0", "model.memory.context=joint"],
    "the middle of the levels more often": ["flow.density=logit-normal"],
    "a part of the weights": ["train.train_only=[attn1, camera]", "train.ema=0.5"],
}


def plainly(recipe: Recipe, view: LatentsView) -> tuple[list[dict[str, float]], dict[str, Tensor], dict[str, Tensor]]:
    """What the log says of each step, the weights that trained, and their average."""
    t, frozen = recipe.train, recipe.model.memory.context == "frozen"
    model, schedule = fresh(recipe, view), make_schedule(1000, recipe.flow.shift, weighting=recipe.flow.weighting)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    average = {name: p.detach().clone() for name, p in trained.items()}
    optimizers = plain_optimizers(trained, t)
    order, log = batches([list(group.ids) for group in view.groups], t.batch, recipe.seed), []
    for step in range(t.steps):
        clips, rng = [view.clip(clip) for clip in next(order)], np.random.default_rng((recipe.seed, 1, step))
        poses = [clip.world_poses() for clip in clips]
        anchored = [relative_camera_rows(p, p[rng.integers(len(p))]) for p in poses] if frozen else []
        rows = anchored or [clip.camera for clip in clips]
        captions = [view.text(0) if rng.random() < t.text_dropout else clip.text for clip in clips]
        chance = torch.Generator().manual_seed(int(rng.integers(2**62)))
        clean, n = torch.tensor(np.stack([clip.latents for clip in clips])), clips[0].context
        level, noise = plain_level(recipe, len(clips), chance), torch.randn(clean.shape, generator=chance)
        sigma = schedule.sigmas[level].view(-1, 1, 1, 1, 1)
        noised = torch.cat([clean[:, :, :n], ((1 - sigma) * clean + sigma * noise)[:, :, n:]], dim=2)
        text, camera = torch.tensor(np.stack(captions)), torch.tensor(np.stack(rows).astype(np.float32))
        flow = model(noised, schedule.timesteps[level], text, camera, n, return_dict=False)[0]
        wanted = clean - noise if recipe.flow.target == "clean_minus_noise" else noise - clean
        shown = torch.tensor(np.stack([view.subjects(clip.id)["masks"] > 0 for clip in clips]))
        counts = torch.where(shown, 1 + t.subject_weight, 1.0)[:, None]
        error = (counts * (flow - wanted).square()).mean(dim=(1, 3, 4))[:, n:]
        loss = (schedule.weights[level][:, None] * error).mean()
        model.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained.values(), t.clip_norm)
        rate = plain_rate(t, step)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
        decay = min(t.ema, (2 + step) / (11 + step))
        for name, p in trained.items():
            average[name] -= (1 - decay) * (average[name] - p.detach())
        log.append({"step": step + 1, "loss": float(loss.detach()), "grad_norm": float(norm), "lr": rate})
    return log, {name: p.detach() for name, p in trained.items()}, average


def plain_optimizers(trained: dict[str, torch.nn.Parameter], t: TrainConfig) -> list[torch.optim.Optimizer]:
    settings = {"betas": t.betas, "eps": 1e-8, "weight_decay": t.weight_decay}
    layers = re.compile(r"blocks\.\d+\.(attn\d\.to_(q|k|v|out\.0)|ffn\.net\.(0\.proj|2)|projector)\.weight")
    inner = [p for name, p in trained.items() if t.optimizer == "muon" and layers.fullmatch(name)]
    others = [p for p in trained.values() if all(p is not matrix for matrix in inner)]
    muon = [Muon(inner, lr=t.lr, weight_decay=t.weight_decay)] if inner else []
    return [torch.optim.AdamW(others, lr=t.lr, **settings), *muon]


def plain_level(recipe: Recipe, clips: int, chance: torch.Generator) -> Tensor:
    if recipe.flow.density == "uniform":
        return torch.randint(1000, (clips,), generator=chance)
    return (1000 * (1 - torch.sigmoid(torch.randn(clips, generator=chance, dtype=torch.float64)))).long()


def plain_rate(t: TrainConfig, step: int) -> float:
    if step < t.warmup:
        return t.lr * (step + 1) / t.warmup
    decays = t.decay == "cosine"
    return t.lr * 0.5 * (1 + math.cos(math.pi * (step - t.warmup) / (t.steps - t.warmup))) if decays else t.lr


def fresh(recipe: Recipe, view: LatentsView) -> HydraTransformer3DModel:
    """The model before the first step, with only that trainable which the recipe trains."""
    model = build_model(recipe, channels=view.channels, text_dim=view.text_shape[1]).train()
    if (lora := recipe.train.lora) is not None:
        chance = torch.Generator().manual_seed(recipe.seed)
        add_lora(model, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, generator=chance)
    parts = (".lora_",) if lora is not None else recipe.train.train_only or ("",)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in parts))
    return model


@pytest.mark.parametrize("changes", RECIPES.values(), ids=RECIPES)
def test_a_run_is_training_as_the_recipe_says_it(latents: Path, nano: Path, tmp_path: Path, changes: list[str]):
    recipe, view = load_recipe(str(nano), [*SHARP, *changes]), open_latents(latents)
    recipe = train.as_encoded(recipe, view, Silent())
    run = train.run(
        recipe, latents=latents, out=tmp_path / "run", force=False, device="cpu", reporter=Silent()
    ).path  # fmt: skip
    log, weights, average = plainly(recipe, view)
    assert [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()] == log
    said = read_manifest(run).attributes
    assert (said["loss_first"], said["loss_last_tenth"]) == (log[0]["loss"], log[-1]["loss"]), (
        "a tenth is one step here"
    )
    assert any(row["grad_norm"] > recipe.train.clip_norm for row in log), "clipping has something to do"
    found = trained_by(run, recipe)
    assert differing(found["weights"], weights) == []
    if recipe.train.ema:
        assert differing(found["average"], average) == []
        assert differing(average, weights) == list(average), "the average is not just the weights"


def trained_by(run: Path, recipe: Recipe) -> dict[str, dict[str, Tensor]]:
    """Weights and average of the last checkpoint, wherever they lie."""
    folder = run / "checkpoints" / f"{recipe.train.steps:06d}"
    state, saved = read_state(folder, seed=recipe.seed, instead=""), load_state_dict(folder / "transformer")
    return {"weights": state.weights or saved, "average": state.average or saved}


def differing(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    return [name for name, value in wanted.items() if not torch.equal(found[name], value)]


def test_a_group_of_parameters_has_its_share_of_the_rate(latents: Path, nano: Path):
    """As a codec's kernels have twice the rate; the log says the recipe's."""
    view = open_latents(latents)
    recipe = train.as_encoded(load_recipe(str(nano), ["train.warmup=0"]), view, Silent())
    training = prepare_training(recipe, view, "cpu", None, Silent())
    (group,) = training.optimizers[0].param_groups
    group["scale"] = 0.25
    row = training.step(training.prepare(0, [view.clip(clip) for clip in view.ids()[:2]]))
    assert (group["lr"], row.lr) == (recipe.train.lr / 4, recipe.train.lr)
