"""One rule of exit codes: like mistakes end alike, whichever command they are made in."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.cli import _parser
from pytest_llmparity.core.words.exits import (
    FAULT,
    INTERRUPTED,
    OF_COMMAND,
    OF_DECISION,
    OK,
    PAGE,
    REFUSED,
    RULE,
    UNREAD,
    told,
)
from pytest_llmparity.store.runs import Store

if TYPE_CHECKING:
    from tests.cli.conftest import Shell

PAGE_TEXT = (Path(__file__).parents[2] / PAGE).read_text("utf-8")
HERE = "x=http://127.0.0.1:9"
"""An engine that can be named and is never asked."""
LEAST: dict[str, tuple[str, ...]] = {
    "import": ("promptfoo", "file"),
    "golden": ("from", "newest"),
    "record": (HERE,),
    "calibrate": (HERE, "y=http://127.0.0.1:9"),
    "gate": ("--baseline", HERE, "--candidate", "y=http://127.0.0.1:9"),
    "bisect": ("--engine", "prod", "--models", "a,b"),
}
"""What a command needs to be one, apart from its name."""
WITH_ENGINES = ("doctor", "lock", "calibrate", "record", "serve")
WITH_ROOT = tuple(command for command in OF_COMMAND if command != "import")

NO_RUN = "20260101-000000-0001"
UNKNOWN_RUN = {
    "golden from": ("golden", "from", NO_RUN),
    "golden prune": ("golden", "prune", NO_RUN),
    "gate": ("gate", "--run", NO_RUN),
    "runs --keep": ("runs", "--keep", NO_RUN),
    "runs --release": ("runs", "--release", NO_RUN),
    "merge": ("merge", NO_RUN),
    "report": ("report", NO_RUN),
    "two of report": ("report", NO_RUN, "20260101-000000-0002"),
}
UNKNOWN_NAME = {
    "doctor": (("doctor", "pord"), "did you mean 'prod'?"),
    "lock": (("lock", "pord"), "did you mean 'prod'?"),
    "calibrate": (("calibrate", "pord", "prod"), "did you mean 'prod'?"),
    "serve": (("serve", "pord"), "did you mean 'prod'?"),
    "record": (("record", "pord"), "did you mean 'prod'?"),
    "gate": (("gate", "--baseline", "pord", "--candidate", "prod"), "did you mean 'prod'?"),
    "bisect": (("bisect", "--engine", "pord", "--models", "a,b"), "did you mean 'prod'?"),
    "golden show": (("golden", "show", "oldd"), "did you mean 'old'?"),
    "golden diff": (("golden", "diff", "oldd"), "did you mean 'old'?"),
    "golden baseline": (("gate", "--baseline", "golden:oldd", "--candidate", "prod"), "did you mean 'old'?"),
    "recording": (("gate", "--baseline", "replay:strem", "--candidate", "prod"), "did you mean 'stream'?"),
    "command": (("repot",), "did you mean 'report'?"),
    "verb": (("golden", "prun"), "did you mean 'prune'?"),
    "choice": (("import", "prompfoo", "x"), "did you mean 'promptfoo'?"),
    "option before the command": (("--verison",), "did you mean '--version'?"),
}


@pytest.fixture
def project(shell: Shell) -> Shell:
    """An engine called prod, golden answers of old, a recording called stream, and one run that nobody judged."""
    shell.configure('[engines.prod]\nbase_url = "http://127.0.0.1:9"\nkind = "llamacpp"\n')
    for name in ("golden/tickets/old.jsonl", "recordings/stream.jsonl"):
        (shell.path / name).parent.mkdir(parents=True)
        (shell.path / name).write_text("")
    with Store.open(shell.path / ".llmparity") as store:
        store.begin(plan_hash="p", session="s", version="1")
    return shell


def test_every_command_says_how_it_ends() -> None:
    commands = next(action for action in _parser()._actions if action.choices is not None).choices

    assert list(OF_COMMAND) == list(commands or ())
    assert all(codes.keys() <= RULE.keys() for codes in OF_COMMAND.values())


@pytest.mark.parametrize("command", OF_COMMAND)
def test_its_help_has_the_codes_and_names_the_page(shell: Shell, command: str) -> None:
    shown = " ".join(shell.run(command, "--help").out.replace("exit-\n", "exit-").split())

    assert shown.endswith(told(command))


def test_the_page_has_the_rule_and_every_command() -> None:
    for code, meaning in RULE.items():
        assert f"| {code} | {meaning} |" in PAGE_TEXT
    for command, codes in OF_COMMAND.items():
        cells = (codes.get(code, "") for code in (0, 1, 2))
        assert f"| `{command}` | {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |") in PAGE_TEXT
    assert [*OF_DECISION.values()] == [0, 1, 2]


@pytest.mark.parametrize("command", OF_COMMAND)
def test_an_option_that_is_not_known_is_refused_with_the_nearest(shell: Shell, command: str) -> None:
    wrong, meant = ("--forced", "--force") if command == "import" else ("--rotdir", "--rootdir")

    ended = shell.run(command, *LEAST.get(command, ()), wrong, "x")

    assert ended.code == REFUSED
    assert f"(did you mean {meant!r}?)" in ended.err
    assert ended.out == ""


@pytest.mark.parametrize("words", [("gate", "--baseline", "a", "--candidat", "b"), ("--versio",)])
def test_an_option_is_written_in_full(shell: Shell, words: tuple[str, ...]) -> None:
    ended = shell.run(*words)

    assert ended.code == REFUSED
    assert f"(did you mean {'--candidate' if 'gate' in words else '--version'!r}?)" in ended.err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("gate", "--baseline", "http://127.0.0.1:9", "--candidate", "nobody"), "--candidate"),
        (("gate", "--candidate", "http://127.0.0.1:9", "--baseline", "nobody"), "--baseline"),
        (("record", "nobody"), "ENGINE"),
        (("lock", "--engines", "nobody"), "--engines"),
    ],
)
def test_an_unknown_engine_is_told_of_the_argument_that_named_it(
    shell: Shell, words: tuple[str, ...], named: str
) -> None:
    ended = shell.run(*words)

    assert ended.code == REFUSED
    assert f"llmparity: {named}: unknown engine 'nobody'" in ended.err


@pytest.mark.parametrize("command", WITH_ROOT)
def test_a_root_that_is_not_there_is_refused(shell: Shell, command: str) -> None:
    ended = shell.run(command, *LEAST.get(command, ()), "--rootdir", "nowhere")

    assert ended.code == REFUSED
    assert "--rootdir: there is no folder" in ended.err


@pytest.mark.parametrize("command", WITH_ENGINES)
def test_a_configuration_that_cannot_be_read_is_refused(shell: Shell, command: str) -> None:
    shell.configure("[engines")

    ended = shell.run(command, *LEAST.get(command, ()))

    assert (ended.code, "llmparity.toml" in ended.err) == (REFUSED, True), ended.err


@pytest.mark.parametrize("words", UNKNOWN_RUN.values(), ids=UNKNOWN_RUN)
def test_a_run_that_is_not_there_is_refused_with_the_nearest(project: Shell, words: tuple[str, ...]) -> None:
    with Store.open(project.path / ".llmparity") as store:
        (known,) = (info.id for info in store.runs())

    wrong = f"{known[:-1]}x"
    ended = project.run(*(wrong if word == NO_RUN else word for word in words))

    assert ended.code == REFUSED
    assert wrong in ended.err
    assert f"(did you mean {known!r}?)" in ended.err


@pytest.mark.parametrize("words", UNKNOWN_RUN.values(), ids=UNKNOWN_RUN)
def test_a_run_is_refused_alike_where_none_was_ever_stored(shell: Shell, words: tuple[str, ...]) -> None:
    assert shell.run(*words).code == REFUSED


@pytest.mark.parametrize(("words", "close"), UNKNOWN_NAME.values(), ids=UNKNOWN_NAME)
def test_a_name_that_is_not_there_is_refused_with_the_nearest(
    project: Shell, words: tuple[str, ...], close: str
) -> None:
    ended = project.run(*words)

    assert (ended.code, close in ended.err) == (REFUSED, True), ended.err


@pytest.mark.parametrize(
    "words", [("runs",), ("history",), ("gate", "--history")], ids=["runs", "history", "decisions"]
)
def test_a_list_may_be_empty(shell: Shell, words: tuple[str, ...]) -> None:
    ended = shell.run(*words)

    assert (ended.code, ended.err) == (OK, "")
    assert ended.out.startswith("no ")


@pytest.mark.parametrize("words", [("report",), ("golden", "prune"), ("gate", "--run", "newest"), ("merge",)])
def test_nothing_to_do_it_with_is_not_done(shell: Shell, words: tuple[str, ...]) -> None:
    ended = shell.run(*words)

    assert (ended.code, ended.out) == (REFUSED, "")


def test_a_fault_of_ours_is_no_verdict(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Path) -> Path:
        raise AttributeError("ours")

    monkeypatch.setattr("pytest_llmparity.settings.root.project_root", broken)

    ended = shell.run("gate", "--run", "newest")

    assert ended.code == FAULT
    assert "AttributeError: ours" in ended.err
    assert "llmparity: this is a fault of pytest-llmparity" in ended.err


def test_who_stops_reading_is_no_fault_of_the_program() -> None:
    """``llmparity --help | true``, so to say: the pipe has nobody at its other end."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as out:
        command = [
            sys.executable,
            "-c",
            "import sys; from pytest_llmparity.cli import main; sys.exit(main(['runs', '--rootdir', '/']))",
        ]
        ended = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False)

    assert (ended.returncode, ended.stderr) == (UNREAD, "")


