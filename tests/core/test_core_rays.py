"""World-ray positions: a full turn closes, the anchor sees the screen, one far thing has one place."""

from __future__ import annotations

from dataclasses import replace
from math import atan2, cos, hypot, pi, radians, sin

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.small import CONTEXT, TARGET, camera_rows, of_sample, small_clip, small_inputs, small_model
from torch import Tensor

from hmcli import registry
from hmcli.core.memory import slot_cameras
from hmcli.core.rays import (
    FASTEST,
    PatchLens,
    cell_centres,
    closing_frequencies,
    head_paces,
    ray_positions,
    ray_table,
)
from hmcli.core.rope import frequencies, rotate
from hmcli.core.stretch import make_stretch
from hmcli.core.transformer import HydraTransformer3DModel

F64 = torch.float64
POLICIES = sorted(registry.BUILT_IN["policy"])
either_context = pytest.mark.parametrize("how", ["joint", "frozen"])
either_rays = pytest.mark.parametrize("rays", ["rays", "moving-rays", "relative-rays"])


def lens(degrees: float = 37.0, grid: tuple[int, int] = (4, 6), shift: float = 0.0) -> PatchLens:
    """Pixels of 96 x 64 whose principal point lies `shift` pixels beside the middle."""
    focal = 48 / torch.tan(torch.deg2rad(torch.tensor(degrees / 2, dtype=F64)))
    return PatchLens(
        intrinsics_B4=torch.stack([focal, focal, 48 + 0 * focal + shift, 32 + 0 * focal])[None],
        size=(64, 96),
        grid=grid,
    )


def positions(rows: Tensor, view: PatchLens) -> tuple[Tensor, Tensor]:
    """Of single tokens, for camera rows (T, 12): (T, R, K) each."""
    found = ray_positions(rows[None], view, cell_centres(view.grid[0], 1), cell_centres(view.grid[1], 1))
    return found[0][0], found[1][0]


def level(*yaw: float) -> Tensor:
    """Cameras at one place, turned to the right."""
    return camera_rows(torch.tensor(yaw, dtype=F64), torch.zeros(len(yaw), 3, dtype=F64))


def test_positions_are_those_of_the_definition_written_as_loops():
    view, yaw = lens(60.0, shift=5.0), 25.0
    fx, fy, cx, cy = view.intrinsics_B4[0].tolist()
    row, column = positions(level(yaw), view)
    wide, high = atan2(cx, fx) + atan2(96 - cx, fx), atan2(cy, fy) + atan2(64 - cy, fy)
    for r in range(4):
        for k in range(6):
            right, down, forward = ((k + 0.5) * 16 - cx) / fx, ((r + 0.5) * 16 - cy) / fy, 1.0
            turned = right * cos(radians(yaw)) + forward * sin(radians(yaw))
            ahead = forward * cos(radians(yaw)) - right * sin(radians(yaw))
            azimuth, elevation = atan2(turned, ahead), atan2(down, hypot(turned, ahead))
            assert column[0, r, k].item() == pytest.approx((azimuth + atan2(cx, fx)) / (wide / 6) - 0.5, abs=1e-12)
            assert row[0, r, k].item() == pytest.approx((elevation + atan2(cy, fy)) / (high / 4) - 0.5, abs=1e-12)


@given(degrees=st.floats(20, 60), shift=st.floats(-8, 8))
@settings(deadline=None, max_examples=30)
def test_the_anchors_own_view_has_nearly_the_positions_of_the_screen(degrees: float, shift: float):
    view = lens(degrees, (8, 12), shift)
    row, column = positions(level(0.0), view)
    assert (row[0] - torch.arange(8)[:, None]).abs().max() < 0.5
    assert (column[0] - torch.arange(12)).abs().max() < 0.5
    assert (column[0].diff(dim=1) > 0).all()
    assert (row[0].diff(dim=0) > 0).all()
    edges = ray_positions(level(0.0)[None], view, torch.tensor([-0.5, 7.5]), torch.tensor([-0.5, 11.5]))
    middle = ray_positions(level(0.0)[None], view, torch.tensor([3.5]), torch.tensor([-0.5, 11.5]))
    assert torch.allclose(middle[1].flatten(), torch.tensor([-0.5, 11.5], dtype=F64), atol=1e-9)
    assert edges[0].isfinite().all()


@given(turned=st.floats(-170, 170), yaw=st.floats(-170, 170))
@settings(deadline=None, max_examples=30)
def test_what_two_cameras_see_of_one_far_thing_sits_at_one_place(turned: float, yaw: float):
    """A camera that turns by whole patches sees through its tokens what the anchor sees through their neighbours."""
    view = lens()
    patch = view.extent()[3].item()
    a, b = positions(level(yaw, yaw + turned), view)[1]
    shift = (b - a) * patch - radians(turned)
    assert ((shift + pi) % (2 * pi) - pi).abs().max() < 1e-9


