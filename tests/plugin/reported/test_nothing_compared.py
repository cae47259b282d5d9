"""Answers that say nothing, or call another tool, are no agreement.

A thinking model spends its whole token limit on reasoning (sipeed/picoclaw 966, OpenHands/software-agent-sdk 2419); two
engines call different tools (ROCm/FastFlowLM 559); a server counts no prompt token (mudler/LocalAI 3436) or calls the
end at the token limit a stop (mudler/LocalAI 3533, huggingface/transformers pull 42157).
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.plugin.reported.conftest import Project
from tests.plugin.reported.wire import Answer, Json, chunk, counts, document, events, message, plain, question, usage

LIKE = 29
"""As few as can show that 90 % of answers are alike."""
SEEN = "the token limit was reached in the reasoning of 29 answers of base and 29 of cand: raise max_tokens"


def asking(project: Project, n: int = LIKE, **more: object) -> None:
    project.prompts(
        [
            {"id": f"q{index}", "messages": [{"role": "user", "content": f"question {index}"}], **more}
            for index in range(n)
        ]
    )


def thinks(thought: str) -> Callable[[Json], Answer]:
    """An engine whose every answer is 64 tokens of reasoning."""

    def answer(body: Json) -> Answer:
        if not body.get("stream"):
            return document(message({"content": None, "reasoning_content": thought}, "length", counts(14, 64)))
        return events(chunk({"reasoning_content": thought}), chunk({}, "length"), usage(14, 64))

    return answer


def calls(name: str, order: int) -> Callable[[Json], Answer]:
    """An engine that calls a tool about every question."""

    def answer(body: Json) -> Answer:
        arguments = json.dumps({"order": order + int(question(body).split()[-1])}) if "question" in str(body) else "{}"
        call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
        if not body.get("stream"):
            return document(message({"content": None, "tool_calls": [call]}, "tool_calls", counts(30, 12)))
        return events(
            chunk({"role": "assistant", "tool_calls": [{"index": 0, **call}]}), chunk({}, "tool_calls"), usage(30, 12)
        )

    return answer


@pytest.mark.slow
def test_reasoning_that_ate_the_answers_is_no_agreement(project: Project) -> None:
    project.engine("base", thinks("The user wants to know about refunds."))
    project.engine("cand", thinks("banana banana banana banana banana"))
    asking(project)
    project.gate("check.text(margin=0.05), check.similarity(at_least=0.8)", marker="max_tokens=64")

    project.run()

    for kind in ("text", "similarity", "text.repeat"):
        [verdict] = project.verdicts(kind)
        assert verdict["outcome"] == "INCONCLUSIVE"
        assert verdict["n"] == 0
    for kind in ("text", "similarity"):
        assert project.verdicts(kind)[0]["message"].endswith(f"nothing was compared: {SEEN}")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "order"), [("cancel_order", 1300), ("refund_order", 1307)])
def test_another_tool_or_another_argument_is_a_difference(project: Project, name: str, order: int) -> None:
    project.engine("base", calls("refund_order", 1300))
    project.engine("cand", calls(name, order))
    tool = {"type": "function", "function": {"name": "refund_order", "parameters": {"type": "object"}}}
    asking(project, tools=[tool])
    project.gate("check.text(margin=0.05), check.similarity(at_least=0.9)")

    result = project.run()

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    for kind in ("text", "similarity"):
        [verdict] = project.verdicts(kind)
        assert (verdict["outcome"], len(verdict["differing"])) == ("FAIL", LIKE)
        assert verdict["differing"][3]["baseline_sha256"] != verdict["differing"][3]["candidate_sha256"]


@pytest.mark.slow
def test_one_that_calls_a_tool_and_one_that_speaks_differ(project: Project) -> None:
    project.engine("base", calls("refund_order", 1300))
    project.engine("cand", plain("I will refund your order."))
    asking(project)
    project.gate("check.similarity(at_least=0.1)")

    result = project.run()

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert project.verdicts("similarity")[0]["differing"][0]["what"] == "one calls a tool, the other does not"


def test_a_server_that_counts_zero_prompt_tokens_counts_nothing(project: Project) -> None:
    project.engine("base", plain("The refund takes five days."))
    project.engine("cand", plain("The refund takes five days.", prompt=0))
    asking(project, 8)
    project.gate("check.prompts()")

    result = project.run()

    assert result.ret == pytest.ExitCode.OK
    [verdict] = project.verdicts("prompts")
    assert (verdict["outcome"], verdict["message"]) == (
        "INCONCLUSIVE",
        "INCONCLUSIVE prompts, cand against base: cand did not say how many tokens each prompt has",
    )


def test_a_stop_at_the_token_limit_is_a_cut(project: Project) -> None:
    words = [f"word{index}" for index in range(16)]

    def engine(finish: str, held_back: int) -> Callable[[Json], Answer]:
        def answer(body: Json) -> Answer:
            limit = int(body.get("max_tokens") or 16)
            shown = words[: min(limit, 16) - held_back]
            if not body.get("stream"):
                return document(message({"content": " ".join(shown)}, finish, counts(12, limit)))
            pieces = [chunk({"content": f"{' ' if index else ''}{word}"}) for index, word in enumerate(shown)]
            return events(*pieces, chunk({}, finish), usage(12, limit))

        return answer

    project.engine("base", engine("length", 0))
    project.engine("cand", engine("stop", 1))
    asking(project, 8)
    project.gate("check.text(margin=0.05)", marker="max_tokens=16")

    result = project.run()

    assert result.ret == pytest.ExitCode.OK
    [verdict] = project.verdicts("text")
    assert (verdict["outcome"], verdict["differing"]) == ("PASS", [])
    assert "finish reason: differs on 8 of 8 prompts, mostly length on base, stop on cand (8)" in verdict["differs"]
