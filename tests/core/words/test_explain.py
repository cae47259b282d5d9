from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import brief, explain

BASE = Verdict(
    test="tests/test_x.py::test_x",
    check="text()",
    kind="text",
    engine="q4",
    baseline="f16",
    outcome=Outcome.FAIL,
    estimate=0.0821,
    lower=0.0671,
    upper=0.0993,
    margin=0.05,
    unit="forks/token",
    measures="of tokens fork",
    n=64,
    groups=64,
    p_pass=1.0,
    p_fail=0.0001,
    floor=0.0,
    where="tests/test_x.py:12",
)


def sentence(**changes: object) -> str:
    return explain.headline(dataclasses.replace(BASE, **changes))  # type: ignore[arg-type]


def test_a_failure_gives_estimate_bound_margin_and_prompts() -> None:
    assert sentence() == "FAIL text, q4 against f16: 8.21 % of tokens fork, at least 6.71 %, margin 5 %, 64 prompts"


def test_a_pass_gives_the_other_bound() -> None:
    assert sentence(outcome=Outcome.PASS, estimate=0.02, upper=0.031) == (
        "PASS text, q4 against f16: 2 % of tokens fork, at most 3.1 %, margin 5 %, 64 prompts"
    )


def test_an_open_verdict_gives_both_bounds_and_what_would_settle_it() -> None:
    assert sentence(outcome=Outcome.INCONCLUSIVE, lower=0.04, needed=120) == (
        "INCONCLUSIVE text, q4 against f16: 8.21 % of tokens fork, between 4 % and 9.93 %, margin 5 %, 64 prompts; "
        "a run of about 120 prompts in all would settle it, 56 more"
    )


def test_a_rate_reads_the_other_way_round() -> None:
    rate = {
        "kind": "schema.rate",
        "engine": "ollama",
        "baseline": None,
        "side": "at_least",
        "unit": "share",
        "measures": "of answers fit the schema",
        "margin": 0.98,
        "n": 150,
        "groups": 0,
    }
    assert sentence(**rate, outcome=Outcome.FAIL, estimate=0.91, lower=0.86, upper=0.94) == (
        "FAIL schema.rate, ollama: 91 % of answers fit the schema, at most 94 %, at least 98 % asked, 150 prompts"
    )
    assert "at least 98.1 %, at least 98 % asked" in sentence(**rate, outcome=Outcome.PASS, lower=0.981, upper=1.0)


def test_latency_counts_requests() -> None:
    ratio = {"kind": "latency.ttft_p50", "unit": "ratio", "measures": "of f16's p50 to the first token", "n": 128}
    assert sentence(**ratio, outcome=Outcome.PASS, estimate=1.1, upper=1.19, margin=1.25) == (
        "PASS latency.ttft_p50, q4 against f16: x1.10 of f16's p50 to the first token, at most x1.19, margin x1.25, "
        "128 requests"
    )


def test_few_groups_and_reasons_follow_the_numbers() -> None:
    assert sentence(groups=4, reason="it does not repeat itself").endswith(
        "64 prompts, for this mix of prompts (4 groups); it does not repeat itself"
    )
    assert "mix" not in sentence(groups=4, n=4)  # four prompts of their own are few, not a mix


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.INCOMPARABLE, Outcome.SKIPPED])
def test_what_was_not_judged_gives_its_reason(outcome: Outcome) -> None:
    assert sentence(outcome=outcome, reason="it never started") == f"{outcome} text, q4 against f16: it never started"
    assert sentence(outcome=outcome).endswith(": nothing was judged")


def test_exact_findings_give_their_finding_not_numbers() -> None:
    assert sentence(p_fail=None, reason="5 tokens more on every prompt") == (
        "FAIL text, q4 against f16: 5 tokens more on every prompt"
    )


def test_one_of_a_thing_is_singular() -> None:
    assert sentence(n=1).endswith("1 prompt")
    assert sentence(outcome=Outcome.INCONCLUSIVE, needed=1, groups=1, n=2).endswith(
        "(1 group); 1 group is too few to say how many would settle it"
    )


