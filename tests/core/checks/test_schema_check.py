from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from pytest_llmparity import check
from pytest_llmparity.core.checks.schema import SchemaCheck
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.sample import Completion, Phase, ToolCall
from pytest_llmparity.core.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from tests.core.conftest import Answer, Factory


class Ticket(BaseModel):
    title: str
    priority: int


GOOD = '{"title": "Leak", "priority": 2}'
MOVED = '{"priority": 2, "title": "Leak"}'
WRONG = '{"title": "Leak", "priority": 3}'
BROKEN = '{"title": "Leak"'
UNFIT = '{"title": "Leak", "priority": "high"}'


def judge(
    make: Factory, checked: SchemaCheck, theirs: Sequence[Answer], ours: Sequence[Answer] | None = None, **more: Any
) -> dict[tuple[str, str], Verdict]:
    baseline = make.engine("base", [GOOD] * len(theirs) if ours is None else ours)
    evidence = make.evidence(baseline, make.engine("cand", theirs), cases=len(theirs), **more)
    return {(verdict.kind, verdict.engine): verdict for verdict in checked.judge(evidence)}


def test_answers_that_fit_and_agree_pass_every_limit(make: Factory) -> None:
    verdicts = judge(make, check.schema(Ticket, rate=0.95, gap=0.05, agree=0.95), [GOOD] * 64)

    assert list(verdicts) == [
        ("schema.rate", "base"),
        ("schema.rate", "cand"),
        ("schema.gap", "cand"),
        ("schema.agree", "cand"),
    ]
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.PASS}
    rate = verdicts["schema.rate", "cand"]
    assert (rate.baseline, rate.margin, rate.side, rate.estimate) == (None, 0.95, "at_least", 1.0)
    assert rate.message == (
        "PASS schema.rate, cand: 100 % of answers fit the schema, at least 95.43 %, at least 95 % asked, 64 prompts"
    )
    assert verdicts["schema.gap", "cand"].baseline == "base"


def test_answers_that_do_not_fit_fail_rate_and_gap_and_show_the_first(make: Factory) -> None:
    verdicts = judge(make, check.schema(Ticket, rate=0.95, gap=0.05), [GOOD] * 40 + [UNFIT] * 12 + [BROKEN] * 12)
    rate, gap = verdicts["schema.rate", "cand"], verdicts["schema.gap", "cand"]

    assert rate.outcome is gap.outcome is Outcome.FAIL
    assert verdicts["schema.rate", "base"].outcome is Outcome.PASS
    assert rate.details[0] == (
        "24 of 64 answers of cand do not fit; first: c40: $.priority: Input should be a valid integer"
    )
    assert rate.details[1] == f"  it answered {UNFIT!r}"
    assert gap.details[0] == "fits on base only: 24; on cand only: 0"
    assert gap.estimate == pytest.approx(0.375)
    assert gap.p_fail is not None
    assert gap.p_fail < 1e-3


def test_a_better_candidate_fails_only_when_either_side_counts(make: Factory) -> None:
    ours = [GOOD] * 44 + [BROKEN] * 20
    theirs = [GOOD] * 64
    assert judge(make, check.schema(Ticket, gap=0.05), theirs, ours)["schema.gap", "cand"].outcome is Outcome.FAIL
    worse = judge(make, check.schema(Ticket, gap=0.05, side="worse"), theirs, ours)["schema.gap", "cand"]
    assert (worse.outcome, worse.side) == (Outcome.PASS, "worse")


def test_equal_values_in_another_order_agree_and_the_order_is_mentioned(make: Factory) -> None:
    verdicts = judge(make, check.schema(Ticket, rate=0.95, agree=0.95), [MOVED] * 64)
    agree = verdicts["schema.agree", "cand"]
    line = "property order: 64 of 64 JSON answers of cand in another order than declared"

    assert agree.outcome is Outcome.PASS
    assert agree.differs == (line,)
    assert agree.message.endswith(f"64 prompts; {line}")
    assert verdicts["schema.rate", "cand"].differs == (line,)
    assert verdicts["schema.rate", "base"].differs == ()


PRICED = '{"total": 10.0, "tags": ["a", "b"], "note": "x"}'
NEARLY = '{"total": 10.004, "tags": ["b", "a"], "note": "y"}'
READ: dict[str, Any] = {"fields": ["$.total", "$.tags"], "tolerance": {"$.total": 0.01}, "unordered": ["$.tags"]}


