"""The rule for finished work, stage by stage: replaced by a whole successor, gone only with --prune, kept when its
source cannot be read for a while (docs/artifacts.md)."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from warm import WarmCommand, ok

from hmcli.errors import DataError
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import PosesConfig
from hmcli.stages.data.loading import load_clip
from hmcli.stages.data.opening import open_dataset
from hmcli.stages.latents import encode
from hmcli.stages.latents.view import open_latents
from hmcli.store.manifest import read_manifest


@pytest.fixture
def own(clips: Path, tmp_path: Path) -> Path:
    """The rendered clips as a folder of one's own, which may be edited."""
    return shutil.copytree(clips, tmp_path / "own", ignore=shutil.ignore_patterns("manifest.json", "clips.jsonl"))


def ids(artifact: Path) -> list[str]:
    return [item.removeprefix("clip ") for item in read_manifest(artifact).items if not item.startswith("caption")]


def refused(done, count: int, artifact: Path, before: bytes) -> None:
    assert done.returncode == 2, done.stderr
    assert f"{count} finished items would go" in done.stderr
    assert "--prune" in done.stderr
    assert (artifact / "manifest.json").read_bytes() == before


# --- fewer, more, another seed ---------------------------------------------------------------------------------------


def test_render_never_lets_a_clip_go_unasked(hm: WarmCommand, nano: Path, clips: Path, tmp_path: Path):
    out = shutil.copytree(clips, tmp_path / "clips")
    before, first = (out / "manifest.json").read_bytes(), ids(out)
    asked = ("render", nano, "--out", out)
    for fewer in (["--clips", 2], ["--clips", 2, "--force"], ["--clips", 2, "--dry-run"]):
        refused(hm(*asked, *fewer), 1, out, before)
    refused(hm(*asked, "--set", "seed=6"), 3, out, before)
    plan = hm(*asked, "--clips", 2, "--prune", "--dry-run")
    assert (plan.returncode, f"2 kept, 1 go ({first[2]})" in plan.stderr) == (0, True)
    assert (out / "manifest.json").read_bytes() == before
    ok(hm(*asked, "--clips", 2, "--prune"))
    assert (ids(out), (out / first[2]).exists()) == (first[:2], False)
    more = hm(*asked, "--clips", 3)
    assert (ok(more), ids(out)) == (out, first)
    assert "2 items kept" in more.stderr


def test_a_selection_of_clips_is_a_smaller_request(
    hm: WarmCommand, generation: Path, latents: Path, run: Path, tmp_path: Path
):
    out = shutil.copytree(generation, tmp_path / "gen")
    before, every = (out / "manifest.json").read_bytes(), ids(out)
    asked = ("generate", latents, "--model", run, "--out", out, "--clips", every[1])
    refused(hm(*asked), 2, out, before)
    refused(hm(*asked, "--dry-run"), 2, out, before)
    refused(hm("generate", latents, "--model", run, "--out", out, "--set", "seed=6"), 3, out, before)
    ok(hm(*asked, "--prune"))
    assert (ids(out), sorted(p.name for p in (out / "videos").iterdir())) == ([every[1]], [f"{every[1]}.mp4"])


def test_memory_and_scores_follow_the_same_rule(
    hm: WarmCommand, nano: Path, generation: Path, latents: Path, tmp_path: Path
):
    memory = ok(hm("tokenize-memory", latents, "--recipe", nano, "--out", tmp_path / "m"))
    asked = ("tokenize-memory", latents, "--recipe", nano, "--out", memory, "--clips", ids(memory)[0])
    refused(hm(*asked), 2, memory, (memory / "manifest.json").read_bytes())
    ok(hm(*asked, "--prune"))
    assert len(ids(memory)) == 1
    scores = ok(hm("eval", generation, "--metric", "psnr", "--metric", "ssim", "--out", tmp_path / "e"))
    asked = ("eval", generation, "--metric", "psnr", "--out", scores)
    refused(hm(*asked), 3, scores, (scores / "manifest.json").read_bytes())
    ok(hm(*asked, "--prune"))
    assert {row["metric"] for row in rows(scores)} == {"psnr"}


def rows(evaluation: Path) -> list[dict[str, str]]:
    with (evaluation / "per_clip.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_goes_only_when_it_is_pruned_and_only_when_the_next_one_is_there(
    hm: WarmCommand, nano: Path, latents: Path, run: Path, tmp_path: Path
):
    out = shutil.copytree(run, tmp_path / "run")
    before = (out / "manifest.json").read_bytes()
    asked = ("train", nano, "--latents", latents, "--out", out, "--set", "train.lr=2.0e-3", "--set", "train.steps=2")
    for option in ([], ["--force"], ["--dry-run"]):
        done = hm(*asked, *option)
        assert (done.returncode, "2 checkpoints would go" in done.stderr, "--prune" in done.stderr) == (2, True, True)
    assert (out / "manifest.json").read_bytes() == before
    ok(hm(*asked, "--prune"))
    assert (ids(out), [p.name for p in (out / "checkpoints").iterdir()]) == (["000002"], ["000002"])


# --- sources ---------------------------------------------------------------------------------------------------------


def test_a_clip_that_cannot_be_read_for_a_while_keeps_its_row_and_is_reported(
    hm: WarmCommand, nano: Path, own: Path, tmp_path: Path
):
    latents = ok(hm("encode", own, "--recipe", nano, "--out", tmp_path / "l"))
    first, name = read_manifest(latents), ids(latents)[1]
    row = open_latents(latents).clip(name)
    video = own / name / "cond.mp4"
    whole = video.read_bytes()
    for damage in (whole[:200], whole[:-200] + bytes(200)):  # no video at all; one that is found out while decoding
        video.write_bytes(damage)
        done = hm("encode", own, "--recipe", nano, "--out", latents)
        assert (done.returncode, f"{name} stays as it was" in done.stderr) == (4, True)
        assert [left["item"] for left in read_manifest(latents).quarantined] == [name]
        assert list(read_manifest(latents).items) == list(first.items)
        assert np.array_equal(open_latents(latents).clip(name).latents, row.latents)
    video.write_bytes(whole)
    healed = ok(hm("encode", own, "--recipe", nano, "--out", latents))
    assert (read_manifest(healed).fingerprint, read_manifest(healed).quarantined) == (first.fingerprint, [])


