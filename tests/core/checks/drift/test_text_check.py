from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.drift.text import TextCheck
from pytest_llmparity.core.sample import Completion, Phase, Sampling, TokenLogprob, ToolCall
from pytest_llmparity.core.verdict import Apart, Outcome, Verdict

if TYPE_CHECKING:
    from tests.core.conftest import Factory

SAME = "a" * 32


def forked(at: int) -> str:
    """An answer that leaves ``SAME`` at one token."""
    return SAME[:at] + "b" * (32 - at)


class Floors(TypedDict):
    cold: list[Completion]
    warm: list[Completion]
    parallel: list[Completion]


def floors(answers: list[Completion]) -> Floors:
    return {"cold": answers, "warm": answers, "parallel": answers}


def judge(
    make: Factory, texts: list[str], *, checked: TextCheck | None = None, noisy: list[str] | None = None, **more: object
) -> list[Verdict]:
    """Judge a candidate that said ``texts`` against a baseline that always says ``SAME``, except where ``noisy``."""
    n = len(texts)
    ours = [make.cut(SAME)] * n
    theirs = [make.cut(text) for text in texts]
    again = ours if noisy is None else [make.cut(text) for text in noisy]
    baseline = make.engine("base", ours, cold=ours, warm=ours, parallel=again)
    candidate = make.engine("cand", theirs, **floors(theirs), quantization="Q8_0")
    evidence = make.evidence(baseline, candidate, cases=n, **more)  # type: ignore[arg-type]
    return (checked or check.text(margin=0.05)).judge(evidence)


def test_equal_answers_pass_and_say_how_sure_that_is(make: Factory) -> None:
    text, repeat = judge(make, [SAME] * 64)

    assert (text.outcome, text.kind, text.n, text.groups, text.horizon) == (Outcome.PASS, "text", 64, 64, 32)
    assert text.estimate == 0.0
    assert text.upper == pytest.approx(2.9957 / 2048, rel=1e-3)
    assert text.margin == 0.05
    assert text.message == "PASS text, cand against base: 0 % of tokens fork, at most 0.15 %, margin 5 %, 64 prompts"
    assert (repeat.kind, repeat.outcome) == ("text.repeat", Outcome.PASS)


def test_a_pass_says_how_many_prompts_part_and_how_far_next_tokens_move(make: Factory) -> None:
    """Half of the prompts part at their first token and the rest do not: few forks per token, and no small matter."""
    text, repeat = judge(make, [forked(0)] * 34 + [SAME] * 30)

    assert text.message == (
        "PASS text, cand against base: 3.42 % of tokens fork, at most 4.81 %, margin 5 %, 64 prompts (53.12 % of them "
        "part)"
    )
    assert (text.apart, repeat.apart) == (Apart(prompts=34 / 64), Apart(prompts=0.0))


def test_many_forks_fail_and_show_the_first_one(make: Factory) -> None:
    text, repeat = judge(make, [SAME] * 4 + [forked(8)] * 60)

    assert text.outcome is Outcome.FAIL
    assert text.estimate == pytest.approx(60 / (60 * 9 + 4 * 32))
    assert text.p_fail is not None
    assert text.p_fail < 0.01
    assert text.floor == 0.0
    assert text.details[0] == (
        "60 forks in 668 baseline tokens at risk, 64 prompts (93.75 % of them part) in 64 groups; margin 5 % as given"
    )
    assert text.details[1] == "first fork: c4 after 8 characters"
    assert text.details[2] == "  base …'aaaaaaaaaaaaaaaaaaaaaaaa'"
    assert text.details[3] == "  cand …'bbbbbbbbbbbbbbbbbbbbbbbb'"
    assert "weights: F16 and Q8_0" in text.differs
    assert repeat.outcome is Outcome.PASS


