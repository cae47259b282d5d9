"""JSON with something round it that an application's JSON parser would trip over: what it is, and what is inside."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from pytest_llmparity.core import thinking
from pytest_llmparity.core.compare.json import Parsed, parse_json

CODE_BLOCK: Final = "in a Markdown code block"
REASONING: Final = "with reasoning before the JSON"
TEXT: Final = "with text round the JSON"
MARK: Final = "with a byte order mark"

_MARKS: Final = "\ufeff\u200b\u2060"
_OPENED: Final = re.compile(r"(?P<fence>`+|~{3,})[ \t]*[\w.+-]*\s*\Z")
_CLOSED: Final = re.compile(r"\s*(?:`{3,}|~{3,})")
_FENCED: Final = re.compile(
    r"(?P<fence>`{1,2}(?!`)|`{3,}|~{3,})[ \t]*(?:[A-Za-z][\w.+-]*(?=\s))?(?P<body>.*?)(?:(?P=fence))?\s*\Z", re.DOTALL
)
_STARTS: Final = re.compile(r"[{\[]")
_PROSE: Final = re.compile(r"\{[^{}\[\]\"':]*\}|\[[^{}\[\]\"':]*\]")
"""Brackets that hold words, such as [sic] or {name}: no JSON, and none that was meant to be."""
_TRIED: Final = 64
"""Places at which a value is looked for in a text; a text of brackets alone would take for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwrapped:
    """What is inside a text that is no JSON as it stands.

    ``body`` is the JSON text, ``parsed`` what it reads as (an error where even that is none), ``wrapping`` names what
    stood round it.
    """

    body: str
    parsed: Parsed
    wrapping: tuple[str, ...]


def unwrap(text: str) -> Unwrapped | None:
    """Return what stands in a code block, behind reasoning or between words, ``None`` where that cannot be told.

    Any spelling of a code block counts: three or more backticks or tildes with any word behind them, on one line,
    indented, with CRLF, unclosed. Of several JSON values in a text none is chosen.

    >>> unwrap('Sure: ```json {"a": 1} ```').wrapping
    ('in a Markdown code block', 'with text round the JSON')
    """
    wrapping: list[str] = []
    bare = text.strip().strip(_MARKS)
    if bare != text.strip():
        wrapping.append(MARK)
    if (apart := thinking.split(bare)).tag:
        bare = apart.text.strip()
        wrapping.append(REASONING)
    if (direct := parse_json(bare)).error is None:
        return Unwrapped(body=bare, parsed=direct, wrapping=tuple(wrapping)) if wrapping else None
    place = _place(bare)
    if place is not None:
        begin, end = place
        inside, outside = bare[begin:end], _round(bare[:begin], bare[end:])
        return Unwrapped(body=inside, parsed=parse_json(inside), wrapping=(*wrapping, *outside))
    if (block := _FENCED.match(bare)) is None:
        return None
    body = block["body"].strip()
    return Unwrapped(body=body, parsed=parse_json(body), wrapping=(*wrapping, CODE_BLOCK))


def _place(text: str) -> tuple[int, int] | None:
    """Return where the one object or array of a text stands, or the one in a code block; ``None`` where none does.

    A bracket that begins JSON gone wrong ends the search: what is inside it would be a part of what was meant.
    """
    places: list[tuple[int, int]] = []
    at = 0
    for _ in range(_TRIED):
        if (match := _STARTS.search(text, at)) is None:
            break
        end = _end(text, match.start())
        if end is not None:
            places.append((match.start(), end))
        elif (prose := _PROSE.match(text, match.start())) is not None:
            end = prose.end()
        else:
            return None
        at = end
    else:
        return None
    if len(places) > 1:
        places = [
            place for place in places if (opened := _OPENED.search(text[: place[0]])) and len(opened["fence"]) > 2
        ]
    return places[0] if len(places) == 1 else None


def _end(text: str, begin: int) -> int | None:
    try:
        end: int = _DECODER.raw_decode(text, begin)[1]
    except (ValueError, RecursionError):
        return None
    return end


def _round(before: str, behind: str) -> list[str]:
    """Return what stands round a value: the marks of a code block, other text."""
    opened = _OPENED.search(before)
    if opened is not None:
        before = before[: opened.start()]
        behind = behind.lstrip()
        behind = behind[len(opened["fence"]) :] if behind.startswith(opened["fence"]) else behind
    elif (closed := _CLOSED.match(behind)) is not None:
        behind = behind[closed.end() :]
    block = opened is not None or closed is not None
    return [*([CODE_BLOCK] if block else []), *([TEXT] if before.strip() or behind.strip("`~ \r\n\t") else [])]


_DECODER: Any = json.JSONDecoder(parse_int=str, parse_float=str)  # how far a value reaches; what it is comes later
