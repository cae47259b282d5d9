from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.family import without_left_out
from pytest_llmparity.core.checks.schema import SchemaCheck
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import EngineEvidence
from pytest_llmparity.core.prompts import Case, Expect, PromptSet
from pytest_llmparity.core.prompts.arms import other
from pytest_llmparity.core.sample import Completion, Phase
from pytest_llmparity.core.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from tests.core.conftest import Answer, Factory

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"queue": {"enum": ["billing", "returns"]}, "hours": {"type": "integer", "multipleOf": 5}},
    "required": ["queue", "hours"],
}
RIGHT = '{"queue": "billing", "hours": 10}'
FITS = '{"queue": "returns", "hours": 10}'
VIOLATES = '{"queue": "billing", "hours": 7}'
N = 64


def asked(make: Factory, check: SchemaCheck, *, expect: Expect | None = None, n: int = N) -> PromptSet:
    """The prompts of a set in both arms, as a declaration makes them."""
    cases = tuple(make.case(index, expect=expect) for index in range(n))
    return check.in_both(PromptSet(name="set", cases=cases))


def engine(
    make: Factory, name: str, constrained: Sequence[Answer], free: Sequence[Answer], **more: Any
) -> EngineEvidence:
    """An engine that said these answers in its two arms."""
    made = make.engine(name, constrained, **more)
    main = dict(made.samples[Phase.MAIN])
    for index, answer in enumerate(free):
        if answer is not None:
            sample = make.sample(name, other(f"c{index}"), Phase.MAIN, answer)
            main[sample.case] = [sample]
    return dataclasses.replace(made, samples={Phase.MAIN: main})


def judged(
    make: Factory, checked: SchemaCheck, *engines: EngineEvidence, expect: Expect | None = None, **more: Any
) -> dict[tuple[str, str], Verdict]:
    prompts = asked(make, checked, expect=expect)
    evidence = make.evidence(*engines, cases=prompts.cases, **more)
    return {(verdict.kind, verdict.engine): verdict for verdict in checked.judge(evidence)}


EXPECTED = Expect(answer=RIGHT)


def test_the_arms_are_judged_apart_and_against_each_other(make: Factory) -> None:
    base = engine(make, "base", [RIGHT] * N, [RIGHT] * N)
    cand = engine(make, "cand", [FITS] * 60 + [RIGHT] * 4, [RIGHT] * 63 + [VIOLATES])

    verdicts = judged(make, check.schema(SCHEMA, rate=0.9, arms=0.1), base, cand, expect=EXPECTED)

    assert list(verdicts) == [
        ("schema.rate", "base"),
        ("schema.rate", "cand"),
        ("schema.free.rate", "base"),
        ("schema.free.rate", "cand"),
        ("schema.constraint", "base"),
        ("schema.constraint", "cand"),
        ("schema.arms", "base"),
        ("schema.arms", "cand"),
    ]
    lost = verdicts.pop(("schema.arms", "cand"))
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.PASS}
    assert lost.outcome is Outcome.FAIL
    assert lost.estimate == pytest.approx(59 / 64)
    assert lost.lower is not None
    assert lost.lower > 0.8
    assert lost.p_fail is not None
    assert lost.p_fail < 1e-3
    assert lost.details == (
        "right in the free arm only: 60; in the constrained one only: 1; in both: 3; of 64 prompts",
        "first: c0",
        f"  free: {RIGHT!r}",
        f"  constrained: {FITS!r}",
    )
    assert lost.message.startswith("FAIL schema.arms, cand: 92.19 % of answers are right in the free arm only, net")
    assert {verdict.arm for (kind, _), verdict in verdicts.items() if kind.startswith("schema.free")} == {"free"}
    assert verdicts["schema.constraint", "cand"].constraint == "enforced"


