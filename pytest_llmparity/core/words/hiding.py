"""Keeping keys out of every text: the value of a configured secret becomes ``«NAME»``.

A server may echo a key in an error page, a model may repeat one from its prompt. Searched, case-sensitively, are the
value itself, its JSON-escaped and URL-encoded forms and its base64 form at each of the three alignments (a key inside
``user:key`` starts anywhere in a group of three bytes). Standard library only, and only its light parts: the keeper
hides keys in engines' logs.
"""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

SHORTEST = 12
"""Values with fewer characters are not searched: they would be found in innocent text."""
PIECE = 8
"""So many characters of a key's beginning or end are hidden where a text may have been cut before it came to us."""
_LINE = 1024 * 1024
"""A line of a log that is longer than this is let through although its end has not come."""

DUMMIES = frozenset(
    {
        *("dummy-api-key", "empty", "lm-studio", "no-key-needed", "no-key-required", "none", "not-needed", "ollama"),
        *("placeholder", "sk-no-key-required", "token-abc123", "your-api-key"),
    }
)
"""Keys from engines' manuals (compared in lower case): set because a client insists on one, known to everybody."""


class TextMask:
    """Replaces the values of ``secrets`` (name → value) wherever they are found; equal values get the first name.

    ``unsearched`` names the secrets that are not looked for, because they are too short, a known dummy, or their own
    name. An unset (empty) value is no secret and is not listed.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        unsearched = []
        self._forms: dict[str, str] = {}
        for name, value in secrets.items():
            if _worth_hiding(value, secrets):
                for form in _forms(value):
                    self._forms.setdefault(form, f"«{name}»")
            elif value:
                unsearched.append(name)
        self.unsearched = tuple(unsearched)
        self._shortest = min(map(len, self._forms), default=0)
        self.longest = max(map(len, self._forms), default=0)

    def text(self, text: str) -> str:
        """Return the text with every secret replaced; a text without one comes back as it is."""
        return self._hide(text, self._spans(text))

    def torn(self, text: str) -> str:
        """Return the text with every secret replaced, and every piece of one that was cut off at either side.

        For the words of servers and the lines of logs, never for an answer: an innocent word may begin as a key does.
        """
        return self._hide(text, self._spans(text, torn=True))

    def _hide(self, text: str, spans: list[tuple[int, int, str]]) -> str:
        if not spans:
            return text
        text = _replace(text, spans)
        # A placeholder and its surroundings can spell a secret that holds «: the bare sign is shorter than any secret,
        # so this ends.
        while left := self._spans(text):
            text = _replace(text, [(start, end, "«»") for start, end, _ in left])
        return text

    def binary(self, body: bytes, *, torn: bool = False) -> bytes:
        """Return the bytes (a body) with every secret replaced as in :meth:`text`, or as in :meth:`torn`.

        Bytes that are not UTF-8 are kept.
        """
        text = body.decode("utf-8", "surrogateescape")
        masked = self.torn(text) if torn else self.text(text)
        return body if masked is text else masked.encode("utf-8", "surrogateescape")

    def safe(self, text: str) -> int:
        """Return how much of a text that goes on elsewhere can be shown: what follows may be part of a secret."""
        if not self._forms or len(text) > _LINE or (text.endswith("\n") and not any("\n" in f for f in self._forms)):
            return len(text)
        place = max(0, len(text) - self.longest + 1)
        return min([start for start, end, _ in self._spans(text, torn=True) if start < place < end], default=place)

    def value(self, value: Any) -> Any:
        """Return a JSON value with the secrets in its texts and keys replaced."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(key): self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    def _spans(self, text: str, *, torn: bool = False, cut: bool = False) -> list[tuple[int, int, str]]:
        """Return where secrets are, in order; overlapping finds are one span, so that no rest of one is left over.

        With ``torn`` their pieces too, with ``cut`` the beginning of one with which the text ends.
        """
        if not self._forms or len(text) < (PIECE if torn or cut else self._shortest):
            return []
        spans = sorted(
            (start, start + len(form), label)
            for form, label in self._forms.items()
            for start in _occurrences(text, form)
        )
        if torn or cut:
            pieces = [(*place, label) for form, label in self._forms.items() for place in _pieces(text, form)]
            spans = sorted(spans + [piece for piece in pieces if torn or piece[1] == len(text)])
        merged: list[tuple[int, int, str]] = []
        for start, end, label in spans:
            if merged and start < merged[-1][1]:
                begin, until, first = merged[-1]
                merged[-1] = (begin, max(until, end), first)
            else:
                merged.append((start, end, label))
        return merged


def _worth_hiding(value: str, names: Mapping[str, str]) -> bool:
    return len(value) >= SHORTEST and value.lower() not in DUMMIES and not any(value in f"«{name}»" for name in names)


def _forms(value: str) -> Iterator[str]:
    yield value
    for ascii_only in (True, False):
        escaped = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield escaped
        yield escaped.replace("/", "\\/")
        for _ in range(
            2
        ):  # a proxy passes on, as a text, the JSON of the server behind it; arguments of a call are one
            escaped = json.dumps(escaped)[1:-1]
            yield escaped
    raw = value.encode("utf-8", "surrogatepass")
    for safe in ("", "/"):
        quoted = urllib.parse.quote(raw, safe=safe)
        yield from (quoted, _lower_hex(quoted), quoted.replace("%20", "+"), _lower_hex(quoted).replace("%20", "+"))
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw).decode("ascii")
        # Only the characters that depend on nothing but the secret: neighbours share bits with the rest.
        whole = encoded[(8 * before + 5) // 6 : 8 * (before + len(raw)) // 6]
        yield whole
        yield whole.replace("+", "-").replace("/", "_")


def _lower_hex(quoted: str) -> str:
    head, *parts = quoted.split("%")
    return head + "".join("%" + part[:2].lower() + part[2:] for part in parts)


def _occurrences(text: str, form: str) -> Iterator[int]:
    place = text.find(form)
    while place >= 0:
        yield place
        place = text.find(form, place + 1)


def _pieces(text: str, form: str) -> Iterator[tuple[int, int]]:
    """Yield where at least :data:`PIECE` characters of a form's beginning or of its end stand."""
    for start in _occurrences(text, form[:PIECE]):
        size = PIECE
        while size < min(len(form), len(text) - start) and text[start + size] == form[size]:
            size += 1
        yield start, start + size
    for start in _occurrences(text, form[-PIECE:]):
        end, size = start + PIECE, PIECE
        while size < min(len(form), end) and text[end - size - 1] == form[-size - 1]:
            size += 1
        yield end - size, end


def _replace(text: str, spans: list[tuple[int, int, str]]) -> str:
    parts, place = [], 0
    for start, end, label in spans:
        parts += [text[place:start], label]
        place = end
    return "".join(parts) + text[place:]


NOTHING = TextMask({})
"""Hides nothing."""
