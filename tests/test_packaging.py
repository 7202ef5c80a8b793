"""What a wheel carries and with which releases and systems the project says it works."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from hmcli.recipe.reading import recipe_names
from hmcli.stages.models.folders import PACKAGED
from hmcli.store.hashing import hash_file
from hmcli.store.manifest import read_manifest

HERE = {  # the system that constraints were resolved for
    "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix",
    "python_version": "3.11", "python_full_version": "3.11.9",
}  # fmt: skip


@pytest.fixture(scope="module")
def dist(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sdist and the wheel."""
    made = tmp_path_factory.mktemp("dist")
    _build(project, made, "sdist", "wheel")
    return made


def test_the_wheel_carries_code_recipes_and_weights(dist: Path):
    names = set(zipfile.ZipFile(next(dist.glob("*.whl"))).namelist())
    assert {f"hmcli/recipes/{name}.yaml" for name in recipe_names()} <= names
    weights = "hmcli/weights/mini"
    assert {f"{weights}/vae/config.json", f"{weights}/transformer/config.json", f"{weights}/manifest.json"} <= names
    assert {f"hmcli/weights/segmenter/{name}" for name in ("segmenter.safetensors", "README.md")} <= names
    assert {"hmcli/bench/hm-bench-1.json", "hmcli/bench/hm-bench-2.json", "hmcli/bench/scores.schema.json"} <= names
    assert {"hmcli/stages/latents/encode.py", "hmcli/stages/playing/page.html"} <= names
    assert "hmcli/stages/playing/engine.js" in names
    assert not any(name.startswith(("tests", "docs")) for name in names)


