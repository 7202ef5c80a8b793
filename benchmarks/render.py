"""How fast are clips drawn, alone and side by side, against testing every ray with every shape?

    python benchmarks/render.py                                    # three sizes, two processes of one thread each
    python benchmarks/render.py --sizes 64x112 --clips 8 --json speed.json
    python benchmarks/render.py --device cuda                      # 66-frame clips, many at once
    python benchmarks/render.py --splits easy,hard,crowd,absent,nano/clips,nano/test --clips 12  # per split

Clips of different scenes, subjects and trajectories are drawn with antialiasing; describing and writing them is not
counted. Per size: medians over clips, wall and processor seconds, in one process and in several side by side; peak
memory of a process; `plain` is the nearest hit and the shadow of each pixel's ray found by testing every shape, without
any shading or antialiasing. Growth is the exponent of a power law in the number of frames, and of clips.

With `--splits`, processor seconds of whole clips instead: describing them until the masks of one show what it
promises, and drawing it, a clip of each split in turn. Names are splits, at the first of the sizes, or recipes, at
their own.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import WorldConfig
from hmcli.stages.rendering.clips import Job, drawn_until_kept
from hmcli.world.render import draw_clip, draw_clips
from hmcli.world.render.cast import blocked, nearest
from hmcli.world.render.reel import Part, Reel, Take, View
from hmcli.world.staging.clip import ClipDescription, describe_clip
from hmcli.world.staging.splits import SPLITS

SIZES = "64x112,128x224,480x832"
FRAMES, CUDA_FRAMES = 154, 66
DEARER = 2.0  # times what the cheapest split costs for a frame and pixel, at most
NANO_SECONDS = 1.5  # of a processor, for a clip of nano
LIMITS = {(64, 112): 5.0, (128, 224): 12.0, (480, 832): 100.0}  # seconds a 154-frame clip may take


def shape(size: tuple[int, int], frames: int) -> dict[str, Any]:
    """Keys of a world whose clips have so many frames."""
    context = (frames // 2 - 1) // 4 * 4 + 1  # 4k+1 each; 154 are 77 and 77
    return {"context_frames": context, "target_frames": frames - context, "size": size}


@dataclass(frozen=True, kw_only=True)
class Work:
    """Clips `first`, `first` + 1, ... of a seed."""

    size: tuple[int, int]
    frames: int
    seed: int
    first: int = 0
    clips: int = 1

    def described(self) -> list[ClipDescription]:
        world = WorldConfig(**shape(self.size, self.frames))
        numbers = range(self.first, self.first + self.clips)
        return [describe_clip(world, self.seed, number) for number in numbers]


@dataclass(frozen=True, kw_only=True)
class Spent:
    """On one clip: wall and processor seconds, and the most memory the process has ever held."""

    seconds: float
    processor_seconds: float
    peak_bytes: int


def draw(work: Work) -> list[Spent]:
    """Draw clips one after another, on one thread; one frame of the first is drawn before, and not counted."""
    torch.set_num_threads(1)
    clips = work.described()
    draw_clip(clips[0], (8, 16), chunk_frames=8)
    found = []
    for clip in clips:
        wall, processor = time.perf_counter(), time.process_time()
        draw_clip(clip, work.size)
        took, processor = time.perf_counter() - wall, time.process_time() - processor
        found.append(Spent(seconds=took, processor_seconds=processor, peak_bytes=peak_bytes()))
    return found


def peak_bytes() -> int:
    """The most this process has ever held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def side_by_side(work: Work, processes: int) -> list[Spent]:
    """Clips in fresh processes that draw at the same time, `work.clips` in each, all different."""
    shares = [Work(**asdict(work) | {"first": work.first + work.clips * number}) for number in range(processes)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        return [spent for share in pool.map(draw, shares) for spent in share]


def plain_frame(clip: ClipDescription, size: tuple[int, int], number: int) -> float:
    """Processor seconds to find what each ray of a frame meets, and whether the sun reaches it, shape by shape."""
    torch.set_num_threads(1)
    view = View(height=size[0], width=size[1], focal=clip.focal(size[1]))
    take = Take([Part(reel=Reel(clip, torch.device("cpu")), frames=range(number, number + 1))], view)
    rows = torch.arange(len(take.table.kind))
    tiles = take.tiles()
    start = time.process_time()
    with torch.inference_mode():
        every = torch.arange(tiles.count).repeat_interleave(len(rows)), rows.repeat(tiles.count)
        t, _ = nearest(take.table, tiles, *every)
        point = tiles.origin.repeat_interleave(tiles.rays, 1) + tiles.directions() * t.flatten().clamp_max(100)
        for some in torch.arange(point.shape[1]).split(4096):
            every = torch.arange(len(some)).repeat_interleave(len(rows)), rows.repeat(len(some))
            blocked(take.table, point[:, some], take.stage.sunward, *every)
    return time.process_time() - start


def measure(work: Work, processes: int) -> dict[str, Any]:
    """One size on a CPU."""
    together = {"alone": side_by_side(work, 1), "side by side": side_by_side(work, processes)}
    result: dict[str, Any] = {"size": list(work.size), "frames": work.frames, "processes": processes}
    for name, spent in together.items():
        result[name] = {
            "clips": len(spent),
            "seconds": median(one.seconds for one in spent),
            "slowest": max(one.seconds for one in spent),
            "processor_seconds": median(one.processor_seconds for one in spent),
            "seconds_per_frame": median(one.seconds for one in spent) / work.frames,
            "peak_bytes": max(one.peak_bytes for one in spent),
        }
    (clip,) = Work(**asdict(work) | {"clips": 1}).described()
    plain = plain_frame(clip, work.size, 0)
    result["plain_seconds_per_frame"] = plain
    result["times_faster_than_plain"] = plain * work.frames / together["alone"][0].processor_seconds
    result["limit"] = LIMITS.get(work.size) if work.frames == FRAMES else None
    return result


def growth(work: Work, parts: int = 4) -> dict[str, float]:
    """Exponents of processor seconds in the number of frames of a clip, and in the number of such clips."""
    (clip,) = Work(**asdict(work) | {"clips": 1}).described()
    torch.set_num_threads(1)

    def seconds(clips: list[ClipDescription]) -> float:
        start = time.process_time()
        draw_clips(clips, work.size)
        return time.process_time() - start

    frames, clips = [max(1, work.frames * part // parts) for part in range(1, parts + 1)], list(range(1, parts + 1))
    return {
        "frames": exponent(frames, [seconds([first_frames(clip, many)]) for many in frames]),
        "clips": exponent(clips, [seconds([clip] * many) for many in clips]),
    }


def first_frames(clip: ClipDescription, many: int) -> ClipDescription:
    actors = []
    for actor in clip.actors:
        walk = replace(actor.walk, **{
            name: getattr(actor.walk, name)[:many] for name in ("position", "heading", "distance")
        })  # fmt: skip
        actors.append(replace(actor, walk=walk, phase=actor.phase[:many], lift=actor.lift[:many]))
    needs = replace(clip.needs, context_frames=many)
    return replace(
        clip, actors=tuple(actors), needs=needs, target_frames=0, world_from_camera=clip.world_from_camera[:many]
    )


def exponent(counts: list[int], seconds: list[float]) -> float:
    """Slope of the least-squares line through the logarithms; nan for fewer than two points."""
    if len(counts) < 2:
        return math.nan
    x, y = [math.log(count) for count in counts], [math.log(spent) for spent in seconds]
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True)) / sum((a - middle_x) ** 2 for a in x)


def measure_cuda(work: Work, device: torch.device, repeats: int) -> dict[str, Any]:
    """All clips in one call, after one that does not count; pictures come back to the host."""
    clips = work.described()
    draw_clips(clips, work.size, device)
    torch.cuda.reset_peak_memory_stats(device)
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        draw_clips(clips, work.size, device)
        torch.cuda.synchronize(device)
        spent.append(time.perf_counter() - start)
    return {
        "size": list(work.size), "frames": work.frames, "clips": work.clips, "seconds": median(spent),
        "clips_per_second": work.clips / median(spent), "peak_bytes": torch.cuda.max_memory_allocated(device),
    }  # fmt: skip


# --- splits --------------------------------------------------------------------------------------------------------


def world_of(name: str, size: tuple[int, int], frames: int) -> WorldConfig:
    """The world of a split, at a size and a length, or that of a recipe."""
    if name in SPLITS:
        return WorldConfig(split=name, **shape(size, frames))
    return load_recipe(name).world


def whole_clip(world: WorldConfig, seed: int, number: int) -> dict[str, float]:
    """Processor seconds of a clip from its seed to its pictures, and of describing it once alone; draws looked at."""
    start = time.process_time()
    describe_clip(world, seed, number)
    described = time.process_time()
    job = Job(world=world, seed=seed, index=number, device="cpu", folder=Path(), chosen=None)
    (kept,) = drawn_until_kept([job])
    whole = time.process_time() - described
    return {"describing": described - start, "whole": whole, "draws": 1 + kept.shown.refused}


def measure_splits(names: list[str], size: tuple[int, int], frames: int, seed: int, clips: int) -> list[dict[str, Any]]:
    """Means and the dearest of each, in one process of one thread, a clip of each split in turn."""
    torch.set_num_threads(1)
    worlds = {name: world_of(name, size, frames) for name in names}
    for world in worlds.values():  # what is loaded and looked up but once does not count
        draw_clip(describe_clip(world, seed + 1, 0), (8, 16), chunk_frames=8)
    spent: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(clips):
        for name, world in worlds.items():
            spent[name].append(whole_clip(world, seed, number))
    rows = [split_row(name, worlds[name], spent[name]) for name in names]
    cheapest = min(row["whole_per_megapixel"] for row in rows)
    return [row | {"over_cheapest": row["whole_per_megapixel"] / cheapest} for row in rows]


def split_row(name: str, world: WorldConfig, spent: list[dict[str, float]]) -> dict[str, Any]:
    frames = world.context_frames + world.target_frames
    whole = fmean(one["whole"] for one in spent)
    return {
        "name": name, "size": list(world.size), "frames": frames, "clips": len(spent),
        "describing": fmean(one["describing"] for one in spent), "longest": max(one["describing"] for one in spent),
        "whole": whole, "draws": fmean(one["draws"] for one in spent),
        "whole_per_megapixel": whole / (frames * math.prod(world.size) / 1e6),
        "limit": NANO_SECONDS if name.startswith("nano/") else None,
    }  # fmt: skip


# --- reporting -----------------------------------------------------------------------------------------------------


def table(results: list[dict[str, Any]]) -> str:
    """Sizes measured on a CPU as a Markdown table."""
    lines = [
        "| size | frames | processes | clips | median s | slowest | processor s | ms a frame | peak MiB | than plain |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for name, processes in (("alone", 1), ("side by side", result["processes"])):
            row = result[name]
            faster = f"{result['times_faster_than_plain']:.1f} x" if name == "alone" else ""
            cells = [
                "x".join(map(str, result["size"])), f"{result['frames']}", f"{processes}", f"{row['clips']}",
                f"{row['seconds']:.2f}", f"{row['slowest']:.2f}", f"{row['processor_seconds']:.2f}",
                f"{row['seconds_per_frame'] * 1e3:.1f}", f"{row['peak_bytes'] / 2**20:.0f}", faster,
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def splits_table(rows: list[dict[str, Any]]) -> str:
    """What splits cost, as a Markdown table."""
    lines = [
        "| split or recipe | size | frames | clips | describing s | longest | whole s | draws a clip | s a megapixel"
        " | than the cheapest |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row["name"], "x".join(map(str, row["size"])), f"{row['frames']}", f"{row['clips']}",
            f"{row['describing']:.2f}", f"{row['longest']:.2f}", f"{row['whole']:.2f}", f"{row['draws']:.2f}",
            f"{row['whole_per_megapixel']:.2f}", f"{row['over_cheapest']:.2f} x",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    lines += [f"{row['name']}: {row['whole']:.2f} s of {row['limit']} a clip" for row in rows if row["limit"]]
    dearest = max(row["over_cheapest"] for row in rows)
    return "\n".join([*lines, f"the dearest costs {dearest:.2f} x the cheapest, of {DEARER:g} allowed"])


def size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(number) for number in text.split("x"))
    except ValueError:
        raise SystemExit(f"{text!r} is no size: write HEIGHTxWIDTH, as 64x112") from None
    return height, width


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", help=f"with commas between; default {SIZES}, on CUDA 64x112")
    parser.add_argument("--frames", type=int, help=f"of a clip; default {FRAMES}, on CUDA {CUDA_FRAMES}")
    parser.add_argument("--clips", type=int, help="drawn by each process; default 3, on CUDA 64")
    parser.add_argument("--processes", type=int, default=2, help="side by side, on a CPU (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the clips (default 0)")
    parser.add_argument("--repeats", type=int, default=3, help="on CUDA (default 3)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--splits", help="instead: what whole clips of these splits and recipes cost, commas between")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything measured here too")
    return parser


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    given = options().parse_args(arguments)
    device = torch.device(given.device)
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else platform.machine()
    results: dict[str, Any] = {"machine": {"device": name, "torch": torch.__version__}, "sizes": [], "growth": None}
    print(results["machine"])
    frames, clips = given.frames or (CUDA_FRAMES if cuda else FRAMES), given.clips or (64 if cuda else 3)
    works = [
        Work(size=size(text), frames=frames, seed=given.seed, clips=clips)
        for text in (given.sizes or ("64x112" if cuda else SIZES)).split(",")
    ]
    if given.splits:
        if cuda:
            raise SystemExit("--splits counts processor seconds: leave out --device")
        work = works[0]
        rows = measure_splits(given.splits.split(","), work.size, work.frames, work.seed, work.clips)
        print(splits_table(rows), flush=True)
        return written(given.json, results | {"splits": rows})
    for work in works:
        results["sizes"].append(measure_cuda(work, device, given.repeats) if cuda else measure(work, given.processes))
        if cuda:
            print(f"{results['sizes'][-1]}", flush=True)
        else:
            print(table(results["sizes"][-1:]), flush=True)
    if not cuda:
        results["growth"] = found = growth(works[0])
        print(f"growth at {works[0].size}: exponent {found['frames']:.2f} in frames, {found['clips']:.2f} in clips")
    return written(given.json, results)


def written(out: Path | None, results: dict[str, Any]) -> dict[str, Any]:
    if out:
        out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