def test_a_constraint_that_was_taken_and_violated_is_its_own_finding(make: Factory) -> None:
    base = engine(make, "base", [RIGHT] * N, [RIGHT] * N)
    cand = engine(make, "cand", [RIGHT] * 63 + [VIOLATES], [RIGHT] * 32 + [VIOLATES] * 32)

    verdict = judged(make, check.schema(SCHEMA, arms=0.1), base, cand)["schema.constraint", "cand"]

    assert (verdict.outcome, verdict.constraint, verdict.p_fail) == (Outcome.FAIL, "violated", None)
    assert verdict.message == (
        "FAIL schema.constraint, cand: takes the schema and violates it in 1 of 64 answers: it fails open, and nothing "
        "but the answer tells"
    )
    assert verdict.details == (
        "first: c63: $.hours: 7 is not a multiple of 5",
        f"  it answered {VIOLATES!r}",
        "in the free arm 32 of 64 answers do not fit",
    )
    assert [difference.case for difference in verdict.differing] == ["c63"]


def test_a_refused_schema_is_a_finding_about_the_engine_and_no_error(make: Factory) -> None:
    base = engine(make, "base", [RIGHT] * N, [RIGHT] * N)
    refused = make.failure("BadRequest", "HTTP 400: uniqueItems is not supported")
    cand = engine(make, "cand", [refused] * N, [RIGHT] * N)

    verdicts = judged(make, check.schema(SCHEMA, rate=0.9, gap=0.1, agree=0.9, arms=0.1), base, cand)

    constraint = verdicts["schema.constraint", "cand"]
    assert (constraint.outcome, constraint.constraint) == (Outcome.FAIL, "refused")
    assert "refuses the schema of 64 of 64 prompts and answers them without it" in constraint.message
    assert "uniqueItems is not supported" in constraint.message
    assert verdicts["schema.rate", "cand"].outcome is Outcome.FAIL
    assert verdicts["schema.rate", "cand"].estimate == 0.0
    assert verdicts["schema.free.rate", "cand"].outcome is Outcome.PASS
    assert verdicts["schema.gap", "cand"].outcome is Outcome.INCONCLUSIVE
    assert (
        verdicts["schema.gap", "cand"].reason
        == "cand refuses the schema of every prompt, so there is nothing to compare"
    )
    assert verdicts["schema.arms", "cand"].outcome is Outcome.INCONCLUSIVE
    assert Outcome.ERROR not in {verdict.outcome for verdict in verdicts.values()}


def test_a_request_that_is_refused_in_both_arms_is_not_refused_for_its_schema(make: Factory) -> None:
    refused = make.failure("BadRequest", "HTTP 400: no such model")
    base = engine(make, "base", [RIGHT] * N, [RIGHT] * N)
    cand = engine(make, "cand", [refused] * N, [refused] * N)

    verdicts = judged(make, check.schema(SCHEMA, rate=0.9, arms=0.1), base, cand)

    assert {verdict.outcome for (_, name), verdict in verdicts.items() if name == "cand"} <= {
        Outcome.ERROR,
        Outcome.INCONCLUSIVE,
    }
    assert verdicts["schema.constraint", "cand"].outcome is Outcome.ERROR


@pytest.mark.parametrize("answer", ["", "I cannot help with that.", "{", '{"queue": 1}', "[" * 2000])
def test_engines_that_say_nothing_or_garbage_never_pass(make: Factory, answer: str) -> None:
    engines = [engine(make, name, [answer] * N, [answer] * N) for name in ("base", "cand")]

    verdicts = judged(make, check.schema(SCHEMA, rate=0.9, gap=0.1, agree=0.9, arms=0.1), *engines, expect=EXPECTED)

    equal = {"schema.agree", "schema.free.agree"}  # equal JSON agrees, whether it fits or not
    judged_so = {v.outcome for (kind, _), v in verdicts.items() if kind not in equal or not answer.endswith("}")}
    assert Outcome.PASS not in judged_so
    assert len(verdicts) == 12


@pytest.mark.parametrize("kind", ["Timeout", "BadRequest", "ServerFailure"])
def test_engines_that_fail_never_pass(make: Factory, kind: str) -> None:
    failed = make.failure(kind, "no")
    engines = [engine(make, name, [failed] * N, [failed] * N) for name in ("base", "cand")]

    verdicts = judged(make, check.schema(SCHEMA, rate=0.9, gap=0.1, agree=0.9, arms=0.1), *engines, expect=EXPECTED)

    assert Outcome.PASS not in {verdict.outcome for verdict in verdicts.values()}


