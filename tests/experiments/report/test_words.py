"""Text from anywhere, fit for a page."""

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup

from experiments.report.words import NAME, TEXT, name_of, pieces, written


@pytest.mark.parametrize("letter", ["\x00", "\x07", "\x1b", "\r", "\x7f", "\x85", "\ud83d", "\ufdd0", "\uffff"])
def test_what_cannot_be_written_is_replaced(letter):
    assert written(f"a{letter}b") == "a\ufffdb"


@pytest.mark.parametrize("text", ["tab\tline\nend", "naïve 数学 🏳️‍🌈 \u202e", "e\u0301\u0323\u0302\u0304x", ""])
def test_other_text_stays_as_it_is(text):
    assert written(text) == text


def test_marks_that_would_cover_other_lines_are_taken_off():
    hat, short = "\u0302", "\u0e47"
    assert written(f"Z{hat * 2000}algo \u0e01{short * 9}") == f"Z{hat * 4}algo \u0e01{short * 4}"


def test_numbers_and_what_is_escaped_already_stay():
    assert written(3.5) == 3.5
    assert isinstance(written(Markup("<b>\x00</b>")), Markup)


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA, pd.NaT, "", "  \n "])
def test_what_has_no_name_is_a_dash(nothing):
    assert name_of(nothing) == "–"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("two\n lines ", "two lines"),
        (7, "7"),
        (True, "True"),
        (0.123456789, "0.12346"),
        (np.float64(2.0), "2"),
        (123456.7, "123457"),
        (-5234123.0, "-5234123"),
        (99999.4, "99999"),
        (1e300, "1e+300"),
        (float("inf"), "inf"),
        ((1, 2), "(1, 2)"),
    ],
)
def test_values_are_named_in_one_line(value, name):
    assert name_of(value) == name


def test_long_names_end_in_an_ellipsis():
    assert name_of("x" * NAME) == "x" * NAME
    assert name_of("x" * (NAME + 1)) == "x" * (NAME - 1) + "…"


def marked(text, *tokens):
    return [piece.text for piece in pieces(text, frozenset(tokens)) if piece.marked]


def test_words_are_marked_whatever_their_case_and_only_whole_ones():
    assert marked("Dull. DULLNESS, dull-ish", "dull") == ["Dull", "dull"]
    assert "".join(piece.text for piece in pieces("Dull. DULLNESS", frozenset({"dull"}))) == "Dull. DULLNESS"


def test_only_the_beginning_of_a_text_is_shown():
    (piece,) = pieces("word " * 10_000, frozenset())
    assert len(piece.text) == TEXT
    assert piece.text.endswith("…")


def test_lines_end_as_on_any_machine():
    assert pieces("one\r\ntwo\rthree", frozenset()) == [("one\ntwo\nthree", False)]


def test_an_empty_text_has_no_pieces():
    assert pieces("", frozenset({"dull"})) == []
