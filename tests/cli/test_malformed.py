"""Malformed files are clear errors with the right code: one table of faults, over all commands that read them."""

from __future__ import annotations

import errno
import io
import json
import os
import pwd
import sys
from pathlib import Path

import numpy as np
import pytest

from hmcli import hub
from hmcli.cli.output import emit
from hmcli.contracts import StageResult
from hmcli.errors import DataError
from hmcli.hub import local
from hmcli.recipe.sections import PosesConfig
from hmcli.runtime import printable
from hmcli.stages.data.opening import open_dataset
from hmcli.store.hashing import HashCache, cache_folder
from hmcli.store.video import write_video

MANIFEST = {
    "format": 2, "kind": "dataset", "fingerprint": "sha256:0", "inputs": {}, "recipe": {}, "made_by": {"hmcli": "1"},
    "created_at": "now", "seed": 0, "counts": {}, "items": {}, "quarantined": [], "arrays": {}, "files": {},
    "attributes": {},
}  # fmt: skip
DEEP = "[" * 100_000
MANIFESTS = {
    "items are null": json.dumps({**MANIFEST, "items": None}),
    "an item is null": json.dumps({**MANIFEST, "items": {"a": None}}),
    "an item has no keys": json.dumps({**MANIFEST, "items": {"a": {}}}),
    "no keys at all": "{}",
    "a list": "[]",
    "nothing": "",
    "nested 100,000 deep": '{"items": ' + DEEP,
    "NUL": "\0\0\0\0",
    "latin-1": '{"kind": "é"}',
}
ROWS = {
    "nested 100,000 deep": '{"video": ' + DEEP,
    "a list": "[1]",
    "a lone surrogate": '{"video": "a.mp4", "camera": "static", "caption": "\\ud800"}',
    "NUL in a caption": '{"video": "a.mp4", "camera": "static", "caption": "a\\u0000b"}',
    "a caption of numbers": '{"video": "a.mp4", "camera": "static", "caption": 5.5}',
    "half a line": '{"video": "a.mp4", "cam',
}
READ_ARTIFACTS = {  # command -> its arguments around the folder
    "inspect": ("inspect", "IT"),
    "dataset check": ("dataset", "check", "IT"),
    "dataset show": ("dataset", "show", "IT"),
    "dataset split": ("dataset", "split", "IT", "--out", "split"),
    "encode": ("encode", "IT"),
    "encode --dry-run": ("encode", "IT", "--dry-run"),
    "tokenize-memory": ("tokenize-memory", "IT"),
    "train": ("train", "nano/hydra", "--latents", "IT"),
    "generate": ("generate", "IT", "--model", "mini"),
    "eval": ("eval", "IT", "--metric", "psnr"),
    "merge": ("merge", "IT", "IT", "--out", "whole"),
}
READ_FOLDERS = [name for name in READ_ARTIFACTS if name.startswith(("dataset", "encode", "generate"))]


def failed(hm, command: str, folder: Path) -> str:
    """What the command said about the folder: one error of the right code, and no traceback."""
    done = hm(*[str(folder) if word == "IT" else word for word in READ_ARTIFACTS[command]])
    assert done.returncode == 3, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "error:" in done.stderr
    assert "Traceback" not in done.stderr
    assert "--debug" not in done.stderr
    return str(done.stderr)


@pytest.fixture
def folder(tmp_path):
    write_video(tmp_path / "a.mp4", np.zeros((5, 32, 48, 3), np.uint8), fps=15)
    return tmp_path


@pytest.mark.parametrize("command", READ_ARTIFACTS)
def test_a_malformed_manifest_is_bad_data_to_every_command(hm, folder, command):
    for text in MANIFESTS.values():
        (folder / "manifest.json").write_text(text, encoding="latin-1")
        assert "manifest" in failed(hm, command, folder)


@pytest.mark.parametrize("command", READ_FOLDERS)
def test_a_malformed_table_is_bad_data_to_every_command(hm, folder, command):
    for text in ROWS.values():
        (folder / "metadata.jsonl").write_text(text + "\n")
        assert "metadata.jsonl" in failed(hm, command, folder)


def test_what_moves_a_terminal_is_shown_and_not_obeyed(hm, folder):
    rows = [{"id": f"{name}\x1b[31m\x07", "video": f"{name}.mp4", "camera": "static", "caption": ""} for name in "ab"]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for command in READ_FOLDERS:
        done = hm(*[str(folder) if word == "IT" else word for word in READ_ARTIFACTS[command]])
        assert "\x1b" not in done.stderr
        assert "\x07" not in done.stderr
        assert "\x1b" not in done.stdout
    assert printable("a\x1b[0m\u202eb\ud800\n\tä日") == "a\\x1b[0m\\u202eb\\ud800\n\tä日"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_path_keeps_its_bytes_on_a_terminal_of_another_alphabet(monkeypatch, tmp_path, encoding):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    assert emit(StageResult(path=tmp_path / "日本", kind="folder"), False) == 0
    assert written.getvalue().decode() == f"{tmp_path}/日本\n"


def test_a_user_without_a_name_and_a_home_has_no_cache_and_no_error(monkeypatch, tmp_path):
    def unknown(number):
        raise KeyError(number)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert not cache_folder().exists()
    (file := tmp_path / "a").write_bytes(b"a")
    os.utime(file, (0, 0))
    HashCache().put(file, file.stat(), "sha256:0")
    assert HashCache().get(file, file.stat()) is None
    assert local("owner/name/of nothing") == "owner/name/of nothing"
    assert hub.cache().name == "hub"


def read_only_place() -> Path:
    """A folder that nobody can write, or nobody but root: a mount that is read-only."""
    if os.getuid():
        return Path("/")
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    found = [Path(row[1]) for row in mounts if "ro" in row[3].split(",") and not os.access(row[1], os.W_OK)]
    if not found:
        pytest.skip("root can write everywhere here: there is no read-only mount")
    return found[0]


def test_a_dry_run_says_that_it_could_not_write(hm, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "free").mkdir()
    for place in (tmp_path / "file", read_only_place()):
        done = hm("render", "nano/hydra", "--clips", 1, "--out", place / "a" / "data", "--dry-run")
        assert done.returncode == 2
        assert "the output cannot be written there" in done.stderr
        assert str(place) in done.stderr
    assert hm("render", "nano/hydra", "--clips", 1, "--out", tmp_path / "free/a/data", "--dry-run").returncode == 0
    assert list((tmp_path / "free").iterdir()) == []


def test_a_folder_that_cannot_be_read_is_no_empty_one(monkeypatch, folder):
    """Root reads everything, so the system's answer is given here."""
    (folder / "metadata.jsonl").write_text('{"video": "a.mp4", "camera": "static", "caption": ""}')
    (folder / "locked").mkdir()
    assert len(open_dataset(folder, PosesConfig()).clips) == 1
    listed = os.scandir

    def answer(place):
        if str(place).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return listed(place)

    monkeypatch.setattr(os, "scandir", answer)
    with pytest.raises(DataError, match="cannot be read") as caught:
        open_dataset(folder, PosesConfig())
    assert str(caught.value.where["folder"]).endswith("locked")