def test_a_clip_that_is_gone_is_no_longer_asked_for(hm: WarmCommand, nano: Path, own: Path, tmp_path: Path):
    latents = ok(hm("encode", own, "--recipe", nano, "--out", tmp_path / "l"))
    before, (name, *rest) = (latents / "manifest.json").read_bytes(), ids(latents)
    captions = own / "caption.txt"
    (own / name).rename(tmp_path / "elsewhere")
    captions.write_text("".join(line for line in captions.read_text().splitlines(True) if not line.startswith(name)))
    refused(hm("encode", own, "--recipe", nano, "--out", latents), 1, latents, before)
    ok(hm("encode", own, "--recipe", nano, "--out", latents, "--prune"))
    assert ids(latents) == rest
    assert len([item for item in read_manifest(latents).items if item.startswith("caption")]) <= 1 + len(rest)


def test_under_another_size_an_unreadable_clip_leaves_the_latents_but_its_row_is_not_lost(
    hm: WarmCommand, nano: Path, own: Path, tmp_path: Path
):
    latents = ok(hm("encode", own, "--recipe", nano, "--out", tmp_path / "l"))
    name = ids(latents)[0]
    (own / name / "cond.mp4").write_bytes(b"")
    done = hm("encode", own, "--recipe", nano, "--out", latents, "--set", "data.size=[16, 32]")
    assert (done.returncode, name in ids(latents)) == (4, False)
    assert (latents / "quarantine" / f"clip {name}.safetensors").is_file()


def test_videos_of_clips_that_cannot_be_read_stay_too(
    hm: WarmCommand, nano: Path, own: Path, run: Path, tmp_path: Path
):
    """From a folder of clips, which is encoded first; and from latents that had to leave the clip out."""
    out = ok(hm("generate", own, "--model", run, "--out", tmp_path / "g"))
    name, every = ids(out)[0], ids(out)
    video = (out / "videos" / f"{name}.mp4").read_bytes()
    (own / name / "cond.mp4").write_bytes(b"")
    assert hm("generate", own, "--model", run, "--out", out).returncode == 4
    lacking = hm("encode", own, "--recipe", nano, "--out", tmp_path / "lacking")
    assert lacking.returncode == 4
    done = hm("generate", tmp_path / "lacking", "--model", run, "--out", out)
    assert (done.returncode, f"{name} stays as it was" in done.stderr) == (4, True)
    assert sorted(ids(out)) == sorted(every)
    assert (out / "videos" / f"{name}.mp4").read_bytes() == video
    listed = [json.loads(line)["id"] for line in (out / "generations.jsonl").read_text().splitlines()]
    assert sorted(listed) == sorted(every)


def test_a_score_of_a_video_that_cannot_be_read_now_stays_and_is_marked(
    hm: WarmCommand, generation: Path, tmp_path: Path
):
    made = shutil.copytree(generation, tmp_path / "g")
    scores = ok(hm("eval", made, "--metric", "psnr", "--out", tmp_path / "e"))
    before = rows(scores)
    (made / "videos" / f"{before[0]['clip']}.mp4").unlink()
    assert hm("eval", made, "--metric", "psnr", "--out", scores).returncode == 4
    after = rows(scores)
    assert [row["value"] for row in after] == [row["value"] for row in before]
    assert [row["status"] for row in after] == ["kept", "ok", "ok"]


# --- sources that change while they are read -------------------------------------------------------------------------


class Meanwhile:
    """A reporter during whose progress bars something happens to the files."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self.happens = happens
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    @contextmanager
    def progress(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        self.happens()
        yield lambda done: None


def test_a_source_that_changes_while_it_is_read_is_noticed(nano: Path, own: Path, tmp_path: Path):
    """Between looking at the folder and decoding, one clip's video becomes another's: its latents would be under the
    old one's key."""
    names = sorted(folder.name for folder in own.iterdir() if folder.is_dir())
    meanwhile = Meanwhile(lambda: shutil.copy(own / names[1] / "cond.mp4", own / names[0] / "cond.mp4"))
    recipe = load_recipe(nano, [])
    done = encode.run(recipe, data=own, out=tmp_path / "l", force=False, device="cpu", reporter=meanwhile)
    assert [left.item for left in done.quarantined] == [names[0]]
    assert "changed while it was being used" in done.quarantined[0].reason
    assert ids(tmp_path / "l") == names[1:]
    again = encode.run(recipe, data=own, out=tmp_path / "l", force=False, device="cpu", reporter=Meanwhile(dict))
    assert (again.quarantined, ids(tmp_path / "l")) == ((), names)


@pytest.mark.parametrize("role", ["context", "target", "cameras", "context_instances", "intrinsics"])
def test_every_file_of_a_clip_is_decoded_from_the_bytes_that_were_hashed(own: Path, role: str):
    clip = open_dataset(own, PosesConfig()).clips[0]
    data = load_recipe(None, ["data.size=[32, 48]"]).data
    assert load_clip(clip, data).id == clip.id
    with clip.files[role].open("ab") as file:
        file.write(b"\n")
    with pytest.raises(DataError, match="changed while it was being used"):
        load_clip(clip, data)
