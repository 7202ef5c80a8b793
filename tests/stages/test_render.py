"""`hm render` as a stage: the released layout with more in it, clip by clip, from a seed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hmcli.errors import UsageError
from hmcli.recipe import CameraPathConfig, DataConfig, Recipe, WorldConfig
from hmcli.runtime import Silent
from hmcli.stages.dataset import load_clip, open_dataset
from hmcli.stages.render import run
from hmcli.store.manifest import read_manifest
from hmcli.store.video import read_video
from hmcli.world.cameras import parse_cameras
from hmcli.world.clip import describe_clip
from hmcli.world.events import find_events, hidden_stretches, visibility
from hmcli.world.schema import parse_check, parse_events, parse_subjects

SIZE = (24, 40)
WORLD = WorldConfig(clips=2, context_frames=5, target_frames=9, size=SIZE, antialias=False)
RECIPE = Recipe(seed=4, world=WORLD, data=DataConfig(size=(32, 48), fit="stretch"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("render") / "clips"
    result = run(RECIPE, out=out, reporter=Silent())
    assert result.counts == {"clips": 2}
    return out


def load(path: Path):
    return json.loads(path.read_text())


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_our_reader_reads_a_render_back(folder):
    data = open_dataset(folder, RECIPE.poses)
    assert (data.layout, data.quarantined) == ("rendered", ())
    assert [clip.id for clip in data.clips] == ["s4-00000", "s4-00001"]
    assert data.fingerprint == read_manifest(folder).fingerprint
    clip = load_clip(data.clips[1], RECIPE.data)
    described = describe_clip(WORLD, 4, 1)
    assert clip.context.shape == (5, 32, 48, 3)
    assert clip.target.shape == (9, 32, 48, 3)
    assert clip.fps == 15
    np.testing.assert_allclose(clip.context_poses, described.world_from_camera[:5], atol=1e-9)
    np.testing.assert_allclose(clip.target_poses, described.world_from_camera[5:], atol=1e-9)
    assert clip.context_mask[0].any()
    assert not clip.context_mask[-1].any()
    assert clip.target_mask[-1].any()
    fx, fy, cx, cy = described.intrinsics(SIZE)
    np.testing.assert_allclose(clip.intrinsics, [fx * 48 / 40, fy * 32 / 24, cx * 48 / 40, cy * 32 / 24])
    assert clip.caption[0].isupper()


def test_events_agree_with_the_masks_to_the_frame(folder):
    for clip_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
        masks = [read_video(clip_folder / f"{prefix}_instances.mp4")[..., 0] for prefix in ("cond", "tgt")]
        instances = np.concatenate(masks)
        subjects = load(clip_folder / "subjects.json")
        events = parse_events(load(clip_folder / "events.json"))
        for name, subject in subjects.items():
            of = visibility(name, subject["number"], instances, instances == subject["number"])
            expected = [(event.part, event.kind, event.frame) for event in find_events(of, 5)]
            assert [(e.part, e.kind, e.frame) for e in events if e.subject == name] == expected
            assert ("context", "exit") in [(part, kind) for part, kind, _ in expected]
            assert ("target", "entry") in [(part, kind) for part, kind, _ in expected]
            spans = [(gone.first, gone.last) for gone in hidden_stretches(of)]
            assert [(gone["first"], gone["last"]) for gone in subject["hidden"]] == spans
            assert [box is None for box in subject["box"]] == (of.seen == 0).tolist()
            assert len(subject["position"]) == len(subject["heading"]) == len(subject["phase"]) == 14
            check = parse_check(load(clip_folder / "check.json"))
            rows = [(p.part, frame, inside) for p in check if p.actor == name for frame, inside in p.frames]
            assert rows == [(part, frame, kind == "entry") for part, kind, frame in expected]


def test_released_files_keep_the_release_s_conventions(folder):
    described = describe_clip(WORLD, 4, 0)
    cameras = parse_cameras(load(folder / "s4-00000" / "camera.json"), frames=5, repair="refuse")
    np.testing.assert_allclose(cameras.context, described.world_from_camera[:5], atol=1e-9)
    raw = np.array(load(folder / "s4-00000" / "camera.json")["tgt_cam"]["3"])
    pose = described.world_from_camera[8]
    np.testing.assert_allclose(raw[:3, 3], pose[:3, 3] * [100, -100, 100])
    np.testing.assert_allclose(raw[:3, 0], pose[:3, 2] * [1, -1, 1])  # first column: forward
    np.testing.assert_allclose(raw[:3, 2], [0, 0, 1], atol=1e-12)  # third column: up
    (subject,) = parse_subjects(load(folder / "s4-00000" / "character.json"))
    np.testing.assert_allclose(subject.target, described.actors[0].walk.position[5:], atol=1e-9)


def test_masks_depth_and_index_belong_to_the_clip(folder):
    clip = folder / "s4-00001"
    white, labels = read_video(clip / "tgt_mask.mp4"), read_video(clip / "tgt_instances.mp4")[..., 0]
    assert ((white[..., 0] > 127) == (labels > 0)).mean() > 0.995
    depth = np.load(clip / "depth.npz")
    assert depth["cond"].shape == (5, *SIZE)
    assert depth["tgt"].dtype == np.float16
    assert (depth["tgt"] > 0).all()
    rows = [json.loads(line) for line in (folder / "clips.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["s4-00000", "s4-00001"]
    lines = [line.split("\t") for line in (folder / "caption.txt").read_text().splitlines()]
    assert lines == [[row["id"], row["caption"]] for row in rows]


def test_the_same_seed_renders_the_same_data_set(folder, tmp_path):
    out = tmp_path / "clips"
    run(RECIPE, out=out, reporter=Silent())
    ours, theirs = files_of(out), files_of(folder)
    assert ours.keys() == theirs.keys()
    for name in ours:
        if name != "manifest.json":
            assert ours[name] == theirs[name], name


def test_rendering_again_keeps_everything_and_more_clips_keep_the_first_ones(folder, tmp_path):
    out = tmp_path / "clips"
    first = run(RECIPE, out=out, reporter=Silent())
    before = files_of(out)
    again = run(RECIPE, out=out, reporter=Silent())
    assert again.fingerprint == first.fingerprint
    assert files_of(out) == before
    more = run(replace(RECIPE, world=replace(WORLD, clips=3)), out=out, reporter=Silent())
    after = files_of(out)
    assert more.counts == {"clips": 3}
    assert {name for name in after if name.startswith("s4-00002/")}
    for name, content in before.items():
        if name.startswith("s4-0000"):
            assert after[name] == content


def test_an_interrupted_render_goes_on_with_the_next_clip(folder, tmp_path):
    class Interrupted(Silent):
        """Stops the run once the first clip is done."""

        def progress(self, what, total, unit):
            from contextlib import nullcontext

            def advance(n: int) -> None:
                raise KeyboardInterrupt

            return nullcontext(advance)

    out = tmp_path / "clips"
    with pytest.raises(KeyboardInterrupt):
        run(RECIPE, out=out, reporter=Interrupted())
    assert not (out / "manifest.json").exists()
    first = out / "s4-00000" / "cond.mp4"
    written = first.stat().st_mtime_ns
    run(RECIPE, out=out, reporter=Silent())
    assert first.stat().st_mtime_ns == written
    assert read_manifest(out).items.keys() == read_manifest(folder).items.keys()


def test_a_dry_run_checks_and_writes_nothing(tmp_path):
    out = tmp_path / "clips"
    result = run(RECIPE, out=out, reporter=Silent(), dry_run=True)
    assert result.details["dry_run"]
    impossible = replace(RECIPE, world=replace(WORLD, camera=CameraPathConfig(degrees=3)))
    with pytest.raises(UsageError, match="no exit and re-entry"):
        run(impossible, out=out, reporter=Silent(), dry_run=True)
    assert list(tmp_path.iterdir()) == []
