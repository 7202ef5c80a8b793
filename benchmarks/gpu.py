"""What only a GPU can show, in one JSON line to paste into an issue: `make test-gpu`, four minutes at most.

    python benchmarks/gpu.py                    # says so where there is no GPU
    python benchmarks/gpu.py --device cpu --small   # the same checks at sizes that take seconds

Checks: every attention kernel against the equation; waits for the device inside blocks; a training step in bfloat16
(memory against the plan, time, whether loss is finite); generation from frozen memory against generation without it;
rendering against the CPU's pictures. A check that fails is in the line with its error; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hmcli.core import backends
from hmcli.core.attention import plain_attention
from hmcli.core.fast import fast_attention
from hmcli.core.reading import local_window, window_frames
from hmcli.errors import HMError
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import Recipe, WorldConfig
from hmcli.stages.planning.rehearsal import inputs_of, loss_in, panning, real_step, set_up, training_account
from hmcli.stages.planning.shapes import shape_of
from hmcli.world.render.draw import draw_clips
from hmcli.world.staging.clip import describe_clip

GIB = 2**30
CLOSE = {torch.bfloat16: 2e-2, torch.float32: 1e-4}  # largest difference of kernels from the equation


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where checks run and how large they are."""

    device: torch.device
    small: bool

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.device.type == "cpu" else torch.bfloat16

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def recipe_of(place: Place, *more: str) -> Recipe:
    """A model large enough that a GPU works, at the published frame count; or one of seconds on a CPU."""
    size = (
        ["data.size=[32, 48]", "world.context_frames=17", "world.target_frames=17", "model.layers=2", "model.dim=24",
         "model.heads=2", "model.ffn_dim=32", "model.memory.top_k=1"]
        if place.small
        else ["data.size=[256, 448]", "world.context_frames=77", "world.target_frames=77", "model.layers=8",
              "model.dim=768", "model.heads=6", "model.ffn_dim=3072", "model.memory.top_k=5", "model.memory.window=5"]
    )  # fmt: skip
    return load_recipe(None, [*size, "train.batch=1", "text.length=16", *more])


