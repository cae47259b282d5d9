"""The official JSON Schema test suite, held against what ``check.schema()`` says of the same schemas and answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_llmparity.core.checks.schema.contract import Contract
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.sample import Completion

SUITE = Path(__file__).parents[3] / "fixtures/json-schema-test-suite"
DRAFTS = {
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "",  # what a schema without a dialect is in
}
"""The folders of the suite that are held, and what a schema there says of its draft where it does not itself."""


def outcomes(draft: str) -> Iterator[tuple[str, int, str]]:
    """The name of each test of the suite, how many tests it is, and how we deviate: empty where we agree."""
    for file in sorted((SUITE / "tests" / draft).rglob("*.json")):
        for group in json.loads(file.read_text("utf-8")):
            name = f"{file.relative_to(SUITE / 'tests')}: {group['description']}"
            schema = group["schema"]
            if isinstance(schema, dict) and DRAFTS[draft]:
                schema = {"$schema": DRAFTS[draft], **schema}
            try:
                contract = Contract.from_text(json.dumps(schema), "the schema")
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


@pytest.mark.parametrize("draft", DRAFTS)
def test_our_verdicts_are_those_of_the_official_suite_but_for_the_deviations_that_are_listed(draft: str) -> None:
    listed = json.loads((SUITE / "deviations.json").read_text("utf-8"))
    of_draft = listed["drafts"][draft]
    agreed, total, deviations = 0, 0, dict[str, list[str]]()
    for name, count, how in outcomes(draft):
        total += count
        if how:
            deviations.setdefault(how, []).append(name)
        else:
            agreed += count

    assert deviations == {how: part["tests"] for how, part in of_draft["deviations"].items()}
    assert (agreed, total) == (of_draft["agreed"], of_draft["of"])
    assert all(listed["why"][how] for how in deviations)


def test_the_figures_of_the_documentation_are_those_of_the_suite() -> None:
    drafts = json.loads((SUITE / "deviations.json").read_text("utf-8"))["drafts"]
    page = (SUITE.parents[1] / "docs/writing-tests.md").read_text("utf-8")

    for draft in drafts.values():
        assert f"{draft['agreed']} of {draft['of']}" in page
