"""Whether drift has gone: the check's own verdict on the same prompts, and a paired test over them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest
import scipy

from pytest_llmparity import check
from pytest_llmparity.core.diagnosis.effects import NOTHING, Drift, drift_of, effect, noise_of
from pytest_llmparity.core.sample import Completion, TokenLogprob
from pytest_llmparity.core.stats.medians import sign_test
from pytest_llmparity.core.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from tests.core.conftest import Factory


def drift(
    by_case: Mapping[str, float],
    outcome: Outcome = Outcome.FAIL,
    *,
    estimate: float = 0.2,
    groups: Mapping[str, str] | None = None,
) -> Drift:
    verdict = Verdict(
        test="t", check="c", kind="text", engine="b", baseline="a", outcome=outcome, estimate=estimate, margin=0.05
    )
    return Drift(verdict=verdict, by_case=by_case, groups=groups or {})


def cases(*values: float) -> dict[str, float]:
    return {f"c{place}": value for place, value in enumerate(values)}


@pytest.mark.parametrize(("fell", "rose"), list(itertools.product((0, 1, 5, 9, 16), (0, 1, 4))))
def test_the_sign_test_is_the_binomial_test_of_scipy(fell: int, rose: int) -> None:
    before = cases(*[1.0] * fell, *[0.0] * rose, *[0.5] * 3)
    after = cases(*[0.0] * fell, *[1.0] * rose, *[0.5] * 3)

    p, n = sign_test(before, after)

    assert n == fell + rose + 3
    expected = scipy.stats.binomtest(fell, fell + rose, alternative="greater").pvalue if fell + rose else 1.0
    assert p == pytest.approx(expected, abs=1e-9)


def test_drift_has_gone_where_the_check_passes_and_the_prompts_agree() -> None:
    before = drift(cases(*[0.5] * 12))

    assert effect(before, drift(cases(*[0.0] * 12), Outcome.PASS)).gone
    assert effect(before, drift(cases(*[0.1] * 12), Outcome.INCONCLUSIVE)).outcome == "less", "above the margin"
    few = drift(cases(*[0.0] * 12), Outcome.INCONCLUSIVE, estimate=0.0)
    assert effect(before, few).gone, "too few prompts to pass, and nothing is left"
    assert effect(before, drift(cases(*[0.0] * 4, *[0.5] * 8), Outcome.PASS)).outcome == "stays", "four may be chance"


def test_prompts_of_one_group_are_one_piece_of_evidence() -> None:
    before, after = cases(*[0.5] * 16), cases(*[0.0] * 16)
    four = {case: f"g{place % 4}" for place, case in enumerate(before)}

    of_four = effect(drift(before, groups=four), drift(after, Outcome.PASS, groups=four))
    by_itself = effect(drift(before), drift(after, Outcome.PASS))

    assert (of_four.groups, of_four.n, of_four.p, of_four.outcome) == (4, 16, 1 / 16, "stays")
    assert (by_itself.groups, by_itself.outcome) == (16, "gone")
    mixed = cases(*[0.0] * 8, *[1.0, 0.0] * 4)  # of a group whose prompts go both ways the mean counts
    eight = {case: f"g{place // 2}" for place, case in enumerate(before)}
    assert effect(drift(before, groups=eight), drift(mixed, groups=eight)).p == 1 / 16


@pytest.mark.parametrize("hazard", [0.04, 0.08])
def test_groups_that_drift_as_one_name_nothing_by_chance(hazard: float) -> None:
    """Four prompts of each of four groups, answered alike or not together: sixteen prompts by themselves would."""
    rng, runs = random.Random(20261129), 200
    groups = {case: f"g{place // 4}" for place, case in enumerate(cases(*[0.0] * 16))}

    def asked() -> Drift:
        at = [next((t for t in range(1, 33) if rng.random() < hazard), 0) for _ in range(4)]
        forks, tokens = 4 * sum(map(bool, at)), 4 * sum(token or 32 for token in at)
        outcome = Outcome.PASS if forks / tokens < 0.02 else Outcome.FAIL if forks / tokens > 0.08 else None
        values = [1.0 / token if token else 0.0 for token in at for _ in range(4)]
        return drift(cases(*values), outcome or Outcome.INCONCLUSIVE, estimate=forks / tokens, groups=groups)

    def named() -> bool:
        control = asked()
        effects = (effect(control, asked()) for _ in range(10))
        return control.above and any(each.gone or each.less for each in effects)

    assert sum(named() for _ in range(runs)) <= 0.05 * runs + 2 * (0.05 * 0.95 * runs) ** 0.5


def test_by_five_in_a_hundred_only_what_failed_has_gone() -> None:
    """Drift that is above the margin by chance is below it again by chance."""
    before, after = cases(*[0.5] * 5, *[0.0] * 11), drift(cases(*[0.0] * 16), Outcome.PASS, estimate=0.0)

    assert effect(drift(before), after).gone
    assert not effect(drift(before, Outcome.INCONCLUSIVE), after).gone


@pytest.mark.parametrize("hazard", [0.03, 0.04, 0.05, 0.08])
def test_ten_experiments_that_change_nothing_name_something_in_one_of_twenty_runs_at_most(hazard: float) -> None:
    rng, runs = random.Random(20261128), 200

    def asked() -> Drift:
        at = [next((token for token in range(1, 33) if rng.random() < hazard), 0) for _ in range(16)]
        forks, tokens = sum(map(bool, at)), sum(token or 32 for token in at)
        estimate, bounds = forks / tokens, rate(forks, tokens)
        outcome = Outcome.PASS if bounds[1] < 0.05 else Outcome.FAIL if bounds[0] > 0.05 else Outcome.INCONCLUSIVE
        return drift(cases(*[1.0 / token if token else 0.0 for token in at]), outcome, estimate=estimate)

    def named() -> bool:
        control = asked()
        effects = (effect(control, asked()) for _ in range(10))
        return control.above and any(each.gone or each.less for each in effects)

    assert sum(named() for _ in range(runs)) <= 0.05 * runs + 2 * (0.05 * 0.95 * runs) ** 0.5


def rate(events: int, total: int) -> tuple[float, float]:
    """Bounds of a Poisson rate, each of 95 % (Garwood 1936)."""
    least, most = counts(events)
    return least / total, most / total


@functools.cache
def counts(events: int) -> tuple[float, float]:
    """Bounds of how many events are to be expected where so many were."""
    return scipy.stats.chi2.ppf(0.05, 2 * events) / 2 if events else 0.0, scipy.stats.chi2.ppf(0.95, 2 * events + 2) / 2


def test_less_is_asked_at_a_tenth_of_the_error_rate() -> None:
    before = drift(cases(*[0.5] * 16))

    assert not effect(before, drift(cases(*[0.0] * 7, *[0.5] * 9))).less
    assert effect(before, drift(cases(*[0.0] * 8, *[0.5] * 8))).less
    assert not effect(before, drift(cases(*[0.0] * 10, *[1.0] * 2, *[0.5] * 4))).less


def test_only_drift_beyond_the_margin_is_looked_into() -> None:
    assert drift({}).above
    assert drift({}, Outcome.INCONCLUSIVE).above
    assert not drift({}, Outcome.INCONCLUSIVE, estimate=0.04).above
    assert not drift({}, Outcome.PASS).above


def test_where_nothing_is_left_of_what_failed_five_groups_are_enough_and_four_are_not() -> None:
    def left(groups: int) -> str:
        before, after = drift(cases(*[0.5] * groups)), drift(cases(*[0.0] * groups), Outcome.INCONCLUSIVE, estimate=0.0)
        return effect(before, after).outcome

    assert [left(groups) for groups in (4, 5)] == ["stays", "gone"]


def test_what_lies_beyond_the_margin_by_its_bound_fails_also_where_no_floor_was_measured() -> None:
    open_verdict = drift(cases(*[0.5] * 6), Outcome.INCONCLUSIVE, estimate=0.4)
    beyond = dataclasses.replace(open_verdict, verdict=dataclasses.replace(open_verdict.verdict, lower=0.13))
    within = dataclasses.replace(open_verdict, verdict=dataclasses.replace(open_verdict.verdict, lower=0.03))
    after = drift(cases(*[0.0] * 6), Outcome.PASS, estimate=0.0)

    assert (beyond.fails, within.fails) == (True, False)
    assert (effect(beyond, after).outcome, effect(within, after).outcome) == ("gone", "stays")


def said_at(make: Factory, *, fork: int | None, lead: float) -> Completion:
    """16 tokens, ``a`` by 0.05 nats; from the fork on ``b``, which leads by so much there."""
    entries = []
    for at in range(16):
        token, other = ("a", "b") if fork is None or at < fork else ("b", "a")
        by = lead if at == fork else 0.05
        top = ((token.encode(), -0.1), (other.encode(), -0.1 - by))
        entries.append(TokenLogprob(token=token.encode(), logprob=-0.1, top=top))
    return make.cut("".join(entry.token.decode() for entry in entries), logprobs=tuple(entries))


def test_forks_that_the_check_leaves_aside_are_no_drift_that_went_away(make: Factory) -> None:
    """Twelve near-ties vanish, four forks stay: nothing of what the verdict counts is less."""
    same, tie, real = (said_at(make, fork=f, lead=by) for f, by in ((None, 0.0), (2, 0.02), (2, 2.0)))
    asked = check.text(margin=0.01, ignore="near-ties", shift=0.06, horizon=16)

    def of(theirs: list[Completion]) -> Drift | None:
        engines = make.engine("base", [same] * 16), make.engine("cand", theirs)
        return drift_of(asked, "text", make.evidence(*engines, cases=16))

    before, after = of([tie] * 12 + [real] * 4), of([same] * 12 + [real] * 4)

    assert before is not None
    assert after is not None
    assert sum(map(bool, before.by_case.values())) == 4
    assert (effect(before, after).p, effect(before, after).outcome) == (1.0, "stays")


def nats(*values: float, noise: float) -> Drift:
    made = drift(cases(*values))
    return dataclasses.replace(made, verdict=dataclasses.replace(made.verdict, kind="logprobs"), noise=noise)


def test_a_change_within_what_engines_differ_from_themselves_by_is_none() -> None:
    """A shift of 0.3 nats that is 0.0003 nats smaller on every prompt is no smaller."""
    before, hardly, clearly = (nats(*[0.3 - by] * 16, noise=0.002) for by in (0.0, 0.0003, 0.01))

    assert (effect(before, hardly).p, effect(before, hardly).outcome) == (1.0, "stays")
    assert effect(before, clearly).outcome == "less"


def test_a_late_fork_that_comes_or_goes_is_a_change_and_one_that_moves_by_little_is_none() -> None:
    late, later, never = (dataclasses.replace(drift(cases(*[by] * 16)), noise=0.05) for by in (1 / 30, 1 / 32, 0.0))

    assert effect(late, later).p == 1.0
    assert effect(late, never).outcome == "gone"
    assert effect(never, late).p == 1.0


def test_noise_is_what_either_engine_shifts_against_itself_or_the_noise_floor(make: Factory) -> None:
    engines = make.engine("a", ["x"]), make.engine("b", ["x"])
    evidence, own = make.evidence(*engines, cases=1), {"a": 0.004, "b": 0.02}
    text = dataclasses.replace(drift({}).verdict, floor=0.03)
    shift = dataclasses.replace(text, kind="logprobs")

    assert noise_of(evidence, text, lambda engine: own[engine.name]) == 0.03
    assert noise_of(evidence, shift, lambda engine: own[engine.name]) == 0.02
    assert noise_of(evidence, shift, lambda engine: None) == NOTHING
    assert noise_of(evidence, shift, lambda engine: 0.0) > 0.0003, "no change, also of engines that repeat themselves"
