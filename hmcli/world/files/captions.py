"""caption.txt: which caption belongs to which clip?

The release does not publish the grammar of its lines, so every form that can be told apart is read and nothing is
guessed: a caption that might belong to another clip is refused, with the numbers that do not agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hmcli.errors import DataError

_FIX = "write one line per clip: <clip id>, a tab, the caption"


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts clip 2 before clip 10."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts)


def parse_captions(text: str, ids: Sequence[str]) -> dict[str, str]:
    """Captions by clip id.

    Accepted: `<id><tab><caption>` on every line (lines of other clips are allowed: a part of a data set was copied);
    `<id>: <caption>` or `<id> <caption>` where every line starts with a known id; or exactly one line per clip, in
    natural order of the ids. Raises DataError otherwise.
    """
    lines = _lines(text)
    if all("\t" in line for line in lines):
        return _keyed([line.split("\t", 1) for line in lines], ids)
    known = set(ids)
    for separator in (":", None):
        heads = [line.split(separator, 1) for line in lines]
        named = sum(head[0].strip() in known for head in heads)
        if named == len(lines):
            return _keyed([(head[0], "".join(head[1:])) for head in heads], ids)
        if named:
            raise _refuse(f"{named} of {len(lines)} lines start with a clip id")
    if len(lines) != len(ids):
        raise _refuse(f"{len(lines)} captions for {len(ids)} clips, and the lines do not name their clips")
    return dict(zip(sorted(ids, key=natural_key), lines, strict=True))


def caption_lines(captions: Iterable[tuple[str, str]]) -> str:
    """The text of a caption file, from clip ids with their captions, each on one line."""
    return "".join(f"{clip}\t{' '.join(caption.split())}\n" for clip, caption in captions)


def parse_numbered_captions(text: str, ids: Sequence[str]) -> dict[str, str]:
    """Line N is the caption of clip N (the published examples); the last line must belong to the highest clip."""
    lines, highest = _lines(text), max(int(name) for name in ids)
    if len(lines) != highest:
        raise _refuse(f"line N describes N.mp4, but there are {len(lines)} lines and the highest clip is {highest}.mp4")
    if min(int(name) for name in ids) < 1:
        raise _refuse("line N describes N.mp4, but there is a 0.mp4")
    return {name: lines[int(name) - 1] for name in ids}


def _lines(text: str) -> list[str]:
    """Lines without surrounding blanks; an empty one in the middle would shift captions and is refused."""
    lines = [line.strip() for line in text.removeprefix("\ufeff").rstrip().splitlines()]
    if not lines:
        raise _refuse("the file is empty")
    if "" in lines:
        raise _refuse(f"line {lines.index('') + 1} of {len(lines)} is empty")
    return lines


def _keyed(pairs: Sequence[Sequence[str]], ids: Sequence[str]) -> dict[str, str]:
    captions: dict[str, str] = {}
    for name, caption in pairs:
        if name.strip() in captions:
            raise _refuse(f"two lines name the clip {name.strip()!r}")
        captions[name.strip()] = caption.strip()
    if lacking := [name for name in ids if name not in captions]:
        raise _refuse(f"{len(lacking)} of {len(ids)} clips have no caption, the first is {lacking[0]!r}")
    return {name: captions[name] for name in ids}


def _refuse(what: str) -> DataError:
    return DataError(f"captions cannot be told apart: {what}", where={"file": "caption.txt"}, fix=_FIX)
