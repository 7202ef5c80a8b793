"""Plans of trainings on videos: a VAE, the segmenter, the linear code of blocks.

All of them train in one process. How fast steps are on a CPU was measured (docs/performance.md): many small
convolutions reach less of a CPU's rate than a transformer's products do.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

from hmcli.recipe.sections import Recipe
from hmcli.stages.planning.disk import CLIP, Disk
from hmcli.stages.planning.layout import Memory, Plan
from hmcli.stages.planning.pixels import PixelAccount, kinds_of_steps, pixel_account, real_pixel_step, rehearsed
from hmcli.stages.planning.remedies import Remedy
from hmcli.stages.planning.shapes import ClipShape
from hmcli.stages.planning.times import RENDER, Times
from hmcli.stages.shared.devices import Device

READ = 1.8e-7  # seconds a pixel and frame on one core, of a clip with the masks of its subjects
SUM = 1.1e-7  # the same, for adding a video to the moments of a code, products apart
CPU_SHARE = {"codec": 0.4, "segmenter": 0.65, "blocks": 0.5}  # of the rate of products of matrices, in steps


def pixel_plan(name: str, recipe: Recipe, shape: ClipShape, device: Device, timed: bool) -> Plan:
    """Of a recipe whose `train.part` is codec, segmenter or blocks. `timed` takes a real step of each kind."""
    found = pixel_account(recipe, shape, on_cpu=device.on_cpu)
    step, peak = found.step, _peak(found, device, recipe)
    frames, area = sum(shape.video_frames), shape.pixels[0] * shape.pixels[1]
    return Plan(
        recipe=name, part=recipe.train.part, clip=shape, device=device.name, world=1,
        clips_at_once=1 if recipe.train.part == "blocks" else recipe.train.batch,
        parameters=round(step.parameters), parameters_trained=round(step.trained),
        memory=Memory(
            weights=step.weights, gradients=step.gradients, optimizer=step.optimizer, average=step.average,
            activations=step.activations, activations_with_checkpointing=0.0,
            activations_without_checkpointing=step.activations, attention_at_work=0.0, peak=peak,
            peak_with_sharding=peak, room=device.room, fits=peak <= device.room, vae_weights=0.0, vae_encode_peak=0.0,
            vae_decode_peak=0.0, text_encoder_weights=0.0, sampling_peak=0.0, videos=found.videos,
        ),
        disk=Disk(
            clips=CLIP * area * frames * shape.clips, latents=0.0, memory=0.0, checkpoint=found.checkpoint,
            run=found.checkpoint * (recipe.train.keep + 1) + found.exported, generation=0.0, exported=found.exported,
        ),
        times=_times(recipe, shape, found, device, timed),
        remedies=() if peak <= device.room else tuple(_smaller_batches(recipe, shape, device)),
    )  # fmt: skip


def _peak(found: PixelAccount, device: Device, recipe: Recipe) -> float:
    """Highest bytes where steps are taken; the code is fitted on the CPU, whatever the device."""
    return found.step.peak + (found.videos if device.on_cpu or recipe.train.part == "blocks" else 0.0)


def _times(recipe: Recipe, shape: ClipShape, found: PixelAccount, device: Device, timed: bool) -> Times:
    pixels = shape.pixels[0] * shape.pixels[1] * sum(shape.video_frames) * shape.clips
    part, steps = recipe.train.part, sum(phase.steps for phase in found.phases)
    if timed and part != "blocks":
        work = _timed(recipe, shape)
    else:
        there = dataclasses.replace(device, share=CPU_SHARE[part]) if device.on_cpu else device
        work = there.seconds(sum(phase.flop for phase in found.phases), "float32")
        work += SUM * pixels if part == "blocks" else 0.0
    return Times(
        render=RENDER * pixels, encode=0.0, tokenize_memory=0.0, step=work / steps, train=READ * pixels + work,
        generate=0.0, timed=timed and part != "blocks",
    )  # fmt: skip


def _timed(recipe: Recipe, shape: ClipShape) -> float:
    """Seconds of all steps, from a real one of each kind after one that warms up."""
    seconds = 0.0
    for steps, first in kinds_of_steps(recipe):
        stage = rehearsed(recipe, shape.pixels, first, on_cpu=True)
        real_pixel_step(recipe, stage)
        started = time.perf_counter()
        real_pixel_step(recipe, stage)
        seconds += steps * (time.perf_counter() - started)
    return seconds


def _smaller_batches(recipe: Recipe, shape: ClipShape, device: Device) -> Iterator[Remedy]:
    """Half of the batch, and half of that, until a step fits."""
    fits = recipe.train.part == "blocks"  # there is none: clips come one by one
    while not fits and (batch := recipe.train.batch // 2):
        recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, batch=batch))
        peak = _peak(pixel_account(recipe, shape, on_cpu=device.on_cpu), device, recipe)
        fits = peak <= device.room
        yield Remedy(change=f"train.batch={batch}", peak=peak, fits=fits)
