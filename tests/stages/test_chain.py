"""The whole chain: cold, as a user's shell runs it, and on real HM-World clips where they are at hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from warm import WarmCommand, ok

from hmcli.stages.latents.view import open_latents
from hmcli.store.manifest import read_manifest
from hmcli.store.video import probe_video


def test_stages_chain_through_stdout_with_the_installed_command(nano: Path, tmp_path: Path):
    """Three cold processes; the names of left-out outputs are the documented ones."""
    hm = Path(sys.executable).with_name("hm")
    stages = (f"render {nano} --clips 1", f"encode - --recipe {nano}", f"tokenize-memory - --recipe {nano}")
    script = "set -o pipefail; " + " | ".join(f"{hm} {stage}" for stage in stages)
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'nano.memory'}\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nano.dataset", "nano.latents", "nano.memory"]


def test_a_failed_stage_fails_the_pipe_and_the_next_one_says_why(hm: WarmCommand, tmp_path: Path):
    hm.shim(tmp_path)
    script = f"set -o pipefail; {tmp_path}/hm encode nowhere/ | {tmp_path}/hm tokenize-memory -"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode in (2, 3)
    assert "there is no such folder" in done.stderr
    assert "expected one path on stdin, got nothing" in done.stderr


def test_left_out_inputs_are_the_newest_here_and_named(
    hm: WarmCommand, nano: Path, place: Path, latents: Path, run: Path, generation: Path, tmp_path: Path
):
    done = hm("tokenize-memory", "--recipe", nano, "--out", tmp_path / "m.zarr", cwd=latents.parent)
    ok(done)
    assert "using " in done.stderr
    assert "(the newest latents here)" in done.stderr
    nothing = hm("tokenize-memory", cwd=tmp_path)
    assert nothing.returncode == 0 or "latents" in nothing.stderr


def test_json_says_what_a_path_alone_cannot(hm: WarmCommand, nano: Path, clips: Path, latents: Path):
    result = json.loads(hm("encode", clips, "--recipe", nano, "--out", latents, "--json").stdout)
    assert (result["kind"], result["path"]) == ("latents", str(latents))
    assert result["fingerprint"] == read_manifest(latents).fingerprint
    assert result["counts"]["clips"] == 3


def test_inspect_tells_what_made_an_artifact_and_finds_damage(hm: WarmCommand, generation: Path, tmp_path: Path):
    shown = hm("inspect", generation)
    assert shown.returncode == 0
    assert "generation, format 2" in shown.stdout
    assert hm("inspect", generation, "--verify").returncode == 0
    import shutil

    copy = tmp_path / "gen"
    shutil.copytree(generation, copy)
    video = next((copy / "videos").iterdir())
    content = bytearray(video.read_bytes())
    content[len(content) // 2] ^= 1
    video.write_bytes(content)
    damaged = hm("inspect", copy, "--verify")
    assert damaged.returncode == 3
    assert video.name in damaged.stderr
    assert hm("inspect", tmp_path).returncode == 3


@pytest.mark.timeout(600)
def test_the_chain_runs_on_real_clips(hm: WarmCommand, nano: Path, shared: Path, tmp_path: Path):
    """Train on halves of four HM-World clips, generate all four along their real target cameras, score them."""
    data = shared / "data" / "hm-world-examples"
    common = ["--recipe", nano]
    halves = ok(
        hm("encode", data, *common, "--out", tmp_path / "halves.zarr", "--set", "data.split={context: 37, target: 37}")
    )
    whole = ok(hm("encode", data, *common, "--out", tmp_path / "whole.zarr"))
    clip = open_latents(whole).clip("1")
    assert (clip.context, clip.target, clip.has_target) == (20, 20, False)
    assert clip.caption.startswith("The video begins with a close-up")
    run = ok(hm("train", nano, "--latents", halves, "--out", tmp_path / "run", "--set", "train.steps=20"))
    memory = ok(hm("tokenize-memory", whole, "--model", run, "--out", tmp_path / "memory.zarr"))
    made = ok(hm("generate", whole, "--model", run, "--memory", memory, "--out", tmp_path / "gen"))
    assert [probe_video(p).frames for p in sorted((made / "videos").iterdir())] == [77] * 4
    names = ["--metric", "subject-consistency", "--metric", "background_consistency"]
    scores = json.loads((ok(hm("eval", made, *names, "--out", tmp_path / "eval")) / "scores.json").read_text())
    assert scores
    refused = hm("eval", made, "--metric", "psnr", "--out", tmp_path / "psnr")
    assert refused.returncode in (2, 3)
    assert "target" in refused.stderr


@pytest.mark.timeout(600)
def test_the_demo_walks_the_whole_chain_and_says_where_the_pictures_are(hm: WarmCommand, tmp_path: Path):
    small = ["world.clips=2", "train.steps=2", "train.warmup=1", "sample.steps=2"]
    done = hm("demo", "--out", tmp_path / "demo", *(part for text in small for part in ("--set", text)))
    assert ok(done) == tmp_path / "demo"
    sheet = tmp_path / "demo" / "generation" / "contact_sheet.png"
    assert sheet.is_file()
    assert str(sheet) in done.stderr
    assert "Expect little" in done.stderr
    kinds = {p.name: read_manifest(p).kind for p in (tmp_path / "demo").iterdir() if (p / "manifest.json").is_file()}
    assert sorted(kinds.values()) == ["dataset", "evaluation", "generation", "latents", "memory", "memory", "run"]
    again = hm("demo", "--out", tmp_path / "demo", *(part for text in small for part in ("--set", text)))
    ok(again)
    assert "already trained" in again.stderr
