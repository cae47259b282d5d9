"""One set of verdicts a gate, that of its last attempt (pytest-dev/pytest-rerunfailures 76: reruns are counted again).

Runs are processes of their own: pytest-rerunfailures opens a socket in every run that can see it.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

pytestmark = pytest.mark.slow

SHUFFLED = """
import os
import random
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    random.Random(3).shuffle(items)

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    random.seed(7)

@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs):
    for spec in specs:
        spec.python = os.environ.get("WARM_PYTHON")
"""
"""What pytest-randomly does, without its doing so to every run of this suite; workers have imported all."""
GATES = """
import os
import pytest
from pathlib import Path
from pytest_llmparity import check

@pytest.mark.parity("prompts.jsonl", check.prompts())
@pytest.mark.parametrize("side", ["x-1-2", "y"])
def test_prompts(parity_run, side): ...

@pytest.mark.parity("prompts.jsonl", check.text(margin=0.05))
def test_text(parity_run):
    parity_run.check(check.prompts())
    tries = Path(__file__).with_name("tries")
    with tries.open("a") as out:
        out.write("x")
    assert FLAKY is None or len(tries.read_text()) >= FLAKY
"""


def of_gate(report: Any) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for verdict in report["verdicts"]:
        if verdict["kind"] == "text.repeat":  # beside text where an engine does not repeat itself
            continue
        kinds.setdefault(verdict["test"], []).append(verdict["kind"])
    return kinds


ONCE = {
    "test_gates.py::test_prompts[x-1-2]": ["prompts"],
    "test_gates.py::test_prompts[y]": ["prompts"],
    "test_gates.py::test_text": ["text", "prompts"],
}


@pytest.mark.parametrize(
    ("args", "drift", "flaky", "code"),
    [
        (("--reruns=2",), 0.2, None, 1),
        (("--reruns=3",), 0.0, 3, 0),
        (("--count=3",), 0.0, None, 0),
        (("--count=2", "--reruns=1", "-n2"), 0.2, None, 1),
    ],
)
def test_a_gate_that_runs_several_times_has_one_set_of_verdicts(
    bench: Bench, args: tuple[str, ...], drift: float, flaky: int | None, code: int
) -> None:
    ini = "[pytest]\nasyncio_default_fixture_loop_scope = function\naddopts = -p no:hypothesispytest\n"
    bench.pytester.makeini(ini)
    bench.pytester.makeconftest(SHUFFLED)
    bench.pytester.makepyfile(test_gates=f"FLAKY = {flaky}\n{GATES}")
    engines = [bench.engine(), bench.engine(drift=drift)]

    spawned = bench.spawn(
        *args,
        "--parity-explain-requests=400",
        "--parity-report=json",
        "--parity-out=out",
        "--junitxml=out/junit.xml",
        engines=engines,
    )

    assert spawned.wait() == code, spawned.output
    assert of_gate(bench.report()) == ONCE
    explained = [v["explanation"] for v in bench.report()["verdicts"] if v["explanation"] is not None]
    assert bool(explained) == bool(drift)
    again = sum(experiment["requests"] // 2 for e in explained for experiment in e["experiments"])
    assert len(bench.asked(engines[0])) == 8 + 3 * 8 + again, "every prompt once, the noise floor, each experiment once"
    if not drift:
        counted = sum(verdict["engine"] == "b" for verdict in bench.report()["verdicts"])
        assert f"b: passes  {counted} verdicts" in spawned.output
    cases = ET.parse(bench.pytester.path / "out/junit.xml").iter("testcase")
    told = [[p.get("name", "") for p in case.iter("property")] for case in cases if "test_text" in case.get("name", "")]
    outcomes = [name for names in told for name in names if name == "llmparity.text.b.outcome"]
    assert outcomes == ["llmparity.text.b.outcome"]
