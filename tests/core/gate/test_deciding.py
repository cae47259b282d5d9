from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pytest_llmparity.core.errors import ConfigError
from pytest_llmparity.core.gate.deciding import Decision, decide
from pytest_llmparity.core.gate.policy import Policy, Ruled, parse_policy
from pytest_llmparity.core.verdict import Outcome, Verdict

PASS, FAIL, OPEN = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
SHIP, HOLD, INCONCLUSIVE = Ruled.SHIP, Ruled.HOLD, Ruled.INCONCLUSIVE


def verdict(kind: str, outcome: Outcome, engine: str = "new", baseline: str | None = "old", **more: Any) -> Verdict:
    values = {"test": "a.py::test_chat", "check": kind, "kind": kind, **more}
    return Verdict(outcome=outcome, engine=engine, baseline=baseline, **values)


def decision(*verdicts: Verdict, policy: str = "", tests: dict[str, str] | None = None) -> Decision:
    read = parse_policy(policy.encode(), source="p.toml") if policy else Policy()
    return decide(read, verdicts, baseline="old", candidate="new", tests=tests)


@pytest.mark.parametrize(
    ("outcomes", "ruled"),
    [
        ([PASS, PASS], SHIP),
        ([PASS, FAIL], HOLD),
        ([PASS, Outcome.ERROR], HOLD),
        ([PASS, Outcome.INCOMPARABLE], HOLD),
        ([PASS, OPEN], INCONCLUSIVE),
        ([FAIL, OPEN], HOLD),
        ([PASS, Outcome.SKIPPED], INCONCLUSIVE),
        ([], INCONCLUSIVE),
    ],
)
def test_without_a_policy_every_verdict_is_required(outcomes: list[Outcome], ruled: Ruled) -> None:
    assert decision(*(verdict(f"k{n}", outcome) for n, outcome in enumerate(outcomes))).outcome is ruled


@pytest.mark.parametrize(("word", "ruled"), [("ship", SHIP), ("hold", HOLD), ("inconclusive", INCONCLUSIVE)])
@pytest.mark.parametrize(("key", "outcome"), [("inconclusive", OPEN), ("skipped", Outcome.SKIPPED)])
def test_a_policy_says_what_an_open_verdict_means(key: str, outcome: Outcome, word: str, ruled: Ruled) -> None:
    assert decision(verdict("text", PASS), verdict("a", outcome), policy=f"{key} = '{word}'").outcome is ruled


def test_what_is_shipped_open_is_not_enough_alone() -> None:
    assert decision(verdict("text", OPEN), policy="inconclusive = 'ship'").outcome is INCONCLUSIVE


def test_an_advisory_verdict_decides_nothing() -> None:
    policy = "[[rule]]\ncheck = 'text'\nlevel = 'advisory'"

    decided = decision(verdict("text", FAIL), verdict("schema.gap", PASS), policy=policy)

    assert decided.outcome is SHIP
    assert [ruling.verdict.kind for ruling in decided.of(HOLD, "advisory")] == ["text"]
    assert not decided.of(HOLD)


def test_verdicts_on_others_decide_nothing() -> None:
    others = [
        verdict("schema.rate", FAIL, engine="old", baseline=None),
        verdict("text", FAIL, engine="third"),
        verdict("text", FAIL, baseline="third"),
    ]

    assert decision(*others, verdict("schema.rate", PASS, baseline=None)).outcome is SHIP
    assert decision(*others).outcome is INCONCLUSIVE


def test_a_baseline_that_is_not_there_says_nothing_of_the_candidate() -> None:
    error = verdict("text", Outcome.ERROR)

    assert decision(dataclasses.replace(error, blocked_by="old")).outcome is INCONCLUSIVE
    assert decision(dataclasses.replace(error, blocked_by="new")).outcome is HOLD


def test_a_test_that_failed_without_a_verdict_holds() -> None:
    passed, broken = verdict("text", PASS), {"a.py::test_app": "assert 1 == 2"}
    lenient = "[[rule]]\ntest = 'test_app'\ncheck = 'test'\nlevel = 'advisory'"

    assert decision(passed, tests=broken).outcome is HOLD
    assert decision(passed, tests=broken, policy=lenient).outcome is SHIP
    assert decision(passed, tests={"a.py::test_app": ""}, policy=lenient).outcome is SHIP
    assert decision(passed, tests={"a.py::test_app": ""}).broken == ()


@pytest.mark.parametrize(
    ("test", "ruled"),
    [
        ("test_app[old]", INCONCLUSIVE),
        ("test_app[json-old-1]", INCONCLUSIVE),
        ("test_app[new]", HOLD),
        ("test_app[old-new]", HOLD),
        ("test_app[older]", HOLD),
        ("test_old", HOLD),
    ],
)
def test_a_test_that_fails_on_the_baseline_alone_does_not_hold(test: str, ruled: Ruled) -> None:
    decided = decision(verdict("text", PASS), tests={f"a.py::{test}": "assert 1 == 2"})

    assert (decided.outcome, decided.broken[0].ruled) == (ruled, ruled)


def test_a_name_within_the_other_one_is_not_taken_for_it() -> None:
    def outcome(test: str, baseline: str, candidate: str) -> Ruled:
        passed = verdict("text", PASS, engine=candidate, baseline=baseline)
        return decide(Policy(), [passed], baseline=baseline, candidate=candidate, tests={test: "assert 0"}).outcome

    assert outcome("t[golden-f16]", "golden-f16", "f16") is INCONCLUSIVE
    assert outcome("t[f16-old]", "f16", "f16-old") is HOLD


def test_the_gravest_required_verdict_comes_first() -> None:
    policy = "[[rule]]\ncheck = 'advice'\nlevel = 'advisory'"
    verdicts = [verdict("a", PASS), verdict("advice", Outcome.ERROR), verdict("b", OPEN), verdict("c", FAIL)]

    rulings = decision(*verdicts, policy=policy).rulings

    assert [ruling.verdict.kind for ruling in rulings] == ["c", "b", "a", "advice"]


def test_a_rule_that_names_nothing_that_was_judged_is_an_error() -> None:
    with pytest.raises(ConfigError, match="names no check of test_chat, which judged text, test"):
        decision(verdict("text", PASS), policy="[[rule]]\ncheck = 'schema.gap'\nlevel = 'advisory'")
