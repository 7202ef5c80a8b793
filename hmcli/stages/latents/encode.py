"""`hm encode`: clips -> latents, captions -> embeddings, poses -> camera rows, in one Zarr artifact.

Every finished clip lies on disk at once; a killed encode goes on with the next clip. The artifact's layout is in
docs/artifacts.md; hmcli.stages.latents.view reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hmcli import registry
from hmcli.contracts import Quarantined, Reporter, StageResult, TextEncoder, VideoCodec
from hmcli.errors import NotFiniteError
from hmcli.recipe.readers import reads
from hmcli.recipe.sections import Recipe
from hmcli.stages.data.loading import LoadedClip, load_clip
from hmcli.stages.data.opening import ClipSource, Dataset, open_dataset
from hmcli.stages.latents.pixels import encode_video
from hmcli.stages.latents.subjects import UNDEFINED, latent_masks, subject_arrays
from hmcli.stages.models.identity import codec_hash, text_hash
from hmcli.stages.shared.each import asked_for, each
from hmcli.stages.shared.makers import Unit
from hmcli.stages.shared.outcome import planned, require_some, result_of
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.finite import narrowed
from hmcli.store.hashing import hash_json
from hmcli.world.files.captions import natural_key

_CAPTION = "caption "  # items that hold embeddings; clip ids are prefixed too, so neither can be taken for the other
_CLIP = "clip "
_NO_EMBEDDING = "the embedding of its caption is not finite"
_OTHER_TEXT = "set text.dtype to float32 or bfloat16; otherwise look at the text encoder's weights"
_AXES: dict[str, tuple[list[str], str]] = {
    "latents": (["clip", "channel", "time", "y", "x"], "VAE latent, unit variance"),
    "camera": (["clip", "time", "row"], "3x4 pose relative to the first target camera, row by row; metres"),
    "poses": (["clip", "frame", "row", "column"], "world_from_camera, metres; camera axes right, down, forward"),
    "intrinsics": (["clip", "parameter"], "fx, fy, cx, cy in pixels of the encoded size"),
    "text_index": (["clip"], "row of text"),
    "valid": (["clip"], "whether the row holds a clip"),
    "masks": (["clip", "time", "y", "x"], "0 background, otherwise the number of a subject"),
    "boxes": (["clip", "time", "subject", "side"], "left, top, right, bottom in latent pixels; NaN where not seen"),
    "visibility": (["clip", "time", "subject"], "share of the frame covered by the subject"),
}


def run(
    recipe: Recipe, *, data: Path, out: Path, force: bool, device: str, reporter: Reporter, prune: bool = False,
    processes: int = 1, dry_run: bool = False,
) -> StageResult:  # fmt: skip
    """Encode a folder of clips; see `hm encode --help`.

    Clips that cannot be used are quarantined with the reason; what was encoded of one earlier stays.
    """
    dataset = open_dataset(data, recipe.poses)
    for note in dataset.notes:
        reporter.note(note)
    codec_key, text_key = codec_hash(recipe.codec), text_hash(recipe.text)
    read = reads(recipe, "encode")
    under = hash_json([codec_key, read])
    units = [Unit(id=clip.id, items={_CLIP + clip.id: hash_json([clip.key, under])}) for clip in dataset.clips]
    unread = frozenset(_CLIP + item.item for item in dataset.quarantined)
    asked = asked_for(units, unread=unread, helps=lambda item: item.startswith(_CAPTION), seeded=False)
    if dry_run:
        plan = f"{len(dataset.clips)} clips of {data} at {recipe.data.size} with codec {recipe.codec.name}"
        ids = [*(clip.id for clip in dataset.clips), *(clip.item for clip in dataset.quarantined)]
        return planned(
            out, "latents", plan, reporter, look=asked, force=force, prune=prune, clips=ids,
            counts={"clips": len(dataset.clips)}, quarantined=dataset.quarantined,
        )  # fmt: skip
    inputs = {"clips": dataset.fingerprint, "codec": codec_key, "text": text_key}
    with ArtifactWriter(
        out, "latents", recipe=read, inputs=inputs, seed=recipe.seed, reporter=reporter, force=force, prune=prune,
        under=under,
    ) as writer:  # fmt: skip
        writer.ask(asked)
        captions = _encode_captions(writer, (clip.caption for clip in dataset.clips), recipe, text_key, device)
        mute = [clip.id for clip in dataset.clips if clip.caption not in captions]
        unused = [*dataset.quarantined, *(Quarantined(item=clip, reason=_NO_EMBEDDING) for clip in mute)]
        done = [left.item for left in unused if writer.quarantine(left.item, left.reason, [_CLIP + left.item])]
        done += _encode_clips(
            writer, dataset, [unit for unit in units if unit.id not in mute], recipe, device, processes
        )
        require_some(done, writer.quarantined, data)
        done.sort(key=natural_key)
        told = [writer.items[_CLIP + clip]["meta"]["caption"] for clip in done]  # of clips that stay, an earlier one
        captions = _encode_captions(writer, told, recipe, text_key, device)
        if any(caption not in captions for caption in told):
            raise NotFiniteError(_NO_EMBEDDING, where={"artifact": writer.path}, fix=_OTHER_TEXT)
        return _finish(writer, dataset, done, captions, recipe)


# --- captions --------------------------------------------------------------------------------------------------------


def _encode_captions(
    writer: ArtifactWriter, captions: Iterable[str], recipe: Recipe, text_key: str, device: str
) -> dict[str, str]:
    """Encode each distinct caption once, the empty one first; returns caption -> item.

    Captions whose embedding is not finite are left out; NotFiniteError when that of the empty one is not.
    """
    distinct = list(dict.fromkeys(["", *captions]))
    items = {caption: _CAPTION + hash_json(caption)[7:23] for caption in distinct}
    keys = {caption: hash_json([text_key, recipe.text.length, caption]) for caption in distinct}
    wanted = [caption for caption in distinct if not writer.kept(items[caption], keys[caption])]
    if wanted:
        encoder: TextEncoder = registry.find("text", recipe.text.name)(recipe.text, device)
        for caption, rows in zip(wanted, encoder.encode(wanted), strict=True):
            padded = np.zeros((encoder.length, encoder.dim), np.float32)
            padded[: len(rows)] = rows
            count = np.array(len(rows), np.int32)
            arrays, about = {"text": padded, "text_rows": count}, {"caption": caption}
            try:
                writer.put_arrays(items[caption], keys[caption], arrays, about)
            except NotFiniteError as error:
                if not caption:
                    raise NotFiniteError(_NO_EMBEDDING, where={"caption": '""'}, fix=_OTHER_TEXT) from error
                del items[caption]
    return items


# --- clips -----------------------------------------------------------------------------------------------------------


def _encode_clips(
    writer: ArtifactWriter, dataset: Dataset, units: list[Unit], recipe: Recipe, device: str, processes: int
) -> list[str]:
    """Encode what is not there yet; returns the ids of the clips that are in the artifact."""
    clips = {clip.id: clip for clip in dataset.clips}
    encoder = Encoder(recipe=recipe, clips=clips, device=device, reporter=writer.reporter)

    def keep(unit: Unit, made: Encoded, _: Path) -> None:
        for item, key in unit.items.items():
            writer.put_arrays(item, key, made.arrays, made.about, undefined=UNDEFINED)

    return each(writer, units, encoder, keep, label="encoding", processes=processes)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A clip's arrays, and what is said of it."""

    arrays: dict[str, np.ndarray]
    about: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Encodes clips by their ids (hmcli.stages.shared.makers.Maker)."""

    recipe: Recipe
    clips: Mapping[str, ClipSource]
    device: str
    reporter: Reporter
    imports: tuple[str, ...] = ("hmcli.codecs.video",)

    def reporting_to(self, reporter: Reporter) -> Encoder:
        return replace(self, reporter=reporter)

    @cached_property
    def codec(self) -> VideoCodec:
        codec: VideoCodec = registry.find("codec", self.recipe.codec.name)(self.recipe.codec, self.device)
        return codec

    def load(self) -> None:
        _ = self.codec

    def make(self, unit: Unit, place: Path) -> Encoded:
        clip = load_clip(self.clips[unit.id], self.recipe.data)
        arrays = encode_clip(clip, self.codec, self.device)
        for note in clip.notes:
            self.reporter.note(f"{clip.id}: {note}")
        return Encoded(arrays=arrays, about=_about(clip))


def encode_clip(clip: LoadedClip, codec: VideoCodec, device: str) -> dict[str, np.ndarray]:
    """The arrays of one clip, as they are stored (docs/artifacts.md, latents)."""
    videos = [clip.context] if clip.target is None else [clip.context, clip.target]
    latents = np.concatenate([encode_video(video, codec, device) for video in videos], axis=1)
    arrays: dict[str, np.ndarray] = {"latents": narrowed(latents, "float16", "latents")}
    arrays["camera"] = clip.camera_rows.astype(np.float32)
    if clip.context_poses is not None and clip.target_poses is not None:
        arrays["poses"] = np.concatenate([clip.context_poses, clip.target_poses]).astype(np.float64)
    if clip.intrinsics is not None:
        arrays["intrinsics"] = clip.intrinsics.astype(np.float64)
    masks = [mask for mask in (clip.context_mask, clip.target_mask) if mask is not None]
    if len(masks) == len(videos):
        arrays |= subject_arrays(np.concatenate([latent_masks(mask) for mask in masks]), masks)
    return arrays


def _about(clip: LoadedClip) -> dict[str, Any]:
    frames = clip.target_poses if clip.target_poses is not None else np.zeros((0,))
    context = clip.context_latent_frames
    return {
        "caption": clip.caption, "fps": clip.fps, "context": context, "target": len(clip.camera_rows) - context,
        "context_video_frames": len(clip.context), "target_video_frames": len(frames),
        "has_target": clip.target is not None, "notes": list(clip.notes),
    }  # fmt: skip


# --- the artifact ----------------------------------------------------------------------------------------------------


def _finish(
    writer: ArtifactWriter, dataset: Dataset, done: list[str], captions: dict[str, str], recipe: Recipe
) -> StageResult:
    """Stack the rows of each shape and write the manifest."""
    used = list(captions)
    order = [*captions.values(), *(_CLIP + clip for clip in done)]
    counts = {"clips": len(done), "captions": len(used)}
    if not writer.unchanged(order):
        attributes = _stack(writer, done, [captions[caption] for caption in used], used)
        attributes |= {"size": list(recipe.data.size), "source": str(dataset.path.absolute())}
    else:
        attributes = {}
    manifest = writer.finish(order, counts=counts, attributes=attributes)
    return result_of(writer, manifest)


def _stack(writer: ArtifactWriter, done: list[str], texts: list[str], captions: list[str]) -> dict[str, Any]:
    """Write all arrays; returns what a reader needs to know of them."""
    for name, units in (("text", "embedding, zero padded"), ("text_rows", "rows of text in use")):
        axes = ["caption", "row", "channel"] if name == "text" else ["caption"]
        writer.stack(name, texts, axes=axes, units=units)
    groups: dict[str, list[str]] = {}
    for clip in done:
        groups.setdefault(_shape_name(writer.items[_CLIP + clip]), []).append(clip)
    described = {}
    rows = {caption: row for row, caption in enumerate(captions)}
    for name, clips in groups.items():
        items = [_CLIP + clip for clip in clips]
        first = writer.items[items[0]]
        for array in first["arrays"]:
            axes, units = _AXES[array]
            writer.stack(array, items, group=name, axes=axes, units=units)
        captioned = [rows[writer.items[item]["meta"]["caption"]] for item in items]
        extra: dict[str, list[Any]] = {"text_index": captioned, "valid": [True] * len(items)}
        for array, values in extra.items():
            _stack_values(writer, name, array, values)
        about = {k: v for k, v in first["meta"].items() if k not in ("caption", "fps", "notes")}
        described[name] = {**about, "ids": clips, "arrays": [*first["arrays"], *extra]}
    shape = writer.items[texts[0]]["arrays"]["text"][1]
    channels = writer.items[_CLIP + done[0]]["arrays"]["latents"][1][0]
    return {"groups": described, "text_length": shape[0], "text_dim": shape[1], "channels": channels}


def _stack_values(writer: ArtifactWriter, group: str, name: str, values: list[Any]) -> None:
    """An array that is known only when the rows are: one scalar a clip."""
    from hmcli.store.arrays import ROOT, write_stack

    axes, units = _AXES[name]
    dtype = "bool" if name == "valid" else "int32"
    rows = (np.array(value, dtype) for value in values)
    write_stack(
        writer.staged / ROOT, group, name, rows, count=len(values), shape=(), dtype=dtype, axes=axes, units=units
    )


def _shape_name(record: dict[str, Any]) -> str:
    """One group per shape: context and target latent frames, latent size, and what else the clips have."""
    meta, arrays = record["meta"], record["arrays"]
    _, _, rows, columns = arrays["latents"][1]
    target = f"{meta['target']}" if meta["has_target"] else f"{meta['target']}-cameras"
    has = "".join(f"-{name}" for name in ("poses", "intrinsics") if name not in arrays)
    subjects = f"-{arrays['visibility'][1][1]}subjects" if "visibility" in arrays else ""
    return f"{meta['context']}+{target}x{rows}x{columns}{subjects}{has.replace('-', '-no-')}"
