"""What an answer says, taken out of its words: a number, a choice, yes or no, a field, what a pattern finds.

Deterministic and narrow: where two readings are possible nothing is extracted, and the reason says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final, TypeAlias

from pytest_llmparity.core.compare.json import diff_values, parse_json
from pytest_llmparity.core.compare.paths import at, steps
from pytest_llmparity.core.compare.paths import refused as no_path
from pytest_llmparity.core.right import Extracted
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.nearest import nearest_name, offered

if TYPE_CHECKING:
    from regex import Match, Pattern

Extract: TypeAlias = str | Callable[[str], object]
"""``number``, ``choice``, ``bool``, ``json:$.path``, a regular expression, or a function of the answer's text."""

SECONDS: Final = 0.5
"""Processor time that a regular expression may take on one answer. A usual one takes microseconds."""
QUICK: Final = 0.05
"""Processor time from which it is slow on an answer; so many, :data:`SLOW`, are given :data:`SECONDS` more."""
SLOW: Final = 20
"""On so many answers of a check a regular expression may be slow; the answers behind them are not read."""
WORDS: Final = ("number", "choice", "bool")
JSON: Final = "json:"


def refused(extract: object) -> str | None:
    r"""Say why nothing can be extracted so, ``None`` where it can.

    >>> refused("number"), refused("json:$.items[0].price"), refused(r"total: (\d+)")
    (None, None, None)
    >>> refused("boolean")
    "'boolean' would be a regular expression (did you mean 'bool'?); the pattern is written '(boolean)'"
    >>> refused("json:total")
    "'json:total' names no field: 'total' is no path: it begins with $, such as $.price or $.items[0].price"
    """
    if callable(extract):
        return None
    if not isinstance(extract, str) or not extract:
        return (
            f'{extract!r} is none of "number", "choice", "bool", "json:$.field", a regular expression and a function '
            "of the answer's text"
        )
    if extract.startswith(JSON):
        why = no_path(extract[len(JSON) :], places=True)
        return None if why is None else f"{explain.quote(extract, 40)} names no field: {why}"
    if extract in WORDS:
        return None
    if meant := _meant(extract):
        return f"{extract!r} would be a regular expression{offered(meant)}; the pattern is written '({extract})'"
    no_pattern = _no_pattern()
    try:
        pattern = re.compile(extract)
        _compiled(extract)
    except no_pattern as error:
        return f"{extract!r} is no regular expression: {error}"
    if pattern.groups > 1:
        return f"{extract!r} has {pattern.groups} groups: the value is what one group finds; write (?:…) for the others"
    return None


def _meant(extract: str) -> str:
    """Return the word that a text of letters alone is close to, empty where it is close to none."""
    word, _, path = extract.partition(":")
    if not word.isalpha() or (path and word.lower() != "json"):
        return ""
    near = nearest_name(word, (*WORDS, "json"))
    return near if near in ("", *WORDS) else f"{JSON}{path or '$.field'}"


@dataclass(slots=True)
class Patience:
    """On how many answers of a check a regular expression was slow, and how many were not read for it.

    So a thousand hostile answers take a minute at the most: without it each would take :data:`SECONDS`.
    """

    slow: int = 0
    unread: int = 0

    @property
    def over(self) -> bool:
        """Whether no further answer is read."""
        return self.slow >= SLOW


def extracted(text: str, extract: Extract | None, *, patience: Patience | None = None) -> Extracted:
    """Return what a text says; without ``extract`` the text itself, but for white space around it.

    ``number``, ``choice`` and ``bool``: see :func:`~.number.number`, :func:`~.choice.choice` and
    :func:`~.truth.truth`. ``json:``: the value at a path of the JSON the text is, all of it as ``json.loads`` takes it.
    A regular expression: what its group finds first, else what all of it does; one that takes longer than
    :data:`SECONDS` finds nothing, and none is tried where ``patience`` with it is over. A function: what it
    returns; what it raises is a problem.

    >>> extracted("3 boxes of 4 are twelve, so 1,200 in all.", "number").value
    Decimal('1200')
    >>> extracted("I think the answer is (C), not B.", "choice").value, extracted("Yes, it is.", "bool").value
    ('C', True)
    >>> extracted("maybe", "number").problem
    'no number in it'
    """
    if extract is None:
        return Extracted(value=text.strip())
    if not isinstance(extract, str):
        return _returned(text, extract)
    if extract.startswith(JSON):
        return _field(text, extract[len(JSON) :])
    if extract in WORDS:
        return _reader(extract)(text)
    patience = patience or Patience()
    if patience.over:
        patience.unread += 1
        return Extracted(problem=f"{explain.quote(extract, 40)} was slow on {SLOW} answers before it: not read")
    try:
        match = _searched(extract, text, patience)
    except TimeoutError:
        return Extracted(problem=f"{explain.quote(extract, 40)} takes more than {SECONDS} s on it, so nothing was read")
    if match is None:
        return Extracted(problem=f"{explain.quote(extract, 40)} finds nothing in it")
    value = match[1] if match.re.groups else match[0]
    if value is None:
        return Extracted(problem=f"the group of {explain.quote(extract, 40)} took no part")
    return Extracted(value=value.strip())


