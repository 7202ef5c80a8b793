"""What becomes of a rollout's pictures with its length, and with its distance from the anchor pose?

    python benchmarks/drift.py                                     # the packaged model, 4 clips of 33 + 257 frames
    python benchmarks/drift.py --clips 2 --frames 65 --steps 4 --json drift.json

Clips are rendered with targets of `--frames` frames, so that there is a truth to compare with, and rolled out in chunks
(`sample.chunk`) under each of SETTINGS. By length: PSNR of the first 1, 2, 4, ... chunks, and of the last one of
them alone; the three drift metrics over all of these frames, with the truth's own. `held`: the last context frame,
shown on and on. By distance: the first chunk alone, context and target under an anchor moved sideways by so many
metres. Nothing else differs, so that whatever changes is what the model makes of poses that it never saw.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hmcli.metrics.drift import colour_drift, error_drift, sharpness_drift
from hmcli.metrics.pixel import frame_psnr
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.latents import encode
from hmcli.stages.latents.pixels import decode_video
from hmcli.stages.latents.view import LatentClip
from hmcli.stages.memory.kept import anchor_of, compute_memory, rows_from
from hmcli.stages.models.folders import find_model
from hmcli.stages.rendering import render
from hmcli.stages.sampling.job import Job, denoised, inputs_of, open_job
from hmcli.stages.sampling.rollout import chunks_of, roll_out
from hmcli.stages.sampling.samples import sample_seed
from hmcli.store.video import read_video

RECIPE = "mini/hydra"
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {}, "max_history=9": {"max_history": 9}, "anchor_radius=1": {"anchor_radius": 1.0},
}  # fmt: skip
METRES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # of the anchor, beside the one that clips have
Rows = list[dict[str, Any]]


def job_of(place: Path, asked: argparse.Namespace) -> Job:
    """Rendered and encoded clips, and the packaged model."""
    recipe = load_recipe(
        RECIPE,
        [f"world.clips={asked.clips}", f"world.target_frames={asked.frames}", f"seed={asked.seed}",
         f"sample.steps={asked.steps}", f"sample.chunk={asked.chunk}"],
    )  # fmt: skip
    render.run(recipe, out=place / "clips", reporter=Silent())
    encode.run(recipe, data=place / "clips", out=place / "latents", force=False, device="cpu", reporter=Silent())
    return open_job(recipe, find_model(Path("mini")), place / "latents", [], None, (), "cpu", Silent())[0]


def with_setting(job: Job, changes: dict[str, Any]) -> Job:
    return replace(job, recipe=replace(job.recipe, sample=replace(job.sample, **changes)))


def lengths_of(frames: int, chunk: int) -> list[int]:
    """Video frames of the first 1, 2, 4, ... chunks, and of all."""
    ends = [of.stop for of in chunks_of(frames, chunk)]
    return sorted({ends[min(2**power, len(ends)) - 1] for power in range(len(ends).bit_length() + 1)})


def by_length(job: Job, clips: dict[str, tuple[LatentClip, np.ndarray]], place: Path) -> Iterator[dict[str, Any]]:
    """A row for each clip, setting and length."""
    for setting, changes in SETTINGS.items():
        asked = with_setting(job, changes)
        for name, (clip, truth) in clips.items():
            chunks = chunks_of(len(truth), job.sample.chunk)
            rolled = zip(chunks, roll_out(asked, clip, 1, place / setting / name), strict=True)
            made = np.concatenate([decoded(asked, latents)[: chunk.stop - chunk.start] for chunk, latents in rolled])
            yield from (scores(setting, name, made[:n], truth[:n], job.sample.chunk) for n in lengths(job, truth))
    for name, (clip, truth) in clips.items():
        last = decoded(job, clip.context_latents)[-1:]
        held = np.repeat(last, len(truth), axis=0)
        yield from (scores("held", name, held[:n], truth[:n], job.sample.chunk) for n in lengths(job, truth))


def lengths(job: Job, truth: np.ndarray) -> list[int]:
    return lengths_of(len(truth), job.sample.chunk)


def decoded(job: Job, latents: np.ndarray) -> np.ndarray:
    return decode_video(latents, job.codec, job.device)


def scores(setting: str, clip: str, made: np.ndarray, truth: np.ndarray, chunk: int) -> dict[str, Any]:
    """Of these frames; `late_psnr` of their last chunk alone."""
    psnr, late = frame_psnr(made, truth), chunks_of(len(truth), chunk)[-1]
    return {
        "setting": setting, "clip": clip, "frames": len(truth), "psnr": float(psnr.mean()),
        "late_psnr": float(psnr[late.start :].mean()), "drift_error": error_drift(made, truth),
        "drift_sharpness": sharpness_drift(made), "drift_colour": colour_drift(made),
        "true_sharpness": sharpness_drift(truth), "true_colour": colour_drift(truth),
    }  # fmt: skip


def by_distance(job: Job, clips: dict[str, tuple[LatentClip, np.ndarray]]) -> Iterator[dict[str, Any]]:
    """A row for each clip and distance of the anchor: PSNR of the first chunk."""
    first = chunks_of(job.sample.chunk, job.sample.chunk)[0]
    for name, (clip, truth) in clips.items():
        for metres in METRES:
            anchor = anchor_of(clip).copy()
            anchor[:3, 3] += metres * anchor[:3, 0]
            inputs = inputs_of(job, clip)
            poses = clip.world_poses()[clip.context : clip.context + first.latents]
            past = {
                "memory": compute_memory(job.network, clip, anchor, inputs, job.device),
                "camera": rows_from(poses, anchor, job.device), "retrieval": inputs,
            }  # fmt: skip
            latents = denoised(job, clip, 1, sample_seed(job.recipe.seed, name, 1), first.latents, past)
            psnr = frame_psnr(decoded(job, latents), truth[: first.frames])
            yield {"clip": name, "metres": metres, "psnr": float(psnr.mean())}


def travelled(clips: dict[str, tuple[LatentClip, np.ndarray]]) -> float:
    """Metres: how far any target camera comes from its clip's anchor."""
    from_anchor = [
        np.linalg.norm((clip.world_poses() - anchor_of(clip))[clip.context :, :3, 3], axis=1).max()
        for clip, _ in clips.values()
    ]
    return float(max(from_anchor))


