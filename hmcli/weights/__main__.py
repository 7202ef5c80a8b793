"""Package a trained run as the weights that ship: half precision, no training state, a manifest of its own.

    python -m hmcli.weights runs/mini          # replaces hmcli/weights/mini but for its vae/
    python -m hmcli.weights runs/nano nano     # replaces hmcli/weights/nano, its codec too

For maintainers, after training `recipes/mini/transformer.yaml` or a row of `recipes/nano`.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

import diffusers
import torch

from hmcli.codecs.places import VAE
from hmcli.recipe.reading import load_recipe, sections
from hmcli.stages.models.folders import PACKAGED, find_model
from hmcli.stages.models.layout import CHECKPOINT, CONFIG, INDEX, MODEL, SCHEDULER, TRANSFORMER
from hmcli.stages.shared.typed import to_json
from hmcli.store.files import read_json, write_json
from hmcli.store.hashing import hash_json, hash_tree
from hmcli.store.manifest import make_manifest, write_manifest
from hmcli.store.records import MANIFEST

CARD = "README.md"  # written and corrected by hand, after what it describes
RECIPES = {"mini": "mini/transformer", "nano": "nano/base"}


def package(run: Path, target: Path = PACKAGED) -> None:
    """Write transformer/, scheduler/, model_index.json and manifest.json of a run's last checkpoint to `target`.

    A codec in the checkpoint goes along where `target` has none, or one of an earlier run (all but mini).
    """
    source = find_model(run)
    model = source.load(torch.float32, "cpu")
    parameters = sum(p.numel() for p in model.parameters())
    target.mkdir(parents=True, exist_ok=True)
    (target / MANIFEST).unlink(missing_ok=True)
    for part in (TRANSFORMER, SCHEDULER):
        shutil.rmtree(target / part, ignore_errors=True)
    if target.name != PACKAGED.name:
        shutil.copytree(source.path / VAE, target / VAE, dirs_exist_ok=True)
    model.half().save_pretrained(target / TRANSFORMER)
    config = read_json(target / TRANSFORMER / CONFIG)
    config.pop("_name_or_path", None)  # a path of the machine it was trained on
    write_json(target / TRANSFORMER / CONFIG, config)
    diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(source.path / SCHEDULER).save_pretrained(
        target / SCHEDULER
    )
    shutil.copy2(source.path / INDEX, target / INDEX)
    for file in target.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    sample = sections(load_recipe(RECIPES[target.name]), "sample")[
        "sample"
    ]  # what to generate with may be chosen after training
    files = {name: entry for name, entry in hash_tree(target).items() if name != CARD}
    made = source.manifest
    manifest = make_manifest(
        CHECKPOINT, recipe=_elsewhere(made.recipe) | {"sample": sample}, inputs=made.inputs, seed=made.seed,
        items={MODEL: {"hash": hash_json({path: entry["hash"] for path, entry in files.items()})}}, files=files,
        counts=made.counts, attributes=to_json(dataclasses.replace(source.about, parameters=parameters)),
    )  # fmt: skip
    write_manifest(target, manifest)


def _elsewhere(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe without paths of the machine it was trained on."""
    said = {name: dict(values) if isinstance(values, dict) else values for name, values in recipe.items()}
    for section, key in (("codec", "path"), ("model", "base")):
        if section in said and key in said[section]:
            said[section][key] = ""
    return said


if __name__ == "__main__":
    package(Path(sys.argv[1]), PACKAGED.with_name(sys.argv[2] if len(sys.argv) > 2 else PACKAGED.name))
