"""Reading generation artifacts: which videos were made, for which clips, at which size, from what.

Written by `hmcli.stages.sampling.generate` and `hmcli.stages.bench.rows`; what they share stands in
`hmcli.stages.sampling.layout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hmcli.errors import DataError
from hmcli.recipe.reading import from_dict
from hmcli.recipe.sections import DataConfig, PosesConfig
from hmcli.stages.data.opening import Dataset, open_dataset
from hmcli.stages.sampling.layout import KIND, LIST, Foreign, GenerationAttributes, ModelFree, Network, Row
from hmcli.stages.shared.typed import from_json
from hmcli.store.files import inside, parse_json_lines
from hmcli.store.listed import listed
from hmcli.store.manifest import Manifest, read_manifest


@dataclass(frozen=True, kw_only=True)
class Generated:
    """A generation artifact as it is. `rows` are those of generations.jsonl by clip id, in its order.

    Of several samples of a clip `rows` has the first one, `samples` all of them.
    """

    path: Path
    manifest: Manifest
    rows: Mapping[str, Row]
    samples: Mapping[str, tuple[Row, ...]]
    data: DataConfig  # the size, fit, frames, rate and split its videos were made at
    poses: PosesConfig
    source: str  # folder of clips it was made from; empty when it does not say
    source_fingerprint: str
    model_free: ModelFree | None  # which row without a model it is
    network: Network | None = None  # None: not recorded
    foreign: Foreign | None = None  # no artifact: a plain folder, and how it is read

    @property
    def count(self) -> int:
        """Samples of a clip."""
        return max(map(len, self.samples.values()), default=1)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Of the videos as they were written, by path from the artifact."""
        items = self.manifest.items.values()
        return {record["path"]: record["files"][""]["hash"] for record in items if "" in record["files"]}

    @property
    def clips(self) -> list[str]:
        """Every clip it was asked for: the generated ones, then those it had to leave out."""
        return [*self.rows, *(row["item"] for row in self.manifest.quarantined if row["item"] not in self.rows)]


def open_generation(path: Path, poses: PosesConfig) -> Generated:
    """Read what `hm generate` wrote. `poses` serve where the generation does not record how it read cameras."""
    manifest = read_manifest(path, kinds=(KIND,))
    about = from_json(GenerationAttributes, manifest.attributes, "the description", generation=path)
    lines = enumerate(parse_json_lines(listed(path).read(LIST).data, path / LIST), 1)
    rows = [from_json(Row, values, "a row", file=path / LIST, line=number) for number, values in lines]
    samples: dict[str, tuple[Row, ...]] = {}
    for row in rows:
        inside(path, row.video)
        samples[row.id] = (*samples.get(row.id, ()), row)
        if len({of.sample for of in samples[row.id]}) < len(samples[row.id]):
            raise DataError("a clip is listed twice", where={"file": path / LIST, "clip": row.id})
    if "poses" in manifest.recipe:
        poses = from_dict({"poses": manifest.recipe["poses"]}).poses
    return Generated(
        path=path, manifest=manifest, rows={clip: of[0] for clip, of in samples.items()}, samples=samples,
        data=about.data, poses=poses, source=about.source_dataset,
        source_fingerprint=about.source_dataset_fingerprint, model_free=about.model_free, network=about.network,
    )  # fmt: skip


def find_reference(generated: Generated, path: Path | None) -> tuple[Dataset | None, str]:
    """The data set with the true targets, or why there is none. One that was named must be usable."""
    if path is not None:
        dataset = open_dataset(path, generated.poses)
        if not _has_targets(dataset, generated.data):
            fix = "name a folder whose clips have target videos"
            raise DataError("no clip of the reference has a target video", where={"reference": path}, fix=fix)
        return dataset, ""
    if generated.foreign is not None:
        return None, "a plain folder of videos does not say what truly happens"
    if not generated.source:
        return None, "the generation does not say which folder of clips it was made from"
    if not Path(generated.source).is_dir():
        return None, f"{generated.source}, which the generation was made from, is not there"
    try:
        dataset = open_dataset(Path(generated.source), generated.poses)
    except DataError as error:
        return None, f"{generated.source} cannot be read ({error.what})"
    if generated.source_fingerprint and dataset.fingerprint != generated.source_fingerprint:
        return None, f"{generated.source} has changed since the generation was made from it"
    if not _has_targets(dataset, generated.data):
        return None, f"{generated.source} has no target videos"
    return dataset, ""


def unchanged_source(generated: Generated) -> Dataset | None:
    """The folder of clips that a generation was made from, with or without targets, where it is there as it was."""
    if generated.foreign is not None or not generated.source or not Path(generated.source).is_dir():
        return None
    try:
        dataset = open_dataset(Path(generated.source), generated.poses)
    except DataError:
        return None
    return dataset if dataset.fingerprint == generated.source_fingerprint else None


def _has_targets(dataset: Dataset, data: DataConfig) -> bool:
    return data.split is not None or any(clip.target_info is not None for clip in dataset.clips)
