"""LPIPS equals the `lpips` package to 1e-6, on random networks in torchvision's format and the package's own heads."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hmcli.errors import DataError, MissingPartError, UsageError
from hmcli.metrics.lpips import FILES, LEAST, Trunk, load_lpips

VGG = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool")


class Features(nn.Module):
    """What torchvision's models offer LPIPS: `features`, numbered as there."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(3, 2)  # a part of the file that LPIPS has no use for


def alexnet(pretrained: bool = True) -> Features:
    torch.manual_seed(0)
    return Features(
        [
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, kernel_size=3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2),
        ]
    )  # fmt: skip


def vgg16(pretrained: bool = True) -> Features:
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    inside = 3
    for width in VGG:
        if width == "pool":
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        else:
            layers += [nn.Conv2d(inside, width, kernel_size=3, padding=1), nn.ReLU()]
            inside = width
    return Features(layers)


MODELS = {"alex": alexnet, "vgg": vgg16}


@pytest.fixture(scope="module")
def package() -> Iterator[Any]:
    """The lpips package over these models: torchvision, which it imports, is not installed here, and is not needed."""
    if importlib.util.find_spec("lpips") is None:
        pytest.skip("the package lpips is not installed: pip install --no-deps lpips==0.1.4")
    stub, models = types.ModuleType("torchvision"), types.ModuleType("torchvision.models")
    models.alexnet, models.vgg16 = alexnet, vgg16
    stub.models = models
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setitem(sys.modules, "torchvision", stub)
        patch.setitem(sys.modules, "torchvision.models", models)
        yield importlib.import_module("lpips")
    for name in [name for name in sys.modules if name.partition(".")[0] == "lpips"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def folder(package: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random trunks under torchvision's file names, and the package's own heads."""
    place = tmp_path_factory.mktemp("lpips")
    for network, (trunk, heads) in FILES.items():
        torch.save(MODELS[network]().state_dict(), place / trunk)
        shutil.copy(Path(package.__file__).parent / "weights" / "v0.1" / heads, place / heads)
    return place


def videos(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    true = rng.integers(0, 256, (6, height, width, 3)).astype(np.uint8)
    made = np.clip(true + rng.normal(0, 60, true.shape), 0, 255).astype(np.uint8)
    made[0] = true[0]
    return made, true


def as_the_package_reads(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.mark.parametrize(("network", "height", "width"), [("alex", 64, 112), ("alex", 37, 50), ("vgg", 37, 50)])
def test_it_equals_the_package(package, folder, network, height, width):
    made, true = videos(height, width)
    theirs = package.LPIPS(net=network, version="0.1", verbose=False)
    with torch.no_grad():
        expected = theirs(as_the_package_reads(made), as_the_package_reads(true)).flatten().numpy()
    found = load_lpips(network, str(folder), "cpu")(made, true).values_T
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert found[0] == 0
    assert (found[1:] > 1e-3).all()


@pytest.mark.weights
@pytest.mark.parametrize(("picture", "distance"), [("ex_p0.png", 0.569), ("ex_p1.png", 0.422)])
def test_the_published_weights_give_the_published_distances(picture, distance):
    """VGG on the example pictures of the package's repository (imgs/): HM_LPIPS names a folder with all files."""
    from PIL import Image

    place = Path(os.environ.get("HM_LPIPS", "nowhere"))
    needed = [*FILES["vgg"], "ex_ref.png", picture]
    if lacking := [name for name in needed if not (place / name).is_file()]:
        pytest.skip(f"HM_LPIPS names no folder with {', '.join(lacking)}")
    made, true = (np.asarray(Image.open(place / name).convert("RGB"))[None] for name in (picture, "ex_ref.png"))
    assert load_lpips("vgg", str(place), "cpu")(made, true).values_T[0] == pytest.approx(distance, abs=6e-4)


@pytest.mark.parametrize("network", list(FILES))
def test_frames_too_small_for_the_last_map_are_refused(network):
    least = LEAST[network]
    trunk = Trunk(network)
    assert all(0 not in tap.shape for tap in trunk(torch.zeros(1, 3, least, least)))
    with pytest.raises(RuntimeError):
        trunk(torch.zeros(1, 3, least - 1, least))


def test_small_frames_say_how_large_they_must_be(folder):
    with pytest.raises(ValueError, match="at least 31 pixels a side, these are 30x64"):
        load_lpips("alex", str(folder), "cpu")(*videos(30, 64))


@pytest.mark.parametrize("lacking", FILES["alex"])
def test_a_missing_file_is_named_with_where_it_is_published(folder, tmp_path, lacking):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / lacking).unlink()
    with pytest.raises(MissingPartError, match=lacking) as caught:
        load_lpips("alex", str(tmp_path), "cpu")
    assert "https://download.pytorch.org/models/" in caught.value.fix
    assert "eval.lpips_path=FOLDER" in caught.value.fix
    with pytest.raises(MissingPartError):
        load_lpips("alex", "", "cpu")


def test_an_unknown_network_lists_the_known_ones(folder):
    with pytest.raises(UsageError, match="'squeeze'") as caught:
        load_lpips("squeeze", str(folder), "cpu")
    assert "alex, vgg" in caught.value.fix


@pytest.mark.parametrize(("file", "content"), [
    (FILES["alex"][0], "other weights"), (FILES["alex"][1], "other weights"), (FILES["alex"][0], "cut"),
    (FILES["alex"][1], "a number"),
])  # fmt: skip
def test_a_file_that_is_not_what_its_name_says_is_bad_data(folder, tmp_path, file, content):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    place = tmp_path / file
    if content == "cut":
        place.write_bytes(place.read_bytes()[:1000])
    else:
        torch.save(vgg16().state_dict() if content == "other weights" else 3, place)
    with pytest.raises(DataError) as caught:
        load_lpips("alex", str(tmp_path), "cpu")
    assert file in str(caught.value)


def test_weights_are_named_by_their_content(folder):
    about = load_lpips("alex", str(folder), "cpu").about
    assert about["weights"].count("sha256:") == 2
    assert "alex.pth" in about["weights"]
