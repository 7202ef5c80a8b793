"""`hm tokenize-memory`: what each memory slot of a clip is, and with a frozen model its keys and values.

Without a model: which frames a slot stands for, where its camera was, how much of what a frame sees it saw, and which
slots show a subject that is hidden later. A clip is one Zarr group, written block by block; a killed run goes on with
the next clip. `after` makes the memory of frames that follow those of another memory artifact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmcli.contracts import Reporter, StageResult
from hmcli.errors import DataError, UsageError
from hmcli.recipe.readers import reads
from hmcli.recipe.sections import MemoryConfig, ModelConfig, Recipe
from hmcli.runtime import pick_dtype
from hmcli.stages.latents.view import LatentClip, LatentsView, open_latents
from hmcli.stages.memory.describe import describe_slots
from hmcli.stages.memory.kept import MemoryView, anchor_of, compute_memory, write_block
from hmcli.stages.memory.layout import (
    ANCHOR,
    CAMERA,
    FRAME_CAMERA,
    KEPT,
    KIND,
    LAYOUT,
    SPAN,
    TIME,
    ClipAbout,
    ClipKey,
    Computed,
    KeptAbout,
    MemoryAttributes,
    block_group,
    write_group,
)
from hmcli.stages.memory.policy_inputs import GEOMETRY, chooses_by_chance, recorded_model, retrieval_inputs
from hmcli.stages.models.folders import ModelFolder, check_kernel_fits, check_memory_fits, find_model
from hmcli.stages.shared.chance import clip_seed
from hmcli.stages.shared.each import asked_for, each, move_into
from hmcli.stages.shared.makers import Unit
from hmcli.stages.shared.outcome import planned, require_some, result_of, stay_unread
from hmcli.stages.shared.shards import Parts, Shard, share
from hmcli.stages.shared.typed import key_of, to_json
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.hashing import hash_json

if TYPE_CHECKING:
    from hmcli.core.memory import BlockMemory
    from hmcli.core.transformer import HydraTransformer3DModel


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything one `hm tokenize-memory` works with; makes clips (hmcli.stages.shared.makers.Maker)."""

    recipe: Recipe
    view: LatentsView
    model: ModelFolder | None
    after: MemoryView | None
    device: str
    reporter: Reporter
    imports: tuple[str, ...] = ("hmcli.core.transformer",)

    def reporting_to(self, reporter: Reporter) -> Job:
        return replace(self, reporter=reporter)

    @property
    def config(self) -> MemoryConfig:
        """What slots are described by: the model's own settings, where there is one, but what its cameras see."""
        asked = self.recipe.model.memory
        if self.model is None:
            return asked
        made = recorded_model(self.model.manifest.recipe).memory
        return replace(made, **{name: getattr(asked, name) for name in GEOMETRY})

    @cached_property
    def network(self) -> HydraTransformer3DModel:
        assert self.model is not None
        network = self.model.load(pick_dtype(self.recipe.sample.dtype), self.device)
        self.reporter.note(network.set_attention(self.recipe.sample.attention))
        return network

    @property
    def under(self) -> str:
        """All that the memory of every clip depends on alike."""
        return hash_json([self.reads(), None if self.model is None else self.model.fingerprint])

    def key(self, clip: str) -> str:
        """The content key of a clip's memory."""
        slots, latents = self.reads()["memory"], self.view.latents_hash(clip)
        return key_of(ClipKey(layout=LAYOUT, latents=latents, slots=slots, computed=self._computed(clip)))

    def _computed(self, clip: str) -> Computed | None:
        if self.model is None:
            return None
        before = "" if self.after is None or clip not in self.after.manifest.items else self.after.item(clip).hash
        sample, seed = self.recipe.sample, self.recipe.seed if chooses_by_chance(self.config) else None
        return Computed(
            model=self.model.fingerprint, dtype=sample.dtype, attention=sample.attention, seed=seed, before=before
        )

    def reads(self) -> dict[str, Any]:
        """What of the recipe is read, and the layout that is written."""
        described = replace(self.recipe, model=replace(self.recipe.model, memory=self.config))
        memory = reads(described, "slots")["model"]["memory"]
        read = {} if self.model is None else reads(self.recipe, "memory")
        return {**{name: read[name] for name in ("seed", "sample") if read}, "memory": memory, "layout": LAYOUT}

    def load(self) -> None:
        _ = self.model and self.network

    def make(self, unit: Unit, place: Path) -> ClipAbout:
        """Fill a clip's group at `place`; returns what it takes to read it again."""
        place.mkdir()
        return _write_clip(place, self, self.view.clip(unit.id))


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
    after: Path | None = None,
    prune: bool = False,
    processes: int = 1,
    dry_run: bool = False,
    shard: Shard | None = None,
) -> StageResult:
    """Describe, and with `model` compute, the memory of the clips; see `hm tokenize-memory --help`."""
    view = open_latents(latents)
    ids = view.ids(clips)
    folder = None if model is None else find_model(model)
    if folder is not None:
        _check_model(folder, recipe.model)
    job = Job(
        recipe=recipe, view=view, model=folder, after=_open_after(after, folder, out), device=device, reporter=reporter
    )
    view.say_left_out(reporter)
    own = share(shard, ids)
    units = [Unit(id=clip, items={clip: job.key(clip)}) for clip in own.clips]
    unread = () if clips else view.left_out
    asked = asked_for(units, unread=frozenset(left.item for left in unread), seeded=folder is not None)
    if dry_run:
        plan = f"{len(units)} clips of {latents}{'' if folder is None else f' with {folder.path}'}"
        return planned(
            out, KIND, plan, reporter, look=asked, seed=recipe.seed, force=force, prune=prune,
            counts={"clips": len(units)}, part=own.part,
        )  # fmt: skip
    inputs = {"latents": view.fingerprint} | ({} if folder is None else {"model": folder.fingerprint})
    inputs |= {} if job.after is None else {"after": job.after.manifest.fingerprint}
    with ArtifactWriter(
        out, KIND, recipe=job.reads(), inputs=inputs, seed=recipe.seed, reporter=reporter, force=force, prune=prune,
        under=job.under, part=own.part,
    ) as writer:  # fmt: skip
        writer.ask(asked)
        done = _write_clips(writer, job, units, processes)
        done = stay_unread(writer, [left for left in unread if left.item in writer.items], done)
        require_some(done, writer.quarantined, latents, own.part)
        attributes = MemoryAttributes(latents=str(latents.absolute()))
        return _finish(writer, done, to_json(attributes))


