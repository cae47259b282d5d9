"""Real vLLM on the CPU and real llama.cpp serve the same weights: one run judges them, then it is killed.

They were locked in another folder, one at a time, so that run is also a second start that has to be what the first was.
Here alone vLLM starts its engine core anew, as users have it, and not as a fork.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity import lockfile
from pytest_llmparity.core.identity.lock import NAME

if TYPE_CHECKING:
    from tests.live.conftest import InTurn, LiveRun

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.usefixtures("llamacpp")]

SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity(
    "{capitals}", check.prompts(), check.text(margin=0.1), check.logprobs(shift=0.06), max_tokens=32
)
def test_capitals(): ...

# Tickets come from ten templates, so from ten groups, and so many can settle no smaller gap.
@pytest.mark.parity("{tickets}", check.schema("{schemas}/ticket.json", gap=0.4), max_tokens=64)
def test_tickets(): ...

def test_app(engine):
    said = engine.openai().chat.completions.create(
        model=engine.model, temperature=0, messages=[{{"role": "user", "content": "What is the capital of France?"}}]
    )
    assert said.choices[0].message.content == "The capital of France is Paris."
    with open("app.txt", "a") as out:
        out.write(engine.name + "\\n")
"""
PROMPTS, TICKETS = 24, 16


@pytest.fixture(scope="module")
def run(
    in_turn: InTurn,
    launch: Callable[..., LiveRun],
    gguf: Callable[..., str],
    vllm: str,
    some: Callable[..., Path],
    prompts: Path,
    stay: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> LiveRun:
    project = tmp_path_factory.mktemp("locked")
    shutil.copytree(in_turn.folder / "tiny", project / "tiny")
    shutil.copy(in_turn.folder / NAME, project)
    suite = SUITE.format(
        capitals=some("capitals", PROMPTS),
        tickets=some("tickets_constrained", TICKETS),
        schemas=prompts.parent / "schemas",
    )
    run = launch(
        *("--engines=f16,bf16", "--parity-frozen"),
        suite=suite + stay,
        config=gguf("f16", "F16") + vllm,
        project=project,
    )
    run.wait_for("all-up")
    return run


def test_both_are_as_locked_in_another_folder(run: LiveRun) -> None:
    assert "INCOMPARABLE" not in {verdict["outcome"] for verdict in run.verdicts().values()}
    known = lockfile.read(run.folder / NAME) or {}
    assert set(known) >= {"f16", "bf16"}
    assert known["bf16"].identity["build"].source == "reported"


def test_both_engines_see_the_same_prompts(run: LiveRun) -> None:
    assert run.verdicts()["test_capitals", "prompts", "bf16"]["outcome"] == "PASS"


def test_16_bits_here_and_there_say_the_same(run: LiveRun) -> None:
    verdict = run.verdicts()["test_capitals", "text", "bf16"]

    assert verdict["outcome"] == "PASS", verdict
    assert verdict["n"] == PROMPTS


def test_and_mean_the_same(run: LiveRun) -> None:
    verdict = run.verdicts()["test_capitals", "logprobs", "bf16"]

    assert verdict["outcome"] == "PASS", verdict
    assert 0.005 < verdict["estimate"] < 0.06  # other arithmetic is seen, and no more


def test_a_forced_schema_holds_on_both(run: LiveRun) -> None:
    verdict = run.verdicts()["test_tickets", "schema.gap", "bf16"]

    assert verdict["outcome"] == "PASS", verdict
    assert verdict["estimate"] == 0


def test_application_code_ran_on_both(run: LiveRun) -> None:
    assert sorted((run.folder / "app.txt").read_text().split()) == ["bf16", "f16"]


def test_kill_9_of_pytest_leaves_no_grandchild_of_vllm(run: LiveRun) -> None:
    names = [" ".join(process.cmdline()) for process in run.family()]
    assert any("vllm" in name.lower() for name in names), names
    assert len(names) >= 4, "the keeper, llama.cpp, vLLM's server and its engine core"

    assert run.kill_9() == []
