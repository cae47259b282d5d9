"""Nothing an engine writes moves the cursor, and cut lines keep to their width."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.words.printable import cells, elide, pad, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\r\n\tb", "a\\r\\n\\tb"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202eevil", "\\u202eevil"),
        ("\ud800", "\\ud800"),
        ("\u2028", "\\u2028"),
        ("\U000e0041", "\\U000e0041"),
        ("naïve 東京 👩\u200d🚀", "naïve 東京 👩\u200d🚀"),
    ],
)
def test_what_moves_or_breaks_a_terminal_is_shown_as_its_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_no_control_character_is_left(text: str) -> None:
    shown = printable(text)

    assert not [c for c in shown if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"}]
    shown.encode("utf-8")


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-1, 20))
def test_an_elided_text_fits(text: str, width: int) -> None:
    shown = printable(text)

    assert cells(elide(shown, width)) <= max(width, 0)
    assert elide(shown, cells(shown)) == shown


@given(st.text(max_size=30), st.integers(0, 20))
def test_a_padded_text_is_exactly_as_wide(text: str, width: int) -> None:
    assert cells(pad(printable(text), width)) == width


def test_both_ends_of_a_long_name_stay() -> None:
    assert elide("tiny-model-q4_0.gguf", 11) == "tiny-….gguf"


def test_wide_characters_take_two_columns() -> None:
    assert cells("東京") == 4
    assert cells("e\u0301") == 1
    assert elide("東京東京", 5) == "東…京"
