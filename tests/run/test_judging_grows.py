"""What judging a stored run costs grows as its samples do, by calls and statements and not by time."""

from __future__ import annotations

import cProfile
import gc
import pstats
import runpy
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.core.collecting import YOUNG, seldom_collected

# By its path: beside an installed wheel the repository is nowhere that modules are looked for.
BENCHMARK = runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks" / "judging.py"))
SETS, declared, gather = BENCHMARK["SETS"], BENCHMARK["declared"], BENCHMARK["gather"]
SIZES = (400, 800, 1600)


def judging(root: Path, size: int) -> tuple[int, int, int]:
    """Return how many samples a run of about this size has, and the calls and statements it takes to judge it.

    A large value that is opened, which SQLite does not trace, counts as a statement.
    """
    stored: int = gather(root, size)
    session = declared(root)
    statements: list[str] = []
    file = session.store()._file
    file._db.set_trace_callback(statements.append)
    within = file.within

    def counted(*args: Any) -> Any:
        statements.append("a large value")
        return within(*args)

    file.within = counted
    with cProfile.Profile() as profile:
        session.gather()
        verdicts = [v for test in SETS for v in session.settle(test, session.parity_run(test, reproduce=""))]
        session.record(verdicts)
    session.close()
    assert len(verdicts) == 7
    return stored, pstats.Stats(profile).total_calls, len(statements)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_twice_the_samples_take_twice_the_calls_and_statements(tmp_path: Path) -> None:
    judging(tmp_path / "first", 1)  # imports what is imported late
    small, middle, large = (judging(tmp_path / str(size), size) for size in SIZES)

    for counted, index in (("calls", 1), ("statements", 2)):
        first = (middle[index] - small[index]) / (middle[0] - small[0])
        then = (large[index] - middle[index]) / (large[0] - middle[0])
        assert 0 < then <= 1.1 * first, f"{counted} per further sample: {first:.2f}, then {then:.2f}"
    # Nothing is read of an answer twice: the run in a few statements, and two tokens of each pair of texts that parts.
    assert large[2] <= large[0] / 2 + 200


def test_garbage_is_looked_for_seldom_and_then_as_before() -> None:
    before = gc.get_threshold()

    @seldom_collected()
    def work(depth: int) -> None:
        assert gc.get_threshold() == (YOUNG, *before[1:])
        if depth:
            work(depth - 1)
        assert gc.get_threshold() == (YOUNG, *before[1:])
        raise KeyError(depth)

    with pytest.raises(KeyError, match="0"):
        work(1)

    assert gc.get_threshold() == before


@pytest.mark.parametrize("young", [0, YOUNG + 1])
def test_whoever_looks_less_often_is_left_alone(young: int) -> None:
    before = gc.get_threshold()
    gc.set_threshold(young, *before[1:])
    try:
        with seldom_collected():
            assert gc.get_threshold()[0] == young
    finally:
        gc.set_threshold(*before)
