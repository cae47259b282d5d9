from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.cli import main
from pytest_llmparity.run.probe import canaries
from pytest_llmparity.testing import Fault, Reply

if TYPE_CHECKING:
    from tests.doubles.posing import PosingEngine
    from tests.plugin.conftest import Bench

FROZEN = ("--parity-frozen", "-rN")


@pytest.fixture
def locked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> tuple[PosingEngine, PosingEngine]:
    """Two engines in the lock of the project, and a gate."""
    monkeypatch.chdir(bench.pytester.path)
    bench.by_address = True
    first = bench.engine(poses_as="llamacpp", quantization="Q8_0")
    second = bench.engine(poses_as="llamacpp", quantization="Q8_0")
    bench.gate("check.prompts()")
    assert main(["lock", f"a={first.base_url}", f"b={second.base_url}"]) == 0
    return first, second


def test_engines_that_are_as_locked_pass(bench: Bench, locked: tuple[PosingEngine, PosingEngine]) -> None:
    result = bench.run(*FROZEN, engines=locked)

    assert result.ret == 0
    result.stdout.no_fnmatch_line("*llmparity.lock*")


def test_an_engine_that_changed_is_incomparable_before_a_prompt_is_sent(
    bench: Bench, locked: tuple[PosingEngine, PosingEngine]
) -> None:
    locked[1].quantization = "Q4_0"
    asked = len(locked[1].requests)

    result = bench.run(*FROZEN, engines=locked)

    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "INCOMPARABLE prompts, b against a: b: it differs from llmparity.lock: quantization: Q8_0 -> Q4_0; if that "
            "is meant, run: llmparity lock b=http://127.0.0.1:*"
        ]
    )
    assert [request.json["max_tokens"] for request in locked[1].requests[asked:]] == [1], "the warm-up alone"


def test_all_engines_that_changed_are_told_together(bench: Bench, locked: tuple[PosingEngine, PosingEngine]) -> None:
    for engine, quantization in zip(locked, ("Q4_0", "Q6_K"), strict=True):
        engine.quantization = quantization

    result = bench.run(*FROZEN, engines=locked)

    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "INCOMPARABLE prompts, b against a: a: it differs from llmparity.lock: quantization: Q8_0 -> Q4_0; if that "
            "is meant, run: llmparity lock a=http://127.0.0.1:*",
            "  and b: it differs from llmparity.lock: quantization: Q8_0 -> Q6_K; if that is meant, run: llmparity "
            "lock b=http://127.0.0.1:*",
            "a: incomp.  a: it differs from llmparity.lock: quantization: Q8_0 -> Q4_0; *",
            "b: incomp.  b: it differs from llmparity.lock: quantization: Q8_0 -> Q6_K; *",
        ]
    )


@pytest.mark.slow
def test_an_engine_that_changed_is_told_in_any_other_run(
    bench: Bench, locked: tuple[PosingEngine, PosingEngine]
) -> None:
    locked[1].quantization = "Q4_0"

    result = bench.run(engines=locked)

    assert result.ret == 0
    told = " ".join(result.stdout.str().split())
    assert "b: it differs from llmparity.lock: quantization: Q8_0 -> Q4_0; if that is meant, run: llmparity" in told


@pytest.mark.slow
def test_an_engine_or_a_project_without_a_lock_fails_a_frozen_run(
    bench: Bench, locked: tuple[PosingEngine, PosingEngine]
) -> None:
    third = bench.engine(poses_as="llamacpp")

    unlocked = bench.run(*FROZEN, engines=(*locked, third))
    (bench.pytester.path / "llmparity.lock").unlink()
    without = bench.run(*FROZEN, engines=locked)

    assert (unlocked.ret, without.ret) == (1, 1)
    unlocked.stdout.fnmatch_lines(["INCOMPARABLE prompts, c against a: c: it is not in llmparity.lock, and this run *"])
    without.stdout.fnmatch_lines(
        ["INCOMPARABLE prompts, b against a: a: there is no llmparity.lock in *", "  and b likewise"]
    )


@pytest.mark.slow
def test_application_tests_get_no_engine_that_changed(bench: Bench, locked: tuple[PosingEngine, PosingEngine]) -> None:
    locked[1].quantization = "Q4_0"
    bench.pytester.makepyfile(test_gate="def test_app(engine): pass")

    result = bench.run(*FROZEN, engines=locked)

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*b: it differs from llmparity.lock: quantization: Q8_0 -> Q4_0*"])


