"""Relative latency limits on engines that were loaded in turn: loads count, and the verdict says how they differed."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING

import msgspec
import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.latency.in_turn import Visits
from pytest_llmparity.core.evidence import EngineEvidence
from pytest_llmparity.core.sample import Failure, Phase
from pytest_llmparity.core.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from tests.core.conftest import Factory


def loaded(make: Factory, name: str, *factors: float | None) -> EngineEvidence:
    """An engine of 32 requests a load, each load slower by its factor; ``None``: every request of it failed."""
    rng = random.Random(name)
    seconds = [None if factor is None else factor * rng.lognormvariate(0, 0.1) for factor in factors for _ in range(32)]
    engine = make.timed(name, seconds, per_block=32)
    samples = {
        case: [
            sample
            if sample.timing is None
            else msgspec.structs.replace(sample, timing=dataclasses.replace(sample.timing, load=sample.timing.block))
            for sample in of_case
        ]
        for case, of_case in engine.samples[Phase.TIMED].items()
    }
    return dataclasses.replace(engine, samples={Phase.TIMED: samples})


def failing(engine: EngineEvidence, count: int) -> EngineEvidence:
    """Return an engine of whose first requests so many failed, one a case."""
    samples = {case: list(of_case) for case, of_case in engine.samples[Phase.TIMED].items()}
    places = [(case, index) for index in range(8) for case in samples][:count]
    for case, index in places:
        failure = Failure(kind="Timeout", message="no first byte within 60 s")
        samples[case][index] = msgspec.structs.replace(
            samples[case][index], completion=None, failure=failure, timing=None
        )
    return dataclasses.replace(engine, samples={Phase.TIMED: samples})


def judged(make: Factory, *engines: EngineEvidence, limit: str = "x1.25", n: int = 64) -> Verdict:
    (verdict,) = check.latency(e2e_p50=limit, n=n).judge(make.evidence(*engines))
    return verdict


def test_as_many_loads_of_each_as_there_were(make: Factory) -> None:
    verdict = judged(make, loaded(make, "base", 1.0, 1.02, 1.0), loaded(make, "cand", 1.01, 1.0))

    assert verdict.outcome is Outcome.PASS
    assert verdict.upper is not None
    assert verdict.upper < 1.25
    assert verdict.remarks[0].startswith("3 loads of base and 2 loads of cand; loads of one engine differ by ")
    assert judged(make, loaded(make, "base", 1.0, 1.02, 1.0), loaded(make, "slow", 1.7, 1.72)).outcome is Outcome.FAIL


def test_an_open_verdict_says_how_many_changes_would_settle_it(make: Factory) -> None:
    verdict = judged(make, loaded(make, "base", 1.0, 1.2), loaded(make, "cand", 1.05, 1.1))

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "timed_changes = " in verdict.remarks[0]
    assert verdict.remarks[0].endswith(" settles a ratio like this in 8 of 10 runs")
    close = judged(make, loaded(make, "base", 1.0, 1.2), loaded(make, "cand", 1.3, 1.4))
    assert close.remarks[0].endswith("settles a ratio this close to the limit with n=64: raise n")
    many = judged(make, loaded(make, "base", 1.0, 1.2), loaded(make, "cand", 1.3, 1.4), n=128)
    assert many.remarks[0].endswith(
        ": 16 changes of the engine in memory, the most there are, settle no ratio this close to the limit"
    )


def test_golden_answers_take_no_turn_where_more_changes_are_advised(make: Factory) -> None:
    pair = loaded(make, "base", 1.0, 1.2), loaded(make, "cand", 1.05, 1.1)
    recorded = dataclasses.replace(loaded(make, "rec", 1.0), golden="rec", samples={})
    alone = judged(make, *pair, n=128)
    beside = next(
        verdict
        for verdict in check.latency(e2e_p50="x1.25", n=128).judge(make.evidence(*pair, recorded))
        if verdict.engine == "cand"
    )

    assert "timed_changes = " in alone.remarks[0]
    assert beside.remarks[0] == alone.remarks[0]


@pytest.mark.parametrize("last", [1.0, None])
def test_one_load_or_one_that_only_failed_settles_nothing(make: Factory, last: float | None) -> None:
    factors = (1.0,) if last else (1.0, None)
    verdict = judged(make, loaded(make, "base", 1.0, 1.0), loaded(make, "cand", *factors), n=32)

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason == (
        "an engine was loaded once, which says nothing of how its loads differ; raise timed_changes"
        if last
        else "cand has answers of one load only, which says nothing of how its loads differ"
    )


@pytest.mark.parametrize("side", ["base", "cand"])
def test_a_quantile_that_is_a_request_that_failed_is_the_reason_whichever_side_it_is_of(
    make: Factory, side: str
) -> None:
    """Of one load more fail than its p95 bears, of all of them fewer: nobody answered too little."""
    few = failing(loaded(make, side, 1.0, 1.0), 2)
    many = failing(loaded(make, side, 1.0, 1.0), 20)
    other = loaded(make, "other", 1.0, 1.0)

    def reason(engine: EngineEvidence) -> str:
        pair = (engine, other) if side == "base" else (other, engine)
        (verdict,) = check.latency(e2e_p95="x1.25", n=64).judge(make.evidence(*pair))
        assert verdict.outcome is not Outcome.PASS
        return verdict.reason

    assert reason(few) == f"of 1 of 2 loads of {side} the p95 is a request that failed"
    assert reason(many) == f"{side}'s p95 is a request that failed"


def test_too_few_answers_of_engines_in_turn_are_said_to_be(make: Factory) -> None:
    pair = loaded(make, "base", 1.0, 1.0), loaded(make, "cand", 1.0, 1.0)
    (verdict,) = check.latency(e2e_p99="x1.25", n=64).judge(make.evidence(*pair))

    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, "too few answers to bound p99")


def test_a_plan_for_many_engines_says_how_often_each_is_loaded() -> None:
    turns = Visits(engines=4, n=128, concurrency=4, changes=30)

    assert (turns.blocks, turns.problem()) == (10, None)
    assert turns.settles("e2e_p50", 1.25).startswith("with 30 changes of the engine in memory an engine as fast as ")
    never = Visits(engines=2, n=4000, concurrency=4, changes=4).settles("e2e_p50", 1.001)
    assert never.endswith("16 changes, the most there are, would not settle 3 % either: widen the limit")


def test_a_plan_promises_no_more_changes_than_are_made() -> None:
    many = Visits(engines=2, n=512, concurrency=4, changes=40)
    line = many.settles("e2e_p50", 1.25)

    assert ";" not in line, "nothing more can be had"
    assert line.startswith("with 16 changes of the engine in memory ")
    assert line == Visits(engines=2, n=512, concurrency=4, changes=16).settles("e2e_p50", 1.25)
