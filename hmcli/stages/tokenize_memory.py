"""`hm tokenize-memory`: what each memory slot of a clip is, and with a frozen model its keys and values.

Without a model: which frames a slot stands for, where its camera was, how much of what a target frame sees it saw, and
which slots show a subject that is hidden later. A clip is one Zarr group; a killed run goes on with the next clip.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hmcli.contracts import Reporter, StageResult
from hmcli.errors import DataError, UsageError
from hmcli.recipe import MemoryConfig, Recipe, sections
from hmcli.runtime import pick_dtype
from hmcli.stages.latents import LatentClip, LatentsView, open_latents
from hmcli.stages.memory import ANCHOR, PER_BLOCK, anchor_of, compute_memory, memory_arrays
from hmcli.stages.models import ModelFolder, check_memory_fits, find_model
from hmcli.stages.outcome import check_output, require_some, result_of
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.hashing import hash_json

_UNITS = {
    "slot_span": (["slot", "end"], "first and last latent frame"),
    "slot_time": (["slot"], "rotary time in latent frames"),
    "slot_camera": (["slot", "row"], "mean camera row of the slot's frames, relative to the anchor"),
    "frame_camera": (["frame", "row"], "camera row of each context frame, relative to the anchor"),
    "slot_pose": (["slot", "row", "column"], "mean world_from_camera of the slot's frames, metres"),
    "overlap": (["frame", "slot"], "share of what a target frame sees between near and far that the slot saw"),
    "shows": (["slot", "subject"], "1 where the slot shows a subject that is hidden later"),
    ANCHOR: (["row", "column"], "world_from_camera, metres"),
}


def run(
    recipe: Recipe,
    *,
    latents: Path,
    model: Path | None,
    clips: tuple[str, ...],
    out: Path,
    force: bool,
    device: str,
    reporter: Reporter,
    dry_run: bool = False,
) -> StageResult:
    """Describe, and with `model` compute, the memory of the clips; see `hm tokenize-memory --help`."""
    view = open_latents(latents)
    ids = view.ids(clips)
    folder = None if model is None else find_model(model)
    config = recipe.model.memory
    if folder is not None:
        _check_model(folder, config)
    view.say_left_out(reporter)
    if dry_run:
        check_output(out, "memory", reporter)
        reporter.note(f"{len(ids)} clips of {latents}{'' if folder is None else f' with {folder.path}'} into {out}")
        return StageResult(path=out, kind="memory", counts={"clips": len(ids)}, details={"dry_run": True})
    read = {"memory": sections(recipe, "model")["model"]["memory"], "dtype": recipe.sample.dtype if folder else ""}
    inputs = {"latents": view.fingerprint} | ({} if folder is None else {"model": folder.fingerprint})
    with ArtifactWriter(
        out, "memory", recipe=read, inputs=inputs, seed=recipe.seed, reporter=reporter, force=force
    ) as writer:
        done = _write_clips(writer, view, ids, recipe, config, folder, device, reporter, [read, inputs.get("model")])
        require_some(done, writer.quarantined, latents)
        counts = {"clips": len(done)}
        files = [] if writer.unchanged(done) else _root(writer)
        manifest = writer.finish(done, counts=counts, attributes={"latents": str(latents.absolute())}, files=files)
        return result_of(writer, manifest)


def _check_model(folder: ModelFolder, config: MemoryConfig) -> None:
    """Only frozen models keep memory; the slots described are the model's own."""
    from hmcli.recipe import from_dict

    recorded = from_dict({"model": folder.manifest.recipe["model"]}).model.memory
    if recorded.context != "frozen":
        raise UsageError(
            "a joint model keeps no memory: its context sees the target and is computed anew at every step",
            where={"model": folder.path},
            fix="generate with it from latents, or train a model with model.memory.context=frozen",
        )
    for name in ("kernel", "spans", "window", "top_k"):
        if getattr(config, name) != getattr(recorded, name):
            raise UsageError(
                f"model.memory.{name} is {getattr(recorded, name)} in the model, {getattr(config, name)} in the recipe",
                where={"model": folder.path}, fix="leave --recipe out: the model's own recipe is used then",
            )  # fmt: skip


def _write_clips(
    writer: ArtifactWriter,
    view: LatentsView,
    ids: list[str],
    recipe: Recipe,
    config: MemoryConfig,
    folder: ModelFolder | None,
    device: str,
    reporter: Reporter,
    depends: list[Any],
) -> list[str]:
    """Write the group of every clip that is not there yet; one clip is in memory at a time."""
    from hmcli.store.arrays import ROOT, write_item_group

    network: Any = None
    done = []
    with reporter.progress("tokenizing memory", len(ids), "clip") as advance:
        for clip_id in ids:
            key = hash_json([view.item_hash(clip_id), depends])
            if not writer.kept(clip_id, key):
                if folder is not None:
                    network = network or folder.load(pick_dtype(recipe.sample.dtype), device)
                try:
                    clip = view.clip(clip_id)
                    arrays, described = describe_slots(clip, view, config, recipe.model.patch[0], reporter)
                    about = described | {"latents": view.item_hash(clip_id)}
                    if network is not None:
                        check_memory_fits(network.config, clip_id, context=clip.context, target=clip.target)
                        kept, about["memory"] = memory_arrays(compute_memory(network, clip, device))
                        arrays |= kept | {ANCHOR: anchor_of(clip)}
                except DataError as error:
                    writer.quarantine(clip_id, str(error))
                    advance(1)
                    continue
                with writer.item_folder(clip_id, key, parent=ROOT, meta=about) as place:
                    write_item_group(place, arrays, **_described(arrays, about), attributes={"clip": clip_id})
            done.append(clip_id)
            advance(1)
    return done


