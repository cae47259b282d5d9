"""An answer far beyond what ``max_tokens`` can hold is a typed error, early, and no text that is judged.

A server that ignores ``max_tokens`` and goes on: https://github.com/ggml-org/llama.cpp/issues/25026.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.plugin.reported.wire import Answer, Json, chunk, events, plain, question


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (40, "more than is read of an answer to this request"),
        (1, "sent 50000 bytes of text, and max_tokens = 16 can hold 8192 at most"),
    ],
)
def test_endless_text_is_an_error_and_not_an_answer(project: Any, pieces: int, text: str) -> None:
    ordinary = plain("The refund takes five days.")

    def runs_on(body: Json) -> Answer:
        if body.get("stream") and "number 3" in question(body):
            return events(*[chunk({"content": "again " * 8333 + "ag"})] * pieces, chunk({}, "stop"))
        return ordinary(body)

    project.engine("base", ordinary)
    project.engine("cand", runs_on)
    project.prompts(
        [
            {
                "id": f"q{n}",
                "messages": [{"role": "user", "content": f"Question number {n}"}],
                "sampling": {"max_tokens": 16},
            }
            for n in range(4)
        ]
    )
    project.gate("check.prompts()")

    project.run()

    rows = [
        json.loads(line) for line in (project.pytester.path / "out" / "samples.jsonl").read_text("utf-8").splitlines()
    ]
    failed = [row for row in rows if row["failure"]]
    assert {(row["engine"], row["case"], row["failure"]["kind"]) for row in failed} == {("cand", "q3", "ProtocolError")}
    assert all(text in row["failure"]["message"] for row in failed)
