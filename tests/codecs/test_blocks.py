"""The linear code of video blocks: what it keeps, how it is fitted, and what of a folder is no such code."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.misaligned import astray, shift_data
from safetensors.torch import load_file, save_file

from hmcli.codecs.block_fit import BlockMoments, fit, normalise
from hmcli.codecs.blocks import BlockCodec, LinearBlocks, blocks_codec, cut, joined, load_blocks, waves
from hmcli.contracts import VideoCodec
from hmcli.errors import DataError, MissingPartError, RecipeError
from hmcli.recipe.sections import CodecConfig

WEIGHTS = "diffusion_pytorch_model.safetensors"


def smooth(frames: int, seed: int = 0, height: int = 16, width: int = 24) -> torch.Tensor:
    """(1, 3, T, H, W) in [-1, 1]: waves that drift, with a little noise."""
    chance = torch.Generator().manual_seed(seed)
    y, x, t = torch.meshgrid(torch.arange(height), torch.arange(width), torch.arange(frames), indexing="ij")
    colours = []
    for _ in range(3):
        a, b, c, d = torch.rand(4, generator=chance).tolist()
        colours.append(0.6 * torch.sin(a * y + b * x + 1.5 * c * t + 6 * d))
    video = torch.stack(colours).permute(0, 3, 1, 2) + 0.1 * torch.randn(3, frames, height, width, generator=chance)
    return video.clamp(-1, 1)[None]


def moments(stride: int = 4, weight: float = 0.0) -> BlockMoments:
    sums = BlockMoments(stride)
    for seed in range(3):
        video = smooth(9, seed)
        weights = torch.ones_like(video[:, :1])
        weights[..., :8] += weight
        sums.add(video, weights)
    return sums


def code(channels: int = 24, stride: int = 4, whitening: float = 0.5) -> LinearBlocks:
    made = fit(moments(stride), channels)
    normalise(made, [smooth(9, seed) for seed in range(3)], whitening)
    return made


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return 10 * math.log10(4 / float((a - b).square().mean()))


def test_cutting_and_joining_are_inverse_and_a_block_is_a_piece_of_the_picture():
    video = smooth(8)
    blocks = cut(video, 4)
    assert blocks.shape == (1, 2, 4, 4, 6, 48)
    assert torch.equal(blocks[0, 1, 2, 3, 5], video[0, :, 6, 12:16, 20:24].flatten())
    assert torch.equal(joined(blocks, 4), video)


def test_waves_are_orthogonal_and_equal_frames_have_the_coordinates_of_one():
    assert torch.allclose(waves() @ waves().T, torch.eye(4) / 4, atol=1e-7)
    assert torch.allclose(waves() @ torch.ones(4), torch.tensor([1.0, 0, 0, 0]), atol=1e-6)


@pytest.mark.parametrize("stride", [4, 8])
def test_all_channels_give_the_video_back_and_fewer_lose_what_was_least(stride: int):
    whole = BlockCodec(code(4 * 3 * stride**2, stride), device="cpu")
    video = smooth(13, seed=7)
    first = whole.decode(whole.encode(video))
    assert psnr(first, video) > 90
    losses = [
        psnr((c := BlockCodec(code(n, stride), device="cpu")).decode(c.encode(video)), video) for n in (4, 12, 48)
    ]
    assert losses == sorted(losses)
    assert losses[-1] > losses[0] + 3


def test_fitted_directions_are_principal_components_of_each_wave():
    made, blocks = fit(moments(weight=3.0), 30), []
    weights = []
    for seed in range(3):
        frames = smooth(9, seed)[0].numpy()
        frames = np.concatenate([frames[:, :1].repeat(4, axis=1), frames[:, 1:]], axis=1)
        for t in range(0, 12, 4):
            for y in range(0, 16, 4):
                for x in range(0, 24, 4):
                    blocks.append(frames[:, t : t + 4, y : y + 4, x : x + 4].transpose(1, 0, 2, 3).reshape(4, 48))
                    weights.append(4.0 if x < 8 else 1.0)
    table, weight = np.array(blocks, np.float64), np.array(weights)
    table -= np.average(table.mean(axis=1), axis=0, weights=weight)
    found = []
    for k in range(4):
        wave = np.cos(np.pi * k * (np.arange(4) + 0.5) / 4) * (0.25 if k == 0 else math.sqrt(2) / 4)
        y = np.einsum("u,nui->ni", wave, table)
        values, vectors = np.linalg.eigh((y * weight[:, None]).T @ y / weight.sum())
        found += [(value, k, vector) for value, vector in zip(values, vectors.T, strict=True)]
    kept = sorted(found, key=lambda entry: -entry[0])[:30]
    assert sorted(k for _, k, _ in kept) == made.frequency.tolist(), "still ones first"
    for k in range(4):
        ours = made.pictures[made.frequency == k].double().numpy()
        plain = np.array([vector for _, wave, vector in kept if wave == k]).reshape(-1, 48)
        assert np.allclose(np.abs((ours * plain).sum(axis=1)), 1, atol=1e-4), k
    assert bool((made.pictures.gather(1, made.pictures.abs().argmax(1, keepdim=True)) > 0).all())


def test_weighted_pixels_are_kept_better_where_they_weigh_more():
    errors = []
    for made in (fit(moments(weight=50.0), 10), fit(moments(), 10)):
        videos = [smooth(9, seed) for seed in range(3)]
        off = torch.cat([made.decode(made.encode(video)) - video for video in videos]).square()
        off[:, :, 0] *= 4  # coded as four frames
        errors.append((float(off[..., :8].sum()), float(off.sum())))
    assert errors[0][0] < errors[1][0]
    assert errors[0][1] > errors[1][1]


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_latents_are_normalised_together_and_channels_are_as_loud_as_asked(whitening):
    made, videos = code(whitening=whitening), [smooth(9, seed) for seed in range(3)]
    latents = torch.cat([BlockCodec(made, device="cpu").encode(video) for video in videos], dim=2)
    assert float(latents.square().mean()) == pytest.approx(1, abs=0.02)
    assert float(latents.mean(dim=(0, 2, 3, 4)).abs().max()) < 1e-3
    raw = torch.cat([made.encode(video) for video in videos], dim=2).std(dim=(0, 2, 3, 4))
    ratio = latents.std(dim=(0, 2, 3, 4)) / raw ** (1 - whitening)
    assert torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-3)


def test_a_still_video_has_the_latents_of_its_first_frame_and_whole_blocks_move_alike():
    codec = BlockCodec(code(), device="cpu")
    still = smooth(1).expand(-1, -1, 9, -1, -1)
    latents = codec.encode(still)
    assert torch.allclose(latents, latents[:, :, :1].expand_as(latents), atol=1e-5)
    video = smooth(9)
    moved = codec.encode(video.roll((4, 8), dims=(3, 4)))
    assert torch.allclose(moved, codec.encode(video).roll((1, 2), dims=(3, 4)), atol=1e-6)


def test_pieces_of_a_clip_have_the_latents_of_the_whole():
    codec: VideoCodec = BlockCodec(code(), device="cpu")
    video = smooth(13)
    whole = codec.encode(video)
    assert whole.shape == (1, 24, 4, 4, 6)
    assert torch.allclose(codec.encode(video[:, :, :5]), whole[:, :, :2], atol=1e-6)
    assert torch.allclose(codec.decode(whole[:, :, :2]), codec.decode(whole)[:, :, :5], atol=1e-6)


@pytest.mark.parametrize("frames", [1, 5])
def test_what_is_no_video_or_no_latents_is_refused(frames: int):
    codec = BlockCodec(code(), device="cpu")
    with pytest.raises(DataError, match="not 4k\\+1"):
        codec.encode(smooth(frames + 1))
    with pytest.raises(DataError, match="multiples of 4"):
        codec.encode(smooth(frames, height=14))
    with pytest.raises(DataError, match="outside"):
        codec.encode(smooth(frames) * 300)
    with pytest.raises(DataError, match="24, 1\\+k"):
        codec.decode(torch.zeros(1, 23, 1, 4, 4))
    with pytest.raises(DataError, match="infinite or undefined"):
        codec.decode(torch.full((1, 24, 1, 4, 4), math.nan))


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    code().save_pretrained(tmp_path / "vae")
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_code_is_loaded_as_it_was(folder: Path, dtype: torch.dtype):
    loaded = load_blocks(folder, dtype)
    assert loaded.dtype == dtype
    assert torch.equal(loaded.pictures, code().pictures.to(dtype))
    assert torch.equal(loaded.frequency, code().frequency)
    assert loaded.config.latents_std == pytest.approx(code().config.latents_std)


@pytest.mark.parametrize("offset", [8, 24, 56])
def test_weights_that_lie_unaligned_end_in_memory_of_their_own(folder: Path, offset: int):
    shift_data(folder / "vae" / WEIGHTS, offset)
    loaded = load_blocks(folder, torch.float32)
    assert not astray(loaded)
    video = smooth(5)
    assert torch.equal(loaded.encode(video), code().encode(video))


def changed_config(folder: Path, **values: object) -> None:
    path = folder / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def changed_weights(folder: Path, name: str, value: torch.Tensor | None) -> None:
    path = folder / "vae" / WEIGHTS
    weights = load_file(path)
    if value is None:
        del weights[name]
    else:
        weights[name] = value
    save_file(weights, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: changed_config(f, _class_name="AutoencoderKLWan"), "holds a AutoencoderKLWan"),
        (lambda f: changed_config(f, stride=3), "cannot be loaded"),
        (lambda f: changed_config(f, z_dim=0), "cannot be loaded"),
        (lambda f: changed_config(f, latents_std=[1.0]), "cannot be loaded"),
        (lambda f: changed_config(f, latents_std=None), "latents_std"),
        (lambda f: changed_config(f, latents_std=[0.0] * 24), "latents_std"),
        (lambda f: changed_config(f, z_dim=25, latents_std=None, latents_mean=None), "cannot be loaded|do not fit"),
        (lambda f: changed_weights(f, "mean", None), "missing"),
        (lambda f: changed_weights(f, "more", torch.ones(1)), "unknown"),
        (lambda f: changed_weights(f, "mean", torch.full((48,), math.nan)), "as mean"),
        (lambda f: changed_weights(f, "frequency", torch.full((24,), 4)), "as frequency"),
        (lambda f: (f / "vae" / WEIGHTS).write_bytes((f / "vae" / WEIGHTS).read_bytes()[:300]), "cannot be loaded"),
        (lambda f: (f / "vae" / "config.json").write_text("{"), "cannot be loaded"),
        (lambda f: (f / "vae" / "config.json").write_text("[]"), "holds a list"),
        (lambda f: (f / "vae" / WEIGHTS).unlink(), "cannot be loaded"),
    ],
)
def test_a_folder_that_holds_no_whole_code_is_refused(folder: Path, damage, message: str):
    damage(folder)
    with pytest.raises(DataError, match=message):
        load_blocks(folder, torch.float32)


def test_a_path_without_a_code_and_settings_without_effect_are_refused(folder: Path, tmp_path: Path):
    with pytest.raises(MissingPartError, match=r"codec\.path is empty"):
        blocks_codec(CodecConfig(name="blocks"), "cpu")
    with pytest.raises(MissingPartError, match="no code of blocks at this path"):
        blocks_codec(CodecConfig(name="blocks", path=str(tmp_path / "nowhere")), "cpu")
    for setting in ({"tile": (16, 16)}, {"chunk_frames": 2}):
        with pytest.raises(RecipeError, match=next(iter(setting))):
            blocks_codec(CodecConfig(name="blocks", path=str(folder), **setting), "cpu")
    assert blocks_codec(CodecConfig(name="blocks", path=str(folder)), "cpu").channels == 24
