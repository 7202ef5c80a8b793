"""Whatever reads weights names a Git LFS pointer or a web page in their place for what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from random_lpips import write_random_lpips
from small_detector import write_random_detector

from hmcli.codecs.blocks import load_blocks
from hmcli.codecs.text import _load_umt5
from hmcli.codecs.wan_files import load_wan_vae
from hmcli.errors import DataError
from hmcli.metrics.backbones import effnet
from hmcli.metrics.backbones.clip import clip
from hmcli.metrics.backbones.dino import dino
from hmcli.metrics.detectors.objects import transformers_objects
from hmcli.metrics.detectors.segmenter import load_segmenter
from hmcli.metrics.lpips import FILES, load_lpips
from hmcli.stages.shared.captioner import load_captioner

IN_PLACE = {
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 5076\n",
    "an HTML page": b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>",
}
OWN = "diffusion_pytorch_model.safetensors"
SAVED = "model.safetensors"


def configured(folder: Path) -> None:
    (folder / "config.json").write_text("{}", encoding="utf-8")


def packaged_effnet(folder: Path) -> None:
    """The file that an installed package would bring."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(effnet, "weights_file", lambda: folder / "a.pth")
        effnet.load_effnet("cpu")


# what reads -> (what else is in its folder, the file of weights, how it is opened)
READERS: dict[str, tuple[Callable[[Path], Any], str, Callable[[Path], Any]]] = {
    "lpips, network": (lambda folder: write_random_lpips(folder, "alex"), FILES["alex"][0],
                       lambda folder: load_lpips("alex", str(folder), "cpu")),
    "lpips, channels": (lambda folder: write_random_lpips(folder, "alex"), FILES["alex"][1],
                        lambda folder: load_lpips("alex", str(folder), "cpu")),
    "dino": (configured, SAVED, lambda folder: dino(str(folder), "cpu")),
    "clip": (configured, SAVED, lambda folder: clip(str(folder), "cpu")),
    "clip, pickled": (configured, "pytorch_model.bin", lambda folder: clip(str(folder), "cpu")),
    "clip, a shard": (configured, "model-00002-of-00002.safetensors", lambda folder: clip(str(folder), "cpu")),
    "effnet-lite0": (lambda folder: None, "a.pth", packaged_effnet),
    "objects": (write_random_detector, SAVED, lambda folder: transformers_objects(str(folder), "cpu")),
    "segmenter": (lambda folder: None, SAVED, lambda folder: load_segmenter(folder / SAVED, "cpu")),
    "captioner": (configured, SAVED, lambda folder: load_captioner(folder, "cpu")),
    "vae": (configured, OWN, lambda folder: load_wan_vae(folder, torch.float32)),
    "blocks": (configured, OWN, lambda folder: load_blocks(folder, torch.float32)),
    "text encoder": (configured, SAVED, lambda folder: _load_umt5(folder, torch.float32)),
}  # fmt: skip


@pytest.mark.parametrize("what", IN_PLACE)
@pytest.mark.parametrize("reader", READERS)
def test_what_lies_in_place_of_weights_is_named(tmp_path: Path, reader: str, what: str):
    others, name, opened = READERS[reader]
    others(tmp_path)
    (tmp_path / name).write_bytes(IN_PLACE[what])
    with pytest.raises(DataError, match=f"the file is {what}, not weights") as refused:
        opened(tmp_path)
    assert refused.value.where["file"] == tmp_path / name
    assert refused.value.exit_code == 3
