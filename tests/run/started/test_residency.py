"""One engine in memory at a time: the next starts when the one before has gone and what it held is back."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from pytest_llmparity import check
from pytest_llmparity.core.errors import LaunchError, MemoryHeld
from pytest_llmparity.engines import registry
from pytest_llmparity.engines.start.memory import GpuMemory, Gpus
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.started.residency import Residency, is_here
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.testing import LoopbackEngine
from pytest_llmparity.testing.server import Call, LoopbackServer
from tests.doubles.ollama_daemon import OllamaDaemon
from tests.doubles.sleeping import Vllm

if TYPE_CHECKING:
    from tests.run.conftest import Project

GIB = 2**30
DEAF = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("up", "w").close()
signal.pause()
"""


class ScriptedGpu:
    """A GPU of 80 GiB whose use is read from a script; the last reading stays."""

    def __init__(self, *used: int, holders: Mapping[int, int | None] | None = None) -> None:
        self._used = list(used)
        self._holders = holders or {}
        self.readings = 0

    def read(self) -> Mapping[str, GpuMemory]:
        self.readings += 1
        used = self._used.pop(0) if len(self._used) > 1 else self._used[0]
        return {"GPU 0 (X)": GpuMemory(total=80 * GIB, used=used, holders=self._holders)}


def fleet_of(project: Project, *specs: EngineSpec, gpus: Gpus | None = None) -> Fleet:
    keeper = project.keeper()
    return Fleet(
        {spec.name: spec for spec in specs},
        keeper=lambda: keeper,
        workdir=project.path / ".llmparity",
        one_at_a_time=True,
        gpus=lambda: (gpus, None),
    )


def nobody(spec: EngineSpec) -> Adapter:
    raise AssertionError("nothing is attached")


@pytest.fixture
def sleepy() -> Iterator[Callable[..., Vllm]]:
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(Vllm(*args, **kwargs))


# ---- engines that are started --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_next_engine_starts_when_the_one_before_has_really_left(project: Project) -> None:
    fleet = fleet_of(project, project.process("a", "lingers"), project.process("b"))
    for name in ("told", "leave"):
        os.mkfifo(project.path / ".llmparity" / name)
    fleet.engage("a")
    second = threading.Thread(target=fleet.engage, args=("b",))
    second.start()

    (project.path / ".llmparity/told").read_text()
    meanwhile = project.events
    (project.path / ".llmparity/leave").write_text("")
    second.join()

    assert meanwhile == ["a starts", "a stops"]
    assert project.events == ["a starts", "a stops", "a leaves", "b starts"]
    assert fleet.engage("b").record.error is None


def test_an_engine_that_is_up_is_stopped_before_the_next_one_starts(project: Project) -> None:
    keeper, left = project.keeper(), list[str]()
    keeper.start(
        "a",
        argv=["sleep", "600"],
        env=dict(os.environ),
        cwd=project.path,
        log=project.path / "log",
        stop_signal=signal.SIGTERM,
        grace_s=600.0,
    )
    turns = Residency({"a": project.process("a"), "b": project.process("b")}, keeper=lambda: keeper, attached=nobody)

    turns.make_room("b", left=left.append)

    assert (left, keeper.members("a")) == (["a"], ())


