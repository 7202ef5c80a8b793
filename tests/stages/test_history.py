"""Memory artifacts as history: one after the other, of any length, read slot by slot."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.misaligned import astray
from warm import WarmCommand, ok

from hmcli.core.flow import make_schedule
from hmcli.core.memory import BlockMemory, ContextMemory, Held, absolute_times, exact_slot_spans
from hmcli.core.sampler import denoise
from hmcli.core.transformer import HydraTransformer3DModel
from hmcli.stages.latents.view import open_latents
from hmcli.stages.memory.kept import History, RowCache, StoredRows, anchor_of, compute_memory, rows_from, write_block
from hmcli.stages.memory.layout import block_group
from hmcli.stages.models.folders import find_model
from hmcli.store.arrays import StackReader
from hmcli.store.manifest import read_manifest

DEVICE = "cpu"


@pytest.fixture(scope="module")
def later(hm: WarmCommand, nano: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latents of clips with the same ids whose context is what follows the others' context: their target."""
    place = tmp_path_factory.mktemp("later")
    shutil.copytree(clips, place / "clips")
    for name in ("manifest.json", "clips.jsonl"):
        (place / "clips" / name).unlink()
    for folder in (place / "clips").iterdir():
        if not (folder / "cond.mp4").is_file():
            continue
        cameras = json.loads((folder / "camera.json").read_text())
        turned = {"cond_cam": cameras["tgt_cam"], "tgt_cam": cameras["cond_cam"]}
        (folder / "camera.json").write_text(json.dumps(cameras | turned))
        for suffix in ("", "_mask", "_instances"):
            one, other = folder / f"cond{suffix}.mp4", folder / f"tgt{suffix}.mp4"
            one.rename(folder / "kept.mp4")
            other.rename(one)
            (folder / "kept.mp4").rename(other)
    return ok(hm("encode", place / "clips", "--recipe", nano, "--out", place / "later.latents"))


@pytest.fixture(scope="module")
def parts(hm: WarmCommand, run: Path, latents: Path, later: Path, tmp_path_factory: pytest.TempPathFactory):
    """Two memory artifacts, the second after the first."""
    place = tmp_path_factory.mktemp("parts")
    first = ok(hm("tokenize-memory", latents, "--model", run, "--out", place / "a.memory"))
    second = ok(hm("tokenize-memory", later, "--model", run, "--after", first, "--out", place / "b.memory"))
    return first, second


def everything(memory: ContextMemory) -> list[torch.Tensor]:
    """All that a memory holds, read."""
    parts = [memory.span_M2, memory.time_M, memory.camera_BMR, memory.frame_camera_BAR]
    for block in memory.blocks:
        parts.append(block.descriptors_BMC)
        for rows in (block.slots, block.tail):
            parts += rows.read(torch.arange(rows.count))
    return parts


def test_memory_is_read_into_aligned_memory_of_its_own(run: Path, latents: Path, parts: tuple[Path, Path]):
    model = find_model(run)
    for clip in open_latents(latents).ids():
        memory, _ = History(parts[:1], model).load(
            clip, open_latents(latents).latents_hash(clip), DEVICE, torch.float32
        )
        assert not astray(*everything(memory))


def test_two_halves_tokenized_apart_are_one_history(run: Path, latents: Path, later: Path, parts: tuple[Path, Path]):
    model, view, view2 = find_model(run), open_latents(latents), open_latents(later)
    network, clip_id = model.load(torch.float32, DEVICE), view.ids()[1]
    clip, clip2 = view.clip(clip_id), view2.clip(clip_id)
    np.testing.assert_allclose(clip2.poses[:6], clip.poses[6:])
    anchor = anchor_of(clip)
    first, second = (compute_memory(network, c, anchor, None, DEVICE) for c in (clip, clip2))
    computed = first.then(second.starting_at(6))
    kept, kept_anchor = History(parts, model).load(clip_id, view2.latents_hash(clip_id), DEVICE, torch.float32)
    np.testing.assert_array_equal(kept_anchor, anchor)
    assert kept.num_context_frames == computed.num_context_frames == 12
    assert kept.span_M2.tolist() == [[2 * slot, 2 * slot + 1] for slot in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(everything(kept), everything(computed), strict=True))
    target = {
        "schedule": make_schedule(2, 5.0), "camera": rows_from(clip2.world_poses()[6:], anchor, DEVICE),
        "text": torch.from_numpy(clip.text)[None],
    }  # fmt: skip
    noise = torch.randn(1, 16, 6, 4, 6, generator=torch.Generator().manual_seed(3))
    out = denoise(network, noise, memory=computed, **target)
    assert torch.equal(denoise(network, noise, memory=kept, **target), out)
    alone = denoise(network, noise, memory=second, **target)
    assert not torch.equal(alone, out)


