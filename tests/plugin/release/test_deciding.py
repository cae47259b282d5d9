"""``--parity-policy``: a run of plain pytest decides, says so everywhere, and ends with the decision's exit code."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from pytest_llmparity.core.gate import PLUGIN, RUN_OPTION

if TYPE_CHECKING:
    from tests.doubles.posing import PosingEngine
    from tests.plugin.conftest import Bench

ADVISORY = "[[rule]]\nlevel = 'advisory'\ncheck = 'text'\n"


@pytest.fixture
def engines(bench: Bench) -> list[PosingEngine]:
    """Two engines that part somewhere on every prompt."""
    bench.gate("check.prompts(), check.text(margin=0.05)")
    return [bench.engine(poses_as="llamacpp"), bench.engine(poses_as="llamacpp", drift=0.4, seed=3)]


def run(bench: Bench, engines: list[PosingEngine], policy: str, *more: str) -> pytest.RunResult:
    (bench.pytester.path / "release.toml").write_text(policy)
    return bench.run(
        "--parity-policy=release.toml", "--parity-report=json,md,html", "--parity-out=out", *more, engines=engines
    )


def told(result: pytest.RunResult) -> str:
    return " ".join(result.stdout.str().split())


def test_a_required_verdict_that_fails_holds_and_every_report_says_so(
    bench: Bench, engines: list[PosingEngine]
) -> None:
    policy = "inconclusive = 'hold'\n"

    result = run(bench, engines, policy)

    sha256 = hashlib.sha256(policy.encode()).hexdigest()
    assert result.ret == 1
    assert f"policy: release.toml (sha256 {sha256[:12]})" in told(result)
    assert "HOLD: b should not replace a. 1 of 3 required verdicts speaks against it." in told(result)
    (decision,) = bench.report()["decisions"]
    assert (decision["outcome"], decision["baseline"], decision["candidate"]) == ("HOLD", "a", "b")
    assert (decision["policy"], decision["sha256"]) == ("release.toml", sha256)
    for file in ("summary.md", "report.html"):
        assert "HOLD: b should not replace a." in (bench.pytester.path / "out" / file).read_text("utf-8")
    (line,) = (bench.pytester.path / ".llmparity/decisions.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["policy"]["sha256"] == sha256


@pytest.mark.slow
def test_what_the_gate_starts_decides_in_its_reports_without_a_policy_too(
    bench: Bench, engines: list[PosingEngine]
) -> None:
    started = ("-p", PLUGIN, RUN_OPTION, str(bench.pytester.path / "run"))

    result = bench.run(*started, "--parity-report=json,md,html", "--parity-out=out", engines=engines)

    assert result.ret == 1
    assert "HOLD" not in told(result), "the gate says it itself"
    (decision,) = bench.report()["decisions"]
    assert (decision["outcome"], decision["policy"]) == ("HOLD", "every check is required")
    assert decision["flips"]["changed"] == len(decision["changed_cases"]) == 8
    assert "quantization" in decision["same"]
    for file in ("summary.md", "report.html"):
        text = (bench.pytester.path / "out" / file).read_text("utf-8")
        assert (
            "HOLD: b should not replace a. 1 of 3 required verdicts speaks against it. Every check is required" in text
        )
    assert not (bench.pytester.path / ".llmparity/decisions.jsonl").exists()


@pytest.mark.slow
def test_a_junit_report_has_the_decision_as_properties_of_its_suite(bench: Bench, engines: list[PosingEngine]) -> None:
    run(bench, engines, "", "--junitxml=junit.xml")

    suite = ElementTree.parse(bench.pytester.path / "junit.xml").getroot()[0]
    told = {each.get("name"): each.get("value") for each in suite.iterfind("properties/property")}
    assert told["llmparity.decision.b.outcome"] == "HOLD"
    assert told["llmparity.decision.b.policy"] == "release.toml"
    assert (suite.get("tests"), suite.get("failures"), len(suite.findall("testcase"))) == ("1", "1", 1)


@pytest.mark.slow
def test_a_plugin_that_has_what_the_writer_of_junit_has_is_left_alone(
    bench: Bench, engines: list[PosingEngine]
) -> None:
    bench.pytester.makeconftest(
        """
        class Reporter:
            def add_global_property(self, name, value):
                raise RuntimeError("not ours")

            def pytest_sessionfinish(self, session, exitstatus):
                session.config.finished = getattr(session.config, "finished", 0) + 1

        def pytest_configure(config):
            config.pluginmanager.register(Reporter())

        def pytest_unconfigure(config):
            assert getattr(config, "finished", 1) == 1
        """
    )
    result = run(bench, engines, "", "--junitxml=junit.xml")

    assert "not ours" not in result.stdout.str() + result.stderr.str()
    suite = ElementTree.parse(bench.pytester.path / "junit.xml").getroot()[0]
    assert "llmparity.decision.b.outcome" in {each.get("name") for each in suite.iterfind("properties/property")}


def test_what_only_advises_fails_its_test_and_not_the_run(bench: Bench, engines: list[PosingEngine]) -> None:
    result = run(bench, engines, ADVISORY)

    assert result.ret == 0
    result.assert_outcomes(failed=1)
    assert "SHIP: b may replace a." in told(result)


def test_what_stays_open_is_an_exit_code_of_its_own(bench: Bench, engines: list[PosingEngine]) -> None:
    bench.gate("check.text(margin=0.3)")

    result = run(bench, [engines[0], bench.engine(poses_as="llamacpp", drift=0.2, seed=3)], "")

    assert {verdict["outcome"] for verdict in bench.report()["verdicts"]} == {"INCONCLUSIVE", "PASS"}
    assert result.ret == 2
    assert "nothing speaks against b in place of a, and not enough for it." in told(result)
    again = run(bench, [], "", "--parity-mode=replay")
    assert again.ret == 2, "the run was judged to its end"


@pytest.mark.slow
def test_a_margin_of_the_policy_counts_in_place_of_the_suite_s(bench: Bench, engines: list[PosingEngine]) -> None:
    result = run(bench, engines, "[[limit]]\ncheck = 'text'\nmargin = 0.9\n")

    assert "holds text margin=0.9" in told(result)
    (text,) = (v for v in bench.report()["verdicts"] if v["kind"] == "text")
    assert (text["margin"], text["check"]) == (0.9, "text(margin=0.9)")
    assert result.ret == 0


@pytest.mark.slow
def test_a_stored_run_is_decided_by_limits_when_it_is_judged_by_them(bench: Bench, engines: list[PosingEngine]) -> None:
    first = run(bench, engines, "")

    again = bench.run(
        "--parity-mode=replay", "--parity-policy=release.toml", "--parity-report=json", "--parity-out=out"
    )
    (bench.pytester.path / "loose.toml").write_text("[[limit]]\ncheck = 'text'\nmargin = 0.9\n")
    loose = bench.run("--parity-mode=replay", "--parity-policy=loose.toml")

    assert (first.ret, again.ret, loose.ret) == (1, 1, 0)


@pytest.mark.slow
def test_a_decision_that_cannot_be_kept_is_none_and_neither_ships_nor_holds(
    bench: Bench, engines: list[PosingEngine]
) -> None:
    (bench.pytester.path / ".llmparity/decisions.jsonl").mkdir(parents=True)
    (bench.pytester.path / "release.toml").write_text(ADVISORY)

    alone = bench.run("--parity-policy=release.toml", engines=engines)
    with_report = bench.run("--parity-mode=replay", "--parity-policy=release.toml", "--parity-report=json")

    assert (alone.ret, with_report.ret) == (4, 4)
    for result in (alone, with_report):
        assert "nothing is decided: the decision could not be kept, so it counts as none" in told(result)


@pytest.mark.slow
def test_a_run_that_is_judged_by_limits_is_decided_by_no_others(bench: Bench, engines: list[PosingEngine]) -> None:
    folder = bench.pytester.path
    (folder / "loose.toml").write_text("[[limit]]\ncheck = 'text'\nmargin = 0.9\n")
    (folder / "lenient.toml").write_text("skipped = 'ship'\n[[limit]]\ncheck = 'text'\nmargin = 0.9\n")
    (folder / "strict.toml").write_text("[[limit]]\ncheck = 'text'\nmargin = 0.01\n")
    assert bench.run("--parity-policy=loose.toml", engines=engines).ret == 0

    def gate(*words: str) -> pytest.RunResult:
        return bench.pytester.run(sys.executable, "-m", "pytest_llmparity", "gate", "--run", "newest", *words)

    plain, strict = gate(), gate("--policy", "strict.toml")
    loose, lenient = gate("--policy", "loose.toml"), gate("--policy", "lenient.toml")

    assert (plain.ret, strict.ret, loose.ret, lenient.ret) == (4, 4, 0, 0)
    assert "was judged by the limits of loose.toml, and no policy is named" in plain.stderr.str()
    assert "and those of strict.toml are others" in strict.stderr.str()
    assert "llmparity gate --run" not in strict.stderr.str(), "that is what was refused"
    assert bench.run("--parity-mode=replay", "--parity-policy=strict.toml").ret == 1, "what it says does work"


@pytest.mark.parametrize(
    ("policy", "more", "why"),
    [
        ("[[rule]]\nlevel = 'advisory'\ntest = 'test_gaet'\n", (), "no test of the suite (did you mean 'test_gate'?)"),
        ("[[limit]]\ncheck = 'schema'\nrate = 0.9\n", (), "names no check of test_gate, which has prompts, text"),
        ("[[rule]]\nlevel = 'advisory'\ncheck = 'text[poem]'\n", (), "names no tag of the prompts of test_gate"),
        ("margin = 1\n", (), "release.toml: margin is not a key"),
        ("", ("--parity-case=case-1",), "--parity-policy decides about whole runs, and --parity-case makes none"),
    ],
)
def test_misuse_is_exit_4_and_nobody_is_asked(
    bench: Bench, engines: list[PosingEngine], policy: str, more: tuple[str, ...], why: str
) -> None:
    result = run(bench, engines, policy, *more)

    assert result.ret == 4
    assert why in " ".join((result.stderr.str() + result.stdout.str()).split())
    assert not bench.asked(engines[0])


def test_one_engine_and_a_file_that_is_not_there_are_misuse(bench: Bench, engines: list[PosingEngine]) -> None:
    alone, gone = run(bench, engines[:1], ""), bench.run("--parity-policy=gone.toml", engines=engines)

    assert (alone.ret, gone.ret) == (4, 4)
    assert "only a is selected; select both" in alone.stderr.str()
    assert "--parity-policy: gone.toml cannot be read" in gone.stderr.str()


@pytest.mark.slow
def test_workers_hold_checks_to_it_and_the_controller_decides(bench: Bench, engines: list[PosingEngine]) -> None:
    result = run(bench, engines, "[[limit]]\ncheck = 'text'\nmargin = 0.9\n", "-n2")

    assert result.ret == 0, result.stdout.str()
    assert "SHIP: b may replace a." in told(result)
