"""The protocol card names everything it is given and everyone who failed."""

from __future__ import annotations

from hmcli.reports.protocol import failed_rows, protocol_card

SCORES = {
    "metrics": {
        "ssim": {
            "mean": 0.5, "unit": "", "better": "higher", "n": 1, "frames": 5, "failed": 1,
            "failures": [{"clip": "b|1", "reason": "5 frames,\n  the reference 9"}],
            "not_judged": 2, "unjudged": [{"clip": "c", "reason": "nobody returns"}],
        }
    }
}  # fmt: skip


def test_the_card_holds_scores_sections_and_failures():
    card = protocol_card({"Averages": {"eval.average: frames": "all frames"}, "Versions": {"numpy": "2"}}, SCORES)
    assert "| ssim ↑ | 0.5000 | 1 | 5 | 1 | 2 |" in card
    assert "## Averages\n\n" in card
    assert "| eval.average: frames | all frames |" in card
    left_out, not_judged = card.split("## Left out of the means")[1].split("## Not judged")
    assert "| ssim | b\\|1 | 5 frames,   the reference 9 |" in left_out
    assert "| ssim | c | nobody returns |" in not_judged.split("##")[0]


def test_a_card_without_failures_has_no_section_for_them():
    whole = {
        "metrics": {"ssim": {**SCORES["metrics"]["ssim"], "failures": [], "failed": 0, "unjudged": [], "not_judged": 0}}
    }
    assert failed_rows(whole) == []
    assert "Left out" not in protocol_card({}, whole)
    assert "Not judged" not in protocol_card({}, whole)
