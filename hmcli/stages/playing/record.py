"""Saving a walk: a clip in HM-World's released layout, which every command of hm reads.

`WALKS/walk-001/` holds `cond.mp4` (the context), `tgt.mp4` (what was generated), `camera.json` and, where the lens is
known, `intrinsics.json`; `caption.txt` names all walks of the folder, `walks.jsonl` says how each was made. There is
no manifest: it is a folder of clips like anybody's.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hmcli import __version__
from hmcli.contracts import TIME_STRIDE
from hmcli.errors import UsageError
from hmcli.stages.playing.session import Session
from hmcli.store.files import read_json_lines, write_json, write_json_lines, write_text
from hmcli.store.lock import ArtifactLock, writing_output
from hmcli.store.video import write_video
from hmcli.world.files.captions import caption_lines
from hmcli.world.files.layout import CAMERA, CAPTION_NAME, INTRINSICS, video_file
from hmcli.world.files.schema import intrinsics_json
from hmcli.world.views.cameras import pair_file

WALKS = "walks.jsonl"


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A walk on disk."""

    path: Path  # the folder of the clip
    frames: int  # of the target
    left_out: int  # frames at the end: lengths of videos are 4k+1


def check_out(out: Path) -> None:
    """Raise UsageError for a folder that holds something else than walks: nothing of it is overwritten."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / WALKS).is_file())):
        raise UsageError(f"{out} holds something else than walks", fix="name another folder with --out")


def save(session: Session, out: Path) -> Saved:
    """Write the walk so far as the next clip of the folder `out`.

    Raises UsageError before anything was made, or for a folder that holds something else.
    """
    if not session.chunks:
        raise UsageError("there is no walk yet to save", fix="go somewhere first")
    check_out(out)
    target = np.concatenate([session.frames_of(made.number) for made in session.chunks])
    poses = np.concatenate([made.poses for made in session.chunks])
    kept = (len(target) - 1) // TIME_STRIDE * TIME_STRIDE + 1
    with ArtifactLock(out), writing_output(out):
        out.mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, Any]] = read_json_lines(out / WALKS) if (out / WALKS).is_file() else []
        name = f"walk-{1 + max([int(row['id'].rpartition('-')[2]) for row in rows], default=0):03d}"
        unfinished = out / f".tmp-{os.getpid()}-{name}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        fps, clip = session.clip.fps, session.clip
        write_video(unfinished / video_file("context"), session.context_frames, fps=fps)
        write_video(unfinished / video_file("target"), target[:kept], fps=fps)
        write_json(unfinished / CAMERA, pair_file({"context": session.context_poses, "target": poses[:kept]}))
        if clip.intrinsics is not None:
            write_json(unfinished / INTRINSICS, intrinsics_json(clip.intrinsics, session.on.view.size))
        shutil.rmtree(out / name, ignore_errors=True)  # a row is written last: without one it was never finished
        unfinished.replace(out / name)
        rows.append({"id": name, "caption": clip.caption, **_how(session)})
        write_text(out / CAPTION_NAME, caption_lines((row["id"], row["caption"]) for row in rows))
        write_json_lines(out / WALKS, rows)
    return Saved(path=out / name, frames=kept, left_out=len(target) - kept)


def _how(session: Session) -> dict[str, Any]:
    """What made the walk."""
    job = session.on
    return {
        "from": session.clip.id, "model": job.model.fingerprint, "seed": job.recipe.seed, "sample": asdict(job.sample),
        "chunks": [{"held": list(made.held), "memory": made.memory} for made in session.chunks],
        "hmcli": __version__,
    }  # fmt: skip
