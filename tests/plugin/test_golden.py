"""Golden answers in whole runs: recorded from an engine, then held against one while nobody is asked for them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.cli import main
from pytest_llmparity.testing.script import prompt_of

if TYPE_CHECKING:
    from tests.doubles.posing import PosingEngine
    from tests.plugin.conftest import Bench

CHECKS = "check.prompts(), check.text(margin=0.05)"


@pytest.fixture(autouse=True)
def at_home(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's machine: no variable says that this is CI."""
    monkeypatch.chdir(bench.pytester.path)
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def recorded(bench: Bench) -> PosingEngine:
    """An engine called ``prod`` and its golden answers to the prompts of the gate."""
    prod = bench.engine(poses_as="llamacpp", quantization="Q8_0")
    bench.gate(CHECKS)
    assert record(bench, prod).ret == 1
    return prod


def record(bench: Bench, prod: PosingEngine, update: str = "missing", *more: str) -> pytest.RunResult:
    return bench.run(f"--engines=prod={bench.selected(prod)}", f"--parity-update-golden={update}", *more)


def against(bench: Bench, engine: PosingEngine, *more: str, name: str = "dev") -> pytest.RunResult:
    return bench.run(f"--engines=golden:prod,{name}={bench.selected(engine)}", *more)


def lines(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file(bench).read_text("utf-8").splitlines()]


def file(bench: Bench) -> Path:
    return bench.pytester.path / "golden/prompts/prod.jsonl"


def told(result: pytest.RunResult) -> str:
    return " ".join(result.stdout.str().split())


def test_a_run_that_writes_fails_and_says_how_to_accept(bench: Bench) -> None:
    prod = bench.engine(poses_as="llamacpp", quantization="Q8_0")
    bench.gate(CHECKS)

    first = record(bench, prod)
    second = record(bench, prod)

    assert first.ret == 1
    assert "golden: wrote golden/prompts/prod.jsonl: 8 new of 8 cases" in told(first)
    assert (
        "Look at them (llmparity golden show ENGINE; in git: git add -N golden && git diff golden), commit them, and "
        "run again"
    ) in told(first)
    assert second.ret == 0
    assert "golden: golden/prompts/prod.jsonl: nothing new" in told(second)
    head, *others = lines(bench)
    assert head["asked"] == [{"n": 8, "concurrency": 4, "sampling": head["asked"][0]["sampling"]}]
    assert head["engine"] == "prod"
    assert [line["id"] for line in others] == [f"case-{number}" for number in range(8)]
    assert others[0]["answers"][0] | {"main": 1, "cold": 1, "warm": 1, "parallel": 1} == others[0]["answers"][0]


def test_checks_judge_golden_answers_as_if_their_engine_ran(bench: Bench, recorded: PosingEngine) -> None:
    asked = len(recorded.requests)
    same, other = bench.engine(poses_as="llamacpp"), bench.engine(poses_as="llamacpp", answer="no")

    passed, failed = against(bench, same), against(bench, other)

    assert passed.ret == 0
    assert failed.ret == 1
    assert "golden-prod: answers of prod (llamacpp" in told(passed)
    failed.stdout.fnmatch_lines(["FAIL text, dev against golden-prod:*"])
    assert len(recorded.requests) == asked, "nobody is asked for golden answers"


@pytest.mark.slow
def test_prompts_that_fail_against_golden_answers_are_a_verdict(bench: Bench, recorded: PosingEngine) -> None:
    """Nobody can be asked how golden answers were rendered, as a baseline or as a candidate."""
    longer = re.sub('"prompt_tokens": ', '"prompt_tokens": 1', file(bench).read_text("utf-8"))
    file(bench).write_text(longer, "utf-8")
    engine = bench.engine(poses_as="llamacpp")

    explained = "--parity-explain-requests=40"
    baseline = against(bench, engine, explained)
    candidate = bench.run(f"--engines=dev={bench.selected(engine)},golden:prod", explained)

    baseline.stdout.fnmatch_lines(["FAIL prompts, dev against golden-prod:*"])
    candidate.stdout.fnmatch_lines(["FAIL prompts, golden-prod against dev:*"])
    assert "KeyError" not in told(baseline) + told(candidate)


