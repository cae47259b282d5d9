"""Real containers: llama.cpp in podman and in Docker, judged, locked, killed, and removed whatever happens."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from pytest_llmparity.cli import main
from pytest_llmparity.core.identity.pins import SHORTEST_DIGEST
from pytest_llmparity.engines.start.readiness import free_port
from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.started import starter
from pytest_llmparity.settings.specification import EngineSpec
from tests.real_runtimes import IMAGE, LIMITS, ON_ONE, RUN, RealRuntime, real_runtime, registry
from tests.unavailable import unavailable

if TYPE_CHECKING:
    from tests.live.conftest import LiveRun

pytestmark = pytest.mark.live

OF_RUNTIMES = (125, 126, 127)
"""Exit codes of ``run`` where no container was started."""
GONE_S = 10.0
"""After so many seconds nothing of a killed run is left."""
SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("{mixed}", check.logprobs(shift=0.06), max_tokens=16)
def test_in_nats(): ...
"""

__all__ = ["real_runtime", "registry"]


@pytest.fixture(scope="module")
def config(real_runtime: RealRuntime, models: Path, gguf: Callable[..., str]) -> str:
    return real_runtime.table("c16", models / "tiny-F16.gguf") + gguf("q4", "Q4_0")


@pytest.fixture
def run(launch: Callable[..., LiveRun], real_runtime: RealRuntime, models: Path, stay: str) -> Iterator[LiveRun]:
    """A run whose engine is up in a container, and stays."""
    suite = "def test_up(engine):\n    assert engine.model\n" + stay
    run = launch("--engines=c16", suite=suite, config=real_runtime.table("c16", models / "tiny-F16.gguf"))
    run.wait_for("all-up")
    yield run
    run.close()


@ON_ONE
@pytest.mark.slow
@pytest.mark.usefixtures("llamacpp")
def test_4_bits_in_a_process_are_no_16_bits_in_a_container(
    launch: Callable[..., LiveRun], config: str, some: Callable[..., Path]
) -> None:
    """Judged where answers come from a container as from anywhere else; what differs is far above the limit."""
    suite = SUITE.format(mixed=some("mixed", 16))
    run = launch("--engines=c16,q4", "--parity-explain-requests=0", suite=suite, config=config)
    run.wait()

    verdict = run.verdicts()["test_in_nats", "logprobs", "q4"]

    assert verdict["outcome"] == "FAIL", verdict
    assert verdict["estimate"] > 0.15


def test_a_container_is_labelled_and_on_loopback_alone_and_kill_9_of_pytest_leaves_none_but_those_of_others(
    run: LiveRun, real_runtime: RealRuntime, models: Path
) -> None:
    (name,) = real_runtime("ps", "--filter", "label=pytest-llmparity.engine=c16", "--format", "{{.Names}}").split()
    pid = int(real_runtime("inspect", "--format", "{{.State.Pid}}", name))

    listens = [address.laddr.ip for address in psutil.Process(pid).net_connections("tcp") if address.status == "LISTEN"]

    assert name.startswith("llmparity-c16-")
    assert listens == ["127.0.0.1"]

    with somebody_elses(real_runtime, models):
        before = real_runtime.containers()

        run.process.kill()
        run.process.wait()
        took = until(lambda: real_runtime.containers() == ["somebody-elses"])

        assert len(before) == 2
        assert took < GONE_S


@pytest.mark.slow
@pytest.mark.parametrize("real_runtime", ["podman"], indirect=True)  # the daemon of these tests makes no bridge
def test_on_a_bridge_its_port_is_published_on_loopback_alone(
    real_runtime: RealRuntime, models: Path, keeper: Keeper, tmp_path: Path
) -> None:
    volumes = [part for volume in real_runtime.volumes for part in ("--volume", volume)]
    bridged = [*real_runtime.argv, "run", "--rm", "--network", "bridge", *LIMITS, *volumes, IMAGE, "--version"]
    tried = subprocess.run(bridged, capture_output=True, text=True, check=False)
    if tried.returncode in OF_RUNTIMES:
        pytest.skip(f"{real_runtime.name} has no bridge here: {tried.stderr.strip()}")
    spec = dataclasses.replace(real_runtime.spec(models), run_args=("--network", "bridge", *LIMITS))

    record = fleet_of(keeper, tmp_path, spec).engage("boxed").record
    port = int(record.address.rpartition(":")[2])
    listeners = [each.laddr for each in psutil.net_connections("tcp") if each.status == "LISTEN"]
    listens = [address.ip for address in listeners if address and address.port == port]

    assert record.error is None
    assert listens == ["127.0.0.1"]


