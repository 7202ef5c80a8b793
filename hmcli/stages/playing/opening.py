"""What a walk starts from: a clip that is rendered, chosen from a folder or from latents, or a video of anybody's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hmcli.contracts import TIME_STRIDE, Reporter
from hmcli.errors import UsageError
from hmcli.recipe.sections import Recipe
from hmcli.runtime import Silent
from hmcli.stages.data.opening import ClipSource, open_dataset, own_file
from hmcli.stages.latents import encode
from hmcli.stages.latents.view import open_latents
from hmcli.stages.memory.policy_inputs import ALL_FRAMES, SLOTS, needs_of_policy, recorded_model
from hmcli.stages.models.folders import ModelFolder, check_memory_fits, frames_a_slot, video_frames
from hmcli.stages.models.identity import codec_of, text_of
from hmcli.stages.playing.session import Session, Truth
from hmcli.stages.rendering import render
from hmcli.stages.sampling.generate import is_latents
from hmcli.stages.sampling.job import Job, open_job
from hmcli.stages.sampling.one_video import Asked, as_folder
from hmcli.stages.sampling.rollout import check_rollout
from hmcli.store.files import read_json, write_json_lines
from hmcli.world.files.layout import METADATA_LINES, STATES, STATIC, plain_row
from hmcli.world.files.schema import parse_states
from hmcli.world.views.presets import STILL

STEPS = 4  # denoising steps: few, and without guidance, so that nobody waits long
OLDEST = 65  # latent frames: older memory is read as if it were so old (docs/quickstart.md, long rollouts)
RADIUS = 8.0  # metres from the anchor pose at which there is a new one
SEED = 11  # of the clip that is rendered where no source is given
_NO_MATTER = {"count": 1, "batch": 1, "frames": 0}  # keys of `sample` that a walk has no use for


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where to begin."""

    source: Path | None  # latents, a folder of clips, a video file; None: a clip is rendered from the recipe's seed
    clip: str = ""  # which one of several; empty: the first
    prompt: str = ""  # with a video: what it shows
    degrees: float = 0.0  # with a video: its horizontal field of view; 0: nobody says


def usual(folder: ModelFolder, start: Start) -> dict[str, Any]:
    """The recipe that a model was made with, for what the command line leaves open: sampled in few steps, in the
    shortest chunks that it can remember."""
    values = dict(folder.manifest.recipe)
    values["data"] = {key: value for key, value in values.get("data", {}).items() if key != "split"}
    memory = recorded_model(values).memory
    few: dict[str, Any] = {"steps": STEPS, "guidance": 1.0, "chunk": shortest_chunk(folder)}
    if memory.context == "frozen":
        few["max_history"] = OLDEST
        if ALL_FRAMES not in needs_of_policy(memory.policy):
            few["anchor_radius"] = RADIUS
    values["sample"] = {**values.get("sample", {}), **few}
    if start.source is None:
        world = {"size": values["data"]["size"], **values.get("world", {}), "clips": 1}
        values |= {"seed": SEED, "world": world}
    return values


def shortest_chunk(folder: ModelFolder) -> int:
    """Frames of which every latent frame is in a slot, and there are as many slots as the model chooses."""
    config, memory = folder.config(), recorded_model(folder.manifest.recipe).memory
    of_one = frames_a_slot(config)
    chooses = memory.context == "frozen" and SLOTS in needs_of_policy(memory.policy)
    return video_frames(max(memory.top_k, 1) * of_one if chooses else max(of_one, 2))


def open_session(
    recipe: Recipe, folder: ModelFolder, start: Start, place: Path, device: str, reporter: Reporter
) -> Session:
    """Everything a walk needs, in the folder `place`. Raises UsageError and DataError as `hm generate` does."""
    check(recipe, folder, start)
    latents, clip_id, truth = _latents(recipe, folder, start, place, device, reporter)
    on = _job(recipe, folder, latents, clip_id, "on", device, reporter)
    off = _job(recipe, folder, latents, clip_id, "off", device, Silent())  # the same would be said twice
    clip = on.view.clip(clip_id)
    frames = 1 + (recipe.sample.chunk - 1) // TIME_STRIDE
    check_memory_fits(
        on.config, clip_id, context=clip.context, target=frames, size=on.view.latent_size
    )  # fmt: skip
    for job in (on, off):
        check_rollout(job)
    clip.world_poses()  # a walk needs poses: says so of clips with ready rows
    whole = 0 if clip.frame_poses is None else len(clip.frame_poses)
    return Session(
        on=on, off=off, clip=clip, place=place, memory=recipe.sample.memory == "on",
        truth=[one for one in truth if len(one.place) == whole],
    )  # fmt: skip


