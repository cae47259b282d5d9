"""Which files have no test that ``-m`` asks for, told from their text: to import them takes longer than to read it."""

from __future__ import annotations

import re

LIVE = "mark.live"
"""How a file with a live test spells the marker: others are not even imported by ``pytest -m live``.

And files whose every test has it (``pytestmark``) not by ``pytest -m "not live"``.
"""
_WHOLE = re.compile(rf"^pytestmark = \[?pytest\.{LIVE}\b", re.MULTILINE)
_PLAIN = re.compile(r"(?:not )?\w+(?: and (?:not )?\w+)*")
_OPERATORS = {"and", "or", "not"}


def demanded(expression: str) -> frozenset[str]:
    """Return what a test must have for an expression of markers: ``live``, ``not slow``.

    Only names that ``and`` joins, each with one ``not`` at most, are read; of any other expression nothing is said.

    >>> sorted(demanded("not live and slow")), sorted(demanded("not live or slow"))
    (['not live', 'slow'], [])
    """
    words = " ".join(expression.split())
    terms = frozenset(words.split(" and ")) if _PLAIN.fullmatch(words) else frozenset()
    return frozenset() if any(term.removeprefix("not ") in _OPERATORS for term in terms) else terms


def has_none_of(expression: str, text: str) -> bool:
    """Tell whether no test of a file with this text fits an expression of markers; ``False`` where that is not known.

    >>> has_none_of("not live and not slow", "pytestmark = pytest.mark.live"), has_none_of("live", "no marker")
    (True, True)
    """
    terms = demanded(expression)
    return ("not live" in terms and _WHOLE.search(text) is not None) or ("live" in terms and LIVE not in text)
