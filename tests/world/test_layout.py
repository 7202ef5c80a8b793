"""Layout: which kind of data set a listing is, and every file's role."""

from __future__ import annotations

import pytest

from hmcli.errors import DataError
from hmcli.world.files.layout import read_layout

RELEASED = ["cond.mp4", "tgt.mp4", "cond_mask.mp4", "tgt_mask.mp4", "camera.json", "character.json", "check.json"]


def test_released_layout_records_the_gaps_of_each_clip():
    names = [f"c10/{name}" for name in RELEASED] + [
        "c2/cond.mp4",
        "c2/camera.json",
        "c2/M_CustomDepth.mp4",
        "caption.txt",
    ]
    layout = read_layout(names)
    assert (layout.name, layout.captions) == ("released", "keyed")
    part, whole = layout.clips
    assert (part.id, whole.id) == ("c2", "c10")
    assert whole.missing == ()
    assert whole.files["target_mask"] == "c10/tgt_mask.mp4"
    assert part.missing == ("tgt.mp4", "character.json", "check.json")
    assert part.files == {"context": "c2/cond.mp4", "cameras": "c2/camera.json", "joint_mask": "c2/M_CustomDepth.mp4"}


def test_a_clip_without_context_or_camera_stays_listed_with_its_problem():
    layout = read_layout(["a/cond.mp4", "a/camera.json", "b/tgt.mp4", "b/camera.json", "c/cond.mp4"])
    assert [clip.problem for clip in layout.clips] == ["", "the clip has no cond.mp4", "the clip has no camera.json"]


def test_our_renders_are_the_released_layout_with_more_in_it():
    names = [f"000/{name}" for name in [*RELEASED, "intrinsics.json", "events.json", "depth.npz"]]
    layout = read_layout([*names, "clips.jsonl", "caption.txt", "manifest.json"])
    assert layout.name == "rendered"
    assert {"intrinsics", "events"} <= layout.clips[0].files.keys()
    assert layout.clips[0].others == ("000/depth.npz",)


def test_example_layout_pairs_videos_and_cameras_by_number():
    layout = read_layout(
        ["1.mp4", "10.mp4", "2.mp4", "cam1.json", "cam10.json", "caption.txt", "README.md", "extra.mp4"]
    )
    assert (layout.name, layout.captions, layout.unused) == ("examples", "numbered", ("extra.mp4",))
    assert [clip.id for clip in layout.clips] == ["1", "2", "10"]
    assert [clip.problem for clip in layout.clips] == ["", "there is no cam2.json beside 2.mp4", ""]


def test_plain_folders_are_read_through_their_metadata():
    names = ["metadata.csv", "videos/a.mp4", "videos/b.mp4", "b_after.mp4", "a.json", "stray.mp4"]
    rows = [
        {"file_name": "videos/b.mp4", "text": "", "target_video": "b_after.mp4", "camera": "static", "score": "3"},
        {"file_name": "videos/a.mp4", "text": "a cat", "target_video": "", "camera": "a.json", "score": "4"},
        {"file_name": "videos/c.mp4", "text": "gone", "target_video": "", "camera": "a.json", "score": ""},
        {"file_name": "stray.mp4", "text": "no camera", "target_video": "", "camera": "", "score": ""},
    ]
    layout = read_layout(names, rows)
    found = {clip.id: clip for clip in layout.clips}
    assert (layout.name, layout.captions, layout.ignored_columns) == ("plain", "metadata", ("score",))
    assert found["videos/a"].files == {"context": "videos/a.mp4", "cameras": "a.json"}
    assert found["videos/b"].static
    assert found["videos/b"].caption == ""
    assert found["videos/b"].files == {"context": "videos/b.mp4", "target": "b_after.mp4"}
    assert found["videos/c"].problem == "videos/c.mp4 does not exist in the folder"
    assert "does not call its camera static" in found["stray"].problem


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"video": "a.mp4"}, "no column caption or text or prompt"),
        ({"caption": "x"}, "no column file_name or video"),
        ({"video": "a.mp4", "caption": "x", "prompt": "y"}, "caption and prompt mean the same"),
        ({"video": "", "caption": "x"}, "names no video"),
        ({"video": ["a.mp4"], "caption": "x"}, "not text"),
    ],
)
def test_metadata_that_leaves_something_open_is_refused(row, message):
    with pytest.raises(DataError, match=message):
        read_layout(["metadata.jsonl", "a.mp4"], [row])


def test_two_rows_for_one_clip_are_refused():
    row = {"video": "a.mp4", "caption": "x", "camera": "static"}
    with pytest.raises(DataError, match="two rows describe clip 'a'"):
        read_layout(["metadata.jsonl", "a.mp4"], [row, row])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["notes.txt", "a/camera.json"], "the folder holds no videos"),
        ([], "the folder holds no videos"),
        ([".hidden/a.mp4"], "the folder holds no videos"),
        (["a.mp4", "b.mp4"], "2 videos, but nothing says which caption"),
        (["train/a/cond.mp4", "train/a/camera.json"], "the clips lie deeper"),
        (["a.mp4", "metadata.csv", "metadata.jsonl"], "both metadata.csv and metadata.jsonl"),
    ],
)
def test_a_folder_that_is_no_data_set_says_what_is_needed(names, message):
    with pytest.raises(DataError, match=message) as refused:
        read_layout(names)
    assert refused.value.fix
