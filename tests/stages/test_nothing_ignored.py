"""Nothing is ignored: a `--set` key that a command does not read is refused with those who would read it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from wan_parts import original_file, text_folder
from warm import WarmCommand, ok

from hmcli.core.transformer import load_model
from hmcli.errors import RecipeError
from hmcli.recipe.readers import KEYS
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.models.folders import ModelFolder, find_model
from hmcli.stages.sampling.job import Job, frozen_past, generate_latents, open_job
from hmcli.store.files import read_json, read_json_lines, write_json
from hmcli.store.manifest import read_manifest


def videos(generation: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (generation / "videos").iterdir()}


NOT_READ = [  # command, keys that it cannot use, and who reads them
    ("generate LATENTS --model RUN", "model.memory.top_k=1", "hm train"),
    ("generate LATENTS --model RUN", "model.memory.policy=none", "sample.memory=off generates without memory"),
    ("generate LATENTS --model RUN", "codec.dtype=bfloat16", "hm encode"),
    ("generate LATENTS --model RUN", "codec.path=/nowhere", "a model that names its codec by path"),
    ("generate LATENTS --model RUN", "text.path=/nowhere", "a model that names its text encoder by path"),
    ("generate LATENTS --model RUN", "model.layers=1", "hm train"),
    ("generate LATENTS --model RUN", "flow.noise=per-frame", "hm train"),
    ("generate LATENTS --model RUN", "model.memory.near=2", "where the policy compares fields of view"),
    ("generate LATENTS --model RUN", "data.size=[64,112]", "hm generate from a folder of clips"),
    ("generate CLIPS --model RUN", "world.fps=12", "hm render"),
    ("inspect RUN --latents LATENTS", "model.memory.top_k=1", "hm train"),
    ("tokenize-memory LATENTS --recipe NANO", "model.memory.top_k=1", "hm train"),
    ("tokenize-memory LATENTS --recipe NANO", "sample.dtype=bfloat16", "hm tokenize-memory --model"),
    ("tokenize-memory LATENTS --model RUN", "model.memory.kernel=[1,2,2]", "hm tokenize-memory without --model"),
    ("tokenize-memory LATENTS --model RUN", "sample.steps=1", "hm generate"),
    ("train NANO --latents LATENTS", "data.size=[64,112]", "hm encode"),
    ("train NANO --latents LATENTS", "sample.steps=3", "hm generate"),
    ("train NANO --latents LATENTS", "train.frames=9", "hm train (train.part=codec)"),
    ("train NANO --latents LATENTS", "model.memory.near=2", "where the policy compares fields of view"),
    ("train mini/codec --latents CLIPS", "model.layers=9", "hm train (train.part=transformer)"),
    ("train mini/codec --latents CLIPS", "train.text_dropout=0.2", "hm train (train.part=transformer)"),
    ("train mini/codec --latents CLIPS", "codec.name=wan2.1", "hm encode"),
    ("encode CLIPS --recipe NANO", "seed=3", "hm render"),
    ("render NANO", "data.size=[64,112]", "hm encode"),
    ("eval GENERATION", "data.size=[64,112]", "hm encode"),
    ("eval GENERATION", "poses.repair=reference", "videos that do not say how their cameras were read"),
    ("eval GENERATION --metric psnr", "eval.backbone=dino", "hm eval with a metric that needs a backbone"),
    ("eval GENERATION --metric psnr", "eval.lpips=vgg", "hm eval with the metric lpips"),
    ("eval GENERATION --metric psnr", "eval.videos=joined", "hm eval of a plain folder of videos"),
    ("convert RUN", "train.lr=1", "hm train"),
    ("convert RUN", "model.base=mini", "hm train"),
    ("convert RUN --to released", "sample.steps=3", "hm convert --to checkpoint"),
    ("convert RUN --to diffusers", "model.memory.top_k=1", "hm convert --to released"),
    ("dataset check CLIPS", "data.size=[64,112]", "hm encode"),
    ("demo", "train.part=codec", "hm train (train.part=codec)"),
]


@pytest.mark.parametrize(("command", "setting", "reader"), NOT_READ)
def test_a_key_that_a_command_cannot_use_is_refused_with_who_reads_it(
    hm: WarmCommand, nano: Path, clips: Path, latents: Path, run: Path, generation: Path, tmp_path: Path,
    command: str, setting: str, reader: str,
):  # fmt: skip
    places = {"NANO": nano, "CLIPS": clips, "LATENTS": latents, "RUN": run, "GENERATION": generation}
    words = [places.get(word, word) for word in command.split()]
    out = [] if words[0] == "dataset" else ["--out", tmp_path / "out"]
    done = hm(*words, *out, "--set", setting)
    assert done.returncode == 2, done.stderr
    assert "1 problem in the recipe" in done.stderr
    name = " ".join(command.split()[: 2 if words[0] == "dataset" else 1])
    assert f"{setting.partition('=')[0]} has no effect on hm {name}" in done.stderr
    assert reader in done.stderr
    assert not (tmp_path / "out").exists()


def test_keys_of_a_file_that_a_command_does_not_read_are_no_error_but_a_file_without_any_is_said(
    hm: WarmCommand, generation: Path, tmp_path: Path
):
    (tmp_path / "r.yaml").write_text("format: 1\ntrain: {steps: 3}\nworld: {clips: 2}\n")
    plan = ["eval", generation, "--metric", "psnr", "--recipe", tmp_path / "r.yaml", "--dry-run"]
    done = hm(*plan)
    assert done.returncode == 0, done.stderr
    assert "r.yaml says nothing that hm eval reads" in done.stderr
    (tmp_path / "r.yaml").write_text("train: {steps: 3}\neval: {average: videos}\n")
    assert "says nothing" not in hm(*plan).stderr


def test_what_is_read_in_one_case_only_is_refused_in_the_other_by_the_same_command(
    hm: WarmCommand, run: Path, clips: Path, latents: Path, tmp_path: Path
):
    fit = ["--model", run, "--dry-run", "--set", "data.fit=stretch"]
    assert hm("generate", clips, *fit, "--out", tmp_path / "a").returncode == 0
    assert hm("generate", latents, *fit, "--out", tmp_path / "b").returncode == 2


def test_one_key_is_not_set_twice(hm: WarmCommand, nano: Path, tmp_path: Path):
    done = hm("render", nano, "--clips", "2", "--set", "world.clips=3", "--out", tmp_path / "no")
    assert done.returncode == 2
    assert "world.clips is set twice" in done.stderr


def test_sections_set_as_a_whole_are_looked_into():
    readers = {"encode": None}
    with pytest.raises(RecipeError, match="2 problems") as caught:
        load_recipe(None, ["model={layers: 1, memory: {top_k: 1}}", "data={fit: crop}"], readers=readers, command="X")
    assert "model.layers has no effect on X" in str(caught.value)
    assert "model.memory.top_k has no effect on X" in str(caught.value)
    with pytest.raises(RecipeError, match=r"train\.lora\.rank has no effect"):
        load_recipe(None, ["train.lora=null"], readers=readers, command="X")
    load_recipe(None, ["data.split=null", "codec={tile: null}"], readers=readers, command="X")


@pytest.mark.parametrize("path", list(KEYS))
def test_whoever_reads_a_key_may_set_it_and_others_may_not(path: str):
    key = KEYS[path]
    split = path.startswith("data.split")  # neither of its keys has a default
    setting = "data.split={context: 5, target: 5}" if split else f"{path}={json.dumps(key.default)}"
    for reader in key.readers:
        load_recipe(None, [setting], readers={reader: None}, command="hm")
    with pytest.raises(RecipeError, match=f"{path} has no effect"):
        load_recipe(None, [setting], readers={}, command="hm")


def test_a_metric_named_on_the_command_line_and_by_set_is_named_twice(
    hm: WarmCommand, generation: Path, tmp_path: Path
):
    words = ["eval", generation, "--metric", "psnr", "--set", "eval.metrics=[ssim]", "--out", tmp_path / "no"]
    assert "eval.metrics is set twice" in hm(*words).stderr


# --- memory turned off -----------------------------------------------------------------------------------------------


def test_memory_is_turned_off_by_a_key_of_its_own(
    hm: WarmCommand, run: Path, latents: Path, generation: Path, tmp_path: Path
):
    off = ok(hm("generate", latents, "--model", run, "--out", tmp_path / "off", "--set", "sample.memory=off"))
    rows = read_json_lines(off / "generations.jsonl")
    assert {row["memory"] for row in rows} == {"off"}
    assert {row["memory"] for row in read_json_lines(generation / "generations.jsonl")} == {"on"}
    assert read_manifest(off).recipe["sample"]["memory"] == "off"
    assert all(videos(off)[name] != video for name, video in videos(generation).items())
    again = hm("generate", latents, "--model", run, "--out", tmp_path / "off")  # on: another key for every clip
    assert videos(ok(again)) == videos(generation)


@pytest.mark.parametrize("kind", ["run", "joint_run"])
def test_without_memory_a_model_reads_what_policy_none_reads_with_the_same_weights(
    request: pytest.FixtureRequest, kind: str, latents: Path, tmp_path: Path
):
    folder = find_model(request.getfixturevalue(kind))
    job, (clip_id, *_) = job_of(folder, latents, "off")
    clip = job.view.clip(clip_id)
    shutil.copytree(folder.path / "transformer", tmp_path / "transformer")
    config = read_json(tmp_path / "transformer" / "config.json")
    write_json(tmp_path / "transformer" / "config.json", config | {"policy": "none"})
    plain = load_model(tmp_path / "transformer")
    assert config["policy"] == "affinity"
    other = job_of(folder, latents, "off")[0]
    other.__dict__["network"] = plain  # the cached property
    alone = generate_latents(job, clip)
    assert np.array_equal(alone, generate_latents(other, clip))
    with_memory = job_of(folder, latents, "on")[0]
    assert not np.array_equal(alone, generate_latents(with_memory, clip))
    assert job.key(clip_id) != with_memory.key(clip_id)
    if kind == "run":
        past = frozen_past(job, clip)["memory"]
        assert past.tail_frames == job.network.config.window - 1  # nothing further back can be read
        assert past.slots_of(0).count == 0


def job_of(folder: ModelFolder, latents: Path, memory: str) -> tuple[Job, list[str]]:
    recipe = load_recipe(None, [f"sample.memory={memory}"], base=dict(folder.manifest.recipe))
    return open_job(recipe, folder, latents, [], None, (), "cpu", Silent())


def test_memory_that_is_turned_off_takes_no_artifact_and_cannot_be_looked_into(
    hm: WarmCommand, run: Path, latents: Path, tmp_path: Path
):
    kept = ok(hm("tokenize-memory", latents, "--model", run, "--out", tmp_path / "m"))
    off = ["--set", "sample.memory=off", "--out", tmp_path / "no"]
    done = hm("generate", latents, "--model", run, "--memory", kept, *off)
    assert (done.returncode, "no effect with sample.memory=off" in done.stderr) == (2, True)
    done = hm("inspect", run, "--latents", latents, *off)
    assert (done.returncode, "there is none to look into" in done.stderr) == (2, True)


def test_the_protocol_card_says_whether_memory_was_read(
    hm: WarmCommand, run: Path, latents: Path, generation: Path, tmp_path: Path
):
    fast = ["--set", "sample.steps=1", "--set", "sample.memory=off"]
    off = ok(hm("generate", latents, "--model", run, "--out", tmp_path / "off", *fast))
    cards = [
        (ok(hm("eval", made, "--metric", "psnr", "--out", tmp_path / f"e{n}")) / "protocol.md").read_text()
        for n, made in enumerate((generation, off))
    ]
    assert "read, by the model's own policy" in cards[0]
    assert "off: local windows alone, with the same weights" in cards[1]


# --- weights that a model names by path ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_path(hm: WarmCommand, nano: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model (`run`) whose codec is a single file and whose text encoder lies in a folder."""
    place = tmp_path_factory.mktemp("by-path")
    file, _ = original_file(place, ".pth")
    text_folder(place / "words")
    recipe = place / "recipe.yaml"
    own = f"codec: {{name: wan2.1, path: {file}}}\ntext: {{name: umt5, path: {place / 'words'}, length: 12}}\n"
    values = nano.read_text().replace("codec: {name: mini}\n", "").replace("text: {name: mini, length: 12}\n", own)
    recipe.write_text(values.replace("train: {steps: 4", "train: {steps: 1"))
    ok(hm("encode", clips, "--recipe", recipe, "--out", place / "latents.zarr"))
    ok(hm("train", recipe, "--latents", place / "latents.zarr", "--out", place / "run"))
    return place