def test_between_the_bounds_it_says_how_many_prompts_would_settle_it(make: Factory) -> None:
    near = judge(make, [SAME] * 10 + [forked(12)] * 40)[0]
    assert near.outcome is Outcome.INCONCLUSIVE
    assert near.needed is not None
    assert near.needed > 50
    assert near.message.endswith(
        f"a run of about {near.needed} prompts in all would settle it, {near.needed - 50} more"
    )


def test_a_baseline_that_forks_from_itself_as_much_makes_it_inconclusive(make: Factory) -> None:
    texts = [forked(5)] * 60 + [SAME] * 4
    text = judge(make, texts, noisy=[SAME] * 4 + [forked(5)] * 60)[0]

    assert text.lower is not None
    assert text.lower > 0.05
    assert text.outcome is Outcome.INCONCLUSIVE
    assert text.needed is None
    assert (
        "baseline too noisy at this concurrency: base differs from itself by 12.3 % per token at 8 in parallel"
        in text.message
    )
    assert any(line.startswith("cache or concurrency: base") for line in text.differs)


def test_more_drift_than_a_noisy_baseline_shows_is_still_a_failure(make: Factory) -> None:
    text = judge(make, [forked(1)] * 64, noisy=[SAME] * 50 + [forked(20)] * 14)[0]

    assert text.outcome is Outcome.FAIL


def test_a_floor_that_was_not_measured_excuses_nothing_and_condemns_nothing(make: Factory) -> None:
    ours = [make.cut(SAME)] * 64
    bad = [make.cut(forked(1))] * 64
    for theirs, outcome in ((bad, Outcome.INCONCLUSIVE), (ours, Outcome.PASS)):
        evidence = make.evidence(make.engine("base", ours), make.engine("cand", theirs))
        text, repeat = check.text(margin=0.05).judge(evidence)

        assert text.outcome is outcome
        assert repeat.outcome is Outcome.INCONCLUSIVE
        assert "cand has no repeated answers" in repeat.reason
    assert (
        "what base differs from itself was not measured"
        in check.text(margin=0.05).judge(make.evidence(make.engine("base", ours), make.engine("cand", bad)))[0].reason
    )


@pytest.mark.parametrize(
    ("recorded", "told"),
    [
        ({"golden": "base"}, ["base: its golden answers have no noise floor"]),
        ({"recording": "base"}, ["base: its recording has no noise floor"]),
        ({}, []),
    ],
)
def test_a_floor_that_was_not_recorded_is_told_on_a_pass(
    make: Factory, recorded: dict[str, str], told: list[str]
) -> None:
    answers = [make.completion(f"the same answer to {n}") for n in range(40)]
    source: dict[str, Any] = dict(recorded)
    base, known = make.engine("base", answers, **source), make.engine("base", answers, **floors(answers), **source)
    candidate = make.engine("cand", answers, **floors(answers))

    (without, _), (with_floor, _) = (
        list(check.text(margin=0.12).verdicts(make.evidence(engine, candidate, cases=40))) for engine in (base, known)
    )

    assert (without.outcome, with_floor.outcome) == (Outcome.PASS, Outcome.PASS)
    assert [remark.partition(", so nobody")[0] for remark in without.remarks] == told
    assert not with_floor.remarks


def test_a_candidate_that_does_not_repeat_itself_fails_however_noisy_the_baseline_is(make: Factory) -> None:
    ours = [make.cut(SAME)] * 64
    wild = [make.cut(forked(2))] * 64
    baseline = make.engine("base", ours, cold=wild, warm=wild, parallel=wild)
    candidate = make.engine("cand", ours, cold=ours, warm=ours, parallel=wild)
    text, repeat = check.text(margin=0.05).judge(make.evidence(baseline, candidate))

    assert text.outcome is Outcome.PASS
    assert repeat.outcome is Outcome.FAIL
    assert "of tokens fork from cand's own first answer (asked 8 in parallel)" in repeat.message
    assert repeat.message.endswith("; it does not repeat itself")


