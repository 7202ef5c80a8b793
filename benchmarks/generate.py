"""What does frozen context save, where does the time of a video go, and what do options cost in pixels?

    python benchmarks/generate.py                                  # frozen against joint, sampling alone, one thread
    python benchmarks/generate.py --parts --options first-block:0.05,first-block:0.2,taylor:2,together
    python benchmarks/generate.py --batch 4 --steps 20             # so many videos together against one by one
    python benchmarks/generate.py --device cuda --layers 30 --dim 1536 --heads 12 --ffn 8960 --frames 20 --size 60x104

Frozen against joint: two models of the same random weights, context and target of `--frames` latent frames each. Joint
runs both at every step; frozen runs its context once and then the target alone, so that N steps can gain 2N / (N + 1),
1.96 for 50. Rounds alternate, medians are reported; processor seconds on a CPU. `--parts` and `--options` go through
the pipeline of the packaged model with a rendered clip: time of each part of a video, and for every option its time and
the PSNR of its frames against those of the plain run (`blocks`: sample.compile=blocks; `float16`, `bfloat16`; `int8`:
sample.quantize=int8; `disk`, `memory`: sample.offload; `onnx`: denoising as a graph in onnxruntime). `--batch` samples
so many rendered clips at once and alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from hmcli.core.flow import make_schedule
from hmcli.core.sampler import denoise
from hmcli.core.transformer import HydraTransformer3DModel
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.latents import encode
from hmcli.stages.latents.pixels import decode_video
from hmcli.stages.models.folders import find_model
from hmcli.stages.rendering import render
from hmcli.stages.sampling.generate import Generator
from hmcli.stages.sampling.job import Job, generate_latents, generate_together, open_job
from hmcli.stages.sampling.profile import profiled

RECIPE = "mini/hydra"


def seconds_of(run: Callable[[], Any], device: str) -> float:
    """Processor seconds on a CPU; on CUDA those until the device has finished."""
    clock = time.perf_counter if device.startswith("cuda") else time.process_time
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    start = clock()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return clock() - start


# --- frozen against joint ---


def models(asked: argparse.Namespace) -> dict[str, HydraTransformer3DModel]:
    """A frozen and a joint model of the same weights."""
    sizes = {
        "num_layers": asked.layers, "num_attention_heads": asked.heads, "attention_head_dim": asked.dim // asked.heads,
        "ffn_dim": asked.ffn or 4 * asked.dim, "text_dim": 64, "top_k": asked.top_k, "window": 5,
    }  # fmt: skip
    torch.manual_seed(0)
    made: dict[str, Any] = {name: HydraTransformer3DModel(**sizes, context=name) for name in ("frozen", "joint")}
    made["joint"].load_state_dict(made["frozen"].state_dict())
    dtype = torch.bfloat16 if asked.device.startswith("cuda") else torch.float32
    return {name: model.to(asked.device, dtype).eval() for name, model in made.items()}


def against_joint(asked: argparse.Namespace) -> dict[str, Any]:
    """Medians over rounds of both samplers, and of a frozen model's context alone."""
    both, n = models(asked), asked.frames
    height, width = map(int, asked.size.split("x"))
    chance = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=chance).to(asked.device)

    context, noise = normal(1, 16, n, height, width), normal(1, 16, n, height, width)
    camera, text = normal(1, 2 * n, 12), normal(1, 12, 64)
    schedule = make_schedule(asked.steps, 5.0)

    def sampled(name: str) -> Callable[[], Any]:
        return lambda: denoise(both[name], noise, schedule=schedule, camera=camera, text=text, context=context)

    @torch.no_grad()
    def context_alone() -> Any:
        return both["frozen"].encode_context(context, camera[:, :n])

    runs = {"frozen": sampled("frozen"), "joint": sampled("joint"), "context": context_alone}
    context_alone()
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(asked.rounds):
        for name, run in runs.items():
            found[name].append(seconds_of(run, asked.device))
    middle = {name: median(values) for name, values in found.items()}
    return {
        "steps": asked.steps, "seconds": found, **{f"{name}_seconds": value for name, value in middle.items()},
        "step_seconds": {"frozen": (middle["frozen"] - middle["context"]) / asked.steps,
                         "joint": middle["joint"] / asked.steps},
        "times_faster": middle["joint"] / middle["frozen"], "limit": 2 * asked.steps / (asked.steps + 1),
    }  # fmt: skip


# --- the packaged model ---


def job_of(place: Path, steps: int, device: str, clips: int = 1) -> Job:
    """Rendered and encoded clips, and the packaged model."""
    recipe = load_recipe(
        RECIPE, [f"world.clips={clips}", f"sample.steps={steps}", "sample.guidance=1.5", "sample.shift=3"]
    )
    render.run(recipe, out=place / "clips", reporter=Silent())
    encode.run(recipe, data=place / "clips", out=place / "latents", force=False, device=device, reporter=Silent())
    job, _ = open_job(recipe, find_model(Path("mini")), place / "latents", [], None, (), device, Silent())
    return job


def parts_of(job: Job, place: Path) -> dict[str, Any]:
    """Where the time of one video goes, weights and all."""
    clip = job.view.clip(job.view.ids()[0])
    with profiled(job.device) as found:
        Generator(job, place / "chunks").sample(clip, 1, place / "video.mp4", place / "chunks")
    return {name: asdict(spent) for name, spent in found.parts.items()}


