"""What lies in the place of weights when a download went wrong: a pointer, a page, an error message, another format.

Told by the first bytes, before a reader of weights says no more than that the header is wrong.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from hmcli.errors import DataError

_READ = 4096  # bytes looked at
_SHOWN = 160  # characters of a text that is quoted
_LFS = b"version https://git-lfs.github.com/spec/"
_FETCH = "hm fetch NAME (hm fetch lists what it knows)"
_OF_WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")
_MAGIC = {  # first bytes -> (what it is, suffixes under which it is right)
    b"PK\x03\x04": ("a zip archive, as torch saves (.pth, .pt, .ckpt, .bin)", (".pth", ".pt", ".ckpt", ".bin")),
    b"GGUF": ("a GGUF file", ()),
    b"\x1f\x8b": ("a gzip archive", ()),
    b"\xfd7zXZ": ("an xz archive", ()),
    b"Rar!": ("a RAR archive", ()),
    b"\x89HDF": ("an HDF5 file", ()),
}


def check_no_impostor(file: Path) -> None:
    """Raise DataError naming what the file is, where it is clearly no file of weights of the kind its name says."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_READ)
    except OSError as error:
        raise DataError("the file of weights cannot be read", where={"file": file, "because": error}) from error
    found = _what_it_is(head, file)
    if found is not None:
        what, more, fix = found
        raise DataError(
            f"the file is {what}, not weights",
            where={"file": file, "bytes": file.stat().st_size} | ({"it says": more} if more else {}),
            fix=fix,
        )


def check_no_impostors_in(folder: Path) -> None:
    """The same for every file of a folder that has a name of weights: before libraries load it by its names."""
    for file in sorted(folder.iterdir() if folder.is_dir() else ()):
        if file.suffix in _OF_WEIGHTS and file.is_file():
            check_no_impostor(file)


def _what_it_is(head: bytes, file: Path) -> tuple[str, str, str] | None:
    """What it is, what it says, what to do; None for what may be weights."""
    if not head:
        return "empty", "", f"fetch it again: {_FETCH}"
    if head.startswith(_LFS):
        said = dict(line.split(" ", 1) for line in head.decode("utf-8", "replace").splitlines() if " " in line)
        more = f"the weights are {said.get('size', '?')} bytes, {said.get('oid', '?')}"
        return "a Git LFS pointer", more, f"run git lfs pull in the clone it came from, or {_FETCH}"
    for magic, (what, suffixes) in _MAGIC.items():
        if head.startswith(magic) and file.suffix not in suffixes:
            fix = f"rename it to end in {suffixes[0]}" if suffixes else "unpack or convert it to .safetensors first"
            return what, "", fix
    if file.suffix != ".safetensors" and head[8:10] == b'{"' and head[5:8] == b"\0\0\0":
        return "a safetensors file under another name", "", "rename it to end in .safetensors"
    return _what_text(head) if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    """Readable from its first byte on. No file of weights is: they start with a length or a magic number."""
    start = head.removeprefix(b"\xef\xbb\xbf")[:8]
    return bool(start) and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)


def _what_text(head: bytes) -> tuple[str, str, str]:
    text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    low = text[:512].lower()
    if low.startswith(("<!doctype html", "<html")) or "<html" in low or "<body" in low:
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        more = _short(title[1]) if title else ""
        return "an HTML page", more, f"take the link to the file itself (on the hub /resolve/, not /blob/), or {_FETCH}"
    if low.startswith(("<?xml", "<error")):
        return "a server's error message (XML)", _short(text), f"the link has expired or is wrong: {_FETCH}"
    if low.startswith(("{", "[")):
        return "JSON text", _short(_error_in(text)), f"a server answered with a message: fetch it again, {_FETCH}"
    return "plain text", _short(text), f"fetch it again: {_FETCH}"


def _error_in(text: str) -> str:
    """The message in a server's JSON answer, or the text as it is."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for key in ("error", "message", "detail"):
        if isinstance(content, dict) and isinstance(content.get(key), str):
            return str(content[key])
    return text


def _short(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "..."
