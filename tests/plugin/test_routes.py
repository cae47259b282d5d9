"""Whole runs over the routes beside the one for chats."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.cli import main
from tests.doubles.abilities import Abilities

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

ENGINE = """
[engines.{0}]
kind = "llamacpp"
model = "loopback"
base_url = "{1}"
route = "{2}"
"""


def told(result: pytest.RunResult) -> str:
    return " ".join(result.stdout.str().split())


@pytest.mark.slow
def test_responses_and_chats_of_one_server_are_held_against_each_other(bench: Bench) -> None:
    engine = bench.engine(poses_as="llamacpp")
    bench.configure(
        ENGINE.format("chat", engine.base_url, "openai") + ENGINE.format("new", engine.base_url, "responses")
    )
    bench.gate("check.prompts(), check.text(margin=0.05)")

    result = bench.run("--engines=chat,new", "--parity-report=json", "--parity-out=out")

    result.assert_outcomes(passed=1)
    assert "new: its responses and openai routes answer 8 cases alike" in told(result)
    paths = [received.path for received in engine.requests if "question" in str(received.json)]
    assert set(paths) == {"/v1/chat/completions", "/v1/responses"}
    assert [each["route"] for each in bench.report()["engines"]] == ["openai", "responses"]


def test_what_a_route_cannot_give_is_skipped_or_refused_with_the_reason(bench: Bench) -> None:
    able = Abilities(tools="taken")
    engine, other = bench.engine(poses_as="llamacpp", abilities=able), bench.engine(poses_as="llamacpp", abilities=able)
    bench.configure(
        ENGINE.format("chat", other.base_url, "openai")
        + ENGINE.format("new", engine.base_url, "responses")
        + ENGINE.format("old", engine.base_url, "completions")
    )
    bench.gate("check.logprobs(shift=0.5)")

    result = bench.run("--engines=chat,new,old")

    printed = told(result)
    assert "new reports no logprobs (declared, confirmed by a probe): logprobs of" in printed
    assert "old is asked over route 'completions', which takes raw prompts alone" in printed
    assert not [received for received in engine.requests if "question" in str(received.json)]


@pytest.mark.slow
def test_a_recording_of_responses_is_played_as_what_it_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bench.pytester.path)
    engine, dev = bench.engine(poses_as="llamacpp"), bench.engine(poses_as="llamacpp")
    bench.configure(ENGINE.format("prod", engine.base_url, "responses"))
    bench.gate("check.prompts(), check.text(margin=0.05)")
    assert main(["record", "prod", "--prompts", "prompts.jsonl", "--max-tokens", "12"]) == 0
    engine.stop()

    result = bench.run(f"--engines=replay:prod,dev={bench.selected(dev)}")

    result.assert_outcomes(passed=1)
    head = json.loads((bench.pytester.path / "recordings/prod.jsonl").read_text("utf-8").splitlines()[0])
    assert head["route"] == "responses"


def test_raw_prompts_over_completions_are_those_of_the_default_route(bench: Bench) -> None:
    rows = [{"id": f"case-{number}", "prompt": f"question {number}"} for number in range(20)]
    (bench.pytester.path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    engine, dev = bench.engine(poses_as="llamacpp"), bench.engine(poses_as="llamacpp")
    bench.configure(ENGINE.format("a", engine.base_url, "openai") + ENGINE.format("b", dev.base_url, "completions"))
    bench.gate("check.prompts(), check.text(margin=0.05)")

    result = bench.run("--engines=a,b")

    result.assert_outcomes(passed=1)
    assert {received.path for received in dev.requests} == {"/v1/completions"}
    assert "routes answer" not in told(result)
