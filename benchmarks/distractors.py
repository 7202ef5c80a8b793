r"""Draws the pictures that rank-1 compares subjects with: crops of many families on grey, from clips of `hm render`.

    for side in train test; do
      hm render nano/clips --clips 56 --set seed=7700 --set world.hold_out=$side --set world.scenes=[] \
        --set world.subjects=[] --set world.context_frames=33 --set world.target_frames=21 \
        --set world.hidden_seconds=0.6 --set world.visible_seconds=0.8 --out crowd-$side
    done
    python benchmarks/distractors.py crowd-train crowd-test --out hmcli/metrics/backbones/distractors.npz

At most EACH of a family, from different clips, whole inside the picture. The same clips give the same bytes.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hmcli.metrics.rank1 import alone
from hmcli.recipe.sections import DataConfig, PosesConfig
from hmcli.stages.data.loading import load_clip
from hmcli.stages.data.opening import ClipSource, open_dataset, own_file
from hmcli.store.files import read_json
from hmcli.world.files.layout import STATES
from hmcli.world.files.schema import parse_states

EACH = 2


def crops_of(source: ClipSource) -> Iterator[tuple[str, np.ndarray]]:
    """(family, picture) of every subject of a clip's context, in the frame that shows most of it."""
    info = source.context_info
    clip = load_clip(source, DataConfig(size=(info.height, info.width)))
    if (file := own_file(source, STATES)) is None or clip.context_mask is None:
        raise SystemExit(f"{source.id} lacks {STATES} or masks: clips of `hm render` have them")
    for state in parse_states(read_json(file)):
        mask_NHW = clip.context_mask == state.number
        inside_N = ~(mask_NHW[:, [0, -1]].any(axis=(1, 2)) | mask_NHW[:, :, [0, -1]].any(axis=(1, 2)))
        best = int((mask_NHW.sum(axis=(1, 2)) * inside_N).argmax())
        if inside_N[best] and (picture := alone(clip.context[best], mask_NHW[best])) is not None:
            yield state.family, picture


def write_pictures(found: dict[str, list[np.ndarray]], out: Path) -> None:
    """An .npz without times in it."""
    with zipfile.ZipFile(out, "w") as file:
        for family, every in sorted(found.items()):
            for number, picture in enumerate(every):
                content = io.BytesIO()
                np.save(content, picture)
                member = zipfile.ZipInfo(f"{family}.{number}.npy")
                file.writestr(member, content.getvalue(), compress_type=zipfile.ZIP_DEFLATED, compresslevel=9)


def main(data: Sequence[Path], out: Path) -> None:
    found: dict[str, list[np.ndarray]] = {}
    for source in (source for path in data for source in open_dataset(path, PosesConfig()).clips):
        for family, picture in crops_of(source):
            if len(found.setdefault(family, [])) < EACH:
                found[family].append(picture)
    write_pictures(found, out)
    print(f"{sum(map(len, found.values()))} pictures of {len(found)} families, {out.stat().st_size} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    main(asked.data, asked.out)
