"""``check.distribution()``: advice on sampled answers, and the gate that never passes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.family import settle
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.sample import Failure, Phase
from pytest_llmparity.core.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from pytest_llmparity.core.evidence import EngineEvidence
    from tests.core.conftest import Answer, Factory


def drawing(make: Factory, name: str, letters: str, *, cases: int = 12, lost: int = 0) -> EngineEvidence:
    """Return an engine that answered each case once by each letter; of the first ``lost`` cases only one came."""
    gone: Answer = Failure(kind="Unreachable", message="away")
    answers = {
        f"c{index}": [
            make.sample(name, f"c{index}", Phase.MAIN, gone if index < lost and place else f"{letter} of {index}")
            for place, letter in enumerate(letters)
        ]
        for index in range(cases)
    }
    return dataclasses.replace(make.engine(name), samples={Phase.MAIN: answers})


def judged(make: Factory, ours: str, theirs: str, *, gate: bool = False, lost: int = 0) -> Verdict:
    base, cand = drawing(make, "base", ours), drawing(make, "cand", theirs, lost=lost)
    (verdict,) = check.distribution(repeats=4, gate=gate).judge(make.evidence(base, cand, cases=12))
    return verdict


def test_what_is_seen_is_advice(make: Factory) -> None:
    differs, alike = judged(make, "aabb", "wwxx"), judged(make, "abab", "abab")

    assert (differs.outcome, differs.p_fail, alike.outcome) == (Outcome.SKIPPED, None, Outcome.SKIPPED)
    assert differs.message.startswith(
        "SKIPPED distribution, cand against base: advice, not judged: sampled answers differ (p = 0.0005 of 1999 "
    )
    assert "advice, not judged: no difference is shown (p = " in alike.message
    assert differs.requests == 2 * 4 * 12


def test_a_gate_fails_what_differs_and_passes_nothing(make: Factory) -> None:
    differs, alike = judged(make, "aabb", "wwxx", gate=True), judged(make, "abab", "abab", gate=True)

    assert (differs.outcome, differs.p_fail) == (Outcome.FAIL, 0.0005)
    assert alike.outcome is Outcome.INCONCLUSIVE
    assert alike.message.endswith("which does not show that there is none")
    assert [verdict.family for verdict in settle([differs, alike], 0.05)] == [2, 2]


def test_repetitions_and_answers_that_are_missing_settle_nothing(make: Factory) -> None:
    copies = judged(make, "aaaa", "bbbb", gate=True)
    few = judged(make, "aabb", "wwxx", gate=True, lost=3)

    assert (copies.outcome, few.outcome) == (Outcome.INCONCLUSIVE, Outcome.INCONCLUSIVE)
    assert "repeated word for word" in copies.message
    assert "too few answers to compare: it rests on 9 of 12 prompts" in few.message
    assert judged(make, "aaaa", "bbbb").outcome is Outcome.SKIPPED, "advice stays advice"
    assert judged(make, "aabb", "wwxx", lost=3).outcome is Outcome.SKIPPED


def test_its_words(make: Factory) -> None:
    assert str(check.distribution()) == "distribution()"
    assert str(check.distribution(repeats=4, gate=True)) == "distribution(repeats=4, gate=True)"
    assert check.distribution(repeats=4).power(cases=5, groups=5).startswith("distribution(repeats=4): 20 answers of")
    assert check.distribution().problem(cases=1, groups=1, engines=2) is None
    with pytest.raises(DesignError, match="repeats is a whole number of answers from 2 up"):
        check.distribution(repeats=0)
