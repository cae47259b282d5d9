"""The number that an answer ends on, where it stands by itself and is no part of something else."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Final

from pytest_llmparity.core.compare.facts import numbers_at
from pytest_llmparity.core.right import Extracted
from pytest_llmparity.core.words import explain

NONE: Final = "no number in it"
_NEAR: Final = 24
"""Characters beside a number that are looked at."""
_LONGER: Final = "is part of something longer, such as a date, a time or a range"
_PART: Final = (
    (re.compile(r"\b(?:minus|negative)\s+\Z", re.IGNORECASE), "stands behind a minus in words"),
    (re.compile(r"\bpoint\s+\Z", re.IGNORECASE), "stands behind a point in words"),
    (re.compile(r"[^\W\d_]-?\Z"), "stands behind a letter"),
    (re.compile(r"(?:\^|/|\}\{|\^\{)\s?\Z"), "is part of a fraction or a power"),
    (
        re.compile(r"\d(?:[:.,+*\u00d7\u00f7\u2013\u2014\u2212-]| [-+*\u00d7\u00f7\u2013\u2014\u2212] )\Z"),
        _LONGER,
    ),
)
"""How a text ends before a number that is part of something else, and what is wrong with it."""
_GROUP: Final = re.compile(r"(?<!\d)\d{1,3}[ \u00a0\u2009\u202f]\Z")
_GOES_ON: Final = re.compile(
    r"(?:st|nd|rd|th)\b|\s?\^|[\u00b2\u00b3\u00b9\u2070-\u2079]"
    r"|\s+(?:and\s+an?\s+)?(?:half|halves|thirds?|quarters?|fifths?|dozen|hundred|thousand|million|billion|trillion)\b",
    re.IGNORECASE,
)
_SCALE: Final = re.compile("hundred|thousand|million|billion", re.IGNORECASE)
_EXPONENT: Final = re.compile(r"\d\s?(?:[kcdm\u00b5]?m|s|h|ft|in|yd|mi)\^?\Z")
"""A unit behind a number, to which the digit that comes next belongs: ``20 m2``."""
_ENDS_ON_ONE: Final = re.compile(r"(?:=|\b(?:equals|is|makes|gives|leaves))\s{1,9}one[\s.!*]{0,20}\Z", re.IGNORECASE)
_CURRENCY: Final = r"(?:[$\u20ac\u00a3\u00a5]|[A-Z]{3})"
_DIGITS: Final = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,4})?"
_ONLY: Final = re.compile(
    rf"{_CURRENCY}?\s?(?P<sign>[-+\u2212])?{_CURRENCY}?\s?(?P<number>{_DIGITS}|[A-Za-z]+(?:[ -][A-Za-z]+)*)"
    rf"\s?(?:%|per\s?cent|{_CURRENCY})?"
)


def number(text: str) -> Extracted:
    """Return the last number of a text, in digits or English words, as a ``Decimal``; a per cent sign is left out.

    Nothing is read where the last one is part of something else: a date, a time, a fraction, a power, a name.

    >>> number("3 boxes of 4 are twelve, so 1,200 in all.").value, number("The area is 20 m2.").value
    (Decimal('1200'), Decimal('20'))
    >>> number("It opens at 9:30.").problem
    "'30' is part of something longer, such as a date, a time or a range"
    """
    if _ENDS_ON_ONE.search(text[-60:]):
        return Extracted(value=Decimal(1))
    places = numbers_at(text)
    for begin, end, written in reversed(places):
        before, behind = text[max(0, begin - _NEAR) : begin], text[end : end + _NEAR]
        if _EXPONENT.search(before) and end - begin == 1:
            continue
        shown = explain.quote(text[begin:end], 40)
        if why := _part_of(before, text[begin:end], behind):
            return Extracted(problem=f"{shown} {why}")
        try:
            return Extracted(value=Decimal(written))
        except InvalidOperation:  # words in a row that are no one number
            return Extracted(problem=NONE if len(places) == 1 else f"{shown} is no one number")
    return Extracted(problem=NONE)


def only_number(text: str) -> Extracted:
    """Return the number that a text is, with its sign, currency or per cent sign; anything more is a problem.

    >>> only_number("$1,250.50").value, only_number("1/2").problem
    (Decimal('1250.5'), 'more than one plain number in it')
    """
    places = numbers_at(text)
    match = _ONLY.fullmatch(text.strip())
    if match is not None and match["number"].lower() == "one":
        return Extracted(value=Decimal(1))
    if not places:
        return Extracted(problem=NONE)
    if match is None or len(places) > 1 or places[0][1] - places[0][0] < len(match["number"]):
        return Extracted(problem="more than one plain number in it")
    try:
        value = Decimal(places[0][2])
    except InvalidOperation:
        return Extracted(problem=NONE)
    negative = match["sign"] in ("-", "\u2212") and value > 0  # a currency may stand between sign and digits
    return Extracted(value=-value if negative else value)


def _part_of(before: str, written: str, behind: str) -> str:
    """Say what a number is part of, empty where it stands by itself."""
    for ending, why in _PART:
        if ending.search(before):
            return why
    if _GROUP.search(before) and re.match(r"\d{3}(?!\d)", written):
        return _LONGER
    if _SCALE.match(written) and re.search(r"\d\s?\Z", before):
        return _LONGER
    return "goes on behind it" if _GOES_ON.match(behind) else ""
