"""What a golden file holds: whose answers they are, and of every case what was answered, with counts.

``golden/SET/ENGINE.jsonl`` has a :class:`Provenance` in its first line and a :class:`Line` in every other, in the order
of their ids; ``golden/SET/ENGINE.logprobs.jsonl`` a :class:`LogprobsLine` for each of those that came with logprobs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from pytest_llmparity.core.identity.lock import Locked
from pytest_llmparity.core.sample import Fact, Request, Source, Stopped, TokenLogprob, to_json

FORMAT: Final = 1
"""Number of the format; it changes when a reader of the old one would misread the new one."""
DIGITS: Final = 12
"""Digits of a hash that are kept: enough to tell prompts of one set apart, short enough for a diff."""
DECIMALS: Final = 4
"""Of a logprob, in nats: a hundredth of the smallest margin a shift is held against."""

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Often: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
"""How often an answer came: a file that says more is none that was recorded, and would take up memory."""
Short: TypeAlias = Annotated[str, msgspec.Meta(pattern=f"^[0-9a-f]{{{DIGITS}}}$")]
Date: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Setting: TypeAlias = str | int | tuple[str, ...]
Parameters: TypeAlias = Mapping[str, float | int | str | tuple[str, ...] | None]
"""Sampling parameters by name."""
Written: TypeAlias = tuple[tuple[str, float | None, tuple[tuple[str, float], ...]], ...]
"""Tokens of one answer as a golden keeps them: text, logprob, alternatives."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One fact about the engine and who told it."""

    value: str | int | float | bool
    source: Source


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How prompts were asked: ``n`` of them, at most ``concurrency`` at once, with these sampling parameters."""

    n: Annotated[int, msgspec.Meta(ge=1)]
    concurrency: Annotated[int, msgspec.Meta(ge=1)]
    sampling: Parameters


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a golden file: whose answers these are, and how they were asked.

    ``identity`` and ``launch`` are what ``llmparity.lock`` keeps of the engine, ``lock`` is a hash of them. ``plugin``
    is the version of this package that recorded it, ``capabilities`` what the engine was known to be able to do.
    """

    format: Literal[1]
    engine: str
    kind: str
    version: str | None
    lock: Short
    recorded: Date
    asked: tuple[Way, ...]
    plugin: str
    identity: Mapping[str, Told]
    launch: Mapping[str, Setting]
    capabilities: Mapping[str, bool | int | str] = msgspec.field(default_factory=dict)

    @property
    def locked(self) -> Locked:
        """The engine as the lock keeps it."""
        facts = {name: Fact(value=fact.value, source=fact.source) for name, fact in self.identity.items()}
        return Locked(kind=self.kind, plugin=self.plugin, identity=facts, launch=self.launch)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a tool; ``arguments`` is the JSON text as the model wrote it."""

    name: str
    arguments: str


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One distinct answer, and how often it came: ``main`` is what is judged, the others measure the noise floor.

    ``valid`` says whether it fits the schema that the case asks for or expects; left out where there is none. ``limit``
    is the most tokens it might have where that was fewer than the case's. Of a conversation it is the last answer:
    ``turns`` are those before it, each with the ``results`` that its calls were given and no counts of its own. Of
    several choices it is the first: ``choices`` are the others, ``counted`` what the server counted for them.
    """

    main: Often = 0
    cold: Often = 0
    warm: Often = 0
    parallel: Often = 0
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[Call, ...] = ()
    finish: str = ""
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    valid: bool | None = None
    normalised: tuple[str, ...] = ()
    limit: Count | None = None
    turns: tuple[Answer, ...] = ()
    results: tuple[str, ...] = ()
    stopped: Stopped | None = None
    choices: tuple[Answer, ...] = ()
    counted: Count | None = None

    @property
    def words(self) -> tuple[object, ...]:
        """What an application gets of it: two answers with the same are one answer."""
        words = (self.text, self.reasoning, self.tool_calls, self.finish)
        others = self.turns or self.choices  # no answer has both
        return (*words, tuple(other.words for other in others)) if others else words

    @property
    def digest(self) -> str:
        """Short hash of its words as the file has them, by which its tokens are known."""
        text = json.dumps(msgspec.to_builtins(self.words), ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:DIGITS]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """The answers to one case: the first to come first. ``lock``, ``prompt`` and ``sampling`` are short hashes."""

    id: str
    lock: Short
    prompt: Short
    sampling: Short
    answers: Annotated[tuple[Answer, ...], msgspec.Meta(min_length=1)]

    @property
    def key(self) -> Key:
        """What makes it the line of a case; one that is asked in two ways has two."""
        return self.id, self.sampling

    @property
    def floor(self) -> bool:
        """Whether it has what the engine answered when it was asked again."""
        return any(answer.cold + answer.warm + answer.parallel for answer in self.answers)


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    r"""The tokens of one answer, and which ones have them: ``main``, ``cold`` and so on, ``main.1`` for the second.

    ``answer`` is the hash of its words. A token is its text, its logprob and the alternatives seen there; bytes that
    are no text are written ``\xe2``, a backslash ``\\``.
    """

    of: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    answer: Short
    tokens: Written


