"""Tensors without memory: what comes out of an operation is like what comes out of the real one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hmcli.stages.planning.ledger import Ledger
from hmcli.stages.planning.weightless import Making, Weightless, storage_of


def channels_last(x: Tensor) -> Tensor:
    """(2, 6, 6, 8) -> (2, 8, 6, 6), in the order of memory it had."""
    return x.permute(0, 3, 1, 2)


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "sum": lambda x, w: x + x.mean(dim=1, keepdim=True),
    "product": lambda x, w: functional.linear(x, w),
    "of another order": lambda x, w: functional.linear(x.transpose(1, 2), w),
    "convolution": lambda x, w: functional.conv2d(x.flatten(0, 1)[:, None], w[None, None, :3, :3]),
    "channels last": lambda x, w: functional.conv2d(channels_last(x), w[:, :, None, None]),
    "attention": lambda x, w: functional.scaled_dot_product_attention(x, x, x),
    "several": lambda x, w: x.topk(3, dim=-1),
    "narrow": lambda x, w: (x.bfloat16(), x.bfloat16() @ w.bfloat16()),
    "mixed with memory": lambda x, w: x[:, torch.tensor([0, 2])] * torch.full((6, 8), 2.0),
    "norm": lambda x, w: functional.layer_norm(x, (8,)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_results_are_like_real_ones_the_first_time_and_the_second(name: str):
    run = OPERATIONS[name]
    real, weights = torch.randn(2, 6, 6, 8, requires_grad=True), torch.randn(8, 8, requires_grad=True)
    with Making():
        bare, bare_weights = torch.zeros(2, 6, 6, 8).requires_grad_(), torch.zeros(8, 8).requires_grad_()
    there = [like(each) for each in flat(run(real, weights))]
    for _ in range(2):
        out = flat(run(bare, bare_weights))
        assert [like(each) for each in out] == there
        assert all(isinstance(each, Weightless) for each in out)


def flat(value: Any) -> list[Tensor]:
    return list(value) if isinstance(value, tuple) else [value]


def like(tensor: Tensor) -> Any:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad


def test_gradients_are_as_large_as_their_tensors_and_checks_of_numbers_pass():
    with Making():
        x, w = torch.zeros(2, 3, 5), torch.zeros(5, 5).requires_grad_()
    out = functional.conv1d(torch.tanh(x @ w), w[:3, :3, None])
    out.square().sum().backward()
    assert w.grad is not None
    assert like(w.grad)[:2] == ((5, 5), (5, 1))
    assert bool(torch.isfinite(out).all())
    assert out.sum().item() == 0


def test_views_and_writing_take_no_memory_of_their_own():
    with Making():
        x = torch.zeros(4, 6)
    ledger = Ledger()
    with ledger:
        y = x.mul_(2)
        views = x.T.reshape(6, 2, 2), x[1:], torch.ops.aten._unsafe_view(x, [24])
        copied = x.T.reshape(24)
    assert y is x
    assert {storage_of(view)._cdata for view in views} == {storage_of(x)._cdata}
    assert ledger.total == 2 * copied.nbytes == 2 * 24 * 4
