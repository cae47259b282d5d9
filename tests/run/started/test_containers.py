"""Engines in containers through the fleet and the keeper, on a small program that speaks as Docker does."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.core.ports import Layers
from pytest_llmparity.keeper.client import EngineState
from pytest_llmparity.keeper.removal import Removal
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.started.containers import ending
from pytest_llmparity.settings.specification import EngineSpec
from tests.doubles.runtime import FakeRuntime, image

if TYPE_CHECKING:
    from tests.run.conftest import Project

LIMIT_S = 20.0
DIGEST = "sha256:" + 64 * "a"
NO_IMAGE = [1, "[]", "Error response from daemon: no such image: llama:test: No such image: llama:test\n"]


@pytest.fixture
def docker(project: Project) -> FakeRuntime:
    return FakeRuntime(project.path, image=image(RepoDigests=[f"llama@{DIGEST}"]), pulled=image())


def boxed(project: Project, docker: FakeRuntime, mode: str = "", **keys: Any) -> EngineSpec:
    """Return the spec of an engine in a container of the double, in which a small server runs."""
    spec = project.process("a", mode)
    docker.says["engine"] = list(spec.command)
    docker.save()
    env_from = {"STARTS": "THE_STARTS"}
    env = {name: value for name, value in spec.env.items() if name not in env_from}
    own = {"launch": "container", "image": "llama:test", "runtime": str(docker.program), "command": ()}
    return dataclasses.replace(spec, **{**own, "env": env, "env_from": env_from, **keys})


def fleet_of(
    project: Project,
    spec: EngineSpec,
    told: list[str] | None = None,
    fetched: list[tuple[str, Layers | None]] | None = None,
) -> Fleet:
    keeper, come = project.keeper(), [] if fetched is None else fetched
    return Fleet(
        {spec.name: spec},
        keeper=lambda: keeper,
        workdir=project.path / ".llmparity",
        environ={**os.environ, "THE_STARTS": str(project.path / "events")},
        say=(told if told is not None else []).append,
        fetch=lambda engine, layers: come.append((engine, layers)),
    )


@pytest.mark.slow
def test_it_is_engaged_with_the_digest_of_its_image_and_removed_at_the_end(
    project: Project, docker: FakeRuntime
) -> None:
    spec = boxed(project, docker)
    fleet = fleet_of(project, spec)

    record = fleet.engage("a").record
    before = docker.boxes
    fleet._starter._keeper().stop("a")

    assert record.error is None
    assert record.launch == "container"
    assert record.identity.get("image_digest") == DIGEST
    assert record.identity.facts["image_digest"].raw == "llama:test, docker 20.10.24"
    assert [name.rpartition("-")[0] for name in before] == ["llmparity-a"]
    assert docker.boxes == []
    assert project.events == ["a starts", "a stops"], "it was asked to go before it was killed"


@pytest.mark.slow
def test_values_of_variables_are_in_the_clients_environment_and_on_no_command_line(
    project: Project, docker: FakeRuntime
) -> None:
    fleet_of(project, boxed(project, docker)).engage("a")

    (run,) = [asked for asked in docker.asked if "run" in asked["argv"]]
    assert run["env"]["STARTS"] == str(project.path / "events")
    assert "--env STARTS" in " ".join(run["argv"])
    assert not any(str(project.path / "events") in word for asked in docker.asked for word in asked["argv"])


def test_an_image_that_is_not_there_is_told_with_its_pull_command(project: Project, docker: FakeRuntime) -> None:
    docker.says["image"] = NO_IMAGE
    fleet = fleet_of(project, boxed(project, docker))

    fleet.glance("a")
    record = fleet.engage("a").record

    assert "the image llama:test is not on this machine" in (record.error or "")
    assert "docker pull llama:test (or set download = true)" in (record.error or "")
    assert record.log is None
    assert not any("run" in asked["argv"] or "pull" in asked["argv"] for asked in docker.asked)


@pytest.mark.slow
def test_it_is_fetched_where_downloads_are_allowed(project: Project, docker: FakeRuntime) -> None:
    docker.says["image"] = NO_IMAGE
    told: list[str] = []
    fetched: list[tuple[str, Layers | None]] = []

    record = fleet_of(project, boxed(project, docker, download=True), told, fetched).engage("a").record

    assert record.error is None
    assert (fetched[0], fetched[-1]) == (("a", Layers(0, 0, 0, 0)), ("a", None))
    assert told[0] == "a: fetching llama:test with docker 20.10.24"
    assert [asked["argv"] for asked in docker.asked if "pull" in asked["argv"]] == [["pull", "llama:test"]]


@pytest.mark.slow
def test_a_registry_that_refuses_is_told_in_its_words(project: Project, docker: FakeRuntime) -> None:
    docker.says |= {
        "image": NO_IMAGE,
        "pull": [1, "", "Error response from daemon: manifest for llama:test not found\n"],
    }

    record = fleet_of(project, boxed(project, docker, download=True)).engage("a").record

    assert "llama:test could not be fetched by docker" in (record.error or "")
    assert "manifest for llama:test not found" in (record.error or "")


@pytest.mark.slow
def test_out_of_memory_is_named_as_such(project: Project, docker: FakeRuntime) -> None:
    about = {"state": {"OOMKilled": True, "ExitCode": 137}, "memory": 62_914_560}
    docker.says["inspect"] = [0, json.dumps(about), ""]

    record = fleet_of(project, boxed(project, docker, "killed")).engage("a").record

    assert "ran out of memory (--memory 60 MiB). Give it more by run_args" in (record.error or "")
    until(lambda: docker.boxes == [])


def test_a_gpu_that_is_not_there_is_told_with_what_to_look_at(project: Project, docker: FakeRuntime) -> None:
    words = 'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]]\n'
    docker.says["run"] = [125, "", words]

    record = fleet_of(project, boxed(project, docker, gpus="all")).engage("a").record

    assert "gpus = 'all' asks for a GPU, and the runtime has none to give" in (record.error or "")
    assert "could not select device driver" in (record.error or "")


@pytest.mark.slow
def test_a_client_that_is_killed_takes_its_container_with_it(project: Project, docker: FakeRuntime) -> None:
    fleet = fleet_of(project, boxed(project, docker))
    keeper = fleet._starter._keeper()
    assert fleet.engage("a").record.error is None

    os.kill(keeper.state("a").pid or 0, signal.SIGKILL)
    until(lambda: docker.boxes == [])

    assert "a ended with signal 9" in (fleet.gone("a") or "")


@pytest.mark.slow
def test_what_is_still_there_is_removed_again(tmp_path: Path) -> None:
    docker = FakeRuntime(tmp_path, rm=[1, "", "device or resource busy\n"])
    (docker.home / "boxes/x").write_text("none")
    argv = [str(docker.program)]
    removal = Removal([*argv, "inspect", "x"], [[*argv, "rm", "x"]], [*argv, "ps", "label=x"], env=dict(os.environ))

    finish(removal, until=lambda: "busy" in removal.words)
    still = removal.done
    docker.says.pop("rm")
    docker.save()
    finish(removal, until=lambda: removal.done)

    assert not still
    assert docker.boxes == []
    assert removal.by_hand() == f"{docker.program} rm x"


def test_a_runtime_that_has_gone_meanwhile_is_no_end_of_the_keeper(tmp_path: Path) -> None:
    removal = Removal(["/nowhere/docker", "inspect"], [["/nowhere/docker", "rm"]], ["/nowhere/docker", "ps"], env={})

    for _ in range(4):
        removal.advance(time.monotonic() + 60.0)

    assert removal.asked
    assert not removal.done
    assert "/nowhere/docker" in removal.words


def finish(removal: Removal, *, until: Callable[[], bool]) -> None:
    """Do for a removal what the loop of the keeper does."""
    began = time.monotonic()
    while not until():
        assert time.monotonic() - began < LIMIT_S
        removal.advance(time.monotonic())
        if removal.pid is not None:
            _, status = os.waitpid(removal.pid, 0)
            removal.ended(os.waitstatus_to_exitcode(status), time.monotonic())


@pytest.mark.parametrize(
    ("container", "returncode", "words"),
    [
        ('{"state":{"OOMKilled":false,"ExitCode":137},"memory":62914560}', 137, "most likely because that was reached"),
        ('{"state":{"OOMKilled":false,"ExitCode":137},"memory":0}', 137, ""),
        ('{"state":{"OOMKilled":false,"ExitCode":1},"memory":62914560}', 1, ""),
        ("Error: no such object", 125, ""),
    ],
)
def test_a_kill_is_put_down_to_memory_only_where_there_is_a_limit(container: str, returncode: int, words: str) -> None:
    spec = EngineSpec(name="a", launch="container", image="i")
    state = EngineState(name="a", state="exited", returncode=returncode, container=container)

    assert words in ending(spec, state, "")
    assert bool(words) == bool(ending(spec, state, ""))


def until(done: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < LIMIT_S
        time.sleep(0.02)
