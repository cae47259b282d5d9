"""Sequential runs: asked in waves until nothing is open, stopped anywhere, gone on with, replayed."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.errors import DesignError, MissingSample, UsageError
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.run.course import Course
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.session import Session
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.testing import Fault, LoopbackEngine

if TYPE_CHECKING:
    from tests.run.conftest import Project

WARM_UP, PROBES, FLOOR = 1, 4, 3 * 16
TEXT = check.text(margin=0.2, horizon=8)
"""Settled by 32 prompts like a margin of .05 over 32 tokens, of answers that are a quarter as long."""
OBJECT = {"type": "object"}
AGREE = check.schema(OBJECT, agree=0.9)
tokens = itertools.count()


def begun(project: Project, *engines: LoopbackEngine | EngineSpec, **settings: Any) -> Session:
    """A sequential session on engines named a, b, c, …."""
    specs = [
        engine if isinstance(engine, EngineSpec) else project.attached(name, engine)
        for name, engine in zip("abcd", engines, strict=False)
    ]
    return project.session(*specs, token=f"token {next(tokens)}", **{"sequential": True, **settings})


def gathered(
    project: Project, engines: Sequence[LoopbackEngine | EngineSpec], *checks: Any, **settings: Any
) -> tuple[Session, dict[tuple[str, str], Verdict]]:
    """One gate over the prompts, gathered and judged: the session and its verdicts by kind and engine."""
    session = begun(project, *engines, **settings)
    project.declare(session, *checks, max_tokens=8)
    session.gather()
    return session, judged(session)


def judged(session: Session, test: str = "t") -> dict[tuple[str, str], Verdict]:
    return {(v.kind, v.engine): v for v in session.settle(test, session.parity_run(test, reproduce=""))}


def earlier(project: Project, *engines: LoopbackEngine, **settings: Any) -> list[Any]:
    """A gate with AGREE in a process that has ended: only such a run can be gone on with. Its run and its verdict."""
    session, verdicts = gathered(project, engines, AGREE, **settings)
    session.close()
    project.process_ended()
    return numbers(session, verdicts["schema.agree", "b"])


def numbers(session: Session, verdict: Verdict) -> list[Any]:
    return [session.run, str(verdict.outcome), verdict.n, verdict.alpha, verdict.p_pass, verdict.p_fail]


def always(request: Any) -> str:
    return '{"a": 1}'


def tenth(request: Any) -> str:
    """Another value for one question in ten: what AGREE leaves open."""
    text = str(request["messages"][-1]["content"])
    return '{"a": 2}' if text.endswith("7") else '{"a": 1}'


def asked(engine: LoopbackEngine) -> list[str]:
    """The questions an engine got, warm-up apart."""
    texts = [str(request.json["messages"][-1]["content"]) for request in engine.requests]
    return [text for text in texts if text.startswith("question")]


@pytest.mark.slow
def test_equal_engines_are_settled_with_the_cases_of_the_floor(project: Project) -> None:
    project.prompts(150)
    engines = [project.engine(), project.engine()]
    session, verdicts = gathered(project, engines, TEXT, check.prompts())

    assert {v.outcome for v in verdicts.values()} == {Outcome.PASS}
    text = verdicts["text", "b"]
    assert (text.n, text.requests, text.groups) == (32, 64, 32)
    assert text.message.endswith("32 prompts, shift 0 nats; sequential, stopped after 32 of 150 prompts")
    assert [len(asked(engine)) for engine in engines] == [32 + FLOOR] * 2
    assert session.record([]).requests == sum(engine.count - WARM_UP for engine in engines)


@pytest.mark.slow
def test_a_row_that_was_not_asked_says_so(project: Project) -> None:
    project.prompts(150)
    session, _ = gathered(project, [project.engine(), project.engine()], TEXT)
    rows = session.parity_run("t", reproduce="")["b"]
    missing = [row for row in rows.values() if not row.samples]

    assert (len(rows), len(missing)) == (150, 118)
    with pytest.raises(MissingSample, match="not asked, the sequential test had settled after 32 prompts"):
        _ = missing[0].text


@pytest.mark.slow
def test_an_engine_that_drifts_far_fails_early(project: Project) -> None:
    project.prompts(150)
    engines = [project.engine(), project.engine(drift=0.8)]
    session, verdicts = gathered(project, engines, TEXT)

    assert verdicts["text", "b"].outcome is Outcome.FAIL
    assert verdicts["text", "b"].n < 64
    assert session.store().runs()[-1].finished is not None


@pytest.mark.slow
def test_only_engines_about_which_something_is_open_are_asked_on(project: Project) -> None:
    project.prompts(64)
    engines = [project.engine(), project.engine(), project.engine(drift=0.2)]
    _, verdicts = gathered(project, engines, TEXT)

    assert verdicts["text", "b"].sequence == "sequential, stopped after 32 of 64 prompts"
    assert verdicts["text", "c"].sequence == "sequential, all 64 prompts asked"
    assert [len(asked(engine)) for engine in engines] == [64 + FLOOR, 32 + FLOOR, 64 + FLOOR]


def test_every_wave_is_asked_in_the_drawn_order_on_all_engines(project: Project) -> None:
    project.prompts(60)
    engines = [project.engine('{"a": 1}'), project.engine('{"a": 1}')]
    _, verdicts = gathered(project, engines, check.schema(OBJECT, agree=0.9), concurrency=1)

    assert verdicts["schema.agree", "b"].n == 32
    assert asked(engines[0]) == asked(engines[1])
    assert [len(asked(engine)) for engine in engines] == [32, 32]


def test_limits_of_each_engine_alone_are_settled_too(project: Project) -> None:
    project.prompts(80)
    engines = [project.engine('{"a": 1}')]
    _, verdicts = gathered(project, engines, check.schema(OBJECT, rate=0.95))

    assert verdicts["schema.rate", "a"].outcome is Outcome.PASS
    assert len(asked(engines[0])) == 80, "65 perfect answers are in the fifth wave"


@pytest.mark.slow
def test_at_the_margin_everything_is_asked_and_the_run_stays_open(project: Project) -> None:
    project.prompts(64)
    engines = [project.engine(), project.engine(drift=0.2)]
    session, verdicts = gathered(project, engines, TEXT)
    text = verdicts["text", "b"]

    assert text.outcome is Outcome.INCONCLUSIVE
    assert text.needed is None or text.needed > 64
    assert "sequential, all 64 prompts asked" in text.message
    assert session.store().runs()[-1].finished is None


@pytest.mark.slow
def test_a_run_that_stayed_open_goes_on_when_prompts_are_added(project: Project) -> None:
    project.prompts(64)
    engines = [project.engine(always), project.engine(tenth)]
    run, outcome, n, *_ = earlier(project, *engines)
    project.prompts(96)
    session, verdicts = gathered(project, engines, AGREE)
    courses = {len(course.order): course for course in session.store().kept_documents(run, Course).values()}

    assert (outcome, n) == ("INCONCLUSIVE", 64)
    assert session.run == run
    assert [len(asked(engine)) for engine in engines] == [96] * 2, "nothing is asked twice"
    assert courses[96].order[:64] == courses[64].order
    assert courses[96].continued
    assert verdicts["schema.agree", "b"].n == 96
    assert verdicts["schema.agree", "b"].alpha == 0.05, "the same evidence, gone on with"
    assert any("resumed" in note for note in session.record([]).notes)


@pytest.mark.slow
def test_asking_no_more_prompts_changes_nothing(project: Project) -> None:
    project.prompts(64)
    engines = [project.engine(always), project.engine(tenth)]
    before = earlier(project, *engines)
    session, verdicts = gathered(project, engines, AGREE)

    assert numbers(session, verdicts["schema.agree", "b"]) == before
    assert [len(asked(engine)) for engine in engines] == [64] * 2


@pytest.mark.slow
def test_a_run_that_starts_anew_over_more_prompts_is_another_look(project: Project) -> None:
    project.prompts(64)
    engines = [project.engine(always), project.engine(tenth)]
    run = earlier(project, *engines)[0]
    project.prompts(80)
    session, verdicts = gathered(project, engines, AGREE, resume="fresh")

    assert session.run != run
    assert verdicts["schema.agree", "b"].alpha == 0.025


@pytest.mark.slow
def test_a_run_that_lost_a_prompt_goes_on_as_another_look(project: Project) -> None:
    project.prompts(64)
    engines = [project.engine(always), project.engine(tenth)]
    run = earlier(project, *engines)[0]
    lines = (project.path / "prompts.jsonl").read_text().splitlines()
    (project.path / "prompts.jsonl").write_text("\n".join(lines[1:]))
    session, verdicts = gathered(project, engines, AGREE)

    assert session.run == run
    assert verdicts["schema.agree", "b"].n == 63
    assert verdicts["schema.agree", "b"].alpha == 0.025


@pytest.mark.slow
def test_another_engine_behind_the_name_is_another_question(project: Project) -> None:
    project.prompts(64)
    engine, other = project.engine(tenth, poses_as="llamacpp"), project.engine(always)
    run = earlier(project, other, engine)[0]
    engine.quantization = "Q8_0"
    project.prompts(80)
    session, verdicts = gathered(project, [other, engine], AGREE)

    assert session.run == run
    assert verdicts["schema.agree", "b"].alpha == 0.05
    assert len(asked(engine)) == 64 + 80


@pytest.mark.slow
def test_a_fixed_design_before_it_is_another_look(project: Project) -> None:
    project.prompts(64)
    engines = [project.engine(always), project.engine(tenth)]
    _, fixed = gathered(project, engines, AGREE, sequential=False)
    _, after = gathered(project, engines, AGREE)

    assert fixed["schema.agree", "b"].outcome is Outcome.INCONCLUSIVE
    assert after["schema.agree", "b"].alpha == 0.025


@pytest.mark.slow
def test_a_replay_gives_the_same_verdicts_and_finds_open_runs(project: Project) -> None:
    project.prompts(64)
    engines = [project.engine(), project.engine(drift=0.2)]
    gathered(project, [project.engine(), project.engine()], check.prompts(), sequential=False)
    session, live = gathered(project, engines, TEXT, check.prompts())
    counts = [engine.count for engine in engines]
    replay, again = gathered(project, engines, TEXT, check.prompts(), mode="replay", sequential=False)

    assert replay.run == session.run
    assert [dataclasses.replace(v, where="") for v in again.values()] == [
        dataclasses.replace(v, where="") for v in live.values()
    ]
    assert [engine.count for engine in engines] == counts


@pytest.mark.slow
def test_a_hard_stop_leaves_what_was_settled_and_says_what_was_not(project: Project) -> None:
    project.prompts(150)
    engines = [project.engine(), project.engine(), project.engine(drift=0.2)]
    limit = 3 * (PROBES + 32 + FLOOR) + 40
    session, verdicts = gathered(project, engines, TEXT, max_requests=limit)

    assert verdicts["text", "b"].outcome is Outcome.PASS
    text = verdicts["text", "c"]
    assert (text.outcome, text.n) == (Outcome.INCONCLUSIVE, 48), "what was asked of an unfinished wave does not count"
    assert f"stopped after {limit} requests (--parity-max-requests)" in text.message
    assert text.needed is None
    with pytest.raises(MissingSample, match="--parity-max-requests"):
        _ = [row.text for row in session.parity_run("t", reproduce="")["c"].values()]


def test_a_hard_stop_before_the_first_wave_has_ended_judges_nothing(project: Project) -> None:
    project.prompts(100)
    _, verdicts = gathered(project, [project.engine(), project.engine()], TEXT, check.prompts(), max_requests=70)

    assert {v.outcome for v in verdicts.values()} == {Outcome.INCONCLUSIVE}
    assert all("--parity-max-requests" in v.message for v in verdicts.values())


@pytest.mark.slow
def test_what_a_hard_stop_cut_off_goes_on_in_the_same_order(project: Project) -> None:
    project.prompts(100)
    engines = [project.engine(always), project.engine(tenth)]
    run, outcome, n, *_ = earlier(project, *engines, max_requests=2 * 32 + 40)
    session, verdicts = gathered(project, engines, AGREE)

    assert (outcome, n) == ("INCONCLUSIVE", 48)
    assert session.run == run
    assert (verdicts["schema.agree", "b"].n, verdicts["schema.agree", "b"].alpha) == (100, 0.05)
    assert [len(asked(engine)) for engine in engines] == [100] * 2


@pytest.mark.slow
def test_a_test_without_a_check_that_can_be_settled_early_gets_every_answer(project: Project) -> None:
    project.prompts(50)
    engines = [project.engine(), project.engine()]
    session = begun(project, *engines)
    project.declare(session, TEXT, test="text", max_tokens=8)
    project.declare(session, check.prompts(), test="rows", max_tokens=8)
    session.gather()

    assert judged(session, "text")["text", "b"].sequence == "sequential, all 50 prompts asked"
    assert judged(session, "rows")["prompts", "b"].n == 50
    assert session.store().runs()[-1].finished is not None


def test_one_engine_alone_is_asked_everything_where_only_pairs_are_judged(project: Project) -> None:
    project.prompts(50)
    engine = project.engine()
    _, verdicts = gathered(project, [engine], TEXT)

    assert {v.outcome for v in verdicts.values()} == {Outcome.SKIPPED}
    assert len(asked(engine)) == 50, "the answers may be read; a floor is there to be compared with"


@pytest.mark.slow
def test_units_are_settled_each_on_its_own(project: Project) -> None:
    project.prompts(100)
    engines = [project.engine('{"a": 1}'), project.engine('{"a": 1}')]
    session = begun(project, *engines)
    project.declare(session, check.schema(OBJECT, agree=0.9), test="short", max_tokens=8)
    project.declare(session, check.schema(OBJECT, agree=0.95), test="long", max_tokens=16)
    session.gather()

    assert judged(session, "short")["schema.agree", "b"].n == 32
    assert judged(session, "long")["schema.agree", "b"].n == 80
    assert len(asked(engines[0])) == 112


@pytest.mark.slow
def test_one_at_a_time_the_baseline_is_asked_everything_first(project: Project) -> None:
    project.prompts(100)
    session, verdicts = gathered(project, [project.process("a"), project.process("b")], TEXT, residency="one-at-a-time")
    main = [s.engine for s in session.samples() if s.phase is Phase.MAIN]

    assert {v.outcome for v in verdicts.values()} == {Outcome.PASS}
    assert (main.count("a"), main.count("b")) == (100, 32)
    assert project.events == ["a starts", "a stops", "b starts"]
    assert session.store().runs()[-1].finished is not None


@pytest.mark.slow
def test_a_failure_must_survive_what_is_still_to_come_before_it_stops_the_run(project: Project) -> None:
    project.prompts(150)
    engines = [project.engine(), project.engine(drift=0.48)]
    _, alone = gathered(project, engines, TEXT)
    _, family = gathered(project, engines, TEXT, check.latency(e2e_p50="20s", success_rate=0.9, n=32), resume="fresh")
    by_itself, in_family = alone["text", "b"], family["text", "b"]

    assert (by_itself.outcome, in_family.outcome) == (Outcome.FAIL, Outcome.FAIL)
    assert in_family.p_fail is not None
    assert in_family.p_fail <= 0.05 / 4, "two verdicts on latency and one on the floor are in its family"
    assert in_family.n >= by_itself.n


@pytest.mark.slow
def test_answers_that_fail_by_chance_do_not_stop_it_and_a_dead_engine_does(project: Project) -> None:
    project.prompts(100)

    def some(request: Any) -> str | Fault:
        return Fault.refuse(400) if "question 3" in request["messages"][-1]["content"] else "yes, well"

    _, verdicts = gathered(project, [project.engine("yes, well"), project.engine(some)], TEXT)
    assert verdicts["text", "b"].outcome is Outcome.ERROR, "11 of 100 without an answer"
    assert "11 prompts of 100 without two answers" in verdicts["text", "b"].message

    def nothing(request: Any) -> str | Fault:
        return Fault.refuse(400) if "question" in request["messages"][-1]["content"] else "warm"

    dead = project.engine(nothing)
    _, verdicts = gathered(project, [project.engine("yes, well"), dead], TEXT, check.similarity(at_least=0.9))
    assert {v.outcome for v in verdicts.values()} == {Outcome.ERROR}
    assert len(asked(dead)) == 32 + FLOOR


def test_a_check_that_cannot_judge_concerns_its_own_test(project: Project) -> None:
    class Missing:
        name = "a model that is not there"

        def embed(self, texts: Sequence[str]) -> list[list[float]]:
            raise UsageError("the embedding model is not on this machine")

    project.prompts(64)
    specs = [project.attached(name, project.engine('{"a": 1}')) for name in "ab"]
    loaded: list[Missing] = []

    def load() -> Missing:
        loaded.append(Missing())
        return loaded[-1]

    session = project.session(*specs, sequential=True, embedder=load)
    project.declare(session, check.similarity(at_least=0.9), test="similar", max_tokens=8)
    project.declare(session, AGREE, test="equal", max_tokens=16)
    session.gather()

    assert judged(session, "equal")["schema.agree", "b"].n == 32
    with pytest.raises(UsageError, match="embedding model"):
        judged(session, "similar")
    assert len(loaded) == 1, "a model is loaded once"


def test_single_cases_are_rows_as_ever(project: Project) -> None:
    engine = project.engine()
    session, verdicts = gathered(project, [engine, project.engine()], TEXT, cases=("c3",))

    assert verdicts == {}
    assert session.parity_run("t", reproduce="")["a"]["c3"].text
    assert len(asked(engine)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("sequential", [True, False])
def test_a_model_that_another_pushed_out_is_loaded_before_its_first_prompt(
    project: Project, monkeypatch: pytest.MonkeyPatch, sequential: bool
) -> None:
    project.prompts(32)
    others = []
    for apart in ({}, {"a": "one of them at a time", "b": "one of them at a time"}):
        monkeypatch.setattr(Fleet, "apart", lambda self, apart=apart: apart)
        engines = [project.engine('{"a": 1}'), project.engine('{"a": 1}')]
        gathered(project, engines, AGREE, sequential=sequential, resume="fresh")
        others.append([engine.count - len(asked(engine)) for engine in engines])

    beside_each_other, one_by_one = others
    assert one_by_one == [count + 1 for count in beside_each_other]


@pytest.mark.slow
def test_repeats_come_with_their_wave(project: Project) -> None:
    project.prompts(40)
    engines = [project.engine('{"a": 1}'), project.engine('{"a": 1}')]
    session = begun(project, *engines)
    project.declare(session, check.schema(OBJECT, agree=0.9), repeats=2)
    session.gather()

    assert {len(row.samples) for row in session.parity_run("t", reproduce="")["a"].values()} == {2, 0}
    assert len(asked(engines[0])) == 2 * 32


def test_a_design_that_cannot_pass_sequentially_is_refused(project: Project) -> None:
    project.prompts(60)
    session = begun(project, project.engine(), project.engine())

    with pytest.raises(DesignError, match="takes at least 65 prompts"):
        project.declare(session, check.schema(OBJECT, gap=0.05))


def test_a_check_in_the_body_judges_what_was_asked(project: Project) -> None:
    project.prompts(100)
    session = begun(project, project.engine('{"a": 1}'), project.engine('{"a": 1}'))
    project.declare(session, check.schema(OBJECT, agree=0.9))
    session.gather()
    (verdict,) = session.parity_run("t", reproduce="").check(check.schema(OBJECT, gap=0.05))

    assert (verdict.outcome, verdict.n) == (Outcome.INCONCLUSIVE, 32)
    assert "stopped after 32 of 100 prompts" in verdict.message


@pytest.mark.slow
def test_groups_take_turns_and_count_once_in_texts(project: Project) -> None:
    rows = [
        {"id": f"c{i}", "group": f"g{i % 40}", "messages": [{"role": "user", "content": f"question {i}"}]}
        for i in range(120)
    ]
    (project.path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    session, verdicts = gathered(project, [project.engine(), project.engine(drift=0.2)], TEXT)
    text = verdicts["text", "b"]

    assert (text.outcome, text.n, text.groups) == (Outcome.INCONCLUSIVE, 40, 40)
    assert text.sequence == "sequential, stopped after 48 of 120 prompts", "others would not count"
    assert "8 further prompts of these groups not counted" in text.details
    assert text.needed is None or text.needed > 40
    assert text.remarks == (
        "one prompt of each group counts in a sequential run, and all 40 groups have had their turn",
    )
    assert session.store().runs()[-1].finished is None
