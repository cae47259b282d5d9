"""Sessions: gathering once, resuming, judging again from the store, looking again, and what cannot be judged."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.errors import DesignError, LLMParityError, MissingSample, StoreError, UsageError
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.engines.wire.control import secrets_of
from pytest_llmparity.run.application.recorder import Recorder
from pytest_llmparity.run.ledger import RunState, write_state
from pytest_llmparity.run.session import Session
from pytest_llmparity.settings.specification import EngineSpec, Settings
from pytest_llmparity.testing import Fault, LoopbackEngine

if TYPE_CHECKING:
    from tests.run.conftest import Project

PROBES = 4
"""What a run with a text check asks beforehand: two for streaming, one for unknown fields, one for logprobs."""


TEXT = check.text(margin=0.2, horizon=8)


def judged(session: Session, test: str = "t") -> list[Verdict]:
    return session.settle(test, session.parity_run(test, reproduce="again"))


def number(request: Mapping[str, Any]) -> int:
    """Return the number in ``question 7``, 1 for the warm-up."""
    return int(request["messages"][-1]["content"].partition(" ")[2] or 1)


def verdict_of(verdict: Verdict) -> Verdict:
    return dataclasses.replace(verdict, where="")


@pytest.mark.slow
def test_engines_are_stopped_whatever_is_wrong_with_a_recorder(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = project.session(*(project.process(name, record=True) for name in ("a", "b")))
    for name in ("a", "b"):
        session.handle(name)
    close, closed = Recorder.close, list[Recorder]()

    def interrupted(recorder: Recorder) -> None:
        close(recorder)
        closed.append(recorder)
        raise KeyboardInterrupt

    monkeypatch.setattr(Recorder, "close", interrupted)

    with pytest.raises(KeyboardInterrupt):
        session.close()

    assert len(closed) == 2
    assert sorted(project.events) == ["a starts", "a stops", "b starts", "b stops"]
    assert session.close() == []


@pytest.mark.slow
def test_what_was_gathered_is_judged_from_the_store_without_engines(project: Project) -> None:
    project.prompts(24)
    live = project.session(project.attached("a", project.engine()), project.attached("b", project.engine()))
    project.declare(live, TEXT)
    live.gather()
    verdicts = judged(live)
    live.close()

    replay = project.session(mode="replay")
    project.declare(replay, TEXT)
    replay.gather()

    assert replay.run == live.run
    assert [verdict_of(v) for v in judged(replay)] == [verdict_of(v) for v in verdicts]
    assert [v.outcome for v in verdicts if v.kind == "text"] == [Outcome.PASS]
    assert replay.baseline == "a"


def test_a_replay_of_a_named_run_judges_that_one(project: Project) -> None:
    first = project.session(project.attached("a", project.engine("one")))
    project.declare(first)
    first.gather()
    second = project.session(project.attached("a", project.engine("two")), token="two", resume="fresh")
    project.declare(second)
    second.gather()

    replay = project.session(mode="replay", replay_run=first.run)
    project.declare(replay)
    replay.gather()

    assert replay.parity_run("t", reproduce="")["a"]["c0"].text == "one"


def test_the_newest_run_that_asked_the_selected_tests_prompts_is_replayed(project: Project) -> None:
    runs = []
    for token in ("one", "two"):
        live = project.session(project.attached("a", project.engine(token)), token=token)
        project.declare(live, test=token, max_tokens=8 if token == "one" else 4)
        live.gather()
        runs.append(live.run)
        live.close()

    for tokens, expected in ((8, runs[0]), (4, runs[1])):
        replay = project.session(mode="replay")
        project.declare(replay, max_tokens=tokens)
        replay.gather()
        assert replay.run == expected

    other = project.session(mode="replay")
    project.declare(other, max_tokens=5)
    with pytest.raises(StoreError, match=f"no stored run asked .* the newest, {runs[1]}, asked other .*, for two; run"):
        other.gather()
    named = project.session(mode="replay", replay_run=runs[0])
    project.declare(named, max_tokens=5)
    with pytest.raises(StoreError, match=f"run {runs[0]} asked other prompts, or in another way, for one; run once"):
        named.gather()


def test_a_run_of_single_cases_keeps_no_whole_run_from_being_replayed(project: Project) -> None:
    runs = []
    for token, tests, cases in (("one", (8,), ()), ("two", (8, 4), ("c1",))):
        live = project.session(project.attached("a", project.engine()), token=token, cases=cases)
        for tokens in tests:
            project.declare(live, test=f"of {tokens}", max_tokens=tokens)
        live.gather()
        runs.append(live.run)
        live.close()

    replay = project.session(mode="replay")
    for tokens in (8, 4):
        project.declare(replay, test=f"of {tokens}", max_tokens=tokens)
    replay.gather()

    assert replay.run == runs[0]


def test_runs_of_single_cases_alone_are_not_replayed(project: Project) -> None:
    live = project.session(project.attached("a", project.engine()), cases=("c1",))
    project.declare(live)
    live.gather()

    with pytest.raises(StoreError, match=r"only runs of --parity-case are stored in \.llmparity; run once without"):
        project.session(mode="replay").gather()


@pytest.mark.parametrize(
    ("repeats", "refusal"), [(1, r"10 answers to each prompt\); add check\.distribution\(\)"), (10, "at temperature 0")]
)
def test_a_body_is_told_where_answers_it_would_compare_were_not_drawn(
    project: Project, repeats: int, refusal: str
) -> None:
    session = project.session(project.attached("a", project.engine()), project.attached("b", project.engine()))
    project.declare(session, repeats=repeats)

    with pytest.raises(DesignError, match=refusal):
        session.parity_run("t", reproduce="").check(check.distribution())


@pytest.mark.parametrize(
    ("checked", "refusal"),
    [
        (
            check.answers(rate=0.9),
            r"answers\(rate=0\.9\): \d+ of \d+ prompts do not say what is right; the first is c0",
        ),
        (check.tools(trigger=0.9), r"tools\(trigger=0\.9\): trigger=0\.9 takes at least 29 prompts that say whether"),
    ],
)
def test_a_body_cannot_hold_answers_against_what_their_prompts_do_not_say(
    project: Project, checked: Check, refusal: str
) -> None:
    session = project.session(project.attached("a", project.engine()), project.attached("b", project.engine()))
    project.declare(session)

    with pytest.raises(DesignError, match=refusal):
        session.parity_run("t", reproduce="").check(checked)


def test_a_run_that_holds_no_engine_judges_nothing(project: Project) -> None:
    project.prompts(30)
    session = project.session(project.attached("a", project.engine()))
    run = session.store().begin(plan_hash="p", session="one", version="1").id
    write_state(session.store(), run, RunState())

    replay = project.session(mode="replay", replay_run=run)
    project.declare(replay, check.schema({}, rate=0.85, gap=None))
    replay.gather()

    assert judged(replay) == []


def test_a_replay_restricted_to_cases_shows_these_only(project: Project) -> None:
    project.prompts(4)
    live = project.session(project.attached("a", project.engine()))
    project.declare(live)
    live.gather()
    live.close()

    replay = project.session(mode="replay", cases=("c1", "c3"))
    project.declare(replay)
    replay.gather()

    assert {sample.case for sample in replay.samples()} == {"c1", "c3"}
    assert replay.parity_run("t", reproduce="")["a"]["c1"].text


def test_a_replay_says_which_runs_there_are(project: Project) -> None:
    with pytest.raises(StoreError, match=r"no run is stored in \.llmparity yet; run once without --parity-mode replay"):
        project.session(mode="replay").gather()
    with pytest.raises(StoreError, match=r"there is no run nowhere in .*; the newest are: none"):
        project.session(mode="replay", replay_run="nowhere").gather()
    live = project.session(project.attached("a", project.engine()))
    project.declare(live)
    live.gather()

    with pytest.raises(StoreError, match=f"there is no run nowhere in .*; the newest are: {live.run}"):
        project.session(mode="replay", replay_run="nowhere").gather()


def test_a_replay_of_engines_the_run_does_not_have_says_which_it_has(project: Project) -> None:
    a, b = project.attached("a", project.engine()), project.attached("b", project.engine())
    live = project.session(a)
    project.declare(live)
    live.gather()

    newest = f"asked what the selected tests ask has {{}}; the newest that did, {live.run}, has a; run once .*"
    with pytest.raises(UsageError, match=newest.format("all of the engines a, b") + "leave out --engines$"):
        project.session(a, b, mode="replay").gather()
    with pytest.raises(UsageError, match=newest.format("the engine c") + "leave out --parity-baseline$"):
        project.session(mode="replay", baseline="c").gather()
    with pytest.raises(UsageError, match=f"run {live.run} has no engine b; it has a"):
        project.session(a, b, mode="replay", replay_run=live.run).gather()


def test_whether_a_replay_is_fit_is_asked_without_making_a_store(project: Project) -> None:
    """Tests may only be collected; the folder is there where anything else was written down."""
    replay = project.session(mode="replay")
    (replay.root / ".llmparity").mkdir(exist_ok=True)
    project.declare(replay)

    replay.refuse_unfit()

    assert list((replay.root / ".llmparity").iterdir()) == []


def test_the_newest_run_of_the_named_engines_that_asked_this_is_replayed(project: Project) -> None:
    engines = {name: project.attached(name, project.engine()) for name in "abc"}
    runs = []
    for token, names, tokens in (("one", "ab", 8), ("two", "ab", 8), ("three", "ac", 8), ("four", "ab", 4)):
        live = project.session(*(engines[name] for name in names), token=token)
        project.declare(live, max_tokens=tokens)
        live.gather()
        runs.append(live.run)
        live.close()

    replayed = []
    for names in ("ab", "ac", ""):
        replay = project.session(*(engines[name] for name in names), mode="replay")
        project.declare(replay, max_tokens=8)
        replay.gather()
        replayed.append(replay.run)
    other = project.session(engines["c"], mode="replay")
    project.declare(other, max_tokens=4)

    assert replayed == [runs[1], runs[2], runs[2]]
    with pytest.raises(UsageError, match=f"has the engine c; the newest that did, {runs[3]}, has a, b; run once"):
        other.gather()


def test_an_interrupted_run_is_not_replayed(project: Project) -> None:
    session = project.session(project.attached("a", project.engine()))
    run = session.store().begin(plan_hash="p", session="one", version="1").id

    with pytest.raises(StoreError, match=f"run {run} was interrupted"):
        project.session(mode="replay").gather()


def test_processes_of_one_run_share_one_gathering(project: Project) -> None:
    engine = project.engine()
    spec = project.attached("a", engine)
    for _ in range(2):
        session = project.session(spec)
        project.declare(session)
        session.gather()
        assert len(session.parity_run("t", reproduce="")["a"]) == 12
        session.close()

    assert engine.count == 12 + 1, "and one warm-up: the second process attached to nothing"


def test_a_session_without_gates_gathers_nothing(project: Project) -> None:
    session = project.session(project.attached("a", project.engine()))

    session.gather()

    assert session.run is None
    assert not (project.path / ".llmparity").exists()


def test_the_controller_reads_the_run_its_workers_gathered(project: Project) -> None:
    spec = project.attached("a", project.engine())
    worker, controller = project.session(spec), project.session(spec)
    project.declare(worker)
    worker.gather()

    controller.adopt(str(worker.run))
    controller.adopt("another run, which comes too late")

    record = controller.record([])
    assert (record.run, record.requests, [e.name for e in record.engines]) == (worker.run, 12, ["a"])
    assert len(controller.samples()) == 12


def test_a_relative_latency_limit_on_engines_in_turn_takes_two_loads_of_each(project: Project) -> None:
    pair, three = ([project.process(name) for name in names] for names in ("ab", "abc"))
    few = project.session(*pair, residency="one-at-a-time", timed_changes=2)
    default = project.session(*pair, residency="one-at-a-time")
    many = project.session(*pair, residency="one-at-a-time", timed_changes=12)

    with pytest.raises(DesignError, match=r"timed_changes is 2; set timed_changes = 3 or more.*absolute limit"):
        project.declare(few, check.latency(ttft_p50="x1.25"))
    with pytest.raises(DesignError, match=r"timed_changes is 4; set timed_changes = 6 or more"):
        project.declare(project.session(*three, residency="one-at-a-time"), check.latency(ttft_p50="x1.25"))
    with pytest.raises(DesignError, match=r"12 timed requests.*concurrency=8 busy in 3 blocks.*give n=24 or more"):
        project.declare(default, check.latency(ttft_p50="x1.25", n=12), concurrency=8)
    project.declare(few, check.latency(ttft_p50="2s"))
    project.declare(default, check.latency(ttft_p50="x1.25", e2e_p50="2s", tpot_p50="x0.9", e2e_p95="x1.05"))
    assert few.gates.timed_lines(few.gates.declarations()[0]) == []
    assert default.gates.timed_lines(default.gates.declarations()[0]) == [
        "ttft_p50=x1.25: with 4 changes of the engine in memory an engine as fast as the baseline passes in 8 of 10 "
        "runs where ttft_p50 differs by up to 5.4 % from one load of an engine to its next; with timed_changes = 8 "
        "also by up to 11.4 %",
        "e2e_p95=x1.05: with 4 changes of the engine in memory it is settled in 8 of 10 runs where e2e_p95 differs by "
        "up to 1.2 % from one load of an engine to its next; timed_changes = 11 would settle 3 %",
    ]
    project.declare(many, check.latency(e2e_p50="x1.02", n=16), concurrency=4)
    assert many.gates.timed_lines(many.gates.declarations()[0]) == [
        "e2e_p50=x1.02: with 4 changes of the engine in memory it is settled in 8 of 10 runs where e2e_p50 differs by "
        "up to 0.5 % from one load of an engine to its next; no number of changes settles 3 % with n=16: raise "
        "n, or widen the limit"
    ]


def test_golden_answers_are_never_loaded_in_turn() -> None:
    live = [EngineSpec(name=name, kind="llamacpp", launch="process") for name in "ab"]
    golden = EngineSpec(name="golden:a", launch="golden")

    settings = Settings(engines=(*live, golden), residency="one-at-a-time", timed_changes=6)

    assert settings.engines_and_changes == (2, 6)
    assert Settings(engines=(live[0], golden), residency="one-at-a-time").engines_and_changes is None


def test_a_check_in_a_body_does_not_compare_what_was_not_timed_in_turn(project: Project) -> None:
    session = project.session(project.process("a"), project.process("b"), residency="one-at-a-time")
    project.declare(session, check.latency(e2e_p50="9s"))

    with pytest.raises(DesignError, match=r"timed requests of engines that are loaded in turn"):
        session.parity_run("t", reproduce="again").check(check.latency(e2e_p50="x1.25"))


@pytest.mark.slow
def test_more_prompts_after_an_open_verdict_cost_half_the_error_rate_until_one_settles(project: Project) -> None:
    alphas: list[float | None] = []
    for count, outcome in ((16, Outcome.INCONCLUSIVE), (16, Outcome.INCONCLUSIVE), (24, Outcome.INCONCLUSIVE)):
        project.prompts(count)
        drift = project.engine(drift=0.2)
        session = project.session(
            project.attached("a", project.engine()),
            project.attached("b", drift),
            token=str(len(alphas)),
            resume="fresh",
        )
        project.declare(session, TEXT)
        session.gather()
        verdict = next(v for v in judged(session) if v.kind == "text")
        assert verdict.outcome is outcome
        alphas.append(verdict.alpha)
        session.close()

    replay = project.session(mode="replay")
    project.declare(replay, TEXT)
    replay.gather()

    assert alphas == [0.05, 0.05, 0.025]
    assert next(v.alpha for v in judged(replay) if v.kind == "text") == 0.025, "a replay is no way round it"


def looked_at_twice(project: Project) -> list[tuple[str | None, Verdict]]:
    """Judge 30 prompts, then 50 in a run of their own; return each run with its verdict, which is open."""
    looks = []
    for count in (30, 50):
        project.prompts(count)
        engine = project.engine(lambda request: "{}" if number(request) % 10 else "no")
        session = project.session(project.attached("a", engine), token=str(count), resume="fresh")
        project.declare(session, check.schema({}, rate=0.85, gap=None))
        session.gather()
        (verdict,) = judged(session)
        assert verdict.outcome is Outcome.INCONCLUSIVE
        looks.append((session.run, verdict))
        session.close()
    return looks


def test_an_absolute_limit_is_looked_at_again_too(project: Project) -> None:
    assert [verdict.alpha for _, verdict in looked_at_twice(project)] == [0.05, 0.025]


@pytest.mark.slow
def test_looks_are_counted_for_each_candidate(project: Project) -> None:
    """One candidate that is settled and one that stays open: only the open one's next look costs."""
    alphas = []
    for count in (30, 50):
        project.prompts(count)
        good, open_ = project.engine("{}"), project.engine(lambda request: "{}" if number(request) % 10 else "no")
        session = project.session(
            *(project.attached(name, engine) for name, engine in (("a", good), ("b", good), ("c", open_))),
            token=str(count),
            resume="fresh",
        )
        project.declare(session, check.schema({}, rate=0.85, gap=None))
        session.gather()
        verdicts = judged(session)
        assert [v.outcome for v in verdicts] == [Outcome.PASS, Outcome.PASS, Outcome.INCONCLUSIVE]
        alphas.append([(v.engine, v.looks, v.alpha) for v in verdicts])
        session.close()

    assert alphas == [
        [("a", 0, 0.05), ("b", 0, 0.05), ("c", 0, 0.05)],
        [("a", 0, 0.05), ("b", 0, 0.05), ("c", 1, 0.025)],
    ]