@pytest.mark.slow
def test_an_upgrade_is_held_against_the_golden_answers_of_the_configured_baseline(
    bench: Bench, recorded: PosingEngine
) -> None:
    """``baseline = "prod"`` means what was recorded of it, where that is held against what prod is by now."""
    upgraded = bench.engine(poses_as="llamacpp", answer="no")
    bench.configure(
        f'baseline = "prod"\n[engines.prod]\nkind = "llamacpp"\nmodel = "{upgraded.model}"\n'
        f'base_url = "{upgraded.base_url}"\n'
    )

    result = bench.run("--engines=golden:prod,prod")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["FAIL text, prod against golden-prod:*"])


@pytest.mark.slow
def test_golden_answers_may_be_the_candidate(bench: Bench, recorded: PosingEngine) -> None:
    engine = bench.engine(poses_as="llamacpp")

    result = bench.run(f"--engines=dev={bench.selected(engine)},golden:prod")

    assert result.ret == 0
    assert "golden-prod: passes" in told(result)


@pytest.mark.slow
def test_a_changed_prompt_is_incomparable_and_the_others_are_judged(bench: Bench, recorded: PosingEngine) -> None:
    path = bench.pytester.path / "prompts.jsonl"
    bench.prompts(40)
    record(bench, recorded)
    path.write_text(path.read_text("utf-8").replace('question 3"', 'question three"'), "utf-8")

    result = against(bench, bench.engine(poses_as="llamacpp"))

    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["INCOMPARABLE golden, golden-prod: 1 of 40 prompts (case-3): golden/prompts/prod.jsonl answers another *"]
    )
    assert "dev: passes" in told(result)


def test_other_sampling_is_incomparable_and_nobody_is_asked(bench: Bench, recorded: PosingEngine) -> None:
    bench.gate(CHECKS, tokens=13)
    engine = bench.engine(poses_as="llamacpp")

    result = against(bench, engine)

    assert result.ret == 1
    assert "was sampled otherwise than is asked now (max_tokens 12 -> 13)" in told(result)
    assert bench.asked(engine) == []


@pytest.mark.slow
def test_an_engine_that_the_lock_has_otherwise_by_now_is_incomparable(bench: Bench, recorded: PosingEngine) -> None:
    recorded.quantization = "Q4_0"
    assert main(["lock", f"prod={bench.selected(recorded)}"]) == 0

    result = against(bench, bench.engine(poses_as="llamacpp"))

    assert result.ret == 1
    assert "it was recorded from another prod than llmparity.lock has now: quantization: Q8_0 -> Q4_0" in told(result)


@pytest.mark.slow
def test_cases_without_golden_are_listed_and_fail_where_each_must_have_one(
    bench: Bench, recorded: PosingEngine
) -> None:
    bench.prompts(9)
    engine = bench.engine(poses_as="llamacpp")

    lenient, strict = against(bench, engine), against(bench, engine, "--parity-required")

    assert lenient.ret == 0
    assert "left out 1 prompt (case-8): golden/prompts/prod.jsonl has no answer to it" in told(lenient)
    assert strict.ret == 1
    strict.stdout.fnmatch_lines(["ERROR prompts, dev against golden-prod: 1 prompt of golden-prod (case-8): *"])


@pytest.mark.slow
def test_a_set_without_golden_skips_its_gate(bench: Bench, recorded: PosingEngine) -> None:
    (bench.pytester.path / "prompts.jsonl").rename(bench.pytester.path / "other.jsonl")
    test = bench.pytester.path / "test_gate.py"
    test.write_text(test.read_text().replace("prompts.jsonl", "other.jsonl"))
    engine = bench.engine(poses_as="llamacpp")

    lenient, strict = against(bench, engine), against(bench, engine, "--parity-required")

    assert (lenient.ret, strict.ret) == (0, 1)
    assert "there is no golden/other/prod.jsonl" in told(lenient)


@pytest.mark.slow
def test_latency_is_skipped_with_the_reason_and_timed_where_it_is_judged(bench: Bench, recorded: PosingEngine) -> None:
    bench.gate('check.latency(e2e_p50="x1.5", n=8)')
    engine = bench.engine(poses_as="llamacpp")

    result = against(bench, engine)

    assert result.ret == 0
    assert "golden-prod has golden answers, and these hold no times" in told(result)
    assert len(bench.asked(engine)) == 8, "gathered, and not timed: there is nothing to compare with"


