"""Engines are started or attached to once, told apart from the dead, and never resident together when told so."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from pytest_llmparity.engines.kinds.llamacpp import LlamaCppAdapter
from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.ledger import Allowance
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.testing import LoopbackEngine
from tests.doubles.ollama_daemon import GO, Model, OllamaDaemon

if TYPE_CHECKING:
    from tests.run.conftest import Project


def fleet_of(project: Project, *specs: EngineSpec, **more: Any) -> Fleet:
    keeper = project.keeper()
    return Fleet({s.name: s for s in specs}, keeper=lambda: keeper, workdir=project.path / ".llmparity", **more)


@pytest.mark.slow
def test_a_process_is_started_identified_and_asked_once(project: Project) -> None:
    fleet = fleet_of(project, project.process("a"))

    engaged = fleet.engage("a")

    assert engaged.record.error is None
    assert engaged.adapter is not None
    assert engaged.record.identity.get("quantization") == "Q4_0"
    assert engaged.record.log == "a.log"
    assert (project.path / ".llmparity/logs/a.log").read_text() == "a wakes up\n"
    assert fleet.engage("a") is engaged
    assert fleet.gone("a") is None
    assert project.events == ["a starts"]


@pytest.mark.slow
def test_a_kind_that_leaves_sockets_is_told_a_folder_that_goes_with_the_keeper_unless_it_is_given_one(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlamaCppAdapter, "sockets_variable", "SOCKETS_HERE")
    own = project.process("b")
    own = dataclasses.replace(own, env={**own.env, "SOCKETS_HERE": "/mine"})
    keeper = project.keeper()
    specs = {"a": project.process("a"), "b": own}
    fleet = Fleet(specs, keeper=lambda: keeper, workdir=project.path / ".llmparity")
    fleet.engage_all()

    told = [psutil.Process(keeper.state(name).pid).environ()["SOCKETS_HERE"] for name in specs]

    assert told == [str(keeper.sockets()), "/mine"]


def test_an_engine_that_was_never_started_has_no_log_to_look_into(project: Project) -> None:
    fleet = fleet_of(project, dataclasses.replace(project.process("a"), command=("no-such-program",)))

    fleet.glance("a")
    record = fleet.engage("a").record

    assert record.error is not None
    assert record.log is None
    assert not (project.path / ".llmparity/logs").exists()


@pytest.mark.slow
def test_several_processes_start_side_by_side(project: Project) -> None:
    fleet = fleet_of(project, project.process("a"), project.process("b"), project.attached("c", project.engine()))

    fleet.engage_all()
    fleet.engage_all()

    assert sorted(project.events) == ["a starts", "b starts"]
    assert all(fleet.engage(name).record.error is None for name in "abc")


@pytest.mark.slow
def test_everyone_gets_the_process_that_one_started(project: Project, at_once: Callable[..., list[Any]]) -> None:
    keeper, spec = project.keeper(), project.process("a")
    fleets = [Fleet({"a": spec}, keeper=lambda: keeper, workdir=project.path / ".llmparity") for _ in range(3)]

    joined = at_once(*(lambda fleet=fleet: fleet.engage("a") for fleet in fleets))
    late = Fleet({"a": spec}, keeper=lambda: keeper, workdir=project.path / ".llmparity").engage("a")

    assert project.events == ["a starts"]
    assert {engaged.adapter.base_url for engaged in [*joined, late]} == {late.adapter.base_url if late.adapter else ""}
    assert {engaged.record.identity.get("quantization") for engaged in [*joined, late]} == {"Q4_0"}
    assert (project.path / ".llmparity/logs/a.log").read_text() == "a wakes up\n", "nobody who joins empties the log"


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "how"), [("exit", "exit code 1"), ("killed", "signal 9")])
def test_a_process_that_ends_at_start_is_told_with_its_last_words(project: Project, mode: str, how: str) -> None:
    keeper = project.keeper()
    spec = project.process("a", mode)
    first, second = (Fleet({"a": spec}, keeper=lambda: keeper, workdir=project.path / ".llmparity") for _ in range(2))

    engaged = first.engage("a")

    assert engaged.adapter is None
    assert engaged.record.error is not None
    assert f"ended with {how}" in engaged.record.error
    assert ("the weights are broken" if mode == "exit" else "a wakes up") in engaged.record.error
    assert first.engage("a") is engaged, "it is not tried again"
    assert second.engage("a").record.error is not None, "by nobody"
    assert project.events == ["a starts"]


@pytest.mark.slow
def test_whoever_waits_for_another_process_of_the_run_stops_when_its_time_is_up(project: Project) -> None:
    keeper = project.keeper()
    how = {"env": {}, "cwd": project.path, "log": project.path / "a.log", "stop_signal": 9, "grace_s": 0.0}
    assert keeper.start("a", argv=["sleep", "60"], **how).first  # type: ignore[arg-type]  # one dict of several types
    fleet = Fleet({"a": project.process("a")}, keeper=lambda: keeper, workdir=project.path / ".llmparity")
    fleet.allowance = Allowance(requests=None, seconds=0.2)

    error = fleet.engage("a").record.error

    assert error is not None
    assert "was not waited for while another process of this run started it: the run's time was up" in error


@pytest.mark.slow
def test_a_port_that_was_taken_is_left_for_another(project: Project) -> None:
    fleet = fleet_of(project, project.process("a", "taken"))

    assert fleet.engage("a").record.error is None
    assert project.events == ["a starts", "a starts"]


@pytest.mark.slow
def test_a_process_that_dies_later_is_gone(project: Project) -> None:
    keeper = project.keeper()
    fleet = Fleet({"a": project.process("a")}, keeper=lambda: keeper, workdir=project.path / ".llmparity")
    fleet.engage("a")

    keeper.stop("a")

    gone = fleet.gone("a")
    assert gone is not None
    assert gone.startswith("a ended with ")
    assert "a wakes up" in gone


def test_an_engine_that_was_never_started_is_not_there(project: Project) -> None:
    gone = fleet_of(project, project.process("a")).gone("a")

    assert gone is not None
    assert gone.startswith("a: absent")


def test_a_program_that_is_not_there_is_an_error_of_its_engine(project: Project) -> None:
    spec = project.process("a")
    missing = EngineSpec(
        name="a", kind="llamacpp", launch="process", model="m", model_path=spec.model_path, command=("no-such-program",)
    )

    engaged = fleet_of(project, missing).engage("a")

    assert engaged.record.error is not None
    assert "no-such-program" in engaged.record.error


def test_variables_of_the_environment_that_would_change_the_engine_stay_outside(project: Project) -> None:
    environ = {**os.environ, "LLAMA_ARG_CTX_SIZE": "7", "LLMPARITY_SEEN": "yes"}
    script = "import os, sys; sys.exit(' '.join(sorted(k for k in os.environ if 'LLAMA_ARG' in k or '_SEEN' in k)))"
    spec = project.process("a")
    told = EngineSpec(
        name="a",
        kind="llamacpp",
        launch="process",
        model="m",
        model_path=spec.model_path,
        command=(*spec.command[:1], "-c", script),
    )

    error = fleet_of(project, told, environ=environ).engage("a").record.error

    assert error is not None
    assert "LLMPARITY_SEEN" in error
    assert "LLAMA_ARG" not in error


@pytest.mark.slow
def test_one_at_a_time_stops_the_others_first_and_starts_again_what_is_asked_for_again(project: Project) -> None:
    fleet = fleet_of(project, project.process("a"), project.process("b"), one_at_a_time=True)

    first = fleet.engage("a")
    assert fleet.engage("a") is first
    fleet.engage("b")
    again = fleet.engage("a")

    assert project.events == ["a starts", "a stops", "b starts", "b stops", "a starts"]
    assert again is not first
    assert again.adapter is not None
    assert again.adapter.ready() is None


@pytest.mark.slow
def test_one_at_a_time_does_not_try_again_what_could_not_start(project: Project) -> None:
    fleet = fleet_of(project, project.process("a", "exit"), project.process("b"), one_at_a_time=True)

    broken = fleet.engage("a")
    fleet.engage("b")

    assert fleet.engage("a") is broken
    assert project.events == ["a starts", "b starts"]


@pytest.mark.slow
def test_one_at_a_time_stops_what_a_process_that_died_has_left_behind(project: Project) -> None:
    keeper = project.keeper()
    specs = {spec.name: spec for spec in (project.process("a"), project.process("b"))}
    died, heir = (
        Fleet(specs, keeper=lambda: keeper, workdir=project.path / ".llmparity", one_at_a_time=True) for _ in range(2)
    )
    died.engage("a")

    heir.engage("b")

    assert project.events == ["a starts", "a stops", "b starts"]


def test_a_server_that_is_not_there_is_an_error_of_its_engine(project: Project) -> None:
    with LoopbackEngine() as engine:
        spec = project.attached("a", engine, start_timeout_s=0.2)
    fleet = fleet_of(project, spec)

    engaged = fleet.engage("a")

    assert engaged.adapter is None
    assert engaged.record.log is None
    assert engaged.record.error is not None
    assert "nothing listens" in engaged.record.error
    assert fleet.gone("a") is None, "what is not ours is not watched"


@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_two_models_that_one_process_would_answer_for_are_refused_side_by_side(
    project: Project, one_at_a_time: bool
) -> None:
    with OllamaDaemon({"tiny:latest": Model(), "twin:latest": Model(go=GO)}) as daemon:
        specs = [
            EngineSpec(name=name, kind="ollama", model=model, base_url=daemon.base_url)
            for name, model in (("a", "tiny"), ("b", "twin"))
        ]
        fleet = fleet_of(project, *specs, one_at_a_time=one_at_a_time, gpus=lambda: (None, None))
        if not one_at_a_time:
            fleet.engage_all()

        errors = [fleet.engage(name).record.error for name in "ab"]

    if one_at_a_time:
        assert errors == [None, None]
        return
    assert [(error or "").partition(" have the same weights")[0] for error in errors] == [
        "a (tiny) and b (twin)",
        "b (twin) and a (tiny)",
    ]
    assert daemon.launches == 0, "nothing was loaded"


@pytest.mark.slow
def test_that_nobody_measures_a_server_elsewhere_is_noted_where_engines_take_turns(project: Project) -> None:
    server = project.engine(poses_as="llamacpp")
    here = project.attached("a", server)
    elsewhere = dataclasses.replace(here, base_url=server.base_url.replace("127.0.0.1", "0.0.0.0"))

    notes = [
        fleet_of(project, spec, one_at_a_time=turns, gpus=lambda: (None, None)).engage("a").record.notes
        for spec, turns in ((here, True), (elsewhere, False), (elsewhere, True))
    ]

    assert notes == [(), (), ("a runs elsewhere: nobody looked whether its memory came back after its turn",)]


@pytest.mark.parametrize(
    ("pin", "strict", "sentence", "notes"),
    [
        ({"quantization": "Q4_K_M"}, False, None, 0),
        ({"quantization": "Q8_0"}, False, "a: quantization is pinned to Q8_0 but the server has Q4_K_M", 0),
        ({"digest": "sha256:00"}, False, None, 1),
        ({"digest": "sha256:00"}, True, "a: digest is pinned but the server does not report it (strict_pins)", 1),
    ],
    ids=["held", "contradicted", "unverified", "unverified and strict"],
)
def test_pins_are_held_against_the_server(
    project: Project, pin: dict[str, str], strict: bool, sentence: str | None, notes: int
) -> None:
    server = project.engine(poses_as="llamacpp", quantization="Q4_K - Medium")

    engaged = fleet_of(project, project.attached("a", server, pin=pin, strict_pins=strict)).engage("a")

    assert engaged.record.incomparable == sentence
    assert len(engaged.record.notes) == notes
    assert all("pin digest unverified" in note for note in engaged.record.notes)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, None),
        ({"quantization": "Q8_0"}, "came back as another engine; a: its answers before and after belong to two eng"),
        ({"port": 0}, "could not be used again within 0.05 s: "),
    ],
    ids=["as it was", "another", "gone"],
)
def test_a_server_that_went_away_is_held_against_what_it_was(
    project: Project, changed: dict[str, Any], why: str | None
) -> None:
    before: dict[str, Any] = {"poses_as": "llamacpp", "quantization": "Q4_0"}
    server = project.engine(**before)
    fleet, port = fleet_of(project, project.attached("a", server)), server.port
    fleet.engage("a")
    server.stop()
    project.engine(**{**before, "port": port, **changed})

    reason = fleet.hold_again("a", 0.05, lambda: None)

    known = fleet.known("a")
    assert known is not None
    if why is None:
        assert (reason, known.record.incomparable) == (None, None)
        return
    assert reason is not None
    assert reason.startswith(f"a went away while it was asked and {why}")
    assert known.record.incomparable == (None if "port" in changed else reason)


def test_an_engine_without_slots_of_its_own_gets_one_for_every_request_in_flight(project: Project) -> None:
    script = "import sys; sys.exit(sys.argv[sys.argv.index('--parallel') + 1] + ' slots')"

    def error(slots: int | None) -> str:
        spec = dataclasses.replace(project.process("a"), command=(sys.executable, "-c", script), slots=slots)
        return fleet_of(project, spec, slots=12).engage("a").record.error or ""

    assert "12 slots" in error(None)
    assert "3 slots" in error(3)


def test_a_folder_that_cannot_hold_the_log_is_an_error_of_the_engine(project: Project) -> None:
    fleet = fleet_of(project, project.process("a"))
    (project.path / ".llmparity/logs").write_text("in the way")

    assert "a cannot be started: no folder for its log" in (fleet.engage("a").record.error or "")


def test_a_mistake_of_ours_while_starting_is_an_error_that_says_so(project: Project) -> None:
    def broken() -> Keeper:
        raise ZeroDivisionError("no share")

    fleet = Fleet({"a": project.process("a")}, keeper=broken, workdir=project.path)
    fleet.engage_all()

    error = fleet.engage("a").record.error or ""
    assert error.startswith("a: ZeroDivisionError: no share (in tests.run.test_fleet, line ")
    assert "report it, with this text, to those who maintain tests" in error


def test_an_interruption_while_starting_is_not_swallowed(project: Project) -> None:
    def broken() -> Keeper:
        raise KeyboardInterrupt

    fleet = Fleet({"a": project.process("a")}, keeper=broken, workdir=project.path)

    with pytest.raises(KeyboardInterrupt):
        fleet.engage_all()


@pytest.mark.slow
def test_everybody_hears_of_an_adapter_that_stumbles_at_a_start(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(adapter: LlamaCppAdapter) -> None:
        raise KeyError("nope")

    keeper, spec = project.keeper(), project.process("a")
    monkeypatch.setattr(LlamaCppAdapter, "reported", stumble)
    fleets = [Fleet({"a": spec}, keeper=lambda: keeper, workdir=project.path / ".llmparity") for _ in range(2)]

    errors = [fleet.engage("a").record.error or "" for fleet in fleets]

    assert errors[0] == errors[1]
    assert errors[0].startswith("a: KeyError: 'nope'")
