"""hm train in several ranks over gloo: the same samples, the same gradients, exact resuming, and clear ends."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import alive, apart, files, lines, ranks_of, rows, sets, state, training_of
from warm import WarmCommand, ok, wait_for

from hmcli.errors import HMError, UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.stages.training import ranks
from hmcli.stages.training.ranks import Place, from_environment, joined
from hmcli.stages.training.train import check_shares
from hmcli.store.manifest import read_manifest

TOGETHER = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize("policy", ["affinity", "none"])
def test_two_ranks_sum_the_gradients_of_one(hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path, policy: str):
    """To rounding of the sum: as one rank sums the same two pieces. AdamW's first moment is then a tenth of it.

    A whole batch goes through other kernels, which round otherwise: most in gradients that nearly cancel (keys').
    """
    settings = ["train.steps=1", "train.batch=3", "train.clip_norm=1e9", f"model.memory.policy={policy}"]
    line = ["train", nano, "--latents", latents, *sets(*settings)]
    pieces = ok(hm(*line, "--out", tmp_path / "pieces", "--set", "train.accumulate=2"))
    alone = ok(hm(*line, "--out", tmp_path / "alone"))
    said = hm(*line, "--out", tmp_path / "both", "--num-processes", "2")
    assert "Warning" not in said.stderr
    both = ok(said)
    found, wanted, batch = (gradients(run) for run in (both, pieces, alone))
    assert len(found) > 20
    assert found.keys() == wanted.keys() == batch.keys()
    assert {name: far for name in found if (far := apart(found[name], wanted[name])) > 1e-6} == {}
    flat = [torch.cat([of[name].flatten() for name in found]) for of in (found, batch)]
    assert apart(*flat) < 1e-6
    assert rows(both)[0]["loss"] == pytest.approx(rows(alone)[0]["loss"], rel=1e-6)
    assert read_manifest(both).attributes["ranks"] == 2
    assert "ranks" not in read_manifest(alone).attributes


def gradients(run: Path) -> dict[str, torch.Tensor]:
    return {name: of for name, of in state(run, "000001").items() if name.startswith("optimizer.exp_avg.")}


@pytest.mark.parametrize(
    "settings",
    [
        [], ["train.draws=2"], ["train.draws=3", "flow.weighting=bell"], ["train.subject_weight=3"],
        ["model.memory.context=joint", "flow.noise=per-frame", "flow.loss=all"],
        ["model.memory.policy=fov"], ["model.memory.policy=oracle"], ["model.memory.policy=random"],
        ["model.positions=rays"], ["train.older=9", "train.draws=2"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("parts", [2, 3])
def test_shares_of_a_batch_are_its_samples_with_their_noise(nano: Path, latents: Path, settings: list[str], parts: int):
    """The weighted mean of the losses of the shares is that of the whole, however much is asked of each sample."""
    training = training_of(nano, latents, *settings)
    clips = [training.view.clip(clip) for clip in training.view.ids()[:3]]
    whole = training.prepare(4, clips)
    shares = [whole.share(number, parts) for number in range(parts)]
    assert [clip.id for share in shares for clip in share.clips] == [clip.id for clip in clips]
    losses = [float(training.loss(share).detach()) for share in shares]
    counts = [len(share.clips) / 3 for share in shares]
    together = sum(loss * count for loss, count in zip(losses, counts, strict=True))
    assert together == pytest.approx(float(training.loss(whole).detach()), rel=1e-6)
    assert len(set(losses)) == parts


def test_pieces_of_a_batch_add_up_to_its_gradient(nano: Path, latents: Path):
    summed = []
    for pieces in (1, 2, 3):
        training = training_of(nano, latents, "train.batch=3", f"train.accumulate={pieces}")
        clips = [training.view.clip(clip) for clip in training.view.ids()[:3]]
        loss = training._gradients(training.prepare(0, clips))
        summed.append((loss, {name: p.grad for name, p in training.model.named_parameters()}))
    for loss, found in summed[1:]:
        assert loss == pytest.approx(summed[0][0], rel=1e-6)
        assert apart(*(torch.cat([g.flatten() for g in of.values()]) for of in (found, summed[0][1]))) < 1e-6


@pytest.mark.parametrize(("killed", "step"), [("the launcher", 1), ("the launcher", 6), ("a rank", 4)])
def test_two_ranks_killed_at_a_step_end_with_the_same_losses_and_weights(
    hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path, whole: Path, killed: str, step: int
):
    """SIGKILL: of the process that was started, whose ranks end by themselves, or of one of the ranks."""
    line = ["train", nano, "--latents", latents, "--out", tmp_path / "run", *LONG]
    running = hm.start(*line)
    wait_for(lambda: len(lines(tmp_path / "run")) >= step)
    children = ranks_of(running.pid)
    assert len(children) == 2
    os.kill(running.pid if killed == "the launcher" else children[1], signal.SIGKILL)
    ended = running.wait()
    assert ended.returncode == (-signal.SIGKILL if killed == "the launcher" else 1), ended.stderr
    assert killed == "the launcher" or "SIGKILL" in ended.stderr or "has ended" in ended.stderr
    assert "Traceback" not in ended.stderr
    wait_for(lambda: not any(alive(child) for child in children))
    assert rows(ok(hm(*line))) == rows(whole)
    assert files(tmp_path / "run", "000009") == files(whole, "000009")
    assert read_manifest(tmp_path / "run").fingerprint == read_manifest(whole).fingerprint


LONG = [*sets("train.steps=9", "train.checkpoint_every=3", "train.ema=0.9"), "--num-processes", "2"]


@pytest.fixture(scope="module")
def whole(hm: WarmCommand, nano: Path, latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in two ranks that was never stopped."""
    return ok(hm("train", nano, "--latents", latents, "--out", tmp_path_factory.mktemp("ranks") / "whole", *LONG))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_two_ranks_stop_together_at_a_step(
    hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path, whole: Path, number: signal.Signals, code: int
):
    line = ["train", nano, "--latents", latents, "--out", tmp_path / "run", *LONG]
    running = hm.start(*line)
    wait_for(lambda: lines(tmp_path / "run"))
    running.send_signal(number)
    ended = running.wait()
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.count("stopped at step") + ended.stderr.count("interrupted") == 1, "said once"
    assert "Traceback" not in ended.stderr
    stopped = len(lines(tmp_path / "run"))
    again = hm(*line)
    assert f"going on from step {stopped}" in again.stderr
    assert rows(ok(again)) == rows(whole)
    assert files(tmp_path / "run", "000009") == files(whole, "000009")


def test_a_run_goes_on_in_another_number_of_ranks(
    hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path, whole: Path
):
    line = ["train", nano, "--latents", latents, "--out", tmp_path / "run"]
    ok(hm(*line, *sets("train.steps=5", "train.checkpoint_every=3", "train.ema=0.9")))
    again = hm(*line, *LONG)
    assert "going on from step 5" in again.stderr
    for found, wanted in zip(rows(ok(again)), rows(whole), strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-4)


def test_an_error_is_said_once_and_nothing_is_started_for_it(
    hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path
):
    line = ["train", nano, "--latents", latents, "--out", tmp_path / "run", "--num-processes", "2"]
    refused = hm(*line, "--set", "train.train_only=[nothing]")
    assert refused.returncode == 2
    assert refused.stderr.count("names no parameter") == 1
    refused = hm(*line, "--set", "train.held_out=9")
    assert refused.returncode == 2
    assert refused.stderr.count("leaves none") == 1
    planned = hm(*line, "--dry-run")
    assert "in 2 ranks" in planned.stderr
    refused = hm(*line, "--set", "train.part=codec")
    assert refused.returncode == 2
    refused = hm(*line, "--set", "train.batch=1")
    assert refused.returncode == 2
    assert "train.batch=1 clips cannot be divided among 2 ranks" in refused.stderr


def test_a_batch_must_have_a_clip_for_every_piece():
    train = dataclasses.replace(load_recipe(None, []).train, batch=6, accumulate=3)
    check_shares(train, 2)
    with pytest.raises(UsageError, match=r"train.batch=6 .* among 3 ranks in 3 pieces"):
        check_shares(train, 3)


@pytest.mark.parametrize(
    ("environment", "asked", "said"),
    [
        ({"WORLD_SIZE": "2"}, 1, "says WORLD_SIZE but not RANK, MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "0"}, 2, "says RANK but not WORLD_SIZE"),
        ({"MASTER_ADDR": "node-1"}, 1, "says MASTER_ADDR but not"),
        (TOGETHER, 1, "rank 0 of 2, --num-processes asks for 1"),
        (TOGETHER, 4, "rank 0 of 2, --num-processes asks for 4"),
        (TOGETHER | {"RANK": "2"}, 2, "rank 2 of 2"),
        (TOGETHER | {"RANK": "first"}, 2, "RANK=first, which is no number"),
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, 1, "settings of accelerate"),
        (TOGETHER | {"ACCELERATE_USE_FSDP": "1"}, 2, "settings of accelerate"),
    ],
)
def test_the_environment_changes_no_run_silently(environment: dict[str, str], asked: int, said: str):
    with pytest.raises(UsageError) as refused:
        from_environment(environment, asked)
    assert said in str(refused.value)
    assert refused.value.fix


def test_what_torchrun_says_is_taken_when_it_is_what_was_asked_for():
    assert from_environment({"HOME": "/root"}, 3) is None
    assert from_environment(TOGETHER, 2) == Place(0, 2, "127.0.0.1", 29500)
    assert from_environment(TOGETHER | {"RANK": "1", "LOCAL_RANK": "1"}, 2) == Place(1, 2, "127.0.0.1", 29500, 1)


def test_a_rank_takes_the_gpu_it_was_told_and_none_by_guess():
    assert Place(9, 16, "node-1", 29500, 1).device("cuda") == "cuda:1"
    assert Place(9, 16, "node-1", 29500).device("cpu") == "cpu"
    with pytest.raises(UsageError, match="rank 9 of 16 was not told which GPU") as refused:
        Place(9, 16, "node-1", 29500).device("cuda")
    assert "LOCAL_RANK" in str(refused.value)


@pytest.mark.parametrize("part", ["transformer", "codec"])
def test_a_world_size_alone_is_refused_before_anything_waits(
    hm: WarmCommand, nano: Path, latents: Path, clips: Path, tmp_path: Path, part: str
):
    source = latents if part == "transformer" else clips
    line = ["train", nano, "--latents", source, "--out", tmp_path / "run", "--set", f"train.part={part}"]
    refused = hm(*line, env={"WORLD_SIZE": "2"})
    assert refused.returncode == 2
    assert "WORLD_SIZE" in refused.stderr
    assert not (tmp_path / "run").exists()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize("rank", [0, 1])
def test_a_missing_rank_is_named_after_a_while(monkeypatch: pytest.MonkeyPatch, rank: int):
    monkeypatch.setattr(ranks, "PEERS_SECONDS", 1.0)
    with (
        pytest.raises(HMError, match="missing: 1" if rank == 0 else "nobody answers there") as error,
        joined(Place(rank, 2, "127.0.0.1", free_port())),
    ):
        pytest.fail("there is nobody else")
    assert f"rank {rank} of 2 waited" in str(error.value)
    assert ranks.PEERS_SECONDS < 60


def test_sigterm_ends_a_rank_that_waits_for_others(hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path):
    line = ["train", nano, "--latents", latents, "--out", tmp_path / "run", "--num-processes", "2"]
    waiting = hm.start(*line, env=TOGETHER | {"MASTER_PORT": str(free_port())})
    wait_for(lambda: any(tmp_path.iterdir()))  # the lock
    waiting.send_signal(signal.SIGTERM)
    ended = waiting.wait(30)
    assert ended.returncode == 75, ended.stderr
    assert "Traceback" not in ended.stderr


MUTE = """
import sys, time
from hmcli.stages.training.ranks import Place, joined
with joined(Place(1, 2, "127.0.0.1", int(sys.argv[1]))):
    print("joined", flush=True)
    time.sleep(120)
"""
STUCK = """
import os, signal, sys, threading
from hmcli.stages.training import ranks
ranks.STUCK_SECONDS = 0.3
heard = []
signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
own = ranks.Ranks(0, int(sys.argv[1]))
watch = own.watch
with ranks.ending_when_stuck(own):
    if sys.argv[2] != "loading":
        watch.step()
    watch.saving = sys.argv[2] == "saving"
    os.kill(os.getpid(), int(sys.argv[3]))
    if watch.saving:
        threading.Event().wait(0.5)
        os.kill(os.getpid(), int(sys.argv[3]))  # a second one
    threading.Event().wait(2)  # as long as another rank lets it wait
print("went on")
"""


@pytest.mark.parametrize(
    ("count", "doing", "number", "code"),
    [
        (2, "waiting", signal.SIGTERM, 75), (2, "loading", signal.SIGTERM, 75), (2, "saving", signal.SIGTERM, 0),
        (1, "waiting", signal.SIGTERM, 0), (2, "waiting", signal.SIGCHLD, 0),
    ],
)  # fmt: skip
def test_sigterm_ends_a_rank_that_waits_for_one_that_is_stuck(count: int, doing: str, number: int, code: int):
    """Not one that writes a checkpoint, or that trains alone; and no other signal."""
    line = [sys.executable, "-c", STUCK, str(count), doing, str(int(number))]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    assert ("went on" in done.stdout) == (code == 0)
    assert ("another rank was stuck" in done.stderr) == (code == 75 and doing == "waiting")
    assert ("before the first step" in done.stderr) == (doing == "loading")
    assert code or not done.stderr


def test_sigterm_ends_a_rank_whose_peer_is_stuck_before_the_first_step(
    hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path
):
    """The second rank comes to the meeting and says nothing more: the first one waits in torch, outside of Python."""
    port = str(free_port())
    line = ["train", nano, "--latents", latents, "--out", tmp_path / "run", *LONG]
    first = hm.start(*line, env=TOGETHER | {"MASTER_PORT": port})
    with subprocess.Popen([sys.executable, "-c", MUTE, port], stdout=subprocess.PIPE, text=True) as second:
        try:
            assert second.stdout is not None
            assert second.stdout.readline() == "joined\n"
            time.sleep(1)  # for the first one to be past the meeting
            first.send_signal(signal.SIGTERM)
            ended = first.wait(60)
        finally:
            second.kill()
    assert ended.returncode == 75, ended.stderr
    assert "before the first step" in ended.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_ranks_may_be_started_by_others_too(hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path, whole: Path):
    """As torchrun does on each of several machines."""
    port = str(free_port())
    line = ["train", nano, "--latents", latents, "--out", tmp_path / "run", *LONG]
    started = [hm.start(*line, env=TOGETHER | {"RANK": str(rank), "MASTER_PORT": port}) for rank in range(2)]
    first, second = (running.wait() for running in started)
    assert (second.returncode, second.stdout) == (0, "")
    assert rows(ok(first)) == rows(whole)
    assert files(tmp_path / "run", "000009") == files(whole, "000009")


STUBS = {
    "srun": 'exec "${@:2}"',
    "scontrol": 'if [ "$1" = show ]; then echo localhost; else echo "$@" >> "$REQUEUED"; fi',
}


def test_the_cluster_s_script_trains_in_torchrun_s_ranks_and_is_queued_again_when_stopped(
    hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path
):
    """All but SLURM is real: its two commands are stubs, one node has two GPUs that are none."""
    tools = tmp_path / "bin"
    tools.mkdir()
    hm.shim(tools)
    for name, line in STUBS.items():
        (tools / name).write_text(f"#!/bin/bash\n{line}\n")
        (tools / name).chmod(0o755)
    env = os.environ | {
        "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}", "PORT": str(free_port()),
        "SLURM_JOB_NUM_NODES": "1", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "localhost",
        "REQUEUED": str(tmp_path / "requeued"),
    }  # fmt: skip
    script = Path(__file__).parents[2] / "recipes/cluster/train.sbatch"
    line = ["bash", str(script), str(nano), str(latents), str(tmp_path / "run")]
    done = subprocess.run(line, env=env, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "run")]
    assert read_manifest(tmp_path / "run").attributes["ranks"] == 2
    assert not (tmp_path / "requeued").exists()
    (tmp_path / "run" / "manifest.json").unlink()  # as after SIGTERM: checkpoints, and no manifest
    (tools / "srun").write_text("#!/bin/bash\nexit 1\n")
    stopped = subprocess.run(line, env=env, capture_output=True, text=True, check=False, timeout=240)
    assert stopped.returncode == 1
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"


def test_whoever_trains_sees_the_same_samples(nano: Path, latents: Path):
    """What a step sees follows from seed and step alone: a share is cut from it, whatever the number of ranks."""
    training = training_of(nano, latents, "train.batch=3")
    clips = [training.view.clip(clip) for clip in training.view.ids()[:3]]
    whole = training.prepare(2, clips)
    for parts in (1, 2, 3):
        pieces = [whole.share(number, parts) for number in range(parts)]
        assert torch.equal(torch.cat([piece.batch.latents for piece in pieces]), whole.batch.latents)
        assert torch.equal(torch.cat([piece.question.timesteps for piece in pieces]), whole.question.timesteps)
        assert np.array_equal(torch.cat([piece.batch.camera for piece in pieces]), whole.batch.camera)
