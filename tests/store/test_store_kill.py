"""kill -9 at any instant leaves a folder that the same command finishes, never a half artifact with a manifest."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from store.small_stages import LatentsStage, latents, write_clips

from hmcli.store.arrays import StackReader
from hmcli.store.artifact import ArtifactWriter, verify
from hmcli.store.manifest import is_artifact, read_manifest

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # the children die at once
CLIPS = {"a": 1.0, "b": 2.0, "c": 3.0}
CHANGED = {"c": 3.0, "b": 22.0}  # a dropped, b stale, c kept from its stacked row


def check(stage: LatentsStage, clips: dict[str, float]) -> None:
    manifest = read_manifest(stage.out)
    reader = StackReader(stage.out / manifest.arrays["3x4/latents"]["path"])
    assert list(manifest.items) == list(clips)
    for row, value in enumerate(clips.values()):
        assert np.array_equal(reader[row], latents(value))
    assert verify(stage.out, stage.reporter) == []
    assert sorted(p.name for p in stage.out.iterdir()) == ["data.zarr", "manifest.json"]


def run_and_die(stage: LatentsStage, clips: dict[str, float], instant: int) -> bool:
    """Run the stage in a forked child that dies without any clean-up at its `instant`-th step on disk.

    A step is anything that changes names: rename, unlink, mkdir, rmdir, open for writing. Returns whether it survived.
    """
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    steps = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal steps
        writes = event == "open" and bool(int(arguments[2]) & (os.O_WRONLY | os.O_RDWR))
        if writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
            steps += 1
            if steps == instant:
                os._exit(9)

    code = 1
    try:
        sys.addaudithook(count)
        stage.run(clips, prune=True)
        code = 0
    finally:
        os._exit(code)


EVERY = [pytest.param(9, id="every 9th"), pytest.param(1, id="every", marks=pytest.mark.slow)]


@pytest.mark.parametrize("stride", EVERY)
@pytest.mark.parametrize("before", [{}, CLIPS], ids=["new artifact", "complete artifact"])
def test_killed_at_any_step_and_run_again(tmp_path, before, stride):
    base = LatentsStage(tmp_path / "base" / "x")
    if before:
        base.run(before)
    instant, survived = 1, False
    while not survived:
        instant += stride
        stage = LatentsStage(tmp_path / str(instant) / "x")
        if before:
            shutil.copytree(base.out, stage.out)
        survived = run_and_die(stage, CHANGED, instant)
        if is_artifact(stage.out):  # complete already: either still the old one or entirely the new one
            manifest = read_manifest(stage.out)
            assert list(manifest.items) in (list(before), list(CHANGED))
            assert verify(stage.out, stage.reporter) == []
        stage.run(CHANGED, prune=True)
        check(stage, CHANGED)
        shutil.rmtree(stage.out.parent)
    assert instant > 50  # it was killed many times indeed


def test_a_process_killed_from_outside_is_resumed_where_it_was(tmp_path, start):
    code = """
    import time
    from pathlib import Path
    from store.small_stages import LatentsStage, latents
    import numpy as np
    with LatentsStage(Path(sys.argv[1])).writer() as writer:
        for clip, value in {"a": 1.0, "b": 2.0}.items():
            writer.put_arrays(clip, f"value {value}", {"latents": latents(value), "valid": np.array(True)})
        say("two are done")
        time.sleep(60)
    """
    stage = LatentsStage(tmp_path / "x")
    process = start(code, stage.out)
    assert process.stdout.readline() == "two are done\n"
    process.kill()
    process.wait()
    assert not is_artifact(stage.out)
    stage.run(CLIPS)
    assert stage.made == ["c"]
    assert "2 items kept" in stage.reporter.notes
    check(stage, CLIPS)


@pytest.mark.parametrize("instant", range(1, 60, 4))
def test_item_folders_survive_being_killed(tmp_path, instant, notes):
    class Folders(LatentsStage):
        def run(self, clips, **options):
            return write_clips(self.out, self.reporter, clips, prune=True)

    stage = Folders(tmp_path / "d")
    stage.run({"x": "one", "y": "two", "z": "three"})
    run_and_die(stage, {"y": "TWO", "z": "three"}, instant)
    with ArtifactWriter(stage.out, "dataset", recipe={}, inputs={}, seed=0, reporter=notes) as writer:
        text = (stage.out / "clips" / "y" / "caption.txt").read_text()  # the old one, or its successor, whole
        assert (writer.items["y"]["key"], text) in [("two", "two"), ("TWO", "TWO")]
        assert writer.kept("y", text)
    stage.run({"y": "TWO", "z": "three"})
    found = {str(f.relative_to(stage.out)): f.read_text() for f in Path(stage.out / "clips").rglob("*.txt")}
    assert found == {"clips/y/caption.txt": "TWO", "clips/z/caption.txt": "three"}
    assert verify(stage.out, notes) == []
    assert not (stage.out / "quarantine").exists()
