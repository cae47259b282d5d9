"""What the plugin loads when nobody uses it, and that it works beside switched-off plugins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.plugin.conftest import PROJECT
from tests.plugin.warm_pytest import UNSEEN, leave_out

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

HEAVY = {
    "httptools",
    "httpx",
    "jsonschema_rs",
    "numpy",
    "openai",
    "pydantic",
    "rapidfuzz",
    "rich",
    "scipy",
    "sentence_transformers",
    "sqlite3",
    "torch",
    "xllamacpp",
}
BEFORE = "import sys; before = set(sys.modules)"
"""What a process begins with is not what it is asked to import: what measures coverage is there before."""


def test_an_unused_plugin_imports_nothing_heavy(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("COV")]:
        monkeypatch.delenv(name)  # where these tests are measured, coverage would follow and bring its own modules
    monkeypatch.setenv("LLMPARITY_OF_THE_PROJECT", "1")  # whether it is a slip is looked up without anything heavy
    bench.pytester.makepyfile("def test_something_else(): ...")
    bench.pytester.makeconftest(
        """
        import json, sys
        def pytest_unconfigure():
            with open("modules.json", "w") as out:
                json.dump(sorted(sys.modules), out)
        """
    )

    spawned = bench.spawn(imported=False)

    assert spawned.wait() == pytest.ExitCode.OK, spawned.output
    assert "1 passed" in spawned.output
    modules = set(json.loads((bench.pytester.path / "modules.json").read_text()))
    assert "pytest_llmparity.plugin" in modules
    assert {name.partition(".")[0] for name in modules} & HEAVY == set()
    assert {name for name in modules if name.startswith("pytest_llmparity.")} <= {
        "pytest_llmparity.core",
        "pytest_llmparity.core.words",
        "pytest_llmparity.core.words.nearest",
        "pytest_llmparity.plugin.fixtures",
        "pytest_llmparity.plugin.hookspecs",
        "pytest_llmparity.plugin.options",
        "pytest_llmparity.plugin",
        "pytest_llmparity.settings",
        "pytest_llmparity.settings.sources",
    }


def test_declaring_a_check_imports_nothing_heavy() -> None:
    """Every collection of a suite that holds one gate pays for it, with or without engines."""
    declaring = "from pytest_llmparity import check; check.text(margin=0.05); check.logprobs(shift=0.06)"
    code = f"{BEFORE}; {declaring}; print(*{{name.partition('.')[0] for name in set(sys.modules) - before}})"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert set(loaded) & HEAVY == set()
    assert "pytest_llmparity" in loaded


@pytest.mark.slow
def test_the_first_request_waits_for_no_library_that_only_judging_needs(bench: Bench) -> None:
    bench.gate()
    bench.pytester.makeconftest(
        """
        import json, os, sys
        from pytest_llmparity.testing import LoopbackEngine
        loaded = []
        def answer(body):
            loaded.append(sorted(sys.modules))
            return "an answer of as many words as make a verdict of so few prompts " * 20
        engine = LoopbackEngine(answer).__enter__()
        os.environ["LLMPARITY_ENGINES"] = ",".join(f"{name}=openai:loopback@{engine.base_url}" for name in "ab")
        def pytest_unconfigure():
            engine.__exit__(None, None, None)
            with open("modules.json", "w") as out:
                json.dump([loaded[0], sorted(sys.modules)], out)
        """
    )

    spawned = bench.spawn(imported=False)

    assert spawned.wait() == pytest.ExitCode.OK, spawned.output
    first, last = json.loads((bench.pytester.path / "modules.json").read_text())
    assert {"numpy", "scipy"} & set(first) == set()
    assert {"numpy", "rapidfuzz"} <= set(last)


def test_importing_the_checks_imports_none_of_them() -> None:
    """A test file that imports ``check`` pays for what it makes of it, and for nothing before that."""
    code = f"{BEFORE}; from pytest_llmparity import check; print(*set(sys.modules) - before)"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert {name.partition(".")[0] for name in loaded} & {*HEAVY, "asyncio", "msgspec"} == set()
    assert {name.removeprefix("pytest_llmparity") for name in loaded if name.startswith("pytest_llmparity")} == {
        "",
        ".check",
        ".core",
        ".core.checks",
        ".core.checks.arguments",
        ".core.errors",
    }


def test_making_one_check_imports_no_other() -> None:
    code = "import sys; from pytest_llmparity import check; check.text(margin=0.05); print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    checks = "pytest_llmparity.core.checks"
    assert f"{checks}.drift.text" in loaded
    others = {f"{checks}.{name}" for name in ("answers", "latency", "prompts", "schema", "similarity", "tools")}
    readers = {"pytest_llmparity.core.compare.facts", "pytest_llmparity.core.right"}  # their expressions take long
    assert set(loaded) & {*others, *readers} == set()


@pytest.mark.parametrize("without", ["xdist", "terminal", "cacheprovider", "capture", "junitxml", "timeout", "asyncio"])
def test_it_works_without_another_plugin_and_beside_all_others(bench: Bench, without: str) -> None:
    bench.pytester.makeini(PROJECT.format(options=" ".join(leave_out(UNSEEN))))
    bench.gate("check.prompts(), check.schema({'type': 'object'}, rate=0.5)")
    engines = [bench.engine(), bench.engine()]

    args = ("-p", f"no:{without}", "--parity-report=json", "--parity-out=out")
    result = bench.run(*args, engines=engines, left_out=UNSEEN)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    outcomes = {(v["kind"], v["outcome"]) for v in bench.report()["verdicts"]}
    assert outcomes == {("prompts", "PASS"), ("schema.rate", "FAIL")}


def test_a_plugin_that_is_switched_off_registers_nothing(bench: Bench) -> None:
    bench.pytester.makepyfile("def test_something_else(): ...")

    result = bench.pytester.runpytest_inprocess("-p", "no:llmparity", "--help")

    result.stdout.no_fnmatch_line("*--engines*")


@pytest.mark.slow
def test_engines_of_this_machine_bring_nothing_of_clusters(bench: Bench) -> None:
    bench.gate(
        body="""
    import sys
    loaded = [name for name in sys.modules if name == "ray" or name.startswith("pytest_llmparity.run.gather.cluster")]
    assert not loaded, loaded
    assert "pytest_llmparity.run.sending.lines" in sys.modules
"""
    )
    bench.configure(bench.process("a", replicas=2) + bench.process("b"))

    spawned = bench.spawn("--engines=a,b", imported=False)

    assert spawned.wait() == pytest.ExitCode.OK, spawned.output
    assert len(bench.starts("a")) == 2
    assert "where: on this machine: a 2 times, b" in spawned.output
