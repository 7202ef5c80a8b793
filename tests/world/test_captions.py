"""caption.txt: every grammar that can be told apart, and no shifted caption."""

from __future__ import annotations

import pytest

from hmcli.errors import DataError
from hmcli.world.files.captions import natural_key, parse_captions, parse_numbered_captions


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
        ("one\n\ntwo\nthree", "line 2 of 4 is empty"),
        ("1\tone\n2\ttwo", "1 of 3 clips have no caption, the first is '3'"),
        ("1 one\n2 two\nthree", "2 of 3 lines start with a clip id"),
        ("1: one\n2: two\nthree", "2 of 3 lines start with a clip id"),
        ("1: one\n2: two\n2: three", "two lines name the clip '2'"),
        ("  \n", "the file is empty"),
    ],
)
def test_captions_that_might_be_shifted_are_refused_with_numbers(text, message):
    with pytest.raises(DataError, match=message):
        parse_captions(text, ["1", "2", "3"])


def test_line_n_describes_clip_n_even_when_a_clip_is_gone():
    assert parse_numbered_captions("one\ntwo\nthree", ["1", "3"]) == {"1": "one", "3": "three"}
    with pytest.raises(DataError, match="there are 2 lines and the highest clip is 3"):
        parse_numbered_captions("one\nthree", ["1", "3"])


def test_numbers_in_ids_sort_as_numbers():
    assert sorted(["a10", "a9", "10", "9", "a"], key=natural_key) == ["9", "10", "a", "a9", "a10"]