def test_answers_that_were_cut_show_nothing_of_the_constraint(make: Factory) -> None:
    cut = make.cut('{"queue": "bil')
    engines = [engine(make, name, [cut] * N, [RIGHT] * N) for name in ("base", "cand")]

    verdicts = judged(make, check.schema(SCHEMA, arms=0.1), *engines)

    constraint = verdicts["schema.constraint", "cand"]
    assert (constraint.outcome, constraint.constraint) == (Outcome.INCONCLUSIVE, "not shown")
    assert "raise max_tokens" in constraint.message
    # An application gets a cut answer, and cannot read it.
    assert verdicts["schema.arms", "cand"].outcome is Outcome.FAIL


def test_a_few_whole_answers_among_cut_ones_do_not_show_that_a_schema_is_enforced(make: Factory) -> None:
    cut = make.cut('{"queue": "bil')
    engines = [engine(make, name, [RIGHT] * 32 + [cut] * 32, [RIGHT] * N) for name in ("base", "cand")]

    constraint = judged(make, check.schema(SCHEMA, arms=0.1), *engines)["schema.constraint", "cand"]

    assert (constraint.outcome, constraint.constraint) == (Outcome.INCONCLUSIVE, "not shown")
    assert "32 of 64 prompts have no whole answer" in constraint.message


def test_a_schema_that_free_answers_keep_too_is_not_shown_to_be_enforced(make: Factory) -> None:
    engines = [engine(make, name, [RIGHT] * N, [RIGHT] * N) for name in ("base", "cand")]

    constraint = judged(make, check.schema(SCHEMA, arms=0.1), *engines)["schema.constraint", "cand"]

    assert (constraint.outcome, constraint.constraint) == (Outcome.PASS, "not shown")
    assert constraint.message == (
        "PASS schema.constraint, cand: takes the schema, and all 64 answers keep it; no free answer breaks it, so that "
        "it is enforced is not shown"
    )


def test_what_stands_round_free_json_shows_no_enforced_schema(make: Factory) -> None:
    wrapped = f"```json\n{RIGHT}\n```"
    alone = engine(make, "base", [RIGHT] * N, [wrapped] * N)
    breaks = engine(make, "cand", [RIGHT] * N, [wrapped] * 63 + [f"```json\n{VIOLATES}\n```"])

    verdicts = judged(make, check.schema(SCHEMA, arms=0.1), alone, breaks)

    constraint = verdicts["schema.constraint", "base"]
    assert (constraint.outcome, constraint.constraint) == (Outcome.PASS, "not shown")
    assert "free answers break it by what stands round their JSON alone" in constraint.message
    assert verdicts["schema.constraint", "cand"].constraint == "enforced"


@pytest.mark.parametrize("free", ["cut", "", "failed"])
def test_free_answers_that_did_not_end_or_say_nothing_show_no_enforcement(make: Factory, free: str) -> None:
    answers: dict[str, Answer] = {"cut": make.cut("{"), "failed": make.failure()}
    answer = answers.get(free, "")
    engines = [engine(make, name, [RIGHT] * N, [answer] * N) for name in ("base", "cand")]

    verdicts = judged(make, check.schema(SCHEMA, arms=0.1), *engines)

    assert verdicts["schema.constraint", "cand"].constraint == "not shown"


def test_answers_without_a_word_neither_keep_a_schema_nor_violate_it(make: Factory) -> None:
    thinks = make.completion("", reasoning="hm")
    engines = [engine(make, name, [thinks] * N, [RIGHT] * N) for name in ("base", "cand")]

    constraint = judged(make, check.schema(SCHEMA, arms=0.1), *engines)["schema.constraint", "cand"]

    assert (constraint.outcome, constraint.constraint) == (Outcome.INCONCLUSIVE, "not shown")
    assert constraint.reason == "every answer ended without a word, so whether it keeps the schema is not shown"


