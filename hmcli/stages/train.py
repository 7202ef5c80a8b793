"""`hm train`: flow matching on target frames, with checkpoints from which training goes on exactly.

Everything random in step n depends on (seed, n) alone: which clips, which noise, which timestep, which anchor. A run
stopped anywhere therefore ends with the same weights as one that was never stopped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmcli.contracts import Reporter, StageResult
from hmcli.errors import DataError, StoppedEarly, UsageError
from hmcli.recipe import Recipe, TrainConfig, sections, to_dict, to_yaml
from hmcli.runtime import StopFlag, stopping_at_boundaries
from hmcli.stages.checkpoints import CHECKPOINTS, kept_steps, read_checkpoint, step_name, write_checkpoint
from hmcli.stages.latents import LatentClip, LatentsView, open_latents
from hmcli.stages.models import build_model, check_memory_fits
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.files import write_text
from hmcli.store.hashing import hash_json

if TYPE_CHECKING:
    import torch

    from hmcli.core.flow import FlowSchedule
    from hmcli.core.transformer import HydraTransformer3DModel

READS = ("data", "poses", "codec", "text", "model", "flow", "train")
_MAY_CHANGE = ("steps", "checkpoint_every", "keep")  # of the train section, when a run is continued
LOG = "steps.jsonl"
RECIPE = "recipe.yaml"


def run(
    recipe: Recipe, *, latents: Path, out: Path, force: bool, device: str, reporter: Reporter, dry_run: bool = False
) -> StageResult:
    """Train to `train.steps` and write a run; see `hm train --help`.

    Raises UsageError when `out` holds another run, DataError when no clip can be trained on, StoppedEarly on SIGTERM.
    """
    view = open_latents(latents)
    clips = _usable(view, recipe)
    key = run_key(recipe, view.fingerprint)
    if dry_run:
        reporter.note(f"{len(clips)} clips, {recipe.train.steps} steps of {recipe.train.batch} on {device}, into {out}")
        return StageResult(path=out, kind="run", counts={"clips": len(clips)}, details={"dry_run": True})
    with (
        ArtifactWriter(
            out, "run", recipe=to_dict(recipe), inputs={"latents": view.fingerprint}, seed=recipe.seed, reporter=reporter
        ) as writer,
        stopping_at_boundaries() as stop,
    ):
        _refuse_another_run(writer, key, force)
        if (there := max(kept_steps(writer, key), default=0)) < recipe.train.steps:
            _train(recipe, view, clips, writer, key, device, reporter, stop)
        else:
            reporter.note(f"already trained to step {there}, {recipe.train.steps} were asked for")
        return _finish(writer, recipe, key)


def run_key(recipe: Recipe, latents: str) -> str:
    """What makes a run this run: everything that changes its weights, except how long it lasts."""
    read = sections(recipe, *READS)
    kept = {name: value for name, value in read["train"].items() if name not in _MAY_CHANGE}
    if recipe.train.decay != "constant":
        kept["steps"] = recipe.train.steps
    return hash_json({**read, "train": kept, "seed": recipe.seed, "latents": latents})


def _usable(view: LatentsView, recipe: Recipe) -> list[str]:
    """Ids of clips that have a target. Raises what keeps the latents and the recipe apart."""
    made_with = view.manifest.recipe
    for section in ("codec", "text"):
        wanted = sections(recipe, section)[section]["name"]
        if made_with[section]["name"] != wanted:
            name = made_with[section]["name"]
            raise DataError(
                f"latents were encoded with {section} {name!r}, the recipe wants {wanted!r}",
                where={"artifact": f"{view.path} (manifest: {section}.name)", "recipe": f"{section}.name"},
                fix="encode again with this recipe: hm encode DATA --recipe RECIPE",
            )
    clips = [clip for group in view.groups if group.has_target for clip in group.ids]
    if not clips:
        raise DataError(
            "no clip has target frames to learn from", where={"latents": view.path},
            fix="encode with data.split to cut each clip in two, e.g. --set 'data.split={context: 37, target: 37}'",
        )  # fmt: skip
    return clips


def _refuse_another_run(writer: ArtifactWriter, key: str, force: bool) -> None:
    """Weights are never thrown away because a recipe changed: another run in `out` is refused, unless forced."""
    others = [item for item, record in writer.items.items() if force or record["key"] != key]
    if others and not force:
        raise UsageError(
            "the output folder holds a run of another recipe, seed or latents",
            where={"run": writer.path, "its recipe": writer.path / RECIPE},
            fix="choose another --out, or --force to throw that run away",
        )
    for item in others:
        writer.discard(item)


# --- what a step trains on -----------------------------------------------------------------------------------------


def batches(groups: list[list[str]], batch: int, seed: int) -> Iterator[list[str]]:
    """Endless batches of clip ids, each of one shape; every epoch shows every clip, in an order of its own.

    The last batch of a group in an epoch is filled up from the group's start.
    """
    epoch = 0
    while True:
        rng = np.random.default_rng((seed, epoch))
        order: list[list[str]] = []
        for ids in groups:
            shuffled = [ids[i] for i in rng.permutation(len(ids))]
            filled = shuffled + [shuffled[i % len(ids)] for i in range(-len(ids) % batch)]
            order += [filled[i : i + batch] for i in range(0, len(filled), batch)]
        for index in rng.permutation(len(order)):
            yield order[index]
        epoch += 1


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tensors of one step: B samples, C channels, F latent frames, L text rows, D text width."""

    latents: torch.Tensor  # (B, C, F, h, w)
    camera: torch.Tensor  # (B, F, 12)
    text: torch.Tensor  # (B, L, D)
    context: int


