"""One writer per artifact, whatever happens to it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hmcli.errors import LockedError, UsageError
from hmcli.store.lock import ArtifactLock, check_writable, writing_output

HOLD = """
import time
from hmcli.store.lock import ArtifactLock
with ArtifactLock(sys.argv[1]):
    say("held")
    time.sleep(60)
"""


def test_a_second_writer_is_told_who_holds_the_lock(tmp_path, start):
    holder = start(HOLD, tmp_path / "x")
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LockedError, match="another process") as caught, ArtifactLock(tmp_path / "x"):
        pass
    assert f"process {holder.pid} on " in caught.value.where["holder"]
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("out", ["file.yaml/sub", "file.yaml/sub/deeper", "x" * 300])
def test_a_place_that_cannot_be_written_is_wrong_usage(tmp_path, out):
    (tmp_path / "file.yaml").write_text("format: 1\n")
    with pytest.raises(UsageError, match="cannot be written") as caught, ArtifactLock(tmp_path / out):
        pass
    assert caught.value.where["out"] == tmp_path / out
    assert "--out" in caught.value.fix
    assert [place.name for place in tmp_path.iterdir()] == ["file.yaml"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_file_system_that_takes_no_files_is_wrong_usage():
    with pytest.raises(UsageError, match="cannot be written"), ArtifactLock("/proc/zz"):
        pass


@pytest.mark.parametrize(("number", "raised"), [(errno.ENOSPC, OSError), (errno.EROFS, UsageError)])
def test_a_full_disk_is_not_the_fault_of_the_path(tmp_path, number, raised):
    with pytest.raises((OSError, UsageError)) as caught, writing_output(tmp_path):
        raise OSError(number, os.strerror(number))
    assert isinstance(caught.value, raised)


def test_a_killed_holder_leaves_no_lock(tmp_path, start):
    holder = start(HOLD, tmp_path / "x")
    holder.stdout.readline()
    holder.kill()
    holder.wait()
    assert (tmp_path / "x.lock").exists()
    with ArtifactLock(tmp_path / "x"):
        assert str(os.getpid()) in (tmp_path / "x.lock").read_text()
    assert not (tmp_path / "x.lock").exists()


def test_the_lock_is_of_the_artifact_however_it_is_named(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "x")
    with ArtifactLock(tmp_path / "x"), pytest.raises(LockedError), ArtifactLock(tmp_path / "link"):
        pass
    with ArtifactLock(tmp_path / "x"), ArtifactLock(tmp_path / "y"):
        pass


def test_a_lock_on_a_file_that_its_last_holder_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    lock = ArtifactLock(tmp_path / "x")
    take, taken = lock._lock, []

    def remove_and_take(handle: int) -> None:
        if not taken:
            lock.file.unlink()
        taken.append(handle)
        take(handle)

    monkeypatch.setattr(lock, "_lock", remove_and_take)
    with lock:
        assert len(taken) == 2
        assert str(os.getpid()) in lock.file.read_text()
        with pytest.raises(LockedError), ArtifactLock(tmp_path / "x"):
            pass


def test_the_file_is_gone_before_the_lock_is_free(tmp_path, monkeypatch):
    lock, there = ArtifactLock(tmp_path / "x"), []
    with lock:
        close = os.close
        monkeypatch.setattr(os, "close", lambda handle: (there.append(lock.file.exists()), close(handle)))
    assert there == [False]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_keep_the_lock_alive(tmp_path):
    reading, writing = os.pipe()
    with ArtifactLock(tmp_path / "x"):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)  # until the parent is done
            os._exit(0)
    with ArtifactLock(tmp_path / "x"):
        pass
    os.close(writing)
    os.waitpid(child, 0)
    os.close(reading)


def test_many_writers_take_turns(tmp_path, start):
    code = """
    import time
    from pathlib import Path
    from hmcli.errors import LockedError
    from hmcli.store.lock import ArtifactLock
    counter, done = Path(sys.argv[2]), 0
    while done < 20:
        try:
            with ArtifactLock(sys.argv[1]):
                value = int(counter.read_text())
                counter.write_text(str(value + 1))
                done += 1
        except LockedError:
            time.sleep(0.001)
    """
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [start(code, tmp_path / "x", counter) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert counter.read_text() == "60"


def test_whether_a_place_can_be_written_is_said_without_writing_there(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    check_writable(tmp_path)
    check_writable(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    for place in (tmp_path / "file" / "a", tmp_path / "file" / "a" / "b"):
        with pytest.raises(UsageError, match="cannot be written there"):
            check_writable(place)
