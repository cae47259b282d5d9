from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.answers import AnswersCheck
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import EngineEvidence
from pytest_llmparity.core.prompts import Case, Expect, PromptSet
from pytest_llmparity.core.right import extract
from pytest_llmparity.core.sample import Phase, ToolCall
from pytest_llmparity.core.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from tests.core.conftest import Answer, Factory

RIGHT, WRONG = "So it is 42.", "So it is 41."


def twice(engine: EngineEvidence, again: Sequence[str], make: Factory) -> EngineEvidence:
    """The engine, asked each case a second time in the main phase."""
    main = engine.samples[Phase.MAIN]
    for index, text in enumerate(again):
        second = msgspec.structs.replace(make.sample(engine.name, f"c{index}", Phase.MAIN, text), repeat=1)
        main[f"c{index}"].append(second)  # type: ignore[attr-defined]  # the factory's lists
    return engine


def judge(
    make: Factory,
    checked: AnswersCheck,
    theirs: Sequence[Answer],
    ours: Sequence[Answer] | None = None,
    again: Sequence[str] = (),
    expect: Expect | None = Expect(answer="42"),  # noqa: B008 - frozen
    **more: Any,
) -> dict[tuple[str, str], Verdict]:
    cases = [make.case(index, expect=expect, **more) for index in range(len(theirs))]
    baseline = twice(make.engine("base", [RIGHT] * len(theirs) if ours is None else ours), again, make)
    evidence = make.evidence(baseline, make.engine("cand", theirs), cases=cases)
    return {(verdict.kind, verdict.engine): verdict for verdict in checked.judge(evidence)}


def test_right_answers_pass_every_limit(make: Factory) -> None:
    verdicts = judge(
        make, check.answers(extract="number", rate=0.95, gap=0.05, flips=0.05), [RIGHT] * 64, again=[RIGHT] * 64
    )

    assert list(verdicts) == [
        ("answers.rate", "base"),
        ("answers.rate", "cand"),
        ("answers.gap", "cand"),
        ("answers.flips", "cand"),
    ]
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.PASS}
    assert verdicts["answers.rate", "cand"].message == (
        "PASS answers.rate, cand: 100 % of answers are right, at least 95.43 %, at least 95 % asked, 64 prompts"
    )


def test_wrong_answers_fail_and_the_first_is_shown(make: Factory) -> None:
    verdicts = judge(
        make, check.answers(extract="number", rate=0.95, gap=0.05), [RIGHT] * 40 + [WRONG] * 20 + ["?"] * 4
    )
    rate, gap = verdicts["answers.rate", "cand"], verdicts["answers.gap", "cand"]

    assert (rate.outcome, gap.outcome) == (Outcome.FAIL, Outcome.FAIL)
    assert rate.details[:2] == (
        "24 of 64 answers of cand are not right; first: c40: 41, expected 42",
        "  it answered 'So it is 41.'",
    )
    assert rate.differing[-1].what == "no number in it; expected 42"
    assert gap.details[0] == "right on base only: 24; on cand only: 0"
    assert gap.differing[0].what == "right on base only: 41, expected 42"
    assert gap.estimate == pytest.approx(0.375)


def test_without_extract_the_whole_answer_counts(make: Factory) -> None:
    verdicts = judge(make, check.answers(rate=0.9), ["42\n"] * 40, ours=[RIGHT] * 40)

    assert verdicts["answers.rate", "cand"].outcome is Outcome.PASS
    assert verdicts["answers.rate", "base"].outcome is Outcome.FAIL


def test_equal_rates_may_hide_flips(make: Factory) -> None:
    ours = [RIGHT] * 88 + [WRONG] * 12
    theirs = [WRONG] * 12 + [RIGHT] * 88
    verdicts = judge(make, check.answers(extract="number", gap=0.05, flips=0.05), theirs, ours, again=ours)
    flips = verdicts["answers.flips", "cand"]

    assert verdicts["answers.gap", "cand"].estimate == 0.0
    assert flips.outcome is Outcome.FAIL
    assert flips.estimate == pytest.approx(0.24)
    assert flips.details[0] == "24 of 100 prompts flip between the engines, 0 when base is asked again"
    assert [flips.differing[0].what, flips.differing[-1].what] == [
        "right on base only: 41, expected 42",
        "right on cand only: 41, expected 42",
    ]