def make_batch(clips: list[LatentClip], empty: np.ndarray, *, frozen: bool, text_dropout: float, rng: Any) -> Batch:
    """Stack clips; draw what is random about them: dropped captions and, for frozen context, the anchor pose."""
    import torch

    cameras = [anchored_rows(clip, int(rng.integers(len(clip.camera)))) if frozen else clip.camera for clip in clips]
    texts = [empty if rng.random() < text_dropout else clip.text for clip in clips]
    return Batch(
        latents=torch.from_numpy(np.stack([clip.latents for clip in clips])),
        camera=torch.from_numpy(np.stack(cameras).astype(np.float32)),
        text=torch.from_numpy(np.stack(texts)),
        context=clips[0].context,
    )


def anchored_rows(clip: LatentClip, anchor: int) -> np.ndarray:
    """Camera rows of a clip relative to one of its own latent frames, (F, 12) float32. Needs absolute poses."""
    from hmcli.world.cameras import relative_camera_rows

    if clip.poses is None:
        raise DataError(
            "frozen context needs camera poses, but this clip's file holds ready rows",
            where={"clip": clip.id}, fix="train with model.memory.context=joint",
        )  # fmt: skip
    return relative_camera_rows(clip.poses, clip.poses[anchor]).astype(np.float32)


# --- the loop ------------------------------------------------------------------------------------------------------