@given(degrees=st.floats(15, 120), columns=st.integers(3, 60), channels=st.sampled_from([4, 10, 16, 42]))
@settings(deadline=None, max_examples=50)
def test_every_frequency_of_azimuth_makes_whole_turns_and_is_the_nearest_that_does(degrees, columns, channels):
    view = lens(degrees, (4, columns))
    patch = view.extent()[3]
    turns = closing_frequencies(patch, channels)[0] / patch
    exact = frequencies(channels) / patch
    assert torch.allclose(turns, turns.round(), rtol=0, atol=1e-9)
    assert turns.min() >= 1 - 1e-9
    fast = exact >= 0.5
    assert ((turns - exact).abs()[fast] <= 0.5 + 1e-9).all()
    assert torch.allclose(turns[~fast], torch.ones(()).double())


def test_a_full_turn_closes():
    view = lens()
    x = torch.randn(1, 24, 2, 20, generator=torch.Generator().manual_seed(0), dtype=F64)
    place = (cell_centres(4, 1), cell_centres(6, 1), 20, F64, torch.device("cpu"))
    steps = [ray_table(torch.zeros(1), level(yaw)[None], view, *place) for yaw in (179.9999, -179.9999, 0.0)]
    behind, other, ahead = (rotate(x, table) for table in steps)
    assert (behind - other).abs().max() < 1e-3
    assert (behind - ahead).abs().max() > 0.5


def test_a_slot_sits_in_the_middle_of_its_cells_under_its_mean_camera():
    view = lens()
    mean = slot_cameras(level(10.0, 30.0)[None], 2)
    slot = ray_positions(mean, view, cell_centres(2, 2), cell_centres(3, 2))
    wanted = ray_positions(level(20.0)[None], view, torch.tensor([0.5, 2.5]), torch.tensor([0.5, 2.5, 4.5]))
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(slot, wanted, strict=True))


def test_a_world_turned_with_all_its_cameras_changes_nothing():
    view, seen = lens(), []
    pose = torch.eye(4, dtype=F64).repeat(3, 1, 1)
    pose[:, :3] = level(5.0, 40.0, -120.0).unflatten(-1, (3, 4))
    other = torch.eye(4, dtype=F64)
    other[:3, :3] = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3), dtype=F64))[0]
    for world in (torch.eye(4, dtype=F64), other * torch.linalg.det(other)):
        world_from_camera = world @ pose
        rows = (torch.linalg.inv(world_from_camera[0]) @ world_from_camera)[:, :3].flatten(1)
        seen.append(positions(rows, view))
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(*seen, strict=True))


def test_half_of_the_heads_turn_evenly_to_both_sides():
    assert head_paces(1).tolist() == [0]
    assert head_paces(4).tolist() == [0, 0, -FASTEST, FASTEST]
    assert head_paces(12).tolist() == pytest.approx([0] * 6 + [FASTEST * part / 5 for part in (-5, -3, -1, 1, 3, 5)])


def test_who_walks_at_the_pace_of_a_head_stands_still_for_it():
    """A camera that turns along with a walker sees it in the same column; each head knows one such walker."""
    view, pace, times = lens(), head_paces(4), torch.arange(3, dtype=F64)
    place = (cell_centres(4, 1), cell_centres(6, 1), 24, F64, torch.device("cpu"))
    of_columns = slice(8, 12)  # of 4 pairs each of time, rows and columns
    for head, turn in enumerate(pace.tolist()):
        along = level(*(torch.rad2deg(times * turn)).tolist())[None]
        table = ray_table(times, along, view, *place, pace_H=pace).unflatten(1, (3, 4, 6))[0, ..., of_columns, :]
        assert torch.allclose(table[:, :, :, head], table[:1, :, :, head].expand(3, -1, -1, -1, -1), atol=1e-9)
        others = [other for other in range(4) if pace[other] != turn]
        assert all((table[1, :, :, other] - table[0, :, :, other]).abs().max() > 0.01 for other in others)


def test_heads_that_stand_still_see_what_plain_rays_see():
    view, cameras, times = lens(), level(0.0, 30.0, 170.0)[None], torch.tensor([-4.0, 0.0, 2.0])
    place = (cell_centres(4, 1), cell_centres(6, 1), 24, F64, torch.device("cpu"))
    plain = ray_table(times, cameras, view, *place)
    moving = ray_table(times, cameras, view, *place, pace_H=head_paces(4))
    assert torch.equal(moving[:, :, 0], plain)
    assert torch.equal(moving[:, :, 1], plain)
    x = torch.randn(1, plain.shape[1], 4, 24, generator=torch.Generator().manual_seed(5), dtype=F64)
    apart = torch.stack([rotate(x[:, :, h : h + 1], moving[:, :, h])[:, :, 0] for h in range(4)], dim=2)
    assert torch.allclose(rotate(x, moving), apart, atol=1e-12)


# --- the model -------------------------------------------------------------------------------------------------------


def run(model: HydraTransformer3DModel, clip: dict[str, Tensor], inputs) -> Tensor:
    return model(**clip, num_context_frames=CONTEXT, retrieval=inputs).sample[:, :, CONTEXT:]


