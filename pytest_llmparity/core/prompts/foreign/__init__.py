"""Prompts as other tools write them, turned into rows of a prompt file; what has no place there is told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from pytest_llmparity.core.compare.json import strict_json
from pytest_llmparity.core.errors import PromptSetError
from pytest_llmparity.core.prompts.reading import prompts_of
from pytest_llmparity.core.words import explain

PromptRow: TypeAlias = dict[str, Any]
MAX_ID: Final = 200


@dataclass(slots=True)
class Imported:
    """Rows, and what could not be said in them: ``lost`` counts by what it is, ``left_out`` names rows and why."""

    rows: list[PromptRow] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    _ids: Counter[str] = field(default_factory=Counter)

    def add(self, row: PromptRow) -> None:
        """Add a row, or leave it out where it cannot be a case; an id that is taken, or is none, becomes its own."""
        name = row.get("id") or len(self.rows) + 1
        row["id"] = self._own(str(name))
        try:
            prompts_of([row], source="row", name="row")
        except PromptSetError as error:
            self.leave(name, str(error).partition("row, row 1: ")[2].partition("\n")[0])
        else:
            self.rows.append(row)

    def leave(self, name: object, why: str) -> None:
        """Note a row that cannot be a case."""
        self.left_out.append((str(name), why))

    def lose(self, given: Mapping[str, Any], read: Collection[str], named: str = "{}") -> None:
        """Count every key that holds something and is not read; ``named`` is what one is called, ``{}`` its key."""
        self.lost.update(
            named.format(explain.plain(str(key), 60)) for key in given if key not in read and given[key] is not None
        )

    def _own(self, name: str) -> str:
        printable = "".join(char if char.isprintable() else " " for char in name).strip()[: MAX_ID - 8] or "row"
        own = printable
        while self._ids[own]:  # a suffix may be somebody's own name
            self._ids[printable] += 1
            own = f"{printable}-{self._ids[printable]}"
        self._ids[own] += 1
        return own


Fields: TypeAlias = Mapping[str, str]
"""Where a row's own words stand, by what they are: ``{"prompt": "question", "answer": "target"}``."""


def objects(text: str, source: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the objects of JSON Lines, or of one JSON array, each with its number from 1.

    Raises :class:`~pytest_llmparity.core.errors.PromptSetError` with the line of what is none.
    """
    text = text.removeprefix("\ufeff")
    values: Iterable[tuple[int, Any]]
    if text.lstrip().startswith("["):
        values = enumerate(_parsed(text, source, 1), start=1)
    else:
        lines = ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())
        values = ((number, _parsed(line, source, number)) for number, line in lines)
    for number, value in values:
        if not isinstance(value, Mapping):
            raise PromptSetError(f"{source}:{number}: expected a JSON object, not {json.dumps(value)[:60]}")
        yield number, value


def _parsed(text: str, source: str, line: int) -> Any:
    try:
        return strict_json(text)
    except json.JSONDecodeError as error:
        raise PromptSetError(
            f"{source}:{line + error.lineno - 1}: not JSON at column {error.colno}: {error.msg}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise PromptSetError(f"{source}:{line}: {error}") from error


def listed(value: object) -> list[Any]:
    """Return a list as it is, nothing as an empty one, anything else as one item."""
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def messages(turns: object, imported: Imported | None = None) -> list[PromptRow] | None:
    """Return turns in OpenAI's shape, also those of ShareGPT (``from``, ``value``); ``None`` where they are none.

    What else a turn has (``reasoning_content``, ``cache_control``, …) is counted in ``imported`` as lost.
    """
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        return None
    shaped: list[PromptRow] = []
    for turn in turns:
        if not isinstance(turn, Mapping):
            return None
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        role = {"human": "user", "gpt": "assistant", "bot": "assistant"}.get(str(role), role)
        if role not in ("system", "developer", "user", "assistant", "tool"):
            return None
        kept = {key: turn[key] for key in _OF_A_TURN if turn.get(key) is not None}
        shaped.append({"role": role, "content": content, **kept})
    if imported is not None:
        for turn in turns:
            shape = ("role", "content") if "role" in turn else ("from", "value", "role", "content")
            imported.lose(turn, (*shape, *_OF_A_TURN), "{} of a turn")
    return shaped


_OF_A_TURN: Final = ("name", "tool_calls", "tool_call_id")


def user(text: str) -> list[PromptRow]:
    """Return a conversation of one question."""
    return [{"role": "user", "content": text}]


def told(imported: Imported, *, shown: int = 10) -> list[str]:
    """Return lines about what has no place in a prompt file; empty where everything has."""
    lines = [f"not expressed: {lost} ({times} times)" for lost, times in imported.lost.most_common()]
    by_reason: dict[str, list[str]] = {}
    for name, why in imported.left_out:
        by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        more = f" and {len(names) - shown} more" if len(names) > shown else ""
        lines.append(f"left out: {', '.join(names[:shown])}{more}: {why}")
    return lines
