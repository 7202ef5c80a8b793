"""hm tokenize-memory and hm generate: memory artifacts, equal results by both roads, resuming, refusals."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from warm import WarmCommand, ok, wait_for

from hmcli.aligned import tensor_of
from hmcli.core.pipeline import HydraPipeline
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.latents.view import open_latents
from hmcli.stages.memory.describe import shown_subjects
from hmcli.stages.memory.kept import anchor_of, rows_from
from hmcli.stages.memory.layout import read_description
from hmcli.stages.models.folders import find_model
from hmcli.stages.sampling.job import generate_latents, open_job
from hmcli.stages.scoring import evaluate
from hmcli.stages.shared.chance import clip_seed
from hmcli.store.manifest import read_manifest
from hmcli.store.video import probe_video, read_video
from hmcli.store.weights import load_state_dict


def videos(generation: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((generation / "videos").iterdir())}


@pytest.fixture(scope="session")
def memory(hm: WarmCommand, run: Path, latents: Path, place: Path) -> Path:
    return ok(hm("tokenize-memory", latents, "--model", run, "--out", place / "memory.zarr"))


@pytest.fixture(scope="session")
def slots(hm: WarmCommand, nano: Path, latents: Path, place: Path) -> Path:
    return ok(hm("tokenize-memory", latents, "--recipe", nano, "--out", place / "slots.zarr"))


def test_a_generation_holds_a_video_of_the_target_for_every_clip(generation: Path, latents: Path):
    rows = [json.loads(line) for line in (generation / "generations.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == open_latents(latents).ids()
    for row in rows:
        info = probe_video(generation / row["video"])
        assert (info.frames, info.height, info.width) == (21, 32, 48)
        assert np.asarray(row["camera"]).shape == (6, 4, 4)
        assert 2**27 < row["peak_bytes"] < 2**36  # bytes of a process that has loaded torch
    assert (generation / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")


def test_a_generation_and_its_evaluation_say_what_the_model_is(generation: Path, run: Path, tmp_path: Path):
    folder = find_model(run)
    memory = folder.manifest.recipe["model"]["memory"]
    weights = load_state_dict(folder.path / "transformer")
    network = {
        "parameters": sum(tensor.numel() for tensor in weights.values()), "policy": memory["policy"],
        "top_k": memory["top_k"],
    }  # fmt: skip
    assert read_manifest(generation).attributes["network"] == network
    judged = evaluate.run(
        load_recipe(), generation=generation, reference=None, metrics=("psnr",), out=tmp_path / "e", reporter=Silent()
    )
    said = read_manifest(judged.path).attributes["generation"]
    assert (said["network"], said["devices"]) == (network, ["cpu"])
    rows = [json.loads(line) for line in (generation / "generations.jsonl").read_text().splitlines()]
    assert said["peak_bytes"] == max(row["peak_bytes"] for row in rows)


def test_memory_artifact_and_latents_give_the_same_videos(
    hm: WarmCommand, run: Path, latents: Path, memory: Path, generation: Path, tmp_path: Path
):
    made = ok(hm("generate", latents, "--model", run, "--memory", memory, "--out", tmp_path / "gen"))
    assert videos(made) == videos(generation)


def test_a_checkpoint_is_as_good_as_its_run(
    hm: WarmCommand, run: Path, latents: Path, generation: Path, tmp_path: Path
):
    checkpoint = run / read_manifest(run).attributes["checkpoint"]
    made = ok(hm("generate", latents, "--model", checkpoint, "--out", tmp_path / "gen"))
    assert videos(made) == videos(generation)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("context", ["frozen", "joint"])
def test_the_pipeline_samples_the_very_latents_that_generate_does(
    request: pytest.FixtureRequest, latents: Path, dtype: str, context: str
):
    folder = find_model(request.getfixturevalue("run" if context == "frozen" else "joint_run"))
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(str(folder.path / "scheduler"), local_files_only=True)
    pipe = HydraPipeline(folder.load(getattr(torch, dtype), "cpu"), scheduler)
    settings = [f"sample.dtype={dtype}", f"sample.shift={pipe.scheduler.config.shift}", "sample.steps=3"]
    recipe = load_recipe(None, [*settings, "sample.guidance=1.5", "seed=5"])
    job, ids = open_job(recipe, folder, latents, [], None, (), "cpu", Silent())
    clip = job.view.clip(ids[0])
    camera = tensor_of(clip.camera)[None]
    if context == "frozen":
        camera = rows_from(clip.world_poses(), anchor_of(clip), "cpu")
    pipe.set_progress_bar_config(disable=True)
    got = pipe(
        camera=camera, prompt_embeds=tensor_of(clip.text)[None], num_frames=clip.target,
        context_latents=tensor_of(clip.context_latents)[None], num_inference_steps=3, guidance_scale=1.5,
        negative_prompt_embeds=tensor_of(job.negative)[None],
        generator=torch.Generator().manual_seed(clip_seed(5, clip.id)),
    ).frames  # fmt: skip
    assert pipe.transformer.dtype == getattr(torch, dtype)
    assert got.dtype == torch.float32  # between steps too: half precision would round what a step adds
    np.testing.assert_array_equal(got[0].numpy(), generate_latents(job, clip))


def test_a_clip_does_not_depend_on_which_others_are_generated(
    hm: WarmCommand, run: Path, latents: Path, generation: Path, tmp_path: Path
):
    last = open_latents(latents).ids()[-1]
    made = ok(hm("generate", latents, "--model", run, "--clips", last, "--out", tmp_path / "gen"))
    assert videos(made).items() <= videos(generation).items()
    assert len(videos(made)) == 1


def test_killed_in_the_middle_it_goes_on_with_the_same_videos(
    hm: WarmCommand, run: Path, latents: Path, generation: Path, tmp_path: Path
):
    out = tmp_path / "gen"
    running = hm.start("generate", latents, "--model", run, "--out", out)
    wait_for(lambda: (out / "videos").is_dir() and list((out / "videos").iterdir()))
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert hm("eval", out).returncode == 3
    done = hm("generate", latents, "--model", run, "--out", out)
    assert videos(ok(done)) == videos(generation)
    assert read_manifest(out).fingerprint == read_manifest(generation).fingerprint


def test_another_seed_gives_other_videos(hm: WarmCommand, run: Path, latents: Path, generation: Path, tmp_path: Path):
    made = ok(hm("generate", latents, "--model", run, "--set", "seed=6", "--out", tmp_path / "gen"))
    assert all(videos(made)[name] != content for name, content in videos(generation).items())


def test_a_joint_model_generates_from_latents_and_refuses_memory(
    hm: WarmCommand, joint_run: Path, latents: Path, memory: Path, tmp_path: Path
):
    made = ok(hm("generate", latents, "--model", joint_run, "--out", tmp_path / "gen"))
    assert len(videos(made)) == 3
    refused = hm("generate", latents, "--model", joint_run, "--memory", memory, "--out", tmp_path / "no")
    assert refused.returncode == 2
    assert "joint" in refused.stderr
    refused = hm("tokenize-memory", latents, "--model", joint_run, "--out", tmp_path / "no.zarr")
    assert refused.returncode == 2
    assert "computed anew at every step" in refused.stderr


def test_memory_of_another_checkpoint_is_refused(
    hm: WarmCommand, nano: Path, run: Path, latents: Path, memory: Path, tmp_path: Path
):
    other = ok(hm("train", nano, "--latents", latents, "--out", tmp_path / "run", "--set", "seed=9"))
    refused = hm("generate", latents, "--model", other, "--memory", memory, "--out", tmp_path / "gen")
    assert refused.returncode == 3
    assert "another checkpoint" in refused.stderr


def test_memory_without_a_model_describes_slots_and_is_refused_where_it_has_no_effect(
    hm: WarmCommand, nano: Path, run: Path, latents: Path, slots: Path, tmp_path: Path
):
    for clip in open_latents(latents).ids():
        described = read_description(slots, clip)
        np.testing.assert_array_equal(described.span_M2, [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]])
        assert (described.context, described.target, described.context_slots) == (6, 6, 3)
        assert described.pose_M44.shape == (6, 4, 4)
        overlap = described.overlap_AM
        assert overlap.shape == (12, 6)
        assert overlap.min() >= 0
        assert overlap.max() <= 1
        assert overlap[-1, 5] > max(0.5, overlap[-1, 2])  # its own slot, and one made while the camera was away
        assert overlap[0, 0] > 0.5
        assert described.shows_MS[0, 0] == 1
    refused = hm("generate", latents, "--model", run, "--memory", slots, "--out", tmp_path / "gen")
    assert refused.returncode == 2
    assert "has no effect" in refused.stderr


def test_memory_is_resumed_after_a_kill(hm: WarmCommand, run: Path, latents: Path, memory: Path, tmp_path: Path):
    out = tmp_path / "memory.zarr"
    running = hm.start("tokenize-memory", latents, "--model", run, "--out", out)
    wait_for(
        lambda: (
            len([p for p in (out / "data.zarr").iterdir() if p.is_dir()] if (out / "data.zarr").is_dir() else []) >= 1
        )
    )
    running.send_signal(signal.SIGKILL)
    running.wait()
    done = ok(hm("tokenize-memory", latents, "--model", run, "--out", out))
    assert read_manifest(done).fingerprint == read_manifest(memory).fingerprint


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_memory_of_half_the_bytes_keeps_its_bits(hm: WarmCommand, run: Path, latents: Path, tmp_path: Path, dtype: str):
    half = ["--set", f"sample.dtype={dtype}"]
    memory = ok(hm("tokenize-memory", latents, "--model", run, "--out", tmp_path / "m.zarr", *half))
    half += ["--set", "sample.steps=1"]
    plain = ok(hm("generate", latents, "--model", run, "--out", tmp_path / "a", *half))
    kept = ok(hm("generate", latents, "--model", run, "--memory", memory, "--out", tmp_path / "b", *half))
    assert videos(plain) == videos(kept)


def test_context_only_clips_are_generated_along_their_target_cameras(
    hm: WarmCommand, nano: Path, run: Path, clips: Path, tmp_path: Path
):
    alone = tmp_path / "alone"
    shutil.copytree(clips, alone)
    (alone / "manifest.json").unlink()
    (alone / "clips.jsonl").unlink()
    for file in alone.rglob("tgt*"):
        file.unlink()
    latents = ok(hm("encode", alone, "--recipe", nano, "--out", tmp_path / "l.zarr"))
    assert not any(group.shape.has_target for group in open_latents(latents).groups)
    refused = hm("train", nano, "--latents", latents, "--out", tmp_path / "r")
    assert refused.returncode == 3
    assert "data.split" in refused.stderr
    made = ok(hm("generate", latents, "--model", run, "--out", tmp_path / "gen"))
    assert len(read_video(next((made / "videos").iterdir()))) == 21


def test_a_folder_of_clips_is_encoded_first_and_that_is_said(
    hm: WarmCommand, run: Path, clips: Path, generation: Path, tmp_path: Path
):
    done = hm("generate", clips, "--model", run, "--out", tmp_path / "gen")
    assert videos(ok(done)) == videos(generation)
    assert "encoding it into" in done.stderr


def test_an_unknown_clip_is_named(hm: WarmCommand, run: Path, latents: Path, tmp_path: Path):
    done = hm("generate", latents, "--model", run, "--clips", "nobody", "--out", tmp_path / "gen")
    assert done.returncode == 2
    assert "'nobody'" in done.stderr


def test_a_slot_shows_only_subjects_that_are_hidden_later():
    visibility = np.array([[0.2, 0.1], [0.0, 0.1], [0.0, 0.1], [0.3, 0.1]])  # one leaves and returns, one stays
    np.testing.assert_array_equal(shown_subjects(visibility, np.array([[0, 1], [2, 3]])), [[1, 0], [0, 0]])


def test_memory_of_other_latents_is_refused_clip_by_clip(
    hm: WarmCommand, nano: Path, run: Path, clips: Path, latents: Path, memory: Path, tmp_path: Path
):
    """An edited clip has other latents; its old memory must not be read for it, the others' memory may."""
    edited = tmp_path / "edited"
    shutil.copytree(clips, edited)
    ids = open_latents(latents).ids()
    shutil.copy(edited / ids[1] / "cond.mp4", edited / ids[0] / "cond.mp4")
    other = ok(hm("encode", edited, "--recipe", nano, "--out", tmp_path / "l.zarr"))
    done = hm("generate", other, "--model", run, "--memory", memory, "--out", tmp_path / "gen")
    assert done.returncode == 4
    assert "made from other latents" in done.stderr
    assert [row["item"] for row in read_manifest(tmp_path / "gen").quarantined] == [ids[0]]


