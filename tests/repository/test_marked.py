"""Files are left out of a collection only where ``-m`` surely wants none of their tests."""

from __future__ import annotations

import pytest

from tests.marked import has_none_of

WHOLE = 'import pytest\n\npytestmark = [pytest.mark.live, pytest.mark.skipif("no")]\n\ndef test_a(): ...\n'
PART = "import pytest\n\n@pytest.mark.live\ndef test_a(): ...\n\ndef test_b(): ...\n"
NONE = "import pytest\n\n@pytest.mark.slow\ndef test_a(): ...\n"


@pytest.mark.parametrize(
    ("expression", "left_out"),
    [
        ("not live", [WHOLE]),
        ("not live and not slow", [WHOLE]),
        ("not slow  and not live", [WHOLE]),
        ("live", [NONE]),
        ("live and not slow", [NONE]),
        ("slow and live", [NONE]),
        ("", []),
        ("slow", []),
        ("not slow", []),
        # Words that look as if they said so.
        ("not live or slow", []),
        ("slow or not live", []),
        ("live or slow", []),
        ("not (live and slow)", []),
        ("not (not live)", []),
        ("not not live", []),
        ("not lively", []),
        ("lively", []),
        ("live(kind='x') or slow", []),
        ("not live and (slow or quick)", []),
    ],
)
def test_only_what_an_expression_surely_leaves_out_is_not_looked_into(expression: str, left_out: list[str]) -> None:
    assert [text for text in (WHOLE, PART, NONE) if has_none_of(expression, text)] == left_out


@pytest.mark.parametrize("expression", ["not live or slow", "not live", "live", "live or slow", "slow and not live"])
def test_what_is_left_out_is_what_pytest_would_deselect(pytester: pytest.Pytester, expression: str) -> None:
    texts = {"test_whole": WHOLE.replace(', pytest.mark.skipif("no")', ""), "test_part": PART, "test_none": NONE}
    pytester.makeini("[pytest]\nmarkers =\n    live\n    slow\n")
    pytester.makepyfile(**texts)

    collected = pytester.inline_run("-m", expression, "--collect-only", "-p", "no:asyncio")
    wanted = {item.path.stem for call in collected.getcalls("pytest_collection_finish") for item in call.session.items}

    assert {name for name, text in texts.items() if has_none_of(expression, text)}.isdisjoint(wanted)
    assert wanted
