"""Forks that an accepted shift explains: which they are, what is left when they do not count, and the error rates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity import check
from pytest_llmparity.core.checks.drift.text import TextCheck
from pytest_llmparity.core.compare.answers import AT_FORKS, Fork, by_shift, find_fork, without_tie
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.sample import Completion, TokenLogprob
from pytest_llmparity.core.stats.hazard import hazard
from pytest_llmparity.core.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from tests.core.conftest import Factory

SHIFT = 0.06
NEAR = check.text(margin=0.05, ignore="near-ties", shift=SHIFT)


def answer(make: Factory, *, fork: int | None = None, lead: float = 0.5, logprobs: bool = True) -> Completion:
    """32 tokens; at a fork another one, which leads by so much over what the baseline says."""
    tokens = ["a"] * 32 if fork is None else ["a"] * fork + ["b"] * (32 - fork)
    entries = []
    for at, token in enumerate(tokens):
        by = lead if at == fork else 0.05  # the baseline's own lead
        other = "a" if token == "b" else "b"
        top = ((token.encode(), -0.1), (other.encode(), -0.1 - by))
        entries.append(TokenLogprob(token=token.encode(), logprob=-0.1, top=top))
    return make.cut("".join(tokens), logprobs=tuple(entries) if logprobs else ())


def judge(
    make: Factory,
    theirs: list[Completion],
    *,
    asked: TextCheck = NEAR,
    again: list[Completion] | None = None,
    ours: Completion | None = None,
) -> list[Verdict]:
    first = [ours or answer(make)] * len(theirs)
    repeats = first if again is None else again
    baseline = make.engine("base", first, cold=repeats, warm=repeats, parallel=repeats)
    candidate = make.engine("cand", theirs, cold=theirs, warm=theirs, parallel=theirs)
    return asked.judge(make.evidence(baseline, candidate, cases=len(theirs)))


def test_it_is_known_how_far_the_lead_moved_at_a_fork(make: Factory) -> None:
    fork = find_fork(answer(make), answer(make, fork=4, lead=0.02), horizon=32)

    assert (fork.token, fork.grade) == (4, "near-tie")
    assert fork.moved == pytest.approx(0.05 + 0.02)
    assert find_fork(answer(make), answer(make, fork=4, logprobs=False), horizon=32).moved is None


def test_near_ties_are_not_counted_and_that_is_said(make: Factory) -> None:
    text, repeat = judge(make, [answer(make, fork=3, lead=0.05)] * 40 + [answer(make, fork=3, lead=2.0)] * 2)

    assert text.outcome is Outcome.PASS
    assert text.message.startswith("PASS text, cand against base: 1.19 % of tokens fork, near-ties aside, at most ")
    assert text.remarks == (
        "40 of 42 forks near-ties and not counted: the lead moved by at most 0.218 nats there, 3.63 times the accepted "
        "shift (0.06 nats)",
    )
    assert [difference.counted for difference in text.differing] == [False] * 40 + [True] * 2
    assert repeat.outcome is Outcome.PASS
    (plain, _) = judge(make, [answer(make, fork=3, lead=0.05)] * 40, asked=check.text(margin=0.05))
    assert plain.outcome is Outcome.FAIL


def test_other_forks_count_however_far_the_candidate_has_drifted(make: Factory) -> None:
    """The bound is that of what was accepted: a candidate with large movements everywhere does not widen it."""
    text, _ = judge(make, [answer(make, fork=2, lead=1.5)] * 40)

    assert text.outcome is Outcome.FAIL
    assert text.remarks[0].startswith("0 of 40 forks near-ties")


def test_a_pair_that_shifts_by_more_than_was_accepted_does_not_pass(make: Factory) -> None:
    """Its forks may be where nothing decides, as at the beginning of a story."""
    ours = answer(make)

    def drifted(by: float) -> Completion:
        moved = [TokenLogprob(token=b"a", logprob=-0.1, top=((b"a", -0.1), (b"b", -0.15 - by))) for _ in range(32)]
        moved[20:] = [TokenLogprob(token=b"b", logprob=-0.1, top=((b"b", -0.1), (b"a", -0.11)))] * 12
        return make.cut("a" * 20 + "b" * 12, logprobs=tuple(moved))

    assert ours.logprobs[0].top[1][1] == pytest.approx(-0.15)
    honest, drifting = (judge(make, [drifted(by)] * 40)[0] for by in (0.02, 0.4))

    assert (honest.outcome, honest.estimate) == (Outcome.PASS, 0.0)
    assert (drifting.outcome, drifting.estimate) == (Outcome.INCONCLUSIVE, 0.0)
    assert drifting.message.endswith(
        "the pair shifts by at least 0.4 nats, and near-ties of 0.06 nats were accepted: they do not explain its forks"
    )


def test_forks_without_logprobs_count(make: Factory) -> None:
    text, _ = judge(make, [answer(make, fork=2, lead=0.01, logprobs=False)] * 40)

    assert text.outcome is Outcome.FAIL
    assert text.remarks[0].endswith("; 40 forks without logprobs counted")


def sampled(make: Factory, *, at: int = 0, more: int = 0, by: float = 3.0) -> Completion:
    """The very logprobs of ``answer(make)``, of which at one token (and ``more`` behind) the worse was taken."""
    taken = range(at, at + 1 + more)
    entries = []
    for place in range(32):
        lead = by if place in taken else 0.05
        token, logprob = (b"b", -0.1 - lead) if place in taken else (b"a", -0.1)
        entries.append(TokenLogprob(token=token, logprob=logprob, top=((b"a", -0.1), (b"b", -0.1 - lead))))
    return make.cut("".join(entry.token.decode() for entry in entries), logprobs=tuple(entries))


def led(make: Factory, by: float) -> Completion:
    """An answer whose first token leads by so much."""
    (first, *others) = answer(make).logprobs
    first = TokenLogprob(token=first.token, logprob=-0.1, top=((b"a", -0.1), (b"b", -0.1 - by)))
    return make.cut("a" * 32, logprobs=(first, *others))


@pytest.mark.parametrize("by", [3.0, 0.01])
def test_a_token_that_is_not_its_engines_best_is_no_near_tie(make: Factory, by: float) -> None:
    """Equal logprobs: no lead moved, and the candidate takes the worse token, as with a temperature or a penalty."""
    fork = by_shift(find_fork(led(make, by), sampled(make, by=by), horizon=32), SHIFT)
    text, repeat = judge(make, [sampled(make, by=by)] * 40, ours=led(make, by))

    assert (fork.grade, fork.moved) == ("rank shift", math.inf)
    assert text.outcome is Outcome.FAIL
    assert text.remarks[0].startswith("0 of 40 forks near-ties and not counted")
    assert repeat.outcome is Outcome.PASS, "it repeats itself"


def test_a_lead_that_was_rounded_on_its_way_is_one(make: Factory) -> None:
    assert by_shift(find_fork(led(make, 5e-5), sampled(make, by=5e-5), horizon=32), SHIFT).grade == "near-tie"


def test_where_logprobs_are_not_those_of_the_tokens_every_fork_counts(make: Factory) -> None:
    """Also those that would be near-ties: at two in 32 places the chosen token is not the best one."""
    entries = [*answer(make, fork=2, lead=0.02).logprobs[:4], *sampled(make, at=4, more=1).logprobs[4:]]
    odd = make.cut("".join(entry.token.decode() for entry in entries), logprobs=tuple(entries))
    assert by_shift(find_fork(answer(make), odd, horizon=32), SHIFT).grade == "near-tie"

    text, repeat = judge(make, [odd] * 40)
    (passing, _) = judge(make, [odd] * 40, asked=check.text(margin=0.9, ignore="near-ties", shift=1e-6))

    assert text.outcome is Outcome.FAIL
    assert passing.outcome is Outcome.PASS, "nothing was left aside that a shift would have to explain"
    assert not any("aside" in verdict.message for verdict in (text, repeat, passing))
    assert text.remarks == (
        "near-ties are not left aside, all forks counted: logprobs of cand do not have the chosen token as the best "
        "one in 80 of 1280 places: they come after a penalty or filter, or belong to another token",
    )
    (plain, _) = judge(make, [answer(make, fork=2, lead=0.02)] * 40)
    assert plain.outcome is Outcome.PASS


def test_a_noise_floor_of_near_ties_is_none(make: Factory) -> None:
    """Where only near-ties part the baseline from itself, drift beyond them is drift."""
    noisy = [answer(make, fork=1, lead=0.02)] * 40
    text, repeat = judge(make, [answer(make, fork=2, lead=2.0)] * 40, again=noisy)

    assert (text.outcome, text.floor) == (Outcome.FAIL, 0.0)
    assert repeat.outcome is Outcome.PASS


def test_without_an_accepted_shift_there_is_nothing_to_go_by(make: Factory) -> None:
    asked = check.text(margin=0.05, ignore="near-ties")
    (text,) = judge(make, [answer(make, fork=2)] * 40, asked=asked)

    assert asked.needs().accepted
    assert not NEAR.needs().accepted
    assert text.outcome is Outcome.INCOMPARABLE
    assert text.reason == (
        "llmparity.lock has no margin for this pair; run: llmparity calibrate base cand, or give "
        'check.text(ignore="near-ties", shift=…)'
    )


def test_with_tags_near_ties_are_ignored_there_too(make: Factory) -> None:
    cases = [make.case(index, tags=("poem",) if index % 2 else ("json",)) for index in range(40)]
    ours = [answer(make)] * 40
    theirs = [answer(make, fork=1, lead=0.02)] * 40
    evidence = make.evidence(
        make.engine("base", ours, cold=ours, warm=ours, parallel=ours), make.engine("cand", theirs), cases=cases
    )
    verdicts = check.text(margin=0.06, by="tag", ignore="near-ties", shift=SHIFT).judge(evidence)

    assert {verdict.kind: verdict.estimate for verdict in verdicts if verdict.tag} == {
        "text[json]": 0.0,
        "text[poem]": 0.0,
    }
    for verdict in verdicts:
        if verdict.tag:
            assert verdict.remarks[-1].startswith("20 of 20 forks near-ties and not counted: the lead moved by at most")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"ignore": "ties"}, 'ignore must be "near-ties"'),
        ({"shift": 0.06}, 'give ignore="near-ties" too'),
        ({"ignore": "near-ties", "shift": 0.0}, "shift is a number of nats above 0"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_written(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(DesignError, match=words):
        check.text(**arguments)  # type: ignore[arg-type]


forks = st.builds(
    Fork,
    forked=st.booleans(),
    at_risk=st.floats(0, 32),
    grade=st.sampled_from([None, "near-tie", "rank shift", "outside top-k"]),
    moved=st.one_of(st.none(), st.just(math.inf), st.floats(0, 5)),
)
shifts = st.floats(0.001, 2.0)


@given(forks, shifts, shifts)
def test_a_larger_accepted_shift_never_counts_more(fork: Fork, shift: float, another: float) -> None:
    small, large = sorted((shift, another))

    assert without_tie(by_shift(fork, large)).forked <= without_tie(by_shift(fork, small)).forked
    assert without_tie(by_shift(fork, small)).at_risk == fork.at_risk


@given(forks, shifts)
def test_nothing_is_forgiven_of_which_nobody_knows_how_far_it_moved(fork: Fork, shift: float) -> None:
    unknown = by_shift(Fork(forked=True, at_risk=fork.at_risk, grade=fork.grade), shift)
    unlisted = by_shift(Fork(forked=True, at_risk=fork.at_risk, grade=fork.grade, moved=math.inf), shift)

    assert without_tie(unknown).forked
    assert without_tie(unlisted).forked


# sizes ---------------------------------------------------------------------------------------------------------------


def forking(
    rng: np.random.Generator, n: int, *, drift: float, leads: float
) -> tuple[list[bool], list[float], list[bool]]:
    """Return forks, tokens at risk and near-ties of answers of 32 tokens; the median movement of a lead is ``drift``.

    Leads are exponential of mean ``leads``; a fork is where a lead, moved by a normal amount, is none any more.
    """
    lead = rng.exponential(leads, (n, 32))
    moved = rng.normal(0.0, drift / 0.67449, (n, 32))
    parts = moved < -lead
    first = np.where(parts.any(axis=1), parts.argmax(axis=1), 32)
    forked = first < 32
    at = np.minimum(first, 31)
    near = forked & (np.abs(moved[np.arange(n), at]) <= AT_FORKS * SHIFT)
    return forked.tolist(), np.minimum(first + 1.0, 32.0).tolist(), near.tolist()


@pytest.mark.parametrize(
    ("drift", "forgiven"), [(0.5 * SHIFT, 1.0), (SHIFT, 0.95), (2 * SHIFT, 0.53), (5 * SHIFT, 0.11)]
)
def test_as_many_forks_are_near_ties_as_the_movement_leaves(drift: float, forgiven: float) -> None:
    """As Rayleigh's distribution has it where leads near nothing are equally frequent; 40,000 answers."""
    forked, _, near = forking(np.random.default_rng(4), 40_000, drift=drift, leads=4.0)

    assert sum(near) / sum(forked) == pytest.approx(forgiven, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("drift", "passes", "fails"),
    [
        (0.5 * SHIFT, (0.99, 1.0), (0.0, 0.01)),  # honest, on prompts on which it forks at 3.7 % of tokens
        (SHIFT, (0.95, 1.0), (0.0, 0.01)),  # as far as is accepted: 7.3 %
        (2 * SHIFT, (0.15, 0.35), (0.0, 0.1)),  # beyond it: check.logprobs() is what fails that
        (5 * SHIFT, (0.0, 0.0), (0.99, 1.0)),
    ],
)
def test_an_honest_pair_passes_where_it_forks_often_and_a_drifting_one_fails(
    drift: float, passes: tuple[float, float], fails: tuple[float, float]
) -> None:
    """64 prompts whose leads are small (mean 0.65 nats), a margin of 5 %, 300 seeded draws."""
    passed, failed = settled(drift=drift, leads=0.65)

    assert passes[0] <= passed <= passes[1]
    assert fails[0] <= failed <= fails[1]


