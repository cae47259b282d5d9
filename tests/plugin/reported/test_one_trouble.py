"""A model that cannot start is told once a run, with its log and what it cost (a new user's run said it 18 times)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.plugin.reported.wire import document, plain

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

GATES = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("prompts.jsonl", check.prompts(), check.text(margin=0.05), check.schema({}, gap=0.5))
def test_one(): ...

@pytest.mark.parity("prompts.jsonl", check.prompts(), check.text(margin=0.05), check.schema({}, gap=0.5), max_tokens=9)
def test_two(): ...
"""


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port at which nobody listens while the test runs, and engines that are not waited for long."""
    monkeypatch.setattr("pytest_llmparity.engines.wire.base.ATTACH_DEADLINE_S", 0.2)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def gates(project: Any) -> None:
    project.prompts([{"id": f"q{i}", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(16)])
    project.write("test_gate.py", GATES)


def test_an_engine_that_is_not_there_is_told_once_with_its_log_and_what_it_cost(project: Any, nobody: int) -> None:
    gates(project)
    project.engine("base", plain("yes"))
    project.write(
        "llmparity.toml",
        f'[engines.ollama]\nkind = "ollama"\nmodel = "qwen3"\nbase_url = "http://127.0.0.1:{nobody}"\n',
    )

    result = project.run("--engines=ollama")

    printed = " ".join(result.stdout.str().split())
    assert (
        "and so six verdicts: prompts, text, schema.gap of test_one; prompts, text, schema.gap of test_two" in printed
    )
    assert printed.count("journalctl -u ollama") == 1
    assert "and so two other verdicts of this test: text; schema.gap" in printed
    reason = "ollama was not ready after 0.2 s"
    assert reason in printed
    assert printed.count(reason) <= 1 + 2 + 2, "the summary, and a line for each test above and in the list of failures"


def test_a_baseline_that_is_not_there_is_told_once_for_all_it_would_have_judged(project: Any, nobody: int) -> None:
    gates(project)
    project.write(
        "llmparity.toml",
        f'[engines.base]\nkind = "openai"\nmodel="m"\nbase_url = "http://127.0.0.1:{nobody}"\n',
    )
    project.engine("b", plain("yes"))
    project.engine("c", plain("yes"))

    result = project.run("--engines=base", "--parity-baseline=base")

    printed = " ".join(result.stdout.str().split())
    assert "and so twelve verdicts" in printed
    assert "b: six verdicts not judged because of base" in printed
    assert "c: six verdicts not judged because of base" in printed


@pytest.mark.slow
def test_what_a_started_engine_said_last_is_printed_once(bench: Bench) -> None:
    bench.gate("check.prompts(), check.text(margin=0.05), check.schema({}, gap=0.5)")
    bench.configure(bench.process("gone", "exit"))

    result = bench.run("--engines=gone", engines=[bench.engine()])

    printed = result.stdout.str()
    assert printed.count("giving up") == 1
    assert "its log: .llmparity/logs/gone.log" in printed
    assert "and so three verdicts" in printed
    assert "what gone said stands in the summary of this run" in printed


@pytest.mark.slow
def test_an_engine_that_refuses_every_prompt_is_told_once_for_all_its_checks(project: Any) -> None:
    gates(project)
    project.engine("base", plain("yes"))
    ordinary, refusal = plain("yes"), document({"error": {"message": "no such adapter"}}, 400)
    project.engine("cand", lambda body: refusal if "question" in str(body) else ordinary(body))

    result = project.run()

    printed = " ".join(result.stdout.str().split())
    assert (
        "and so six verdicts: prompts, text, schema.gap of test_one; prompts, text, schema.gap of test_two" in printed
    )
    assert "and so two other verdicts of this test: text; schema.gap" in printed
    assert printed.count("no such adapter") <= 1 + 2 + 2, "as one that is not there"
