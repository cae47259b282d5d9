"""How much engines reason, as a person writes it into a marker or a prompt and sees what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.testing import Reply

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

GATE = "check.reasoning(present=False, rate=0.5)"


def obeying(request: dict[str, Any]) -> Reply:
    return Reply(text="Yes.", reasoning="" if request.get("reasoning_effort") == "none" else "Let me think.")


def ignoring(request: dict[str, Any]) -> Reply:
    return Reply(text="Yes.", reasoning="Let me think.")


def test_every_engine_is_told_and_one_that_ignores_it_is_named(bench: Bench) -> None:
    bench.gate(f"{GATE}, reasoning_effort='none'")
    engines = [bench.engine(obeying), bench.engine(ignoring)]

    result = bench.run("--parity-report=json", engines=engines)

    outcomes = {verdict["engine"]: verdict["outcome"] for verdict in bench.report(".llmparity/report")["verdicts"]}
    assert outcomes == {"a": "PASS", "b": "FAIL"}
    lines = " ".join(result.stdout.str().split())
    assert "b ignores reasoning_effort, though prompts of this run say it: neither the prompt nor the first" in lines
    assert "a ignores" not in lines
    for engine in engines:
        asked = [body for body in bench.asked(engine) if body["messages"][0]["content"].startswith("question")]
        assert asked
        assert {body["reasoning_effort"] for body in asked} == {"none"}


def test_what_a_prompt_says_wins_over_the_marker(bench: Bench) -> None:
    bench.prompts(chat_template_kwargs={"enable_thinking": False})
    bench.gate("check.prompts(), chat_template_kwargs={'enable_thinking': True}, reasoning_effort='low'")
    engine = bench.engine(obeying)

    bench.run(engines=[engine, bench.engine(obeying)])

    asked = [body for body in bench.asked(engine) if body["messages"][0]["content"].startswith("question")]
    assert {body["chat_template_kwargs"]["enable_thinking"] for body in asked} == {False}
    assert {body["reasoning_effort"] for body in asked} == {"low"}


@pytest.mark.parametrize(
    ("row", "more", "words"),
    [
        ({}, "reasoning_effort=3", "reasoning_effort of the parity marker is a word such as 'none', 'low' or 'high'"),
        ({}, "chat_template_kwargs='off'", "chat_template_kwargs of the parity marker is a dictionary such as"),
        ({}, "chat_template_kwargs={'x': {1}}", "chat_template_kwargs of the parity marker: Object of type set"),
        (
            {"extra_body": {"reasoning_effort": "low"}},
            "reasoning_effort='low'",
            "the prompt case-0 has it in its extra_body too; say it once",
        ),
        (
            {"extra_body": {"reasoning_effort": "low"}, "reasoning_effort": "low"},
            "max_tokens=9",
            "has reasoning_effort and has it in extra_body too; say it once",
        ),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anybody_is_asked(
    bench: Bench, row: dict[str, Any], more: str, words: str
) -> None:
    bench.prompts(**row)
    bench.gate(f"{GATE}, {more}", tokens=8) if "max_tokens" not in more else bench.gate(GATE)
    engine = bench.engine(obeying)

    result = bench.run(engines=[engine])

    assert words in " ".join(result.stdout.str().split())
    assert not bench.asked(engine)


def test_a_raw_prompt_takes_neither(bench: Bench) -> None:
    bench.gate(f"{GATE}, reasoning_effort='low'")
    (bench.pytester.path / "prompts.jsonl").write_text('{"id": "raw", "prompt": "Once"}\n' * 1)
    engine = bench.engine(obeying)

    result = bench.run(engines=[engine])

    assert "the prompt raw is raw, and no chat template reads it" in " ".join(result.stdout.str().split())
