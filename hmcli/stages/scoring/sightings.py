"""What a detector sees in a video as one array, as which it is kept beside features (hmcli.stages.scoring.features)."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from hmcli.errors import DataError
from hmcli.metrics.contract import Detection


def checked(found: list[list[Detection]], frames: np.ndarray) -> list[list[Detection]]:
    """What a detector found, as its contract promises it. Raises DataError where it is not."""
    if len(found) != len(frames):
        raise DataError(f"the detector returned {len(found)} lists for {len(frames)} frames")
    for frame, seen in enumerate(found):
        scores = [one.score for one in seen]
        if scores != sorted(scores, reverse=True) or not all(0 <= score <= 1 for score in scores):
            raise DataError(f"the detector's scores in frame {frame} are not from 1 down to 0: {scores}")
        for one in seen:
            if one.box_4.shape != (4,) or not np.isfinite(one.box_4).all():
                raise DataError(f"the detector returned no box of four numbers in frame {frame}: {one.box_4}")
            if one.mask_HW is not None and (one.mask_HW.shape != frames.shape[1:3] or one.mask_HW.dtype != bool):
                raise DataError(f"the detector returned a mask of another size than frame {frame}")
    return found


def packed(seen: Sequence[Sequence[Detection]]) -> np.ndarray:
    """(n,) uint8: detections of every frame, in their order, to the bit."""
    every = [one for of in seen for one in of]
    arrays = {
        "counts": np.array([len(of) for of in seen], np.int64),
        "boxes": np.array([one.box_4 for one in every], np.float64).reshape(-1, 4),
        "scores": np.array([one.score for one in every], np.float64),
        "masked": np.array([one.mask_HW is not None for one in every], bool),
    }
    masks = [one.mask_HW for one in every if one.mask_HW is not None]
    if masks:
        shown = np.stack(masks)
        arrays |= {"size": np.array(shown.shape[1:]), "masks": np.packbits(shown.reshape(len(shown), -1), axis=1)}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return np.frombuffer(file.getvalue(), np.uint8)


def unpacked(kept: np.ndarray) -> list[list[Detection]]:
    """What `packed` was given."""
    with np.load(io.BytesIO(kept.tobytes()), allow_pickle=False) as arrays:
        counts, boxes, scores, masked = (arrays[name] for name in ("counts", "boxes", "scores", "masked"))
        masks = iter(_masks(arrays) if masked.any() else ())
    every = iter(
        Detection(box_4=box, score=float(score), mask_HW=next(masks) if has else None)
        for box, score, has in zip(boxes, scores, masked, strict=True)
    )
    return [[next(every) for _ in range(count)] for count in counts.tolist()]


def _masks(arrays: np.lib.npyio.NpzFile) -> np.ndarray:
    """(n, H, W) bool."""
    height, width = arrays["size"].tolist()
    flat = np.unpackbits(arrays["masks"], axis=1, count=height * width)
    return flat.reshape(-1, height, width).astype(bool)
