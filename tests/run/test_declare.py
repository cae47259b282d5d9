"""A marker becomes a declaration, or an error that says which argument and what is allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.answers import AnswersCheck
from pytest_llmparity.core.checks.schema import SchemaCheck
from pytest_llmparity.core.errors import DesignError, PromptSetError, UsageError
from pytest_llmparity.core.sample import Sampling
from pytest_llmparity.run.declare.gates import declare
from pytest_llmparity.run.declare.prompts import load_prompts
from pytest_llmparity.run.plan import Declaration


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    rows = [{"id": f"c{i}", "prompt": f"say {i}", "group": f"g{i}"} for i in range(150)]
    (tmp_path / "tests" / "prompts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "few.jsonl").write_text("\n".join(json.dumps(row) for row in rows[:30]))
    (tmp_path / "schema.json").write_text(json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}}))
    return tmp_path


def call(folder: Path, *args: Any, engines: int = 2, **kwargs: Any) -> Declaration:
    return declare("t", args, kwargs, folders=(folder / "tests", folder), concurrency=4, engines=engines)


def test_defaults_are_greedy_and_the_configured_concurrency(folder: Path) -> None:
    declaration = call(folder, "prompts.jsonl")

    assert declaration.sampling == Sampling(max_tokens=64)
    assert (declaration.concurrency, declaration.repeats, declaration.checks) == (4, 1, ())
    assert declaration.prompts.name == "prompts"


def test_paths_are_looked_for_beside_the_test_then_at_the_root(folder: Path) -> None:
    assert len(call(folder, "few.jsonl").prompts.cases) == 30
    assert len(call(folder, folder / "few.jsonl").prompts.cases) == 30


def test_keywords_reach_the_sampling(folder: Path) -> None:
    declaration = call(
        folder,
        "prompts.jsonl",
        max_tokens=8,
        sampling={"temperature": 0.7, "stop": "\n"},
        concurrency=2,
        repeats=3,
    )

    assert declaration.sampling == Sampling(max_tokens=8, temperature=0.7, stop=("\n",))
    assert (declaration.concurrency, declaration.repeats) == (2, 3)
    assert call(folder, "prompts.jsonl", sampling=Sampling(top_k=5)).sampling.top_k == 5
    assert call(folder, "prompts.jsonl", sampling={"stop": ["a", "b"]}).sampling.stop == ("a", "b")


def test_answers_of_few_tokens_are_a_design_that_may_never_pass(folder: Path) -> None:
    gate = check.text(margin=0.05)

    with pytest.raises(DesignError, match=r"30 prompts of 1 token \(max_tokens\) can never pass a margin of 5 %"):
        call(folder, "few.jsonl", gate, max_tokens=1)
    assert call(folder, "few.jsonl", gate, max_tokens=2).checks == (gate,)
    rows = [{"id": f"c{i}", "prompt": f"say {i}", "sampling": {"max_tokens": 8}} for i in range(2)]
    with pytest.raises(DesignError, match=r"2 prompts of 8 tokens \(max_tokens\) can never pass"):
        call(folder, rows, gate)


def test_a_schema_file_is_read(folder: Path) -> None:
    (declared,) = call(folder, "prompts.jsonl", check.schema("schema.json", rate=0.9)).checks

    assert isinstance(declared, SchemaCheck)
    assert declared.problem(cases=150, groups=150, engines=2) is None


def test_what_prompts_expect_is_read_and_refused_where_they_say_nothing(folder: Path) -> None:
    rows = [{"id": f"c{i}", "prompt": f"say {i}", "expect": {"schema": "schema.json"}} for i in range(40)]
    (folder / "said.jsonl").write_text("\n".join(json.dumps(row) for row in rows))

    (checked,) = call(folder, "said.jsonl", check.answers(rate=0.9)).checks
    assert isinstance(checked, AnswersCheck)
    assert list(checked.schemas) == ["schema.json"]
    with pytest.raises(DesignError, match=r"30 of 30 prompts do not say what is right; the first is c0: give it"):
        call(folder, "few.jsonl", check.answers(rate=0.9))


def test_further_fields_of_the_marker_are_those_of_each_case(folder: Path) -> None:
    rows = [{"id": "a", "prompt": "p"}, {"id": "b", "prompt": "p", "extra_body": {"x": 2}}]
    cases = call(folder, rows, extra_body={"x": 1, "y": [1]}).prompts.cases

    assert [case.extra_body for case in cases] == [{"x": 1, "y": [1]}, {"x": 2, "y": [1]}]
    assert call(folder, rows, extra_body={"x": 1}).prompts.digest != call(folder, rows).prompts.digest


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (3, "is a dictionary such as"),
        ({1: 2}, "is a dictionary such as"),
        ({"temperature": 1}, "has temperature, which is sent anyway"),
        ({"x": float("nan")}, "extra_body of the parity marker: "),
        ({"x": object()}, "extra_body of the parity marker: "),
    ],
)
def test_further_fields_that_cannot_be_sent_are_refused(folder: Path, extra: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call(folder, "prompts.jsonl", extra_body=extra)


def test_a_set_that_comes_with_the_package_is_named(folder: Path) -> None:
    prompts = call(folder, "llmparity:quantization", check.text(margin=0.05), check.answers(gap=0.05)).prompts

    assert (prompts.name, len(prompts.cases), prompts.groups) == ("quantization", 120, 120)
    assert {case.tags for case in prompts.cases} == {
        (tag,) for tag in ("arithmetic", "copy", "rare", "format", "unicode")
    }
    with pytest.raises(PromptSetError, match=r"\(did you mean 'llmparity:quantization'\?\); there are: llmparity:"):
        call(folder, "llmparity:quantisation")
    with pytest.raises(
        PromptSetError, match=r"no prompts 'llmparity:nope' come with this plugin; there are: llmparity:"
    ):
        call(folder, "llmparity:nope")


ROWS = [{"id": f"c{i}", "messages": ({"role": "user", "content": f"say {i}"},), "tags": ("a",)} for i in range(3)]


def test_rows_are_a_prompt_set_named_after_the_test(folder: Path) -> None:
    declaration = declare(
        "tests/test_a.py::test_app[x]", (ROWS,), {}, folders=(folder / "tests", folder), concurrency=4, engines=2
    )

    assert [case.id for case in declaration.prompts.cases] == ["c0", "c1", "c2"]
    assert declaration.prompts.name == "test_app"
    assert declaration.prompts.cases[0].messages == ({"role": "user", "content": "say 0"},)


def test_a_function_makes_the_rows_and_is_called_once(folder: Path) -> None:
    calls = []

    def mails() -> Iterator[dict[str, Any]]:
        calls.append(1)
        yield from ROWS

    first, second = call(folder, mails).prompts, call(folder, mails).prompts

    assert first is second
    assert first.name == "mails"
    assert first.digest == call(folder, ROWS).prompts.digest
    assert calls == [1]


def failing() -> list[Any]:
    raise KeyError("subject")


def broken() -> list[Any]:
    return [*ROWS, {"id": "c1", "prompt": "again"}, {"id": "d", "promt": "x"}]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (failing, r"failing\(\) at test_declare\.py:\d+ makes the prompts and raised KeyError: 'subject'"),
        (broken, r"broken\(\) at test_declare\.py:\d+, row 4: case \"c1\" was already given in row 2; ids are unique"),
        (broken, r"broken\(\) at test_declare\.py:\d+, row 5: .*promt"),
        (lambda: "text", r"<lambda>\(\) at .* returned 'text'; expected a list of rows, such as \["),
        (lambda: None, "returned None; expected a list of rows"),
        (list, r"list\(\): no rows; give one for each case"),
        ([], "the prompts of t: no rows"),
        ([3], "the prompts of t, row 1: is 3; expected an object"),
        ([{"id": "a", "prompt": object()}], r"row 1: prompt is .*\(object\)"),
    ],
)
def test_rows_that_are_wrong_are_named_with_their_place(folder: Path, prompts: Any, message: str) -> None:
    with pytest.raises(PromptSetError, match=message):
        call(folder, prompts)


def test_a_row_that_holds_itself_is_refused(folder: Path) -> None:
    row: dict[str, Any] = {"id": "a", "prompt": "x"}
    row["tags"] = [row, row, row]

    with pytest.raises(PromptSetError, match=r"row 1: (nested deeper|holds more)"):
        call(folder, [row])


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "names no prompt file"),
        ((3,), {}, "a function that returns rows, not 3"),
        (("prompts.jsonl", "text"), {}, "'text' is no check"),
        (("prompts.jsonl",), {"max_token": 3}, r"no argument 'max_token' \(did you mean 'max_tokens'\?\)"),
        (("prompts.jsonl",), {"zzz": 3}, "no argument 'zzz'; parity"),
        (("prompts.jsonl",), {"max_tokens": 0}, "max_tokens of the parity marker is 0"),
        (("prompts.jsonl",), {"repeats": True}, "repeats of the parity marker is True"),
        (("prompts.jsonl",), {"sampling": 3}, "sampling of the parity marker is a dictionary"),
        (
            ("prompts.jsonl",),
            {"sampling": {"temprature": 1}},
            r"no parameter 'temprature' \(did you mean 'temperature'\?\)",
        ),
        (("prompts.jsonl",), {"sampling": {"zzz": 1}}, "no parameter 'zzz'; it has max_tokens"),
        (("prompts.jsonl",), {"sampling": {3: 1}}, "no parameter 3; it has max_tokens"),
        (("prompts.jsonl",), {"sampling": {"stop": 5}}, "sampling of the parity marker: stop is 5; expected a list"),
        (("prompts.jsonl",), {"sampling": {"stop": [5]}}, r"stop\[0\] is 5; expected text"),
        (("prompts.jsonl",), {"sampling": {"temperature": "hot"}}, 'temperature is "hot"; expected a number'),
        (("prompts.jsonl",), {"sampling": {"temperature": float("nan")}}, "temperature is NaN; expected a finite"),
        (("prompts.jsonl",), {"sampling": {"top_p": 0}}, "top_p is 0; expected a number above 0"),
        (("prompts.jsonl",), {"sampling": {"temperature": None}}, "temperature = null"),
        (("prompts.jsonl",), {"sampling": Sampling(max_tokens=0)}, "max_tokens is 0; expected a number at least 1"),
    ],
)
def test_misuse_is_named(folder: Path, args: tuple[Any, ...], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call(folder, *args, **kwargs)


def test_a_missing_prompt_file_names_the_nearest(folder: Path) -> None:
    with pytest.raises(PromptSetError, match=r"no prompt file 'promts\.jsonl'.*\(did you mean 'prompts\.jsonl'\?\)"):
        call(folder, "promts.jsonl")
    with pytest.raises(PromptSetError, match=r"'nowhere/at/all\.jsonl' beside the test"):
        call(folder, "nowhere/at/all.jsonl")
    with pytest.raises(PromptSetError, match=rf"no prompt file 'no\.jsonl' in {re.escape(str(folder))}$"):
        load_prompts("no.jsonl", [folder])


def test_rows_are_named_after_their_test_without_its_parameters() -> None:
    rows = [{"id": "a", "prompt": "Hi"}]

    assert load_prompts(rows, [], test="t.py::TestIt::test_it[a::b]").name == "test_it"


def test_a_prompt_file_in_another_encoding_says_where(folder: Path) -> None:
    (folder / "latin.jsonl").write_bytes('{"id": "é"}'.encode("latin-1"))

    with pytest.raises(PromptSetError, match=r"latin\.jsonl: not UTF-8 at byte 8"):
        call(folder, "latin.jsonl")


def test_a_schema_in_another_encoding_says_where(folder: Path) -> None:
    (folder / "latin.json").write_bytes('{"title": "é"}'.encode("latin-1"))

    with pytest.raises(PromptSetError, match=r"latin\.json: not UTF-8 at byte 11"):
        call(folder, "prompts.jsonl", check.schema("latin.json", rate=0.9))


def test_a_name_no_file_system_takes_is_an_error_of_its_own(folder: Path) -> None:
    with pytest.raises(PromptSetError, match=r"prompt file .* cannot be looked for: File name too long"):
        call(folder, "x" * 5000)


def test_a_seed_of_none_is_kept(folder: Path) -> None:
    assert call(folder, "prompts.jsonl", sampling={"seed": None}).sampling.seed is None


def test_too_few_timed_requests_for_the_concurrency_are_refused_before_anything_is_asked(folder: Path) -> None:
    limits = check.latency(e2e_p50="20s", n=16)

    assert call(folder, "prompts.jsonl", limits, concurrency=8).concurrency == 8
    two = r"16 timed requests cannot keep concurrency=9 busy in two blocks of time, and one settles nothing: give n=18 "
    with pytest.raises(DesignError, match=two):
        call(folder, "prompts.jsonl", limits, concurrency=9)
    share = check.latency(success_rate=0.8, n=16)
    assert call(folder, "prompts.jsonl", share, concurrency=8).concurrency == 8
    with pytest.raises(DesignError, match=r"16 timed requests .* in two blocks of time, .*: give n=32 or more"):
        call(folder, "prompts.jsonl", share, concurrency=16)


def test_answers_that_are_drawn_are_asked_as_often_as_the_check_wants_and_without_a_seed(folder: Path) -> None:
    drawn = {"temperature": 0.8, "seed": None}

    assert call(folder, "few.jsonl", check.distribution(repeats=6), sampling=drawn).repeats == 6
    assert call(folder, "few.jsonl", check.distribution(repeats=6), sampling=drawn, repeats=9).repeats == 9
    for sampling in ({}, {"temperature": 0.8}, {"seed": None}):
        with pytest.raises(
            DesignError, match=r"distribution\(\) .*prompt c0 is asked at .* or with a seed, which repeats"
        ):
            call(folder, "few.jsonl", check.distribution(), sampling=sampling)


def test_a_folder_is_not_a_prompt_file(folder: Path) -> None:
    with pytest.raises(PromptSetError, match="no prompt file"):
        call(folder, "tests")


def test_a_design_that_cannot_settle_is_refused_with_the_number_that_could(folder: Path) -> None:
    with pytest.raises(DesignError, match="59") as caught:
        call(folder, "few.jsonl", check.schema(folder / "schema.json", gap=0.05))

    reason, _, place = str(caught.value).partition(": ")
    assert reason == "gap=0.05 takes at least 59 prompts even if every answer is right, and there are 30"
    assert place.startswith("schema('schema.json', gap=0.05) at test_declare.py:")


def test_one_engine_does_not_make_a_pairwise_check_impossible(folder: Path) -> None:
    assert call(folder, "few.jsonl", check.text(margin=0.05), engines=1).checks
