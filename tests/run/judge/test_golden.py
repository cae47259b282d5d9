"""What golden answers cannot say is named: no times, and of which cases there is no answer where each must have one."""

from __future__ import annotations

import dataclasses

from pytest_llmparity import check
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.run.judge.golden import lacking, unrecorded

GOLDEN = EngineRecord(name="golden-prod", kind="llamacpp", launch="golden", golden="prod")
LIVE = dataclasses.replace(GOLDEN, name="dev", launch="attach", golden=None)


def test_golden_answers_have_no_times() -> None:
    latency = check.latency(e2e_p50="x1.5", n=64)

    assert lacking(GOLDEN, latency, "unit") == "golden-prod has golden answers, and these hold no times"
    assert lacking(LIVE, latency, "unit") is None
    assert lacking(GOLDEN, check.prompts(), "unit") is None


def test_cases_without_golden_answers_are_named_where_each_must_have_one() -> None:
    apart = {"unit": {"c1": "prod.jsonl has no answer to it", "c2": "it answers another prompt"}}
    record = dataclasses.replace(GOLDEN, unasked=apart, outdated={"unit": {"c2": "it answers another prompt"}})

    why = unrecorded(record, "unit")

    assert why is not None
    assert why.startswith("1 prompt of golden-prod (c1): prod.jsonl has no answer to it, and --parity-required asks")
    assert unrecorded(GOLDEN, "unit") is None
