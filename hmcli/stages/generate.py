"""`hm generate`: denoise each clip's target latents along its target cameras, decode them, write one video a clip.

The past comes as context latents or, for frozen models, from a memory artifact; both give the same video. A clip's
noise depends on (seed, clip id) alone, so results depend on no order, selection or interruption.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmcli import registry
from hmcli.contracts import TIME_STRIDE, Quarantined, Reporter, StageResult, VideoCodec
from hmcli.errors import DataError, UsageError
from hmcli.recipe import Recipe, SampleConfig, sections
from hmcli.runtime import pick_dtype
from hmcli.stages.generations import LIST
from hmcli.stages.latents import LatentClip, LatentsView, open_latents
from hmcli.stages.memory import MemoryView, anchor_of, compute_memory, rows_from
from hmcli.stages.models import ModelFolder, check_memory_fits, find_model
from hmcli.stages.outcome import check_output, require_some, result_of
from hmcli.stages.weights import codec_hash, text_hash
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.files import write_json_lines
from hmcli.store.hashing import hash_json
from hmcli.store.manifest import is_artifact, read_manifest
from hmcli.store.video import read_video, write_video

if TYPE_CHECKING:
    from hmcli.core.transformer import HydraTransformer3DModel

SHEET_CLIPS = 8  # clips on the contact sheet
SHEET = "contact_sheet.png"


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything one `hm generate` works with."""

    recipe: Recipe
    view: LatentsView
    model: ModelFolder
    memory: MemoryView | None
    device: str

    @property
    def sample(self) -> SampleConfig:
        return self.recipe.sample

    @cached_property
    def network(self) -> HydraTransformer3DModel:
        return self.model.load(pick_dtype(self.sample.dtype), self.device)

    @cached_property
    def codec(self) -> VideoCodec:
        config = self.model.codec()
        codec: VideoCodec = registry.find("codec", config.name)(config, self.device)
        return codec

    @cached_property
    def negative(self) -> np.ndarray:
        """(L, D) embedding of the guidance branch; only a caption that says something needs the text encoder."""
        if not self.sample.negative:
            return self.view.text(0)
        config = self.model.text()
        rows = registry.find("text", config.name)(config, self.device).encode([self.sample.negative])[0]
        padded = np.zeros(self.view.text_shape, np.float32)
        padded[: len(rows)] = rows
        return padded


def run(
    recipe: Recipe,
    *,
    source: Path,
    model: Path,
    memory: Path | None,
    clips: tuple[str, ...],
    out: Path,
    force: bool,
    device: str,
    reporter: Reporter,
    dry_run: bool = False,
) -> StageResult:
    """Generate the clips of latents, or of a folder of clips (encoded first); see `hm generate --help`."""
    folder = find_model(model)
    if memory is not None and folder.manifest.recipe["model"]["memory"]["context"] != "frozen":
        raise UsageError(
            "this model's context is joint: it sees the target and changes at every step, so no memory is kept for it",
            where={"model": folder.path, "memory": memory}, fix="leave --memory out",
        )  # fmt: skip
    left_out: tuple[Quarantined, ...] = ()
    if not _is_latents(source):
        source, left_out = _encode_first(recipe, source, out, folder, device, reporter, dry_run)
        if dry_run:
            check_output(out, "generation", reporter)
            reporter.note(f"then {recipe.sample.steps} steps for each clip on {device}, into {out}")
            return StageResult(path=out, kind="generation", details={"dry_run": True})
    view = open_latents(source)
    view.say_left_out(reporter)
    ids = view.ids(clips)
    _check_latents(view, folder, reporter)
    job = Job(
        recipe=recipe, view=view, model=folder, memory=None if memory is None else MemoryView(memory, folder),
        device=device,
    )  # fmt: skip
    if recipe.sample.negative:
        text_hash(folder.text())  # a missing text encoder is said now, not after the first clip is loaded
    if dry_run:
        check_output(out, "generation", reporter)
        reporter.note(f"{len(ids)} clips, {recipe.sample.steps} steps each on {device}, into {out}")
        return StageResult(path=out, kind="generation", counts={"clips": len(ids)}, details={"dry_run": True})
    read = sections(recipe, "sample") | {"poses": view.manifest.recipe["poses"]}
    inputs = {"latents": view.fingerprint, "model": folder.fingerprint}
    with ArtifactWriter(
        out, "generation", recipe=read, inputs=inputs, seed=recipe.seed, reporter=reporter, force=force
    ) as writer:
        for item in left_out:
            writer.quarantine(item.item, item.reason)
        done = _generate_clips(writer, job, ids, reporter)
        require_some(done, writer.quarantined, source)
        return _finish(writer, job, done)


