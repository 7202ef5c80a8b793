"""How much of a training step is arithmetic that no form of it could leave out?

    python benchmarks/step.py                                   # nano/base, eight clips
    python benchmarks/step.py --recipe nano/hydra --set train.batch=4 --set train.draws=4 --json step.json

The products of matrices of one step are written down as they run: of linear layers, convolutions and attention, forward
and backward. Each of its sizes is then timed alone, on matrices that lie ready. `share` is the time of all of them
together over the time of the step: 1 where nothing but products took time, and every one of them was as fast as alone.
Rounds of steps and products alternate (`--repeats`); medians are reported. Clips are random numbers of the recipe's
shape, and cameras that pan.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hmcli.contracts import TIME_STRIDE
from hmcli.core.flow import make_schedule
from hmcli.core.retrieval import RetrievalInputs
from hmcli.core.transformer import HydraTransformer3DModel
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import Recipe
from hmcli.stages.models.folders import build_model
from hmcli.stages.training.learning import freeze
from hmcli.stages.training.muon import is_block_matrix, make_optimizers
from hmcli.stages.training.objective import Batch, ask, loss_of
from hmcli.world.views.cameras import relative_camera_rows

FRAMES = (77, 33)  # of context and target, as nano's clips
TEXT_DIM = 64
PAN = math.radians(4)  # of the camera from one latent frame to the next


@dataclasses.dataclass(frozen=True)
class Product:
    """`batch` products of (rows, inner) by (inner, columns)."""

    batch: int
    rows: int
    inner: int
    columns: int
    dtype: torch.dtype

    @property
    def flop(self) -> float:
        return 2.0 * self.batch * self.rows * self.inner * self.columns

    def ready(self) -> Callable[[], Tensor]:
        left = torch.randn(self.batch, self.rows, self.inner).to(self.dtype)
        right = torch.randn(self.batch, self.inner, self.columns).to(self.dtype)
        if self.batch == 1:
            left, right = left[0], right[0]
        return lambda: left @ right


class Products(TorchDispatchMode):
    """Counts the products of whatever runs in it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.update(products_of(func.overloadpacket.__name__, args))
        return func(*args, **(kwargs or {}))


def products_of(name: str, args: tuple[Any, ...]) -> Iterable[Product]:
    """The products of matrices behind one operation of torch."""
    if name in ("mm", "addmm", "bmm", "baddbmm"):
        left, right = args[-2:] if name in ("mm", "bmm") else args[1:3]
        batch = left.shape[0] if left.ndim == 3 else 1
        yield Product(batch, left.shape[-2], left.shape[-1], right.shape[-1], left.dtype)
    elif name in ("convolution", "_convolution"):
        yield unfolded(args[0], args[1])
    elif name == "convolution_backward":
        whole = unfolded(args[1], args[2])
        yield dataclasses.replace(whole, rows=whole.inner, inner=whole.rows)  # of the weights
        if args[-1][0]:
            yield dataclasses.replace(whole, inner=whole.columns, columns=whole.inner)  # of the input
    elif name.startswith("_scaled_dot_product"):
        backward = name.endswith("_backward")
        query, keys = args[1:3] if backward else args[:2]
        yield from attention(query, keys.shape[2], 5 if backward else 2)


