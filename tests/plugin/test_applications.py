"""Tests that are applications, as a person running pytest sees them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

INPUTS = 14

SUITE = """
import dataclasses, datetime
import pydantic
import pytest
from pytest_llmparity import check

INPUTS = [{{"id": f"mail-{{n}}", "mail": f"question {{n}}"}} for n in range({inputs})]

class Ticket(pydantic.BaseModel):
    queue: str

@dataclasses.dataclass
class Pair:
    first: Ticket
    second: tuple

@pytest.mark.parity(INPUTS, {checks})
{kind}def test_bot({takes}):
    {body}
"""
ASKS = """answer = engine.openai().chat.completions.create(
        model=engine.model, messages=[{"role": "user", "content": case["mail"]}], max_tokens=16, temperature=0
    ).choices[0].message.content
    """


def application(
    bench: Bench,
    checks: str,
    returns: str,
    *,
    asks: str = ASKS,
    takes: str = "engine, case",
    inputs: int = INPUTS,
    kind: str = "",
) -> None:
    """Write a test file with one application, which asks its engine once per input and returns this."""
    text = SUITE.format(checks=checks, body=f"{asks}{returns}", takes=takes, inputs=inputs, kind=kind)
    bench.pytester.makepyfile(test_app=text)


def test_values_that_differ_fail_field_by_field_and_show_the_first(bench: Bench) -> None:
    application(bench, "check.value(agree=0.8)", 'return {"queue": answer, "size": len(case["mail"])}')
    engines = [bench.engine("billing"), bench.engine("shipping")]

    result = bench.run(engines=engines)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "plan: 14 requests to each of 2 engines, 28 in all; 2 engines together, *",
            "applications: 14 of these requests to each engine are runs of applications, which send what they like",
            "FAIL value.agree, b against a: 0 % of values are equal, at most *, at least 80 % asked, 14 prompts",
            "  $.queue differs in 14 of 14",
            "  first: mail-0: $.queue",
            '    a "billing"',
            '    b "shipping"',
        ]
    )
    assert {len(bench.asked(engine)) for engine in engines} == {INPUTS}
    result.stdout.no_fnmatch_line("*suite's own*")
    result.stdout.no_fnmatch_line("*returned*None*")


def test_values_that_agree_pass_whatever_their_type_and_the_test_has_no_parameters_in_its_name(bench: Bench) -> None:
    application(
        bench,
        "check.value(agree=0.8, rate=0.8, drift=0.2), check.value(gap=0.2)",
        "return Pair(Ticket(queue=answer), (1, 2.5, None))",
    )
    engines = [bench.engine("billing"), bench.engine("billing")]

    result = bench.run("-v", "--parity-report=json", "--parity-out=out", engines=engines)

    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["test_app.py::test_bot PASSED*"])
    kinds = {(verdict["kind"], verdict["outcome"]) for verdict in bench.report()["verdicts"]}
    assert kinds == {(f"value.{limit}", "PASS") for limit in ("agree", "rate", "drift", "gap")}
    assert {len(bench.asked(engine)) for engine in engines} == {2 * INPUTS}  # each twice, for drift


@pytest.mark.slow
@pytest.mark.parametrize(
    ("returns", "says"),
    [
        ("answer", "INCONCLUSIVE value.agree*the application returned None in all 28 runs: does the test return*"),
        ('raise ValueError(f"no queue in {answer}")', "FAIL value.agree*"),
    ],
)
def test_returning_or_raising_nothing_alike_is_no_agreement(bench: Bench, returns: str, says: str) -> None:
    application(bench, "check.value(agree=0.8)", returns)

    result = bench.run("--parity-inconclusive", "fail", engines=[bench.engine("billing"), bench.engine("billing")])

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([says])


@pytest.mark.slow
def test_an_exception_on_one_engine_is_counted_by_its_type(bench: Bench) -> None:
    application(
        bench,
        "check.value(rate=0.8, gap=0.2, agree=0.8)",
        "return json_of(answer)",
        asks="import json\n    json_of = json.loads\n    " + ASKS,
    )
    engines = [bench.engine('{"queue": "billing"}'), bench.engine("billing, I think")]

    result = bench.run(engines=engines)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "FAIL value.rate, b: 0 % of runs return a value*",
            "  14 of 14 runs on b return nothing: JSONDecodeError 14",
            "    first: mail-0: JSONDecodeError: Expecting value*",
            "FAIL value.gap, b against a: 100 % of inputs return on one engine only, net*",
            "FAIL value.agree, b against a: 0 % of values are equal*",
            "  raised JSONDecodeError on one engine: 14 of 14",
            '    a {"queue": "billing"}',
            "    b raised JSONDecodeError: Expecting value*",
        ],
        consecutive=False,
    )


def test_what_is_no_json_is_named_with_path_and_type_and_the_rest_is_not_run(bench: Bench) -> None:
    application(bench, "check.value(agree=0.8)", 'return {"queue": answer, "due": [datetime.date(2026, 1, 2)]}')
    engines = [bench.engine("billing"), bench.engine("billing")]

    result = bench.run(engines=engines)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["ERROR value.agree*test_bot returned a value that is no JSON: $.due[[]0] is a date; JSON has none*"]
    )
    assert all(len(bench.asked(engine)) < INPUTS for engine in engines)


def test_coroutines_are_awaited_in_one_loop(bench: Bench) -> None:
    asks = """import asyncio
    loops.add(asyncio.get_running_loop())
    reply = await engine.async_openai().chat.completions.create(
        model=engine.model, messages=[{"role": "user", "content": case["mail"]}], max_tokens=16
    )
    """
    application(
        bench,
        "check.value(agree=0.8)",
        'return {"queue": reply.choices[0].message.content, "loops": len(loops) <= 2}',
        asks=asks,
        takes="engine, case, loops=set()",
        kind="async ",
    )

    result = bench.run(engines=[bench.engine("billing"), bench.engine("billing")])

    assert result.ret == pytest.ExitCode.OK


@pytest.mark.slow
def test_parameters_of_the_test_are_given_and_make_a_gate_each(bench: Bench) -> None:
    application(bench, "check.value(agree=0.8)", "return [answer, language]", takes="engine, case, language")
    file = bench.pytester.path / "test_app.py"
    mark = '@pytest.mark.parametrize("language", ["en", "de"])\n@pytest.mark.parity'
    file.write_text(file.read_text().replace("@pytest.mark.parity", mark))
    engines = [bench.engine("billing"), bench.engine("billing")]

    result = bench.run("-v", engines=engines)

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["test_app.py::test_bot[[]en] PASSED*", "test_app.py::test_bot[[]de] PASSED*"])
    assert {len(bench.asked(engine)) for engine in engines} == {2 * INPUTS}


@pytest.mark.parametrize(
    ("checks", "takes", "says"),
    [
        ("check.value(agree=0.8)", "case", "*the test takes engine and case, and it takes no engine: def test_bot*"),
        ("check.value(agree=0.8)", "engine", "*the test takes engine and case, and it takes no case: def test_bot*"),
        ("check.value(agree=0.8)", "engine, case, tmp_path", "*test_bot takes tmp_path, and a test with check.value*"),
        ("check.value(agree=0.8), check.text(margin=0.05)", "engine, case", "*check.text(margin=0.05) judges what*"),
        ("check.value(agree=0.8), max_tokens=8", "engine, case", "*has max_tokens beside check.value(): the app*"),
        ("check.value(agree=0.8), repeats=3", "engine, case", "*has repeats beside check.value(): drift=0.05 runs*"),
        ("check.value()", "engine, case", "*value() needs at least one limit: agree=0.95*"),
        ("check.value(agree=95)", "engine, case", "*value(agree=95): agree is a share: 0.95 is 95 %*"),
        ("check.value(agree=0.8, key=3)", "engine, case", "*value(key=3): key is a function of a value*"),
        (
            "check.value(rate=0.8, tolerance=0.1)",
            "engine, case",
            "*tolerance and unordered say what agree= and*",
        ),
        ("check.value(agree=0.8, tolerance=-1)", "engine, case", "*value(tolerance=-1): a tolerance is a number of*"),
        ("check.value(agree=0.99)", "engine, case", "*agree=0.99 takes at least 299 prompts*"),
    ],
)
def test_what_cannot_be_judged_is_an_error_before_anything_is_run(
    bench: Bench, checks: str, takes: str, says: str
) -> None:
    application(bench, checks, "return answer", takes=takes)
    engine = bench.engine("billing")

    result = bench.run(engines=[engine, bench.engine("billing")])

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([says])
    assert not bench.asked(engine)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"mail": "x"}', "*inputs.jsonl:1: *id*"),
        ('{"id": "a", "tags": 3}', "*inputs.jsonl:1: *tags*"),
        ("[]", "*inputs.jsonl:1: is *; expected an object with an id and what the application reads"),
        ("", '*inputs.jsonl: holds no cases; write one per line, such as {"id": "mail-1", "mail": *'),
    ],
)
def test_inputs_that_are_none_are_an_error_with_their_line(bench: Bench, line: str, says: str) -> None:
    application(bench, "check.value(agree=0.8)", "return answer")
    file = bench.pytester.path / "test_app.py"
    file.write_text(file.read_text().replace("parity(INPUTS", 'parity("inputs.jsonl"'))
    (bench.pytester.path / "inputs.jsonl").write_text(line)

    result = bench.run(engines=[bench.engine("billing"), bench.engine("billing")])

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([says])


@pytest.mark.slow
def test_a_replay_judges_what_is_stored_and_calls_nothing_whatever_became_of_the_code(bench: Bench) -> None:
    application(bench, "check.value(agree=0.8)", "return answer")
    engines = [bench.engine("billing"), bench.engine("shipping")]
    bench.run(engines=engines)
    asked = len(bench.asked(engines[0]))
    application(bench, "check.value(agree=0.8, key=len)", 'raise RuntimeError("called again")')

    result = bench.run("--parity-mode=replay", engines=engines)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["FAIL value.agree*", "    a 7", "    b 8"])
    assert len(bench.asked(engines[0])) == asked


@pytest.mark.slow
def test_other_code_is_run_anew_and_reports_show_inputs_and_values(bench: Bench) -> None:
    application(bench, "check.value(agree=0.8)", "return answer")
    engines = [bench.engine("billing"), bench.engine("shipping")]
    reports = ("--parity-report=json,html,md", "--parity-out=out", "--junitxml=out/junit.xml")

    bench.run(*reports, engines=engines)

    out = bench.pytester.path / "out"
    assert "value.agree" in (out / "junit.xml").read_text()
    assert "value.agree" in (out / "summary.md").read_text()
    page = (out / "report.html").read_text()
    assert "value.agree" in page
    assert "question 7" in page
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert {row["text"] for row in rows} == {'"billing"', '"shipping"'}


@pytest.mark.slow
def test_an_application_under_a_decorator_is_called_like_any(bench: Bench) -> None:
    application(bench, "check.value(agree=0.8)", "return answer")
    file = bench.pytester.path / "test_app.py"
    again = """import functools

