"""The protocol card names everything it is given and everyone who failed."""

from __future__ import annotations

from hmcli.reports.protocol import failed_rows, protocol_card

SCORES = {
    "metrics": {
        "ssim": {
            "mean": 0.5, "unit": "", "better": "higher", "n": 1, "frames": 5, "failed": 1,
            "failures": [{"clip": "b|1", "reason": "5 frames,\n  the reference 9"}],
        }
    }
}  # fmt: skip


def test_the_card_holds_scores_sections_and_failures():
    card = protocol_card({"Averages": {"eval.average: frames": "all frames"}, "Versions": {"numpy": "2"}}, SCORES)
    assert "| ssim ↑ | 0.5000 | 1 | 5 | 1 |" in card
    assert "## Averages\n\n" in card
    assert "| eval.average: frames | all frames |" in card
    assert "| ssim | b\\|1 | 5 frames,   the reference 9 |" in card


def test_a_card_without_failures_has_no_section_for_them():
    whole = {"metrics": {"ssim": {**SCORES["metrics"]["ssim"], "failures": [], "failed": 0}}}
    assert failed_rows(whole) == []
    assert "Left out" not in protocol_card({}, whole)
