"""How many samples does a transformer need until it foretells where somebody out of sight will be?

    python benchmarks/foretell.py --positions rays relative-rays          # 300 steps of 32 samples each
    python benchmarks/foretell.py --steps 1500 --stop 300 --seed 2        # the learning rate stays high
    python benchmarks/foretell.py --positions screen --steps 100 --json foretell.json

A world of one row of pixels that costs nothing to draw, so that no sample comes twice: a panorama that all samples
share, and a bump of light that walks over it at a pace of its own. A camera films it, turns away, and turns to where it
will be, as those of nano/clips do. The model is `HydraTransformer3DModel`, small and dense (policy `all`, frozen
context); from noise alone it predicts clean target frames, so that whatever it knows is from its context. Printed is
the error on 256 samples of another seed as a share of the variance, of the walker and of the panorama: 1 knows nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hmcli.core.retrieval import RetrievalInputs
from hmcli.core.transformer import HydraTransformer3DModel
from hmcli.reports.tables import markdown_table

CONTEXT, TARGET, COLUMNS = 12, 6, 8  # latent frames, tokens of a frame
PATCH = 37 / COLUMNS  # degrees
FASTEST = 0.5  # patches a latent frame, to either side
TURN = 45.0  # degrees that the camera turns away by, 12 a frame
WIDTH = 0.7  # of the walker, in patches
BATCH, JUDGED = 32, 256
LEARNING_RATE, WARMUP = 2e-3, 20


@dataclass(frozen=True, kw_only=True)
class Samples:
    """(B, 4, F, 1, COLUMNS): the walker's light, three colours of the panorama; and camera rows (B, F, 12)."""

    latents: Tensor
    camera: Tensor


def samples(count: int, generator: torch.Generator) -> Samples:
    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    def whole(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (count, 1), generator=generator).float()

    time_F = torch.arange(CONTEXT + TARGET).float()
    pace_B, there_B = uniform(-FASTEST, FASTEST) * PATCH, uniform(-180, 180)
    length_B1, first_B1 = whole(4, 7), whole(0, 2)
    walker_BF = there_B[:, None] + pace_B[:, None] * (time_F - first_B1 - length_B1 / 2)
    side_B1 = torch.where(uniform(-1, 1) < 0, -1.0, 1.0)[:, None]
    gone_BF, to_come_BF = time_F - first_B1 - length_B1, first_B1 - time_F
    after, before = ((12 * frames).clamp(min=0, max=TURN) for frames in (gone_BF, to_come_BF))
    yaw_BF = there_B[:, None] + side_B1 * (after - before)
    back_BF = ((time_F - whole(10, 13)).clamp(min=0) * 12 / TURN).clamp(max=1)
    goal_B = walker_BF[:, CONTEXT + 3] + uniform(-14, 14)
    yaw_BF = yaw_BF + (goal_B[:, None] - yaw_BF) * back_BF
    azimuth_BFK = yaw_BF[..., None] + (torch.arange(COLUMNS) + 0.5 - COLUMNS / 2) * PATCH
    away_BFK = (azimuth_BFK - walker_BF[..., None] + 180) % 360 - 180
    light_BFK = torch.exp(-0.5 * (away_BFK / (WIDTH * PATCH)) ** 2)
    colours_B3FK = _panorama(azimuth_BFK).movedim(-1, 1) * (1 - light_BFK[:, None])
    latents = torch.cat([2 * light_BFK[:, None], colours_B3FK], dim=1)[:, :, :, None]
    return Samples(latents=latents, camera=_camera(yaw_BF - yaw_BF[:, CONTEXT : CONTEXT + 1]))


def _panorama(azimuth: Tensor) -> Tensor:
    """Three colours (..., 3) at azimuths in degrees; the same place for all."""
    generator, waves = torch.Generator().manual_seed(7), torch.arange(1, 13)
    height, phase = torch.randn(3, 12, generator=generator), 2 * math.pi * torch.rand(3, 12, generator=generator)
    return (height * torch.cos(torch.deg2rad(azimuth)[..., None, None] * waves * 2 + phase)).sum(-1) / 3


