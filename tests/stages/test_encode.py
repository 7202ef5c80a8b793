"""hm encode: what lands in the artifact, resuming, staleness, quarantine, the lock."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from warm import WarmCommand, ok, wait_for

from hmcli.stages.latents.subjects import latent_masks, subject_arrays
from hmcli.stages.latents.view import open_latents
from hmcli.store.lock import ArtifactLock
from hmcli.store.manifest import read_manifest
from hmcli.world.views.cameras import relative_camera_rows


def test_latents_record_which_clips_they_came_from(latents: Path, clips: Path):
    manifest = read_manifest(latents)
    assert manifest.inputs["clips"] == read_manifest(clips).fingerprint
    assert manifest.counts["clips"] == 3
    assert {"data", "poses", "codec", "text"} == set(manifest.recipe)


def test_a_clip_reads_back_with_its_own_shape_cameras_and_caption(latents: Path, clips: Path):
    view = open_latents(latents)
    rows = [json.loads(line) for line in (clips / "clips.jsonl").read_text().splitlines()]
    assert view.ids() == [row["id"] for row in rows]
    for row in rows:
        clip = view.clip(row["id"])
        assert clip.caption == row["caption"]
        assert clip.latents.shape == (16, 12, 4, 6)
        assert (clip.context, clip.target, clip.has_target) == (6, 6, True)
        assert clip.poses is not None
        np.testing.assert_allclose(clip.camera, relative_camera_rows(clip.poses, clip.poses[6]), atol=1e-6)
        assert clip.text.shape == (12, 64)
        assert np.isfinite(clip.latents).all()


def test_the_subject_is_visible_hidden_and_back_at_latent_rate(latents: Path):
    view = open_latents(latents)
    for clip in view.ids():
        seen = view.subjects(clip)["visibility"][:, 0] > 0
        assert seen[0]
        assert not seen.all()
        assert seen[6:].any()


def test_latent_masks_and_boxes_show_a_subject_wherever_it_was_during_a_latent_frame():
    mask = np.zeros((5, 16, 24), np.uint8)
    mask[3, 9, 20] = 2  # one pixel in the third of the four frames of latent frame 1
    small = latent_masks(mask, 8)
    assert small.shape == (2, 2, 3)
    assert small[1, 1, 2] == 2
    assert small.sum() == 2
    arrays = subject_arrays(small, [mask])
    assert arrays["visibility"].shape == (2, 2)
    np.testing.assert_allclose(arrays["visibility"][1], [0, 1 / (16 * 24)])
    np.testing.assert_array_equal(arrays["boxes"][1, 1], [2, 1, 3, 2])
    assert np.isnan(arrays["boxes"][0]).all()


def test_encoding_again_keeps_everything_and_the_fingerprint(hm: WarmCommand, nano: Path, clips: Path, latents: Path):
    before = (latents / "manifest.json").read_bytes()
    done = hm("encode", clips, "--recipe", nano, "--out", latents)
    assert ok(done) == latents
    assert "items kept" in done.stderr
    assert (latents / "manifest.json").read_bytes() == before


def test_killed_in_the_middle_it_goes_on_with_the_same_result(
    hm: WarmCommand, nano: Path, clips: Path, latents: Path, tmp_path: Path
):
    out = tmp_path / "killed.zarr"
    running = hm.start("encode", clips, "--recipe", nano, "--out", out)
    wait_for(lambda: len(list(out.rglob("*.safetensors"))) >= 5)  # four captions and a clip; the last may be unrecorded
    running.send_signal(signal.SIGKILL)
    assert running.wait().returncode == -signal.SIGKILL
    assert hm("tokenize-memory", out).returncode == 3  # unfinished
    done = hm("encode", clips, "--recipe", nano, "--out", out)
    assert read_manifest(ok(done)).fingerprint == read_manifest(latents).fingerprint
    assert "items kept" in done.stderr


def test_only_the_clip_that_changed_is_encoded_again(hm: WarmCommand, nano: Path, clips: Path, tmp_path: Path):
    plain = tmp_path / "plain"
    plain.mkdir()
    names = [row["id"] for row in map(json.loads, (clips / "clips.jsonl").read_text().splitlines())]
    for name in names:
        shutil.copytree(clips / name, plain / name)
    (plain / "caption.txt").write_text("".join(f"{name}\tA street, {i}.\n" for i, name in enumerate(names)))
    ok(hm("encode", plain, "--recipe", nano, "--out", tmp_path / "l.zarr"))
    (plain / "caption.txt").write_text("".join(f"{name}\tA street, {max(i, 1)}.\n" for i, name in enumerate(names)))
    done = hm("encode", plain, "--recipe", nano, "--out", tmp_path / "l.zarr")
    view = open_latents(ok(done))
    assert "1 items stale: redone" in done.stderr
    assert [view.clip(name).caption for name in names] == ["A street, 1.", "A street, 1.", "A street, 2."]


def test_a_truncated_video_is_quarantined_and_the_rest_is_done(
    hm: WarmCommand, nano: Path, clips: Path, tmp_path: Path
):
    broken = tmp_path / "broken"
    broken.mkdir()
    names = [row["id"] for row in map(json.loads, (clips / "clips.jsonl").read_text().splitlines())]
    for name in names:
        shutil.copytree(clips / name, broken / name)
    video = broken / names[1] / "cond.mp4"
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    done = hm("encode", broken, "--recipe", nano, "--out", tmp_path / "l.zarr")
    assert done.returncode == 4
    assert done.stdout.strip() == str(tmp_path / "l.zarr")
    assert f"{names[1]} is left out" in done.stderr
    manifest = read_manifest(tmp_path / "l.zarr")
    assert [row["item"] for row in manifest.quarantined] == [names[1]]
    assert open_latents(tmp_path / "l.zarr").ids() == [names[0], names[2]]
    before = (tmp_path / "l.zarr" / "manifest.json").read_bytes()
    assert hm("encode", broken, "--recipe", nano, "--out", tmp_path / "l.zarr").returncode == 4
    assert (tmp_path / "l.zarr" / "manifest.json").read_bytes() == before
    shutil.copy(clips / names[1] / "cond.mp4", video)
    assert open_latents(ok(hm("encode", broken, "--recipe", nano, "--out", tmp_path / "l.zarr"))).ids() == names


def test_a_folder_without_videos_ends_with_3(hm: WarmCommand, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    done = hm("encode", tmp_path / "empty", "--out", tmp_path / "l.zarr")
    assert (done.returncode, done.stdout) == (3, "")
    assert "no video" in done.stderr.lower()
    assert not (tmp_path / "l.zarr").exists()


def test_a_dry_run_writes_nothing(hm: WarmCommand, nano: Path, clips: Path, tmp_path: Path):
    done = hm("encode", clips, "--recipe", nano, "--out", tmp_path / "l.zarr", "--dry-run")
    assert (done.returncode, done.stdout) == (0, "")
    assert "3 clips" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_data_split_cuts_one_clip_in_two(hm: WarmCommand, nano: Path, clips: Path, tmp_path: Path):
    split = "data.split={context: 9, target: 5}"
    view = open_latents(ok(hm("encode", clips, "--recipe", nano, "--out", tmp_path / "l.zarr", "--set", split)))
    clip = view.clip(view.ids()[0])
    assert (clip.context, clip.target, clip.latents.shape[1]) == (3, 2, 5)


def test_a_second_writer_is_refused_and_told_who_writes(hm: WarmCommand, nano: Path, clips: Path, tmp_path: Path):
    out = tmp_path / "l.zarr"
    with ArtifactLock(out):
        refused = hm("encode", clips, "--recipe", nano, "--out", out)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"process {os.getpid()}" in refused.stderr
    assert not out.exists()
    ok(hm("encode", clips, "--recipe", nano, "--out", out))


def test_sigterm_leaves_an_encode_that_goes_on(hm: WarmCommand, nano: Path, clips: Path, latents: Path, tmp_path: Path):
    out = tmp_path / "l.zarr"
    running = hm.start("encode", clips, "--recipe", nano, "--out", out)
    wait_for(lambda: list(out.rglob("*.safetensors")))
    running.send_signal(signal.SIGTERM)
    ended = running.wait()
    assert (ended.returncode, ended.stdout) == (75, "")
    assert "run the same command again" in ended.stderr
    assert (
        read_manifest(ok(hm("encode", clips, "--recipe", nano, "--out", out))).fingerprint
        == read_manifest(latents).fingerprint
    )


def test_rounded_latents_pack_into_less_and_say_what_was_lost(
    hm: WarmCommand, nano: Path, clips: Path, latents: Path, tmp_path: Path
):
    fewer = ["--set", "data.keep_bits=5", "--set", "data.compressor=blosc"]
    made = ok(hm("encode", clips, "--recipe", nano, "--out", tmp_path / "few", *fewer))
    whole, few = open_latents(latents), open_latents(made)
    lost = [few.clip(clip).latents - whole.clip(clip).latents for clip in whole.ids()]
    entry = next(entry for name, entry in few.manifest.arrays.items() if name.endswith("/latents"))
    assert (entry["compressor"], entry["keep_bits"]) == ("blosc", 5)
    if len(few.groups) == 1:
        assert entry["rounding_error"] == pytest.approx(float(np.sqrt(np.mean(np.square(lost)))), rel=1e-3)
    assert 0 < entry["rounding_error"] < 2.0**-5
    sizes = [
        sum(entry["bytes"] for name, entry in of.manifest.files.items() if "/latents/c/" in name) for of in (whole, few)
    ]
    assert sizes[1] < 0.75 * sizes[0]
    said = hm("inspect", made).stdout
    assert re.search(r"kB of [\d.]+ kB \(blosc\); 5 mantissa bits, rounding error 0\.0\d+ \(root", said)
    again = hm("encode", clips, "--recipe", nano, "--out", made, *fewer[:2], "--set", "data.compressor=none")
    assert ok(again) == made
    packed = open_latents(made)
    assert [packed.latents_hash(clip) for clip in packed.ids()] == [few.latents_hash(clip) for clip in few.ids()]
    assert "(none)" in hm("inspect", made).stdout