def mean_of(rows: Rows, name: str, **where: Any) -> float:
    """Mean over clips."""
    return float(np.mean([row[name] for row in rows if all(row[key] == value for key, value in where.items())]))


def say(found: dict[str, Any]) -> None:
    rows, names = found["by_length"], ("psnr", "late_psnr", "drift_error", "drift_sharpness", "drift_colour",
                                       "true_sharpness", "true_colour")  # fmt: skip
    print(f"{'setting':16} frames  " + "  ".join(f"{name:>15}" for name in names))
    for setting in dict.fromkeys(row["setting"] for row in rows):
        for frames in dict.fromkeys(row["frames"] for row in rows):
            values = [mean_of(rows, name, setting=setting, frames=frames) for name in names]
            print(f"{setting:16} {frames:6}  " + "  ".join(f"{value:15.2f}" for value in values))
    print(f"target cameras come up to {found['travelled']:.2f} m from the anchor")
    for metres in dict.fromkeys(row["metres"] for row in found["by_distance"]):
        moved = mean_of(found["by_distance"], "psnr", metres=metres)
        print(f"anchor {metres:4.0f} m aside: {moved:.2f} dB")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("clips", 4), ("frames", 257), ("chunk", 33), ("steps", 10), ("seed", 2002), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        job = job_of(Path(folder), asked)
        ids = job.view.ids()
        clips = {name: (job.view.clip(name), read_video(Path(folder) / "clips" / name / "tgt.mp4")) for name in ids}
        with torch.no_grad():
            found = {
                "travelled": travelled(clips), "by_distance": [*by_distance(job, clips)],
                "by_length": [*by_length(job, clips, Path(folder) / "chunks")],
            }  # fmt: skip
    say(found)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
