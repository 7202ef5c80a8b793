"""How fast is attention over window and memory, against dense attention and against what is possible?

    python benchmarks/attention.py                                     # the three grids of docs/performance.md
    python benchmarks/attention.py --grids 40x8x14x384/4 --repeats 5 --json speed.json
    python benchmarks/attention.py --device cuda --dtype bfloat16      # the published layer, every kernel found

A grid is FRAMESxROWSxCOLUMNSxCHANNELS/HEADS in patch tokens. What is compared runs in turn, round after round, and
medians are reported: `fast` (hmcli.core.fast), `plain` (the equation as loops), `dense`, and two limits:
`share` (dense time x share of keys read) and `pre-gathered` (one attention call on keys that lie ready). All get
queries, keys, values and choices and leave out projections; `layer` is a whole HydraAttention against a dense one.
Shape letters as in hmcli/core/attention.py.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from hmcli.core import backends
from hmcli.core.attention import HydraAttention, dense_attention, plain_attention
from hmcli.core.fast import fast_attention
from hmcli.core.memory import slot_cameras, slot_spans
from hmcli.core.policies.affinity import affinity
from hmcli.core.policies.everything import everything
from hmcli.core.reading import local_window, window_frames
from hmcli.core.rope import full_table, slot_table, slot_times
from hmcli.core.stretch import Stretch
from hmcli.errors import UsageError

CPU_GRIDS = "40x30x52x96/4,40x8x14x384/4,160x8x14x384/4"
CUDA_GRIDS = "40x30x52x1536/12"
GROWTH_FRAMES = (40, 80, 160, 320)
KERNEL = (2, 2, 2)  # of the tokenizer, in tokens
PLAIN_BYTES = 4 * 2**30  # scores that plain attention may keep for its backward pass

Call = Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Grid:
    frames: int
    rows: int
    columns: int
    channels: int
    heads: int
    top_k: int = 10
    window: int = 5

    @classmethod
    def parse(cls, text: str) -> Grid:
        """From 40x8x14x384/4."""
        try:
            size, heads = text.split("/")
            frames, rows, columns, channels = (int(number) for number in size.split("x"))
            return cls(frames=frames, rows=rows, columns=columns, channels=channels, heads=int(heads))
        except ValueError:
            raise SystemExit(
                f"{text!r} is no grid: write FRAMESxROWSxCOLUMNSxCHANNELS/HEADS, as 40x8x14x384/4"
            ) from None

    def __str__(self) -> str:
        return f"{self.frames}x{self.rows}x{self.columns}x{self.channels}/{self.heads}"

    @property
    def tokens(self) -> int:
        return self.rows * self.columns

    @property
    def slots(self) -> int:
        return self.frames // KERNEL[0]

    @property
    def slot_tokens(self) -> int:
        return (self.rows // KERNEL[1]) * (self.columns // KERNEL[2])

    @property
    def keys_read(self) -> int:
        """By one query."""
        return min(self.window, self.frames) * self.tokens + self.top_k * self.slot_tokens

    @property
    def share(self) -> float:
        """Of the keys that dense attention reads."""
        return self.keys_read / (self.frames * self.tokens)

    def attention_flop(self, keys: int) -> float:
        """Two matrix products of every query with so many keys."""
        return 4.0 * self.frames * self.tokens * keys * self.channels

    def layer_flop(self, dense: bool) -> float:
        """Attention and the four projections; with memory also tokenizer, and keys and values of slots."""
        square = 2.0 * self.channels**2
        tokens, slot_tokens = self.frames * self.tokens, self.slots * self.slot_tokens
        if dense:
            return 4 * tokens * square + self.attention_flop(tokens)
        made = slot_tokens * square * (math.prod(KERNEL) + 2)
        return 4 * tokens * square + made + self.attention_flop(self.keys_read)


# --- what is measured ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Place:
    device: torch.device
    dtype: torch.dtype

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, device=self.device, dtype=self.dtype).requires_grad_()


def choices(grid: Grid, place: Place) -> tuple[Tensor, Tensor]:
    """Windows, and slots chosen by chance: (F, W) and (1, F, K)."""
    frames_FW = window_frames(*local_window(0, grid.frames, grid.frames, grid.window))
    return frames_FW, torch.rand(1, grid.frames, grid.slots).argsort(dim=-1)[..., : grid.top_k].to(place.device)


def attention_calls(grid: Grid, place: Place, kernels: list[str]) -> dict[str, tuple[Call, list[Tensor]]]:
    """Name -> a call that attends, and the tensors it is differentiated by."""
    per_head = (grid.heads, grid.channels // grid.heads)
    query, keys, values = (place.normal(1, grid.frames, grid.tokens, *per_head) for _ in range(3))
    slots = [place.normal(1, grid.slots, grid.slot_tokens, *per_head) for _ in range(2)]
    parts = [query, keys, values, *slots]
    chosen = choices(grid, place)
    ready = [place.normal(grid.frames, many, *per_head) for many in (grid.tokens, grid.keys_read, grid.keys_read)]

    def named(name: str) -> Call:
        return lambda: fast_attention(*parts, *chosen, backend=name)

    calls: dict[str, tuple[Call, list[Tensor]]] = {
        "fast" if name == "auto" else f"fast, {name}": (named(name), parts) for name in kernels
    }
    calls["plain"] = (lambda: plain_attention(*parts, *chosen), parts)
    calls["dense"] = (lambda: dense_attention(query, keys, values), parts[:3])
    calls["pre-gathered"] = (lambda: backends.attend(*(part.transpose(1, 2) for part in ready)), ready)
    return calls


def layer_calls(grid: Grid, place: Place) -> dict[str, tuple[Call, list[Tensor]]]:
    """A whole attention layer with memory, and the same layer dense."""
    size = (grid.rows, grid.columns)
    head_dim = grid.channels // grid.heads
    times = (torch.arange(grid.frames, dtype=torch.float64), slot_times(grid.slots, KERNEL[0]))
    half = (grid.rows // KERNEL[1], grid.columns // KERNEL[2])
    camera = torch.randn(1, grid.frames, 12, device=place.device)
    stretch = Stretch(
        part="joint", camera_BFR=camera, camera_BAR=camera, num_context=grid.frames // 2, grid=size, first_frame=0,
        span_M2=slot_spans(grid.frames, KERNEL[0], "exact"),
        key_table=full_table(times[0], size, head_dim, place.dtype, place.device),
        slot_table=slot_table(times[1], half, KERNEL, head_dim, place.dtype, place.device),
        slot_camera_BMR=slot_cameras(camera, KERNEL[0]),
    )  # fmt: skip
    x = place.normal(1, grid.frames, grid.tokens, grid.channels)
    calls = {}
    for name, policy in (("layer", affinity), ("dense layer", everything)):
        layer = HydraAttention(
            heads=grid.heads, head_dim=head_dim, eps=1e-6, policy=policy, affinity="pooled", top_k=grid.top_k,
            window=grid.window, kernel=KERNEL, tokenizer="conv", block=0,
        ).to(place.device, place.dtype)  # fmt: skip
        used = [weight for key, weight in layer.named_parameters() if policy is affinity or "tokenizer" not in key]
        calls[name] = (lambda layer=layer: layer(x, stretch)[0], [x, *used])
    return calls


def forward(call: Call) -> Call:
    def run() -> None:
        with torch.no_grad():
            call()

    return run


def forward_backward(call: Call, by: list[Tensor]) -> Call:
    def run() -> None:
        out = call()
        torch.autograd.grad(out, by, torch.ones_like(out))

    return run


# --- measuring -----------------------------------------------------------------------------------------------------


def medians(calls: dict[str, Call], repeats: int, device: torch.device) -> dict[str, float]:
    """Seconds of each call: all of them in turn, `repeats` rounds after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(repeats + 1):
        for name, call in calls.items():
            wait(device)
            start = time.perf_counter()
            call()
            wait(device)
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def extra_bytes(call: Call, device: torch.device) -> int | None:
    """Peak memory beyond what was in use before: torch's allocator on CUDA, resident pages of the process on Linux."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL(None).malloc_trim(0)  # memory that was freed goes back, so that using it again counts
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    except (OSError, AttributeError):  # no Linux with glibc
        return None
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    """A size of this process, in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def measure(grid: Grid, place: Place, kernels: list[str], repeats: int) -> dict[str, Any]:
    """Seconds, GFLOP/s, memory and ratios of everything at one grid, forward and forward+backward."""
    calls = attention_calls(grid, place, kernels)
    layers = layer_calls(grid, place)
    result: dict[str, Any] = {"grid": str(grid), "share": grid.share, "skipped": {}}
    for direction in ("forward", "forward+backward"):
        backward = direction != "forward"
        runs = {
            name: forward_backward(call, by) if backward else forward(call)
            for name, (call, by) in (calls | layers).items()
        }
        scores = 3 * grid.attention_flop(grid.keys_read) / 4 / grid.channels * grid.heads * place.dtype.itemsize
        if backward and scores > PLAIN_BYTES:
            del runs["plain"]
            result["skipped"]["plain, backward"] = f"would keep {scores / 2**30:.0f} GiB of scores"
        seconds = medians(runs, repeats, place.device)
        result[direction] = {
            name: {"seconds": spent, "extra_bytes": extra_bytes(runs[name], place.device)}
            | _ratios(name, seconds, grid, backward)
            for name, spent in seconds.items()
        }
    return result


