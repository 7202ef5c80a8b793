"""What one step asks of a transformer: a batch, noise and levels for it, and how far the answer is off.

Shapes: B samples, C channels, F latent frames, L text rows, D text width. Used by hmcli.stages.training.trainer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hmcli.aligned import tensor_of
from hmcli.errors import DataError
from hmcli.recipe.sections import FlowConfig, TrainConfig
from hmcli.stages.latents.layout import MASKS, VISIBILITY
from hmcli.stages.latents.view import LatentClip, LatentsView
from hmcli.world.views.cameras import relative_camera_rows

if TYPE_CHECKING:
    import torch

    from hmcli.core.flow import FlowSchedule
    from hmcli.core.retrieval import RetrievalInputs
    from hmcli.core.transformer import HydraTransformer3DModel

ContextKind = Literal["joint", "frozen"]
LEVELS = (0.98, 0.9, 0.7, 0.4)  # sigmas at which clips never trained on are looked at


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tensors of one step."""

    latents: torch.Tensor  # (B, C, F, h, w)
    camera: torch.Tensor  # (B, F, 12)
    text: torch.Tensor  # (B, L, D)
    context: int
    older: int = 0  # latent frames that slots of frozen memory are placed back by
    pixels: torch.Tensor | None = None  # (B, F, h, w): how much a latent pixel counts, where not all count alike

    def share(self, part: slice) -> Batch:
        """The same of some samples."""
        return replace(
            self, latents=self.latents[part], camera=self.camera[part], text=self.text[part],
            pixels=None if self.pixels is None else self.pixels[part],
        )  # fmt: skip

    def to(self, device: str) -> Batch:
        """The same where a model runs; a GPU fetches it while it works on what came before."""

        def moved(values: torch.Tensor) -> torch.Tensor:
            waits = device.startswith("cuda") and not values.is_cuda
            return (values.pin_memory() if waits else values).to(device, non_blocking=True)

        return replace(
            self, latents=moved(self.latents), camera=moved(self.camera), text=moved(self.text),
            pixels=None if self.pixels is None else moved(self.pixels),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Among:
    """Where samples stand in a larger batch, for all of which chance is drawn: each sample sees the same of it."""

    first: int
    whole: int


def make_batch(
    clips: list[LatentClip], empty: np.ndarray, *, frozen: bool, train: TrainConfig, tested: bool = False, rng: Any,
    among: Among | None = None, latents: torch.Tensor | None = None,
) -> Batch:  # fmt: skip
    """Stack clips; draw what is random about them: dropped captions and cameras and, for frozen context, the anchor
    pose and age.

    `tested`: as in use, captions and cameras stay, the anchor is a frame's and memory is as old as it is. `latents`:
    those of the clips where they are stacked already.
    """
    away = (0.0, 0.0) if tested else (train.anchor_turn, train.anchor_shift)
    before, after = (0, 0) if among is None else (among.first, among.whole - among.first - len(clips))
    # What is drawn of a clip that others read depends on its shape, which is that of all.
    every = [*clips[:1] * before, *clips, *clips[:1] * after]
    own = slice(before, before + len(clips))
    cameras = [anchored_rows(clip, *away, rng=rng) for clip in every][own] if frozen else [c.camera for c in clips]
    text_dropout = 0.0 if tested else train.text_dropout
    texts = [empty if rng.random() < text_dropout else clip.text for clip in every][own]
    if train.camera_dropout and not tested:
        still = [rng.random() < train.camera_dropout for _ in every][own]
        cameras = [standing_still(len(rows)) if out else rows for rows, out in zip(cameras, still, strict=True)]
    return Batch(
        latents=tensor_of(np.stack([clip.latents for clip in clips])) if latents is None else latents,
        camera=tensor_of(np.stack(cameras).astype(np.float32)),
        text=tensor_of(np.stack(texts)),
        context=clips[0].context,
        older=int(rng.integers(train.older + 1)) if train.older and not tested else 0,
    )


def pixel_weights(view: LatentsView, clips: list[LatentClip], subject_weight: float) -> torch.Tensor | None:
    """(B, F, h, w): 1, on subjects `subject_weight` more; None where all count alike. DataError without masks."""
    if not subject_weight:
        return None
    subjects = [view.subjects(clip.id) for clip in clips]
    if missing := [clip.id for clip, of in zip(clips, subjects, strict=True) if MASKS not in of]:
        raise DataError(
            "train.subject_weight weighs subjects, but the clip has no subject masks",
            where={"latents": view.path, "clip": missing[0]},
            fix="encode clips with masks of context and target, or set train.subject_weight=0",
        )
    shown = tensor_of(np.stack([of[MASKS] for of in subjects])) > 0
    return 1.0 + subject_weight * shown.float()


def returned_pixels(view: LatentsView, clip: LatentClip) -> np.ndarray | None:
    """(F, h, w) bool: target pixels of subjects that were seen, then hidden, and are back. None without masks."""
    known = view.subjects(clip.id)
    if MASKS not in known or VISIBILITY not in known:
        return None
    seen_FS = known[VISIBILITY] > 0
    hidden_FS = ~seen_FS & np.logical_or.accumulate(seen_FS)
    back_FS = seen_FS & np.logical_or.accumulate(hidden_FS)
    back_FS[: clip.context] = False
    labels_S = 1 + np.arange(seen_FS.shape[1])
    found: np.ndarray = ((known[MASKS][..., None] == labels_S) & back_FS[:, None, None]).any(axis=-1)
    return found


def anchored_rows(clip: LatentClip, turn: float, shift: float, *, rng: Any) -> np.ndarray:
    """Camera rows of a clip relative to an anchor, (F, 12) float32. Needs absolute poses.

    The anchor is one of its latent frames; turned about its own vertical by up to `turn` degrees, and moved by up to
    `shift` metres along each axis, as far as these are not 0: memory on disk is read under anchors far away.
    """
    poses = clip.world_poses()
    anchor = poses[int(rng.integers(len(poses)))]
    if turn or shift:
        yaw = np.radians(rng.uniform(-turn, turn))
        away = np.eye(4)
        away[[0, 2], [0, 2]] = np.cos(yaw)
        away[0, 2], away[2, 0] = np.sin(yaw), -np.sin(yaw)
        away[:3, 3] = rng.uniform(-shift, shift, 3)
        anchor = anchor @ away
    return relative_camera_rows(poses, anchor).astype(np.float32)


def standing_still(frames: int) -> np.ndarray:
    """Camera rows of a camera that never leaves its anchor, (F, 12) float32: what a video without poses is given."""
    return relative_camera_rows(np.broadcast_to(np.eye(4), (frames, 4, 4)), np.eye(4)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What chance decides of one step; N = draws x B, all samples of the first draw first.

    With several draws `latents` and `wanted` hold target frames alone, otherwise context frames too.
    """

    latents: torch.Tensor  # (N, C, F, h, w), noised
    timesteps: torch.Tensor  # (N,) or (N, F)
    wanted: torch.Tensor  # (N, C, F, h, w): the flow to predict
    weights: torch.Tensor  # (N,) or (N, F)
    draws: int = 1

    def share(self, part: slice) -> Question:
        """What is asked of some samples, in all draws."""

        def of(values: torch.Tensor) -> torch.Tensor:
            return values.unflatten(0, (self.draws, -1))[:, part].flatten(0, 1)

        return replace(
            self, latents=of(self.latents), timesteps=of(self.timesteps), wanted=of(self.wanted),
            weights=of(self.weights),
        )  # fmt: skip

    def after(self, frames: int) -> Question:
        """The same without the first frames."""
        timesteps, weights = (x[:, frames:] if x.ndim == 2 else x for x in (self.timesteps, self.weights))
        return replace(
            self, latents=self.latents[:, :, frames:], timesteps=timesteps, wanted=self.wanted[:, :, frames:],
            weights=weights,
        )  # fmt: skip


def ask(
    batch: Batch, schedule: FlowSchedule, flow: FlowConfig, *, context: ContextKind, draws: int = 1, seed: int,
    among: Among | None = None,
) -> Question:  # fmt: skip
    """Noise and levels for a batch, from `seed`: one level for the target frames of a clip, or as `flow.noise` says.

    `context` is the model's: joint or frozen. Several `draws` share one run of a frozen model over its context. Noise
    is drawn where the batch lies: a GPU draws other noise than a processor, and does not wait for it.
    """
    import torch

    from hmcli.core.flow import clean_frames, draw_levels, flow_target, with_clean_context

    generator = torch.Generator().manual_seed(seed)
    clean, kept = batch.latents, clean_frames(batch.context, flow.noise, context)
    if draws > 1:
        clean, kept = clean[:, :, batch.context :].repeat(draws, 1, 1, 1, 1), 0
    size = len(batch.latents)
    among = among or Among(first=0, whole=size)
    drawn = draws * among.whole
    index = draw_levels(len(schedule.sigmas), drawn, clean.shape[2], flow.noise, generator, flow.density)
    if (device := clean.device).type == "cuda":
        generator = torch.Generator(device).manual_seed(seed)
    noise = torch.randn((drawn, *clean.shape[1:]), generator=generator, device=generator.device)
    if size != among.whole:
        own = slice(among.first, among.first + size)
        index, noise = (x.unflatten(0, (draws, -1))[:, own].flatten(0, 1) for x in (index, noise))
    return Question(
        latents=with_clean_context(clean, noise, schedule.sigmas[index], kept), timesteps=schedule.timesteps[index],
        wanted=flow_target(clean, noise, flow.target), weights=schedule.weights[index], draws=draws,
    )  # fmt: skip


def at_level(
    batch: Batch, sigma: float, flow: FlowConfig, *, context: ContextKind, draws: int = 1, seed: int
) -> Question:
    """The same with every target frame at one level of noise, and the context clean: for tests."""
    import torch

    from hmcli.core.flow import TIMESTEP_SCALE, FlowSchedule

    level = torch.tensor([sigma])
    only = FlowSchedule(sigmas=level, timesteps=level * TIMESTEP_SCALE, weights=level.new_ones(1))
    return ask(batch, only, replace(flow, noise="shared"), context=context, draws=draws, seed=seed)


def answer(
    model: HydraTransformer3DModel,
    batch: Batch,
    question: Question,
    *,
    device: str,
    retrieval: RetrievalInputs | None = None,
) -> tuple[torch.Tensor, Question, int]:
    """The flow that the model predicts, the part of the question it answers, and how many of its frames are context."""
    n, text, camera = batch.context, batch.text.to(device), batch.camera.to(device)
    latents, timesteps = question.latents.to(device), question.timesteps.to(device)
    if (draws := question.draws) == 1 and not batch.older:
        return model(latents, timesteps, text, camera, n, retrieval, return_dict=False)[0], question, n
    memory = model.encode_context(batch.latents[:, :, :n].to(device), camera[:, :n], retrieval)
    memory = memory.older_by(batch.older).repeated(draws)
    again = None if retrieval is None else retrieval.repeated(draws)
    skip = n if draws == 1 else 0
    prediction = model(
        latents[:, :, skip:], timesteps[:, skip:] if timesteps.ndim == 2 else timesteps, text.repeat(draws, 1, 1),
        camera[:, n:].repeat(draws, 1, 1), 0, again, memory, return_dict=False,
    )[0]  # fmt: skip
    return prediction, question.after(skip), 0


def loss_of(
    model: HydraTransformer3DModel,
    batch: Batch,
    question: Question,
    flow: FlowConfig,
    *,
    device: str,
    retrieval: RetrievalInputs | None = None,
) -> torch.Tensor:
    """Flow-matching loss of one batch (Eq. 1): on its target frames, or as `flow.loss` says."""
    from hmcli.core.flow import flow_loss

    prediction, asked, context = answer(model, batch, question, device=device, retrieval=retrieval)
    first, pixels = 0 if flow.loss == "all" else context, None
    if batch.pixels is not None:
        pixels = batch.pixels[:, -prediction.shape[2] :].repeat(question.draws, 1, 1, 1)
    return flow_loss(prediction, asked.wanted.to(prediction.device), asked.weights, first, pixels)


def errors_of(
    model: HydraTransformer3DModel,
    batch: Batch,
    question: Question,
    *,
    device: str,
    retrieval: RetrievalInputs | None = None,
    where: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean squared error of the flow over the target frames of each sample, unweighted: (N,) float32.

    `where` (N, F, h, w) chooses pixels: then (2, N), the second row over these alone, NaN where there are none.
    """
    import torch

    prediction, asked, context = answer(model, batch, question, device=device, retrieval=retrieval)
    difference = prediction.float() - asked.wanted.to(prediction.device).float()
    square = difference[:, :, context:].square()
    if where is None:
        return square.flatten(1).mean(dim=1)
    chosen = where.to(square)[:, -square.shape[2] :]
    of_chosen = (square.mean(dim=1) * chosen).flatten(1).sum(dim=1) / chosen.flatten(1).sum(dim=1)
    return torch.stack([square.flatten(1).mean(dim=1), of_chosen])
