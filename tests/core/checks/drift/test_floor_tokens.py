"""A noise floor whose answers are cut after 32 tokens decides as one of whole answers does, and where it does not."""

from __future__ import annotations

import pytest

from benchmarks.draws import remembered
from benchmarks.floor_tokens import FLAT, OWN, decided

DRAWS = 60
SLACK = 0.10
"""Two shares of 60 draws that were drawn together: a standard error is 3 % where one draw of twenty is otherwise."""


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.0, 1.5, 2.0])
def test_what_passes_and_fails_beside_a_floor_of_32_tokens_is_what_does_beside_whole_answers(factor: float) -> None:
    """The baseline shifts against itself by twice the margin: the floor alone keeps a copy of it from failing."""
    with remembered():
        counts = decided(OWN, factor, FLAT, draws=DRAWS)

    for outcome in ("PASS", "FAIL"):
        assert abs(counts.cut[outcome] - counts.whole[outcome]) <= SLACK * DRAWS, counts
    if factor == 1.0:
        assert max(counts.cut["FAIL"], counts.whole["FAIL"]) <= (0.05 + SLACK) * DRAWS, counts
        assert counts.cut["PASS"] == 0
    if factor == 2.0:
        assert min(counts.cut["FAIL"], counts.whole["FAIL"]) >= 0.5 * DRAWS, counts