@pytest.mark.slow
def test_logprobs_of_a_golden_bring_their_margin(bench: Bench) -> None:
    prod = bench.engine(poses_as="llamacpp", quantization="Q8_0")
    bench.gate("check.logprobs()")
    record(bench, prod)

    result = against(bench, bench.engine(poses_as="llamacpp", quantization="Q8_0"), "-v")

    assert result.ret == 0
    assert "margin 0.005 nats, nothing may have changed since the golden was recorded" in told(result)


@pytest.mark.slow
def test_workers_and_a_replay_judge_the_same(bench: Bench, recorded: PosingEngine) -> None:
    pytest.importorskip("xdist")
    engine = bench.engine(poses_as="llamacpp", answer="no")

    workers = against(bench, engine, "-n2", "-p", "xdist")
    replayed = bench.run("--engines=golden:prod,dev=http://127.0.0.1:1#m", "--parity-mode=replay")

    for result in (workers, replayed):
        assert result.ret == 1
        assert "dev: FAIL text" in told(result)


@pytest.mark.slow
def test_a_sequential_run_is_held_against_golden_answers(bench: Bench, recorded: PosingEngine) -> None:
    bench.prompts(40)
    record(bench, recorded)
    engine = bench.engine(poses_as="llamacpp")

    result = against(bench, engine, "--parity-sequential")

    assert result.ret == 0
    assert "dev: passes" in told(result)


@pytest.mark.slow
def test_changed_rewrites_only_what_answers_otherwise(bench: Bench) -> None:
    prod = bench.engine(lambda request: f"old {prompt_of(request)}", poses_as="llamacpp")
    bench.gate(CHECKS)
    record(bench, prod)
    before = file(bench).read_bytes().splitlines()
    prod.script = lambda request: f"{'new' if 'question 3' in str(request) else 'old'} {prompt_of(request)}"

    result = record(bench, prod, "changed", "--parity-fresh")

    assert result.ret == 1
    after = file(bench).read_bytes().splitlines()
    assert [number for number, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]] == [4]


@pytest.mark.slow
def test_a_recording_for_a_check_without_a_floor_is_filled_by_changed(bench: Bench) -> None:
    prod = bench.engine(poses_as="llamacpp", quantization="Q8_0")
    bench.gate("check.prompts()")
    record(bench, prod)
    bench.gate(CHECKS)

    left, held = record(bench, prod), against(bench, bench.engine(poses_as="llamacpp"))
    filled, again = record(bench, prod, "changed"), record(bench, prod, "changed")

    assert left.ret == 0
    assert (
        "golden/prompts/prod.jsonl: nothing new; 8 cases without the noise floor or the logprobs that this run has "
        "(case-0, case-1, case-2, …): --parity-update-golden changed"
    ) in told(left)
    assert "golden/prompts/prod.jsonl has no noise floor" in told(held)
    assert "8 changed of 8 cases" in told(filled)
    assert filled.ret == 1
    assert "nothing new" in told(again)
    assert lines(bench)[1]["answers"][0]["cold"] == 1


@pytest.mark.slow
def test_one_process_writes_for_all_workers(bench: Bench) -> None:
    prod = bench.engine(poses_as="llamacpp", quantization="Q8_0")
    bench.gate(CHECKS)

    wrote, again = record(bench, prod, "missing", "-n2"), record(bench, prod, "missing", "-n2")

    assert wrote.ret == 1
    assert told(wrote).count("golden: wrote golden/prompts/prod.jsonl: 8 new of 8 cases") == 1
    assert again.ret == 0
    assert len(lines(bench)) == 9


