from __future__ import annotations

import hashlib
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.errors import ConfigError
from pytest_llmparity.core.gate.policy import Policy, Rule, parse_policy

SOURCE = "release.toml"
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)


def parsed(text: str) -> Policy:
    return parse_policy(text.encode(), source=SOURCE)


@st.composite
def policies(draw: st.DrawFn) -> dict[str, Any]:
    """Tables that a policy file may hold."""
    opened = st.sampled_from(["inconclusive", "hold", "ship"])
    rules = draw(
        st.lists(
            st.tuples(st.sampled_from(["required", "advisory"]), st.none() | TEXTS, TEXTS).map(
                lambda parts: {"level": parts[0], "check": parts[2]} | ({"test": parts[1]} if parts[1] else {})
            ),
            max_size=4,
        )
    )
    table = draw(st.fixed_dictionaries({}, optional={"inconclusive": opened, "skipped": opened}))
    return {**table, **({"rule": rules} if rules else {})}


@given(policies())
def test_what_a_policy_says_is_read_and_hashed(table: dict[str, Any]) -> None:
    text = tomlkit.dumps(table)

    policy = parsed(text)

    assert policy.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert (policy.inconclusive, policy.skipped) == tuple(
        table.get(key, "inconclusive") for key in ("inconclusive", "skipped")
    )
    assert [rule.model_dump(exclude_unset=True) for rule in policy.rules] == table.get("rule", [])


@given(policies(), TEXTS.filter(lambda key: key not in {"inconclusive", "skipped", "otherwise", "rule"}))
def test_a_key_that_nobody_knows_is_refused(table: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=r"^release\.toml: "):
        parsed(tomlkit.dumps({key: "ship", **table}))


@given(st.binary(max_size=80))
def test_any_bytes_are_a_policy_or_an_error_of_ours(content: bytes) -> None:
    try:
        read = parse_policy(content, source=SOURCE).source
    except ConfigError as error:
        read = str(error).partition(":")[0]

    assert read == SOURCE


@given(TEXTS, TEXTS, TEXTS)
def test_only_stars_and_question_marks_are_special(before: str, inside: str, after: str) -> None:
    head, tail = (text.replace("*", "").replace("?", "") for text in (before, after))

    assert Rule(level="required", test=f"{head}*{tail}").fits_test(f"{head}{inside}{tail}")
    assert Rule(level="required", check=f"[{head}]").fits_check([f"[{head}]"])
    assert not Rule(level="required", check=f"{head}x?").fits_check([f"{head}x"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("inconclusive = 'pass'", "inconclusive is \"pass\"; allowed: 'inconclusive', 'hold' or 'ship'"),
        ("required = ['text']", 'required is not a key: write [[rule]] with level = "required"'),
        ("margin = 0.1", 'margin is not a key: write [[limit]] with check = "text" and margin = 0.03'),
        ("inconclusiv = 'hold'", "inconclusiv is not a key (did you mean 'inconclusive'?)"),
        ("[[rule]]\nlevel = 'advisory'\nchek = 'text'", "rule[0].chek is not a key (did you mean 'check'?)"),
        ("[[rule]]\nlevel = 'advisory'", "rule[0] names neither test nor check"),
        ("[[rule]]\ncheck = 'text'", "rule[0].level is missing"),
        ("[[rule]]\nlevel = 'advisory'\ncheck = ''", "rule[0].check is"),
        ("otherwise = 'advisory'", "the policy requires nothing, so it would ship anything"),
        ("otherwise = 'advisory'\n[[rule]]\nlevel = 'advisory'\ncheck = 'text'", "requires nothing"),
        ("rule = 3", "rule is 3; expected a list"),
        ("a = ", "not TOML: "),
    ],
)
def test_what_is_wrong_with_a_policy_is_said(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parsed(text)

    assert why in str(refused.value)


RULES = """
[[rule]]
test = "test_chat"
check = "text.repeat"
level = "required"

[[rule]]
check = "text"
level = "advisory"
"""


@pytest.mark.parametrize(
    ("test", "names", "level"),
    [
        ("a.py::test_chat", ("text.repeat", "text"), "required"),
        ("a.py::test_chat", ("text",), "advisory"),
        ("a.py::test_other", ("text.repeat", "text"), "advisory"),
        ("a.py::test_other", ("schema.rate", "schema"), "required"),
    ],
)
def test_the_first_rule_that_names_a_verdict_counts(test: str, names: tuple[str, ...], level: str) -> None:
    assert parsed(RULES).level(test, names) == level


@pytest.mark.parametrize("pattern", ["tests/a.py::TestIt::test_x[fr-1]", "TestIt::test_x[fr-1]", "test_x[fr-1]", "*x*"])
def test_a_test_is_named_with_or_without_its_file(pattern: str) -> None:
    assert Rule(level="required", test=pattern).fits_test("tests/a.py::TestIt::test_x[fr-1]")


@pytest.mark.parametrize(
    ("rule", "declared", "why"),
    [
        (
            "test = 'test_gone'",
            True,
            'rule 1 (test = "test_gone") names no test of the suite; it has test_chat',
        ),
        (
            "test = 'some/folder/test_a.py::test_caht'",
            True,
            "names no test of the suite (did you mean 'test_chat'?); it has test_chat",
        ),
        ("check = 'latency.*'", True, "names no check of test_chat, which has text, schema"),
        (
            "check = 'schema.gap'",
            False,
            "names no check of test_chat (did you mean 'schema.rate'?), which judged schema.rate, schema, text",
        ),
        ("check = 'schema.gap'", True, None),
        ("check = 'test'", True, None),
        ("check = '*'", True, None),
        ("test = 'test_ch*'\ncheck = 'sch*'", False, None),
    ],
)
def test_a_rule_that_names_nothing_is_refused(rule: str, declared: bool, why: str | None) -> None:
    policy = parsed(f"[[rule]]\nlevel = 'advisory'\n{rule}")
    kinds = ["text", "schema"] if declared else ["schema.rate", "schema", "text"]
    known = {"a.py::test_chat": kinds}

    if why is None:
        policy.refuse_idle(known, declared=declared)
        return
    with pytest.raises(ConfigError) as refused:
        policy.refuse_idle(known, declared=declared)
    assert why in str(refused.value)
