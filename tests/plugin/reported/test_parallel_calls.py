"""Parallel calls, each whole, all with index 0 or with none (ollama/ollama 15457, 7881, BerriAI/litellm 33678)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.plugin.reported.wire import Answer, Json, chunk, counts, document, events, message, usage

CALLS = [("call_a", "get_weather", {"city": "Lisbon"}), ("call_b", "get_time", {"city": "Porto"})]
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for _, name, _ in CALLS]
INDEXES: dict[str, Callable[[int], Json]] = {"one": lambda place: {"index": 0}, "none": lambda place: {}}


def calls_both(index: Callable[[int], Json]) -> Callable[[Json], Answer]:
    """Return an engine that calls both functions; ``index`` is what it says of a streamed call's place."""

    def answer(body: Json) -> Answer:
        calls = [{"id": id, "function": {"name": name, "arguments": json.dumps(value)}} for id, name, value in CALLS]
        if not body.get("stream"):
            return document(message({"content": None, "tool_calls": calls}, "tool_calls", counts(90, 40)))
        pieces = [chunk({"tool_calls": [{**index(place), **call}]}) for place, call in enumerate(calls)]
        return events(chunk({"role": "assistant"}), *pieces, chunk({}, "tool_calls"), usage(90, 40))

    return answer


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_calls_that_share_an_index_are_two_calls(project: Any, index: Callable[[int], Json]) -> None:
    project.engine("base", calls_both(lambda place: {"index": place}))
    project.engine("cand", calls_both(index))
    project.prompts([{"id": "q", "messages": [{"role": "user", "content": "Weather and time?"}], "tools": TOOLS}])
    project.gate(
        "check.prompts()",
        "for rows in parity_run.values():\n"
        "        calls = rows['q'].tool_calls\n"
        "        assert [call.name for call in calls] == ['get_weather', 'get_time']\n"
        "        assert [json.loads(call.arguments)['city'] for call in calls] == ['Lisbon', 'Porto']",
    )

    result = project.run()

    result.assert_outcomes(passed=1)
