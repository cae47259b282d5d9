"""What a loopback engine is told to say: replies, faults, and text that drifts with a seed."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

FaultKind = Literal[
    "status",
    "missing",
    "html",
    "truncated-json",
    "half-stream",
    "empty",
    "invalid-utf8",
    "error-event",
    "hang",
    "close",
    "busy",
    "echo-key",
]

_WORDS: Final = [
    *("the", "a", "one", "this", "quiet", "small", "bright", "early", "late", "river", "garden", "heron", "raven"),
    *("teacher", "baker", "window", "letter", "winter", "morning", "market", "harbour", "lantern", "stone", "bread"),
    *("song", "street", "found", "kept", "wrote", "opened", "carried", "followed", "heard", "and", "but", "then"),
    *("under", "beside", "toward", "behind", "again", "slowly", "always", "never", "often", "home", "away", "there"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer. ``tool_calls`` are (name, JSON text of the arguments).

    ``finish_reason`` ``None`` works it out (``length`` when ``max_tokens`` cut the text). ``logprob`` is reported for
    every token when logprobs are asked for; ``nan`` goes out as the bare word NaN. Where more than one
    alternative is asked for, a second one stands ``lead`` nats below the chosen token. Delays are seconds.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: Sequence[tuple[str, str]] = ()
    finish_reason: str | None = None
    logprob: float = -0.25
    lead: float = 2.0
    first_delay_s: float = 0.0
    token_delay_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    r"""One way to go wrong, made by the class methods; ``reply`` is what is said up to the fault or after it passed.

    Odd but whole answers are replies instead: ``Reply(text="\ud800")`` (a lone surrogate), ``Reply(text="\x1b[2J")``
    (control sequences), ``Reply(text="x" * 5_000_000)``, ``Reply(text="a b", logprob=math.nan)``.
    """

    kind: FaultKind
    status: int = 200
    body: bytes | None = None
    message: str = "refused by the script"
    headers: Mapping[str, str] = field(default_factory=dict)
    count: int = 0
    reply: Reply = field(default_factory=lambda: Reply(text="all is well again now"))

    @classmethod
    def refuse(cls, status: int, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Fault:
        """Answer with a status and a body (default: the engine's error shape)."""
        return cls(kind="status", status=status, body=body, headers=headers or {})

    @classmethod
    def missing(cls) -> Fault:
        """Answer that there is no such model, as the engine's kind does."""
        return cls(kind="missing")

    @classmethod
    def html(cls, status: int = 200) -> Fault:
        """Answer with a proxy's HTML page."""
        return cls(kind="html", status=status, body=b"<!doctype html><title>Bad gateway</title><h1>Bad gateway</h1>")

    @classmethod
    def truncated_json(cls) -> Fault:
        """Answer with the first half of a JSON document, declared as if it were whole."""
        return cls(kind="truncated-json")

    @classmethod
    def half_stream(cls, tokens: int = 3, *, clean: bool = False) -> Fault:
        """Send some tokens, then end: by closing the connection, or (``clean``) by ending the HTTP body properly."""
        return cls(kind="half-stream", count=tokens, status=200 if clean else 0)

    @classmethod
    def empty(cls) -> Fault:
        """Answer 200 with no text at all."""
        return cls(kind="empty")

    @classmethod
    def invalid_utf8(cls) -> Fault:
        """Put a byte into the text that no UTF-8 has."""
        return cls(kind="invalid-utf8")

    @classmethod
    def error_event(cls, tokens: int = 2) -> Fault:
        """Send some tokens, then an error as an event of the stream."""
        return cls(kind="error-event", count=tokens)

    @classmethod
    def hang(cls, tokens: int = 0) -> Fault:
        """Send some tokens (0: not even a status line), then nothing until the server stops."""
        return cls(kind="hang", count=tokens)

    @classmethod
    def close(cls) -> Fault:
        """Read the request, then close the connection without an answer."""
        return cls(kind="close")

    @classmethod
    def busy(cls, times: int, *, status: int = 429, retry_after: str | None = "0", then: str | Reply = "") -> Fault:
        """Refuse the same request some times with 429 (or 503) and ``Retry-After``, then answer it."""
        reply = then if isinstance(then, Reply) else Reply(text=then or "no longer busy")
        headers = {} if retry_after is None else {"retry-after": retry_after}
        return cls(kind="busy", status=status, message="too many requests", headers=headers, count=times, reply=reply)

    @classmethod
    def echo_key(cls) -> Fault:
        """Repeat the request's Authorization header in the answer's text, as a careless proxy does."""
        return cls(kind="echo-key")


def split_tokens(text: str) -> list[str]:
    """Cut a text into tokens: a word with the blanks before it; joined they give the text.

    >>> split_tokens("Paris, I think.")
    ['Paris,', ' I', ' think.']
    """
    return re.findall(r"\s*\S+|\s+", text)


def babble(prompt: str, *, length: int, drift: float = 0.0, seed: object = 0) -> list[str]:
    """Return tokens of a text that depends on the prompt alone, each word on the words before it.

    With probability ``drift`` per token another word comes, chosen by ``seed``; from there on the text goes its own
    way, as a model's does after a fork.
    """
    return list(_babbled(prompt, length, drift, str(seed)))


@functools.lru_cache(1024)  # a prompt is asked several times in a run, and a word takes a digest
def _babbled(prompt: str, length: int, drift: float, seed: str) -> tuple[str, ...]:
    words: list[str] = []
    for place in range(length):
        before = " ".join(words[-3:])
        pick = _fraction("word", prompt, place, before)
        if drift > 0 and _fraction("drift", seed, prompt, place) < drift:
            pick = _fraction("other", seed, prompt, place)
        words.append(_WORDS[int(pick * len(_WORDS))])
    return (words[0], *(f" {word}" for word in words[1:])) if words else ()


def drifted(tokens: Sequence[str], prompt: str, *, drift: float, seed: object) -> list[str]:
    """Return the tokens with each one replaced by another word with probability ``drift``, decided by ``seed``."""
    if drift <= 0:
        return list(tokens)
    out = []
    for place, token in enumerate(tokens):
        if _fraction("drift", seed, prompt, place) < drift:
            blank = token[: len(token) - len(token.lstrip())]
            other = _WORDS[int(_fraction("other", seed, prompt, place) * len(_WORDS))]
            token = blank + (other if other != token.strip() else other + "s")
        out.append(token)
    return out


def prompt_of(request: Mapping[str, Any]) -> str:
    """Return the request's prompt as one text: the raw prompt, or the messages' roles and contents."""
    if isinstance(request.get("prompt"), str):
        return str(request["prompt"])
    messages = request.get("messages", request.get("input"))
    if isinstance(messages, str):
        return f"user: {messages}"
    parts = [part for part in messages if isinstance(part, dict)] if isinstance(messages, list) else []
    return "\n".join(f"{part.get('role', '')}: {part.get('content', '')}" for part in parts)


def _fraction(*parts: object) -> float:
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