@pytest.mark.slow
def test_a_container_that_outlives_pytest_and_keeper_goes_when_the_next_run_begins(
    run: LiveRun, real_runtime: RealRuntime, models: Path, tmp_path: Path
) -> None:
    with somebody_elses(real_runtime, models):
        for process in run.family():
            if "pytest_llmparity.keeper" in " ".join(process.cmdline()):
                process.kill()
        run.process.kill()
        run.process.wait()
        before = real_runtime.containers()

        Keeper.spawn(tmp_path).close()

        assert len(before) == 2
        assert real_runtime.containers() == ["somebody-elses"]


@ON_ONE
@pytest.mark.slow
def test_an_image_that_is_another_one_under_its_tag_is_not_the_one_in_the_lock(
    real_runtime: RealRuntime,
    models: Path,
    tmp_path: Path,
    lock: Callable[..., subprocess.CompletedProcess[str]],
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Imported anew under it. That a moved tag is fetched anew from a registry, by both, is in ``test_images.py``."""
    image = "localhost/llmparity-anew:test"
    real_runtime.load(image)
    config = real_runtime.table("c16", models / "tiny-F16.gguf", image=image, download=True)
    (tmp_path / "llmparity.toml").write_text(config)
    (tmp_path / "test_anew.py").write_text("def test_up(engine):\n    assert engine.model\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")

    locked = lock(tmp_path, "c16")
    before = command(tmp_path, "pytest", "--engines=c16", "--parity-frozen")
    real_runtime.load(image)
    after = command(tmp_path, "pytest", "--engines=c16", "--parity-frozen")

    assert locked.returncode == 0, locked.stderr
    assert before.returncode == 0, before.stdout
    assert after.returncode == 1, after.stdout
    assert "image_digest" in after.stdout


@ON_ONE
@pytest.mark.slow
def test_the_doctor_shows_image_digest_and_runtime(
    real_runtime: RealRuntime,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "llmparity.toml").write_text(real_runtime.table("c16", models / "tiny-F16.gguf"))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLMPARITY_ENGINES", raising=False)

    code = main(["doctor", "c16"])
    shown = "".join(capsys.readouterr().out.split())  # long values are broken over lines

    assert code == 0, shown
    assert f"image_digest{real_runtime.digest()}({IMAGE},{real_runtime.name}" in shown


# one engine at a time, in this process --------------------------------------------------------------------------------


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    keeper = Keeper.spawn(tmp_path / ".llmparity")
    yield keeper
    keeper.close()


def fleet_of(keeper: Keeper, tmp_path: Path, *specs: EngineSpec, **more: Any) -> Fleet:
    return Fleet({spec.name: spec for spec in specs}, keeper=lambda: keeper, workdir=tmp_path / ".llmparity", **more)


def test_the_digest_of_the_image_can_be_pinned(
    real_runtime: RealRuntime, models: Path, keeper: Keeper, tmp_path: Path
) -> None:
    """A whole one that is right is in ``test_images.py``, as the registry has it."""
    digest = real_runtime.digest()
    pins = {"short": digest[: len("sha256:") + SHORTEST_DIGEST], "wrong": "sha256:" + 64 * "0"}
    specs = [real_runtime.spec(models, name=name, pin={"image_digest": pin}) for name, pin in pins.items()]
    fleet = fleet_of(keeper, tmp_path, *specs)

    fleet.engage_all()
    records = {record.name: record for record in fleet.records()}

    assert {record.identity.get("image_digest") for record in records.values()} == {digest}
    for record in records.values():
        assert (record.identity.facts["image_digest"].raw or "").startswith(f"{IMAGE}, {real_runtime.name} ")
    assert records["short"].incomparable is None
    assert "image_digest is pinned to sha256:0000" in (records["wrong"].incomparable or "")


@pytest.mark.slow
def test_a_container_that_ends_at_its_start_is_told_at_once_with_its_last_words(
    real_runtime: RealRuntime, models: Path, keeper: Keeper, tmp_path: Path
) -> None:
    began = time.monotonic()

    record = fleet_of(keeper, tmp_path, real_runtime.spec(models, args=("--no-such-flag",))).engage("boxed").record

    assert record.error is not None
    assert "ended with exit code" in record.error
    assert "no-such-flag" in record.error
    assert time.monotonic() - began < 30.0  # the limit of a start is 60
    until(lambda: not real_runtime.containers())


@ON_ONE
@pytest.mark.slow
def test_a_port_that_is_taken_is_given_up_for_another(
    real_runtime: RealRuntime, models: Path, keeper: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1]])
        monkeypatch.setattr(starter, "free_port", lambda: next(ports, None) or free_port())

        engaged = fleet_of(keeper, tmp_path, real_runtime.spec(models)).engage("boxed")

        assert engaged.record.error is None
        assert not engaged.record.address.endswith(f":{taken.getsockname()[1]}")


@pytest.mark.slow
def test_a_container_out_of_memory_is_named_as_such(
    real_runtime: RealRuntime, models: Path, keeper: Keeper, tmp_path: Path
) -> None:
    spec = real_runtime.spec(models, "--memory", "60m", context_length=120_000)

    record = fleet_of(keeper, tmp_path, spec).engage("boxed").record

    told = {
        "docker": "its container ran out of memory (--memory 60 MiB)",
        "podman": "its process was killed in a container with a limit of memory (--memory 60 MiB)",
    }
    assert told[real_runtime.name] in (record.error or "")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there may be a GPU")
def test_a_gpu_that_is_not_there_is_told_as_such(
    real_runtime: RealRuntime, models: Path, keeper: Keeper, tmp_path: Path
) -> None:
    record = fleet_of(keeper, tmp_path, real_runtime.spec(models, gpus="all")).engage("boxed").record

    assert "gpus = 'all' asks for a GPU, and the runtime has none to give" in (record.error or "")


def test_a_daemon_that_does_not_run_is_told_in_its_words(models: Path, keeper: Keeper, tmp_path: Path) -> None:
    if shutil.which("docker") is None:
        unavailable("docker", "there is no docker")
    nowhere = ("--host", f"unix://{tmp_path}/none.sock")
    spec = EngineSpec(
        name="boxed", kind="llamacpp", launch="container", image=IMAGE, runtime="docker", runtime_args=nowhere
    )

    record = fleet_of(keeper, tmp_path, spec).engage("boxed").record

    assert "docker does not answer: " in (record.error or "")
    assert "none.sock" in (record.error or "")


@pytest.mark.slow
def test_a_client_that_is_killed_leaves_no_container(
    real_runtime: RealRuntime, models: Path, keeper: Keeper, tmp_path: Path
) -> None:
    fleet = fleet_of(keeper, tmp_path, real_runtime.spec(models))
    assert fleet.engage("boxed").record.error is None

    os.kill(keeper.state("boxed").pid or 0, signal.SIGKILL)
    until(lambda: fleet.gone("boxed") is not None)
    until(lambda: not real_runtime.containers())

    assert "signal 9" in (fleet.gone("boxed") or "")
    until(lambda: not keeper.members("boxed"))


@pytest.mark.slow
def test_a_keeper_that_is_killed_has_its_containers_cleared_away(
    real_runtime: RealRuntime, models: Path, keeper: Keeper, tmp_path: Path
) -> None:
    assert fleet_of(keeper, tmp_path, real_runtime.spec(models)).engage("boxed").record.error is None
    (spawned,) = [
        child for child in psutil.Process().children() if "pytest_llmparity.keeper" in " ".join(child.cmdline())
    ]

    spawned.kill()
    keeper.close()

    assert real_runtime.containers() == []


@ON_ONE
@pytest.mark.slow
def test_one_at_a_time_waits_until_a_container_is_gone(
    real_runtime: RealRuntime, models: Path, keeper: Keeper, tmp_path: Path
) -> None:
    specs = [real_runtime.spec(models, name=name) for name in ("first", "second")]
    fleet = fleet_of(keeper, tmp_path, *specs, one_at_a_time=True)

    seen = []
    for name in ("first", "second"):
        assert fleet.engage(name).record.error is None
        seen += [[container.split("-")[1] for container in real_runtime.containers()]]

    assert seen == [["first"], ["second"]]


@ON_ONE
@pytest.mark.slow
def test_a_server_that_listens_elsewhere_in_its_container_is_told_where(
    real_runtime: RealRuntime, models: Path, keeper: Keeper, tmp_path: Path
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        elsewhere = other.getsockname()[1]
    spec = real_runtime.spec(models, args=("--port", str(elsewhere)), start_timeout_s=4.0)

    record = fleet_of(keeper, tmp_path, spec).engage("boxed").record

    assert f"Its container listens on port {elsewhere}" in (record.error or "")


@contextlib.contextmanager
def somebody_elses(runtime: RealRuntime, models: Path) -> Iterator[None]:
    """Start a container that is none of ours."""
    mount = f"type=bind,source={models / 'tiny-F16.gguf'},target=/model.gguf,readonly"
    words = ("--model", "/model.gguf", "--host", "127.0.0.1", "--port", str(free_port()))
    volumes = [part for volume in runtime.volumes for part in ("--volume", volume)]
    runtime("run", "--detach", "--name", "somebody-elses", *RUN, "--mount", mount, *volumes, IMAGE, *words)
    try:
        yield
    finally:
        runtime("rm", "--force", "somebody-elses")


def until(done: Callable[[], bool], limit_s: float = 60.0) -> float:
    """Wait for something; return how long that took."""
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < limit_s
        time.sleep(0.05)
    return time.monotonic() - began
