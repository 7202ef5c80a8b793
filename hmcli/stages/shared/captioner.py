"""Captions by a model: any image-text-to-text model of transformers, from a folder, tells what the context shows.

It sees some frames of the context, in order, and one instruction; it writes greedily, so the same frames give the same
caption. The plain captions still come from the scene's description.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hmcli.aligned import own, own_weights
from hmcli.errors import DataError, MissingPartError
from hmcli.tensors.impostors import check_no_impostors_in

FRAMES = 4  # of the context, evenly spaced, the first and the last among them
PROMPT = "These are frames of one video, in order. Describe in one sentence who or what moves in it, how, and where."
_LONGEST = 96  # tokens
_FIX = "name a folder with config.json, model.safetensors and the processor's files (--captioner, world.captioner)"


def check_captioner(folder: Path) -> None:
    """Is there a model's folder? Raises MissingPartError."""
    if not (folder / "config.json").is_file():
        raise MissingPartError("there is no captioning model", where={"captioner": folder}, fix=_FIX)


def load_captioner(folder: Path, device: str) -> Callable[[np.ndarray], str]:
    """A function from the context's frames (T, H, W, 3) uint8 to a caption on one line.

    Raises MissingPartError when there is no such folder, DataError when it holds no whole model with its processor.
    """
    check_captioner(folder)
    model, processor = _loaded(folder)
    model = model.to(device).eval()

    def caption(video: np.ndarray) -> str:
        return _caption(model, processor, video)

    return caption


def _loaded(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    check_no_impostors_in(folder)
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype="auto"
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        where = {"captioner": folder, "at": error}
        raise DataError("the captioning model cannot be loaded", where=where, fix=_FIX) from error
    model, info = loaded
    if info["missing_keys"]:
        first = sorted(info["missing_keys"])[0]
        raise DataError(
            f"the captioning model lacks {len(info['missing_keys'])} weights, the first is {first}",
            where={"captioner": folder}, fix=_FIX,
        )  # fmt: skip
    if getattr(processor, "chat_template", None) is None:
        what = "the captioning model's processor has no chat template"
        raise DataError(what, where={"captioner": folder}, fix="use an instruction-tuned model")
    own_weights(model)
    return model, processor


def _caption(model: Any, processor: Any, video: np.ndarray) -> str:
    import torch

    chosen = np.unique(np.linspace(0, len(video) - 1, FRAMES).round().astype(int))
    content: list[dict[str, Any]] = [{"type": "image", "image": Image.fromarray(video[frame])} for frame in chosen]
    message = {"role": "user", "content": [*content, {"type": "text", "text": PROMPT}]}
    inputs = processor.apply_chat_template(
        [message], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    ).to(model.device)
    if "pixel_values" in inputs:
        inputs["pixel_values"] = own(inputs["pixel_values"].to(model.dtype))
    with torch.inference_mode():
        written = model.generate(**inputs, max_new_tokens=_LONGEST, do_sample=False)
    text = processor.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
    return " ".join(text.split())
