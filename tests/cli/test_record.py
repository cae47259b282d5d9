"""``llmparity record``: what it takes, what it refuses, and a suite that is recorded and played."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.test_golden import GATE, prompts

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
        (("a=http://127.0.0.1:9", "--prompts", "p", "--", "-k", "x"), "arguments of pytest belong to --suite"),
        (("a=http://127.0.0.1:9", "--prompts", "gone.jsonl"), "gone.jsonl"),
    ],
)
def test_misuse_is_said_before_anything_runs(shell: Shell, words: tuple[str, ...], why: str) -> None:
    told = shell.run("record", *words)

    assert (told.code, why in told.err) == (2, True), told.err
    assert told.out == ""


def test_a_suite_that_asks_nothing_is_no_recording(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider -p no:asyncio")
    (shell.path / "test_other.py").write_text("def test_other(): ...\n")
    engine = shell.engine()

    told = shell.run("record", f"prod={engine.base_url}")

    assert told.code == 1
    assert "no test asked the engine anything, so nothing is recorded" in told.err
    assert not (shell.path / "recordings").exists()


@pytest.mark.slow
def test_a_suite_is_recorded_as_its_tests_ask_and_a_second_one_says_that_it_replaced_it(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider -p no:asyncio")
    prompts(shell.path, 64)
    (shell.path / "test_gate.py").write_text(GATE)
    engine = shell.engine(answer="alike", poses_as="llamacpp")

    first = shell.run("record", f"prod={engine.base_url}", "--suite", "test_gate.py", "-o", "recordings/p.jsonl")
    again = shell.run("record", f"prod={engine.base_url}", "-o", "p.jsonl".join(["recordings/", ""]), "--", "-q")

    assert first.code == 0, first.err
    assert "wrote recordings/p.jsonl: " in first.out
    assert first.out.rstrip().endswith("play it: pytest --engines replay:p")
    assert "replaced recordings/p.jsonl: " in again.out
    head, *others = map(json.loads, (shell.path / "recordings/p.jsonl").read_text("utf-8").splitlines())
    assert (head["engine"], head["kind"]) == ("prod", "llamacpp")
    assert len({each["case"] for each in others}) == 64