def _is_latents(source: Path) -> bool:
    return is_artifact(source) and read_manifest(source).kind == "latents"


def _encode_first(
    recipe: Recipe, source: Path, out: Path, folder: ModelFolder, device: str, reporter: Reporter, dry_run: bool
) -> tuple[Path, tuple[Quarantined, ...]]:
    """A folder of clips becomes a latents artifact beside the output, with the model's own codec."""
    import dataclasses

    from hmcli.stages import encode

    place = out.with_name(out.name + ".latents")
    reporter.note(f"{source} is no latents artifact: encoding it into {place} first")
    resolved = dataclasses.replace(recipe, codec=folder.codec(), text=folder.text())
    done = encode.run(resolved, data=source, out=place, force=False, device=device, reporter=reporter, dry_run=dry_run)
    return done.path, done.quarantined


def _check_latents(view: LatentsView, folder: ModelFolder, reporter: Reporter) -> None:
    """The model must read what the latents hold: same codec, same text encoder; another size is said."""
    made_with, trained_with = view.manifest.recipe, folder.manifest.recipe
    for section in ("codec", "text"):
        wanted, found = trained_with[section]["name"], made_with[section]["name"]
        same = wanted == found and (section == "text" or view.manifest.inputs["codec"] == codec_hash(folder.codec()))
        if not same:
            weights = "" if wanted != found else " with other weights"
            raise DataError(
                f"latents were encoded with {section} {found!r}{weights}, the model was trained with {wanted!r}",
                where={"latents": view.path, "model": folder.path}, fix="encode again with the model's recipe",
            )  # fmt: skip
    for key, here, there in (
        ("pixels", list(view.size), list(trained_with["data"]["size"])),
        ("rows of text", view.text_shape[0], trained_with["text"]["length"]),
    ):
        if here != there:
            reporter.warn(f"the latents have {here} {key}, the model was trained with {there}")


# --- clips -----------------------------------------------------------------------------------------------------------


def _generate_clips(writer: ArtifactWriter, job: Job, ids: list[str], reporter: Reporter) -> list[str]:
    """Generate what is not there yet; returns the ids of all that are."""
    done = []
    depends = [job.model.fingerprint, sections(job.recipe, "sample"), job.recipe.seed]
    with reporter.progress("generating", len(ids), "clip") as advance:
        for clip_id in ids:
            key = hash_json([job.view.item_hash(clip_id), depends])
            if not writer.kept(clip_id, key):
                network, started = job.network, time.monotonic()
                try:
                    clip = job.view.clip(clip_id)
                    check_memory_fits(network.config, clip_id, context=clip.context, target=clip.target)
                    latents = generate_latents(job, clip)
                except DataError as error:
                    writer.quarantine(clip_id, str(error))
                    advance(1)
                    continue
                video = decode_video(latents, job.codec, job.device)
                row = _row(job, clip, video) | {"seconds": round(time.monotonic() - started, 3)}
                with writer.item_file(clip_id, key, suffix=".mp4", parent="videos", meta=row) as file:
                    write_video(file, video, fps=clip.fps)
            done.append(clip_id)
            advance(1)
    return done


def clip_seed(seed: int, clip: str) -> int:
    """The seed of a clip's noise: depends on the run's seed and the clip's id alone."""
    return int.from_bytes(hashlib.sha256(f"{seed} {clip}".encode()).digest()[:8], "big") >> 1


