"""`hm encode`: clips -> latents, captions -> embeddings, poses -> camera rows, in one Zarr artifact.

Every finished clip lies on disk at once; a killed encode goes on with the next clip. The artifact's layout is in
docs/artifacts.md, and in hmcli.stages.latents.layout; hmcli.stages.latents.view reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hmcli.contracts import Quarantined, Reporter, StageResult, VideoCodec
from hmcli.errors import NotFiniteError
from hmcli.recipe.readers import reads
from hmcli.recipe.sections import MANTISSA, CodecConfig, Recipe
from hmcli.stages.data.loading import LoadedClip, load_clip
from hmcli.stages.data.opening import ClipSource, Dataset, open_dataset
from hmcli.stages.latents.captions import cut_caption, say_cut
from hmcli.stages.latents.layout import (
    AXES,
    CAMERA,
    INTRINSICS,
    KIND,
    LATENTS,
    POSES,
    TEXT,
    TEXT_INDEX,
    TEXT_ROWS,
    VALID,
    CaptionAbout,
    CaptionKey,
    ClipAbout,
    ClipKey,
    Group,
    LatentsAttributes,
    Shape,
    caption_item,
    clip_item,
    clips_of,
    group_name,
    is_caption,
)
from hmcli.stages.latents.pixels import encode_video
from hmcli.stages.latents.subjects import UNDEFINED, latent_masks, subject_arrays
from hmcli.stages.models.identity import codec_hash, open_codec, open_text, text_hash
from hmcli.stages.shared.each import asked_for, each
from hmcli.stages.shared.makers import Unit
from hmcli.stages.shared.memory import memory_named
from hmcli.stages.shared.outcome import planned, require_some, result_of
from hmcli.stages.shared.shards import Parts, Shard, share
from hmcli.stages.shared.typed import from_json, key_of, to_json
from hmcli.store.arrays import ROWS_PER_SHARD, ZSTD, rounded
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.finite import narrowed
from hmcli.store.hashing import hash_json
from hmcli.store.parts import Part
from hmcli.world.files.captions import natural_key

_NO_EMBEDDING = "the embedding of its caption is not finite"
_OTHER_TEXT = "set text.dtype to float32 or bfloat16; otherwise look at the text encoder's weights"


def run(
    recipe: Recipe, *, data: Path, out: Path, force: bool, device: str, reporter: Reporter, prune: bool = False,
    processes: int = 1, dry_run: bool = False, shard: Shard | None = None,
) -> StageResult:  # fmt: skip
    """Encode a folder of clips; see `hm encode --help`.

    Clips that cannot be used are quarantined with the reason; what was encoded of one earlier stays.
    """
    dataset, part = _own(open_dataset(data, recipe.poses, fps=recipe.data.fps), shard)
    for note in dataset.notes:
        reporter.note(note)
    codec_key, text_key = codec_hash(recipe.codec), text_hash(recipe.text)
    read = reads(recipe, "encode")
    under = hash_json([codec_key, read])
    units = [Unit(id=c.id, items={clip_item(c.id): clip_key(c, recipe, codec_key)}) for c in dataset.clips]
    unread = frozenset(clip_item(clip.item) for clip in dataset.quarantined)
    asked = asked_for(units, unread=unread, helps=is_caption, seeded=False)
    if dry_run:
        plan = f"{len(dataset.clips)} clips of {data} at {recipe.data.size} with codec {recipe.codec.name}"
        ids = [*(clip.id for clip in dataset.clips), *(clip.item for clip in dataset.quarantined)]
        return planned(
            out, KIND, plan, reporter, look=asked, force=force, prune=prune, clips=ids,
            counts={"clips": len(dataset.clips)}, quarantined=dataset.quarantined, part=part,
        )  # fmt: skip
    inputs = {"clips": dataset.fingerprint, "codec": codec_key, "text": text_key}
    with ArtifactWriter(
        out, KIND, recipe=read, inputs=inputs, seed=recipe.seed, reporter=reporter, force=force, prune=prune,
        under=under, part=part,
    ) as writer:  # fmt: skip
        writer.ask(asked)
        having: dict[str, list[str]] = {}
        for clip in dataset.clips:
            having.setdefault(clip.caption, []).append(clip.id)
        captions = _encode_captions(writer, having, recipe, text_key, device)
        mute = [clip.id for clip in dataset.clips if clip.caption not in captions]
        unused = [*dataset.quarantined, *(Quarantined(item=clip, reason=_NO_EMBEDDING) for clip in mute)]
        done = [left.item for left in unused if writer.quarantine(left.item, left.reason, [clip_item(left.item)])]
        done += _encode_clips(
            writer, dataset, [unit for unit in units if unit.id not in mute], recipe, device, processes
        )
        require_some(done, writer.quarantined, data, part)
        done.sort(key=natural_key)
        told = [clip_about(writer, clip).caption for clip in done]  # of clips that stay, an earlier one
        captions = _encode_captions(writer, {caption: [] for caption in told}, recipe, text_key, device)
        if any(caption not in captions for caption in told):
            raise NotFiniteError(_NO_EMBEDDING, where={"artifact": writer.path}, fix=_OTHER_TEXT)
        return _finish(writer, done, captions, size=recipe.data.size, source=str(dataset.path.absolute()))


def join(writer: ArtifactWriter, parts: Parts) -> StageResult:
    """Complete the latents that were made in parts, and are in the writer: captions once, and rows anew."""
    about = from_json(LatentsAttributes, parts.attributes, "the description", latents=parts.paths[0])
    clips = [clip for manifest in parts.manifests for clip in clips_of(manifest.items)]
    done = sorted(clips, key=natural_key)
    told = dict.fromkeys(["", *(clip_about(writer, clip).caption for clip in done)])
    captions = {caption: caption_item(caption) for caption in told}
    return _finish(writer, done, captions, size=about.size, source=about.source)


def _own(dataset: Dataset, shard: Shard | None) -> tuple[Dataset, Part | None]:
    """The data set with the clips of a part alone; clips that cannot be used are divided like the others."""
    ids = sorted([*(clip.id for clip in dataset.clips), *(clip.item for clip in dataset.quarantined)], key=natural_key)
    own = share(shard, ids, rows=ROWS_PER_SHARD)
    clips = tuple(clip for clip in dataset.clips if clip.id in own.clips)
    left_out = tuple(clip for clip in dataset.quarantined if clip.item in own.clips)
    return replace(dataset, clips=clips, quarantined=left_out), own.part


# --- what items are made from ----------------------------------------------------------------------------------------


def caption_key(caption: str, recipe: Recipe, encoder: str) -> str:
    """The content key of a caption's embedding; `encoder` is the hash of its weights."""
    return key_of(CaptionKey(caption=caption, encoder=encoder, text=replace(recipe.text, path="")))


