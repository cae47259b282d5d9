"""Recordings in whole runs: an engine is recorded once, then played through its own adapter while it is gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.cli import main
from tests.doubles.posing import PosingEngine

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

CHECKS = "check.prompts(), check.text(margin=0.05)"
TIMED = f"{CHECKS}, check.latency(e2e_p50='5s', n=12)"


@pytest.fixture(autouse=True)
def at_home(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are given in the project."""
    monkeypatch.chdir(bench.pytester.path)


@pytest.fixture(scope="module")
def recorded() -> list[str]:
    """Return the list that keeps what ``record`` wrote of ``prod``: the first test records it, the others write it."""
    return []


@pytest.fixture
def prod(bench: Bench, recorded: list[str]) -> None:
    """Make the project of an engine that was recorded as ``prod`` and is gone."""
    bench.gate(TIMED)
    if recorded:
        file(bench).parent.mkdir()
        file(bench).write_text(recorded[0], "utf-8")
        return
    with PosingEngine(poses_as="llamacpp", quantization="Q8_0", first_delay_s=0.01) as engine:
        assert record(bench, engine) == 0
    recorded.append(file(bench).read_text("utf-8"))


def record(bench: Bench, engine: PosingEngine, *more: str) -> int:
    chosen = f"prod={bench.selected(engine)}"
    return main(["record", chosen, "--prompts", "prompts.jsonl", "--max-tokens", "12", "--timed", "12", *more])


@pytest.mark.slow
def test_one_prompt_is_recorded_with_its_times(bench: Bench) -> None:
    bench.prompts(1)

    assert record(bench, bench.engine(poses_as="llamacpp", quantization="Q8_0", first_delay_s=0.01)) == 0
    assert sum(row.get("phase") == "timed" for row in rows(bench)) == 12


def file(bench: Bench) -> Path:
    return bench.pytester.path / "recordings/prod.jsonl"


def told(result: pytest.RunResult) -> str:
    return " ".join(result.stdout.str().split())


def rows(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file(bench).read_text("utf-8").splitlines()]


def rewrite(bench: Bench, head: dict[str, Any], exchanges: list[dict[str, Any]]) -> None:
    lines = [{**head, "exchanges": len(exchanges)}, *exchanges]
    file(bench).write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


@pytest.mark.slow
def test_an_engine_that_is_gone_is_held_against_another_one_as_if_it_were_there(bench: Bench, prod: None) -> None:
    dev = bench.engine(poses_as="llamacpp", quantization="Q8_0", first_delay_s=0.01)

    result = bench.run(
        f"--engines=replay:prod,dev={bench.selected(dev)}", "--parity-report=json,md", "--parity-out=out"
    )

    assert result.ret == 0, result.stdout.str()
    report = bench.report()
    drift = [verdict["outcome"] for verdict in report["verdicts"] if not verdict["kind"].startswith("latency")]
    assert drift
    assert set(drift) == {"PASS"}
    (played, _) = report["engines"]
    assert (played["name"], played["launch"], played["recording"], played["pace"]) == (
        "replay-prod",
        "replay",
        "prod",
        1.0,
    )
    assert (played["quantization"], played["kind"]) == ("Q8_0", "llamacpp")
    whose = "replay-prod: plays recordings/prod.jsonl, the answers of prod (llamacpp"
    assert whose in told(result)
    assert whose in " ".join((bench.pytester.path / "out/summary.md").read_text("utf-8").split()).replace("\\", "")
    (latency,) = (v for v in report["verdicts"] if v["kind"].startswith("latency") and v["engine"] == "replay-prod")
    assert latency["remarks"][-1].startswith(
        "replay-prod is a recording: its times are those of the day it was recorded"
    )
    assert latency["estimate"] is not None
    assert "probes" not in report


