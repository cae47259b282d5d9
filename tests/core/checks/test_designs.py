"""Every design judges shares, gaps and forks; what it returns is carried into a verdict whole."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.core.checks.designs import ONE_GROUP, Design, Fixed, Sequential, Single, design_of, judgement_of
from pytest_llmparity.core.compare.answers import Fork
from pytest_llmparity.core.stats.bounds import Bounds
from pytest_llmparity.core.stats.paired import Side
from pytest_llmparity.core.verdict import Judgement, Outcome, Verdict

if TYPE_CHECKING:
    from pytest_llmparity.core.prompts import Case
    from tests.core.conftest import Factory

SEQUENTIAL = Sequential(alpha=0.05, asked=100, cases=200, groups=100)
DESIGNS: list[Design] = [Fixed(alpha=0.05), SEQUENTIAL, Single()]


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: type(design).__name__)
def test_what_is_clear_is_clear_in_every_design(make: Factory, design: Design) -> None:
    def forks(forked: bool) -> list[tuple[object, Fork]]:
        return [(make.case(index), Fork(forked=forked, at_risk=1.0 if forked else 32.0)) for index in range(100)]

    good, bad = [
        (
            design.share([keeps] * 100, at_least=0.9),
            design.gap([0 if keeps else 1] * 100, margin=0.1, side="worse"),
            design.hazard(forks(not keeps), margin=0.05, horizon=32),  # type: ignore[arg-type]
        )
        for keeps in (True, False)
    ]

    assert [judgement.outcome for judgement in good] == [Outcome.PASS] * 3
    assert [judgement.outcome for judgement in bad] == [Outcome.FAIL] * 3
    assert {judgement.n for judgement in (*good, *bad)} == {100}


def test_evidence_says_which_design_it_is_of(make: Factory) -> None:
    engine = make.engine("a", ["x"])
    fixed, sequential, single = (
        design_of(make.evidence(engine, cases=4, sequential=number == 1, single=number == 2), asked=3)
        for number in range(3)
    )

    assert fixed == Fixed(alpha=0.05)
    assert sequential == Sequential(alpha=0.05, asked=3, cases=4, groups=4)
    assert single == Single()


def test_only_sequential_judgements_stay_open_and_say_how_far_they_came() -> None:
    fixed, sequential, single = (design.share([True, False] * 10, at_least=0.5) for design in DESIGNS)

    assert (fixed.open, fixed.sequence, single.open) == (False, "", False)
    assert (sequential.open, sequential.sequence) == (True, "sequential, stopped after 100 of 200 prompts")
    assert single.reason == "single"


def test_prompts_of_one_group_are_one_piece_of_evidence(make: Factory) -> None:
    forks = [(make.case(index, group="g"), Fork(forked=False, at_risk=32.0)) for index in range(100)]

    alike, first = (design.hazard(forks, margin=0.05, horizon=32) for design in (Fixed(alpha=0.05), SEQUENTIAL))

    assert (alike.outcome, alike.reason, alike.needed, alike.groups) == (Outcome.INCONCLUSIVE, ONE_GROUP, None, 1)
    assert (first.outcome, first.n) == (Outcome.INCONCLUSIVE, 1)


def in_groups(make: Factory, *sizes: int) -> list[Case]:
    names = [f"g{index}" for index, size in enumerate(sizes) for _ in range(size)]
    return [make.case(index, group=name) for index, name in enumerate(names)]


def test_one_case_of_each_group_counts_where_these_can_settle_it(make: Factory) -> None:
    cases = in_groups(make, *[5] * 30)

    share = Fixed(alpha=0.05).share([True] * 150, at_least=0.9, cases=cases)
    gap = Fixed(alpha=0.05).gap([0] * 150, margin=0.1, side="either", cases=cases)

    for judged in (share, gap):
        assert (judged.outcome, judged.n, judged.groups, judged.per_group) == (Outcome.PASS, 30, 30, True)
    assert share.lower == pytest.approx(0.05 ** (1 / 30))


def test_which_case_of_a_group_counts_hangs_on_nothing_but_its_id(make: Factory) -> None:
    cases = in_groups(make, *[2] * 40)
    kept = [index % 2 == 0 for index in range(80)]

    forward = Fixed(alpha=0.05).share(kept, at_least=0.9, cases=cases)
    backward = Fixed(alpha=0.05).share(kept[::-1], at_least=0.9, cases=cases[::-1])

    assert forward == backward
    assert 0.2 < (forward.estimate or 0) < 0.8  # neither all first ones nor all second ones


def test_a_case_that_says_nothing_leaves_its_turn_to_another_of_its_group(make: Factory) -> None:
    cases = in_groups(make, *[2] * 30)

    for silent in (0, 1):
        kept = [None if index % 2 == silent else True for index in range(60)]
        assert Fixed(alpha=0.05).share(kept, at_least=0.9, cases=cases).outcome is Outcome.PASS


def test_with_too_few_groups_all_cases_count_as_fewer(make: Factory) -> None:
    cases = in_groups(make, *[15] * 10)
    apart = [index % 15 != 0 for index in range(150)]  # one of each group
    together = [index >= 10 for index in range(150)]  # ten of one group

    spread, whole, perfect = (
        Fixed(alpha=0.05).share(kept, at_least=0.95, cases=cases) for kept in (apart, together, [True] * 150)
    )

    assert [judged.n for judged in (spread, whole, perfect)] == [150] * 3
    assert not spread.per_group
    assert 100 < spread.effective < 150
    assert whole.effective < 20
    assert (perfect.effective, perfect.outcome) == (10, Outcome.INCONCLUSIVE)
    assert (whole.lower or 0) < (spread.lower or 0)
    assert perfect.needed == 59 * 15


@pytest.mark.parametrize(("cases", "groups"), [(41, 7), (49, 5), (98, 13), (107, 28)])
def test_all_cases_of_few_groups_may_be_kept(make: Factory, cases: int, groups: int) -> None:
    """What they count for, times their share, was more than all of them by rounding, which was refused."""
    grouped = [make.case(index, group=f"g{index % groups}") for index in range(cases)]

    judgement = Fixed(alpha=0.05).share([True] * cases, at_least=0.95, cases=grouped)

    assert (judgement.estimate, judgement.effective) == (1.0, groups)


def test_a_gap_of_too_few_groups_counts_as_fewer(make: Factory) -> None:
    cases = in_groups(make, *[15] * 10)
    alone = Fixed(alpha=0.05).gap([0] * 149 + [1], margin=0.2, side="either")
    grouped = Fixed(alpha=0.05).gap([0] * 149 + [1], margin=0.2, side="either", cases=cases)
    torn = Fixed(alpha=0.05).gap([0] * 75 + [1] * 75, margin=0.2, side="worse", cases=cases)

    assert (alone.effective, grouped.n, grouped.groups) == (0, 150, 10)
    assert 0 < grouped.effective < 150
    assert (grouped.upper or 0) > (alone.upper or 0)
    assert torn.effective < 10
    assert torn.outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("wrong", "margin", "side"),
    [
        ((28, 29, 58), 0.15, "either"),
        ((2, 20, 25), 0.15, "either"),
        ((7, 16, 26, 54), 0.15, "worse"),
        ((1, 18, 20, 31, 32, 49), 0.2, "worse"),
    ],
)
def test_what_would_settle_a_gap_in_groups_is_more_prompts_than_there_are(
    make: Factory, wrong: tuple[int, ...], margin: float, side: Side
) -> None:
    """It said that 64 prompts would settle what 64 prompts, rounded the other way, had left open."""
    cases = [make.case(index, group=f"g{index % 8}") for index in range(64)]

    judgement = Fixed(alpha=0.05).gap([int(i in wrong) for i in range(64)], margin=margin, side=side, cases=cases)

    assert judgement.outcome is Outcome.INCONCLUSIVE
    assert judgement.needed is None or judgement.needed > 64


def test_shares_of_one_group_settle_nothing(make: Factory) -> None:
    cases = in_groups(make, 150)

    for judged in (
        Fixed(alpha=0.05).share([True] * 150, at_least=0.9, cases=cases),
        Fixed(alpha=0.05).gap([0] * 150, margin=0.1, side="either", cases=cases),
    ):
        assert (judged.outcome, judged.effective, judged.reason) == (Outcome.INCONCLUSIVE, 1, ONE_GROUP)


def test_a_sequential_share_counts_the_first_case_of_each_group(make: Factory) -> None:
    cases = in_groups(make, *[2] * 60)
    design = Sequential(alpha=0.05, asked=120, cases=120, groups=60, groups_asked=60)
    kept = [index % 2 == 0 for index in range(120)]

    share = design.share(kept, at_least=0.9, cases=cases)
    gap = design.gap([0 if keeps else 1 for keeps in kept], margin=0.1, side="worse", cases=cases)

    for judged in (share, gap):
        assert (judged.outcome, judged.n, judged.groups, judged.per_group) == (Outcome.PASS, 60, 60, True)


def test_bounds_on_either_side_of_a_margin() -> None:
    def outcome(lower: float, upper: float, side: str) -> Outcome:
        bounds = Bounds(estimate=0.5, lower=lower, upper=upper, p_pass=0.5, p_fail=0.5)
        return judgement_of(bounds, margin=0.5, unit="share", side=side, n=1).outcome

    assert outcome(0.1, 0.4, "worse") is outcome(0.6, 0.9, "at_least") is Outcome.PASS
    assert outcome(0.6, 0.9, "worse") is outcome(0.1, 0.4, "at_least") is Outcome.FAIL
    assert outcome(0.1, 0.5, "worse") is outcome(0.5, 0.9, "at_least") is Outcome.INCONCLUSIVE


def test_a_verdict_takes_over_everything_that_was_judged() -> None:
    opened = Verdict(
        test="t", check="text()", kind="text", engine="b", baseline="a", outcome=Outcome.INCONCLUSIVE, floor=0.1
    )
    judgement = Judgement(
        outcome=Outcome.FAIL,
        estimate=1.0,
        lower=2.0,
        upper=3.0,
        margin=4.0,
        unit="s",
        side="either",
        n=5,
        groups=6,
        p_pass=0.7,
        p_fail=0.8,
        needed=9,
        at_hand=8,
        per_group=True,
        effective=7,
        reason="why",
        open=True,
        sequence="so far",
        advice="ask more",
    )

    verdict = opened.judged(judgement)

    for field in dataclasses.fields(Judgement):
        assert getattr(verdict, field.name) == getattr(judgement, field.name) != getattr(opened, field.name)
    assert (verdict.engine, verdict.floor) == ("b", 0.1)
