"""train.parallel=fsdp: shares of a model on every rank, in checkpoints for any number of ranks, without pickle."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule
from torch.distributed.tensor import DTensor
from training_runs import alive, apart, lines, ranks_of, rows, sets, training_of
from warm import WarmCommand, ok, wait_for

from hmcli.core.transformer import HydraTransformer3DModel
from hmcli.errors import DataError
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.latents.view import open_latents
from hmcli.stages.models.folders import build_model, model_arguments
from hmcli.stages.training.checkpoints import read_checkpoint
from hmcli.stages.training.ranks import Ranks
from hmcli.stages.training.sharded import SHARES, read_shares
from hmcli.stages.training.sharded import whole as put_together
from hmcli.stages.training.together import Objective, together
from hmcli.stages.training.train import as_encoded
from hmcli.stages.training.trainer import prepare_training

FSDP = ["--num-processes", "2", "--set", "train.parallel=fsdp"]
COMMON = sets("train.checkpoint_every=2", "train.ema=0.9")
LONG = [*COMMON, "--set", "train.steps=6"]


@pytest.fixture(scope="module")
def whole(hm: WarmCommand, nano: Path, latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sharded run that was never stopped."""
    place = tmp_path_factory.mktemp("sharded") / "whole"
    done = hm("train", nano, "--latents", latents, "--out", place, *LONG, *FSDP)
    assert "Warning" not in done.stderr
    return ok(done)


@pytest.mark.parametrize(
    "settings",
    [
        ["train.draws=2", "train.older=5", "train.accumulate=2"],
        ["model.memory.context=joint", "model.memory.policy=none", "train.gradient_checkpointing=true"],
    ],
    ids=["frozen, in pieces", "joint, checkpointed, with unused weights"],
)  # fmt: skip
def test_shares_have_the_gradients_of_one_rank(
    hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path, settings: list[str]
):
    common = ["train.steps=1", "train.batch=4", "train.clip_norm=1e9", *settings]
    line = ["train", nano, "--latents", latents, *sets(*common)]
    mine = 2 if "train.accumulate=2" in settings else 1
    one = [setting for setting in common if "accumulate" not in setting]
    pieces = sets(*one, f"train.accumulate={2 * mine}")
    alone = ok(hm("train", nano, "--latents", latents, *pieces, "--out", tmp_path / "alone"))
    shared = ok(hm(*line, "--out", tmp_path / "shared", *FSDP))
    model = training_of(nano, latents, *common).model
    found = read_shares(shared / "checkpoints/000001", model)
    wanted = load_file(alone / "checkpoints/000001/training_state.safetensors")
    gradients = [name for name in wanted if name.startswith("optimizer.exp_avg.")]
    assert len(gradients) > 10
    assert {name for name in found if name.startswith("optimizer.")} == {n for n in wanted if n.startswith("optim")}
    assert {name: far for name in gradients if (far := apart(found[name], wanted[name])) > 1e-6} == {}


def shares(run: Path) -> list[dict[str, torch.Tensor]]:
    """The tensors of each file of the last checkpoint; the order in its header is not always the same."""
    return [load_file(file) for file in sorted((run / "checkpoints/000006").rglob("*.safetensors"))]


def test_a_sharded_run_that_was_killed_ends_with_the_same_losses_and_weights(
    hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path, whole: Path
):
    line = ["train", nano, "--latents", latents, "--out", tmp_path / "run", *LONG, *FSDP]
    running = hm.start(*line)
    wait_for(lambda: len(lines(tmp_path / "run")) >= 3)
    children = ranks_of(running.pid)
    running.send_signal(signal.SIGKILL)
    running.wait()
    wait_for(lambda: not any(alive(child) for child in children))
    again = hm(*line)
    assert "going on from step 2" in again.stderr
    assert rows(ok(again)) == rows(whole)
    for found, wanted in zip(shares(tmp_path / "run"), shares(whole), strict=True):
        assert found.keys() == wanted.keys()
        assert [name for name in found if not torch.equal(found[name], wanted[name])] == []