@pytest.mark.parametrize(
    ("phase", "words"), [("cold", "asked with a cold cache"), ("warm", "asked again with a warm cache")]
)
def test_the_phase_with_the_most_drift_is_named(make: Factory, phase: Literal["cold", "warm"], words: str) -> None:
    ours = [make.cut(SAME)] * 40
    wild = [make.cut(forked(2))] * 40
    drifting = floors(ours)
    drifting[phase] = wild
    repeat = check.text(margin=0.05).judge(
        make.evidence(make.engine("base", ours, **floors(ours)), make.engine("cand", ours, **drifting), cases=40)
    )[1]

    assert words in repeat.message


@pytest.mark.parametrize("quantization", [None, "F16", "Q8_0", "Q4_0", "Q4_K_M", "AWQ"])
def test_without_a_margin_nothing_is_judged_whatever_the_engines_say(make: Factory, quantization: str | None) -> None:
    """How often honest copies part depends on model and prompts, so no two quantisations have a margin of their own."""
    for answers in ([make.cut(SAME)] * 64, [make.cut("")] * 64, [make.cut(forked(0))] * 64):
        evidence = make.evidence(
            make.engine("a", [make.cut(SAME)] * 64, **floors(answers), quantization="F16"),
            make.engine("b", answers, **floors(answers), quantization=quantization),
        )
        (text,) = check.text().judge(evidence)

        assert text.outcome is Outcome.INCOMPARABLE
        assert text.reason == (
            "no margin: llmparity.lock has no ladder of the weights that a serves; run: llmparity calibrate --ladder, "
            "or give check.text(margin=…)"
        )


def test_few_groups_speak_for_this_mix_of_prompts_only(make: Factory) -> None:
    cases = [make.case(index, group=f"g{index % 4}") for index in range(64)]
    ours = [make.cut(SAME)] * 64
    bad = [make.cut(forked(3))] * 64
    evidence = make.evidence(
        make.engine("base", ours, **floors(ours)), make.engine("cand", bad, **floors(bad)), cases=cases
    )
    text = check.text(margin=0.05).judge(evidence)[0]

    assert text.outcome is Outcome.FAIL
    assert "for this mix of prompts (4 groups)" in text.message
    assert "most by group: g0 25 %, g1 25 %, g2 25 %" in text.details


@pytest.mark.parametrize("at", [None, 0])
def test_copies_of_one_prompt_settle_nothing_however_many(make: Factory, at: int | None) -> None:
    cases = [make.case(index, group="g") for index in range(100)]
    ours = [make.cut(SAME)] * 100
    theirs = ours if at is None else [make.cut(forked(at))] * 100
    evidence = make.evidence(
        make.engine("base", ours, **floors(ours)), make.engine("cand", theirs, **floors(theirs)), cases=cases
    )

    text, repeat = check.text(margin=0.05).judge(evidence)

    for verdict in (text, repeat):
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert verdict.needed is None
        assert verdict.message.endswith(
            "for this mix of prompts (1 group); all prompts come from one group: they count as one"
        )
    assert check.text(margin=0.05).power(cases=100, groups=1).endswith("they count as one, so nothing will be settled")


def test_tags_are_listed_rather_than_groups(make: Factory) -> None:
    tags = [("poem", "long"), ("math",), ("json",), ("list",)]
    cases = [make.case(index, tags=tags[index % 4]) for index in range(64)]
    ours = [make.cut(SAME)] * 64
    theirs = [make.cut(forked(3) if index % 4 == 0 else SAME) for index in range(64)]
    evidence = make.evidence(make.engine("base", ours), make.engine("cand", theirs), cases=cases)

    assert "most by tag: long 25 %, poem 25 %, json 0 %" in check.text(margin=0.05).judge(evidence)[0].details


