"""The model-free rows: what the target would look like to somebody who remembers this much, and no more.

They are read beside models: whoever is worth its memory beats the rows that use no more than it was given. Geometry
comes from the clip's own files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hmcli.contracts import TIME_STRIDE
from hmcli.errors import UsageError
from hmcli.recipe.sections import CodecConfig
from hmcli.registry import normal
from hmcli.stages.bench.redrawing import EDGE
from hmcli.stages.bench.row_clip import DEPTH, RowClip
from hmcli.stages.sampling.layout import Uses
from hmcli.world.staging import variants
from hmcli.world.views.cutouts import Cutout, paste
from hmcli.world.views.warps import Views, depth_warp, farness, homography_warp, views_of, widened

Video = tuple[np.ndarray, str]  # (T, H, W, 3) uint8, and how it was made where that differs from clip to clip
DRAWN = "drawn again by the renderer"


@dataclass(frozen=True, kw_only=True)
class RowKind:
    """One row. `uses`: context (its frames, all cameras), context+depth (depth and masks of it too), target (truth)."""

    name: str
    uses: Uses
    needs: tuple[str, ...]  # files of the clip besides videos and cameras
    definition: str
    draw: Callable[[RowClip], Video]
    reads_next: bool = False  # the data set's next clip too
    reads_weights: bool = False  # the packaged codec's


def last_frame(clip: RowClip) -> Video:
    return np.repeat(clip.context[-1:], len(clip.poses[1]), axis=0), ""


def nearest_view(clip: RowClip) -> Video:
    context, target = clip.poses
    return clip.context[[int(farness(pose, context).argmin()) for pose in target]], ""


def warp(clip: RowClip) -> Video:
    views = views_of(clip.context, clip.poses[0], clip.intrinsics)
    return np.stack([homography_warp(views, pose) for pose in clip.poses[1]]), ""


def warp_by_depth(clip: RowClip) -> Video:
    views = views_of(clip.context, clip.poses[0], clip.intrinsics, depth=clip.depth[0])
    return np.stack([depth_warp(views, pose) for pose in clip.poses[1]]), ""


def pasted(clip: RowClip) -> Video:
    views = views_of(clip.context, clip.poses[0], clip.intrinsics, hidden=widened(clip.context_labels > 0, EDGE))
    scene = [homography_warp(views, pose) for pose in clip.poses[1]]
    return _pasted(clip, scene, clip.cutouts), ""


def erased(clip: RowClip) -> Video:
    if (drawn := clip.redrawn) is not None:
        empty = drawn.otherwise(clip.target, lambda whole: variants.without_subjects(variants.target_alone(whole)))
        return empty, DRAWN
    return _erased_by_views(clip), _by_views(clip)


def frozen(clip: RowClip) -> Video:
    if (drawn := clip.redrawn) is not None:
        return drawn.otherwise(clip.target, lambda whole: variants.standing(whole, clip.last_seen)), DRAWN
    still = [one.still(last) for one, last in zip(clip.cutouts, clip.last_seen.values(), strict=True)]
    return _pasted(clip, _erased_by_views(clip), still), _by_views(clip)


def _by_views(clip: RowClip) -> str:
    return f"from other frames by depth ({clip.why_not_redrawn})"


def _pasted(clip: RowClip, scene: Sequence[np.ndarray] | np.ndarray, cutouts: Sequence[Cutout]) -> np.ndarray:
    """The scene's frames, with the subjects where they are in the target."""
    first = len(clip.context)
    return np.stack([
        paste(picture, cutouts, first + t, pose, clip.intrinsics)
        for t, (picture, pose) in enumerate(zip(scene, clip.poses[1], strict=True))
    ])  # fmt: skip


def _erased_by_views(clip: RowClip) -> np.ndarray:
    """The true target, subjects replaced by what other frames of context and target show there; shadows stay."""
    masks = widened(np.concatenate([clip.context_labels, clip.target_labels]) > 0, EDGE)
    views: Views = views_of(
        np.concatenate([clip.context, clip.target]), np.concatenate(clip.poses), clip.intrinsics,
        depth=np.concatenate(clip.depth), hidden=masks,
    )  # fmt: skip
    found = clip.target.copy()
    for picture, pose, mask in zip(found, clip.poses[1], masks[len(clip.context) :], strict=True):
        picture[mask] = depth_warp(views, pose, mask)[mask]
    return found