@either_rays
@either_context
@pytest.mark.parametrize("policy", POLICIES)
def test_a_batch_is_its_samples_run_alone_and_cameras_move_positions(policy: str, how: str, rays: str):
    model, clip, inputs = small_model(policy=policy, context=how, positions=rays), small_clip(), small_inputs()
    with torch.no_grad():
        together = run(model, clip, inputs)
        for b in range(2):
            alone = run(model, {name: value[b : b + 1] for name, value in clip.items()}, of_sample(inputs, b))
            assert torch.allclose(together[b : b + 1], alone, rtol=0, atol=1e-9)
        screen = small_model(policy=policy, context=how)
        screen.load_state_dict(model.state_dict())
        assert not torch.allclose(together, run(screen, clip, inputs), atol=1e-3)


@either_rays
@pytest.mark.parametrize("policy", POLICIES)
def test_memory_made_beforehand_gives_the_bits_of_live_context(policy: str, rays: str):
    model, clip = small_model(policy=policy, context="frozen", positions=rays), small_clip(context=16)
    inputs = small_inputs(context=16)
    target = {name: clip[name][:, 16:] for name in ("timestep", "camera")}
    with torch.no_grad():
        live = model(**clip, num_context_frames=16, retrieval=inputs).sample[:, :, 16:]
        memory = model.encode_context(clip["hidden_states"][:, :, :16], clip["camera"][:, :16], inputs)
        kept = model(**(clip | target | {"hidden_states": clip["hidden_states"][:, :, 16:]}), num_context_frames=0,
                     retrieval=inputs, memory=memory).sample  # fmt: skip
    assert torch.equal(live, kept)


@pytest.mark.parametrize("turned", [True, False])
def test_what_is_read_is_turned_by_how_far_away_it_lies(turned: bool):
    """Queries of zero read all tokens alike: the mean of exp(i (p_j - p_i)) v_j with relative rays, else of v_j."""
    positions = "relative-rays" if turned else "rays"
    model = small_model(policy="all", context="joint", positions=positions, num_layers=1)
    attention, clip, inputs = model.blocks[0].attn1, small_clip(), small_inputs()
    with torch.no_grad():
        for layer, weight in ((attention.to_q, 0.0), (attention.to_v, 1.0), (attention.to_out[0], 1.0)):
            layer.weight.copy_(weight * torch.eye(20))
            layer.bias.zero_()
        latents, camera = clip["hidden_states"], clip["camera"]
        how = {"config": model.config, "policy": model.policy, "kernel": model.kernel_tokens, "dtype": F64}
        stretch = make_stretch("joint", latents, camera, CONTEXT, None, inputs, **how)
        x = torch.randn(2, CONTEXT + TARGET, 6, 20, generator=torch.Generator().manual_seed(4), dtype=F64)
        got = attention(x, stretch)[0].flatten(1, 2)
    view = PatchLens(intrinsics_B4=inputs.intrinsics_B4, size=inputs.image_size, grid=(2, 3))
    places = (cell_centres(2, 1), cell_centres(3, 1), 10, F64, torch.device("cpu"))
    table = ray_table(torch.arange(CONTEXT + TARGET), camera, view, *places, means=False)
    turn = torch.view_as_complex(table)[:, :, None] if turned else torch.ones((), dtype=torch.complex128)
    value = torch.view_as_complex(x.flatten(1, 2).unflatten(-1, (2, 5, 2)).contiguous())
    wanted = (turn * value).mean(dim=1, keepdim=True) * turn.conj()
    assert torch.allclose(got, torch.view_as_real(wanted).flatten(2).expand_as(got), atol=1e-12)


@either_rays
@either_context
def test_gradient_checkpointing_gives_the_same_gradients(how: str, rays: str):
    grads = []
    for checkpointing in (False, True):
        model = small_model(context=how, positions=rays).train()
        if checkpointing:
            model.enable_gradient_checkpointing()
        run(model, small_clip(), small_inputs()).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True) if a is not None)


@either_context
def test_a_wider_lens_changes_what_rays_mean(how: str):
    model, clip, inputs = small_model(context=how, positions="rays"), small_clip(), small_inputs()
    wider = replace(inputs, intrinsics_B4=inputs.intrinsics_B4 * torch.tensor([0.5, 0.5, 1, 1], dtype=F64))
    with torch.no_grad():
        assert not torch.allclose(run(model, clip, inputs), run(model, clip, wider), atol=1e-3)


def test_rays_without_a_lens_are_refused_by_name():
    model, clip, inputs = small_model(positions="rays"), small_clip(), small_inputs()
    for missing in (None, replace(inputs, intrinsics_B4=None), replace(inputs, image_size=None)):
        with pytest.raises(ValueError, match=r"model\.positions=rays needs retrieval inputs intrinsics_B4"):
            run(model, clip, missing)
    with pytest.raises(ValueError, match=r"expected \(2, 4\)"):
        run(model, clip, replace(inputs, intrinsics_B4=inputs.intrinsics_B4[:1]))
    with pytest.raises(ValueError, match="positions='world'"):
        small_model(positions="world")


def test_screen_positions_need_no_lens_and_are_the_default():
    model, clip = small_model(), small_clip()
    assert model.config.positions == "screen"
    with torch.no_grad():
        assert torch.equal(run(model, clip, None), run(model, clip, small_inputs()))
