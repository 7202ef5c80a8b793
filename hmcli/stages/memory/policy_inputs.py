"""What memory policies need beyond queries and slots, from the data of a stage: cameras' lenses, visibility, chance.

Only what the policy of a model needs is read. Used alike in training, in sampling and where memory is made. What slots
show and how cameras overlap is computed from the latents, or taken from a memory artifact made of them without a model.
Shapes: B samples, A all latent frames of a clip, M its memory slots, S subjects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmcli import registry
from hmcli.aligned import tensor_of
from hmcli.contracts import Reporter
from hmcli.errors import DataError, UsageError
from hmcli.recipe.sections import MemoryConfig, ModelConfig
from hmcli.stages.latents.layout import VISIBILITY
from hmcli.stages.latents.view import LatentClip, LatentsView
from hmcli.stages.memory.describe import clip_spans, lens_of, shown_subjects
from hmcli.stages.memory.layout import KIND, SlotDescription, description_of, item_of
from hmcli.store.manifest import read_manifest

if TYPE_CHECKING:
    from hmcli.core.retrieval import RetrievalInputs

GEOMETRY = ("near", "far", "field_of_view")  # keys of model.memory that say what cameras see
LAYS_OUT = ("kernel", "spans", "context")  # keys of model.memory that say which slots there are
_LENS = frozenset({"intrinsics_B4", "image_size", "near", "far"})  # fields of RetrievalInputs
SHOWS, SLOTS, ALL_FRAMES = "visibility_BM", "slots", "all frames"  # what a policy may use (hmcli.core.retrieval)
_CHANCE = "generator"


def needs_of_policy(name: str) -> frozenset[str]:
    """What the policy of this name uses (hmcli.core.retrieval.needs)."""
    from hmcli.core.retrieval import needs_of

    return needs_of(registry.find("policy", name))


def reads_geometry(config: MemoryConfig, positions: str = "screen") -> bool:
    """Does what this policy reads, or where tokens sit (`model.positions`), depend on what cameras see?"""
    return positions != "screen" or bool(_LENS & needs_of_policy(config.policy))


def chooses_by_chance(config: MemoryConfig) -> bool:
    """Does what this policy reads depend on a seed?"""
    return _CHANCE in needs_of_policy(config.policy)


def retrieval_inputs(
    clips: Sequence[LatentClip],
    view: LatentsView,
    config: MemoryConfig,
    *,
    seed: int,
    device: str,
    described: Mapping[str, SlotDescription] | None = None,
    positions: str = "screen",
    each: bool = False,
) -> RetrievalInputs | None:
    """What the policy of `config` and the model's `positions` need for a batch of clips of one shape; None: nothing.

    `seed` is of the policy's own choices, with `each` every sample's own, so that a batch can be divided. `described`
    brings overlaps and subjects of the clips' slots by clip id; without it they are computed. Raises DataError when the
    latents do not hold what the policy needs.
    """
    import torch

    from hmcli.core.retrieval import RetrievalInputs

    needs, found = needs_of_policy(config.policy), RetrievalInputs()
    if not needs & {*_LENS, SHOWS, _CHANCE} and positions == "screen":
        return None
    if reads_geometry(config, positions):
        lens = lens_of(clips, view, config)
        found = replace(
            found, intrinsics_B4=lens.intrinsics_B4.to(device), image_size=lens.size, near=lens.near, far=lens.far
        )
        if described is not None and needs & _LENS:
            overlaps = [_known(described[clip.id].overlap_AM, clip) for clip in clips]
            found = replace(found, overlap_BAM=tensor_of(np.stack(overlaps)).to(device))
    if SHOWS in needs:
        shows = [shown_slots(clip, view, config, described) for clip in clips]
        found = replace(found, visibility_BM=tensor_of(np.stack(shows)).to(device))
    if _CHANCE in needs:
        chance = [torch.Generator().manual_seed(seed + number) for number in range(len(clips))]
        found = replace(found, generator=chance if each else chance[0])
    return found


def shown_slots(
    clip: LatentClip,
    view: LatentsView,
    config: MemoryConfig,
    described: Mapping[str, SlotDescription] | None = None,
) -> np.ndarray:
    """(M,) uint8: slots of a clip that show any subject which is hidden later. DataError without masks."""
    if described is not None:
        return any_subject(described[clip.id], clip.id, config)
    subjects = view.subjects(clip.id)
    if VISIBILITY not in subjects:
        raise _no_masks(clip.id, config)
    return shown_subjects(subjects[VISIBILITY], clip_spans(clip, config, "exact")[0]).max(axis=1)


def any_subject(described: SlotDescription, clip: str, config: MemoryConfig) -> np.ndarray:
    """(M,) uint8 from a description. DataError when it was made without masks."""
    if described.shows_MS is None:
        raise _no_masks(clip, config)
    return described.shows_MS.max(axis=1)


def _no_masks(clip: str, config: MemoryConfig) -> DataError:
    return DataError(
        f"policy {config.policy} reads slots that show hidden subjects, but the clip has no subject masks",
        where={"clip": clip}, fix="encode clips with masks of context and target, or choose another policy",
    )  # fmt: skip


def _known(overlap: np.ndarray | None, clip: LatentClip) -> np.ndarray:
    if overlap is None:
        raise DataError(
            "the memory artifact knows no field-of-view overlap for this clip", where={"clip": clip.id},
            fix="make it again with model.memory.field_of_view set, or leave --memory out",
        )  # fmt: skip
    return overlap


# --- history, and artifacts made without a model ---------------------------------------------------------------------


def after_history(
    inputs: RetrievalInputs | None, config: MemoryConfig, clip: str, history: Sequence[SlotDescription]
) -> RetrievalInputs | None:
    """The same where the clip's frames and slots follow those of earlier memory."""
    import torch

    if inputs is None or not history:
        return inputs
    if (shows := inputs.visibility_BM) is not None:
        parts = [any_subject(part, clip, config)[: part.context_slots] for part in history]
        before = tensor_of(np.concatenate(parts))[None].to(shows)
        inputs = replace(inputs, visibility_BM=torch.cat([before, shows], dim=1))
    if (overlap := inputs.overlap_BAM) is not None:
        slots, frames = sum(part.context_slots for part in history), sum(part.context for part in history)
        padded = torch.nn.functional.pad(overlap, (slots, 0, frames, 0), value=float("nan"))  # computed by the policy
        inputs = replace(inputs, overlap_BAM=padded)
    return inputs


