"""Is the choice of memory slots a real one on these clips? Recall of the right slots by policies that need no model.

    python benchmarks/recall.py CLIPS                                  # a data set of `hm render`; slots of nano/hydra
    python benchmarks/recall.py CLIPS MORE --recipe mini/hydra --json recall.json

Right are the slots that show, before it was hidden, a subject that is back in the query frame; recall@K and precision
are those of `hm inspect` (docs/inspecting.md). `random` is any K slots outside the window (the mean over all sets),
`fov` those that saw most of what the query frame's camera sees (often slots of the target, where the camera has just
been; or slots of the context alone), `oracle` the right ones first. `fov` near the `oracle` means that geometry alone
solves the clips. Also: how much of a context shows a subject that is hidden and returns.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hmcli.core.camera import Lens, camera_overlap
from hmcli.core.inspection import (
    Recorded,
    expected_random_hits,
    hits,
    oracle_choice,
    recall_and_precision,
    relevant_slots,
)
from hmcli.core.memory import slot_cameras, slot_spans
from hmcli.core.reading import inside_window, local_window
from hmcli.core.retrieval import topk_slots
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import MemoryConfig, PosesConfig, Recipe
from hmcli.reports.tables import markdown_table
from hmcli.stages.data.loading import LoadedClip, load_clip
from hmcli.stages.data.opening import open_dataset
from hmcli.stages.latents.subjects import covered

RANDOM, FOV, PAST, ORACLE = POLICIES = ("random", "fov", "fov, context slots", "oracle")
FEW = 0.4  # of a context's slots: a clip in which no more show the subject leaves much to choose from


@dataclass(frozen=True, kw_only=True)
class Shot:
    """What of a clip the choice of slots depends on. A all latent frames, context first; S subjects."""

    camera_AR: torch.Tensor  # camera rows
    context: int  # latent frames
    seen_AS: torch.Tensor  # bool
    lens: Lens


@dataclass(frozen=True, kw_only=True)
class Found:
    """Of one clip: policy -> (recall, precision), NaN where nothing comes back; and what there was to choose from."""

    policies: dict[str, tuple[float, float]]
    right: float  # slots, mean over the query frames in which somebody is back
    free: float  # slots outside the window, likewise
    shown: float  # share of the context's slots that show a subject which is hidden and back


def shot_of(clip: LoadedClip, memory: MemoryConfig) -> Shot:
    """Raises SystemExit for a clip without masks, target or intrinsics."""
    if clip.context_mask is None or clip.target_mask is None or clip.intrinsics is None:
        raise SystemExit(
            f"{clip.id} lacks masks of context and target, or intrinsics: there is nothing to compare with"
        )
    masks = (clip.context_mask, clip.target_mask)
    subjects = range(1, 1 + max(int(mask.max()) for mask in masks))
    shares_SA = np.stack([np.concatenate([covered(mask == subject) for mask in masks]) for subject in subjects])
    height, width = clip.context_mask.shape[1:]
    lens = Lens(
        intrinsics_B4=torch.tensor(clip.intrinsics)[None], size=(height, width), near=memory.near, far=memory.far
    )
    return Shot(
        camera_AR=torch.tensor(clip.camera_rows), context=clip.context_latent_frames,
        seen_AS=torch.tensor(shares_SA.T > 0), lens=lens,
    )  # fmt: skip


def compared(shot: Shot, memory: MemoryConfig) -> Found:
    """What each policy finds for the target's query frames; slots are those of a frozen context and of the target."""
    time, frames = memory.kernel[0], len(shot.camera_AR)
    parts = [shot.camera_AR[: shot.context], shot.camera_AR[shot.context :]]
    context, target = (slot_spans(len(part), time, "exact") for part in parts)
    span_M2 = torch.cat([context, target + shot.context])
    near_FM = inside_window(span_M2, *local_window(shot.context, frames - shot.context, frames, memory.window))
    reading = Recorded(
        frames_FW=None, block=0, part="target", step=0, branch="", first_frame=shot.context, num_context=shot.context,
        top_k=memory.top_k, span_M2=span_M2, near_FM=near_FM,
    )  # fmt: skip
    right_FM = relevant_slots(shot.seen_AS, reading)
    slots_BMR = torch.cat([slot_cameras(part[None], time) for part in parts], dim=1)
    overlap_FM = camera_overlap(parts[1][None], slots_BMR, shot.lens)[0]
    later_FM = near_FM | (torch.arange(len(span_M2)) >= len(context))
    hit_F = {
        RANDOM: expected_random_hits(right_FM, near_FM, memory.top_k),
        FOV: hits(topk_slots(overlap_FM[None], near_FM, memory.top_k)[0], right_FM),
        PAST: hits(topk_slots(overlap_FM[None], later_FM, memory.top_k)[0], right_FM),
        ORACLE: hits(oracle_choice(right_FM, near_FM, memory.top_k, overlap_FM), right_FM),
    }
    back_F = right_FM.any(dim=1)
    return Found(
        policies={name: recall_and_precision(hit, right_FM, memory.top_k) for name, hit in hit_F.items()},
        right=mean(right_FM[back_F].sum(dim=1)), free=mean((~near_FM[back_F]).sum(dim=1)),
        shown=float(right_FM[:, : len(context)].any(dim=0).double().mean()),
    )  # fmt: skip


def mean(values: Iterable[Any]) -> float:
    """NaN for none."""
    listed = [float(value) for value in values]
    return sum(listed) / len(listed) if listed else float("nan")


def measure(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Means over the clips of a data set in which a subject comes back."""
    memory = recipe.model.memory
    clips = open_dataset(folder, PosesConfig()).clips
    every = [compared(shot_of(load_clip(clip, recipe.data), memory), memory) for clip in clips]
    found = [one for one in every if one.right > 0]
    return {
        "data": str(folder), "clips": len(every), "with_returns": len(found), "top_k": memory.top_k,
        "right_slots": mean(one.right for one in found), "free_slots": mean(one.free for one in found),
        "few_shown": mean(one.shown <= FEW for one in found),
        **{
            name: {
                "recall": mean(one.policies[name][0] for one in found),
                "precision": mean(one.policies[name][1] for one in found),
            }
            for name in POLICIES
        },
    }  # fmt: skip


def table(results: Sequence[dict[str, Any]]) -> str:
    """Recall / precision as a Markdown table."""
    head = ["data", "clips", "K", "right of free slots", f"clips with <= {FEW:.0%} shown", *POLICIES]
    rows = [
        [
            Path(row["data"]).name, f"{row['with_returns']} of {row['clips']}", f"{row['top_k']}",
            f"{row['right_slots']:.1f} of {row['free_slots']:.1f}", f"{row['few_shown']:.0%}",
            *(f"{row[name]['recall']:.2f} / {row[name]['precision']:.2f}" for name in POLICIES),
        ]
        for row in results
    ]  # fmt: skip
    return markdown_table(head, rows)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="folders of clips with masks and intrinsics")
    parser.add_argument("--recipe", default="nano/hydra", help="whose slots, window and K (default nano/hydra)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything measured here too")
    return parser


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    given = options().parse_args(arguments)
    recipe = load_recipe(given.recipe)
    if recipe.model.memory.context != "frozen":
        raise SystemExit(f"{given.recipe} has a joint context: name a recipe with model.memory.context=frozen")
    results = [measure(folder, recipe) for folder in given.data]
    print(table(results))
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