def test_some_answers_without_a_word_are_counted_in_words(make: Factory) -> None:
    engines = [engine(make, name, [RIGHT] * 40 + [""] * 24, [VIOLATES] * N) for name in ("base", "cand")]

    constraint = judged(make, check.schema(SCHEMA, arms=0.1), *engines)["schema.constraint", "cand"]

    assert (constraint.outcome, constraint.constraint) == (Outcome.INCONCLUSIVE, "not shown")
    assert "24 of 64 prompts have no whole answer, 24 of them an empty one" in constraint.reason


def test_arms_in_which_next_to_nothing_is_right_show_no_harm(make: Factory) -> None:
    few = [RIGHT] + [FITS] * 63
    engines = [engine(make, name, few, few) for name in ("base", "cand")]

    arms = judged(make, check.schema(SCHEMA, arms=0.15), *engines, expect=EXPECTED)["schema.arms", "cand"]

    assert arms.outcome is Outcome.INCONCLUSIVE
    assert arms.reason == (
        "only 1 of 64 answers are right in either arm, fewer than the margin of 15 %: no gap of more could show"
    )


def test_cut_free_answers_do_not_make_up_for_answers_that_the_constraint_makes_wrong(make: Factory) -> None:
    constrained, free = [FITS] * 32 + [RIGHT] * 32, [RIGHT] * 32 + [make.cut("Sure! Let me see")] * 32
    engines = [engine(make, name, constrained, free) for name in ("base", "cand")]

    arms = judged(make, check.schema(SCHEMA, arms=0.15), *engines, expect=EXPECTED)["schema.arms", "cand"]

    assert arms.outcome is Outcome.FAIL
    assert arms.estimate == 1.0
    assert "the token limit was reached before the JSON of 32 free answers: raise max_tokens" in arms.details


def test_a_free_arm_that_says_nothing_shows_nothing_of_the_constraint(make: Factory) -> None:
    """As wrong answers they would make the constraint a gain of 100 points."""
    engines = [engine(make, name, [RIGHT] * N, [""] * N) for name in ("base", "cand")]
    some = [engine(make, name, [RIGHT] * N, ["", ""] + [RIGHT] * (N - 2)) for name in ("base", "cand")]

    arms = judged(make, check.schema(SCHEMA, arms=0.1), *engines)["schema.arms", "cand"]
    most = judged(make, check.schema(SCHEMA, arms=0.1), *some)["schema.arms", "cand"]

    assert (arms.outcome, arms.estimate) == (Outcome.INCONCLUSIVE, None)
    assert "64 free answers ended without a word" in arms.reason
    assert (most.outcome, most.n) == (Outcome.PASS, N - 2)
    assert "2 free answers ended without a word" in most.details


def test_a_free_answer_in_a_code_block_is_right_and_its_rate_is_not(make: Factory) -> None:
    fenced = f"Here it is:\n```json\n{RIGHT}\n```"
    engines = [engine(make, name, [FITS] * N, [fenced] * N) for name in ("base", "cand")]

    verdicts = judged(make, check.schema(SCHEMA, rate=0.9, arms=0.1), *engines, expect=EXPECTED)

    assert verdicts["schema.free.rate", "cand"].outcome is Outcome.FAIL
    assert verdicts["schema.arms", "cand"].estimate == 1.0


@pytest.mark.parametrize(
    ("answer", "fields", "right"),
    [
        (RIGHT, [], True),
        ('{"hours": 10, "queue": "billing"}', [], True),
        (FITS, [], False),
        (FITS, ["$.hours"], True),
        ("billing", ["$.queue"], True),
        ("returns", ["$.queue"], False),
        ("10", ["$.hours"], True),
        ("11", ["$.hours"], False),
    ],
)
def test_right_is_what_is_expected_of_what_the_application_reads(
    make: Factory, answer: str, fields: list[str], right: bool
) -> None:
    base = engine(make, "base", [RIGHT] * N, [VIOLATES] * N)

    verdicts = judged(make, check.schema(SCHEMA, arms=0.1, fields=fields), base, expect=Expect(answer=answer))

    assert verdicts["schema.arms", "base"].details[0].startswith("right in the free arm only: 0;")
    assert verdicts["schema.arms", "base"].outcome is (Outcome.PASS if right else Outcome.INCONCLUSIVE)


