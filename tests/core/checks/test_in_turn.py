"""Relative latency limits on engines that were loaded in turn: loads count, and the verdict says how they differed."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING

import msgspec
import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.latency.in_turn import Turns
from pytest_llmparity.core.evidence import EngineEvidence
from pytest_llmparity.core.sample import Phase
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


def judged(make: Factory, *engines: EngineEvidence, limit: str = "x1.25", n: int = 64) -> Verdict:
    (verdict,) = check.latency(e2e_p50=limit, n=n).judge(make.evidence(*engines))
    return verdict


def test_as_many_loads_of_each_as_there_were(make: Factory) -> None:
    verdict = judged(make, loaded(make, "base", 1.0, 1.02, 1.0), loaded(make, "cand", 1.01, 1.0))

    assert verdict.outcome is Outcome.PASS
    assert verdict.upper is not None
    assert verdict.upper < 1.25
    assert verdict.remarks[0].startswith("3 and 2 loads, which differ by ")
    assert judged(make, loaded(make, "base", 1.0, 1.02, 1.0), loaded(make, "slow", 1.7, 1.72)).outcome is Outcome.FAIL


def test_an_open_verdict_says_how_many_changes_would_settle_it(make: Factory) -> None:
    verdict = judged(make, loaded(make, "base", 1.0, 1.2), loaded(make, "cand", 1.05, 1.1))

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "timed_changes = " in verdict.remarks[0]
    assert verdict.remarks[0].endswith(" settles a ratio like this in 8 of 10 runs")
    close = judged(make, loaded(make, "base", 1.0, 1.2), loaded(make, "cand", 1.3, 1.4))
    assert close.remarks[0].endswith("64 changes of the engine in memory do not settle a ratio this close to the limit")


@pytest.mark.parametrize("last", [1.0, None])
def test_one_load_or_one_that_only_failed_settles_nothing(make: Factory, last: float | None) -> None:
    factors = (1.0,) if last else (1.0, None)
    verdict = judged(make, loaded(make, "base", 1.0, 1.0), loaded(make, "cand", *factors), n=32)

    assert verdict.outcome is Outcome.INCONCLUSIVE
    if last:
        assert "an engine was loaded once" in verdict.message


def test_a_plan_for_many_engines_says_how_often_each_is_loaded() -> None:
    turns = Turns(engines=4, n=128, concurrency=4, changes=30)

    assert (turns.blocks, turns.problem()) == (10, None)
    assert turns.settles("e2e_p50", 1.25).startswith("with 30 changes of the engine in memory an engine as fast as ")
    never = Turns(engines=2, n=4000, concurrency=4, changes=4).settles("e2e_p50", 1.001)
    assert never.endswith("timed_changes = 64 would not settle 3 % either: widen the limit")
