"""hm generate --replay: a row makes its pixels again, and says what changed where it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from warm import WarmCommand, ok

from hmcli.contracts import Reporter
from hmcli.errors import DataError, HMError, UsageError
from hmcli.runtime import Heard, Silent
from hmcli.stages.sampling.replay import Places, read_row, run
from hmcli.store.video import read_video


def rows(generation: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (generation / "generations.jsonl").read_text().splitlines()]


def again(row: Path | str, out: Path, reporter: Reporter | None = None, **places: Any) -> Path:
    return run(str(row), Places(**places), out=out, force=False, reporter=reporter or Silent()).path


def test_a_row_makes_the_very_video_again(hm: WarmCommand, generation: Path, tmp_path: Path):
    made = hm("generate", "--replay", f"{generation / 'generations.jsonl'}:2", "--out", tmp_path / "again.mp4")
    row = rows(generation)[1]
    assert ok(made).read_bytes() == (generation / row["video"]).read_bytes()
    assert "the same pixels, bit for bit" in made.stderr
    refused = hm("generate", "--replay", f"{generation}:2", "--out", tmp_path / "again.mp4")
    assert (refused.returncode, "there already" in refused.stderr) == (2, True)
    refused = hm("generate", "--replay", f"{generation}:2", "--set", "seed=4", "--prompt", "a dog")
    assert (refused.returncode, "--prompt, --set" in refused.stderr) == (2, True)


def test_a_later_sample_of_a_rollout_from_memory_is_made_again_where_its_inputs_lie_now(
    hm: WarmCommand, run: Path, latents: Path, tmp_path: Path
):
    """All that a row records: the sample's number, chunks, memory, and a clip among others."""
    shutil.copytree(latents, tmp_path / "l")
    memory = ok(hm("tokenize-memory", tmp_path / "l", "--model", run, "--out", tmp_path / "m"))
    settings = ("--set", "sample.count=2", "--set", "sample.chunk=13", "--set", "sample.steps=1")
    made = ok(
        hm("generate", tmp_path / "l", "--model", run, "--memory", memory, *settings, "--out", tmp_path / "gen")
    )  # fmt: skip
    number, row = next((n, row) for n, row in enumerate(rows(made), 1) if row["sample"] == 2)
    for name in ("l", "m"):
        (tmp_path / name).rename(tmp_path / f"{name}2")
    place = tmp_path / "made" / "again.mp4"
    with pytest.raises(DataError, match="not there any more"):
        again(f"{made}:{number}", place, memory=(tmp_path / "m2",))
    found = again(f"{made}:{number}", place, latents=tmp_path / "l2", memory=(tmp_path / "m2",))
    assert found.read_bytes() == (made / row["video"]).read_bytes()
    assert [file.name for file in place.parent.iterdir()] == ["again.mp4"]


def test_other_weights_and_inputs_are_refused_by_their_hashes(
    hm: WarmCommand, nano: Path, joint_run: Path, clips: Path, generation: Path, latents: Path, tmp_path: Path
):
    row = f"{generation / 'generations.jsonl'}:1"
    with pytest.raises(DataError, match="the model's weights changed") as refused:
        again(row, tmp_path / "again.mp4", model=joint_run)
    recorded = rows(generation)[0]["again"]["made_of"]["model"]
    assert recorded in str(refused.value.where["model"])
    other = ok(hm("encode", clips, "--recipe", nano, "--set", "data.size=[32,64]", "--out", tmp_path / "l"))
    with pytest.raises(DataError, match="the clip's latents, cameras or subjects changed"):
        again(row, tmp_path / "again.mp4", latents=other)
    assert not (tmp_path / "again.mp4").exists()


def test_other_pixels_are_an_error_unless_the_device_or_a_version_explains_them(generation: Path, tmp_path: Path):
    row = rows(generation)[0]
    row["again"]["pixels"] = "sha256:0"
    (tmp_path / "row.json").write_text(json.dumps(row))
    with pytest.raises(HMError, match="made other pixels"):
        again(tmp_path / "row.json", tmp_path / "a.mp4")
    row["again"]["versions"]["torch"] = "1.0"
    (tmp_path / "row.json").write_text(json.dumps(row))
    heard = Heard()
    made = again(tmp_path / "row.json", tmp_path / "b.mp4", heard)
    assert [text for kind, text in heard.said if kind == "warn" and "torch: 1.0 then" in text]
    assert len(read_video(made)) == 21


def test_a_row_is_made_again_with_as_many_threads_as_it_was_made_with(
    generation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    row, here = rows(generation)[0], torch.get_num_threads()
    assert row["again"]["threads"] == here
    assert {"hmcli", "torch", "diffusers"} <= set(row["again"]["versions"])
    row["again"] |= {"threads": 3, "pixels": "sha256:0"}
    (tmp_path / "row.json").write_text(json.dumps(row))
    with pytest.raises(HMError, match="made other pixels") as said:
        again(tmp_path / "row.json", tmp_path / "a.mp4")
    row["again"]["pixels"] = said.value.where["pixels"]  # of three threads: sums are rounded otherwise than here
    (tmp_path / "row.json").write_text(json.dumps(row))
    asked: list[int] = []
    real = torch.set_num_threads
    monkeypatch.setattr(torch, "set_num_threads", lambda count: (asked.append(count), real(count)))
    again(tmp_path / "row.json", tmp_path / "b.mp4", heard := Heard())
    assert [text for _, text in heard.said if "bit for bit" in text]
    assert asked == [3, here]
    assert torch.get_num_threads() == here


def test_what_is_no_row_is_said(generation: Path, tmp_path: Path):
    without = rows(generation)[0]
    del without["again"]
    (tmp_path / "old.jsonl").write_text(json.dumps(without))
    for place, says in (
        (tmp_path / "nothing", "no such row"),
        (generation, "has 3 rows"),
        (f"{generation}:7", "there is no row 7"),
        (tmp_path / "old.jsonl", "does not say what its video was made from"),
    ):
        with pytest.raises(UsageError, match=says):
            read_row(str(place))