def test_what_the_baseline_flips_by_itself_is_no_flip_between_engines(make: Factory) -> None:
    ours = [RIGHT] * 80 + [WRONG] * 20
    again = [RIGHT] * 60 + [WRONG] * 20 + [RIGHT] * 20
    theirs = [WRONG] * 20 + [RIGHT] * 60 + [RIGHT] * 20
    flips = judge(make, check.answers(extract="number", flips=0.2), theirs, ours, again)["answers.flips", "cand"]

    assert flips.details[0] == "40 of 100 prompts flip between the engines, 40 when base is asked again"
    assert flips.estimate == 0.0
    assert flips.outcome is Outcome.PASS


def test_flips_of_a_baseline_that_was_asked_once_settle_nothing(make: Factory) -> None:
    flips = judge(make, check.answers(extract="number", flips=0.05), [RIGHT] * 64)["answers.flips", "cand"]

    assert flips.outcome is Outcome.INCONCLUSIVE
    assert "64 prompts answered only once by base" in flips.message


def test_no_answer_is_no_right_answer(make: Factory) -> None:
    theirs: list[Answer] = [RIGHT] * 40 + [make.failure()] * 2
    rate = judge(make, check.answers(extract="number", rate=0.9), theirs)["answers.rate", "cand"]

    assert rate.estimate == pytest.approx(40 / 42)
    assert rate.details[0].endswith("c40: no answer: cand on c40: Timeout: no first byte within 60 s")
    assert rate.differing[0].candidate_sha256 is None


@pytest.mark.parametrize("extract", [r"#### (\d+)", "json:$.total", "choice"])
def test_where_nothing_is_read_of_either_engine_nothing_is_settled(make: Factory, extract: str) -> None:
    checked = check.answers(extract=extract, gap=0.05, flips=0.05)
    verdicts = judge(make, checked, ["It is 7."] * 64, again=[RIGHT] * 64, expect=Expect(answer="C"))

    for verdict in verdicts.values():
        assert (verdict.outcome, verdict.estimate) == (Outcome.INCONCLUSIVE, None)
        assert (
            f"extract={extract!r} found nothing in any of 128 answers, so none was compared; first: " in verdict.message
        )


def test_one_answer_that_is_read_is_enough_to_compare(make: Factory) -> None:
    gap = judge(make, check.answers(extract="number", gap=0.05), ["?"] * 64)["answers.gap", "cand"]

    assert gap.outcome is Outcome.FAIL


def test_answers_cut_before_they_said_anything_count_neither_way(make: Factory) -> None:
    cut = make.cut("", reasoning="Let me see")
    expect = Expect(tool="none")
    checked = check.answers(rate=0.9, gap=0.05, flips=0.05)
    all_cut = judge(make, checked, [cut] * 64, [cut] * 64, again=["Hello."] * 64, expect=expect)
    few = judge(make, checked, ["Hello."] * 62 + [cut] * 2, ["Hello."] * 64, again=["Hello."] * 64, expect=expect)
    remark = "the token limit was reached in the reasoning of {}: raise max_tokens"

    assert {verdict.outcome for verdict in all_cut.values()} == {Outcome.INCONCLUSIVE}
    assert remark.format("64 answers of base and 64 of cand") in all_cut["answers.gap", "cand"].details
    assert remark.format("64 answers of cand") in all_cut["answers.rate", "cand"].details
    assert {verdict.outcome for verdict in few.values()} == {Outcome.PASS}
    assert few["answers.rate", "cand"].estimate == 1.0
    assert few["answers.rate", "cand"].details == few["answers.gap", "cand"].details[1:]
    assert few["answers.rate", "cand"].details == (remark.format("2 answers of cand"),)


