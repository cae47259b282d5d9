"""Checks on sequential evidence: cases in order, some not asked yet, settled by whoever wins his bet first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.designs import Sequential
from pytest_llmparity.core.evidence import Check, EngineEvidence
from pytest_llmparity.core.sample import Completion, ToolCall
from pytest_llmparity.core.stats import sequential
from pytest_llmparity.core.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from tests.core.conftest import Answer, Factory

SAME = "a" * 32
OTHER = "a" * 8 + "b" * 24
OBJECT = {"type": "object"}


def floored(make: Factory, name: str, answers: Sequence[Answer], noise: int = 0, **more: Any) -> EngineEvidence:
    """An engine whose noise floor is 32 cases, ``noise`` of which it answers otherwise in parallel."""
    again = list(answers[:32])
    parallel = [make.cut(OTHER)] * noise + again[noise:]
    return make.engine(name, answers, cold=again, warm=again, parallel=parallel, **more)


def texts(make: Factory, answers: Sequence[str], *, cases: Any = 200, noise: int = 0, **more: Any) -> list[Verdict]:
    """Judge a candidate that said these texts where the baseline always says ``SAME``."""
    base = floored(make, "base", [make.cut(SAME)] * len(answers), noise)
    cand = floored(make, "cand", [make.cut(text) for text in answers])
    return check.text(margin=0.05).judge(make.evidence(base, cand, cases=cases, sequential=True, **more))


def objects(make: Factory, checked: Check, ours: Sequence[Answer], theirs: Sequence[Answer], **more: Any) -> Verdict:
    evidence = make.evidence(
        make.engine("base", ours), make.engine("cand", theirs), sequential=True, **{"cases": 200, **more}
    )
    return checked.judge(evidence)[-1]


def test_equal_texts_pass_after_few_prompts_and_the_rest_is_not_missed(make: Factory) -> None:
    text, repeat = texts(make, [SAME] * 32)

    assert (text.outcome, text.n, text.requests, text.open) == (Outcome.PASS, 32, 64, True)
    assert text.message == (
        "PASS text, cand against base: 0 % of tokens fork, at most 0.34 %, margin 5 %, 32 prompts; sequential, "
        "stopped after 32 of 200 prompts"
    )
    assert text.details == (
        "0 forks in 1024 baseline tokens at risk, 32 prompts (0 % of them part) in 32 groups; margin 5 % as given",
    )
    assert (repeat.outcome, repeat.open, repeat.sequence) == (Outcome.PASS, False, "")


def test_p_values_are_those_of_the_bets(make: Factory) -> None:
    answers = [SAME, OTHER, OTHER, OTHER] * 8
    result = sequential.ratio([0.0, 1, 1, 1] * 8, [32.0, 9, 9, 9] * 8, margin=0.05, most=32, alpha=0.05)
    text = texts(make, answers)[0]

    assert (text.p_pass, text.lower, text.upper) == (result.p_pass, result.lower, result.upper)
    assert text.estimate == pytest.approx(result.estimate)
    assert text.outcome is Outcome.INCONCLUSIVE
    assert text.needed == result.needed
    assert "; sequential, stopped after 32 of 200 prompts; a run of about " in text.message


def test_far_texts_fail_above_the_floor_of_the_baseline(make: Factory) -> None:
    text = texts(make, [OTHER] * 48)[0]

    assert text.outcome is Outcome.FAIL
    assert text.message.startswith("FAIL text, cand against base: 11.11 % of tokens fork, at least ")


def test_a_noisy_baseline_is_settled_as_inconclusive(make: Factory) -> None:
    text = texts(make, [OTHER] * 48, noise=32)[0]

    assert (text.outcome, text.open) == (Outcome.INCONCLUSIVE, False), "no more prompts will measure its floor"
    assert "baseline too noisy" in text.message


def test_of_a_group_one_prompt_counts(make: Factory) -> None:
    cases = [make.case(index, group=f"g{index % 8}") for index in range(40)]
    text = texts(make, [SAME] * 8 + [OTHER] * 24, cases=cases)[0]

    assert (text.n, text.requests, text.groups, text.estimate) == (8, 16, 8, 0.0)
    assert "24 further prompts of these groups not counted" in text.details
    assert text.sequence == "sequential, stopped after 32 of 40 prompts"
    design = Sequential(alpha=0.05, asked=3, cases=3, groups=2)
    assert design.counted([("u", 1), ("v", 2), ("u", 3)], lambda row: row[0]) == [("u", 1), ("v", 2)]


def test_groups_are_what_is_needed_where_one_prompt_of_each_counts(make: Factory) -> None:
    answers = [SAME, OTHER, OTHER] * 4
    single = texts(make, answers, cases=12)[0]
    cases = [make.case(index, group=f"g{index % 12}") for index in range(36)]
    grouped = texts(make, answers * 3, cases=cases)[0]

    assert single.needed is not None
    assert (single.needed, single.per_group) == (grouped.needed, False)
    assert single.message.endswith(
        f"a run of about {single.needed} prompts in all would settle it, {single.needed - 12} more: add them and run "
        "again with --parity-sequential"
    )
    assert (grouped.n, grouped.per_group) == (12, True)
    assert "margin 5 %, 12 groups (66.67 % of them part); sequential, all 36 prompts asked; " in grouped.message
    assert grouped.message.endswith(
        f"a run of about {single.needed} groups in all would settle it, {single.needed - 12} more: add prompts in new "
        "groups (a further prompt of an old one changes nothing) and run again with --parity-sequential"
    )


@pytest.mark.parametrize(("asked", "each"), [(12, 1), (24, 2), (36, 3), (48, 4)])
def test_prompts_added_to_old_groups_change_neither_the_verdict_nor_the_advice(
    make: Factory, asked: int, each: int
) -> None:
    answers = ([SAME, OTHER, OTHER] * 4 + [SAME] * 36)[:asked]
    cases = [make.case(index, group=f"g{index % 12}") for index in range(12 * max(2, each))]
    text = texts(make, answers, cases=cases)[0]

    assert (text.outcome, text.n) == (Outcome.INCONCLUSIVE, 12)
    assert f"about {text.needed} groups in all would settle it, {(text.needed or 0) - 12} more" in text.message
    assert text.remarks == (
        "one prompt of each group counts in a sequential run, and all 12 groups have had their turn",
    )


def test_groups_that_had_no_turn_are_not_asked_for_again(make: Factory) -> None:
    cases = [make.case(index, group=f"g{index % 200}") for index in range(400)]
    text = texts(make, [SAME, OTHER, OTHER, OTHER] * 8, cases=cases)[0]

    assert text.remarks == ("one prompt of each group counts in a sequential run, and 32 of 200 had their turn",)
    assert text.at_hand == 200


def test_texts_without_text_are_settled(make: Factory) -> None:
    nothing = make.completion("", completion_tokens=0, finish_reason="length")
    empty = make.evidence(
        floored(make, "base", [nothing] * 32), floored(make, "cand", [nothing] * 32), cases=64, sequential=True
    )

    text = check.text(margin=0.05).judge(empty)[0]

    assert (text.outcome, text.open) == (Outcome.INCONCLUSIVE, False)
    assert "nothing was compared: the token limit" in text.message


def test_answers_that_fit_are_counted_in_the_order_asked(make: Factory) -> None:
    good, bad = '{"a": 1}', "no"
    kept = [True] * 30 + [False] * 2
    evidence = make.evidence(make.engine("only", [good if fits else bad for fits in kept]), cases=100, sequential=True)
    (verdict,) = check.schema(OBJECT, rate=0.9).judge(evidence)
    early = sequential.share(kept, at_least=0.9, alpha=0.05)

    assert (verdict.p_pass, verdict.p_fail, verdict.n) == (early.p_pass, early.p_fail, 32)
    assert verdict.p_pass != sequential.share(kept[::-1], at_least=0.9, alpha=0.05).p_pass
    assert verdict.sequence == "sequential, stopped after 32 of 100 prompts"


@pytest.mark.parametrize(("side", "outcome"), [("either", Outcome.FAIL), ("worse", Outcome.PASS)])
def test_a_better_candidate_fails_only_where_both_directions_count(make: Factory, side: Any, outcome: Outcome) -> None:
    verdict = objects(make, check.schema(OBJECT, gap=0.05, side=side), ["no"] * 40, ["{}"] * 40)

    assert (verdict.outcome, verdict.open, verdict.requests) == (outcome, True, 80)
    assert verdict.details[0] == "fits on base only: 0; on cand only: 40"


def test_equal_values_pass_and_other_ones_fail(make: Factory) -> None:
    ours = [json.dumps({"a": n}) for n in range(40)]
    asked = check.schema(OBJECT, agree=0.9)

    assert objects(make, asked, ours, ours).outcome is Outcome.PASS
    assert objects(make, asked, ours, ours[::-1]).outcome is Outcome.FAIL


def test_a_candidate_that_fails_to_answer_is_not_alike_in_its_place(make: Factory) -> None:
    ours: list[Answer] = ["yes"] * 40
    theirs: list[Answer] = ["yes"] * 40
    theirs[0] = make.failure()
    verdict = objects(make, check.similarity(at_least=0.8), ours, theirs)

    assert verdict.n == 40
    assert verdict.p_pass == sequential.share([False] + [True] * 39, at_least=0.9, alpha=0.05).p_pass


def test_one_answer_on_the_spot_is_judged_as_ever(make: Factory) -> None:
    evidence = make.evidence(
        make.engine("base", ["{}"]), make.engine("cand", ["{}"]), cases=1, single=True, sequential=True
    )

    for checked in (check.schema(OBJECT, rate=0.9, gap=0.05, agree=0.9), check.similarity(at_least=0.9)):
        assert {v.outcome for v in checked.judge(evidence)} == {Outcome.PASS}


@pytest.mark.parametrize(("lost", "still_open"), [(2, True), (16, True), (17, False), (32, False)])
def test_lost_answers_stop_a_run_only_when_most_are_lost(make: Factory, lost: int, still_open: bool) -> None:
    answers: list[Answer] = [make.failure()] * lost + ["yes"] * (32 - lost)
    verdict = objects(make, check.similarity(at_least=0.9), ["yes"] * 32, answers)

    assert (verdict.outcome, verdict.open) == (Outcome.ERROR, still_open)
    assert "of 32 without two answers" in verdict.message


def test_nothing_asked_is_an_error_or_what_stopped_the_run(make: Factory) -> None:
    for stopped, outcome in ((None, Outcome.ERROR), ("stopped after 5 s", Outcome.INCONCLUSIVE)):
        verdict = objects(make, check.similarity(at_least=0.9), [], [], incomplete=stopped)
        assert (verdict.outcome, verdict.open) == (outcome, False)


def test_a_hard_stop_takes_back_nothing_that_was_settled(make: Factory) -> None:
    asked = check.schema(OBJECT, agree=0.9)
    told: dict[str, Any] = {"incomplete": "stopped after 100 requests"}
    passed = objects(make, asked, ["{}"] * 40, ["{}"] * 40, **told)
    failed = objects(make, asked, ["{}"] * 40, ["no"] * 40, **told)
    undecided = objects(make, asked, ["{}"] * 20, ["{}"] * 20, **told)

    assert (passed.outcome, failed.outcome) == (Outcome.PASS, Outcome.FAIL)
    assert (undecided.outcome, undecided.needed) == (Outcome.INCONCLUSIVE, None)
    assert undecided.message.endswith("sequential, stopped after 20 of 200 prompts; stopped after 100 requests")


def test_exact_and_timed_checks_have_no_sequential_form(make: Factory) -> None:
    ours: list[Answer] = [make.completion("x", prompt_tokens=9)] * 32
    prompts = objects(make, check.prompts(), ours, ours)
    timed = check.latency(success_rate=0.9, n=64)
    (latency,) = timed.judge(make.evidence(make.timed("only", [0.1] * 64), sequential=True))

    assert (prompts.outcome, prompts.n, prompts.sequence, prompts.open) == (Outcome.PASS, 32, "", False)
    assert (latency.outcome, latency.sequence, latency.open) == (Outcome.PASS, "", False)
    assert latency.lower == pytest.approx(0.05 ** (1 / 64))
    assert not check.prompts().sequential
    assert not timed.sequential
    sequential_ones = (check.text(margin=0.05), check.schema(OBJECT, rate=0.9), check.similarity())
    assert all(checked.sequential for checked in sequential_ones)


def test_designs_that_cannot_pass_sequentially_are_refused_with_the_number_that_could() -> None:
    size: dict[str, Any] = {"cases": 60, "groups": 3, "engines": 2, "sequential": True}
    assert check.text(margin=0.05).problem(**size) == (
        "3 groups of prompts, one of each with 32 tokens, can never pass a margin of 5 % in a sequential run, not even "
        "without a fork; it takes 4"
    )
    assert check.text(margin=0.05).problem(**size | {"groups": 4}) is None
    assert check.schema(OBJECT, rate=0.95).problem(**size | {"groups": 60}) == (
        "rate=0.95 takes at least 65 prompts even if every answer is right, and there are 60"
    )
    assert check.schema(OBJECT, rate=0.95).problem(**size | {"cases": 600, "groups": 60}) == (
        "rate=0.95 takes at least 65 groups of prompts even if every answer is right, and there are 60"
    )
    assert check.schema(OBJECT, gap=0.05).problem(**size | {"cases": 65, "groups": 65}) is None
    assert check.similarity().problem(**size | {"cases": 31, "groups": 31}) is not None
    assert "31 groups can never show" in str(check.similarity().problem(**size | {"groups": 31}))
    assert check.similarity().problem(**size | {"cases": 32, "groups": 32}) is None
    assert check.text().power(cases=60, groups=3, sequential=True) == (
        "text(): counts one prompt of each group, 3 groups in all"
    )
    assert (
        check.schema(OBJECT, gap=0.05, rate=0.98)
        .power(cases=60, groups=3, sequential=True)
        .endswith("at least needed: rate 165, gap 65")
    )


def test_tool_calls_count_like_texts(make: Factory) -> None:
    def calling(arguments: str) -> Completion:
        call = ToolCall(name="f", arguments=arguments)
        return make.completion("", completion_tokens=9, tool_calls=(call,), finish_reason="tool_calls")

    ours: list[Answer] = [*[calling('{"a": 1}')] * 4, *[make.cut(SAME)] * 28]
    same: list[Answer] = [*[calling('{"a":1.0}')] * 4, *[make.cut(SAME)] * 28]
    other: list[Answer] = [*[calling('{"a": 2}')] * 4, *[make.cut(SAME)] * 28]
    for theirs, forks in ((same, 0), (other, 4)):
        base, cand = floored(make, "base", ours), floored(make, "cand", theirs)
        text = check.text(margin=0.05).judge(make.evidence(base, cand, cases=64, sequential=True))[0]
        assert (text.n, len(text.differing)) == (32, forks)
        assert "4 pairs compared as tool calls" in text.details
