"""JSON that an application cannot read does not fit.

In a Markdown code block although a schema was asked for (microsoft/essex-toolkit 437, jundot/omlx 613); a field
declared ``date-time`` that holds free words, and rules of a model that its schema does not carry (ollama/ollama 10936,
python-jsonschema/jsonschema 848).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.plugin.reported.wire import Answer, Json, plain, question

ORDER = {"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]}
ROWS = [{"id": f"q{n}", "messages": [{"role": "user", "content": f"order {100 + n}"}]} for n in range(12)]
MODEL = """
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import pytest
from pydantic import AfterValidator, BaseModel
from pytest_llmparity import check

def mailbox(value):
    assert "@" in value
    return value

class Bill(BaseModel):
    due: datetime
    amount: Decimal
    mail: Annotated[str, AfterValidator(mailbox)]

@pytest.mark.parity("prompts.jsonl", check.schema(Bill, rate=0.7, gap=0.3), max_tokens=64)
def test_bills(parity_run): ...
"""


def bare(body: Json) -> str:
    return json.dumps({"order": int("0" + "".join(filter(str.isdigit, question(body))))})


WRAPPED = {
    "block": ("```json\n%s\n```", "in a Markdown code block"),
    "odd": ("```Json %s ```", "in a Markdown code block"),
    "thinks": ("let me see</think>%s", "with reasoning before the JSON"),
    "says": ("Sure: %s", "with text round the JSON"),
}
"""What engines put round their JSON, and what it is called."""


def wrapped(around: str) -> Callable[[Json], Answer]:
    """Return an engine whose JSON stands in ``around``."""
    return plain(lambda body: around.replace("%s", bare(body)))


@pytest.mark.slow
def test_engines_that_wrap_their_json_differ_and_lenient_says_how_often(project: Any) -> None:
    project.engine("base", plain(bare))
    for name, (around, _) in WRAPPED.items():
        project.engine(name, wrapped(around))
    project.prompts(ROWS)
    project.gate(f"check.schema({ORDER!r}, rate=0.7, gap=0.3, agree=0.7)")

    strict = project.run()

    strict.assert_outcomes(failed=1)
    outcomes = [(v["kind"], v["engine"], v["outcome"]) for v in project.report()["verdicts"]]
    kinds = ("schema.rate", "schema.gap", "schema.agree")
    failed = {(kind, name, "FAIL") for kind in kinds for name in WRAPPED}
    assert sorted(outcomes) == sorted([("schema.rate", "base", "PASS"), *failed])
    for name, (_, wrapping) in WRAPPED.items():
        assert f"12 of 12 answers of {name} {wrapping}: json.loads refuses that" in strict.stdout.str()

    project.gate(f"check.schema({ORDER!r}, rate=0.7, gap=0.3, agree=0.7, lenient=True)")
    lenient = project.run("-v")

    lenient.assert_outcomes(passed=1)
    printed = " ".join(lenient.stdout.str().split())
    for name, (_, wrapping) in WRAPPED.items():
        assert f"12 of 12 answers of {name} {wrapping}: schema.rate" in printed
    for verdict in project.report()["verdicts"]:
        engine = verdict["engine"]
        wanted = [
            {"engine": name, "what": wrapping, "count": 12, "of": 12, "accepted": True}
            for name, (_, wrapping) in WRAPPED.items()
            if name == engine
        ]
        assert verdict["lenience"] == wanted


@pytest.mark.slow
def test_an_answer_that_the_model_refuses_does_not_fit(project: Any) -> None:
    def good(body: Json) -> str:
        return json.dumps({"due": "2026-03-01T09:00:00Z", "amount": "19.90", "mail": "desk@example.org"})

    def bad(body: Json) -> str:
        return json.dumps({"due": "next Tuesday", "amount": "19.90", "mail": "the desk"})

    project.engine("base", plain(good))
    project.engine("cand", plain(bad))
    project.prompts(ROWS)
    project.write("test_gate.py", MODEL)

    result = project.run()

    result.assert_outcomes(failed=1)
    assert {(v["kind"], v["engine"]): v["outcome"] for v in project.report()["verdicts"]} == {
        ("schema.rate", "base"): "PASS",
        ("schema.rate", "cand"): "FAIL",
        ("schema.gap", "cand"): "FAIL",
    }
    result.stdout.fnmatch_lines(["*12 of 12 answers of cand do not fit; first: q0: $.due: Input should be a valid*"])
    replayed = project.run("--parity-mode=replay")
    replayed.assert_outcomes(failed=1)