@pytest.mark.slow
def test_a_replay_is_judged_by_the_looks_before_its_run_whatever_came_later(project: Project) -> None:
    (first, _), (second, _) = looked_at_twice(project)
    alphas = []
    for count, run in ((30, first), (50, second), (30, first)):
        project.prompts(count)
        replay = project.session(mode="replay", replay_run=run)
        project.declare(replay, check.schema({}, rate=0.85, gap=None))
        replay.gather()
        (verdict,) = judged(replay)
        alphas.append(verdict.alpha)
        replay.close()

    assert alphas == [0.05, 0.025, 0.05]


@pytest.mark.slow
def test_a_check_of_several_limits_stays_open_while_one_of_them_is(project: Project) -> None:
    """An open gap and settled values of one check on one pair: the gap's next look costs, whichever came last."""
    schema = {"type": "object", "properties": {"a": {}}, "required": ["a"]}
    alphas = []
    for count in (70, 90):
        project.prompts(count)
        good = project.engine('{"a": 1}')
        bad = project.engine(lambda request: '{"a": 1}' if number(request) % 16 else "no")
        session = project.session(
            project.attached("a", good), project.attached("b", bad), token=str(count), resume="fresh"
        )
        project.declare(session, check.schema(schema, gap=0.07, agree=0.5))
        session.gather()
        outcomes = {v.kind: v.outcome for v in judged(session)}
        assert outcomes["schema.gap"] is Outcome.INCONCLUSIVE, outcomes
        assert Outcome.PASS in outcomes.values()
        alphas.append(next(v.alpha for v in judged(session) if v.kind == "schema.gap"))
        session.close()

    assert alphas == [0.05, 0.025]