def _camera(yaw_BF: Tensor) -> Tensor:
    """Rows of level cameras at one place, turned to the right by degrees."""
    angle = torch.deg2rad(yaw_BF)
    pose = torch.zeros(*yaw_BF.shape, 3, 4)
    pose[..., 0, 0] = pose[..., 2, 2] = angle.cos()
    pose[..., 0, 2], pose[..., 2, 0] = angle.sin(), -angle.sin()
    pose[..., 1, 1] = 1
    return pose.flatten(-2)


def build(positions: str) -> HydraTransformer3DModel:
    return HydraTransformer3DModel(
        num_layers=4, num_attention_heads=4, attention_head_dim=24, ffn_dim=288, freq_dim=32, text_dim=8, in_channels=4,
        out_channels=4, patch_size=(1, 1, 1), policy="all", context="frozen", top_k=0, window=3, kernel=(2, 1, 1),
        flow_target="clean", positions=positions, tokenizer="mean",
    )  # fmt: skip


def errors(model: HydraTransformer3DModel, given: Samples, noise: Tensor) -> Tensor:
    """Squared errors of the target, (B, 4, TARGET, 1, COLUMNS), predicted from this noise."""
    count, focal = len(noise), 8 * COLUMNS / math.tan(math.radians(COLUMNS * PATCH / 2))
    lens = torch.tensor([[focal, focal, 8.0 * COLUMNS, 8.0]], dtype=torch.float64).expand(count, 4)
    seen = given.latents[:, :, :CONTEXT]
    timestep = torch.zeros(count, CONTEXT + TARGET)
    timestep[:, CONTEXT:] = 1000
    made = model(
        hidden_states=torch.cat([seen, noise], dim=2), timestep=timestep, camera=given.camera,
        encoder_hidden_states=torch.zeros(count, 1, 8), num_context_frames=CONTEXT,
        retrieval=RetrievalInputs(intrinsics_B4=lens, image_size=(16, 16 * COLUMNS)),
    ).sample[:, :, CONTEXT:]  # fmt: skip
    return (made - given.latents[:, :, CONTEXT:]).square()


@torch.no_grad()
def judge(model: HydraTransformer3DModel) -> tuple[float, float]:
    """Error over variance of the walker and of the panorama, on samples that no training sees."""
    generator = torch.Generator().manual_seed(99)
    given = samples(JUDGED, generator)
    truth = given.latents[:, :, CONTEXT:]
    found = errors(model, given, torch.randn(truth.shape, generator=generator))
    walker, panorama = (found[:, part].mean() / truth[:, part].var() for part in (slice(0, 1), slice(1, 4)))
    return walker.item(), panorama.item()


def learn(positions: str, steps: int, every: int, seed: int, stop: int = 0) -> list[dict[str, float]]:
    """What it knows after every so many steps; `stop` ends before the learning rate has come down."""
    torch.manual_seed(seed)
    model, generator = build(positions), torch.Generator().manual_seed(1000 + seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    found, since = [], time.process_time()
    last = min(steps, stop or steps)
    for step in range(1, last + 1):
        share = min(1.0, step / WARMUP) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps)))
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * share
        given = samples(BATCH, generator)
        loss = errors(model, given, torch.randn(BATCH, 4, TARGET, 1, COLUMNS, generator=generator)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % every == 0 or step == last:
            walker, panorama = judge(model)
            found.append({
                "samples": step * BATCH, "walker": walker, "panorama": panorama,
                "processor_seconds": time.process_time() - since,
            })  # fmt: skip
            print(f"{positions}: {step * BATCH} samples, walker {walker:.3f}, panorama {panorama:.3f}", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", nargs="+", default=["rays", "relative-rays"], help="values of model.positions")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--stop", type=int, default=0, help="end after so many of them; 0: after all")
    parser.add_argument("--every", type=int, default=100, help="steps between two looks at other samples")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = {name: learn(name, given.steps, given.every, given.seed, given.stop) for name in given.positions}
    rows = [
        [name, str(one["samples"]), f"{one['walker']:.3f}", f"{one['panorama']:.3f}", f"{one['processor_seconds']:.0f}"]
        for name, looks in found.items()
        for one in looks
    ]
    print("\n" + markdown_table(["positions", "samples", "walker", "panorama", "processor s"], rows))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
