from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.settings.root import marked_root, project_root

if TYPE_CHECKING:
    from tests.cli.conftest import Shell

Configured = Callable[..., str]


def test_help_answers_without_importing_what_is_heavy() -> None:
    script = (
        "import sys\nfrom pytest_llmparity.cli import main\n"
        "try:\n    main(['lock', '--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print(sorted({'pytest', 'pydantic', 'httpx', 'openai', 'numpy'} & sys.modules.keys()))"
    )

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert ended.stdout.startswith("usage: llmparity lock")
    assert ended.stdout.endswith("[]\n")


def test_the_package_is_the_command(shell: Shell) -> None:
    argv = [sys.executable, "-m", "pytest_llmparity", "--version"]

    ended = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=shell.path)

    assert ended.stdout.startswith("pytest-llmparity ")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ((), "COMMAND"),
        (("unlock",), "invalid choice: 'unlock'"),
        (("lock", "--config", "gone.toml"), "--config: there is no file"),
        (("lock", "--profile", "ci"), "name the file with --config"),
        (("lock", "nobody"), "unknown engine 'nobody'"),
        (("lock", "a=http://h:1", "--engines", "a=http://h:2"), "are both named 'a'"),
        (("lock",), "no engine is named and none is configured in "),
    ],
    ids=["nothing", "command", "config", "profile", "engine", "twice", "none"],
)
def test_misuse_is_a_sentence_and_not_done(shell: Shell, argv: tuple[str, ...], expected: str) -> None:
    ended = shell.run(*argv)

    assert ended.code == 4
    assert expected in ended.err
    assert ended.out == ""


def test_who_has_configured_no_engine_is_told_where_one_goes(shell: Shell) -> None:
    assert shell.run("lock").err.rstrip().endswith("or let llmparity init write llmparity.toml")
    shell.configure("# [engines.prod]\n")

    assert shell.run("lock").err.rstrip().endswith("or put one into llmparity.toml there")


def test_a_wrong_variable_is_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPARITY_PROFILE", "ci")

    assert "LLMPARITY_PROFILE is 'ci', but there is no configuration" in shell.run("lock").err


def test_without_names_every_configured_engine_is_meant(shell: Shell, configured: Configured) -> None:
    shell.configure(configured(one=shell.engine(model="m1"), two=shell.engine(model="m2")))

    ended = shell.run("lock")

    assert ended.code == 0
    assert "one" in ended.out
    assert "two" in ended.out


def test_names_profile_and_environment_select(
    shell: Shell, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = {name: shell.engine(model=f"model-of-{name}") for name in ("one", "two")}
    shell.configure(configured(**engines) + '[profiles.p]\nengines = ["two"]\n')

    by_name, by_profile = shell.run("lock", "one"), shell.run("lock", "--profile", "p")
    monkeypatch.setenv("LLMPARITY_ENGINES", f"three={engines['one'].base_url}")
    by_environment = shell.run("lock")

    assert ("model-of-one" in by_name.out, "model-of-two" in by_name.out) == (True, False)
    assert ("model-of-one" in by_profile.out, "model-of-two" in by_profile.out) == (False, True)
    assert ("three" in by_environment.out, "model-of-two" in by_environment.out) == (True, False)


def test_a_mode_meant_for_pytest_changes_nothing(
    shell: Shell, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.configure(configured(one=shell.engine()))
    monkeypatch.setenv("LLMPARITY_MODE", "replay")
    monkeypatch.setenv("LLMPARITY_REQUIRED", "yes")

    assert shell.run("lock").code == 0


def test_ctrl_c_is_no_traceback(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr("pytest_llmparity.settings.root.project_root", interrupted)

    ended = shell.run("lock")

    assert (ended.code, ended.err) == (130, "llmparity: interrupted\n")


LAYOUTS: dict[str, dict[str, str]] = {
    "nothing": {},
    "pytest.ini": {"pytest.ini": ""},
    "pytest.toml": {"pytest.toml": ""},
    "tox.ini": {"tox.ini": "[tox]\n[pytest]\n"},
    "tox.ini of others": {"tox.ini": "[tox]\n", "setup.py": ""},
    "setup.cfg": {"setup.cfg": "[tool:pytest]\n"},
    "pyproject": {"pyproject.toml": "[tool.pytest.ini_options]\n"},
    "native pyproject": {"pyproject.toml": "[tool.pytest]\nminversion = '9.0'\n"},
    "a pyproject without pytest's table": {"pyproject.toml": "", "a/setup.py": ""},
    "a nearer pyproject of others": {"pytest.ini": "", "a/pyproject.toml": "[project]\nname = 'x'\n"},
}


@pytest.mark.parametrize("files", LAYOUTS.values(), ids=LAYOUTS)
def test_the_root_is_the_one_pytest_finds(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    here = pytester.path / "a" / "b"
    here.mkdir(parents=True)
    for name, text in files.items():
        (pytester.path / name).write_text(text)
    monkeypatch.chdir(here)

    shown = pytester.runpytest_inprocess("-p", "no:asyncio", "--collect-only").stdout.str()

    assert f"rootdir: {os.path.realpath(project_root(here))}\n" in shown.replace(", configfile", "\nconfigfile")


def test_the_file_that_makes_the_root_is_the_one_pytest_names(pytester: pytest.Pytester) -> None:
    (pytester.path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (pytester.path / "tox.ini").write_text("[pytest]\n")

    shown = pytester.runpytest_inprocess("-p", "no:asyncio", "--collect-only").stdout.str()

    assert f"configfile: {marked_root(pytester.path).mark} " in shown


def test_a_configuration_that_is_no_toml_marks_no_root(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/pyproject.toml").write_text("[broken")

    assert project_root(tmp_path / "sub") == tmp_path


def test_the_root_can_be_named(shell: Shell, configured: Configured) -> None:
    (shell.path / "deep").mkdir()
    (shell.path / "deep/llmparity.toml").write_text(configured(one=shell.engine()))

    assert shell.run("lock").code == 4
    assert shell.run("lock", "--rootdir", "deep").code == 0
