"""`hm train` with `train.part: codec`: a small video VAE on the clips of a data set.

Everything random in step n depends on (seed, n) alone, so a run that was stopped ends as one that was not. The artifact
holds vae/, a diffusers folder in half precision with the latent statistics in its config: set `codec.path` to it.
`codec.path` in the recipe is what training starts from; empty is a new VAE of hmcli.codecs.mini_vae.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmcli.codecs.places import CONFIG, VAE
from hmcli.contracts import Reporter, StageResult
from hmcli.errors import RecipeError
from hmcli.recipe.readers import reads
from hmcli.recipe.sections import Recipe, TrainConfig
from hmcli.runtime import stopping_at_boundaries
from hmcli.stages.data.opening import Dataset, open_dataset
from hmcli.stages.models.identity import codec_hash
from hmcli.stages.models.layout import CODEC as KIND
from hmcli.stages.models.layout import LOG, RECIPE, CodecStep, step_name
from hmcli.stages.shared.outcome import planned, result_of
from hmcli.stages.shared.typed import to_json
from hmcli.stages.training import stepping
from hmcli.stages.training.checkpoints import kept_steps
from hmcli.stages.training.footage import read_footage, refuse_unread, scores_of, shown, starts_of
from hmcli.stages.training.learning import freeze, make_average
from hmcli.stages.training.runs import naming, refuse_another_run
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.finite import require_finite_weights

if TYPE_CHECKING:
    import torch
    from diffusers.training_utils import EMAModel

    from hmcli.codecs.training import Footage

SOURCES = "data set (or weights at codec.path)"


def run(
    recipe: Recipe,
    *,
    data: Path,
    out: Path,
    reporter: Reporter,
    device: str = "cpu",
    force: bool = False,
    prune: bool = False,
    dry_run: bool = False,
) -> StageResult:
    """Train to `train.steps` and write a codec; see `hm train --help`.

    Raises RecipeError for settings that have no effect on a codec, UsageError when `out` holds another run, DataError
    when no clip can be trained on, StoppedEarly on SIGTERM.
    """
    refuse_unread(recipe.train, "codec")
    dataset = open_dataset(data, recipe.poses, fps=recipe.data.fps)
    inputs = {"clips": dataset.fingerprint}
    if recipe.codec.path:
        inputs["base"] = codec_hash(recipe.codec)
    key = run_key(recipe, inputs)
    if dry_run:
        train, count = recipe.train, len(dataset.clips)
        plan = f"{count} clips, {train.steps} steps of {train.batch} x {train.frames} frames on {device}"
        return planned(
            out, KIND, plan, reporter, look=lambda writer: refuse_another_run(writer, key, SOURCES), prune=prune,
            counts={"clips": count},
        )  # fmt: skip
    recorded = reads(recipe, "codec")
    with (
        ArtifactWriter(
            out, KIND, recipe=recorded, inputs=inputs, seed=recipe.seed, reporter=reporter, force=force, prune=prune
        ) as writer,
        stopping_at_boundaries() as stop,
    ):
        refuse_another_run(writer, key, SOURCES)
        clips = _load_clips(dataset, recipe, writer)
        if recipe.train.steps not in kept_steps(writer, key):
            training = _prepare(recipe, clips.training, device)
            stepping.take_steps(training, writer, key, reporter, stop, label="training the codec")
        return _finish(recipe, clips, writer, key, device)


def run_key(recipe: Recipe, inputs: dict[str, str]) -> str:
    """What makes a run this run."""
    return stepping.run_key(recipe, inputs, "codec")


# --- what it learns from ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Videos in memory, all of one size; `held_out` is never trained on."""

    training: list[Footage]
    held_out: list[Footage]


def _load_clips(dataset: Dataset, recipe: Recipe, writer: ArtifactWriter) -> Clips:
    """Context and target of every clip as videos of their own; what cannot be read is quarantined."""
    clips = Clips(training=[], held_out=[])
    for held_out, videos in read_footage(dataset, recipe, writer, least_frames=recipe.train.frames):
        (clips.held_out if held_out else clips.training).extend(videos)
    return clips


