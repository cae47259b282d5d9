"""Golden answers in a run: on either side of a comparison, nobody asked, and what does not fit them told."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity import check, lockfile
from pytest_llmparity.core.identity import lock
from pytest_llmparity.core.sample import Fact
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.run.recording.writing import of_session
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.store.golden import files

if TYPE_CHECKING:
    from tests.run.conftest import Project

GOLDEN = EngineSpec(name="golden-prod", launch="golden", golden="prod")
PROMPTS = 12


@pytest.fixture
def recorded(project: Project) -> Project:
    """A project with golden answers of an engine that is gone."""
    prod = project.engine("as ever", poses_as="llamacpp")
    session = project.session(project.attached("prod", prod), token="of prod", update_golden="all")
    project.declare(session, check.prompts())
    session.gather()
    of_session(session)
    prod.stop()
    return project


def judged(project: Project, *specs: EngineSpec) -> tuple[list[Verdict], str]:
    """Return the verdicts of a run, and what it notes."""
    session = project.session(*specs)
    project.declare(session, check.prompts())
    session.gather()
    verdicts = session.settle("t", session.parity_run("t", reproduce=""))
    return verdicts, "\n".join(session.record(verdicts).notes)


@pytest.mark.parametrize("is_candidate", [False, True], ids=["baseline", "candidate"])
def test_golden_answers_are_judged_on_either_side(recorded: Project, is_candidate: bool) -> None:
    dev = recorded.attached("dev", recorded.engine("as ever", poses_as="llamacpp"))

    verdicts, _ = judged(recorded, *((dev, GOLDEN) if is_candidate else (GOLDEN, dev)))

    assert [(verdict.kind, verdict.engine, verdict.outcome, verdict.n) for verdict in verdicts] == [
        ("prompts", "golden-prod" if is_candidate else "dev", Outcome.PASS, PROMPTS)
    ]


def test_what_golden_answers_do_not_answer_is_told_and_the_rest_is_judged(recorded: Project) -> None:
    path = recorded.path / "prompts.jsonl"
    changed, gone, *same = path.read_text("utf-8").splitlines()
    added = gone.replace("c1", "new")
    path.write_text("\n".join([changed.replace("question 0", "another question"), *same, added]), "utf-8")

    verdicts, notes = judged(recorded, GOLDEN, recorded.attached("dev", recorded.engine("as ever")))

    by_kind = {verdict.kind: verdict for verdict in verdicts}
    assert by_kind["golden"].outcome is Outcome.INCOMPARABLE
    assert "1 of 12 prompts (c0): golden/prompts/prod.jsonl answers another prompt" in by_kind["golden"].message
    assert by_kind["prompts"].n == len(same) == PROMPTS - 2
    left_out = {part.cases: part.reason for part in by_kind["prompts"].left_out}
    assert left_out[("new",)].startswith("golden/prompts/prod.jsonl has no answer to it; record it: ")
    assert "has 1 case that prompts has not any more (c1): llmparity golden prune" in notes


def test_an_engine_that_the_lock_has_otherwise_by_now_is_incomparable(recorded: Project) -> None:
    golden = files.read(recorded.path, "prompts", "prod")
    assert golden is not None
    facts = {**golden.provenance.locked.identity, "quantization": Fact(value="Q4_0", source="reported")}
    now = dataclasses.replace(golden.provenance.locked, identity=facts)
    lockfile.write(recorded.path / lock.NAME, {"prod": now})

    verdicts, _ = judged(recorded, GOLDEN, recorded.attached("dev", recorded.engine("as ever")))

    assert {verdict.outcome for verdict in verdicts} == {Outcome.INCOMPARABLE}
    assert "than llmparity.lock has now: quantization: F16 -> Q4_0" in verdicts[0].message
