from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.tools import ToolsCheck
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.prompts import Case, Expect, PromptSet
from pytest_llmparity.core.sample import Completion, ToolCall
from pytest_llmparity.core.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from tests.core.conftest import Answer, Factory

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = (
    {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}},
)
FEW = 40


def call(name: str = "weather", arguments: str = '{"city": "Rome"}') -> Completion:
    return Completion(text="", finish_reason="tool_calls", tool_calls=(ToolCall(name=name, arguments=arguments),))


def judge(
    make: Factory,
    checked: ToolsCheck,
    theirs: Sequence[Answer],
    ours: Sequence[Answer] | None = None,
    tools: Sequence[str] | None = None,
) -> dict[tuple[str, str], Verdict]:
    expected = ["weather"] * len(theirs) if tools is None else tools
    cases = [make.case(i, tools=TOOLS, expect=Expect(tool=tool)) for i, tool in enumerate(expected)]
    baseline = make.engine("base", [call()] * len(theirs) if ours is None else ours)
    evidence = make.evidence(baseline, make.engine("cand", theirs), cases=cases)
    return {(verdict.kind, verdict.engine): verdict for verdict in checked.judge(evidence)}


EVERYTHING: dict[str, Any] = {"trigger": 0.9, "names": 0.9, "rate": 0.9, "agree": 0.9}


def test_right_calls_pass_every_limit(make: Factory) -> None:
    verdicts = judge(make, check.tools(**EVERYTHING), [call(arguments='{"city":"Rome"}')] * FEW)

    assert list(verdicts) == [
        ("tools.trigger", "base"),
        ("tools.trigger", "cand"),
        ("tools.names", "base"),
        ("tools.names", "cand"),
        ("tools.rate", "base"),
        ("tools.rate", "cand"),
        ("tools.agree", "cand"),
    ]
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.PASS}
    trigger = verdicts["tools.trigger", "cand"]
    assert trigger.details[0] == (
        "calls where it should: precision 100 % (at least 92.78 %, 40 of 40), "
        "recall 100 % (at least 92.78 %, 40 of 40), F1 1.000"
    )
    assert verdicts["tools.agree", "cand"].details[0] == "calls a tool: base in 40 and cand in 40 of 40 answers"


def test_calls_that_do_not_come_and_calls_too_many_are_wrong(make: Factory) -> None:
    theirs: list[Answer] = [*[call()] * 20, *["It is sunny."] * 10, *[call()] * 5, *["Hello!"] * 25]
    tools = ["weather"] * 30 + ["none"] * 30
    trigger = judge(make, check.tools(trigger=0.9), theirs, tools=tools)["tools.trigger", "cand"]

    assert trigger.outcome is Outcome.FAIL
    assert trigger.estimate == pytest.approx(45 / 60)
    assert trigger.details[0].startswith("calls where it should: precision 80 % (at least ")
    assert "recall 66.67 %" in trigger.details[0]
    assert trigger.details[0].endswith("F1 0.727")
    assert trigger.details[1] == "15 of 60 answers of cand are wrong in this; first: c20: calls no tool"
    assert trigger.differing[-1].what == "calls weather"


def test_faults_are_counted_by_class(make: Factory) -> None:
    theirs: list[Answer] = [
        *[call()] * 30,
        *[call(arguments="{")] * 4,
        *[call(name="forecast")] * 3,
        *[call(arguments="{}")] * 2,
        '<tool_call>{"name": "weather"}</tool_call>',
    ]
    verdicts = judge(make, check.tools(rate=0.9, names=0.9), theirs)

    assert verdicts["tools.rate", "cand"].outcome is Outcome.FAIL
    assert verdicts["tools.rate", "cand"].details[0] == (
        "of 40 answers of cand: invalid JSON 4, unknown name 3, schema mismatch 2, markup left in the text 1"
    )
    assert (
        verdicts["tools.rate", "cand"]
        .details[1]
        .startswith("10 of 40 answers of cand have faulty calls; first: c30: invalid JSON: arguments of weather: ")
    )
    assert verdicts["tools.names", "cand"].estimate == pytest.approx(36 / 40)


def test_who_never_calls_has_shown_nothing_of_its_calls(make: Factory) -> None:
    words: list[Answer] = ["Hello!"] * FEW
    verdicts = judge(make, check.tools(rate=0.9, agree=0.9), words, ours=words, tools=["none"] * FEW)

    assert verdicts["tools.rate", "cand"].outcome is Outcome.INCONCLUSIVE
    agree = verdicts["tools.agree", "cand"]
    assert agree.outcome is Outcome.INCONCLUSIVE
    assert "neither engine called a tool in 40 answers: no call was compared" in agree.message