def test_history_is_generated_from_and_its_order_is_checked(
    hm: WarmCommand, run: Path, latents: Path, later: Path, parts: tuple[Path, Path], tmp_path: Path
):
    first, second = parts
    command = ["generate", later, "--model", run, "--set", "sample.steps=1", "--set", "sample.guidance=1"]
    made = ok(hm(*command, "--memory", first, "--memory", second, "--out", tmp_path / "long"))
    short = ok(hm(*command, "--out", tmp_path / "short"))
    videos = [sorted((folder / "videos").iterdir()) for folder in (made, short)]
    assert len(videos[0]) == 3
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(*videos, strict=True))
    again = hm(*command, "--memory", first, "--memory", second, "--out", tmp_path / "long")
    assert "3 items kept" in again.stderr
    for given, reason in (
        ([second], "begins at latent frame 6 of a longer history"),
        ([second, first], "begins at latent frame 6 of a longer history"),
        ([first, first], "made from other latents"),
    ):
        refused = hm(*command, *[w for p in given for w in ("--memory", p)], "--out", tmp_path / "no")
        assert refused.returncode == 3, refused.stderr
        assert reason in refused.stderr


def test_memory_after_another_one_is_not_taken_for_this_ones_sequel(
    hm: WarmCommand, run: Path, latents: Path, later: Path, parts: tuple[Path, Path], tmp_path: Path
):
    """The sequel knows what it follows by content: another beginning, equally long, is refused by name."""
    command = ["generate", later, "--model", run, "--set", "sample.steps=1", "--out", tmp_path / "no"]
    other = ok(hm("tokenize-memory", later, "--model", run, "--out", tmp_path / "other.memory"))
    refused = hm(*command, "--memory", other, "--memory", parts[1])
    assert refused.returncode == 3
    assert "another anchor pose, or other latents" in refused.stderr
    refused = hm(*command, "--memory", parts[0], "--memory", other)
    assert "made as the beginning of a history, not after a.memory" in refused.stderr
    assert "--after" in refused.stderr


def test_memory_does_not_follow_that_of_frames_of_another_size(
    hm: WarmCommand, nano: Path, run: Path, clips: Path, parts: tuple[Path, Path], tmp_path: Path
):
    large = ok(hm("encode", clips, "--recipe", nano, "--set", "data.size=[48,64]", "--out", tmp_path / "large.latents"))
    refused = hm("tokenize-memory", large, "--model", run, "--after", parts[0], "--out", tmp_path / "no")
    assert refused.returncode == 3
    assert "this clip has [3, 4] tokens a frame, the memory it is to follow [2, 3]" in refused.stderr


def test_after_needs_the_model_that_made_the_memory(
    hm: WarmCommand, nano: Path, run: Path, joint_run: Path, later: Path, parts: tuple[Path, Path], tmp_path: Path
):
    for code, reason, *more in (
        (2, "no effect without --model", "--recipe", nano),
        (2, "computed anew at every step", "--model", joint_run),
        (2, "one artifact", "--model", run, "--out", parts[0]),
    ):
        refused = hm("tokenize-memory", later, "--after", parts[0], *more, cwd=tmp_path)
        assert refused.returncode == code, refused.stderr
        assert reason in refused.stderr
    clip = open_latents(later).ids()[0]
    one = ok(hm("tokenize-memory", later, "--model", run, "--clips", clip, "--out", tmp_path / "one.memory"))
    done = hm("tokenize-memory", later, "--model", run, "--after", one, "--out", tmp_path / "two.memory")
    assert done.returncode == 4
    assert "lacks this clip" in done.stderr
    assert list(read_manifest(tmp_path / "two.memory").items) == [clip]


def test_another_type_than_the_memorys_is_refused(
    hm: WarmCommand, run: Path, latents: Path, parts: tuple[Path, Path], tmp_path: Path
):
    half = ["--set", "sample.dtype=bfloat16"]
    refused = hm("generate", latents, "--model", run, "--memory", parts[0], "--out", tmp_path / "no", *half)
    assert refused.returncode == 3
    assert "holds float32, but the model is to compute in bfloat16" in refused.stderr


# --- long histories --------------------------------------------------------------------------------------------------