def open_descriptions(
    path: Path, view: LatentsView, config: MemoryConfig, clips: Sequence[str], reporter: Reporter
) -> dict[str, SlotDescription]:
    """What a memory artifact made without a model says of these clips, for a policy that asks for it.

    Raises UsageError when the policy uses none of it or the artifact describes other slots, DataError when it was made
    from other latents.
    """
    from hmcli.core.retrieval import SLOTS

    manifest = read_manifest(path, kinds=(KIND,))
    needs = needs_of_policy(config.policy)
    if SLOTS not in needs or not needs & {*_LENS, SHOWS}:
        raise UsageError(
            f"--memory has no effect: policy {config.policy} asks neither which slots cameras saw nor what they show",
            where={"memory": path}, fix="leave --memory out; policies fov and oracle use it",
        )  # fmt: skip
    compared = (*LAYS_OUT, *(GEOMETRY if reads_geometry(config) else ()))
    for name, found in ((name, manifest.recipe["memory"][name]) for name in compared):
        wanted = getattr(config, name)
        if found != (list(wanted) if isinstance(wanted, tuple) else wanted):
            raise UsageError(
                f"the memory artifact describes slots with model.memory.{name}={found}, the model has {wanted}",
                where={"memory": path}, fix="make it with the same recipe: hm tokenize-memory LATENTS --recipe RECIPE",
            )  # fmt: skip
    described = {}
    for clip in clips:
        item = item_of(path, manifest, clip)
        if item.about.latents != view.latents_hash(clip):
            raise DataError(
                "the memory artifact describes other latents of this clip",
                where={"memory": path, "latents": view.path, "clip": clip},
                fix=f"make it again: hm tokenize-memory {view.path}",
            )
        described[clip] = description_of(item)
    reporter.note(f"overlaps and subjects of {len(described)} clips come from {path}")
    return described


def holds_model(path: Path) -> bool:
    """Does this memory artifact hold keys and values of a model?"""
    return "model" in read_manifest(path, kinds=(KIND,)).inputs


def recorded_model(values: Mapping[str, Any]) -> ModelConfig:
    """The section a model was made with, from the recipe in its manifest."""
    from hmcli.recipe.reading import from_dict

    return from_dict({"model": values["model"]}).model
