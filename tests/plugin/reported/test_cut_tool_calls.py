"""Ollama answers 500 to a tool call that max_tokens cut (seen with v0.33.0): a cut answer, no failure of the engine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.plugin.reported.wire import Answer, Json, chunk, counts, document, events, message, usage

WORDS = 'llama-server returned invalid tool call arguments for "get_tide": unexpected end of JSON input'
TOOLS = [{"type": "function", "function": {"name": "get_tide", "parameters": {"type": "object"}}}]


def llamacpp(body: Json) -> Answer:
    """llama.cpp sends the arguments so far."""
    if not body.get("tools"):
        return document(message({"content": "Hello."}, use=counts(9, 2)))
    call = {"index": 0, "id": "a", "function": {"name": "get_tide", "arguments": '{"harbour": "Lis'}}
    if not body.get("stream"):
        return document(message({"content": None, "tool_calls": [call]}, "length", counts(90, 16)))
    return events(chunk({"tool_calls": [call]}), chunk({}, "length"), usage(90, 16))


def ollama(body: Json) -> Answer:
    if not body.get("tools"):
        return llamacpp(body)
    return document({"error": {"message": WORDS, "type": "api_error", "param": None, "code": None}}, 500)


def test_a_cut_call_is_an_answer_that_was_cut_and_asked_for_once(project: Any) -> None:
    project.engine("base", llamacpp)
    cand = project.engine("cand", ollama)
    case = {"messages": [{"role": "user", "content": "The tide in Lisbon?"}], "tools": TOOLS}
    project.prompts([{"id": f"q{place}", **case} for place in range(4)])
    project.gate(
        "max_tokens=16",
        "for rows in parity_run.values():\n"
        "        for row in rows.values():\n"
        "            assert [call.name for call in row.tool_calls] == ['get_tide']",
    )

    result = project.run()

    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=1)
    rows = (project.pytester.path / "out" / "samples.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(row)["finish_reason"] for row in rows} == {"length"}
    assert sum(bool(asked.body.get("stream") and asked.body.get("tools")) for asked in cand.asked) == 4
