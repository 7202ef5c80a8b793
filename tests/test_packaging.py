"""What a wheel carries and with which releases and systems the project says it works."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from hmcli.recipe.reading import recipe_names


def test_the_wheel_carries_code_recipes_and_weights(project: Path, tmp_path: Path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    assert {f"hmcli/recipes/{name}.yaml" for name in recipe_names()} <= names
    weights = "hmcli/weights/mini"
    assert {f"{weights}/vae/config.json", f"{weights}/transformer/config.json", f"{weights}/manifest.json"} <= names
    assert {f"hmcli/weights/segmenter/{name}" for name in ("segmenter.safetensors", "README.md")} <= names
    assert {"hmcli/bench/hm-bench-1.json", "hmcli/bench/scores.schema.json"} <= names
    assert "hmcli/stages/latents/encode.py" in names
    assert not any(name.startswith(("tests", "docs")) for name in names)


def test_every_lower_bound_is_a_release_that_is_tested(project: Path):
    """torch alone is tested above its bound (CONTRIBUTING.md, "Versions")."""
    table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    extras = [line for extra in table["optional-dependencies"].values() for line in extra]
    direct = [Requirement(line) for line in table["dependencies"] + extras]
    lines = [line for line in (project / "constraints-lowest.txt").read_text().splitlines() if line[0] != "#"]
    tested = {canonicalize_name(pin.name): pin.specifier for pin in map(Requirement, lines)}
    bound = {canonicalize_name(requirement.name): requirement.specifier for requirement in direct}
    assert {name for name in bound if _version(tested[name], "==") != _version(bound[name], ">=")} == {"torch"}
    assert _version(tested["torch"], "==") > _version(bound["torch"], ">=")


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
