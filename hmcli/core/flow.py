"""Flow matching: the noise schedule, noise levels per clip or per frame, noising, the target, and the loss.

Paper: Eq. 1, docs/paper-map.md row "flow". Known differences: docs/parity.md, "flow target", "loss weight", "noise".
Shape letters here: B batch, C latent channels, F latent frames, h and w latent pixels, N steps of a schedule.
Sigma is the share of noise, 1 (noise) to 0 (clean); a timestep is 1000 * sigma. Clean latents are z0 in the paper,
noise is z1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

TIMESTEP_SCALE = 1000.0  # the model reads 1000 * sigma
LEAST_SIGMA = 1e-3  # flow of a prediction of clean latents is not told at less noise
FULL_SIGMA = 0.3  # `capped` weighs errors of the flow less below it
Target = Literal["noise_minus_clean", "clean_minus_noise", "clean"]
Weighting = Literal["uniform", "bell", "capped"]
Density = Literal["uniform", "logit-normal"]  # how often a level is trained
Noise = Literal["shared", "per-frame"]  # one level for all target frames of a clip, or one of its own for every frame


@dataclass(frozen=True, kw_only=True)
class FlowSchedule:
    """Noise levels from the noisiest down; the level after the last one is 0. All (N,) float32 on CPU."""

    sigmas: Tensor
    timesteps: Tensor
    weights: Tensor  # of the loss

    def nearest(self, timestep: Tensor) -> Tensor:
        """Index of the grid timestep closest to each given one (any shape), the earlier one on a tie."""
        distance = (timestep.float().cpu().reshape(-1, 1) - self.timesteps).abs()
        return distance.argmin(dim=1).reshape(timestep.shape)

    def next_sigma(self, index: int) -> Tensor:
        """The noise level after step `index`."""
        return self.sigmas[index + 1] if index + 1 < len(self.sigmas) else torch.zeros(())


def make_schedule(steps: int, shift: float, *, strength: float = 1.0, weighting: Weighting = "uniform") -> FlowSchedule:
    """Evenly spaced levels from `strength` towards 0 (which is not among them), shifted towards noise.

    shifted = shift * s / (1 + (shift - 1) * s), in float32 and in this order, as released. Sampling uses `steps`
    levels, training 1000 of them. `bell` weighs a timestep by a Gaussian around the middle less its lowest value, with
    mean 1: the released weight, 0 at the first (noisiest) level, so only for fine-tuning. `capped` is
    min(1, sigma / 0.3)^2: an error of predicted clean latents is, as one of the flow, divided by sigma.
    """
    if steps < 1 or shift <= 0 or not 0 < strength <= 1:
        raise ValueError(f"no schedule of steps={steps}, shift={shift}, strength={strength}")
    even = even_levels(steps, strength)
    sigmas = shift * even / (1 + (shift - 1) * even)
    timesteps = sigmas * TIMESTEP_SCALE
    weigh: dict[Weighting, Callable[[Tensor], Tensor]] = {
        "uniform": torch.ones_like, "bell": bell_weights, "capped": capped_weights,
    }  # fmt: skip
    weights = weigh[weighting](timesteps)
    return FlowSchedule(sigmas=sigmas, timesteps=timesteps, weights=weights)


def even_levels(steps: int, strength: float) -> Tensor:
    """`torch.linspace(strength, 0, steps + 1)` without its last number, (N,) float32, with equal bits on every CPU.

    Its kernels count from the near end, by a float32 step; whether a product is rounded before it is added depends on
    the CPU. Here it is not, as on those that the released numbers come from: float64 holds a product exactly.
    """
    high = torch.tensor(strength, dtype=torch.float32)
    stride = (high / steps).double()
    index = torch.arange(steps, dtype=torch.float64)
    falling, left = high.double() - stride * index, stride * (steps - index)
    return torch.where(index < (steps + 1) // 2, falling, left).float()


def bell_weights(timesteps: Tensor) -> Tensor:
    """The released loss weight of every timestep of a whole schedule, (N,) float32, mean 1."""
    steps, timesteps = len(timesteps), timesteps.double()  # a float32 exponential has other bits on every CPU
    bell = torch.exp(-2 * ((timesteps - steps / 2) / steps) ** 2)
    lifted = bell - bell.min()
    total = lifted.sum()
    return (lifted * (steps / total) if total > 0 else torch.ones_like(timesteps)).float()


def capped_weights(timesteps: Tensor) -> Tensor:
    """Loss weights (N,) float32 that keep errors of predicted clean latents finite at little noise."""
    return (timesteps / (TIMESTEP_SCALE * FULL_SIGMA)).clamp(max=1.0).square()


def draw_levels(
    levels: int, batch: int, frames: int, noise: Noise, generator: torch.Generator, density: Density = "uniform"
) -> Tensor:
    """At which of a schedule's `levels` each sample (B,) or each of its frames (B, F) is trained: index.

    Uniform, or `logit-normal`: the level before its shift is the sigmoid of a standard normal number
    (arXiv 2403.03206, section 3.1), so that the middle is met more often than pure noise and almost no noise.
    """
    if noise not in ("shared", "per-frame") or density not in ("uniform", "logit-normal"):
        raise ValueError(f"flow.noise={noise!r}, flow.density={density!r}: known are shared and per-frame, "
                         "uniform and logit-normal")  # fmt: skip
    shape = (batch,) if noise == "shared" else (batch, frames)
    if density == "uniform":
        return torch.randint(levels, shape, generator=generator)
    share = torch.randn(shape, generator=generator, dtype=torch.float64).sigmoid()
    return ((1 - share) * levels).long().clamp(max=levels - 1)


def clean_frames(num_context_frames: int, noise: Noise, context: Literal["joint", "frozen"]) -> int:
    """How many first frames stay clean in training: the context's, unless a joint model's each have their own level."""
    return 0 if noise == "per-frame" and context == "joint" else num_context_frames


def _per_frame(value: Tensor, latents_BCFhw: Tensor) -> Tensor:
    """(B,) or (B, F) -> shaped to multiply latents."""
    frames = value.to(latents_BCFhw.device, latents_BCFhw.dtype)
    if frames.ndim == 1:
        frames = frames[:, None]
    if frames.shape[0] != latents_BCFhw.shape[0] or frames.shape[1] not in (1, latents_BCFhw.shape[2]):
        raise ValueError(f"one value per sample or per frame of {tuple(latents_BCFhw.shape)}, got {tuple(value.shape)}")
    return frames[:, None, :, None, None]


def add_noise(clean_BCFhw: Tensor, noise_BCFhw: Tensor, sigma: Tensor) -> Tensor:
    """Eq. 1: the point between clean and noise; `sigma` is (B,) or (B, F)."""
    level = _per_frame(sigma, clean_BCFhw)
    return (1 - level) * clean_BCFhw + level * noise_BCFhw


def flow_target(clean: Tensor, noise: Tensor, kind: Target) -> Tensor:
    """The flow that the model's output is compared with; the checkpoint says which (its config's `flow_target`).

    A model that predicts `clean` latents hands out the flow they lie on (`flow_to`): it is compared with that one.
    """
    return flow_sign(kind) * (noise - clean)


def flow_sign(kind: Target) -> int:
    """1 where what is predicted points from clean latents to noise, else -1."""
    if kind not in ("noise_minus_clean", "clean_minus_noise", "clean"):
        raise ValueError(f"flow.target={kind!r}: known are noise_minus_clean, clean_minus_noise and clean")
    return -1 if kind == "clean_minus_noise" else 1


def flow_to(clean_BCFhw: Tensor, latents_BCFhw: Tensor, timestep: Tensor) -> Tensor:
    """Noise minus clean of noised latents whose clean ones were predicted, float32 at least; `timestep` (B,) or (B, F).

    Eq. 1 solved for z1 - z0 = (z - z0) / sigma. Of frames without noise (context) it says nothing.
    """
    precise = torch.promote_types(latents_BCFhw.dtype, torch.float32)
    sigma = _per_frame((timestep / TIMESTEP_SCALE).clamp(min=LEAST_SIGMA), latents_BCFhw.to(precise))
    return (latents_BCFhw.to(precise) - clean_BCFhw.to(precise)) / sigma


def with_clean_context(clean_BCFhw: Tensor, noise_BCFhw: Tensor, sigma: Tensor, num_context_frames: int) -> Tensor:
    """The model's input in training: clean context frames, then noised target frames; `sigma` is (B,) or (B, F)."""
    noisy = add_noise(clean_BCFhw, noise_BCFhw, sigma)
    n = num_context_frames
    return torch.cat([clean_BCFhw[:, :, :n], noisy[:, :, n:]], dim=2)


