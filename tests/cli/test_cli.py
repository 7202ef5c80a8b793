"""The command line's contract: streams, exit codes, stdin, names. The stages themselves are tested in tests/stages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hmcli.cli.main import app
from hmcli.cli.shared import find_input, made_with, named
from hmcli.recipe.reading import load_recipe, recipe_names, to_dict
from hmcli.runtime import Silent
from hmcli.store.artifact import ArtifactWriter

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
    """typer finds the shell by looking at the parent process, so there has to be one."""
    done = subprocess.run(
        ["bash", "-c", f"{HM} --show-completion; exit $?"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "_HM_COMPLETE" in done.stdout


@pytest.mark.parametrize("debug", [[], ["--debug"]])
@pytest.mark.parametrize(
    ("ends", "code", "says"),
    [
        ("raise DataError('bad clip')", 3, "error: bad clip"),
        ("raise KeyboardInterrupt", 130, "interrupted: run the same command again"),
        ("raise ValueError('odd')", 1, "error: ValueError: odd"),
        ("signal.raise_signal(signal.SIGTERM)", 75, "stopped by SIGTERM\n  fix  run the same command again"),
    ],
)
def test_debug_adds_a_traceback_and_keeps_the_exit_code(ends: str, code: int, says: str, debug: list[str]):
    script = f"""
import signal, sys
from hmcli.cli.main import app, main
from hmcli.cli.shared import command
from hmcli.errors import DataError
@command(app, "ends")
def ends():
    try:
        {ends}
    except RuntimeError:
        pass
sys.argv = ["hm", "ends", *{debug!r}]
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert ("Traceback" in done.stderr) == bool(debug)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads signal masks from /proc")
def test_sigterm_while_a_command_waits_ends_with_75():
    with subprocess.Popen([HM, "encode", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        deadline = time.monotonic() + 60
        while not _catches_sigterm(waiting.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        waiting.terminate()
        _, said = waiting.communicate(timeout=60)
    assert waiting.returncode == 75
    assert "stopped by SIGTERM" in said
    assert "Traceback" not in said


def _catches_sigterm(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def test_dashes_and_underscores_are_alike_in_commands_and_options(tmp_path: Path):
    assert call("tokenize_memory", "--help").stdout == call("tokenize-memory", "--help").stdout != ""
    done = call("tokenize_memory", "--dry_run", cwd=tmp_path)
    assert (done.returncode, "latents" in done.stderr) == (2, True)
    assert "No such" not in done.stderr


def test_help_says_each_command_in_one_whole_line():
    for asked in (["--help"], ["recipes", "--help"], ["dataset", "--help"], ["bench", "--help"]):
        shown = CliRunner().invoke(app, asked, terminal_width=80).stdout
        rows = shown.partition("Commands:\n")[2].splitlines()
        assert len(rows) >= 3
        assert all(row.endswith(".") and not row.endswith("...") and len(row) <= 80 for row in rows)


@pytest.mark.parametrize(
    "asked",
    [["tokenize-memory", "x", "--model"], ["generate", "x", "--model"], ["eval", "x", "--reference"],
     ["generate", "x", "--model", "mini", "--memory"]],
)  # fmt: skip
def test_every_path_input_may_come_from_stdin(asked: list[str]):
    done = CliRunner().invoke(app, [*asked, "-"], input="one\ntwo\n")
    assert done.exit_code == 2
    assert "expected one path on stdin, got 2 lines" in done.stderr


def test_stdin_holds_one_input_and_no_output():
    twice = CliRunner().invoke(app, ["generate", "-", "--model", "-"], input="x\n")
    assert (twice.exit_code, "only one input" in twice.stderr) == (2, True)
    out = CliRunner().invoke(app, ["encode", "x", "--out", "-"])
    assert (out.exit_code, "--out cannot be -" in out.stderr) == (2, True)


@pytest.mark.parametrize(
    ("source", "model", "name"),
    [
        ("a/x.latents", None, "x.memory"), ("a/x.latents", "b/big.run", "x-big.memory"),
        ("clips", "mini", "clips-mini.memory"), ("clips.v1", None, "clips.v1.memory"),
        ("clips.v1.dataset", None, "clips.v1.memory"), ("mini/demo", None, "demo.memory"),
        ("../x.yaml", None, "x.memory"),
    ],
)  # fmt: skip
def test_left_out_outputs_have_names_of_their_own(source: str, model: str | None, name: str):
    assert named(None, source, "memory", None if model is None else Path(model)) == Path(name)


def test_a_recipe_cannot_be_copied_into_a_folder_that_is_not_there(tmp_path: Path):
    done = CliRunner().invoke(app, ["recipes", "cp", "mini/demo", str(tmp_path / "nodir" / "x.yaml")])
    assert done.exit_code == 2
    assert "nodir/x.yaml cannot be written: No such file or directory" in done.stderr


def test_an_unknown_codec_is_wrong_usage_also_in_a_dry_run():
    done = CliRunner().invoke(app, ["encode", "x", "--set", "codec.name=nosuch", "--dry-run"])
    assert done.exit_code == 2
    assert "codec.name: unknown codec 'nosuch', known: blocks, mini, wan2.1" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_result_stdout_does_not_take_is_named_on_stderr(tmp_path: Path):
    for asked, what in (
        (["recipes", "cp", "mini/demo", "r.yaml"], f"recipe {tmp_path / 'r.yaml'}"),
        (["recipes", "ls"], "the description"), (["--help"], "the help"), (["--version"], "the help"),
    ):  # fmt: skip
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [HM, *asked], stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False
            )
        assert done.returncode == 1
        assert done.stderr == f"error: stdout takes nothing (No space left on device); not printed: {what}\n"


def test_a_reader_that_went_away_is_no_failure():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([HM, "recipes", "ls"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_left_out_latents_are_the_newest_that_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, codec in (("older", "mini"), ("newer", "wan2.1")):
        recipe = {"codec": {"name": codec}, "text": {"name": "mini"}}
        with ArtifactWriter(tmp_path / name, "latents", recipe=recipe, inputs={}, seed=0, reporter=Silent()) as writer:
            writer.finish([])
    monkeypatch.chdir(tmp_path)
    wanted = to_dict(load_recipe())
    assert find_input(None, "latents").name == "newer"
    assert find_input(None, "latents", accept=made_with(wanted, "codec", "text")).name == "older"
    assert find_input(None, "latents", accept=made_with({}, "codec")).name == "newer"
