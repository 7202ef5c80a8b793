"""The loader's benchmark reads what it wrote, and says how long steps wait."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hmcli.errors import DataError
from hmcli.store.arrays import StackReader


@pytest.fixture(scope="module")
def loader(project: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_loader", project / "benchmarks" / "loader.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rows_are_latents_as_they_are_stored(loader: ModuleType, tmp_path: Path):
    reader = StackReader(loader.write(tmp_path, "large", (2, 3, 4), 5))
    assert (reader.shape, reader[4].dtype) == ((5, 2, 3, 4), np.float16)
    assert 0.5 < np.std(reader[0].astype(np.float32)) < 1.5


def test_it_says_throughput_waiting_and_growth(loader: ModuleType, tmp_path: Path):
    asked = ["--place", str(tmp_path), "--clips", "4", "--rows", "40", "--shape", "2x3x4", "--seconds", "0.01"]
    found = loader.main(asked)
    assert set(found["waiting"]) == {"0.05", "0.2", "1.0"}
    assert all(0 <= share < 1 for share in found["waiting"].values())
    assert found["share_of_raw"] > 0
    assert found["mb"] == 4 * 24 * 2 / 1e6
    assert found["memory"]["rows"] == 40
    assert list(tmp_path.iterdir()) == []


def test_what_it_reads_is_held_against_a_manifest(loader: ModuleType, tmp_path: Path):
    path = loader.write(tmp_path, "large", (2, 3, 4), 5, "none", 4)
    assert not (loader.anew(path)[1].view(np.uint16) & 0x3F).any(), "six bits of ten are rounded away"
    shard = path / "c/0/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="not as it was written"):
        _ = loader.anew(path)[1]
