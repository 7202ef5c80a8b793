"""Artifacts and checkpoints that came from somebody else: a path that one of their files names never leads out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_generations as small
from sealing import edit

from hmcli.errors import DataError
from hmcli.recipe.sections import CodecConfig, DataConfig, PosesConfig
from hmcli.stages.data.opening import open_dataset
from hmcli.stages.latents.view import LatentsView
from hmcli.stages.memory.layout import LAYOUT, read_description
from hmcli.stages.models.folders import ModelFolder, find_model
from hmcli.stages.models.identity import codec_hash
from hmcli.stages.sampling.generations import open_generation
from hmcli.store.files import OutsideError, write_json, write_json_lines
from hmcli.store.hashing import hash_tree
from hmcli.store.manifest import Manifest, make_manifest, write_manifest
from hmcli.store.video import write_video


def artifact(folder: Path, kind: str, **says: Any) -> Manifest:
    """An artifact with nothing in it but what its manifest says."""
    folder.mkdir(exist_ok=True)
    manifest = make_manifest(kind, **{"recipe": {}, "inputs": {}, "seed": 0, **says})
    write_manifest(folder, manifest)
    return manifest


def refused(read: Callable[[], object], bad: str) -> None:
    with pytest.raises(OutsideError) as caught:
        read()
    assert caught.value.exit_code == 3
    assert bad in str(caught.value)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Videos and arrays that are not the artifact's."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    write_video(folder / "a.mp4", np.zeros((5, 16, 16, 3), np.uint8), fps=5)
    return folder


@pytest.mark.parametrize("video", ["../elsewhere/a.mp4", "/etc/hosts", "videos/../../elsewhere/a.mp4"])
def test_a_generation_that_lists_a_video_elsewhere_is_refused(tmp_path, elsewhere, video):
    generation(tmp_path / "gen", video)
    refused(lambda: open_generation(tmp_path / "gen", PosesConfig()), video)


def generation(folder: Path, video: str) -> None:
    folder.mkdir()
    write_json_lines(folder / "generations.jsonl", [small.row("a", 5, 16, 16, video=video)])
    artifact(folder, "generation", attributes=small.attributes(DataConfig(size=(16, 16))), files=hash_tree(folder))


def test_a_generation_whose_video_folder_is_a_link_elsewhere_is_refused(tmp_path, elsewhere):
    generation(tmp_path / "gen", "videos/a.mp4")
    (tmp_path / "gen" / "videos").symlink_to(elsewhere)
    refused(lambda: open_generation(tmp_path / "gen", PosesConfig()), "videos/a.mp4")


@pytest.mark.parametrize("place", ["../other", "/etc"])
def test_a_run_whose_checkpoint_lies_elsewhere_is_refused(tmp_path, place):
    artifact(tmp_path / "other", "checkpoint")
    artifact(tmp_path / "run", "run", attributes={"checkpoint": place})
    refused(lambda: find_model(tmp_path / "run"), place)


@pytest.mark.parametrize("about", [{"checkpoint": 3}, {"checkpoint": None}, {"loss_first": 0.5}])
def test_a_run_that_does_not_say_its_checkpoint_is_refused(tmp_path, about):
    artifact(tmp_path / "run", "run", attributes=about)
    with pytest.raises(DataError, match="checkpoint"):
        find_model(tmp_path / "run")


def test_a_checkpoint_that_says_something_of_another_form_is_refused_by_its_place(tmp_path):
    about = {"parameters": 3, "size": [16, 16], "trained_with": {"codec": 7}}
    artifact(tmp_path / "said", "checkpoint", attributes=about)
    with pytest.raises(DataError, match=r"trained_with\.codec"):
        _ = find_model(tmp_path / "said").about
    artifact(tmp_path / "older", "checkpoint", attributes={"parameters": 3, "size": [16, 16]})
    assert find_model(tmp_path / "older").about.trained_with is None


def test_latents_whose_group_lies_elsewhere_are_refused(tmp_path, elsewhere):
    name = "../../elsewhere"
    shape = {"context": 1, "target": 1, "context_video_frames": 1, "target_video_frames": 1, "has_target": True}
    group = {"name": name, "ids": ["a"], "shape": shape, "arrays": ["latents"]}
    about = {"groups": [group], "size": [16, 16], "channels": 4, "text_length": 1, "text_dim": 1, "source": ""}
    meta = {"caption": "", "fps": 5, "shape": shape, "notes": []}
    item = {"key": "", "hash": "", "meta": meta}
    artifact(tmp_path / "l", "latents", attributes=about, items={"clip a": item})
    refused(lambda: LatentsView(tmp_path / "l").clip("a"), name)


def test_memory_that_describes_arrays_elsewhere_is_refused(tmp_path):
    (tmp_path / "m" / "data.zarr" / "a").mkdir(parents=True)
    about = {"layout": LAYOUT, "latents": "", "described": ["../../../elsewhere"], "slots": 1, "slot_grid": [1, 1]}
    about |= {"context": 1, "target": 1, "context_slots": 1, "memory": None}
    files = {"zarr.json": {"hash": "", "bytes": 1}}
    item = {"key": "", "hash": "", "path": "data.zarr/a", "files": files, "meta": about}
    artifact(tmp_path / "m", "memory", items={"a": item})
    refused(lambda: read_description(tmp_path / "m", "a"), "../../../elsewhere")


@pytest.mark.parametrize("shard", ["../../elsewhere.safetensors", "/etc/hosts", "a/b.safetensors", 3])
def test_an_index_of_weights_that_names_a_shard_elsewhere_is_refused(tmp_path, shard):
    folder = tmp_path / "model"
    (folder / "vae").mkdir(parents=True)
    write_json(folder / "vae" / "config.json", {})
    write_json(folder / "vae" / "diffusion_pytorch_model.safetensors.index.json", {"weight_map": {"w": shard}})
    refused(lambda: codec_hash(CodecConfig(name="wan2.1", path=str(folder))), str(shard))
    model = ModelFolder(path=folder, manifest=artifact(folder, "checkpoint", files=hash_tree(folder)))
    refused(lambda: model.check_whole("vae"), str(shard))


def test_shards_may_be_links_beside_their_index_as_in_the_hubs_cache(tmp_path):
    from safetensors.numpy import save_file

    from hmcli.store.weights import load_state_dict

    (tmp_path / "blobs").mkdir()
    (tmp_path / "model").mkdir()
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "blobs" / "1234")
    (tmp_path / "model" / "a.safetensors").symlink_to(tmp_path / "blobs" / "1234")
    write_json(tmp_path / "model" / "m.safetensors.index.json", {"weight_map": {"w": "a.safetensors"}})
    assert load_state_dict(tmp_path / "model")["w"].tolist() == [1, 1, 1]


def test_a_rendered_data_set_with_a_clip_that_is_a_link_elsewhere_is_refused(tmp_path, elsewhere):
    rendered(tmp_path / "d")
    (tmp_path / "d" / "a").rename(tmp_path / "moved")
    (tmp_path / "d" / "a").symlink_to(tmp_path / "moved")
    refused(lambda: open_dataset(tmp_path / "d", PosesConfig()), "path    a\n")
    (tmp_path / "d" / "manifest.json").unlink()
    (tmp_path / "d" / "clips.jsonl").unlink()
    assert [clip.id for clip in open_dataset(tmp_path / "d", PosesConfig()).clips] == ["a"]  # a folder of one's own


def rendered(folder: Path) -> None:
    (folder / "a").mkdir(parents=True)
    for name in ("cond.mp4", "tgt.mp4"):
        write_video(folder / "a" / name, np.zeros((5, 16, 16, 3), np.uint8), fps=5)
    poses = {str(frame): np.eye(4).tolist() for frame in range(5)}
    write_json(folder / "a" / "camera.json", {"cond_cam": poses, "tgt_cam": poses})
    write_json_lines(folder / "clips.jsonl", [{"id": "a"}])
    record = {"key": "", "hash": "", "path": "a", "files": hash_tree(folder / "a"), "meta": {"caption": ""}}
    artifact(folder, "dataset", items={"a": record})


def test_a_rendered_data_set_whose_items_have_no_place_is_not_taken_for_damaged_code(tmp_path):
    """Every clip is new then; nothing ends in a traceback."""
    rendered(tmp_path / "d")
    artifact(tmp_path / "d", "dataset", items={"a": {"key": "", "hash": ""}})
    assert any("1 clips added" in note for note in open_dataset(tmp_path / "d", PosesConfig()).notes)


def test_the_command_ends_with_code_3_and_names_the_path(hm, tmp_path):
    rendered(tmp_path / "d")
    victim = shutil.copytree(tmp_path / "d", tmp_path / "victim")
    file = tmp_path / "d" / "manifest.json"
    edit(file, lambda values: values["items"]["a"].update(path="../victim"))
    done = hm("render", "--clips", "1", "--out", tmp_path / "d")
    assert done.returncode == 3
    assert "'../victim'" in done.stderr
    assert (victim / "a" / "cond.mp4").is_file()
    with pytest.raises(DataError, match="leads out"):
        open_dataset(tmp_path / "d", PosesConfig())
