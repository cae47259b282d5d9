"""A server that trickles a byte now and then holds up nothing: every call has a total, and the budget ends all.

Gaps between bytes are the only limit of most HTTP clients (https://github.com/encode/httpx/issues/1450).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.plugin.reported.wire import Answer, Json, plain

ordinary = plain("The refund takes five days.")


def trickling(seconds: float) -> Answer:
    """An answer that never pauses for long and does not end for a minute."""
    pieces: list[bytes | float] = []
    for _ in range(int(60 / seconds)):
        pieces += [b": wait\n\n", seconds]
    return Answer(pieces)


def warm_up(body: Json) -> Answer:
    return ordinary(body) if body.get("stream") else trickling(0.05)


def probe(body: Json) -> Answer:
    return trickling(0.05) if "harbour" in str(body) else ordinary(body)


def prompt(body: Json) -> Answer:
    return trickling(0.05) if "question" in str(body) else ordinary(body)


@pytest.mark.slow
@pytest.mark.parametrize(("slow", "outcome"), [(warm_up, "ERROR"), (probe, "INCONCLUSIVE"), (prompt, "INCONCLUSIVE")])
def test_the_budget_ends_what_trickles(project: Any, slow: Callable[[Json], Answer], outcome: str) -> None:
    project.engine("base", ordinary)
    project.engine("cand", slow)
    project.prompts([{"id": f"q{n}", "messages": [{"role": "user", "content": f"question {n}"}]} for n in range(3)])
    project.gate("check.prompts()")

    began = time.monotonic()
    result = project.run("--parity-budget=1")

    assert time.monotonic() - began < 10  # it trickles for a minute
    result.stdout.fnmatch_lines(["*(--parity-budget)*"])
    assert [verdict["outcome"] for verdict in project.verdicts("prompts")] == [outcome]