def test_what_rests_on_little_promises_no_number_that_would_settle_it() -> None:
    open_one = {"outcome": Outcome.INCONCLUSIVE, "needed": 3}
    add = "add prompts in new groups (a further prompt of an old one changes nothing) and run again with"

    assert sentence(**open_one, n=2, groups=2).endswith("; 2 prompts are too few to say how many would settle it")
    assert sentence(**open_one, groups=4).endswith("; 4 groups are too few to say how many would settle it")
    assert sentence(**open_one, groups=30, effective=7).endswith(
        "; 64 prompts, which count as 7, are too few to say how many would settle it"
    )
    assert sentence(**open_one, n=2, groups=2, open=True).endswith(
        ": add prompts and run again with --parity-sequential"
    )
    assert sentence(**open_one, n=11, groups=11, open=True, per_group=True).endswith(f": {add} --parity-sequential")
    assert "in all would settle it" in sentence(**{**open_one, "needed": 13}, n=12, groups=12)


def test_sequential_verdicts_say_how_far_they_came_and_how_to_go_on() -> None:
    far = {"sequence": "sequential, stopped after 64 of 300 prompts", "open": True}
    assert sentence(**far).endswith("64 prompts; sequential, stopped after 64 of 300 prompts")
    assert sentence(**far, outcome=Outcome.INCONCLUSIVE, needed=450).endswith(
        "of 300 prompts; a run of about 450 prompts in all would settle it, 386 more: add them and run again with "
        "--parity-sequential"
    )
    assert sentence(**far, outcome=Outcome.INCONCLUSIVE, needed=450, at_hand=300).endswith(
        "a run of about 450 prompts in all would settle it, 150 more: add them and run again with --parity-sequential"
    )
    assert sentence(**far, outcome=Outcome.INCONCLUSIVE, needed=290, at_hand=300).endswith(
        "a run of about 290 prompts in all would settle it"
    )


def test_further_prompts_of_a_fixed_number_come_in_groups_like_those_there_are() -> None:
    assert sentence(outcome=Outcome.INCONCLUSIVE, groups=16, needed=120).endswith(
        "64 prompts; a run of about 120 prompts in all would settle it, 56 more in about 14 new groups"
    )
    assert sentence(outcome=Outcome.INCONCLUSIVE, groups=16, needed=66).endswith("2 more in about 1 new group")


def test_where_one_prompt_of_a_group_counts_groups_are_counted_everywhere() -> None:
    counted = {"n": 12, "groups": 12, "per_group": True, "open": True}
    assert sentence(**counted).endswith("margin 5 %, 12 groups")
    verdict = dataclasses.replace(BASE, **counted)  # type: ignore[arg-type]
    assert explain.cell(verdict, "FAIL") == ["FAIL 8.21 %", "> 5 %", "(at least 6.71 %),", "n 12 groups"]
    assert brief.one_line([verdict]) == "8.21 % > 5 % (at least 6.71 %, n 12 groups) FAIL: text, q4 against f16"
    assert sentence(**counted, outcome=Outcome.INCONCLUSIVE, needed=131).endswith(
        "12 groups; a run of about 131 groups in all would settle it, 119 more: add prompts in new groups (a further "
        "prompt of an old one changes nothing) and run again with --parity-sequential"
    )


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"outcome": Outcome.PASS, "estimate": 0.012, "margin": 0.06, "unit": "nats"}, "pass 0.012 nats < 0.06"),
        ({"outcome": Outcome.PASS, "estimate": 0.031}, "pass 3.1 % < 5 %"),
        ({"outcome": Outcome.PASS, "estimate": 0.049996}, "pass 5 %"),
        ({"outcome": Outcome.PASS, "estimate": 1.1, "margin": 1.25, "unit": "ratio"}, "pass x1.10 < x1.25"),
        ({"outcome": Outcome.PASS, "estimate": 0.99, "margin": 0.9, "side": "at_least"}, "pass 99 % > 90 %"),
        ({"outcome": Outcome.INCONCLUSIVE}, "pass 8.21 % > 5 %"),
        ({"outcome": Outcome.INCONCLUSIVE, "estimate": 0.05}, "pass 5 % = 5 %"),
        ({"outcome": Outcome.PASS, "margin": None}, "pass 8.21 %"),
        (
            {"outcome": Outcome.PASS, "kind": "prompts", "estimate": 0.0, "margin": 0.0, "p_fail": None, "unit": ""},
            "pass 0 differ",
        ),
    ],
)
def test_a_cell_says_how_its_number_lies_to_what_it_is_held_against(changes: dict[str, Any], first: str) -> None:
    assert " ".join(explain.cell(dataclasses.replace(BASE, **changes), "pass")).partition(" (")[0] == first


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.05, "share", "5 %"),
        (-0.00001, "share", "0 %"),
        (0.0014, "forks/token", "0.14 %"),
        (1.0, "share", "100 %"),
        (0.25, "s", "250 ms"),
        (12.0, "s", "12 s"),
        (math.inf, "s", "never"),
        (1.25, "ratio", "x1.25"),
        (math.inf, "ratio", "x∞"),
        (3.0, "prompts", "3"),
        (math.inf, "prompts", "∞"),
        (-math.inf, "prompts", "-∞"),
    ],
)
def test_numbers_are_written_in_their_unit(value: float, unit: str, expected: str) -> None:
    assert explain.number(value, unit) == expected


