"""A llama.cpp of today answers as the recording in ``fixtures/draws`` says it did, of which draws are judged elsewhere.

Gathering it all again takes half an hour of an idle core and is no part of CI: ``python -m benchmarks.record_draws``.
"""

from __future__ import annotations

import statistics

import msgspec
import pytest

from benchmarks.canaries import served
from benchmarks.draws import Drawn
from pytest_llmparity.core.compare.shift import find_shift
from pytest_llmparity.core.sample import Completion, Phase
from pytest_llmparity.run.probe import canaries

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("llamacpp")]

PROMPTS = 24
SAME = 0.002
"""Nats: twice what the recording rounds to."""


@pytest.fixture(scope="module")
def recorded() -> Drawn:
    return Drawn.of("tiny")


def shift_of(recorded: Drawn, name: str, answers: dict[str, Completion]) -> float:
    """Return the shift of these answers against a recorded engine's: the median over prompts."""
    # Answers of copies were kept up to where they part: none of them was ended early.
    answers_kept = recorded.engines[name].answers[Phase.MAIN].items()
    kept = {case: msgspec.structs.replace(answer, max_tokens=None) for case, answer in answers_kept}
    shifts = [shift.least for case, answer in answers.items() if (shift := find_shift(kept[case], answer)) is not None]
    assert len(shifts) == PROMPTS
    return statistics.median(shifts)


@pytest.mark.parametrize(
    "quantization", ["F16", *(pytest.param(copy, marks=pytest.mark.slow) for copy in ("Q8_0", "Q4_0"))]
)
def test_todays_engine_is_the_recorded_one(recorded: Drawn, quantization: str) -> None:
    cases = recorded.sets["pool"][:: len(recorded.sets["pool"]) // PROMPTS][:PROMPTS]
    with served(quantization) as adapter:
        answers = dict(canaries.ask(adapter, prompts=cases, at_once=canaries.AT_ONCE))
    name = quantization.lower()
    then = recorded.engines[name].answers[Phase.MAIN]

    assert shift_of(recorded, name, answers) <= SAME, "another arithmetic than the recording's: gather it again"
    before = shift_of(recorded, "f16", {case.id: then[case.id] for case in cases})
    assert shift_of(recorded, "f16", answers) == pytest.approx(before, abs=2 * SAME)