def again(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        case = engine = None
        return function(*args, **kwargs)
    return inner

@pytest.mark.parity("""
    file.write_text(
        file.read_text().replace("@pytest.mark.parity(", again).replace("def test_bot", "@again\ndef test_bot")
    )
    engines = [bench.engine("billing"), bench.engine("billing")]

    result = bench.run(engines=engines)

    assert result.ret == pytest.ExitCode.OK
    assert {len(bench.asked(engine)) for engine in engines} == {INPUTS}


def test_without_engines_it_is_skipped_like_any_parity_test(bench: Bench) -> None:
    application(bench, "check.value(agree=0.8)", "return answer")

    result = bench.run()

    result.assert_outcomes(skipped=1)


def test_an_engine_that_is_gone_is_an_error_and_no_value(bench: Bench) -> None:
    application(
        bench,
        "check.value(agree=0.8, exceptions=True)",
        "return answer",
        asks='raise ConnectionRefusedError("nobody")\n    ',
    )

    result = bench.run(engines=[bench.engine("billing"), bench.engine("billing")])

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["ERROR value.agree*"])


@pytest.mark.slow
def test_annotations_that_only_type_checkers_can_read_are_not_evaluated(bench: Bench) -> None:
    """Python 3.14 evaluates them for whoever asks for a signature; before, only text does no harm."""
    application(bench, "check.value(agree=0.8)", "return answer", takes="engine: Engine, case: Row")
    file = bench.pytester.path / "test_app.py"
    lazily = "" if sys.version_info >= (3, 14) else "from __future__ import annotations\n"
    hidden = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nowhere import Engine, Row\n"
    file.write_text(lazily + hidden + file.read_text())

    result = bench.run(engines=[bench.engine("billing"), bench.engine("billing")])

    assert result.ret == pytest.ExitCode.OK