def test_a_row_nobody_could_gather_says_why(project: Project) -> None:
    session = project.session(project.attached("a", project.engine()), max_requests=3)
    project.declare(session)
    session.gather()

    rows = session.parity_run("t", reproduce="")["a"]
    missing = [row for row in rows.values() if not row.samples]

    assert len(missing) == 9
    with pytest.raises(MissingSample, match=r"stopped after 3 requests"):
        _ = missing[0].text


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_where_it_stopped(project: Project) -> None:
    engine = project.engine()
    stopped = project.gathered_before("a", engine, limit=5)

    session = project.session(project.attached("a", engine))
    project.declare(session)
    session.gather()

    assert session.run == stopped
    assert engine.count == 12 + 2, "every case once, and a warm-up each"
    assert any(note.startswith("resumed run") for note in session.record([]).notes)
    timings = [row.timing for row in session.parity_run("t", reproduce="")["a"].values()]
    assert timings.count(None) == 5, "those of the earlier process are no evidence"


@pytest.mark.parametrize("resume", ["resume", "retry"])
def test_only_what_a_run_lacks_is_asked_when_it_goes_on(project: Project, resume: Any) -> None:
    """A hard stop left prompts unasked, or one was refused."""
    faults = iter([Fault.refuse(400)] if resume == "retry" else [])
    engine = project.engine(lambda request: next(faults, "well") if number(request) == 3 else "well")
    first = project.session(project.attached("a", engine), max_requests=5 if resume == "resume" else None)
    project.declare(first)
    first.gather()
    lacking = 12 - sum(sample.failure is None for sample in first.samples())
    first.close()
    project.process_ended()
    before = engine.count

    again = project.session(project.attached("a", engine), token="two", resume=resume)
    project.declare(again)
    again.gather()

    asked = [received for received in engine.requests[before:] if "question" in str(received.json)]
    assert len(asked) == lacking == (7 if resume == "resume" else 1)
    assert again.run == first.run
    assert [sample.failure for sample in again.samples()] == [None] * 12