def _ratios(name: str, seconds: dict[str, float], grid: Grid, backward: bool) -> dict[str, float]:
    """GFLOP/s (backward counts 5 products for forward's 2), and seconds over the limits."""
    keys = grid.frames * grid.tokens if name == "dense" else grid.keys_read
    flop = grid.layer_flop("dense" in name) if "layer" in name else grid.attention_flop(keys)
    passes = (3.0 if "layer" in name else 3.5) if backward else 1.0  # a layer's projections: 2 more, its attention 2.5
    found = {"gflops": passes * flop / seconds[name] / 1e9}
    if name == "layer":
        found["times_faster_than_dense"] = seconds["dense layer"] / seconds["layer"]
        found["possible"] = grid.layer_flop(dense=True) / grid.layer_flop(dense=False)
    elif "layer" not in name:
        found["over_share"] = seconds[name] / (seconds["dense"] * grid.share)
        found["over_pre_gathered"] = seconds[name] / seconds["pre-gathered"]
    return found


def growth(grid: Grid, place: Place, repeats: int, frames: tuple[int, ...] = GROWTH_FRAMES) -> dict[str, Any]:
    """Seconds of `fast` by number of frames, and the exponent of a power law through them (least squares)."""
    result: dict[str, Any] = {"grid": str(grid), "frames": list(frames)}
    runs: dict[str, Call] = {}
    for many in frames:
        call, by = attention_calls(Grid(**asdict(grid) | {"frames": many}), place, ["auto"])["fast"]
        runs |= {f"forward {many}": forward(call), f"forward+backward {many}": forward_backward(call, by)}
    seconds = medians(runs, repeats, place.device)
    for direction in ("forward", "forward+backward"):
        spent = [seconds[f"{direction} {many}"] for many in frames]
        result[direction] = {
            "seconds": spent,
            "exponent": slope([math.log(n) for n in frames], [math.log(s) for s in spent]),
        }
    return result