def clip_key(clip: ClipSource, recipe: Recipe, weights: str) -> str:
    """The content key of a clip's arrays; `weights` is the hash of the codec's."""
    new = CodecConfig()  # of one that is trained from nothing: says nothing of the one at work
    codec = replace(recipe.codec, path="", channels=new.channels, stride=new.stride)
    made = to_json(ClipKey(source=clip.key, weights=weights, codec=codec, data=recipe.data, poses=recipe.poses))
    del made["data"]["compressor"]  # says nothing of what is packed
    if recipe.data.keep_bits == MANTISSA:
        del made["data"]["keep_bits"]  # as before there was a choice
    return hash_json([ClipKey.__name__, made])


# --- captions --------------------------------------------------------------------------------------------------------


def _encode_captions(
    writer: ArtifactWriter, captions: Mapping[str, list[str]], recipe: Recipe, text_key: str, device: str
) -> dict[str, str]:
    """Encode each distinct caption (-> the clips that have it) once, the empty one first; returns caption -> item.

    Captions whose embedding is not finite are left out; NotFiniteError when that of the empty one is not.
    """
    distinct = list(dict.fromkeys(["", *captions]))
    items = {caption: caption_item(caption) for caption in distinct}
    keys = {caption: caption_key(caption, recipe, text_key) for caption in distinct}
    wanted = [caption for caption in distinct if not writer.kept(items[caption], keys[caption])]
    if wanted:
        encoder = open_text(recipe.text, device)
        for caption, rows in zip(wanted, encoder.encode(wanted), strict=True):
            padded = np.zeros((encoder.length, encoder.dim), np.float32)
            padded[: len(rows)] = rows
            count = np.array(len(rows), np.int32)
            about = to_json(CaptionAbout(caption=caption, cut=cut_caption(encoder, caption) or None))
            try:
                writer.put_arrays(items[caption], keys[caption], {TEXT: padded, TEXT_ROWS: count}, about)
            except NotFiniteError as error:
                if not caption:
                    raise NotFiniteError(_NO_EMBEDDING, where={"caption": '""'}, fix=_OTHER_TEXT) from error
                del items[caption]
    told = {caption: writer.items[item]["meta"].get("cut", "") for caption, item in items.items()}
    say_cut(told, captions, writer.reporter)
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
            writer.put_arrays(item, key, made.arrays, to_json(made.about), undefined=UNDEFINED)

    return each(writer, units, encoder, keep, label="encoding", processes=processes)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A clip's arrays, and what is said of it."""

    arrays: dict[str, np.ndarray]
    about: ClipAbout


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
        return open_codec(self.recipe.codec, self.device)

    def load(self) -> None:
        _ = self.codec

    def make(self, unit: Unit, place: Path) -> Encoded:
        where = {"clip": unit.id, "data.size": "{} x {}".format(*self.recipe.data.size)}
        with memory_named(self.device, where=where, fix=_smaller(self.recipe)):
            clip = load_clip(self.clips[unit.id], self.recipe.data)
            arrays, rounding = encode_clip(clip, self.codec, self.device), None
        if self.recipe.data.keep_bits < MANTISSA:
            arrays[LATENTS], rounding = rounded(arrays[LATENTS], self.recipe.data.keep_bits)
        for note in clip.notes:
            self.reporter.note(f"{clip.id}: {note}")
        return Encoded(arrays=arrays, about=replace(_about(clip), rounding=rounding))


