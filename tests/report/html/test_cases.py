"""The cases as the page is given them: worst first, what differs once, what is the same not twice."""

from __future__ import annotations

from typing import Any

from pytest_llmparity.core.identity.record import SampleOrigin
from pytest_llmparity.core.sample import Phase, Sample
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.report.html.cases import LONGEST_ANSWER, LONGEST_PROMPT, matrix
from tests.report.html.made import HOSTILE, TEST, Made, answer, large, turning, varied, verdict


def of(made: Made) -> dict[str, Any]:
    return matrix(made.record, made.samples, made.origin)


def by_id(made: Made) -> dict[str, Any]:
    return {case["id"]: case for case in of(made)["cases"]}


def test_the_worst_case_comes_first() -> None:
    cases = [case["id"] for case in of(varied())["cases"]]

    assert cases == ["fork-2", "hostile-3", "wrong-7", "json-4", "silent-6", "odd/8 &?#", "call-5", "plain-1"]


def test_tests_are_filtered_by_their_own_names_whatever_their_parameters_hold() -> None:
    parametrised = "tests/test_gate.py::TestGate::test_tickets[a::b]"
    made = Made([answer("prod", "one", "amber")], [verdict("text", "dev", Outcome.PASS, test=parametrised)])

    assert of(made)["test_names"][:1] == ["test_tickets[a::b]"]


def test_an_answer_that_is_the_same_is_written_down_once() -> None:
    ours, theirs = by_id(varied())["plain-1"]["answers"]

    assert ours["text"] == "amber birch cedar"
    assert theirs == {"same": True, "tokens": 3}


def test_a_fork_has_its_place_its_tokens_and_their_leads() -> None:
    case = by_id(varied())["fork-2"]
    pair = case["pairs"]["1"]

    assert (pair["char"], pair["token"], pair["grade"], pair["unit"]) == (12, 2.0, "outside top-k", "tokens")
    assert [(side["token"], side["lead"]) for side in pair["fork"]] == [(" cedar", 0.5), (" jetty", None)]
    assert case["marks"] == [{"v": 0, "what": "text", "at": 2.0, "grade": "rank shift"}]
    assert case["answers"][0]["unlike"] == ["parallel"]


def test_a_place_is_counted_as_a_browser_counts() -> None:
    assert by_id(varied())["odd/8 &?#"]["pairs"]["1"]["char"] == 4  # é, and a face of two units, and a blank


def test_json_and_calls_are_compared_by_field() -> None:
    cases = by_id(varied())

    assert cases["json-4"]["pairs"]["1"]["fields"] == [["$.name", '"Ann"', '"Bob"'], ["$.tags[1]", "absent", '"b"']]
    assert cases["call-5"]["pairs"]["1"] == {"fields": [["call 1, refund $.days", "30", "14"]]}
    assert cases["call-5"]["answers"][0]["calls"] == [["refund", '{"order": 7, "days": 30}']]


def test_a_failed_answer_says_why() -> None:
    assert by_id(varied())["silent-6"]["answers"][1] == {
        "failed": "EngineTimeout",
        "why": f"no answer in time: {HOSTILE}",
    }


def test_cases_of_one_id_have_links_of_their_own() -> None:
    samples = [answer("prod", "same", "amber"), answer("prod", "same", "birch")]
    record = Made(samples, []).record
    tests = iter(("a.py::t", "b.py::t"))

    cases = matrix(record, samples, lambda sample: SampleOrigin(tests=(next(tests),)))["cases"]

    assert [case["at"] for case in cases] == ["same", "same~2"]


def test_what_nobody_reads_is_left_out_and_said() -> None:
    made = Made([answer("prod", "long", "a" * (LONGEST_ANSWER + 5))], [])
    prompt = "x" * LONGEST_PROMPT + "yz"

    content = matrix(made.record, made.samples, lambda sample: SampleOrigin(tests=("t",), prompt=prompt))

    assert content["cases"][0]["answers"][0]["more"] == 5
    assert "… 2 characters are not shown …" in content["texts"][content["cases"][0]["asked"][0][1]]


def test_a_prompt_that_many_cases_share_is_written_down_once() -> None:
    samples = [answer("prod", f"c{number}", "amber") for number in range(3)]
    system = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "image_url"}]})

    content = matrix(Made(samples, []).record, samples, lambda sample: SampleOrigin(messages=system))

    assert content["texts"] == ["Be brief.", "[image_url]"]


def test_answers_that_measure_noise_or_time_are_no_cases() -> None:
    made = varied()
    made.samples = [sample for sample in made.samples if sample.phase is not Phase.MAIN]

    assert of(made)["cases"] == []


def test_ids_are_sorted_as_people_count() -> None:
    assert [case["id"] for case in of(Made([answer("prod", f"c-{n}", "amber") for n in (10, 9, 2)], []))["cases"]] == [
        "c-2", "c-9", "c-10"
    ]  # fmt: skip


def test_a_large_run_is_small_where_engines_agree() -> None:
    content = of(large(30))

    assert len(content["cases"]) == 30
    assert sum(len(case["pairs"]) for case in content["cases"]) == 16


def test_cases_turned_as_the_gate_counts_them() -> None:
    turned = {case["id"]: case["turned"] for case in of(turning())["cases"] if "turned" in case}

    assert turned == {"wrong-7": {"1": "worse"}, "silent-6": {"1": "worse"}}


def test_an_engine_that_was_not_judged_is_not_right() -> None:
    content = of(varied())  # its rate was judged on dev alone

    assert not content["judged"]
    assert [case["id"] for case in content["cases"] if "turned" in case] == []


def test_what_prompts_expect_says_which_cases_turned() -> None:
    made = Made(
        [answer("prod", "a", "42"), answer("dev", "a", "41"), answer("prod", "b", "41"), answer("dev", "b", "42")], []
    )

    def asked(sample: Sample) -> SampleOrigin:
        return SampleOrigin(tests=(TEST,), messages=(), expect={"answer": "42"})

    content = matrix(made.record, made.samples, asked)

    assert content["judged"]
    assert {case["id"]: case["turned"] for case in content["cases"]} == {"a": {"1": "worse"}, "b": {"1": "better"}}
