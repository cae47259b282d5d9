"""Gathering: in order, refused before the first request where it cannot be fair, stopped where it was told to."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import check, lockfile
from pytest_llmparity.core.errors import KeeperError
from pytest_llmparity.core.identity.lock import NAME
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.engines.kinds.vllm import VllmAdapter
from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.report.progress import Silent
from pytest_llmparity.run import locking
from pytest_llmparity.run.session import Session
from pytest_llmparity.run.timed import measure
from pytest_llmparity.settings.specification import Settings
from pytest_llmparity.testing import Fault, Reply

if TYPE_CHECKING:
    from tests.run.conftest import Project

PROBES = 3
"""What a run that judges something asks beforehand: two for streaming, one for unknown fields."""
SLOTS = (2, 4, 6, 8)
"""What a run with a timed phase may ask of a server that does not say how many requests it answers at once: pairs, and
fewer of them where the machine stalls."""


def judged(session: Session) -> list[Verdict]:
    return session.settle("t", session.parity_run("t", reproduce="again"))


@pytest.mark.slow
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


@pytest.mark.slow
def test_latencies_of_engines_in_turn_are_held_against_each_other_over_loads(project: Project) -> None:
    session = project.session(project.process("a"), project.process("b"), residency="one-at-a-time")
    checks = check.latency(e2e_p50="x1000", n=64), check.latency(e2e_p50="20s", n=64)
    project.declare(session, *checks, max_tokens=4)
    session.gather()

    started = [event.partition(" ")[0] for event in project.events if event.endswith("starts")]
    assert started == list("ababab"), "gathered in turn; whoever was last begins: B, A A, B B, A A, B"
    timed = [s for s in session.samples() if s.phase is Phase.TIMED]
    loads = {
        name: Counter(s.timing.load for s in timed if s.engine == name and s.timing is not None) for name in ("a", "b")
    }
    assert loads == {"a": {0: 32, 1: 32}, "b": {0: 16, 1: 32, 2: 16}}
    assert not any(s.timing is None or s.timing.met_load for s in timed)
    cases = {name: [s.case for s in sorted(timed, key=lambda s: s.repeat) if s.engine == name] for name in ("a", "b")}
    assert cases["a"] == cases["b"]
    assert len({s.prefix for s in timed}) == 2 * 64
    verdicts = judged(session)
    assert [(v.engine, v.outcome) for v in verdicts] == [("b", Outcome.PASS), ("a", Outcome.PASS), ("b", Outcome.PASS)]
    assert "; loads of one engine differ by" in verdicts[0].remarks[0]


@pytest.mark.slow
def test_an_engine_that_cannot_be_loaded_again_leaves_the_others_their_turns(project: Project) -> None:
    session = project.session(project.process("a"), project.process("b", "once"), residency="one-at-a-time")
    project.declare(session, check.latency(e2e_p50="x1000", n=64), max_tokens=4)
    session.gather()

    notes = "\n".join(session.record([]).notes)
    assert "b could not be loaded for its turn" in notes
    timed = Counter(s.engine for s in session.samples() if s.phase is Phase.TIMED)
    assert timed == {"a": 64, "b": 16}
    (verdict,) = judged(session)
    assert verdict.outcome is Outcome.INCONCLUSIVE


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


def test_other_weights_behind_the_same_facts_are_told_and_where_the_lock_binds_refused(project: Project) -> None:
    engines = [project.engine(Reply(text="all is well", lead=2.0), poses_as="llamacpp") for _ in range(2)]
    specs = [project.attached(name, engine) for name, engine in zip("ab", engines, strict=True)]
    locked = {}
    for spec in specs:
        adapter, identity = project.session(spec).available(spec.name)
        canaries, _ = locking.canaries_of(adapter, None, record=True, plugin="1")
        entry = locking.entry(spec, identity, kind=adapter.kind, plugin="1", root=str(project.path))
        locked[spec.name] = dataclasses.replace(entry, canaries=canaries)
    lockfile.write(project.path / NAME, locked)
    engines[1].script = Reply(text="all is well", lead=2.4)
    sentence = "b: its canaries do not answer as llmparity.lock says: other weights (0.4000 nats, 0 of 12 answers part)"

    for frozen, outcome in ((True, Outcome.INCOMPARABLE), (False, Outcome.PASS)):
        session = project.session(*specs, frozen=frozen, token=str(frozen))
        project.declare(session, check.prompts())
        session.gather()

        (verdict,) = judged(session)
        assert verdict.outcome is outcome
        sentences = [verdict.reason or ""] if frozen else session.record([]).notes
        assert any(words.startswith(sentence) for words in sentences)
        asked = [request for engine in engines for request in engine.requests if "question" in str(request.json)]
        assert bool(asked) is not frozen, "no prompt is asked of engines that are refused"


@pytest.mark.slow
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

    outcomes = {v.engine: v.outcome for v in judged(session) if v.kind == "text"}
    assert outcomes == {"b": Outcome.INCOMPARABLE, "c": Outcome.PASS}
    assert bad.count == 1


def test_a_parameter_a_route_cannot_honour_is_incomparable_before_the_first_request(project: Project) -> None:
    project.prompts(40)
    able, unable = project.engine(), project.engine()
    session = project.session(project.attached("a", able), project.attached("b", unable, kind="openai"))
    project.declare(session, check.text(margin=0.05), sampling={"temperature": 0.7, "top_k": 5})
    session.gather()

    verdicts = [v for v in judged(session) if v.engine == "b"]
    assert {v.outcome for v in verdicts} == {Outcome.INCOMPARABLE}
    assert all("top_k" in v.message for v in verdicts)
    assert unable.count == 1


def test_a_timed_phase_that_no_longer_fits_is_not_begun(project: Project) -> None:
    project.prompts(30)
    engine = project.engine("one two three")
    session = project.session(project.attached("a", engine), max_requests=48)
    project.declare(session, check.latency(e2e_p50="20s"), max_tokens=4)
    session.gather()

    (verdict,) = judged(session)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    sent = session.record([]).requests
    why = f"the timed phase needs 128 requests and {48 - sent} are left (--parity-max-requests)"
    assert why in verdict.message + " ".join(verdict.details)
    assert engine.count == sent + 1, "the warm-up is none of the run's requests"
    assert sent - 30 - PROBES in SLOTS, "what was not sent is not counted"
    assert f"incomplete: {why}" in session.record([]).notes


@pytest.mark.slow
def test_time_that_runs_out_while_timing_stops_the_timed_phase(project: Project) -> None:
    project.prompts(4)
    # 256 requests, two at a time and a tenth of a second each, would take 13 s.
    engine = project.engine("one two three", first_delay_s=0.1)
    session = project.session(project.attached("a", engine), budget_s=3.0, concurrency=2)
    project.declare(session, check.latency(e2e_p50="20s", n=256), max_tokens=4)
    session.gather()

    record = session.record([])
    assert "incomplete: stopped after 3 s (--parity-budget)" in record.notes
    assert {v.outcome for v in judged(session)} == {Outcome.INCONCLUSIVE}
    answers = len([s for s in session.samples() if s.phase in (Phase.MAIN, Phase.TIMED)])
    assert answers < 4 + 256
    # On a slow machine time is up while slots or probes are still being found out, so some of these are not sent.
    assert record.requests - answers <= PROBES + max(SLOTS), "what was not sent is not counted"


@pytest.mark.slow
def test_no_timed_prompt_was_asked_before_and_the_store_says_how_it_began(project: Project) -> None:
    project.prompts(30)
    engines = [project.engine("one two three"), project.engine("one two three")]
    session = project.session(*(project.attached(name, engine) for name, engine in zip("ab", engines, strict=True)))
    project.declare(session, check.latency(e2e_p50="20s", n=64), max_tokens=4, concurrency=4)
    session.gather()

    timed_samples = [s for s in session.samples() if s.phase is Phase.TIMED]
    prefixes = [s.prefix for s in timed_samples]
    assert len(timed_samples) == len(set(prefixes)) == 2 * 64
    asked = [str(request.json["messages"][0]["content"]) for engine in engines for request in engine.requests]
    assert all(sum(text.startswith(prefix) for text in asked) == 1 for prefix in prefixes)
    assert {s.prefix for s in session.samples() if s.phase is not Phase.TIMED} == {""}
    assert not any("prefix cache" in line for v in judged(session) for line in v.remarks)


@pytest.mark.slow
def test_prompts_are_timed_as_they_are_where_the_check_says_so(project: Project) -> None:
    project.prompts(30)
    engine = project.engine("one two three")
    session = project.session(project.attached("a", engine))
    project.declare(session, check.latency(e2e_p50="20s", n=32, cached=True), max_tokens=4, concurrency=4)
    session.gather()

    assert {s.prefix for s in session.samples()} == {""}
    (verdict,) = judged(session)
    assert "32 requests of a as gathered: a prefix cache may have held them" in verdict.remarks


@pytest.mark.slow
def test_each_gate_has_timed_answers_of_its_own(project: Project) -> None:
    project.prompts(30)
    lines = (project.path / "prompts.jsonl").read_text().splitlines()
    (project.path / "some.jsonl").write_text("\n".join(lines[:10]))
    session = project.session(project.attached("a", project.engine("one two three")))
    limits = check.latency(e2e_p50="20s", n=64)
    project.declare(session, limits, test="t", max_tokens=4, concurrency=2)
    project.declare(session, limits, test="wide", max_tokens=4, concurrency=8)
    session.gates.declare("some", ["some.jsonl", limits], {"max_tokens": 4, "concurrency": 2}, folder=project.path)
    session.gather()

    for test in ("t", "wide", "some"):
        (verdict,) = session.settle(test, session.parity_run(test, reproduce=""))
        assert (verdict.outcome, verdict.n) == (Outcome.PASS, 64), test
    assert len([s for s in session.samples() if s.phase is Phase.TIMED]) == 3 * 64


@pytest.mark.slow
def test_a_timed_phase_that_breaks_concerns_its_own_gate(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.prompts(30)
    monkeypatch.setattr(measure, "BOOT", "import sys; sys.exit('no room for another process')")
    session = project.session(project.attached("a", project.engine()), project.attached("b", project.engine()))
    project.declare(session, check.latency(e2e_p50="20s"), max_tokens=4)
    project.declare(session, check.text(margin=0.2), test="other", max_tokens=8)
    session.gather()

    broken = judged(session)
    assert {v.outcome for v in broken} == {Outcome.ERROR}
    assert all("the timed phase failed: " in v.message for v in broken)
    assert all("no room for another process" in v.message for v in broken)
    others = session.settle("other", session.parity_run("other", reproduce=""))
    assert Outcome.ERROR not in {v.outcome for v in others}
    notes = " ".join(session.record([]).notes)
    assert "prompts could not be timed" in notes
    assert "no room for another process" in notes


@pytest.mark.slow
def test_an_adapter_that_stumbles_over_a_case_is_an_error_and_the_others_are_asked(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(request: object) -> dict[str, object]:
        raise KeyError("nope")

    project.prompts(64)
    engines = [project.engine() for _ in range(3)]
    specs = [project.attached(name, engine) for name, engine in zip("ab", engines, strict=False)]
    session = project.session(*specs, project.attached("c", engines[2], kind="vllm"))
    project.declare(session, check.text(margin=0.05))
    build = VllmAdapter.build
    monkeypatch.setattr(
        VllmAdapter,
        "build",
        lambda self, request, **more: build(self, request, **more) if request.case == "warm-up" else stumble(request),
    )
    session.gather()

    verdicts = {v.engine: v for v in judged(session) if v.kind == "text"}
    assert verdicts["b"].outcome is Outcome.PASS
    assert verdicts["c"].outcome is Outcome.ERROR
    assert "c: KeyError: 'nope'" in verdicts["c"].message


def test_a_penalty_that_could_not_be_sent_is_told_once(project: Project) -> None:
    unable, able = project.engine(), project.engine()
    session = project.session(project.attached("a", unable, kind="openai"), project.attached("b", able))
    project.declare(session)
    session.gather()

    told = [note for note in session.record([]).notes if "repetition_penalty was not sent" in note]
    assert len(told) == 1
    assert told[0].startswith("a: ")


def test_a_run_of_some_cases_is_neither_gone_on_with_nor_replayed(project: Project) -> None:
    engine = project.engine()
    spec = project.attached("a", engine)
    whole = project.session(spec)
    project.declare(whole)
    whole.gather()
    # What a hard stop leaves unfinished is resumed by the next run of the same plan.
    some = project.session(spec, token="two", cases=("c3", "c4"), max_requests=1)
    project.declare(some)
    some.gather()
    again = project.session(spec, token="three")
    project.declare(again)
    again.gather()
    replay = project.session(spec, token="four", mode="replay")
    project.declare(replay)
    some_again = project.session(spec, token="five", cases=("c5",))
    project.declare(some_again)
    some_again.gather()
    replay.gather()

    assert len({whole.run, some.run, again.run, some_again.run}) == 4
    assert replay.run == again.run
    assert {s.case for s in some_again.samples()} == {"c5"}


def test_engines_that_only_run_elsewhere_need_no_keeper(project: Project) -> None:
    def nobody() -> Keeper:
        raise KeeperError("engines cannot be started here")

    session = Session(
        Settings(engines=(project.attached("a", project.engine()),), baseline="a"),
        root=project.path,
        token="one",
        keeper=nobody,
        version="1",
        progress=Silent(),
    )
    project.declare(session)
    session.gather()
    session.close()

    assert sorted(path.name for path in (project.path / ".llmparity").iterdir() if path.suffix == ".lock") == [
        "samples.lock"
    ]


def test_processes_of_one_run_gather_once(project: Project, at_once: Callable[..., list[Any]]) -> None:
    engine = project.engine()
    sessions = [project.session(project.attached("a", engine), token="shared") for _ in range(3)]
    for session in sessions:
        project.declare(session)

    at_once(*(session.gather for session in sessions))

    assert len({session.run for session in sessions}) == 1
    assert engine.count == 12 + 1


@pytest.mark.slow
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
