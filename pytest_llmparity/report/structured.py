"""The matrix of ``llmparity doctor --schema``: what each engine makes of each thing that a schema can ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from pytest_llmparity.core.sample import JsonObject
from pytest_llmparity.core.words import explain


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


def lines(engines: Mapping[str, Sequence[Told]]) -> Iterator[str]:
    """Yield the matrix, below it what was violated, refused or failed, and what the words mean."""
    names = list(engines)
    rows = {told.canary: None for of_engine in engines.values() for told in of_engine}
    by_name = {name: {told.canary: told for told in of_engine} for name, of_engine in engines.items()}
    widths = {name: max(len(name), *(len(told.outcome) for told in engines[name] or ()), 8) for name in names}
    first = max((len(row) for row in rows), default=0)
    yield "  ".join(["schema".ljust(first), *(name.ljust(widths[name]) for name in names)]).rstrip()
    for row in rows:
        cells = [by_name[name][row].outcome if row in by_name[name] else "" for name in names]
        yield "  ".join(
            [row.ljust(first), *(cell.ljust(widths[name]) for name, cell in zip(names, cells, strict=True))]
        ).rstrip()
    for name in names:
        counted = Counter(told.outcome for told in engines[name])
        yield ""
        yield f"{name}: {', '.join(f'{outcome} {n}' for outcome, n in counted.most_common())}"
        for told in engines[name]:
            if told.outcome in ("violated", "refused", "failed"):
                yield f"  {told.outcome} {told.canary}: {explain.plain(told.why, 160)}"
                if told.answered:
                    yield f"    it answered {explain.quote(told.answered, 80)}"
    used = {told.outcome for of_engine in engines.values() for told in of_engine}
    yield ""
    yield from (line for line in LEGEND if line.partition(":")[0] in used)


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
                    {"canary": t.canary, "outcome": t.outcome, "why": t.why, "answered": t.answered} for t in told
                ],
            }
            for name, told in engines.items()
        ],
    }