def test_an_expected_answer_that_no_object_equals_is_refused_before_anybody_is_asked(make: Factory) -> None:
    prompts = PromptSet(name="set", cases=(make.case(0, expect=Expect(answer="billing")),))

    problem = check.schema(SCHEMA, arms=0.1).prompt_problem(prompts)

    assert problem is not None
    assert "c0 expects 'billing', which no JSON object equals" in problem
    assert check.schema(SCHEMA, arms=0.1, fields=["$.queue"]).prompt_problem(prompts) is None
    assert check.schema(SCHEMA, rate=0.9).prompt_problem(prompts) is None


def test_an_engine_without_a_constraint_is_skipped_in_that_arm_and_judged_in_the_other(make: Factory) -> None:
    checked = check.schema(SCHEMA, rate=0.9, arms=0.1)
    prompts = asked(make, checked)
    apart = {case.id: "mlx does not enforce response_format (declared)" for case in prompts.cases if case.arm != "free"}
    evidence = make.evidence(engine(make, "mlx", [], [RIGHT] * N, left_out=apart), cases=prompts.cases)

    verdicts = {v.kind: without_left_out(v, evidence) for v in checked.judge(evidence)}

    assert {kind: verdict.outcome for kind, verdict in verdicts.items()} == {
        "schema.rate": Outcome.SKIPPED,
        "schema.free.rate": Outcome.PASS,
        "schema.constraint": Outcome.SKIPPED,
        "schema.arms": Outcome.SKIPPED,
    }
    must = without_left_out(verdicts["schema.constraint"], evidence, required=True)
    assert must.outcome is Outcome.ERROR


def test_a_model_is_held_against_answers_and_its_schema_is_what_is_sent(make: Factory) -> None:
    from pydantic import BaseModel, field_validator

    class Ticket(BaseModel):
        queue: str
        hours: int

        @field_validator("hours")
        @classmethod
        def small(cls, value: int) -> int:
            if value > 5:
                raise ValueError("too many")
            return value

    checked = check.schema(Ticket, rate=0.9, arms=0.1)
    sent = asked(make, checked).cases[0].response_format
    verdicts = judged(make, checked, engine(make, "base", [RIGHT] * N, ["no"] + [RIGHT] * (N - 1)))

    assert sent is not None
    assert sent["json_schema"]["schema"] == Ticket.model_json_schema()
    assert verdicts["schema.rate", "base"].outcome is Outcome.FAIL  # the model says no
    assert verdicts["schema.constraint", "base"].constraint == "enforced"  # nobody told the engine


def test_both_arms_are_asked_by_the_marker_only(make: Factory) -> None:
    evidence = make.evidence(make.engine("base", [RIGHT] * N), cases=N)

    with pytest.raises(DesignError, match="belongs into the parity marker"):
        check.schema(SCHEMA, arms=0.1).judge(evidence)


def test_limits_of_arms_are_read_as_the_others_are() -> None:
    assert str(check.schema(SCHEMA, rate=0.9, arms=0.1)) == "schema({…}, rate=0.9, arms=0.1)"
    assert check.schema(SCHEMA, arms=0.1).needs().arms
    assert not check.schema(SCHEMA, rate=0.9).needs().arms
    assert not check.schema(SCHEMA, arms=0.1).pairwise
    for wrong in (0, -1, 1.0, 2, True, "x"):
        with pytest.raises(DesignError, match="arms"):
            check.schema(SCHEMA, arms=wrong)  # type: ignore[arg-type]
    assert "arms=0.1 takes at least" in (check.schema(SCHEMA, arms=0.1).problem(cases=3, groups=3, engines=1) or "")


# each prompt's own schema --------------------------------------------------------------------------------------------


def own(make: Factory, index: int, schema: Any) -> Case:
    return make.case(index, expect=Expect(schema=schema))