def test_calls_that_differ_are_shown(make: Factory) -> None:
    theirs: list[Answer] = [*[call()] * 28, *[call(arguments='{"city": "Oslo"}')] * 10, *["It is sunny."] * 2]
    agree = judge(make, check.tools(agree=0.9), theirs)["tools.agree", "cand"]
    fits = judge(make, check.tools(agree=0.9, arguments="fits"), theirs)["tools.agree", "cand"]

    assert agree.outcome is Outcome.FAIL
    assert agree.details[:2] == (
        "calls a tool: base in 40 and cand in 38 of 40 answers",
        "12 call otherwise; first: c28: $.city of weather",
    )
    assert agree.differing[-1].what == "1 call and no call"
    assert agree.differing[0].baseline_sha256 != agree.differing[0].candidate_sha256
    assert fits.estimate == pytest.approx(38 / 40)


def test_no_answer_is_wrong_and_a_cut_call_says_nothing(make: Factory) -> None:
    cut = make.cut("", tool_calls=(ToolCall(name="weather", arguments='{"ci'),))
    theirs: list[Answer] = [*[call()] * 36, *[make.failure()] * 2, *[cut] * 2]
    verdicts = judge(make, check.tools(rate=0.8, agree=0.8), theirs)

    assert verdicts["tools.rate", "cand"].estimate == pytest.approx(36 / 38)
    assert (
        "the token limit was reached in a tool call of 2 answers of cand" in verdicts["tools.rate", "cand"].details[-1]
    )
    assert verdicts["tools.agree", "cand"].differing[-1].what == "no answer of cand"


def test_prompts_that_say_too_little_are_refused(make: Factory) -> None:
    def prompts(*cases: Case) -> PromptSet:
        return PromptSet(name="set", cases=cases)

    bare = prompts(*(make.case(i, tools=TOOLS) for i in range(FEW)))
    none = prompts(*(make.case(i) for i in range(FEW)))
    broken = prompts(
        *(make.case(i, tools=({"function": {"name": "f", "parameters": {"type": 3}}},)) for i in range(60))
    )

    assert check.tools(agree=0.9).prompt_problem(bare) is None
    assert "takes at least 29 prompts that say whether a tool is to be called" in str(
        check.tools(trigger=0.9).prompt_problem(bare)
    )
    assert "takes at least 29 prompts that name the tool" in str(check.tools(names=0.9).prompt_problem(bare))
    assert "prompts that offer tools, even if every answer is right, and there are 0" in str(
        check.tools(agree=0.9).prompt_problem(none)
    )
    assert "c0: the parameters of f is not a usable JSON Schema" in str(check.tools(agree=0.9).prompt_problem(broken))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, r"tools\(\) needs at least one limit"),
        ({"trigger": 2}, "trigger is a share"),
        ({"agree": 0.9, "arguments": "same"}, '"equal", "fits" or a list of fields'),
        ({"agree": 0.9, "arguments": []}, "fields are names of arguments"),
        ({"agree": 0.9, "arguments": [1]}, "fields are names of arguments"),
        ({"agree": 0.9, "order": "first"}, 'order is "any" or "same"'),
        ({"agree": 0.9, "by": "x"}, 'by must be "tag"'),
    ],
)
def test_wrong_arguments_are_told(given: dict[str, Any], words: str) -> None:
    with pytest.raises(DesignError, match=words):
        check.tools(**given)


def test_a_check_is_written_as_it_was_made() -> None:
    assert str(check.tools(trigger=0.9, agree=0.9, arguments=["city"], order="same", by="tag")) == (
        "tools(trigger=0.9, agree=0.9, arguments=['city'], order='same', by=\"tag\")"
    )
    assert check.tools(agree=0.9).pairwise
    assert not check.tools(agree=0.9, trigger=0.9).pairwise


def test_tags_are_judged_by_themselves(make: Factory) -> None:
    cases = [make.case(i, tools=TOOLS, tags=("long" if i < FEW else "short",)) for i in range(2 * FEW)]
    ours = make.engine("base", [call()] * 2 * FEW)
    theirs = make.engine("cand", [call(name="time", arguments="{}")] * 12 + [call()] * (2 * FEW - 12))
    verdicts = check.tools(agree=0.9, by="tag").judge(make.evidence(ours, theirs, cases=cases))

    assert [(verdict.kind, str(verdict.outcome)) for verdict in verdicts] == [
        ("tools.agree", "INCONCLUSIVE"),
        ("tools.agree[long]", "FAIL"),
        ("tools.agree[short]", "PASS"),
    ]
