"""What `hm dataset check` found, and how it is said: for people, and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from hmcli.stages.data.opening import Dataset
from hmcli.world.hidden.sightings import Absence
from hmcli.world.views.field_of_view import FieldOfView


@dataclass(kw_only=True)
class Findings:
    """What was found out about one clip. `problems` are contradictions; what cannot be read at all ends its check."""

    clip: str
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)  # what there is nothing to hold against, or too little
    unreadable: str = ""
    cameras_explain: float | None = None  # share of patches of the pictures that lie where the cameras allow
    depth_explains: float | None = None  # and where cameras and depth put them
    events: list[Absence] = field(default_factory=list)  # gone within the context, back within the target
    events_from: str = ""  # masks, check.json, or empty: the clip has neither
    field_of_view: FieldOfView | None = None


def frame_name(frame: int, context: int) -> str:
    """A frame counted over context and target, in words."""
    return f"context frame {frame}" if frame < context else f"target frame {frame - context}"


def trouble(one: Findings) -> str:
    """What is wrong with a clip; empty: nothing."""
    return one.unreadable or "; ".join(one.problems)


def lines_of(dataset: Dataset, found: list[Findings], angle: FieldOfView | None) -> list[str]:
    """The report, for a terminal."""
    good = sum(not trouble(one) for one in found)
    lines = [f"{dataset.path.absolute()}", f"  layout {dataset.layout}, {len(found)} clips, {good} without a problem"]
    lines += [f"  {note}" for note in dataset.notes]
    if angle is None:
        lines.append("  field of view: cannot be measured (no clip turns its camera without moving it sideways)")
    else:
        clips = sum(one.field_of_view is not None for one in found)
        spread = "quartiles {:.1f} to {:.1f}, {} clips".format(*angle.quartiles, clips)
        lines.append(f"  field of view: {angle.degrees:.1f} degrees, horizontal ({spread})")
    with_event = sum(bool(one.events) for one in found)
    unknown = sum(not one.events_from and not one.unreadable for one in found)
    lines.append(f"  exit and re-entry: in {with_event} clips" + (f", unknown for {unknown}" if unknown else ""))
    for one in found:
        lines.append(f"{one.clip}: {'ok' if not trouble(one) else 'unreadable' if one.unreadable else 'contradictory'}")
        lines += [f"  {line}" for line in one.unreadable.splitlines()]
        lines += [f"  {text}" for text in (*one.problems, *one.missing)]
        lines += [f"  not checked: {text}" for text in one.unchecked]
        lines += [f"  {event_line(event)}" for event in one.events]
        if one.field_of_view is not None:
            lines.append(f"  field of view {one.field_of_view.degrees:.1f} degrees")
    return lines


def event_line(event: Absence) -> str:
    reason = f", {event.reason}" if event.reason else ""
    return f"{event.subject} out of sight in frames {event.first} to {event.last}{reason}"


def data_of(dataset: Dataset, found: list[Findings], angle: FieldOfView | None) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "path": str(dataset.path.absolute()), "layout": dataset.layout, "notes": list(dataset.notes),
        "field_of_view": None if angle is None else asdict(angle), "clips": [asdict(one) for one in found],
    }  # fmt: skip