def check(recipe: Recipe, folder: ModelFolder, start: Start) -> None:
    """Raise UsageError for what a walk cannot use; nothing is made."""
    for name, value in _NO_MATTER.items():
        if getattr(recipe.sample, name) != value:
            raise UsageError(
                f"sample.{name} has no effect on hm play: it makes one chunk after the other", fix="leave it out"
            )
    if not recipe.sample.chunk:
        raise UsageError(
            "sample.chunk=0: a walk is made chunk by chunk", fix=f"leave it out: {shortest_chunk(folder)} is taken"
        )
    is_video = start.source is not None and start.source.is_file()
    if not is_video and (
        given := [f"--{name}" for name, value in (("prompt", start.prompt), ("fov", start.degrees)) if value]
    ):
        raise UsageError(
            f"{', '.join(given)}: only a video file takes that, clips have captions and cameras of their own",
            fix="leave it out, or name a video file",
        )  # fmt: skip
    if start.clip and (is_video or start.source is None):
        raise UsageError("--clip chooses among several clips, here is one", fix="leave it out")
    if start.source is not None and not start.source.exists():
        raise UsageError("there is no such file or folder", where={"source": start.source})


def _job(
    recipe: Recipe,
    folder: ModelFolder,
    latents: Path,
    clip: str,
    memory: Literal["on", "off"],
    device: str,
    reporter: Reporter,
) -> Job:
    sample = replace(recipe.sample, memory=memory)
    return open_job(replace(recipe, sample=sample), folder, latents, [], None, (clip,), device, reporter)[0]


def _latents(
    recipe: Recipe, folder: ModelFolder, start: Start, place: Path, device: str, reporter: Reporter
) -> tuple[Path, str, Sequence[Truth]]:
    """The latents to start from, which clip of them, and where its subjects are, as far as that is known."""
    source = start.source
    if source is not None and source.is_dir() and is_latents(source):
        return source, open_latents(source).ids((start.clip,) if start.clip else ())[0], ()
    resolved = replace(recipe, codec=codec_of(folder, recipe.codec.path), text=text_of(folder, recipe.text.path))
    if source is not None and source.is_file():
        asked = Asked(prompt=start.prompt, cameras=STILL, frames=recipe.sample.chunk, degrees=start.degrees)
        truth = list[Truth]()
        clips = as_folder(source, asked, recipe.data, recipe.poses, place / "clip", reporter)
    else:
        if source is None:
            reporter.note(f"rendering a clip from seed {recipe.seed} (--set seed=N draws another)")
            source = render.run(recipe, out=place / "rendered", device=device, reporter=reporter).path
        chosen = _chosen(open_dataset(source, recipe.poses, fps=recipe.data.fps).clips, start.clip, source)
        clips, truth = _alone(chosen, place / "clip"), _truth(chosen)
    done = encode.run(
        resolved, data=clips, out=place / "latents", force=False, device=device, reporter=reporter
    )  # fmt: skip
    return done.path, open_latents(done.path).ids()[0], truth


def _chosen(clips: Sequence[ClipSource], asked: str, source: Path) -> ClipSource:
    """The clip of this id, else the first one."""
    found = [clip for clip in clips if not asked or clip.id == asked]
    if not found:
        raise UsageError(
            f"no clip {asked!r} in the folder", where={"source": source},
            fix=f"clips there: {', '.join(clip.id for clip in clips[:10])}",
        )  # fmt: skip
    return found[0]


def _alone(clip: ClipSource, place: Path) -> Path:
    """A folder of this clip alone, in the plain form, made of links: only it is encoded."""
    place.mkdir(parents=True)
    names = {}
    for role in ("context", "target", "cameras", "intrinsics"):
        if role in clip.files:
            names[role] = f"{role}{clip.files[role].suffix}"
            (place / names[role]).symlink_to(clip.files[role].absolute())
    row = plain_row(
        id=clip.id, video=names["context"], caption=clip.caption,
        cameras=STATIC if clip.static else names["cameras"], intrinsics=names.get("intrinsics", ""),
    )  # fmt: skip
    write_json_lines(place / METADATA_LINES, [row | ({"target": names["target"]} if "target" in names else {})])
    return place


def _truth(clip: ClipSource) -> list[Truth]:
    """Of a rendered clip, where its subjects are."""
    file = own_file(clip, STATES)
    states = () if file is None else parse_states(read_json(file))
    return [Truth(name=state.name, place=state.position[:, :2]) for state in states]
