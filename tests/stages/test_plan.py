"""`hm plan`: numbers that are known before anything runs, against the same ones derived or measured another way."""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from hmcli.errors import UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import Recipe
from hmcli.runtime import Heard
from hmcli.stages.models.folders import PACKAGED, build_model
from hmcli.stages.planning import plan
from hmcli.stages.planning.ledger import Ledger
from hmcli.stages.planning.rehearsal import loss_in, panning, set_up, training_account, whole_step
from hmcli.stages.planning.remedies import remedies
from hmcli.stages.planning.runs import context_account, denoising_account, kept_bytes, vae_account
from hmcli.stages.planning.shapes import shape_of
from hmcli.stages.planning.wording import duration, size
from hmcli.stages.shared.devices import CONTEXT, DEVICES, GIB, Device
from hmcli.stages.training.train import check_shares
from hmcli.store.weights import load_state_dict

DIM, FFN, LAYERS, TEXT, CHANNELS = 24, 32, 1, 64, 16
SMALL = [
    f"model.layers={LAYERS}", f"model.dim={DIM}", "model.heads=2", f"model.ffn_dim={FFN}", "model.freq_dim=8",
    "world.context_frames=17", "world.target_frames=13", "data.size=[32, 48]", "text.length=5", "train.batch=2",
    "model.memory.top_k=1", "world.clips=6",
]  # fmt: skip


NO_VAE = ["codec.name=blocks", "codec.stride=4", "data.size=[16, 24]"]  # a step of it is not rehearsed


def small(*more: str) -> Recipe:
    return load_recipe(None, [*SMALL, *more])


def test_parameters_are_those_of_the_layers_added_up():
    cell, linear = 1 * 2 * 2 // 4 * 2, lambda i, o: i * o + o  # the kernel 2x2x2 is 2x1x1 patch tokens
    block = (
        8 * linear(DIM, DIM)  # query, key, value and output of both attentions
        + linear(DIM, DIM)  # projector
        + 2 * linear(12, DIM)  # camera of context and target
        + 4 * DIM  # norms of queries and keys, both attentions
        + 2 * DIM  # norm2
        + cell * DIM * DIM + DIM  # tokenizer
        + linear(DIM, FFN) + linear(FFN, DIM) + 6 * DIM
    )  # fmt: skip
    ends = (
        linear(CHANNELS * 4, DIM) + linear(DIM, CHANNELS * 4) + 2 * DIM  # patches in and out, last modulation
        + linear(8, DIM) + linear(DIM, DIM) + linear(DIM, 6 * DIM)  # timestep
        + linear(TEXT, DIM) + linear(DIM, DIM)
    )  # fmt: skip
    account = training_account(small(), shape_of(small()), on_cpu=True)
    assert account.parameters == LAYERS * block + ends
    assert (account.weights, account.gradients) == (4 * account.parameters, 4 * account.parameters)


def test_what_trains_takes_gradients_two_moments_and_an_average():
    recipe = small("train.train_only=[attn1]", "train.ema=0.9")
    account = training_account(recipe, shape_of(recipe), on_cpu=True)
    model = build_model(recipe, channels=CHANNELS, text_dim=TEXT)
    trained = [p for name, p in model.named_parameters() if "attn1" in name]
    count = sum(p.numel() for p in trained)
    assert account.trained == count
    assert (account.gradients, account.average) == (4 * count, 4 * count)
    assert account.optimizer == 8 * count + 4 * len(trained)  # a step counter each


@pytest.mark.parametrize("more", [(), ("train.lora={rank: 2}",)])
def test_activations_are_what_autograd_saves_in_a_real_step(more: tuple[str, ...]):
    recipe = small(*more)
    shape = shape_of(recipe)
    stage = set_up(recipe, shape, on_cpu=True)
    given = [*stage.model.parameters(), stage.batch.latents, stage.batch.text, stage.batch.camera]
    known = {tensor.untyped_storage().data_ptr() for tensor in given}
    saved: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()  # the last block's is let go in part

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage] = 0 if storage.data_ptr() in known else storage.nbytes()
        return tensor.detach()  # the tensor itself would hold on to its own past

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_in(recipe, stage)
    account = training_account(recipe, shape, on_cpu=True)
    assert loss.isfinite()
    assert account.activations == pytest.approx(sum(saved.values()), rel=0.001)
    assert account.activations > 100_000


def test_a_ledger_counts_what_lives_and_forgets_what_is_gone():
    ledger = Ledger()
    with ledger:
        first = torch.zeros(1000)
        second = first + 1
        view = second[:10]
        del first
        third = second @ second
    assert (ledger.total, ledger.peak) == (4000 + 4, 8000)
    assert ledger.flop == 0  # a dot product is not one of matrices
    with ledger:
        torch.zeros(3, 4) @ torch.zeros(4, 5)
    assert ledger.flop == 2 * 3 * 4 * 5
    del second, third
    assert ledger.total == 4000
    del view
    assert ledger.total == 0