def test_a_second_answer_that_was_cut_says_nothing_of_what_flips_by_itself(make: Factory) -> None:
    texts = [RIGHT] * 64
    ours = twice(make.engine("base", texts), texts, make)
    for samples in list(ours.samples[Phase.MAIN].values())[:8]:
        cut = msgspec.structs.replace(samples[1], completion=make.cut("", reasoning="Let me see"))
        samples[1] = cut  # type: ignore[index]  # the factory's lists
    cases = [_case(make, index) for index in range(64)]
    evidence = make.evidence(ours, make.engine("cand", texts), cases=cases)
    (flips,) = check.answers(extract="number", flips=0.1).judge(evidence)

    assert flips.outcome is Outcome.INCONCLUSIVE
    assert flips.details[0] == "0 of 56 prompts flip between the engines, 0 when base is asked again"
    assert "the token limit was reached in the reasoning of 8 answers of base" in flips.message


def test_a_first_answer_that_failed_is_not_right_whatever_came_after_it(make: Factory) -> None:
    cases = [_case(make, index) for index in range(64)]
    texts = [RIGHT] * 64

    def judged(failing: str, first: int) -> dict[tuple[str, str], Verdict]:
        answers: dict[str, list[Answer]] = {"base": [*texts], "cand": [*texts]}
        answers[failing][:first] = [make.failure()] * first
        ours, theirs = (twice(make.engine(name, answers[name]), texts, make) for name in ("base", "cand"))
        checked = check.answers(extract="number", rate=0.9, gap=0.05, flips=0.05)
        return {
            (verdict.kind, verdict.engine): verdict
            for verdict in checked.judge(make.evidence(ours, theirs, cases=cases))
        }

    some, every, ours = judged("cand", 20), judged("cand", 64), judged("base", 20)

    assert [some["answers.rate", "cand"].estimate, some["answers.gap", "cand"].estimate] == [44 / 64, 20 / 64]
    assert some["answers.flips", "cand"].outcome is Outcome.FAIL
    assert (every["answers.rate", "cand"].outcome, every["answers.gap", "cand"].outcome) == (
        Outcome.ERROR,
        Outcome.FAIL,
    )
    assert "no first answer at all; first: no answer: cand on c0: Timeout" in every["answers.rate", "cand"].message
    assert ours["answers.gap", "cand"].outcome is Outcome.INCONCLUSIVE
    assert "the first answer of base to 20 prompts failed" in ours["answers.gap", "cand"].message


def test_one_answer_is_told_of_as_one(make: Factory) -> None:
    rate = judge(make, check.answers(extract="number", rate=0.9), [RIGHT] * 63 + [WRONG])["answers.rate", "cand"]

    assert rate.details[0].startswith("1 of 64 answers of cand is not right; first: c63")


def test_an_engine_that_answers_nothing_is_an_error(make: Factory) -> None:
    verdicts = judge(make, check.answers(extract="number", rate=0.9, gap=0.1), [make.failure()] * 40)

    assert verdicts["answers.rate", "cand"].outcome is Outcome.ERROR
    assert verdicts["answers.gap", "cand"].outcome is Outcome.ERROR


def test_tools_pieces_and_schemas_are_expected_too(make: Factory) -> None:
    call = make.completion("", tool_calls=(ToolCall(id="1", name="weather", arguments="{}"),))
    rated = check.answers(rate=0.9)
    tool = judge(make, rated, [call] * 40, expect=Expect(tool="weather"))
    pieces = judge(make, rated, [RIGHT] * 40, expect=Expect(contains=("42", "."), answer=RIGHT))
    schema = judge(make, rated, ['{"a": "1"}'] * 40, ours=['{"a": 1}'] * 40, expect=Expect(schema=SCHEMA))

    assert tool["answers.rate", "cand"].outcome is Outcome.PASS
    assert "calls no tool, expected weather" in tool["answers.rate", "base"].details[0]
    assert pieces["answers.rate", "cand"].outcome is Outcome.PASS
    assert schema["answers.rate", "base"].outcome is Outcome.PASS
    assert "does not fit its schema: $.a: " in schema["answers.rate", "cand"].details[0]


