"""A server that counts 0 prompt tokens (mudler/LocalAI 3436, waybarrios/vllm-mlx 236): nothing was counted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.plugin.reported.wire import Answer, Json, chunk, counts, document, events, message, usage

TOOLS = [{"type": "function", "function": {"name": "get_order", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize("prompt", [0, 5], ids=["no count", "one count for all"])
def test_a_gate_with_tools_is_judged_where_counts_say_nothing(project: Any, prompt: int) -> None:
    def answer(body: Json) -> Answer:
        called = "order" in str(body["messages"])
        call = {"index": 0, "id": "a", "function": {"name": "get_order", "arguments": '{"order": 1300}'}}
        reply: Json = {"content": None, "tool_calls": [call]} if called else {"content": "Hello."}
        if not body.get("stream"):
            return document(message(reply, "tool_calls" if called else "stop", counts(prompt, 12)))
        return events(chunk(reply), chunk({}, "tool_calls" if called else "stop"), usage(prompt, 12))

    project.engine("base", answer)
    project.engine("cand", answer)
    case = {"messages": [{"role": "user", "content": "Where is order 1300?"}], "tools": TOOLS}
    project.prompts([{"id": f"q{place}", **case} for place in range(30)])
    project.gate("check.prompts()")

    project.run()

    [verdict] = project.verdicts("prompts")
    assert verdict["outcome"] != "SKIPPED", "the tools were not dropped: nobody can tell by such counts"
