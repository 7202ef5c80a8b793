"""Every key of a recipe acts: another value of it makes another result, or is refused.

`TABLE` says for every key which stage shows it, what else must be set for it to matter, and the other value. A key that
is not in the table fails the first test.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_lpips import write_random_lpips
from small_clip import write_random_clip
from small_detector import write_random_detector
from torch.nn.modules.module import register_module_forward_hook

from hmcli import registry
from hmcli.errors import HMError
from hmcli.metrics.averages import mean_score
from hmcli.recipe.readers import KEYS
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import Recipe
from hmcli.runtime import Silent
from hmcli.stages.data.opening import open_dataset
from hmcli.stages.latents import encode
from hmcli.stages.latents.view import open_latents
from hmcli.stages.models.folders import find_model
from hmcli.stages.rendering import render
from hmcli.stages.sampling.job import generate_latents, open_job
from hmcli.stages.sampling.rollout import roll_out
from hmcli.stages.scoring import evaluate
from hmcli.stages.training import blocks, codec, train
from hmcli.store.files import read_json
from hmcli.store.video import read_video, write_video
from hmcli.world.views.cameras import unreal_from_world

FOV = "model.memory.policy=fov"
PER_FRAME = "flow.noise=per-frame model.memory.context=joint"
LORA = "train.lora={rank: 2}"
LOOKS = "train.held_out=1 train.validate_every=2 train.validate_steps=1"
SPLIT = "data.split={context: 9, target: 5}"
# key: (stage, what it takes to matter, another value)
TABLE: dict[str, tuple[str, str, str]] = {
    "format": ("render", "", "2"),
    "seed": ("render", "", "6"),
    "world.clips": ("render", "", "2"),
    "world.context_frames": ("render", "", "25"),
    "world.target_frames": ("render", "", "25"),
    "world.fps": ("render", "", "8"),
    "world.size": ("render", "", "[32, 56]"),
    "world.field_of_view": ("render", "", "45"),
    "world.scenes": ("render", "", "[lunar]"),
    "world.places": ("render", "", "1"),
    "world.subjects": ("render", "", "[clown]"),
    "world.looks": ("render", "", "1"),
    "world.paths": ("render", "", "[loop]"),
    "world.subjects_per_clip": ("render", "", "[3, 3]"),
    "world.subject_height": ("render", "", "[0.5, 0.55]"),
    "world.detail": ("render", "", "low"),
    "world.split": ("render", "", "hard"),
    "world.hold_out": ("render", "", "test"),
    "world.visible_seconds": ("render", "", "1.2"),
    "world.hidden_seconds": ("render", "", "1.9"),
    "world.longest_seconds": ("render", "", "1.2"),
    "world.captioner": ("render", "", "nowhere"),
    "world.benchmark": ("render", "", "hm-bench-1"),
    "world.camera.trajectory": ("render", "", "crane-up"),
    "world.camera.degrees": ("render", "world.camera.trajectory=pan-left world.camera.follow=0", "70"),
    "world.camera.follow": ("render", "world.camera.trajectory=dolly-in world.camera.follow=0", "1"),
    "world.camera.cut": ("render", "world.subject_height=[0.9,0.95] world.camera.cut=0.5", "0"),
    "world.antialias": ("render", "", "true"),
    "poses.repair": ("dataset", "", "reference"),
    "data.size": ("encode", "", "[32, 32]"),
    "data.fit": ("encode", "data.size=[32,32]", "stretch"),
    "data.frames": ("encode home", "", "trim"),
    "data.compressor": ("packed", "", "blosc"),
    "data.keep_bits": ("encode", "", "6"),
    "data.fps": ("encode", "", "8"),
    "data.split.context": ("encode", SPLIT, "13"),
    "data.split.target": ("encode", SPLIT, "9"),
    "codec.name": ("encode", "", "wan2.1"),
    "codec.path": ("encode", "", "nowhere"),
    "codec.channels": ("codec", "", "8"),
    "codec.stride": ("codec", "", "4"),
    "codec.whitening": ("blocks", "", "0"),
    "codec.dtype": ("encode", "", "bfloat16"),
    "codec.tile": ("encode", "", "[16, 16]"),
    "codec.chunk_frames": ("encode", "codec.chunk_frames=1", "2"),
    "text.name": ("encode", "", "umt5"),
    "text.path": ("encode", "", "nowhere"),
    "text.length": ("encode", "", "9"),
    "text.dtype": ("encode", "", "bfloat16"),
    "model.base": ("train", "", "mini"),
    "model.layers": ("train", "", "1"),
    "model.dim": ("train", "", "36"),
    "model.heads": ("train", "", "1"),
    "model.ffn_dim": ("train", "", "48"),
    "model.freq_dim": ("train", "", "24"),
    "model.patch": ("train", "", "[1, 1, 2]"),
    "model.positions": ("train", "", "rays"),
    "model.memory.policy": ("train", "", "recent"),
    "model.memory.affinity": ("train", "", "spatial"),
    "model.memory.context": ("train", "", "joint"),
    "model.memory.top_k": ("train", "", "2"),
    "model.memory.window": ("train", "", "1"),
    "model.memory.kernel": ("train", "", "[1, 2, 2]"),
    "model.memory.tokenizer": ("train", "", "mean"),
    "model.memory.spans": ("train", "model.memory.kernel=[3,2,2]", "released"),
    "model.memory.max_history": ("train", "", "1"),
    "model.memory.near": ("train", f"{FOV} model.memory.near=0.5 model.memory.far=6", "5"),
    "model.memory.far": ("train", FOV, "2"),
    "model.memory.field_of_view": ("train blind", FOV, "50"),
    "flow.shift": ("train", "", "2"),
    "flow.target": ("train", "", "clean_minus_noise"),
    "flow.weighting": ("train", "", "bell"),
    "flow.density": ("train", "", "logit-normal"),
    "flow.timesteps": ("train", "", "10"),
    "flow.noise": ("train", "model.memory.context=joint", "per-frame"),
    "flow.loss": ("train", PER_FRAME, "all"),
    "train.part": ("train", "", "codec"),
    "train.steps": ("train", "", "1"),
    "train.batch": ("train", "", "1"),
    "train.accumulate": ("train", "", "2"),
    "train.parallel": ("train", "", "fsdp"),
    "train.offload": ("train", "", "true"),
    "train.shuffle": ("train", "", "shards"),
    "train.lr": ("train", "", "1e-4"),
    "train.warmup": ("train", "", "1"),
    "train.decay": ("train", "train.warmup=0", "cosine"),
    "train.optimizer": ("train", "", "muon"),
    "train.weight_decay": ("train", "", "0.3"),
    "train.betas": ("train", "", "[0.8, 0.9]"),
    "train.clip_norm": ("train", "", "1e-4"),
    "train.draws": ("train", "", "2"),
    "train.anchor_turn": ("train", "", "90"),
    "train.anchor_shift": ("train", "", "2"),
    "train.older": ("train", "train.steps=4", "30"),
    "train.held_out": ("train", "", "1"),
    "train.validate_every": ("train", "train.held_out=1 train.validate_steps=1", "2"),
    "train.validate_clips": ("train", LOOKS, "0"),
    "train.validate_steps": ("train", LOOKS, "2"),
    "train.validate_metrics": ("train", LOOKS, "[nowhere]"),
    "train.text_dropout": ("train", "train.text_dropout=0", "0.9"),
    "train.camera_dropout": ("train", "", "0.9"),
    "train.train_only": ("train", "", "[ffn]"),
    "train.lora.rank": ("train", LORA, "3"),
    "train.lora.alpha": ("train", LORA, "4"),
    "train.lora.targets": ("train", LORA, "[to_q]"),
    "train.gradient_checkpointing": ("train", "", "true"),
    "train.attention": ("train", "", "nowhere"),
    "train.dtype": ("train", "", "bfloat16"),
    "train.compile": ("train", "", "blobs"),
    "train.checkpoint_every": ("train", "", "1"),
    "train.keep": ("train", "train.checkpoint_every=1", "1"),
    "train.ema": ("train", "", "0.5"),
    "train.trackers": ("train", "", "[nowhere]"),
    "train.frames": ("codec", "", "9"),
    "train.subject_weight": ("codec", "train.batch=4", "50"),
    "sample.steps": ("generate", "", "1"),
    "sample.count": ("generate", "", "2"),
    "sample.batch": ("generate", "sample.chunk=9", "2"),
    "sample.chunk": ("generate", "", "9"),
    "sample.frames": ("generate", "sample.chunk=9", "10"),
    "sample.max_history": ("generate", "", "2"),
    "sample.anchor_radius": ("generate", "", "3"),  # refused without chunks; what it does: test_rollout.py
    "sample.scheduler": ("generate", "sample.steps=3", "unipc"),
    "sample.branches": ("generate", "sample.guidance=2", "together"),
    "sample.cache": ("generate", "sample.steps=4", "first-block:9"),
    "sample.compile": ("generate", "sample.steps=4 sample.cache=first-block:9", "blocks"),
    "sample.quantize": ("generate", "sample.offload=disk", "int8"),  # refused; what it does: test_lighter.py
    "sample.offload": ("generate", "", "memory"),  # refused on a CPU; what it does: test_lighter.py
    "sample.guidance": ("generate", "", "2"),
    "sample.history_guidance": ("generate", "", "2"),
    "sample.history_level": ("generate", "", "0.4"),
    "sample.shift": ("generate", "", "2"),
    "sample.negative": ("generate", "", "a dog"),
    "sample.attention": ("generate", "", "nowhere"),
    "sample.dtype": ("generate", "", "bfloat16"),
    "sample.memory": ("generate", "", "off"),
    "eval.metrics": ("eval", "", "[ssim]"),
    "eval.backbone": ("eval", "eval.metrics=[subject-consistency]", "dino"),
    "eval.backbone_path": ("eval", "eval.metrics=[subject-consistency]", "nowhere"),
    "eval.lpips": ("eval", "eval.metrics=[lpips] eval.lpips_path=LPIPS", "vgg"),
    "eval.lpips_path": ("eval", "eval.metrics=[lpips] eval.lpips_path=LPIPS", "nowhere"),
    "eval.dsc_path": ("eval", "eval.metrics=[dsc-gt-official] eval.dsc_path=VISION", "nowhere"),
    "eval.detector": ("eval", "eval.metrics=[found] eval.detector=transformers eval.detector_path=DETECTOR", "nobody"),
    "eval.detector_path": (
        "eval",
        "eval.metrics=[found] eval.detector=transformers eval.detector_path=DETECTOR",
        "nowhere",
    ),
    "eval.videos": ("folder", "", "joined"),
    "eval.resize": ("folder", "", "stretch"),
    "eval.average": ("average", "", "videos"),
}
ALWAYS = {
    "render": "world.clips=1 world.camera.trajectory=pan-left world.subjects_per_clip=[1,1]",
    "train": "train.steps=2", "train blind": "train.steps=2",
    "codec": "train.part=codec train.steps=2 train.frames=5 train.warmup=0 train.batch=1 "
    "data.size=[16,24] model.patch=[1,1,1]",
    "blocks": "train.part=blocks codec.stride=4 data.size=[16,24] train.steps=40 train.lr=3e-4 train.warmup=10 "
    "train.checkpoint_every=20",
    "eval": "eval.metrics=[psnr]", "folder": "eval.metrics=[psnr]",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def found() -> Iterator[None]:
    """A metric of detections, as another package might bring it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.BUILT_IN["metric"], "found", "small_detector:FOUND")
        yield