def slope(x: list[float], y: list[float]) -> float:
    """Of the least-squares line."""
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True)) / sum((a - middle_x) ** 2 for a in x)


def usable(names: list[str], grid: Grid, place: Place) -> tuple[list[str], dict[str, str]]:
    """Kernels that run here, and why the others do not."""
    works, skipped = [], {}
    for name in names:
        try:
            backends.check_backend(name, place.device, place.dtype, grid.channels // grid.heads, backward=True)
            works.append(name)
        except UsageError as error:
            skipped[name] = f"{error}"
    return works, skipped


# --- reporting -----------------------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> str:
    """One grid as a Markdown table."""
    lines = [f"\n**{result['grid']}**, {result['share']:.1%} of the keys read", ""]
    lines += ["| | what | ms | GFLOP/s | extra MiB | over share | over pre-gathered |", "|---|---|---|---|---|---|---|"]
    for direction in ("forward", "forward+backward"):
        for name, row in result[direction].items():
            extra = "" if row["extra_bytes"] is None else f"{row['extra_bytes'] / 2**20:.0f}"
            ratios = [f"{row[key]:.2f}" if key in row else "" for key in ("over_share", "over_pre_gathered")]
            cells = [direction, name, f"{row['seconds'] * 1e3:.1f}", f"{row['gflops']:.0f}", extra, *ratios]
            lines.append("| " + " | ".join(cells) + " |")
    for direction in ("forward", "forward+backward"):
        row = result[direction]["layer"]
        lines.append(
            f"\n{direction}: the whole layer is {row['times_faster_than_dense']:.1f} times faster than a dense one, "
            f"of {row['possible']:.1f} possible."
        )
    return "\n".join(lines + [f"\nnot measured: {name} ({reason})" for name, reason in result["skipped"].items()])


def machine(place: Place) -> dict[str, Any]:
    name = torch.cuda.get_device_name(place.device) if place.device.type == "cuda" else platform.machine()
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__, "dtype": str(place.dtype)}


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", help=f"with commas between; default {CPU_GRIDS}, on CUDA {CUDA_GRIDS}")
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count (default 3)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64", "bfloat16", "float16"])
    parser.add_argument("--kernels", help="names of hmcli.core.backends; default auto, on CUDA all of torch's")
    parser.add_argument("--growth", default=",".join(map(str, GROWTH_FRAMES)), help="numbers of frames; empty: none")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything measured here too")
    return parser


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    given = options().parse_args(arguments)
    place = Place(device=torch.device(given.device), dtype=getattr(torch, given.dtype))
    cuda = place.device.type == "cuda"
    torch.manual_seed(0)
    names = (given.kernels or (",".join(backends.NAMES) if cuda else "auto")).split(",")
    results: dict[str, Any] = {"machine": machine(place), "grids": [], "growth": None}
    print(results["machine"])
    grids = [Grid.parse(text) for text in (given.grids or (CUDA_GRIDS if cuda else CPU_GRIDS)).split(",")]
    for grid in grids:
        works, skipped = usable(names, grid, place)
        result = measure(grid, place, works, given.repeats)
        result["skipped"] |= skipped
        results["grids"].append(result)
        print(table(result), flush=True)
    if given.growth:
        frames = tuple(int(number) for number in given.growth.split(","))
        results["growth"] = found = growth(grids[-1], place, given.repeats, frames)
        exponents = ", ".join(f"{way} {found[way]['exponent']:.3f}" for way in ("forward", "forward+backward"))
        print(f"\ngrowth with the number of frames, {given.growth} at {grids[-1]}: exponent {exponents}")
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
