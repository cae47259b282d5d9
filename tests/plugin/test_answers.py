"""Answers held against what their prompts expect, as a person running pytest sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tests.plugin.conftest import Bench

PROMPTS = 60


def test_wrong_answers_and_flips_fail_and_each_prompt_is_asked_twice(
    bench: Bench, echo: Callable[[dict[str, Any]], str]
) -> None:
    bench.prompts(PROMPTS, expect={"contains": "question"})
    bench.gate("check.answers(rate=0.9, flips=0.05)")
    engines = [bench.engine(echo), bench.engine("I do not know.")]

    result = bench.run(engines=engines)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "FAIL answers.rate, b: 0 % of answers are right*",
            "  60 of 60 answers of b are not right; first: case-0: no 'question' in it",
            "FAIL answers.flips, b against a: 100 % of answers flip, less what a flips by itself*",
            "  60 of 60 prompts flip between the engines, 0 when a is asked again",
        ]
    )
    assert {len(bench.asked(engine)) for engine in engines} == {2 * PROMPTS}


def test_prompts_that_expect_nothing_are_an_error_before_any_of_them_is_asked(bench: Bench) -> None:
    bench.prompts(PROMPTS)
    bench.gate("check.answers(rate=0.9)")
    engine = bench.engine()

    result = bench.run(engines=[engine])

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*60 of 60 prompts do not say what is right; the first is case-0: give it*"])
    assert not bench.asked(engine)
