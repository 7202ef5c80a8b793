"""What a wheel carries: the code, the recipes and the packaged weights, and nothing that belongs to a checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from hmcli.recipe.reading import recipe_names


def test_the_wheel_carries_code_recipes_and_weights(project: Path, tmp_path: Path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    assert {f"hmcli/recipes/{name}.yaml" for name in recipe_names()} <= names
    weights = "hmcli/weights/mini"
    assert {f"{weights}/vae/config.json", f"{weights}/transformer/config.json", f"{weights}/manifest.json"} <= names
    assert {"hmcli/bench/hm-bench-1.json", "hmcli/bench/scores.schema.json"} <= names
    assert "hmcli/stages/latents/encode.py" in names
    assert not any(name.startswith(("tests", "docs")) for name in names)
