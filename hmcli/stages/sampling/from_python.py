"""`hm generate VIDEO` from Python: a pipeline, and what it is given for a video, a prompt and a way of the camera.

The frames are those of the command, bit for bit, from the same seed: a pipeline makes a target at once, so a longer one
than its context, which the command makes in chunks, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from hmcli.aligned import tensor_of
from hmcli.contracts import Reporter
from hmcli.errors import UsageError
from hmcli.recipe.reading import from_dict
from hmcli.recipe.sections import Recipe
from hmcli.runtime import Console, Silent, pick_dtype
from hmcli.stages.latents import encode
from hmcli.stages.latents.view import LatentClip
from hmcli.stages.memory.kept import anchor_of, rows_from
from hmcli.stages.models.folders import ModelFolder, find_model, video_frames
from hmcli.stages.models.identity import codec_of, open_codec, text_of
from hmcli.stages.sampling.job import Job, inputs_of, open_job
from hmcli.stages.sampling.one_video import Asked, as_folder, check_length, with_length
from hmcli.stages.sampling.samples import sample_seed

if TYPE_CHECKING:
    from hmcli.core.pipeline import HydraPipeline


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a pipeline is called with, and what it does not need to know."""

    arguments: dict[str, Any]  # of HydraPipeline, but for the generator and the form of the output
    seed: int  # of the noise, as `hm generate` has it
    fps: float
    frames: int  # of what is made, as many as were asked for: a codec makes 4k+1 of them, what is more is cut off


def open_pipeline(model: str | Path, *, device: str = "cpu", dtype: str = "float32") -> HydraPipeline:
    """A run, a checkpoint or `mini` as a diffusers pipeline, every file of it checked; `HydraPipeline.from_pretrained`
    opens a checkpoint's folder unchecked. Raises UsageError, DataError and MissingPartError as commands do."""
    from hmcli import registry
    from hmcli.core.pipeline import HydraPipeline

    folder = find_model(Path(model))
    codec: Any = open_codec(codec_of(folder, ""), device)
    sample = _recorded(folder).sample
    scheduler = registry.find("scheduler", sample.scheduler)(sample.shift)
    network = folder.load(pick_dtype(dtype), device, max_history=sample.max_history or None)
    return HydraPipeline(network, scheduler, codec.vae)


def after_video(
    model: str | Path,
    video: str | Path,
    *,
    cameras: str,
    prompt: str = "",
    frames: int = 0,
    fov: float = 0.0,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> Given:
    """What comes after a video: `cameras` is a preset (pan-right-return:40deg) or a file of cameras, `frames` the
    length of the target (0: as long as the context), `fov` the video's horizontal field of view in degrees.

    What is assumed is said (on stderr, without a `reporter`). Raises UsageError and DataError as the command does, and
    UsageError for a target that the command would make in chunks.
    """
    folder, reporter = find_model(Path(model)), reporter or Console()
    recipe = _recorded(folder)
    recipe = replace(recipe, codec=codec_of(folder, ""), text=text_of(folder, ""))
    asked = Asked(prompt=prompt, cameras=cameras, frames=frames, degrees=fov)
    if with_length(recipe, Path(video), asked, Silent()).sample.chunk:
        raise UsageError(
            f"frames={frames}: a target longer than the context is made in chunks, a pipeline makes it at once",
            fix="use hm generate, or ask for fewer frames",
        )
    check_length(Path(video), asked, recipe, Path(model))
    with TemporaryDirectory() as place:
        clips = as_folder(Path(video), asked, recipe.data, recipe.poses, Path(place) / "clip", reporter)
        latents = Path(place) / "latents"
        encode.run(recipe, data=clips, out=latents, force=False, device=device, reporter=reporter)
        job, (clip,) = open_job(recipe, folder, latents, [], None, (), device, reporter)
        given = _given(job, job.view.clip(clip))
    return given if not frames else replace(given, frames=frames)


def _recorded(folder: ModelFolder) -> Recipe:
    """The recipe that a model was made with; how its clips were cut says nothing of a video."""
    values = dict(folder.manifest.recipe)
    values["data"] = {key: value for key, value in values.get("data", {}).items() if key != "split"}
    return from_dict(values)


def _given(job: Job, clip: LatentClip) -> Given:
    """A clip as arguments: the pipeline itself runs the context of a frozen model."""
    frozen, sample = job.memory.context == "frozen", job.sample
    camera = rows_from(clip.world_poses(), anchor_of(clip), job.device) if frozen else tensor_of(clip.camera)[None]
    history = {"history_guidance_scale": sample.history_guidance, "history_level": sample.history_level}
    return Given(
        arguments={
            "context_latents": tensor_of(clip.context_latents)[None], "camera": camera, "num_frames": clip.target,
            "prompt_embeds": tensor_of(clip.text)[None], "negative_prompt_embeds": tensor_of(job.negative)[None],
            "retrieval": inputs_of(job, clip), "num_inference_steps": sample.steps, "guidance_scale": sample.guidance,
            **({} if frozen else history),
        },
        seed=sample_seed(job.recipe.seed, clip.id, 1), fps=clip.fps, frames=video_frames(clip.target),
    )  # fmt: skip