def kernels(place: Place) -> dict[str, Any]:
    """Largest difference of every kernel that runs here from Eq. 6, and its time."""
    frames, tokens, heads, channels, slots, kept = (6, 12, 2, 8, 5, 2) if place.small else (20, 240, 8, 64, 10, 5)
    make = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=make).to(place.device, place.dtype)

    query, keys, values = (drawn(1, frames, tokens, heads, channels) for _ in range(3))
    slot_keys, slot_values = (drawn(1, slots, tokens // 4, heads, channels) for _ in range(2))
    windows = window_frames(*local_window(0, frames, frames, 3))
    chosen = torch.stack([torch.randperm(slots, generator=make)[:kept] for _ in range(frames)])[None].to(place.device)
    parts = (query, keys, values, slot_keys, slot_values)
    truth = plain_attention(*(part.float() for part in parts), windows, chosen)
    found: dict[str, Any] = {}
    for name in backends.NAMES:
        try:
            backends.check_backend(name, place.device, place.dtype, channels)
        except HMError:
            continue
        out, seconds = timed(place, lambda name=name: fast_attention(*parts, windows, chosen, backend=name))  # type: ignore[misc]
        found[name] = {"off": float((out.float() - truth).abs().max()), "ms": 1e3 * seconds}
    if wrong := [name for name, row in found.items() if row["off"] > CLOSE[place.dtype]]:
        raise RuntimeError(f"differ from the equation: {', '.join(wrong)}: {found}")
    return found


def waits(place: Place) -> dict[str, Any]:
    """Waits for the device inside blocks: CUDA raises at the first one. A CPU has none."""
    recipe = recipe_of(place)
    shape, stage = shape_of(recipe), set_up(recipe, shape_of(recipe), on_cpu=True)
    model = stage.model.to(place.device).eval()
    given = [part.to(place.device) for part in (stage.batch.latents, stage.batch.text, stage.batch.camera)]

    def run() -> None:
        latents, text, camera = given
        model(latents, torch.full((1,), 500.0, device=place.device), text, camera, shape.context, stage.inputs)

    with torch.no_grad():
        run()  # loads kernels
        hooks = watched(model) if place.device.type == "cuda" else []
        try:
            run()
        finally:
            for hook in hooks:
                hook.remove()
            if hooks:
                torch.cuda.set_sync_debug_mode("default")
    return {"blocks": len(model.blocks), "waits": 0 if hooks else None}


def watched(model: Any) -> list[Any]:
    """From now on a wait inside a block is an error."""
    blocks: list[nn.Module] = list(model.blocks)
    enter = [b.register_forward_pre_hook(lambda *_: torch.cuda.set_sync_debug_mode("error")) for b in blocks]
    leave = [b.register_forward_hook(lambda *_: torch.cuda.set_sync_debug_mode("default")) for b in blocks]
    return [*enter, *leave]


def step(place: Place) -> dict[str, Any]:
    """Two training steps, in bfloat16 on a GPU: the second one's time, and the peak against the plan's."""
    narrow = [] if place.dtype == torch.float32 else ["train.dtype=bfloat16"]
    recipe = recipe_of(place, *narrow)
    shape = shape_of(recipe)
    on_cpu = place.device.type == "cpu"
    stage = set_up(recipe, shape, on_cpu=on_cpu, device=place.device)
    for _ in range(2):
        _, seconds = timed(place, lambda: real_step(recipe, stage), again=False)
    measured = None if on_cpu else torch.cuda.max_memory_allocated(place.device)
    with torch.no_grad():
        if not bool(loss_in(recipe, stage).isfinite()):
            raise RuntimeError("the loss is not finite after two steps")
    account = training_account(recipe, shape, on_cpu=on_cpu)
    return {
        "seconds": seconds, "tflops": account.flop / seconds / 1e12, "planned_gib": account.peak / GIB,
        "measured_gib": None if measured is None else measured / GIB,
    }  # fmt: skip


def generation(place: Place) -> dict[str, Any]:
    """A step of denoising from kept memory, against one that runs its context itself."""
    recipe = recipe_of(place)
    shape = shape_of(recipe)
    stage = set_up(recipe, shape, on_cpu=True)
    model = stage.model.to(place.device, place.dtype).eval()
    latents = torch.randn(stage.batch.latents.shape, generator=torch.Generator().manual_seed(0)).to(place.device)
    text, camera, n = stage.batch.text.to(place.device), panning(1, shape).to(place.device), shape.context
    inputs, time_B = inputs_of(recipe, shape, 1), torch.full((1,), 500.0, device=place.device)
    with torch.no_grad():
        whole, alone = timed(place, lambda: model(latents, time_B, text, camera, n, inputs).sample)
        memory = model.encode_context(latents[:, :, :n], camera[:, :n], inputs)
        target, rows = latents[:, :, n:], camera[:, n:]
        kept, seconds = timed(place, lambda: model(target, time_B, text, rows, 0, inputs, memory).sample)
    off = float((whole[:, :, n:].float() - kept.float()).abs().max())
    if off > CLOSE[place.dtype]:
        raise RuntimeError(f"from memory a step differs by {off}")
    return {"off": off, "ms": 1e3 * seconds, "without_memory_ms": 1e3 * alone}


def rendering(place: Place) -> dict[str, Any]:
    """A clip drawn here and on the CPU: share of pixels that differ, and clips a second."""
    size, frames = ((16, 24), 17) if place.small else ((64, 112), 33)
    world = WorldConfig(context_frames=frames, target_frames=frames, size=size, visible_seconds=0.1, hidden_seconds=0.1)
    clips = [describe_clip(world, 0, number) for number in range(1 if place.small else 8)]
    drawn, seconds = timed(place, lambda: draw_clips(clips, size, place.device), again=not place.small)
    truth = draw_clips(clips[:1], size, "cpu")[0]
    off = float((abs(drawn[0].rgb.astype(int) - truth.rgb) > 2).mean())
    if off > 0.01:
        raise RuntimeError(f"{off:.1%} of the values differ from the CPU's")
    return {"off": off, "clips_per_second": len(clips) / seconds}


def timed(place: Place, call: Callable[[], Any], *, again: bool = True) -> tuple[Any, float]:
    """What a call returns, and its seconds; with `again` those of a second one."""
    for _ in range(2 if again else 1):
        place.wait()
        started = time.perf_counter()
        out = call()
        place.wait()
        seconds = time.perf_counter() - started
    return out, seconds


CHECKS: dict[str, Callable[[Place], dict[str, Any]]] = {
    "kernels": kernels, "waits": waits, "step": step, "generation": generation, "rendering": rendering,
}  # fmt: skip


def check(place: Place, names: list[str]) -> dict[str, Any]:
    """The results of these checks, errors among them."""
    name = torch.cuda.get_device_name(place.device) if place.device.type == "cuda" else platform.processor()
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "failed": []}
    for each in names:
        started = time.perf_counter()
        try:
            found[each] = CHECKS[each](place)
        except Exception as error:
            found[each] = {"error": f"{type(error).__name__}: {error}"}
            found["failed"].append(each)
        found[each]["took"] = round(time.perf_counter() - started, 2)
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", action="append", choices=CHECKS)
    asked = parser.parse_args(arguments)
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        print(json.dumps({"skipped": "there is no CUDA device here", "torch": torch.__version__}))
        return 0
    found = check(Place(device=torch.device(asked.device), small=asked.small), asked.only or list(CHECKS))
    print(json.dumps(found))
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
