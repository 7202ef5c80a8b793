"""Does what is asked fit: into memory, and into what the model remembers? Refused before any weights load.

Memory is judged by a lower bound, so that nothing is refused which would have worked: the transformer's weights, and
one feed-forward layer of one run of it. What still runs out of memory says what was free, and what to try.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from hmcli.contracts import TIME_STRIDE
from hmcli.errors import DataError, UsageError
from hmcli.stages.models.folders import check_memory_fits
from hmcli.stages.models.layout import TRANSFORMER
from hmcli.stages.sampling.job import Job
from hmcli.stages.sampling.rollout import check_frames, chunks_of
from hmcli.stages.shared.memory import free_bytes, gib, memory_named
from hmcli.store.weights import weight_files

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def check_clips(job: Job, clips: Sequence[str]) -> None:
    """Raise DataError where no clip is long or large enough for the model's memory and `sample.frames`, UsageError
    where the longest one cannot fit into the device's. Reads no weights. Single clips that are too short are set aside
    when they are made."""
    shapes = {clip: job.view.where[clip][0].shape for clip in clips}
    refused: DataError | None = None
    for clip, shape in shapes.items():
        try:
            check_memory_fits(
                job.config, clip, context=shape.context, target=shape.target, size=job.view.latent_size
            )  # fmt: skip
            check_frames(job.sample.frames, clip, shape.target)
            break
        except DataError as error:
            refused = refused or error
    else:
        if refused is not None:
            raise refused
    if shapes:
        longest = max(shapes.values(), key=lambda shape: shape.context + shape.target)
        check_bytes(job, longest.context, longest.target, free_bytes(job.device))


def check_bytes(job: Job, context: int, target: int, free: int | None) -> None:
    """Raise UsageError where `free` bytes (None: not known) are fewer than so many latent frames take at the least."""
    at_once = chunks_of(job.sample.chunk, job.sample.chunk)[0].latents if job.sample.chunk else target
    needed = least_bytes(job, context, at_once, job.sample.dtype)
    if free is None or needed <= free:
        return
    raise UsageError(
        f"{gib(needed)} of memory are needed at the least, {gib(free)} are free on {job.device}",
        where={"latent frames": f"{context} of context, {at_once} made at a time", "latent size": _size(job),
               "sample.dtype": job.sample.dtype},
        fix=_nearest(job, context, at_once, free),
    )  # fmt: skip


def batch_that_fits(job: Job, clips: Sequence[str]) -> int:
    """How many videos of the longest clip fit at the least's measure, up to `sample.batch`; fewer are said."""
    asked, free = job.sample.batch, free_bytes(job.device)
    shapes = [job.view.where[clip][0].shape for clip in clips]
    if asked == 1 or free is None or not shapes:
        return asked
    longest = max(shapes, key=lambda shape: shape.context + shape.target)
    lengths = (longest.context, longest.target, job.sample.dtype)
    fitting = [n for n in range(asked, 1, -1) if least_bytes(job, *lengths, videos=n) <= free]
    if (most := fitting[0] if fitting else 1) < asked:
        say_fewer(job, most, f"{gib(least_bytes(job, *lengths, videos=asked))} are needed, {gib(free)} are free")
    return most


def say_fewer(job: Job, most: int, why: str) -> None:
    """Fewer videos at a time than were asked for are said."""
    job.reporter.warn(f"sample.batch={job.sample.batch} does not fit into memory, {most} at a time from here on: {why}")


def free_cached(device: str) -> None:
    """Give back what torch's allocator keeps."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def least_bytes(job: Job, context: int, target: int, dtype: str, videos: int = 1) -> int:
    """What sampling takes at the very least: weights, and one feed-forward layer of one run of the model."""
    config, (height, width) = job.config, job.view.latent_size
    _, rows, columns = config["patch_size"]
    frames = max(context, target) if config["context"] == "frozen" else context + target
    tokens = videos * frames * (height // rows) * (width // columns)
    dim = config["num_attention_heads"] * config["attention_head_dim"]
    weights = parameters(job.model.path / TRANSFORMER) * _bytes_a_weight(job, dtype)
    return weights + _BYTES[dtype] * tokens * (config["ffn_dim"] + 2 * dim)


def _bytes_a_weight(job: Job, dtype: str) -> int:
    """On the device, at the least. In a CPU's memory all of them are loaded before they are rounded or put away."""
    if job.device.startswith("cuda") and job.sample.offload != "none":
        return 0
    return 1 if job.device.startswith("cuda") and job.sample.quantize != "none" else _BYTES[dtype]


def parameters(folder: Path) -> int:
    """Numbers in the weights of a folder, from the files' headers; 0 where loading will say what is wrong with them."""
    from safetensors import SafetensorError, safe_open

    count = 0
    for file in weight_files(folder):
        if file.suffix != ".safetensors":
            continue
        try:
            with safe_open(file, "numpy") as opened:
                count += sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118
        except (SafetensorError, OSError):
            return 0
    return count


def memory_of(job: Job, clip: str) -> AbstractContextManager[None]:
    """Out of memory in here is an error with numbers, and with what to try."""
    shape = job.view.where[clip][0].shape
    where = {"clip": clip, "latent frames": f"{shape.context} of context, {shape.target} of target"}
    return memory_named(job.device, where=where, fix=_try(job, shape.target))


def _nearest(job: Job, context: int, at_once: int, free: int) -> str:
    """The nearest that could work."""
    smaller = [n for n in range(at_once - 1, 0, -1) if least_bytes(job, context, n, job.sample.dtype) <= free]
    if smaller:
        return f"set sample.chunk={1 + TIME_STRIDE * (smaller[0] - 1)} or less: the target is then made in parts"
    if job.sample.dtype == "float32" and least_bytes(job, context, at_once, "bfloat16") <= free:
        return "set sample.dtype=bfloat16"
    fetched = replace(job, recipe=replace(job.recipe, sample=replace(job.sample, offload="memory")))
    if job.device.startswith("cuda") and least_bytes(fetched, context, at_once, job.sample.dtype) <= free:
        return "set sample.offload=memory"
    return "use a device with more memory, or smaller or shorter clips"


def _try(job: Job, target: int) -> str:
    now = job.sample.chunk or 1 + TIME_STRIDE * (target - 1)
    half = max(1, (now // 2 - 1) // TIME_STRIDE * TIME_STRIDE + 1)
    half_width = " or sample.dtype=bfloat16," if job.sample.dtype == "float32" else ""
    return f"try sample.chunk={half},{half_width} or smaller clips"


def _size(job: Job) -> str:
    return "{} x {}".format(*job.view.latent_size)
