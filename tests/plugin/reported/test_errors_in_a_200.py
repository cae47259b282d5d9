"""A front end has said 200 when the engine behind it refuses (lemonade-sdk/lemonade 2826): the refusal is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.plugin.reported.wire import Answer, Json, chunk, document, events, plain, question

REFUSAL = {
    "error": {
        "code": 400,
        "message": "request (6009 tokens) exceeds the available context size (4096 tokens)",
        "type": "exceed_context_size_error",
    }
}
WORDS = json.dumps(REFUSAL).encode()
STREAMS = {
    "a line without data:": events(WORDS + b"\n", done=False),
    "an event of that kind": events(b"event: error\ndata: " + WORDS + b"\n\n", done=False),
    "after some chunks, with a proper end": events(chunk({"content": "The"}), WORDS + b"\n"),
    "a whole document": document({"detail": json.dumps(REFUSAL)}),
    "plain words": events(b"Error: " + REFUSAL["error"]["message"].encode() + b"\n", done=False),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_context_refusal_in_a_200_fails_the_prompts_check(project: Any, stream: Answer) -> None:
    ordinary = plain("The refund takes five days.")

    def refuses_one(body: Json) -> Answer:
        return stream if question(body) == "question 7" else ordinary(body)

    project.engine("base", ordinary)
    cand = project.engine("cand", refuses_one)
    project.prompts([{"id": f"q{i}", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(20)])
    project.gate("check.prompts()")

    result = project.run()

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    [verdict] = project.verdicts("prompts")
    assert verdict["outcome"] == "FAIL"
    assert "refused 1 prompt" in json.dumps(verdict)
    assert sum(question(asked.body) == "question 7" for asked in cand.asked) == 1, "asked again in vain"
