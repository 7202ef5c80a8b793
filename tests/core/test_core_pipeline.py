"""HydraPipeline as a diffusers pipeline: callbacks, batches, branches in one run, forms of output, offloading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload_with_hook
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from reference.small import CONTEXT, TARGET, of_sample, small_clip, small_inputs, small_model
from torch import Tensor

from hmcli.codecs.video import WanCodec
from hmcli.core.memory import Held, Joined
from hmcli.core.pipeline import HydraPipeline
from hmcli.core.transformer import HydraTransformer3DModel

CPU = torch.device("cpu")
STEPS = 3


def small_vae() -> AutoencoderKLWan:
    torch.manual_seed(5)
    return AutoencoderKLWan(
        base_dim=4, z_dim=3, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[True],
        latents_mean=[0.1, 0.2, 0.3], latents_std=[1.5, 1.0, 0.5],
    )  # fmt: skip


def pipeline(model: HydraTransformer3DModel, vae: Any = None) -> HydraPipeline:
    made = HydraPipeline(model, FlowMatchEulerDiscreteScheduler(shift=3.0), vae)
    made.set_progress_bar_config(disable=True)
    return made


def given(**more: Any) -> dict[str, Any]:
    """Two clips, guided by their captions."""
    clip = small_clip()
    return {
        "camera": clip["camera"], "prompt_embeds": clip["encoder_hidden_states"], "num_frames": TARGET,
        "context_latents": clip["hidden_states"][:, :, :CONTEXT], "guidance_scale": 2.5, "num_inference_steps": STEPS,
        "negative_prompt_embeds": torch.zeros_like(clip["encoder_hidden_states"]), "retrieval": small_inputs(),
        "generator": generators(), **more,
    }  # fmt: skip


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(number) for number in (4, 9)]


def runs(model: HydraTransformer3DModel, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Batch sizes of all runs of the model from now on: forward, and of context alone."""
    seen: dict[str, list[int]] = {"forward": [], "encode_context": []}

    def counted(name: str) -> Any:
        real = getattr(model, name)

        def run(latents: Tensor, *args: Any, **kwargs: Any) -> Any:
            seen[name].append(len(latents))
            return real(latents, *args, **kwargs)

        return run

    for name in seen:
        monkeypatch.setattr(model, name, counted(name))
    return seen


@pytest.mark.parametrize("policy", ["affinity", "random", "oracle", "frames-fov"])
@pytest.mark.parametrize("context", ["joint", "frozen"])
def test_a_batch_gives_every_clip_what_it_is_given_alone(policy: str, context: str):
    pipe, both = pipeline(small_model(policy=policy, context=context)), given()
    batch = pipe(**both).frames
    for b in range(2):
        one = {name: value[b : b + 1] for name, value in both.items() if isinstance(value, Tensor)}
        alone = pipe(**both | one | {"generator": generators()[b], "retrieval": of_sample(small_inputs(), b)}).frames
        assert torch.allclose(batch[b : b + 1], alone, rtol=0, atol=1e-9)
    assert not torch.allclose(batch[0], batch[1])


@pytest.mark.parametrize(
    ("context", "policy", "history", "level"),
    [
        ("frozen", "affinity", 1.0, 0.0),
        ("frozen", "random", 1.0, 0.0),
        ("joint", "oracle", 1.0, 0.0),
        ("joint", "recent", 2.0, 0.0),
        ("joint", "recent", 2.0, 0.3),
    ],
)
def test_branches_in_one_run_give_the_same_and_frozen_context_runs_once_for_both(
    monkeypatch: pytest.MonkeyPatch, context: str, policy: str, history: float, level: float
):
    model = small_model(policy=policy, context=context, flow_noise="per-frame" if history > 1 else "shared")
    pipe, asked = pipeline(model), given(history_guidance_scale=history, history_level=level)
    seen, branches = runs(model, monkeypatch), 2 + (history > 1) + (level > 0)
    apart = pipe(**asked).frames
    assert seen["forward"] == [2] * STEPS * branches
    assert seen["encode_context"] == ([2] if context == "frozen" else [])
    for counts in seen.values():
        counts.clear()
    together = pipe(**asked | {"generator": generators()}, together=True).frames
    assert seen["forward"] == [2 * branches] * STEPS
    assert seen["encode_context"] == ([2] if context == "frozen" else [])
    assert torch.allclose(together, apart, rtol=0, atol=1e-9)


def test_memory_that_is_read_from_elsewhere_serves_both_branches_in_one_run():
    model, asked = small_model(context="frozen"), given()
    context, camera = asked.pop("context_latents"), asked.pop("camera")
    with torch.no_grad():
        memory = model.encode_context(context, camera[:, :CONTEXT])
    for block in memory.blocks:
        assert isinstance(block.slots, Held)
        object.__setattr__(block, "slots", Joined((block.slots,)))  # not in one piece: read when chosen
        object.__setattr__(block, "tail", Joined((block.tail,)))
    asked |= {"memory": memory, "camera": camera[:, CONTEXT:], "size": (4, 6)}
    for affinity in ("pooled", "spatial"):
        model.register_to_config(affinity=affinity)
        pipe = pipeline(model)
        apart = pipe(**asked | {"generator": generators()}).frames
        together = pipe(**asked | {"generator": generators()}, together=True).frames
        assert torch.allclose(together, apart, rtol=0, atol=1e-9)