def _smaller(recipe: Recipe) -> str:
    """What encodes the same clips in less memory, or smaller ones."""
    if recipe.codec.name == "blocks":
        return "set a smaller data.size, or encode shorter clips or with fewer processes"
    return (
        "set codec.chunk_frames=1 (causally exact), codec.tile=[height,width] or codec.dtype=bfloat16, a smaller"
        " data.size, or fewer processes"
    )


def encode_clip(clip: LoadedClip, codec: VideoCodec, device: str) -> dict[str, np.ndarray]:
    """The arrays of one clip, as they are stored (docs/artifacts.md, latents)."""
    videos = [clip.context] if clip.target is None else [clip.context, clip.target]
    latents = np.concatenate([encode_video(video, codec, device) for video in videos], axis=1)
    arrays: dict[str, np.ndarray] = {LATENTS: narrowed(latents, "float16", "latents")}
    arrays[CAMERA] = clip.camera_rows.astype(np.float32)
    if clip.context_poses is not None and clip.target_poses is not None:
        arrays[POSES] = np.concatenate([clip.context_poses, clip.target_poses]).astype(np.float64)
    if clip.intrinsics is not None:
        arrays[INTRINSICS] = clip.intrinsics.astype(np.float64)
    masks = [mask for mask in (clip.context_mask, clip.target_mask) if mask is not None]
    if len(masks) == len(videos):
        arrays |= subject_arrays(np.concatenate([latent_masks(mask, codec.stride) for mask in masks]), masks)
    return arrays


def clip_about(writer: ArtifactWriter, clip: str) -> ClipAbout:
    """What is said of a clip that the artifact holds."""
    return from_json(ClipAbout, writer.items[clip_item(clip)]["meta"], "a clip's record", clip=clip)