def test_a_failure_text_begins_with_the_worst_and_ends_with_the_command() -> None:
    worse = dataclasses.replace(BASE, outcome=Outcome.ERROR, reason="exited with code 1", estimate=None, floor=None)
    fine = dataclasses.replace(BASE, outcome=Outcome.PASS)
    skipped = dataclasses.replace(BASE, outcome=Outcome.SKIPPED)
    text = explain.failure_text([fine, skipped, BASE, worse], reproduce="pytest tests/test_x.py::test_x")

    assert text.splitlines() == [
        "ERROR text, q4 against f16: exited with code 1",
        "  check: text() at tests/test_x.py:12",
        "FAIL text, q4 against f16: 8.21 % of tokens fork, at least 6.71 %, margin 5 %, 64 prompts",
        "  noise floor: f16 differs from itself by 0 % per token",
        "  check: text() at tests/test_x.py:12",
        "(1 other verdict of this test: PASS)",
        "reproduce: pytest tests/test_x.py::test_x",
    ]
    assert "reproduce" not in explain.failure_text([BASE], reproduce="")


def test_no_verdict_takes_more_than_fifteen_lines() -> None:
    long = dataclasses.replace(
        BASE,
        details=tuple(f"detail {index}" for index in range(30)),
        differs=tuple(f"layer {index}" for index in range(9)),
        cause="the template",
    )
    lines = explain.block(long)

    assert len(lines) == explain.MAX_LINES
    assert "  cause: the template" in lines
    assert lines[-6:-1] == ["    layer 0", "    layer 1", "    layer 2", "    layer 3", "    and 5 more"]
    cut = next(line for line in lines if "more line" in line)
    shown = sum(line.startswith("  detail") for line in lines)
    assert cut == f"  … {30 - shown} more lines in run.json (--parity-report json writes it)"


def test_two_answers_below_each_other_are_not_parted_by_the_cut() -> None:
    plain = [f"detail {index}" for index in range(10)]
    pair = ("first fork: c1", "  a 'one'", "  b 'two'")
    for before in range(10):
        lines = explain.block(dataclasses.replace(BASE, details=(*plain[:before], *pair, *plain)))

        assert ("    a 'one'" in lines) == ("    b 'two'" in lines)
        assert len(lines) <= explain.MAX_LINES + 1


def test_what_differs_is_never_called_the_cause() -> None:
    verdict = dataclasses.replace(BASE, differs=("weights: F16 and Q4_0",))
    assert "  differs, not shown to be the cause: weights: F16 and Q4_0" in explain.block(verdict)
    three = dataclasses.replace(BASE, differs=("a", "b", "c"))
    assert explain.block(three)[-5:-1] == ["  differs, not shown to be the cause:", "    a", "    b", "    c"]


def test_a_message_already_written_is_kept_and_a_check_without_a_place_says_none() -> None:
    done = dataclasses.replace(BASE, message="FAIL as it was", where="")
    assert explain.block(done)[0] == "FAIL as it was"
    assert explain.block(done)[-1] == "  check: text()"


@given(st.text())
def test_foreign_text_stays_on_one_line_without_control_characters(text: str) -> None:
    for shown in (explain.plain(text, 50), explain.quote(text)):
        assert len(shown) <= 63
        assert not any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) < 0xE000 for char in shown)


def test_quotes_are_cut_where_they_are_too_long() -> None:
    assert explain.quote("short") == "'short'"
    assert explain.quote("x" * 60) == repr("x" * 60)
    assert explain.quote("x" * 61) == "'" + "x" * 59 + "…"
    assert explain.quote("\n" * 60).endswith("…")
    assert explain.plain("x" * 300).endswith("x…")


def test_no_share_of_tokens_is_said_to_lie_above_all_of_them() -> None:
    wide = dataclasses.replace(BASE, outcome=Outcome.INCONCLUSIVE, lower=0.09, upper=1.57)

    assert explain.bounds(wide) == "between 9 % and 100 %"