def test_each_prompt_is_held_against_its_own_schema(make: Factory) -> None:
    cases = [own(make, i, {"const": i}) for i in range(N)]
    evidence = make.evidence(
        make.engine("base", [str(i) for i in range(N)]), make.engine("cand", ["0"] * N), cases=cases
    )

    verdicts = {(v.kind, v.engine): v for v in check.schema(rate=0.9).judge(evidence)}

    assert verdicts["schema.rate", "base"].outcome is Outcome.PASS
    assert verdicts["schema.rate", "base"].message.startswith(
        "PASS schema.rate, base: 100 % of answers fit their schema"
    )
    assert verdicts["schema.rate", "cand"].outcome is Outcome.FAIL
    assert verdicts["schema.rate", "cand"].details[0].endswith("c1: $: 1 was expected")
    assert verdicts["schema.rate", "base"].check == "schema(rate=0.9)"


def test_schemas_of_prompts_are_read_once_and_refused_before_anybody_is_asked(make: Factory) -> None:
    prompts = PromptSet(name="p", cases=(own(make, 0, "a.json"), own(make, 1, "a.json"), own(make, 2, {})))
    read: list[str] = []

    def text(path: str) -> str:
        read.append(path)
        return json.dumps(SCHEMA)

    resolved = check.schema(rate=0.9).resolve(text, prompts=prompts)

    assert read == ["a.json"]
    assert resolved.contracts().of(prompts.cases[0]).schema == SCHEMA
    with pytest.raises(DesignError, match="is not a usable JSON Schema"):
        check.schema(rate=0.9).resolve(text, prompts=PromptSet(name="p", cases=(own(make, 0, {"type": "strnig"}),)))
    remote = {"$ref": "https://example.com/x.json"}
    with pytest.raises(DesignError, match="nothing is fetched"):
        check.schema(rate=0.9).resolve(text, prompts=PromptSet(name="p", cases=(own(make, 0, remote),)))


def test_a_prompt_without_a_schema_is_refused_where_each_has_its_own(make: Factory) -> None:
    prompts = PromptSet(name="p", cases=(own(make, 0, {}), make.case(1)))

    problem = check.schema(rate=0.9).prompt_problem(prompts)

    assert problem is not None
    assert problem.startswith("1 of 2 prompts do not say what the answer fits; the first is c1")
    assert check.schema(SCHEMA, rate=0.9).prompt_problem(prompts) is None


def test_each_prompts_own_schema_is_sent_in_its_constrained_arm(make: Factory) -> None:
    checked = check.schema(arms=0.1)
    prompts = checked.in_both(PromptSet(name="p", cases=(own(make, 0, {"const": 1}), own(make, 1, {"const": 2}))))

    sent = [case.response_format["json_schema"]["schema"] for case in prompts.cases if case.response_format]

    assert sent == [{"const": 1}, {"const": 2}]


def test_the_draft_stands_in_the_plan() -> None:
    seventh = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}

    plan = check.schema(seventh, rate=0.9).power(cases=64, groups=64)

    assert plan == "schema({…}, rate=0.9), by JSON Schema draft 7: 64 prompts; at least needed: rate 29"
    assert "by JSON Schema 2020-12 (it names no draft): " in check.schema(SCHEMA, rate=0.9).power(cases=64, groups=64)


def test_an_answer_that_was_cut_violates_a_schema_that_nothing_behind_it_could_keep(make: Factory) -> None:
    def cut(text: str) -> Completion:
        return Completion(text=text, finish_reason="length")

    base = engine(make, "base", [RIGHT] * N, [RIGHT] * N)
    broken = engine(make, "broken", [RIGHT] * 62 + [cut('{"queue": 7, "hou'), cut('{"queue": "bi')], [VIOLATES] * N)
    begun = engine(make, "begun", [RIGHT] * 63 + [cut('{"queue": "bi')], [VIOLATES] * N)

    verdicts = judged(make, check.schema(SCHEMA, arms=0.9), base, broken, begun)
    violated, kept = verdicts["schema.constraint", "broken"], verdicts["schema.constraint", "begun"]

    assert (violated.outcome, violated.constraint, violated.n) == (Outcome.FAIL, "violated", 63)
    assert "violates it in 1 of 63 answers" in violated.message
    assert "(cut, and nothing that follows mends it)" in violated.details[0]
    assert violated.differing[0].case == "c62"
    assert (kept.outcome, kept.constraint, kept.n) == (Outcome.PASS, "enforced", 63)
