from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.tools.calls import CUT, NEITHER, UNREAD, Offered, Told, compare_calls
from pytest_llmparity.core.prompts import Case, Expect
from pytest_llmparity.core.sample import Completion, Stopped, ToolCall
from pytest_llmparity.core.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from tests.core.conftest import Factory

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOLS = tuple(
    {"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in ("weather", "time")
)
N = 64
ROME, OSLO, RO = '{"city": "Rome"}', '{"city": "Oslo"}', '{"city":"Ro'
MARKUP = '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'


def call(*arguments: str, names: Sequence[str] = (), cut: bool = False, **fields: Any) -> Completion:
    called = zip(names or ["weather"] * len(arguments), arguments, strict=True)
    return Completion(
        text="",
        finish_reason="length" if cut else "tool_calls",
        tool_calls=tuple(ToolCall(name=name, arguments=text) for name, text in called),
        **fields,
    )


def says(text: str, finish: str = "stop", **fields: Any) -> Completion:
    return Completion(text=text, finish_reason=finish, **fields)


def shown(ours: Completion, theirs: Completion, should: bool | None = None, **given: Any) -> Told:
    offered = Offered(Case(id="a", prompt="p", tools=TOOLS))
    given = {"arguments": "equal", "order": "any", **given}
    return compare_calls(
        (ours, theirs), (offered.read(ours), offered.read(theirs)), should=should, engines=("base", "cand"), **given
    )


@pytest.mark.parametrize("arguments", ["equal", "fits", ("city",)])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (call(RO, cut=True), call(RO, cut=True)),
        (call(RO, cut=True), call(ROME)),
        (call(ROME, RO, cut=True), call(ROME, ROME)),
        (call(ROME, cut=True), call(ROME, OSLO)),
        (call(ROME, cut=True), call(ROME)),
        (says("Let me see", "length"), call(ROME)),
        (says("Let me see", "length"), says("I think", "length")),
        (says("Let me see", "length"), says("It is sunny.")),
        (says("", "length"), call(ROME)),
        (call(RO, cut=True), says("", "length")),
    ],
)
@pytest.mark.parametrize("should", [True, False, None])
def test_what_a_token_limit_cut_is_neither_alike_nor_otherwise(
    ours: Completion, theirs: Completion, arguments: Any, should: bool | None
) -> None:
    assert shown(ours, theirs, should, arguments=arguments) == Told(unknown=CUT)
    assert shown(theirs, ours, should, arguments=arguments) == Told(unknown=CUT)


@pytest.mark.parametrize(
    ("ours", "theirs", "given", "why"),
    [
        (call(RO, cut=True), call(OSLO), {}, "arguments of weather, as far as they were written"),
        (call(RO, cut=True), call('{"city": "Par', cut=True), {}, "arguments of weather, as far as they were written"),
        (call(RO, names=["time"], cut=True), call(ROME), {}, "base calls time, cand weather"),
        (call(ROME, RO, cut=True), call(ROME), {}, "base makes 2 calls, cand 1 call"),
        (call(ROME, RO, cut=True), says("Sunny."), {}, "base makes 2 calls, cand none"),
        (call(ROME, RO, cut=True), call(OSLO, ROME), {"order": "same"}, "$.city of weather"),
        (call("{}", RO, cut=True), call(ROME, ROME), {"arguments": "fits"}, "base: schema mismatch: "),
    ],
)
def test_a_difference_that_nothing_undoes_is_one_though_the_limit_cut_the_rest(
    ours: Completion, theirs: Completion, given: dict[str, Any], why: str
) -> None:
    assert shown(ours, theirs, **given).why.startswith(why)
    assert shown(theirs, ours, **given).why


@pytest.mark.parametrize(
    ("ours", "theirs", "should", "unknown", "why"),
    [
        (says("Hi."), says("Hello."), None, NEITHER, ""),
        (says("Hi."), says("Hello."), True, NEITHER, ""),
        (says("Hi."), says("Hello."), False, "", ""),
        (says(MARKUP), says("I cannot do that."), None, "", "base calls in what nobody read (markup left in the text"),
        (says(MARKUP), says("I cannot do that."), False, "", "base calls in what nobody read (markup left in the text"),
        (says(MARKUP), says(MARKUP), None, UNREAD, ""),
        (says("", "tool_calls"), says("Hi."), None, "", "base calls in what nobody read (swallowed: "),
        (says("", completion_tokens=9), says("Hi."), False, "", "base says nothing (swallowed: "),
        (says("", "tool_calls"), says("", "tool_calls"), None, CUT, ""),
        (call('{"city": nope'), call('{"city": nope'), None, "", "arguments that are no JSON of weather"),
        (call(""), call(""), None, "", ""),
        (call(""), call("{}"), None, "", "arguments that are no JSON of weather"),
    ],
)
def test_two_answers_that_call_nothing_say_of_calls_what_stands_in_their_place(
    ours: Completion, theirs: Completion, should: bool | None, unknown: str, why: str
) -> None:
    there = shown(ours, theirs, should)
    assert (there.unknown, bool(there.why)) == (unknown, bool(why))
    assert there.why.startswith(why)