def unfolded(x: Tensor, weight: Tensor) -> Product:
    """A convolution whose kernels do not overlap, as one product."""
    positions = x.shape[0] * math.prod(n // k for n, k in zip(x.shape[2:], weight.shape[2:], strict=True))
    return Product(1, positions, math.prod(weight.shape[1:]), weight.shape[0], x.dtype)


def attention(query_BHND: Tensor, keys: int, products: int) -> list[Product]:
    """Scores and values forward; backward scores again, and the gradients of all four."""
    batch, heads, queries, width = query_BHND.shape
    scores = Product(batch * heads, queries, width, keys, query_BHND.dtype)
    values = dataclasses.replace(scores, inner=keys, columns=width)
    return [scores, values] if products == 2 else [scores, scores, values, *gradients_of(scores)]


def gradients_of(scores: Product) -> list[Product]:
    """Of keys and of values: scores, or their gradients, from the other side."""
    return [dataclasses.replace(scores, rows=scores.columns, inner=scores.rows, columns=scores.inner)] * 2


# --- a step ----------------------------------------------------------------------------------------------------------


def make_step(recipe: Recipe) -> Callable[[], None]:
    """One step of `hm train` on random clips: loss, gradients, clipping, optimizer."""
    train, flow, channels = recipe.train, recipe.flow, recipe.codec.channels
    torch.manual_seed(0)
    model = build_model(recipe, channels=channels, text_dim=TEXT_DIM).train()
    parameters = freeze(model, train)
    optimizers = make_optimizers(model, train, is_block_matrix if train.optimizer == "muon" else None)
    schedule = make_schedule(flow.timesteps, flow.shift, weighting=flow.weighting)
    batch = random_batch(recipe)
    inputs = random_inputs(recipe, model, batch)
    question = ask(batch, schedule, flow, context=recipe.model.memory.context, draws=train.draws, seed=0)
    narrow = torch.autocast("cpu", torch.bfloat16) if train.dtype == "bfloat16" else nullcontext()

    def step() -> None:
        with narrow:
            loss = loss_of(model, batch, question, flow, device="cpu", retrieval=inputs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, train.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


def random_batch(recipe: Recipe) -> Batch:
    context, target = (1 + (frames - 1) // TIME_STRIDE for frames in FRAMES)
    height, width = (side // recipe.codec.stride for side in recipe.data.size)
    many = recipe.train.batch
    poses = np.tile(np.eye(4), (context + target, 1, 1))
    turned = PAN * np.arange(context + target)
    poses[:, 0, 0] = poses[:, 2, 2] = np.cos(turned)
    poses[:, 0, 2] = np.sin(turned)
    poses[:, 2, 0] = -poses[:, 0, 2]
    camera = torch.tensor(relative_camera_rows(poses, poses[context]), dtype=torch.float32)
    return Batch(
        latents=torch.randn(many, recipe.codec.channels, context + target, height, width),
        camera=camera.expand(many, -1, -1).clone(), text=torch.randn(many, recipe.text.length, TEXT_DIM),
        context=context,
    )  # fmt: skip


def random_inputs(recipe: Recipe, model: HydraTransformer3DModel, batch: Batch) -> RetrievalInputs:
    """Lenses of 60 degrees, and slots of which half show the subject."""
    height, width = recipe.data.size
    focal = width / 2 / math.tan(math.radians(30))
    lens = torch.tensor([focal, focal, width / 2, height / 2]).expand(len(batch.latents), 4)
    slots = batch.latents.shape[2] // recipe.model.memory.kernel[0] + 1
    shows = torch.arange(slots).expand(len(batch.latents), -1) % 2
    return RetrievalInputs(
        intrinsics_B4=lens, image_size=(height, width), visibility_BM=shows, generator=torch.Generator().manual_seed(0)
    )


# --- measuring -------------------------------------------------------------------------------------------------------


def measure(recipe: Recipe, repeats: int) -> dict[str, Any]:
    step = make_step(recipe)
    step()  # tables, and the optimizer's first state
    with Products() as counted:
        step()
    calls = {product: product.ready() for product in counted.found}
    steps, alone = [], []
    for _ in range(repeats):
        steps.append(seconds_of(step))
        alone.append(sum(times * best_of(calls[product]) for product, times in counted.found.items()))
    flop = sum(times * product.flop for product, times in counted.found.items())
    return {
        "step_seconds": median(steps), "products_seconds": median(alone), "gflop": flop / 1e9,
        "share": median(a / s for a, s in zip(alone, steps, strict=True)), "products": sum(counted.found.values()),
        "step_gflops": flop / 1e9 / median(steps), "products_gflops": flop / 1e9 / median(alone),
    }  # fmt: skip


def best_of(call: Callable[[], Any], times: int = 3) -> float:
    return min(seconds_of(call) for _ in range(times))


def seconds_of(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="nano/base")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    recipe = load_recipe(asked.recipe, ["train.batch=8", "train.draws=2", *asked.sets])
    found = measure(recipe, asked.repeats)
    print(f"{asked.recipe}: {found['step_seconds']:.2f} s a step, {found['gflop']:.0f} GFLOP in products of matrices")
    print(f"products alone: {found['products_seconds']:.2f} s, {found['products_gflops']:.0f} GFLOP/s")
    print(f"share of a step: {found['share']:.2f}")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