def test_room_is_made_before_an_engine_starts(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, order = fleet_of(project, project.process("a"), project.process("b")), list[str]()
    assert fleet._residency is not None
    monkeypatch.setattr(fleet._residency, "make_room", lambda name, left: order.append(f"room for {name}"))
    monkeypatch.setattr(fleet, "_engage", lambda spec: order.append(f"{spec.name} starts"))

    fleet.engage("a")
    fleet.engage("b")

    assert order == ["room for a", "a starts", "room for b", "b starts"]


@pytest.fixture
def deaf(project: Project) -> Iterator[tuple[Keeper, int]]:
    """An engine that could not be used and does not go when it is asked to: the keeper is ending it."""
    os.mkfifo(project.path / "up")
    keeper = project.keeper()
    state = keeper.start(
        "a",
        argv=[sys.executable, "-c", DEAF],
        env=dict(os.environ),
        cwd=project.path,
        log=project.path / "log",
        stop_signal=signal.SIGTERM,
        grace_s=600.0,
    )
    (project.path / "up").read_text()
    keeper.fail("a", "it never became ready")
    assert state.pid is not None
    yield keeper, state.pid
    for pid in keeper.members("a"):
        os.kill(pid, signal.SIGKILL)


def test_an_engine_that_failed_and_is_still_there_is_waited_for(project: Project, deaf: tuple[Keeper, int]) -> None:
    keeper, pid = deaf
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            os.kill(pid, signal.SIGKILL)

    turns = Residency(
        {"a": project.process("a"), "b": project.process("b")}, keeper=lambda: keeper, attached=nobody, pause=pause
    )

    left: list[str] = []
    turns.make_room("b", left=left.append)

    assert len(pauses) >= 3
    assert not psutil.pid_exists(pid)
    assert keeper.members("a") == ()
    assert left == [], "it was not up any more"


def test_what_is_still_held_at_the_deadline_is_told_with_its_holder(project: Project, deaf: tuple[Keeper, int]) -> None:
    keeper, pid = deaf
    clock = iter([100.0, 130.0, 160.0])
    turns = Residency(
        {"a": project.process("a"), "b": project.process("b")},
        keeper=lambda: keeper,
        attached=nobody,
        clock=lambda: next(clock),
        pause=lambda seconds: None,
    )

    with pytest.raises(MemoryHeld) as caught:
        turns.make_room("b", left=lambda name: None)

    message = str(caught.value)
    assert caught.value.engine == "b"
    assert message.startswith("b is not started: 60 s after a was told to go, its processes still hold ")
    assert f" MiB: {pid} (python" in message
    assert message.endswith('End what holds it, or run with residency = "together" if both fit.')


def test_waiting_ends_when_the_run_is_interrupted(project: Project, deaf: tuple[Keeper, int]) -> None:
    turns = Residency(
        {"a": project.process("a"), "b": project.process("b")},
        keeper=lambda: deaf[0],
        attached=nobody,
        stop=lambda: "it was interrupted",
    )

    with pytest.raises(LaunchError, match="b was not started: it was interrupted"):
        turns.make_room("b", left=lambda name: None)


# ---- memory of GPUs ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_gpu_has_to_be_back_at_what_was_in_use_before(project: Project) -> None:
    gpu = ScriptedGpu(1 * GIB, 60 * GIB, 9 * GIB, 1 * GIB + GIB // 2)
    fleet = fleet_of(project, project.process("a"), project.process("b"), gpus=gpu)

    fleet.engage("a")
    before = gpu.readings
    engaged = fleet.engage("b")

    assert engaged.record.error is None
    assert (before, gpu.readings) == (1, 5), "before a; three times until it was back; before b"
    assert project.events == ["a starts", "a stops", "b starts"]


def gpu_turns(project: Project, gpu: Gpus) -> Residency:
    keeper = project.keeper()
    clock = iter([0.0, 61.0])
    turns = Residency(
        {name: project.process(name) for name in "ab"},
        keeper=lambda: keeper,
        attached=nobody,
        gpus=gpu,
        clock=lambda: next(clock),
    )
    turns.starts("a")
    return turns


def test_gpu_memory_that_does_not_come_back_is_told_with_who_uses_the_gpu(project: Project) -> None:
    holders = {os.getpid(): 2 * GIB, 2**22 + 1: None}
    turns = gpu_turns(project, ScriptedGpu(GIB, 4 * GIB, holders=holders))

    with pytest.raises(MemoryHeld) as caught:
        turns.make_room("b", left=lambda name: None)

    name = psutil.Process().name()
    assert (
        "61 s after a was told to go, GPU 0 (X) has 3.0 GiB more in use than before a was started, "
        f"in use by {os.getpid()} ({name}, 2.0 GiB), {2**22 + 1} (not seen from here). End what holds it"
    ) in str(caught.value)


def test_a_driver_that_names_nobody_is_said_to(project: Project) -> None:
    with pytest.raises(MemoryHeld, match=r"before a was started \(its driver names no process\)"):
        gpu_turns(project, ScriptedGpu(0, GIB)).make_room("b", left=lambda name: None)


@pytest.mark.slow
def test_that_nobody_measured_is_said_once(project: Project) -> None:
    keeper = project.keeper()
    specs = {name: project.process(name) for name in "ab"}
    fleet = Fleet(
        specs,
        keeper=lambda: keeper,
        workdir=project.path / ".llmparity",
        one_at_a_time=True,
        gpus=lambda: (None, "nobody looked"),
    )

    assert [fleet.engage(name).record.notes for name in "ab"] == [("nobody looked",), ()]


# ---- engines that are attached -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_attached_engine_is_unloaded_for_the_others_and_loaded_for_itself(
    project: Project, sleepy: Callable[..., Vllm]
) -> None:
    server = sleepy()
    fleet = fleet_of(project, project.process("a"), project.attached("v", server, kind="vllm"))

    first = fleet.engage("a")
    asleep = [server.asleep]
    attached = fleet.engage("v")
    asleep.append(server.asleep)
    again = fleet.engage("a")
    asleep.append(server.asleep)

    assert [engaged.record.error for engaged in (first, attached, again)] == [None] * 3
    assert asleep == [True, False, True], "also before it was asked anything"
    assert server.count == 1, "a warm-up"
    assert project.events == ["a starts", "a stops", "a starts"]
    assert fleet.close() == []
    assert server.asleep is False, "as it was found"
    assert project.events == ["a starts", "a stops", "a starts", "a stops"], "before the other was woken"
    assert fleet.close() == []


def test_attached_engines_take_turns(project: Project, sleepy: Callable[..., Vllm]) -> None:
    servers = [sleepy(), sleepy(asleep=True), sleepy()]
    fleet = fleet_of(project, *(project.attached(name, s, kind="vllm") for name, s in zip("vwx", servers, strict=True)))

    seen = []
    for name in ("v", "w", "v"):
        assert fleet.engage(name).record.error is None
        seen.append([server.asleep for server in servers])
    fleet.close()

    assert seen == [[False, True, True], [True, False, True], [False, True, True]]
    assert [server.asleep for server in servers] == [False, True, False], "as they were found"


def test_an_engine_that_stays_in_memory_keeps_the_others_from_starting(
    project: Project, sleepy: Callable[..., Vllm]
) -> None:
    server = sleepy(dev=False)
    fleet = fleet_of(project, project.process("a"), project.attached("v", server, kind="vllm"))

    engaged = fleet.engage("a")

    assert engaged.record.error is not None
    assert engaged.record.error.startswith(
        "a is not started: v is in memory, and residency is one-at-a-time. v: this vLLM cannot give its memory back"
    )
    assert fleet.engage("a") is engaged
    assert fleet.engage("v").record.error is None
    assert project.events == []


@pytest.mark.slow
def test_a_whole_gathering_asks_each_engine_while_the_others_are_away(
    project: Project, sleepy: Callable[..., Vllm]
) -> None:
    server = sleepy()
    seen: set[tuple[str, ...]] = set()

    def answer(request: Mapping[str, Any]) -> str:
        seen.add(tuple(project.events))
        return "well, yes"

    server.script = answer
    session = project.session(
        project.process("a"),
        project.attached("v", server, kind="vllm"),
        project.process("b"),
        residency="one-at-a-time",
    )
    project.declare(session, check.text(margin=0.5), max_tokens=4)

    session.gather()

    assert project.events == ["a starts", "a stops", "b starts"]
    assert seen == {("a starts", "a stops")}
    assert server.asleep is True
    assert {s.engine for s in session.samples() if s.completion is not None} == {"a", "v", "b"}


class Loading(LoopbackServer):
    """A server that listens and is not ready."""

    def answer(self, call: Call) -> None:
        call.send(503 if call.path == "/health" else 404, b"{}")


def test_a_server_that_is_there_and_not_ready_is_waited_for(project: Project) -> None:
    with Loading() as server:
        clock = iter([0.0, 30.0, 60.0])
        pauses: list[float] = []
        busy = EngineSpec(name="v", kind="vllm", model="m", base_url=server.base_url)
        turns = Residency(
            {"a": project.process("a"), "v": busy},
            keeper=project.keeper,
            attached=lambda spec: registry.make(spec, spec.base_url or "", environ={}),
            clock=lambda: next(clock),
            pause=pauses.append,
        )

        with pytest.raises(
            MemoryHeld, match=r"60 s after v was asked to make room, it is not ready \(GET /health says 503"
        ):
            turns.make_room("a", left=lambda name: None)

    assert len(pauses) == 1


def test_a_server_that_ends_while_it_is_waited_for_holds_nothing(project: Project) -> None:
    with Loading() as server:
        busy = EngineSpec(name="v", kind="vllm", model="m", base_url=server.base_url)
        turns = Residency(
            {"a": project.process("a"), "v": busy},
            keeper=project.keeper,
            attached=lambda spec: registry.make(spec, spec.base_url or "", environ={}),
            pause=lambda seconds: server.__exit__(None, None, None),
        )

        turns.make_room("a", left=lambda name: pytest.fail(f"{name} was never up"))


def test_a_server_that_refuses_us_may_hold_memory(project: Project) -> None:
    engine = project.engine(poses_as="vllm", model="m")
    keyless = project.attached("v", engine, kind="vllm", api_key_env="LLMPARITY_NO_SUCH_KEY")

    error = fleet_of(project, project.process("a"), keyless).engage("a").record.error

    assert error is not None
    assert error.startswith("a is not started: v is in memory, and residency is one-at-a-time.")
    assert "LLMPARITY_NO_SUCH_KEY" in error


def test_gpu_memory_of_an_attached_server_has_to_come_back_too(project: Project) -> None:
    gpu = ScriptedGpu(1 * GIB, 60 * GIB, 1 * GIB)
    with OllamaDaemon() as first, OllamaDaemon() as second:
        specs = [
            EngineSpec(name=name, kind="ollama", model="tiny", base_url=daemon.base_url)
            for name, daemon in (("a", first), ("b", second))
        ]
        fleet = fleet_of(project, *specs, gpus=gpu)

        fleet.engage("a")
        engaged = fleet.engage("b")

    assert engaged.record.error is None
    assert engaged.record.notes == ()
    assert gpu.readings == 4, "before a; twice until it was back; before b"


def test_that_a_server_elsewhere_is_not_measured_is_said() -> None:
    here = EngineSpec(name="a", base_url="http://127.0.0.5:1")

    assert is_here(here)
    assert is_here(dataclasses.replace(here, base_url="http://[::1]:1/v1"))
    assert is_here(dataclasses.replace(here, base_url="http://localhost"))
    assert not is_here(dataclasses.replace(here, base_url="http://gpu.example:8000"))


@pytest.mark.slow
def test_a_server_that_is_not_there_is_in_nobodys_way(project: Project) -> None:
    with LoopbackEngine() as engine:
        gone = project.attached("v", engine, kind="vllm", start_timeout_s=0.1)
    keyless = dataclasses.replace(gone, name="w", api_key_env="LLMPARITY_NO_SUCH_KEY")
    fleet = fleet_of(project, project.process("a"), gone, keyless)

    assert fleet.engage("a").record.error is None
    assert "nothing listens" in (fleet.engage("v").record.error or "")
    assert "LLMPARITY_NO_SUCH_KEY" in (fleet.engage("w").record.error or "")


@pytest.mark.slow
def test_a_server_that_cannot_be_woken_at_the_end_is_told(project: Project, sleepy: Callable[..., Vllm]) -> None:
    server = sleepy()
    session = project.session(
        project.process("a"), project.attached("v", server, kind="vllm"), residency="one-at-a-time"
    )
    session.available("a")
    server.status = 503

    (sentence,) = session.close()

    assert sentence.startswith("v was not left as it was found: v cannot be woken: POST /wake_up says 503")
    assert session.close() == []


@pytest.mark.slow
def test_a_keeper_that_is_gone_does_not_keep_servers_asleep(project: Project, sleepy: Callable[..., Vllm]) -> None:
    server = sleepy()
    keeper = project.keeper()
    specs: dict[str, Any] = {"a": project.process("a"), "v": project.attached("v", server, kind="vllm")}
    fleet = Fleet(specs, keeper=lambda: keeper, workdir=project.path / ".llmparity", one_at_a_time=True)
    fleet.engage("a")
    keeper.close()

    (sentence,) = fleet.close()

    assert "the engine keeper at" in sentence
    assert server.asleep is False