def test_a_pass_names_the_tags_that_would_not_pass_alone(make: Factory) -> None:
    def judged(parting: int) -> Verdict:
        cases = [make.case(index, tags=("yes-no",) if index < 12 else ("prose",)) for index in range(200)]
        theirs = [make.cut(forked(0) if index < parting else SAME) for index in range(200)]
        baseline = make.engine("base", [make.cut(SAME)] * 200, **floors([make.cut(SAME)] * 200))
        return check.text(margin=0.05).judge(make.evidence(baseline, make.engine("cand", theirs), cases=cases))[0]

    verdict = judged(12)

    assert verdict.outcome is Outcome.PASS
    assert verdict.message.endswith("200 prompts (6 % of them part); by themselves above the margin: yes-no 100 %")
    assert verdict.remarks == ("by themselves above the margin: yes-no 100 %",)
    assert (judged(0).reason, judged(0).remarks) == ("", ())


def test_forks_are_graded_where_logprobs_exist(make: Factory) -> None:
    def answer(word: bytes, other: bytes, gap: float) -> Completion:
        token = TokenLogprob(token=word, logprob=-0.1, top=((word, -0.1), (other, -0.1 - gap)))
        return make.completion(word.decode(), logprobs=(token,))

    ours, near, far = answer(b"yes", b"no", 0.01), answer(b"no", b"yes", 0.02), answer(b"no", b"maybe", 3.0)
    evidence = make.evidence(make.engine("base", [ours] * 3), make.engine("cand", [near, near, far]), cases=3)
    text = check.text(margin=0.05).judge(evidence)[0]

    assert "forks by grade: near-tie 2, outside top-k 1" in text.details
    assert "first fork: c0 after 0 characters, near-tie" in text.details


def test_control_sequences_of_a_model_never_come_out_raw(make: Factory) -> None:
    text = judge(make, ["\x1b[31mred\x07\ud800\u202e"] * 64)[0]

    shown = "\n".join([text.message, *text.details])
    assert "\\x1b[31mred\\x07\\ud800\\u202e" in shown
    assert all(c.isprintable() or c == "\n" for c in shown)


def test_lost_answers_are_dropped_while_few_and_an_error_when_many(make: Factory) -> None:
    ours = [make.cut(SAME)] * 64
    few = [make.failure()] * 3 + ours[3:]
    text = check.text(margin=0.05).judge(make.evidence(make.engine("base", ours), make.engine("cand", few)))[0]
    assert (text.outcome, text.n) == (Outcome.PASS, 61)
    assert "3 prompts of 64 without two answers; first: cand on c0: Timeout: no first byte within 60 s" in text.details

    many = [make.failure()] * 4 + ours[4:]
    verdicts = check.text(margin=0.05).judge(make.evidence(make.engine("base", ours), make.engine("cand", many)))
    assert [verdict.outcome for verdict in verdicts] == [Outcome.ERROR]
    assert "4 prompts of 64 without two answers; first: cand on c0: Timeout" in verdicts[0].message

    verdicts = check.text(margin=0.05).judge(make.evidence(make.engine("base", many), make.engine("cand", ours)))
    assert "first: base on c0: Timeout" in verdicts[0].message

    verdicts = check.text(margin=0.05).judge(make.evidence(make.engine("base", few), make.engine("cand", many)))
    assert "4 prompts of 64 without two answers (base failed 3, cand failed 4); first: cand" in verdicts[0].message


def test_what_to_do_about_an_empty_answer_is_told_whole(make: Factory) -> None:
    advice = "A chat template that ends the turn at once, or a stop string, does that."
    words = f"cand answered 200 to case 'c0' with no text, no reasoning and no tool call (finish reason stop). {advice}"
    ours = [make.cut(SAME)] * 8
    empty = make.failure(kind="EmptyAnswer", message=words)

    (verdict,) = check.text(margin=0.05).judge(
        make.evidence(make.engine("base", ours), make.engine("cand", [empty, *ours[1:]]), cases=8)
    )

    assert verdict.message.endswith(f"first: cand on c0: EmptyAnswer: {words}")