def test_a_file_has_what_was_sent_and_when_what_came_and_no_headers(bench: Bench, prod: None) -> None:
    head, *exchanges = rows(bench)

    assert head["exchanges"] == len(exchanges) == 8 * 4 + 12
    assert {each["phase"] for each in exchanges} == {"main", "cold", "warm", "parallel", "timed"}
    assert all(each["request"]["stream"] for each in exchanges)
    assert all(each["chunks"][0][0] >= 10 for each in exchanges if each["phase"] == "timed")
    assert not any(each["request"]["messages"][0]["content"][:6].isdigit() for each in exchanges)
    assert "authorization" not in file(bench).read_text("utf-8").lower()
    assert str(bench.pytester.path) not in file(bench).read_text("utf-8")


@pytest.mark.slow
def test_a_request_that_is_not_in_it_is_an_error_that_says_how_to_record_it(bench: Bench, prod: None) -> None:
    bench.gate("check.schema({}, rate=0.5)", tokens=13)

    result = bench.run("--engines=replay:prod", "--parity-report=json", "--parity-out=out")

    assert result.ret == 1
    failures = bench.report()["failures"]
    assert {failure["kind"] for failure in failures} == {"NotRecorded"}
    assert failures[0]["message"].startswith(
        "not in recordings/prod.jsonl as it is asked now: llmparity record prod --suite PATH (what is asked is "
    )
    assert f"case {failures[0]['case']})" in failures[0]["message"]
    assert (
        "NotRecorded: not in recordings/prod.jsonl as it is asked now: llmparity record prod --suite PATH"
        in " ".join(result.stdout.str().split())
    )


@pytest.mark.slow
def test_one_that_is_hurried_has_no_times_and_is_told_so(bench: Bench, prod: None) -> None:
    result = bench.run("--engines=replay:prod@max", "--parity-report=json", "--parity-out=out", "-n0")

    assert "replay-prod is a recording that is not played at the pace it was recorded with" in told(result)
    assert bench.report()["latency"] == []
    assert "as fast as it goes" in told(result)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("latency", "why"),
    [
        ("n=13", "of the 13 timed answers that are asked for at concurrency 4, it has 12"),
        ("n=12, cached=True", "with a cache that may hold them, it has 0"),
    ],
)
def test_what_was_not_timed_as_it_is_asked_has_no_times(bench: Bench, prod: None, latency: str, why: str) -> None:
    bench.gate(f"{CHECKS}, check.latency(e2e_p50='5s', {latency})")

    result = bench.run("--engines=replay:prod", "--parity-report=json", "--parity-out=out")

    (verdict,) = (v for v in bench.report()["verdicts"] if v["kind"].startswith("latency"))
    assert verdict["outcome"] == "SKIPPED"
    assert "replay-prod is a recording, and of the " in verdict["message"]
    assert why in verdict["message"]
    assert bench.report()["latency"] == []
    assert result.ret == 0


@pytest.mark.slow
@pytest.mark.parametrize("chosen", ["replay:prod,dev={}", "dev={},replay:prod"], ids=["baseline", "candidate"])
@pytest.mark.parametrize(("more", "timed"), [("", 0), (", e2e_p50='60s'", 13)], ids=["relative", "its own budget too"])
def test_nobody_is_timed_only_to_be_held_against_a_recording_without_times(
    bench: Bench, prod: None, chosen: str, more: str, timed: int
) -> None:
    bench.gate(f"check.latency(ttft_p50='x1.25'{more}, n=13)")
    dev = bench.engine(poses_as="llamacpp", quantization="Q8_0")

    result = bench.run(f"--engines={chosen.format(dev.base_url)}", "--parity-report=json", "--parity-out=out")

    report = bench.report()
    (relative,) = (v for v in report["verdicts"] if v["kind"] == "latency.ttft_p50")
    assert relative["outcome"] == "SKIPPED"
    assert "replay-prod is a recording, and of the 13 timed answers that are asked for" in relative["message"]
    assert {row["n"] for row in report["latency"] if row["engine"] == "dev"} == ({timed} if timed else set())
    assert result.ret == 0


