from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pytest_llmparity import check
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import Evidence
from pytest_llmparity.core.prompts import Expect
from pytest_llmparity.core.sample import Completion, Stopped, ToolCall
from pytest_llmparity.core.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from tests.core.conftest import Factory

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = tuple(
    {"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in ("weather", "time")
)
FEW = 40


def call(name: str = "weather", city: str = "Rome", arguments: str | None = None, **fields: Any) -> Completion:
    text = f'{{"city": "{city}"}}' if arguments is None else arguments
    called = (ToolCall(name=name, arguments=text),)
    return Completion(text="", finish_reason="tool_calls", tool_calls=called, **fields)


def words(text: str = "Sunny.", finish: str = "stop") -> Completion:
    return Completion(text=text, finish_reason=finish)


def talk(*turns: Completion, stopped: Stopped | None = None) -> Completion:
    return msgspec.structs.replace(turns[-1], turns=turns[:-1], stopped=stopped)


SAME = talk(call(), call("time"), words())
ENDLESS = Stopped(kind="no end", words="it still calls time after 2 turns")
UNKNOWN = Stopped(kind="no result", words='nothing is scripted for time({"city": "Rome"})')


def evidence_of(make: Factory, theirs: Sequence[Completion]) -> Evidence:
    cases = [
        make.case(i, tools=TOOLS, tool_results={"weather": 1, "time": 2}, max_turns=4, expect=Expect(tool="weather"))
        for i in range(len(theirs))
    ]
    return make.evidence(make.engine("base", [SAME] * len(theirs)), make.engine("cand", theirs), cases=cases)


def judge(make: Factory, theirs: Completion, **given: Any) -> dict[tuple[str, str], Verdict]:
    checked = check.tools(**{"agree": 0.9, **given})
    verdicts = checked.judge(evidence_of(make, [theirs] * FEW))
    return {(verdict.kind, verdict.engine): verdict for verdict in verdicts}


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (talk(call(city="Oslo"), call("time"), words()), "turn 1: $.city of weather"),
        (talk(call(), call(), words()), "turn 2: base calls time, cand weather"),
        (talk(call(), words()), "turn 2: base makes 1 call, cand none"),
        (talk(call(), call("time"), call("time"), words()), "turn 3: base makes none, cand 1 call"),
        (talk(call(), call("time"), stopped=UNKNOWN), f"turn 2: cand ends: {UNKNOWN.words}"),
        (talk(call(), call("time"), words("Rain.")), "turn 3: base answers 'Sunny.', cand 'Rain.'"),
    ],
)
def test_the_first_turn_that_differs_is_told(make: Factory, other: Completion, why: str) -> None:
    verdict = judge(make, other)["tools.agree", "cand"]

    assert verdict.outcome is Outcome.FAIL
    assert {difference.what for difference in verdict.differing} == {why}
    turn = why.partition(":")[0].removeprefix("turn ")
    assert f"parting first: {FEW} in turn {turn}" in verdict.details


@pytest.mark.parametrize(
    ("other", "given"),
    [
        (SAME, {}),
        (talk(call(), call("time"), words("  Sunny.\n")), {}),
        (talk(call(), call("time"), words("Rain.")), {"last": "any"}),
        (talk(call(), call("time", city="Oslo"), words()), {"arguments": "fits"}),
    ],
)
def test_conversations_that_go_the_same_way_agree(make: Factory, other: Completion, given: dict[str, Any]) -> None:
    verdict = judge(make, other, **given)["tools.agree", "cand"]

    assert verdict.outcome is Outcome.PASS
    assert f"turns on average: base 3.0 and cand 3.0 in {FEW} conversations" in verdict.details


def test_a_turn_that_the_token_limit_cut_says_nothing(make: Factory) -> None:
    cut = talk(call(), call("time", arguments='{"city": "Ro', max_tokens=8, completion_tokens=8))

    verdicts = judge(make, cut, trigger=0.9, names=0.9, rate=0.9)

    for kind in ("tools.agree", "tools.rate"):
        assert verdicts[kind, "cand"].outcome is Outcome.INCONCLUSIVE
        assert any("the token limit was reached in a tool call" in line for line in verdicts[kind, "cand"].details)
    for kind in ("tools.trigger", "tools.names"):  # which the first turn has shown
        assert verdicts[kind, "cand"].outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("other", "fault", "words_of"),
    [
        (talk(call(), call("time"), stopped=ENDLESS), "no end", f"turn 2: {ENDLESS.words}"),
        (talk(call(), call("time"), stopped=UNKNOWN), "no result", f"turn 2: {UNKNOWN.words}"),
        (talk(call(), call("time", arguments="{}"), words()), "schema mismatch", "turn 2: arguments of time: "),
        (talk(call(), call("tim"), stopped=UNKNOWN), "unknown name", "turn 2: tim is none of weather, time"),
        (talk(call(), words('<tool_call>{"name": "time"}')), "markup left in the text", "turn 2: "),
    ],
)
def test_a_fault_names_its_turn(make: Factory, other: Completion, fault: str, words_of: str) -> None:
    verdicts = judge(make, other, rate=0.9, trigger=0.9, names=0.9)

    rate = verdicts["tools.rate", "cand"]
    assert rate.outcome is Outcome.FAIL
    assert rate.differing[0].what.startswith(f"{fault}: {words_of}")
    assert f"of {FEW} answers of cand: {fault} {FEW}" in rate.details
    assert verdicts["tools.trigger", "cand"].outcome is Outcome.PASS  # it calls, where it should
    assert verdicts["tools.names", "cand"].outcome is Outcome.PASS


def test_another_word_for_the_last_answer_is_told() -> None:
    with pytest.raises(DesignError, match='last is "equal" or "any"'):
        check.tools(agree=0.9, last="same")  # type: ignore[arg-type]


def test_reasoning_is_that_of_all_turns(make: Factory) -> None:
    thinking = talk(call(reasoning="Hm.", reasoning_tokens=40), call("time", reasoning_tokens=30), words())
    evidence = evidence_of(make, [thinking] * FEW)

    verdicts = check.reasoning(present=True, most_tokens=60, rate=0.9).judge(evidence)

    of_candidate = {verdict.kind: verdict for verdict in verdicts if verdict.engine == "cand"}
    assert of_candidate["reasoning.present"].outcome is Outcome.PASS
    assert of_candidate["reasoning.tokens"].outcome is Outcome.FAIL
    assert "for 70 tokens" in of_candidate["reasoning.tokens"].differing[0].what


def test_conversations_that_both_end_without_a_word_agree_in_what_they_called(make: Factory) -> None:
    silent = Stopped(kind="no words", words="it was given the results and said nothing")
    wordless = talk(call(), words(""), stopped=silent)
    cases = [make.case(i, tools=TOOLS, tool_results={"weather": 1}, max_turns=4) for i in range(FEW)]
    both = make.evidence(make.engine("base", [wordless] * FEW), make.engine("cand", [wordless] * FEW), cases=cases)

    (same,) = check.tools(agree=0.9, last="any").judge(both)
    other = judge(make, wordless)["tools.agree", "cand"]

    assert same.outcome is Outcome.PASS
    assert f"cand ended without an answer: no words {FEW}" in same.details
    assert other.outcome is Outcome.FAIL
    assert other.differing[0].what == "turn 2: base makes 1 call, cand none"
