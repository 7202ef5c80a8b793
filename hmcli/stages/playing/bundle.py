"""`hm play --bundle`: a walk as a folder of files that a browser runs alone, from any host of files.

The page is that of `hm play`; in place of a WebSocket it talks to `engine.js`, a worker that runs the graphs in
onnxruntime-web. No file names another host.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from hmcli.contracts import TIME_STRIDE, Reporter, StageResult
from hmcli.errors import DataError, MissingPartError, UsageError
from hmcli.recipe.sections import Recipe, SampleConfig
from hmcli.stages.exporting.running import WRITES, check_packages
from hmcli.stages.models.folders import ModelFolder, find_model, frames_a_slot
from hmcli.stages.playing.graphs import Room, write_graphs
from hmcli.stages.playing.layout import (
    GIVEN,
    KIND,
    PAGE,
    RUNTIME,
    RUNTIME_FILES,
    SCRIPTS,
    START,
    WALK,
    WalkAttributes,
)
from hmcli.stages.playing.opening import OLDEST, Start, check, open_session
from hmcli.stages.playing.server import hello, policy
from hmcli.stages.playing.session import Session
from hmcli.stages.sampling.job import check_settings
from hmcli.stages.shared.outcome import planned, result_of
from hmcli.stages.shared.typed import to_json
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.files import write_bytes, write_text
from hmcli.store.hashing import hash_arrays, hash_bytes, hash_file, hash_json

RUNTIME_VERSION = "1.30.0"  # of onnxruntime-web, which this was tried with
INSTALL = f"npm install onnxruntime-web@{RUNTIME_VERSION}, then --runtime node_modules/onnxruntime-web"
CPU = "cpu"
MARK = "<!-- scripts of a bundle -->"  # in the page
_USUAL = (
    "attention", "branches", "cache", "compile", "dtype", "guidance", "history_guidance", "offload", "quantize",
    "scheduler",
)  # fmt: skip


def run(
    recipe: Recipe, *, model: Path, start: Start, out: Path, runtime: Path | None, device: str, force: bool,
    reporter: Reporter, dry_run: bool = False,
) -> StageResult:  # fmt: skip
    """Write a walk as a folder; see `hm play --help`."""
    check_packages(WRITES)
    if device not in ("auto", CPU):
        raise UsageError(f"graphs are written on the CPU, not on {device}", fix="leave --device out")
    folder = find_model(model)
    check_settings(recipe.sample, folder, CPU)
    check(recipe, folder, start)
    check_model(folder)
    _check_sampling(recipe.sample)
    runtime_version = check_runtime(runtime)
    assert runtime is not None
    if dry_run:
        source = start.source or f"a clip rendered from seed {recipe.seed}"
        return planned(out, KIND, f"a page that plays {model} from {source} in the browser", reporter, force=force)
    with tempfile.TemporaryDirectory(prefix="hm-play-") as place:
        session = open_session(recipe, folder, start, Path(place), CPU, reporter)
        room = _room(session)
        inputs = _inputs(session, runtime)
        with ArtifactWriter(
            out, KIND, recipe={"sample": asdict(recipe.sample)}, inputs=inputs, seed=recipe.seed, reporter=reporter,
            force=force,
        ) as writer:  # fmt: skip
            if not force and writer.unchanged([]):
                reporter.note("written already: kept")
                return result_of(writer, writer.finish([]))
            staged = writer.emptied()
            apart = write_graphs(session, room, staged, reporter)
            _write_walk(session, room, staged, model.name)
            _write_page(staged, runtime)
            about = WalkAttributes(
                clip=session.clip.id, start=room.start, chunk=room.chunk, slots=room.places, apart=apart,
                versions={name: version(name) for name in ("torch", *WRITES)} | {"onnxruntime-web": runtime_version},
            )  # fmt: skip
            done = result_of(writer, writer.finish([], attributes=to_json(about)))
            reporter.note(f"from torch at most: {max(apart.values()):.1e}; to see it: python -m http.server -d {out}")
            return done


# --- what can be bundled ---------------------------------------------------------------------------------------------


def check_model(folder: ModelFolder) -> None:
    """Raise UsageError for a model whose memory the graphs of a walk do not write or read."""
    from hmcli import registry
    from hmcli.core.retrieval import SLOTS, needs_of

    config = folder.config()
    reads = needs_of(registry.find("policy", config["policy"]))
    wrong = {
        f"model.memory.context is {config['context']}, its context is computed at every step": config["context"]
        != "frozen",
        f"policy {config['policy']} reads {', '.join(sorted(reads)) or 'no slots'}": reads != {SLOTS},
        f"model.positions is {config.get('positions')}": config.get("positions", "screen") != "screen",
        f"model.memory.spans is {config.get('spans')}": config.get("spans", "exact") != "exact",
        f"model.memory.window is {config['window']}": config["window"] < 2,
    }
    if reasons := [reason for reason, holds in wrong.items() if holds]:
        raise UsageError(
            f"a page without a server cannot walk in this model: {'; '.join(reasons)}", where={"model": folder.path},
            fix="leave --bundle out, or take one of frozen context, policy affinity and positions of the screen",
        )  # fmt: skip


def _check_sampling(sample: SampleConfig) -> None:
    usual = asdict(SampleConfig()) | {"guidance": 1.0}
    if other := {key: value for key in _USUAL if (value := getattr(sample, key)) != usual[key]}:
        raise UsageError(
            f"a page without a server cannot do {', '.join(f'sample.{key}={value}' for key, value in other.items())}",
            fix=f"set {', '.join(f'sample.{key}={usual[key]}' for key in other)}",
        )


def check_runtime(runtime: Path | None) -> str:
    """The release of onnxruntime-web in this folder of its npm package. Raises MissingPartError where it is none."""
    if runtime is None:
        raise MissingPartError("a page without a server needs onnxruntime-web, which hm does not bring", fix=INSTALL)
    if missing := [name for name in RUNTIME_FILES if not (runtime / name).is_file()]:
        raise MissingPartError(
            "this is no folder of the npm package onnxruntime-web",
            where={"runtime": runtime, "missing": ", ".join(missing)}, fix=INSTALL,
        )  # fmt: skip
    try:
        said = json.loads((runtime / "package.json").read_text(encoding="utf-8"))
        name, release = said["name"], str(said["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError("package.json cannot be read", where={"runtime": runtime}, fix=INSTALL) from error
    if name != "onnxruntime-web":
        raise MissingPartError(f"this is the package {name!r}", where={"runtime": runtime}, fix=INSTALL)
    return release


def _room(session: Session) -> Room:
    """As many chunks as hold the latent frames that memory is read as old as. Raises UsageError for clips or chunks
    that are too short."""
    from hmcli.core.walk_graphs import enough_slots

    config, start, chunk = session.on.config, session.clip.context, 1 + (session.length - 1) // TIME_STRIDE
    oldest = session.on.sample.max_history or OLDEST
    enough = all(enough_slots(session.on.network, past, chunk) for past in (start, chunk))  # a new anchor has less
    if min(start, chunk) < config["window"] - 1 or not enough:
        raise UsageError(
            f"{start} latent frames of the clip, and {chunk} of a chunk, are too few for a page without a server: a "
            "frame could read more slots than there are outside of its window",
            where={"clip": session.clip.id}, fix="use a longer clip, or set sample.chunk higher",
        )  # fmt: skip
    return Room(
        start=start, chunk=chunk, chunks=max(1, math.ceil((oldest - start) / chunk)), slot=frames_a_slot(config)
    )


def _inputs(session: Session, runtime: Path) -> dict[str, str]:
    """Hashes of all that the folder is made of."""
    job, clip = session.on, session.clip
    pages = {name: hash_bytes(_packaged(name)) for name in ("page.html", *SCRIPTS)}
    given = {"frames": session.context_frames, "poses": session.context_poses, "text": clip.text}
    truth = [[one.name, hash_arrays({"place": one.place})] for one in session.truth]
    return {
        "model": job.model.fingerprint, "clip": job.view.latents_hash(clip.id),
        "start": hash_json([clip.id, clip.caption, hash_arrays(given), truth]),
        "page": hash_json(pages), "runtime": hash_json([hash_file(runtime / name) for name in RUNTIME_FILES]),
    }  # fmt: skip


# --- what is written -------------------------------------------------------------------------------------------------


def _write_walk(session: Session, room: Room, place: Path, name: str) -> None:
    """What the page is told first, what the engine needs, and the clip to start from."""
    from PIL import Image

    from hmcli.core.flow import flow_sign, make_schedule

    job, clip = session.on, session.clip
    (place / GIVEN).mkdir()
    for number, frame in enumerate(session.context_frames):
        Image.fromarray(frame).save(place / GIVEN / f"{number:05d}.png")
    latents, text = clip.context_latents.astype("<f4"), clip.text.astype("<f4")
    write_bytes(place / START, latents.tobytes() + text.tobytes())
    schedule = make_schedule(job.sample.steps, job.sample.shift)
    sign = flow_sign(job.network.config.flow_target)
    levels = [
        {"timestep": float(schedule.timesteps[step]), "step": float(sign * (schedule.next_sigma(step) - sigma))}
        for step, sigma in enumerate(schedule.sigmas)
    ]
    config = job.network.config
    walk = {
        "hello": hello(session, name, []),
        "start": {"latents": latents.shape, "text": text.shape, "poses": _flat(clip.world_poses()[: clip.context]),
                  "pose": _flat(session.pose), "pictures": len(session.context_frames)},
        "chunk": {"frames": session.length, "latents": [config.in_channels, room.chunk, *job.view.latent_size]},
        "memory": {"slot": room.slot, "places": room.places, "radius": job.sample.anchor_radius,
                   "window": config.window, "blocks": config.num_layers},
        "pace": asdict(session.pace), "stride": TIME_STRIDE, "levels": levels, "seed": job.recipe.seed,
    }  # fmt: skip
    write_text(place / WALK, json.dumps(walk, allow_nan=False))


def _flat(poses: np.ndarray) -> Any:
    """Poses row by row: (4, 4) -> 16 numbers, (F, 4, 4) -> F times 16."""
    return np.asarray(poses, dtype=np.float64).reshape(*poses.shape[:-2], 16).tolist()


def _write_page(place: Path, runtime: Path) -> None:
    page = _packaged("page.html").decode("utf-8")
    before, after = page.split(MARK)
    rules = policy(page, "").replace("script-src ", "script-src 'self' 'wasm-unsafe-eval' ").split("; ")
    rules = [
        rule for rule in rules if not rule.startswith(("connect-src", "frame-ancestors"))
    ]  # meta takes no ancestors
    rules += ["connect-src 'self'", "worker-src 'self'"]
    head = f'<meta http-equiv="Content-Security-Policy" content="{"; ".join(rules)}">'
    write_text(place / PAGE, f'{before}{head}\n<script src="bundle.js"></script>{after}')
    _copy(((name, _packaged(name)) for name in SCRIPTS), place)
    (place / RUNTIME).mkdir()
    _copy(((Path(name).name, (runtime / name).read_bytes()) for name in RUNTIME_FILES), place / RUNTIME)


def _copy(contents: Iterable[tuple[str, bytes]], place: Path) -> None:
    for name, data in contents:
        write_bytes(place / name, data)


def _packaged(name: str) -> bytes:
    return files("hmcli.stages.playing").joinpath(name).read_bytes()
