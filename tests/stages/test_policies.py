"""Every memory policy through training, memory and sampling: what stages hand it, and what they refuse without."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from warm import WarmCommand, ok

from hmcli.core.camera import camera_overlap
from hmcli.core.memory import slot_cameras
from hmcli.core.retrieval import RetrievalInputs
from hmcli.errors import DataError
from hmcli.recipe.sections import MemoryConfig
from hmcli.stages.latents.view import LatentsView, open_latents
from hmcli.stages.memory.describe import clip_spans
from hmcli.stages.memory.layout import SlotDescription, read_description
from hmcli.stages.memory.policy_inputs import after_history, retrieval_inputs
from hmcli.store.manifest import read_manifest

SHORT = ["--set", "train.steps=2"]
FAST = ["--set", "sample.steps=1"]


def with_policy(name: str, **memory: object) -> list[str]:
    wanted = {"policy": name, **memory}
    return [word for key, value in wanted.items() for word in ("--set", f"model.memory.{key}={value}")]


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "steps.jsonl").read_text().splitlines()]


def videos(generation: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted((generation / "videos").iterdir())]


@pytest.mark.parametrize("policy", ["fov", "random", "oracle", "frames-fov"])
def test_a_frozen_model_gives_the_same_videos_from_memory_and_from_latents(
    hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path, policy: str
):
    run = ok(hm("train", nano, "--latents", latents, "--out", tmp_path / "run", *SHORT, *with_policy(policy)))
    clip = open_latents(latents).ids()[0]
    memory = ok(hm("tokenize-memory", latents, "--model", run, "--clips", clip, "--out", tmp_path / "m.memory"))
    command = ["generate", latents, "--model", run, "--clips", clip, *FAST]
    plain = videos(ok(hm(*command, "--out", tmp_path / "a")))
    assert videos(ok(hm(*command, "--memory", memory, "--out", tmp_path / "b"))) == plain
    assert len(plain) == 1


@pytest.mark.parametrize("policy", ["fov", "oracle"])
def test_a_joint_model_trains_and_samples_alike_with_slots_described_beforehand(
    hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path, policy: str
):
    joint = with_policy(policy, context="joint")
    slots = ok(hm("tokenize-memory", latents, "--recipe", nano, "--out", tmp_path / "s.memory", *joint[2:]))
    train = ["train", nano, "--latents", latents, *SHORT, *joint]
    plain = ok(hm(*train, "--out", tmp_path / "a"))
    given = ok(hm(*train, "--out", tmp_path / "b", "--memory", slots))
    assert losses(given) == losses(plain)
    assert read_manifest(given).inputs["memory"] == read_manifest(slots).fingerprint
    generate = ["generate", latents, "--model", plain, *FAST]
    computed = videos(ok(hm(*generate, "--out", tmp_path / "c")))
    assert videos(ok(hm(*generate, "--memory", slots, "--out", tmp_path / "d"))) == computed


def test_a_kernel_larger_than_a_frame_is_refused_by_name(hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path):
    large = ["--set", "model.memory.kernel=[2, 8, 4]"]
    for command in (["train", nano, "--latents", latents], ["tokenize-memory", latents, "--recipe", nano]):
        done = hm(*command, *large, "--out", tmp_path / "out")
        assert done.returncode == 3
        assert "model.memory.kernel covers 8 x 4 latent pixels, but a frame has 4 x 6" in done.stderr


def test_noise_per_frame_is_trained_on_all_frames_and_sampled_with_history_guidance(
    hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path
):
    own = ["--set", "flow.noise=per-frame", "--set", "flow.loss=all", *with_policy("recent", context="joint", top_k=2)]
    run = ok(hm("train", nano, "--latents", latents, "--out", tmp_path / "run", *SHORT, *own))
    clip = open_latents(latents).ids()[0]
    command = ["generate", latents, "--model", run, "--clips", clip, *FAST]
    plain = videos(ok(hm(*command, "--out", tmp_path / "a")))
    guided = videos(ok(hm(*command, "--set", "sample.history_guidance=2", "--out", tmp_path / "b")))
    assert guided != plain
    target = [word for word in own if word != "flow.loss=all"]
    target[2:3] = []
    other = ok(hm("train", nano, "--latents", latents, "--out", tmp_path / "t", *SHORT, *target))
    assert losses(other)[0] != losses(run)[0]


def test_descriptions_are_refused_where_they_do_not_fit(
    hm: WarmCommand, nano: Path, clips: Path, latents: Path, run: Path, tmp_path: Path
):
    slots = ok(hm("tokenize-memory", latents, "--recipe", nano, "--out", tmp_path / "s.memory"))
    train = ["train", nano, "--memory", slots, "--out", tmp_path / "no", "--dry-run"]
    kernel = with_policy("fov", kernel="[1,2,2]")
    other = ok(hm("encode", clips, "--recipe", nano, "--set", "data.size=[32,64]", "--out", tmp_path / "l.zarr"))
    for code, reason, *more in (
        (2, "has no effect: policy affinity", "--latents", latents),
        (2, "has no effect: policy frames-fov", "--latents", latents, *with_policy("frames-fov")),
        (2, "model.memory.context=frozen, the model has joint", "--latents", latents,
         *with_policy("oracle", context="joint")),
        (2, "model.memory.kernel=[2, 2, 2]", "--latents", latents, *kernel),
        (2, "model.memory.far=30.0", "--latents", latents, *with_policy("fov", far=20)),
        (3, "describes other latents", "--latents", other, *with_policy("fov")),
    ):  # fmt: skip
        refused = hm(*train, *more)
        assert refused.returncode == code, refused.stderr
        assert reason in refused.stderr
    codec = hm("train", nano, "--memory", slots, "--latents", clips, "--set", "train.part=codec", "--dry-run")
    assert codec.returncode == 2
    assert "no effect with train.part=codec" in codec.stderr
    two = ok(hm("tokenize-memory", latents, "--recipe", nano, "--out", tmp_path / "t.memory"))
    refused = hm("generate", latents, "--model", run, "--memory", slots, "--memory", two, "--out", tmp_path / "g")
    assert refused.returncode == 2
    assert "two memory artifacts were made without a model" in refused.stderr


# --- inputs ----------------------------------------------------------------------------------------------------------


class Bare(LatentsView):
    """The same latents of clips without masks."""

    def subjects(self, clip: str) -> dict[str, np.ndarray]:
        return {}


def test_a_policy_gets_what_it_needs_and_nothing_else(latents: Path):
    view = open_latents(latents)
    clips = [view.clip(clip) for clip in view.ids()]
    assert retrieval_inputs(clips, view, MemoryConfig(policy="affinity"), seed=1, device="cpu") is None
    seen = retrieval_inputs(clips, view, MemoryConfig(policy="fov"), seed=1, device="cpu")
    assert seen.intrinsics_B4.shape == (3, 4)
    assert (seen.image_size, seen.near, seen.far) == ((32, 48), 1.0, 30.0)
    assert seen.generator is None
    assert seen.visibility_BM is None
    shown = retrieval_inputs(clips, view, MemoryConfig(policy="oracle"), seed=1, device="cpu")
    assert shown.visibility_BM.shape == (3, 6)
    assert shown.intrinsics_B4 is None
    chance = [retrieval_inputs(clips, view, MemoryConfig(policy="random"), seed=s, device="cpu") for s in (1, 1, 2)]
    draws = [torch.rand(3, generator=inputs.generator) for inputs in chance]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_without_intrinsics_or_masks_both_ways_out_are_named(latents: Path):
    view = Bare(latents)
    clip = replace(view.clip(view.ids()[0]), intrinsics=None)
    with pytest.raises(DataError, match=r"intrinsics\.json, or set model\.memory\.field_of_view"):
        retrieval_inputs([clip], view, MemoryConfig(policy="fov"), seed=0, device="cpu")
    wide = retrieval_inputs([clip], view, MemoryConfig(policy="fov", field_of_view=90.0), seed=0, device="cpu")
    np.testing.assert_allclose(wide.intrinsics_B4, [[24, 24, 24, 16]])
    with pytest.raises(DataError, match="no subject masks"):
        retrieval_inputs([clip], view, MemoryConfig(policy="oracle"), seed=0, device="cpu")


@pytest.mark.parametrize(("context", "spans", "count"), [
    ("joint", [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]], 2), ("frozen", [[0, 1], [2, 3], [5, 6], [7, 8], [9, 10]], 2),
])  # fmt: skip
def test_slots_are_laid_out_as_the_model_numbers_them(latents: Path, context: str, spans: list, count: int):
    view = open_latents(latents)
    clip = replace(view.clip(view.ids()[0]), context=5, target=6)
    found, made_of_context = clip_spans(clip, MemoryConfig(context=context, kernel=(2, 2, 2)), "exact")
    assert found.tolist() == spans
    assert made_of_context == count


def described(context: int, slots: int, shows: list[list[int]]) -> SlotDescription:
    return SlotDescription(
        span_M2=np.zeros((len(shows), 2), np.int64), pose_M44=None, overlap_AM=None, shows_MS=np.array(shows, np.uint8),
        slot_grid=(2, 3), context=context, target=2, context_slots=slots, latents="",
    )  # fmt: skip


def test_slots_of_earlier_memory_come_before_the_clips_own():
    own = RetrievalInputs(visibility_BM=torch.tensor([[1, 0]]), overlap_BAM=torch.full((1, 3, 2), 0.5))
    history = [described(4, 2, [[0, 1], [0, 0], [1, 1]]), described(2, 1, [[1, 0], [1, 0]])]
    moved = after_history(own, MemoryConfig(policy="oracle"), "a", history)
    assert moved.visibility_BM.tolist() == [[1, 0, 1, 1, 0]]
    assert moved.overlap_BAM.shape == (1, 9, 5)
    assert moved.overlap_BAM[:, :6].isnan().all()
    assert moved.overlap_BAM[:, :, :3].isnan().all()
    assert (moved.overlap_BAM[:, 6:, 3:] == 0.5).all()
    assert after_history(None, MemoryConfig(), "a", history) is None


def test_a_description_says_what_the_policy_would_compute(hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path):
    view = open_latents(latents)
    config = MemoryConfig(policy="fov", context="joint", top_k=1, window=3)
    joint = with_policy("fov", context="joint")
    slots = ok(hm("tokenize-memory", latents, "--recipe", nano, "--out", tmp_path / "s.memory", *joint[2:]))
    for clip_id in view.ids():
        clip = view.clip(clip_id)
        given = retrieval_inputs(
            [clip], view, config, seed=0, device="cpu", described={clip_id: read_description(slots, clip_id)}
        )
        rows = torch.from_numpy(clip.camera)[None]
        computed = camera_overlap(rows, slot_cameras(rows, 2), given.lens())
        assert torch.equal(given.overlap_BAM, computed)
