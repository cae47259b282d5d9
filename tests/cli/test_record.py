"""``llmparity record``: what it takes, what it refuses, and a suite that is recorded and played."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.settings.given.contradictions import check_recordable
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.testing.script import Fault
from tests.cli.test_golden import ALONE, CASES, GATE, prompts

if TYPE_CHECKING:
    from tests.cli.conftest import Shell


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "the following arguments are required: ENGINE"),
        (("a", "--suite", "x", "--prompts", "y"), "not allowed with argument"),
        (("http://127.0.0.1:9,http://127.0.0.1:8",), "record takes one engine, not 2"),
        (("nobody",), "unknown engine 'nobody'"),
        (("golden:x",), "there are no golden answers of 'x'"),
        (("replay:x",), "there is no recording 'x'"),
        (("a=http://127.0.0.1:9", "-o", "elsewhere/a.jsonl"), "-o: elsewhere/a.jsonl is not "),
        (("a=http://127.0.0.1:9", "-o", "recordings/A.jsonl"), "'A' can be no name of a recording"),
        (("a=http://127.0.0.1:9", "-o", "../recordings/a.jsonl"), "recordings lie in that folder and end in .jsonl"),
        (("a=http://127.0.0.1:9", "--suite", "gone"), "--suite: there is no gone"),
        (("a=http://127.0.0.1:9", "--max-tokens", "9"), "--max-tokens belongs to --prompts"),
        (("a=http://127.0.0.1:9", "--prompts", "p", "--max-tokens", "0"), "--max-tokens takes a whole number"),
        (("a=http://127.0.0.1:9", "--prompts", "p", "--timed", "3"), "--timed takes at least 5 requests"),
        (("a=http://127.0.0.1:9", "--prompts", "p", "--timed", "0"), "not 0; without it there is no timed phase"),
        (("a=http://127.0.0.1:9", "--prompts", "p", "--", "-k", "x"), "arguments of pytest belong to --suite"),
        (("a=http://127.0.0.1:9", "--prompts", "gone.jsonl"), "gone.jsonl"),
    ],
)
def test_misuse_is_said_before_anything_runs(shell: Shell, words: tuple[str, ...], why: str) -> None:
    told = shell.run("record", *words)

    assert (told.code, why in told.err) == (4, True), told.err
    assert told.out == ""


@pytest.mark.parametrize(
    ("keys", "words", "why"),
    [
        ("replicas = 2\n", ("--prompts", "p.jsonl"), "prod is started 2 times (replicas); record it with replicas = 1"),
        ("replicas = 2\n", (), "prod is started 2 times (replicas); record it with replicas = 1"),
        pytest.param(
            *("", ("--", "--parity-executor", "ray"), "pytest ended with exit code 4, so nothing is recorded"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_engine_that_answers_in_several_places_is_not_recorded(
    shell: Shell, keys: str, words: tuple[str, ...], why: str
) -> None:
    model = "kind = 'llamacpp'\nmodel = 'm.gguf'\n"
    (shell.path / "llmparity.toml").write_text(f"[engines.prod]\n{model}{keys}")
    (shell.path / "m.gguf").touch()
    (shell.path / "test_other.py").write_text("def test_other(): ...\n")

    told = shell.run("record", "prod", *words)

    assert told.code == 4
    assert why in told.err
    assert not (shell.path / "recordings").exists()


def test_one_that_is_placed_on_a_cluster_is_refused_and_one_that_runs_elsewhere_is_not() -> None:
    with pytest.raises(UsageError, match=r"prod would run on a cluster \(executor = 'ray'\)"):
        check_recordable(EngineSpec(name="prod", launch="process"), executor="ray")

    check_recordable(EngineSpec(name="prod", base_url="http://127.0.0.1:9"), executor="ray")


@pytest.mark.slow
@pytest.mark.usefixtures("warm_commands")
def test_a_suite_that_asks_nothing_is_no_recording(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", ALONE)
    (shell.path / "test_other.py").write_text("def test_other(): ...\n")
    engine = shell.engine()

    told = shell.run("record", f"prod={engine.base_url}")

    assert told.code == 4
    assert "no test asked the engine anything, so nothing is recorded" in told.err
    assert not (shell.path / "recordings").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("warm_commands")
@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--engines", "dev=http://127.0.0.1:9"), "so nothing is recorded"),
        (("--parity-case", "case-1"), "it asked single cases (--parity-case); nothing is recorded"),
        (("--parity-max-requests", "3"), "is no whole run: "),
    ],
)
def test_another_engine_or_a_part_of_the_cases_replaces_no_recording(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], why: str
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", ALONE)
    prompts(shell.path, 8)
    (shell.path / "test_gate.py").write_text(GATE)
    (shell.path / "recordings").mkdir()
    (shell.path / "recordings/prod.jsonl").write_text("as it was")
    engine = shell.engine(poses_as="llamacpp")

    told = shell.run("record", f"prod={engine.base_url}", "--", "-q", *more)

    assert (told.code, why in told.err) == (4, True), told
    assert (shell.path / "recordings/prod.jsonl").read_text() == "as it was"


@pytest.mark.slow
def test_cases_that_were_not_answered_are_named_and_what_was_there_stays(shell: Shell) -> None:
    prompts(shell.path, 8)
    (shell.path / "recordings").mkdir()
    (shell.path / "recordings/prod.jsonl").write_text("as it was")
    engine = shell.engine(
        answer=lambda request: Fault.busy(99, retry_after="0") if "question 3" in str(request) else "alike",
        poses_as="llamacpp",
    )

    told = shell.run("record", f"prod={engine.base_url}", "--prompts", "tickets.jsonl", "--max-tokens", "12")

    assert told.code == 4
    assert "1 case of prod had no answer (case-3)" in told.err
    assert (shell.path / "recordings/prod.jsonl").read_text() == "as it was"


@pytest.mark.slow
@pytest.mark.usefixtures("warm_commands")
def test_a_suite_is_recorded_as_its_tests_ask_and_a_second_one_says_that_it_replaced_it(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", ALONE)
    prompts(shell.path, CASES)
    (shell.path / "test_gate.py").write_text(GATE)
    engine = shell.engine(answer="alike", poses_as="llamacpp")

    first = shell.run("record", f"prod={engine.base_url}", "--suite", "test_gate.py", "-o", "p")
    again = shell.run("record", f"prod={engine.base_url}", "-o", "recordings/p.jsonl", "--", "-q")

    assert first.code == 0, first.err
    assert "wrote recordings/p.jsonl: " in first.out
    assert first.out.rstrip().endswith("play it: pytest --engines replay:p")
    assert "replaced recordings/p.jsonl: " in again.out
    head, *others = map(json.loads, (shell.path / "recordings/p.jsonl").read_text("utf-8").splitlines())
    assert (head["engine"], head["kind"]) == ("prod", "llamacpp")
    assert len({each["case"] for each in others}) == CASES
