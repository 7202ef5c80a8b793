"""The command line's contract: streams, exit codes, stdin, names. The stages themselves are tested in tests/stages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hmcli.cli import app
from hmcli.recipe import load_recipe, recipe_names

HM = Path(sys.executable).with_name("hm")


def call(*args: str, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The installed command, cold."""
    return subprocess.run([HM, *args], input=stdin, capture_output=True, text=True, cwd=cwd, check=False)


def test_help_lists_the_stages_and_version_prints():
    shown = call("--help")
    assert shown.returncode == 0
    for stage in ("render", "encode", "tokenize-memory", "train", "generate", "eval", "inspect", "recipes", "demo"):
        assert f"\n  {stage} " in shown.stdout
    assert call("--version").stdout.startswith("hm 0.")


def test_wrong_usage_ends_with_2():
    assert call("encode", "--nonsense").returncode == 2
    assert call("train").returncode == 2


def test_an_unknown_recipe_key_ends_with_2_and_names_the_right_one():
    done = call("encode", "data/", "--set", "tran.steps=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean train?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stage", ["encode", "tokenize-memory", "eval", "inspect", "generate"])
def test_an_empty_stdin_is_an_error(stage: str):
    done = CliRunner().invoke(app, [stage, "-"], input="")
    assert done.exit_code == 2
    assert "expected one path on stdin, got nothing" in done.stderr
    assert done.stdout == ""


def test_a_left_out_input_with_nothing_there_says_so(tmp_path: Path):
    done = call("tokenize-memory", cwd=tmp_path)
    assert done.returncode == 2
    assert "latents" in done.stderr


def test_recipes_are_listed_shown_and_copied(tmp_path: Path):
    assert call("recipes", "ls").stdout.split() == recipe_names()
    assert "format: 1" in call("recipes", "show", "mini/hydra").stdout
    copied = call("recipes", "cp", "mini/hydra", cwd=tmp_path)
    assert copied.stdout.strip() == str(tmp_path / "hydra.yaml")
    assert load_recipe(tmp_path / "hydra.yaml") == load_recipe("mini/hydra")
    again = call("recipes", "cp", "mini/hydra", cwd=tmp_path)
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_recipes_show_resolved_prints_what_the_stages_see(tmp_path: Path):
    shown = call("recipes", "show", "mini/hydra", "--set", "seed=11")
    (tmp_path / "r.yaml").write_text(shown.stdout)
    assert load_recipe(tmp_path / "r.yaml").seed == 11


def test_json_holds_the_result(tmp_path: Path):
    done = CliRunner().invoke(app, ["recipes", "cp", "mini/hydra", str(tmp_path / "r.yaml"), "--json"])
    assert done.exit_code == 0
    result = json.loads(done.stdout)
    assert (result["kind"], result["path"], result["exit_code"]) == ("recipe", str(tmp_path / "r.yaml"), 0)


def test_completion_can_be_shown():
    done = subprocess.run(
        [HM, "--show-completion", "bash"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SHELL": "/bin/bash"},
    )
    assert "_HM_COMPLETE" in done.stdout + done.stderr