def join(writer: ArtifactWriter, parts: Parts) -> StageResult:
    """Complete the memory that was made in parts, and is in the writer."""
    return _finish(writer, parts.items, parts.attributes)


def _finish(writer: ArtifactWriter, done: list[str], attributes: dict[str, Any]) -> StageResult:
    files = [] if writer.unchanged(done) else _root(writer)
    manifest = writer.finish(done, counts={"clips": len(done)}, attributes=attributes, files=files)
    return result_of(writer, manifest)


def _open_after(after: Path | None, folder: ModelFolder | None, out: Path) -> MemoryView | None:
    if after is None:
        return None
    if folder is None:
        raise UsageError(
            "--after has no effect without --model: a description of slots follows nothing",
            where={"after": after}, fix="give the --model that made that memory, or leave --after out",
        )  # fmt: skip
    if after.resolve() == out.resolve():
        raise UsageError("--after and --out are one artifact", where={"both": out}, fix="choose another --out")
    return MemoryView(after, folder)


def _check_model(folder: ModelFolder, config: ModelConfig) -> None:
    """Only frozen models keep memory; the slots described are the model's own."""
    made = recorded_model(folder.manifest.recipe)
    if made.memory.context != "frozen":
        raise UsageError(
            "a joint model keeps no memory: its context sees the target and is computed anew at every step",
            where={"model": folder.path},
            fix="generate with it from latents, or train a model with model.memory.context=frozen",
        )
    names = ("policy", "context", "kernel", "spans", "window", "top_k")
    compared = {f"memory.{name}": (getattr(made.memory, name), getattr(config.memory, name)) for name in names}
    for key, (in_model, in_recipe) in (compared | {"positions": (made.positions, config.positions)}).items():
        if in_model != in_recipe:
            raise UsageError(
                f"model.{key} is {in_model} in the model, {in_recipe} in the recipe",
                where={"model": folder.path}, fix="leave --recipe out: the model's own recipe is used then",
            )  # fmt: skip


