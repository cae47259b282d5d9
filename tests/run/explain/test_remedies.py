"""How other weights are accepted: by the check that judged them, and not where its verdict passes."""

from __future__ import annotations

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.run.explain.remedies import accepting
from pytest_llmparity.settings.specification import EngineSpec

ENGINES = (EngineSpec(name="f16", kind="llamacpp"), EngineSpec(name="q4", kind="llamacpp"))
TEXT, LADDER = check.text(margin=0.05), check.text()
MEASURED, GIVEN = check.logprobs(), check.logprobs(shift=0.02)
SCHEMA = check.schema({}, gap=0.05)


@pytest.mark.parametrize(
    ("judged", "beside", "words"),
    [
        (TEXT, (), "to accept them raise the margin of check.text()"),
        (LADDER, (), "to accept them give check.text() a margin"),
        (TEXT, (GIVEN,), "to accept them raise the margin of check.text()"),
        (
            TEXT,
            (MEASURED,),
            "to accept them raise the margin of check.text(), and for check.logprobs() llmparity calibrate f16 q4",
        ),
        (MEASURED, (TEXT,), "to accept them llmparity calibrate f16 q4"),
        (GIVEN, (TEXT,), "to accept them raise the shift of check.logprobs()"),
        (SCHEMA, (MEASURED,), "to accept them ask less of check.schema()"),
    ],
    ids=str,
)
def test_what_failed_is_accepted_by_the_check_that_failed(judged: Check, beside: tuple[Check, ...], words: str) -> None:
    assert accepting(Outcome.FAIL, judged, (judged, *beside), *ENGINES) == words
    assert accepting(Outcome.PASS, judged, (judged, *beside), *ENGINES) == ""
