from __future__ import annotations

import dataclasses
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.checks.family import holm, settle
from pytest_llmparity.core.stats.hazard import hazard
from pytest_llmparity.core.verdict import Outcome, Verdict

OUTCOMES = st.sampled_from([Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.ERROR])


def verdict(outcome: Outcome, p_fail: float | None, **changes: object) -> Verdict:
    made = Verdict(
        test="t", check="text()", kind="text", engine="b", baseline="a", outcome=outcome, p_fail=p_fail, estimate=0.08
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def outcomes(verdicts: list[Verdict]) -> list[Outcome]:
    return [settled.outcome for settled in settle(verdicts, 0.05)]


def test_one_clear_failure_stays_one() -> None:
    assert outcomes([verdict(Outcome.FAIL, 0.04)]) == [Outcome.FAIL]
    assert outcomes([verdict(Outcome.FAIL, 0.001)] + [verdict(Outcome.PASS, 1.0)] * 9) == [
        Outcome.FAIL,
        *[Outcome.PASS] * 9,
    ]


def test_a_narrow_failure_among_many_judgements_is_left_open_and_says_so() -> None:
    (first, second) = settle(
        [verdict(Outcome.FAIL, 0.04, reason="it does not repeat itself"), verdict(Outcome.PASS, 1.0)], 0.05
    )

    assert first.outcome is Outcome.INCONCLUSIVE
    assert first.reason == (
        "it does not repeat itself; alone it would fail, but with 1 other judgement in this test that happens too "
        "often by chance"
    )
    assert first.message.startswith("INCONCLUSIVE text, b against a: ")
    assert first.message.endswith(first.reason)
    assert second == dataclasses.replace(verdict(Outcome.PASS, 1.0), p_family=1.0, family=2)
    assert settle([verdict(Outcome.FAIL, 0.04), verdict(Outcome.PASS, 0.9)], 0.05)[0].reason.startswith("alone it")


def test_several_failures_help_each_other_step_by_step() -> None:
    assert outcomes([verdict(Outcome.FAIL, 0.01), verdict(Outcome.FAIL, 0.04)]) == [Outcome.FAIL, Outcome.FAIL]
    assert outcomes([verdict(Outcome.FAIL, 0.03), verdict(Outcome.FAIL, 0.04)]) == [Outcome.INCONCLUSIVE] * 2


def test_verdicts_still_to_come_count_as_judgements() -> None:
    (first,) = settle([verdict(Outcome.FAIL, 0.02, kind="schema.gap")], 0.05, to_come=1.0)
    (second,) = settle([verdict(Outcome.FAIL, 0.02, kind="schema.gap")], 0.05, to_come=2.0)

    assert (first.outcome, second.outcome) == (Outcome.FAIL, Outcome.INCONCLUSIVE)


def test_drift_from_the_baseline_has_most_of_what_the_two_verdicts_of_a_text_check_share() -> None:
    repeats = verdict(Outcome.PASS, 1.0, kind="text.repeat")

    assert outcomes([verdict(Outcome.FAIL, 0.044), repeats]) == [Outcome.FAIL, Outcome.PASS]
    assert outcomes([verdict(Outcome.FAIL, 0.046), repeats]) == [Outcome.INCONCLUSIVE, Outcome.PASS]
    assert outcomes([verdict(Outcome.PASS, 1.0), verdict(Outcome.FAIL, 0.004, kind="text.repeat")])[1] is Outcome.FAIL
    assert outcomes([verdict(Outcome.PASS, 1.0), verdict(Outcome.FAIL, 0.006, kind="text.repeat")])[1] is not (
        Outcome.FAIL
    )


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.05, 5.0)), min_size=1, max_size=6), st.floats(0.01, 0.2))
def test_weighted_holm_is_the_closed_test_of_weighted_bonferroni(
    tests: list[tuple[float, float]], alpha: float
) -> None:
    p, weights = [value for value, _ in tests], [weight for _, weight in tests]

    def rejected(chosen: tuple[int, ...]) -> bool:
        return any(p[index] <= alpha * weights[index] / sum(weights[i] for i in chosen) for index in chosen)

    subsets = [chosen for size in range(1, len(p) + 1) for chosen in itertools.combinations(range(len(p)), size)]
    for index, adjusted in enumerate(holm(p, weights)):
        if abs(adjusted - alpha) > 1e-9:
            assert (adjusted <= alpha) is all(rejected(chosen) for chosen in subsets if index in chosen)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0]])