def _write_clips(writer: ArtifactWriter, job: Job, units: list[Unit], processes: int) -> list[str]:
    """Write the group of every clip that is not there yet; one block of one clip is in memory at a time."""
    from hmcli.store.arrays import ROOT

    def keep(unit: Unit, about: ClipAbout, made: Path) -> None:
        with writer.item_folder(unit.id, unit.items[unit.id], parent=ROOT, meta=to_json(about)) as folder:
            move_into(folder, made)

    return each(writer, units, job, keep, label="tokenizing memory", processes=processes)


def _write_clip(place: Path, job: Job, clip: LatentClip) -> ClipAbout:
    """Fill a clip's folder; returns what it takes to read it. DataError for a clip that cannot be used."""
    arrays, counts = describe_slots(clip, job.view, job.config, job.reporter)
    write_group(place, arrays, attributes={"clip": clip.id})
    size, memory = job.view.latent_size, None
    if job.model is None:
        check_kernel_fits(job.config.kernel, clip.id, size)
    else:
        check_memory_fits(job.network.config, clip.id, context=clip.context, target=clip.target, size=size)
        memory = _write_memory(place, job, clip)
    return ClipAbout(
        layout=LAYOUT, latents=job.view.latents_hash(clip.id), described=tuple(arrays), memory=memory, **counts
    )


def _root(writer: ArtifactWriter) -> list[str]:
    """Make data.zarr a group that lists the clips' groups."""
    from hmcli.store.arrays import ROOT, make_group

    make_group(writer.path / ROOT)
    return [f"{ROOT}/zarr.json"]


# --- keys and values -------------------------------------------------------------------------------------------------


def _write_memory(place: Path, job: Job, clip: LatentClip) -> KeptAbout:
    """Run the model over the clip's context, each block's memory going to disk as soon as it has run.

    Returns what it takes to read it again.
    """
    import torch

    from hmcli.core.memory import Held

    anchor, first_frame, after = _beginning(job, clip)
    inputs = retrieval_inputs(
        [clip], job.view, job.config, seed=clip_seed(job.recipe.seed, f"{clip.id} retrieval"), device=job.device,
        positions=job.network.config.positions,
    )  # fmt: skip
    gone = Held(keys_BNQC=torch.empty(1, 0, 0, 0), values_BNQC=torch.empty(1, 0, 0, 0))

    def put_away(number: int, kept: BlockMemory) -> BlockMemory:
        write_block(place / block_group(number), kept)
        return type(kept)(slots=gone, descriptors_BMC=kept.descriptors_BMC, tail=gone)

    memory = compute_memory(job.network, clip, anchor, inputs, job.device, put_away).starting_at(first_frame)
    shared = {
        SPAN: memory.span_M2, TIME: memory.time_M, CAMERA: memory.camera_BMR[0],
        FRAME_CAMERA: memory.frame_camera_BAR[0],
    }  # fmt: skip
    write_group(place / KEPT, {name: values.cpu().numpy() for name, values in shared.items()} | {ANCHOR: anchor})
    return KeptAbout(
        blocks=len(memory.blocks), grid=memory.grid, slot_grid=memory.slot_grid, frames=memory.num_context_frames,
        first_frame=first_frame, after=after, dtype=str(job.network.dtype).removeprefix("torch."),
    )  # fmt: skip


def _beginning(job: Job, clip: LatentClip) -> tuple[np.ndarray, int, str | None]:
    """Anchor pose, number of the first frame, and hash of the memory that the clip's memory follows (None: nothing)."""
    if job.after is None:
        return anchor_of(clip), 0, None
    before = job.after.item(clip.id)
    _, rows, columns = job.network.config.patch_size
    grid = (clip.latents.shape[2] // rows, clip.latents.shape[3] // columns)
    if grid != before.kept.grid:
        raise DataError(
            f"this clip has {list(grid)} tokens a frame, the memory it is to follow {list(before.kept.grid)}",
            where={"after": job.after.path, "clip": clip.id}, fix="encode both at one size",
        )  # fmt: skip
    return job.after.anchor(clip.id), before.kept.first_frame + before.kept.frames, before.hash
