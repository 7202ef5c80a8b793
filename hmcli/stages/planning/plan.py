"""`hm plan`: what a recipe will take, before anything runs: parameters, memory by part, disk and time.

Memory of a step is that of its own code on tensors without memory (hmcli.stages.planning.rehearsal). Time is the
products of a stage over the rate of a device, or follows from one timed step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hmcli.contracts import Description, Reporter
from hmcli.errors import UsageError
from hmcli.recipe.sections import Recipe
from hmcli.stages.planning.disk import disk_of
from hmcli.stages.planning.layout import Memory, Plan
from hmcli.stages.planning.pixel_plans import pixel_plan
from hmcli.stages.planning.rehearsal import Account, activations, timed_step, training_account
from hmcli.stages.planning.remedies import Remedy, remedies
from hmcli.stages.planning.runs import VaeAccount, context_account, denoising_account, vae_account
from hmcli.stages.planning.shapes import ClipShape, shape_of, shape_of_latents, text_parameters
from hmcli.stages.planning.times import times_of
from hmcli.stages.planning.wording import table, told_sum
from hmcli.stages.shared.devices import Device, device_named
from hmcli.stages.shared.typed import to_json
from hmcli.stages.training.train import check_shares


def run(
    recipes: Sequence[tuple[str, Recipe]],
    *,
    latents: Path | None,
    world: int,
    on_device: str,
    timed: bool,
    reporter: Reporter,
) -> Description:
    """Plan every recipe; of several also the sum.

    `latents` says what clips are like instead of the recipes, all of which train a transformer then. `timed` takes one
    real step on this machine. Raises UsageError for options that say nothing of a recipe.
    """
    device = device_named(on_device)
    if timed and not device.on_cpu:
        raise UsageError("--timed takes a step on this machine", fix=f"leave out --on-device {on_device}, or --timed")
    others = [f"{name}: {recipe.train.part}" for name, recipe in recipes if recipe.train.part != "transformer"]
    if others and latents is not None:
        raise UsageError(
            "--latents describes what a transformer trains on; these recipes train on videos",
            where={"train.part": ", ".join(others)}, fix="leave it out: world.clips and world.*_frames describe those",
        )  # fmt: skip
    if others and world > 1:
        reporter.note(f"planned in one process, which is how they train: {', '.join(others)}")
    shape = None if latents is None else shape_of_latents(latents)
    plans = []
    with reporter.progress("planning", len(recipes), "recipe") as advance:
        for name, recipe in recipes:
            if recipe.train.part == "transformer":
                _say_refused(name, recipe, world, reporter)
                plans.append(_plan(name, recipe, shape or shape_of(recipe), world, device, timed))
            else:
                plans.append(pixel_plan(name, recipe, shape_of(recipe), device, timed))
            advance(1)
    told = [table(to_json(plan)) for plan in plans]
    data: dict[str, Any] = {"plans": [to_json(plan) for plan in plans]}
    if len(plans) > 1:
        data["sum"] = _sum(plans)
        told.append(told_sum(data["sum"]))
    return Description(text="\n\n".join(told), data=data)


def _say_refused(name: str, recipe: Recipe, world: int, reporter: Reporter) -> None:
    """A plan of what training would refuse is a plan all the same, and says so."""
    try:
        check_shares(recipe.train, world)
    except UsageError as refused:
        reporter.note(f"{name}: hm train refuses this: {refused.what}; {refused.fix}")


def _plan(name: str, recipe: Recipe, shape: ClipShape, world: int, device: Device, timed: bool) -> Plan:
    own = _at_once(recipe, world)
    step = training_account(own, shape, on_cpu=device.on_cpu)
    other = _checkpointed(own, not own.train.gradient_checkpointing)
    twin = activations(other, shape, on_cpu=device.on_cpu)
    sampling = denoising_account(recipe, shape, on_cpu=device.on_cpu)
    frozen = recipe.model.memory.context == "frozen"
    context = context_account(recipe, shape, on_cpu=device.on_cpu) if frozen else None
    vae = vae_account(recipe, shape)
    memory = _memory(own, step, twin, sampling, vae, world, device)

    seconds = _timed(own, shape, memory) if timed else None
    return Plan(
        recipe=name, part=recipe.train.part, clip=shape, device=device.name, world=world, clips_at_once=own.train.batch,
        parameters=round(step.parameters), parameters_trained=round(step.trained), memory=memory,
        disk=disk_of(recipe, shape, step, sampling, kept=context.kept if context else 0.0),
        times=times_of(recipe, shape, device, world, step=step, sampling=sampling, context=context, vae=vae,
                       step_seconds=seconds),
        remedies=() if memory.fits else _what_to_change(recipe, shape, world, device),
    )  # fmt: skip


def planned_peak(recipe: Recipe, shape: ClipShape, *, world: int, on_cpu: bool) -> float:
    """Highest bytes of a rank, which holds of the model what `train.parallel` says."""
    return _peak(training_account(_at_once(recipe, world), shape, on_cpu=on_cpu), recipe, world, on_cpu)


def _what_to_change(recipe: Recipe, shape: ClipShape, world: int, device: Device) -> tuple[Remedy, ...]:
    def peak_of(changed: Recipe) -> float:
        return planned_peak(changed, shape, world=world, on_cpu=device.on_cpu)

    return tuple(remedies(recipe, device.room, peak_of))


def _at_once(recipe: Recipe, world: int) -> Recipe:
    """The clips of a step are shared by all ranks, and a rank may go through its share in pieces: one of these."""
    pieces = world * recipe.train.accumulate
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, batch=-(-recipe.train.batch // pieces)))


def _checkpointed(recipe: Recipe, wanted: bool) -> Recipe:
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, gradient_checkpointing=wanted))


def _peaks(step: Account, recipe: Recipe, world: int, on_cpu: bool) -> tuple[float, float]:
    """Highest bytes of a rank: every rank with all of the model, and the model spread over the ranks.

    In the first case ranks gather gradients in buckets as large as these; in the second a block's weights and gradients
    are whole while it runs, and those of the next one are under way. After the first piece gradients are always there.
    """
    peak = step.peak
    if recipe.train.accumulate > 1:
        peak = max(step.forward + step.gradients, step.backward + step.gradients, step.update)
    if world == 1:
        return peak, peak
    held = _held(step)
    spread = 2 * (step.weights + step.gradients) / recipe.model.layers
    spread += 0.0 if recipe.train.offload and not on_cpu else held / world
    return peak + step.gradients, peak - held + spread


def _held(step: Account) -> float:
    """Bytes that stay from step to step."""
    return step.weights + step.gradients + step.optimizer + step.average


def _peak(step: Account, recipe: Recipe, world: int, on_cpu: bool) -> float:
    whole, spread = _peaks(step, recipe, world, on_cpu)
    return spread if recipe.train.parallel == "fsdp" else whole


def _memory(
    recipe: Recipe, step: Account, twin: float, sampling: Account, vae: VaeAccount | None, world: int, device: Device
) -> Memory:
    kept = step.activations
    with_it, without = (kept, twin) if recipe.train.gradient_checkpointing else (twin, kept)
    peak, spread = _peak(step, recipe, world, device.on_cpu), _peaks(step, recipe, world, device.on_cpu)[1]
    text = text_parameters(recipe) * (4 if recipe.text.dtype == "float32" else 2)
    return Memory(
        weights=step.weights, gradients=step.gradients, optimizer=step.optimizer, average=step.average,
        activations=kept, activations_with_checkpointing=with_it, activations_without_checkpointing=without,
        attention_at_work=step.attention, peak=peak,
        offloaded=_held(step) / world if recipe.train.offload and not device.on_cpu else 0.0,
        peak_with_sharding=spread, room=device.room, fits=peak <= device.room,
        vae_weights=vae.weights if vae else 0, vae_encode_peak=vae.encode_peak if vae else 0,
        vae_decode_peak=vae.decode_peak if vae else 0, text_encoder_weights=text,
        sampling_peak=sampling.peak + sampling.kept,
    )  # fmt: skip


def _timed(recipe: Recipe, shape: ClipShape, memory: Memory) -> float:
    if not memory.fits:
        raise UsageError(
            "a step does not fit into this machine's memory, so it cannot be timed", fix="leave out --timed"
        )
    return timed_step(recipe, shape)


def _sum(plans: Sequence[Plan]) -> dict[str, float]:
    """Of several recipes: the highest peak, and all of disk and time."""

    def total(part: Callable[[Plan], Any]) -> dict[str, float]:
        rows = [to_json(part(plan)) for plan in plans]
        return {key: sum(row[key] or 0 for row in rows) for key in rows[0] if isinstance(rows[0][key], int | float)}

    return {
        "recipes": len(plans), "highest_peak": max(plan.memory.peak for plan in plans),
        **{f"disk.{key}": value for key, value in total(lambda plan: plan.disk).items()},
        **{f"seconds.{key}": value for key, value in total(lambda plan: plan.times).items()},
    }  # fmt: skip
