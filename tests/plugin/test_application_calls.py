"""What an application asks its engine is recorded, whatever its client; a value that differs shows where that began."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.testing import Fault
from tests.plugin.test_applications import ASKS, INPUTS, application

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

BY_HTTPX = """import httpx
    with httpx.stream(
        "POST", engine.base_url + "/chat/completions", headers={"authorization": "Bearer " + engine.api_key},
        json={"model": engine.model, "messages": [{"role": "user", "content": case["mail"]}], "stream": True},
        verify=False,
    ) as reply:
        answer = "".join(
            json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
            for line in reply.iter_lines()
            if line.startswith("data: {") and json.loads(line[6:])["choices"]
        )
    """
BY_CURL = """import subprocess
    body = json.dumps({"model": engine.model, "messages": [{"role": "user", "content": case["mail"]}]})
    url = engine.base_url + "/chat/completions"
    done = subprocess.run(["curl", "-sS", "-d", body, "-H", "content-type: application/json", url], capture_output=True)
    answer = json.loads(done.stdout)["choices"][0]["message"]["content"]
    """


def test_the_call_whose_answer_differs_is_shown_in_terminal_and_page(bench: Bench) -> None:
    second = ASKS.replace("answer =", "answer = again =").replace('case["mail"]', '"again: " + case["mail"]')
    application(bench, "check.value(agree=0.8)", "return again", asks=ASKS + second)

    def other(request: dict[str, Any]) -> str:
        return "shipping" if "again" in request["messages"][-1]["content"] else "billing"

    result = bench.run(
        "--parity-report=html,json", "--parity-out=out", engines=[bench.engine("billing"), bench.engine(other)]
    )

    result.stdout.fnmatch_lines(
        [
            "  first: mail-0: $",
            '    a "billing"',
            '    b "shipping"',
            "  where it began: the answer of call 2 of 2 differs",
            "    a billing",
            "    b shipping",
        ]
    )
    assert "the answer of call 2 of 2 differs" in (bench.pytester.path / "out/report.html").read_text()


@pytest.mark.slow
def test_a_request_that_differs_is_told_from_an_answer(bench: Bench) -> None:
    asks = ASKS.replace('case["mail"]', 'case["mail"] + engine.name')
    application(bench, "check.value(agree=0.8)", "return answer", asks=asks)

    result = bench.run(engines=[bench.engine("billing"), bench.engine("shipping")])

    result.stdout.fnmatch_lines(
        ["  where it began: the request of call 1 of 1 differs", "    a *question 0a*", "    b *question 0b*"]
    )


@pytest.mark.parametrize(
    "asks", [BY_HTTPX, pytest.param(BY_CURL, marks=pytest.mark.slow)], ids=["httpx, streamed", "curl"]
)
def test_any_client_is_recorded_and_runs_beside_each_other_are_told_apart(bench: Bench, asks: str, echo: Any) -> None:
    application(bench, "check.value(agree=0.8)", "return answer", asks="import json\n    " + asks)
    engines = [bench.engine(echo), bench.engine(echo)]

    result = bench.run(engines=engines)

    assert result.ret == pytest.ExitCode.OK
    assert {len(bench.asked(engine)) for engine in engines} == {INPUTS}
    with sqlite3.connect(next((bench.pytester.path / ".llmparity").rglob("*.sqlite*"))) as store:
        rows = store.execute("select completion from samples where completion is not null").fetchall()
    store.close()
    answers = [json.loads(row) for (row,) in rows]
    assert len(answers) == 2 * INPUTS
    for answer in answers:
        (call,) = answer["calls"]
        text = json.loads(answer["text"])
        assert (call["status"], call["answer"], call["path"]) == (200, text, "/v1/chat/completions")
        assert json.loads(call["request"])["messages"][0]["content"] == text


def test_no_key_is_in_what_is_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOP_SECRET", "sk-not-to-be-seen-anywhere")
    asks = ASKS.replace('case["mail"]', 'case["mail"] + engine.api_key')
    application(bench, "check.value(agree=0.8)", "return answer", asks=asks)
    engines = [bench.engine("billing"), bench.engine("shipping")]
    bench.configure(
        "".join(
            f'[engines.{name}]\nkind = "openai"\nbase_url = "{engine.base_url}"\nmodel = "{engine.model}"\n'
            'api_key_env = "TOP_SECRET"\n'
            for name, engine in zip("ab", engines, strict=True)
        )
    )

    result = bench.run("--engines=a,b", "--parity-report=html,json", "--parity-out=out")

    result.stdout.fnmatch_lines(["FAIL value.agree*"])
    assert any("sk-not-to-be-seen" in str(received.json) for received in engines[0].requests)
    for file in [*(bench.pytester.path / ".llmparity").rglob("*"), *(bench.pytester.path / "out").rglob("*")]:
        assert not file.is_file() or b"sk-not-to-be-seen" not in file.read_bytes()


@pytest.mark.parametrize(
    ("asks", "returns", "says"),
    [
        ("", 'return {"queue": "billing"}', "*the application asked its engine nothing in all 28 runs: does it use*"),
        (
            "with LOCK:\n        kept = KEPT.setdefault(case['id'], [])\n        if not kept:\n            "
            + ASKS.replace("\n    ", "\n            ")
            + "kept.append(answer)\n    ",
            "return kept[0]",
            "*the same value for * though only one of the engines was asked: does the application keep values?*",
        ),
    ],
    ids=["no call", "a cache"],
)
def test_values_that_did_not_come_from_the_engines_are_no_agreement(
    bench: Bench, asks: str, returns: str, says: str
) -> None:
    application(
        bench,
        "check.value(agree=0.8)",
        returns,
        asks=asks,
        takes="engine, case, KEPT={}, LOCK=__import__('threading').Lock()",
    )

    result = bench.run("--parity-inconclusive", "fail", engines=[bench.engine("billing"), bench.engine("billing")])

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["INCONCLUSIVE value.agree" + says])


def test_an_engine_that_does_not_answer_is_a_failure_even_if_the_application_hides_it(bench: Bench) -> None:
    hides = (
        "try:\n        "
        + ASKS.replace("\n    ", "\n        ")
        + "pass\n    except Exception:\n        answer = 'x'\n    "
    )
    application(bench, "check.value(agree=0.8)", "return answer", asks=hides)

    def gone(request: dict[str, Any]) -> str | Fault:
        return Fault.close() if "question" in str(request) else "ok"

    result = bench.run(engines=[bench.engine(gone), bench.engine(gone)])

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["ERROR value.agree*were not asked: * runs in a row reached nothing*"])


SWALLOWS = """import openai
    for attempt in range(3):
        try:
            answer = engine.openai(ARGS).chat.completions.create(
                model=engine.model, messages=[{"role": "user", "content": case["mail"]}], max_tokens=16
            ).choices[0].message.content
            break
        except openai.APIError:
            answer = "other"
    """.replace("ARGS", "")


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 500])
def test_a_default_for_answers_with_an_error_is_no_value(bench: Bench, status: int) -> None:
    """Both engines fail at everything, and the application returns the same on both."""
    application(bench, "check.value(agree=0.8, rate=0.8)", "return answer", asks=SWALLOWS)

    def refuses(request: dict[str, Any]) -> str | Fault:
        return Fault.refuse(status) if "question" in str(request) else "ok"

    result = bench.run(engines=[bench.engine(refuses), bench.engine(refuses)])

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.no_fnmatch_line("PASS value*")
    result.stdout.fnmatch_lines([f"ERROR value.rate, a: *none of the * calls was answered; the last: HTTP {status}*"])


@pytest.mark.slow
def test_a_call_that_is_dropped_and_made_again_is_no_failure(bench: Bench) -> None:
    application(bench, "check.value(agree=0.8, rate=0.8)", "return answer", asks=SWALLOWS)
    dropped: set[str] = set()

    def flaky(request: dict[str, Any]) -> str | Fault:
        words = str(request)
        if "question" not in words or words in dropped:
            return "ok"
        dropped.add(words)
        return Fault.close()

    result = bench.run(engines=[bench.engine("ok"), bench.engine(flaky)])

    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("ERROR value*")


def test_a_service_of_the_application_that_is_gone_is_no_failure_of_the_engine(bench: Bench) -> None:
    application(bench, "check.value(rate=0.8)", 'raise ConnectionRefusedError("redis")')
    engine = bench.engine("ok")

    result = bench.run(engines=[engine])

    result.stdout.fnmatch_lines(["FAIL value.rate, a: 0 % of runs return a value*"])
    assert len(bench.asked(engine)) == INPUTS


def test_an_application_that_reads_the_beginning_of_an_answer_is_answered(bench: Bench) -> None:
    asks = BY_HTTPX.replace('"".join(', "next(")
    application(bench, "check.value(rate=0.8)", "return answer or 'begun'", asks="import json\n    " + asks)

    result = bench.run(engines=[bench.engine("billing " * 50)])

    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("ERROR value*")
