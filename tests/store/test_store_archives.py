"""Archives: whole or in parts, nothing leaves the folder, nothing that is there is replaced."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from hmcli.errors import DataError
from hmcli.store.archives import find_archives, unpack

FILES = {"HM/a/cond.mp4": b"one" * 5000, "HM/a/camera.json": b"{}", "HM/b/cond.mp4": b"two" * 9000}


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def cut(path: Path, parts: int, name) -> list[Path]:
    data, step = path.read_bytes(), -(-path.stat().st_size // parts)
    made = []
    for number in range(parts):
        made.append(path.with_name(name(number)))
        made[-1].write_bytes(data[number * step : (number + 1) * step])
    path.unlink()
    return made


def unpacked(archive, target: Path) -> dict[str, str]:
    return {member.member: member.state for member in unpack(archive, target)}


@pytest.mark.parametrize(
    ("mode", "suffix", "name"),
    [
        ("w", ".tar", lambda n: f"HM.tar.{n:03d}"),
        ("w:gz", ".tar.gz", lambda n: f"HM.tar.gz.part{'abcdef'[n // 26]}{'abcdefgh'[n]}"),
        ("w", ".tar", lambda n: f"HM.tar.{n + 1}"),
    ],
)
def test_parts_are_read_as_one_archive_in_the_order_of_their_names(tmp_path: Path, mode, suffix, name):
    cut(make_tar(tmp_path / f"HM{suffix}", FILES, mode), 3, name)
    (archive,) = find_archives([tmp_path])
    assert len(archive.parts) == 3
    assert set(unpacked(archive, tmp_path / "out").values()) == {"written"}
    assert {n: (tmp_path / "out" / n).read_bytes() for n in FILES} == FILES
    assert set(unpacked(archive, tmp_path / "out").values()) == {"kept"}


def test_a_missing_part_is_named_before_anything_is_unpacked(tmp_path: Path):
    parts = cut(make_tar(tmp_path / "HM.tar", FILES), 4, lambda n: f"HM.tar.{n:02d}")
    parts[2].unlink()
    with pytest.raises(DataError, match=r"after HM\.tar\.01: HM\.tar\.03 is next"):
        find_archives([tmp_path])
    parts[0].unlink()
    with pytest.raises(DataError, match=r"after (the start|HM)"):
        find_archives([tmp_path])


def test_a_cut_off_archive_keeps_what_was_whole_and_says_so(tmp_path: Path):
    tar = make_tar(tmp_path / "HM.tar", FILES)
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="ends early"):
        unpacked(find_archives([tar])[0], tmp_path / "out")
    assert (tmp_path / "out/HM/a/cond.mp4").read_bytes() == FILES["HM/a/cond.mp4"]
    assert not (tmp_path / "out/HM/b/cond.mp4").exists()
    tar.write_bytes(whole)
    states = unpacked(find_archives([tar])[0], tmp_path / "out")
    assert states == {"HM/a/cond.mp4": "kept", "HM/a/camera.json": "kept", "HM/b/cond.mp4": "written"}


def test_no_path_leaves_the_folder(tmp_path: Path):
    target = tmp_path / "out"
    (target / "HM").mkdir(parents=True)
    (target / "HM/door").symlink_to(tmp_path, target_is_directory=True)
    evil = {
        "../up.txt": b"x",
        f"{tmp_path}/abs.txt": b"x",
        "HM/../../up.txt": b"x",
        "HM/door/up.txt": b"x",
        "HM/ok.txt": b"x",
    }
    tar = make_tar(tmp_path / "HM.tar", evil)
    with tarfile.open(tar, "a") as more:
        link = tarfile.TarInfo("HM/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        more.addfile(link)
    states = unpacked(find_archives([tar])[0], target)
    assert states.pop("HM/ok.txt") == "written"
    assert all("leaves the folder" in state or "link" in state for state in states.values()), states
    assert len(states) == 5
    assert not (tmp_path / "up.txt").exists()
    assert not (tmp_path / "abs.txt").exists()


def test_a_file_that_is_there_with_another_size_is_not_replaced(tmp_path: Path):
    (tmp_path / "out/HM/a").mkdir(parents=True)
    (tmp_path / "out/HM/a/camera.json").write_text("mine, and longer")
    states = unpacked(find_archives([make_tar(tmp_path / "x.tar", FILES)])[0], tmp_path / "out")
    assert states["HM/a/camera.json"] == "there is something else of that name already"
    assert (tmp_path / "out/HM/a/camera.json").read_text() == "mine, and longer"


def test_what_is_no_archive_is_refused(tmp_path: Path):
    (tmp_path / "x.tar").write_bytes(b"not a tar file at all" * 100)
    with pytest.raises(DataError, match="no tar file"):
        unpacked(find_archives([tmp_path / "x.tar"])[0], tmp_path / "out")
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="not the name"):
        find_archives([tmp_path / "x.zip"])
