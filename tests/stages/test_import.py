"""`hm dataset import`: all is checked before anything is written, and the file that was given is the one read."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from hmcli.errors import DataError, HMError, LockedError, UsageError
from hmcli.recipe.sections import DataConfig, PosesConfig, SplitConfig
from hmcli.runtime import Silent
from hmcli.stages.data import importing
from hmcli.stages.data.loading import load_clip
from hmcli.stages.data.opening import open_dataset
from hmcli.store.files import write_json
from hmcli.store.lock import ArtifactLock
from hmcli.store.video import read_video, write_video

FRAMES, SIZE = 6, (32, 48)


class Told(Silent):
    def __init__(self) -> None:
        self.text = ""

    def note(self, text: str) -> None:
        self.text += text + "\n"

    warn = note


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return film(tmp_path / "walk.mp4", seed=0)


def film(path: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    write_video(path, rng.integers(0, 255, (FRAMES, *SIZE, 3), dtype=np.uint8), fps=10)
    return path


def tum(path: Path, x: float = 0.1, step: float = 0.1) -> Path:
    path.write_text("\n".join(f"{i * step:.4f} {i * x} 0 0 0 0 0 1" for i in range(FRAMES)))
    return path


def transforms(path: Path, **given: object) -> Path:
    frames = [{"file_path": f"{i}.png", "transform_matrix": np.eye(4).tolist()} for i in range(FRAMES)]
    write_json(path, {"frames": frames, **given})
    return path


def colmap(folder: Path, x: float) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "cameras.txt").write_text("1 PINHOLE 48 32 40 40 24 16\n")
    (folder / "images.txt").write_text("".join(f"{i} 1 0 0 0 {i * x} 0 0 1 {i}.png\n\n" for i in range(FRAMES)))
    return folder / "images.txt"


def run(video: Path, poses: Path, out: Path, **options: object) -> str:
    told = Told()
    given = {"form": "auto", "caption": "", "name": "", "interpolate": False, "metres_per_unit": 1.0, **options}
    importing.run(video, poses=poses, out=out, reporter=told, **given)  # type: ignore[arg-type]
    return told.text


def state(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.exists() else {}


def failures(place: Path) -> dict[str, tuple[Path, dict[str, object]]]:
    """Poses that do not fit, with options."""
    return {
        "another rate": (tum(place / "rate.txt", step=0.05), {}),
        "another shape": (transforms(place / "shape.json", fl_x=40, w=48, h=48), {}),
        "a lens of nothing": (transforms(place / "lens.json", fl_x=0, w=48, h=32), {}),
        "images of nothing": (transforms(place / "none.json", fl_x=40, w=0, h=0), {}),
        "no pinhole": (transforms(place / "fish.json", camera_model="OPENCV_FISHEYE", fl_x=40), {}),
        "no such file": (place / "nowhere.txt", {}),
        "an id with a slash": (tum(place / "a.txt"), {"name": "../walk"}),
        "an id of 300 letters": (tum(place / "a.txt"), {"name": "n" * 300}),
        "a caption with a NUL": (tum(place / "a.txt"), {"caption": "a\0b"}),
        "a caption that is no UTF-8": (tum(place / "a.txt"), {"caption": "a\udce9"}),
        "a scale of nothing": (tum(place / "a.txt"), {"metres_per_unit": float("nan")}),
    }


def test_an_import_that_fails_neither_writes_nor_blocks_nor_overwrites(video: Path, tmp_path: Path):
    out = tmp_path / "mine"
    for name, (poses, options) in failures(tmp_path).items():
        with pytest.raises(HMError):
            run(video, poses, out, **options)
        assert state(out) == {}, name
    run(video, tum(tmp_path / "good.txt"), out, caption="good")
    before = state(out)
    other = film(tmp_path / "other.mp4", seed=1)
    for name, (poses, options) in failures(tmp_path).items():
        with pytest.raises(HMError):
            run(other, poses, out, **{"name": "walk", **options})
        assert state(out) == before, name


def test_the_same_id_again_replaces_the_clip_and_leaves_nothing_behind(video: Path, tmp_path: Path):
    out = tmp_path / "mine"
    run(video, transforms(tmp_path / "t.json", fl_x=40), out, caption="first")
    run(film(tmp_path / "b.mp4", seed=2), tum(tmp_path / "b.txt"), out)
    run(film(tmp_path / "walk.mov", seed=1), tum(tmp_path / "a.txt"), out, caption="second")
    assert set(state(out)) == {"b.mp4", "b.camera.json", "walk.mov", "walk.camera.json", "metadata.jsonl"}
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert [(row["id"], row["caption"]) for row in rows] == [("b", ""), ("walk", "second")]
    with ArtifactLock(out), pytest.raises(LockedError):
        run(video, tum(tmp_path / "a.txt"), out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("")
    with pytest.raises(UsageError, match="holds something else"):
        run(video, tum(tmp_path / "a.txt"), tmp_path / "full")


def placed(out: Path) -> list[float]:
    """How far the camera moved along x, by frame, as the clip has it."""
    from hmcli.recipe.sections import PosesConfig
    from hmcli.stages.data.opening import open_dataset, read_cameras

    (clip,) = open_dataset(out, PosesConfig()).clips
    cameras = read_cameras(clip).context
    assert cameras is not None
    return list((cameras[:, :3, 3] - cameras[0, :3, 3])[:, 0])


def test_the_file_that_was_given_is_the_one_that_is_read(video: Path, tmp_path: Path):
    images = colmap(tmp_path / "model", x=0.5)
    for name in ("images.bin", "cameras.bin"):
        (tmp_path / "model" / name).write_bytes(b"another model, and no good one")
    for given in (images, images.with_name("cameras.txt")):
        run(video, given, tmp_path / "mine")
        assert np.allclose(placed(tmp_path / "mine"), [-0.5 * i for i in range(FRAMES)])
    other = images.with_name("other.txt")
    other.write_text(images.read_text().replace(" 0.5 ", " 0.7 "))
    run(video, other, tmp_path / "mine", form="colmap")
    assert placed(tmp_path / "mine")[1] == pytest.approx(-0.7)
    with pytest.raises(DataError, match=r"not whole|unknown"):
        run(video, tmp_path / "model", tmp_path / "mine")


def test_what_was_taken_for_granted_is_said_and_intrinsics_without_a_size_are_kept(video: Path, tmp_path: Path):
    said = run(video, transforms(tmp_path / "t.json", fl_x=40), tmp_path / "mine")
    assert "taken for the video's" in said
    assert "does not know metres" in said
    lens = json.loads((tmp_path / "mine/walk.intrinsics.json").read_text())
    assert (lens["fx"], lens["cx"], lens["width"], lens["height"]) == (40, 24, 48, 32)
    late = tmp_path / "late.txt"
    late.write_text("\n".join(f"{7 + i / 10:.4f} 0 0 0 0 0 0 1" for i in range(FRAMES)))
    assert "the first pose (time 7.0000 s)" in run(video, late, tmp_path / "other")
    assert len(read_video(tmp_path / "other/walk.mp4")) == FRAMES


def test_frames_of_a_variable_rate_get_the_poses_of_their_times(tmp_path: Path):
    """The camera stands at x = its time; a pose taken by the mean rate would be off by up to 0.4 m."""
    shown = [0.0, 0.1, 0.16, 0.5, 0.56, 0.9]
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for seconds in shown:
            frame = av.VideoFrame.from_ndarray(np.full((*SIZE, 3), 90, np.uint8), format="rgb24")
            frame.time_base, frame.pts = Fraction(1, 1000), round(1000 * seconds)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    poses = tmp_path / "track.txt"
    poses.write_text("\n".join(f"{100 + i / 50:.4f} {i / 50} 0 0 0 0 0 1" for i in range(50)))
    said = run(path, poses, tmp_path / "mine", interpolate=True)
    assert "apart" in said
    (source,) = open_dataset(tmp_path / "mine", PosesConfig()).clips
    found = load_clip(source, replace(DataConfig(), size=SIZE, frames="pad", split=SplitConfig(context=1, target=5)))
    places = np.concatenate([found.context_poses, found.target_poses])[:, :3, 3]
    np.testing.assert_allclose(np.linalg.norm(places - places[0], axis=1), shown, atol=2e-3)
