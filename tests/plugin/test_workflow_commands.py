"""What models and servers write cannot order the CI service about that reads pytest's output."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.plugin.reported.conftest import project
from tests.plugin.reported.wire import Answer, Json, document, plain
from tests.workflow_commands import executed_lines

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

__all__ = ["project"]

ORDERS = "##[add-mask]all " + "w" * 60 + " ::add-mask::all\n::stop-commands::x\r::error::y ##vso[task.complete]z"
FILE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("prompts.jsonl", check.text(margin=0.05), check.prompts())
def test_gate(parity_run):
    text = parity_run["cand"]["q1"].text
    print(text)
    raise ValueError(text)

@pytest.mark.parity("prompts.jsonl", check.text(margin=0.05))
def test_assertion(parity_run):
    assert parity_run["cand"]["q2"].text == parity_run["base"]["q2"].text

@pytest.mark.parity("prompts.jsonl", check.text(margin=0.05))
def test_skips(parity_run):
    pytest.skip("why " + parity_run["cand"]["q2"].text.splitlines()[0])

@pytest.mark.parity("prompts.jsonl", check.text(margin=0.05))
def test_plain(): ...
"""


def test_what_a_test_prints_and_raises_is_no_command(bench: Bench) -> None:
    """Without a request: no test of the run has a gate."""
    bench.pytester.makepyfile(
        "def test_orders():\n    print('::error::printed')\n    raise ValueError('##[error]raised')"
    )

    result = bench.run("-rA", "--engines=a=http://127.0.0.1:9")

    result.assert_outcomes(failed=1)
    assert ":error::printed" in result.stdout.str()
    assert "error]raised" in result.stdout.str()
    assert not executed_lines(result.stdout.str())


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("-vv", "--showlocals", "-rA"), ("--tb=native",), ("--parity-case=q1", "-s")])
def test_no_printed_line_is_a_command(
    project: Any, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    def refuses(body: Json) -> Answer:
        if "question 3" in str(body):
            return document({"error": {"message": ORDERS, "code": 400}}, status=400)
        return plain(ORDERS)(body)

    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("COLUMNS", "80")
    project.engine("base", plain("One ordinary answer."))
    project.engine("cand", refuses)
    project.prompts([{"id": f"q{i}", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(8)])
    project.write("test_gate.py", FILE if "-s" not in arguments else FILE.replace("print(text)", ""))

    result = project.run(*arguments)

    assert "add-mask" in result.stdout.str()
    assert not executed_lines(result.stdout.str())
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    lines = (project.pytester.path / "out" / "samples.jsonl").read_text("utf-8").splitlines()
    assert ORDERS in {json.loads(line)["text"] for line in lines}