def test_an_engine_that_changed_since_the_interruption_is_asked_everything_again(project: Project) -> None:
    engine = project.engine(poses_as="llamacpp")
    stopped = project.session(project.attached("a", engine), token="an earlier process", max_requests=5)
    project.declare(stopped)
    stopped.gather()
    stopped.close()
    project.process_ended()
    engine.quantization = "Q8_0"

    session = project.session(project.attached("a", engine))
    project.declare(session)
    session.gather()

    assert engine.count == 5 + 12 + 2
    assert any("not the engine the interrupted run asked" in note for note in session.record([]).notes)


def test_case_filters_gather_rows_and_judge_nothing(project: Project) -> None:
    session = project.session(project.attached("a", project.engine()), cases=("c3",))
    project.declare(session, TEXT)
    session.gather()
    gathered = session.parity_run("t", reproduce="")

    assert list(gathered["a"]) == ["c3"]
    assert gathered.check(check.prompts()) == []
    assert session.settle("t", gathered) == []


def test_a_case_filter_leaves_a_gate_on_other_prompts_without_rows(project: Project) -> None:
    session = project.session(project.attached("a", project.engine()), cases=("c3",))
    project.declare(session)
    (project.path / "other.jsonl").write_text('{"id": "d1", "prompt": "another question"}\n')
    session.gates.declare("other", ["other.jsonl"], {}, folder=project.path)
    session.gather()
    gathered = session.parity_run("other", reproduce="")

    rows = gathered["a"]
    assert (list(rows), "d1" in rows) == ([], False)
    with pytest.raises(MissingSample, match="a has no answer to 'd1': not selected by --parity-case"):
        _ = rows["d1"].text
    with pytest.raises(KeyError, match="no case 'd2'"):
        _ = rows["d2"]
    assert gathered.check(check.prompts()) == []
    assert session.settle("other", gathered) == []


