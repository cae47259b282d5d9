"""``check.logprobs()`` without a number: from set-up to verdict, with the margin of the lock."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import lockfile
from pytest_llmparity.cli import main
from pytest_llmparity.core.identity.agreed import Agreed
from pytest_llmparity.testing import Reply
from tests.core.identity.test_ladder import LADDER

if TYPE_CHECKING:
    from tests.doubles.posing import PosingEngine
    from tests.plugin.conftest import Bench


def speaking(lead: float) -> Callable[[Mapping[str, Any]], Reply]:
    return lambda request: Reply(text="all is well in the harbour", lead=lead)


@pytest.fixture
def pair(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> tuple[PosingEngine, PosingEngine]:
    """Two engines that are 0.04 nats apart and a gate that takes its margin from the lock."""
    monkeypatch.chdir(bench.pytester.path)
    bench.gate("check.logprobs()")
    bench.by_address = True
    first = bench.engine(speaking(2.0), poses_as="llamacpp", quantization="F16")
    return first, bench.engine(speaking(2.04), poses_as="llamacpp", quantization="Q8_0")


def calibrated(pair: tuple[PosingEngine, PosingEngine]) -> None:
    assert main(["calibrate", f"a={pair[0].base_url}", f"b={pair[1].base_url}"]) == 0


def test_without_a_margin_it_is_an_error_at_set_up_that_names_the_command(
    bench: Bench, pair: tuple[PosingEngine, PosingEngine]
) -> None:
    result = bench.run(engines=pair)

    result.assert_outcomes(errors=1)
    told = " ".join(result.stdout.str().split())
    assert "takes its margin from llmparity.lock, which has none for b against a; measure the pair with:" in told
    assert f"llmparity calibrate a={pair[0].base_url} b={pair[1].base_url}" in told
    assert [engine.count for engine in pair] == [0, 0]


@pytest.mark.slow
def test_the_accepted_margin_holds_and_the_verdict_says_since_when(
    bench: Bench, pair: tuple[PosingEngine, PosingEngine]
) -> None:
    calibrated(pair)

    passed = bench.run("--parity-report=json", "--parity-out=out", engines=pair)
    pair[1].script = speaking(2.2)
    failed = bench.run(engines=pair)

    assert (passed.ret, failed.ret) == (0, 1)
    (verdict,) = bench.report()["verdicts"]
    assert (verdict["outcome"], verdict["margin"]) == ("PASS", 0.06)
    assert verdict["margin_from"].startswith("accepted 20")
    passed.stdout.fnmatch_lines(["noted:", "*margin 0.06 nats, accepted 20*in llmparity.lock*"])
    failed.stdout.fnmatch_lines(
        ["FAIL logprobs, b against a: 0.2 nats*margin 0.06 nats, accepted 20*in llmparity.lock*"]
    )


@pytest.mark.slow
def test_other_weights_are_incomparable_with_the_command_to_run(
    bench: Bench, pair: tuple[PosingEngine, PosingEngine]
) -> None:
    calibrated(pair)
    pair[1].quantization = "Q4_0"
    before = [len(bench.asked(engine)) for engine in pair]

    result = bench.run(engines=pair)

    assert result.ret == 1
    assert [len(bench.asked(engine)) for engine in pair] == before, "known before a prompt is sent"
    result.stdout.fnmatch_lines(
        [
            "INCOMPARABLE logprobs, b against a: the margin in llmparity.lock was accepted for other engines "
            "(b: quantization Q8_0 -> Q4_0); if that is meant, run: llmparity calibrate a b"
        ]
    )


@pytest.mark.slow
def test_what_another_check_reads_is_asked_also_where_the_margin_is_of_others(
    bench: Bench, pair: tuple[PosingEngine, PosingEngine]
) -> None:
    bench.gate("check.logprobs(), check.prompts()")
    calibrated(pair)
    pair[1].quantization = "Q4_0"

    result = bench.run(engines=pair)

    assert all(bench.asked(engine) for engine in pair)
    result.stdout.fnmatch_lines(["INCOMPARABLE logprobs, b against a: the margin in llmparity.lock*"])
    result.stdout.fnmatch_lines(["*prompts*pass 0 differ*"])


@pytest.mark.slow
def test_a_replay_keeps_the_margin_of_its_run(bench: Bench, pair: tuple[PosingEngine, PosingEngine]) -> None:
    calibrated(pair)
    bench.run(engines=pair)
    (bench.pytester.path / "llmparity.lock").unlink()

    replayed = bench.run("--parity-mode=replay", "--parity-report=json", "--parity-out=out")

    assert replayed.ret == 0
    (verdict,) = bench.report()["verdicts"]
    assert (verdict["outcome"], verdict["margin"]) == ("PASS", 0.06)


def test_a_broken_lock_is_an_error_of_the_gates_that_need_it(
    bench: Bench, pair: tuple[PosingEngine, PosingEngine]
) -> None:
    (bench.pytester.path / "llmparity.lock").write_text("format = 1\nmargins = 3\n")

    result = bench.run(engines=pair)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*llmparity.lock: margins is no table*"])


@pytest.mark.slow
def test_near_ties_are_ignored_by_what_was_accepted_and_by_nothing_else(
    bench: Bench, pair: tuple[PosingEngine, PosingEngine]
) -> None:
    bench.gate('check.text(margin=0.2, ignore="near-ties")')
    without = bench.run(engines=pair)
    calibrated(pair)
    accepted = bench.run(engines=pair)

    without.assert_outcomes(errors=1)
    told = " ".join(without.stdout.str().split())
    assert 'check.text(margin=0.2, ignore="near-ties") takes its shift from llmparity.lock, which has none' in told
    assert 'such as check.text(margin=0.2, ignore="near-ties", shift=0.06)' in told
    assert accepted.ret == 0
    told = " ".join(accepted.stdout.str().split())
    assert "0 of 0 forks near-ties and not counted: the lead moved by at most 0.218 nats there, 3.63 times the" in told


def test_text_without_a_margin_is_an_error_at_set_up_that_names_what_gives_one(
    bench: Bench, pair: tuple[PosingEngine, PosingEngine]
) -> None:
    bench.gate("check.text()")
    result = bench.run(engines=pair)

    result.assert_outcomes(errors=1)
    told = " ".join(result.stdout.str().split())
    assert "check.text() has no margin: how often answers part depends on the prompts and the model" in told
    assert "such as check.text(margin=0.05); or, with the unquantised GGUF file of the model" in told
    assert "llmparity calibrate --ladder FILE --prompts PROMPTS (then commit llmparity.lock)" in told
    assert [engine.count for engine in pair] == [0, 0]


def test_a_ladder_of_other_prompts_is_an_error_at_set_up_whatever_their_file_is_called(
    bench: Bench, pair: tuple[PosingEngine, PosingEngine]
) -> None:
    bench.gate("check.text()")
    ladder = dataclasses.replace(LADDER, prompt_set="prompts")
    lockfile.write(bench.pytester.path / "llmparity.lock", {}, Agreed().measuring(ladder))
    result = bench.run(engines=pair)

    result.assert_outcomes(errors=1)
    told = " ".join(result.stdout.str().split())
    assert "the ladder of tiny-F16.gguf was measured on prompts as it was then, and other prompts part more or" in told
    assert "run: llmparity calibrate --ladder tiny-F16.gguf --prompts FILE (that of prompts). Give a share" in told
    assert [engine.count for engine in pair] == [0, 0]


def test_a_set_that_is_too_small_without_a_margin_hears_of_the_margin_and_not_of_its_size(
    bench: Bench, pair: tuple[PosingEngine, PosingEngine]
) -> None:
    bench.gate("check.text()")
    prompts = bench.pytester.path / "prompts.jsonl"
    prompts.write_text(prompts.read_text().splitlines()[0])
    result = bench.run(engines=pair)

    result.assert_outcomes(errors=1)
    told = " ".join(result.stdout.str().split())
    assert "check.text() has no margin: how often answers part depends on the prompts and the model" in told
    assert "5 %" not in told
    assert "not even without a fork" not in told
