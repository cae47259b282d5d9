"""Engines that are named for a suite none of whose tests uses them: the summary says so, and only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

PLAIN = "def test_plain(): ...\n"
TOLD = "no collected test uses the engines that were named: none has a parity marker or"


@pytest.mark.parametrize(
    ("suite", "args"),
    [
        ("def test_app(engine): ...\n", ()),
        ("def test_ask(parity): ...\n", ()),
        ("def test_late(request):\n    request.getfixturevalue('parity')\n", ()),
        ("import pytest\n@pytest.mark.parity('prompts.jsonl')\n@pytest.mark.skip\ndef test_gate(): ...\n", ()),
        ("import pytest\npytest.skip('today', allow_module_level=True)\n", ()),
        ("def test_other(): ...\n", ("-k", "plain")),
        ("def test_other(): ...\n", ("test_plain.py",)),
    ],
    ids=("engine", "parity", "in-the-body", "marker", "skipped-file", "-k", "path"),
)
def test_where_a_test_may_use_the_engines_nothing_is_said(bench: Bench, suite: str, args: tuple[str, ...]) -> None:
    bench.pytester.makepyfile(test_plain=PLAIN, test_more=suite)

    result = bench.run(*args, engines=[bench.engine()])

    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line(f"{TOLD}*")


def test_engines_that_no_test_uses_are_told(bench: Bench) -> None:
    bench.pytester.makepyfile(test_plain=PLAIN)

    result = bench.run(engines=[bench.engine(), bench.engine()])

    assert result.ret == pytest.ExitCode.OK
    assert result.outlines.count(TOLD) == 1


@pytest.mark.slow
def test_engines_that_no_test_of_a_worker_uses_are_told(bench: Bench) -> None:
    bench.pytester.makepyfile(test_plain=PLAIN)

    result = bench.run("-n1", engines=[bench.engine()])

    assert result.ret == pytest.ExitCode.OK
    assert result.outlines.count(TOLD) == 1


def test_engines_of_the_environment_are_for_whatever_is_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.pytester.makepyfile(test_plain=PLAIN)
    monkeypatch.setenv("LLMPARITY_ENGINES", f"a={bench.selected(bench.engine())}")

    result = bench.run()

    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line(f"{TOLD}*")
