"""Reasoning that is counted and not sent (sgl-project/genai-bench 81, duolahypercho/codex-router 625) takes no time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.plugin.reported.wire import Answer, Json, chunk, counts, document, events, message, usage

WORDS = ("Refunds", "take", "five", "working", "days", "after", "the", "parcel", "came", "back.")


def thinks(hidden: int, *, told: bool = True) -> Callable[[Json], Answer]:
    """Return an engine that counts so many tokens it never sends, ``told`` by their own count or not."""
    details: Json = {"completion_tokens_details": {"reasoning_tokens": hidden}} if told else {}
    made = len(WORDS) + hidden

    def answer(body: Json) -> Answer:
        if not body.get("stream"):
            return document(message({"content": " ".join(WORDS)}, use=counts(12, made, **details)))
        paced = [piece for word in WORDS for piece in (0.01, *events(chunk({"content": word}), done=False).pieces)]
        return Answer([*paced, *events(chunk({}, "stop"), usage(12, made, **details)).pieces])

    return answer


@pytest.mark.slow
def test_time_per_token_is_that_of_the_tokens_that_came(project: Any) -> None:
    project.engine("base", thinks(0))
    project.engine("told", thinks(100))
    project.engine("untold", thinks(100, told=False))
    project.prompts([{"id": f"q{i}", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(8)])
    project.gate("check.latency(tpot_p50='2ms', n=32)")

    project.run()

    verdicts = {verdict["engine"]: verdict for verdict in project.verdicts("latency.tpot_p50")}
    outcomes = {name: verdict["outcome"] for name, verdict in verdicts.items()}
    assert outcomes == {"base": "FAIL", "told": "FAIL", "untold": "INCONCLUSIVE"}
    shown = {row["engine"] for row in project.report()["latency"] if row["metric"] == "tpot"}
    assert shown == {"base", "told"}
    assert "32 of 32 answers of untold came in other numbers of events than of tokens" in verdicts["untold"]["message"]