def truth(clip: RowClip) -> Video:
    return clip.target, ""


def another(clip: RowClip) -> Video:
    return clip.another[: len(clip.poses[1])], ""


def through_codec(clip: RowClip) -> Video:
    """Frames and sides are filled up to what the codec takes by repeating the last ones, and cut again."""
    from hmcli.codecs.video import mini_codec  # torch loads here
    from hmcli.stages.latents.pixels import decode_video, encode_video

    codec, true = mini_codec(CodecConfig(name="mini"), "cpu"), clip.target
    steps = (TIME_STRIDE, codec.stride, codec.stride)
    more = [-(side - (axis == 0)) % step for axis, (side, step) in enumerate(zip(true.shape, steps, strict=False))]
    filled = np.pad(true, [*((0, extra) for extra in more), (0, 0)], mode="edge")
    back = decode_video(encode_video(filled, codec, "cpu"), codec, "cpu")
    return back[: len(true), : true.shape[1], : true.shape[2]], ""


_NEAREST = "degrees turned + 2 * metres moved"
_HOLES = "holes from the next nearest views (of those, every fourth frame), then from the nearest view's edge"
_PLAIN: tuple[RowKind, ...] = (
    RowKind(
        name="last-frame", uses="context", needs=(), draw=last_frame,
        definition="the last context frame, repeated",
    ),
    RowKind(
        name="nearest-view", uses="context", needs=(), draw=nearest_view,
        definition=f"for each target camera the context frame of the nearest one: {_NEAREST}",
    ),
    RowKind(
        name="warp", uses="context", needs=("intrinsics",), draw=warp,
        definition=f"the nearest view ({_NEAREST}) warped by K R_context^T R_target K^-1; {_HOLES}",
    ),
    RowKind(
        name="depth-warp", uses="context+depth", needs=("intrinsics", DEPTH), draw=warp_by_depth,
        definition=f"the nearest view ({_NEAREST}), each pixel where its true depth puts it; holes from the next"
        " nearest views, then from the row warp",
    ),
    RowKind(
        name="paste", uses="context+depth", needs=("intrinsics", "context_instances", DEPTH), draw=pasted,
        definition="the row warp without subjects (their pixels are holes), and every subject of the context as it was"
        " last seen whole, moved at the constant velocity of the second before (places by mask and depth), in front of"
        " everything, larger or smaller by distance",
    ),
    RowKind(
        name="erased", uses="target", needs=("intrinsics", "context_instances", "target", "target_instances", DEPTH),
        draw=erased,
        definition="the true target without subjects and their shadows, drawn again; where this hm cannot draw the"
        " clip: subjects' pixels from other frames by true depth, shadows stay",
    ),
    RowKind(
        name="frozen", uses="target", needs=("intrinsics", "context_instances", "target", "target_instances", DEPTH),
        draw=frozen,
        definition="the true target with every subject as, and where, the context last shows it; those it never shows"
        " are not there; drawn again, or, where this hm cannot, the row erased with the subject pasted as in the row"
        " paste, but standing from then on",
    ),
    RowKind(
        name="truth", uses="target", needs=("target",), draw=truth,
        definition="the true target, compressed once more as every generation is: the most that can be reached",
    ),
    RowKind(
        name="codec-mini", uses="target", needs=("target",), draw=through_codec, reads_weights=True,
        definition="the true target through the packaged codec `mini` and back: the most that a model on it can reach",
    ),
    RowKind(
        name="another", uses="target", needs=("target",), draw=another, reads_next=True,
        definition="the true target of the data set's next clip that is as long (after the last one the first): well"
        " made, and wrong",
    ),
)  # fmt: skip
ROWS = {row.name: row for row in _PLAIN}


def find_rows(asked: Sequence[str]) -> list[RowKind]:
    """The rows of these names, each once, in their usual order; all for no name."""
    wanted = {normal(name) for name in asked}
    if unknown := sorted(wanted - ROWS.keys()):
        raise UsageError(f"there is no row {unknown[0]!r}", fix=f"known: {', '.join(ROWS)}")
    return [row for name, row in ROWS.items() if not wanted or name in wanted]
