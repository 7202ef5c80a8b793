"""`hm dataset check`: every claim of a clip is held against everything else it holds, and true clips are left alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from warm import WarmCommand

from hmcli.recipe.sections import PosesConfig
from hmcli.stages.data.check import _rows, check_clip
from hmcli.stages.data.explaining import CLIP, ENOUGH, PAIRS, explain
from hmcli.stages.data.findings import Findings
from hmcli.stages.data.opening import open_dataset, read_cameras
from hmcli.store.files import read_json, read_json_lines, write_json, write_json_lines
from hmcli.store.video import read_labels, read_video, write_video
from hmcli.world.views.cameras import PREFIXES, field_of_view, pair_file, parse_cameras
from hmcli.world.views.pixel_motion import best_lens, watch

REFERENCE = PosesConfig(repair="reference")


@pytest.fixture
def folder(clips: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clips, tmp_path / "clips"))


def checked(folder: Path, clip: str) -> Findings:
    dataset = open_dataset(folder, PosesConfig())
    (source,) = (one for one in dataset.clips if one.id == clip)
    return check_clip(source, _rows(dataset, []).get(clip))


def names(folder: Path) -> list[str]:
    return sorted(place.name for place in folder.iterdir() if place.is_dir())


def poses(clip: Path) -> dict:
    cameras = parse_cameras(read_json(clip / "camera.json"), frames=21, repair="refuse")
    return {"context": cameras.context, "target": cameras.target}


def with_poses(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path, Path], None]:
    def damage(clip: Path, other: Path) -> None:
        both = np.concatenate(list(poses(clip).values()))
        changed = change(both)
        write_json(clip / "camera.json", pair_file({"context": changed[:21], "target": changed[21:]}))

    return damage


def frozen_target(track: np.ndarray) -> np.ndarray:
    return np.concatenate([track[:21], np.repeat(track[21:22], 21, axis=0)])


def others(*files: str) -> Callable[[Path, Path], None]:
    def damage(clip: Path, other: Path) -> None:
        for file in files:
            shutil.copyfile(other / file, clip / file)

    return damage


def with_json(file: str, change: Callable[[object], object]) -> Callable[[Path, Path], None]:
    def damage(clip: Path, other: Path) -> None:
        write_json(clip / file, change(read_json(clip / file)))

    return damage


def with_depth(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path, Path], None]:
    def damage(clip: Path, other: Path) -> None:
        with np.load(clip / "depth.npz") as parts:
            changed = {name: change(parts[name]) for name in parts.files}
        np.savez_compressed(clip / "depth.npz", **changed)

    return damage


def cut_depth(clip: Path, other: Path) -> None:
    data = (clip / "depth.npz").read_bytes()
    (clip / "depth.npz").write_bytes(data[: len(data) // 2])


def black_masks(clip: Path, other: Path) -> None:
    for prefix in PREFIXES.values():
        black = np.zeros_like(read_video(clip / f"{prefix}_mask.mp4"))
        write_video(clip / f"{prefix}_mask.mp4", black, fps=10)


def shifted_masks(clip: Path, other: Path) -> None:
    for prefix in PREFIXES.values():
        labels = np.roll(read_labels(clip / f"{prefix}_instances.mp4"), 4, axis=2)
        write_video(clip / f"{prefix}_instances.mp4", labels, fps=10, quality="lossless")


def nan_once(depth: np.ndarray) -> np.ndarray:
    depth[3, 4, 5] = np.nan
    return depth


def moved_subjects(states: dict) -> dict:
    for state in states.values():
        state["position"] = [[x + 3, y, z] for x, y, z in state["position"]]
    return states


def unhidden(states: dict) -> dict:
    for state in states.values():
        for stretch in state["hidden"]:
            stretch["last"] = stretch["last"] - 1
    return states


def wider(lens: dict) -> dict:
    return {**lens, "fx": lens["fx"] * 0.6, "fy": lens["fy"] * 0.6}


FAULTS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "inverted cameras": (with_poses(np.linalg.inv), "these cameras do not explain this video"),
    "frozen cameras": (with_poses(lambda t: np.repeat(t[:1], len(t), axis=0)), "these cameras do not explain this"),
    "cameras frozen in the target": (with_poses(frozen_target), "do not explain"),
    "cameras backwards": (with_poses(lambda t: t[::-1]), "is not seen where"),
    "another clip's cameras": (others("camera.json"), "is not seen where"),
    "check.json of {}": (with_json("check.json", lambda _: {}), "check.json names no character"),
    "no events": (with_json("events.json", lambda _: []), "in the masks, not in events.json"),
    "depth cut off": (cut_depth, "depth.npz cannot be read"),
    "depth of another size": (with_depth(lambda d: d[:, ::2]), "depth.npz has float16"),
    "one NaN in the depth": (with_depth(nan_once), "depth.npz is not a positive number in 2 frames, from 3 on"),
    "depth in other units": (with_depth(lambda d: d * np.float16(100)), "has another depth than its position"),
    "flat depth": (with_depth(lambda d: np.full_like(d, 0.5)), "has another depth than its position"),
    "another clip's depth": (others("depth.npz"), "depth"),
    "black foreground masks": (black_masks, "foreground and instance masks do not show the same subjects"),
    "instance masks shifted": (shifted_masks, "other boxes than the masks"),
    "another clip's instance masks": (others("cond_instances.mp4", "tgt_instances.mp4"), "than the masks"),
    "another clip's amodal masks": (others("cond_amodal.mp4", "tgt_amodal.mp4"), "amodal masks lack"),
    "another clip's subjects": (others("subjects.json"), "other boxes than the masks"),
    "subjects elsewhere": (with_json("subjects.json", moved_subjects), "character.json has other places"),
    "another hidden stretch": (with_json("subjects.json", unhidden), "the masks have not"),
    "subjects that are no mapping": (with_json("subjects.json", lambda _: []), "subjects.json cannot be read"),
    "another clip's character.json": (others("character.json"), "character.json has"),
    "wrong intrinsics": (with_json("intrinsics.json", wider), "intrinsics"),
}


TOGETHER = (  # in one clip each, to save time: none hides another
    (
        "check.json of {}",
        "no events",
        "one NaN in the depth",
        "black foreground masks",
        "another clip's character.json",
    ),
    ("depth cut off", "another clip's amodal masks", "another hidden stretch"),
    ("depth of another size", "another clip's instance masks"),
    ("subjects that are no mapping", "wrong intrinsics"),
    ("flat depth", "instance masks shifted"),
)


@pytest.mark.parametrize("faults", [*TOGETHER, *((one,) for one in FAULTS if one not in sum(TOGETHER, ()))])
def test_what_contradicts_the_rest_of_a_clip_is_found_and_named(folder: Path, faults: tuple[str, ...]):
    first, second = names(folder)[:2]
    for fault in faults:
        FAULTS[fault][0](folder / first, folder / second)
    found = checked(folder, first)
    for fault in faults:
        assert FAULTS[fault][1] in " ".join(found.problems), (fault, found.problems, found.unreadable)


def test_a_true_clip_is_left_alone_and_what_cannot_be_checked_is_said(folder: Path):
    for clip in names(folder):
        found = checked(folder, clip)
        assert (found.problems, found.unreadable) == ([], "")
        assert found.cameras_explain is not None
        assert found.cameras_explain > 0.5
        assert all(text.startswith("depth against pixels") for text in found.unchecked)
    bare = folder / names(folder)[0]
    for file in bare.iterdir():
        if file.name not in ("cond.mp4", "tgt.mp4", "camera.json", "check.json", "character.json"):
            file.unlink()
    (folder / "clips.jsonl").unlink()
    (folder / "manifest.json").unlink()
    found = checked(folder, bare.name)
    assert found.problems == []
    assert [text.partition(":")[0] for text in found.unchecked] == [
        "masks", "check.json", "character.json", "depth", "intrinsics",
    ]  # fmt: skip


def test_the_table_of_clips_is_held_against_the_clips(hm: WarmCommand, folder: Path):
    rows = read_json_lines(folder / "clips.jsonl")
    rows[0] |= {"fps": 24, "subjects": ["dragon"]}
    write_json_lines(folder / "clips.jsonl", rows[:2])
    done = hm("dataset", "check", folder, "--json")
    assert done.returncode == 4
    found = {row["clip"]: " ".join(row["problems"]) for row in json.loads(done.stdout)["clips"]}
    assert f"says nothing of {rows[2]['id']}" in found["clips.jsonl"]
    assert "fps=24" in found[rows[0]["id"]]
    assert "dragon" in found[rows[0]["id"]]
    assert found[rows[1]["id"]] == ""


def test_a_video_that_stands_still_is_not_explained_by_a_camera_that_turns(folder: Path):
    dataset = open_dataset(folder, PosesConfig())
    source = dataset.clips[0]
    cameras = read_cameras(source)
    assert cameras.context is not None
    video = read_video(source.files["context"])
    still = np.repeat(video[:1], len(video), axis=0)
    found = explain(still, cameras.context, len(still), lens=None, masks=None, depth=None)
    assert "do not explain" in found.problems[0]
    turned = check_clip(replace(source, files={k: source.files[k] for k in ("context", "cameras")}))
    assert turned.problems == []
    assert any("no target video" in text for text in turned.unchecked)


def test_the_cameras_of_a_published_clip_explain_it_and_inverted_ones_do_not(shared: Path):
    source = open_dataset(shared / "data" / "hm-world-examples", REFERENCE).clips[2]
    video, track = read_video(source.files["context"]), read_cameras(source).context
    assert track is not None
    found = watch(video, [(0, len(video))], None, PAIRS)
    lens, share = best_lens(found, track, np.array([1.4, 1.4, 0.5, 0.29]), least=ENOUGH)
    assert share > CLIP
    assert np.rad2deg(field_of_view(lens[0], 1.0)) == pytest.approx(37, abs=4)
    assert best_lens(found, np.linalg.inv(track), lens, least=ENOUGH)[1] < 0.1


def test_cameras_in_another_unit_than_metres_are_no_contradiction(folder: Path):
    caught = 0
    for source in open_dataset(folder, PosesConfig()).clips[:2]:  # subjects, unmasked here, fill most of the third
        track = read_cameras(source).context
        assert track is not None
        video = read_video(source.files["context"])
        small, frozen = track.copy(), np.repeat(track[:1], len(track), axis=0)
        small[:, :3, 3] *= 0.01
        frozen[:, :3, 3] += np.random.default_rng(0).normal(size=(len(track), 3)) * 1e-6
        assert explain(video, small, len(video), lens=None, masks=None, depth=None).problems == []
        found = explain(video, frozen, len(video), lens=None, masks=None, depth=None)
        assert found.cameras is None or found.problems
        caught += bool(found.problems)
    assert caught
