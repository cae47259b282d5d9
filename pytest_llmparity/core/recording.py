"""What a recording holds: one engine's answers to what it was asked, chunk by chunk with the time each of them came.

``recordings/NAME.jsonl`` has a :class:`Header` in its first line and an :class:`Exchanged` in every other, in the order
in which the requests were answered. Headers of requests and answers are not in it.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from pytest_llmparity.core.errors import RecordingError
from pytest_llmparity.core.golden.private import Refusal, naming, of_engine, refuse_secret
from pytest_llmparity.core.golden.records import Date, Setting, Short, Told
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.lock import Locked, holds_path
from pytest_llmparity.core.prompts.parts import without_bytes
from pytest_llmparity.core.sample import Fact, Phase, from_json
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.masking import Mask

FORMAT: Final = 1
"""Number of the format; it changes when a reader of the old one would misread the new one."""
MISSING: Final = "x-llmparity-not-recorded"
"""The header of the answer to a request that a recording does not hold."""

Ms: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=3_600_000)]
"""Milliseconds from the moment the request was written."""


class Raw(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that are no text, such as a chunk that ends inside a character."""

    base64: str


Chunk: TypeAlias = tuple[Ms, str | Raw]
"""What came in one read of the answer's body, and when."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a recording: whose answers these are.

    ``identity`` and ``launch`` are what ``llmparity.lock`` keeps of the engine, ``lock`` is a hash of them, ``model``
    is what requests call the model, ``api`` what the routes of OpenAI's API start with. ``exchanges`` is how many lines
    follow. ``plugin`` is the version of this package that recorded it, ``capabilities`` what the engine was known to be
    able to do.
    """

    format: Literal[1]
    engine: str
    kind: str
    version: str | None
    model: str
    route: Literal["openai", "native", "responses", "completions"]
    api: Annotated[str, msgspec.Meta(pattern=r"^(/[!-~]*)?$", max_length=1000)] | None
    context_length: Annotated[int, msgspec.Meta(ge=1)] | None
    lock: Short
    recorded: Date
    exchanges: Annotated[int, msgspec.Meta(ge=1)]
    plugin: str
    identity: Mapping[str, Told]
    launch: Mapping[str, Setting]
    capabilities: Mapping[str, bool | int | str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no engine can be said to be able to do."""
        try:
            from_json(Capabilities, dict(self.capabilities))
        except (TypeError, ValueError) as error:
            raise ValueError(f"capabilities: {error}") from None

    @property
    def locked(self) -> Locked:
        """The engine as the lock keeps it."""
        facts = {name: Fact(value=fact.value, source=fact.source) for name, fact in self.identity.items()}
        return Locked(kind=self.kind, plugin=self.plugin, identity=facts, launch=self.launch)

    @property
    def whose(self) -> str:
        """The engine with its kind and version, and the day."""
        version = f" {self.version}" if self.version else ""
        return f"{self.engine} ({self.kind}{version}) as recorded {self.recorded}"


class Exchanged(msgspec.Struct, frozen=True, kw_only=True):
    """One request as it was sent, and its answer as it came in.

    ``request`` has hashes in the place of images and sound, and that of a timed one is without the number that stood
    before its first text; ``cached`` says of one that none was meant to stand there. ``repeat`` tells which of several
    answers to one prompt it is. ``type`` is the media type of the answer.
    """

    case: str
    phase: Phase
    concurrency: Annotated[int, msgspec.Meta(ge=1)]
    method: Literal["POST", "GET"]
    path: Annotated[str, msgspec.Meta(pattern=r"^/[!-~]*$", max_length=1000)]
    request: dict[str, Any]
    status: Annotated[int, msgspec.Meta(ge=200, le=599)]
    type: Annotated[str, msgspec.Meta(pattern=r"^[ -~]*$", max_length=200)]
    chunks: Annotated[tuple[Chunk, ...], msgspec.Meta(max_length=200_000)]
    repeat: Annotated[int, msgspec.Meta(ge=0)] = 0
    cached: bool = False

    def __post_init__(self) -> None:
        """Refuse times that run backwards, and what is no base64."""
        if any(later < earlier for (earlier, _), (later, _) in itertools.pairwise(self.chunks)):
            raise ValueError("its chunks are not in order of time")
        list(self.pieces)

    @property
    def pieces(self) -> Iterator[tuple[float, bytes]]:
        """The bytes of the answer's body with the seconds after which they came."""
        for ms, content in self.chunks:
            yield ms / 1000, data_of(content)

    @property
    def body(self) -> bytes:
        """The whole answer."""
        return b"".join(piece for _, piece in self.pieces)


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """A recording that was read: its header, and what was exchanged in the order of time."""

    header: Header
    exchanges: Sequence[Exchanged]


def chunk(seconds: float, piece: bytes) -> Chunk:
    r"""Return a chunk as a recording keeps it.

    >>> chunk(0.0123456, b"data: 1"), chunk(0.5, b"\xe2\x82")
    ((12.346, 'data: 1'), (500.0, Raw(base64='4oI=')))
    """
    ms = round(seconds * 1000, 3)
    try:
        return ms, piece.decode("utf-8")
    except UnicodeDecodeError:
        return ms, Raw(base64=base64.b64encode(piece).decode("ascii"))


def data_of(content: str | Raw) -> bytes:
    """Return the bytes of a chunk; ``ValueError`` for what is no base64."""
    if isinstance(content, str):
        return content.encode("utf-8", "replace")
    return base64.b64decode(content.base64, validate=True)


# which of them answers a request --------------------------------------------------------------------------------------

_NUMBER: Final = re.compile(r"\d{12}\n")
"""What stands before the first text of a timed request (``core.prompts.unseen``), another one in every run."""

Question: TypeAlias = tuple[str, str, str]
"""Method, path and body of a request as it is looked up."""


def question(method: str, path: str, body: Any) -> Question:
    """Return what a request is looked up by, in which the order of the keys in its body does not count.

    Images and sound stand there as hashes, as a recording has them.
    """
    return method, path, json.dumps(without_bytes(body), sort_keys=True, ensure_ascii=False)


def unnumbered(body: Any) -> Any | None:
    r"""Return the body of a timed request without its number, ``None`` where none stands before its first text.

    >>> unnumbered({"prompt": "788111112644\nHi"})
    {'prompt': 'Hi'}
    >>> unnumbered({"messages": [{"role": "user", "content": "Hi"}]}) is None
    True
    """
    if not isinstance(body, dict):
        return None
    if isinstance(body.get("prompt"), str):
        text = _without(body["prompt"])
        return None if text is None else {**body, "prompt": text}
    name = "input" if "input" in body else "messages"  # route "responses" has items, the others turns
    turns = body.get(name)
    if not isinstance(turns, list) or not turns or not isinstance(turns[0], dict):
        return None
    content = _content_without(turns[0].get("content"))
    return None if content is None else {**body, name: [{**turns[0], "content": content}, *turns[1:]]}


def _content_without(content: Any) -> Any | None:
    if isinstance(content, str):
        return _without(content)
    first = content[0] if isinstance(content, list) and content else None
    if not isinstance(first, dict) or not isinstance(first.get("text"), str):
        return None
    text = _without(first["text"])
    return None if text is None else [{**first, "text": text}, *content[1:]]


def _without(text: str) -> str | None:
    return text[match.end() :] if (match := _NUMBER.match(text)) else None


# what it must not hold ------------------------------------------------------------------------------------------------


def refuse_private(
    recorded: Recorded, *, where: str, mask: Mask, variables: Iterable[str], folders: Sequence[str] = ()
) -> None:
    """Raise ``RecordingError``, naming file, request and field, where it would hold a key or a folder of this machine.

    ``variables`` are the names under which ``mask`` knows secrets: a text it has been at before holds them.
    """
    known, ours = list(variables), naming(folders)

    def refused(place: str, why: str) -> RecordingError:
        return RecordingError(f"{where} is not written: {place} {why}")

    header = recorded.header
    for place, text in (*of_engine(header), ("model", header.model)):
        refuse_secret(refused, place, text, mask, known)
        if holds_path(text):
            raise refused(place, f"holds a path of this machine, {text!r}; give the model a name instead")
    for number, exchanged in enumerate(recorded.exchanges, 2):
        about = f"line {number} (case {explain.plain(exchanged.case, 40)}, {exchanged.phase.value}):"
        _refuse_texts(refused, about, exchanged, mask, known, ours)


def _refuse_texts(
    refused: Refusal, about: str, exchanged: Exchanged, mask: Mask, known: Sequence[str], ours: re.Pattern[str] | None
) -> None:
    request = json.dumps(exchanged.request, ensure_ascii=False)
    answer = exchanged.body.decode("utf-8", "surrogateescape")
    for place, text in (
        ("its case", exchanged.case),
        ("its path", exchanged.path),
        ("its request", request),
        ("its answer", answer),
        ("its request", "\n".join(_spoken(exchanged.request))),
        ("its answer", "\n".join(_answered(answer))),
    ):
        refuse_secret(refused, f"{about} {place}", text, mask, known)
        if ours is not None and ours.search(text):
            raise refused(f"{about} {place}", "names a folder of this machine; keep such paths out of the prompt")


def _spoken(value: Any) -> Iterator[str]:
    """Yield the texts in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _spoken(item)
    elif isinstance(value, list):
        for item in value:
            yield from _spoken(item)


def _answered(answer: str) -> Iterator[str]:
    """Yield what an answer says: the pieces of each place in its events put together, as a model spells a key."""
    by_place: dict[tuple[str, ...], list[str]] = {}
    for line in answer.splitlines():
        text = line.removeprefix("data:").strip()
        try:
            value = msgspec.json.decode(text.encode("utf-8", "replace"))
        except (msgspec.DecodeError, RecursionError):
            continue
        for place, piece in _places(value, ()):
            by_place.setdefault(place, []).append(piece)
    yield from ("".join(pieces) for pieces in by_place.values())


def _places(value: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _places(item, (*place, key))
    elif isinstance(value, list):
        for item in value:
            yield from _places(item, (*place, "[]"))
