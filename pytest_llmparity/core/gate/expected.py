"""Which answers are right by what prompts say is expected, where no check of a test said so."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pytest_llmparity.core.gate.flips import Expected
from pytest_llmparity.core.identity.record import SampleOrigin
from pytest_llmparity.core.right.expected import in_words, is_right
from pytest_llmparity.core.sample import Phase, Sample
from pytest_llmparity.core.verdict import Verdict


def expected(
    verdicts: Iterable[Verdict],
    samples: Iterable[Sample],
    origin: Callable[[Sample], SampleOrigin | None],
    *,
    baseline: str,
    candidate: str,
) -> list[Expected]:
    """Return the cases whose prompts say what a right answer is and which both engines answered.

    Those of a test with a check of answers are left out: it said what is right, and of what part of a text.
    """
    judged = {verdict.test for verdict in verdicts if verdict.kind.startswith("answers.")}
    first: dict[tuple[str, str], dict[str, tuple[Sample, SampleOrigin]]] = {}
    for sample in samples:
        asked = origin(sample) if sample.phase is Phase.MAIN and sample.completion is not None else None
        if asked is not None and asked.expect:
            for test in (test for test in asked.tests if test not in judged):
                first.setdefault((test, sample.case), {}).setdefault(sample.engine, (sample, asked))
    cases = []
    for (test, case), by_engine in first.items():
        if not {baseline, candidate} <= by_engine.keys():
            continue
        right = [
            sample.completion is not None and is_right(asked.expect, sample.completion)
            for sample, asked in (by_engine[baseline], by_engine[candidate])
        ]
        what = in_words(by_engine[candidate][1].expect)
        cases.append(Expected(test=test, case=case, what=what, before=right[0], after=right[1]))
    return cases
