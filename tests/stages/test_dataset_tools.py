"""`hm dataset`: check, split, unpack and import, as commands on rendered and made-up data."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from warm import WarmCommand, ok

from hmcli.store.files import write_json_lines
from hmcli.store.video import read_video, write_video


@pytest.fixture
def copied(clips: Path, tmp_path: Path) -> Path:
    """The rendered clips, to damage."""
    return Path(shutil.copytree(clips, tmp_path / "copied"))


def report(done) -> dict:
    return json.loads(done.stdout)


def test_rendered_clips_have_nothing_missing_and_no_contradiction(hm: WarmCommand, clips: Path):
    done = hm("dataset", "check", clips, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = report(done)["clips"]
    assert len(rows) == 3
    assert all(not row["problems"] and not row["missing"] and row["events_from"] == "masks" for row in rows)
    assert all(row["events"] for row in rows)


def test_captions_that_are_missing_or_nobodys_do_not_keep_clips_from_being_checked(hm: WarmCommand, copied: Path):
    lines = (copied / "caption.txt").read_text().splitlines(keepends=True)
    (copied / "caption.txt").write_text("".join(lines[1:]))
    done = hm("dataset", "check", copied, "--json")
    assert done.returncode == 0, done.stderr
    assert [row["missing"] for row in report(done)["clips"]] == [["no caption"], [], []]
    assert any("1 of 3 clips have no caption" in note for note in report(done)["notes"])
    (copied / "caption.txt").write_text("one\ntwo\n")
    done = hm("dataset", "check", copied, "--json")
    assert done.returncode == 4
    rows = {row["clip"]: row for row in report(done)["clips"]}
    assert "cannot be told apart" in rows["caption.txt"]["unreadable"]
    assert len(rows) == 4


def test_what_is_wrong_with_a_clip_is_named_and_ends_with_code_4(hm: WarmCommand, copied: Path):
    first, second, third = sorted(p for p in copied.iterdir() if p.is_dir())
    events = json.loads((first / "events.json").read_text())
    events[0]["frame"] = 1
    (first / "events.json").write_text(json.dumps(events))
    camera = json.loads((first / "camera.json").read_text())
    for frame in range(11, len(camera["cond_cam"])):
        camera["cond_cam"][str(frame)][0][3] += 500  # centimetres
    (first / "camera.json").write_text(json.dumps(camera))
    (second / "tgt.mp4").write_bytes((second / "tgt.mp4").read_bytes()[:900])
    check = {"cond_check": {"A": {"x": [{"frame": 0, "inFrame": False}]}}, "tgt_check": {}}
    (third / "check.json").write_text(json.dumps(check))
    done = hm("dataset", "check", copied, "--json")
    assert done.returncode == 4
    rows = {row["clip"]: row for row in report(done)["clips"]}
    text = " ".join(rows[first.name]["problems"])
    assert "in events.json, not in the masks" in text
    assert "in the masks, not in events.json" in text
    assert "the camera jumps by" in text
    assert "before context frame 11" in text
    assert "tgt.mp4" in rows[second.name]["unreadable"]
    assert "check.json has nobody in the frame" in " ".join(rows[third.name]["problems"])
    plain = hm("dataset", "check", copied)
    assert f"{third.name}: contradictory" in plain.stdout
    assert f"{second.name}: unreadable" in plain.stdout


def test_a_split_is_the_same_whatever_else_is_there_and_reads_back_as_clips(
    hm: WarmCommand, clips: Path, copied: Path, tmp_path: Path
):
    whole = ok(hm("dataset", "split", clips, "--test", "0.5", "--seed", 3, "--out", tmp_path / "whole"))
    parts = json.loads((whole / "split.json").read_text())
    assert len(parts["train"]) + len(parts["test"]) == 3
    gone = parts["train"][0]
    shutil.rmtree(copied / gone)
    fewer = ok(hm("dataset", "split", copied, "--test", "0.5", "--seed", 3, "--out", tmp_path / "fewer"))
    again = json.loads((fewer / "split.json").read_text())
    assert again["test"] == parts["test"]
    assert again["train"] == [clip for clip in parts["train"] if clip != gone]
    if parts["test"]:
        done = hm("dataset", "check", whole / "test", "--json")
        assert [row["clip"] for row in report(done)["clips"]] == parts["test"]


def test_parts_of_a_split_say_all_that_the_whole_says_of_their_clips(hm: WarmCommand, clips: Path, tmp_path: Path):
    whole = ok(hm("dataset", "split", clips, "--test", "0.5", "--seed", 3, "--out", tmp_path / "whole"))
    parts = json.loads((whole / "split.json").read_text())
    for name in ("clips.jsonl", "caption_plain.txt", "caption.txt"):
        lines = [(whole / part / name).read_text().splitlines() for part in ("train", "test")]
        assert sorted(lines[0] + lines[1]) == sorted((clips / name).read_text().splitlines())
        assert len(lines[0]) == len(parts["train"]) > 0
    again = ok(hm("dataset", "split", whole / "train", "--by", "scene", "--test", "0.5", "--out", tmp_path / "again"))
    assert json.loads((again / "split.json").read_text())["held_out"]
    (whole / "train/split.json").unlink()
    assert "unfinished" in hm("dataset", "check", whole / "train").stderr


def test_a_split_inside_or_around_its_source_is_refused_and_so_is_a_seed_below_0(
    hm: WarmCommand, copied: Path, tmp_path: Path
):
    (tmp_path / "door").symlink_to(copied, target_is_directory=True)
    for out in (copied, copied / "parts", tmp_path / "door/parts", copied / "a/../parts", copied.parent):
        done = hm("dataset", "split", copied, "--out", out)
        assert done.returncode == 2, out
        assert "cannot lie inside" in done.stderr
    assert not (copied / "parts").exists()
    done = hm("dataset", "split", copied, "--seed", "-1", "--out", tmp_path / "parts")
    assert done.returncode == 2
    assert "--seed=-1" in done.stderr
    assert hm("render", "--set", "seed=-1", "--out", tmp_path / "x").returncode == 2


def test_families_are_held_out_whole(hm: WarmCommand, clips: Path, tmp_path: Path):
    rows = {row["id"]: row for row in map(json.loads, (clips / "clips.jsonl").read_text().splitlines())}
    if len({row["scene"] for row in rows.values()}) < 2:
        pytest.fail("the three rendered clips all show one scene: choose another seed for them")
    out = ok(hm("dataset", "split", clips, "--by", "scene", "--test", "0.4", "--out", tmp_path / "scenes"))
    parts = json.loads((out / "split.json").read_text())
    assert {rows[clip]["scene"] for clip in parts["test"]} == set(parts["held_out"])
    assert not {rows[clip]["scene"] for clip in parts["train"]} & set(parts["held_out"])


def test_a_table_of_clips_that_says_too_little_is_refused_by_its_place(hm: WarmCommand, clips: Path, tmp_path: Path):
    older = Path(shutil.copytree(clips, tmp_path / "older"))
    rows = [json.loads(line) for line in (clips / "clips.jsonl").read_text().splitlines()]
    later = ("further_seeds", "follows")
    write_json_lines(older / "clips.jsonl", [{k: v for k, v in row.items() if k not in later} for row in rows])
    ok(hm("dataset", "split", older, "--by", "subjects", "--test", "0.4", "--out", tmp_path / "split"))
    write_json_lines(older / "clips.jsonl", [{**row, "scene": 3} for row in rows])
    done = hm("dataset", "split", older, "--by", "scene", "--test", "0.4", "--out", tmp_path / "other")
    assert done.returncode == 3
    assert "clips.jsonl" in done.stderr
    assert "scene" in done.stderr


def test_archives_are_unpacked_into_a_folder_that_can_be_checked(hm: WarmCommand, clips: Path, tmp_path: Path):
    with tarfile.open(tmp_path / "HM.tar", "w") as tar:
        for clip in sorted(p for p in clips.iterdir() if p.is_dir()):
            tar.add(clip, arcname=f"HM-World/{clip.name}")
        tar.add(clips / "caption.txt", arcname="HM-World/caption.txt")
    data, half = (tmp_path / "HM.tar").read_bytes(), (tmp_path / "HM.tar").stat().st_size // 2
    (tmp_path / "HM.tar").unlink()
    (tmp_path / "HM.tar.00").write_bytes(data[:half])
    (tmp_path / "HM.tar.01").write_bytes(data[half:])
    out = ok(hm("dataset", "unpack", tmp_path / "HM.tar.00", tmp_path / "HM.tar.01", "--out", tmp_path / "data"))
    done = hm("dataset", "check", out / "HM-World", "--json")
    assert done.returncode == 0, done.stderr
    assert report(done)["layout"] == "released"


def test_an_odd_member_is_named_and_the_rest_is_unpacked_with_code_4(hm: WarmCommand, tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "file.txt").write_text("x")
    with tarfile.open(tmp_path / "in/HM.tar.gz", "w:gz") as tar:
        for name in ("a", "a/b", "n" * 300, "c"):
            tar.add(tmp_path / "file.txt", arcname=name)
    done = hm("dataset", "unpack", tmp_path / "in", "--out", tmp_path / "out", "--json")
    assert done.returncode == 4
    assert [item["item"] for item in report(done)["quarantined"]] == ["a/b", "n" * 300]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a", "c"]
    whole = (tmp_path / "in/HM.tar.gz").read_bytes()
    (tmp_path / "in/HM.tar.gz").write_bytes(whole[:-4])
    damaged = hm("dataset", "unpack", tmp_path / "in", "--out", tmp_path / "out")
    assert damaged.returncode == 3
    assert "HM.tar.gz" in damaged.stderr


def test_a_video_with_a_tum_trajectory_becomes_a_clip_that_encodes(hm: WarmCommand, nano: Path, tmp_path: Path):
    rng = np.random.default_rng(0)
    write_video(tmp_path / "walk.mp4", rng.integers(0, 255, (42, 32, 48, 3), dtype=np.uint8), fps=10)
    turns = Rotation.from_rotvec(np.linspace(0, 0.5, 42)[:, None] * [0, 0, 1.0]).as_quat()
    lines = [f"{i / 10} {i * 0.1} 0 0 {' '.join(map(str, q))}" for i, q in enumerate(turns) if i % 3 == 0 or i == 41]
    (tmp_path / "walk.txt").write_text("\n".join(lines))
    arguments = ["dataset", "import", tmp_path / "walk.mp4", "--poses", tmp_path / "walk.txt", "--caption", "a walk"]
    refused = hm(*arguments, "--out", tmp_path / "mine")
    assert refused.returncode == 3
    assert "15 poses for 42 video frames" in refused.stderr
    mine = ok(hm(*arguments, "--interpolate", "--out", tmp_path / "mine"))
    ok(hm(*arguments, "--interpolate", "--id", "again", "--out", tmp_path / "mine"))
    assert [json.loads(row)["id"] for row in (mine / "metadata.jsonl").read_text().splitlines()] == ["walk", "again"]
    split = "data.split={context: 21, target: 21}"
    done = hm("encode", mine, "--recipe", nano, "--set", split, "--out", tmp_path / "mine.zarr", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["clips"] == 2
    assert len(read_video(mine / "walk.mp4")) == 42


def test_the_gallery_holds_all_it_shows(hm: WarmCommand, clips: Path, tmp_path: Path):
    page = ok(hm("dataset", "show", clips, "--no-open", "--out", tmp_path / "gallery"))
    moved = Path(shutil.copytree(page.parent, tmp_path / "elsewhere"))
    text = (moved / "index.html").read_text(encoding="utf-8")
    wanted = [unquote(name) for group in re.findall(r'(?:src|data-videos)="([^"]+)"', text) for name in group.split()]
    assert len(wanted) >= 3 * 5
    assert [name for name in wanted if not (moved / name).is_file()] == []
    refused = hm("dataset", "show", clips, "--no-open", "--clips", "nosuch", "--out", tmp_path / "gallery")
    assert refused.returncode == 2
    assert "nosuch" in refused.stderr
