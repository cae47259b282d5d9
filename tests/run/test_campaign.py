"""Gathering: in order, refused before the first request where it cannot be fair, stopped where it was told to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmparity import check
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.run.session import Session
from pytest_llmparity.testing import Fault

if TYPE_CHECKING:
    from tests.run.conftest import Project


def judged(session: Session) -> list[Verdict]:
    return session.settle("t", session.parity_run("t", reproduce="again"))


def test_one_engine_is_gathered_and_timed_before_the_next_starts(project: Project) -> None:
    project.prompts(30)
    session = project.session(project.process("a"), project.process("b"), residency="one-at-a-time")
    project.declare(session, check.latency(e2e_p50="20s"), max_tokens=4)
    session.gather()

    assert project.events == ["a starts", "a stops", "b starts"]
    timed = [s for s in session.samples() if s.phase is Phase.TIMED]
    assert {s.engine for s in timed} == {"a", "b"}
    assert all(s.completion is not None for s in timed)
    assert {v.outcome for v in judged(session)} == {Outcome.PASS}


def test_a_contradicted_pin_of_the_baseline_makes_every_pair_incomparable_and_nobody_is_asked(project: Project) -> None:
    project.prompts(40)
    engines = [project.engine(poses_as="llamacpp", quantization="Q4_0") for _ in range(3)]
    a, b = (project.attached(name, engine) for name, engine in zip("ab", engines, strict=False))
    base = project.attached("base", engines[2], pin={"quantization": "Q8_0"})
    session = project.session(a, b, base, baseline="base")
    project.declare(session, check.text(margin=0.05), check.prompts())
    session.gather()

    verdicts = judged(session)
    assert {v.engine for v in verdicts} >= {"a", "b"}
    assert {v.outcome for v in verdicts} == {Outcome.INCOMPARABLE}
    assert all("pinned to Q8_0" in v.message for v in verdicts)
    assert [engine.count for engine in engines] == [1, 1, 1], "warm-ups"


def test_a_contradicted_pin_of_a_candidate_is_its_own_affair(project: Project) -> None:
    project.prompts(64)
    bad = project.engine(poses_as="llamacpp", quantization="Q4_0")
    session = project.session(
        project.attached("a", project.engine()),
        project.attached("b", bad, pin={"quantization": "Q8_0"}),
        project.attached("c", project.engine()),
    )
    project.declare(session, check.text(margin=0.05))
    session.gather()

    found = {v.engine: v.outcome for v in judged(session) if v.kind == "text"}
    assert found == {"b": Outcome.INCOMPARABLE, "c": Outcome.PASS}
    assert bad.count == 1


def test_a_parameter_a_route_cannot_honour_is_incomparable_before_the_first_request(project: Project) -> None:
    project.prompts(40)
    able, unable = project.engine(), project.engine()
    session = project.session(project.attached("a", able), project.attached("b", unable, kind="openai"))
    project.declare(session, check.text(margin=0.05), sampling={"temperature": 0.7, "top_k": 5})
    session.gather()

    found = [v for v in judged(session) if v.engine == "b"]
    assert {v.outcome for v in found} == {Outcome.INCOMPARABLE}
    assert all("top_k" in v.message for v in found)
    assert unable.count == 1


def test_a_timed_phase_that_no_longer_fits_is_not_begun(project: Project) -> None:
    project.prompts(30)
    engine = project.engine("one two three")
    session = project.session(project.attached("a", engine), max_requests=40)
    project.declare(session, check.latency(e2e_p50="20s"), max_tokens=4)
    session.gather()

    (verdict,) = judged(session)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "--parity-max-requests" in verdict.message + " ".join(verdict.details)
    assert engine.count == 30 + 1
    assert session.record([]).requests == 30, "what was not sent is not counted"


def test_answers_that_fail_while_timed_are_failures_of_the_timed_phase(project: Project) -> None:
    project.prompts(30)
    seen = 0

    def script(request: object) -> str | Fault:
        nonlocal seen
        seen += 1
        return "one two three" if seen <= 31 else Fault.refuse(400) if seen % 2 else Fault.close()

    session = project.session(project.attached("a", project.engine(script)))
    project.declare(session, check.latency(e2e_p50="20s"), max_tokens=4)
    session.gather()

    failures = {f.kind for f in session.record([]).failures if f.phase == "timed"}
    assert "BadRequest" in failures
    assert len(failures) == 2


def test_repeats_are_samples_of_their_own(project: Project) -> None:
    engine = project.engine(noise=0.5)
    session = project.session(project.attached("a", engine))
    project.declare(session, repeats=3)
    session.gather()

    rows = session.parity_run("t", reproduce="")["a"]
    assert {len(row.samples) for row in rows.values()} == {3}
    assert engine.count == 36 + 1
