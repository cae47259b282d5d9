"""Prompts that ask for several choices in one answer (``n``): sent, read by index, stored, judged and told of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from pytest_llmparity.testing import LoopbackEngine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.plugin.conftest import Bench

DRAWN = "sampling={'temperature': 0.8, 'seed': None}"
FAILED = pytest.ExitCode.TESTS_FAILED


def speaking(request: Mapping[str, Any]) -> str:
    """Answer otherwise in every choice: the first is the number of the question."""
    question = request["messages"][-1]["content"]
    return f"{request.get('choice', 'only')} of {question}"


def samples(bench: Bench, engine: str = "a") -> list[dict[str, Any]]:
    lines = (bench.pytester.path / "out/samples.jsonl").read_text("utf-8").splitlines()
    return [line for line in map(json.loads, lines) if (line["engine"], line["phase"]) == (engine, "main")]


REPORTED = ("--parity-report=json", "--parity-out=out")


def test_every_choice_is_read_by_its_index_and_stored_and_the_first_is_judged(bench: Bench) -> None:
    bench.prompts(n=4, expect={"contains": "0 of question"})
    bench.gate(f"check.answers(rate=0.5), {DRAWN}", body="assert len(parity_run['a']['case-1'].choices) == 4")
    engine = bench.engine(speaking, poses_as="vllm")

    result = bench.run(*REPORTED, engines=[engine])

    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
    assert {body["n"] for body in bench.asked(engine)} == {4}
    (first, *_) = samples(bench)
    number = first["case"].partition("-")[2]
    assert first["text"] == f"0 of question {number}"
    assert [choice["text"] for choice in first["choices"]] == [f"{place} of question {number}" for place in (1, 2, 3)]
    assert first["usage"]["completion_tokens"] == 16, "what the server counted, of all choices"
    assert not first["cut"], "the count of all choices is no sign that the first was cut"
    (verdict,) = bench.report()["verdicts"]
    assert "8 prompts of 8 with n: of several choices the first is judged" in verdict["remarks"]


def test_choices_are_the_draws_of_a_distribution(bench: Bench) -> None:
    bench.prompts(12, n=4)
    bench.gate(f"check.distribution(repeats=1, gate=True), {DRAWN}")

    def other(request: Mapping[str, Any]) -> str:
        return f"quite another {speaking(request)}"

    result = bench.run(
        *REPORTED, engines=[bench.engine(speaking, poses_as="vllm"), bench.engine(other, poses_as="vllm")]
    )

    assert result.ret == FAILED
    (verdict,) = bench.report()["verdicts"]
    assert (verdict["kind"], verdict["outcome"], verdict["requests"]) == ("distribution", "FAIL", 2 * 12 * 4)
    assert verdict["remarks"] == []


def test_an_engine_that_gives_fewer_choices_is_told_of(bench: Bench) -> None:
    bench.prompts(n=3)
    bench.gate(f"check.schema({{'type': 'object'}}, rate=0.5), check.distribution(repeats=1), {DRAWN}")
    engines = [bench.engine("{}", poses_as="vllm"), bench.engine("{}", poses_as="vllm")]
    engines[1].most_choices = 1

    bench.run(*REPORTED, engines=engines)

    remark = "b gave fewer choices than n asks for to 8 prompts; first: case-0: 1 of 3"
    of_b = [verdict for verdict in bench.report()["verdicts"] if verdict["engine"] == "b"]
    assert {remark in verdict["remarks"] for verdict in of_b} == {True}
    (drawn,) = [verdict for verdict in of_b if verdict["kind"] == "distribution"]
    assert (
        "too few answers to compare: nothing was compared: 8 prompts drawn only once on an engine" in drawn["message"]
    )


def test_a_replay_and_golden_answers_hold_every_choice(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    bench.prompts(n=2)
    bench.gate(
        f"check.schema({{'type': 'object'}}, rate=0.01), {DRAWN}",
        body="print(next(iter(parity_run.values()))['case-1'].choices[1].text)",
    )
    engine = bench.engine(speaking, poses_as="vllm")

    bench.run("--parity-update-golden=all", engines=[engine])
    line = json.loads((bench.pytester.path / "golden/prompts/a.jsonl").read_text("utf-8").splitlines()[1])
    replayed = bench.run("--parity-mode=replay", "-s", engines=[engine])
    held = bench.run("--engines=golden:a", "-s")

    assert [choice["text"] for choice in line["answers"][0]["choices"]] == ["1 of question 0"]
    for result in (replayed, held):
        result.stdout.fnmatch_lines(["*1 of question 1*"])


@pytest.mark.parametrize("kind", ["ollama", "mlx", "transformers", "tgi"])
def test_a_kind_that_gives_one_choice_is_not_asked_for_several(bench: Bench, kind: str) -> None:
    bench.prompts(n=4)
    bench.gate(f"check.schema({{'type': 'object'}}, rate=0.5), {DRAWN}")
    engine = bench.engine(speaking, poses_as=kind)

    result = bench.run(engines=[engine])

    result.stdout.fnmatch_lines(["*would give one answer to case 'case-*', which asks for n = 4*repeats=4*"])
    assert not bench.asked(engine)


def test_a_route_that_gives_one_answer_is_not_asked_for_several(bench: Bench) -> None:
    bench.prompts(n=4)
    bench.gate(f"check.schema({{'type': 'object'}}, rate=0.5), {DRAWN}")
    engine = bench.engine(speaking, poses_as="vllm")
    bench.configure(
        f'[engines.a]\nkind = "vllm"\nmodel = "{engine.model}"\nbase_url = "{engine.base_url}"\nroute = "responses"\n'
    )

    result = bench.run("--engines=a")

    result.stdout.fnmatch_lines(["*route 'responses' gives one answer to a request*"])
    assert not bench.asked(engine)


@pytest.mark.parametrize(
    ("row", "checks", "why"),
    [
        ({"n": 4}, "check.prompts()", "asks for n = 4 choices at temperature 0, which are one answer 4 times"),
        ({"n": 0}, f"check.prompts(), {DRAWN}", "n is 0"),
        ({"n": 129}, f"check.prompts(), {DRAWN}", "n is 129"),
        ({}, f"check.distribution(repeats=1), {DRAWN}", "prompt case-0 would be drawn once"),
        ({"extra_body": {"n": 2}}, "check.prompts()", "has n, which is sent anyway: write it in the case itself"),
    ],
)
def test_what_makes_no_sense_is_an_error_of_the_test(bench: Bench, row: dict[str, Any], checks: str, why: str) -> None:
    bench.prompts(**row)
    bench.gate(checks)
    engine = bench.engine(speaking, poses_as="vllm")

    result = bench.run(engines=[engine, bench.engine(speaking, poses_as="vllm")])

    assert result.ret == FAILED
    result.stdout.fnmatch_lines([f"*{why}*"])
    assert not bench.asked(engine)


def test_the_double_counts_the_prompt_once() -> None:
    with LoopbackEngine(speaking) as engine:
        body = {"messages": [{"role": "user", "content": "question 1"}], "n": 3}
        answer = httpx.post(f"{engine.base_url}/v1/chat/completions", json=body).json()

    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 12, "total_tokens": 15}
