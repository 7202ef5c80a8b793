"""Captions that an encoder cuts: said aloud, with how many clips have one and which."""

from __future__ import annotations

from collections.abc import Mapping

from hmcli.contracts import Reporter, TextEncoder

_SOME = 3  # clips that are named


def cut_caption(encoder: TextEncoder, caption: str) -> str:
    """What `encode` cuts of a caption, in words; empty: nothing, or the encoder does not say."""
    count = getattr(encoder, "token_count", None)  # encoders of other packages may lack it
    rows = 0 if count is None else count(caption)
    return f"{rows} tokens, text.length is {encoder.length}" if rows > encoder.length else ""


def say_cut(told: Mapping[str, str], clips: Mapping[str, list[str]], reporter: Reporter) -> None:
    """Warn of captions that are cut: `told` says what of each, empty for nothing, and `clips` which clips have one."""
    named = [f"{clip} ({words})" for caption, words in told.items() if words for clip in clips.get(caption, [])]
    if not named:
        return
    more = "" if len(named) <= _SOME else ", ..."
    said = f"{len(named)} clips' captions are" if len(named) != 1 else "1 clip's caption is"
    reporter.warn(f"{said} longer than the model reads, and cut: {', '.join(named[:_SOME])}{more}")
