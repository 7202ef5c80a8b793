"""`hm render`: clips from a seed, in HM-World's released layout with more annotate.

Every finished clip lies on disk at once, and depends on the recipe and its own number only: a killed render goes on
with the next clip, and more clips can be added later. The layout is described in docs/artifacts.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hmcli.contracts import Reporter, StageResult
from hmcli.recipe import Recipe, WorldConfig, sections
from hmcli.stages.outcome import check_output, result_of
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.files import write_json, write_json_lines, write_text
from hmcli.store.hashing import hash_json
from hmcli.store.video import write_video
from hmcli.world import annotate
from hmcli.world.clip import ClipDescription, clip_id, describe_clip
from hmcli.world.events import Visibility, comes_back, visibility

PICTURES = 1  # raise when the same clip would look or move differently: older clips are then redone


def run(
    recipe: Recipe, *, out: Path, force: bool = False, device: str = "cpu", reporter: Reporter, dry_run: bool = False
) -> StageResult:
    """Render `world.clips` clips; see `hm render --help`."""
    world = recipe.world
    order = [clip_id(recipe.seed, index) for index in range(world.clips)]
    if dry_run:
        check_output(out, "dataset", reporter)
        describe_clip(world, recipe.seed, 0)  # says now what cannot work
        frames = f"{world.context_frames}+{world.target_frames} frames at {world.size[0]}x{world.size[1]}"
        reporter.note(f"{world.clips} clips of {frames} into {out}")
        return StageResult(path=out, kind="dataset", counts={"clips": world.clips}, details={"dry_run": True})
    with ArtifactWriter(
        out, "dataset", recipe=sections(recipe, "seed", "world"), inputs={}, seed=recipe.seed, force=force,
        reporter=reporter,
    ) as writer:  # fmt: skip
        key = clip_key(recipe)
        with reporter.progress("rendering", world.clips, "clip") as advance:
            for index, item in enumerate(order):
                if not writer.kept(item, key):
                    _render(writer, recipe, index, key, device)
                advance(1)
        if not writer.unchanged(order):
            rows = [writer.items[item]["meta"] for item in order]
            write_json_lines(writer.staged / "clips.jsonl", rows)
            write_text(writer.staged / "caption.txt", "".join(f"{row['id']}\t{row['caption']}\n" for row in rows))
        manifest = writer.finish(order, counts={"clips": len(order)}, attributes=_attributes(world))
    return result_of(writer, manifest)


def clip_key(recipe: Recipe) -> str:
    """What a clip depends on besides its number: not how many there are."""
    world = sections(recipe, "seed", "world")
    del world["world"]["clips"]
    return hash_json([PICTURES, world])


def _attributes(world: WorldConfig) -> dict[str, Any]:
    return {
        "fps": world.fps,
        "size": list(world.size),
        "frames": {"context": world.context_frames, "target": world.target_frames},
        "depth": "depth.npz: float16 metres along the camera's forward axis, infinite for the sky",
    }


def _render(writer: ArtifactWriter, recipe: Recipe, index: int, key: str, device: str) -> None:
    """Draw one clip, drawing it anew while its masks show no exit and re-entry, and write its folder."""
    from hmcli.world.render import draw_clip  # torch loads here

    world, draw = recipe.world, 0
    while True:
        clip = describe_clip(world, recipe.seed, index, first_draw=draw)
        pictures = draw_clip(clip, world.size, device, antialias=world.antialias)
        seen = [
            visibility(actor.name, actor.number, pictures.instances, amodal)
            for actor, amodal in zip(clip.actors, pictures.amodal, strict=True)
        ]
        if all(of.seen[0] > 0 and comes_back(of, clip.context_frames) for of in seen):
            break
        draw = clip.draw + 1  # describe_clip ends this with an error after a bounded number of draws
    text = annotate.caption(clip)
    with writer.item_folder(clip.id, key, meta=annotate.index_row(clip, seen, text)) as folder:
        _write_pictures(folder, clip, pictures.rgb, pictures.instances)
        _write_depth(folder, clip, pictures.depth)
        _write_annotations(folder, clip, seen, pictures.instances, world.size)


def _write_pictures(folder: Path, clip: ClipDescription, rgb: np.ndarray, instances: np.ndarray) -> None:
    for prefix, frames in annotate.parts(clip).items():
        write_video(folder / f"{prefix}.mp4", rgb[frames], fps=clip.fps)
        white = np.repeat(np.where(instances[frames] > 0, 255, 0).astype(np.uint8)[..., None], 3, axis=-1)
        write_video(folder / f"{prefix}_mask.mp4", white, fps=clip.fps)
        write_video(folder / f"{prefix}_instances.mp4", instances[frames], fps=clip.fps, quality="lossless")


def _write_depth(folder: Path, clip: ClipDescription, depth: np.ndarray) -> None:
    context, target = (depth[frames].astype(np.float16) for frames in annotate.parts(clip).values())
    np.savez_compressed(folder / "depth.npz", cond=context, tgt=target)


def _write_annotations(
    folder: Path, clip: ClipDescription, seen: list[Visibility], instances: np.ndarray, size: tuple[int, int]
) -> None:
    write_json(folder / "camera.json", annotate.camera(clip))
    write_json(folder / "character.json", annotate.character(clip))
    write_json(folder / "check.json", annotate.check(clip, seen))
    write_json(folder / "intrinsics.json", annotate.intrinsics(clip, size))
    write_json(folder / "events.json", annotate.events(clip, seen))
    write_json(folder / "subjects.json", annotate.subjects(clip, seen, instances))