def test_a_hard_stop_leaves_nothing_settled(make: Factory) -> None:
    ours = [make.cut(SAME)] * 62 + [None, None]
    evidence = make.evidence(
        make.engine("base", ours), make.engine("cand", ours), incomplete="stopped at --parity-max-requests 124"
    )
    text, repeat = check.text(margin=0.05).judge(evidence)
    assert text.outcome is repeat.outcome is Outcome.INCONCLUSIVE
    assert "stopped at --parity-max-requests 124" in text.message
    assert repeat.reason == "stopped at --parity-max-requests 124"

    half = [make.cut(SAME)] * 30 + [None] * 34
    evidence = make.evidence(make.engine("base", half), make.engine("cand", half), incomplete="stopped early")
    assert [v.outcome for v in check.text(margin=0.05).judge(evidence)] == [Outcome.INCONCLUSIVE]

    lost = [make.cut(SAME)] * 29 + [make.failure()] + [None] * 34
    evidence = make.evidence(make.engine("base", half), make.engine("cand", lost), incomplete="stopped early")
    assert [(v.outcome, v.reason) for v in check.text(margin=0.05).judge(evidence)] == [
        (Outcome.INCONCLUSIVE, "stopped early")
    ]


def test_a_floor_phase_cut_short_keeps_the_repeat_open(make: Factory) -> None:
    ours = [make.cut(SAME)] * 64
    stopped = make.evidence(
        make.engine("base", ours, **floors(ours)), make.engine("cand", ours, cold=ours), incomplete="time is up"
    )
    text, repeat = check.text(margin=0.05).judge(stopped)

    assert text.outcome is Outcome.PASS
    assert (repeat.outcome, repeat.reason) == (Outcome.INCONCLUSIVE, "time is up")


def test_a_floor_phase_without_an_answer_is_named(make: Factory) -> None:
    ours = [make.cut(SAME)] * 64
    evidence = make.evidence(make.engine("base", ours, **floors(ours)), make.engine("cand", ours, cold=ours))
    _, repeat = check.text(margin=0.05).judge(evidence)

    assert repeat.outcome is Outcome.INCONCLUSIVE
    assert repeat.reason == (
        f"it has no answers to compare when asked again with a warm cache or asked {evidence.concurrency} in parallel"
    )
    assert repeat.reason in repeat.message


def test_engines_that_cannot_be_judged_give_their_sentence(make: Factory) -> None:
    ours = [make.cut(SAME)] * 64
    baseline = make.engine("base", ours, **floors(ours))
    pinned = make.engine("pinned", incomparable="pin quantization: Q8_0 pinned, Q4_0 reported")
    dead = make.engine("dead", error="exited with code 1")
    fine = make.engine("fine", ours, **floors(ours))
    verdicts = check.text(margin=0.05).judge(make.evidence(baseline, pinned, dead, fine))

    assert [v.outcome for v in verdicts] == [Outcome.INCOMPARABLE, Outcome.ERROR, Outcome.PASS, Outcome.PASS]
    assert verdicts[0].message == "INCOMPARABLE text, pinned against base: pin quantization: Q8_0 pinned, Q4_0 reported"
    assert verdicts[1].message == "ERROR text, dead against base: exited with code 1"


def test_sampled_answers_are_not_compared_by_forks(make: Factory) -> None:
    ours = [make.cut(SAME)] * 64
    warm = make.evidence(make.engine("a", ours), make.engine("b", ours), sampling=Sampling(temperature=0.7))
    (text,) = check.text(margin=0.05).judge(warm)
    assert text.outcome is Outcome.INCONCLUSIVE
    assert "64 prompts (c0, …) ask for a temperature above 0" in text.reason

    cases = [make.case(index, sampling={"temperature": 0.0}) for index in range(64)]
    cooled = make.evidence(
        make.engine("a", ours), make.engine("b", ours), sampling=Sampling(temperature=0.7), cases=cases
    )
    assert check.text(margin=0.05).judge(cooled)[0].outcome is Outcome.PASS


