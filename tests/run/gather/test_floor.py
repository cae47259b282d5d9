"""The noise floor is asked of more cases where an engine does not repeat itself, and of no more where it does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.evidence import FLOOR_PHASES
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.run.session import Session
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.testing import Reply

if TYPE_CHECKING:
    from tests.doubles.posing import PosingEngine
    from tests.run.conftest import Project

STEADY = "the very same answer to everybody who asks for one"


def noisy(project: Project, *, parts: float = 1.0) -> PosingEngine:
    """Return an engine whose answers to this share of prompts are others each time."""
    times: Counter[str] = Counter()

    def answer(request: Mapping[str, Any]) -> str:
        question = str(request["messages"][-1]["content"])
        number = int(question.rpartition(" ")[2]) if question.startswith("question") else 0
        times[question] += 1
        return f"{times[question]} {STEADY}" if number % 20 < 20 * parts else STEADY

    return project.engine(answer)


def gathered(project: Project, *specs: EngineSpec, token: str = "one", **options: Any) -> tuple[Session, list[Verdict]]:
    session = project.session(*specs, token=token, concurrency=4, **options)
    project.declare(session, check.text(margin=0.05), max_tokens=12)
    session.gather()
    return session, session.settle("t", session.parity_run("t", reproduce=""))


def attached(project: Project) -> list[EngineSpec]:
    """Return an engine that repeats itself, and one that never does."""
    return [project.attached("a", project.engine(STEADY)), project.attached("b", noisy(project))]


def asked_of(session: Session, engine: str) -> dict[Phase, int]:
    return Counter(sample.phase for sample in session.samples() if sample.engine == engine)


def test_an_engine_that_does_not_repeat_itself_is_asked_more_cases_each_of_them_cold_first(project: Project) -> None:
    project.prompts(17)
    session, _ = gathered(project, *attached(project))

    times: dict[str, dict[Phase, str]] = {}
    for sample in session.samples():
        if sample.engine == "b" and sample.completion is not None:
            times.setdefault(sample.case, {})[sample.phase] = sample.completion.text.partition(" ")[0]
    assert asked_of(session, "a")[Phase.COLD] == 16
    assert list(times.values()) == [
        {Phase.COLD: "1", Phase.MAIN: "2", Phase.WARM: "3", Phase.PARALLEL: "4"} for _ in range(17)
    ]


@pytest.mark.slow
def test_an_engine_that_repeats_itself_is_asked_16_cases_and_one_that_does_not_up_to_64(project: Project) -> None:
    project.prompts(70)
    engines = {"a": project.engine(STEADY), "b": noisy(project)}
    session, verdicts = gathered(project, *(project.attached(name, engine) for name, engine in engines.items()))

    assert asked_of(session, "a") == {Phase.MAIN: 70, **dict.fromkeys(FLOOR_PHASES, 16)}
    assert asked_of(session, "b") == {Phase.MAIN: 70, **dict.fromkeys(FLOOR_PHASES, 64)}
    outcomes = {(verdict.kind, verdict.engine): (verdict.outcome, verdict.n) for verdict in verdicts}
    assert outcomes["text.repeat", "b"] == (Outcome.FAIL, 64)
    assert outcomes["text", "b"][0] is Outcome.FAIL
    assert session.gates.plan().requests == (70 + 3 * 16, 70 + 3 * 64)


def limits(engine: PosingEngine) -> Counter[int]:
    """Return how many questions of the prompt file were asked with which token limit."""
    return Counter(
        request.json["max_tokens"]
        for request in engine.requests
        if str(request.json.get("messages", [{}])[-1].get("content")).startswith("question")
    )


LONG = " ".join(f"word{number}" for number in range(90))


@pytest.mark.parametrize(
    ("checks", "row", "reasoning", "asked"),
    [
        ([check.text(margin=0.05)], {}, "", {64: 20, 32: 48}),
        pytest.param([check.text(margin=0.05, horizon=48)], {}, "", {64: 20, 48: 48}, marks=pytest.mark.slow),
        pytest.param(
            [check.text(margin=0.05), check.text(margin=0.05, horizon=40)],
            {},
            "",
            {64: 20, 40: 48},
            marks=pytest.mark.slow,
        ),
        pytest.param([check.text(margin=0.05, horizon=80)], {}, "", {64: 68}, marks=pytest.mark.slow),
        pytest.param([check.text(margin=0.05)], {}, "let me see", {64: 68}, marks=pytest.mark.slow),
        pytest.param([check.text(margin=0.05)], {"extra_body": {"x_more": 1}}, "", {64: 68}, marks=pytest.mark.slow),
    ],
    ids=["as compared", "further", "as far as the furthest", "whole", "one that reasons", "fields of its own"],
)
def test_answers_of_the_floor_are_as_long_as_they_are_compared(
    project: Project, checks: list[Any], row: dict[str, Any], reasoning: str, asked: dict[int, int]
) -> None:
    project.prompts(20, **row)
    engine = project.engine(lambda _: Reply(text=LONG, reasoning=reasoning))
    session = project.session(project.attached("a", project.engine(LONG)), project.attached("b", engine), concurrency=4)
    project.declare(session, *checks, max_tokens=64)
    session.gather()
    verdicts = session.settle("t", session.parity_run("t", reproduce=""))

    assert limits(engine) == asked
    (repeat,) = [v for v in verdicts if (v.kind, v.engine, v.check) == ("text.repeat", "b", str(checks[0]))]
    assert (repeat.outcome, repeat.estimate) == (Outcome.PASS, 0.0)
    own = {sample.case: sample.request_sha256 for sample in session.samples() if sample.phase is Phase.MAIN}
    assert all(own[sample.case] == sample.request_sha256 for sample in session.samples() if sample.engine == "b")


@pytest.mark.slow
def test_cold_answers_come_before_any_other_of_their_case(project: Project) -> None:
    project.prompts(20)
    engine = noisy(project)
    session, _ = gathered(project, project.attached("a", project.engine(STEADY)), project.attached("b", engine))

    texts = {
        (sample.case, sample.phase): sample.completion.text
        for sample in session.samples()
        if sample.engine == "b" and sample.completion is not None
    }
    of_floor = [case for case, phase in texts if phase is Phase.COLD]
    assert len(of_floor) == 20
    for case in of_floor:
        order = [int(texts[case, phase].split()[0]) for phase in (Phase.COLD, Phase.MAIN, Phase.WARM, Phase.PARALLEL)]
        assert order == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_few_cases_that_part_call_for_no_more_than_show_that_they_are_few(project: Project) -> None:
    project.prompts(60)
    session, verdicts = gathered(
        project, project.attached("a", project.engine(STEADY)), project.attached("b", noisy(project, parts=0.05))
    )

    assert asked_of(session, "b")[Phase.COLD] < 60
    assert {v.outcome for v in verdicts if v.kind == "text.repeat" and v.engine == "b"} == {Outcome.PASS}


@pytest.mark.slow
@pytest.mark.parametrize("limit", [90, 160])
def test_a_run_that_was_stopped_within_the_floor_goes_on_where_it_was(project: Project, limit: int) -> None:
    project.prompts(32)
    engines = {"a": project.engine(STEADY), "b": noisy(project)}
    specs = [project.attached(name, engine) for name, engine in engines.items()]
    session, _ = gathered(project, *specs, max_requests=limit)
    assert any("incomplete" in note for note in session.record([]).notes)
    session.close()
    project.process_ended()

    session, verdicts = gathered(project, *specs, token="two", resume="resume")

    assert asked_of(session, "b") == {Phase.MAIN: 32, **dict.fromkeys(FLOOR_PHASES, 32)}
    assert asked_of(session, "a") == {Phase.MAIN: 32, **dict.fromkeys(FLOOR_PHASES, 16)}
    assert {v.outcome for v in verdicts if v.engine == "b"} == {Outcome.FAIL}


@pytest.mark.slow
def test_a_sequential_run_that_was_stopped_within_the_floor_is_cut_and_goes_on(project: Project) -> None:
    project.prompts(32)
    whole, _ = gathered(project, *attached(project), sequential=True)
    enough = whole.record([]).requests
    specs = attached(project)
    session, verdicts = gathered(project, *specs, token="two", sequential=True, max_requests=enough - 20)
    assert asked_of(session, "b")[Phase.PARALLEL] < 32
    assert {v.outcome for v in verdicts} == {Outcome.INCONCLUSIVE}
    assert all("--parity-max-requests" in v.message for v in verdicts)
    session.close()
    project.process_ended()

    session, verdicts = gathered(project, *specs, token="three", sequential=True, resume="resume")

    assert asked_of(session, "b") == {Phase.MAIN: 32, **dict.fromkeys(FLOOR_PHASES, 32)}
    assert {v.outcome for v in verdicts if v.kind == "text.repeat" and v.engine == "b"} == {Outcome.FAIL}


@pytest.mark.slow
def test_a_sequential_run_looks_first_when_the_floor_has_grown_as_far_as_it_must(project: Project) -> None:
    project.prompts(70)
    session, verdicts = gathered(project, *attached(project), sequential=True)

    assert asked_of(session, "a") == {Phase.MAIN: 64, **dict.fromkeys(FLOOR_PHASES, 16)}
    assert asked_of(session, "b") == {Phase.MAIN: 64, **dict.fromkeys(FLOOR_PHASES, 64)}
    assert {(v.kind, v.outcome, v.n) for v in verdicts} == {
        ("text", Outcome.FAIL, 64),
        ("text.repeat", Outcome.FAIL, 64),
    }


@pytest.mark.slow
def test_a_limit_that_has_its_repeats_of_similarity_keeps_as_many_as_it_takes(project: Project) -> None:
    project.prompts(40)
    engines = [project.attached(name, project.engine(STEADY)) for name in "ab"]
    session = project.session(*engines)
    project.declare(session, check.similarity(), max_tokens=12)
    session.gather()

    assert asked_of(session, "a") == {Phase.MAIN: 40, **dict.fromkeys(FLOOR_PHASES, 32)}