def long_memory(slots: int, model: HydraTransformer3DModel, grid: tuple[int, int]) -> ContextMemory:
    """A made-up history of twice as many frames, in memory."""
    generator = torch.Generator().manual_seed(2)
    tokens, slot_tokens = grid[0] * grid[1], grid[0] * grid[1] // 4

    def rows(count: int, tokens: int) -> Held:
        keys, values = (torch.randn(1, count, tokens, 20, generator=generator) for _ in range(2))
        return Held(keys_BNQC=keys, values_BNQC=values)

    blocks = []
    for _ in model.blocks:
        kept = rows(slots, slot_tokens)
        blocks.append(BlockMemory(slots=kept, descriptors_BMC=kept.keys_BNQC.mean(dim=2), tail=rows(2, tokens)))
    return ContextMemory(
        blocks=tuple(blocks), span_M2=exact_slot_spans(slots, 2), time_M=absolute_times(slots, 2, 0),
        camera_BMR=torch.randn(1, slots, 12, generator=generator),
        frame_camera_BAR=torch.randn(1, 2 * slots, 12, generator=generator), grid=grid,
        slot_grid=(grid[0] // 2, grid[1] // 2), num_context_frames=2 * slots,
    )  # fmt: skip


@pytest.mark.parametrize(("affinity", "count"), [("pooled", 2000), ("spatial", 120)])
def test_long_histories_are_read_as_chosen_and_stay_bounded(affinity: str, count: int, tmp_path: Path):
    torch.manual_seed(0)
    model = HydraTransformer3DModel(
        num_layers=2, num_attention_heads=2, attention_head_dim=10, ffn_dim=24, freq_dim=16, text_dim=6, in_channels=3,
        out_channels=3, top_k=3, window=3, context="frozen", affinity=affinity, max_history=40,
    )  # fmt: skip
    held, cache, blocks = long_memory(count, model, (4, 6)), RowCache(limit=40_000), []
    for number, block in enumerate(held.blocks):
        folder = tmp_path / block_group(number)
        write_block(folder, block)
        slots, tail = (
            StoredRows(
                folder=folder, part=part, bfloat16=False, device=DEVICE, cache=cache,
                keys=StackReader(folder / f"{part}_keys"), values=StackReader(folder / f"{part}_values"),
            )
            for part in ("slot", "tail")
        )  # fmt: skip
        blocks.append(BlockMemory(slots=slots, descriptors_BMC=block.descriptors_BMC, tail=tail))
    stored = replace(held, blocks=tuple(blocks))
    noise = torch.randn(1, 3, 5, 8, 12, generator=torch.Generator().manual_seed(3))
    target = {"schedule": make_schedule(3, 5.0), "camera": torch.randn(1, 5, 12), "text": torch.randn(1, 7, 6)}
    wanted = denoise(model, noise, memory=held, **target)
    assert torch.equal(denoise(model, noise, memory=stored, **target), wanted)
    row = 2 * 6 * 20 * 4  # bytes of a slot's keys and values
    assert cache.misses <= 3 * 2 * (5 * 3 + 1)  # steps, blocks; frames and what each chose, a tail frame
    assert cache.bytes <= 40_000 < 20 * 5 * row


def test_a_few_slots_are_read_without_the_others(tmp_path: Path):
    generator = torch.Generator().manual_seed(2)
    keys, values = (torch.randn(1, 40, 64, 128, generator=generator) for _ in range(2))
    kept = Held(keys_BNQC=keys, values_BNQC=values)
    write_block(tmp_path / "block", BlockMemory(slots=kept, descriptors_BMC=keys.mean(dim=2), tail=kept))
    rows = StoredRows(
        folder=tmp_path / "block", part="slot", bfloat16=False, device=DEVICE, cache=RowCache(),
        keys=StackReader(tmp_path / "block" / "slot_keys"), values=StackReader(tmp_path / "block" / "slot_values"),
    )  # fmt: skip
    assert rows.count == 40
    before = bytes_read()
    found = rows.read(torch.tensor([3, 39]))
    assert bytes_read() - before < 6 * keys[:, 0].nbytes  # four rows, and what says where they lie
    assert torch.equal(found[0], keys[:, [3, 39]])
    assert torch.equal(found[1], values[:, [3, 39]])


def bytes_read() -> int:
    """What this process has read from files so far."""
    if not (counters := Path("/proc/self/io")).is_file():
        pytest.skip("this system does not count what a process reads")
    return int(counters.read_text().split("rchar: ")[1].split()[0])


def test_the_cache_keeps_what_was_used_last(tmp_path: Path):
    cache = RowCache(limit=2 * 2 * 8 * 4)
    pair = (torch.zeros(8), torch.ones(8))
    for number in (1, 2, 1, 3, 1, 2):
        assert cache.get((tmp_path, "slot", number), lambda: pair) is pair
    assert cache.misses == 4  # 1, 2, 3, and 2 again, which had to go for 3
    assert cache.bytes == cache.limit


def test_keys_that_are_looked_through_stay_as_far_as_there_is_room(tmp_path: Path):
    cache, read = RowCache(limit=2 * 8 * 4), list[int]()

    def row(number: int) -> torch.Tensor:
        read.append(number)
        return torch.full((8,), float(number))

    for _ in range(3):
        found = [cache.keys((tmp_path, "slot", number), lambda n=number: row(n)) for number in range(4)]
        assert [int(one[0]) for one in found] == [0, 1, 2, 3]
    assert read == [0, 1, 2, 3, 2, 3, 2, 3]
