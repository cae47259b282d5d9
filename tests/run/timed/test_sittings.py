"""What a plan says of engines that are loaded in turn is what the timed phase does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.checks.latency.in_turn import Visits
from pytest_llmparity.core.evidence import Needs
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.sample import Sampling
from pytest_llmparity.core.visits import changes_for
from pytest_llmparity.run.plan import Unit
from pytest_llmparity.run.timed.phase import sittings


@given(
    engines=st.integers(2, 5),
    n=st.integers(1, 1024),
    concurrency=st.integers(1, 16),
    changes=st.integers(1, 100),
)
def test_the_engine_in_memory_changes_as_often_as_planned(engines: int, n: int, concurrency: int, changes: int) -> None:
    planned = Visits(engines=engines, n=n, concurrency=concurrency, changes=changes)
    unit = Unit(
        prompts=PromptSet(name="set", cases=()),
        sampling=Sampling(),
        concurrency=concurrency,
        repeats=1,
        needs=Needs(timed=n),
    )

    made = sittings(unit, [f"e{number}" for number in range(engines)], changes=changes)

    assert len(made) - 1 == changes_for(engines, planned.blocks)
    assert all(len(sitting.span) >= min(n, concurrency) for sitting in made)
