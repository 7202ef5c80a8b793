"""What cannot be generated is refused early, with numbers and what would work; what is cut or ignored is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from warm import WarmCommand, ok

from hmcli.cli.output import explain
from hmcli.errors import HMError, UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Heard, Silent
from hmcli.stages.latents import encode
from hmcli.stages.models.folders import find_model
from hmcli.stages.sampling import fits, generate
from hmcli.stages.sampling.job import Job, generate_latents, open_job
from hmcli.stages.shared.memory import free_bytes
from hmcli.store.video import write_video


def job_of(run: Path, latents: Path, reporter: Heard | None = None, *settings: str) -> Job:
    recipe = load_recipe(None, ["sample.steps=1", *settings])
    return open_job(recipe, find_model(run), latents, [], None, (), "cpu", reporter or Silent())[0]


def test_a_video_that_is_too_short_is_refused_before_it_is_encoded(hm: WarmCommand, run: Path, tmp_path: Path):
    write_video(tmp_path / "short.mp4", np.zeros((3, 32, 48, 3), np.uint8), fps=10)
    refused = hm("generate", tmp_path / "short.mp4", "--cameras", "still", "--out", tmp_path / "gen", "--model", run)
    assert refused.returncode == 3
    said = " ".join(refused.stderr.split())
    assert "1 latent frames make 0 memory slots" in said
    assert "use longer clips (5 frames of context)" in said
    assert [file.name for file in tmp_path.iterdir()] == ["short.mp4"]


def test_latents_that_are_all_too_short_are_refused_by_a_dry_run(
    hm: WarmCommand, nano: Path, run: Path, clips: Path, tmp_path: Path
):
    short = ok(hm("encode", clips, "--recipe", nano, "--set", "data.split={context: 1, target: 9}", "--out",
                  tmp_path / "l"))  # fmt: skip
    refused = hm("generate", short, "--model", run, "--out", tmp_path / "gen", "--dry-run")
    assert refused.returncode == 3
    assert "5 frames of context" in " ".join(refused.stderr.split())


def test_more_frames_than_targets_have_are_refused_by_a_dry_run(
    hm: WarmCommand, run: Path, latents: Path, tmp_path: Path
):
    refused = hm("generate", latents, "--model", run, "--out", tmp_path / "g", "--dry-run", "--set", "sample.frames=22")
    assert (refused.returncode, "the target has 21" in refused.stderr) == (3, True)


def test_what_cannot_fit_into_memory_is_refused_with_numbers_before_weights_load(
    monkeypatch: pytest.MonkeyPatch, run: Path, latents: Path, tmp_path: Path
):
    job = job_of(run, latents)
    weights = 4 * sum(value.numel() for value in job.model.load(torch.float32, "cpu").state_dict().values())
    assert 4 * fits.parameters(job.model.path / "transformer") == weights
    for free, nearest in (
        (weights // 3, "a device with more memory"),
        (fits.least_bytes(job, 2, 3, "float32"), "sample.chunk=9 or less"),
    ):
        with pytest.raises(UsageError, match="are needed at the least") as refused:
            fits.check_bytes(job, 2, 6, free)
        assert nearest in (refused.value.fix or "")
    with pytest.raises(UsageError) as refused:
        fits.check_bytes(job, 6, 6, fits.least_bytes(job, 6, 6, "bfloat16"))
    assert refused.value.fix == "set sample.dtype=bfloat16"
    fits.check_bytes(job, 6, 6, fits.least_bytes(job, 6, 6, "float32"))
    fits.check_bytes(job, 6, 6, None)
    monkeypatch.setattr(fits, "free_bytes", lambda device: 1000)
    monkeypatch.setattr("hmcli.core.transformer.load_model", lambda *_: pytest.fail("weights were loaded"))
    with pytest.raises(UsageError, match=r"0\.000954 MiB are free on cpu"):
        generate.run(
            job.recipe, source=latents, model=run, memory=(), clips=(), out=tmp_path / "gen", force=False,
            device="cpu", reporter=Silent(),
        )  # fmt: skip


def test_free_memory_is_known_here():
    free = free_bytes("cpu")
    assert free is None or 2**20 < free < 2**50


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried"), MemoryError(),
     RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")],
)  # fmt: skip
def test_memory_that_ran_out_is_an_error_with_numbers(run: Path, latents: Path, error: Exception):
    job = job_of(run, latents)
    with pytest.raises(HMError, match="out of memory on cpu") as said, fits.memory_of(job, job.view.ids()[0]):
        raise error
    assert said.value.where["latent frames"] == "6 of context, 6 of target"
    assert "sample.chunk=9" in said.value.fix


def test_other_errors_are_not_taken_for_a_lack_of_memory(run: Path, latents: Path):
    job = job_of(run, latents)
    with pytest.raises(RuntimeError, match="shapes"), fits.memory_of(job, job.view.ids()[0]):
        raise RuntimeError("shapes do not fit")


def test_encoding_that_runs_out_of_memory_names_the_clip_and_what_needs_less(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(encode, "encode_video", lambda *_: torch.empty(2**50, dtype=torch.uint8))
    recipe = load_recipe("mini/hydra")
    with pytest.raises(HMError, match="out of memory on cpu") as said:
        encode.run(recipe, data=clips, out=tmp_path / "latents", force=False, device="cpu", reporter=Silent())
    assert said.value.where["clip"] in {clip.name for clip in clips.iterdir()}
    assert "codec.chunk_frames=1" in said.value.fix


def test_a_command_that_runs_out_of_memory_anywhere_asks_for_no_report(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(RuntimeError) as ended:
        torch.empty(2**50, dtype=torch.uint8)
    assert explain(ended.value) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: out of memory: ")
    assert "fewer processes" in said
    assert "report" not in said


def test_captions_that_are_cut_are_counted_and_their_clips_named(
    hm: WarmCommand, nano: Path, clips: Path, tmp_path: Path
):
    done = hm("encode", clips, "--recipe", nano, "--set", "text.length=2", "--out", tmp_path / "l")
    ok(done)
    said = " ".join(done.stderr.split())
    assert "3 clips' captions are longer than the model reads, and cut" in said
    assert "tokens, text.length is 2" in said
    kept = hm("encode", clips, "--recipe", nano, "--set", "text.length=2", "--out", tmp_path / "l")
    assert "3 clips' captions are longer than the model reads, and cut" in " ".join(kept.stderr.split())
    done = hm("encode", clips, "--recipe", nano, "--set", "text.length=99", "--out", tmp_path / "m")
    assert "captions are longer" not in done.stderr


def test_a_negative_prompt_without_guidance_is_named_as_unused_and_one_that_is_cut_too(run: Path, latents: Path):
    heard = Heard()
    job = job_of(run, latents, heard, "sample.guidance=1", "sample.negative=a red house")
    assert [text for how, text in heard.said if how == "warn" and "'a red house'" in text and "not used" in text]
    clip = job.view.clip(job.view.ids()[0])
    plain = job_of(run, latents, None, "sample.guidance=1")
    assert np.array_equal(generate_latents(job, clip), generate_latents(plain, clip))
    assert "negative" not in job.__dict__  # the text encoder did not run for nothing
    job_of(run, latents, heard := Heard(), "sample.guidance=2", "sample.negative=a red house")
    assert not [text for _, text in heard.said if "not used" in text]
    long = job_of(run, latents, heard, "sample.guidance=2", "sample.negative=" + "dark " * 400)
    _ = long.negative
    assert [text for how, text in heard.said if how == "warn" and "sample.negative is cut: 400 tokens" in text]
