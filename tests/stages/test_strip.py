"""hm strip: generations of the same clips beside the truth, or a clear refusal."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image
from warm import WarmCommand, ok

from hmcli.store.files import read_json
from hmcli.store.video import probe_video


def test_a_strip_is_one_file_of_the_clips_that_all_generations_have(
    hm: WarmCommand, generation: Path, clips: Path, tmp_path: Path
):
    made = hm("strip", generation, generation, "--reference", clips, "--label", "a", "--label", "b", "--scale", 1,
              "--out", tmp_path / "s.webp")  # fmt: skip
    with Image.open(ok(made)) as image:
        assert image.n_frames > 10
        width = image.size[0]
    size = read_json(generation / "manifest.json")["attributes"]["data"]["size"]
    assert width == 4 * size[1] + 3 * 4  # context, truth, a, b
    assert hm("strip", generation, "--reference", clips, "--out", tmp_path / "s.webp").returncode == 2
    assert ok(hm("strip", generation, "--reference", clips, "--out", tmp_path / "s.png")).suffix == ".png"
    film = probe_video(ok(hm("strip", generation, "--reference", clips, "--scale", 1, "--out", tmp_path / "s.mp4")))
    assert film.width == 3 * size[1] + 2 * 4
    refused = hm("strip", generation, "--reference", clips, "--max-mib", 0.01, "--out", tmp_path / "t.mp4")
    assert refused.returncode == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s.mp4", "s.png", "s.webp"]


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["--out", "s.avi"], 2, "a strip is a .webp, .gif, .png, .mp4 file"),
        (["--label", "a", "--label", "b"], 2, "2 labels for 1 generations"),
        (["--clips", "nobody"], 2, "not every generation has 'nobody'"),
        (["--max-mib", "0.01"], 3, "MiB, at most 0.01"),
    ],
)
def test_what_cannot_be_shown_is_said(hm: WarmCommand, generation: Path, clips: Path, tmp_path: Path, more, code, says):
    out = [] if "--out" in more else ["--out", tmp_path / "s.webp"]
    refused = hm("strip", generation, "--reference", clips, *out, *more)
    assert (refused.returncode, says in refused.stderr) == (code, True), refused.stderr
    assert not (tmp_path / "s.webp").exists()


def test_a_changed_video_is_not_shown(hm: WarmCommand, generation: Path, clips: Path, tmp_path: Path):
    copy = tmp_path / "gen"
    shutil.copytree(generation, copy)
    video = next((copy / "videos").iterdir())
    video.write_bytes(video.read_bytes()[:-7])
    refused = hm("strip", copy, "--reference", clips, "--out", tmp_path / "s.webp")
    assert refused.returncode == 3
    assert "changed or damaged" in refused.stderr
