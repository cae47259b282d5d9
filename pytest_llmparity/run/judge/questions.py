"""What a verdict is about, as looks at it are counted: which engines they are, as far as they tell it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from pytest_llmparity.core.identity.record import EngineRecord

_WHICH: Final = ("version", "build", "model", "revision", "digest", "quantization", "tensor_types")


def question_of(engines: Sequence[EngineRecord]) -> str:
    """Return a text that names these engines and what each of them tells of itself."""
    engines_told = [
        [engine.name, {"kind": engine.kind} | {f: str(v) for f in _WHICH if (v := engine.identity.get(f)) is not None}]
        for engine in engines
    ]
    return json.dumps(engines_told, sort_keys=True)


def completed(question: str, earlier: Iterable[str], looks: Callable[[str], int]) -> tuple[str, str]:
    """Return the earlier question that this one is, and it with what was told then and is not told now.

    A fact that somebody told only once is no difference: the question is the same, and of several such ones that with
    the most ``looks`` counts. Where there is none both are the question itself.
    """
    same = [(text, both) for text in sorted(earlier) if (both := _both(text, question)) is not None]
    if not same:
        return question, question
    return max(same, key=lambda pair: (looks(pair[0]), pair[0] == question))


def _both(earlier: str, now: str) -> str | None:
    """Return what two questions tell together, ``None`` where they are of different engines."""
    try:
        before = json.loads(earlier)
    except ValueError:
        return None  # written by an older version
    pairs = list(zip(before, json.loads(now), strict=False))
    if len(before) != len(json.loads(now)):
        return None
    if any(
        name != other or any(facts[f] != facts_now[f] for f in facts.keys() & facts_now)
        for (name, facts), (other, facts_now) in pairs
    ):
        return None
    return json.dumps([[name, {**facts, **facts_now}] for (name, facts), (_, facts_now) in pairs], sort_keys=True)
