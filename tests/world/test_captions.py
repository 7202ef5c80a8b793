"""caption.txt: every grammar that can be told apart, and no shifted caption."""

from __future__ import annotations

import pytest

from hmcli.errors import DataError
from hmcli.world.files.captions import (
    lines_of_others,
    natural_key,
    numbered_lines,
    parse_captions,
    parse_numbered_captions,
)


@pytest.mark.parametrize(
    "text",
    [
        "b10\ta bear\nb2\ta cat: black\n",
        "b2: a cat: black\nb10: a bear\n",
        "b10 a bear\nb2  a cat: black",
        "a cat: black\na bear\n\n",  # b2 comes before b10
        "\ufeffb10\ta bear\r\nb2\ta cat: black\r\n",
    ],
)
def test_every_grammar_gives_the_same_captions(text):
    assert parse_captions(text, ["b10", "b2"]) == {"b10": "a bear", "b2": "a cat: black"}


def test_tabbed_lines_of_clips_that_were_not_copied_are_left_out():
    assert parse_captions("a\tone\nb\ttwo\nc\tthree", ["c"]) == {"c": "three"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one\ntwo\n", "2 captions for 3 clips"),
        ("one\ntwo\nthree\nfour\n", "4 captions for 3 clips"),
        ("one\n\ntwo\nthree", "4 captions for 3 clips"),
        ("1\tone\n2\ttwo\nthree", "3 lines start with a clip id"),
        ("1 one\n2 two\nthree", "2 of 3 lines start with a clip id"),
        ("1: one\n2: two\nthree", "2 of 3 lines start with a clip id"),
        ("1: one\n2: two\n2: three", "two lines name the clip '2'"),
    ],
)
def test_captions_that_might_be_shifted_are_refused_with_numbers(text, message):
    with pytest.raises(DataError, match=message):
        parse_captions(text, ["1", "2", "3"])


@pytest.mark.parametrize(
    "text",
    [
        "1\tone\n3\tthree\n",  # not named at all
        "1\tone\n2\t\n3\tthree",
        "1\tone\n2\n3\tthree\n",  # an editor has cut the tab off
        "1\tone\n\n3\tthree\n\n",
        "1: one\n2:\n3: three",
        "1 one\n2\n3 three",
        "one\n\nthree\n",
        "one\r\n \r\nthree\r\n",
    ],
)
def test_a_clip_without_a_caption_has_an_empty_one(text):
    assert parse_captions(text, ["1", "2", "3"]) == {"1": "one", "2": "", "3": "three"}


@pytest.mark.parametrize("text", ["", "\n", "  \n\n"])
def test_an_empty_file_says_nothing_of_any_clip(text):
    assert parse_captions(text, ["1", "2"]) == {"1": "", "2": ""}
    assert parse_numbered_captions(text, ["1", "2"]) == {"1": "", "2": ""}


def test_the_last_clip_may_be_the_one_without_a_caption():
    assert parse_captions("one\ntwo\n\n", ["1", "2", "3"])["3"] == ""
    assert parse_numbered_captions("one\n\n\n", ["1", "3"]) == {"1": "one", "3": ""}


def test_other_captions_leave_the_rest_of_a_numbered_file_as_it_is():
    assert numbered_lines("one\n\nthree\n", {"2": "a\ncat", "5": "x"}) == "one\na cat\nthree\n\nx\n"
    assert lines_of_others("1\tone\n2\ttwo\n", ["2"]) == [("1", "one")]


def test_line_n_describes_clip_n_even_when_a_clip_is_gone():
    assert parse_numbered_captions("one\ntwo\nthree", ["1", "3"]) == {"1": "one", "3": "three"}
    with pytest.raises(DataError, match="there are 2 lines and the highest clip is 3"):
        parse_numbered_captions("one\nthree", ["1", "3"])


def test_numbers_in_ids_sort_as_numbers():
    assert sorted(["a10", "a9", "10", "9", "a"], key=natural_key) == ["9", "10", "a", "a9", "a10"]