def generate_latents(job: Job, clip: LatentClip) -> np.ndarray:
    """Target latents (C, Ft, h, w) float32 of one clip."""
    import torch

    from hmcli.core.flow import make_schedule
    from hmcli.core.sampler import denoise, start_noise

    generator = torch.Generator().manual_seed(clip_seed(job.recipe.seed, clip.id))
    shape = (1, clip.latents.shape[0], clip.target, *clip.latents.shape[2:])
    noise = start_noise(shape, generator, job.device)
    network = job.network
    if network.config.context == "frozen":
        if job.memory is not None:
            memory, anchor = job.memory.load(clip.id, job.view.item_hash(clip.id), job.device)
        else:
            memory, anchor = compute_memory(network, clip, job.device), anchor_of(clip)
        cameras = rows_from(clip.world_poses()[clip.context :], anchor, job.device)
        past: dict[str, Any] = {"memory": memory, "camera": cameras}
    else:
        context = torch.from_numpy(clip.context_latents)[None].to(job.device)
        past = {"context": context, "camera": torch.from_numpy(clip.camera)[None].to(job.device)}
    result = denoise(
        network, noise, schedule=make_schedule(job.sample.steps, job.sample.shift),
        text=torch.from_numpy(clip.text)[None].to(job.device), guidance=job.sample.guidance,
        negative_text=torch.from_numpy(job.negative)[None].to(job.device), **past,
    )  # fmt: skip
    if not bool(torch.isfinite(result).all()):
        raise DataError("the model produced numbers that are not finite", where={"clip": clip.id})
    return result[0].float().cpu().numpy()


def decode_video(latents: np.ndarray, codec: VideoCodec, device: str) -> np.ndarray:
    """Normalised latents (C, F, h, w) -> (T, H, W, 3) uint8."""
    import torch

    with torch.no_grad():
        pixels = codec.decode(torch.from_numpy(latents)[None].to(device))[0]
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().movedim(0, -1).cpu().numpy()


def _row(job: Job, clip: LatentClip, video: np.ndarray) -> dict[str, Any]:
    """One line of generations.jsonl, but for the video's place."""
    return {
        "id": clip.id, "caption": clip.caption, "seed": clip_seed(job.recipe.seed, clip.id), "frames": len(video),
        "fps": clip.fps, "height": video.shape[1], "width": video.shape[2],
        "context_frames": 1 + TIME_STRIDE * (clip.context - 1),
        "steps": job.sample.steps, "guidance": job.sample.guidance, "shift": job.sample.shift,
        "negative": job.sample.negative, "dtype": job.sample.dtype,
        "camera": [] if clip.poses is None else clip.poses[clip.context :].round(6).tolist(),
    }  # fmt: skip


# --- the artifact ----------------------------------------------------------------------------------------------------


def _finish(writer: ArtifactWriter, job: Job, done: list[str]) -> StageResult:
    counts = {"clips": len(done)}
    view = job.view
    attributes = {
        "data": view.manifest.recipe["data"], "source_dataset": view.attributes["source"],
        "source_dataset_fingerprint": view.manifest.inputs["clips"], "model": str(job.model.path.absolute()),
        "latents": str(view.path.absolute()),
    }  # fmt: skip
    if not writer.unchanged(done):
        rows = [{**writer.items[clip]["meta"], "video": writer.items[clip]["path"]} for clip in done]
        write_json_lines(writer.staged / LIST, rows)
        _write_sheet(writer, job, done[:SHEET_CLIPS])
    manifest = writer.finish(done, counts=counts, attributes=attributes)
    return result_of(writer, manifest, contact_sheet=str(writer.path / SHEET))


def _write_sheet(writer: ArtifactWriter, job: Job, clips: list[str]) -> None:
    """Context, true target where there is one (both through the codec), and what was generated."""
    from hmcli.reports.contact_sheet import contact_sheet, save_png

    codec = job.codec
    rows = []
    for clip_id in clips:
        clip = job.view.clip(clip_id)
        rows.append((f"{clip_id}  context, decoded", decode_video(clip.context_latents, codec, job.device)))
        if clip.has_target:
            rows.append(
                (f"{clip_id}  true target, decoded", decode_video(clip.latents[:, clip.context :], codec, job.device))
            )
        rows.append((f"{clip_id}  generated", read_video(writer.path / writer.items[clip_id]["path"])))
    save_png(contact_sheet(rows), writer.staged / SHEET)
