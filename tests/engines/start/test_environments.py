"""Environments of engines: installed once by the real uv from packages made here, kept, and told apart."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import filelock
import pytest

from pytest_llmparity.core.errors import LaunchError
from pytest_llmparity.core.sample import Fact, Identity
from pytest_llmparity.engines.start.environments import (
    FOLDER_VARIABLE,
    Environment,
    contradiction,
    home,
    provide,
    with_version,
)
from pytest_llmparity.settings.specification import EngineSpec
from tests.doubles.wheels import wheel

Provide = Callable[..., Environment]

ELSEWHERE = """
import os, subprocess, sys
from pathlib import Path
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.engines.start.environments import provide

def run(argv, *, env, cwd, log):
    with log.open("wb") as out:
        return subprocess.run(argv, env=env, cwd=cwd, stdout=out, stderr=out).returncode, ""

print("here", flush=True)
sys.stdin.readline()
made = provide(EngineSpec(name="a", requires=("tiny",)), environ=os.environ, run=run)
print(made.took_s is not None, made.folder)
"""


class Uv:
    """Runs uv as it is told and counts how often it installed."""

    def __init__(self) -> None:
        self.installed = 0
        self.before: Callable[[], None] = lambda: None

    def __call__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> tuple[int | None, str]:
        if "install" in argv:
            self.installed += 1
            self.before()
        with log.open("wb") as out:
            ended = subprocess.run(argv, env=dict(env), cwd=cwd, stdout=out, stderr=out, check=False)
        return ended.returncode, log.read_text()


@pytest.fixture
def uv() -> Uv:
    return Uv()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """What uv sees: a folder of packages instead of any index, nothing of the machine's own settings."""
    house = tmp_path / "wheels"
    (tmp_path / "empty").mkdir()
    wheel(house, "tiny", "1.0", needs="helper")
    wheel(house, "tiny", "2.0", needs="helper")
    for version in ("1.0", "1.5"):
        wheel(house, "helper", version)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    return inherited | {
        "UV_DEFAULT_INDEX": (tmp_path / "empty").as_uri(),
        "UV_FIND_LINKS": str(house),
        "UV_NO_CONFIG": "1",
        FOLDER_VARIABLE: str(tmp_path / "environments"),
    }


@pytest.fixture
def make(environ: dict[str, str], uv: Uv) -> Provide:
    def provided(*requires: str, **fields: object) -> Environment:
        spec = EngineSpec(name="a", requires=requires, **fields)  # type: ignore[arg-type]
        return provide(spec, environ=environ, run=uv)

    return provided


def test_packages_are_installed_apart_and_their_versions_known(make: Provide, environ: dict[str, str]) -> None:
    made = make("tiny==1.0")

    assert made.packages == {"tiny": "1.0", "helper": "1.5"}
    assert made.versions(["no-such", "Tiny"]) == {"tiny": "1.0"}
    assert made.took_s is not None
    script = "import tiny, sys, importlib.util as u; print(tiny.version, sys.prefix, u.find_spec('pytest_llmparity'))"
    printed = subprocess.run(
        [made.python, "-P", "-c", script], env=made.environ(environ), capture_output=True, text=True, check=True
    ).stdout
    assert printed == f"1.0 {made.folder} None\n", "nothing of the tests' own environment is there"


def test_its_programs_come_first_and_variables_of_ours_stay_outside(make: Provide) -> None:
    made = make("tiny")

    env = made.environ({"PATH": "/usr/bin", "PYTHONPATH": "/project", "VIRTUAL_ENV": "/mine", "HOME": "/me"})

    assert env == {
        "PATH": f"{made.folder / 'bin'}{os.pathsep}/usr/bin",
        "VIRTUAL_ENV": str(made.folder),
        "HOME": "/me",
    }
    assert made.environ({})["PATH"] == str(made.folder / "bin")


def test_the_same_is_installed_once(make: Provide, uv: Uv) -> None:
    first = make("tiny", "helper")

    again = make("helper", "tiny")

    assert uv.installed == 1
    assert first.folder.parent.name.startswith("helper-tiny-")
    assert (again.folder, again.packages, again.took_s) == (first.folder, first.packages, None)


