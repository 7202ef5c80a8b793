"""`hm export` and `hm generate --exported`: what is refused before anything is written, and (slow) whole videos."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from warm import WarmCommand, ok

from hmcli.errors import DataError, HMError, MissingPartError
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.exporting import export
from hmcli.stages.exporting.layout import KIND, ExportAttributes, Shape
from hmcli.stages.exporting.running import RUNS, WRITES
from hmcli.stages.latents.pixels import decode_video
from hmcli.stages.models.folders import find_model
from hmcli.stages.models.identity import codec_hash, codec_of
from hmcli.stages.sampling.job import Job, open_job
from hmcli.stages.sampling.job import generate_latents as sampled
from hmcli.stages.shared.typed import to_json
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.manifest import read_manifest

MISSING = [name for name in WRITES if importlib.util.find_spec(name) is None]
needs_them = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)} (hmcli[onnx])")
SHAPE = Shape(context=6, target=6, size=(4, 6), text=(12, 64))


def hollow(place: Path, model: Path, *, shape: Shape = SHAPE, graph: bytes = b"nothing", of: str = "") -> Path:
    """An artifact as an export leaves it, whose graphs are these bytes."""
    folder = find_model(model)
    inputs = {"model": of or folder.fingerprint, "codec": codec_hash(codec_of(folder, ""))}
    about = ExportAttributes(shape=shape, opset=18, versions={}, step_apart=0.0, decoder_apart=0.0)
    with ArtifactWriter(place, KIND, recipe={}, inputs=inputs, seed=0, reporter=Silent()) as writer:
        for name in ("step.onnx", "decoder.onnx"):
            (writer.staged / name).write_bytes(graph)
        writer.finish([], attributes=to_json(about))
    return place


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--set", "sample.chunk=9"], 2, "chunk=9"),
        (["--set", "sample.dtype=bfloat16"], 2, "set sample.dtype=float32"),
        (
            ["--set", "sample.branches=together", "--set", "sample.memory=off"],
            2,
            "set sample.memory=on, sample.branches",
        ),
    ],
)
@needs_them
def test_what_graphs_cannot_do_is_refused_by_its_key(
    hm: WarmCommand, run: Path, latents: Path, tmp_path: Path, words: list[str], code: int, said: str
):
    done = hm("generate", latents, "--model", run, "--exported", tmp_path, "--out", tmp_path / "gen", *words)
    assert done.returncode == code
    assert said in done.stderr
    assert not (tmp_path / "gen").exists()


@needs_them
def test_a_folder_that_is_no_export_of_this_model_for_these_clips_is_refused(
    hm: WarmCommand, run: Path, latents: Path, tmp_path: Path
):
    def said(exported: Path) -> tuple[int, str]:
        done = hm("generate", latents, "--model", run, "--exported", exported, "--out", tmp_path / "gen")
        return done.returncode, done.stderr

    def has(found: tuple[int, str], code: int, words: str) -> bool:
        return found[0] == code and words in found[1]

    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "step.onnx").write_bytes(b"theirs")
    assert has(said(tmp_path / "foreign"), 3, "the folder is no artifact of hm")
    assert has(said(latents), 3, "of kind 'latents', needed is 'onnx'")
    assert has(said(hollow(tmp_path / "other", run, of="sha256:00")), 3, "an export of another model")
    other = hollow(tmp_path / "longer", run, shape=Shape(context=6, target=5, size=(4, 6), text=(12, 64)))
    assert has(said(other), 2, "exported for clips of another shape")
    assert has(said(hollow(tmp_path / "damaged", run)), 3, "onnxruntime cannot open the graph")
    half = hollow(tmp_path / "half", run, graph=b"0123456789")
    (half / "step.onnx").write_bytes(b"01234")
    assert has(said(half), 3, "a file is not as it was written")
    (half / "step.onnx").unlink()
    assert has(said(half), 3, "a file is missing")


def test_without_the_packages_the_extra_is_named(
    run: Path, latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in WRITES else find(name, *rest))
    with pytest.raises(MissingPartError, match="need onnx, onnxscript, onnxruntime, which are not") as refused:
        export.run(run, latents=latents, clips=(), out=tmp_path / "graphs", force=False, reporter=Silent())
    assert refused.value.fix == "pip install 'hmcli[onnx]'"
    with pytest.raises(MissingPartError, match=f"need {RUNS[0]}, which is not installed"):
        opened(run, latents, tmp_path)


@needs_them
def test_a_policy_that_reads_what_a_graph_is_not_given_is_refused(
    hm: WarmCommand, run: Path, latents: Path, tmp_path: Path
):
    other = tmp_path / "fov"
    ok(hm("convert", run, "--out", other, "--set", "model.memory.policy=fov"))
    done = hm("export", other, "--to", "onnx", "--latents", latents, "--out", tmp_path / "graphs")
    assert done.returncode == 2
    assert "policy fov reads far, image_size, intrinsics_B4, near of a clip" in done.stderr
    assert not (tmp_path / "graphs").exists()


@needs_them
def test_a_dry_run_says_for_which_clips(hm: WarmCommand, run: Path, latents: Path, tmp_path: Path):
    done = hm("export", run, "--to", "onnx", "--latents", latents, "--out", tmp_path / "graphs", "--dry-run")
    assert done.returncode == 0
    assert "6 + 6 latent frames (context + target) of 4 x 6, 12 rows of text" in done.stderr
    assert not (tmp_path / "graphs").exists()


@pytest.fixture(scope="module")
def graphs(hm: WarmCommand, run: Path, joint_run: Path, latents: Path, place: Path) -> Callable[[Path], Path]:
    """The exported folder of either run, made once."""

    def of(model: Path) -> Path:
        out = place / f"{model.name}.onnx"
        return out if out.exists() else ok(hm("export", model, "--to", "onnx", "--latents", latents, "--out", out))

    return of


def opened(model: Path, latents: Path, exported: Path | None = None, *changes: str) -> Job:
    recipe = load_recipe(None, list(changes), dict(find_model(model).manifest.recipe))
    return open_job(recipe, find_model(model), latents, [], None, (), "cpu", Silent(), exported)[0]


@needs_them
@pytest.mark.slow
@pytest.mark.parametrize("name", ["run", "joint_run"])
def test_whole_videos_are_those_of_torch(
    request: pytest.FixtureRequest, graphs: Callable[[Path], Path], latents: Path, name: str
):
    model = request.getfixturevalue(name)
    torch_job, graph_job = opened(model, latents), opened(model, latents, graphs(model))
    for clip in torch_job.view.ids():
        wanted, found = (sampled(job, job.view.clip(clip)) for job in (torch_job, graph_job))
        assert np.abs(found - wanted).max() < 1e-4
        pictures = [decode_video(found, job.codec, "cpu").astype(int) for job in (torch_job, graph_job)]
        assert np.abs(pictures[0] - pictures[1]).max() <= 1  # a level of 255, where a value lies between two
        assert (pictures[0] != pictures[1]).mean() < 1e-3


@needs_them
@pytest.mark.slow
def test_videos_of_graphs_are_kept_apart_from_those_of_torch(
    hm: WarmCommand, graphs: Callable[[Path], Path], run: Path, latents: Path, generation: Path, tmp_path: Path
):
    exported = graphs(run)
    about: Any = read_manifest(exported).attributes
    assert about["step_apart"] <= 1e-4
    assert about["decoder_apart"] <= 1e-4
    assert about["shape"] == {"context": 6, "target": 6, "size": [4, 6], "text": [12, 64]}
    assert str(Path(export.__file__).parents[1]).encode() not in (exported / "step.onnx").read_bytes()
    again = hm("export", run, "--to", "onnx", "--latents", latents, "--out", exported)
    assert "exported already: kept" in again.stderr

    made = shutil.copytree(generation, tmp_path / "gen")
    words = ["generate", latents, "--model", run, "--exported", exported, "--out", made]
    done = hm(*words)
    assert done.returncode == 0
    manifest = read_manifest(made)
    assert manifest.inputs["exported"] == read_manifest(exported).fingerprint
    assert {item["key"] for item in manifest.items.values()}.isdisjoint(
        item["key"] for item in read_manifest(generation).items.values()
    )
    row = json.loads((made / "generations.jsonl").read_text().splitlines()[0])
    assert row["again"]["exported"] == str(exported)
    replayed = hm("generate", "--replay", f"{made}/generations.jsonl:1", "--out", tmp_path / "again.mp4")
    assert "the same pixels, bit for bit" in replayed.stderr


@needs_them
@pytest.mark.slow
def test_a_graph_too_far_from_torch_is_not_completed(
    run: Path, latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(export, "APART", 1e-12)
    with pytest.raises(HMError, match="is more than 1e-12: it is not written"):
        export.run(run, latents=latents, clips=(), out=tmp_path / "graphs", force=False, reporter=Silent())
    with pytest.raises(DataError, match="unfinished"):
        read_manifest(tmp_path / "graphs")
