"""`hm train` with `train.part: blocks`: a linear code of video blocks, fitted to the clips of a data set in one pass.

The artifact is that of a codec (`codec.name: blocks`, `codec.path` set to it); it holds vae/ alone. Nothing is drawn by
chance: the same clips give the same code.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hmcli.aligned import tensor_of
from hmcli.codecs.places import VAE
from hmcli.contracts import Reporter, StageResult
from hmcli.recipe.readers import reads
from hmcli.recipe.sections import Recipe
from hmcli.stages.data.opening import Dataset, open_dataset
from hmcli.stages.models.layout import CODEC as KIND
from hmcli.stages.shared.outcome import planned, result_of
from hmcli.stages.shared.typed import to_json
from hmcli.stages.training.footage import read_footage, refuse_unread, scores_of, shown, start_of, starts_of
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.asked import Asked
from hmcli.store.finite import require_finite_weights
from hmcli.store.hashing import hash_json
from hmcli.world.views.framing import frame_count

if TYPE_CHECKING:
    from hmcli.codecs.block_fit import BlockMoments
    from hmcli.codecs.training import Footage


def run(
    recipe: Recipe,
    *,
    data: Path,
    out: Path,
    reporter: Reporter,
    device: str = "cpu",
    force: bool = False,
    prune: bool = False,
    dry_run: bool = False,
) -> StageResult:
    """Fit a code and write it as a codec; see `hm train --help`.

    It is fitted on the CPU, whatever `device` is: sums of products, a clip at a time. Raises RecipeError for settings
    that have no effect on it, DataError when no clip can be learned from.
    """
    refuse_unread(recipe.train, "blocks")
    dataset = open_dataset(data, recipe.poses, fps=recipe.data.fps)
    inputs, read = {"clips": dataset.fingerprint}, reads(recipe, "blocks")
    key = hash_json({**read, "inputs": inputs})
    asked = Asked(keys={VAE: key}, seeded=False)
    if dry_run:
        plan = f"{len(dataset.clips)} clips, {recipe.codec.channels} channels of {recipe.codec.stride} pixels"
        return planned(out, KIND, plan, reporter, look=asked, prune=prune, counts={"clips": len(dataset.clips)})
    with ArtifactWriter(
        out, KIND, recipe=read, inputs=inputs, seed=recipe.seed, reporter=reporter, force=force, prune=prune
    ) as writer:
        writer.ask(asked)
        if writer.kept(VAE, key) and writer.unchanged([VAE]):
            manifest = writer.finish([VAE])
            return result_of(writer, manifest, **manifest.attributes)
        return _fit(recipe, dataset, writer, key)


def _fit(recipe: Recipe, dataset: Dataset, writer: ArtifactWriter, key: str) -> StageResult:
    """Fit, normalise and score, and complete the artifact."""
    from hmcli.codecs.block_fit import BlockMoments, fit, normalise

    moments = BlockMoments(recipe.codec.stride)
    seen: list[Footage] = []  # starts
    unseen: list[Footage] = []
    with writer.reporter.progress("fitting the code", len(dataset.clips), "clip") as advance:
        for held_out, videos in read_footage(dataset, recipe, writer):
            (unseen if held_out else seen).extend(map(start_of, videos))
            if not held_out:
                _add(moments, videos, recipe.train.subject_weight)
            advance(1)
    code, scored = fit(moments, recipe.codec.channels), shown(starts_of(seen), "cpu")
    normalise(code, scored, recipe.codec.whitening)
    require_finite_weights(code.state_dict())
    scores = scores_of(lambda video: code.decode(code.encode(video)), scored, starts_of(unseen), "cpu")
    with writer.item_folder(VAE, key) as folder:
        code.save_pretrained(folder)
    counts = {"videos": len(seen), "held_out": len(unseen)}
    manifest = writer.finish([VAE], counts=counts, attributes=to_json(scores))
    return result_of(writer, manifest, **manifest.attributes)


def _add(moments: BlockMoments, videos: Iterable[Footage], subject_weight: float) -> None:
    """Sum up videos, cut to 4k+1 frames, their subjects' pixels by weight."""
    from hmcli.codecs.training import whole_frames

    for video in videos:
        frames = frame_count(len(video.frames), "trim")
        weight = 1.0 + subject_weight * (tensor_of(video.subjects[:frames]) > 0).float()
        moments.add(whole_frames(video.frames, frames), weight[None, None])
