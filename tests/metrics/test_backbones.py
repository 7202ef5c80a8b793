"""Backbones: the offline one, and the two of VBench on tiny random networks saved in the released format."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.misaligned import OFFSETS, astray, mapped, shift_folder
from torch import nn
from torch.nn import functional

from hmcli.errors import DataError, MissingPartError, UsageError
from hmcli.metrics.backbones.clip import clip
from hmcli.metrics.backbones.dino import DinoFeatures, dino
from hmcli.metrics.backbones.hog import hog
from hmcli.metrics.backbones.networks import BATCH, load_network, shorter_side
from hmcli.metrics.consistency import subject_consistency
from hmcli.registry import find

PATCH, SIDE = 8, 32  # a 4x4 table of positions


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory) -> Path:
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        image_size=SIDE,
        patch_size=PATCH,
    )
    model = ViTModel(config)
    torch.nn.init.normal_(model.embeddings.position_embeddings)
    torch.nn.init.normal_(model.embeddings.cls_token)
    folder = tmp_path_factory.mktemp("dino")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    torch.manual_seed(1)
    shape = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
    text = CLIPTextConfig(vocab_size=50, max_position_embeddings=7, projection_dim=10, **shape)
    vision = CLIPVisionConfig(image_size=SIDE, patch_size=PATCH, projection_dim=10, **shape)
    folder = tmp_path_factory.mktemp("clip")
    CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=10)
    ).save_pretrained(folder)
    return folder


def video(seed: int, frames: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3)).astype(np.uint8)


def slow_dino(folder: Path, pixels: torch.Tensor) -> torch.Tensor:
    """The DINO repository's forward pass on a whole input, with its enlarged grid, through transformers' layers."""
    from transformers import ViTModel

    model = ViTModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="eager").eval()
    table = model.embeddings.position_embeddings
    rows, columns = pixels.shape[-2] // PATCH, pixels.shape[-1] // PATCH
    grid = table[:, 1:].reshape(1, 4, 4, 24).permute(0, 3, 1, 2)
    factor = ((rows + 0.1) / math.sqrt(16), (columns + 0.1) / math.sqrt(16))
    grid = functional.interpolate(grid, scale_factor=factor, mode="bicubic").permute(0, 2, 3, 1).reshape(1, -1, 24)
    projection = model.embeddings.patch_embeddings.projection
    patches = functional.conv2d(pixels, projection.weight, projection.bias, stride=PATCH).flatten(2).transpose(1, 2)
    hidden = torch.cat([model.embeddings.cls_token.expand(len(pixels), -1, -1), patches], dim=1)
    hidden = hidden + torch.cat([table[:, :1], grid], dim=1)
    layers = next(part for part in model.modules() if isinstance(part, nn.ModuleList))  # named otherwise before 5.9
    for layer in layers:
        hidden = layer(hidden)
    return model.layernorm(hidden)[:, 0]


def slow_bilinear(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear interpolation between the four nearest pixel centres, without antialiasing."""
    out = np.zeros((height, width, 3))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * frame.shape[0] / height - 0.5, 0), frame.shape[0] - 1)
            u = min(max((x + 0.5) * frame.shape[1] / width - 0.5, 0), frame.shape[1] - 1)
            top, left = int(v), int(u)
            low, right = min(top + 1, frame.shape[0] - 1), min(left + 1, frame.shape[1] - 1)
            dy, dx = v - top, u - left
            upper = (1 - dx) * frame[top, left] + dx * frame[top, right]
            lower = (1 - dx) * frame[low, left] + dx * frame[low, right]
            out[y, x] = (1 - dy) * upper + dy * lower
    return out


@pytest.mark.parametrize(("height", "width"), [(64, 112), (480, 832), (3, 2), (1, 1)])
def test_hog_describes_frames_of_any_size_by_equally_many_numbers(height, width):
    features = hog("", "cpu")(video(0, 2, height, width))
    assert features.shape == (2, 7 * 7 * 2 * 2 * 9)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_hog_is_scikit_image_s_on_the_resized_frame():
    from skimage.feature import hog as histograms

    frame = video(0, 1, 128, 128)
    expected = histograms(
        frame[0],
        orientations=9,
        pixels_per_cell=(16, 16),
        cells_per_block=(2, 2),
        block_norm="L2-Hys",
        channel_axis=-1,
    )
    np.testing.assert_allclose(hog("", "cpu")(frame)[0], expected, rtol=1e-6)


def test_hog_says_that_its_scores_are_not_comparable():
    assert "not comparable" in hog("", "cpu").about["comparable"]


def test_hog_refuses_weights_it_would_ignore(tmp_path):
    with pytest.raises(UsageError, match="no weights to load"):
        hog(str(tmp_path), "cpu")