class LogprobsLine(msgspec.Struct, frozen=True, kw_only=True):
    """The logprobs of the answers to one case."""

    id: str
    lock: Short
    prompt: Short
    sampling: Short
    answers: tuple[Tokens, ...]

    @property
    def key(self) -> Key:
        """What makes it the line of a case."""
        return self.id, self.sampling


Key: TypeAlias = tuple[str, str]
"""Case id and hash of its sampling."""


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """One engine's answers to one prompt set."""

    provenance: Provenance
    lines: Mapping[Key, Line]
    logprobs: Mapping[Key, LogprobsLine] = msgspec.field(default_factory=dict)

    @property
    def size(self) -> str:
        """How many cases it has, and how many lines where some were asked in several ways."""
        cases, lines = len({case for case, _ in self.lines}), len(self.lines)
        of_cases = f"{cases} case{'' if cases == 1 else 's'}"
        return of_cases if lines == cases else f"{lines} lines of {of_cases}"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a golden must answer to be an answer to one case of a test."""

    prompt: str
    sampling: str


def wanted(request: Request) -> Wanted:
    """Return the hashes of a request in no engine's words: of what is asked, and of how it is sampled."""
    content = [request.messages, request.prompt, request.tools, request.tool_choice, request.response_format]
    content += [request.extra_body] if request.extra_body else []
    content += [request.thinking] if request.thinking else []
    content += [request.tool_results, request.max_turns] if request.tool_results else []
    content += [{"n": request.n}] if request.n > 1 else []
    return Wanted(prompt=short(to_json(content)), sampling=short(to_json(request.sampling)))


def lock_hash(locked: Locked) -> str:
    """Return a short hash of what an engine was, the machine left out."""
    facts = {name: fact.value for name, fact in locked.identity.items() if name != "device"}
    return short([locked.kind, facts, to_json(locked.launch)])


def short(content: object) -> str:
    """Return the first digits of the sha256 of a JSON value; the order of keys in objects counts."""
    text = json.dumps(content, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def set_of(prompts: str) -> str:
    """Return the name of the set of a prompt file by the file's name: a folder that lies in ``golden`` and is visible.

    >>> set_of("tickets"), set_of("../täglich 2"), set_of("..")
    ('tickets', 't-glich-2', 'prompts')
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", prompts).strip(".-") or "prompts"


# tokens ---------------------------------------------------------------------------------------------------------------

_ESCAPED: Final = re.compile(rb"\\(\\|x[0-9a-f]{2})")


def spell(token: bytes) -> str:
    r"""Return the bytes of a token as text that says all of them.

    >>> spell(b"a\xe2"), unspell(spell(b"\\n\xff")) == b"\\n\xff"
    ('a\\xe2', True)
    """
    return token.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def unspell(text: str) -> bytes:
    """Return the bytes that :func:`spell` wrote; what it never wrote stays as it is."""
    return _ESCAPED.sub(
        lambda match: b"\\" if match[1] == b"\\" else bytes.fromhex(match[1][1:].decode()),
        text.encode("utf-8", "surrogatepass"),
    )


def written(tokens: Iterable[TokenLogprob]) -> Written:
    """Return token records as a golden keeps them: ids left out, numbers rounded."""
    return tuple(
        (
            spell(token.token),
            None if token.logprob is None else _rounded(token.logprob),
            tuple((spell(other), _rounded(logprob)) for other, logprob in token.top),
        )
        for token in tokens
    )


def _rounded(logprob: float) -> float:
    return round(logprob, DECIMALS) + 0.0  # -0.0 and 0.0 are one number and two texts


def read(tokens: Tokens) -> tuple[TokenLogprob, ...]:
    """Return the token records that :func:`written` kept."""
    return tuple(
        TokenLogprob(
            token=unspell(text),
            logprob=logprob,
            top=tuple((unspell(other), nats) for other, nats in top),
        )
        for text, logprob, top in tokens.tokens
    )
