"""Poses, captions and tables as other people's tools write them: understood, or refused with what to do."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from hmcli.errors import DataError
from hmcli.store.files import parse_json, parse_json_lines
from hmcli.world.files.layout import read_layout
from hmcli.world.files.pose_files import parse_colmap_binary, parse_colmap_text, parse_nerfstudio, parse_tum
from hmcli.world.views.cameras import parse_cameras

TURN = [np.array([np.sin(a / 2), 0, 0, np.cos(a / 2)]) for a in (0.0, 0.1, 0.2)]  # xyzw, about x


def tum(order: str, header: str = "") -> str:
    rows = [np.roll(q, 1) if order == "wxyz" else q for q in TURN]
    return header + "\n".join(f"{i} 0 0 0 {' '.join(map(str, q))}" for i, q in enumerate(rows))


def test_quaternions_with_the_scalar_first_are_asked_about_and_read_when_the_file_says_so():
    upright = parse_tum(tum("xyzw")).world_from_camera
    assert np.allclose(upright[0], np.eye(4))
    with pytest.raises(DataError, match="scalar first") as caught:
        parse_tum(tum("wxyz"))
    assert "qw qx qy qz" in caught.value.fix
    said = parse_tum(tum("wxyz", "# timestamp tx ty tz qw qx qy qz\n"))
    assert np.allclose(said.world_from_camera, upright)


def test_a_camera_that_is_upside_down_is_one_where_the_file_names_its_columns():
    track = parse_tum(tum("wxyz", "# timestamp tx ty tz qx qy qz qw\n"))
    assert np.allclose(np.diag(track.world_from_camera[0]), [1, -1, -1, 1])


def test_other_orders_of_quaternions_are_refused():
    with pytest.raises(DataError, match="order wzyx"):
        parse_tum(tum("xyzw", "# t x y z qw qz qy qx\n"))


@pytest.mark.parametrize(("number", "name", "parameters"), [
    (5, "OPENCV_FISHEYE", 8), (11, "RAD_TAN_THIN_PRISM_FISHEYE", 16), (10, "THIN_PRISM_FISHEYE", 12),
])  # fmt: skip
def test_models_of_colmap_that_are_no_pinhole_are_refused_by_their_names(number, name, parameters):
    cameras = struct.pack("<Qi i Q Q", 1, 1, number, 640, 480) + struct.pack(
        f"<{parameters}d", *range(1, parameters + 1)
    )
    with pytest.raises(DataError, match=f"camera model {name} is no pinhole"):
        parse_colmap_binary(cameras, struct.pack("<Q", 0))


@pytest.mark.parametrize(("line", "focal"), [
    ("SIMPLE_DIVISION 640 480 500 320 240 -0.1", (500, 500)), ("DIVISION 640 480 500 510 320 240 -0.1", (500, 510)),
])  # fmt: skip
def test_models_of_colmap_with_a_division_have_a_focal_length(line, focal):
    lens = parse_colmap_text(f"1 {line}\n", "1 1 0 0 0 0 0 0 1 0.png\n\n").lens
    assert lens is not None
    assert (lens.focal, lens.centre, lens.distorted) == (focal, (320, 240), True)


@pytest.mark.parametrize("model", ["OPENCV_FISHEYE", "EQUIRECTANGULAR", "VR180_L", "ORTHOPHOTO"])
def test_models_of_nerfstudio_that_are_no_pinhole_are_refused(model):
    frames = [{"file_path": "0.png", "transform_matrix": np.eye(4).tolist()}]
    with pytest.raises(DataError, match=f"{model} is no pinhole"):
        parse_nerfstudio({"camera_model": model, "fl_x": 1, "w": 2, "h": 2, "frames": frames})


def test_an_angle_of_view_gives_the_focal_length():
    frames = [{"file_path": "0.png", "transform_matrix": np.eye(4).tolist()}]
    lens = parse_nerfstudio({"camera_angle_x": np.pi / 2, "frames": frames}, (48, 64)).lens
    assert lens is not None
    assert lens.focal == pytest.approx((32, 32))


def test_matrices_without_their_last_row_are_whole():
    matrix = np.eye(4)
    matrix[:3, 3] = 1, 2, 3
    short, long = ([{"file_path": "0.png", "transform_matrix": m.tolist()}] for m in (matrix[:3], matrix))
    assert np.array_equal(*(parse_nerfstudio({"frames": f}).world_from_camera for f in (short, long)))
    pairs = [{"cond_cam": {"0": m.tolist(), "1": m.tolist()}} for m in (matrix[:3], matrix)]
    arrays = [{"context_camera": [m.tolist()] * 2, "video_camera": [m.tolist()] * 2} for m in (matrix[:3], matrix)]
    for short_file, long_file in (pairs, arrays):
        read = [parse_cameras(file, frames=2, repair="refuse").context for file in (short_file, long_file)]
        assert np.array_equal(*read)
    with pytest.raises(DataError, match=r"\(4, 3\)"):
        parse_cameras({"cond_cam": {"0": matrix[:, :3].tolist()}}, frames=1, repair="refuse")


def test_a_byte_order_mark_is_none_of_the_content(tmp_path):
    text = '\ufeff{"a": 1}'.encode()
    assert parse_json(text, tmp_path) == {"a": 1}
    assert parse_json_lines(text, tmp_path) == [{"a": 1}]


def test_tables_nested_beyond_reason_are_no_json(tmp_path):
    text = b'{"a":' + b"[" * 100_000
    for parse in (parse_json, parse_json_lines):
        with pytest.raises(DataError, match="not valid JSON"):
            parse(text, tmp_path)


def rows(**given):
    return read_layout(["in/a.mp4", "in/b.mp4", "metadata.jsonl"], [
        {"video": "in/a.mp4", "caption": "one", "camera": "static"}, {"video": "in/b.mp4", "camera": "static", **given},
    ]).clips  # fmt: skip


def test_a_caption_that_is_no_number_is_an_empty_one():
    for nothing in (float("nan"), None):
        assert [clip.caption for clip in rows(caption=nothing)] == ["one", ""]
    with pytest.raises(DataError, match="not text"):
        rows(caption=1.5)


def test_paths_of_windows_are_understood_and_places_elsewhere_are_named():
    assert rows(video="in\\b.mp4")[1].files["context"] == "in/b.mp4"
    assert rows(video=".\\in\\b.mp4")[1].problem == ""
    for elsewhere in ("C:\\films\\b.mp4", "D:/films/b.mp4", "/home/me/b.mp4", "\\\\server\\films\\b.mp4"):
        (problem,) = [clip.problem for clip in rows(video=elsewhere) if clip.problem]
        assert "relative to the metadata file" in problem


@pytest.mark.parametrize("letter", ["\0", "\ud800"])
def test_a_letter_that_is_none_is_refused_with_its_row(letter):
    with pytest.raises(DataError, match="caption has a letter that is none") as caught:
        rows(caption=f"a{letter}b")
    assert "row 2" in str(caught.value.where["row"])
    caught.value.what.encode("ascii")