@pytest.mark.slow
def test_every_timed_answer_is_that_of_one_request(bench: Bench, prod: None) -> None:
    head, *exchanges = rows(bench)
    timed = [each for each in exchanges if each["phase"] == "timed"]
    gathered = [each for each in exchanges if each["phase"] != "timed"]
    for place, each in enumerate(timed):
        each["chunks"] = [[100 + 10 * place, "".join(text for _, text in each["chunks"])]]
    rewrite(bench, head, [*gathered, *timed])

    bench.run("--engines=replay:prod", "--parity-report=json", "--parity-out=out")

    (e2e,) = (row for row in bench.report()["latency"] if row["metric"] == "e2e")
    assert e2e["n"] == 12
    assert e2e["p50"] == pytest.approx(0.155, abs=0.05)
    assert e2e["p99"] >= 0.2


@pytest.mark.slow
def test_a_floor_that_was_not_recorded_is_not_made_of_other_answers(bench: Bench, prod: None) -> None:
    head, *exchanges = rows(bench)
    rewrite(bench, head, [each for each in exchanges if each["phase"] in ("main", "timed")])
    bench.gate("check.text(margin=0.05)")
    dev = bench.engine(poses_as="llamacpp", quantization="Q8_0")

    result = bench.run(f"--engines=replay:prod,dev={bench.selected(dev)}", "--parity-report=json", "--parity-out=out")

    assert bench.report()["failures"] == []
    assert f"{8 + 32 + 4} requests sent in all" in told(result)


@pytest.mark.slow
def test_one_that_was_damaged_is_misuse_before_anybody_is_asked(bench: Bench, prod: None) -> None:
    text = file(bench).read_text("utf-8")
    file(bench).write_text(text.replace('"status": 200', '"status": 42', 1), "utf-8")

    damaged = bench.run("--engines=replay:prod")
    unknown = bench.run("--engines=replay:prdo")
    file(bench).write_text(text.replace('"kind": "llamacpp"', '"kind": "nokind"', 1), "utf-8")
    kindless = bench.run("--engines=replay:prod")

    assert (damaged.ret, unknown.ret, kindless.ret) == (4, 4, 4)
    assert "recordings/prod.jsonl:1: there is no kind of engine 'nokind' here; there are: " in kindless.stderr.str()
    assert "--engines: replay-prod: recordings/prod.jsonl:2: Expected `int` >= 200" in damaged.stderr.str()
    assert "there is no recording 'prdo'" in unknown.stderr.str()
    assert "(did you mean 'prod'?)" in unknown.stderr.str()


@pytest.mark.slow
def test_application_tests_are_skipped_and_nothing_of_it_becomes_golden(bench: Bench, prod: None) -> None:
    bench.pytester.makepyfile(test_gate="def test_app(engine): assert engine.model")

    skipped = bench.run("--engines=replay:prod", "-rs")
    golden = bench.run("--engines=replay:prod", "--parity-update-golden=all")

    assert skipped.parseoutcomes() == {"skipped": 1}
    assert "is a recording, which holds no requests of applications" in told(skipped)
    assert golden.ret == 4


def test_a_key_that_a_server_repeats_is_refused_and_nothing_is_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROD_KEY", "sk-Prod-0123456789ab")
    engine = bench.engine("you sent sk-Prod-0123456789ab", api_key="sk-Prod-0123456789ab")
    bench.configure(f'[engines.prod]\nkind = "openai"\nbase_url = "{engine.base_url}"\napi_key_env = "PROD_KEY"\n')

    code = main(["record", "prod", "--prompts", "prompts.jsonl", "--max-tokens", "12"])

    out = capsys.readouterr()
    assert code == 4
    assert "recordings/prod.jsonl is not written: line 2 (case case-" in out.err
    assert "its answer holds the value of a key variable" in out.err
    assert "sk-Prod-0123456789ab" not in out.err + out.out
    assert not file(bench).exists()