def judged(
    make: Factory, ours: Sequence[Completion], theirs: Sequence[Completion], given: Any = None, **row: Any
) -> Verdict:
    cases = [make.case(i, tools=TOOLS, **row) for i in range(len(ours))]
    checked = check.tools(**{"agree": 0.95, **(given or {})})
    evidence = make.evidence(make.engine("base", ours), make.engine("cand", theirs), cases=cases)
    return checked.judge(evidence)[-1]


def test_calls_that_the_limit_cut_do_not_fit(make: Factory) -> None:
    given = {"arguments": "fits"}
    verdict = judged(make, [call(RO, cut=True)] * N, [call('{"city": "Par', cut=True)] * N, given)

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert f"the token limit was reached in a tool call of {N} answers of base and {N} of cand" in verdict.message


def test_answers_cut_before_a_call_are_left_out_and_told(make: Factory) -> None:
    some = [call(ROME)] * 5
    verdict = judged(make, some + [says("I think", "length")] * 59, some + [says("Let me see", "length")] * 59)

    assert (verdict.outcome, verdict.n) == (Outcome.INCONCLUSIVE, 5)
    assert "it rests on 5 of 64 prompts" in verdict.message
    assert "the token limit was reached in the text of 59 answers of base and 59 of cand" in verdict.message


def test_prompts_in_which_neither_calls_say_nothing_of_calls(make: Factory) -> None:
    few = judged(make, [call(ROME)] * 5 + [says("Hi.")] * 59, [call(ROME)] * 5 + [says("Hello.")] * 59)
    many = judged(make, [call(ROME)] * N + [says("Hi.")] * 8, [call(ROME)] * N + [says("Hello.")] * 8)
    right = judged(
        make,
        [call(ROME)] * 5 + [says("Hi.")] * 59,
        [call(ROME)] * 5 + [says("Hello.")] * 59,
        expect=Expect(tool="none"),
    )

    assert (few.outcome, few.n) == (Outcome.INCONCLUSIVE, 5)
    assert (many.outcome, many.n) == (Outcome.PASS, N)
    assert any(remark.startswith("neither engine calls a tool in 8 prompts") for remark in many.remarks)
    assert (right.outcome, right.n) == (Outcome.PASS, N)


def test_a_call_in_the_text_beside_words_is_a_difference(make: Factory) -> None:
    verdict = judged(make, [call(ROME)] * 5 + [says(MARKUP)] * 59, [call(ROME)] * 5 + [says("No.")] * 59)

    assert verdict.outcome is Outcome.FAIL
    assert verdict.differing[0].what.startswith("base calls in what nobody read")


def test_calls_that_both_left_in_the_text_are_compared_with_nothing(make: Factory) -> None:
    verdict = judged(make, [call(ROME)] * N + [says(MARKUP)] * 9, [call(ROME)] * N + [says(MARKUP)] * 9)

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "no call was read in both answers to 9 prompts" in verdict.message


def test_a_field_that_few_calls_have_is_told_beside_a_pass(make: Factory) -> None:
    answers = [call('{"city": "Rome", "days": 1}')] * 4 + [call(ROME)] * 60
    verdict = judged(make, answers, answers, {"arguments": ["city", "days"]})

    assert verdict.outcome is Outcome.PASS
    assert "there to be compared: days in 8 of 128 calls" in verdict.remarks


FIRST = call(ROME, results=("1",))
NO_RESULT = Stopped(kind="no result", words="nothing is scripted for weather")
NO_WORDS = Stopped(kind="no words", words="it was given the results and said nothing")


def ends(last: Completion, stopped: Stopped | None = None) -> Completion:
    return msgspec.structs.replace(last, turns=(FIRST,), stopped=stopped)


def talked(make: Factory, ours: Completion, theirs: Completion, last: str = "equal") -> Verdict:
    return judged(make, [ours] * N, [theirs] * N, {"last": last}, tool_results={"weather": "1"}, max_turns=4)


@pytest.mark.parametrize(
    "both",
    [
        msgspec.structs.replace(call(ROME), stopped=NO_RESULT),
        ends(says(""), NO_WORDS),
        ends(says("", "tool_calls", completion_tokens=20)),
    ],
    ids=["no result", "no words", "swallowed"],
)
def test_conversations_that_come_to_no_answer_agree_on_none(make: Factory, both: Completion) -> None:
    compared, calls = talked(make, both, both), talked(make, both, both, "any")

    assert compared.outcome is Outcome.INCONCLUSIVE
    assert f"no conversation of {N} came to an answer on either engine" in compared.message
    assert calls.outcome is Outcome.PASS
    assert f"{N} of {N} conversations that are alike came to an answer on neither engine" in calls.remarks


