"""Training a codec on a folder of videos: the artifact, exact resume, refusals."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hmcli.codecs import training
from hmcli.codecs.mini_vae import new_mini_vae
from hmcli.codecs.video import mini_codec
from hmcli.errors import DataError, RecipeError, UsageError
from hmcli.recipe.sections import CodecConfig, DataConfig, Recipe, TrainConfig, WorldConfig
from hmcli.stages.rendering import render
from hmcli.stages.training import codec as train_codec
from hmcli.stages.training.muon import Muon
from hmcli.stages.training.state import read_state
from hmcli.store.manifest import is_artifact, read_manifest
from hmcli.store.video import read_video, write_video

SIZE = (16, 24)  # height, width
RECIPE = Recipe(
    seed=5,
    data=DataConfig(size=SIZE),
    train=TrainConfig(part="codec", steps=5, batch=1, frames=5, lr=1e-3, warmup=1, ema=0.5, checkpoint_every=2, keep=2),
)
WEIGHTS = "vae/diffusion_pytorch_model.safetensors"


class Quiet:
    """A reporter that remembers, and may interrupt the work after some steps as Ctrl-C between two steps does."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.lines: list[str] = []
        self.stop_after = stop_after

    def note(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(text)

    @contextlib.contextmanager
    def progress(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        done = 0

        def advance(n: int) -> None:
            nonlocal done
            done += n
            if done == self.stop_after:
                raise KeyboardInterrupt

        yield advance


def make_videos(folder: Path, count: int = 2, frames: int = 6) -> Path:
    """A plain folder of videos whose lengths are not 4k+1 and whose cameras stand still."""
    folder.mkdir()
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    rows = ["file_name,caption,camera"]
    for n in range(count):
        moving = [np.stack([x * 9 + t * 20, y * 14 + n * 50, x * 4 + y * 5], axis=-1) % 256 for t in range(frames + n)]
        write_video(folder / f"{n}.mp4", np.stack(moving).astype(np.uint8), fps=15)
        rows.append(f"{n}.mp4,,static")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("data") / "videos")


@pytest.fixture(scope="module")
def trained(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "codec"
    return train_codec.run(RECIPE, data=videos, out=out, reporter=Quiet()).path


def test_the_artifact_is_a_codec_that_codec_path_accepts(trained, videos):
    codec = mini_codec(CodecConfig(path=str(trained)), "cpu")
    assert load_file(trained / WEIGHTS)["encoder.conv_in.weight"].dtype == torch.float16
    clip = torch.from_numpy(read_video(videos / "0.mp4")[None, :5]).permute(0, 4, 1, 2, 3) / 127.5 - 1
    latents = codec.encode(clip)
    assert latents.shape == (1, 16, 2, 2, 3)
    assert 0.2 < float(latents.std()) < 5.0, "normalised with its own statistics"
    assert codec.decode(latents).shape == clip.shape


def test_the_manifest_says_what_was_trained_on_and_how_well(trained):
    manifest = read_manifest(trained, kinds=("codec",))
    assert manifest.counts == {"steps": 5, "videos": 2, "held_out": 0}
    assert manifest.recipe["train"]["steps"] == 5
    assert set(manifest.inputs) == {"clips"}
    assert 3.0 < manifest.attributes["psnr_training"] < 60.0
    assert [path.name for path in sorted((trained / "checkpoints").iterdir())] == ["000004", "000005"]
    steps = [json.loads(line)["step"] for line in (trained / "steps.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5]


def test_a_run_that_was_interrupted_ends_with_the_same_bytes(trained, videos, tmp_path):
    out = tmp_path / "codec"
    with pytest.raises(KeyboardInterrupt):
        train_codec.run(RECIPE, data=videos, out=out, reporter=Quiet(stop_after=3))
    assert not is_artifact(out)
    again = Quiet()
    train_codec.run(RECIPE, data=videos, out=out, reporter=again)
    assert "going on from step 2" in again.lines
    assert (out / WEIGHTS).read_bytes() == (trained / WEIGHTS).read_bytes()
    assert (out / "steps.jsonl").read_text() == (trained / "steps.jsonl").read_text()
    assert read_manifest(out).attributes == read_manifest(trained).attributes
    assert read_manifest(out).fingerprint == read_manifest(trained).fingerprint


@pytest.mark.parametrize(("ema", "decay"), [(0.0, "constant"), (0.3, "cosine"), (0.999, "constant")])
def test_a_run_is_training_as_the_recipe_says_it(videos, tmp_path, ema, decay):
    """Equal to the last bit, step after step, to training written plainly."""
    changed = {"steps": 5, "lr": 1e-2, "warmup": 2, "betas": (0.6, 0.8), "weight_decay": 0.5, "clip_norm": 0.5}
    recipe = replace(RECIPE, train=replace(RECIPE.train, **changed, ema=ema, decay=decay))
    run = train_codec.run(recipe, data=videos, out=tmp_path / "run", reporter=Quiet()).path
    log, weights, average = plainly(recipe, videos)
    assert [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()] == log
    state = read_state(run / "checkpoints" / "000005", seed=recipe.seed, instead="")
    assert [name for name in weights if not torch.equal(state.weights[name], weights[name])] == []
    assert [name for name in weights if ema and not torch.equal(state.average[name], average[name])] == []
    exported = load_file(run / WEIGHTS)
    wanted = average if ema else weights
    assert [name for name in wanted if not torch.equal(exported[name], wanted[name].half())] == []


def plainly(recipe: Recipe, videos: Path) -> tuple[list[dict[str, float]], dict[str, Tensor], dict[str, Tensor]]:
    """What the log says of each step, the weights, and their average."""
    t, vae, log = recipe.train, new_mini_vae(recipe.seed, z_dim=recipe.codec.channels), []
    named = dict(vae.named_parameters())
    average = {name: p.detach().clone() for name, p in named.items()}
    kernels = [p for n, p in named.items() if p.ndim >= 4 and p.numel() >= 2000 and "conv_in" not in n]
    others = [p for p in named.values() if all(p is not kernel for kernel in kernels)]
    adamw = torch.optim.AdamW(others, lr=t.lr, betas=t.betas, eps=1e-8, weight_decay=t.weight_decay)
    muon = Muon(kernels, lr=t.lr, weight_decay=t.weight_decay)
    frames = [read_video(videos / f"{n}.mp4") for n in range(2)]
    footage = [training.Footage(clip="", frames=f, subjects=np.zeros(f.shape[:3], np.uint8)) for f in frames]
    for step in range(t.steps):
        rng = np.random.default_rng([recipe.seed, step])
        plan = training.BatchPlan(clips=4 if step < 3 else 1, frames=1 if step < 3 else 5, height=8, width=8)
        video, weight, _ = training.draw_batch(footage, plan, 0.0, rng)
        chance = torch.Generator().manual_seed(int(rng.integers(2**62)))
        with training.single_frame_convolutions():
            seen = vae.encode(video).latent_dist
            drawn = seen.mean + seen.std * torch.randn(seen.mean.shape, generator=chance)
            loss, parts = training.codec_loss(video, vae.decode(drawn).sample, weight, seen.mean, seen.logvar)
        for optimizer, scale in ((adamw, 1.0), (muon, 2.0)):
            optimizer.zero_grad()
            optimizer.param_groups[0]["lr"] = scale * plain_rate(t, step)
        loss.backward()
        assert torch.nn.utils.clip_grad_norm_(vae.parameters(), t.clip_norm) > t.clip_norm
        adamw.step()
        muon.step()
        share = 1 - min(t.ema, (2 + step) / (11 + step))
        for name, p in named.items():
            average[name] -= share * (average[name] - p.detach())
        log.append({"step": step + 1, **{name: float(value) for name, value in parts.items()}})
    return log, {name: p.detach() for name, p in named.items()}, average


def plain_rate(t: TrainConfig, step: int) -> float:
    """Three steps on pictures, two on clips at a quarter of the rate; each with a warm-up of two."""
    peak, step, left = (t.lr, step, 1) if step < 3 else (t.lr / 4, step - 3, 1)
    if t.decay == "constant" or step < 2:
        return peak * min(1.0, (step + 1) / 2)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - 2) / left)))