def test_damaged_weights_are_refused(hm: WarmCommand, run: Path, latents: Path, tmp_path: Path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    weights = copy / read_manifest(run).attributes["checkpoint"] / "transformer" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-20] ^= 1
    weights.write_bytes(content)
    for command in (["generate", latents], ["tokenize-memory", latents]):
        done = hm(*command, "--model", copy, "--out", tmp_path / "out")
        assert done.returncode == 3
        assert "damaged" in done.stderr
        assert not (tmp_path / "out" / "manifest.json").exists()


def test_latents_of_another_size_are_generated_and_that_is_said(
    hm: WarmCommand, nano: Path, run: Path, clips: Path, tmp_path: Path
):
    wide = ok(hm("encode", clips, "--recipe", nano, "--set", "data.size=[32,64]", "--out", tmp_path / "l.zarr"))
    done = hm("generate", wide, "--model", run, "--out", tmp_path / "gen", "--set", "sample.steps=1")
    ok(done)
    assert "the latents have [32, 64] pixels, the model was trained with [32, 48]" in done.stderr


def test_dry_runs_find_what_a_run_would_stumble_over(
    hm: WarmCommand, nano: Path, run: Path, joint_run: Path, latents: Path, clips: Path, memory: Path, tmp_path: Path
):
    for code, *command in (
        (3, "train", nano, "--latents", latents, "--set", "model.memory.top_k=50"),
        (2, "train", nano, "--latents", latents, "--set", f"model.base={run}", "--set", "model.layers=5"),
        (2, "train", nano, "--latents", latents, "--out", latents),
        (2, "generate", latents, "--model", joint_run, "--memory", memory),
        (2, "generate", clips, "--model", joint_run, "--memory", memory),
        (2, "tokenize-memory", latents, "--out", run),
        (2, "encode", clips, "--recipe", nano, "--out", run),
        (2, "render", nano, "--out", run),
        (3, "eval", run),
    ):
        done = hm(*command, "--dry-run", cwd=tmp_path)
        assert done.returncode == code, (command, done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_mini_never_quietly_means_a_folder_of_that_name(hm: WarmCommand, run: Path, latents: Path, tmp_path: Path):
    shutil.copytree(run, tmp_path / "mini")
    refused = hm("generate", latents, "--model", "mini", "--out", "gen", cwd=tmp_path)
    assert refused.returncode == 2
    assert "packaged weights" in refused.stderr
    ok(hm("generate", latents, "--model", tmp_path / "mini", "--out", "gen", cwd=tmp_path))
