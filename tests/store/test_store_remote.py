"""Artifacts at a URL: over HTTP and S3 on loopback, whole, cut off, refused, gone, and dying in the middle."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_server import Server
from warm import wait_for

from hmcli.errors import DataError, HMError, UsageError
from hmcli.runtime import Silent
from hmcli.store import remote
from hmcli.store.arrays import ROOT, StackReader
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.hashing import hash_json
from hmcli.store.manifest import read_manifest

ROWS = 19


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows in three shards."""
    out = tmp_path_factory.mktemp("bucket") / "a b" / "rows.latents"
    with ArtifactWriter(out, "latents", recipe={}, inputs={}, seed=0, reporter=Silent()) as writer:
        items = [f"clip {number}" for number in range(ROWS)]
        rng = np.random.default_rng(0)
        for item in items:
            writer.put_arrays(item, hash_json(item), {"x": rng.standard_normal((4, 6), np.float32)})
        writer.stack("x", items, axes=["clip", "y", "x"], units="one")
        writer.finish(items)
    return out


@pytest.fixture
def server(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The artifact's bucket by HTTP, an empty cache, and no patience."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.001)
    running = Server(shutil.copytree(artifact.parent.parent, tmp_path / "bucket"))
    yield running
    running.close()


def url_of(server: Server) -> str:
    return f"{server.url}/a%20b/rows.latents"


def reader_of(url: str) -> StackReader:
    return StackReader(remote.mirror(url) / ROOT / "x")


def local(artifact: Path) -> StackReader:
    return StackReader(artifact / ROOT / "x")


def test_rows_at_a_url_are_those_of_the_artifact_and_files_come_once(server: Server, artifact: Path):
    reader, own = reader_of(url_of(server) + "/"), local(artifact)
    assert server.asked == {"a b/rows.latents/manifest.json": 1}
    assert np.array_equal(reader[9], own[9])
    assert {name for name in server.asked if name.startswith("x/")} == {"x/zarr.json", "x/c/1/0/0"}
    assert all(np.array_equal(reader[row], own[row]) for row in range(ROWS))
    assert np.array_equal(reader_of(url_of(server))[3], own[3])
    assert {name: n for name, n in server.asked.items() if n > 1} == {"a b/rows.latents/manifest.json": 2}
    assert read_manifest(reader.path.parents[1]).fingerprint == read_manifest(artifact).fingerprint


@pytest.mark.parametrize("ranges", [True, False])
def test_large_files_come_in_pieces_where_the_server_knows_how(
    server: Server, artifact: Path, monkeypatch: pytest.MonkeyPatch, ranges: bool
):
    monkeypatch.setattr(remote, "PIECE", 300)
    server.ranges = ranges
    server.faults["x/c/0/0/0"] = [200, "cut"] if ranges else []
    assert np.array_equal(reader_of(url_of(server))[0], local(artifact)[0])
    size = (artifact / ROOT / "x/c/0/0/0").stat().st_size
    assert server.asked["x/c/0/0/0"] == (-(-size // 300) + 1 if ranges else 2)


@pytest.mark.parametrize("faults", [[503, 500, 429, "cut"], ["flip"], ["cut"]])
def test_what_may_pass_is_tried_again(server: Server, artifact: Path, faults: list[Any]):
    server.faults["x/c/2/0/0"] = list(faults)
    assert np.array_equal(reader_of(url_of(server))[18], local(artifact)[18])
    assert server.asked["x/c/2/0/0"] == len(faults) + 1


@pytest.mark.parametrize(
    ("name", "faults", "said", "times"),
    [
        ("manifest.json", [404], "there is no artifact at this URL", 1),
        ("manifest.json", [403], "the store refuses", 1),
        ("manifest.json", ["flip"], "the manifest cannot be read", 1),
        ("manifest.json", ["cut"] * 9, "a file could not be read, 5 times", 5),
        ("x/zarr.json", [404], "a file of the artifact is not there", 1),
        ("x/c/0/0/0", [401], "the store refuses", 1),
        ("x/c/0/0/0", [503] * 9, "a file could not be read, 5 times", 5),
        ("x/c/0/0/0", ["flip"] * 9, "not as the artifact's manifest lists it", 2),
    ],
)
def test_what_does_not_pass_is_said_with_its_url(
    server: Server, name: str, faults: list[Any], said: str, times: int
):  # fmt: skip
    server.faults[name] = list(faults)
    with pytest.raises(DataError, match=said) as caught:
        _ = reader_of(url_of(server))[0]
    assert server.url in str(caught.value)
    assert max(n for asked, n in server.asked.items() if asked.endswith(name)) == times
    assert "Traceback" not in str(caught.value)
    assert "Debug source" not in str(caught.value)


def test_a_store_cut_off_and_one_that_is_not_there_are_said(server: Server):
    reader = reader_of(url_of(server))
    _ = reader[0]
    server.close()
    assert reader[1].shape == (4, 6), "its file is here"
    with pytest.raises(DataError, match="could not be read, 5 times"):
        _ = reader[8]
    with pytest.raises(DataError, match="could not be read, 5 times"):
        remote.mirror(server.url)


@pytest.mark.parametrize(
    ("url", "said"),
    [("ftp://host/x", "a URL that cannot be read"), ("https://me:secret@host/x", "must not carry credentials")],
)
def test_urls_that_nobody_can_read_are_refused(url: str, said: str):
    with pytest.raises(UsageError, match=said) as caught:
        remote.mirror(url)
    assert "secret" not in str(caught.value)


def test_a_copy_that_was_damaged_here_comes_anew(server: Server, artifact: Path):
    reader = reader_of(url_of(server))
    _ = reader[0]
    shard = reader.path / "c/0/0/0"
    shard.write_bytes(b"x" + shard.read_bytes()[1:])
    assert np.array_equal(reader_of(url_of(server))[0], local(artifact)[0])
    assert server.asked["x/c/0/0/0"] == 2


def test_an_artifact_written_anew_is_another_one(server: Server, artifact: Path, tmp_path: Path):
    before = remote.mirror(url_of(server))
    manifest = tmp_path / "bucket" / "a b" / "rows.latents" / "manifest.json"
    with ArtifactWriter(tmp_path / "other", "latents", recipe={}, inputs={}, seed=1, reporter=Silent()) as writer:
        writer.put_arrays("clip 0", hash_json(0), {"x": np.zeros((4, 6), np.float32)})
        writer.stack("x", ["clip 0"], axes=["clip", "y", "x"], units="one")
        writer.finish(["clip 0"])
    shutil.copy(tmp_path / "other" / "manifest.json", manifest)
    after = remote.mirror(url_of(server))
    assert after != before
    with pytest.raises(DataError, match=r"not as the artifact's manifest lists it|bytes came"):
        _ = StackReader(after / ROOT / "x")[0]


def test_the_oldest_copies_go_where_there_is_no_room_and_come_again(
    server: Server, artifact: Path, monkeypatch: pytest.MonkeyPatch
):
    reader, own = reader_of(url_of(server)), local(artifact)
    _ = reader[0]
    held = remote.Mirror(reader.path.parents[1], url_of(server))
    first = f"{ROOT}/x/c/0/0/0"
    entry = {"bytes": (artifact / first).stat().st_size, "hash": ""}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with held.holding(first, entry):
        _ = reader[8]
        assert (reader.path / "c/0/0/0").is_file(), "somebody reads it"
    _ = reader[16]
    assert not (reader.path / "c/0/0/0").is_file()
    assert all(np.array_equal(reader[row], own[row]) for row in range(ROWS))


def test_those_who_read_at_once_share_what_comes(server: Server, artifact: Path):
    root = remote.mirror(url_of(server))
    with ThreadPoolExecutor(8) as pool:  # readers of their own, as processes have them
        found = list(pool.map(lambda row: StackReader(root / ROOT / "x")[row], range(8)))
    assert all(np.array_equal(values, local(artifact)[row]) for row, values in enumerate(found))
    assert server.asked["x/c/0/0/0"] == 1


def test_a_process_that_was_forked_after_reading_says_so(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote, "_reads_in", 1)
    with pytest.raises(HMError, match="before this process was forked"):
        remote.mirror(server.url)


def test_s3_is_read_with_the_environments_address_and_keys(
    server: Server, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, value in {
        "AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    shutil.copytree(artifact, tmp_path / "bucket" / "bucket" / "sets" / "rows")
    reader = reader_of("s3://bucket/sets/rows")
    assert np.array_equal(reader[18], local(artifact)[18])


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("gs://bucket/sets/rows", {"GOOGLE_BASE_URL": "{}", "GOOGLE_SKIP_SIGNATURE": "true"}),
        (
            "az://bucket/sets/rows",
            {"AZURE_STORAGE_ENDPOINT": "{}", "AZURE_STORAGE_ACCOUNT_NAME": "name", "AZURE_SKIP_SIGNATURE": "true"},
        ),
    ],
)
def test_gs_and_az_are_read_with_the_environments_address(
    server: Server, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, names: dict[str, str]
):
    """Without signatures: emulators that check them were tried by hand (docs/scale.md)."""
    for name, value in names.items():
        monkeypatch.setenv(name, value.format(server.url))
    shutil.copytree(artifact, tmp_path / "bucket" / "bucket" / "sets" / "rows")
    reader = reader_of(url)
    assert np.array_equal(reader[18], local(artifact)[18])


def test_a_folder_outside_of_the_cache_never_names_a_url(server: Server, artifact: Path, tmp_path: Path):
    copy = shutil.copytree(artifact, tmp_path / "copy")
    shutil.copy(remote.mirror(url_of(server)).with_suffix(".json"), tmp_path / "copy.json")
    (copy / ROOT / "x/c/0/0/0").unlink()
    with pytest.raises(DataError, match="missing"):
        _ = StackReader(copy / ROOT / "x")[0]
    assert server.asked["x/c/0/0/0"] == 0


UPLOAD = """
import pathlib, sys
import obstore
from obstore.store import S3Store
bucket, artifact = S3Store("bucket", client_options={"allow_http": True}), pathlib.Path(sys.argv[1])
for file in (file for file in artifact.rglob("*") if file.is_file()):
    obstore.put(bucket, f"sets/a b/{file.relative_to(artifact).as_posix()}", file.read_bytes())
"""  # in a process of its own: what reads a manifest forks, and nothing may have been asked of obstore before


@pytest.mark.slow
def test_s3_as_moto_serves_it(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Path):
    """moto asks for an older python-dateutil than other packages here, so it has an environment of its own."""
    moto = project / ".venv-moto" / "bin" / "moto_server"
    if not moto.exists():
        pytest.skip("no .venv-moto: make .venv-moto/bin/moto_server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serving = subprocess.Popen([moto, "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        endpoint = f"http://127.0.0.1:{port}"
        wait_for(lambda: _answers(port))
        request = urllib.request.Request(f"{endpoint}/bucket", method="PUT")
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).close()
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1", "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(remote, "PIECE", 300)
        monkeypatch.setattr(remote, "FIRST_WAIT", 0.001)
        subprocess.run([sys.executable, "-c", UPLOAD, artifact], check=True, timeout=60)
        reader, own = reader_of("s3://bucket/sets/a b"), local(artifact)
        assert all(np.array_equal(reader[row], own[row]) for row in range(ROWS))
        for nothing in ("s3://bucket/sets/c", "s3://nobody/sets"):
            with pytest.raises(DataError, match="there is no artifact at this URL"):
                remote.mirror(nothing)
    finally:
        serving.terminate()
        serving.wait()


def _answers(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0