def with_option(job: Job, option: str) -> Job:
    """The same job with a cache, a scheduler, a number of steps, both branches at once, compiled, in another type, with
    weights that are rounded or lie elsewhere, or as graphs."""
    name = option.partition(":")[0]
    if option == "onnx":
        return with_graphs(job)
    if option in ("float32", "bfloat16", "float16"):
        changes: dict[str, Any] = {"dtype": option}
    elif option == "blocks":
        changes = {"compile": option}
    elif option == "together":
        changes = {"branches": option}
    elif option == "int8":
        changes = {"quantize": option}
    elif option in ("memory", "disk"):
        changes = {"offload": option}
    elif name in ("first-block", "sea", "taylor"):
        changes = {"cache": option}
    elif option.isdecimal():
        changes = {"steps": int(option)}
    else:
        changes = {"scheduler": option}
    recipe = replace(job.recipe, sample=replace(job.sample, **changes))
    return replace(job, recipe=recipe)


def with_graphs(job: Job) -> Job:
    """The same job with the model exported."""
    from hmcli.stages.exporting import export

    latents = job.view.path
    graphs = export.run(
        job.model.path, latents=latents, clips=(), out=latents.with_name("graphs"), force=False, reporter=Silent()
    ).path
    return open_job(job.recipe, job.model, latents, [], None, (), job.device, Silent(), graphs)[0]


def options_of(job: Job, options: list[str], rounds: int) -> dict[str, Any]:
    """Seconds of denoising in all rounds, medians against the plain run's, and how far frames are from the plain ones.

    Rounds alternate, after a first run of each that is not counted: loading and compiling are in it.
    """
    jobs = {"plain": job} | {option: with_option(job, option) for option in options}
    made: dict[str, np.ndarray] = {}

    def run(name: str) -> float:
        return seconds_of(lambda: made.update({name: latents_of(jobs[name])}), job.device)

    first = {name: run(name) for name in jobs}
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name in jobs:
            found[name].append(run(name))
    plain = median(found.pop("plain"))
    frames = {name: decode_video(of, job.codec, job.device).astype(np.float64) for name, of in made.items()}
    costs = {}
    for name, all_seconds in found.items():
        error = float(np.square(frames[name] - frames["plain"]).mean())
        costs[name] = {
            "first_seconds": first[name], "all_seconds": all_seconds, "seconds": median(all_seconds),
            "times_faster": plain / median(all_seconds),
            "psnr_to_plain": 10 * np.log10(255**2 / error) if error else float("inf"),
        }  # fmt: skip
    return {"plain_seconds": plain, "options": costs}


def together_of(job: Job, rounds: int) -> dict[str, Any]:
    """Seconds of sampling all clips at once and one after the other, and how far apart their latents come."""
    videos = [(job.view.clip(name), 1) for name in job.view.ids()]
    made: dict[str, list[np.ndarray]] = {}
    runs: dict[str, Callable[[], Any]] = {
        "together": lambda: made.update(together=generate_together(job, videos)),
        "alone": lambda: made.update(alone=[generate_latents(job, clip, number) for clip, number in videos]),
    }
    for run in runs.values():  # loading is not counted
        run()
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(seconds_of(run, job.device))
    middle = {name: median(values) for name, values in found.items()}
    apart = max(float(np.abs(a - b).max()) for a, b in zip(made["together"], made["alone"], strict=True))
    return {
        "videos": len(videos), "seconds": found, **{f"{name}_seconds": value for name, value in middle.items()},
        "times_faster": middle["alone"] / middle["together"], "latents_apart": apart,
    }  # fmt: skip


def latents_of(job: Job) -> np.ndarray:
    return generate_latents(job, job.view.clip(job.view.ids()[0]))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("steps", 50), ("rounds", 3), ("frames", 10), ("layers", 2), ("dim", 384), ("heads", 3),
                        ("ffn", 0), ("top-k", 4), ("threads", 1)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--size", default="16x28", help="latent pixels, height x width")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--options", default="")
    parser.add_argument("--batch", type=int, default=0, help="videos that are sampled at once, against one by one")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    found: dict[str, Any] = {}
    if asked.batch:
        with tempfile.TemporaryDirectory() as folder:
            found["batch"] = together_of(job_of(Path(folder), asked.steps, asked.device, asked.batch), asked.rounds)
    elif asked.parts or asked.options:
        with tempfile.TemporaryDirectory() as folder:
            job = job_of(Path(folder), asked.steps, asked.device)
            if asked.parts:
                found["parts"] = parts_of(job, Path(folder))
            if asked.options:
                found |= options_of(job, asked.options.split(","), asked.rounds)
    else:
        found = against_joint(asked)
    say(found)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2))


def say(found: dict[str, Any]) -> None:
    if "limit" in found:
        print(f"joint {found['joint_seconds']:.2f} s, frozen {found['frozen_seconds']:.2f} s, of which context "
              f"{found['context_seconds']:.2f} s")  # fmt: skip
        print(f"{found['times_faster']:.2f} times faster; {found['limit']:.2f} is the limit of {found['steps']} steps")
    if batch := found.get("batch"):
        print(f"{batch['videos']} videos: {batch['alone_seconds']:.2f} s one by one, {batch['together_seconds']:.2f} s "
              f"together, {batch['times_faster']:.2f} times faster")  # fmt: skip
    for name, spent in found.get("parts", {}).items():
        print(f"{name:16} {spent['seconds']:7.2f} s  peak {spent['peak_bytes'] / 2**20:6.0f} MiB")
    for name, cost in found.get("options", {}).items():
        print(f"{name:18} {cost['seconds']:6.2f} s  {cost['times_faster']:.2f} x  {cost['psnr_to_plain']:.1f} dB")


if __name__ == "__main__":
    main()
