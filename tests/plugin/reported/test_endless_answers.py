"""An answer far beyond what ``max_tokens`` can hold is a typed error, early, and no text that is judged.

A server that ignores ``max_tokens`` and goes on: https://github.com/ggml-org/llama.cpp/issues/25026.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.plugin.reported.wire import Answer, Json, chunk, events, plain, question

ENDLESS = {
    "goes-on": (40, "more than is read of an answer to this request"),
    "once": (1, "sent 50000 bytes of text, and max_tokens = 16 can hold 8192 at most"),
}
"""How many pieces of 50,000 bytes an engine sends, and what is told of it."""


def test_endless_text_is_an_error_and_not_an_answer(project: Any) -> None:
    ordinary = plain("The refund takes five days.")

    def running_on(pieces: int) -> Callable[[Json], Answer]:
        def answer(body: Json) -> Answer:
            if body.get("stream") and "number 3" in question(body):
                return events(*[chunk({"content": "again " * 8333 + "ag"})] * pieces, chunk({}, "stop"))
            return ordinary(body)

        return answer

    project.engine("base", ordinary)
    for name, (pieces, _) in ENDLESS.items():
        project.engine(name, running_on(pieces))
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
    assert {(row["engine"], row["case"], row["failure"]["kind"]) for row in failed} == {
        (name, "q3", "ProtocolError") for name in ENDLESS
    }
    assert all(ENDLESS[row["engine"]][1] in row["failure"]["message"] for row in failed)