@pytest.mark.slow
def test_what_would_install_otherwise_is_another_environment(
    make: Provide, uv: Uv, environ: dict[str, str], tmp_path: Path
) -> None:
    limits = tmp_path / "limits.txt"
    limits.write_text("tiny<2\n")
    folders = {make("tiny").folder, make("tiny==2.0").folder, make("tiny", constraints=limits).folder}
    limits.write_text("tiny<2\nhelper<1.5\n")
    folders |= {make("tiny", constraints=limits).folder, make("tiny", overrides=limits).folder}
    folders.add(make("tiny", extra_index_urls=((tmp_path / "empty").as_uri(),)).folder)
    environ["UV_RESOLUTION"] = "lowest"
    folders.add(make("tiny").folder)

    assert len(folders) == uv.installed == 7


def test_constraints_and_overrides_hold(make: Provide, tmp_path: Path) -> None:
    limits, instead = tmp_path / "limits.txt", tmp_path / "instead.txt"
    limits.write_text("tiny<2\n")
    instead.write_text("helper==1.0\n")

    made = make("tiny", constraints=limits, overrides=instead)

    assert made.packages == {"tiny": "1.0", "helper": "1.0"}


def test_what_cannot_be_installed_is_told_in_the_words_of_uv(make: Provide, environ: dict[str, str]) -> None:
    with pytest.raises(LaunchError) as caught:
        make("tiny==3.0")

    message = str(caught.value)
    assert caught.value.engine == "a"
    assert "requires = 'tiny==3.0' could not be installed: uv ended with exit code 1" in message
    assert "tiny==3.0" in message.partition("ends:")[2], "uv's own sentence names it"
    (log,) = home(environ).glob("*/install.log")
    assert str(log) in message
    assert list(home(environ).glob("*/env-*")) == []


@pytest.mark.parametrize("wrong", ["--index-url=http://elsewhere", "not a package", "--help"])
def test_a_requirement_that_is_none_is_an_error_of_uv_and_no_option(
    make: Provide, environ: dict[str, str], wrong: str
) -> None:
    with pytest.raises(LaunchError, match=r"could not be installed: uv ended with exit code \d.*\n.*\n?error: "):
        make(wrong)

    assert [path.name[:12] for path in home(environ).iterdir()] == ["environment-"]


def test_a_further_index_is_asked(make: Provide, tmp_path: Path) -> None:
    page = tmp_path / "further/rare/index.html"
    page.parent.mkdir(parents=True)
    rare = wheel(tmp_path / "files", "rare", "0.1")
    page.write_text(f'<a href="{rare.as_uri()}">{rare.name}</a>')

    made = make("rare", "tiny", extra_index_urls=((tmp_path / "further").as_uri(),))

    assert {"rare", "tiny"} <= set(made.packages)


@pytest.mark.slow
def test_an_installation_that_was_cut_off_is_made_again(make: Provide, uv: Uv, environ: dict[str, str]) -> None:
    def cut() -> None:
        raise KeyboardInterrupt

    uv.before = cut
    with pytest.raises(KeyboardInterrupt):
        make("tiny")
    (half,) = home(environ).glob("*/env-*")
    uv.before = lambda: None

    made = make("tiny")

    assert made.packages["tiny"] == "2.0"
    assert not half.exists()


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["interpreter", "note"])
def test_an_environment_that_lost_something_is_made_again(make: Provide, uv: Uv, lost: str) -> None:
    first = make("tiny")
    if lost == "interpreter":
        shutil.rmtree(first.folder / "bin")
    else:
        (first.folder.parent / "made.json").write_text("{")

    again = make("tiny")

    assert uv.installed == 2
    assert again.folder != first.folder
    assert not first.folder.exists()


@pytest.mark.slow
def test_two_processes_that_ask_at_once_install_once(environ: dict[str, str]) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", ELSEWHERE], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=120)[0].split() for process in both]

    assert sorted(made for made, _ in printed) == ["False", "True"]
    assert len({folder for _, folder in printed}) == 1


@pytest.mark.slow
def test_who_waits_for_another_run_says_so_once_and_can_be_interrupted(
    make: Provide, uv: Uv, environ: dict[str, str]
) -> None:
    spec = EngineSpec(name="b", requires=("tiny",))
    inside, done = threading.Event(), threading.Event()
    messages: list[str] = []
    reasons = [None, None, "it was interrupted"]

    def hold() -> None:
        inside.set()
        done.wait()

    def stop() -> str | None:
        return reasons.pop(0) if messages else None

    uv.before = hold
    other = threading.Thread(target=make, args=("tiny",))
    other.start()
    inside.wait()
    try:
        with pytest.raises(LaunchError, match="b was not started: it was interrupted"):
            provide(spec, environ=environ, run=uv, say=messages.append, stop=stop)
    finally:
        done.set()
        other.join()

    assert messages == ["b: waiting for another run that installs 'tiny'"]