def test_the_paths_of_codec_and_text_encoder_may_be_given_anew(hm: WarmCommand, by_path: Path, tmp_path: Path):
    command = ["generate", by_path / "latents.zarr", "--model", by_path / "run", "--set", "sample.steps=1",
               "--set", "sample.negative=a red house"]  # fmt: skip
    before = videos(ok(hm(*command, "--out", tmp_path / "a")))
    shutil.move(by_path / "Wan2.1_VAE.pth", tmp_path / "vae.pth")
    shutil.move(by_path / "words", tmp_path / "words")
    try:
        assert hm(*command, "--out", tmp_path / "b").returncode == 5
        moved = ["--set", f"codec.path={tmp_path / 'vae.pth'}", "--set", f"text.path={tmp_path / 'words'}"]
        assert videos(ok(hm(*command, *moved, "--out", tmp_path / "b"))) == before
    finally:
        shutil.move(tmp_path / "vae.pth", by_path / "Wan2.1_VAE.pth")
        shutil.move(tmp_path / "words", by_path / "words")


@pytest.mark.parametrize("part", ["codec", "text"])
def test_other_weights_than_a_model_was_trained_with_are_refused(
    hm: WarmCommand, by_path: Path, tmp_path: Path, part: str
):
    other = original_file(tmp_path, ".pth", seed=2)[0] if part == "codec" else text_folder(tmp_path / "other", seed=2)
    command = ["generate", by_path / "latents.zarr", "--model", by_path / "run", "--out", tmp_path / "no"]
    done = hm(*command, "--set", f"{part}.path={other}")
    assert done.returncode == 3, done.stderr
    assert f"the {part} weights are not those the model was trained with" in done.stderr
    assert hm(*command, "--set", f"{part}.path=/nowhere").returncode == 5
