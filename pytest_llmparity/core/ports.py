"""What the floors above hand to the core and to each other: protocols, declared where they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from pytest_llmparity.core.sample import Completion, Identity, Request, WireRequest
from pytest_llmparity.core.words.hiding import TextMask


class Embedder(Protocol):
    """Turns texts into vectors of one length; equal texts give equal vectors."""

    @property
    def name(self) -> str:
        """Model name, part of the verdict's words."""

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return one unit vector per text, in order."""


class Answer(Protocol):
    """What the transport hands to an adapter: one finished HTTP answer, undecoded."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Header names in lower case; repeated ones joined by a comma."""

    @property
    def body(self) -> bytes:
        """The body, transfer encoding removed."""


class AdapterProtocol(Protocol):
    """One configured engine: builds its requests, reads its answers, knows how to identify itself.

    Made by an adapter in ``engines/``; has no open connection of its own except inside a call.
    """

    @property
    def name(self) -> str:
        """The engine's name in this run."""

    @property
    def kind(self) -> str:
        """The adapter's kind, such as ``llamacpp`` or ``vllm``."""

    @property
    def mask(self) -> TextMask:
        """Hides what the server repeats of the keys it is sent."""

    def build(self, request: Request, *, stream: bool = True) -> WireRequest:
        """Put a request into this engine's words; ``ParameterNotHonoured`` if it has no word for what matters."""

    def read(self, answer: Answer, *, case: str) -> Completion:
        """Read a finished answer, streamed or not; raises an ``AnswerError`` that names engine and case.

        Its ``token_ends`` are, for a streamed answer, the body offsets at which events that carry generated tokens end.
        Role-only and empty deltas do not count; text, reasoning and tool-call deltas do. Empty when not streamed.
        """

    def identity(self) -> Identity:
        """Ask the live server what it is (control calls, not measured)."""


class Layers(NamedTuple):
    """How much of an image has come: whole layers of those there are, bytes of the layers that have begun to come.

    A runtime that does not tell bytes has 0 of 0.
    """

    done: int
    of: int
    size: int
    of_size: int


class Progress(Protocol):
    """Shows how far a run is that takes its time; silent where nobody watches."""

    def say(self, text: str) -> None:
        """Something is going to take its time."""

    def fetch(self, engine: str, layers: Layers | None) -> None:
        """So much of the image that an engine runs from has come; ``None``: it is there, or cannot be fetched."""

    def begin(self, engine: str, total: int) -> None:
        """An engine starts on so many requests."""

    def more(self, engine: str, count: int) -> None:
        """So many more requests of this engine are to come than it began with."""

    def advance(self, engine: str) -> None:
        """One request of this engine has ended."""

    def experiments(self, pair: str, sent: int, most: int) -> None:
        """Experiments on a pair of engines have sent so many requests, of so many at most."""

    def end(self) -> None:
        """Everything is gathered, the experiments on a pair are made, or either was interrupted."""
