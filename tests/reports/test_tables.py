"""Tables keep every metric, count what failed and never invent a number."""

from __future__ import annotations

import pytest
from rich.console import Console

from hmcli.reports.tables import comparison_markdown, markdown_table, score_table, score_text, scores_markdown


def entry(mean, unit="", n=3, failed=0, not_judged=0) -> dict[str, object]:
    counts = {"n": n, "frames": 11 * n, "failed": failed, "not_judged": not_judged}
    return {"mean": mean, "unit": unit, "better": "higher", **counts}


SCORES = {"metrics": {"psnr": entry(20.3571, "dB"), "subject-consistency (hog)": entry(0.92614, failed=1)}}


def test_scores_are_rounded_for_people_and_infinite_or_absent_ones_are_said():
    assert score_text(20.3571, "dB") == "20.357 dB"
    assert score_text(0.92614) == "0.9261"
    assert score_text("inf", "dB") == "inf dB"
    assert score_text(None) == "-"


def test_one_evaluation_as_markdown_counts_failed_clips():
    assert scores_markdown(SCORES).splitlines() == [
        "| metric | mean | clips | frames | failed | not judged |",
        "| --- | --- | --- | --- | --- | --- |",
        "| psnr ↑ | 20.357 dB | 3 | 33 | 0 | 0 |",
        "| subject-consistency (hog) ↑ | 0.9261 | 3 | 33 | 1 | 0 |",
    ]


def test_a_number_that_is_neither_better_high_nor_low_has_no_arrow():
    scores = {"metrics": {"motion-amount": {**entry(2.5, "%"), "better": "neither"}}}
    assert scores_markdown(scores).splitlines()[-1].startswith("| motion-amount | 2.5000 % |")


def test_the_terminal_table_shows_the_same_numbers():
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(score_table(SCORES, title="gen"))
    shown = console.export_text()
    console.file.close()
    for text in ("gen", "psnr", "20.357 dB", "subject-consistency (hog)", "0.9261"):
        assert text in shown


def test_evaluations_side_by_side_keep_backbones_apart():
    some = entry(0.9, not_judged=2)
    other = {"metrics": {"subject-consistency (dino)": some, "psnr": entry(None, "dB", n=0, failed=3, not_judged=1)}}
    assert comparison_markdown({"ours": SCORES, "theirs": other}).splitlines() == [
        "|  | psnr | subject-consistency (hog) | subject-consistency (dino) |",
        "| --- | --- | --- | --- |",
        "| ours | 20.357 dB | 0.9261 (1 failed) | - |",
        "| theirs | - (3 failed, 1 not judged) | - | 0.9000 (2 not judged) |",
    ]


def test_cells_cannot_break_a_markdown_table():
    assert markdown_table(["a"], [["x|y\nz"]]).splitlines()[2] == "| x\\|y z |"
    with pytest.raises(ValueError, match="2 cells, the header 1"):
        markdown_table(["a"], [["x", "y"]])
