"""Every design judges shares, gaps and forks; what it returns is carried into a verdict whole."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.core.checks.designs import ONE_GROUP, Design, Fixed, Sequential, Single, design_of, judgement_of
from pytest_llmparity.core.compare.text import Fork
from pytest_llmparity.core.stats.bounds import Bounds
from pytest_llmparity.core.verdict import Judgement, Outcome, Verdict

if TYPE_CHECKING:
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
        design_of(make.evidence(engine, cases=4, sequential=one == 1, single=one == 2), asked=3) for one in range(3)
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
        reason="why",
        open=True,
        sequence="so far",
        advice="ask more",
    )

    verdict = opened.judged(judgement)

    for field in dataclasses.fields(Judgement):
        assert getattr(verdict, field.name) == getattr(judgement, field.name) != getattr(opened, field.name)
    assert (verdict.engine, verdict.floor) == ("b", 0.1)
