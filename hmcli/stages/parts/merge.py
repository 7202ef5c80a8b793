"""`hm merge`: parts that were made with `--shard i/n` become the artifact that one process would have written.

Items are taken as they are: their files are copied, and whole shards of stacked arrays. What belongs to all items
(tables, captions, means, a contact sheet) is written by the stage that wrote the parts (its `join`). The parts are read
only. The rule for finished work holds as everywhere (docs/artifacts.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hmcli.contracts import Quarantined, Reporter, StageResult
from hmcli.errors import DataError, UsageError
from hmcli.stages.latents.layout import is_caption
from hmcli.stages.shared.outcome import planned, require_some
from hmcli.stages.shared.shards import Parts
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.asked import Asked, some
from hmcli.store.manifest import Manifest, made_by, read_manifest
from hmcli.store.parts import hash_clips
from hmcli.store.records import Record

Join = Callable[[ArtifactWriter, Parts], StageResult]


def run(
    paths: Sequence[Path], *, out: Path, reporter: Reporter, force: bool = False, prune: bool = False,
    dry_run: bool = False,
) -> StageResult:  # fmt: skip
    """Join all parts of one whole; see `hm merge --help`.

    Raises UsageError for parts that are not those of one whole, DataError for a part that is unfinished or damaged.
    """
    parts = open_parts(paths)
    if out.resolve() in parts.paths:
        raise UsageError("--out is one of the parts: they are never changed", where={"out": out}, fix="name another")
    first = parts.manifests[0]
    join = _join_of(first.kind)
    lying = _lying(parts, reporter)
    left_out = tuple(Quarantined(**row) for manifest in parts.manifests for row in manifest.quarantined)
    require_some([item for item in lying if not is_caption(item)], left_out, parts.paths[0])
    asked = Asked(
        keys={item: record["key"] for item, (_, record) in lying.items()},
        helps=lambda item: first.kind == "latents" and is_caption(item),
    )
    if dry_run:
        counts = {"parts": len(parts.paths), "items": len(lying)}
        return planned(
            out, first.kind, f"{len(parts.paths)} parts, {len(lying)} items of kind {first.kind}", reporter,
            look=asked, seed=first.seed, force=force, prune=prune, counts=counts, quarantined=left_out,
        )  # fmt: skip
    with ArtifactWriter(
        out, first.kind, recipe=first.recipe, inputs=first.inputs, seed=first.seed, reporter=reporter, force=force,
        prune=prune,
    ) as writer:  # fmt: skip
        writer.ask(asked)
        _take(writer, lying)
        writer.list_left_out(left_out)
        return join(writer, parts)


def _join_of(kind: str) -> Join:
    """How the stage that writes artifacts of a kind completes one from parts."""
    from hmcli.stages.inspecting import memory as inspecting
    from hmcli.stages.latents import encode
    from hmcli.stages.memory import tokenize
    from hmcli.stages.rendering import render
    from hmcli.stages.sampling import generate
    from hmcli.stages.scoring import results

    joins: Mapping[str, Join] = {
        "dataset": render.join, "latents": encode.join, "memory": tokenize.join, "generation": generate.join,
        "evaluation": results.join, "inspection": inspecting.join,
    }  # fmt: skip
    if kind not in joins:
        raise UsageError(f"artifacts of kind {kind!r} have no parts", fix=f"kinds that have: {', '.join(joins)}")
    return joins[kind]


# --- are these the parts of one whole? -------------------------------------------------------------------------------


def open_parts(paths: Sequence[Path]) -> Parts:
    """The parts of one whole, in their order. Raises UsageError when they are not all parts of one."""
    found: dict[int, tuple[Path, Manifest]] = {}
    opened = [(path.resolve(), read_manifest(path)) for path in paths]
    for path, manifest in opened:
        if not manifest.part:
            raise UsageError(
                "it is no part: it was not made with --shard i/n", where={"artifact": path},
                fix="name the artifacts that were, and no other",
            )  # fmt: skip
        _refuse_other(opened[0], (path, manifest))
        if (index := manifest.part["index"]) in found:
            where = {"one": found[index][0], "other": path}
            raise UsageError(f"part {index} is given twice", where=where, fix="leave one of them out")
        found[index] = path, manifest
    of = opened[0][1].part["of"]
    if missing := [str(index) for index in range(of) if index not in found]:
        what = f"{len(missing)} of {of} parts are missing: {some(missing)}"
        raise UsageError(
            what, where={"given": f"{len(found)} parts"}, fix="make them with --shard i/n, and name them too"
        )
    ordered = [found[index] for index in range(of)]
    _refuse_other_program(*ordered[0])
    clips = [clip for _, manifest in ordered for clip in manifest.part["clips"]]
    if hash_clips(clips) != ordered[0][1].part["whole"]:
        raise DataError("the parts do not hold the clips of their whole", where={"first": ordered[0][0]})
    return Parts(paths=tuple(path for path, _ in ordered), manifests=tuple(manifest for _, manifest in ordered))


def _refuse_other(first: tuple[Path, Manifest], other: tuple[Path, Manifest]) -> None:
    """Raise UsageError unless two parts are of one whole, naming all in which they differ."""
    differing = _differing(_of_the_whole(first[1]), _of_the_whole(other[1]))
    if differing:
        raise UsageError(
            f"these are parts of different wholes: {', '.join(differing)} differ",
            where={"one": first[0], "other": other[0], **differing},
            fix="join parts that one command made, but for its --shard i/n and --out",
        )  # fmt: skip


def _of_the_whole(manifest: Manifest) -> dict[str, Any]:
    """What all parts of one whole have in common."""
    return {
        "kind": manifest.kind, "parts": manifest.part["of"], "seed": manifest.seed, "recipe": manifest.recipe,
        "inputs": manifest.inputs, "made_by": manifest.made_by, "clips": manifest.part["whole"],
    }  # fmt: skip


def _refuse_other_program(path: Path, manifest: Manifest) -> None:
    """What belongs to all items is written here, and would be that of other versions."""
    if differing := _differing({"made_by": manifest.made_by}, {"made_by": made_by()}):
        raise UsageError(
            "the parts were made with other versions than those that would join them",
            where={"part": path, **differing}, fix="run hm merge with the hm that made them",
        )  # fmt: skip


def _differing(one: Any, other: Any, name: str = "") -> dict[str, str]:
    """Dotted names of the values that differ, with both."""
    if isinstance(one, dict) and isinstance(other, dict):
        found: dict[str, str] = {}
        for key in [*one, *(key for key in other if key not in one)]:
            found |= _differing(one.get(key), other.get(key), f"{name}.{key}" if name else key)
        return found
    return {} if one == other else {name: f"{one} and {other}"}


# --- items -----------------------------------------------------------------------------------------------------------


def _lying(parts: Parts, reporter: Reporter) -> dict[str, tuple[Path, Record]]:
    """By item, where it lies; of a caption that several parts embedded, where it lies first.

    Raises DataError when two parts made one clip, or made something else of one caption.
    """
    found: dict[str, tuple[Path, Record]] = {}
    for path, manifest in zip(parts.paths, parts.manifests, strict=True):
        for item, record in manifest.items.items():
            before, earlier = found.setdefault(item, (path, record))
            if before == path:
                continue
            where: dict[str, object] = {"one": before, "other": path}
            if manifest.kind != "latents" or not is_caption(item) or record["key"] != earlier["key"]:
                raise DataError(f"item {item} lies in two parts", where=where, fix="make one of the parts anew")
            if record["hash"] != earlier["hash"]:
                reporter.warn(
                    f"{item} differs between {before} and {path}, made on machines of other kinds? The first is taken"
                )
    return found


def _take(writer: ArtifactWriter, lying: Mapping[str, tuple[Path, Record]]) -> None:
    """Take every item that the writer does not hold already, byte for byte.

    Rows of arrays are taken all, when one of them is not there: whole shards can be copied then.
    """
    there = writer.items
    rows = {item: place for item, place in lying.items() if "rows" in place[1]}
    taken = set()
    with writer.reporter.progress("merging", len(lying), "item") as advance:
        for item, (source, record) in lying.items():
            same = there.get(item, {}).get("hash") == record["hash"]
            if not (same and writer.kept(item, record["key"])):
                writer.adopt(item, record, source)
                taken.add(item)
            advance(1)
    if taken & rows.keys():
        for item, (source, record) in rows.items():
            writer.adopt(item, record, source)
