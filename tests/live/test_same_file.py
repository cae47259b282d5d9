"""Real engines told apart from their weights, by the candidate's file on the baseline's engine."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.verdict import Cause, Outcome
from pytest_llmparity.settings.specification import EngineSpec
from tests.real_ollama import RealOllama
from tests.run.conftest import Project

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("llamacpp")]

NATS = check.logprobs(shift=0.06)
PROMPTS = 24


@pytest.fixture
def project(tmp_path: Path, prompts: Path) -> Iterator[Project]:
    """Return a project with mixed prompts."""
    with ExitStack() as stack:
        made = Project(tmp_path, stack)
        rows = [json.loads(line) for line in (prompts / "mixed.jsonl").read_text("utf-8").splitlines()]
        some = [rows[at * len(rows) // PROMPTS] for at in range(PROMPTS)]
        (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, some)), "utf-8")
        yield made


def served(name: str, path: Path) -> EngineSpec:
    return EngineSpec(
        name=name,
        kind="llamacpp",
        launch="process",
        model=path.name,
        model_path=path,
        context_length=1024,
        args=("--threads", "1"),
    )


def causes(project: Project, of: Check, *specs: EngineSpec) -> tuple[Cause, ...]:
    session = project.session(*specs)
    project.declare(session, of)
    session.gather()
    verdicts = session.settle("t", session.parity_run("t", reproduce=""))
    verdict = next(v for v in verdicts if v.kind == "logprobs")
    assert verdict.outcome is Outcome.FAIL, verdict.message
    assert verdict.explanation is not None
    return verdict.explanation.causes


def test_four_bits_of_an_ollama_are_weights(project: Project, models: Path, tmp_path: Path) -> None:
    """Its blob is a GGUF file without a name of one."""
    with RealOllama(tmp_path, {"OLLAMA_CONTEXT_LENGTH": "1024", "LLAMA_ARG_THREADS": "1"}) as daemon:
        dev = EngineSpec(name="dev", kind="ollama", model=daemon.model("Q4_0"), base_url=daemon.url)

        (cause,) = causes(project, NATS, served("prod", models / "tiny-F16.gguf"), dev)

    assert (cause.layer, cause.by_exclusion) == ("weights", False)
    assert cause.text.startswith("the weights of dev (Q4_0, those of prod are F16): sha256-")
    assert cause.text.endswith("…, served as prod is, answers as dev does")


@pytest.mark.slow
def test_a_cache_of_four_bits_is_no_weights(project: Project, models: Path) -> None:
    same = Path(shutil.copy(models / "tiny-F16.gguf", project.path / "copy-F16.gguf"))
    dev = served("dev", same)

    (cause,) = causes(
        project,
        check.logprobs(shift=0.003),
        served("prod", models / "tiny-F16.gguf"),
        dataclasses.replace(dev, args=(*dev.args, "-ctk", "q4_0", "-ctv", "q4_0")),
    )

    assert (cause.layer, cause.by_exclusion) == ("engine", False)
    assert cause.text.startswith("dev's engine or its settings, not its weights: copy-F16.gguf, served as prod is,")
