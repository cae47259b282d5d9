"""The two steps of a run of tox: one without tests is no failure where few are asked for, and either can be ended."""

from __future__ import annotations

import configparser
import contextlib
import os
import runpy
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

BOTH = Path(__file__).parents[2] / ".ci/both.py"
STUB = """#!{python}
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print(*sys.argv[1:], sep="|", flush=True)
if "wait" in sys.argv:
    signal.sigwait([signal.SIGINT])
    print("engines stopped", flush=True)
    sys.exit(2)
"""
TOX = BOTH.parents[1] / "tox.ini"
FIRST = "-n|3|--dist|worksteal|-m|not live and not slow|"
SECOND = "-n|3|--dist|loadscope|-m|live and not slow|"


def test_a_step_without_tests_fails_unless_arguments_narrow_what_is_run_and_the_other_has_one() -> None:
    code_of = runpy.run_path(str(BOTH))["code_of"]
    narrowed = {(0, 0): 0, (0, 5): 0, (5, 0): 0, (5, 5): 5, (1, 5): 1, (5, 1): 1, (0, 1): 1, (2, 1): 2}
    whole = {(0, 0): 0, (0, 5): 5, (5, 0): 5, (5, 5): 5, (1, 5): 1, (0, 1): 1}

    assert {codes: code_of(codes, narrowed=True) for codes in narrowed} == narrowed
    assert {codes: code_of(codes, narrowed=False) for codes in whole} == whole


def test_who_runs_one_of_the_steps_runs_it_as_both_do() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(TOX, "utf-8")
    commands = [
        f"pytest {' '.join(workers)} -m {shlex.quote(tests)} {{posargs}}".replace("'", '"')
        for tests, workers in runpy.run_path(str(BOTH))["STEPS"]
    ]

    assert [tox[f"testenv:{name}"]["commands"] for name in ("engineless", "engines")] == commands


@contextlib.contextmanager
def begun(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Begin both steps, with a program in place of pytest that prints its arguments; nothing is left of them."""
    stub = folder / "pytest"
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, str(BOTH), "not slow", *arguments]
    with subprocess.Popen(command, env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, text=True) as both:
        try:
            yield both
        finally:
            family = psutil.Process(both.pid).children(recursive=True) if both.poll() is None else []
            both.kill()
            for process in family:
                process.kill()


@pytest.mark.slow
def test_both_steps_get_the_arguments_as_they_are(tmp_path: Path) -> None:
    with begun(tmp_path, "tests/core", "-k", "a b") as both:
        out, _ = both.communicate()

    assert out.splitlines() == [f"{FIRST}tests/core|-k|a b", f"{SECOND}tests/core|-k|a b"]
    assert both.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [True, False], ids=["Ctrl-C", "SIGTERM"])
def test_who_ends_it_ends_the_step_that_runs_and_begins_no_other(tmp_path: Path, terminal: bool) -> None:
    with begun(tmp_path, "wait") as both:
        assert both.stdout is not None
        assert both.stdout.readline() == f"{FIRST}wait\n"
        (step,) = psutil.Process(both.pid).children()
        if terminal:  # it interrupts all processes in front of it
            both.send_signal(signal.SIGINT)
            step.send_signal(signal.SIGINT)
        else:
            both.send_signal(signal.SIGTERM)
        out, _ = both.communicate()

    assert out == "engines stopped\n"
    assert both.returncode == 130