# --- training --------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class CodecTraining:
    """Everything a step changes or needs."""

    recipe: Recipe
    videos: Sequence[Footage]
    model: Any  # a VAE
    parameters: list[torch.nn.Parameter]
    optimizers: list[torch.optim.Optimizer]
    average: EMAModel | None
    device: str

    def step(self, step: int) -> CodecStep:
        """Train on one batch, which follows from (seed, step). Returns what the log says of it."""
        import torch

        from hmcli.codecs import training

        train, rng = self.recipe.train, np.random.default_rng([self.recipe.seed, step])
        pictures = training.picture_steps(train, fresh=not self.recipe.codec.path)
        plan = training.plan_batch(step, train, pictures, *self.videos[0].frames.shape[1:3])
        video, weight, names = training.draw_batch(self.videos, plan, train.subject_weight, rng)
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
        lr = training.learning_rate(step, train, pictures)
        with naming(step, names):
            parts = training.train_step(
                self.model, self.optimizers, video.to(self.device), weight.to(self.device),
                lr=lr, clip_norm=train.clip_norm, generator=noise,
            )  # fmt: skip
        if self.average is not None:
            self.average.step(self.parameters)
        return CodecStep(step=step + 1, **parts)


def _prepare(recipe: Recipe, videos: Sequence[Footage], device: str) -> CodecTraining:
    """VAE and optimizers at step 0."""
    from hmcli.stages.training.muon import VAE_RATE, is_inner_kernel, make_optimizers

    vae = _starting_vae(recipe).to(device).train()
    parameters = freeze(vae, recipe.train)
    return CodecTraining(
        recipe=recipe, videos=videos, model=vae, parameters=parameters, device=device,
        optimizers=make_optimizers(vae, recipe.train, is_inner_kernel, VAE_RATE),
        average=make_average(parameters, recipe.train.ema),
    )  # fmt: skip


def trains_encoder(train: TrainConfig) -> bool:
    """Does training change what latents are? Not when `train_only` names parts of the decoder alone."""
    return not train.train_only or not all("decoder" in part or part == "post_quant_conv" for part in train.train_only)


def _starting_vae(recipe: Recipe) -> Any:
    import torch

    from hmcli.codecs.mini_vae import new_mini_vae
    from hmcli.codecs.video import space_stride
    from hmcli.codecs.wan_files import load_wan_vae

    if not recipe.codec.path:
        return new_mini_vae(recipe.seed, stride=recipe.codec.stride, z_dim=recipe.codec.channels)
    vae: Any = load_wan_vae(Path(recipe.codec.path), torch.float32)
    for name, found in {"channels": vae.config.z_dim, "stride": space_stride(vae.config)}.items():
        if found != (asked := getattr(recipe.codec, name)):
            raise RecipeError(
                f"codec.{name}={asked}, the codec that training starts from has {found}",
                where={"recipe": f"codec.{name}", "codec": recipe.codec.path}, fix=f"set codec.{name} to {found}",
            )  # fmt: skip
    return vae


# --- the codec as an artifact ----------------------------------------------------------------------------------------


def _finish(recipe: Recipe, clips: Clips, writer: ArtifactWriter, key: str, device: str) -> StageResult:
    """Export the averaged weights with their latent statistics, score them, and complete the artifact."""
    from hmcli.codecs import training

    order = [step_name(step) for step in kept_steps(writer, key)]
    if not writer.unchanged(order) or not (writer.path / VAE / CONFIG).is_file():
        vae = _starting_vae(recipe)
        freeze(vae, recipe.train)
        state = stepping.last_state(writer, key, recipe.seed)
        assert state is not None  # training has just ended, or was found finished
        stepping.put_averaged(vae, state)
        vae.to(device).eval()
        seen = shown(starts_of(clips.training), device)
        scores = scores_of(partial(training.reconstructed, vae), seen, starts_of(clips.held_out), device)
        if trains_encoder(recipe.train):  # otherwise latents stay what they were, and so does their normalisation
            mean, std = training.latent_statistics(partial(training.latents_of, vae), seen)
            vae.register_to_config(latents_mean=mean, latents_std=std)
        require_finite_weights(vae.half().state_dict())
        vae.save_pretrained(writer.staged / VAE)
        counts = {"steps": state.step, "videos": len(clips.training), "held_out": len(clips.held_out)}
        manifest = writer.finish(order, counts=counts, attributes=to_json(scores), files=[LOG, RECIPE])
    else:
        writer.reporter.note(f"already trained to step {recipe.train.steps}")
        manifest = writer.finish(order)
    return result_of(writer, manifest, **manifest.attributes)