@pytest.mark.slow
@pytest.mark.parametrize("drift", [2 * SHIFT, 5 * SHIFT])
def test_where_what_is_left_forks_as_often_as_is_accepted_one_run_of_twenty_is_wrong(drift: float) -> None:
    def left(leads: float) -> float:
        forked, at_risk, near = forking(np.random.default_rng(8), 20_000, drift=drift, leads=leads)
        return (sum(forked) - sum(near)) / sum(at_risk) - 0.05

    passed, failed = settled(drift=drift, leads=float(scipy.optimize.brentq(left, 0.2, 20.0, xtol=1e-3)))
    slack = 3 * math.sqrt(0.05 * 0.95 / 300)

    assert passed <= 0.05 + slack
    assert failed <= 0.05 + slack


def settled(*, drift: float, leads: float) -> tuple[float, float]:
    """Return how often 64 prompts pass and fail at 5 % with near-ties aside; 300 draws."""
    rng, groups = np.random.default_rng(6), list(map(str, range(64)))
    passed = failed = 0
    for _ in range(300):
        forked, at_risk, near = forking(rng, 64, drift=drift, leads=leads)
        counted = [fork and not tie for fork, tie in zip(forked, near, strict=True)]
        result = hazard(counted, at_risk, groups, margin=0.05)
        passed += result.upper < 0.05
        failed += result.lower > 0.05
    return passed / 300, failed / 300
