"""Archives: whole or in parts, with their end, nothing leaves the folder, nothing that is there is replaced."""

from __future__ import annotations

import io
import os
import random
import signal
import tarfile
import warnings
import zipfile
from pathlib import Path

import pytest

from hmcli.errors import DataError, MissingPartError
from hmcli.runtime import Terminated, stop_on_sigterm
from hmcli.store.archive_target import TEMPORARY, Bounds, Target
from hmcli.store.archives import find_archives, unpack

FILES = {"HM/a/cond.mp4": random.Random(0).randbytes(15000), "HM/a/camera.json": b"{}", "HM/b/cond.mp4": b"two" * 9000}
TARS = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.xz": "w:xz", ".tar.bz2": "w:bz2"}


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            add(tar, name, data)
    return path


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **header: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in header.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def cut(path: Path, parts: int, name) -> list[Path]:
    data, step = path.read_bytes(), -(-path.stat().st_size // parts)
    made = []
    for number in range(parts):
        made.append(path.with_name(name(number)))
        made[-1].write_bytes(data[number * step : (number + 1) * step])
    path.unlink()
    return made


def unpacked(archive, target: Path, bounds: Bounds | None = None) -> dict[str, str]:
    return {member.member: member.state for member in unpack(archive, target, bounds)}


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# --- whole and in parts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [*TARS, ".zip"])
def test_every_kind_of_archive_is_unpacked_also_when_its_name_says_another(tmp_path: Path, suffix: str):
    (tmp_path / "in").mkdir()
    made = tmp_path / f"in/HM{suffix}"
    make_zip(made, FILES) if suffix == ".zip" else make_tar(made, FILES, TARS[suffix])
    (archive,) = find_archives([tmp_path / "in"])
    assert set(unpacked(archive, tmp_path / "out").values()) == {"written"}
    assert contents(tmp_path / "out") == FILES
    assert set(unpacked(archive, tmp_path / "out").values()) == {"kept"}
    (other,) = find_archives([made.rename(tmp_path / "in/HM.tar")])
    assert set(unpacked(other, tmp_path / "out").values()) == {"kept"}


def test_zstd_archives_are_unpacked_or_the_missing_package_is_named(tmp_path: Path):
    plain = make_tar(tmp_path / "HM.tar", FILES)
    made = tmp_path / "HM.tar.zst"
    try:
        import zstandard
    except ImportError:
        made.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
        with pytest.raises(MissingPartError, match="zstandard"):
            unpacked(find_archives([made])[0], tmp_path / "out")
        return
    data, half = plain.read_bytes(), plain.stat().st_size // 2
    frames = zstandard.compress(data[:half]) + zstandard.compress(data[half:])
    made.write_bytes(frames)
    assert set(unpacked(find_archives([made])[0], tmp_path / "out").values()) == {"written"}
    assert contents(tmp_path / "out") == FILES
    for end in range(4, len(frames), 512):
        made.write_bytes(frames[:end])
        with pytest.raises(DataError):
            unpacked(find_archives([made])[0], tmp_path / "out")


@pytest.mark.parametrize(
    ("suffix", "name"),
    [
        (".tar", lambda n: f"HM.tar.{n:03d}"),
        (".tar.gz", lambda n: f"HM.tar.gz.part{'abcdef'[n // 26]}{'abcdefgh'[n]}"),
        (".tar", lambda n: f"HM.tar.{n + 1}"),
        (".tar.xz", lambda n: f"HM.tar.xz.{n:02d}"),
        (".zip", lambda n: f"HM.zip.{n + 1:03d}"),
    ],
)
def test_parts_are_read_as_one_archive_in_the_order_of_their_names(tmp_path: Path, suffix, name):
    made = tmp_path / f"HM{suffix}"
    cut(make_zip(made, FILES) if suffix == ".zip" else make_tar(made, FILES, TARS[suffix]), 3, name)
    (archive,) = find_archives([tmp_path])
    assert len(archive.parts) == 3
    assert set(unpacked(archive, tmp_path / "out").values()) == {"written"}
    assert contents(tmp_path / "out") == FILES
    assert set(unpacked(archive, tmp_path / "out").values()) == {"kept"}


def test_a_part_whose_letters_read_like_a_kind_of_compression_is_a_part(tmp_path: Path):
    letters = "abcdefghijklmnopqrstuvwxyz"
    count = letters.index("g") * 26 + letters.index("z") + 1  # x.tar.aa to x.tar.gz
    make_tar(tmp_path / "x.tar", {"a": random.Random(1).randbytes(40000)})
    cut(tmp_path / "x.tar", count, lambda n: f"x.tar.{letters[n // 26]}{letters[n % 26]}")
    (archive,) = find_archives([tmp_path])
    assert len(archive.parts) == count
    assert unpacked(archive, tmp_path / "out") == {"a": "written"}


def test_a_whole_archive_beside_parts_of_the_same_name_is_an_archive_of_its_own(tmp_path: Path):
    whole = make_tar(tmp_path / "HM.tar", FILES).read_bytes()
    cut(tmp_path / "HM.tar", 2, lambda n: f"HM.tar.{n}")
    (tmp_path / "HM.tar").write_bytes(whole)
    assert sorted(len(archive.parts) for archive in find_archives([tmp_path])) == [1, 2]


def test_a_missing_part_is_named_before_anything_is_unpacked(tmp_path: Path):
    parts = cut(make_tar(tmp_path / "HM.tar", FILES), 4, lambda n: f"HM.tar.{n:02d}")
    parts[2].unlink()
    with pytest.raises(DataError, match=r"after HM\.tar\.01: HM\.tar\.03 is next"):
        find_archives([tmp_path])
    parts[0].unlink()
    with pytest.raises(DataError, match=r"after (the start|HM)"):
        find_archives([tmp_path])


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [*TARS, ".zip"])
def test_an_archive_cut_anywhere_is_never_taken_for_a_whole_one(tmp_path: Path, suffix: str):
    made = tmp_path / f"HM{suffix}"
    make_zip(made, FILES) if suffix == ".zip" else make_tar(made, FILES, TARS[suffix])
    whole = made.read_bytes()
    members = sum(512 + -(-len(data) // 512) * 512 for data in FILES.values())
    enough = members + 1024 if suffix == ".tar" else len(whole)  # two blocks of zeros; tar pads with more
    for end in sorted({*range(0, len(whole), 512), enough - 1, enough - 512, len(whole) - 1}):
        made.write_bytes(whole[:end])
        (archive,) = find_archives([made])
        if end < enough:
            with pytest.raises(DataError, match=r"damaged, ends early, or is none"):
                unpacked(archive, tmp_path / "out")
        else:
            unpacked(archive, tmp_path / "out")
        assert contents(tmp_path / "out").items() <= FILES.items()
    made.write_bytes(whole)
    assert set(unpacked(find_archives([made])[0], tmp_path / "out").values()) <= {"kept", "written"}
    assert contents(tmp_path / "out") == FILES


@pytest.mark.parametrize("place", [512 + 15360 + 10, 512 + 15360 + 150])  # the second member's name, its check sum
def test_a_header_damaged_after_the_first_member_is_no_end(tmp_path: Path, place: int):
    tar = make_tar(tmp_path / "HM.tar", FILES)
    data = bytearray(tar.read_bytes())
    data[place] ^= 0x11
    tar.write_bytes(data)
    with pytest.raises(DataError, match="neither"):
        unpacked(find_archives([tar])[0], tmp_path / "out")


def test_one_block_of_zeros_between_members_is_no_end(tmp_path: Path):
    tar = make_tar(tmp_path / "HM.tar", FILES)
    data = tar.read_bytes()
    tar.write_bytes(data[: 512 + 15360] + bytes(512) + data[512 + 15360 :])
    with pytest.raises(DataError, match="two blocks of zeros"):
        unpacked(find_archives([tar])[0], tmp_path / "out")


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.xz", ".tar.bz2", ".zip"])
def test_a_check_sum_that_does_not_agree_is_noticed(tmp_path: Path, suffix: str):
    made = tmp_path / f"HM{suffix}"
    make_zip(made, FILES) if suffix == ".zip" else make_tar(made, FILES, TARS[suffix])
    data = bytearray(made.read_bytes())
    data[-6 if suffix == ".tar.gz" else len(data) // 2] ^= 0x11
    made.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        unpacked(find_archives([made])[0], tmp_path / "out")


def test_what_follows_the_end_is_said(tmp_path: Path):
    first = make_tar(tmp_path / "a.tar", {"a": b"1"}).read_bytes()
    second = make_tar(tmp_path / "b.tar", {"b": b"2"}).read_bytes()
    (tmp_path / "a.tar").write_bytes(first + second)
    states = unpacked(find_archives([tmp_path / "a.tar"])[0], tmp_path / "out")
    assert states.pop("a") == "written"
    assert "data follow the end" in states.pop("(after the end)")


# --- odd members -----------------------------------------------------------------------------------------------------

ODD = {
    "n" * 300: "too long",
    "d/" * 2500 + "x": "too long",
    "../up.txt": "leaves the folder",
    "/elsewhere/absolute.txt": "leaves the folder",
    "HM/../../up.txt": "leaves the folder",
    "HM\\up.txt": "leaves the folder",
    "HM/door/up.txt": "leaves the folder through a link",
    "HM/file/below.txt": "HM/file is a file",
    "HM/folder": "folder of that name",
    "hm/OTHER.txt": "differs from HM only",
    "HM/Ok.txt": "differs from HM/ok.txt only",
    "HM/ok.txt": "is a file of the archive already",
    TEMPORARY: "hm uses this name itself",
    TEMPORARY.upper() + "/x": "hm uses this name itself",
    "HM/\x1b[31mred": "control characters",
    "HM/latin-\udce9": "not UTF-8",
    "HM/there": "folder of that name",
    "HM/below/x": "HM/below is no folder",
}
GOOD = {"HM/ok.txt": b"1", "HM/file": b"2", "HM/folder/x": b"3", "HM/éte": b"4"}


def odd_target(tmp_path: Path) -> Path:
    target = tmp_path / "out"
    (target / "HM/there").mkdir(parents=True)
    (target / "HM/below").write_text("mine")
    (target / "HM/door").symlink_to(tmp_path, target_is_directory=True)
    return target


def test_every_odd_member_is_named_and_left_out_and_the_rest_is_unpacked(tmp_path: Path):
    target = odd_target(tmp_path)
    with tarfile.open(tmp_path / "HM.tar", "w") as tar:
        for name, data in GOOD.items():
            add(tar, name, data)
        for name in ODD:
            add(tar, name, b"evil")
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            add(tar, f"HM/kind{kind.decode()}", type=kind, linkname="/etc/passwd")
        add(tar, "HM/last.txt", b"5")
    found = list(unpack(find_archives([tmp_path / "HM.tar"])[0], target))
    states = [member.state for member in found]
    assert states[:4] == ["written"] * 4
    assert states[-1] == "written"
    for (name, reason), state in zip(ODD.items(), states[4:], strict=False):
        assert reason in state, (name, state)
    assert all("link or a device" in state for state in states[-5:-1])
    assert all(member.member.isprintable() for member in found)
    (target / "HM/door").unlink()
    assert contents(target) == {**GOOD, "HM/last.txt": b"5", "HM/below": b"mine"}
    assert not (tmp_path / "up.txt").exists()


def test_odd_members_of_a_zip_are_left_out_too(tmp_path: Path):
    target = odd_target(tmp_path)
    link, locked = zipfile.ZipInfo("HM/link"), zipfile.ZipInfo("HM/locked")
    link.external_attr = 0o120777 << 16
    names = [name for name in ODD if "\udce9" not in name]
    with zipfile.ZipFile(tmp_path / "HM.zip", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, data in GOOD.items():
            archive.writestr(name, data)
        for name in names:
            archive.writestr(name, b"evil")
        archive.writestr(link, "/etc/passwd")
        archive.writestr(locked, b"x")
        archive.writestr("HM/last.txt", b"5")
    data = (tmp_path / "HM.zip").read_bytes()
    place = data.rindex(b"PK\x01\x02", 0, data.rindex(b"HM/locked"))
    (tmp_path / "HM.zip").write_bytes(data[: place + 8] + b"\x01" + data[place + 9 :])  # says that it is encrypted
    states = [member.state for member in unpack(find_archives([tmp_path / "HM.zip"])[0], target)]
    assert states[:4] == ["written"] * 4
    for name, state in zip(names, states[4:], strict=False):
        assert ODD[name] in state, (name, state)
    assert "link" in states[-3]
    assert "encrypted" in states[-2]
    assert states[-1] == "written"


def sparse(name: str, size: int) -> bytes:
    """A GNU sparse member of `size` bytes, all a hole."""
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_sizes_are_bounded_by_the_archives_own(tmp_path: Path):
    rest = make_tar(tmp_path / "rest.tar", FILES).read_bytes()
    (tmp_path / "s.tar").write_bytes(sparse("HM/hole", 5 << 30) + sparse("HM/small", 1 << 16) + rest)
    states = unpacked(find_archives([tmp_path / "s.tar"])[0], tmp_path / "out")
    assert "its own size allows" in states.pop("HM/hole")
    assert set(states.values()) == {"written"}
    assert (tmp_path / "out/HM/small").read_bytes() == bytes(1 << 16)
    bomb = {"a": bytes(40 << 20), "b": b"small"}
    for made in (make_tar(tmp_path / "b.tar.xz", bomb, "w:xz"), make_zip(tmp_path / "b.zip", bomb)):
        states = unpacked(find_archives([made])[0], tmp_path / made.suffix)
        assert "its own size allows" in states["a"]
        assert states["b"] == "written"
    states = unpacked(find_archives([tmp_path / "rest.tar"])[0], tmp_path / "c", Bounds(file=100))
    assert "a file may have 100" in states["HM/b/cond.mp4"]


def test_many_files_that_together_are_too_much_stop_at_the_bound(tmp_path: Path):
    tar = make_tar(tmp_path / "x.tar.gz", {f"{n}": bytes(1000) for n in range(9)}, "w:gz")
    states = unpacked(find_archives([tar])[0], tmp_path / "out", Bounds(floor=3500, ratio=0))
    assert list(states.values())[:3] == ["written"] * 3
    assert all("its own size allows" in state for state in list(states.values())[3:])
    with pytest.raises(DataError, match="it would unpack to"):
        unpacked(find_archives([tar])[0], tmp_path / "out", Bounds(floor=100, ratio=0, passed_over=20))


def test_a_header_that_is_as_large_as_a_film_is_damage(tmp_path: Path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        add(tar, "././@PaxHeader", bytes(3 << 20), type=tarfile.XHDTYPE)
        add(tar, "a", b"1")
    with pytest.raises(DataError, match="a header of"):
        unpacked(find_archives([tmp_path / "x.tar"])[0], tmp_path / "out")


def test_a_file_that_is_there_with_other_content_is_not_replaced(tmp_path: Path):
    (tmp_path / "out/HM/a").mkdir(parents=True)
    (tmp_path / "out/HM/a/camera.json").write_text("[]")
    states = unpacked(find_archives([make_tar(tmp_path / "x.tar", FILES)])[0], tmp_path / "out")
    assert states["HM/a/camera.json"] == "there is something else of that name already"
    assert (tmp_path / "out/HM/a/camera.json").read_text() == "[]"


class Terminating(io.BytesIO):
    """A source during whose second read the process is told to end."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            os.kill(os.getpid(), signal.SIGTERM)
        return super().read(min(size or 0, 10))


def test_no_temporary_file_stays_when_the_process_is_told_to_end_and_a_killed_ones_is_removed(tmp_path: Path):
    before = signal.getsignal(signal.SIGTERM)
    stop_on_sigterm()
    try:
        with pytest.raises(Terminated):
            Target(tmp_path, 0, Bounds()).put("a/b", 100, Terminating(bytes(100)))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert contents(tmp_path) == {}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / TEMPORARY).write_bytes(b"half of a film")
    unpacked(find_archives([make_tar(tmp_path / "x.tar", FILES)])[0], tmp_path / "out")
    assert contents(tmp_path / "out") == FILES


def test_what_is_no_archive_is_refused(tmp_path: Path):
    (tmp_path / "x.tar").write_bytes(b"not a tar file at all" * 100)
    with pytest.raises(DataError, match="or is none"):
        unpacked(find_archives([tmp_path / "x.tar"])[0], tmp_path / "out")
    (tmp_path / "x.rar").write_bytes(b"Rar")
    with pytest.raises(DataError, match="not the name"):
        find_archives([tmp_path / "x.rar"])
    for name in ("y.zip", "y.z01"):
        (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(DataError, match="cut this archive in its own way"):
        find_archives([tmp_path / "y.zip"])