def test_a_wheel_made_of_the_sdist_is_the_wheel_and_runs_where_no_checkout_is(dist: Path, tmp_path: Path):
    """What a release is: the sdist is unpacked, built without the checkout, installed apart, and draws a clip."""
    with tarfile.open(next(dist.glob("*.tar.gz"))) as packed:
        packed.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("hmcli-*")
    _build(source, tmp_path, "wheel")
    (again,) = tmp_path.glob("*.whl")
    assert _members(again) == _members(dist / again.name)
    site = tmp_path / "site"
    install = ("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--target", str(site))
    _python(*install, str(again), cwd=tmp_path)
    here = {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    ran = _python("-c", "import hmcli; print(hmcli.__file__)", cwd=tmp_path, **here)
    assert Path(ran.strip()).is_relative_to(site)
    hm = str(site / "bin" / "hm")
    assert "mini/demo" in _python(hm, "recipes", "ls", cwd=tmp_path, **here)
    clips = _python(hm, "render", "mini/demo", "--clips", "1", "--out", "clips", cwd=tmp_path, **here).strip()
    assert list(Path(tmp_path, clips).glob("*/tgt.mp4"))


def _build(source: Path, out: Path, *kinds: str) -> None:
    for kind in kinds:
        _python("-m", "hatchling", "build", "-t", kind, "-d", str(out), cwd=source)


def _python(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=cwd, env=os.environ | environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def _members(wheel: Path) -> dict[str, int]:
    """name -> checksum, but for the list of files, which names itself."""
    return {info.filename: info.CRC for info in zipfile.ZipFile(wheel).infolist()}


def test_every_lower_bound_is_a_release_that_is_tested(project: Path):
    """torch alone is tested above its bound, and brings its triton (CONTRIBUTING.md, "Versions")."""
    tested, bound = _pins(project, "constraints-lowest.txt"), _bounds(project)
    assert {name for name in bound if tested.get(name) != _version(bound[name], ">=")} == {"torch", "triton"}
    assert tested["torch"] > _version(bound["torch"], ">=")


@pytest.mark.parametrize(
    ("files", "left_out"),
    [
        (["constraints.txt"], {"triton", "trackio"}),  # of CUDA's builds; beside an older pillow alone
        (["constraints.txt", "constraints-cuda.txt"], {"trackio"}),
        (["constraints-lowest.txt"], {"triton"}),
    ],
)
def test_constraints_pin_every_dependency_at_a_release_that_is_admitted(
    project: Path, files: list[str], left_out: set[str]
):
    pins, bounds = _pins(project, *files), _bounds(project)
    assert bounds.keys() - pins.keys() == left_out
    assert {name for name in bounds.keys() & pins.keys() if not bounds[name].contains(pins[name])} == set()


def test_constraints_pin_what_dependencies_need_in_turn(project: Path):
    """As the packages that are installed here say it, where they are those of constraints.txt."""
    pins, open_ended, seen = _pins(project, "constraints.txt"), list[str](), set[tuple[str, str]]()
    if _installed("diffusers") != pins["diffusers"]:
        pytest.skip("another set of releases is installed")
    waiting = [(requirement, "hmcli", "") for requirement in _direct(project)]
    while waiting:
        needed, by, extra = waiting.pop()
        name = canonicalize_name(needed.name)
        if needed.marker is not None and not needed.marker.evaluate(HERE | {"extra": extra}):
            continue
        if name not in pins or not needed.specifier.contains(pins[name], prereleases=True):
            open_ended.append(f"{needed} of {by}")
        for wanted in {"", *needed.extras}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                needs = importlib.metadata.requires(name) if _installed(name) is not None else None
                waiting += [(Requirement(line), name, wanted) for line in needs or []]
    assert len(seen) > 50
    # Triton is of torch's CUDA builds, pinned with them; trackio is no part of the set.
    assert {line.split()[-1] for line in open_ended} <= {"hmcli"}, open_ended
    assert {re.split(r"\W", line)[0] for line in open_ended} == {"triton", "trackio"}


def test_what_a_cuda_build_brings_is_pinned_apart(project: Path):
    cuda, rest = _pins(project, "constraints-cuda.txt"), _pins(project, "constraints.txt")
    assert cuda.keys() & rest.keys() == set()
    assert {name for name in cuda if not name.startswith(("cuda-", "nvidia-"))} == {"triton"}
    assert {"cuda-toolkit", "nvidia-cudnn-cu13", "nvidia-nccl-cu13"} <= cuda.keys()


def test_constraints_name_no_place_to_install_from(project: Path):
    """A lock that names an index or a folder would install from there on every machine."""
    for file in project.glob("constraints*.txt"):
        assert _pins(project, file.name), "lines are requirements, not options of an installer"
        assert not re.search(r"://|(^|[\s='\"(])~?/\w", file.read_text(), re.MULTILINE), file.name


@pytest.mark.parametrize("name", ["mini", "nano"])
def test_packaged_weights_are_the_files_of_their_manifest(name: str):
    folder = PACKAGED.with_name(name)
    files = read_manifest(folder).files
    assert {"transformer/config.json", "vae/config.json"} <= files.keys()
    assert {file: hash_file(folder / file) for file in files} == {file: entry["hash"] for file, entry in files.items()}


def _direct(project: Path) -> list[Requirement]:
    table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    extras = [line for extra in table["optional-dependencies"].values() for line in extra]
    return [Requirement(line) for line in table["dependencies"] + extras]


def _bounds(project: Path) -> dict[str, SpecifierSet]:
    return {canonicalize_name(requirement.name): requirement.specifier for requirement in _direct(project)}


def _pins(project: Path, *files: str) -> dict[str, Version]:
    lines = [line for file in files for line in (project / file).read_text().splitlines() if line[0] != "#"]
    pins = [pin for pin in map(Requirement, lines) if pin.marker is None or pin.marker.evaluate(HERE)]
    assert len({canonicalize_name(pin.name) for pin in pins}) == len(pins), "each once"
    return {canonicalize_name(pin.name): _version(pin.specifier, "==") for pin in pins}


def _installed(name: str) -> Version | None:
    try:
        return Version(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return None


def _version(specifier: SpecifierSet, operator: str) -> Version:
    (only,) = specifier
    assert only.operator == operator
    return Version(only.version)


def test_the_public_workflow_tests_the_pythons_we_name_with_commands_that_exist(project: Path):
    workflow = yaml.safe_load((project / ".github/workflows/ci.yml").read_text())
    named = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    pythons = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: "
    assert [prefix + python for python in pythons] == [line for line in named["classifiers"] if prefix in line]
    assert named["requires-python"] == f">={pythons[0]}"
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    made = [command.split() for command in commands if command.startswith("make ")]
    assert {"lint", "test-unlinted", "test-lowest"} == {words[1] for words in made}
    for words in made:
        subprocess.run([words[0], "--dry-run", *words[1:]], cwd=project, check=True, capture_output=True)
