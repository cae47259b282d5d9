"""Engines asked without the constraint of a schema: whose constraint it is, and when that shows nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.settings.specification import EngineSpec
from tests.doubles.abilities import Abilities
from tests.doubles.posing import PosingEngine
from tests.run.conftest import Project

PROMPTS = 16
WHO: dict[str, Any] = {
    "type": "object",
    "properties": {"who": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["who", "n"],
    "additionalProperties": False,
}
AGREE = check.schema(WHO, agree=0.8)
TEXT = check.text(margin=0.05, horizon=8)
Answer = Callable[[int], str]


def right(n: int) -> str:
    return json.dumps({"who": f"caller {n}", "n": n})


def wrong(n: int) -> str:
    return json.dumps({"n": n, "who": "nobody"})


def fenced(n: int) -> str:
    return f"Sure:\n```json\n{right(n)}\n```"


def prose(n: int) -> str:
    return f"It was caller {n}."


def nothing(n: int) -> str:
    return ""


class Constrained(PosingEngine):
    """Answers one thing where a schema forces it, another where none does, and a third where the prompt says it."""

    def __init__(self, forced: Answer, free: Answer, described: Answer | None = None) -> None:
        super().__init__(self._unforced, poses_as="llamacpp", abilities=Abilities(schema="forced"))
        self.answers = forced, free, described or free

    def forced(self, request: Mapping[str, Any]) -> str | None:
        wanted = request.get("response_format", {}).get("json_schema", {}).get("schema") or request.get("json_schema")
        if not isinstance(wanted, dict) or "who" not in wanted.get("properties", {}):
            return super().forced(request)  # what a probe asks
        return self.answers[0](_number(request))

    def _unforced(self, request: Mapping[str, Any]) -> str:
        return self.answers[2 if "JSON Schema" in _text(request) else 1](_number(request))


def _text(request: Mapping[str, Any]) -> str:
    return str(request.get("prompt") or request["messages"][-1]["content"])


def _number(request: Mapping[str, Any]) -> int:
    words = [word.strip('".') for word in _text(request).split("\n")[0].split()]
    return next((int(word) for word in words if word.isdigit()), 0)


@pytest.fixture
def judged(tmp_path: Path) -> Iterator[Callable[..., Verdict]]:
    """Judge an engine against another on prompts with a schema."""
    with ExitStack() as stack:
        project = Project(tmp_path, stack)
        wanted = {"type": "json_schema", "json_schema": {"name": "who", "schema": WHO}}
        project.prompts(PROMPTS, response_format=wanted)

        def judge(ours: Constrained, theirs: Constrained, of: Check = AGREE, **settings: Any) -> Verdict:
            specs = [
                EngineSpec(name=name, kind="llamacpp", model="loopback", base_url=stack.enter_context(e).base_url)
                for name, e in (("a", ours), ("b", theirs))
            ]
            session = project.session(*specs, **settings)
            project.declare(session, of)
            session.gather()
            verdicts = session.settle("t", session.parity_run("t", reproduce=""))
            return next(v for v in verdicts if v.baseline is not None)

        yield judge


@pytest.mark.parametrize("of", [AGREE, pytest.param(TEXT, marks=pytest.mark.slow)], ids=["values", "text"])
def test_a_constraint_that_makes_answers_wrong_is_named_for_its_engine(
    judged: Callable[..., Verdict], of: Check
) -> None:
    verdict = judged(Constrained(right, right), Constrained(wrong, right), of)

    assert verdict.outcome is Outcome.FAIL
    assert verdict.explanation is not None
    (cause,) = verdict.explanation.causes
    assert (cause.layer, cause.by_exclusion) == ("constraint", False)
    assert cause.text == (
        "the schema's constraint on b: with it b answers other values than without in 16 of 16 prompts, a in 0; "
        "it forces the order n, who"
    )
    assert cause.remedy.startswith("in your requests to b: no response_format")
    shown = verdict.explanation.experiments[-2]
    assert (shown.removed, shown.outcome, shown.requests) == (
        "the schema left out, so that nothing forces answers to fit it",
        "gone",
        2 * PROMPTS,
    )


@pytest.mark.slow
def test_it_may_be_the_baselines(judged: Callable[..., Verdict]) -> None:
    verdict = judged(Constrained(wrong, fenced), Constrained(right, fenced))

    assert verdict.cause is not None
    assert verdict.cause.startswith("the schema's constraint on a: with it a answers other values")


@pytest.mark.slow
def test_prompts_that_do_not_say_what_they_want_are_asked_with_the_schema_in_words(
    judged: Callable[..., Verdict],
) -> None:
    verdict = judged(Constrained(right, prose, right), Constrained(wrong, prose, right))

    assert verdict.explanation is not None
    (cause,) = verdict.explanation.causes
    assert cause.layer == "constraint"
    assert "in the prompt: Answer with JSON only" in cause.remedy
    shown = verdict.explanation.experiments[-2]
    assert shown.removed == "the schema said in the prompt, so that nothing forces answers to fit it"
    assert shown.requests == 4 * PROMPTS


@pytest.mark.slow
@pytest.mark.parametrize("free", [prose, nothing, wrong], ids=["garbage", "nothing", "what the candidate is forced to"])
def test_nothing_is_shown_where_the_baseline_does_not_answer_as_the_schema_wants_unforced(
    judged: Callable[..., Verdict], free: Answer
) -> None:
    """Both engines agree then, on nothing."""

    def unfit(n: int) -> str:
        return free(n) if free is not wrong else json.dumps({"n": n})

    verdict = judged(Constrained(right, unfit), Constrained(wrong, unfit))

    assert verdict.outcome is Outcome.FAIL
    assert verdict.explanation is not None
    assert [cause.layer for cause in verdict.explanation.causes if not cause.by_exclusion] == []
    tried = verdict.explanation.experiments[-1]
    assert (tried.outcome, tried.why) == (
        "not tried",
        "without the schema's constraint a answers 0 of 16 prompts as the schema wants, too few to compare",
    )


@pytest.mark.slow
def test_what_stays_without_the_constraint_is_not_caused_by_it(judged: Callable[..., Verdict]) -> None:
    verdict = judged(Constrained(right, right), Constrained(wrong, wrong))

    assert verdict.explanation is not None
    assert [cause.layer for cause in verdict.explanation.causes if not cause.by_exclusion] == []
    assert verdict.explanation.experiments[-1].outcome == "stays"
    assert verdict.cause is None


@pytest.mark.slow
def test_a_candidate_that_says_nothing_unforced_shows_no_constraint(judged: Callable[..., Verdict]) -> None:
    verdict = judged(Constrained(right, right), Constrained(wrong, nothing))

    assert verdict.explanation is not None
    assert [cause.layer for cause in verdict.explanation.causes if not cause.by_exclusion] == []


def test_the_arm_without_the_constraint_keeps_to_the_requests_that_are_allowed(judged: Callable[..., Verdict]) -> None:
    verdict = judged(Constrained(right, prose, right), Constrained(wrong, prose, right), explain_requests=5 * PROMPTS)

    assert verdict.explanation is not None
    assert verdict.explanation.requests <= 5 * PROMPTS
    assert "ended before a cause was shown" in verdict.explanation.note
