"""Captions by a model: any image-text-to-text folder works, here a random one of the same format."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from reference.misaligned import OFFSETS, astray, mapped, shift_folder
from warm import WarmCommand

from hmcli.errors import DataError, MissingPartError
from hmcli.recipe.sections import PosesConfig, Recipe, WorldConfig
from hmcli.runtime import Silent, Terminated
from hmcli.stages.data import captioning
from hmcli.stages.data.opening import open_dataset
from hmcli.stages.rendering.render import run
from hmcli.stages.shared.captioner import _loaded, load_captioner
from hmcli.store.files import read_csv, read_json_lines, write_csv, write_json, write_json_lines
from hmcli.store.manifest import read_manifest
from hmcli.store.video import write_video
from hmcli.world.views.cameras import pair_file

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


# --- hm dataset caption ----------------------------------------------------------------------------------------------


def film(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.random.default_rng(seed).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8), fps=5)


def released(folder: Path, captions: str) -> Path:
    for number, name in enumerate("abc"):
        film(folder / name / "cond.mp4", seed=number)
        write_json(folder / name / "camera.json", pair_file({"context": np.repeat(np.eye(4)[None], 5, axis=0)}))
    (folder / "caption.txt").write_text(captions)
    return folder


def told_by(folder: Path) -> dict[str, str]:
    return {clip.id: clip.caption for clip in open_dataset(folder, PosesConfig()).clips}


def test_clips_without_a_caption_get_one_and_the_others_keep_theirs(hm: WarmCommand, model, tmp_path):
    folder = released(tmp_path / "data", "a\tmine\nz\tof another part\n")
    (folder / "c/cond.mp4").write_bytes(b"no film")
    assert "b" in open_dataset(folder, PosesConfig()).notes[0]
    done = hm("dataset", "caption", folder, "--captioner", model, "--json")
    assert done.returncode == 4, done.stderr  # c cannot be read
    assert json.loads(done.stdout)["counts"] == {"written": 1, "kept": 1}
    lines = dict(line.split("\t") for line in (folder / "caption.txt").read_text().splitlines())
    assert (lines["a"], lines["c"], lines["z"]) == ("mine", "", "of another part")
    assert set(lines["b"].split()) <= set(WORDS)
    assert lines["b"]
    assert sorted(file.name for file in folder.iterdir()) == ["a", "b", "c", "caption.txt"]
    forced = ok_or_4(hm("dataset", "caption", folder, "--captioner", model, "--force", "--json"))
    assert forced["counts"] == {"written": 2, "kept": 0}
    assert told_by(folder)["a"] != "mine"
    assert told_by(folder)["b"] == lines["b"]


def ok_or_4(done) -> dict:
    assert done.returncode in (0, 4), done.stderr
    return json.loads(done.stdout)


def test_captioning_goes_on_where_it_was_stopped(model, tmp_path):
    folder = released(tmp_path / "data", "")
    whole = shutil.copytree(folder, tmp_path / "whole")
    say = lambda place, reporter: captioning.run(  # noqa: E731
        place, captioner=model, force=False, device="cpu", poses=PosesConfig(), reporter=reporter
    )

    class Stopping(Silent):
        @contextlib.contextmanager
        def progress(self, what, total, unit):
            def advance(n):
                raise Terminated

            yield advance

    with pytest.raises(Terminated):
        say(folder, Stopping())
    assert told_by(folder) == {"a": "", "b": "", "c": ""}
    (kept,) = (folder / captioning.UNFINISHED).read_text().splitlines()
    made_up = json.dumps({**json.loads(kept), "caption": "kept from before"})
    stale = json.dumps({**json.loads(kept), "clip": "b", "caption": "of other bytes"})
    (folder / captioning.UNFINISHED).write_text(f'{made_up}\n{stale}\n{{"clip": "c", "of')
    say(folder, Silent())
    say(whole, Silent())
    assert told_by(folder) == {**told_by(whole), "a": "kept from before"}
    assert not (folder / captioning.UNFINISHED).exists()


@pytest.mark.parametrize("metadata", ["metadata.csv", "metadata.jsonl"])
def test_captions_go_where_the_folder_has_them(model, tmp_path, metadata):
    rows = [
        {"file_name": "x/a.mp4", "text": "mine", "camera": "static", "score": "3"},
        {"file_name": "b.mp4", "text": "", "camera": "static", "score": "4"},
    ]
    for number, row in enumerate(rows):
        film(tmp_path / row["file_name"], seed=number)
    if metadata.endswith("csv"):
        write_csv(tmp_path / metadata, list(rows[0]), rows)
    else:
        del rows[1]["text"]  # a row that says nothing at all
        write_json_lines(tmp_path / metadata, rows)
        rows[1]["text"] = ""
    assert told_by(tmp_path) == {"b": "", "x/a": "mine"}
    captioning.run(tmp_path, captioner=model, force=False, device="cpu", poses=PosesConfig(), reporter=Silent())
    after = (read_csv if metadata.endswith("csv") else read_json_lines)(tmp_path / metadata)
    assert after[0] == rows[0]
    said = after[1].get("text") or after[1]["caption"]
    assert said == told_by(tmp_path)["b"]
    assert set(said.split()) <= set(WORDS)
    assert after[1]["score"] == "4"


def test_numbered_examples_keep_their_lines(model, tmp_path):
    for name in ("1", "3"):
        film(tmp_path / f"{name}.mp4", seed=int(name))
        write_json(tmp_path / f"cam{name}.json", pair_file({"context": np.repeat(np.eye(4)[None], 5, axis=0)}))
    (tmp_path / "caption.txt").write_text("one\ntwo\n\n")
    captioning.run(tmp_path, captioner=model, force=False, device="cpu", poses=PosesConfig(), reporter=Silent())
    lines = (tmp_path / "caption.txt").read_text().splitlines()
    assert lines[:2] == ["one", "two"]
    assert lines[2]
    assert set(lines[2].split()) <= set(WORDS)


def test_rendered_clips_and_a_missing_model_are_refused(hm: WarmCommand, model, clips, tmp_path):
    done = hm("dataset", "caption", clips, "--captioner", model)
    assert done.returncode == 2
    assert "rendered clips have their captions" in done.stderr
    assert hm("dataset", "caption", clips, "--captioner", tmp_path).returncode == 5
