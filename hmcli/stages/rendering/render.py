"""`hm render`: clips from a seed, in HM-World's released layout with more annotations.

Every finished clip lies on disk at once, and depends on the recipe and its own number only: a killed render goes on
with the next clip, more clips can be added later, and any number of processes gives the same data set. What is in it:
docs/artifacts.md; what its clips promise: docs/world.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hmcli.contracts import Reporter, StageResult
from hmcli.recipe.readers import reads
from hmcli.recipe.sections import Recipe, WorldConfig
from hmcli.stages.bench.definition import Chosen, chosen_clips
from hmcli.stages.rendering.clips import Drawer, drawn_at_once
from hmcli.stages.shared.captioner import check_captioner
from hmcli.stages.shared.each import each, move_into
from hmcli.stages.shared.makers import Unit
from hmcli.stages.shared.outcome import planned, require_some, result_of
from hmcli.stages.shared.shards import Parts, Shard, share
from hmcli.stages.shared.typed import from_json, to_json
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.asked import Asked
from hmcli.store.files import write_json_lines, write_text
from hmcli.store.hashing import HashCache, hash_json, hash_tree
from hmcli.store.video import read_video
from hmcli.world.files.captions import caption_lines
from hmcli.world.files.layout import CAPTION_NAME, DEPTH, PLAIN_CAPTION_NAME, RENDERED_INDEX, video_file
from hmcli.world.files.tables import DATASET, DatasetAttributes, FrameCounts, RenderedRow, SplitAttributes
from hmcli.world.scenes import SCENES
from hmcli.world.staging.choices import choices
from hmcli.world.staging.clip import TRIES, clip_id, describe_clip
from hmcli.world.staging.splits import on_side
from hmcli.world.subjects import SUBJECTS

PICTURES = 5  # raise when the same clip would look or move differently: older clips are then redone

Captioner = Callable[[Any], str]  # (T, H, W, 3) uint8 frames of the context -> caption


def run(
    recipe: Recipe, *, out: Path, force: bool = False, prune: bool = False, device: str = "cpu", processes: int = 1,
    reporter: Reporter, dry_run: bool = False, shard: Shard | None = None,
) -> StageResult:  # fmt: skip
    """Render `world.clips` clips; see `hm render --help`."""
    world = recipe.world
    chosen = chosen_clips(recipe)
    if world.benchmark and chosen is None:
        reporter.note(f"{world.benchmark} is a draft: clips of its seed are drawn, and they may still change")
    order = [clip_id(recipe.seed, index) for index in range(world.clips)]
    own = share(shard, order)
    keys = {clip: key for clip, key in clip_keys(recipe, chosen).items() if clip in own.clips}
    if dry_run:
        if chosen is None:
            describe_clip(world, recipe.seed, 0)  # says now what cannot work
        if world.captioner:
            check_captioner(Path(world.captioner))
        frames = f"{world.context_frames}+{world.target_frames} frames at {world.size[0]}x{world.size[1]}"
        plan = f"{len(keys)} clips of {frames}"
        return planned(
            out, DATASET, plan, reporter, look=Asked(keys=keys), seed=recipe.seed, force=force, prune=prune,
            counts={"clips": len(keys)}, part=own.part,
        )  # fmt: skip
    choices(world)
    with ArtifactWriter(
        out, DATASET, recipe=reads(recipe, "render"), inputs={}, seed=recipe.seed, force=force, prune=prune,
        reporter=reporter, part=own.part,
    ) as writer:  # fmt: skip
        writer.ask(Asked(keys=keys))
        caption = _captioner(world, device)
        drawer = Drawer(
            world=world, seed=recipe.seed, device=device, chosen=chosen, numbers={c: i for i, c in enumerate(order)}
        )

        def keep(unit: Unit, rows: dict[str, RenderedRow], drawn: Path) -> None:
            for clip, row in rows.items():
                if row.further_seeds:
                    reporter.note(f"{clip}: drawn on with a further seed after {TRIES} draws")
                if caption is not None:
                    row = replace(row, caption=caption(read_video(drawn / clip / video_file("context"))))
                with writer.item_folder(clip, unit.items[clip], meta=to_json(row)) as folder:
                    move_into(folder, drawn / clip)

        units = [
            Unit(id=clips[0], items={clip: keys[clip] for clip in clips}, clips=len(clips))
            for clips in drawn_at_once(own.clips, world, device)
        ]
        there = set(each(writer, units, drawer, keep, label="rendering", processes=processes))
        done = [clip for unit in units if unit.id in there for clip in unit.items]
        require_some(done, writer.quarantined, out, own.part)
        return _finish(writer, done, to_json(_attributes(world)))


def join(writer: ArtifactWriter, parts: Parts) -> StageResult:
    """Complete the data set whose clips were rendered in parts, and are in the writer."""
    return _finish(writer, parts.items, parts.attributes)


def clip_keys(recipe: Recipe, chosen: Sequence[Chosen] | None) -> dict[str, str]:
    """By clip, a hash of all that it depends on: not how many there are, but what a benchmark chose for it."""
    world = reads(recipe, "render")
    del world["world"]["clips"]
    model = hash_tree(Path(recipe.world.captioner), cache=HashCache()) if recipe.world.captioner else {}
    shared = [PICTURES, world, model]
    return {
        clip_id(recipe.seed, i): hash_json(shared if chosen is None else [*shared, asdict(chosen[i])])
        for i in range(recipe.world.clips)
    }


def _captioner(world: WorldConfig, device: str) -> Captioner | None:
    """The model that describes the context frames, where the recipe names one."""
    if not world.captioner:
        return None
    from hmcli.stages.shared.captioner import load_captioner  # transformers loads here

    return load_captioner(Path(world.captioner), device)


def _finish(writer: ArtifactWriter, done: list[str], attributes: dict[str, Any]) -> StageResult:
    if not writer.unchanged(done):
        _write_tables(writer, done)
    return result_of(writer, writer.finish(done, counts={"clips": len(done)}, attributes=attributes))


def _write_tables(writer: ArtifactWriter, done: Sequence[str]) -> None:
    items = writer.items
    rows = [from_json(RenderedRow, items[clip]["meta"], "a clip's record", out=writer.path, clip=clip) for clip in done]
    write_json_lines(writer.staged / RENDERED_INDEX, map(to_json, rows))
    write_text(writer.staged / CAPTION_NAME, caption_lines((row.id, row.caption) for row in rows))
    write_text(writer.staged / PLAIN_CAPTION_NAME, caption_lines((row.id, row.caption_plain) for row in rows))


def _attributes(world: WorldConfig) -> DatasetAttributes:
    may = choices(world)
    return DatasetAttributes(
        fps=world.fps,
        size=world.size,
        frames=FrameCounts(context=world.context_frames, target=world.target_frames),
        depth=f"{DEPTH}: float16 metres along the camera's forward axis, infinite for the sky",
        split=SplitAttributes(
            name=world.split,
            hold_out=world.hold_out,
            scenes=tuple(may.scenes),
            subjects=tuple(may.subjects),
            held_out_scenes=tuple(on_side(SCENES, "test")),
            held_out_subjects=tuple(on_side(SUBJECTS, "test")),
        ),
    )