@pytest.mark.parametrize(
    ("given", "most"),
    [
        ({}, "$.note"),
        ({"fields": ["$.total"]}, "$.total"),
        ({"fields": ["$.tags"]}, "$.tags[]"),
        ({"tolerance": {"$.total": 0.01}, "unordered": ["$.tags"]}, "$.note"),
        ({"tolerance": {"$.total": 0.001}, "fields": ["$.total"]}, "$.total"),
    ],
)
def test_values_differ_in_what_the_application_reads(make: Factory, given: dict[str, Any], most: str) -> None:
    agree = judge(make, check.schema({}, agree=0.9, **given), [NEARLY] * 40, [PRICED] * 40)["schema.agree", "cand"]

    assert agree.outcome is Outcome.FAIL
    assert agree.details[0] == f"{most} differs in 40 of 40"


def test_what_it_does_not_read_may_differ(make: Factory) -> None:
    agree = judge(make, check.schema({}, agree=0.9, **READ), [NEARLY] * 40, [PRICED] * 40)["schema.agree", "cand"]

    assert agree.outcome is Outcome.PASS


def test_a_field_that_no_answer_has_compares_nothing(make: Factory) -> None:
    checked = check.schema({}, agree=0.9, fields=["$.total", "$.tag", "$.tags[].name"])
    agree = judge(make, checked, [PRICED] * 40, [PRICED] * 40)["schema.agree", "cand"]

    assert agree.outcome is Outcome.INCONCLUSIVE
    assert "no answer of either engine has $.tag or $.tags[].name" in agree.message


def test_a_field_that_no_answer_has_hides_no_difference(make: Factory) -> None:
    checked = check.schema({}, agree=0.9, fields=["$.queue", "$.note"])
    agree = judge(make, checked, ['{"queue": 2}'] * 40, ['{"queue": 1}'] * 40)["schema.agree", "cand"]

    assert agree.outcome is Outcome.FAIL
    assert "there to be compared: $.note in 0, $.queue in 80 of 80 answers" in agree.details


def test_answers_that_have_no_path_that_is_read_are_left_out(make: Factory) -> None:
    ours, theirs = (['{"queue": 1}'] * 2 + [f'{{"q": {n}}}'] * 62 for n in (1, 2))
    agree = judge(make, check.schema({}, agree=0.9, fields=["$.queue"]), theirs, ours)["schema.agree", "cand"]

    assert agree.outcome is Outcome.INCONCLUSIVE
    assert "no path of fields= leads anywhere in either answer to 62 prompts" in agree.message


def test_a_path_that_few_answers_have_is_told_beside_a_pass(make: Factory) -> None:
    same = ['{"queue": 1, "note": 1}'] * 4 + ['{"queue": 1}'] * 60
    agree = judge(make, check.schema({}, agree=0.9, fields=["$.queue", "$.note"]), same, same)["schema.agree", "cand"]

    assert agree.outcome is Outcome.PASS
    assert "there to be compared: $.note in 8 of 128 answers" in agree.remarks


def test_calls_alone_are_no_equal_values(make: Factory) -> None:
    call = Completion(text="", finish_reason="tool_calls", tool_calls=(ToolCall(name="f", arguments="{}"),))
    agree = judge(make, check.schema({}, agree=0.9), [call] * 40, [call] * 40)["schema.agree", "cand"]

    assert agree.outcome is Outcome.INCONCLUSIVE
    assert "no answer of either engine is JSON, so no value was compared" in agree.message


@pytest.mark.parametrize("path", ['$["total"]', '$["größe"]', "$.größe", '$["a[0]"]'])
def test_a_field_is_compared_however_its_path_is_spelled(make: Factory, path: str) -> None:
    ours, theirs = (json.dumps({"total": n, "größe": n, "a[0]": n}) for n in (1, 2))
    agree = judge(make, check.schema({}, agree=0.9, fields=[path]), [theirs] * 40, [ours] * 40)["schema.agree", "cand"]

    assert agree.outcome is Outcome.FAIL


