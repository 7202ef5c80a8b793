"""How long the stages of a recipe take: their products over a device's rate, or training from one timed step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hmcli.recipe.sections import Recipe
from hmcli.stages.planning.rehearsal import Account
from hmcli.stages.planning.runs import VaeAccount
from hmcli.stages.planning.shapes import ClipShape
from hmcli.stages.shared.devices import Device

RENDER = 1.0e-6  # seconds a pixel and frame on one core (docs/performance.md: 1.3 at 64 x 112, 0.75 at 480 x 832)


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds; of all clips where a stage goes through clips, shared by the ranks. Rendering is on one CPU core."""

    render: float
    encode: float
    tokenize_memory: float  # 0 where the model keeps no memory
    step: float  # of trainings on videos the mean; of the code of blocks, a clip
    train: float
    generate: float
    timed: bool  # was a step taken, or computed from rates?

    @property
    def all(self) -> float:
        return self.render + self.encode + self.tokenize_memory + self.train + self.generate


def times_of(
    recipe: Recipe,
    shape: ClipShape,
    device: Device,
    world: int,
    *,
    step: Account,
    sampling: Account,
    context: Account | None,
    vae: VaeAccount | None,
    step_seconds: float | None,
) -> Times:
    """Time of every stage.

    `step` (and `step_seconds`) is of one piece of a rank's share, `sampling` one evaluation of the model, `context` of
    one clip. Clips are whole: the rank that has most of them says how long all take.
    """
    each = math.ceil(shape.clips / world)
    pixels, frames = shape.pixels[0] * shape.pixels[1], sum(shape.video_frames)
    branches = (2 if recipe.sample.guidance != 1 else 1) + (1 if recipe.sample.history_guidance != 1 else 0)
    evaluations = recipe.sample.steps * branches * recipe.sample.count
    denoise = device.seconds(sampling.flop * evaluations, recipe.sample.dtype)
    over_context = device.seconds(context.flop, recipe.sample.dtype) if context else 0.0
    share = frames / shape.video_frames[1]  # the VAE was counted on the target's video
    encode = device.seconds(vae.encode_flop * share, recipe.codec.dtype) if vae else 0.0
    decode = device.seconds(vae.decode_flop * recipe.sample.count, recipe.codec.dtype) if vae else 0.0
    piece = device.seconds(step.flop, recipe.train.dtype) if step_seconds is None else step_seconds
    one = piece * recipe.train.accumulate
    return Times(
        render=RENDER * pixels * frames * shape.clips, encode=encode * each, tokenize_memory=over_context * each,
        step=one, train=one * recipe.train.steps, generate=(over_context + denoise + decode) * each,
        timed=step_seconds is not None,
    )  # fmt: skip