@pytest.mark.slow
@pytest.mark.parametrize("by", ["environment", "profile"])
def test_a_run_is_frozen_by_environment_and_profile_too(
    bench: Bench, locked: tuple[PosingEngine, PosingEngine], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    locked[1].quantization = "Q4_0"
    bench.configure("[profiles.ci]\nfrozen = true\n")
    if by == "environment":
        monkeypatch.setenv("LLMPARITY_FROZEN", "yes")
    options = ("--parity-profile=ci",) if by == "profile" else ()

    assert bench.run(*options, engines=locked).ret == 1


@pytest.mark.slow
def test_a_replay_asks_no_engine_and_holds_none(bench: Bench, locked: tuple[PosingEngine, PosingEngine]) -> None:
    bench.run(engines=locked)
    (bench.pytester.path / "llmparity.lock").unlink()

    assert bench.run("--parity-mode=replay", *FROZEN).ret == 0


@pytest.mark.slow
def test_engines_that_say_the_same_are_told_apart_in_the_summary(bench: Bench) -> None:
    bench.gate("check.prompts()")
    bench.configure(
        bench.process("a") + bench.process("b", args=["--threads", "2"]) + '[profiles.p]\nengines = ["a", "b"]\n'
    )

    result = bench.run("--parity-profile=p")

    told = " ".join(result.stdout.str().split())
    assert "a and b say the same of themselves; they differ in args (none and --threads 2)" in told


def saying(lead: float) -> Callable[[Mapping[str, Any]], Reply | Fault]:
    return lambda request: Reply(text="all is well in the harbour", lead=lead)


@pytest.fixture
def kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> tuple[PosingEngine, PosingEngine]:
    """Two engines whose answers, with logprobs, are in the lock, and a gate."""
    monkeypatch.chdir(bench.pytester.path)
    first, second = (bench.engine(saying(2.0), poses_as="llamacpp", quantization="Q8_0") for _ in range(2))
    bench.by_address = True
    bench.gate("check.prompts()")
    assert main(["lock", f"a={first.base_url}", f"b={second.base_url}"]) == 0
    return first, second


@pytest.mark.slow
def test_other_weights_behind_the_same_facts_are_refused_before_a_prompt_is_asked(
    bench: Bench, kept: tuple[PosingEngine, PosingEngine]
) -> None:
    kept[1].script = saying(2.4)

    result = bench.run(*FROZEN, engines=kept)

    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "INCOMPARABLE prompts, b against a: b: its canaries do not answer as llmparity.lock says: other weights "
            "(0.4000 nats, 0 of 12 answers part); if that is meant, run: llmparity lock b=http://127.0.0.1:*"
        ]
    )
    assert [bench.asked(engine) for engine in kept] == [[], []]


@pytest.mark.slow
def test_other_weights_are_told_beside_a_baseline_that_changed(
    bench: Bench, kept: tuple[PosingEngine, PosingEngine]
) -> None:
    kept[0].quantization, kept[1].script = "Q4_0", saying(2.4)

    result = bench.run(*FROZEN, engines=kept)

    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "INCOMPARABLE prompts, b against a: a: it differs from llmparity.lock: quantization: Q8_0 -> Q4_0; *",
            "  and b: its canaries do not answer as llmparity.lock says: other weights (0.4000 nats, *",
        ]
    )
    assert [bench.asked(engine) for engine in kept] == [[], []]


@pytest.mark.slow
def test_other_weights_are_told_in_any_other_run_and_the_plan_counts_canaries(
    bench: Bench, kept: tuple[PosingEngine, PosingEngine]
) -> None:
    kept[1].script = saying(2.4)
    before = kept[1].count

    result = bench.run(engines=kept)

    assert result.ret == 0
    told = " ".join(result.stdout.str().split())
    assert "b: its canaries do not answer as llmparity.lock says: other weights (0.4000 nats" in told
    probes = [request for request in kept[1].requests[before:] if "question" not in str(request.json)]
    assert len([request for request in probes if request.json.get("top_logprobs") == 5]) == 12


@pytest.mark.slow
def test_engines_whose_canaries_are_as_locked_have_nothing_said_of_them(
    bench: Bench, kept: tuple[PosingEngine, PosingEngine]
) -> None:
    result = bench.run(*FROZEN, engines=kept)

    assert result.ret == 0
    result.stdout.no_fnmatch_line("*canaries do not answer*")
    result.stdout.no_fnmatch_line("*canaries unchanged*")

    verbose = " ".join(bench.run("-v", *FROZEN, engines=kept).stdout.str().split())

    assert verbose.count("by its canaries unchanged (0.0000 nats, 0 of 12 answers part)") == 2


@pytest.mark.slow
def test_an_engine_that_answers_none_of_its_canaries_is_refused(
    bench: Bench, kept: tuple[PosingEngine, PosingEngine]
) -> None:
    answers, asked = saying(2.0), [case.messages[-1]["content"] for case in canaries.cases() if case.messages]
    kept[1].script = lambda request: (
        Fault.refuse(500) if request["messages"][-1]["content"] in asked else answers(request)
    )

    result = bench.run(*FROZEN, engines=kept)

    assert result.ret == 1
    told = " ".join(result.stdout.str().split())
    assert (
        "b: its canaries cannot be compared with those of llmparity.lock: 0 of 12 were answered; llmparity doctor "
        in told
    )


@pytest.mark.slow
def test_canaries_that_a_hard_stop_leaves_unasked_refuse_nobody(
    bench: Bench, kept: tuple[PosingEngine, PosingEngine]
) -> None:
    kept[1].script = saying(2.4)

    result = bench.run(*FROZEN, "--parity-max-requests=6", engines=kept)

    told = " ".join(result.stdout.str().split())
    assert "other weights" not in told