@pytest.mark.slow
def test_values_that_no_arithmetic_holds_are_differences(make: Factory) -> None:
    deep = "[" * 900 + "1" + "]" * 900
    ours, theirs = (f'{{"t": {n}, "x": {x}}}' for n, x in (("1" + "0" * 350, deep), ("1.5", deep.replace("1", "2"))))
    checked = check.schema({}, agree=0.9, tolerance={"$.t": 0.01}, unordered=["$.x", "$.y"])
    agree = judge(make, checked, [theirs] * 12, [ours] * 12)["schema.agree", "cand"]

    assert agree.outcome is Outcome.FAIL


def test_a_field_that_was_not_there_yet_leaves_a_sequential_run_open(make: Factory) -> None:
    same = ['{"queue": 1}'] * 80
    evidence = make.evidence(make.engine("base", same), make.engine("cand", same), cases=200, sequential=True)
    agree = check.schema({}, agree=0.9, fields=["$.queue", "$.note"]).judge(evidence)[-1]

    assert (agree.outcome, agree.open) == (Outcome.INCONCLUSIVE, True)


def test_one_answer_that_does_not_fit_is_told_in_the_singular(make: Factory) -> None:
    rate = judge(make, check.schema(Ticket, rate=0.9), [*[GOOD] * 40, UNFIT])["schema.rate", "cand"]

    assert rate.details[0].startswith("1 of 41 answers of cand does not fit; first: c40: ")


def test_what_is_wrong_is_counted_by_class(make: Factory) -> None:
    theirs: list[Answer] = [
        *[GOOD] * 30,
        *[make.cut(BROKEN)] * 4,
        *[GOOD + " Done."] * 3,
        *['{"title": "a", "title": "b"}'] * 2,
        '{"title": NaN}',
        *[UNFIT] * 2,
    ]
    rate = judge(make, check.schema(Ticket, rate=0.9), theirs)["schema.rate", "cand"]

    assert rate.details[-1] == (
        "what is wrong: cut JSON 4, with text round the JSON 3, a key twice 2, NaN or infinity 1, "
        "JSON that does not fit 2"
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"fields": ["price"]}, "begins with"),
        ({"fields": "$.price"}, "fields is a list of paths"),
        ({"fields": ["$.items[0].price"]}, "is every place"),
        ({"tolerance": {"$.items[0]": 1}}, "is every place"),
        ({"unordered": ["$.tags[0]"]}, "is every place"),
        ({"unordered": ['$["a\\x"]']}, "is no JSON string"),
        ({"unordered": 3}, "unordered is a list of paths"),
        ({"tolerance": {"$.a": -1}}, "a tolerance is a number of at least 0"),
        ({"tolerance": {"$.a": True}}, "a tolerance is a number of at least 0"),
        ({"tolerance": ["$.a"]}, "tolerance is a dictionary"),
    ],
)
def test_fields_that_cannot_be_compared_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(DesignError, match=words):
        check.schema({}, agree=0.9, **given)
    with pytest.raises(DesignError, match="give agree= too"):
        check.schema({}, rate=0.9, fields=["$.a"])


def test_a_check_says_what_it_compares() -> None:
    assert str(check.schema({"title": "t"}, agree=0.9, **READ)) == (
        "schema(t, agree=0.9, fields=['$.total', '$.tags'], tolerance={'$.total': 0.01}, unordered=['$.tags'])"
    )


def test_every_engine_that_moves_properties_is_named(make: Factory) -> None:
    agree = judge(make, check.schema(Ticket, agree=0.95), [MOVED] * 64, [MOVED] * 5 + [GOOD] * 59)[
        "schema.agree", "cand"
    ]

    assert agree.message.endswith(
        "property order: 5 of 64 JSON answers of base in another order than declared; "
        "property order: 64 of 64 JSON answers of cand in another order than declared"
    )


def test_valid_answers_with_other_values_fail_and_name_the_fields(make: Factory) -> None:
    agree = judge(make, check.schema(Ticket, agree=0.95), [WRONG] * 12 + [GOOD] * 50 + [BROKEN] * 2)[
        "schema.agree", "cand"
    ]

    assert agree.outcome is Outcome.FAIL
    assert agree.estimate == pytest.approx(50 / 64)
    assert agree.details == (
        "$.priority differs in 12 of 64, equal in at least 71.4 %",
        "$ differs in 2 of 64, equal in at least 90.49 %",
        "first: c0 at $.priority: '2' and '3'",
    )