@pytest.mark.parametrize(("windows", "code"), [(True, UNREAD), (False, FAULT)])
def test_on_windows_a_closed_pipe_is_an_invalid_argument(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, windows: bool, code: int
) -> None:
    """Elsewhere an invalid argument is a fault like any."""
    monkeypatch.setattr("pytest_llmparity.cli._WINDOWS", windows)
    monkeypatch.setattr("os.dup2", lambda *to: None)
    monkeypatch.setattr("sys.stdout.fileno", lambda: 1, raising=False)

    def closed(*args: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("pytest_llmparity.settings.root.project_root", closed)

    assert shell.run("runs").code == code


def test_an_interruption_while_the_command_is_imported_is_answered_in_words() -> None:
    program = (
        "import builtins, sys\n"
        "real = builtins.__import__\n"
        "def stopped(name, *args, **kwargs):\n"
        "    if name == 'pytest_llmparity.cli':\n"
        "        raise KeyboardInterrupt\n"
        "    return real(name, *args, **kwargs)\n"
        "builtins.__import__ = stopped\n"
        "from pytest_llmparity.__main__ import run\n"
        "sys.exit(run())\n"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr) == (INTERRUPTED, "llmparity: interrupted\n")


def test_a_variable_that_is_nearly_one_of_ours_is_told_with_the_nearest(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMPARITY_BASELNE", "prod")
    monkeypatch.setenv("LLMPARITY_PROD_KEY", "sk-1")

    ended = shell.run("runs")

    assert ended.code == OK
    assert ended.err == (
        "llmparity: the environment variable LLMPARITY_BASELNE is not read (did you mean 'LLMPARITY_BASELINE'?)\n"
    )