def _train(
    recipe: Recipe,
    view: LatentsView,
    clips: list[str],
    writer: ArtifactWriter,
    key: str,
    device: str,
    reporter: Reporter,
    stop: StopFlag,
) -> None:
    import torch

    from hmcli.core.flow import make_schedule

    train = recipe.train
    _ = writer.staged  # from here on the run is unfinished
    write_text(writer.path / RECIPE, to_yaml(recipe))
    _, width = view.text_shape
    model = build_model(recipe, channels=view.channels, text_dim=width)
    for clip in clips:
        group = view.where[clip][0]
        check_memory_fits(model.config, clip, context=group.context, target=group.target)
    model.to(device).train()
    if train.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    parameters = freeze(model, train)
    optimizer = torch.optim.AdamW(parameters, lr=train.lr, betas=train.betas, weight_decay=train.weight_decay)
    average = Average(model, train.ema) if train.ema else None
    start = read_checkpoint(writer, key, model, optimizer, average)
    accelerator = _accelerator(device, train)
    schedule = make_schedule(recipe.flow.timesteps, recipe.flow.shift, weighting=recipe.flow.weighting)
    log = _log_until(writer.path / LOG, start)
    order = batches([[c for c in group.ids if c in set(clips)] for group in view.groups if group.has_target], train.batch, recipe.seed)
    for _ in range(start):
        next(order)
    cache = {clip: view.clip(clip) for clip in clips} if len(clips) <= 4096 else {}
    with log, reporter.progress("training", train.steps - start, "step") as advance:
        for step in range(start, train.steps):
            rng = np.random.default_rng((recipe.seed, 1, step))
            chosen = [cache.get(clip) or view.clip(clip) for clip in next(order)]
            batch = make_batch(
                chosen, view.text(0), frozen=recipe.model.memory.context == "frozen", text_dropout=train.text_dropout, rng=rng
            )
            rate = learning_rate(train, step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with accelerator.autocast():
                loss = step_loss(model, batch, schedule, recipe.flow.target, seed=int(rng.integers(2**62)), device=device)
            _require_finite(float(loss.detach()), step, chosen)
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(parameters, train.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.update(model)
            log.write(json.dumps({"step": step + 1, "loss": float(loss.detach()), "grad_norm": float(norm), "lr": rate}) + "\n")
            advance(1)
            last = step + 1 == train.steps
            if last or stop or (step + 1) % train.checkpoint_every == 0:
                log.flush()
                write_checkpoint(writer, key, step + 1, recipe, view, model, optimizer, average)
            if stop and not last:
                _say_stopped(stop, step + 1, train.steps)


def step_loss(
    model: HydraTransformer3DModel, batch: Batch, schedule: FlowSchedule, target: Any, *, seed: int, device: str
) -> torch.Tensor:
    """Flow-matching loss on the target frames of one batch (Eq. 1), noise and timesteps from `seed`."""
    import torch

    from hmcli.core.flow import flow_loss, flow_target, with_clean_context

    generator = torch.Generator().manual_seed(seed)
    clean = batch.latents
    index = torch.randint(len(schedule.sigmas), (len(clean),), generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    noisy = with_clean_context(clean, noise, schedule.sigmas[index], batch.context)
    prediction = model(
        noisy.to(device), schedule.timesteps[index].to(device), batch.text.to(device), batch.camera.to(device), batch.context,
        return_dict=False,
    )[0]  # fmt: skip
    return flow_loss(prediction, flow_target(clean, noise, target).to(device), schedule.weights[index], batch.context)


def freeze(model: HydraTransformer3DModel, train: TrainConfig) -> list[torch.nn.Parameter]:
    """Leave only `train.train_only` trainable (parts of parameter names; empty: all); returns what trains."""
    unused = [part for part in train.train_only if not any(part in name for name, _ in model.named_parameters())]
    if unused:
        raise UsageError(
            f"train.train_only names no parameter: {', '.join(unused)}",
            fix="use parts of names such as attn1, attn2, ffn, camera, projector, tokenizer",
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not train.train_only or any(part in name for part in train.train_only))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def learning_rate(train: TrainConfig, step: int) -> float:
    """Linear warm-up, then constant or a cosine to zero at the last step."""
    if step < train.warmup:
        return train.lr * (step + 1) / train.warmup
    if train.decay == "constant":
        return train.lr
    share = (step - train.warmup) / max(1, train.steps - train.warmup)
    return train.lr * 0.5 * (1 + math.cos(math.pi * share))


class Average:
    """Exponential moving average of the trainable weights; its decay grows from 0 so that early steps do not linger."""

    def __init__(self, model: HydraTransformer3DModel, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    def update(self, model: HydraTransformer3DModel) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in model.named_parameters():
            if name in self.weights:
                self.weights[name].lerp_(parameter.detach(), 1 - decay)


def _accelerator(device: str, train: TrainConfig) -> Any:
    """accelerate in one process, on the device that was asked for."""
    import os

    from accelerate import Accelerator

    if device != "cpu":
        os.environ["ACCELERATE_TORCH_DEVICE"] = device
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision="bf16" if train.dtype == "bfloat16" else "no")
    if accelerator.num_processes != 1:
        raise UsageError(f"started as {accelerator.num_processes} processes, but this version trains in one")
    return accelerator


def _require_finite(loss: float, step: int, chosen: list[LatentClip]) -> None:
    if not math.isfinite(loss):
        raise DataError(
            f"the loss is {loss} at step {step + 1}", where={"clips": ", ".join(clip.id for clip in chosen)},
            fix="look at these clips (hm inspect), lower train.lr; the last checkpoint is whole",
        )  # fmt: skip


def _log_until(path: Path, step: int) -> Any:
    """The step log, cut back to `step` so that a resumed run logs every step once."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    write_text(path, "".join(line + "\n" for line in kept))
    return path.open("a", encoding="utf-8")


def _say_stopped(stop: StopFlag, step: int, steps: int) -> None:
    import signal

    if stop.signal == signal.SIGINT:
        raise KeyboardInterrupt
    raise StoppedEarly(f"stopped at step {step} of {steps}", fix="run the same command again: it goes on from there")


# --- the run as an artifact ----------------------------------------------------------------------------------------


def _finish(writer: ArtifactWriter, recipe: Recipe, key: str) -> StageResult:
    last = max(kept_steps(writer, key))
    losses = [json.loads(line)["loss"] for line in (writer.path / LOG).read_text(encoding="utf-8").splitlines()]
    tail = losses[-max(1, len(losses) // 10) :]
    details = {
        "checkpoint": f"{CHECKPOINTS}/{step_name(last)}", "loss_first": losses[0], "loss_last_tenth": sum(tail) / len(tail),
    }  # fmt: skip
    manifest = writer.finish(
        [step_name(step) for step in kept_steps(writer, key)], counts={"steps": last}, attributes=details, files=[LOG, RECIPE]
    )
    return StageResult(
        path=writer.path, kind="run", fingerprint=manifest.fingerprint, counts=manifest.counts, details=details
    )