def test_places_in_arrays_are_one_field_and_missing_ones_are_shown(make: Factory) -> None:
    schema = {"type": "array", "items": {"type": "object"}}
    ours, theirs = '[{"a": 1}, {"a": 2}]', '[{"a": 9}, {}]'
    agree = judge(make, check.schema(schema, agree=0.5), [theirs] * 30, [ours] * 30)["schema.agree", "cand"]

    assert agree.details == ("$[].a differs in 30 of 30", "first: c0 at $[0].a: '1' and '9'")
    gone = judge(make, check.schema(schema, agree=0.5), ['[{"a": 1}]'] * 30, [ours] * 30)["schema.agree", "cand"]
    assert gone.details[1] == "first: c0 at $[1]: '{\"a\": 2}' and 'absent'"


def test_a_failed_answer_counts_against_the_engine_that_failed(make: Factory) -> None:
    theirs: list[Answer] = [make.failure("ServerFailure", "500 \x1b[2J")] * 20 + [GOOD] * 44
    verdicts = judge(make, check.schema(Ticket, rate=0.95, gap=0.05, agree=0.95), theirs)

    assert verdicts["schema.rate", "cand"].outcome is Outcome.FAIL
    assert (
        verdicts["schema.rate", "cand"]
        .details[0]
        .endswith("first: c0: no answer: cand on c0: ServerFailure: 500 \\x1b[2J")
    )
    assert verdicts["schema.gap", "cand"].outcome is Outcome.FAIL
    assert verdicts["schema.agree", "cand"].estimate == pytest.approx(44 / 64)

    swapped = judge(make, check.schema(Ticket, rate=0.95, gap=0.05, agree=0.95), [GOOD] * 64, theirs)
    assert swapped["schema.rate", "base"].outcome is Outcome.FAIL
    assert swapped["schema.gap", "cand"].n == swapped["schema.agree", "cand"].n == 44


def test_no_answer_at_all_is_an_error(make: Factory) -> None:
    dead: list[Answer] = [make.failure()] * 64
    verdicts = judge(make, check.schema(Ticket, rate=0.95, gap=0.05, agree=0.95), dead)

    assert verdicts["schema.rate", "base"].outcome is Outcome.PASS
    for kind in ("schema.rate", "schema.gap", "schema.agree"):
        assert verdicts[kind, "cand"].outcome is Outcome.ERROR
        assert "first: cand on c0: Timeout" in verdicts[kind, "cand"].message


def test_nothing_gathered_is_an_error_or_after_a_hard_stop_open(make: Factory) -> None:
    nothing: list[Answer] = [None] * 64
    assert judge(make, check.schema(Ticket, rate=0.9), nothing)["schema.rate", "cand"].outcome is Outcome.ERROR
    stopped = judge(make, check.schema(Ticket, rate=0.9, agree=0.9), nothing, incomplete="out of time")
    for verdict in (stopped["schema.rate", "cand"], stopped["schema.agree", "cand"]):
        assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, "out of time")


def test_a_hard_stop_takes_back_what_rests_on_missing_cases(make: Factory) -> None:
    theirs: list[Answer] = [GOOD] * 60 + [None] * 4
    verdicts = judge(make, check.schema(Ticket, rate=0.95, gap=0.05, agree=0.95), theirs, incomplete="out of time")

    assert verdicts["schema.rate", "base"].outcome is Outcome.PASS
    for kind in ("schema.rate", "schema.gap", "schema.agree"):
        assert verdicts[kind, "cand"].outcome is Outcome.INCONCLUSIVE
        assert verdicts[kind, "cand"].reason.endswith("out of time")


def test_open_limits_say_how_many_prompts_would_settle_them(make: Factory) -> None:
    theirs = [BROKEN] + [GOOD] * 63
    verdicts = judge(make, check.schema(Ticket, rate=0.95, gap=0.05, agree=0.95), theirs)

    for kind in ("schema.rate", "schema.gap", "schema.agree"):
        verdict = verdicts[kind, "cand"]
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert verdict.needed is not None
        assert 64 < verdict.needed < 300


def test_a_lone_surrogate_fits_no_schema_and_breaks_nothing(make: Factory) -> None:
    half = json.dumps({"title": "\ud800", "priority": 2})
    rate = judge(make, check.schema(Ticket, rate=0.95), [half] * 64)["schema.rate", "cand"]

    assert rate.outcome is Outcome.FAIL
    assert "half a character" in rate.details[0]


