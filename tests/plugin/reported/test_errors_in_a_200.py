"""A front end has said 200 when the engine behind it refuses (lemonade-sdk/lemonade 2826): the refusal is read."""

from __future__ import annotations

import json
from collections.abc import Callable
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


def test_a_context_refusal_in_a_200_fails_the_prompts_check(project: Any) -> None:
    ordinary = plain("The refund takes five days.")

    def refusing_one(stream: Answer) -> Callable[[Json], Answer]:
        return lambda body: stream if question(body) == "question 7" else ordinary(body)

    project.engine("base", ordinary)
    servers = {f"cand-{place}": refusing_one(stream) for place, stream in enumerate(STREAMS.values())}
    candidates = {name: project.engine(name, answer) for name, answer in servers.items()}
    project.prompts([{"id": f"q{i}", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(20)])
    project.gate("check.prompts()")

    result = project.run()

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    verdicts = {verdict["engine"]: verdict for verdict in project.verdicts("prompts")}
    for stream, (name, candidate) in zip(STREAMS, candidates.items(), strict=True):
        assert verdicts[name]["outcome"] == "FAIL", stream
        assert "refused 1 prompt" in json.dumps(verdicts[name]), stream
        asked = sum(question(asked.body) == "question 7" for asked in candidate.asked)
        assert asked == 1, f"{stream}: asked again in vain"