def test_noise_without_a_generator_follows_from_torchs_own_seed():
    pipe, seeds = pipeline(small_model()), (3, 3, 4)
    made = []
    for seed in seeds:
        torch.manual_seed(seed)
        made.append(pipe(**given(generator=None)).frames)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("a small device"), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")],
)
def test_branches_that_do_not_fit_into_memory_together_run_apart_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError
):
    model = small_model()
    wanted = pipeline(model)(**given()).frames
    real = model.forward

    def forward(latents: Tensor, *args: Any, **kwargs: Any) -> Any:
        if len(latents) > 2:
            raise error
        return real(latents, *args, **kwargs)

    monkeypatch.setattr(model, "forward", forward)
    said: list[str] = []
    monkeypatch.setattr("hmcli.core.pipeline.logger.warning", said.append)
    assert torch.equal(pipeline(model)(**given(), together=True).frames, wanted)
    assert [text for text in said if "one after the other" in text]
    clip = given(generator=generators() * 2, retrieval=None)
    twice = {name: torch.cat([value, value]) for name, value in clip.items() if isinstance(value, Tensor)}
    with pytest.raises(type(error), match=r"small device|allocate"):
        pipeline(model)(**clip | twice)


def test_a_callback_sees_every_step_and_may_change_the_latents():
    pipe, seen = pipeline(small_model()), []

    def halve(of: HydraPipeline, step: int, timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append((of, step, round(float(timestep))))
        return {"latents": tensors["latents"] / 2} if step == STEPS - 1 else {}

    plain = pipe(**given()).frames
    halved = pipe(**given(), callback_on_step_end=halve).frames
    assert torch.equal(halved, plain / 2)
    assert seen == [(pipe, 0, 1000), (pipe, 1, 857), (pipe, 2, 600)]


def test_every_form_of_output_shows_the_frames_that_the_codec_decodes():
    vae, model = small_vae(), small_model().float()
    pipe = pipeline(model, vae)
    asked = {name: value.float() if isinstance(value, Tensor) else value for name, value in given().items()}

    def made(kind: str) -> Any:
        return pipe(**asked | {"generator": generators()}, output_type=kind).frames

    latents = made("latent")
    codec = WanCodec(vae, name="test", device="cpu", tile=None, chunk=1)
    wanted = ((codec.decode(latents) + 1) * 127.5).round().byte().movedim(1, -1).numpy()
    assert np.array_equal(made("uint8"), wanted)
    assert np.allclose(made("np"), wanted / 255, atol=1e-7)
    assert np.allclose(made("pt").movedim(2, -1).numpy(), wanted / 255, atol=1e-7)
    pictures = made("pil")
    assert np.array_equal(np.stack([np.stack([np.asarray(of) for of in video]) for video in pictures]), wanted)
    assert pipe(**asked, output_type="uint8", return_dict=False)[0].shape == wanted.shape


def test_what_a_pipeline_cannot_give_is_refused():
    pipe = pipeline(small_model())
    for wrong, says in (
        ({"output_type": "mp4"}, "known are latent, uint8"),
        ({"output_type": "np"}, "has no VAE"),
        ({"callback_on_step_end_tensor_inputs": ["prompt_embeds"]}, "not prompt_embeds"),
        ({"generator": generators()[:1]}, "1 generators for 2 samples"),
        ({"context_latents": None}, "latent size"),
    ):
        with pytest.raises(ValueError, match=says):
            pipe(**given() | wrong)


@pytest.mark.parametrize("how", ["groups", "whole parts"])
def test_offloaded_parts_are_fetched_for_every_run_beside_forward_too(tmp_path: Path, how: str):
    asked = {name: value.float() if isinstance(value, Tensor) else value for name, value in given().items()}
    wanted = pipeline(small_model(context="frozen").float(), small_vae())(**asked, output_type="uint8").frames
    pipe = pipeline(small_model(context="frozen").float(), small_vae())
    fetched: list[str] = []
    if how == "groups":
        pipe.enable_group_offload(onload_device=CPU, offload_type="leaf_level", offload_to_disk_path=str(tmp_path))
    else:
        for name in ("transformer", "vae"):
            _, hook = cpu_offload_with_hook(getattr(pipe, name), execution_device=CPU)
            real = hook.hook.pre_forward

            def fetch(module: Any, *args: Any, real: Any = real, name: str = name, **kwargs: Any) -> Any:
                fetched.append(name)
                return real(module, *args, **kwargs)

            hook.hook.pre_forward = fetch
    assert np.array_equal(pipe(**asked | {"generator": generators()}, output_type="uint8").frames, wanted)
    assert how == "groups" or fetched == ["transformer"] * (1 + 2 * STEPS) + ["vae"]
