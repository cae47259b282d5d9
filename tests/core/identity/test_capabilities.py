from __future__ import annotations

import dataclasses

import pytest

from pytest_llmparity.core.identity.capabilities import OVERFLOWS, WORDS, Capabilities
from pytest_llmparity.core.sample import from_json, to_json

DECLARED = Capabilities(logprobs=True, json_schema=False, schema_order=True, overflow="refused")
FOUND = DECLARED.corrected(
    {
        "logprobs": True,
        "json_schema": False,
        "schema_order": False,
        "seed": True,
        "tools": None,
        "overflow": "middle cut",
    }
)


def test_what_probes_found_takes_the_place_of_what_was_declared() -> None:
    assert (FOUND.schema_order, FOUND.seed, FOUND.tools, FOUND.overflow) == (False, True, None, "middle cut")
    assert FOUND.probed == ("logprobs", "json_schema", "schema_order", "seed", "overflow")
    assert FOUND.corrected({"seed": False}).probed == FOUND.probed


def test_a_promise_that_is_not_kept_is_a_contradiction() -> None:
    assert FOUND.contradictions(DECLARED) == {"schema_order": (True, False), "overflow": ("refused", "middle cut")}
    assert DECLARED.contradictions(DECLARED) == {}


@pytest.mark.parametrize(
    ("can", "lacks"),
    [
        (Capabilities(), False),
        (Capabilities(json_schema=True), False),
        (Capabilities(json_schema=False), True),
        (Capabilities().corrected({"json_schema": False}), True),
    ],
    ids=["nobody knows", "yes", "declared no", "probed no"],
)
def test_what_nobody_promised_and_is_not_there_is_lacking(can: Capabilities, lacks: bool) -> None:
    declared = dataclasses.replace(can, json_schema=can.json_schema if not can.probed else None)

    assert can.lacks("json_schema", declared) is lacks


def test_what_was_promised_and_is_not_there_is_a_finding_and_not_lacking() -> None:
    assert FOUND.schema_order is False
    assert not FOUND.lacks("schema_order", DECLARED)


@pytest.mark.parametrize(
    ("name", "basis"),
    [
        ("context_length", "declared"),
        ("seed", "probed"),
        ("json_schema", "declared, confirmed by a probe"),
        ("schema_order", "probed, declared otherwise"),
    ],
)
def test_where_a_value_comes_from_is_said(name: str, basis: str) -> None:
    assert FOUND.basis(name, DECLARED) == basis


def test_every_field_has_words_for_every_value() -> None:
    for name, (yes, no) in WORDS.items():
        assert Capabilities(**{name: True}).sentence(name) == yes  # type: ignore[arg-type]
        assert Capabilities(**{name: False}).sentence(name) == no  # type: ignore[arg-type]
        assert Capabilities().sentence(name) == ""
    for value, words in OVERFLOWS.items():
        assert Capabilities(overflow=value).sentence("overflow") == words
    assert Capabilities(unknown_fields="dropped").sentence("unknown_fields") == "drops fields it does not know"
    assert Capabilities(unknown_fields="refused").sentence("unknown_fields") == "refuses fields it does not know"
    odd = Capabilities(odd_logprobs="come after a filter").sentence("odd_logprobs")
    assert odd == "gives logprobs that come after a filter"
    assert "1024 tokens" in Capabilities(context_length=1024).sentence("context_length")
    fields = {field.name for field in dataclasses.fields(Capabilities)} - {"probed"}
    assert fields == {*WORDS, "overflow", "unknown_fields", "odd_logprobs", "context_length"}


def test_findings_say_what_the_server_does_and_what_its_kind_is_known_for() -> None:
    assert FOUND.findings("ollama", DECLARED) == (
        "ollama forces a schema's properties in alphabetical order "
        "(found by a probe; its kind forces a schema's properties in declared order)",
        "ollama cuts the middle out of a conversation that does not fit its context "
        "(found by a probe; its kind refuses a conversation that does not fit its context)",
    )


def test_capabilities_cross_process_borders() -> None:
    assert from_json(Capabilities, to_json(FOUND)) == FOUND
