"""What ``json.loads`` refuses does not fit; what is forgiven is counted by engine, on a PASS too."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.family import with_notes
from pytest_llmparity.core.compare.wrapped import CODE_BLOCK, REASONING
from pytest_llmparity.core.verdict import Lenience, Outcome, Verdict
from pytest_llmparity.core.words.explain import block, remarks

if TYPE_CHECKING:
    from tests.core.conftest import Answer, Factory

GOOD = '{"order": 7}'
SCHEMA = {"type": "object", "required": ["order"]}
BLOCKS = [
    f"```json\n{GOOD}\n```",
    f"```json {GOOD} ```",
    f"~~~\r\n{GOOD}\r\n~~~",
    f"```JSON5\n{GOOD}",
] * 15
REFUSED = "json.loads refuses that, so they do not fit (lenient=True reads it)"


def judge(make: Factory, theirs: Sequence[Answer], **limits: Any) -> dict[tuple[str, str], Verdict]:
    evidence = make.evidence(make.engine("base", [GOOD] * len(theirs)), make.engine("cand", theirs), cases=len(theirs))
    checked = check.schema(SCHEMA, rate=0.9, gap=0.1, agree=0.9, **limits)
    return {(v.kind, v.engine): with_notes(v, evidence) for v in checked.judge(evidence)}


def test_an_engine_that_wraps_its_json_differs_from_one_that_does_not(make: Factory) -> None:
    verdicts = judge(make, BLOCKS)

    assert {key: verdict.outcome for key, verdict in verdicts.items()} == {
        ("schema.rate", "base"): Outcome.PASS,
        ("schema.rate", "cand"): Outcome.FAIL,
        ("schema.gap", "cand"): Outcome.FAIL,
        ("schema.agree", "cand"): Outcome.FAIL,
    }
    rate = verdicts["schema.rate", "cand"]
    assert rate.lenience == (Lenience(engine="cand", what=CODE_BLOCK, count=60, of=60, accepted=False),)
    assert f"  60 of 60 answers of cand {CODE_BLOCK}: {REFUSED}" in block(rate)
    assert "do not fit; first: c0: not JSON (in a Markdown code block): Expecting value" in rate.details[0]
    assert verdicts["schema.rate", "base"].lenience == ()


def test_lenient_reads_them_and_says_of_how_many_on_a_pass_too(make: Factory) -> None:
    verdicts = judge(make, BLOCKS, lenient=True)

    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.PASS}
    counted = (Lenience(engine="cand", what=CODE_BLOCK, count=60, of=60, accepted=True),)
    assert [verdicts[kind, "cand"].lenience for kind in ("schema.rate", "schema.gap", "schema.agree")] == [counted] * 3
    assert remarks(verdicts["schema.rate", "cand"]) == [f"60 of 60 answers of cand {CODE_BLOCK}"]
    assert verdicts["schema.rate", "cand"].check == "schema({…}, rate=0.9, gap=0.1, agree=0.9, lenient=True)"


def test_a_few_wrapped_answers_are_counted_where_the_check_passes_without_them(make: Factory) -> None:
    theirs = [GOOD] * 197 + [f"Sure: {GOOD}"] * 3
    verdict = judge(make, theirs)["schema.rate", "cand"]

    assert verdict.outcome is Outcome.PASS
    assert remarks(verdict) == [f"3 of 200 answers of cand with text round the JSON: {REFUSED}"]


def test_reasoning_that_the_reader_took_out_of_the_text_is_what_the_server_sent(make: Factory) -> None:
    moved = make.completion(GOOD, reasoning="hm", normalised=("inline </think> moved to reasoning",))

    strict, lenient = judge(make, [moved] * 60), judge(make, [moved] * 60, lenient=True)

    assert strict["schema.gap", "cand"].outcome is Outcome.FAIL
    assert "reasoning comes first in what the server sent" in strict["schema.rate", "cand"].details[0]
    assert strict["schema.rate", "cand"].lenience[0] == Lenience(
        engine="cand", what=REASONING, count=60, of=60, accepted=False
    )
    assert lenient["schema.gap", "cand"].outcome is Outcome.PASS
    assert [part.accepted for part in lenient["schema.gap", "cand"].lenience] == [True]


def test_what_is_wrapped_and_no_json_either_is_only_no_json(make: Factory) -> None:
    verdict = judge(make, ["```json\n{\n```"] * 60, lenient=True)["schema.rate", "cand"]

    assert (verdict.outcome, verdict.lenience) == (Outcome.FAIL, ())
    assert "not JSON (in a Markdown code block): Expecting property name" in verdict.details[0]


def test_what_the_reader_put_right_is_counted_in_every_verdict(make: Factory) -> None:
    note = "its last piece repeats the message: read once"
    odd = make.completion("ok", normalised=(note, note))
    evidence = make.evidence(make.engine("a", ["ok"] * 40), make.engine("b", [odd] * 3 + ["ok"] * 37), cases=40)
    (verdict,) = check.prompts().judge(evidence)

    noted = with_notes(verdict, evidence)

    assert noted == dataclasses.replace(
        verdict,
        lenience=(Lenience(engine="b", what=f"put right by the reader: {note}", count=3, of=40, accepted=True),),
    )
    assert remarks(noted) == [f"3 of 40 answers of b put right by the reader: {note}"]
    assert remarks(noted, of_reader=False) == []


DRAFTS = [
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
    None,
]


@pytest.mark.parametrize("draft", DRAFTS)
def test_format_is_asserted_in_every_draft(make: Factory, draft: str | None) -> None:
    schema: dict[str, Any] = {"properties": {"due": {"type": "string", "format": "date-time"}}}
    if draft is not None:
        schema["$schema"] = draft
    good, bad = '{"due": "2026-03-01T09:00:00Z"}', '{"due": "20th October 2025"}'
    evidence = make.evidence(make.engine("a", [good] * 40), make.engine("b", [bad] * 40), cases=40)

    ours, theirs = check.schema(schema, rate=0.9).judge(evidence)

    assert (ours.outcome, theirs.outcome) == (Outcome.PASS, Outcome.FAIL)
    assert "is not a" in theirs.details[0]


def test_a_format_nobody_knows_is_said_and_not_held_against_the_answer(make: Factory) -> None:
    named = {"format": {"type": "string"}, "iban": {"type": "string", "format": "iban"}}
    schema = {"properties": named, "examples": [{"format": "xyz"}], "items": [{"format": "iban"}]}
    evidence = make.evidence(make.engine("a", ['{"iban": "x", "format": "y"}'] * 40), cases=40)

    (verdict,) = check.schema({"$schema": "http://json-schema.org/draft-07/schema#", **schema}, rate=0.9).judge(
        evidence
    )

    assert verdict.outcome is Outcome.PASS
    assert verdict.remarks == ("format 'iban' is known to no JSON Schema draft of this validator and was not checked",)
