"""The files of a complete artifact, as a reader sees them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from hmcli.errors import DataError, NotFiniteError
from hmcli.store import listed as listed_module
from hmcli.store.arrays import ROOT, StackReader, write_stack
from hmcli.store.finite import require_finite
from hmcli.store.hashing import hash_file, hash_tree
from hmcli.store.listed import listed
from hmcli.store.manifest import make_manifest, write_manifest


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path):
    with pytest.raises(DataError, match="the artifact has no manifest") as error:
        listed(tmp_path)
    assert error.value.where["artifact"] == tmp_path.resolve()


def small(tmp_path: Path) -> Path:
    root = tmp_path / "small.latents"
    rows = [np.full((2, 3), number, np.float16) for number in range(5)]
    write_stack(
        root / ROOT, "", "rows", rows, count=5, shape=(2, 3), dtype="float16", axes=["clip", "y", "x"], units="one"
    )
    write_manifest(root, make_manifest("latents", recipe={}, inputs={}, seed=0, files=hash_tree(root)))
    return root


def test_of_threads_that_want_one_file_one_hashes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As those do that prepare batches ahead, whose clips lie in one shard."""
    hashed, at_once = list[str](), threading.Barrier(4)

    def slowly(file: Path) -> str:
        hashed.append(file.name)
        threading.Event().wait(0.2)  # time for the others to come
        return hash_file(file)

    reader = StackReader(small(tmp_path) / ROOT / "rows")
    _ = reader.array
    monkeypatch.setattr(listed_module, "hash_file", slowly)

    def read(row: int) -> float:
        at_once.wait()
        return float(reader[row][0, 0])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(4))) == [0, 1, 2, 3]
    assert hashed == ["0"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_process_that_was_forked_while_a_file_was_hashed_waits_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root, begun, goes_on = small(tmp_path), threading.Event(), threading.Event()
    name = next(name for name in listed(root).below(ROOT) if name.endswith("c/0/0/0"))

    def stuck(file: Path) -> str:
        begun.set()
        goes_on.wait()
        return hash_file(file)

    monkeypatch.setattr(listed_module, "hash_file", stuck)
    thread = threading.Thread(target=listed(root).check, args=(name,))
    thread.start()
    begun.wait()
    monkeypatch.setattr(listed_module, "hash_file", hash_file)
    child = get_context("fork").Process(target=listed(root).check, args=(name,), daemon=True)
    child.start()
    child.join(30)
    found = child.exitcode
    if found is None:
        child.kill()
    goes_on.set()
    thread.join()
    assert found == 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_of_finite_numbers_the_largest_pass_and_others_do_not(dtype: str, wrong: float):
    limits = np.finfo(dtype)
    values = np.array([[limits.max, limits.min], [limits.smallest_subnormal, -0.0]], dtype)
    require_finite({"values": values, "part": values[:, 1]}, where={})
    values[1, 0] = wrong
    with pytest.raises(NotFiniteError, match="values: 1 of 4 numbers are not finite"):
        require_finite({"values": values}, where={})
    with pytest.raises(NotFiniteError, match="values: 1 of 2"):
        require_finite({"values": values[:, 0]}, where={})
    if np.isnan(wrong):
        require_finite({"values": values}, where={}, undefined={"values"})
