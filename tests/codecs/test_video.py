"""The Wan VAE as a codec: what it refuses, what it normalises, and that pieces and tiles change nothing."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from reference.misaligned import OFFSETS, astray, mapped, shift_data
from safetensors.torch import load_file, save_file
from wan_parts import original_file, original_name

from hmcli.codecs.mini_vae import FINE_VAE, MINI_VAE
from hmcli.codecs.video import WanCodec, mini_codec, space_stride, split_video, wan_codec
from hmcli.contracts import VideoCodec
from hmcli.errors import DataError, MissingPartError, UsageError
from hmcli.recipe.sections import CodecConfig
from hmcli.registry import find

LIKE_WAN21 = {"base_dim": 4, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 1, "temperal_downsample": [False, True, True]}
LIKE_MINI = {name: value for name, value in MINI_VAE.items() if name != "z_dim"} | {
    "base_dim": 4,
    "decoder_base_dim": 8,
}
LIKE_FINE = {name: value for name, value in FINE_VAE.items() if name != "z_dim"} | {
    "base_dim": 4,
    "decoder_base_dim": 4,
}
ROUNDING = 2e-5  # float32 sums in another order; one latent frame at a time is exact
KINDS = pytest.mark.parametrize(
    "kind", [LIKE_WAN21, LIKE_MINI, LIKE_FINE], ids=["like-wan2.1", "like-mini", "like-fine"]
)


def tiny_vae(kind: dict = LIKE_WAN21, channels: int = 6, seed: int = 0) -> AutoencoderKLWan:
    """A random VAE whose statistics differ per channel, so that a wrong normalisation shows."""
    torch.manual_seed(seed)
    mean, std = torch.linspace(-1.0, 1.0, channels).tolist(), torch.linspace(0.5, 2.0, channels).tolist()
    return AutoencoderKLWan(**kind, z_dim=channels, latents_mean=mean, latents_std=std).eval()


def codec(vae: AutoencoderKLWan, *, chunk: int = 1, tile: tuple[int, int] | None = None) -> WanCodec:
    return WanCodec(vae, name="tiny", device="cpu", tile=tile, chunk=chunk)


def clip(frames: int, height: int = 24, width: int = 40, batch: int = 2, seed: int = 3) -> torch.Tensor:
    return torch.rand(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@KINDS
def test_latents_are_the_normalised_mode_and_decoding_inverts_the_normalisation(kind):
    vae, video = tiny_vae(kind), clip(9)
    shape = (1, -1, 1, 1, 1)
    mean, std = torch.tensor(vae.config.latents_mean).view(shape), torch.tensor(vae.config.latents_std).view(shape)
    with torch.no_grad():
        mode = vae.encode(video).latent_dist.mode()
        seen = vae.decode(mode).sample
    latents = codec(vae).encode(video)
    side = space_stride(vae.config)
    assert latents.shape == (2, 6, 3, 24 // side, 40 // side)
    assert torch.equal(latents, (mode - mean) / std)
    torch.testing.assert_close(codec(vae).decode(latents), seen, rtol=0, atol=ROUNDING)


@KINDS
@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_pieces_of_any_length_give_the_latents_and_the_video_of_the_whole_clip(kind, chunk):
    vae, video = tiny_vae(kind), clip(21)
    whole = codec(vae).encode(video)
    torch.testing.assert_close(codec(vae, chunk=chunk).encode(video), whole, rtol=0, atol=ROUNDING)
    seen = codec(vae, chunk=chunk).decode(whole)
    torch.testing.assert_close(seen, codec(vae).decode(whole), rtol=0, atol=ROUNDING)


def test_encoding_is_causal_so_a_prefix_of_the_clip_has_the_same_first_latents():
    vae, video = tiny_vae(), clip(13)
    assert torch.equal(codec(vae).encode(video[:, :, :5]), codec(vae).encode(video)[:, :, :2])


def test_a_long_video_streams_through_without_ever_being_whole():
    tiny, video = codec(tiny_vae(), chunk=2), clip(17)
    largest = 0

    def pieces():
        nonlocal largest
        for piece in split_video(video, 2):
            largest = max(largest, piece.shape[2])
            yield piece

    latents = list(tiny.encode_pieces(pieces()))
    assert [z.shape[2] for z in latents] == [1, 2, 2]
    assert largest == 8
    assert torch.equal(torch.cat(latents, dim=2), tiny.encode(video))
    assert [v.shape[2] for v in tiny.decode_pieces(latents)] == [1, 8, 8]


@pytest.mark.parametrize("size", [(24, 40), (40, 24), (72, 104)])
def test_tiles_are_cut_and_blended_as_diffusers_does(size):
    vae, video = tiny_vae(), clip(5, *size, batch=1)
    tiled = codec(vae, tile=(32, 32))
    latents, seen = tiled.encode(video), tiled.decode(codec(vae).encode(video))
    raw = codec(vae).encode(video) * tiled._std + tiled._mean
    vae.enable_tiling(32, 32, 24, 24)
    with torch.no_grad():
        expected, shown = vae.encode(video).latent_dist.mode(), vae.decode(raw).sample
    vae.disable_tiling()
    torch.testing.assert_close(latents * tiled._std + tiled._mean, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(seen, shown, rtol=0, atol=1e-5)


@KINDS
def test_tiles_and_pieces_work_together(kind):
    vae, video = tiny_vae(kind), clip(13, 48, 72, batch=1)
    one, three = codec(vae, tile=(32, 40)), codec(vae, tile=(32, 40), chunk=3)
    torch.testing.assert_close(three.encode(video), one.encode(video), rtol=0, atol=ROUNDING)
    latents = one.encode(video)
    torch.testing.assert_close(three.decode(latents), one.decode(latents), rtol=0, atol=ROUNDING)


def test_a_tile_as_large_as_the_frame_changes_nothing():
    vae, video = tiny_vae(), clip(5)
    assert torch.equal(codec(vae, tile=(24, 48)).encode(video), codec(vae).encode(video))


@pytest.mark.parametrize("tile", [(20, 32), (8, 32)])
def test_a_tile_that_does_not_fit_the_latent_grid_is_refused(tile):
    with pytest.raises(UsageError, match="multiples of 8"):
        codec(tiny_vae(), tile=tile).encode(clip(1, 64, 64))


@pytest.mark.parametrize(("frames", "near"), [(78, "77 or 81"), (4, "1 or 5"), (2, "1 or 5"), (8, "5 or 9")])
def test_a_length_other_than_4k_plus_1_is_refused_with_both_neighbours(frames, near):
    with pytest.raises(DataError, match=f"{frames} video frames is not 4k\\+1") as error:
        codec(tiny_vae()).encode(clip(frames, 8, 8, batch=1))
    assert near in error.value.fix


@pytest.mark.parametrize(("size", "near"), [((20, 40), "16 and 24"), ((24, 42), "40 and 48"), ((24, 7), "at least 8")])
def test_a_size_off_the_grid_is_refused_with_its_neighbours(size, near):
    with pytest.raises(DataError, match=near):
        codec(tiny_vae()).encode(clip(5, *size))


def test_pixels_outside_the_range_are_refused():
    tiny, video = codec(tiny_vae()), clip(5)
    with pytest.raises(DataError, match="uint8"):
        tiny.encode((video * 127 + 128).to(torch.uint8))
    with pytest.raises(DataError, match=r"outside \[-1, 1\]"):
        tiny.encode((video + 1) * 127.5)
    hole = video.clone()
    hole[1, 2, 4, 0, 0] = float("nan")
    with pytest.raises(DataError, match="nan"):
        tiny.encode(hole)


@pytest.mark.parametrize(("kind", "stride"), [(LIKE_WAN21, 8), (LIKE_MINI, 8), (LIKE_FINE, 4)])
def test_a_codec_says_how_many_pixels_a_latent_stands_for_and_takes_whole_ones(kind, stride):
    tiny = codec(tiny_vae(kind))
    assert tiny.stride == stride == 24 // tiny.encode(clip(1)).shape[3]
    near = 24 // stride * stride
    with pytest.raises(DataError, match=f"near {near} and {near + stride}"):
        tiny.encode(clip(1, 26, 40))


def test_broken_latents_are_refused():
    tiny = codec(tiny_vae())
    with pytest.raises(DataError, match=r"not \(B, 6, 1\+k, h, w\)"):
        tiny.decode(torch.zeros(1, 5, 2, 3, 4))
    with pytest.raises(DataError, match="infinite"):
        tiny.decode(torch.full((1, 6, 2, 3, 4), float("inf")))


def test_the_result_is_float32_whatever_the_weights_are(tmp_path):
    tiny_vae().save_pretrained(tmp_path)
    half = wan_codec(CodecConfig(path=str(tmp_path), dtype="bfloat16"), "cpu")
    assert half.vae.dtype == torch.bfloat16
    latents = half.encode(clip(5))
    assert latents.dtype == half.decode(latents).dtype == torch.float32
    torch.testing.assert_close(latents, codec(tiny_vae()).encode(clip(5)), rtol=0, atol=0.1)


@pytest.mark.parametrize("inside", ["", "vae"])
def test_a_diffusers_folder_or_the_one_around_it_loads(tmp_path, inside):
    tiny_vae().save_pretrained(tmp_path / inside)
    loaded = wan_codec(CodecConfig(name="wan2.1", path=str(tmp_path)), "cpu")
    assert loaded.channels == 6
    assert torch.equal(loaded.encode(clip(5)), codec(tiny_vae()).encode(clip(5)))


def test_a_missing_or_extra_weight_is_an_error_and_no_warning(tmp_path):
    tiny_vae().save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["decoder.surplus"] = weights.pop("decoder.conv_in.bias")
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(DataError) as error:
        wan_codec(CodecConfig(path=str(tmp_path)), "cpu")
    assert "decoder.conv_in.bias" in str(error.value.where["missing"])
    assert "decoder.surplus" in str(error.value.where["unknown"])


def test_a_truncated_weight_file_is_an_error(tmp_path):
    tiny_vae().save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(DataError, match="cannot be loaded"):
        wan_codec(CodecConfig(path=str(tmp_path)), "cpu")


def test_absent_weights_say_what_to_download_and_where_to_put_it(tmp_path):
    with pytest.raises(MissingPartError) as error:
        wan_codec(CodecConfig(name="wan2.1"), "cpu")
    assert "Wan2.1_VAE.pth" in error.value.fix
    assert "codec.path" in error.value.fix
    with pytest.raises(MissingPartError):
        wan_codec(CodecConfig(path=str(tmp_path / "nothing")), "cpu")


# --- the original single file ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_original_single_file_loads_under_its_own_names_and_sizes(tmp_path, suffix):
    path, vae = original_file(tmp_path, suffix)
    loaded = wan_codec(CodecConfig(name="wan2.1", path=str(path)), "cpu")
    assert loaded.channels == 16
    assert torch.equal(loaded.encode(clip(5, 16, 24, batch=1)), codec(vae).encode(clip(5, 16, 24, batch=1)))


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("original", [False, True])
def test_weights_compute_the_same_wherever_they_start_in_their_file(tmp_path, original, offset):
    if original:
        file, vae = original_file(tmp_path, ".safetensors")
    else:
        file, vae = tmp_path / "diffusion_pytorch_model.safetensors", tiny_vae()
        vae.save_pretrained(tmp_path)
    shift_data(file, offset)
    loaded = wan_codec(CodecConfig(path=str(file if original else tmp_path)), "cpu")
    assert not astray(loaded.vae)
    assert not mapped([file])
    assert torch.equal(loaded.encode(clip(5, 16, 24, batch=1)), codec(vae).encode(clip(5, 16, 24, batch=1)))


def test_the_original_names_are_those_that_wan_published():
    assert original_name("encoder.down_blocks.3.conv_shortcut.bias") == "encoder.downsamples.3.shortcut.bias"
    assert original_name("decoder.up_blocks.1.resnets.2.norm2.gamma") == "decoder.upsamples.6.residual.3.gamma"
    assert original_name("decoder.up_blocks.2.upsamplers.0.time_conv.bias") == "decoder.upsamples.11.time_conv.bias"
    assert original_name("post_quant_conv.bias") == "conv2.bias"


def test_a_weight_that_the_original_file_lacks_is_named(tmp_path):
    path, _ = original_file(tmp_path, ".safetensors")
    weights = load_file(path)
    del weights["decoder.upsamples.3.time_conv.weight"]
    weights["encoder.mystery"] = torch.zeros(1)
    save_file(weights, path)
    with pytest.raises(DataError) as error:
        wan_codec(CodecConfig(path=str(path)), "cpu")
    assert "time_conv" in str(error.value.where["missing"])
    assert "mystery" in str(error.value.where["unknown"])


def test_a_file_that_would_run_code_is_refused(tmp_path):
    path, touched = tmp_path / "Wan2.1_VAE.pth", tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return Path.touch, (touched,)

    path.write_bytes(pickle.dumps({"encoder.conv1.weight": Evil()}, protocol=2))
    with pytest.raises(DataError, match="holds more than tensors"):
        wan_codec(CodecConfig(path=str(path)), "cpu")
    assert not touched.exists()


# --- the packaged VAE ------------------------------------------------------------------------------------------------


def test_the_packaged_codec_needs_nothing_but_the_package():
    mini: VideoCodec = find("codec", "mini")(CodecConfig(), "cpu")
    assert mini.name == "mini"
    assert mini.channels == 16
    latents = mini.encode(clip(9, 64, 112, batch=1))
    assert latents.shape == (1, 16, 3, 8, 14)
    video = mini.decode(latents)
    assert video.shape == (1, 3, 9, 64, 112)
    assert -1.0 <= float(video.min()) <= float(video.max()) <= 1.0


def test_a_path_overrides_the_packaged_weights(tmp_path):
    tiny_vae(LIKE_MINI).save_pretrained(tmp_path)
    assert mini_codec(CodecConfig(path=str(tmp_path), chunk_frames=2), "cpu").channels == 6
