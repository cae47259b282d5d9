from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.tools import ToolsCheck
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import Evidence
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
    assert trigger.details[1] == (
        "15 of 60 answers of cand call where they should not, or do not where they should; first: c20: calls no tool"
    )
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
        .startswith("10 of 40 answers of cand have faulty calls, or none where they should; first: c30: invalid JSON: ")
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
    assert agree.differing[-1].what == "base makes 1 call, cand none"
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


def evidence_of(make: Factory, ours: Sequence[Answer], theirs: Sequence[Answer], cases: Sequence[Case]) -> Evidence:
    return make.evidence(make.engine("base", ours), make.engine("cand", theirs), cases=cases)


@pytest.mark.parametrize("field", ["citty", "$.town", '$["Country"]'])
def test_a_field_that_no_tool_has_is_refused(make: Factory, field: str) -> None:
    cases = tuple(make.case(i, tools=TOOLS[:1]) for i in range(FEW))
    problem = check.tools(agree=0.9, arguments=["city", field]).prompt_problem(PromptSet(name="set", cases=cases))

    assert f"no tool has a parameter {field!r}, only city" in str(problem)


def test_a_field_that_no_call_has_was_not_compared(make: Factory) -> None:
    alike = judge(make, check.tools(agree=0.9, arguments=["$.city", "unit"]), [call()] * FEW)["tools.agree", "cand"]
    other = [call(arguments='{"city": "Oslo"}')] * FEW
    differs = judge(make, check.tools(agree=0.9, arguments=["$.city", "unit"]), other)["tools.agree", "cand"]

    assert alike.outcome is Outcome.INCONCLUSIVE
    assert "no call of either engine has unit" in alike.message
    assert "there to be compared: unit in 0, $.city in 80 of 80 calls" in alike.details
    assert differs.outcome is Outcome.FAIL


def test_a_call_in_the_text_is_one_where_none_should_be(make: Factory) -> None:
    text: list[Answer] = ['<tool_call>{"name": "weather"}</tool_call>'] * FEW
    trigger = judge(make, check.tools(trigger=0.9), text, ours=["No."] * FEW, tools=["none"] * FEW)

    assert trigger["tools.trigger", "base"].outcome is Outcome.PASS
    assert trigger["tools.trigger", "cand"].outcome is Outcome.FAIL
    assert trigger["tools.trigger", "cand"].differing[0].what.startswith("calls a tool in its text (markup left in ")


@pytest.mark.parametrize("limit", ["trigger", "names", "rate"])
def test_an_answer_that_was_cut_before_anything_counts_neither_way(make: Factory, limit: str) -> None:
    cut = make.cut("", reasoning="hm")
    limits: dict[str, Any] = {limit: 0.9}
    none = judge(make, check.tools(**limits), [cut] * FEW)[f"tools.{limit}", "cand"]
    verdict = judge(make, check.tools(**limits), [*[call()] * FEW, cut])[f"tools.{limit}", "cand"]

    assert none.outcome is Outcome.INCONCLUSIVE
    assert "the token limit was reached in the reasoning of 40 answers of cand" in none.message
    assert (verdict.outcome, verdict.n) == (Outcome.PASS, FEW)
    assert verdict.details[-1].startswith("the token limit was reached in the reasoning of 1 answer of cand")


def test_words_where_a_call_should_be_are_a_fault(make: Factory) -> None:
    theirs: list[Answer] = [*[call()] * FEW, *["It is sunny."] * 20]
    rate = judge(make, check.tools(rate=0.95), theirs)["tools.rate", "cand"]
    free = judge(make, check.tools(rate=0.9), theirs, tools=["weather"] * FEW + ["none"] * 20)["tools.rate", "cand"]

    assert rate.outcome is Outcome.FAIL
    assert rate.details[0] == "of 60 answers of cand: no call 20"
    assert (free.outcome, free.n) == (Outcome.PASS, FEW)


def test_one_wrong_answer_is_told_in_the_singular(make: Factory) -> None:
    theirs: list[Answer] = [*[call()] * FEW, "It is sunny."]
    verdicts = judge(make, check.tools(**EVERYTHING), theirs)

    assert verdicts["tools.trigger", "cand"].details[1].startswith("1 of 41 answers of cand calls where it should not")
    assert verdicts["tools.names", "cand"].details[0].startswith("1 of 41 answers of cand does not call the right tool")
    assert verdicts["tools.rate", "cand"].details[1].startswith("1 of 41 answers of cand has a faulty call, or none")
    assert verdicts["tools.agree", "cand"].details[1].startswith("1 calls otherwise")


def test_a_tag_counts_the_prompts_that_a_limit_is_about(make: Factory) -> None:
    tagged = [make.case(i, tools=TOOLS, expect=Expect(tool="weather"), tags=("call",)) for i in range(FEW)]
    more = [make.case(FEW + i, tools=TOOLS, expect=Expect(tool="none"), tags=("none",)) for i in range(FEW)]
    chat = [make.case(2 * FEW + i, tags=("chat",)) for i in range(FEW)]
    answers: list[Answer] = [*[call()] * FEW, *["Hi."] * 2 * FEW]
    evidence = evidence_of(make, answers, answers, [*tagged, *more, *chat])
    verdicts = check.tools(**EVERYTHING, by="tag").judge(evidence)

    assert not [verdict for verdict in verdicts if verdict.outcome is Outcome.ERROR]
    assert {verdict.tag for verdict in verdicts if verdict.kind.startswith("tools.trigger")} == {"", "call", "none"}
    assert {verdict.tag for verdict in verdicts if verdict.kind.startswith("tools.names")} == {""}
    assert not [verdict for verdict in verdicts if verdict.tag == "chat"]
    alone = PromptSet(name="set", cases=(*tagged, *chat))
    assert "every prompt has the same tags" in str(check.tools(names=0.9, by="tag").tag_problem(alone))


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("trigger", "says whether a tool is to be called"),
        ("names", "names the tool that is to be called"),
        ("rate", "offers tools"),
        ("agree", "offers tools"),
    ],
)
def test_a_sequential_run_goes_on_until_there_is_something_to_judge(make: Factory, limit: str, words: str) -> None:
    cases = [*(make.case(i) for i in range(32)), *(make.case(32 + i, tools=TOOLS) for i in range(100))]
    limits: dict[str, Any] = {limit: 0.95}
    checked = check.tools(**limits)

    def looked(asked: int, cases: Sequence[Case]) -> Verdict:
        engines = [make.engine(name, ["Hi."] * asked) for name in ("base", "cand")]
        return checked.judge(make.evidence(*engines, cases=cases, sequential=True))[-1]

    first = looked(32, cases)
    assert (first.outcome, first.open) == (Outcome.INCONCLUSIVE, True)
    assert f"no prompt that was asked {words}" in first.message
    assert not looked(32, cases[:32]).open
    if limit in ("rate", "agree"):
        assert (looked(64, cases).outcome, looked(64, cases).open) == (Outcome.INCONCLUSIVE, True)
        assert not looked(132, cases).open
