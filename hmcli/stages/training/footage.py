"""Videos of a data set as codecs learn from them: context and target of a clip, each with the subjects it shows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Literal

import numpy as np

from hmcli.errors import DataError, HMError, RecipeError
from hmcli.recipe.keys import value_at
from hmcli.recipe.readers import KEYS
from hmcli.recipe.sections import DataConfig, Recipe, TrainConfig
from hmcli.stages.data.opening import ClipSource, Dataset
from hmcli.stages.data.timing import taken
from hmcli.stages.models.layout import CodecAttributes
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.video import read_video
from hmcli.world.views.framing import frame_count, resize_frames, resize_labels, white_mask

if TYPE_CHECKING:
    import torch

    from hmcli.codecs.training import Footage

HOLD_OUT = 10  # every tenth clip is kept for the score
SCORED = 32  # videos that scores and latent statistics are taken from, at most
SCORE_FRAMES = 17  # frames of each, at most
READERS = 4
AHEAD = 8  # clips read before they are asked for

_Read = Future[list["Footage"] | HMError]


def refuse_unread(train: TrainConfig, part: Literal["codec", "blocks", "segmenter"]) -> None:
    """A setting of training without effect is an error, in a recipe file too."""
    if train.part != part:
        raise RecipeError(
            f"this recipe trains the {train.part}", where={"recipe": "train.part"}, fix=f"set it to {part}"
        )
    unused = [
        f"{path}={value!r}"
        for path, key in KEYS.items()
        if path.startswith("train.")
        and part not in key.readers
        and (value := value_at(train, path.removeprefix("train."))) not in (key.default, None)
    ]
    if unused:
        raise RecipeError(
            f"training {part} does not use {', '.join(unused)}", where={"recipe": "train"}, fix="leave it out"
        )


def read_footage(
    dataset: Dataset, recipe: Recipe, writer: ArtifactWriter, *, least_frames: int = 1, instances: bool = False
) -> Iterator[tuple[bool, list[Footage]]]:
    """The videos of one clip after the other, and whether the clip is one of those held out.

    What cannot be read, is shorter than `least_frames`, or lacks the subjects that are asked for (by `instances` one by
    one), is quarantined. Few clips are in memory at once.
    """
    for item in dataset.quarantined:
        writer.quarantine(item.item, item.reason)
    count = 0
    with ThreadPoolExecutor(READERS) as readers:  # decoding leaves the interpreter to others
        started = (readers.submit(_tried, recipe, source, least_frames, instances) for source in dataset.clips)
        for source, read in zip(dataset.clips, _started_ahead(started), strict=True):
            videos = read.result()
            if isinstance(videos, HMError):
                writer.quarantine(source.id, str(videos))
                continue
            count += 1
            yield count % HOLD_OUT == 0, videos
    if not count:
        raise DataError("no clip can be trained on", where={"data": dataset.path})


def _started_ahead(started: Iterator[_Read]) -> Iterator[_Read]:
    """The same, some of them drawn before they are asked for."""
    waiting = deque(islice(started, AHEAD))
    while waiting:
        yield waiting.popleft()
        waiting.extend(islice(started, 1))


def _tried(recipe: Recipe, source: ClipSource, least_frames: int, instances: bool) -> list[Footage] | HMError:
    """The videos of a clip, or why they cannot be used."""
    try:
        videos = _videos(source, recipe.data, masked=recipe.train.subject_weight > 0, instances=instances)
        if short := [len(video.frames) for video in videos if len(video.frames) < least_frames]:
            raise DataError(
                f"a video has {short[0]} frames, train.frames asks for {least_frames}",
                fix="lower train.frames or leave the clip out",
            )
    except HMError as error:
        return error
    return videos


def _videos(source: ClipSource, data: DataConfig, *, masked: bool, instances: bool) -> list[Footage]:
    """Context and target at the recipe's size. Their lengths and cameras do not matter: pieces are cut out of them.

    Subjects are read where masks are there; with `masked`, a clip without them raises DataError, with `instances` also
    one whose masks do not tell subjects apart.
    """
    from hmcli.codecs.training import Footage

    found = []
    for role in ("context", "target"):
        if role not in source.files:
            continue
        video = read_video(source.read(role))
        frames_N = _taken(source, role, data)
        frames = resize_frames(video if len(frames_N) == len(video) else video[frames_N], data.size, data.fit)
        if instances and f"{role}_instances" not in source.files:
            raise DataError(f"the {role} video has no masks that tell subjects apart", fix="leave the clip out")
        subjects = _subjects(source, role, data)
        if subjects is None and masked:
            raise DataError(
                f"the {role} video has no masks, train.subject_weight needs them",
                fix="set train.subject_weight=0, or leave the clip out",
            )
        if subjects is not None:
            if len(subjects) != len(video):
                raise DataError(f"{len(subjects)} mask frames for {len(video)} frames of the {role} video")
            subjects = subjects[frames_N]
        found.append(
            Footage(
                clip=source.id,
                frames=frames,
                subjects=np.zeros(frames.shape[:3], np.uint8) if subjects is None else subjects,
            )
        )
    return found


def _taken(source: ClipSource, role: str, data: DataConfig) -> np.ndarray:
    info = source.context_info if role == "context" else source.target_info
    assert info is not None
    return taken(info, data.fps)


def _subjects(source: ClipSource, role: str, data: DataConfig) -> np.ndarray | None:
    """(T, H, W) uint8: the subject each pixel of a video shows, 0 for none, as far as the mask tells them apart."""
    for kind in ("instances", "mask"):
        if f"{role}_{kind}" in source.files:
            video = read_video(source.read(f"{role}_{kind}"))
            labels = np.ascontiguousarray(video[..., 0]) if kind == "instances" else white_mask(video).astype(np.uint8)
            return resize_labels(labels, data.size, data.fit)
    return None


def starts_of(videos: Sequence[Footage]) -> list[Footage]:
    """The start of at most `SCORED` videos spread over all of them: what scores and statistics are taken from."""
    if not videos:
        return []
    return [start_of(videos[i]) for i in sorted({round(x) for x in np.linspace(0, len(videos) - 1, SCORED)})]


def start_of(video: Footage) -> Footage:
    """The start of one video, in memory of its own."""
    count = frame_count(min(len(video.frames), SCORE_FRAMES), "trim")
    return replace(video, frames=video.frames[:count].copy(), subjects=video.subjects[:count].copy())


def shown(videos: Sequence[Footage], device: str) -> list[torch.Tensor]:
    """Videos of 4k+1 frames, (1, 3, T, H, W) each."""
    from hmcli.codecs.training import whole_frames

    return [whole_frames(video.frames, len(video.frames)).to(device) for video in videos]


def scores_of(
    reconstruct: Callable[[torch.Tensor], torch.Tensor], seen: Sequence[torch.Tensor], held_out: Sequence[Footage],
    device: str,
) -> CodecAttributes:  # fmt: skip
    """How well a codec gives back videos it has learned from, as they are shown to it, and starts of others."""
    from hmcli.codecs.training import mean_psnr, subject_boxes

    unseen = shown(held_out, device)
    boxes = [subject_boxes(video.subjects).to(device) for video in held_out]
    return CodecAttributes(
        psnr_training=mean_psnr(reconstruct, seen),
        psnr_held_out=mean_psnr(reconstruct, unseen) if unseen else None,
        psnr_held_out_subjects=(
            mean_psnr(reconstruct, unseen, boxes) if any(inside.any() for inside in boxes) else None
        ),
    )
