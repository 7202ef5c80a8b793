"""What the clip browser shows of each clip: videos, numbers, who is seen when, and sentences for what is missing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from hmcli.errors import DataError
from hmcli.metrics.contract import Tracks
from hmcli.recipe.sections import DataConfig
from hmcli.reports.comparison import Comparison
from hmcli.reports.report_page import ClipView, Ground, MemoryRead, Sight
from hmcli.stages.data.opening import ClipSource, Dataset, read_rows
from hmcli.stages.reporting import media as videos
from hmcli.stages.reporting.media import Media
from hmcli.stages.reporting.memory import Inspection
from hmcli.stages.reporting.rows import Row
from hmcli.stages.reporting.subjects import (
    Absences,
    absences_in,
    absences_of,
    ground_of,
    lanes_of,
    read_tracks,
    sights_of,
)
from hmcli.stages.sampling.generations import Generated
from hmcli.world.files.layout import RENDERED_INDEX


@dataclass(frozen=True, kw_only=True)
class _Files:
    """Names of a clip's videos; None where there is none."""

    context: str | None = None
    truth: str | None = None
    rows: tuple[str | None, ...]


@dataclass(frozen=True)
class Browser:
    """What clips are shown from. `generations` (of a row's first seed) and `dataset` may be sentences: why not."""

    rows: Sequence[Row]
    table: Comparison
    generations: Sequence[Generated | str]
    dataset: Dataset | str
    media: Media
    inspections: Sequence[Inspection | None]  # of a row's first seed

    @property
    def clips(self) -> list[str]:
        """Of all rows, in the order of the first."""
        return list(dict.fromkeys(clip for row in self.rows for clip in row.clips))

    @cached_property
    def data(self) -> DataConfig | None:
        """Size, length and cut of the videos: the first generation's that is there."""
        return next((one.data for one in self.generations if isinstance(one, Generated)), None)

    @cached_property
    def _sources(self) -> dict[str, ClipSource]:
        return {} if isinstance(self.dataset, str) else {source.id: source for source in self.dataset.clips}

    @cached_property
    def _splits(self) -> Mapping[str, str]:
        if isinstance(self.dataset, str) or not (self.dataset.path / RENDERED_INDEX).is_file():
            return {}
        try:
            rows = read_rows(self.dataset.path)
        except DataError:
            return {}
        return {clip: row.split for clip, row in rows.items() if row.split}

    def source(self, clip: str) -> ClipSource | None:
        """A clip of the folder of clips; None where it is not there, or cannot be used."""
        return self._sources.get(clip)

    def views(self, played: Collection[str]) -> Iterator[ClipView]:
        """Every clip; with videos those in `played`."""
        for clip in self.clips:
            yield self._view(clip, clip in played)

    def _view(self, clip: str, played: bool) -> ClipView:
        missing: list[str] = []
        source = self._sources.get(clip)
        files = self._videos(clip, missing) if played else _Files(rows=(None,) * len(self.rows))
        if not played and self.data is not None:
            missing.append("The videos of this clip are not in this file: --clips names those that are.")
        tracks = self._tracks(source, missing)
        ground = self._ground(source, tracks, missing)
        frames, fps = self._length(clip)
        gone = self._absences(clip) if tracks is None else absences_of(tracks)
        return ClipView(
            id=clip, caption=source.caption if source else "", split=self._splits.get(clip, ""),
            hidden_seconds=gone.hidden_seconds, reasons=gone.reasons, frames=frames, fps=fps,
            context=files.context, truth=files.truth, rows=files.rows, ground=ground,
            lanes=() if tracks is None else lanes_of(tracks), sights=tuple(self._sights(clip, tracks)),
            memory=tuple(self._memory(clip, missing)),
            values=tuple(self._values(clip)), verdicts=tuple(self._verdicts(clip)), missing=tuple(missing),
        )  # fmt: skip

    def _tracks(self, source: ClipSource | None, missing: list[str]) -> Tracks | None:
        if source is None or self.data is None:
            return None
        try:
            tracks = read_tracks(source, self.data)
        except DataError as error:
            missing.append(f"Who is seen when is not shown: {error.what}.")
            return None
        if tracks is None:
            missing.append("Who is seen when is not known: the clip has no subjects.json.")
        return tracks

    def _ground(self, source: ClipSource | None, tracks: Tracks | None, missing: list[str]) -> Ground | None:
        if source is None or tracks is None or self.data is None:
            return None
        try:
            return ground_of(source, tracks, self.data)
        except DataError as error:
            missing.append(f"No view from above: {error.what}.")
            return None

    def _sights(self, clip: str, tracks: Tracks | None) -> Iterator[tuple[Sight, ...]]:
        """By row who was found where; of several seeds by the first, whose videos are shown."""
        for row in self.rows:
            places = row.members[0].places.get(clip)
            yield () if places is None or tracks is None else sights_of(places, tracks)

    def _memory(self, clip: str, missing: list[str]) -> Iterator[MemoryRead | None]:
        for row, inspection in zip(self.rows, self.inspections, strict=True):
            try:
                yield None if inspection is None else inspection.read(clip)
            except DataError as error:
                missing.append(f"What {row.name} read of memory is not shown: {error.what}.")
                yield None

    def _absences(self, clip: str) -> Absences:
        """As the evaluations say it."""
        return absences_in([said for row in self.rows for said in row.stretches if said["clip"] == clip])

    def _videos(self, clip: str, missing: list[str]) -> _Files:
        """Names of the clip's videos: of its context and truth, and of every row."""
        source, data = self._sources.get(clip), self.data
        context = truth = None
        if source is not None and data is not None:
            context = self._kept("context", partial(videos.context_video, source, data), missing)
            truth = self._kept("truth", partial(videos.target_video, source, data), missing)
        elif not isinstance(self.dataset, str):
            missing.append("The folder of clips has no clip of this id, or its videos cannot be used.")
        rows = tuple(
            None
            if isinstance(of, str)
            else self._kept(f"video of {one.name}", partial(videos.generated_video, of, clip), missing)
            for one, of in zip(self.rows, self.generations, strict=True)
        )
        return _Files(context=context, truth=truth, rows=rows)

    def _kept(self, what: str, read: Callable[[], bytes], missing: list[str]) -> str | None:
        try:
            return self.media.add(read())
        except DataError as error:
            missing.append(f"No {what}: {error.what}.")
            return None

    def _length(self, clip: str) -> tuple[tuple[int, int], float]:
        """Frames of context and target as they are played, and frames a second; 0 and 1 where that is not known."""
        for generated in self.generations:
            if isinstance(generated, Generated) and clip in generated.rows:
                row = generated.rows[clip]
                return (row.context_frames, row.frames), row.fps
        return (0, 0), 1.0

    def _values(self, clip: str) -> Iterator[tuple[tuple[float | None, str], ...]]:
        """By row and column the clip's value, and why there is none."""
        for row in self.rows:
            yield tuple(row.value(clip, column.label) for column in self.table.columns)

    def _verdicts(self, clip: str) -> Iterator[tuple[tuple[str, str], ...]]:
        """By row the subjects that should be back, and what became of each."""
        for row in self.rows:
            yield tuple((said.subject, said.verdict) for said in row.verdicts if said.clip == clip)
