"""The fixture ``engine`` beside a suite's own, its other name, and the baseline among ``engines``."""

from __future__ import annotations

from typing import Any

import pytest

OWN = """
import pytest

@pytest.fixture(params=["sqlite", 7], scope="module")
def engine(request):
    return request.param
"""
TESTS = """
def test_theirs(engine):
    assert engine in ("sqlite", 7)

def test_ours(parity_engine, engine):
    assert parity_engine.openai() is not None

def test_baseline(engines):
    assert engines.baseline.name == "b"
    assert engines.baseline is engines["b"]
    assert list(engines) == ["a", "b"]
"""


@pytest.mark.parametrize("workers", [(), pytest.param(("-n1",), marks=pytest.mark.slow)], ids=["alone", "xdist"])
def test_a_suite_keeps_its_own_engine_and_is_told(bench: Any, workers: tuple[str, ...]) -> None:
    bench.pytester.makeconftest(OWN)
    bench.pytester.makepyfile(test_app=TESTS)

    result = bench.run("--parity-baseline=b", *workers, engines=[bench.engine("ok"), bench.engine("ok")])

    result.assert_outcomes(passed=2 + 4 + 1)
    place = "conftest.py:3"
    result.stdout.fnmatch_lines([f"the fixture engine is this suite's own ({place}); * parity_engine too"])


def test_both_names_are_one_engine(bench: Any) -> None:
    bench.pytester.makepyfile("def test_same(engine, parity_engine):\n    assert engine is parity_engine\n")

    result = bench.run(engines=[bench.engine("ok"), bench.engine("ok")])

    result.assert_outcomes(passed=2)
    assert "suite's own" not in result.stdout.str()


def test_an_unknown_engine_names_those_that_are_selected(bench: Any) -> None:
    bench.pytester.makepyfile("def test_none(engines):\n    engines['c']\n")

    result = bench.run(engines=[bench.engine("ok")])

    result.stdout.fnmatch_lines(["*no engine 'c' is selected; these are: 'a'*"])
