"""Answers that end short of their own limit say nothing of what the other engine says behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity import check
from pytest_llmparity.core.compare.shift import find_shift
from pytest_llmparity.core.diagnosis.effects import Drift, drift_of, effect
from pytest_llmparity.core.sample import Completion, Phase, TokenLogprob
from pytest_llmparity.core.verdict import Outcome, Verdict
from tests.core.conftest import Factory

if TYPE_CHECKING:
    from pytest_llmparity.core.evidence import Evidence

LIMIT = 32
EARLY_64 = "64 answers of {} end after 20 of 32 tokens: a full context or a cap on the way, not max_tokens"
EARLY = "answers of cand end after 2 of 32 tokens: a full context or a cap on the way, not max_tokens"


def answer_of(tokens: int, *, fork: int | None = None, limit: int = LIMIT, **fields: object) -> Completion:
    """Tokens of one letter, ended by ``length``; other letters from the fork on."""
    text = "a" * tokens if fork is None else ("a" * fork + "b" * tokens)[:tokens]
    made = Completion(text=text, finish_reason="length", completion_tokens=tokens, prompt_tokens=20, max_tokens=limit)
    return msgspec.structs.replace(made, **fields)


def with_logprobs(answer: Completion) -> Completion:
    """The answer with logprobs that lead by 2 nats."""
    records = tuple(
        TokenLogprob(token=letter.encode(), logprob=-0.1, top=((letter.encode(), -0.1), (b"?", -2.1)))
        for letter in answer.text
    )
    return msgspec.structs.replace(answer, logprobs=records)


def evidence(
    make: Factory,
    theirs: Sequence[Completion],
    *,
    ours: Sequence[Completion] | None = None,
    again: Sequence[Completion] | None = None,
    sequential: bool = False,
) -> Evidence:
    n = len(theirs)
    ours, again = ours or [answer_of(LIMIT)] * n, again or theirs
    return make.evidence(
        make.engine("base", ours, cold=ours, warm=ours, parallel=ours),
        make.engine("cand", theirs, cold=theirs, warm=theirs, parallel=again),
        cases=n,
        sequential=sequential,
    )


def text_of(of: Evidence, margin: float = 0.05, horizon: int = LIMIT) -> Verdict:
    return check.text(margin=margin, horizon=horizon).judge(of)[0]


@pytest.mark.parametrize("sequential", [False, True])
def test_a_candidate_that_ends_every_answer_early_agrees_with_nothing(make: Factory, sequential: bool) -> None:
    verdict = text_of(evidence(make, [answer_of(2)] * 64, sequential=sequential))

    assert (verdict.outcome, verdict.estimate) == (Outcome.INCONCLUSIVE, None)
    assert verdict.reason == f"nothing was compared: 64 {EARLY}"
    assert any(line.startswith("answers end early: cand ends 64 of 64 prompts") for line in verdict.differs)


def test_the_baselines_own_early_ends_are_as_little(make: Factory) -> None:
    verdict = text_of(evidence(make, [answer_of(LIMIT)] * 64, ours=[answer_of(2)] * 64))

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason == f"nothing was compared: 64 {EARLY.replace('cand', 'base')}"
    assert any(line.startswith("answers end early: base ends 64") for line in verdict.differs)


@pytest.mark.parametrize(("early", "outcome"), [(3, Outcome.PASS), (4, Outcome.INCONCLUSIVE)])
def test_one_in_twenty_may_end_early(make: Factory, early: int, outcome: Outcome) -> None:
    verdict = text_of(evidence(make, [answer_of(2)] * early + [answer_of(LIMIT)] * (64 - early)))

    assert (verdict.outcome, verdict.n) == (outcome, 64 - early)
    assert f"{early} {EARLY}" in verdict.details


def test_what_parts_before_it_ends_fails_all_the_same(make: Factory) -> None:
    parting, early = [answer_of(LIMIT, fork=0)] * 56, [answer_of(2)] * 8

    assert text_of(evidence(make, parting + early)).outcome is Outcome.FAIL


def test_an_answer_that_reached_the_horizon_is_whole_evidence(make: Factory) -> None:
    ours, theirs = [answer_of(256, limit=256)] * 64, [answer_of(40, limit=256)] * 64

    assert text_of(evidence(make, theirs, ours=ours)).outcome is Outcome.PASS


def test_an_engine_that_ends_early_beside_others_only_does_not_repeat_itself(make: Factory) -> None:
    whole = [answer_of(LIMIT)] * 64
    _, repeat = check.text(margin=0.05).judge(evidence(make, whole, again=[answer_of(2)] * 64))

    assert (repeat.kind, repeat.outcome) == ("text.repeat", Outcome.INCONCLUSIVE)
    assert "64 answers of cand again end after 2 of 32 tokens" in repeat.reason


@pytest.mark.parametrize("sequential", [False, True])
def test_where_both_end_early_alike_nothing_passes(make: Factory, sequential: bool) -> None:
    """Two engines of one small context, or behind one gateway: nobody saw them agree in what would follow."""
    both = [answer_of(20)] * 64
    text, repeat = check.text(margin=0.05).judge(evidence(make, both, ours=both, sequential=sequential))

    assert (text.outcome, repeat.outcome) == (Outcome.INCONCLUSIVE, Outcome.INCONCLUSIVE)
    assert text.reason == (f"what would follow was not compared: {EARLY_64.format('base')}; {EARLY_64.format('cand')}")
    assert repeat.reason == f"what would follow was not compared: {EARLY_64.format('cand')}"
    assert (text.needed, text.estimate) == (None, 0.0)


def test_a_shift_is_not_passed_on_what_both_end_early(make: Factory) -> None:
    both = [with_logprobs(answer_of(20))] * 16
    (verdict,) = check.logprobs(shift=0.06).judge(evidence(make, both, ours=both))

    assert (verdict.outcome, verdict.estimate) == (Outcome.INCONCLUSIVE, 0.0)
    assert "16 answers of base end after 20 of 32 tokens" in verdict.reason


@pytest.mark.parametrize(("early", "outcome"), [(3, Outcome.PASS), (4, Outcome.INCONCLUSIVE)])
def test_one_pair_in_twenty_may_end_early_alike_and_that_is_said(make: Factory, early: int, outcome: Outcome) -> None:
    both = [answer_of(20)] * early + [answer_of(LIMIT)] * (64 - early)
    text, repeat = check.text(margin=0.05).judge(evidence(make, both, ours=both))

    assert (text.outcome, repeat.outcome) == (outcome, outcome)
    told = [text.reason] if text.reason else [*text.remarks]
    assert f"{early} answers of base end after 20 of 32 tokens" in told[0]


def test_what_parts_before_both_end_early_fails_all_the_same(make: Factory) -> None:
    both, parting = [answer_of(20)] * 64, [answer_of(20, fork=0)] * 64
    text, _ = check.text(margin=0.05).judge(evidence(make, parting, ours=both))

    assert text.outcome is Outcome.FAIL


def test_answers_that_end_by_themselves_are_whole(make: Factory) -> None:
    both = [answer_of(20, finish_reason="stop")] * 64
    text, repeat = check.text(margin=0.05).judge(evidence(make, both, ours=both))

    assert (text.outcome, repeat.outcome) == (Outcome.PASS, Outcome.PASS)


def test_the_shorter_answers_of_a_noise_floor_reached_their_limit(make: Factory) -> None:
    main, again = [answer_of(64, limit=64)] * 64, [answer_of(LIMIT)] * 64
    engine = make.engine("base", main, cold=again, warm=again, parallel=again)
    text, repeat = check.text(margin=0.05).judge(
        make.evidence(engine, make.engine("cand", main, cold=again, warm=again, parallel=again), cases=64)
    )

    assert (text.outcome, repeat.outcome) == (Outcome.PASS, Outcome.PASS)
    assert (text.remarks, repeat.remarks, text.differs) == ((), (), ())


def test_a_shift_is_not_measured_on_two_tokens(make: Factory) -> None:
    whole, short = with_logprobs(answer_of(LIMIT)), with_logprobs(answer_of(2))
    (verdict,) = check.logprobs(shift=0.06).judge(evidence(make, [short] * 16, ours=[whole] * 16))

    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, f"nothing was compared: 16 {EARLY}")
    assert any(line.startswith("answers end early: cand") for line in verdict.differs)


def test_a_shift_on_as_many_tokens_as_a_floor_has_stands() -> None:
    whole, short = (with_logprobs(answer_of(n, limit=256)) for n in (256, 32))

    assert find_shift(whole, short) is not None
    assert find_shift(whole, with_logprobs(answer_of(31, limit=256))) is None
    assert find_shift(whole, with_logprobs(answer_of(20, fork=10, limit=256))) is not None, "they part before that"


def test_tool_calls_and_conversations_that_end_early_say_as_little(make: Factory) -> None:
    turn = answer_of(LIMIT, finish_reason="stop")
    whole, short = (msgspec.structs.replace(answer_of(n), turns=(turn,), results=("sunny",)) for n in (LIMIT, 2))
    long = msgspec.structs.replace(turn, text="a" * 40, completion_tokens=40)

    assert text_of(evidence(make, [short] * 64, ours=[whole] * 64), horizon=64).outcome is Outcome.INCONCLUSIVE
    settled = [msgspec.structs.replace(answer, turns=(long,)) for answer in (whole, short)]
    assert text_of(evidence(make, settled[1:] * 64, ours=settled[:1] * 64)).outcome is Outcome.PASS, "32 tokens before"


def test_golden_answers_that_end_early_are_no_agreement_either(make: Factory) -> None:
    engine = make.engine("base", [answer_of(2)] * 64, golden="base")
    verdict = text_of(make.evidence(engine, make.engine("cand", [answer_of(LIMIT)] * 64), cases=64))

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "64 answers of base end after 2 of 32 tokens" in verdict.reason


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 31)), st.integers(0, LIMIT)), min_size=12, max_size=40),
    st.sampled_from([0.05, 0.12, 0.3]),
)
def test_ending_a_candidates_answers_earlier_never_turns_fail_into_pass(
    answers: list[tuple[int | None, int]], margin: float
) -> None:
    make = Factory()
    whole, short = (
        text_of(evidence(make, [answer_of(min(LIMIT, n if cut else LIMIT), fork=fork) for fork, n in answers]), margin)
        for cut in (False, True)
    )

    assert (whole.outcome, short.outcome) != (Outcome.FAIL, Outcome.PASS)


def test_drift_does_not_go_away_because_answers_end_early(make: Factory) -> None:
    """Six of sixteen answers still drift no more; the other ten say nothing any more."""
    asked = check.text(margin=0.05)

    def of(theirs: list[Completion]) -> Drift:
        drift = drift_of(asked, "text", evidence(make, theirs).about(evidence(make, theirs).prompts))
        assert drift is not None
        return drift

    before = of([answer_of(LIMIT, fork=3)] * 16)
    short, whole = of([answer_of(2)] * 10 + [answer_of(LIMIT)] * 6), of([answer_of(LIMIT)] * 16)

    assert len(short.silent) == 10
    assert (effect(before, short).outcome, effect(before, short).after) == ("stays", 0.0)
    assert effect(before, whole).gone


def test_the_phases_of_a_floor_know_it_too(make: Factory) -> None:
    """A baseline whose repeats end early has no noise floor, so nothing fails beside it."""
    ours, theirs = [answer_of(LIMIT)] * 64, [answer_of(LIMIT, fork=0)] * 64
    early = [answer_of(2)] * 64
    baseline = make.engine("base", ours, cold=early, warm=early, parallel=early)
    verdict = text_of(make.evidence(baseline, make.engine("cand", theirs), cases=64))

    assert baseline.answers(Phase.COLD)
    assert (verdict.outcome, verdict.reason) == (
        Outcome.INCONCLUSIVE,
        "what base differs from itself was not measured",
    )