def test_one_engine_alone_is_skipped_with_a_reason(make: Factory) -> None:
    (verdict,) = check.text(margin=0.05).judge(make.evidence(make.engine("only", [make.cut(SAME)] * 64)))

    assert (verdict.outcome, verdict.engine, verdict.baseline) == (Outcome.SKIPPED, "only", None)
    assert "it compares two engines and only one is selected" in verdict.message


def test_a_single_question_passes_or_fails_without_a_bound(make: Factory) -> None:
    for text, outcome, words in (
        (SAME, Outcome.PASS, "agree over 32 tokens"),
        (forked(3), Outcome.FAIL, "answers part"),
    ):
        evidence = make.evidence(
            make.engine("a", [make.cut(SAME)]),
            make.engine("b", [make.cut(text)], quantization=None),
            cases=1,
            single=True,
        )
        (verdict,) = check.text(margin=0.05).judge(evidence)
        assert (verdict.outcome, verdict.p_fail, verdict.upper) == (outcome, None, None)
        assert words in verdict.message
        assert verdict.message.endswith("(single)")


def test_a_design_that_can_never_pass_is_refused_with_the_number_that_could() -> None:
    assert check.text(margin=0.01).problem(cases=9, groups=9, engines=2) == (
        "9 prompts of 32 tokens can never pass a margin of 1 %, not even without a fork; it takes 10"
    )
    assert check.text(margin=0.01).problem(cases=10, groups=10, engines=2) is None
    assert check.text(margin=0.05).problem(cases=1, groups=1, engines=2) is not None
    assert check.text(margin=0.05).problem(cases=2, groups=2, engines=2) is None


def test_the_plan_says_how_seldom_few_groups_catch_drift() -> None:
    asked = check.text(margin=0.05)

    assert asked.weakness(sizes=[8] * 4) == (
        "text(margin=0.05): with 4 groups 8 % drift is caught in 9 of 100 runs, 2.5 % passes in 46; more prompts in "
        "them do not help (4 times as many: 11, 49), more groups do (4 times as many: 22, 94)"
    )
    assert "do not help" in asked.weakness(sizes=[80] * 4)
    assert "drift is caught in" in asked.weakness(sizes=[12, 6, 4, 3, 2, 2, 2, 1])
    assert "passes in 46 (margin 5 %); more" in check.text().weakness(sizes=[8] * 4)
    for sizes in ([1] * 64, [64], [3] * 100):  # every prompt by itself, nothing to settle, enough groups
        assert asked.weakness(sizes=sizes) == ""
    assert asked.weakness(sizes=[8] * 4, sequential=True) == check.text(margin=0.7).weakness(sizes=[8] * 4) == ""


def test_the_plan_says_what_the_design_can_see() -> None:
    assert check.text().power(cases=64, groups=64) == "text(): without a fork 64 prompts bound the drift at 0.15 %"
    assert (
        check.text(margin=0.05)
        .power(cases=64, groups=2)
        .endswith("; with 2 groups it speaks for this mix of prompts only")
    )
    assert (check.text(margin=0.05).kind, check.text(margin=0.05).pairwise) == ("text", True)
    assert check.text(margin=0.05).needs().phases == {Phase.MAIN, Phase.COLD, Phase.WARM, Phase.PARALLEL}


def test_answers_that_call_tools_are_compared_as_calls(make: Factory) -> None:
    def calling(name: str, arguments: str, text: str = "") -> Completion:
        call = ToolCall(name=name, arguments=arguments)
        return make.completion(text, completion_tokens=12, tool_calls=(call,), finish_reason="tool_calls")

    def judged(ours: Completion, theirs: Completion) -> Verdict:
        base, cand = make.engine("base", [ours] * 64, **floors([ours] * 64)), make.engine("cand", [theirs] * 64)
        return check.text(margin=0.05).judge(make.evidence(base, cand))[0]

    refund = calling("refund", '{"order": 1, "now": true}')
    same = judged(refund, calling("refund", '{"now":true,"order":1.0}'))
    assert (same.outcome, same.n, same.estimate) == (Outcome.PASS, 64, 0.0)
    assert "64 pairs compared as tool calls" in same.details

    for other in (calling("cancel", '{"order": 1, "now": true}'), calling("refund", '{"order": 2, "now": true}')):
        text = judged(refund, other)
        assert (text.outcome, len(text.differing)) == (Outcome.FAIL, 64)
        assert text.differing[0].what == "tool calls"
        assert "first fork: c0 in its tool calls" in text.details
    speaks = judged(refund, make.completion("I will refund it."))
    assert (speaks.outcome, speaks.estimate) == (Outcome.FAIL, 1.0)
    beside = judged(calling("refund", "{}", text="Let me see."), calling("refund", "{}"))
    assert beside.outcome is Outcome.PASS
    assert "64 pairs compared as tool calls; the text beside them differs in 64 and is not compared" in beside.details


