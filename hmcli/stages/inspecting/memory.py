"""`hm inspect MODEL --latents ...`: what memory did each query frame read, by layer and denoising step?

Runs the sampler as `hm generate` does, with the same noise, and listens. Per clip: pictures, every reading, and numbers
for the model's own choice beside a random one and an oracle's on the same queries and keys (docs/inspecting.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hmcli.aligned import tensor_of
from hmcli.contracts import Reporter, StageResult
from hmcli.errors import DataError, UsageError
from hmcli.recipe.sections import Recipe
from hmcli.reports.contact_sheet import save_png
from hmcli.reports.tables import markdown_table
from hmcli.stages.inspecting.layout import (
    CLIPS,
    FORMAT,
    KIND,
    LAYERS,
    MEASURES,
    NUMBERS,
    READINGS,
    TABLE,
    ClipNumbers,
    LayerRow,
    Mean,
    Measure,
    Numbers,
    Readings,
)
from hmcli.stages.inspecting.pictures import Look, draw
from hmcli.stages.latents.layout import VISIBILITY
from hmcli.stages.latents.pixels import decode_video
from hmcli.stages.memory.policy_inputs import needs_of_policy
from hmcli.stages.models.folders import ModelFolder, check_memory_fits, find_model
from hmcli.stages.sampling.job import Job, generate_latents, inputs_read, open_job, sorted_memory
from hmcli.stages.shared.chance import clip_seed
from hmcli.stages.shared.each import asked_for, each, move_into
from hmcli.stages.shared.makers import Unit
from hmcli.stages.shared.outcome import planned, require_some, result_of, stay_unread
from hmcli.stages.shared.shards import Parts, Shard, share
from hmcli.stages.shared.typed import from_json, to_json
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.files import read_json, write_csv, write_json, write_text
from hmcli.store.hashing import hash_json

if TYPE_CHECKING:
    import torch

    from hmcli.core.inspection import Recorded

DRAWS = 8  # random choices that attention mass is averaged over


def run(
    recipe: Recipe,
    *,
    model: Path,
    latents: Path,
    memory: tuple[Path, ...],
    clips: tuple[str, ...],
    out: Path,
    force: bool,
    device: str,
    reporter: Reporter,
    prune: bool = False,
    processes: int = 1,
    dry_run: bool = False,
    shard: Shard | None = None,
) -> StageResult:
    """Look into the memory of a model on clips; see `hm inspect --help`."""
    folder = find_model(model)
    refuse_without_slots(folder)
    if recipe.sample.memory == "off":
        raise UsageError("memory is turned off: there is none to look into", fix="set sample.memory=on")
    kept, descriptions = sorted_memory(memory, folder)
    job, ids = open_job(recipe, folder, latents, kept, descriptions, clips, device, reporter)
    own = share(shard, ids)
    units = [Unit(id=clip, items={clip: look_key(job, clip)}) for clip in own.clips]
    unread = () if clips else job.view.left_out
    asked = asked_for(units, unread=frozenset(left.item for left in unread))
    if dry_run:
        plan = f"{len(units)} clips, {recipe.sample.steps} steps each on {device}"
        return planned(
            out, KIND, plan, reporter, look=asked, seed=recipe.seed, force=force, prune=prune,
            counts={"clips": len(units)}, part=own.part,
        )  # fmt: skip
    with ArtifactWriter(
        out, KIND, recipe=job.reads(), inputs=inputs_read(job, descriptions), seed=recipe.seed, reporter=reporter,
        force=force, prune=prune, under=hash_json([FORMAT, job.under]), part=own.part,
    ) as writer:  # fmt: skip
        writer.ask(asked)
        done = _inspect_clips(writer, job, units, processes)
        done = stay_unread(writer, [left for left in unread if left.item in writer.items], done)
        require_some(done, writer.quarantined, latents, own.part)
        return _finish(writer, done, reporter)


def join(writer: ArtifactWriter, parts: Parts) -> StageResult:
    """Complete the inspection whose clips were looked at in parts, and are in the writer."""
    return _finish(writer, parts.items, writer.reporter)


def refuse_without_slots(folder: ModelFolder) -> None:
    """Raise UsageError for a model whose policy reads frames alone."""
    from hmcli.core.retrieval import SLOTS

    policy = folder.manifest.recipe["model"]["memory"]["policy"]
    if SLOTS not in needs_of_policy(policy):
        raise UsageError(
            f"this model's memory policy is {policy!r}: it reads frames and has no memory slots to look into",
            where={"model": folder.path}, fix="inspect a model whose policy chooses slots, such as affinity",
        )  # fmt: skip


# --- clips -----------------------------------------------------------------------------------------------------------


def look_key(job: Job, clip: str) -> str:
    """The content key of what is seen of a clip: sampling it is what is looked at."""
    return hash_json([FORMAT, job.key(clip)])


def _inspect_clips(writer: ArtifactWriter, job: Job, units: list[Unit], processes: int) -> list[str]:
    """Look at what is not there yet; returns the ids of all that are."""

    def keep(unit: Unit, _: None, made: Path) -> None:
        with writer.item_folder(unit.id, unit.items[unit.id], parent=CLIPS) as folder:
            move_into(folder, made)

    return each(writer, units, Inspector(job), keep, label="inspecting", processes=processes)


@dataclass(frozen=True)
class Inspector:
    """Looks at clips by their ids (hmcli.stages.shared.makers.Maker), each a folder at `place`."""

    job: Job
    imports: tuple[str, ...] = ("hmcli.core.transformer", "hmcli.codecs.video")

    def reporting_to(self, reporter: Reporter) -> Inspector:
        return replace(self, job=replace(self.job, reporter=reporter))

    def load(self) -> None:
        _ = self.job.network, self.job.codec

    def make(self, unit: Unit, place: Path) -> None:
        look = look_at(self.job, unit.id)
        place.mkdir()
        _write_clip(place, look)


def look_at(job: Job, clip_id: str) -> Look:
    """Sample a clip while listening; measure; decode what the pictures show."""
    from hmcli.core.inspection import recorded

    clip = job.view.clip(clip_id)
    size = job.view.latent_size
    check_memory_fits(job.network.config, clip_id, context=clip.context, target=clip.target, size=size)
    choosers = _Choosers(seen=_seen(job, clip_id), context=clip.context, seed=clip_seed(job.recipe.seed, clip_id))
    with recorded(choosers) as heard:
        latents = generate_latents(job, clip)
    readings = [reading for reading in heard if reading.step >= 0 and reading.slots_BFK is not None]
    if not readings:
        raise DataError("no block read a memory slot", where={"clip": clip_id})
    truth = decode_video(clip.latents[:, clip.context :], job.codec, job.device) if clip.has_target else None
    return Look(
        clip=clip, seen=choosers.seen_until(readings[0]), readings=readings, rows=_measured(readings, choosers),
        relevant=None if choosers.seen is None else choosers.relevant(readings[0]).numpy(),
        context_video=decode_video(clip.context_latents, job.codec, job.device),
        target_video=decode_video(latents, job.codec, job.device), truth_video=truth,
    )  # fmt: skip


def _seen(job: Job, clip: str) -> torch.Tensor | None:
    """In which latent frames each subject is seen, (A, S) bool; None where masks do not cover context and target."""
    visibility, group = job.view.subjects(clip).get(VISIBILITY), job.view.where[clip][0]
    if visibility is None or len(visibility) != group.shape.context + group.shape.target:
        return None
    return tensor_of(visibility > 0)


@dataclass(kw_only=True)
class _Choosers:
    """Who would have chosen what; the random choices depend on clip, step and layer alone."""

    seen: torch.Tensor | None  # in the clip's own frames
    context: int  # latent frames of the clip itself
    seed: int

    def __call__(self, reading: Recorded) -> Mapping[str, torch.Tensor]:
        import torch

        from hmcli.core.inspection import MODEL, ORACLE, RANDOM, random_choice

        if reading.step < 0 or reading.slots_BFK is None or reading.near_FM is None:
            return {}
        words = np.random.SeedSequence([self.seed, reading.step, reading.block]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
        drawn = [random_choice(reading.near_FM, reading.top_k, generator) for _ in range(DRAWS)]
        choices = {MODEL: reading.slots_BFK[None], RANDOM: torch.stack(drawn)[:, None]}
        if self.seen is not None:
            choices[ORACLE] = self.oracle(reading)[None, None]
        return choices

    def oracle(self, reading: Recorded) -> torch.Tensor:
        from hmcli.core.inspection import oracle_choice

        assert reading.near_FM is not None
        scores = None if reading.scores_BFM is None else reading.scores_BFM[0]
        return oracle_choice(self.relevant(reading), reading.near_FM, reading.top_k, scores)

    def relevant(self, reading: Recorded) -> torch.Tensor:
        from hmcli.core.inspection import relevant_slots

        seen = self.seen_until(reading)
        assert seen is not None
        return relevant_slots(seen, reading)

    def seen_until(self, reading: Recorded) -> torch.Tensor | None:
        """`seen` in all frames of the reading; in history from before the clip no subject of it is known to be seen."""
        import torch

        earlier = reading.num_context - self.context
        return None if self.seen is None else torch.nn.functional.pad(self.seen, (0, 0, earlier, 0))


# --- numbers ---------------------------------------------------------------------------------------------------------


def _measured(readings: Sequence[Recorded], choosers: _Choosers) -> list[LayerRow]:
    """One row per reading and chooser; what is not known is NaN."""
    from hmcli.core.inspection import (
        MODEL,
        ORACLE,
        RANDOM,
        expected_random_hits,
        hits,
        recall_and_precision,
    )

    rows = []
    for reading in readings:
        assert reading.near_FM is not None
        assert reading.slots_BFK is not None
        start = max(0, reading.num_context - reading.first_frame)  # of the target among the query frames
        found: dict[str, tuple[float, float]] = {}
        counted = 0
        if choosers.seen is not None:
            relevant, near, top_k = choosers.relevant(reading), reading.near_FM, reading.top_k
            counted = int(relevant.any(dim=1).sum())
            for name, hit in (
                (MODEL, hits(reading.slots_BFK[0], relevant)),
                (RANDOM, expected_random_hits(relevant, near, top_k)),
                (ORACLE, hits(choosers.oracle(reading), relevant)),
            ):
                found[name] = recall_and_precision(hit, relevant, top_k)
        for name, mass_BF in reading.mass_BF.items():
            recall, precision = found.get(name, (float("nan"), float("nan")))
            mass = float(mass_BF[0, start:].double().mean())
            rows.append(
                LayerRow(
                    branch=reading.branch, step=reading.step, layer=reading.block, choice=name,
                    recall=recall, precision=precision, mass=mass,
                    query_frames=len(reading.near_FM) - start, counted_frames=counted,
                )
            )  # fmt: skip
    return rows


def summary(rows: Sequence[LayerRow]) -> dict[Measure, dict[str, float | None]]:
    """Means over layers and steps of the caption branch: measure -> who chooses -> value (None where not known)."""
    from hmcli.core.inspection import CAPTION

    found: dict[Measure, dict[str, list[float]]] = {measure: {} for measure in MEASURES}
    for measure in MEASURES:
        for row in rows:
            if row.branch == CAPTION:
                found[measure].setdefault(row.choice, []).append(row.measure(measure))
    return {m: {who: _known(float(np.mean(v))) for who, v in of.items()} for m, of in found.items()}


# --- the artifact ----------------------------------------------------------------------------------------------------


def _write_clip(folder: Path, look: Look) -> None:
    """Pictures, readings, the table of layers and the numbers of one clip."""
    for name, pixels in draw(look).items():
        save_png(pixels, folder / name)
    np.savez_compressed(folder / READINGS, allow_pickle=False, **_readings(look).arrays())
    table = [{**asdict(row), **{k: "" for k in MEASURES if _known(row.measure(k)) is None}} for row in look.rows]
    write_csv(folder / LAYERS, [field.name for field in fields(LayerRow)], table)
    found = summary(look.rows)
    numbers = ClipNumbers(
        format=FORMAT, clip=look.clip.id, context_frames=look.clip.context, target_frames=look.clip.target,
        slots=look.slots, top_k=look.readings[0].top_k, query_frames=look.rows[0].query_frames,
        counted_frames=look.rows[0].counted_frames, subjects_known=look.seen is not None,
        recall=found["recall"], precision=found["precision"], mass=found["mass"],
    )  # fmt: skip
    write_json(folder / NUMBERS, to_json(numbers))


def _readings(look: Look) -> Readings:
    """Every reading of the clip."""
    readings, first = look.readings, look.readings[0]
    scores = [None if reading.scores_BFM is None else reading.scores_BFM[0].float().numpy() for reading in readings]
    known = [of for of in scores if of is not None]
    return Readings(
        branch=np.array([reading.branch for reading in readings]),
        step=np.array([reading.step for reading in readings]),
        layer=np.array([reading.block for reading in readings]),
        slots=np.stack([reading.slots_BFK[0].numpy() for reading in readings]),  # type: ignore[index]
        span=look.spans, inside_window=look.near, query_frame=look.first_frame + np.arange(len(look.near)),
        scores=np.stack(known) if len(known) == len(scores) else None,
        masses={who: np.stack([reading.mass_BF[who][0].numpy() for reading in readings]) for who in first.mass_BF},
        relevant=look.relevant,
    )  # fmt: skip


def _finish(writer: ArtifactWriter, done: list[str], reporter: Reporter) -> StageResult:
    clips = {clip: _read_numbers(writer.place(clip) / NUMBERS) for clip in done}
    mean = _mean_of(list(clips.values()))
    numbers = to_json(Numbers(format=FORMAT, clips=clips, mean=mean))
    if not writer.unchanged(done):
        write_json(writer.staged / NUMBERS, numbers)
        write_text(writer.staged / TABLE, _table(mean))
    manifest = writer.finish(done, counts={"clips": len(done)}, attributes={})
    for measure, of in mean.items():
        reporter.note(f"{measure}: " + ", ".join(f"{who} {_text(entry.mean)}" for who, entry in of.items()))
    if not any(entry.clips for entry in mean["recall"].values()):
        reporter.note("no recall: in no target frame is a subject back that was hidden, or the clips have no masks")
    return result_of(writer, manifest, mean=numbers["mean"])


def _read_numbers(file: Path) -> ClipNumbers:
    return from_json(ClipNumbers, read_json(file), "what was seen of a clip", file=file)


def _mean_of(clips: Sequence[ClipNumbers]) -> dict[Measure, dict[str, Mean]]:
    """Means over the clips that have a value, and how many those are."""
    from hmcli.core.inspection import MODEL, ORACLE, RANDOM

    mean: dict[Measure, dict[str, Mean]] = {measure: {} for measure in MEASURES}
    for measure in MEASURES:
        for who in (MODEL, RANDOM, ORACLE):
            values = [value for clip in clips if (value := clip.measure(measure).get(who)) is not None]
            mean[measure][who] = Mean(mean=float(np.mean(values)) if values else None, clips=len(values))
    return mean


def _table(mean: Mapping[Measure, Mapping[str, Mean]]) -> str:
    choosers = list(next(iter(mean.values())))
    rows = [[measure, *(_text(of[who].mean) for who in choosers)] for measure, of in mean.items()]
    return markdown_table(["", *choosers], rows)


def _known(value: float) -> float | None:
    """JSON has no NaN: what is not known is null."""
    return float(value) if np.isfinite(value) else None


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