def test_how_many_came_to_no_answer_stands_beside_a_pass(make: Factory) -> None:
    answers = [ends(says("Sunny."))] * 60 + [ends(says(""), NO_WORDS)] * 4
    verdict = judged(make, answers, answers, {}, tool_results={"weather": "1"}, max_turns=4)

    assert verdict.outcome is Outcome.PASS
    assert "4 of 64 conversations that are alike came to an answer on neither engine" in verdict.remarks


@pytest.mark.parametrize("last", ["equal", "any"])
@pytest.mark.parametrize("stopped", [None, NO_WORDS])
def test_nothing_at_the_end_is_not_like_words_whatever_is_compared(
    make: Factory, last: str, stopped: Stopped | None
) -> None:
    verdict = talked(make, ends(says("Sunny.")), ends(says("", "tool_calls"), stopped), last)

    assert verdict.outcome is Outcome.FAIL
    assert verdict.differing[0].what == "turn 2: cand ends: it was given the results and said nothing"


@pytest.mark.parametrize(
    ("ours", "theirs", "last", "outcome"),
    [
        (says("It", "length"), says("It is", "length"), "equal", Outcome.INCONCLUSIVE),
        (says("It", "length"), says("It", "length"), "equal", Outcome.INCONCLUSIVE),
        (says("It is", "length"), says("It is sunny."), "equal", Outcome.INCONCLUSIVE),
        (says("It is", "length"), says("It is sunny."), "any", Outcome.INCONCLUSIVE),
        (says("", "length"), says("It is sunny."), "equal", Outcome.INCONCLUSIVE),
        (says("", "length"), says("", "length"), "any", Outcome.INCONCLUSIVE),
        (says("It is", "length"), says("Sunny."), "equal", Outcome.FAIL),
        (says("It is sunny and", "length"), says("It is sunny"), "equal", Outcome.FAIL),
    ],
)
def test_last_answers_are_compared_as_far_as_their_limit_let_them(
    make: Factory, ours: Completion, theirs: Completion, last: str, outcome: Outcome
) -> None:
    verdict = talked(make, ends(ours), ends(theirs), last)

    assert verdict.outcome is outcome
    if outcome is Outcome.INCONCLUSIVE:
        assert "the token limit was reached" in verdict.message


def limited(make: Factory, answer: Completion, limit: str, **row: Any) -> Verdict:
    cases = [make.case(i, tools=TOOLS, **row) for i in range(N)]
    given: dict[str, Any] = {limit: 0.9}
    evidence = make.evidence(make.engine("base", [answer] * N), cases=cases)
    return check.tools(**given).judge(evidence)[0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (says("", "tool_calls", completion_tokens=20), "calls a tool in its text (swallowed: "),
        (says("", completion_tokens=20), "swallowed: 20 tokens"),
        (says("", reasoning="Hm."), "reasoning only: "),
    ],
)
def test_an_answer_that_says_nothing_is_not_right_where_none_should_be_called(
    make: Factory, answer: Completion, words: str
) -> None:
    row = {"expect": Expect(tool="none")}
    trigger = limited(make, answer, "trigger", **row)
    cases = [make.case(i, tools=TOOLS, **row) for i in range(N)]
    (right,) = check.answers(rate=0.9).judge(make.evidence(make.engine("base", [answer] * N), cases=cases))

    assert (trigger.outcome, right.outcome) == (Outcome.FAIL, Outcome.FAIL)
    assert trigger.differing[0].what.startswith(words)


def test_a_conversation_whose_answer_is_known_may_call(make: Factory) -> None:
    row = {"tool_results": {"weather": "1"}, "max_turns": 4, "expect": Expect(answer="Sunny.", tool="weather")}
    only = {**row, "expect": Expect(answer="Sunny.")}

    assert limited(make, ends(says("Sunny.")), "trigger", **row).outcome is Outcome.PASS
    verdict = limited(make, ends(says("Sunny.")), "trigger", **only)
    assert "no prompt that was asked says whether a tool is to be called" in verdict.message


@pytest.mark.parametrize("limit", ["trigger", "names", "rate"])
def test_words_that_were_cut_before_a_call_count_neither_way(make: Factory, limit: str) -> None:
    verdict = limited(make, says("Let me see", "length"), limit, expect=Expect(tool="weather"))

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert f"the token limit was reached in the text of {N} answers of base" in verdict.message


def test_the_calls_before_words_that_were_cut_are_judged(make: Factory) -> None:
    row = {"tool_results": {"weather": "1"}, "max_turns": 4, "expect": Expect(tool="weather")}

    for limit in ("trigger", "names", "rate"):
        assert limited(make, ends(says("It is", "length")), limit, **row).outcome is Outcome.PASS