@pytest.mark.slow
def test_two_tests_of_one_set_are_recorded_one_after_the_other(bench: Bench, recorded: PosingEngine) -> None:
    suite = bench.pytester.path / "test_gate.py"
    (bench.pytester.path / "test_longer.py").write_text(suite.read_text("utf-8").replace("=12", "=13"), "utf-8")

    longer = record(bench, recorded, "missing", "test_longer.py")
    changed = record(bench, recorded, "changed", "test_longer.py", "--parity-fresh")
    both = against(bench, bench.engine(poses_as="llamacpp"))

    assert "wrote golden/prompts/prod.jsonl: 8 new of 16 lines of 8 cases" in told(longer)
    assert "golden/prompts/prod.jsonl: nothing new" in told(changed)
    assert both.ret == 0


@pytest.mark.slow
def test_golden_answers_are_held_against_each_other_and_the_plan_says_that_nobody_is_asked(
    bench: Bench, recorded: PosingEngine
) -> None:
    for path in sorted(file(bench).parent.iterdir()):
        text = path.read_text("utf-8").replace('"engine": "prod"', '"engine": "next"')
        path.with_name(path.name.replace("prod", "next")).write_text(text, "utf-8")

    result = bench.run("--engines=golden:prod,golden:next")

    assert result.ret == 0
    assert "plan: golden answers are held against each other: nobody is asked" in told(result)
    assert "0 engines" not in told(result)


@pytest.mark.slow
def test_another_engine_asks_for_all(bench: Bench, recorded: PosingEngine) -> None:
    recorded.quantization = "Q4_0"

    changed, everything = record(bench, recorded, "changed"), record(bench, recorded, "all")

    assert (changed.ret, everything.ret) == (1, 1)
    assert "nothing was written: prod is another engine than the one that golden/prompts/prod.jsonl is of" in told(
        changed
    )
    assert "8 changed of 8 cases" in told(everything)


def test_a_key_is_refused_with_its_place_and_nothing_is_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROD_KEY", "hunter2-and-more")
    prod = bench.engine(poses_as="llamacpp", answer="it is hunter2-and-more")
    bench.configure(
        f'[engines.prod]\nkind = "llamacpp"\nmodel = "{prod.model}"\nbase_url = "{prod.base_url}"\n'
        'headers = { x-key = { env = "PROD_KEY" } }\n'
    )
    bench.gate(CHECKS)

    result = bench.run("--engines=prod", "--parity-update-golden=all")

    assert result.ret == 1
    assert "case case-0: its text holds the value of a key variable" in told(result)
    assert "hunter2" not in result.stdout.str()
    assert not (bench.pytester.path / "golden").exists()


@pytest.mark.slow
def test_stale_cases_are_told(bench: Bench, recorded: PosingEngine) -> None:
    bench.prompts(7)

    result = against(bench, bench.engine(poses_as="llamacpp"))

    assert "has 1 case that prompts has not any more (case-7): llmparity golden prune" in told(result)
    assert len(lines(bench)) == 9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--parity-update-golden=some",), "'some' is not allowed; expected missing, changed or all"),
        (("--parity-update-golden=all", "--parity-frozen"), "--parity-frozen (or its setting) forbids that"),
        (("--parity-update-golden=all", "--parity-mode=replay"), "llmparity golden from RUN"),
        (("--parity-update-golden=all", "--parity-case=a"), "--parity-case asks single cases"),
        (("--engines=golden:pord",), "no golden answers of 'pord'"),
    ],
)
def test_misuse_is_told_before_collection(bench: Bench, options: tuple[str, ...], words: str) -> None:
    bench.gate(CHECKS)

    result = bench.run("--engines=prod=http://127.0.0.1:1#m", *options)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert words in " ".join(result.stderr.str().split())


def test_ci_does_not_write_unless_it_is_told_to(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    prod = bench.engine(poses_as="llamacpp")
    bench.gate(CHECKS)

    refused, told_to = record(bench, prod), record(bench, prod, "all", "--parity-update-golden-in-ci")

    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    assert "is refused where the variable CI is set" in refused.stderr.str()
    assert told_to.ret == 1
    assert file(bench).exists()


def test_engine_tests_skip_golden_answers(bench: Bench, recorded: PosingEngine) -> None:
    bench.pytester.makepyfile(test_gate="def test_app(engine):\n    assert engine.base_url\n")

    result = against(bench, bench.engine(poses_as="llamacpp"))

    result.assert_outcomes(passed=1, skipped=1)


def test_a_file_that_cannot_be_used_is_the_error_of_its_engine(bench: Bench, recorded: PosingEngine) -> None:
    file(bench).write_text(file(bench).read_text("utf-8") + "{\n", "utf-8")

    result = against(bench, bench.engine(poses_as="llamacpp"))

    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["ERROR prompts, dev against golden-prod: golden-prod: golden/prompts/prod.jsonl:10: *"]
    )