def _searched(pattern: str, text: str, patience: Patience) -> Match[str] | None:
    """Return what a regular expression finds; ``TimeoutError`` where that takes longer than it may."""
    compiled = _compiled(pattern)
    try:
        return compiled.search(text, timeout=QUICK)
    except TimeoutError:
        patience.slow += 1
        return compiled.search(text, timeout=SECONDS)


def _compiled(pattern: str) -> Pattern[str]:
    """Return a regular expression as one that stops in time: Python's own ones run for years on a hostile text."""
    import regex  # takes a tenth of a second

    return regex.compile(pattern)


def _no_pattern() -> tuple[type[Exception], ...]:
    import regex

    return re.error, regex.error, OverflowError


def _reader(word: str) -> Callable[[str], Extracted]:
    """Return the reader of a number, a choice, or yes or no, imported now: their expressions take long to compile."""
    if word == "number":
        from pytest_llmparity.core.right.number import number

        return number
    if word == "choice":
        from pytest_llmparity.core.right.choice import choice

        return choice
    from pytest_llmparity.core.right.truth import truth

    return truth


def wanted(answer: str, extract: Extract | None) -> Extracted:
    """Return the value that a prompt file expects, written there as text, as :func:`extracted` gives it."""
    if extract is None or callable(extract):
        return Extracted(value=answer.strip())
    if extract == "number":
        from pytest_llmparity.core.right.number import only_number

        return only_number(answer)
    if extract in WORDS:
        return extracted(answer, extract)
    if extract.startswith(JSON):
        parsed = parse_json(answer)
        return Extracted(value=answer if parsed.error is not None else parsed.value)
    return Extracted(value=answer.strip())


def same(value: object, expected: object) -> bool:
    """Whether an extracted value is the expected one, which may be text that stands for it.

    Numbers are equal by value, JSON field by field; what a function returned is compared with the text as ``str``
    writes it, a number as a number.

    >>> same(Decimal("1.50"), Decimal("1.5")), same(12, "12.0"), same(True, "true"), same({"a": 1}, {"a": 1.0})
    (True, True, True, True)
    >>> same("12", "12.0"), same(None, "none"), same(True, 1)
    (False, False, False)
    """
    if isinstance(expected, str) and not isinstance(value, str):
        return _as_text(value, expected)
    if isinstance(value, Decimal) and isinstance(expected, Decimal):
        return value == expected
    if isinstance(value, str) and not isinstance(expected, (str, Mapping, list)):
        return value == json.dumps(expected)  # a field that holds "12" where 12 is expected
    return not diff_values(value, expected)


def shown(value: object) -> str:
    """Return a value as reports show it: text and JSON in quotes and braces, numbers and words as they are."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Decimal):
        return f"{value:f}" if abs(value.adjusted()) < _PLAIN_DIGITS else str(value)
    if isinstance(value, str):
        return explain.quote(value, 60)
    try:
        return explain.quote(json.dumps(value, ensure_ascii=False), 60)
    except (TypeError, ValueError, RecursionError):
        return explain.quote(re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value)), 60)


_PLAIN_DIGITS: Final = 16


def _as_text(value: object, expected: str) -> bool:
    expected = expected.strip()
    if isinstance(value, bool):
        from pytest_llmparity.core.right.truth import TRUTH

        return value is TRUTH.get(expected.lower())
    if isinstance(value, (int, float, Decimal)):
        from pytest_llmparity.core.right.number import only_number

        meant = only_number(expected)
        try:
            return not meant.problem and Decimal(str(value)) == meant.value
        except InvalidOperation:
            return False
    return value is not None and str(value).strip() == expected


def _returned(text: str, function: Callable[[str], object]) -> Extracted:
    try:
        value = function(text)
    except Exception as error:  # noqa: BLE001 - code of the user, which may raise anything
        words = str(error).partition("\n")[0]
        return Extracted(problem=explain.plain(f"extract raised {type(error).__name__}: {words}".rstrip(": "), 120))
    return Extracted(problem="extract returned None") if value is None else Extracted(value=value)


def _field(text: str, path: str) -> Extracted:
    parsed = parse_json(text)
    if parsed.error is not None:
        return Extracted(problem=f"not JSON: {parsed.error}")
    standing = at(parsed.value, steps(path, places=True))
    if not standing:
        return Extracted(problem=f"no {explain.plain(path, 40)} in it")
    return Extracted(value=standing[0])
