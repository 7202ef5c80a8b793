"""Captions as embeddings: UMT5 from a folder, and the offline embedding behind the same interface."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.misaligned import OFFSETS, astray, mapped, shift_folder
from safetensors.torch import load_file, save_file
from transformers import UMT5EncoderModel
from wan_parts import WORDS, text_folder

from hmcli.codecs.text import MiniText, Umt5Text, clean_caption, mini_text, position_code, umt5_text, word_vector
from hmcli.contracts import TextEncoder
from hmcli.errors import DataError, MissingPartError
from hmcli.recipe.sections import TextConfig
from hmcli.registry import find


@pytest.fixture(scope="module")
def wan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_folder(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def umt5(wan_folder: Path) -> Umt5Text:
    return umt5_text(TextConfig(name="umt5", path=str(wan_folder), length=12), "cpu")


def encoders(umt5: Umt5Text) -> list[TextEncoder]:
    return [umt5, mini_text(TextConfig(length=12), "cpu")]


def test_every_encoder_gives_one_float32_row_per_token_without_padding(umt5):
    for encoder in encoders(umt5):
        short, long = encoder.encode(["the dog", "the dog walks across the red street"])
        assert short.dtype == long.dtype == np.float32
        assert len(short) < len(long) <= encoder.length
        assert short.shape[1] == long.shape[1] == encoder.dim


def test_a_caption_longer_than_length_is_cut_and_can_be_noticed(umt5):
    long = " ".join(WORDS * 3)
    for encoder in encoders(umt5):
        assert encoder.encode([long])[0].shape == (12, encoder.dim)
        assert encoder.token_count(long) > 12
        assert encoder.token_count("the dog") == len(encoder.encode(["the dog"])[0])


def test_the_empty_caption_is_well_defined(umt5):
    for encoder in encoders(umt5):
        (rows,) = encoder.encode(["  "])
        assert rows.shape == (1, encoder.dim)
        assert np.isfinite(rows).all()
        assert np.abs(rows).max() > 0


def test_equal_captions_are_encoded_once_and_all_answered(umt5):
    calls = []
    original = umt5._encode_one
    umt5._encode_one = lambda caption: calls.append(caption) or original(caption)
    try:
        rows = umt5.encode(["the dog", "a cat", "the dog", "a cat", "the dog"])
    finally:
        del umt5._encode_one
    assert calls == ["the dog", "a cat"]
    assert [len(r) for r in rows] == [len(rows[0]), len(rows[1]), len(rows[0]), len(rows[1]), len(rows[0])]
    assert np.array_equal(rows[0], rows[4])


def test_umt5_rows_are_those_of_the_padded_and_masked_run_that_wan_makes(umt5):
    caption = "the dog walks behind the house"
    tokens = umt5._tokenizer(
        [caption], padding="max_length", max_length=umt5.length, truncation=True, return_attention_mask=True,
        return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        hidden = umt5._model(tokens.input_ids, tokens.attention_mask).last_hidden_state[0]
    count = int(tokens.attention_mask.sum())
    assert 3 < count < umt5.length
    np.testing.assert_allclose(umt5.encode([caption])[0], hidden[:count].numpy(), atol=1e-5)


def test_the_local_tokenizer_knows_its_vocabulary(umt5):
    ids = umt5._tokenizer("the dog walks").input_ids
    assert ids[-1] == 1, "the end mark"
    assert 2 not in ids, "no unknown token"


def test_captions_are_cleaned_before_they_are_read(umt5):
    assert clean_caption("  a   dog&amp;amp; \n cat â€” here ") == "a dog& cat — here"
    for encoder in encoders(umt5):
        messy, clean = encoder.encode(["the   dog\n&lt;walks ", "the dog <walks"])
        assert np.array_equal(messy, clean)


@pytest.mark.parametrize("offset", OFFSETS)
def test_rows_are_the_same_wherever_the_weights_start_in_their_file(wan_folder, umt5, tmp_path, offset):
    shutil.copytree(wan_folder, tmp_path, dirs_exist_ok=True)
    shift_folder(tmp_path, offset)
    loaded = umt5_text(TextConfig(name="umt5", path=str(tmp_path), length=12), "cpu")
    assert not astray(loaded._model)
    assert not mapped(tmp_path.rglob("*.safetensors"))
    assert np.array_equal(loaded.encode(["the dog walks"])[0], umt5.encode(["the dog walks"])[0])


def test_absent_parts_of_umt5_say_what_to_download(tmp_path):
    for path in ("", str(tmp_path)):
        with pytest.raises(MissingPartError) as error:
            umt5_text(TextConfig(name="umt5", path=path), "cpu")
        assert "text_encoder/ and tokenizer/" in error.value.fix


def test_a_weight_that_the_text_encoder_lacks_is_an_error(wan_folder, tmp_path):
    for part in ("text_encoder", "tokenizer"):
        (tmp_path / part).mkdir()
        for file in (wan_folder / part).iterdir():
            (tmp_path / part / file.name).write_bytes(file.read_bytes())
    file = tmp_path / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    weights["encoder.surplus"] = weights.pop("encoder.final_layer_norm.weight")
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(DataError) as error:
        umt5_text(TextConfig(name="umt5", path=str(tmp_path)), "cpu")
    assert "final_layer_norm" in str(error.value)
    assert "surplus" in str(error.value)


# --- mini ------------------------------------------------------------------------------------------------------------


def test_mini_words_are_unit_vectors_that_never_change():
    assert np.linalg.norm(word_vector("dog")) == pytest.approx(1.0)
    bits = (word_vector("dog") > 0).astype(int)
    assert "".join(map(str, bits)) == "".join(f"{byte:08b}" for byte in bytes.fromhex(DOG_HASH))
    assert np.abs(word_vector("dog") @ word_vector("dogs")) < 0.5


DOG_HASH = "3984c7c1d25e9c9f"  # blake2b of "dog", 8 bytes: the embedding may never change under shipped weights


def test_mini_is_found_by_name_and_reads_words_without_case_in_their_order():
    mini: MiniText = find("text", "mini")(TextConfig(), "cpu")
    assert (mini.name, mini.dim, mini.length) == ("mini", 64, 32)
    one, two, other = mini.encode(["The dog, running.", "the DOG , running .", "running the dog,."])
    assert one.shape == (5, 64)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_mini_position_codes_are_unit_length_and_differ():
    code = position_code(32)
    np.testing.assert_allclose(np.linalg.norm(code, axis=1), 1.0, atol=1e-3)
    likeness = code @ code.T - np.eye(32)
    assert likeness.max() < 0.999


@pytest.mark.parametrize("shard_size", ["10GB", "10KB"])
def test_a_text_encoder_that_holds_only_a_variant_is_loaded(wan_folder: Path, tmp_path: Path, shard_size: str):
    whole = UMT5EncoderModel.from_pretrained(wan_folder / "text_encoder", local_files_only=True)
    whole.half().save_pretrained(tmp_path / "text_encoder", variant="fp16", max_shard_size=shard_size)
    shutil.copytree(wan_folder / "tokenizer", tmp_path / "tokenizer")
    names = {file.name for file in (tmp_path / "text_encoder").glob("*.safetensors*")}
    assert all("fp16" in name for name in names)
    assert (len(names) > 1) == (shard_size == "10KB")
    got = umt5_text(TextConfig(name="umt5", path=str(tmp_path), length=12), "cpu").encode(["a red fox"])
    wanted = umt5_text(TextConfig(name="umt5", path=str(wan_folder), length=12), "cpu").encode(["a red fox"])
    np.testing.assert_allclose(got[0], wanted[0], atol=2e-2)


def test_a_pointer_in_place_of_the_text_encoder_is_named(wan_folder: Path, tmp_path: Path):
    shutil.copytree(wan_folder, tmp_path / "wan")
    (tmp_path / "wan" / "text_encoder" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match="a Git LFS pointer"):
        umt5_text(TextConfig(name="umt5", path=str(tmp_path / "wan"), length=12), "cpu")
