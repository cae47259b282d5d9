"""What says nothing is no evidence, and too little evidence settles nothing: the same rule in every check."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.designs import Design, Fixed, Sequential, Single
from pytest_llmparity.core.checks.missing import Missing
from pytest_llmparity.core.evidence import Check, EngineEvidence
from pytest_llmparity.core.sample import Completion, Phase, ToolCall
from pytest_llmparity.core.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from tests.core.conftest import Answer, Factory

SCHEMA = {"type": "object", "required": ["id"]}
GOOD, BAD = '{"id": 1}', '{"name": "x"}'
CHECKS: list[Check] = [
    check.text(margin=0.05),
    check.similarity(at_least=0.8),
    check.schema(SCHEMA, agree=0.9),
    check.schema(SCHEMA, gap=0.1),
]
IDS = ["text", "similarity", "schema.agree", "schema.gap"]


def thinking(make: Factory) -> Completion:
    return make.completion("", reasoning="first I recall", completion_tokens=64, finish_reason="length")


def wordless(make: Factory) -> Completion:
    return make.completion(" \n", completion_tokens=1)


def main_verdict(
    checked: Check, make: Factory, ours: list[Answer], theirs: list[Answer], *, sequential: bool = False
) -> Verdict:
    """Judge a pair whose engines repeat themselves."""

    def floored(name: str, answers: list[Answer]) -> EngineEvidence:
        return make.engine(name, answers, cold=answers[:32], warm=answers[:32], parallel=answers[:32])

    evidence = make.evidence(floored("base", ours), floored("cand", theirs), cases=len(ours), sequential=sequential)
    return checked.judge(evidence)[0]


@pytest.mark.parametrize("sequential", [False, True], ids=["fixed", "sequential"])
@pytest.mark.parametrize("checked", CHECKS, ids=IDS)
def test_answers_without_a_word_are_no_agreement(make: Factory, checked: Check, sequential: bool) -> None:
    for silent, words in (
        (thinking(make), "the token limit was reached in the reasoning of 64 answers of base and 64 of cand"),
        (
            make.completion("", completion_tokens=64, finish_reason="length"),
            "the token limit was reached before any text of 64 answers of base",
        ),
        (wordless(make), "neither text nor a tool call in both answers to 64 prompts"),
    ):
        verdict = main_verdict(checked, make, [silent] * 64, [silent] * 64, sequential=sequential)

        assert (verdict.outcome, verdict.n, verdict.estimate) == (Outcome.INCONCLUSIVE, 0, None)
        assert verdict.reason.startswith(f"nothing was compared: {words}")
        assert not verdict.open


@pytest.mark.parametrize("checked", CHECKS[1:3], ids=IDS[1:3])
def test_a_call_that_the_token_limit_cut_is_no_other_call(make: Factory, checked: Check) -> None:
    """Text is compared up to the cut; whether two calls are the same cannot be told."""
    cut = make.completion("", tool_calls=(ToolCall(name="f", arguments='{"a": 1'),), finish_reason="length")
    whole = make.completion("", tool_calls=(ToolCall(name="f", arguments='{"a": 12}'),))
    other = make.completion("", tool_calls=(ToolCall(name="f", arguments='{"b": 12}'),))

    open_ended = main_verdict(checked, make, [cut] * 64, [whole] * 64)
    apart = main_verdict(checked, make, [cut] * 64, [other] * 64)

    words = "the token limit was reached in a tool call of 64 answers of base: raise max_tokens"
    assert (open_ended.outcome, open_ended.reason) == (Outcome.INCONCLUSIVE, f"nothing was compared: {words}")
    assert apart.outcome is Outcome.FAIL


@pytest.mark.parametrize("sequential", [False, True], ids=["fixed", "sequential"])
@pytest.mark.parametrize("checked", CHECKS, ids=IDS)
def test_a_pass_rests_on_at_least_95_of_100_prompts(make: Factory, checked: Check, sequential: bool) -> None:
    for silent, outcome in ((3, Outcome.PASS), (4, Outcome.INCONCLUSIVE)):
        answers: list[Answer] = [*[thinking(make)] * silent, *[GOOD] * (64 - silent)]
        verdict = main_verdict(checked, make, answers, answers, sequential=sequential)

        assert (verdict.outcome, verdict.n) == (outcome, 64 - silent)
        words = f"the token limit was reached in the reasoning of {silent} answers of base and {silent} of cand"
        assert f"{words}: raise max_tokens" in verdict.details
        if silent == 4:
            assert verdict.reason == f"it rests on 60 of 64 prompts: {words}: raise max_tokens"
            assert (verdict.needed, verdict.open) == (None, sequential)


@pytest.mark.parametrize("sequential", [False, True], ids=["fixed", "sequential"])
@pytest.mark.parametrize("checked", CHECKS, ids=IDS)
def test_a_fail_stands_only_if_the_missing_could_not_change_it(make: Factory, checked: Check, sequential: bool) -> None:
    for silent, outcome in ((8, Outcome.FAIL), (54, Outcome.INCONCLUSIVE)):
        ours: list[Answer] = [*[GOOD] * (64 - silent), *[thinking(make)] * silent]
        theirs: list[Answer] = [*[BAD] * (64 - silent), *[thinking(make)] * silent]
        if outcome is Outcome.INCONCLUSIVE:  # a sequential run that failed before anything was missing has failed
            ours, theirs = ours[::-1], theirs[::-1]
        floor: list[Answer] = [*[GOOD] * 64]
        base = make.engine("base", ours, cold=floor, warm=floor, parallel=floor)
        cand = make.engine("cand", theirs)
        if checked.kind == "text":  # the floor needs first answers too
            base = make.engine("base", [*[GOOD] * 64], cold=floor, warm=floor, parallel=floor)
        verdict = checked.judge(make.evidence(base, cand, sequential=sequential))[0]

        assert verdict.outcome is outcome, verdict.message
        alone = checked.judge(
            make.evidence(make.engine("base", [GOOD] * 56, cold=floor[:56]), make.engine("cand", [BAD] * 56), cases=56)
        )[0]
        if outcome is Outcome.FAIL and not sequential:
            assert verdict.p_fail is not None
            assert alone.p_fail is not None
            assert verdict.p_fail >= alone.p_fail, "what is missing counts for PASS"


@pytest.mark.parametrize("checked", CHECKS, ids=IDS)
def test_a_single_question_without_an_answer_is_no_pass(make: Factory, checked: Check) -> None:
    for silent in (thinking(make), wordless(make)):
        evidence = make.evidence(make.engine("base", [silent]), make.engine("cand", [silent]), cases=1, single=True)
        verdict = checked.judge(evidence)[0]

        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert verdict.reason.startswith("nothing was compared: ")


@pytest.mark.parametrize("checked", CHECKS, ids=IDS)
def test_another_call_is_never_alike(make: Factory, checked: Check) -> None:
    def calls(name: str, arguments: str) -> Completion:
        call = ToolCall(name=name, arguments=arguments)
        return make.completion("", completion_tokens=12, tool_calls=(call,), finish_reason="tool_calls")

    refund = calls("refund_order", '{"order": 1300}')
    for other in (calls("cancel_order", '{"order": 1300}'), calls("refund_order", '{"order": 1307}')):
        verdict = main_verdict(checked, make, [refund] * 64, [other] * 64)
        assert verdict.outcome is not Outcome.PASS
        assert verdict.outcome is (Outcome.INCONCLUSIVE if verdict.kind == "schema.gap" else Outcome.FAIL)
        single = make.evidence(make.engine("base", [refund]), make.engine("cand", [other]), cases=1, single=True)
        assert checked.judge(single)[0].outcome is not Outcome.PASS
    against_words = main_verdict(checked, make, [refund] * 64, ["I refunded your order."] * 64)
    neither_fits = against_words.kind == "schema.gap"
    assert against_words.outcome is (Outcome.INCONCLUSIVE if neither_fits else Outcome.FAIL)

    alike = main_verdict(checked, make, [refund] * 64, [calls("refund_order", '{ "order":1300.0 }')] * 64)
    no_values = alike.kind in ("schema.gap", "schema.agree")  # a schema is held against neither
    assert alike.outcome is (Outcome.INCONCLUSIVE if no_values else Outcome.PASS)


def test_an_answer_that_ended_without_a_word_differs_from_one_that_speaks(make: Factory) -> None:
    for checked in CHECKS:
        verdict = main_verdict(checked, make, [GOOD] * 64, [wordless(make)] * 64)
        assert verdict.outcome is Outcome.FAIL, verdict.message


def test_of_an_answer_cut_before_its_first_word_nothing_is_known(make: Factory) -> None:
    for checked in CHECKS[:2]:
        verdict = main_verdict(checked, make, [GOOD] * 64, [thinking(make)] * 64)
        assert verdict.reason == (
            "nothing was compared: the token limit was reached in the reasoning of 64 answers of cand: raise max_tokens"
        )


def test_repeats_without_a_word_are_no_floor_and_no_repeat(make: Factory) -> None:
    silent: list[Answer] = [thinking(make)] * 64
    base, cand = (
        make.engine("base", [GOOD] * 64),
        make.engine("cand", silent, cold=silent, warm=silent, parallel=silent),
    )
    repeat = check.text(margin=0.05).judge(make.evidence(base, cand))[1]
    assert (repeat.kind, repeat.outcome, repeat.n) == ("text.repeat", Outcome.INCONCLUSIVE, 0)
    assert repeat.reason.startswith("nothing was compared: the token limit was reached in the reasoning of 64 answers")

    half: list[Answer] = [*silent[:40], *[GOOD] * 24]
    cand = make.engine("cand", half, cold=half, warm=half, parallel=half)
    repeat = check.text(margin=0.05).judge(make.evidence(base, cand))[1]
    assert repeat.outcome is Outcome.INCONCLUSIVE
    assert "it rests on 24 of 64 prompts" in repeat.reason


def test_a_repeat_that_fails_on_what_is_there_fails(make: Factory) -> None:
    first: list[Answer] = [*[thinking(make)] * 8, *[GOOD] * 56]
    again: list[Answer] = [*[thinking(make)] * 8, *["other"] * 56]
    cand = make.engine("cand", first, cold=again, warm=again, parallel=again)
    repeat = check.text(margin=0.05).judge(make.evidence(make.engine("base", first), cand))[1]
    assert repeat.outcome is Outcome.FAIL

    few: list[Answer] = [*[thinking(make)] * 60, *[GOOD] * 4]
    other: list[Answer] = [*[thinking(make)] * 60, *["other"] * 4]
    cand = make.engine("cand", few, cold=other, warm=other, parallel=other)
    repeat = check.text(margin=0.05).judge(make.evidence(make.engine("base", few), cand))[1]
    assert repeat.outcome is Outcome.INCONCLUSIVE


def test_a_schema_rate_counts_an_empty_answer_and_says_why_it_is_empty(make: Factory) -> None:
    rate = check.schema(SCHEMA, rate=0.9)
    (verdict,) = rate.judge(make.evidence(make.engine("only", [thinking(make)] * 40 + [GOOD] * 24)))

    assert verdict.outcome is Outcome.FAIL
    assert "the token limit was reached in the reasoning of 40 answers of only: raise max_tokens" in verdict.details


def test_left_out_and_lost_and_silent_prompts_are_all_named(make: Factory) -> None:
    answers: list[Answer] = [GOOD] * 64
    theirs: list[Answer] = [None, None, make.failure(), thinking(make), *[GOOD] * 60]
    cand = make.engine("cand", theirs, left_out={"c0": "cand does not take tools", "c1": "cand does not take tools"})
    verdict = check.similarity(at_least=0.8).judge(make.evidence(make.engine("base", answers), cand))[0]

    assert (verdict.outcome, verdict.n) == (Outcome.PASS, 61), "a failed answer counts as not alike"
    assert verdict.details[2:4] == (
        "the token limit was reached in the reasoning of 1 answer of cand: raise max_tokens",
        "1 prompt of 64 without two answers; first: cand on c2: Timeout: no first byte within 60 s",
    )
    text = check.text(margin=0.05).judge(make.evidence(make.engine("base", answers), cand))[0]
    assert (text.outcome, text.n) == (Outcome.INCONCLUSIVE, 60)
    assert text.reason.startswith("it rests on 60 of 64 prompts: the token limit")
    assert text.reason.endswith("; 2 prompts left out: cand does not take tools")


def test_what_is_left_out_behind_the_last_wave_does_not_count_yet(make: Factory) -> None:
    answers: list[Answer] = [*[GOOD] * 40, *[None] * 24]
    left_out = {f"c{index}": "cand does not take tools" for index in range(40, 64)}
    evidence = make.evidence(
        make.engine("base", answers), make.engine("cand", answers, left_out=left_out), sequential=True
    )
    # All cases that can be asked were asked: what is left out is part of the set.
    assert check.similarity(at_least=0.8).judge(evidence)[0].outcome is Outcome.INCONCLUSIVE

    waiting: list[Answer] = [*[GOOD] * 40, *[None] * 24]
    evidence = make.evidence(
        make.engine("base", waiting),
        make.engine("cand", waiting, left_out={"c63": "cand does not take tools"}),
        sequential=True,
    )
    assert check.similarity(at_least=0.8).judge(evidence)[0].outcome is Outcome.PASS


def test_of_no_case_at_all_nothing_is_said() -> None:
    designs: list[Design] = [Fixed(alpha=0.05), Sequential(alpha=0.05, asked=1, cases=1, groups=1), Single()]
    for design in designs:
        for kept in ([], [None]):
            judged = design.share(kept, at_least=0.9)
            assert (judged.outcome, judged.n, judged.open) == (Outcome.INCONCLUSIVE, 0, False)
        assert design.gap([], margin=0.1, side="either").outcome is Outcome.INCONCLUSIVE
    assert not Missing(of=0, used=0).enough
    assert Missing(of=20, used=19).enough
    assert not Missing(of=19, used=18).enough
    assert Phase.MAIN in check.text(margin=0.05).needs().phases