def test_weights_are_positive_and_one_for_each(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="2 p-values take as many positive weights"):
        holm([0.1, 0.2], weights)


def test_a_judgement_carries_its_corrected_p_value_and_how_many_it_was_corrected_among() -> None:
    settled = settle([verdict(Outcome.FAIL, 0.01), verdict(Outcome.PASS, 0.4), verdict(Outcome.FAIL, None)], 0.05)

    assert [(v.p_family, v.family) for v in settled] == [(0.02, 2), (0.4, 2), (None, 0)]


def test_exact_findings_are_untouched() -> None:
    exact = verdict(Outcome.FAIL, None)
    assert settle([exact, verdict(Outcome.FAIL, 0.001)], 0.05)[0] is exact
    assert settle([], 0.05) == []


def test_a_verdict_after_another_look_keeps_its_smaller_alpha() -> None:
    assert outcomes([verdict(Outcome.FAIL, 0.02, alpha=0.0125)]) == [Outcome.INCONCLUSIVE]


@given(st.lists(st.tuples(OUTCOMES, st.none() | st.floats(0, 1))))
def test_only_failures_change_and_only_into_inconclusive(given_: list[tuple[Outcome, float | None]]) -> None:
    before = [verdict(outcome, p) for outcome, p in given_]
    for old, new in zip(before, settle(before, 0.05), strict=True):
        if old.outcome is Outcome.FAIL and old.p_fail is not None:
            assert new.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)
            assert new.outcome is Outcome.INCONCLUSIVE or old.p_fail < 0.05
        else:
            assert dataclasses.replace(new, p_family=None, family=0) == old
            assert (new.family > 0) == (new.p_fail is not None)


@pytest.mark.slow
def test_ten_judgements_exactly_at_their_margins_fail_a_test_in_at_most_one_run_of_twenty() -> None:
    rng = random.Random(11)
    failed = 0
    for _ in range(200):
        verdicts = []
        for _ in range(10):
            at = [next((t for t in range(32) if rng.random() < 0.05), 32) for _ in range(40)]
            result = hazard(
                [t < 32 for t in at], [min(t + 1, 32) for t in at], [str(i) for i in range(40)], margin=0.05
            )
            verdicts.append(verdict(Outcome.FAIL if result.lower > 0.05 else Outcome.PASS, result.p_fail))
        failed += Outcome.FAIL in outcomes(verdicts)
    assert failed <= 18  # 5 % of 200 is 10; above 18 has a chance below 1 %


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([0.5], [0.5]),
        ([1.0, 1.0], [1.0, 1.0]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.24, 0.31, 0.3, 0.05], [0.72, 0.72, 0.72, 0.2]),
        ([0.02, 0.02, 0.9, 0.0, 1.0], [0.08, 0.08, 1.0, 0.0, 1.0]),
        ([0.013, 0.012, 0.0124, 0.011, 0.2, 0.049, 0.0125], [0.077, 0.077, 0.077, 0.077, 0.2, 0.098, 0.077]),
    ],
)
def test_holm_is_what_statsmodels_makes_of_it(p: list[float], adjusted: list[float]) -> None:
    """Values of ``multipletests(p, method="holm")`` of statsmodels 0.14, which takes seconds to import."""
    assert holm(p) == pytest.approx(adjusted, abs=1e-12)


def test_no_tests_no_values() -> None:
    assert holm([]) == []


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_what_is_no_p_value_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"lies in 0\.\.1"):
        holm([0.5, wrong])