def _about(clip: LoadedClip) -> ClipAbout:
    context = clip.context_latent_frames
    shape = Shape(
        context=context, target=len(clip.camera_rows) - context, context_video_frames=len(clip.context),
        target_video_frames=0 if clip.target_poses is None else len(clip.target_poses),
        has_target=clip.target is not None,
    )  # fmt: skip
    return ClipAbout(caption=clip.caption, fps=float(clip.fps), shape=shape, notes=clip.notes)


# --- the artifact ----------------------------------------------------------------------------------------------------


def _finish(
    writer: ArtifactWriter, done: list[str], captions: dict[str, str], *, size: tuple[int, int], source: str
) -> StageResult:
    """Stack the rows of each shape and write the manifest. `captions` are caption -> item."""
    order = [*captions.values(), *map(clip_item, done)]
    counts = {"clips": len(done), "captions": len(captions)}
    if writer.unchanged(order):
        return result_of(writer, writer.finish(order, counts=counts))
    texts = list(captions.values())
    for name in (TEXT, TEXT_ROWS):
        _stack(writer, "", name, texts)
    length, width = writer.items[texts[0]]["arrays"][TEXT][1]
    channels, _, rows, _ = writer.items[clip_item(done[0])]["arrays"][LATENTS][1] if done else (0, 0, 0, 0)
    attributes = LatentsAttributes(
        groups=_stack_groups(writer, done, list(captions)), channels=channels, size=size,
        stride=size[0] // rows if rows else 0, text_length=length, text_dim=width, source=source,
    )  # fmt: skip
    return result_of(writer, writer.finish(order, counts=counts, attributes=to_json(attributes)))


def _stack_groups(writer: ArtifactWriter, done: list[str], captions: list[str]) -> tuple[Group, ...]:
    """Write the arrays of all clips, one group for each shape."""
    about = {clip: clip_about(writer, clip) for clip in done}
    members: dict[str, list[str]] = {}
    for clip in done:
        members.setdefault(group_name(about[clip].shape, writer.items[clip_item(clip)]["arrays"]), []).append(clip)
    groups = []
    rows = {caption: row for row, caption in enumerate(captions)}
    for name, clips in members.items():
        arrays = list(writer.items[clip_item(clips[0])]["arrays"])
        for array in arrays:
            attributes = _rounding(writer, [about[clip] for clip in clips]) if array == LATENTS else {}
            _stack(writer, name, array, [clip_item(clip) for clip in clips], attributes)
        extra: dict[str, list[Any]] = {
            TEXT_INDEX: [rows[about[clip].caption] for clip in clips],
            VALID: [True] * len(clips),
        }
        for array, values in extra.items():
            _stack_values(writer, name, array, values)
        shape = about[clips[0]].shape
        groups.append(Group(name=name, ids=tuple(clips), shape=shape, arrays=(*arrays, *extra)))
    return tuple(groups)


def _rounding(writer: ArtifactWriter, about: list[ClipAbout]) -> dict[str, Any]:
    """What is said of latents whose numbers were rounded."""
    lost = [clip.rounding for clip in about if clip.rounding is not None]
    if not lost:
        return {}
    error = float(np.sqrt(np.mean(np.square(lost))))
    return {"keep_bits": writer.recipe["data"]["keep_bits"], "rounding_error": float(f"{error:.4g}")}


def _stack(
    writer: ArtifactWriter, group: str, name: str, items: list[str], attributes: dict[str, Any] | None = None
) -> None:
    axes, units = AXES[name]
    compressor = writer.recipe["data"].get("compressor", ZSTD)  # parts of an earlier hm do not say
    writer.stack(name, items, group=group, axes=axes, units=units, compressor=compressor, attributes=attributes)


def _stack_values(writer: ArtifactWriter, group: str, name: str, values: list[Any]) -> None:
    """An array that is known only when the rows are: one scalar a clip."""
    from hmcli.store.arrays import ROOT, write_stack

    axes, units = AXES[name]
    dtype = "bool" if name == VALID else "int32"
    rows = (np.array(value, dtype) for value in values)
    write_stack(
        writer.staged / ROOT, group, name, rows, count=len(values), shape=(), dtype=dtype, axes=axes, units=units
    )
