"""Keeping keys out of everything that is written: the value of a configured secret becomes ``«NAME»``.

A server may echo a key in an error page, a model may repeat one from its prompt. Searched, case-sensitively, are the
value itself, its JSON-escaped and URL-encoded forms and its base64 form at each of the three alignments (a key inside
``user:key`` starts anywhere in a group of three bytes).
"""

from __future__ import annotations

import base64
import dataclasses
import json
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_llmparity.core.sample import Completion, Identity, Sample, TokenLogprob, from_json, to_json

SHORTEST = 12
"""Values with fewer characters are not searched: they would be found in innocent text."""

DUMMIES = frozenset(
    {
        "dummy-api-key",
        "empty",
        "lm-studio",
        "no-key-needed",
        "no-key-required",
        "none",
        "not-needed",
        "ollama",
        "placeholder",
        "sk-no-key-required",
        "token-abc123",
        "your-api-key",
    }
)
"""Keys from engines' manuals (compared in lower case): set because a client insists on one, known to everybody."""


class Mask:
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

    def text(self, text: str) -> str:
        """Return the text with every secret replaced; a text without one comes back as it is."""
        spans = self._spans(text)
        if not spans:
            return text
        text = _replace(text, spans)
        # A placeholder and its surroundings can spell a secret that holds «: the bare sign is shorter than any secret,
        # so this ends.
        while left := self._spans(text):
            text = _replace(text, [(start, end, "«»") for start, end, _ in left])
        return text

    def data(self, data: bytes) -> bytes:
        """Return the bytes (a log, a body) with every secret replaced; bytes that are not UTF-8 are kept."""
        text = data.decode("utf-8", "surrogateescape")
        masked = self.text(text)
        return data if masked is text else masked.encode("utf-8", "surrogateescape")

    def value(self, value: Any) -> Any:
        """Return a JSON value with the secrets in its texts and keys replaced."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(key): self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    def sample(self, sample: Sample) -> Sample:
        """Return the sample with the secrets in its texts replaced, also where its tokens spell one together."""
        if not self._forms:
            return sample
        completion = sample.completion
        if completion is not None:
            plain = self.value(to_json(dataclasses.replace(completion, logprobs=())))
            completion = dataclasses.replace(from_json(Completion, plain), logprobs=self._tokens(completion.logprobs))
        failure = sample.failure
        if failure is not None:
            failure = dataclasses.replace(failure, message=self.text(failure.message))
        return dataclasses.replace(sample, completion=completion, failure=failure)

    def identity(self, identity: Identity) -> Identity:
        """Return the identity with the secrets in what the server said replaced."""
        return from_json(Identity, self.value(to_json(identity))) if self._forms else identity

    def _tokens(self, tokens: tuple[TokenLogprob, ...]) -> tuple[TokenLogprob, ...]:
        """Blank the tokens a secret is spelt with, alternatives and ids too: each would give a piece of it back."""
        spelt = b"".join(token.token for token in tokens).decode("utf-8", "surrogateescape")
        spans = [
            (len(spelt[:start].encode("utf-8", "surrogateescape")), len(spelt[:end].encode("utf-8", "surrogateescape")))
            for start, end, _ in self._spans(spelt)
        ]
        kept, place = [], 0
        for token in tokens:
            begin, place = place, place + len(token.token)
            if any(start < place and begin < end for start, end in spans):
                token = TokenLogprob(token="«»".encode(), logprob=token.logprob)
            elif any(len(other) >= self._shortest and self.data(other) != other for other, _ in token.top):
                token = dataclasses.replace(token, top=tuple((self.data(other), lp) for other, lp in token.top))
            kept.append(token)
        return tuple(kept)

    def _spans(self, text: str) -> list[tuple[int, int, str]]:
        """Return where secrets are, in order; overlapping finds are one span, so that no rest of one is left over."""
        if not self._forms or len(text) < self._shortest:
            return []
        found = sorted(
            (start, start + len(form), label)
            for form, label in self._forms.items()
            for start in _occurrences(text, form)
        )
        merged: list[tuple[int, int, str]] = []
        for start, end, label in found:
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


def _replace(text: str, spans: list[tuple[int, int, str]]) -> str:
    parts, place = [], 0
    for start, end, label in spans:
        parts += [text[place:start], label]
        place = end
    return "".join(parts) + text[place:]
