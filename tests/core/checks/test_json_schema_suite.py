"""The official JSON Schema test suite, held against what ``check.schema()`` says of the same schemas and answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pytest_llmparity.core.checks.schema.contract import Contract
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.sample import Completion

SUITE = Path(__file__).parents[3] / "fixtures/json-schema-test-suite"
DRAFT = "draft2020-12"


def outcomes() -> Iterator[tuple[str, int, str]]:
    """The name of each test of the suite, how many tests it is, and how we deviate: empty where we agree."""
    for file in sorted((SUITE / "tests" / DRAFT).rglob("*.json")):
        for group in json.loads(file.read_text("utf-8")):
            name = f"{file.relative_to(SUITE / 'tests')}: {group['description']}"
            try:
                contract = Contract.from_text(json.dumps(group["schema"]), "the schema")
            except DesignError as refused:
                words = str(refused)
                how = "no object" if "is not a JSON Schema object" in words else "nothing is fetched"
                assert how == "no object" or "nothing is fetched" in words or "Unknown meta-schema" in words, words
                yield name, len(group["tests"]), how
                continue
            for test in group["tests"]:
                fits = contract.hold(Completion(text=json.dumps(test["data"]))).problem is None
                agrees = fits == test["valid"]
                yield f"{name}: {test['description']}", 1, "" if agrees else "judged otherwise"


def test_our_verdicts_are_those_of_the_official_suite_but_for_the_deviations_that_are_listed() -> None:
    listed = json.loads((SUITE / "deviations.json").read_text("utf-8"))
    agreed, deviations = 0, dict[str, list[str]]()
    for name, count, how in outcomes():
        if how:
            deviations.setdefault(how, []).append(name)
        else:
            agreed += count

    assert deviations == {how: part["tests"] for how, part in listed["deviations"].items()}
    assert agreed == listed["agreed"]
    assert all(part["why"] for part in listed["deviations"].values())
