"""Golden sets d and g: the whole model, a training step, guided sampling, and the names of the released weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from reference.golden import FRAMES, Golden, assert_close, golden_model
from torch import Tensor

from hmcli.core import stretch
from hmcli.core.flow import flow_loss, flow_target, make_schedule, with_clean_context
from hmcli.core.inspection import recorded
from hmcli.core.sampler import denoise
from hmcli.core.transformer import HydraTransformer3DModel, sinusoid
from hmcli.store.names import ADDED_TO_WAN, is_released, ours_from_released, released_from_ours, to_ours
from hmcli.store.weights import check_keys, shapes_of  # fmt: skip

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
CONTEXT = FRAMES // 2


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return Golden(shared, "d_model")


@pytest.fixture(scope="module")
def steps(shared: Path) -> Golden:
    return Golden(shared, "d_train_and_sample")


def camera(golden: Golden, dtype: torch.dtype) -> Tensor:
    return torch.cat([golden["cam_emb_con"], golden["cam_emb_tgt"]], dim=1).to(dtype)


def run(golden: Golden, dtype: torch.dtype, **changes: object) -> Tensor:
    model = golden_model(golden, dtype, **changes)
    given = (golden[name].to(dtype) for name in ("x", "timestep", "context"))
    with torch.no_grad():
        return model(*given, camera(golden, dtype), CONTEXT).sample


def test_the_timestep_embedding_agrees(golden: Golden):
    model = golden_model(golden)
    embedding, modulation = model.condition_embedder(golden["timestep"])
    assert_close(embedding[:, 0], golden["time_embedding"], 1e-5)
    assert_close(modulation[:, 0], golden["time_projection"], 1e-5)


def test_output_scores_and_choices_of_every_layer_agree(golden: Golden):
    with recorded() as readings:
        assert_close(run(golden, F32), golden["out_hydra"], 1e-5)
    assert [(r.block, r.part) for r in readings] == [(0, "joint"), (1, "joint")]
    assert_close(torch.stack([r.scores_BFM for r in readings]), golden["similarity"], 1e-5)
    assert torch.equal(torch.stack([r.slots_BFK for r in readings]), golden["topk_indices"].long())


def test_the_dense_variant_agrees(golden: Golden):
    assert_close(run(golden, F32, policy="all"), golden["out_dense"], 1e-5)
    assert_close(run(golden, F64, policy="all"), golden["out_dense_f64"], 1e-12)


def test_float64_agrees(golden: Golden):
    assert_close(run(golden, F64), golden["out_hydra_f64"], 1e-7)


def test_float64_agrees_to_the_last_digits_with_the_released_rotary_table(golden, shared, monkeypatch):
    table = Golden(shared, "b_self_attention")["rope_mem_cos_sin"].double()
    monkeypatch.setattr(stretch, "slot_table", lambda *_: table)
    assert_close(run(golden, F64), golden["out_hydra_f64"], 1e-12)


def test_bfloat16_is_near(golden: Golden):
    assert_close(run(golden, BF16), golden["out_hydra_bf16"], 0.1)
    assert_close(run(golden, BF16, policy="all"), golden["out_dense_bf16"], 0.03)


def train_step(golden: Golden, steps: Golden, dtype: torch.dtype) -> tuple[Tensor, Tensor, HydraTransformer3DModel]:
    schedule = make_schedule(1000, 5.0, weighting="bell")
    index = steps["train.timestep_id"].long()
    assert torch.equal(schedule.timesteps[index], steps["train.timestep"])
    assert_close(schedule.weights[index], steps["train.weight"], 1e-5)
    clean, noise = steps["train.latents"], steps["train.noise"]
    noisy = with_clean_context(clean, noise, schedule.sigmas[index], CONTEXT)
    assert torch.equal(noisy, steps["train.noisy_latents"])
    target = flow_target(clean, noise, "noise_minus_clean")
    assert torch.equal(target[:, :, CONTEXT:], steps["train.target"])
    model = golden_model(golden, dtype)
    precise = noisy if dtype == F32 else noisy_in_float64(steps, schedule.sigmas[index])
    prediction = model(
        precise, steps["train.timestep"].to(dtype), golden["context"].to(dtype), camera(golden, dtype), CONTEXT
    ).sample
    loss = flow_loss(prediction, target.to(dtype), steps["train.weight"].to(dtype), CONTEXT)
    loss.backward()
    return prediction.detach(), loss.detach(), model


def noisy_in_float64(steps: Golden, sigma: Tensor) -> Tensor:
    return with_clean_context(steps["train.latents"].double(), steps["train.noise"].double(), sigma, CONTEXT)


def grad_norms(steps: Golden, model: HydraTransformer3DModel) -> Tensor:
    parameters = dict(model.named_parameters())
    names = [ours_from_released(str(name)) for name in steps.arrays["train.trainable_names"]]
    assert len(names) == 36
    return torch.stack([parameters[name].grad.norm() for name in names])


def test_a_training_step_agrees(golden: Golden, steps: Golden):
    prediction, loss, model = train_step(golden, steps, F32)
    assert_close(prediction, steps["train.prediction"], 1e-5)
    assert_close(loss[None], steps["train.loss"], 1e-6)
    norms, wanted = grad_norms(steps, model), steps["train.grad_norms"]
    assert ((norms - wanted).abs() / wanted).max() <= 1e-5
    parameters = dict(model.named_parameters())
    for key in steps.names("train.grad."):
        assert_close(parameters[ours_from_released(key.removeprefix("train.grad."))].grad, steps[key], 1e-5)


def test_a_training_step_agrees_in_float64(golden: Golden, steps: Golden):
    _, loss, model = train_step(golden, steps, F64)
    assert_close(loss[None], steps["train.loss_f64"], 1e-8)
    norms, wanted = grad_norms(steps, model), steps["train.grad_norms_f64"]
    assert ((norms - wanted).abs() / wanted).max() <= 1e-6


def sample(golden: Golden, steps: Golden, dtype: torch.dtype) -> list[Tensor]:
    schedule = make_schedule(4, 5.0)
    assert torch.equal(schedule.sigmas, steps["sample.sigmas"])
    assert torch.equal(schedule.timesteps, steps["sample.timesteps"])
    after: list[Tensor] = []
    final = denoise(
        golden_model(golden, dtype), steps["sample.noise"].to(dtype), schedule=schedule,
        camera=camera(golden, dtype), text=golden["context"].to(dtype),
        negative_text=golden["context_negative"].to(dtype), guidance=float(steps["sample.cfg_scale"]),
        context=steps["sample.source_latents"].to(dtype), after_step=lambda _, latents: after.append(latents),
    )  # fmt: skip
    assert torch.equal(final, after[-1])
    return after


def test_guided_sampling_agrees_after_every_step(golden: Golden, steps: Golden):
    assert_close(torch.stack(sample(golden, steps, F32)), steps["sample.latents_after_step"], 2e-5)
    assert_close(sample(golden, steps, F64)[-1], steps["sample.final_latents_f64"], 1e-8)


# --- e: sinusoid (the rest of e is in test_golden_flow.py) ------------------------------------------------------------


def test_the_sinusoid_agrees(shared: Path):
    e = Golden(shared, "e_scheduler")
    assert (sinusoid(e["sinus.timesteps"], 256).float() - e["sinus.f32"]).abs().max() <= 1e-6
    assert (sinusoid(e["sinus.timesteps"].double(), 256) - e["sinus.f64"]).abs().max() <= 1e-12
    halves = e["sinus.timesteps"].bfloat16()
    assert torch.equal(halves.float(), e["sinus.bf16_timesteps"])
    coarse = sinusoid(halves, 256).bfloat16().float()
    assert ((coarse - e["sinus.bf16"]).abs() <= e["sinus.bf16"].abs() * 2**-7 + 1e-7).all()


# --- g: every released parameter has one of ours ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def released(shared: Path) -> dict:
    return json.loads((shared / "golden" / "g_state_dict.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full_size() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return shapes_of(HydraTransformer3DModel(spans="released").state_dict())


def test_all_released_parameters_map_one_to_one(released: dict, full_size: dict[str, tuple[int, ...]]):
    entries = released["state_dict"]
    state = {entry["key"]: torch.empty(entry["shape"], device="meta") for entry in entries}
    assert is_released(state)
    ours = to_ours(state)
    assert len(ours) == len(entries) == released["total"]["tensors"] == 1065
    check_keys(full_size, shapes_of(ours))
    assert [released_from_ours(name) for name in ours] == [entry["key"] for entry in entries]
    assert sum(tensor.numel() for tensor in ours.values()) == released["total"]["parameters"]


def test_plain_wan_lacks_only_what_hydra_adds(released: dict, full_size: dict[str, tuple[int, ...]]):
    base = {ours_from_released(e["key"]): tuple(e["shape"]) for e in released["state_dict"] if e["base"]}
    assert len(base) == released["base_only"]["tensors"]
    check_keys(full_size, base, may_lack=ADDED_TO_WAN)
    added = [name for name in full_size if name not in base]
    assert len(added) == released["added"]["tensors"]