@pytest.mark.parametrize("more", [(), ("model.memory.policy=frames-fov", "model.memory.context=joint")])
def test_one_and_two_blocks_tell_of_four(more: tuple[str, ...]):
    recipe = small("model.layers=4", *more)
    line, whole = (of(recipe, shape_of(recipe), on_cpu=True) for of in (training_account, whole_step))
    assert line.parameters == whole.parameters
    for name in ("activations", "forward", "backward", "update", "flop"):
        assert getattr(line, name) == pytest.approx(getattr(whole, name), rel=0.02), name


def test_flop_of_a_step_are_three_of_an_evaluation_and_checkpointing_adds_one():
    recipe = small("model.memory.context=joint", "train.batch=1")
    shape = shape_of(recipe)
    evaluation = denoising_account(recipe, shape, on_cpu=True).flop
    plain = training_account(recipe, shape, on_cpu=True)
    recipe = small("model.memory.context=joint", "train.batch=1", "train.gradient_checkpointing=true")
    checkpointed = training_account(recipe, shape, on_cpu=True)
    assert plain.flop == pytest.approx(3 * evaluation, rel=0.1)
    assert checkpointed.flop == pytest.approx(4 * evaluation, rel=0.1)
    assert checkpointed.activations < plain.activations / 3


def test_kept_memory_is_as_large_as_that_of_a_real_model():
    recipe = small()
    shape = shape_of(recipe)
    model = build_model(recipe, channels=CHANNELS, text_dim=TEXT)
    with torch.no_grad():
        memory = model.encode_context(torch.randn(1, CHANNELS, 5, 4, 6), panning(1, shape)[:, :5])
    assert context_account(recipe, shape, on_cpu=True).kept == kept_bytes(memory) > 0


def test_the_vae_is_the_packaged_one_and_longer_videos_cost_more():
    if not (PACKAGED / "vae").is_dir():
        pytest.skip("this checkout has no packaged weights")
    short, long = small(), small("world.target_frames=49")
    one, two = vae_account(short, shape_of(short)), vae_account(long, shape_of(long))
    assert one is not None
    assert two is not None
    assert one.parameters == sum(part.numel() for part in load_state_dict(PACKAGED / "vae").values())
    assert two.encode_flop > 2 * one.encode_flop > 0
    assert two.encode_peak < 1.05 * one.encode_peak  # a video is encoded in pieces
    blocks = small("codec.name=blocks", "codec.stride=4")
    assert vae_account(blocks, shape_of(blocks)) is None


def test_what_does_not_fit_is_told_with_changes_that_make_it_fit():
    recipe = small("train.batch=8")
    shape = shape_of(recipe)

    @cache
    def peak_of(changed: Recipe) -> float:
        return plan.planned_peak(changed, shape, world=1, on_cpu=True)

    found = remedies(recipe, peak_of(small("train.batch=3", "train.gradient_checkpointing=true")), peak_of)
    assert found[0].change == "train.gradient_checkpointing=true"
    assert "train.accumulate" in found[-1].change
    assert [each.fits for each in found] == [False] * (len(found) - 1) + [True]
    peaks = [peak_of(recipe), *(each.peak for each in found)]
    assert peaks == sorted(peaks, reverse=True)
    changed = load_recipe(None, [*SMALL, "train.batch=8", *(each.change for each in found)])
    assert peak_of(changed) == found[-1].peak


def test_a_plan_says_what_to_change_on_a_device_that_is_too_small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(DEVICES, "h100", Device(name="h100", memory=CONTEXT + 1000, rates=DEVICES["h100"].rates))
    told = plan.run([("mine", small(*NO_VAE))], latents=None, world=1, on_device="h100", timed=False, reporter=_Quiet())
    assert "no: " in told.text
    assert "--set 'train.gradient_checkpointing=true'" in told.text


class _Quiet:
    """A reporter that says nothing."""

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def progress(self, what: str, total: int, unit: str) -> Any:
        return nullcontext(lambda count: None)