def test_what_takes_its_time_is_said_before(environ: dict[str, str], uv: Uv) -> None:
    messages: list[str] = []
    spec = EngineSpec(name="a", requires=("tiny", "helper<2"))

    for _ in range(2):
        provide(spec, environ=environ, run=uv, say=messages.append)

    assert messages == ["a: installing 'tiny' 'helper<2' into an environment of its own; this can take minutes"]


def test_uv_of_this_interpreter_is_used_where_none_is_on_path(
    environ: dict[str, str], uv: Uv, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Sequence[str]] = []

    def run(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> tuple[int | None, str]:
        seen.append(argv)
        return None, "no such file"

    spec = EngineSpec(name="a", requires=("tiny",))
    with pytest.raises(LaunchError, match=r"uv could not be started.*\nno such file"):
        provide(spec, environ=environ | {"PATH": ""}, run=run)
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr("sys.path_importer_cache", {})
    with pytest.raises(LaunchError, match=r"neither on PATH nor in .*pip install uv"):
        provide(spec, environ=environ | {"PATH": ""}, run=uv)

    assert seen[0][:3] == [sys.executable, "-m", "uv"]


def test_a_folder_that_cannot_be_used_is_told_with_the_variable_that_moves_it(
    environ: dict[str, str], uv: Uv, tmp_path: Path
) -> None:
    (tmp_path / "environments").write_text("in the way")

    with pytest.raises(LaunchError, match=rf"no environment for its requires: .*{FOLDER_VARIABLE} names another"):
        provide(EngineSpec(name="a", requires=("tiny",)), environ=environ, run=uv)


@pytest.mark.skipif(sys.platform != "linux", reason="platformdirs knows the folders of other systems")
def test_the_users_cache_is_where_environments_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert home({FOLDER_VARIABLE: "/elsewhere"}) == Path("/elsewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert home({}) == Path("/cache/pytest-llmparity/environments")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert home({}) == Path.home() / ".cache/pytest-llmparity/environments"


def identity(version: str | None, source: str = "reported") -> Identity:
    return Identity(facts={} if version is None else {"version": Fact(value=version, source=source)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        (identity("0.33.0"), None),
        (identity("0.33.0+cpu"), None),
        (identity("0.32.1"), "requires = 'vllm==0.33.0' installed vllm 0.33.0 but the server reports version 0.32.1"),
        (identity("b10566-0c1e57098"), None),
        (identity(None), None),
        (identity("0.32.1", source="file"), None),
    ],
    ids=["same", "local label", "other", "no version of a package", "unknown", "not reported"],
)
def test_another_version_than_installed_is_a_contradiction(seen: Identity, sentence: str | None) -> None:
    spec = EngineSpec(name="a", requires=("vllm==0.33.0",))

    assert contradiction(spec, {"vllm": "0.33.0"}, seen) == sentence
    assert contradiction(spec, {}, seen) is None


def test_the_installed_version_stands_in_for_one_the_server_does_not_report() -> None:
    installed = {"xllamacpp": "2026.10.11549"}

    assert with_version(identity(None), installed).facts["version"] == Fact(
        value="2026.10.11549", source="file", raw="xllamacpp 2026.10.11549"
    )
    assert with_version(identity("0.1", source="declared"), installed).get("version") == "2026.10.11549"
    assert with_version(identity("0.1"), installed).get("version") == "0.1"
    assert with_version(identity(None), {}).facts == {}


@pytest.mark.slow
def test_a_lock_left_by_a_run_that_was_killed_holds_nobody_up(make: Provide, environ: dict[str, str]) -> None:
    folder = make("tiny").folder.parent
    (folder / "made.json").unlink()
    script = (
        "import filelock, os, sys\nlock = filelock.FileLock(sys.argv[1])\nlock.acquire()\nos.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(folder / "lock")], check=False)
    assert (folder / "lock").exists()

    assert make("tiny").took_s is not None
    assert filelock.FileLock(folder / "lock").is_locked is False


def test_specs_that_differ_otherwise_share_an_environment(make: Provide, environ: dict[str, str], uv: Uv) -> None:
    first = make("tiny")
    other = dataclasses.replace(EngineSpec(name="b", requires=("tiny",)), args=("--x",), env={"A": "b"})

    assert provide(other, environ=environ, run=uv).folder == first.folder