def test_an_answer_nested_beyond_reason_fits_no_schema(make: Factory) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    rate = judge(make, check.schema({}, rate=0.95), [deep] * 64)["schema.rate", "cand"]

    assert rate.outcome is Outcome.FAIL
    assert "nested too deeply" in rate.details[0]


def test_the_draft_is_the_one_the_schema_names(make: Factory) -> None:
    old = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "integer"}]}
    new = {"prefixItems": [{"type": "integer"}]}
    schemas: list[dict[str, Any]] = [old, new]
    for schema in schemas:
        verdicts = judge(make, check.schema(schema, rate=0.9), ['["x"]'] * 40, ["[1]"] * 40)
        assert verdicts["schema.rate", "base"].outcome is Outcome.PASS
        assert verdicts["schema.rate", "cand"].outcome is Outcome.FAIL


def test_a_path_is_read_when_the_floor_above_says_so(make: Factory, tmp_path: Path) -> None:
    asked = check.schema(Path("schemas/ticket.json"), rate=0.95)
    assert (asked.path, asked.text) == ("schemas/ticket.json", None)
    assert str(asked) == "schema('schemas/ticket.json', rate=0.95)"
    with pytest.raises(DesignError, match="was never read"):
        judge(make, asked, [GOOD] * 64)

    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "ticket.json").write_text(json.dumps(Ticket.model_json_schema()))
    read = asked.resolve(lambda path: (tmp_path / path).read_text())
    assert judge(make, read, [GOOD] * 64)["schema.rate", "cand"].outcome is Outcome.PASS
    assert read.resolve(lambda path: "never read twice") is read
    assert str(read) == str(asked)
    model = check.schema(Ticket, rate=0.95)
    assert model.resolve(lambda path: "never read at all") is model


@pytest.mark.parametrize(
    ("below", "name"),
    [("root/tests/a/s.json", "a/s.json"), ("root/schemas/s.json", "schemas/s.json"), ("elsewhere/s.json", "s.json")],
)
def test_an_absolute_path_is_named_without_the_folders_of_this_machine(tmp_path: Path, below: str, name: str) -> None:
    asked = check.schema(tmp_path / below, rate=0.9)

    read = asked.resolve(lambda path: "{}", within=(tmp_path / "root" / "tests", tmp_path / "root"))

    assert str(read) == f"schema({name!r}, rate=0.9)"
    assert str(tmp_path) not in str(read)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("```json\n{}\n```", "is not JSON"),
        ("[1]", "is not a JSON Schema object but '[1]'"),
        ('{"type": "nope"}', "is not a usable JSON Schema"),
        ('{"$ref": "https://example.com/other.json"}', "nothing is fetched"),
        ('{"$ref": "other.json"}', "nothing is fetched"),
    ],
)
def test_a_file_that_is_no_usable_schema_is_refused(text: str, words: str) -> None:
    with pytest.raises(DesignError, match=words.replace("[", r"\[").replace("]", r"\]")):
        check.schema("x.json", rate=0.9).resolve(lambda path: text)


def test_a_single_question_passes_or_fails_without_a_bound(make: Factory) -> None:
    asked = check.schema(Ticket, rate=0.98, gap=0.05, agree=0.95)
    good = judge(make, asked, [MOVED], single=True)
    assert {verdict.outcome for verdict in good.values()} == {Outcome.PASS}
    assert {verdict.p_fail for verdict in good.values()} == {None}
    bad = judge(make, asked, [UNFIT], single=True)
    assert {kind for (kind, name), verdict in bad.items() if verdict.outcome is Outcome.FAIL and name == "cand"} == {
        "schema.rate",
        "schema.gap",
        "schema.agree",
    }
    better = judge(make, check.schema(Ticket, gap=0.05, side="worse"), [GOOD], [UNFIT], single=True)
    assert better["schema.gap", "cand"].outcome is Outcome.PASS


