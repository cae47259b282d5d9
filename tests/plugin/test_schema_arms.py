"""Both arms of a schema, as a person running pytest sees them: on the wire, in verdicts, in replay, in reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.testing import Fault

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

PROMPTS = 32
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "multipleOf": 5}}, "required": ["n"]}
RIGHT = '{"n": 10}'
GATE = f"check.schema({SCHEMA!r}, arms=0.15), check.schema({SCHEMA!r}, rate=0.5), check.answers(rate=0.5)"
EXPECT = {"answer": RIGHT}


def constrained(request: Mapping[str, Any]) -> bool:
    return "response_format" in request


def saying(answer: Any) -> Any:
    """An engine that forces what our probe asks for, as most do, and says this where it is given the schema above."""

    def answers(request: dict[str, Any]) -> Any:
        if not constrained(request):
            return RIGHT
        schema = request["response_format"]["json_schema"]["schema"]
        forced = {name: part["const"] for name, part in schema.get("properties", {}).items() if "const" in part}
        return json.dumps(forced) if forced else answer

    return answers


enforcing, failing_open = saying(RIGHT), saying('{"n": 7}')
refusing = saying(Fault.refuse(400))


def test_each_prompt_is_asked_in_both_arms_and_each_check_reads_its_own(bench: Bench) -> None:
    bench.prompts(PROMPTS, expect=EXPECT)
    bench.gate(GATE)
    engines = [bench.engine(enforcing), bench.engine(failing_open)]

    result = bench.run("--parity-report=json,md,html", engines=engines)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "FAIL schema.constraint, b: takes the schema and violates it in 32 of 32 answers: it fails open*",
            "  first: case-0: $.n: 7 is not a multiple of 5",
            "FAIL schema.arms, b: 100 % of answers are right in the free arm only, net, *",
        ]
    )
    for engine in engines:
        asked = bench.asked(engine)
        assert len(asked) == 2 * PROMPTS
        forced = [request for request in asked if constrained(request)]
        assert len(forced) == PROMPTS
        assert all(request["response_format"]["json_schema"]["schema"] == SCHEMA for request in forced)
        assert all(json.dumps(SCHEMA) in str(request) for request in asked if not constrained(request))
    folder = bench.pytester.path / ".llmparity/report"
    run = json.loads((folder / "run.json").read_text())
    verdicts = {(v["kind"], v["engine"]): v for v in run["verdicts"]}
    assert (
        verdicts["schema.constraint", "a"]["constraint"] == "not shown"
    )  # it keeps the schema without being told to, too
    assert verdicts["schema.constraint", "b"]["constraint"] == "violated"
    assert verdicts["schema.constraint", "b"]["arm"] == "constrained"
    assert verdicts["schema.rate", "b"]["estimate"] == 0.0  # without arms= it reads the constrained answers
    assert verdicts["answers.rate", "b"]["estimate"] == 0.0
    assert {v["n"] for v in run["verdicts"]} == {PROMPTS}
    cases = {json.loads(line)["case"] for line in (folder / "samples.jsonl").read_text().splitlines()}
    assert {"case-0", "case-0@free"} <= cases
    for name in ("summary.md", "report.html"):
        assert "schema.constraint" in (folder / name).read_text()

    again = bench.run("--parity-mode=replay", engines=engines)

    again.stdout.fnmatch_lines(["FAIL schema.constraint, b: takes the schema and violates it in 32 of 32 answers*"])
    assert {len(bench.asked(engine)) for engine in engines} == {2 * PROMPTS}


def test_a_refused_schema_fails_its_engine_and_nothing_is_an_error(bench: Bench) -> None:
    bench.prompts(PROMPTS)
    bench.gate(f"check.schema({SCHEMA!r}, arms=0.15)")
    engines = [bench.engine(enforcing), bench.engine(refusing)]

    result = bench.run(engines=engines)

    result.stdout.fnmatch_lines(["FAIL schema.constraint, b: refuses the schema of 32 of 32 prompts and answers them*"])
    result.stdout.no_fnmatch_line("*ERROR schema*")


def test_engines_that_say_nothing_never_pass(bench: Bench) -> None:
    bench.prompts(PROMPTS)
    bench.gate(f"check.schema({SCHEMA!r}, rate=0.5, gap=0.15, agree=0.5, arms=0.15)")

    result = bench.run("--parity-report=json", engines=[bench.engine(""), bench.engine("")])

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    run = json.loads((bench.pytester.path / ".llmparity/report/run.json").read_text())
    assert len(run["verdicts"]) == 12
    assert "PASS" not in {verdict["outcome"] for verdict in run["verdicts"]}


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        (f"check.schema({SCHEMA!r}, arms=0.15), check.text(margin=0.05)", "would have done for both arms; give them a"),
        (
            f"check.schema({SCHEMA!r}, arms=0.15), check.schema({{}}, arms=0.2)",
            "one check of a test asks for both",
        ),
        ("check.schema(arms=0.15)", "32 of 32 prompts do not say what the answer fits; the first is case-0"),
    ],
)
def test_what_cannot_be_asked_so_is_refused_before_anybody_is_asked(bench: Bench, checks: str, words: str) -> None:
    bench.prompts(PROMPTS)
    bench.gate(checks)
    engine = bench.engine(enforcing)

    result = bench.run(engines=[engine, engine])

    result.stdout.fnmatch_lines([f"*{words}*"])
    assert not bench.asked(engine)


def test_arms_become_golden_by_their_ids(bench: Bench) -> None:
    bench.prompts(PROMPTS)
    bench.gate(f"check.schema({SCHEMA!r}, arms=0.15)")
    engine = bench.engine(enforcing)

    bench.run("--parity-update-golden=missing", engines=[engine])

    (golden,) = (bench.pytester.path / "golden").rglob("a.jsonl")
    ids = [json.loads(line).get("case") or json.loads(line).get("id") for line in golden.read_text().splitlines()[1:]]
    assert {"case-0", "case-0@free"} <= set(ids)
    assert len(ids) == 2 * PROMPTS


@pytest.mark.slow
def test_a_schema_that_was_refused_when_golden_was_recorded_is_told_with_advice_that_can_help(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recording it again would be refused again."""
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    bench.prompts(PROMPTS)
    bench.gate(f"check.schema({SCHEMA!r}, arms=0.15)")
    other = bench.engine(enforcing)

    wrote = bench.run("--parity-update-golden=all", engines=[bench.engine(refusing)])
    held = bench.run(f"--engines=golden:a,b={bench.selected(other)}", "-v")

    text = " ".join(wrote.stdout.str().split())
    assert "32 cases not answered (case-0, case-1, case-2, …), 32 of them only with their schema: golden" in text
    text = " ".join(held.stdout.str().split())
    assert "has an answer to it without the schema alone: a refused the schema, or did not answer, when it was" in text
    assert "record it: " not in text