SCHEMA: dict[str, Any] = {"properties": {"a": {"type": "integer"}}}


def test_a_schema_may_lie_in_a_file(make: Factory) -> None:
    case = make.case(0, expect=Expect(schema="a.json"))
    prompts = PromptSet(name="set", cases=(case,))
    resolved = check.answers(rate=0.9).resolve(prompts, {"a.json": '{"type": "object"}'}.__getitem__)
    evidence = make.evidence(make.engine("base", ["{}"]), make.engine("cand", ["[]"]), cases=[case], single=True)

    assert [verdict.outcome for verdict in resolved.judge(evidence)] == [Outcome.PASS, Outcome.FAIL]
    with pytest.raises(DesignError, match=r"'a\.json' is not JSON"):
        check.answers(rate=0.9).resolve(prompts, lambda path: "{")


def test_tags_are_judged_by_themselves(make: Factory) -> None:
    cases = [
        make.case(index, expect=Expect(answer="42"), tags=("sums" if index < 60 else "rest",)) for index in range(120)
    ]
    ours = make.engine("base", [RIGHT] * 120)
    theirs = make.engine("cand", [WRONG] * 9 + [RIGHT] * 111)
    verdicts = check.answers(extract="number", gap=0.05, side="worse", by="tag").judge(
        make.evidence(ours, theirs, cases=cases)
    )

    assert [(verdict.kind, str(verdict.outcome)) for verdict in verdicts] == [
        ("answers.gap", "INCONCLUSIVE"),
        ("answers.gap[sums]", "FAIL"),
        ("answers.gap[rest]", "PASS"),
    ]


def test_cases_that_say_nothing_are_refused(make: Factory) -> None:
    checked = check.answers(extract="number", rate=0.9)
    prompts = PromptSet(name="set", cases=(make.case(0, expect=Expect(answer="42")), make.case(1)))
    unread = PromptSet(name="set", cases=(make.case(0, expect=Expect(answer="many")),))

    assert str(checked.prompt_problem(prompts)).startswith(
        "1 of 2 prompts do not say what is right; the first is c1: give it expect"
    )
    assert checked.prompt_problem(unread) == ("c0 expects 'many', and extract='number' finds no number in it")
    assert checked.prompt_problem(PromptSet(name="set", cases=prompts.cases[:1])) is None
    half = PromptSet(name="set", cases=(make.case(0, expect=Expect(answer="1/2")),))
    assert checked.prompt_problem(half) == (
        "c0 expects '1/2', and extract='number' finds more than one plain number in it"
    )


@pytest.mark.parametrize("expect", [None, Expect(), Expect(contains=())])
def test_an_answer_of_which_nothing_is_said_is_never_right(make: Factory, expect: Expect | None) -> None:
    rate = judge(make, check.answers(rate=0.9), [RIGHT] * 40, expect=expect)["answers.rate", "cand"]

    assert (rate.outcome, rate.estimate) == (Outcome.FAIL, 0.0)
    assert rate.differing[0].what == "its prompt does not say what is right"


