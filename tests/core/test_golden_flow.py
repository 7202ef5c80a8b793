"""Golden set e: the noise schedule, noising, Euler steps, loss weights, and rotary tables at head size 128."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from reference.golden import Golden, assert_close

from hmcli.core.flow import FlowSchedule, add_noise, euler_step, flow_target, make_schedule
from hmcli.core.rope import angles, axis_split, slot_times


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return Golden(shared, "e_scheduler")


@pytest.fixture(scope="module")
def training(golden: Golden) -> FlowSchedule:
    return make_schedule(int(golden["train.num_steps"]), float(golden["train.shift"]), weighting="bell")


@pytest.mark.parametrize("name", ["n50", "n4"])
def test_inference_schedules_agree(golden: Golden, name: str):
    steps, strength, shift = golden[f"{name}.steps_strength_shift"].tolist()
    schedule = make_schedule(int(steps), shift, strength=strength)
    assert torch.equal(schedule.sigmas, golden[f"{name}.sigmas"])
    assert torch.equal(schedule.timesteps, golden[f"{name}.timesteps"])
    assert torch.equal(schedule.timesteps.bfloat16().float(), golden[f"{name}.timesteps_bf16"])


def test_the_training_schedule_and_its_weights_agree(golden: Golden, training: FlowSchedule):
    assert torch.equal(training.sigmas, golden["train.sigmas"])
    assert torch.equal(training.timesteps, golden["train.timesteps"])
    assert (training.weights - golden["train.weights"]).abs().max() <= 1e-6  # of up to 1.6, by another exponential
    by_call = training.weights[training.nearest(training.timesteps)]
    assert (by_call - golden["train.weight_by_call"]).abs().max() <= 1e-6


def test_bfloat16_timesteps_find_the_released_grid_point(golden: Golden, training: FlowSchedule):
    coarse = training.timesteps.bfloat16()
    assert torch.equal(coarse.float(), golden["train.timesteps_bf16"])
    assert torch.equal(training.nearest(coarse), golden["train.bf16_timestep_maps_to_id"].long())


def test_noising_agrees_on_and_off_the_grid(golden: Golden, training: FlowSchedule):
    clean, noise, ids = golden["ex.clean"], golden["ex.noise"], golden["ex.train_ids"].long()
    assert torch.equal(flow_target(clean, noise, "noise_minus_clean"), golden["ex.target"])
    near = training.nearest(golden["ex.offgrid_timesteps"])
    for row, (at, off) in enumerate(zip(ids, near, strict=True)):
        assert torch.equal(add_noise(clean, noise, training.sigmas[at][None]), golden["ex.noisy"][row])
        assert torch.equal(add_noise(clean, noise, training.sigmas[off][None]), golden["ex.offgrid_noisy"][row])
    assert_close(training.weights[near], golden["ex.offgrid_weight"], 1e-5)


def test_euler_steps_agree(golden: Golden):
    schedule = make_schedule(50, 5.0)
    clean, flow, kind = golden["ex.clean"], golden["ex.model_output"], "noise_minus_clean"
    for row, step in enumerate(golden["ex.step_ids"].tolist()):
        after = euler_step(clean, flow, schedule.sigmas[step], schedule.next_sigma(step), kind)
        assert torch.equal(after, golden["ex.step_out"][row])
    final = euler_step(clean, flow, schedule.sigmas[1], torch.zeros(()), kind)
    assert torch.equal(final, golden["ex.step_to_final"])


def test_rotary_tables_of_the_full_size_agree(golden: Golden):
    full = torch.arange(64)
    slots = (slot_times(20, 2), 2 * torch.arange(15), 2 * torch.arange(26))
    for axis, channels, memory in zip("thw", axis_split(128), slots, strict=True):
        for table, position, tolerance in (("rope", full, 1e-12), ("rope_mem", memory, 2e-6)):
            turn = angles(position, channels)
            wanted = golden[f"{table}.hd128.{axis}_cos_sin"]
            assert (torch.stack([turn.cos(), turn.sin()], dim=-1) - wanted).abs().max() <= tolerance
