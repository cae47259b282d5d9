"""Prompt files that are sent as they are written.

PyYAML reads 02142 as 1122 (yaml/pyyaml 107, opensanctions/opensanctions 3845); an assistant's turn that calls tools has
no content, which one engine takes and another refuses (pydantic/pydantic-ai 5206, vllm-project/vllm 21089).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.plugin.reported.wire import Answer, Json, document, plain, question

YAML = """
- {id: zip, vars: {it: 02142}, messages: [{role: user, content: "The town of {it}?"}]}
- {id: version, vars: {it: 3.10}, messages: [{role: user, content: "New in Python {it}?"}]}
- {id: time, vars: {it: 12:30}, messages: [{role: user, content: "Open at {it}?"}]}
- {id: order, vars: {it: 1_000}, messages: [{role: user, content: "Where is order {it}?"}]}
- {id: country, vars: {it: no}, messages: [{role: user, content: "The capital of {it}?"}]}
- {id: bare, messages: [{role: user, content: 2026-03-01}]}
"""


def test_yaml_scalars_are_sent_as_they_stand(project: Any) -> None:
    server = project.engine("base", plain(question))
    project.engine("cand", plain(question))
    project.write("prompts.yaml", YAML)
    project.write(
        "test_gate.py",
        "import pytest\nfrom pytest_llmparity import check\n\n"
        '@pytest.mark.parity("prompts.yaml", check.prompts())\ndef test_gate(parity_run): ...\n',
    )

    result = project.run()

    assert result.ret == pytest.ExitCode.OK
    sent = {question(asked.body) for asked in server.asked if asked.method == "POST"}
    assert {
        "The town of 02142?",
        "New in Python 3.10?",
        "Open at 12:30?",
        "Where is order 1_000?",
        "The capital of no?",
        "2026-03-01",
    } <= sent


CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Lisbon"}'}}
ROWS: list[Json] = [
    {
        "id": "turn-3",
        "messages": [
            {"role": "user", "content": "Weather in Lisbon?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": '{"degrees": 18}'}]},
        ],
    },
    {"id": "rules", "messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}]},
    *({"id": f"q{n}", "messages": [{"role": "user", "content": f"question {n}"}]} for n in range(3)),
]
ASK = f"""
import pytest

ROWS = {ROWS[:2]!r}

@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_on_the_spot(parity, row):
    asked = parity.ask(row["messages"], max_tokens=16)
    assert asked["base"].text
"""


def strict(body: Json) -> Answer:
    if any(message.get("content") is None for message in body["messages"]):
        words = "invalid message content type: <nil>"
        return document({"error": {"message": words, "type": "invalid_request_error", "code": None}}, 400)
    return plain("It is 18 degrees.")(body)


def test_a_logged_conversation_is_sent_as_it_was_and_the_engine_that_refuses_it_is_named(project: Any) -> None:
    base = project.engine("base", plain("It is 18 degrees."))
    project.engine("cand", strict)
    project.prompts(ROWS)
    project.gate("check.prompts()", 'assert parity_run["cand"]["turn-3"].text')
    project.write("test_ask.py", ASK)

    result = project.run()

    sent = [asked.body["messages"] for asked in base.asked if asked.method == "POST"]
    for row in ROWS[:2]:
        assert sent.count(row["messages"]) >= 2, "in the gate and on the spot"
    result.assert_outcomes(passed=2, failed=1)
    assert "invalid message content type" in json.dumps(project.report())
    result.stdout.fnmatch_lines(["*invalid message content type: <nil>*"])