def test_too_few_prompts_are_refused_by_limit() -> None:
    checked = check.answers(rate=0.9, gap=0.05, flips=0.1)

    assert checked.problem(cases=40, groups=40, engines=2) == (
        "gap=0.05 takes at least 59 prompts even if every answer is right, and there are 40"
    )
    assert checked.needs().repeats == 2
    assert check.answers(rate=0.9).needs().repeats == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "answers() needs at least one limit"),
        ({"rate": 0.9, "extract": "json:x"}, "names no field"),
        ({"gap": 0.05, "extract": "boolean"}, "did you mean 'bool'?"),
        ({"rate": 90}, "90 %"),
        ({"flips": 1.0}, "accepts everything"),
        ({"gap": 0.1, "side": "left"}, 'side is "either" or "worse"'),
        ({"gap": 0.1, "by": "group"}, 'by must be "tag"'),
    ],
)
def test_wrong_arguments_are_told(given: dict[str, Any], words: str) -> None:
    with pytest.raises(DesignError, match=words.replace("(", r"\(").replace(")", r"\)")):
        check.answers(**given)


def code(text: str) -> str:
    return text[-1:]


def test_a_check_is_written_as_it_was_made() -> None:
    assert str(check.answers(extract="number", rate=0.9, side="worse", by="tag")) == (
        "answers(extract='number', rate=0.9, side='worse', by=\"tag\")"
    )
    assert str(check.answers(extract=code, flips=0.05)) == "answers(extract=code, flips=0.05)"
    some, other = (
        check.answers(extract=lambda text: text, flips=0.05),
        check.answers(extract=lambda text: text[::-1], flips=0.05),
    )
    assert str(some) != str(other)
    assert re.fullmatch(r"answers\(extract=<lambda> at test_answers_check\.py:\d+, flips=0\.05\)", str(some))
    assert check.answers(gap=0.05).pairwise
    assert not check.answers(rate=0.9, gap=0.05).pairwise


def _case(make: Factory, index: int) -> Case:
    return make.case(index, expect=Expect(answer="42"))


def test_sequential_evidence_is_judged_as_it_comes(make: Factory) -> None:
    cases = [_case(make, index) for index in range(200)]
    ours = twice(make.engine("base", [RIGHT] * 120), [RIGHT] * 120, make)
    evidence = make.evidence(ours, make.engine("cand", [RIGHT] * 120), cases=cases, sequential=True)
    verdicts = check.answers(extract="number", rate=0.9, gap=0.1, flips=0.1).judge(evidence)

    assert {verdict.outcome for verdict in verdicts} == {Outcome.PASS}
    assert all("sequential" in verdict.message for verdict in verdicts)


@pytest.mark.parametrize("right", [0, 1])
def test_engines_of_which_next_to_no_answer_is_right_show_no_gap(make: Factory, right: int) -> None:
    few = [RIGHT] * right + [WRONG] * (64 - right)

    verdicts = judge(make, check.answers(extract="number", gap=0.05, flips=0.05), few, few, again=few)

    for kind in ("answers.gap", "answers.flips"):
        assert verdicts[kind, "cand"].outcome is Outcome.INCONCLUSIVE
        assert "right on either engine" in verdicts[kind, "cand"].reason or not right


@pytest.mark.slow
def test_a_hostile_pattern_is_given_up_and_the_verdicts_say_so(make: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "SECONDS", 0.06)  # as long as the first try: how often it is tried is what counts
    hostile = ["a" * 60 + "!"] * 120
    began = time.process_time()

    verdicts = judge(make, check.answers(extract=r"(?:a|aa)+$", rate=0.95, gap=0.05), [RIGHT] * 120, ours=hostile)

    assert time.process_time() - began < 20 * 2 * (0.05 + 0.06) + 4
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.ERROR}
    assert (
        "takes more than 0.05 s on each of 20 answers, so the 220 answers behind them were not read: write it without "
        "repetitions of repetitions" in verdicts["answers.rate", "base"].message
    )


def test_a_pattern_that_is_slow_on_few_answers_is_no_trouble(make: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "SECONDS", 0.06)
    answers = ["a" * 60 + "!"] * 3 + [RIGHT] * 61

    verdicts = judge(make, check.answers(extract=r"(?:a|aa)+$|(?<=is )\d+", rate=0.8), answers)

    assert verdicts["answers.rate", "base"].outcome is Outcome.PASS
    assert verdicts["answers.rate", "cand"].estimate == 61 / 64
