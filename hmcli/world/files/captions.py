"""caption.txt: which caption belongs to which clip?

The release does not publish the grammar of its lines, so every form that can be told apart is read and nothing is
guessed: a caption that might belong to another clip is refused, with the numbers that do not agree. A clip that surely
has none has an empty caption.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from hmcli.errors import DataError

_FIX = "write one line per clip: <clip id>, a tab, the caption"


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts clip 2 before clip 10."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts)


def parse_captions(text: str, ids: Sequence[str]) -> dict[str, str]:
    """Captions by clip id; empty for a clip whose line says nothing, or that no line names.

    Accepted: `<id><tab><caption>` on every line (lines of other clips are allowed: a part of a data set was copied;
    of a clip without a caption the id alone may be left); `<id>: <caption>` or `<id> <caption>` where every line starts
    with a known id; or exactly one line per clip, in natural order of the ids, which may be empty. Raises DataError
    otherwise.
    """
    lines = _lines(text, len(ids))
    said = [line for line in lines if line.strip()]
    known = set(ids)
    if all("\t" in line or line.strip() in known for line in said) and (not said or any("\t" in line for line in said)):
        return _keyed([line.partition("\t")[::2] for line in said], ids)
    for separator in (":", None):
        if separator and not any(separator in line for line in said):
            continue  # a line may be an id alone
        heads = [line.split(separator, 1) for line in said]
        named = sum(head[0].strip() in known for head in heads)
        if named == len(said):
            return _keyed([(head[0], "".join(head[1:])) for head in heads], ids)
        if named:
            raise _refuse(f"{named} of {len(said)} lines start with a clip id")
    if len(lines) != len(ids):
        raise _refuse(f"{len(lines)} captions for {len(ids)} clips, and the lines do not name their clips")
    return dict(zip(sorted(ids, key=natural_key), (line.strip() for line in lines), strict=True))


def caption_lines(captions: Iterable[tuple[str, str]]) -> str:
    """The text of a caption file, from clip ids with their captions, each on one line."""
    return "".join(f"{clip}\t{' '.join(caption.split())}\n" for clip, caption in captions)


def parse_numbered_captions(text: str, ids: Sequence[str]) -> dict[str, str]:
    """Line N, which may be empty, is the caption of clip N (the published examples).

    The last line must belong to the highest clip; a file that says nothing at all says nothing of any clip.
    """
    highest = max(int(name) for name in ids)
    lines = [line.strip() for line in _lines(text, highest)]
    if not any(lines):
        return dict.fromkeys(ids, "")
    if len(lines) != highest:
        raise _refuse(f"line N describes N.mp4, but there are {len(lines)} lines and the highest clip is {highest}.mp4")
    if min(int(name) for name in ids) < 1:
        raise _refuse("line N describes N.mp4, but there is a 0.mp4")
    return {name: lines[int(name) - 1] for name in ids}


def numbered_lines(text: str, captions: Mapping[str, str]) -> str:
    """A numbered caption file with other captions for some clips; what it says of others stays."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").rstrip("\n").split("\n") if text.strip() else []
    lines += [""] * (max(int(name) for name in captions) - len(lines))
    for name, caption in captions.items():
        lines[int(name) - 1] = " ".join(caption.split())
    return "\n".join(lines) + "\n"


def lines_of_others(text: str, ids: Sequence[str]) -> list[tuple[str, str]]:
    """Clips that a tabbed caption file names and that are none of `ids`, with their captions."""
    pairs = [line.partition("\t")[::2] for line in _lines(text, 0) if "\t" in line]
    return [(name.strip(), caption.strip()) for name, caption in pairs if name.strip() not in ids]


def _lines(text: str, wanted: int) -> list[str]:
    """Lines of a file; empty ones at its end do not count, unless there are as many lines as `wanted` with them."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    while lines and not lines[-1].strip() and len(lines) != wanted:
        lines.pop()
    return lines


def _keyed(pairs: Sequence[Sequence[str]], ids: Sequence[str]) -> dict[str, str]:
    captions: dict[str, str] = {}
    for name, caption in pairs:
        if name.strip() in captions:
            raise _refuse(f"two lines name the clip {name.strip()!r}")
        captions[name.strip()] = caption.strip()
    return {name: captions.get(name, "") for name in ids}


def _refuse(what: str) -> DataError:
    return DataError(f"captions cannot be told apart: {what}", where={"file": "caption.txt"}, fix=_FIX)
