"""The picture of a calibration: where everything stands on its axis."""

from __future__ import annotations

import dataclasses

import pytest

from pytest_llmparity.report.calibration import ladder_lines, pair_lines, picture
from tests.core.identity.test_agreed import ACCEPTED
from tests.core.identity.test_ladder import LADDER


def test_a_pair_is_shown_with_its_floor_its_interval_and_its_margin() -> None:
    assert list(pair_lines(ACCEPTED)) == [
        "prod: vllm, 0.33.0, qwen, BF16",
        "dev: vllm, 0.33.0, qwen, BF16",
        "32 prompts in 32 groups (calibration)",
        "",
        "      F                        [x] M",
        "  |-----------|-----------|-----------|-----------|-----------|  nats",
        "  0.0001      0.001       0.01        0.1         1           10",
        "",
        "  F floor   0.0002 nats: prod against itself",
        "  x shift   0.03 nats, between 0.026 nats and 0.036 nats",
        "  M margin  0.054 nats proposed: 1.5 times the upper bound",
    ]


def test_a_margin_that_is_the_least_there_is_does_not_follow_from_its_bound() -> None:
    alike = dataclasses.replace(ACCEPTED, shift=0.005, estimate=0.0, lower=0.0, upper=0.0002)

    margin = next(line for line in pair_lines(alike) if line.startswith("  M margin"))

    assert margin == (
        "  M margin  0.005 nats proposed: the least there is; 1.5 times the upper bound would be 0.0003 nats"
    )


@pytest.mark.parametrize(("value", "place"), [(0.0, 0), (0.00003, 0), (0.01, 24), (10.0, 60), (500.0, 60)])
def test_what_lies_beyond_the_axis_stands_at_its_end(value: float, place: int) -> None:
    first, *_ = picture({"V": value})

    assert first == "  " + " " * place + "V"


def test_letters_at_one_place_stand_above_one_another() -> None:
    upper, middle, lower, _, _ = picture({"a": 0.01, "b": 0.0101, "c": 0.0099, "d": 0.1})

    assert [row.rstrip() for row in (upper, middle, lower)] == [
        "  " + " " * 24 + "c",
        "  " + " " * 24 + "b",
        "  " + " " * 24 + "a" + " " * 11 + "d",
    ]


def test_a_ladder_says_which_classes_have_no_margin_because_coarser_ones_would_keep_it() -> None:
    q6_k, q4_k_m = LADDER.rungs[1:3]
    alike = dataclasses.replace(q4_k_m, lower=0.09, least_forks=0.028)
    ladder = dataclasses.replace(LADDER, rungs=(LADDER.rungs[0], q6_k, alike, *LADDER.rungs[3:]))

    clear, told = list(ladder_lines(LADDER)), list(ladder_lines(ladder))

    every = "Q8_0, Q6_K, Q4_K_M, Q4_0, Q2_K"
    assert clear[-2:] == ["", f"  by tag check.text() has a margin for: stories ({every})"]
    assert told[-5:] == [
        "",
        "  check.logprobs() cannot tell and has no margin for: Q6_K (from Q4_K_M)",
        "  check.text() cannot tell and has no margin for: Q6_K (from Q4_K_M)",
        f"  by tag check.text() has a margin for: stories ({every})",
        "  more prompts in more groups tell classes apart that differ; or give a margin",
    ]
    assert "2.17 % of tokens fork (2.12 % to 2.9 %)" in clear[-6]