def test_a_finished_run_is_kept(trained, videos):
    before, quiet = (trained / "manifest.json").read_bytes(), Quiet()
    result = train_codec.run(RECIPE, data=videos, out=trained, reporter=quiet)
    assert (trained / "manifest.json").read_bytes() == before
    assert result.fingerprint == read_manifest(trained).fingerprint
    assert "already trained to step 5" in quiet.lines


def test_another_recipe_in_the_same_folder_is_refused_unless_it_is_pruned(videos, tmp_path):
    out, short = tmp_path / "codec", replace(RECIPE, train=replace(RECIPE.train, steps=1))
    train_codec.run(short, data=videos, out=out, reporter=Quiet())
    other = replace(short, seed=6)
    for options in ({}, {"force": True}):
        with pytest.raises(UsageError, match="another recipe"):
            train_codec.run(other, data=videos, out=out, reporter=Quiet(), **options)
    train_codec.run(other, data=videos, out=out, reporter=Quiet(), prune=True)
    assert (read_manifest(out).seed, list(read_manifest(out).items)) == (6, ["000001"])


def test_training_starts_from_codec_path_when_it_is_set(trained, videos, tmp_path):
    slow = replace(RECIPE.train, steps=1, lr=1e-9, ema=0.0)
    recipe = replace(RECIPE, train=slow, codec=CodecConfig(path=str(trained / "vae")))
    out = train_codec.run(recipe, data=videos, out=tmp_path / "codec", reporter=Quiet()).path
    before, after = load_file(trained / WEIGHTS), load_file(out / WEIGHTS)
    assert all(torch.allclose(before[name].float(), after[name].float(), atol=1e-3) for name in before)


