"""What an engine cannot be asked is left out by case and named; the rest is judged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.doubles.abilities import Abilities
from tests.doubles.posing import PosingEngine
from tests.plugin.conftest import Bench

OFFERED = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
REPORT = ("--parity-report=json", "--parity-out=out")


def rows(bench: Bench, odd: int, **row: Any) -> None:
    """Write 20 prompts, of which the first ``odd`` have further keys; the last one is long."""
    cases = [
        {
            "id": f"case-{n}",
            "messages": [{"role": "user", "content": f"question {n}" + " word" * 60 * (n == 19)}],
            **(row if n < odd else {}),
        }
        for n in range(20)
    ]
    (bench.pytester.path / "prompts.jsonl").write_text("\n".join(json.dumps(case) for case in cases))


def pair(bench: Bench) -> list[PosingEngine]:
    return [bench.engine(abilities=Abilities(tools="taken")), bench.engine(abilities=Abilities(tools="refused"))]


@pytest.mark.slow
def test_a_few_tool_cases_do_not_keep_the_others_from_being_judged(bench: Bench) -> None:
    rows(bench, 1, tools=OFFERED)
    bench.gate("check.prompts(), check.text(margin=0.05)")
    engines = pair(bench)

    result = bench.run(*REPORT, engines=engines)

    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=1)
    why = "b does not take tools (probed)"
    noted = f"noted: left out 1 prompt (case-0): {why}: prompts of test_gate, text of"
    assert noted in " ".join(result.stdout.str().split())
    verdicts = bench.report()["verdicts"]
    assert {v["kind"]: (v["outcome"], v["n"]) for v in verdicts if v["kind"] != "text.repeat"} == {
        "prompts": ("PASS", 19),
        "text": ("PASS", 19),
    }
    left_out = [{"engine": "b", "reason": why, "cases": ["case-0"]}]
    assert all(v["left_out"] == left_out for v in verdicts)
    asked = bench.asked(engines[1])
    assert asked
    assert not any("tools" in request for request in asked)


@pytest.mark.slow
def test_verdicts_that_rest_on_less_than_95_percent_of_prompts_are_not_settled(bench: Bench) -> None:
    rows(bench, 2, tools=OFFERED)
    bench.gate("check.prompts(), check.text(margin=0.05)", body='parity_run["b"]["case-0"].text')

    result = bench.run(*REPORT, "--parity-inconclusive=fail", engines=pair(bench))

    result.assert_outcomes(failed=1)
    assert [v["outcome"] for v in bench.report()["verdicts"]] == ["INCONCLUSIVE"] * 3
    result.stdout.fnmatch_lines(
        [
            "*MissingSample: b has no answer to 'case-0': not asked: b does not take tools (probed)*",
            "*it rests on 18 of 20 prompts: 2 prompts left out: b does not take tools (probed)*",
        ]
    )


def test_a_prompt_that_one_engine_refuses_fails_the_check_however_many_were_left_out(bench: Bench) -> None:
    rows(bench, 10, tools=OFFERED)
    bench.gate("check.prompts()")
    small = bench.engine(abilities=Abilities(tools="refused"), context_length=50)

    result = bench.run(engines=[bench.engine(abilities=Abilities(tools="taken")), small])

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*FAIL prompts, b against a: b refused 1 prompt*", "*left out 10 prompts*"])


@pytest.mark.slow
def test_a_parameter_of_one_case_that_a_route_has_no_word_for_is_that_cases_alone(bench: Bench) -> None:
    rows(bench, 1, sampling={"min_p": 0.1})
    bench.gate("check.text(margin=0.05), check.latency(success_rate=0.5, n=8)")

    result = bench.run(*REPORT, engines=[bench.engine(), bench.engine()])

    result.assert_outcomes(passed=1)
    verdicts = bench.report()["verdicts"]
    assert {v["outcome"] for v in verdicts} == {"PASS"}
    assert verdicts[0]["left_out"][0]["cases"] == ["case-0"]
    assert "has no field for min_p=0.1" in verdicts[0]["left_out"][0]["reason"]


def test_a_schema_that_one_engine_does_not_force_is_left_out_of_that_check_alone(bench: Bench) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
    rows(bench, 1, response_format=schema)
    bench.gate("check.prompts(), check.schema({'type': 'object'}, gap=0.2)")
    engines = [bench.engine(abilities=Abilities(schema="forced")), bench.engine(abilities=Abilities(schema="dropped"))]

    bench.run(*REPORT, engines=engines)

    verdicts = {v["kind"]: v for v in bench.report()["verdicts"]}
    assert verdicts["prompts"]["left_out"] == []
    assert verdicts["prompts"]["n"] == 20
    assert len(verdicts["schema.gap"]["left_out"][0]["cases"]) == 1
    assert verdicts["schema.gap"]["n"] == 19


@pytest.mark.slow
def test_a_sequential_run_leaves_out_the_same(bench: Bench) -> None:
    rows(bench, 1, tools=OFFERED)
    bench.gate("check.text(margin=0.2)")

    bench.run(*REPORT, "--parity-sequential", engines=pair(bench))

    [verdict] = [v for v in bench.report()["verdicts"] if v["kind"] == "text"]
    assert verdict["outcome"] == "PASS"
    assert len(verdict["left_out"][0]["cases"]) == 1
