"""What a policy holds checks to: which of their numbers change, what is refused, and which limits name nothing."""

from __future__ import annotations

import dataclasses

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.errors import ConfigError
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.gate.limits import TAKES, Limit
from pytest_llmparity.core.gate.policy import Policy, parse_policy


def policy(text: str) -> Policy:
    return parse_policy(text.encode(), source="release.toml")


@pytest.mark.parametrize(
    ("limits", "before", "after"),
    [
        ("check = 'text'\nmargin = 0.03", check.text(margin=0.05), "text(margin=0.03)"),
        ("check = 'text'\nby = 'tag'", check.text(margin=0.05), 'text(margin=0.05, by="tag")'),
        ("check = 'logprobs'\nshift = 0.02", check.logprobs(), "logprobs(shift=0.02)"),
        ("check = 'similarity'\nat_least = 0.9", check.similarity(), "similarity(at_least=0.9)"),
        ("check = 'schema'\ngap = 0.02", check.schema({}, rate=0.9), "schema({…}, rate=0.9, gap=0.02)"),
        ("check = 'answers'\nflips = 0.02", check.answers(rate=0.9), "answers(rate=0.9, flips=0.02)"),
        ("check = 'tools'\ntrigger = 0.9", check.tools(rate=0.95), "tools(trigger=0.9, rate=0.95)"),
        ("check = 'value'\nagree = 0.8\ndrift = 0.1", check.value(agree=0.9), "value(agree=0.8, drift=0.1)"),
        (
            "check = 'latency'\nttft_p50 = '250ms'\ne2e_p95 = 2.5\nsuccess_rate = 0.99",
            check.latency(ttft_p50="1s", tpot_p50="x1.2"),
            "latency(ttft_p50=250ms, tpot_p50=x1.2, e2e_p95=2.5 s, success_rate=0.99)",
        ),
        ("check = 'text'\nmargin = 0.03", check.prompts(), "prompts()"),
        ("check = 'text'\ntest = 'test_other'\nmargin = 0.03", check.text(margin=0.05), "text(margin=0.05)"),
        (
            "check = 'text'\ntest = 'test_ch*'\nmargin = 0.03\n[[limit]]\ncheck = 'text'\nmargin = 0.1\nby = 'tag'",
            check.text(margin=0.05),
            'text(margin=0.03, by="tag")',
        ),
    ],
)
def test_a_check_is_held_to_what_the_policy_says(limits: str, before: Check, after: str) -> None:
    held = policy(f"[[limit]]\n{limits}").held("a.py::test_chat", before)

    assert str(held) == after
    assert held.where == before.where


def test_what_is_no_check_is_left_as_it_is() -> None:
    assert policy("[[limit]]\ncheck = 'text'\nmargin = 0.1").held("a.py::test_chat", "prompts.jsonl") == "prompts.jsonl"


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ("margin = 0.1", "limit[0].check is missing"),
        ("check = 'txt'\nmargin = 0.1", "limit[0].check is \"txt\"; allowed: 'text', "),
        ("check = 'text'", "sets nothing; text takes margin, by"),
        ("check = 'text'\nmargin = 5", "limit[0].margin is 5; expected a number at most 1.0"),
        ("check = 'text'\nmargin = nan", "limit[0].margin is NaN; expected a finite number"),
        ("check = 'text'\nrate = 0.9", "text takes no rate; it takes margin, by"),
        ("check = 'text'\nby = 'group'", "limit[0].by is \"group\"; allowed: 'tag'"),
        ("check = 'schema'\ngap = 1", "limit[0].gap is 1; expected"),
        ("check = 'latency'\nttft_p50 = 'fast'", 'a budget is "x1.25"'),
        ("check = 'latency'\nttft_p51 = '1s'", "limit[0].ttft_p51 is not a key (did you mean 'ttft_p"),
    ],
)
def test_what_is_wrong_with_a_limit_is_said(limit: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        policy(f"[[limit]]\n{limit}")

    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (
            "[[limit]]\ncheck = 'text'\ntest = 'test_chta'\nmargin = 0.1",
            "names no test of the suite (did you mean 'test_c",
        ),
        (
            "[[limit]]\ncheck = 'text'\ntest = 'some/folder/a.py::test_chta'\nmargin = 0.1",
            "names no test of the suite (did you mean 'test_c",
        ),
        ("[[limit]]\ncheck = 'schema'\nrate = 0.9", "limit 1 (schema rate=0.9) names no check of test_chat, which has"),
        (
            "[[rule]]\nlevel = 'advisory'\ncheck = 'text[peom]'",
            "no tag of the prompts of test_chat (did you mean 'poem'?)",
        ),
        ("[[rule]]\nlevel = 'advisory'\ncheck = 'text[poem]'", None),
        ("[[rule]]\nlevel = 'advisory'\ncheck = 'text[p*]'", None),
    ],
)
def test_what_names_nothing_is_refused_with_the_nearest_name(table: str, why: str | None) -> None:
    tests, tags = {"a.py::test_chat": ["text"]}, {"a.py::test_chat": ["poem", "code"]}

    if why is None:
        policy(table).refuse_idle(tests, declared=True, tags=tags)
        return
    with pytest.raises(ConfigError) as refused:
        policy(table).refuse_idle(tests, declared=True, tags=tags)
    assert why in str(refused.value)


def test_every_key_is_an_argument_of_its_check_and_the_hash_is_of_all_of_it() -> None:
    made: dict[str, Check] = {
        "text": check.text(margin=0.1),
        "logprobs": check.logprobs(),
        "similarity": check.similarity(),
        "schema": check.schema({}, rate=0.9),
        "answers": check.answers(rate=0.9),
        "tools": check.tools(rate=0.9),
        "value": check.value(agree=0.9),
    }
    for kind, keys in TAKES.items():
        if kind != "latency":
            assert set(keys) <= {field.name for field in dataclasses.fields(made[kind])}, kind  # type: ignore[arg-type]
    assert {key for keys in TAKES.values() for key in keys} == set(Limit.model_fields) - {"check", "test"}
    first, second = (policy(f"[[limit]]\ncheck = 'text'\nmargin = {margin}").sha256 for margin in (0.1, 0.2))
    assert first != second
