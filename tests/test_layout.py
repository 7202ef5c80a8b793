"""The house's rules: imports point one way, importing is cheap, rooms never call each other."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOMS = ("core", "world", "store", "codecs", "metrics", "reports")
SHARED = {"errors", "contracts", "registry", "recipe", "aligned", "tensors", "hub"}
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
    if path.parent.name != "tensors":
        assert "load_file" not in names, "hmcli.store.weights.load_state_dict copies"


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.rglob("*.py")), ids=lambda p: p.name)
def test_no_test_measures_time(path: Path):
    """It would fail on a busy machine; benchmarks/ measures. Waiting with a deadline is fine."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    names |= {alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
    assert not names & {"perf_counter", "perf_counter_ns", "process_time", "thread_time", "timeit"}


_KIND_AT = {"ArtifactWriter": 1, "planned": 1, "make_manifest": 0}  # which argument names the kind of an artifact


@pytest.mark.parametrize("path", [p for p in FILES if _room(p) in ("stages", "weights")], ids=lambda p: str(p.name))
def test_what_an_artifact_is_and_says_stands_in_its_layout_alone(path: Path):
    """Its kind has a name there and its attributes are a dataclass: it spells out nothing of them."""
    for call in (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)):
        name = getattr(call.func, "id", getattr(call.func, "attr", ""))
        said = {word.arg: word.value for word in call.keywords}
        kinds = [call.args[_KIND_AT[name]]] if name in _KIND_AT else list(getattr(said.get("kinds"), "elts", ()))
        assert not any(isinstance(kind, ast.Constant) for kind in kinds), f"line {call.lineno} spells a kind out"
        if name in ("finish", "make_manifest") and isinstance(of := said.get("attributes"), ast.Dict):
            assert not of.keys, f"line {call.lineno} spells attributes out"


def test_the_command_line_loads_no_heavy_library():
    heavy = ("torch", "diffusers", "zarr", "numpy", "rich", "ray", "huggingface_hub")
    script = f"import sys, hmcli.cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _arrows(inside: str | None) -> set[tuple[str, str]]:
    """Which room imports from which: at the top of hmcli, or inside one of its rooms."""
    top = Path(__file__).parents[1]
    known = {".".join(path.relative_to(top).with_suffix("").parts) for path in FILES}

    def room(module: str) -> str | None:
        parts = module.split(".")[1:]
        if inside is None:
            return parts[0] if len(parts) > 1 else None
        return parts[1] if parts[0] == inside and len(parts) > 2 else None

    found = set()
    for path in FILES:
        here = room(".".join(path.relative_to(top).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != "hmcli":
                continue
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                there = room(full if full in known else node.module if node.module in known else f"{node.module}._")
                if here and there and here != there:
                    found.add((here, there))
    return found


@pytest.mark.parametrize("inside", [None, "stages", "world"])
def test_rooms_form_no_circle(inside: str | None):
    below: dict[str, set[str]] = {}
    for room, other in _arrows(inside):
        below.setdefault(room, set()).add(other)
    graphlib.TopologicalSorter(below).prepare()  # raises CycleError, naming the circle


@pytest.mark.parametrize("inside", [None, "stages", "world"])
def test_the_pictures_of_the_architecture_page_show_every_arrow_and_no_other(project: Path, inside: str | None):
    page = (project / "docs" / "architecture.md").read_text(encoding="utf-8")
    name = f"%% hmcli{'.' + inside if inside else ''}\n"
    picture = page.split(name)[1].split("```")[0]
    shown = {tuple(line.split(" --> ")) for line in map(str.strip, picture.splitlines()) if " --> " in line}
    assert shown == _arrows(inside)
