"""Which tests of a stored run failed for another reason than a verdict: a release gate has to know them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.run.judge.recorded import REPORTED
from pytest_llmparity.store.runs import Store

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

SUITE = """
import pytest
from pytest_llmparity import check

TEXT = check.text(margin=0.05)

@pytest.mark.parity("prompts.jsonl", TEXT, max_tokens=12)
def test_drifts(parity_run): ...

@pytest.mark.parity("prompts.jsonl", TEXT, max_tokens=12)
def test_drifts_and_breaks(parity_run):
    assert "this" == "that"

@pytest.mark.parity("prompts.jsonl", TEXT, max_tokens=12)
def test_drifts_in_its_body(parity_run):
    parity_run.check(TEXT)

@pytest.fixture
def broken():
    raise RuntimeError("no database\\nand more")

def test_needs_a_database(broken): ...

@pytest.mark.xfail
def test_is_expected_to_fail(): assert False

def test_passes(): ...
"""


@pytest.mark.parametrize("words", [(), pytest.param(("-n", "2"), marks=pytest.mark.slow)], ids=["alone", "workers"])
def test_a_run_keeps_which_tests_failed_without_a_verdict(bench: Bench, words: tuple[str, ...]) -> None:
    bench.pytester.makepyfile(test_it=SUITE)
    engines = [bench.engine(), bench.engine(answer="something else")]

    if words:
        bench.spawn(*words, engines=engines).wait()
    else:
        bench.run(engines=engines)

    with Store.open(bench.pytester.path / ".llmparity") as store:
        document = store.raw_document(store.runs()[-1].id, REPORTED)
    assert document is not None
    assert "FAIL" in {verdict["outcome"] for verdict in document["verdicts"]}
    assert len(document["tests"]) == 6
    assert {test: why for test, why in document["tests"].items() if why} == {
        "test_it.py::test_drifts_and_breaks": "assert 'this' == 'that'",
        "test_it.py::test_needs_a_database": "RuntimeError: no database",
    }


def test_a_run_of_application_tests_alone_reports_its_engines_as_they_were_found(bench: Bench) -> None:
    bench.pytester.makepyfile(test_app="def test_app(engine):\n    assert engine.model\n")
    engine = bench.engine(poses_as="llamacpp", quantization="Q8_0")

    result = bench.run("--parity-report=json", "--parity-out=out", engines=[engine])

    assert result.ret == 0
    (reported,) = bench.report()["engines"]
    assert (reported["version"] is not None, reported["quantization"]) == (True, "Q8_0")


def test_what_stays_open_says_in_its_headline_that_it_fails(bench: Bench) -> None:
    bench.gate("check.text(margin=0.3)")
    engines = [bench.engine(poses_as="llamacpp"), bench.engine(poses_as="llamacpp", drift=0.2, seed=3)]

    result = bench.run("--parity-inconclusive=fail", "--parity-report=md", "--parity-out=out", engines=engines)

    assert result.ret == 1
    assert "(open, which fails by --parity-inconclusive fail)" in " ".join(result.stdout.str().split())
    summary = (bench.pytester.path / "out/summary.md").read_text("utf-8")
    assert "INCONCLUSIVE, which fails the run, as --parity-inconclusive fail asks: " in summary
