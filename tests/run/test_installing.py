"""Engines with ``requires`` are installed by uv under the keeper, started from there, and held to that version."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from pytest_llmparity.core.errors import LaunchError
from pytest_llmparity.engines.start.environments import FOLDER_VARIABLE, KeptRunner
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.settings.specification import EngineSpec
from tests.doubles.wheels import wheel

if TYPE_CHECKING:
    from tests.run.conftest import Project

SERVER = """
import argparse, http.server, json, os, sys
parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
parser.add_argument("--served-model-name")
flags, _ = parser.parse_known_args()
print("run by", sys.executable, "path", os.environ["PATH"].split(os.pathsep)[0], flush=True)
choice = {"index": 0, "message": {"role": "assistant", "content": "well"}, "finish_reason": "stop"}
answers = {
    "/health": {}, "/version": {"version": os.environ["SAYS"]},
    "/v1/models": {"object": "list", "data": [{"id": flags.served_model_name, "owned_by": "vllm"}]},
    "/v1/chat/completions": {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.dumps(answers.get(self.path, {})).encode()
        self.send_response(200 if self.path in answers else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
http.server.HTTPServer(("127.0.0.1", flags.port), Handler).serve_forever()
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An index that has one package: a vLLM of our own."""
    package = "vllm/entrypoints/openai"
    folders = ["vllm", "vllm/entrypoints", package]
    files = {f"{folder}/__init__.py": "" for folder in folders} | {f"{package}/api_server.py": SERVER}
    wheel(tmp_path / "wheels", "vllm", "0.33.0+cpu", files)
    (tmp_path / "empty").mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    return inherited | {
        "UV_DEFAULT_INDEX": (tmp_path / "empty").as_uri(),
        "UV_FIND_LINKS": str(tmp_path / "wheels"),
        "UV_NO_CONFIG": "1",
        FOLDER_VARIABLE: str(tmp_path / "environments"),
    }


def vllm(reports: str, name: str = "a", requires: str = "vllm==0.33.0") -> EngineSpec:
    return EngineSpec(
        name=name, kind="vllm", launch="process", model="m", requires=(requires,), download=True, env={"SAYS": reports}
    )


def fleet_of(project: Project, environ: dict[str, str], *specs: EngineSpec, lines: list[str] | None = None) -> Fleet:
    keeper = project.keeper()
    return Fleet(
        {spec.name: spec for spec in specs},
        keeper=lambda: keeper,
        workdir=project.path / ".llmparity",
        environ=environ,
        say=(lines if lines is not None else []).append,
    )


@pytest.mark.slow
def test_an_engine_runs_from_the_environment_it_requires(
    project: Project, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(project.path))
    lines: list[str] = []
    keeper = project.keeper()
    fleet, later = (
        Fleet(
            {"a": vllm("0.33.0")},
            keeper=lambda: keeper,
            workdir=project.path / ".llmparity",
            environ=environ,
            say=lines.append,
        )
        for _ in range(2)
    )

    engaged, joined = fleet.engage("a"), later.engage("a")

    assert (engaged.record.error, engaged.record.incomparable) == (None, None)
    assert engaged.record.identity.facts["version"].source == "reported"
    assert joined.record.identity == engaged.record.identity
    assert lines == ["a: installing 'vllm==0.33.0' into an environment of its own; this can take minutes"]
    assert [note.partition(" was installed in ")[0] for note in engaged.record.notes] == ["a: requires"]
    assert " s and is kept in ~/environments" in engaged.record.notes[0], "notes are shown to others"
    assert joined.record.notes == ()
    (folder,) = (project.path / "environments").glob("*/env-*")
    log = (project.path / ".llmparity/logs/a.log").read_text()
    assert log.startswith(f"run by {folder / 'bin/python'} path {folder / 'bin'}\n")


@pytest.mark.slow
def test_a_server_of_another_version_than_installed_is_incomparable(project: Project, environ: dict[str, str]) -> None:
    reason = "requires = 'vllm==0.33.0' installed vllm 0.33.0+cpu but the server reports version 0.32.1"

    fleet = fleet_of(project, environ, vllm("0.32.1"), vllm("0.33.0", "b"))
    fleet.engage_all()

    assert fleet.engage("a").record.incomparable == f"a: {reason}"
    assert fleet.engage("b").record.incomparable is None


@pytest.mark.slow
def test_an_engine_that_does_not_report_its_version_has_the_installed_one(
    project: Project, environ: dict[str, str]
) -> None:
    engaged = fleet_of(project, environ, vllm("")).engage("a")

    fact = engaged.record.identity.facts["version"]
    assert (fact.value, fact.source, fact.raw) == ("0.33.0+cpu", "file", "vllm 0.33.0+cpu")


def test_what_cannot_be_installed_is_an_error_of_its_engine(project: Project, environ: dict[str, str]) -> None:
    engaged = fleet_of(project, environ, vllm("0.33.0", requires="vllm==9")).engage("a")

    assert engaged.adapter is None
    assert "could not be installed: uv ended with exit code 1" in (engaged.record.error or "")
    assert "vllm==9" in (engaged.record.error or "").partition("ends:")[2]


@pytest.mark.slow
def test_an_installer_that_is_interrupted_is_ended(project: Project) -> None:
    log, up = project.path / "log", threading.Event()

    def stop() -> str | None:
        if log.exists() and log.read_text():
            up.set()
            return "it was interrupted"
        return None

    keeper = project.keeper()
    run = KeptRunner("a", lambda: keeper, stop)
    forever = "import os, threading; print(os.getpid(), flush=True); threading.Event().wait()"

    with pytest.raises(LaunchError, match="a was not started: it was interrupted"):
        run([sys.executable, "-c", forever], env=dict(os.environ), cwd=project.path, log=log)

    assert not psutil.pid_exists(int(log.read_text()))
    assert run([sys.executable, "-c", "exit(3)"], env={}, cwd=project.path, log=log) == (
        3,
        "a installer exited with code 3 before it was ready",
    )


def test_an_installer_that_is_not_there_is_told(project: Project) -> None:
    keeper = project.keeper()
    run = KeptRunner("a", lambda: keeper, lambda: None)

    code, reason = run(["/no/such/uv"], env={}, cwd=project.path, log=project.path / "log")

    assert code is None
    assert "No such file" in reason
