"""Kinds of engine that come from elsewhere: by the hook and by entry points, and what is said of broken ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.testing import LoopbackEngine

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

ADAPTER = """
from pytest_llmparity.adapter import Adapter

class Mine(Adapter):
    kind = "mine"
    local_model = False
"""
HOOK = """
def pytest_llmparity_engines(config):
    from brought import Mine
    return [Mine]
"""

SAYS = "the answer to this question is always forty-two"

Bring = Callable[..., None]
Install = Callable[..., None]


@pytest.fixture
def bring(bench: Bench) -> Bring:
    """Write the adapter's module and a conftest file."""

    def write(hook: str = HOOK, adapter: str = ADAPTER) -> None:
        (bench.pytester.path / "brought.py").write_text(adapter)
        bench.pytester.makeconftest(hook)
        bench.pytester.syspathinsert()
        bench.gate("check.prompts()")

    return write


@pytest.fixture
def install(bench: Bench) -> Install:
    """Make a distribution with an entry point, as an installer would."""

    def write(entry: str, adapter: str = ADAPTER) -> None:
        (bench.pytester.path / "brought.py").write_text(adapter)
        info = bench.pytester.path / "llmparity_mine-0.3.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llmparity-mine\nVersion: 0.3\n")
        (info / "entry_points.txt").write_text(f"[llmparity.engines]\n{entry}\n")
        bench.pytester.syspathinsert()
        bench.gate("check.prompts()")

    return write


def refused(bench: Bench, *options: str) -> str:
    result = bench.run(*options or ("--engines=a=http://127.0.0.1:9",))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    return result.stderr.str()


def chosen(*engines: LoopbackEngine) -> str:
    named = zip("ab", engines, strict=True)
    return "--engines=" + ",".join(f"{name}=mine:m@{engine.base_url}" for name, engine in named)


@pytest.mark.parametrize("workers", [(), pytest.param(("-n1",), marks=pytest.mark.slow)], ids=["alone", "xdist"])
def test_a_kind_of_a_hook_is_asked(bench: Bench, bring: Bring, workers: tuple[str, ...]) -> None:
    bring()

    result = bench.run(chosen(bench.engine(SAYS), bench.engine(SAYS)), *workers)

    result.assert_outcomes(passed=1)


def test_two_runs_in_one_process_each_bring_their_own(bench: Bench, bring: Bring) -> None:
    bring()
    options = chosen(bench.engine(SAYS), bench.engine(SAYS))

    for _ in range(2):
        bench.run(options).assert_outcomes(passed=1)

    (bench.pytester.path / "conftest.py").unlink()
    assert "unknown kind 'mine'" in refused(bench, options)


def test_a_kind_of_an_entry_point_is_asked(bench: Bench, install: Install) -> None:
    install("mine = brought:Mine")

    bench.run(chosen(bench.engine(SAYS), bench.engine(SAYS))).assert_outcomes(passed=1)


def test_a_broken_entry_point_is_of_no_concern_to_runs_without_engines(bench: Bench, install: Install) -> None:
    install("mine = brought:Mine", adapter="raise RuntimeError('loaded')")

    bench.run().assert_outcomes(skipped=1)


@pytest.mark.parametrize(
    ("entry", "adapter", "message"),
    [
        ("mine = brought:Mine", "raise RuntimeError('too old')", "cannot be loaded (RuntimeError: too old)"),
        ("mine = brought:Gone", ADAPTER, "cannot be loaded (AttributeError: "),
        ("mine = nowhere:Mine", ADAPTER, "cannot be loaded (ModuleNotFoundError: "),
        ("other = brought:Mine", ADAPTER, "brings the kind 'mine' and has to be named after it"),
        ("mine = brought:__name__", ADAPTER, "'brought' is no subclass of pytest_llmparity.adapter.Adapter"),
        ("vllm = brought:Mine", ADAPTER.replace("mine", "vllm"), "pytest_llmparity.engines has one of that name"),
    ],
)
def test_an_entry_point_that_cannot_be_used_names_its_distribution(
    bench: Bench, install: Install, entry: str, adapter: str, message: str
) -> None:
    install(entry, adapter)

    text = refused(bench)

    assert message in text
    assert "of llmparity-mine 0.3" in text
    assert "Correct, update or uninstall llmparity-mine 0.3." in text


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (ADAPTER.replace('"mine"', '"My Engine"'), "brought.Mine has kind 'My Engine'; names consist of"),
        (ADAPTER.replace('kind = "mine"', "pass"), "brought.Mine has kind ''; names consist of"),
        (ADAPTER.replace('"mine"', "None"), "brought.Mine has kind None; names consist of"),
        (ADAPTER.replace("mine", "golden"), "golden, http, https, replay mean something else"),
        (ADAPTER.replace("mine", "ollama"), "brings an engine kind 'ollama', and pytest_llmparity.engines has"),
        (ADAPTER + '    fields = {"temprature": "temperature"}\n', "brought.Mine maps temprature in fields"),
        (ADAPTER + "    def launch(self): ...\n", "brought.Mine has a launch that is no classmethod"),
    ],
)
def test_an_adapter_that_cannot_work_is_told(bench: Bench, bring: Bring, adapter: str, message: str) -> None:
    bring(adapter=adapter)

    text = refused(bench)

    assert message in text
    assert "pytest_llmparity_engines: " in text