def test_a_case_filter_does_not_ask_a_check_in_the_body_for_samples_it_kept_from_being_gathered(
    project: Project,
) -> None:
    session = project.session(
        project.attached("a", project.engine()), project.attached("b", project.engine()), cases=("c3",)
    )
    project.declare(session, check.text(margin=0.5))
    session.gather()

    assert session.parity_run("t", reproduce="").check(check.text(margin=0.9)) == []


def test_an_engine_that_cannot_be_had_says_why(project: Project) -> None:
    with LoopbackEngine() as engine:
        spec = project.attached("a", engine, start_timeout_s=0.2)
    session = project.session(spec)

    with pytest.raises(LLMParityError, match="nothing listens"):
        session.handle("a")


def test_secrets_are_the_values_of_the_variables_a_spec_names(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMPARITY_TEST_KEY", "a value of some length")
    monkeypatch.delenv("LLMPARITY_TEST_UNSET", raising=False)
    specs = [project.attached(n, project.engine(), api_key_env=f"LLMPARITY_TEST_{n}") for n in ("KEY", "UNSET")]

    assert secrets_of(specs, os.environ) == {"LLMPARITY_TEST_KEY": "a value of some length"}


@pytest.mark.slow
def test_the_floor_of_an_unchanged_server_is_measured_once(project: Project) -> None:
    project.prompts(32)
    engine, other = project.engine(poses_as="llamacpp"), project.engine()
    counts, notes = [], []
    for token, resume in (("one", "auto"), ("two", "auto"), ("three", "fresh")):
        engines = project.attached("a", engine), project.attached("b", other, kind="openai")
        session = project.session(*engines, token=token, resume=resume)
        project.declare(session, check.similarity(at_least=0.5), TEXT)
        before = engine.count
        session.gather()
        counts.append(engine.count - before - 1)
        notes.append([note for note in session.record([]).notes if "noise floor" in note])
        assert {s.phase for s in session.samples()} == {Phase.COLD, Phase.MAIN, Phase.WARM, Phase.PARALLEL}
        session.close()

    assert counts == [32 + 3 * 16 + PROBES, 32, 32 + 3 * 16 + PROBES]
    assert [len(of_run) for of_run in notes] == [0, 1, 0]
    assert notes[1][0].startswith("a: 48 answers of its noise floor come from an earlier run")


@pytest.mark.slow
def test_the_floor_of_a_server_that_says_too_little_about_itself_is_measured_each_time(project: Project) -> None:
    project.prompts(32)
    engine, other = project.engine(), project.engine()
    for token in ("one", "two"):
        engines = project.attached("a", engine, kind="openai"), project.attached("b", other, kind="openai")
        session = project.session(*engines, token=token)
        project.declare(session, TEXT)
        session.gather()
        session.close()

    assert engine.count == 2 * (32 + 3 * 16 + 1 + PROBES)