def test_grades_add_up(make: Factory) -> None:
    def answer(word: bytes, other: bytes) -> Completion:
        token = TokenLogprob(token=word, logprob=-0.1, top=((word, -0.1), (other, -0.12)))
        return make.completion(word.decode(), logprobs=(token,))

    ours, theirs = answer(b"yes", b"no"), [answer(b"no", b"yes"), make.completion("no")]
    plain = [make.completion("yes"), make.completion("yes")]
    text = check.text(margin=0.05).judge(
        make.evidence(make.engine("a", [ours, plain[0]]), make.engine("b", theirs), cases=2)
    )[0]
    assert "forks by grade: near-tie 1, ungraded 1" in text.details
    assert [fork.grade for fork in text.differing] == ["near-tie", None]
    none = check.text(margin=0.05).judge(
        make.evidence(make.engine("a", plain), make.engine("b", [theirs[1]] * 2), cases=2)
    )[0]
    assert not any(line.startswith("forks by grade") for line in none.details)


def test_the_cases_that_differ_are_listed_with_place_and_digests(make: Factory) -> None:
    text = judge(make, [SAME] * 30 + [forked(5)] + [SAME] + ["a" * 32 + "b"])[0]
    (fork,) = [each for each in text.differing if each.counted]

    assert (fork.case, fork.what, fork.byte, fork.char, fork.token, fork.unit) == ("c30", "text", 5, 5, 5.0, "scaled")
    assert fork.baseline_sha256 == hashlib.sha256(SAME.encode()).hexdigest()
    assert fork.candidate_sha256 == hashlib.sha256(forked(5).encode()).hexdigest()


def _noisy_engine(rng: random.Random, make: Factory, hazard: float, n: int) -> list[Completion]:
    """Answers that leave ``SAME`` at each token with this chance, each time by another word."""
    answers = []
    for _ in range(n):
        at = next((token for token in range(32) if rng.random() < hazard), 32)
        answers.append(make.cut(SAME[:at] + chr(rng.randrange(0x100, 0x3000)) * (32 - at)))
    return answers


@pytest.mark.slow
def test_an_engine_as_noisy_as_the_margin_is_failed_against_itself_in_at_most_one_draw_of_twenty(make: Factory) -> None:
    rng = random.Random(3)
    draws, failed = 120, 0
    for _ in range(draws):
        answers = [_noisy_engine(rng, make, 0.06, 64) for _ in range(3)]
        ours, again, theirs = answers
        baseline = make.engine("base", ours, parallel=again)
        candidate = make.engine("cand", theirs)
        failed += check.text(margin=0.05).judge(make.evidence(baseline, candidate))[0].outcome is Outcome.FAIL
    assert failed <= 12  # 5 % of 120 is 6; more than 12 has a chance below 1 %


def test_a_set_that_is_too_small_without_a_margin_is_told_that_none_was_given() -> None:
    why = check.text().problem(cases=1, groups=1, engines=2)

    assert why is not None
    assert "margin of 5 % (counted with where none is given), not even without a fork" in why
    assert "none is given" not in (check.text(margin=0.05).problem(cases=1, groups=1, engines=2) or "")