def test_engines_that_cannot_be_judged_and_engines_alone(make: Factory) -> None:
    asked = check.schema(Ticket, rate=0.95, gap=0.05)
    baseline, pinned = make.engine("base", [GOOD] * 64), make.engine("cand", incomparable="pinned otherwise")
    outcomes = [verdict.outcome for verdict in asked.judge(make.evidence(baseline, pinned))]
    assert outcomes == [Outcome.PASS, Outcome.INCOMPARABLE, Outcome.INCOMPARABLE]

    assert [(v.kind, v.outcome) for v in asked.judge(make.evidence(baseline))] == [
        ("schema.rate", Outcome.PASS),
        ("schema.gap", Outcome.SKIPPED),
    ]


def test_a_design_that_can_never_pass_is_refused_with_the_number_that_could() -> None:
    asked = check.schema(Ticket, rate=0.98, gap=0.05, agree=0.95)

    assert asked.problem(cases=148, groups=148, engines=2) == (
        "rate=0.98 takes at least 149 prompts even if every answer is right, and there are 148"
    )
    assert asked.problem(cases=149, groups=149, engines=2) is None
    assert check.schema(Ticket, gap=0.05).problem(cases=58, groups=58, engines=2) is not None
    problem = str(check.schema(Ticket, rate=1.0, gap=0.05, agree=0.95).problem(cases=20, groups=20, engines=2))
    assert [limit for limit in ("rate=", "gap=", "agree=") if limit in problem] == ["rate=", "gap=", "agree="]
    assert check.schema(Ticket, gap=0.05).problem(cases=59, groups=59, engines=2) is None
    assert "there is 1" in str(check.schema(Ticket, agree=0.5).problem(cases=1, groups=1, engines=2))
    assert "no number of prompts can show rate=1" in str(
        check.schema(Ticket, rate=1.0).problem(cases=500, groups=500, engines=2)
    )
    assert asked.power(cases=150, groups=60).endswith(
        "150 prompts in 60 groups, one of each counts, but for rate all count as fewer: too few groups; "
        "at least needed: rate 149, gap 59, agree 59"
    )
    assert asked.power(cases=64, groups=64).endswith("64 prompts; at least needed: rate 149, gap 59, agree 59")
    assert (asked.kind, asked.pairwise, set(asked.needs().phases)) == ("schema", False, {Phase.MAIN})
    assert check.schema(Ticket, gap=0.05, side="worse").pairwise is True
    assert str(check.schema(Ticket, gap=0.05, side="worse")) == "schema(Ticket, gap=0.05, side='worse')"


FORCED = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


def test_an_engine_that_lacks_what_the_check_needs_is_skipped_alone_and_in_its_pair(make: Factory) -> None:
    able = make.engine("able", ["{}"] * 64)
    unable = make.engine("mlx", ["{}"] * 64, lacking="mlx does not enforce response_format (declared)")

    verdicts = check.schema({"type": "object"}, rate=0.9, gap=0.1).judge(make.evidence(able, unable))

    assert {(v.kind, v.engine): v.outcome for v in verdicts} == {
        ("schema.rate", "able"): Outcome.PASS,
        ("schema.rate", "mlx"): Outcome.SKIPPED,
        ("schema.gap", "mlx"): Outcome.SKIPPED,
    }
    assert verdicts[1].message == "SKIPPED schema.rate, mlx: mlx does not enforce response_format (declared)"


def test_a_schema_that_is_promised_and_not_enforced_is_said_beside_the_rate(make: Factory) -> None:
    promised = Capabilities(json_schema=True)
    liar = make.engine(
        "ollama", ["no"] * 64, declares=promised, capabilities=promised.corrected({"json_schema": False})
    )
    cases = [make.case(index, response_format=FORCED) for index in range(64)]

    (verdict,) = check.schema({"type": "object"}, rate=0.9).judge(make.evidence(liar, cases=cases))

    assert verdict.outcome is Outcome.FAIL
    assert verdict.differs == (
        "structured output: ollama does not enforce response_format (probed, declared otherwise)",
    )


def test_a_gap_between_engines_of_which_next_to_no_answer_fits_shows_nothing(make: Factory) -> None:
    few = [GOOD] + [UNFIT] * 63

    gap = judge(make, check.schema(Ticket, gap=0.05), few, few)["schema.gap", "cand"]

    assert gap.outcome is Outcome.INCONCLUSIVE
    assert gap.reason == (
        "only 1 of 64 answers fit on either engine, fewer than the margin of 5 %: no gap of more could show"
    )
