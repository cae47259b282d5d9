"""How two renderings of one chat are shown beside each other."""

from __future__ import annotations

import pytest

from pytest_llmparity.core.words.experiments import SHOWN, rendered_lines

NAMES = ("prod", "dev")


def test_lines_that_differ_are_shown_with_one_beside_them() -> None:
    ours = "system\nBe brief.\n\x1b[2J\nuser\nHi\n"
    theirs = "system\nBe brief.\nToday is Monday.\n\x1b[2J\nuser\nHo\n"

    assert rendered_lines(NAMES, (ours, theirs)) == [
        "line by line, - is prod and + is dev:",
        "    'Be brief.'",
        "  + 'Today is Monday.'",
        r"    '\x1b[2J'",
        "    'user'",
        "  - 'Hi'",
        "  + 'Ho'",
    ]


@pytest.mark.parametrize(
    "texts", [("one line", "another"), ("a\nb", "a\nb"), ("a\nb", "a\nb\n"), ("a\nb", None), (None, None), ("", "")]
)
def test_nothing_is_held_against_nothing_or_one_line(texts: tuple[str | None, str | None]) -> None:
    assert rendered_lines(NAMES, texts) == []


def test_a_long_difference_is_cut_and_says_so() -> None:
    ours, theirs = ("\n".join(f"{word} {place}" for place in range(100_000)) for word in ("we", "they"))

    lines = rendered_lines(NAMES, (ours, theirs))

    assert len(lines) == SHOWN + 2
    assert lines[-1] == "  … 376 more lines"
