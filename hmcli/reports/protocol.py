"""The protocol card: every choice that changes a number of an evaluation, as a page a reader can hold against another.

It is drawn from the `protocol` attribute of an evaluation's manifest alone: sections of label -> text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hmcli.reports.tables import markdown_table, scores_markdown

AVERAGES = {
    "frames": "mean over all judged frames of all clips (VBench on one device)",
    "videos": "mean over clips of each clip's mean over its judged frames (VBench on several devices)",
}


def protocol_card(protocol: Mapping[str, Mapping[str, str]], scores: Mapping[str, Any]) -> str:
    """Markdown: the scores, who failed or had nothing to judge, then one table per section of `protocol`."""
    parts = [
        "# Protocol card\n",
        "Two scores are comparable when everything below is equal.\n",
        scores_markdown(scores),
    ]
    if failed := failed_rows(scores):
        parts += ["\n## Left out of the means\n", markdown_table(["metric", "clip", "reason"], failed)]
    if unjudged := _rows(scores, "unjudged"):
        parts += ["\n## Not judged\n", markdown_table(["metric", "clip", "reason"], unjudged)]
    for title, rows in protocol.items():
        parts += [f"\n## {title}\n", markdown_table(["", ""], [[label, text] for label, text in rows.items()])]
    return "\n".join(parts)


def failed_rows(scores: Mapping[str, Any]) -> list[list[str]]:
    """[metric label, clip, reason] of everything that is in no mean."""
    return _rows(scores, "failures")


def _rows(scores: Mapping[str, Any], key: str) -> list[list[str]]:
    return [[label, one["clip"], one["reason"]] for label, entry in scores["metrics"].items() for one in entry[key]]