@pytest.mark.parametrize("name", ["dino", "clip"])
@pytest.mark.parametrize("path", ["", "nowhere"])
def test_missing_weights_say_what_to_put_where(name, path):
    with pytest.raises(MissingPartError) as caught:
        find("backbone", name)(path, "cpu")
    assert "config.json and model.safetensors" in caught.value.fix
    assert f"eval.backbone={name}" in caught.value.fix


def test_dino_is_the_class_token_of_the_frame_as_vbench_prepares_it(dino_folder):
    frames = video(0, 2, 20, 31)  # shorter side 20 -> 32, longer 31 -> 49 (6 patches and one column left over)
    resized = np.stack([slow_bilinear(frame.astype(float), SIDE, 49) for frame in frames])
    pixels = (resized / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = slow_dino(dino_folder, torch.from_numpy(pixels).float().permute(0, 3, 1, 2))
    found = dino(str(dino_folder), "cpu")(frames)
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)


def test_dino_stretches_positions_unlike_transformers_where_frames_are_not_square(dino_folder):
    from transformers import ViTModel

    model = ViTModel.from_pretrained(dino_folder, add_pooling_layer=False).eval()
    ours = DinoFeatures(model)
    with torch.inference_mode():
        square, wide = torch.rand(1, 3, SIDE, SIDE), torch.rand(1, 3, SIDE, 56)
        torch.testing.assert_close(ours(square), model(square).last_hidden_state[:, 0])
        theirs = model(wide, interpolate_pos_encoding=True).last_hidden_state[:, 0]
        assert 1e-4 < (ours(wide) - theirs).abs().max() < 0.5


def test_clip_is_the_projected_feature_of_the_middle_square(clip_folder):
    from transformers import CLIPModel

    frames = video(3, 3, 20, 31)
    raw = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    resized = functional.interpolate(raw, size=(SIDE, 49), mode="bicubic", align_corners=False)
    middle = resized[..., 8 : 8 + SIDE]  # (49 - 32) / 2 = 8.5, rounded to even
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    model = CLIPModel.from_pretrained(clip_folder).eval()
    with torch.no_grad():
        pooled = model.vision_model((middle / 255 - mean) / std).pooler_output
        expected = model.visual_projection(pooled)
    found = clip(str(clip_folder), "cpu")(frames)
    assert found.shape == (3, 10)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_features_do_not_depend_on_how_frames_are_batched(dino_folder):
    frames = video(5, BATCH + 3, 16, 24)
    network = dino(str(dino_folder), "cpu")
    alone = np.concatenate([network(frame[None]) for frame in frames])
    np.testing.assert_allclose(network(frames), alone, atol=1e-5)
    assert subject_consistency(prediction=frames, backbone=network).shape == (BATCH + 2,)


@pytest.mark.parametrize("offset", OFFSETS)
def test_features_are_the_same_wherever_the_weights_start_in_their_file(dino_folder, tmp_path, offset):
    from transformers import ViTModel

    shutil.copytree(dino_folder, tmp_path, dirs_exist_ok=True)
    shift_folder(tmp_path, offset)
    assert not astray(load_network(ViTModel, tmp_path, "cpu", add_pooling_layer=False))
    assert not mapped(tmp_path.iterdir())
    frames = video(0, 2, 20, 31)
    assert np.array_equal(*(dino(str(folder), "cpu")(frames) for folder in (dino_folder, tmp_path)))


def test_weights_are_named_by_their_content(dino_folder, clip_folder, tmp_path):
    import shutil

    known = dino(str(dino_folder), "cpu").about["weights"]
    shutil.copytree(dino_folder, tmp_path / "moved")
    assert dino(str(tmp_path / "moved"), "cpu").about["weights"] == known
    assert clip(str(clip_folder), "cpu").about["weights"] != known


def test_a_folder_of_another_architecture_is_refused_by_name_of_what_is_missing(clip_folder, dino_folder, tmp_path):
    import shutil

    shutil.copytree(dino_folder, tmp_path / "mixed")
    shutil.copy(clip_folder / "model.safetensors", tmp_path / "mixed" / "model.safetensors")
    with pytest.raises(DataError, match="parameters are missing"):
        dino(str(tmp_path / "mixed"), "cpu")


def test_a_damaged_weight_file_is_bad_data(dino_folder, tmp_path):
    import shutil

    shutil.copytree(dino_folder, tmp_path / "cut")
    whole = (tmp_path / "cut" / "model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        dino(str(tmp_path / "cut"), "cpu")


@pytest.mark.parametrize(("height", "width", "side"), [(480, 832, 224), (17, 11, 5), (9, 9, 9)])
def test_the_shorter_side_is_met_and_the_longer_one_rounded_down(height, width, side):
    resized = shorter_side(torch.zeros(1, 3, height, width), side, "bilinear")
    assert min(resized.shape[-2:]) == side
    assert max(resized.shape[-2:]) == side * max(height, width) // min(height, width)
