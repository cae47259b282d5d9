"""What a request to the player of a recording is for, and which of its answers belongs to it.

The same question is asked for many purposes: an answer to one is no evidence for another. What is timed has answers of
its own, and so has each phase of the noise floor and each repeat. What was not recorded for a purpose is not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from pytest_llmparity.core.recording import Exchanged, Question, question
from pytest_llmparity.core.sample import Phase

_MARKED: Final = re.compile(r"/@([a-z]+)\.(\d{1,9})\.(\d{1,9})\.([a-z]*)(/.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """What a request is sent for, told in front of its path.

    ``repeat`` of a timed request is its place among those with the same question. ``cached``: timed as it is, so that a
    cache may hold it. ``dropped``: it warms up, and nobody looks at its answer.
    """

    phase: Phase
    concurrency: int
    repeat: int = 0
    cached: bool = False
    dropped: bool = False

    def path(self, path: str) -> str:
        """Return the path under which a player is asked.

        >>> Purpose(phase=Phase.COLD, concurrency=4).path("/v1/completions")
        '/@cold.4.0./v1/completions'
        """
        how = "dropped" if self.dropped else "cached" if self.cached else ""
        return f"/@{self.phase.value}.{self.concurrency}.{self.repeat}.{how}{path}"


def purpose(path: str) -> tuple[Purpose | None, str]:
    """Return what a request is for and the path it was recorded under; ``None`` where nobody told.

    >>> purpose("/v1/completions")
    (None, '/v1/completions')
    """
    marked = _MARKED.fullmatch(path)
    if marked is None or marked[1] not in {phase.value for phase in Phase}:
        return None, path
    how = marked[4]
    return Purpose(
        phase=Phase(marked[1]),
        concurrency=int(marked[2]),
        repeat=int(marked[3]),
        cached=how == "cached",
        dropped=how == "dropped",
    ), marked[5]


class Answers:
    """The answers of a recording by what they were asked for; ``bodiless`` keeps only that there are some."""

    def __init__(self, exchanges: Iterable[Exchanged], *, bodiless: bool = False) -> None:
        self._gathered: dict[tuple[Phase, int, Question], list[Exchanged]] = {}
        self._timed: dict[tuple[int, bool, Question], list[Exchanged]] = {}
        self._any: dict[tuple[bool, Question], list[Exchanged]] = {}
        for each in exchanges:
            asked = question(each.method, each.path, each.request)
            kept = msgspec.structs.replace(each, chunks=(), request={}) if bodiless else each
            timed = each.phase is Phase.TIMED
            self._any.setdefault((timed, asked), []).append(kept)
            if timed:
                self._timed.setdefault((each.concurrency, each.cached, asked), []).append(kept)
            else:
                self._gathered.setdefault((each.phase, each.repeat, asked), []).append(kept)

    def __bool__(self) -> bool:
        return bool(self._any)

    def asked_as(self, purpose: Purpose, asked: Question) -> Sequence[Exchanged]:
        """Return what came for a phase and a repeat, in order: attempts, then the answer.

        Where it was asked at several concurrencies it is what came at this one.
        """
        there = self._gathered.get((purpose.phase, purpose.repeat, asked), [])
        return [each for each in there if each.concurrency == purpose.concurrency] or there

    def timed(self, asked: Question, *, concurrency: int, cached: bool) -> Sequence[Exchanged]:
        """Return the timed answers at this concurrency, in the order in which they were asked."""
        return self._timed.get((concurrency, cached, asked), [])

    def whatever(self, asked: Question, *, timed: bool) -> Sequence[Exchanged]:
        """Return every answer to a question, for whoever takes them for no evidence."""
        return self._any.get((timed, asked), [])