@pytest.mark.slow
def test_engines_are_recorded_whatever_margin_they_have(bench: Bench) -> None:
    engines = [bench.engine(poses_as="llamacpp"), bench.engine(poses_as="llamacpp")]
    bench.gate("check.logprobs()")

    result = bench.run("--parity-update-golden=all", engines=engines)

    assert result.ret == 1
    assert {path.name for path in (bench.pytester.path / "golden/prompts").glob("?.jsonl")} == {"a.jsonl", "b.jsonl"}


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_with_the_golden_answers_of_now(bench: Bench, recorded: PosingEngine) -> None:
    engine = bench.engine(poses_as="llamacpp")

    stopped = against(bench, engine, "--parity-max-requests=12")
    file(bench).write_text(file(bench).read_text("utf-8").replace('"text": "', '"text": "other '), "utf-8")
    resumed = against(bench, engine)

    assert "stopped after 12 requests" in told(stopped)
    assert "resumed run" in told(resumed)
    assert resumed.ret == 1, "the answers that the file has by now are judged"


@pytest.mark.slow
def test_a_recording_at_another_concurrency_is_told_while_lines_of_it_are_left(
    bench: Bench, recorded: PosingEngine
) -> None:
    bench.prompts(9)
    bench.gate(f"{CHECKS}, concurrency=2")
    assert record(bench, recorded).ret == 1

    result = against(bench, bench.engine(poses_as="llamacpp"))

    assert [(way["n"], way["concurrency"]) for way in lines(bench)[0]["asked"]] == [(8, 4), (1, 2)]
    assert "was recorded with 4 prompts at once in part, and this run asks 2: its noise floor is that of" in told(
        result
    )


@pytest.mark.slow
def test_what_a_skipped_test_asks_is_not_left_over(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """As a conftest skips what ``--runslow`` would run: its golden answers are asked another day."""
    prod = bench.engine(poses_as="llamacpp")
    both = (
        "import pytest\nfrom pytest_llmparity import check\n"
        "@pytest.mark.parity('prompts.jsonl', check.text(margin=0.05), max_tokens=12)\n"
        "def test_quick(parity_run): ...\n"
        "{mark}@pytest.mark.parity('prompts.jsonl', check.text(margin=0.05), max_tokens=13)\n"
        "def test_slow(parity_run): ...\n"
    )
    bench.pytester.makepyfile(test_gate=both.format(mark=""))
    assert record(bench, prod, "all").ret == 1
    bench.pytester.makepyfile(test_gate=both.format(mark="@pytest.mark.skip\n"))
    skipping = against(bench, prod)
    before = file(bench).read_bytes()

    assert main(["golden", "prune"]) == 0

    skipping.assert_outcomes(skipped=1, passed=1)
    assert file(bench).read_bytes() == before
    assert "nothing to remove" in capsys.readouterr().out


@pytest.mark.slow
def test_lines_of_a_sampling_that_no_test_asks_any_more_are_told(bench: Bench, recorded: PosingEngine) -> None:
    bench.gate(CHECKS, tokens=13)
    assert record(bench, recorded, "missing").ret == 1

    result = against(bench, recorded)

    sentence = "golden/prompts/prod.jsonl has 8 cases with a sampling too that no test asks any more (case-0"
    assert sentence in told(result)
    assert sentence not in told(against(bench, recorded, "test_gate.py"))


@pytest.mark.slow
def test_a_decision_on_a_stored_run_rests_on_the_golden_that_the_run_read(
    bench: Bench, recorded: PosingEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    against(bench, bench.engine(poses_as="llamacpp", quantization="F16"))
    file(bench).unlink()
    capsys.readouterr()

    code = main(["gate", "--run", "newest", "--rootdir", str(bench.pytester.path)])

    assert code in (0, 1, 2)
    assert "quantization: Q8_0 -> F16" in capsys.readouterr().out
