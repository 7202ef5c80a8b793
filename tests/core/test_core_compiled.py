"""Compiled blocks compute what plain ones do, forward and backward; where nothing can compile, that is said first."""

from __future__ import annotations

import functools
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.small import CONTEXT, small_clip, small_model
from torch._dynamo.utils import counters
from torch._inductor import cpp_builder

from hmcli.core.compiled import check_compiler, compile_blocks
from hmcli.core.flow import make_schedule
from hmcli.core.sampler import denoise
from hmcli.errors import MissingPartError

GRAPHS = 4  # of a run: before and after the reading of memory, each in attention and in the block around it


@pytest.fixture(autouse=True)
def afresh() -> None:
    torch._dynamo.reset()
    counters.clear()


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch, of its own
def test_compiled_blocks_train_as_plain_ones_do_and_all_have_the_same_graphs():
    clip, found = small_clip(), []
    for compiled in (False, True):
        model = small_model(policy="affinity", context="joint")
        names = list(model.state_dict())
        if compiled:
            compile_blocks(model, backend="aot_eager")
        flow = model(**clip, num_context_frames=CONTEXT, return_dict=False)[0]
        flow.square().sum().backward()
        found.append([flow, *(p.grad for p in model.parameters() if p.grad is not None)])
        assert list(model.state_dict()) == names
    assert len(found[0]) == len(found[1])
    assert all(torch.allclose(a, b, rtol=0, atol=1e-11) for a, b in zip(*found, strict=True))
    assert counters["stats"]["unique_graphs"] == GRAPHS


def test_context_that_is_run_once_for_all_steps_is_the_same_bits_whoever_runs_it():
    clip = small_clip()
    hidden, text, camera = (clip[name] for name in ("hidden_states", "encoder_hidden_states", "camera"))
    model, memories = small_model(policy="affinity", context="frozen"), []
    for compiled in (False, True):
        if compiled:
            compile_blocks(model, backend="eager")
        with torch.no_grad():
            memories.append(model.encode_context(hidden[:, :, :CONTEXT], camera[:, :CONTEXT]))
    assert not counters["stats"]
    assert torch.equal(*(memory.blocks[-1].descriptors_BMC for memory in memories))
    target = denoise(
        model, hidden[:, :, CONTEXT:], schedule=make_schedule(2, 3.0), camera=camera[:, CONTEXT:], text=text,
        memory=memories[0],
    )  # fmt: skip
    assert counters["stats"]["unique_graphs"] == GRAPHS
    plain: Any = small_model(policy="affinity", context="frozen")
    same = denoise(plain, hidden[:, :, CONTEXT:], schedule=make_schedule(2, 3.0), camera=camera, text=text,
                   context=hidden[:, :, :CONTEXT])  # fmt: skip
    assert torch.allclose(target, same, rtol=0, atol=1e-11)


def test_where_no_compiler_is_installed_the_error_says_which_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    check_compiler("sample.compile", "cpu")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "nowhere")
    monkeypatch.setattr(
        cpp_builder, "cpp_compiler_search", functools.cache(cpp_builder.cpp_compiler_search.__wrapped__)
    )
    with pytest.raises(MissingPartError, match="needs a C") as caught:
        check_compiler("sample.compile", "cpu")
    assert "sample.compile=none" in str(caught.value)
    with pytest.raises(MissingPartError, match="Triton"):
        check_compiler("train.compile", "cuda")


def test_pythons_headers_are_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    with pytest.raises(MissingPartError, match=r"Python.h"):
        check_compiler("train.compile", "cpu")
