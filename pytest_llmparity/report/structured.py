"""The matrix of ``llmparity doctor --schema``: what each engine makes of each thing that a schema can ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from pytest_llmparity.core.sample import JsonObject
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.printable import WIDTH, hanging, pad, printable


class Told(Protocol):
    """What became of one canary."""

    @property
    def canary(self) -> str:
        """Which one it is."""

    @property
    def outcome(self) -> str:
        """What became of it."""

    @property
    def why(self) -> str:
        """Why, in words."""

    @property
    def answered(self) -> str:
        """What was answered."""


LEGEND = (
    "enforced: the answer keeps the schema, and without it the same prompt breaks it",
    "violated: the schema was taken and the answer breaks it; nothing but the answer tells",
    "refused: the request was refused for its schema",
    "not shown: kept with and without the schema, or cut by the token limit",
    "no constraint: this kind of engine has no field for a schema",
    "failed: no answer, with a schema or without",
)


_COLUMN: Final = 16
"""Columns an engine gets at most; a longer name has its middle left out, and is whole below the matrix."""


def lines(engines: Mapping[str, Sequence[Told]], *, width: int = WIDTH) -> Iterator[str]:
    """Yield the matrix, below it what was violated, refused or failed, and what the words mean.

    Engines for which there is no room beside the others stand in a matrix of their own below.
    """
    names = list(engines)
    rows = {of_canary.canary: None for of_engine in engines.values() for of_canary in of_engine}
    by_name = {
        name: {of_canary.canary: of_canary.outcome for of_canary in of_engine} for name, of_engine in engines.items()
    }
    first = max((len(row) for row in rows), default=0)
    beside = max(1, (width - first) // (_COLUMN + 2))
    for begin in range(0, max(1, len(names)), beside):
        shown = names[begin : begin + beside]
        if begin:
            yield ""
        yield _row(["schema".ljust(first), *(pad(printable(name), _COLUMN) for name in shown)])
        for row in rows:
            yield _row([row.ljust(first), *(by_name[name].get(row, "").ljust(_COLUMN) for name in shown)])
    for name in names:
        counted = Counter(of_canary.outcome for of_canary in engines[name])
        yield ""
        outcomes = ", ".join(f"{outcome} {n}" for outcome, n in counted.most_common())
        yield from hanging(printable(f"{name}: {outcomes}"), width)
        for of_canary in engines[name]:
            if of_canary.outcome in ("violated", "refused", "failed"):
                yield from hanging(
                    f"  {of_canary.outcome} {of_canary.canary}: {explain.plain(of_canary.why, 160)}", width
                )
                if of_canary.answered:
                    yield from hanging(f"    it answered {explain.quote(of_canary.answered, 80)}", width)
    used = {of_canary.outcome for of_engine in engines.values() for of_canary in of_engine}
    yield ""
    for line in LEGEND:
        if line.partition(":")[0] in used:
            yield from hanging(line, width)


def _row(cells: Iterable[str]) -> str:
    return "  ".join(cells).rstrip()


def record(
    engines: Mapping[str, Sequence[Told]], identities: Mapping[str, JsonObject], missing: Sequence[str]
) -> JsonObject:
    """Return the matrix as JSON builtins, with what each engine says it is, and why engines are ``missing``."""
    return {
        "missing": list(missing),
        "engines": [
            {
                "name": name,
                **identities.get(name, {}),
                "canaries": [
                    {"canary": t.canary, "outcome": t.outcome, "why": t.why, "answered": t.answered} for t in outcomes
                ],
            }
            for name, outcomes in engines.items()
        ],
    }