@pytest.mark.parametrize(("returned", "message"), [("Mine", "returned <class 'brought.Mine'>"), ("7", "returned 7")])
def test_a_hook_returns_a_list(bench: Bench, bring: Bring, returned: str, message: str) -> None:
    bring(HOOK.replace("[Mine]", returned))

    assert f"{message}; expected a list of adapter classes" in refused(bench)


def test_the_same_class_may_come_twice(bench: Bench, bring: Bring) -> None:
    bring(HOOK.replace("[Mine]", "[Mine, Mine]"))

    bench.run(chosen(bench.engine(SAYS), bench.engine(SAYS))).assert_outcomes(passed=1)


def test_two_classes_of_one_kind_are_told(bench: Bench, bring: Bring) -> None:
    bring(HOOK.replace("[Mine]", "[Mine, type('Other', (Mine,), {})]"))

    assert "brings an engine kind 'mine', and brought has one of that name" in refused(bench)


def test_an_added_kind_is_known_to_the_configuration(bench: Bench, bring: Bring) -> None:
    bring()
    bench.configure('[engines.a]\nkind = "mine"\nmodel = "m"\nbase_url = "http://127.0.0.1:9"\n')
    assert bench.run("--engines=a", "--collect-only").ret == 0

    bench.configure('[engines.a]\nkind = "mine"\nmodel = "m"\n')
    assert "an engine of kind 'mine' is attached to, never started" in refused(bench, "--engines=a")

    bench.configure('[engines.a]\nkind = "mien"\nmodel = "m"\n')
    assert "mine" in refused(bench, "--engines=a")


@pytest.mark.slow
def test_an_added_kind_with_a_launch_is_started(bench: Bench, bring: Bring) -> None:
    bring(
        adapter="""
from pytest_llmparity.adapter import Adapter, Launch

class Mine(Adapter):
    kind = "mine"
    local_model = False

    @classmethod
    def launch(cls, spec, port, workdir, *, environ):
        argv = (*spec.command, "--port", str(port), *spec.args)
        return Launch(argv=argv, env=dict(spec.env), cwd=workdir, deadline_s=60.0)
"""
    )
    fixed = ["--alias", "m", "--ctx-size", "512", "--parallel", "4"]
    bench.configure("".join(bench.process(name, kind="mine", model="m", args=fixed) for name in "ab"))

    result = bench.run("--engines=a,b", "--parity-report=json", "--parity-out=out")

    result.assert_outcomes(passed=1)
    assert {engine["kind"] for engine in bench.report()["engines"]} == {"mine"}
    assert len(bench.starts("a")) == 1


@pytest.mark.parametrize("method", ["reported(self)", "build(self, request, **more)", "read(self, answer, **more)"])
def test_an_adapter_that_stumbles_is_an_error_of_its_engine(bench: Bench, bring: Bring, method: str) -> None:
    bring(adapter=ADAPTER + f"\n    def {method}:\n        return {{}}['nope']\n")

    result = bench.run(chosen(bench.engine(SAYS), bench.engine(SAYS)))

    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert "INTERNALERROR" not in text
    assert "KeyError: 'nope' (in brought, line 9)" in text
    assert "This is a mistake in brought, not in your configuration" in text


@pytest.mark.slow
def test_the_command_line_knows_entry_points_too(bench: Bench, install: Install) -> None:
    install("mine = brought:Mine")
    argv = [sys.executable, "-m", "pytest_llmparity", "lock", f"a=mine:m@{bench.engine(SAYS).base_url}"]

    result = bench.pytester.run(*argv)

    assert result.ret == 0
    assert 'kind = "mine"' in (bench.pytester.path / "llmparity.lock").read_text("utf-8")