def test_training_the_decoder_alone_leaves_latents_as_they_are(trained, videos, tmp_path):
    train = replace(RECIPE.train, train_only=("decoder", "post_quant_conv"), steps=2)
    recipe = replace(RECIPE, train=train, codec=CodecConfig(path=str(trained / "vae")))
    out = train_codec.run(recipe, data=videos, out=tmp_path / "out", reporter=Quiet()).path
    before, after = load_file(trained / WEIGHTS), load_file(out / WEIGHTS)
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"decoder", "post_quant_conv"}
    configs = [json.loads((path / "vae" / "config.json").read_text()) for path in (trained, out)]
    assert configs[0]["latents_mean"] == configs[1]["latents_mean"]
    assert configs[0]["latents_std"] == configs[1]["latents_std"]


def test_a_broken_video_is_set_aside_and_the_others_are_used(tmp_path):
    data = make_videos(tmp_path / "videos", count=3)
    (data / "1.mp4").write_bytes((data / "1.mp4").read_bytes()[:600])
    recipe = replace(RECIPE, train=replace(RECIPE.train, steps=1))
    result = train_codec.run(recipe, data=data, out=tmp_path / "codec", reporter=Quiet())
    assert [item.item for item in result.quarantined] == ["1"]
    assert result.counts["videos"] == 2


def test_videos_shorter_than_a_sample_cannot_be_trained_on(videos, tmp_path):
    recipe = replace(RECIPE, train=replace(RECIPE.train, frames=9))
    with pytest.raises(DataError, match="no clip can be trained on"):
        train_codec.run(recipe, data=videos, out=tmp_path / "codec", reporter=Quiet())


def test_a_new_codec_has_the_channels_asked_for_and_goes_on_with_these_alone(videos, tmp_path):
    recipe = replace(RECIPE, codec=CodecConfig(channels=5), train=replace(RECIPE.train, steps=1))
    out = train_codec.run(recipe, data=videos, out=tmp_path / "five", reporter=Quiet()).path
    assert mini_codec(CodecConfig(path=str(out)), "cpu").channels == 5
    onward = replace(recipe, codec=CodecConfig(path=str(out / "vae"), channels=6))
    with pytest.raises(RecipeError, match="has 5"):
        train_codec.run(onward, data=videos, out=tmp_path / "six", reporter=Quiet())


def test_a_new_codec_has_the_stride_asked_for_and_goes_on_with_it_alone(videos, tmp_path):
    recipe = replace(RECIPE, codec=CodecConfig(stride=4), train=replace(RECIPE.train, steps=1))
    out = train_codec.run(recipe, data=videos, out=tmp_path / "fine", reporter=Quiet()).path
    assert mini_codec(CodecConfig(path=str(out)), "cpu").stride == 4
    with pytest.raises(RecipeError, match="has 4"):
        train_codec.run(
            replace(recipe, codec=CodecConfig(path=str(out / "vae"))), data=videos, out=tmp_path / "coarse",
            reporter=Quiet(),
        )  # fmt: skip


def test_subjects_cannot_be_weighted_where_no_mask_shows_them(videos, tmp_path):
    recipe = replace(RECIPE, train=replace(RECIPE.train, subject_weight=2.0))
    with pytest.raises(DataError, match="no clip can be trained on"):
        train_codec.run(recipe, data=videos, out=tmp_path / "codec", reporter=Quiet())


def test_with_masks_the_score_inside_boxes_is_told_apart(tmp_path):
    world = WorldConfig(clips=10, context_frames=13, target_frames=17, fps=5, size=SIZE, subjects_per_clip=(1, 1))
    clips = render.run(Recipe(world=world), out=tmp_path / "clips", force=False, device="cpu", reporter=Quiet()).path
    recipe = replace(RECIPE, train=replace(RECIPE.train, steps=1, subject_weight=2.0))
    scores = train_codec.run(recipe, data=clips, out=tmp_path / "codec", reporter=Quiet()).details
    assert {"psnr_held_out", "psnr_held_out_subjects"} < set(scores)
    assert scores["psnr_held_out"] != scores["psnr_held_out_subjects"]


def test_a_setting_that_a_codec_does_not_use_is_refused(videos, tmp_path):
    for train in (
        replace(RECIPE.train, gradient_checkpointing=True),
        replace(RECIPE.train, dtype="bfloat16"),
        replace(RECIPE.train, part="transformer"),
    ):
        with pytest.raises(RecipeError):
            train_codec.run(replace(RECIPE, train=train), data=videos, out=tmp_path / "codec", reporter=Quiet())


def test_a_dry_run_writes_nothing(videos, tmp_path):
    quiet = Quiet()
    train_codec.run(RECIPE, data=videos, out=tmp_path / "codec", reporter=quiet, dry_run=True)
    assert not (tmp_path / "codec").exists()
    assert "2 clips, 5 steps" in quiet.lines[0]
