"""How conversations with scripted tools end: what came of each is in its sample, whatever its engine did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_llmparity.testing import Fault, Reply

if TYPE_CHECKING:
    from tests.run.conftest import Project

TOOLS = [{"type": "function", "function": {"name": "get_day", "parameters": {"type": "object", "properties": {}}}}]
MOST_TURNS = 3
CALL = Reply(tool_calls=[("get_day", "{}")])
SILENT = Reply(finish_reason="stop")
TALKS: list[tuple[Reply, Reply | Fault, str, int]] = [
    (CALL, Reply(text="On a Monday."), "", 1),
    (CALL, SILENT, "no words", 1),
    (CALL, Reply(finish_reason="length"), "", 1),
    (CALL, CALL, "no end", MOST_TURNS - 1),
    (Reply(tool_calls=[("get_year", "{}")]), SILENT, "no result", 0),
    (Reply(tool_calls=[("get_day", '{"in')]), SILENT, "broken call", 0),
    (CALL, Fault.refuse(400), "turn 2: ", 0),
]
"""What is answered first and what once there are results, how that ends, and how many turns are before its end."""


def answer(request: Mapping[str, Any]) -> Reply | Fault:
    asked, _, number = str(request["messages"][0]["content"]).partition(" ")
    if asked != "question":
        return Reply(text="Hello.")
    first, then, _, _ = TALKS[int(number)]
    return then if any(message["role"] == "tool" for message in request["messages"]) else first


def test_how_each_conversation_ends_is_in_its_sample(project: Project) -> None:
    project.prompts(len(TALKS), tools=TOOLS, tool_results={"get_day": "Monday"}, max_turns=MOST_TURNS)
    session = project.session(project.attached("a", project.engine(answer)))
    project.declare(session)
    session.gather()

    ends: dict[str, tuple[str, int]] = {}
    for sample in session.samples():
        if sample.completion is None:
            assert sample.failure is not None
            assert sample.failure.kind == "BadRequest"
            ends[sample.case] = sample.failure.message[: len("turn 2: ")], 0
            continue
        stopped = sample.completion.stopped
        ends[sample.case] = "" if stopped is None else stopped.kind, len(sample.completion.turns)
        assert all(turn.results == ("Monday",) for turn in sample.completion.turns)
    assert ends == {f"c{number}": (end, turns) for number, (_, _, end, turns) in enumerate(TALKS)}