def flow_loss(
    prediction_BCFhw: Tensor,
    target_BCFhw: Tensor,
    weight: Tensor,
    num_context_frames: int,
    pixels_BFhw: Tensor | None = None,
) -> Tensor:
    """Weighted mean squared error over the frames after the context; `weight` is (B,) or (B, F). A scalar.

    With `num_context_frames=0` every frame counts (flow.loss=all); `pixels_BFhw` weighs latent pixels.
    """
    n = num_context_frames
    precise = torch.promote_types(prediction_BCFhw.dtype, torch.float32)
    square = (prediction_BCFhw.to(precise) - target_BCFhw.to(precise)).square()
    if pixels_BFhw is not None:
        square = square * pixels_BFhw.to(square)[:, None]
    error_BF = square.mean(dim=(1, 3, 4))[:, n:]
    weight_BF = weight.to(error_BF)[:, None] if weight.ndim == 1 else weight.to(error_BF)[:, n:]
    return (weight_BF * error_BF).mean()


def euler_step(latents: Tensor, flow: Tensor, sigma: Tensor, next_sigma: Tensor, kind: Target) -> Tensor:
    """Follow the predicted flow from one noise level to a lower one."""
    step = (next_sigma - sigma).to(latents.device, latents.dtype)
    return latents + flow_sign(kind) * step * flow.to(latents.dtype)


def to_noise(flow: Tensor, kind: Target) -> Tensor:
    """The same flow, pointing from clean latents to noise, whichever way the model predicts it."""
    return flow if flow_sign(kind) == 1 else -flow
