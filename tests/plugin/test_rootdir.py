"""Values of our options do not decide where the project's root is, whether they are words of their own or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_llmparity.plugin.options import WITH_VALUE, add_options
from pytest_llmparity.plugin.rootdir import joined, misleading


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project beside a folder with a configuration of pytest of its own, in which pytest is started."""
    pytester.makeini("[pytest]\n")
    for name in ("project", "elsewhere"):
        (pytester.path / name).mkdir()
        (pytester.path / name / "pytest.ini").write_text(f"[pytest]\naddopts = -ra\n# {name}\n")
    project = pytester.path / "project"
    (project / "test_a.py").write_text("def test_a():\n    pass\n")
    (pytester.path / "elsewhere" / "llmparity.toml").write_text("[engines.a]\nkind='openai'\nbase_url='http://h'\n")
    monkeypatch.chdir(project)
    return project


@pytest.mark.parametrize(
    "words",
    [
        ("--parity-out", "../elsewhere"),
        ("--parity-config", "../elsewhere/llmparity.toml", "--engines", "a"),
        ("test_a.py", "--parity-config", "../elsewhere/llmparity.toml"),
    ],
    ids=["out", "config", "beside a test"],
)
def test_the_root_is_the_projects(pytester: pytest.Pytester, project: Path, words: tuple[str, ...]) -> None:
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", *words)

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"rootdir: {project}", "configfile: pytest.ini"])
    assert result.stdout.str().count("test session starts") == 1


def test_options_in_the_environment_are_the_same(
    pytester: pytest.Pytester, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--parity-out ../elsewhere -p no:cacheprovider")

    pytester.runpytest_inprocess().stdout.fnmatch_lines([f"rootdir: {project}"])


def test_every_option_with_a_value_is_known() -> None:
    flags = []

    class Parser:
        def getgroup(self, *names: str) -> Parser:
            return self

        def addoption(self, name: str, **rest: object) -> None:
            if rest.get("action") != "store_true":
                flags.append(name)

    add_options(Parser())  # type: ignore[arg-type]  # all it is asked for

    assert set(WITH_VALUE) == set(flags)


def test_words_behind_the_end_of_options_are_left_alone() -> None:
    assert joined(["--engines", "a", "--", "--parity-out", "b"]) == (
        ["--engines=a", "--", "--parity-out", "b"],
        ["a"],
    )


def test_only_what_could_change_the_root_begins_the_run_anew(tmp_path: Path) -> None:
    for name in ("in/out", "in/own", "beside"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "in/own/setup.cfg").write_text("")
    inside = tmp_path / "in"

    assert not misleading(["out", "not-there", "x" * 5000], [], inside)
    assert not misleading(["out"], ["."], inside)
    assert misleading(["own"], [], inside)
    assert misleading(["../beside"], [], inside)
    assert misleading(["own"], ["out"], inside)