def _described(arrays: dict[str, np.ndarray], about: dict[str, Any]) -> dict[str, Any]:
    """Axes, units and stored types of a clip's arrays."""
    axes = {name: _UNITS[name][0] if name in _UNITS else ["block", *PER_BLOCK[name]] for name in arrays}
    units = {name: _UNITS[name][1] if name in _UNITS else "before rotary positions" for name in arrays}
    half = about.get("memory", {}).get("bfloat16", [])
    return {"axes": axes, "units": units, "dtypes": dict.fromkeys(half, "bfloat16")}


def _root(writer: ArtifactWriter) -> list[str]:
    """Make data.zarr a group that lists the clips' groups."""
    from hmcli.store.arrays import ROOT, make_group

    make_group(writer.path / ROOT)
    return [f"{ROOT}/zarr.json"]


# --- the model-free part ---------------------------------------------------------------------------------------------


def describe_slots(
    clip: LatentClip, view: LatentsView, config: MemoryConfig, patch_time: int, reporter: Reporter
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Spans, poses, overlaps and subjects of a clip's context slots: arrays of `_UNITS`, and the slot grid.

    Raises DataError when the context is shorter than one slot.
    """
    from hmcli.core.memory import slot_spans

    time, rows, columns = config.kernel[0] // patch_time, config.kernel[1], config.kernel[2]
    spans = slot_spans(clip.context, time, config.spans).numpy()
    if not len(spans):
        raise DataError(
            f"{clip.context} context latent frames are shorter than one slot of {time}", where={"clip": clip.id},
            fix="use longer clips or a smaller model.memory.kernel",
        )  # fmt: skip
    arrays: dict[str, np.ndarray] = {"slot_span": spans}
    if clip.poses is not None:
        arrays["slot_pose"] = np.stack([mean_pose(clip.poses[first : last + 1]) for first, last in spans])
        if (intrinsics := _intrinsics(clip, view.size, config)) is not None:
            arrays["overlap"] = _overlap(clip.poses[clip.context :], arrays["slot_pose"], intrinsics, view.size, config)
        else:
            reporter.note(f"{clip.id}: no intrinsics, so no overlap (HM-World measures model.memory.field_of_view=37)")
    subjects = view.subjects(clip.id)
    if "visibility" in subjects:
        arrays["shows"] = shown_subjects(subjects["visibility"], spans)
    grid = [clip.latents.shape[2] // rows, clip.latents.shape[3] // columns]
    return arrays, {"slots": len(spans), "slot_grid": grid, "context": clip.context, "target": clip.target}


def mean_pose(poses: np.ndarray) -> np.ndarray:
    """Mean of camera poses (N, 4, 4): mean position, and the rotation nearest to the mean of the rotations."""
    mean = poses.mean(axis=0)
    left, _, right = np.linalg.svd(mean[:3, :3])
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    mean[:3, :3] = left @ flip @ right
    return mean


def _intrinsics(clip: LatentClip, size: tuple[int, int], config: MemoryConfig) -> np.ndarray | None:
    """The clip's own intrinsics, or those of the recipe's field of view; None when neither says."""
    if clip.intrinsics is not None:
        return clip.intrinsics
    if config.field_of_view is None:
        return None
    height, width = size
    focal = width / 2 / np.tan(np.deg2rad(config.field_of_view) / 2)
    return np.array([focal, focal, width / 2, height / 2])


def _overlap(
    targets: np.ndarray, slots: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int], config: MemoryConfig
) -> np.ndarray:
    """(F, M) share of what each target frame sees that each slot's camera saw, by geometry alone."""
    import torch

    from hmcli.core.camera import field_of_view_overlap

    pixels = torch.from_numpy(intrinsics)
    query, slot = torch.from_numpy(targets)[:, None], torch.from_numpy(slots)[None]
    return field_of_view_overlap(query, slot, pixels, pixels, size, near=config.near, far=config.far).numpy()


def shown_subjects(visibility: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """(M, S) uint8: does slot m show subject s, and is s out of sight in some later frame? From (F, S) visibility."""
    seen = visibility > 0
    shows = np.zeros((len(spans), seen.shape[1]), np.uint8)
    for slot, (first, last) in enumerate(spans):
        hidden_later = ~seen[last + 1 :].all(axis=0)
        shows[slot] = seen[first : last + 1].any(axis=0) & hidden_later
    return shows