def test_every_key_is_in_the_table():
    assert list(TABLE.keys() ^ KEYS.keys()) == []


@pytest.fixture(scope="module")
def stages(
    nano: Path, clips: Path, latents: Path, run: Path, generation: Path, tmp_path_factory: pytest.TempPathFactory
) -> Stages:
    return Stages(nano, clips, latents, run, generation, tmp_path_factory.mktemp("acts"))


@pytest.mark.parametrize("path", list(TABLE))
def test_another_value_of_a_key_makes_another_result_or_is_refused(path: str, stages: Stages):
    stage, needed, value = TABLE[path]
    before = stages.outcome(stage, needed)
    after = stages.outcome(stage, needed, f"{path}={value}")
    assert before != after, f"{path}={value} changes nothing of {stage}: {before}"
    refused = [outcome for outcome in (before, after) if outcome.startswith("refused")]
    assert len(refused) < 2, refused
    assert all(path in outcome or value in outcome or "4k+1" in outcome for outcome in refused), refused


class Stages:
    """Runs stages in this process and says what came out, or why it was refused; what was asked before is kept."""

    def __init__(self, nano: Path, clips: Path, latents: Path, run: Path, generation: Path, place: Path) -> None:
        self.nano, self.clips, self.latents, self.run, self.generation = nano, clips, latents, run, generation
        self.place, self.known, self.count = place, dict[tuple[str, ...], str](), 0
        self.lpips = write_random_lpips(place / "lpips", "alex")
        self.detector = write_random_detector(place / "detector")
        self.vision = write_random_clip(place / "vision")

    def outcome(self, stage: str, *settings: str) -> str:
        if (stage, *settings) not in self.known:
            self.known[stage, *settings] = self._outcome(stage, settings)
        return self.known[stage, *settings]

    def _outcome(self, stage: str, settings: tuple[str, ...]) -> str:
        words = [*ALWAYS.get(stage, "").split(), *_words(settings[0]), *settings[1:]]
        asked = [
            word.replace("LPIPS", str(self.lpips))
            .replace("DETECTOR", str(self.detector))
            .replace("VISION", str(self.vision))
            for word in words
        ]
        show: Callable[[Recipe, Path], Any] = getattr(self, stage.replace(" ", "_"))
        self.count += 1
        try:
            base = dict(find_model(self.run).manifest.recipe) if stage == "generate" else None
            recipe = load_recipe(None if base else self.nano, asked, base)
            with counted() as calls:
                shown = show(recipe, self.place / str(self.count))
        except HMError as error:
            return f"refused: {error}"
        return f"{shown} in {calls[0]} calls"

    def render(self, recipe: Recipe, out: Path) -> str:
        render.run(recipe, out=out, reporter=Silent())
        return of_files(file for file in out.rglob("*") if file.is_file() and file.name not in BOOKKEEPING)

    def encode(self, recipe: Recipe, out: Path, data: Path | None = None) -> str:
        data = data or one_of(self.clips, self.place / "plain")
        encode.run(recipe, data=data, out=out, force=False, device="cpu", reporter=Silent())
        view = open_latents(out)
        every = [view.clip(clip) for clip in view.ids()]
        return of_bytes(part.tobytes() for clip in every for part in (clip.latents, clip.camera, clip.text))

    def packed(self, recipe: Recipe, out: Path) -> str:
        self.encode(recipe, out)
        return of_files(file for file in out.rglob("latents/c/**/*") if file.is_file())

    def encode_home(self, recipe: Recipe, out: Path) -> str:
        """A clip of ten frames, which is no 4k+1."""
        cameras = {
            f"{name}_cam": {n: m.tolist() for n, m in still(c).items()} for name, c in (("cond", 10), ("tgt", 9))
        }
        return self.encode(recipe, out / "latents", home_made(out / "home", 10, cameras))

    def dataset(self, recipe: Recipe, out: Path) -> str:
        """Cameras as text, without that of the first frame."""
        rows = {n: [" ".join(map(str, column.tolist())) for column in m.T] for n, m in still(13).items() if n != "0"}
        text = {n: " ".join(f"[{column}]" for column in columns) for n, columns in rows.items()}
        dataset = open_dataset(home_made(out, 9, text), recipe.poses)
        return f"{[clip.id for clip in dataset.clips]}, {dataset.quarantined}"

    def train(self, recipe: Recipe, out: Path, latents: Path | None = None) -> str:
        source = latents or self.latents
        if recipe.train.part == "codec":
            return self.codec(recipe, out)
        train.run(recipe, latents=source, out=out, force=False, device="cpu", reporter=Silent())
        kept = sorted(folder.name for folder in (out / "checkpoints").iterdir())
        return f"{kept} {of_files(sorted(out.rglob('transformer/*.safetensors')))}"

    def train_blind(self, recipe: Recipe, out: Path) -> str:
        """On clips whose source says nothing of its lens."""
        latents = self.place / "blind.zarr"
        if not latents.exists():
            bare = one_of(self.clips, self.place / "bare", leave_out=("intrinsics.json",))
            self.encode(load_recipe(self.nano), latents, bare)
        return self.train(recipe, out, latents)

    def codec(self, recipe: Recipe, out: Path) -> str:
        codec.run(recipe, data=self.clips, out=out, force=False, device="cpu", reporter=Silent())
        return of_files(sorted((out / "vae").glob("*.safetensors")))

    def blocks(self, recipe: Recipe, out: Path) -> str:
        blocks.run(recipe, data=self.clips, out=out, reporter=Silent())
        return of_files(sorted((out / "vae").glob("*")))

    def generate(self, recipe: Recipe, out: Path) -> str:
        job, ids = open_job(recipe, find_model(self.run), self.latents, [], None, (), "cpu", Silent())
        samples = range(1, recipe.sample.count + 1)
        if recipe.sample.chunk:
            return of_bytes(part.tobytes() for part in roll_out(job, job.view.clip(ids[0]), 1, out))
        return of_bytes(generate_latents(job, job.view.clip(ids[0]), number).tobytes() for number in samples)

    def eval(self, recipe: Recipe, out: Path) -> str:
        evaluate.run(
            recipe, generation=self.generation, reference=None, metrics=recipe.eval.metrics, out=out, reporter=Silent()
        )
        return json.dumps(read_json(out / "scores.json"))

    def folder(self, recipe: Recipe, out: Path) -> str:
        """True targets at half their size, as a plain folder."""
        videos = self.place / "foreign"
        videos.mkdir(exist_ok=True)
        for source in open_dataset(self.clips, recipe.poses).clips:
            target = read_video(source.files["target"])
            write_video(videos / f"{source.id}.mp4", target[:, ::2, ::2], fps=10)
        evaluate.run(
            recipe, generation=videos, reference=self.clips, metrics=recipe.eval.metrics, out=out, reporter=Silent()
        )
        return json.dumps(read_json(out / "scores.json"))

    def average(self, recipe: Recipe, _: Path) -> str:
        return str(mean_score([[1.0], [2.0, 3.0]], recipe.eval.average))


