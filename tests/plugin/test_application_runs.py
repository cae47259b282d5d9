"""Applications in every way a run can go: several processes, machines, one engine at a time, by tag, sequentially."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.cli import main
from tests.plugin.test_applications import INPUTS, application

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

REPORT = ("--parity-report=json", "--parity-out=out")
KEYS = ("test", "kind", "engine", "outcome", "n", "estimate", "lower")


def kept(bench: Bench, folder: str = "out") -> list[list[object]]:
    return sorted([[verdict[key] for key in KEYS] for verdict in bench.report(folder)["verdicts"]], key=str)


@pytest.mark.slow
def test_workers_call_each_application_once_and_judge_it_as_one_process_does(bench: Bench) -> None:
    application(bench, "check.value(agree=0.8, rate=0.8)", "return answer")
    file = bench.pytester.path / "test_app.py"
    mark = '@pytest.mark.parametrize("language", ["en", "de"])\n@pytest.mark.parity'
    text = file.read_text().replace("@pytest.mark.parity", mark).replace("(engine, case)", "(engine, case, language)")
    file.write_text(text)
    engines = [bench.engine("billing"), bench.engine("billing")]
    bench.run(*REPORT, engines=engines)
    alone, asked = kept(bench), len(bench.asked(engines[0]))

    result = bench.run("-n2", "--parity-fresh", *REPORT, engines=engines, left_out=())

    result.assert_outcomes(passed=2)
    assert kept(bench) == alone
    assert {len(bench.asked(engine)) for engine in engines} == {2 * asked} == {4 * INPUTS}


@pytest.mark.usefixtures("warm_commands")
@pytest.mark.slow
def test_shards_share_out_the_inputs_and_merged_they_are_judged_as_one_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    application(bench, "check.value(agree=0.8, rate=0.8, drift=0.3)", "return [answer, case['mail']]", inputs=20)
    engines = [bench.engine("billing"), bench.engine("shipping")]
    whole = bench.run(*REPORT, engines=engines)
    asked = len(bench.asked(engines[0]))
    shutil.move(bench.pytester.path / ".llmparity", bench.pytester.path / "of-the-whole")
    for index in (1, 2):
        assert bench.run(f"--parity-shard={index}/2", engines=engines).ret == pytest.ExitCode.OK
    shared = [len(bench.asked(engine)) - asked for engine in engines]
    expected = kept(bench)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider")

    assert main(["merge", "--", "--parity-report=json", "--parity-out=merged"]) == whole.ret

    assert shared == [asked, asked]
    assert kept(bench, "merged") == expected


@pytest.mark.slow
def test_a_sequential_run_stops_calling_when_it_is_settled(bench: Bench) -> None:
    application(bench, "check.value(agree=0.8)", "return answer", inputs=64)
    engines = [bench.engine("billing"), bench.engine("shipping")]

    result = bench.run("--parity-sequential", *REPORT, engines=engines)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert [(v["outcome"], v["n"]) for v in bench.report()["verdicts"]] == [("FAIL", 16)]
    assert {len(bench.asked(engine)) for engine in engines} == {16}


@pytest.mark.slow
def test_engines_that_are_in_memory_one_at_a_time_are_called_in_their_turn(bench: Bench) -> None:
    application(bench, "check.value(agree=0.8)", "return answer")
    bench.configure('residency = "one-at-a-time"\n' + bench.process("one") + bench.process("two"))

    result = bench.run("--engines=one,two", *REPORT)

    assert result.ret == pytest.ExitCode.OK
    assert [(v["kind"], v["outcome"], v["n"]) for v in bench.report()["verdicts"]] == [("value.agree", "PASS", INPUTS)]
    assert [len(bench.starts(name)) for name in ("one", "two")] == [1, 1]


def test_inputs_with_a_tag_or_a_sample_of_them_are_called_alone(bench: Bench) -> None:
    application(bench, "check.value(rate=0.3)", "return answer")
    file = bench.pytester.path / "test_app.py"
    file.write_text(file.read_text().replace('"mail": f', '"tags": ["even"][n % 2 :], "mail": f'))
    engine = bench.engine("billing")

    bench.run("--parity-tag=even", *REPORT, engines=[engine])
    assert len(bench.asked(engine)) == INPUTS // 2
    assert f"7 of {INPUTS} prompts, tag even (--parity-tag even)" in bench.report()["verdicts"][0]["remarks"]
    bench.run("--parity-tag=even", "--parity-sample=4", *REPORT, engines=[engine])
    assert len(bench.asked(engine)) == INPUTS // 2 + 4


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let golden answers be written, as on a person's machine."""
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.slow
def test_parameters_whose_names_look_alike_in_a_path_have_golden_sets_of_their_own(
    bench: Bench, recording: None
) -> None:
    application(bench, "check.value(rate=0.8)", "return [answer, path]", takes="engine, case, path")
    file = bench.pytester.path / "test_app.py"
    mark = '@pytest.mark.parametrize("path", ["a/b", "a:b", "plain"])\n@pytest.mark.parity'
    file.write_text(file.read_text().replace("@pytest.mark.parity", mark))

    bench.run("--parity-update-golden=all", engines=[bench.engine("billing")])

    sets = sorted((bench.pytester.path / "golden").iterdir())
    assert len(sets) == 3
    assert "test_app.test_bot-plain" in [path.name for path in sets]
    values = {
        json.loads(line)["answers"][0]["text"]
        for path in sets
        for line in (path / "a.jsonl").read_text("utf-8").splitlines()[1:]
    }
    assert values == {'["billing", "a/b"]', '["billing", "a:b"]', '["billing", "plain"]'}


def test_golden_values_for_which_nothing_was_asked_are_told_as_they_are_written(bench: Bench, recording: None) -> None:
    application(bench, "check.value(rate=0.3)", "return 'billing'", asks="")

    result = bench.run("--parity-update-golden=all", engines=[bench.engine("billing")])

    text = " ".join(result.stdout.str().split())
    assert (
        f"{INPUTS} values for which the application asked its engine nothing (mail-0, mail-1, mail-10, …): does" in text
    )