def test_shares_of_two_ranks_are_the_state_of_the_model(nano: Path, latents: Path, whole: Path):
    """The average generates, as in any checkpoint."""
    folder = whole / "checkpoints/000006"
    assert len(list((folder / SHARES).iterdir())) == 2
    found = read_shares(folder, training_of(nano, latents).model)
    generates = load_file(folder / "transformer/diffusion_pytorch_model.safetensors")
    averages = {name.removeprefix("average."): value for name, value in found.items() if name.startswith("average.")}
    assert averages.keys() == generates.keys()
    assert [name for name in averages if not torch.equal(averages[name], generates[name])] == []
    assert any(not torch.equal(value, found[f"weights.{name}"]) for name, value in averages.items())


@pytest.mark.parametrize(
    "onward",
    [["--num-processes", "3", "--set", "train.parallel=fsdp"], []],
    ids=["three ranks", "one process"],
)
def test_a_sharded_run_goes_on_in_another_number_of_ranks(
    hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path, onward: list[str]
):
    line = ["train", nano, "--latents", latents, *COMMON, "--set", "train.batch=3"]
    begun = ok(hm(*line, "--out", tmp_path / "run", *FSDP, "--set", "train.steps=4"))
    line += ["--set", "train.steps=6"]
    then = hm(*line, "--out", begun, *onward)
    assert "going on from step 4" in then.stderr
    plain = ok(hm(*line, "--out", tmp_path / "plain"))
    for found, wanted in zip(rows(ok(then)), rows(plain), strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-4)
        assert found["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-3)


def test_a_run_of_whole_models_goes_on_sharded(hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path, whole: Path):
    line = ["train", nano, "--latents", latents, "--out", tmp_path / "run", *COMMON]
    ok(hm(*line, "--set", "train.steps=4"))
    then = hm(*line, "--set", "train.steps=6", *FSDP)
    assert "going on from step 4" in then.stderr
    for found, wanted in zip(rows(ok(then)), rows(whole), strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-4)


class Trap:
    """Unpickled, it would leave a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


def test_nothing_that_is_read_of_shares_can_run_code(nano: Path, latents: Path, whole: Path, tmp_path: Path):
    """Pickles where DCP's own storage has them are not looked at; in place of a share one is refused."""
    folder = shutil.copytree(whole / "checkpoints/000006", tmp_path / "checkpoint")
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    for name in (".metadata", "__0_0.distcp", "__1_0.distcp", "metadata.pt"):
        (folder / SHARES / name).write_bytes(trap)
        (folder / name).write_bytes(trap)
    (folder / "training_state.pt").write_bytes(trap)
    training = training_of(nano, latents, "train.ema=0.9")
    parts = (training.model, training.optimizers, training.average)
    assert read_checkpoint(folder, *parts, training.recipe.seed) == 6
    for share in sorted((folder / SHARES).glob("*.safetensors")):
        share.write_bytes(trap)
    with pytest.raises(DataError, match="shares of the training state cannot be read"):
        read_checkpoint(folder, *parts, training.recipe.seed)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(trap)
    assert (tmp_path / "sprung").exists(), "it is a trap indeed"


def test_a_share_that_is_gone_is_an_error(nano: Path, latents: Path, whole: Path, tmp_path: Path):
    folder = shutil.copytree(whole / "checkpoints/000006", tmp_path / "checkpoint")
    sorted((folder / SHARES).iterdir())[1].unlink()
    training = training_of(nano, latents, "train.ema=0.9")
    with pytest.raises(DataError, match="shares of the training state cannot be read"):
        read_checkpoint(folder, training.model, training.optimizers, training.average, training.recipe.seed)


def test_what_sharding_cannot_do_is_refused(hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path):
    line = ["train", nano, "--latents", latents, "--out", tmp_path / "run"]
    for settings, said in (
        ([*FSDP, "--set", "train.optimizer=muon"], "train.parallel=fsdp with train.optimizer=muon"),
        ([*FSDP, "--set", "train.lora={rank: 2}"], "train.parallel=fsdp with train.lora"),
        (FSDP[2:], "divides a model among ranks, and there is one"),
        (["--set", "train.offload=true"], "train.offload=true needs train.parallel=fsdp"),
        ([*FSDP, "--set", "train.offload=true"], "on a CPU they are there"),
    ):
        refused = hm(*line, *settings)
        assert refused.returncode == 2
        assert said in refused.stderr


def _of_two(rank: int, meeting: Path, nano: Path, latents: Path, out: Path, settings: list[str]) -> None:
    """Two steps as one of two ranks; the first one writes the whole weights."""
    dist.init_process_group("gloo", store=dist.FileStore(str(meeting), 2), rank=rank, world_size=2)
    view = open_latents(latents)
    recipe = as_encoded(load_recipe(str(nano), ["train.parallel=fsdp", "train.batch=2", *settings]), view, Silent())
    training = prepare_training(recipe, view, "cpu", None, Silent(), Ranks(rank, 2))
    clips = [view.clip(view.ids()[number]) for number in range(2)]
    for step in range(2):
        training.step(training.prepare(step, clips))
    weights = put_together(dict(training.model.named_parameters()))
    if rank == 0:
        save_file({name: value.contiguous() for name, value in weights.items()}, out)
    blocks: Any = training.model.blocks
    moved = [isinstance(one._get_fsdp_state()._fsdp_param_group.offload_policy, CPUOffloadPolicy) for one in blocks]
    assert set(moved) == {recipe.train.offload}
    dist.destroy_process_group()


def test_shares_out_of_the_gpu_train_to_the_same_weights(nano: Path, latents: Path, tmp_path: Path):
    """On a CPU, where they lie in one memory: the way through torch's policy is the same."""
    found = []
    for number, settings in enumerate((["train.ema=0.9"], ["train.ema=0.9", "train.offload=true"])):
        meeting, out = tmp_path / f"meeting{number}", tmp_path / f"{number}.safetensors"
        arguments = (meeting, nano, latents, out, settings)
        ranks = [get_context("fork").Process(target=_of_two, args=(rank, *arguments)) for rank in range(2)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
        assert [rank.exitcode for rank in ranks] == [0, 0]
        found.append(load_file(out))
    assert found[0].keys() == found[1].keys()
    assert [name for name in found[0] if not torch.equal(found[0][name], found[1][name])] == []


@pytest.fixture
def thirty_two() -> Iterator[Ranks]:
    """Rank 5 of 32 on torch's process group for tests, whose exchanges do nothing."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=5, world_size=32)
    yield Ranks(5, 32)
    dist.destroy_process_group()


def test_of_the_papers_model_each_of_32_ranks_holds_a_32nd(thirty_two: Ranks):
    recipe = load_recipe("wan1.3b/hydra", ["train.parallel=fsdp"])
    with torch.device("meta"):
        model = HydraTransformer3DModel(**model_arguments(recipe, channels=16, text_dim=4096))
    total = sum(parameter.numel() for parameter in model.parameters())
    assert total > 1.4e9
    together(Objective(model, recipe, "cpu"), thirty_two, "cpu")
    shares = {name: p for name, p in model.named_parameters() if isinstance(p, DTensor)}
    assert len(shares) == len(list(model.parameters()))
    assert sum(p.numel() for p in shares.values()) == total
    held = sum(p.to_local().numel() for p in shares.values())
    assert held == pytest.approx(total / 32, rel=0.01)
    blocks: Any = model.blocks
    assert all(isinstance(block, FSDPModule) for block in blocks)
    largest = max(sum(p.numel() for p in block.parameters()) for block in blocks)
    assert largest < total / len(blocks)
    assert 4 * 4 * held < 2**30, "weights, gradients and moments of a rank, in bytes"


def test_a_step_of_32_ranks_runs_on_each_share(nano: Path, latents: Path, thirty_two: Ranks):
    view = open_latents(latents)
    settings = ["train.parallel=fsdp", "train.batch=32", "train.ema=0.5"]
    recipe = as_encoded(load_recipe(str(nano), settings), view, Silent())
    training = prepare_training(recipe, view, "cpu", None, Silent(), thirty_two)
    clips = [view.clip(view.ids()[number % 3]) for number in range(32)]
    whole = training.prepare(0, clips)
    assert whole.share(5, 32).clips == clips[5:6]
    local = sum(p.to_local().numel() for p in training.parameters if isinstance(p, DTensor))
    training._gradients(whole)
    gradients = [p.grad for p in training.parameters]
    assert all(isinstance(gradient, DTensor) for gradient in gradients)
    assert sum(gradient.to_local().numel() for gradient in gradients if isinstance(gradient, DTensor)) == local
    plain = build_model(recipe, channels=view.channels, text_dim=view.text_shape[1])
    assert local < 0.2 * sum(p.numel() for p in plain.parameters()), "weights of a small model divide badly"
