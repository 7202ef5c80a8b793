"""`hm render` as a stage: the released layout with more in it, clip by clip, from a seed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hmcli.errors import DataError, UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import CameraPathConfig, DataConfig, Recipe, WorldConfig
from hmcli.runtime import Silent
from hmcli.stages.data.annotations import read_annotations
from hmcli.stages.data.loading import load_clip
from hmcli.stages.data.opening import open_dataset
from hmcli.stages.rendering.clips import Job, drawn_at_once, render_batch
from hmcli.stages.rendering.render import run
from hmcli.stages.shared.typed import to_json
from hmcli.store.manifest import read_manifest
from hmcli.store.video import read_video
from hmcli.world.files.schema import parse_check, parse_subjects
from hmcli.world.hidden.certify import GUESSES
from hmcli.world.hidden.events import find_events, hidden_stretches, longest_run, visibility
from hmcli.world.render import draw_clip
from hmcli.world.scenes import SCENES
from hmcli.world.staging.clip import ClipDescription, describe_clip
from hmcli.world.subjects import SUBJECTS
from hmcli.world.views.cameras import parse_cameras

SIZE = (24, 40)
CONTEXT, TARGET = 13, 17
WORLD = WorldConfig(clips=2, context_frames=CONTEXT, target_frames=TARGET, fps=5, size=SIZE, antialias=False)
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


def as_drawn(folder: Path, index: int) -> ClipDescription:
    """The description of a clip: the draw whose masks were accepted, not always the first one."""
    rows = [json.loads(line) for line in (folder / "clips.jsonl").read_text().splitlines()]
    return describe_clip(WORLD, 4, index, first_draw=rows[index]["draw"])


def test_our_reader_reads_a_render_back(folder):
    data = open_dataset(folder, RECIPE.poses)
    assert (data.layout, data.quarantined) == ("rendered", ())
    assert [clip.id for clip in data.clips] == ["s4-00000", "s4-00001"]
    assert data.fingerprint == read_manifest(folder).fingerprint
    clip = load_clip(data.clips[1], RECIPE.data)
    described = as_drawn(folder, 1)
    assert clip.context.shape == (CONTEXT, 32, 48, 3)
    assert clip.target.shape == (TARGET, 32, 48, 3)
    assert clip.fps == 5
    np.testing.assert_allclose(clip.context_poses, described.world_from_camera[:CONTEXT], atol=1e-9)
    np.testing.assert_allclose(clip.target_poses, described.world_from_camera[CONTEXT:], atol=1e-9)
    assert (clip.context_mask[0] == 1).any()
    assert (clip.target_mask[-1] == 1).any()
    fx, fy, cx, cy = described.intrinsics(SIZE)
    np.testing.assert_allclose(clip.intrinsics, [fx * 48 / 40, fy * 32 / 24, cx * 48 / 40, cy * 32 / 24])
    assert clip.caption[0].isupper()


def test_annotations_come_back_as_they_were_drawn(folder):
    for index in range(2):
        clip = as_drawn(folder, index)
        pictures = draw_clip(clip, SIZE, antialias=False)
        found = read_annotations(folder / clip.id)
        np.testing.assert_array_equal(found.instances, pictures.instances)
        np.testing.assert_array_equal(found.amodal, pictures.amodal)
        np.testing.assert_array_equal(found.depth, pictures.depth.astype(np.float16))
        assert [state.name for state in found.subjects] == [actor.name for actor in clip.actors]
        for state, actor, amodal in zip(found.subjects, clip.actors, pictures.amodal, strict=True):
            assert (state.number, state.family, state.path) == (actor.number, actor.subject.family, actor.path)
            assert (state.body_length, state.radius) == (actor.subject.body_length, actor.subject.radius)
            np.testing.assert_array_equal(state.position, actor.walk.position)
            np.testing.assert_array_equal(state.heading, actor.walk.heading)
            np.testing.assert_array_equal(state.phase, actor.phase)
            assert state.box == tuple(map(box, pictures.instances == actor.number))
            assert state.amodal_box == tuple(map(box, amodal))


def box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    y, x = np.nonzero(mask)
    return (x.min(), y.min(), x.max() + 1, y.max() + 1) if len(y) else None


def test_events_and_certificates_agree_with_the_masks_to_the_frame(folder):
    for row in clip_rows(folder):
        found = read_annotations(folder / row["id"])
        certified = 0
        for state in found.subjects:
            of = visibility(state.name, state.number, found.instances, found.amodal[state.number - 1])
            expected = find_events(of, CONTEXT)
            assert [event for event in found.events if event.subject == state.name] == expected
            spans = [(gone.first, gone.last, gone.reason) for gone in hidden_stretches(of) if gone.first > 0]
            assert [(gone.first, gone.last, gone.reason) for gone in state.hidden] == spans
            for gone in state.hidden:
                assert gone.hidden_seconds == pytest.approx((gone.last - gone.first + 1) / 5)
                assert gone.visible_seconds == pytest.approx(of.clear()[: gone.first].sum() / 5)
            for gone in (gone for gone in state.hidden if gone.certified):
                certified += 1
                judged = min(gone.last + 1 + 2, CONTEXT + TARGET - 1)  # half a second after re-entry
                moved = np.linalg.norm(state.position[judged] - state.position[gone.first - 1])
                assert gone.error_metres["frozen"] == pytest.approx(moved, abs=1e-3)
                assert gone.error_bodies["frozen"] == pytest.approx(moved / state.body_length, abs=1e-3)
                assert gone.error_bodies["frozen"] > 1
                assert gone.error_bodies["oracle"] <= 0.5
                assert gone.first < CONTEXT <= gone.last < CONTEXT + TARGET - 1
                assert gone.visible_seconds >= 2
                assert gone.shown_seconds >= 1
                assert not gone.absent
                assert gone.hidden_seconds >= 1.5
            check = parse_check(load(folder / row["id"] / "check.json"))
            rows = [(p.part, frame, inside) for p in check if p.actor == state.name for frame, inside in p.frames]
            assert rows == [(event.part, event.frame, event.kind == "entry") for event in expected]
        assert certified >= 1


def clip_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "clips.jsonl").read_text().splitlines()]


def test_damaged_annotations_are_refused(folder, tmp_path):
    clip = tmp_path / "clip"
    shutil.copytree(folder / "s4-00000", clip)
    states = load(clip / "subjects.json")
    name = next(iter(states))
    states[name]["heading"].pop()
    (clip / "subjects.json").write_text(json.dumps(states))
    with pytest.raises(DataError, match="not one value per frame"):
        read_annotations(clip)
    shutil.copy(folder / "s4-00000" / "subjects.json", clip)
    np.savez(clip / "depth.npz", cond=np.zeros((3, 2, 2)), tgt=np.zeros((4, 2, 2)))
    with pytest.raises(DataError, match="differ in length"):
        read_annotations(clip)
    (clip / "depth.npz").write_bytes(b"no")
    with pytest.raises(DataError, match="the depth cannot be read"):
        read_annotations(clip)


def test_released_files_keep_the_release_s_conventions(folder):
    described = as_drawn(folder, 0)
    cameras = parse_cameras(load(folder / "s4-00000" / "camera.json"), frames=CONTEXT, repair="refuse")
    np.testing.assert_allclose(cameras.context, described.world_from_camera[:CONTEXT], atol=1e-9)
    raw = np.array(load(folder / "s4-00000" / "camera.json")["tgt_cam"]["3"])
    pose = described.world_from_camera[CONTEXT + 3]
    np.testing.assert_allclose(raw[:3, 3], pose[:3, 3] * [100, -100, 100])
    np.testing.assert_allclose(raw[:3, 0], pose[:3, 2] * [1, -1, 1])  # first column: forward
    np.testing.assert_allclose(raw[:3, 2], [0, 0, 1], atol=1e-12)  # third column: up
    subject = parse_subjects(load(folder / "s4-00000" / "character.json"))[0]
    np.testing.assert_allclose(subject.target, described.actors[0].walk.position[CONTEXT:], atol=1e-9)


def test_masks_depth_and_index_belong_to_the_clip(folder):
    clip = folder / "s4-00001"
    white, labels = read_video(clip / "tgt_mask.mp4"), read_video(clip / "tgt_instances.mp4")[..., 0]
    assert ((white[..., 0] > 127) == (labels > 0)).mean() > 0.995
    depth = np.load(clip / "depth.npz")
    assert depth["cond"].shape == (CONTEXT, *SIZE)
    assert depth["tgt"].dtype == np.float16
    assert (depth["tgt"] > 0).all()
    rows = clip_rows(folder)
    assert [row["id"] for row in rows] == ["s4-00000", "s4-00001"]
    for name, field in (("caption.txt", "caption"), ("caption_plain.txt", "caption_plain")):
        lines = [line.split("\t") for line in (folder / name).read_text().splitlines()]
        assert lines == [[row["id"], row[field]] for row in rows]


def test_the_manifest_says_which_families_are_in_and_which_are_held_out(folder):
    split = read_manifest(folder).attributes["split"]
    assert (split["name"], split["hold_out"]) == ("mixed", "all")
    assert set(split["held_out_scenes"]) < set(split["scenes"]) == set(SCENES)
    assert set(split["held_out_subjects"]) < set(split["subjects"]) == set(SUBJECTS)


def test_the_same_seed_renders_the_same_data_set(folder, tmp_path):
    out = tmp_path / "clips"
    run(RECIPE, out=out, reporter=Silent())
    ours, theirs = files_of(out), files_of(folder)
    assert ours.keys() == theirs.keys()
    for name in ours:
        if name != "manifest.json":
            assert ours[name] == theirs[name], name


def test_in_a_crowd_somebody_passes_behind_something(tmp_path):
    world = replace(WORLD, clips=1, split="crowd", size=(48, 80))
    out = tmp_path / "clips"
    run(replace(RECIPE, seed=2, world=world), out=out, reporter=Silent())
    found = read_annotations(out / "s2-00000")
    assert len(found.subjects) == 3
    behind = []
    for state in found.subjects:
        seen = (found.instances == state.number).any((1, 2))
        behind.append(longest_run(~seen & found.amodal[state.number - 1].any((1, 2)) & (seen.cumsum() > 0)))
    assert max(behind) >= 0.3 * world.fps


def test_an_empty_place_is_one_that_the_camera_sees_again_and_the_subject_does_not(tmp_path):
    world = replace(WORLD, clips=1, split="absent", subjects_per_clip=(1, 1))
    out = tmp_path / "clips"
    run(replace(RECIPE, world=world), out=out, reporter=Silent())
    (row,) = clip_rows(out)
    (state,) = read_annotations(out / row["id"]).subjects
    gone = state.hidden[-1]
    assert gone.absent
    assert not any(one.certified for one in state.hidden)
    assert gone.last == CONTEXT + TARGET - 1
    assert gone.error_degrees == dict.fromkeys(GUESSES)


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
    impossible = replace(RECIPE, world=replace(WORLD, camera=CameraPathConfig(trajectory="pan-left", degrees=3)))
    with pytest.raises(UsageError, match="no exit and re-entry"):
        run(impossible, out=out, reporter=Silent(), dry_run=True)
    assert list(tmp_path.iterdir()) == []


def test_clips_drawn_together_are_the_clips_drawn_one_by_one(nano: Path, tmp_path: Path):
    recipe = load_recipe(nano)

    def written(place: Path, together: bool) -> dict[str, bytes]:
        place.mkdir()
        jobs = [
            Job(world=recipe.world, seed=recipe.seed, index=index, device="cpu", folder=place / str(index), chosen=None)
            for index in range(3)
        ]
        rows = render_batch(jobs) if together else [row for job in jobs for row in render_batch([job])]
        files = {file.relative_to(place).as_posix(): file.read_bytes() for file in place.rglob("*.*")}
        return files | {"rows": json.dumps([to_json(row) for row in rows]).encode()}

    assert written(tmp_path / "together", True) == written(tmp_path / "apart", False)


def test_a_gpu_gets_as_many_clips_at_once_as_fill_it(nano: Path):
    world = replace(load_recipe(nano).world, context_frames=33, target_frames=33, size=(64, 112))
    clips = [str(number) for number in range(20)]
    assert drawn_at_once(clips, world, "cpu") == [[clip] for clip in clips]
    assert drawn_at_once(clips, world, "cuda") == [clips[:16], clips[16:]]
    assert drawn_at_once([], world, "cuda") == []
