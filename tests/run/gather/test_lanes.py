"""Engines asked at the same time: which, why, and that none of them notices the others."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.run.gather.lanes import Lane, describe, lanes_of
from pytest_llmparity.run.probe.probes import QUESTION
from pytest_llmparity.run.session import Session
from pytest_llmparity.settings.specification import EngineSpec, Settings
from pytest_llmparity.testing import LoopbackEngine

if TYPE_CHECKING:
    from tests.run.conftest import Project

LIMIT_S = 20.0
"""For what takes milliseconds, on a machine that is busy."""


def spec(name: str, base_url: str | None = None) -> EngineSpec:
    return EngineSpec(name=name, kind="llamacpp", base_url=base_url, launch="attach" if base_url else "process")


A, B = spec("a", "http://one.example"), spec("b", "http://two.example")
OURS, ALSO_OURS = spec("ours"), spec("also-ours")
ONE_DAEMON = (spec("x", "http://localhost:11434"), spec("y", "http://127.0.0.1:11434/"))


@pytest.mark.parametrize(
    ("engines", "keys", "lanes", "words"),
    [
        pytest.param((A, B), {}, ["a", "b"], "side by side (at different addresses)", id="two addresses"),
        pytest.param((A, B), {"gather": "in-turn"}, ["a b"], 'in turn (gather = "in-turn")', id="told in turn"),
        pytest.param((OURS, ALSO_OURS), {}, ["ours also-ours"], "in turn (on this machine)", id="ours"),
        pytest.param(
            (OURS, ALSO_OURS),
            {"gather": "side-by-side"},
            ["ours", "also-ours"],
            'side by side (gather = "side-by-side")',
            id="ours, told side by side",
        ),
        pytest.param(ONE_DAEMON, {}, ["x y"], "in turn (both at 127.0.0.1:11434)", id="one address"),
        pytest.param(
            ONE_DAEMON, {"gather": "side-by-side"}, ["x", "y"], 'side by side (gather = "side-by-side")', id="told"
        ),
        pytest.param(
            (OURS, A, *ONE_DAEMON),
            {},
            ["ours x y", "a"],
            "side by side (at different addresses), but ours and x and y in turn (on this machine)",
            id="one of ours beside a daemon here",
        ),
        pytest.param(
            (A, *ONE_DAEMON),
            {},
            ["a", "x y"],
            "side by side (at different addresses), but x and y in turn (both at 127.0.0.1:11434)",
            id="a daemon and another address",
        ),
        pytest.param((A, B), {"baseline": "b"}, ["b", "a"], "side by side (at different addresses)", id="baseline"),
        pytest.param(
            (A, B), {"residency": "one-at-a-time"}, ["a b"], "in turn (one in memory at a time)", id="one at a time"
        ),
    ],
)
def test_addresses_and_settings_say_who_is_asked_at_the_same_time(
    engines: tuple[EngineSpec, ...], keys: Mapping[str, Any], lanes: list[str], words: str
) -> None:
    settings = Settings(**{"engines": engines, "baseline": engines[0].name, **keys})

    grouped = lanes_of(settings)
    assert [" ".join(lane.names) for lane in grouped] == lanes
    assert describe(grouped, settings) == f"asked {words}"


def test_what_one_server_cannot_keep_in_memory_together_is_asked_in_turn_whatever_was_told() -> None:
    settings = Settings(engines=(*ONE_DAEMON, A), baseline="x", gather="side-by-side")

    assert lanes_of(settings, apart={"x", "y"}) == [Lane(("x", "y"), "both at 127.0.0.1:11434"), Lane(("a",))]


class Flight:
    """Counts the prompts that are under way, on all engines that share it and on each; probes apart.

    ``met`` is set once two engines were asked at the same time: until then (``LIMIT_S`` at most) nobody answers, unless
    they are not expected to meet.
    """

    def __init__(self, project: Project, names: str = "ab", *, meets: bool = True) -> None:
        self.lock = threading.Lock()
        self.now: dict[str, int] = dict.fromkeys(names, 0)
        self.most: dict[str, list[int]] = {name: [] for name in names}
        self.met = threading.Event()
        self.meets = meets
        self.engines = {name: project.engine(self.script(name)) for name in names}
        self.specs = [project.attached(name, engine) for name, engine in self.engines.items()]

    def script(self, name: str) -> Callable[[Mapping[str, Any]], str]:
        def answer(request: Mapping[str, Any]) -> str:
            if not str(request["messages"][-1]["content"]).startswith("question"):
                return "well"
            with self.lock:
                self.now[name] += 1
                self.most[name].append(self.now[name])
                if sum(map(bool, self.now.values())) > 1:
                    self.met.set()
            if self.meets:
                self.met.wait(LIMIT_S)
            with self.lock:
                self.now[name] -= 1
            return "well, yes"

        return answer


def bodies(engine: LoopbackEngine) -> list[bytes]:
    """Return what an engine was sent in its order, the probe of streams first, whose two requests have none."""
    sent = [request.body for request in engine.requests]
    return sorted(sent, key=lambda body: (0, body) if QUESTION[0]["content"].encode() in body else (1, b""))


def test_engines_at_different_addresses_are_asked_at_the_same_time_and_the_floor_stays_alone(project: Project) -> None:
    flight = Flight(project)
    session = project.session(*flight.specs)
    project.declare(session, check.text(margin=0.05), concurrency=4)
    session.gather()

    assert flight.met.is_set()
    for most in flight.most.values():
        assert len(most) == 4 * 12
        assert max(most) <= 4, "no phase runs beside another one"
    assert {v.outcome for v in session.settle("t", session.parity_run("t", reproduce=""))} <= {
        Outcome.PASS,
        Outcome.INCONCLUSIVE,
    }


@pytest.mark.slow
@pytest.mark.parametrize("sequential", [False, True])
def test_what_an_engine_is_sent_does_not_depend_on_the_others(project: Project, sequential: bool) -> None:
    sent = []
    for token, gather in enumerate(("side-by-side", "in-turn")):
        flight = Flight(project, meets=gather == "side-by-side")
        session = project.session(*flight.specs, token=str(token), gather=gather, sequential=sequential, resume="fresh")
        project.declare(session, check.text(margin=0.05), check.schema({}, rate=0.5), concurrency=1)
        session.gather()
        sent.append({name: bodies(engine) for name, engine in flight.engines.items()})
        assert flight.met.is_set() == (gather == "side-by-side")

    assert sent[0] == sent[1]


@pytest.mark.slow
def test_two_engines_behind_one_address_are_asked_in_turn_unless_told_otherwise(project: Project) -> None:
    peaks = {}
    for gather in (None, "side-by-side"):
        engine = project.engine("well, yes", first_delay_s=0.02)
        specs = [project.attached(name, engine) for name in "ab"]
        session = project.session(*specs, token=str(gather), gather=gather)
        project.declare(session, concurrency=1)
        session.gather()
        peaks[gather] = engine.peak

    assert peaks == {None: 1, "side-by-side": 2}


def test_an_engine_that_dies_ends_its_own_lane_alone(project: Project) -> None:
    flight = Flight(project)
    dying, alive = flight.engines["b"], flight.engines["a"]
    asked = flight.script("b")

    def dies(request: Mapping[str, Any]) -> str:
        answer = asked(request)
        if len(flight.most["b"]) > 3:
            dying.accepting = False
            raise ConnectionAbortedError
        return answer

    dying.script = dies
    specs = [flight.specs[0], project.attached("b", dying, reconnect_s=0.0)]
    session = project.session(*specs)
    project.declare(session, concurrency=1)
    session.gather()

    assert flight.met.is_set()
    answered = {name: [s for s in session.samples() if s.engine == name and s.completion] for name in "ab"}
    assert (len(answered["a"]), len(answered["b"])) == (12, 3)
    assert alive.count == 12 + 1
    (record,) = [e for e in session.record([]).engines if e.name == "b"]
    assert record is not None


def test_hard_stops_are_shared_by_all_of_them(project: Project) -> None:
    flight = Flight(project)
    session = project.session(*flight.specs, max_requests=9)
    project.declare(session, concurrency=2)
    session.gather()

    assert sum(engine.count - 1 for engine in flight.engines.values()) == 9, "warm-ups apart"
    assert "incomplete: stopped after 9 requests (--parity-max-requests)" in session.record([]).notes


def test_an_interruption_ends_all_of_them_and_keeps_what_was_answered(project: Project) -> None:
    flight, over = Flight(project), threading.Event()
    answer, other = flight.script("b"), flight.script("a")

    def interrupts(request: Mapping[str, Any]) -> str:
        if len(flight.most["b"]) == 3:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            threading.Event().wait(LIMIT_S / 20)
        return answer(request)

    def stays(request: Mapping[str, Any]) -> str:
        if len(flight.most["a"]) == 3:  # or it would be through before a busy machine delivers the interruption
            over.wait(LIMIT_S)
        return other(request)

    flight.engines["a"].script, flight.engines["b"].script = stays, interrupts
    session = project.session(*flight.specs)
    project.declare(session, concurrency=1)
    with pytest.raises(KeyboardInterrupt):
        session.gather()
    over.set()

    assert flight.met.is_set()
    assert session.run is not None
    assert len(session.store().have(session.run, "b")) == 3
    assert flight.engines["a"].count < 12 + 1


class Bars:
    """Takes note of what a person would see."""

    def __init__(self) -> None:
        self.began: dict[str, int] = {}
        self.done: dict[str, int] = {}

    def say(self, text: str) -> None: ...

    def begin(self, engine: str, total: int) -> None:
        assert engine not in self.began
        self.began[engine] = total

    def advance(self, engine: str) -> None:
        self.done[engine] = self.done.get(engine, 0) + 1

    def end(self) -> None: ...


def test_each_engine_has_a_bar_of_its_own(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    flight, bars = Flight(project), Bars()
    session: Session = project.session(*flight.specs)
    monkeypatch.setattr(session, "_progress", bars)
    project.declare(session, concurrency=2)
    session.gather()

    assert bars.began == bars.done == {"a": 12, "b": 12}
    assert {s.phase for s in session.samples()} == {Phase.MAIN}
