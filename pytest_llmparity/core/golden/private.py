"""What a golden must not hold: the value of a key in any encoding, what looks like one, folders of this machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from pytest_llmparity.core.errors import GoldenError, LLMParityError
from pytest_llmparity.core.golden.records import (
    Golden,
    Line,
    LogprobsLine,
    Provenance,
    Setting,
    Told,
    unspell,
)
from pytest_llmparity.core.identity.lock import holds_path, holds_secret
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.keys import looks_secret
from pytest_llmparity.core.words.masking import Mask


def refuse_private(
    golden: Golden, *, where: str, mask: Mask, variables: Iterable[str], folders: Sequence[str] = ()
) -> None:
    """Raise ``GoldenError``, naming file, case and field, where a golden would hold what has no place in it.

    ``variables`` are the names under which ``mask`` knows secrets: a text it has been at before holds them. ``folders``
    are those of this machine that nobody else should read of, whether or not a text goes on below them; a path that a
    model made up is its answer.
    """
    known = list(variables)
    ours = naming(folders)

    def refused(place: str, why: str) -> GoldenError:
        return GoldenError(f"{where} is not written: {place} {why}")

    for place, text in (*of_engine(golden.provenance), *_asked(golden.provenance)):
        refuse_secret(refused, place, text, mask, known)
        if holds_path(text):
            raise refused(
                place, f"holds a path of this machine, {text!r}; give it below the project or in a variable of env"
            )
    for line in golden.lines.values():
        for place, text in _of_case(line, golden.logprobs.get(line.key)):
            refuse_secret(refused, place, text, mask, known)
            if ours is not None and ours.search(text):
                raise refused(place, "names a folder of this machine; keep such paths out of the prompt")


def naming(folders: Sequence[str]) -> re.Pattern[str] | None:
    """Return a pattern that finds the name of one of these folders, and of none that only begins or ends with it.

    >>> naming(["/srv/proj"]).findall("/srv/proj/a, /srv/proj. But /srv/proj2, /srv/proj.old or /mnt/srv/proj")
    ['/srv/proj', '/srv/proj']
    """
    if not folders:
        return None
    names = "|".join(re.escape(folder) for folder in folders)
    return re.compile(rf"(?<![\w.~-])(?:{names})(?![\w-]|\.\w)")


def refuse_secret(refused: Refusal, place: str, text: str, mask: Mask, variables: Sequence[str]) -> None:
    """Raise the error that a text of such a place holds a key, or what looks like one."""
    if holds_secret(text, mask, variables):
        raise refused(
            place, "holds the value of a key variable: take the key out of what the engine is sent, and record again"
        )
    if looks_secret(text):
        raise refused(place, "looks like a key (not shown): it is a file for everybody")


class Refusal(Protocol):
    """Makes the error that names a place and why what stands there is refused."""

    def __call__(self, place: str, why: str) -> LLMParityError:
        """Return that error."""


class FirstLine(Protocol):
    """What a first line says of an engine, of golden answers or of a recording."""

    @property
    def engine(self) -> str:
        """Its name."""

    @property
    def version(self) -> str | None:
        """Its version."""

    @property
    def identity(self) -> Mapping[str, Told]:
        """What it said of itself."""

    @property
    def launch(self) -> Mapping[str, Setting]:
        """How it was started."""

    @property
    def capabilities(self) -> Mapping[str, bool | int | str]:
        """What it can do."""


def of_engine(provenance: FirstLine) -> Iterator[tuple[str, str]]:
    """Yield the texts of a first line with their places."""
    yield "engine", provenance.engine
    yield "version", provenance.version or ""
    yield from ((f"identity.{name}", str(fact.value)) for name, fact in provenance.identity.items())
    for name, value in provenance.launch.items():
        texts = value if isinstance(value, tuple) else (str(value),)
        yield from ((f"launch.{name}", text) for text in texts)
    yield from ((f"capabilities.{name}", str(value)) for name, value in provenance.capabilities.items())


def _asked(provenance: Provenance) -> Iterator[tuple[str, str]]:
    for way in provenance.asked:
        yield from ((f"asked.{name}", str(value)) for name, value in way.sampling.items())


def _of_case(line: Line, logprobs: LogprobsLine | None) -> Iterator[tuple[str, str]]:
    case = f"case {explain.plain(line.id, 40)}:"
    yield f"{case} its id", line.id
    for answer in (part for last in line.answers for part in (*last.turns, last, *last.choices)):
        yield f"{case} its text", answer.text
        yield f"{case} its reasoning", answer.reasoning
        yield f"{case} its finish reason", answer.finish
        for call in answer.tool_calls:
            yield f"{case} a tool call", call.name
            yield f"{case} a tool call", call.arguments
        yield from ((f"{case} what a tool returned", result) for result in answer.results)
        for note in answer.normalised:
            yield f"{case} what its reader changed", note
    for tokens in logprobs.answers if logprobs else ():
        yield f"{case} its tokens", _text("".join(text for text, _, _ in tokens.tokens))
        others = "\n".join(text for _, _, top in tokens.tokens for text, _ in top)
        yield f"{case} the alternatives of its tokens", _text(others)


def _text(spelt: str) -> str:
    """Return what tokens say, as a text."""
    return unspell(spelt).decode("utf-8", "surrogateescape")
