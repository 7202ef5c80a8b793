"""Captions by a model: any image-text-to-text folder works, here a random one of the same format."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from reference.misaligned import OFFSETS, astray, mapped, shift_folder

from hmcli.errors import DataError, MissingPartError
from hmcli.recipe.sections import Recipe, WorldConfig
from hmcli.runtime import Silent
from hmcli.stages.rendering.captioner import _loaded, load_captioner
from hmcli.stages.rendering.render import run
from hmcli.store.manifest import read_manifest

WORDS = [
    "<unk>",
    "<s>",
    "</s>",
    "<image>",
    "<pad>",
    "USER:",
    "ASSISTANT:",
    "a",
    "dog",
    "walks",
    "along",
    "the",
    "street",
    "person",
]
TEMPLATE = (
    "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> {% else %}"
    "{{ c['text'] }}{% endif %}{% endfor %}{% endfor %} ASSISTANT:"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A tiny LLaVA with random weights."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    torch.manual_seed(1)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=["<image>"], extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    images = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    text = LlamaConfig(
        vocab_size=len(WORDS), num_hidden_layers=1, num_key_value_heads=2, bos_token_id=1, eos_token_id=2,
        pad_token_id=4, **sizes,
    )  # fmt: skip
    sight = CLIPVisionConfig(image_size=28, patch_size=14, projection_dim=8, num_hidden_layers=2, **sizes)
    folder = tmp_path_factory.mktemp("captioner")
    LlavaForConditionalGeneration(LlavaConfig(vision_config=sight, text_config=text, image_token_id=3)).save_pretrained(
        folder
    )
    LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_a_model_tells_what_it_sees(model):
    caption = load_captioner(model, "cpu")
    video = np.random.default_rng(0).integers(0, 256, (9, 24, 40, 3), dtype=np.uint8)
    text = caption(video)
    assert set(text.split()) <= set(WORDS)
    assert text == caption(video)
    assert caption(video[:1]) is not None  # a single frame is enough


@pytest.mark.parametrize("offset", OFFSETS)
def test_weights_stand_right_wherever_they_start_in_their_file(model, tmp_path, offset):
    shutil.copytree(model, tmp_path, dirs_exist_ok=True)
    shift_folder(tmp_path, offset)
    assert not astray(_loaded(tmp_path)[0])
    assert not mapped(tmp_path.iterdir())


def test_a_data_set_gets_its_captions_from_the_model(model, tmp_path):
    world = WorldConfig(clips=1, context_frames=13, target_frames=17, fps=5, size=(24, 40), antialias=False)
    own, told = (
        Recipe(seed=4, world=world),
        Recipe(seed=4, world=WorldConfig(**vars(world) | {"captioner": str(model)})),
    )
    for name, recipe in (("own", own), ("told", told)):
        run(recipe, out=tmp_path / name, reporter=Silent())
    first, second = ((tmp_path / name / "caption.txt").read_text() for name in ("own", "told"))
    assert first != second
    assert set(second.split("\t")[1].split()) <= set(WORDS)
    plain = [(tmp_path / name / "caption_plain.txt").read_text() for name in ("own", "told")]
    assert plain[0] == plain[1]
    (item,) = read_manifest(tmp_path / "told").items.values()
    assert item["meta"]["caption"] == second.split("\t")[1].strip()
    before = (tmp_path / "told" / "s4-00000" / "cond.mp4").stat().st_mtime_ns
    run(told, out=tmp_path / "told", reporter=Silent())
    assert (tmp_path / "told" / "s4-00000" / "cond.mp4").stat().st_mtime_ns == before


def test_a_folder_without_a_whole_model_is_refused(model, tmp_path):
    with pytest.raises(MissingPartError, match="there is no captioning model"):
        load_captioner(tmp_path / "nowhere", "cpu")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="cannot be loaded"):
        load_captioner(tmp_path, "cpu")


def test_a_dry_run_notices_that_the_model_is_missing(tmp_path):
    recipe = Recipe(world=WorldConfig(captioner=str(tmp_path / "nowhere")))
    with pytest.raises(MissingPartError, match="there is no captioning model"):
        run(recipe, out=tmp_path / "clips", reporter=Silent(), dry_run=True)
