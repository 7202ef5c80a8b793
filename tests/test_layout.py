"""The house's rules: imports point one way, importing is cheap, rooms never call each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOMS = ("core", "world", "store", "codecs", "metrics", "reports")
SHARED = {"errors", "contracts", "registry", "recipe", "aligned"}
FILES = sorted((Path(__file__).parents[1] / "hmcli").rglob("*.py"))


def _imports(path: Path) -> set[str]:
    """Dotted hmcli modules a file imports, wherever in the file, each at least two parts deep."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hmcli"):
            names = [node.module] if node.module != "hmcli" else [f"hmcli.{alias.name}" for alias in node.names]
            found.update(names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.startswith("hmcli."))
    return {name.split(".")[1] for name in found}


def _room(path: Path) -> str:
    return path.relative_to(Path(__file__).parents[1] / "hmcli").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(p.parents[2])))
def test_imports_point_one_way(path: Path):
    room = _room(path)
    if room in ROOMS:
        assert _imports(path) <= {room, *SHARED}, f"a room may import itself and {SHARED}"
    elif room in SHARED:
        assert _imports(path) <= SHARED
    elif room == "runtime":
        assert _imports(path) <= {"errors", "contracts"}


@pytest.mark.parametrize("path", [p for p in FILES if _room(p) == "world"], ids=lambda p: p.name)
def test_in_the_world_only_the_renderer_knows_torch(path: Path):
    if "render" in path.parts[-2:][0]:
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not any(name.split(".")[0] == "torch" for name in names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(p.parents[2])))
def test_arrays_and_files_become_tensors_in_one_place(path: Path):
    """Elsewhere they would share the memory of an array or a mapped file, at whatever address that has."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    names |= {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert "from_numpy" not in names, "hmcli.aligned.tensor_of copies"
    if path.name not in ("weights.py", "wan_files.py"):
        assert "load_file" not in names, "hmcli.store.weights.load_state_dict copies"


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.rglob("*.py")), ids=lambda p: p.name)
def test_no_test_measures_time(path: Path):
    """It would fail on a busy machine; benchmarks/ measures. Waiting with a deadline is fine."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    names |= {alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
    assert not names & {"perf_counter", "perf_counter_ns", "process_time", "thread_time", "timeit"}


def test_the_command_line_loads_no_heavy_library():
    heavy = ("torch", "diffusers", "zarr", "numpy", "rich")
    script = f"import sys, hmcli.cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
