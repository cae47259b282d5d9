from __future__ import annotations

from typing import Any

import pytest

from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.sample import Fact, Identity, from_json, to_json


def facts(**values: str) -> dict[str, Fact]:
    return {name: Fact(value=value, source="reported") for name, value in values.items()}


@pytest.mark.parametrize(
    ("told", "version"),
    [({"version": "0.33.0", "build": "b1"}, "0.33.0"), ({"build": "b1"}, "b1"), ({}, None)],
)
def test_the_version_is_what_the_server_tells(told: dict[str, str], version: str | None) -> None:
    assert EngineRecord(name="a", kind="vllm", identity=Identity(facts=facts(**told))).version == version


@pytest.mark.parametrize(
    ("more", "unusable"),
    [({}, None), ({"error": "down"}, "down"), ({"incomparable": "another"}, "another")],
)
def test_an_engine_is_of_no_use_with_an_error_or_as_another_one(more: dict[str, Any], unusable: str | None) -> None:
    assert EngineRecord(name="a", kind="vllm", **more).unusable == unusable


def test_a_record_is_stored_and_read_again() -> None:
    record = EngineRecord(
        name="a",
        kind="vllm",
        identity=Identity(facts=facts(version="1")),
        notes=("a: pin digest unverified",),
        unasked={"unit": {"case": "no word for it"}},
    )

    assert from_json(EngineRecord, to_json(record)) == record


def test_what_an_older_version_wrote_down_is_read() -> None:
    stored = {"name": "a", "kind": "vllm", "identity": {"facts": {}}, "launch": "process", "gone_since": 1}

    assert from_json(EngineRecord, stored) == EngineRecord(name="a", kind="vllm", launch="process")