BOOKKEEPING = ("manifest.json", "commit.json")


def _words(text: str) -> list[str]:
    """Settings as they are written in the table; a section in braces is one of them."""
    return [text] if "{" in text else text.split()


def of_bytes(parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


def of_files(files: Any) -> str:
    return of_bytes(file.name.encode() + file.read_bytes() for file in sorted(files))


@contextmanager
def counted() -> Iterator[list[int]]:
    """How often any layer was called: what recomputes, or works in pieces, shows so."""
    calls = [0]

    def count(*_: Any) -> None:
        calls[0] += 1

    hook = register_module_forward_hook(count)
    try:
        yield calls
    finally:
        hook.remove()


def one_of(clips: Path, folder: Path, leave_out: tuple[str, ...] = ()) -> Path:
    """The first of the clips, as a folder that others might have made."""
    if not folder.exists():
        first = min(place for place in clips.iterdir() if (place / "cond.mp4").is_file())
        shutil.copytree(first, folder / first.name, ignore=shutil.ignore_patterns(*leave_out))
        (folder / "caption.txt").write_text(f"{first.name}\tA street.\n")
    return folder


def home_made(folder: Path, context: int, cameras: dict[str, Any]) -> Path:
    """A grey clip in the released layout, with these cameras."""
    (folder / "one").mkdir(parents=True)
    for name, count in (("cond", context), ("tgt", 9)):
        video = np.full((count, 32, 48, 3), 90, np.uint8)
        write_video(folder / "one" / f"{name}.mp4", video, fps=15, quality="lossless")
    (folder / "one" / "camera.json").write_text(json.dumps(cameras))
    return folder


def still(frames: int) -> dict[str, np.ndarray]:
    """Cameras of a clip that do not move, by frame, as the released files have them."""
    return dict(zip(map(str, range(frames)), unreal_from_world(np.tile(np.eye(4), (frames, 1, 1))), strict=True))