def test_ranks_share_the_clips_of_a_step_and_may_share_the_model():
    recipe = small("train.batch=4", *NO_VAE)
    told = plan.run([("mine", recipe)], latents=None, world=4, on_device="a100", timed=False, reporter=_Quiet())
    (four,) = told.data["plans"]
    one = plan.planned_peak(recipe, shape_of(recipe), world=1, on_cpu=False)
    assert four["clips_at_once"] == 1
    assert four["memory"]["peak"] < one / 2
    assert four["memory"]["peak_with_sharding"] < four["memory"]["peak"]
    spread = small("train.batch=4", "train.parallel=fsdp", *NO_VAE)
    asked = plan.planned_peak(spread, shape_of(spread), world=4, on_cpu=False)
    assert asked == four["memory"]["peak_with_sharding"]
    out = small("train.batch=4", "train.parallel=fsdp", "train.offload=true", *NO_VAE)
    beside = plan.planned_peak(out, shape_of(out), world=4, on_cpu=False)
    held = sum(four["memory"][part] for part in ("weights", "gradients", "optimizer", "average"))
    assert asked - beside == pytest.approx(held / 4)
    assert plan.planned_peak(out, shape_of(out), world=4, on_cpu=True) > beside, "a CPU has them anyway"
    assert four["disk"]["checkpoint"] == pytest.approx(12 * four["parameters"], rel=0.01)  # weights and two moments


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["frozen", "joint", "lora", "checkpointed", "codec", "segmenter"])
def test_planned_memory_is_within_15_percent_of_what_a_step_takes(project: Path, tmp_path: Path, name: str):
    script, found = project / "benchmarks" / "plan.py", tmp_path / "found.json"
    subprocess.run([sys.executable, script, "--only", name, "--json", found], check=True)
    (row,) = json.loads(found.read_text())
    assert row["measured"] > 1, "GiB: too small to tell"
    assert row["ratio"] == pytest.approx(1, abs=0.15)


def test_the_command_plans_a_folder_and_prints_the_sum(hm: Any, tmp_path: Path):
    folder = tmp_path / "recipes"
    folder.mkdir()
    for name, layers in (("one", 1), ("two", 2)):
        (folder / f"{name}.yaml").write_text(f"format: 1\nmodel: {{layers: {layers}}}\n")
    sets = [text for text in [*SMALL, *NO_VAE] if not text.startswith("model.layers")]
    more = [part for text in sets for part in ("--set", text)]
    done = hm("plan", folder, *more, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [each["recipe"].endswith(f"{name}.yaml") for each, name in zip(said["plans"], ("one", "two"), strict=True)]
    assert said["sum"]["seconds.train"] == pytest.approx(sum(each["times"]["train"] for each in said["plans"]))
    assert said["sum"]["highest_peak"] == said["plans"][1]["memory"]["peak"]


def test_devices_that_are_not_known_are_refused():
    with pytest.raises(UsageError, match="no rates are known"):
        plan.run([("mine", small())], latents=None, world=1, on_device="abacus", timed=False, reporter=_Quiet())
    with pytest.raises(UsageError, match="--timed"):
        plan.run([("mine", small())], latents=None, world=1, on_device="h100", timed=True, reporter=_Quiet())


def test_clips_are_whole_and_the_rank_with_most_of_them_says_how_long_all_take():
    def seconds(world: int) -> float:
        recipe = small("train.batch=4", "world.clips=5", *NO_VAE)
        told = plan.run([("mine", recipe)], latents=None, world=world, on_device="h100", timed=False, reporter=_Quiet())
        return float(told.data["plans"][0]["times"]["generate"])

    assert seconds(2) == pytest.approx(seconds(1) * 3 / 5)
    assert seconds(4) == pytest.approx(seconds(1) * 2 / 5)


@pytest.mark.parametrize(("recipe", "world"), [("train.batch=2", 4), ("train.parallel=fsdp", 1)])
def test_a_plan_says_what_training_would_refuse(recipe: str, world: int):
    heard = Heard()
    planned = small(recipe, *NO_VAE)
    plan.run([("mine", planned)], latents=None, world=world, on_device="h100", timed=False, reporter=heard)
    with pytest.raises(UsageError) as refused:
        check_shares(planned.train, world)
    assert [refused.value.what in text for _, text in heard.said] == [True]


def test_a_timed_step_stands_for_all_steps():
    told = plan.run(
        [("mine", small("train.steps=10", *NO_VAE))],
        latents=None,
        world=1,
        on_device="here",
        timed=True,
        reporter=_Quiet(),
    )
    times = told.data["plans"][0]["times"]
    assert times["timed"] is True
    assert times["train"] == pytest.approx(10 * times["step"])


@pytest.mark.parametrize(("count", "text"), [(5, "5 B"), (5.4 * GIB, "5.4 GiB"), (1023, "1023 B"), (2048, "2 KiB")])
def test_sizes_are_read_in_units_that_suit_them(count: float, text: str):
    assert size(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(1.5, "1.5 s"), (600, "10 min"), (7200 * 2, "4 h"), (864000, "10 days")])
def test_times_are_read_in_units_that_suit_them(seconds: float, text: str):
    assert duration(seconds) == text
