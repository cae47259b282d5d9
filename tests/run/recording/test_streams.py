"""What of a run is no recording: one request without an answer leaves a hole that no replay could fill."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.errors import RecordingError
from pytest_llmparity.core.recording import Exchanged
from pytest_llmparity.core.sample import Failure, Phase, Sample
from pytest_llmparity.run.recording.streams import recorded, unanswered
from pytest_llmparity.store.runs import Store
from pytest_llmparity.testing import Fault
from pytest_llmparity.testing.script import prompt_of

if TYPE_CHECKING:
    from tests.run.conftest import Project


def exchanged(case: str, status: int, *, phase: Phase = Phase.MAIN) -> Exchanged:
    return Exchanged(
        case=case,
        phase=phase,
        concurrency=4,
        method="POST",
        path="/v1/chat/completions",
        request={},
        status=status,
        type="application/json",
        chunks=(),
    )


def failed(case: str, *, phase: Phase = Phase.MAIN) -> Sample:
    why = Failure(kind="RequestRefused", message="no")
    return Sample(engine="a", case=case, phase=phase, concurrency=4, failure=why)


def test_the_last_request_of_a_case_says_whether_it_was_answered() -> None:
    again = [exchanged("late", 503), exchanged("late", 400), exchanged("gone", 200), exchanged("gone", 503)]
    once = [exchanged("refused", 400), exchanged("busy", 429), exchanged("fell", 500)]
    timed = [exchanged("timed", 200, phase=Phase.TIMED), exchanged("slow", 503, phase=Phase.TIMED)]
    samples = [failed(case) for case in ("late", "gone", "refused", "busy", "fell", "silent")]
    samples += [failed(case, phase=Phase.TIMED) for case in ("timed", "slow")]

    assert unanswered(samples, [*again, *once, *timed]) == ["gone", "busy", "fell", "silent", "slow"]


@pytest.mark.parametrize("status", [400, 500])
def test_a_run_with_an_unanswered_case_is_no_recording(project: Project, status: int) -> None:
    project.prompts(2)
    engine = project.engine(
        lambda request: Fault.refuse(400) if "question 1" in prompt_of(request) else "well, yes", poses_as="llamacpp"
    )
    spec = project.attached("a", engine)
    session = project.session(spec)
    project.declare(session, check.prompts())
    session.gather()
    assert session.run is not None
    exchanges = [exchanged("c0", 200), exchanged("c1", status)]

    with Store.open(project.path / ".llmparity") as store:
        if status == 400:  # a refusal is an answer
            made = recorded(store, session.run, spec, exchanges, plugin="1", today=datetime.date(2026, 11, 30))
            assert made.header.exchanges == 2
            return
        with pytest.raises(RecordingError, match=r"^1 case of a had no answer \(c1\), so nothing is recorded"):
            recorded(store, session.run, spec, exchanges, plugin="1", today=datetime.date(2026, 11, 30))
