from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.family import without_left_out
from pytest_llmparity.core.verdict import LeftOut, Outcome, Verdict
from pytest_llmparity.core.words.explain import block

if TYPE_CHECKING:
    from tests.core.conftest import Factory

WHY = "b does not take tools (declared)"


def judged(make: Factory, judge: Any, *, lost: int, cases: int = 100, required: bool = False, b: Any = None) -> Verdict:
    """Judge ``cases`` equal answers of which ``b`` cannot be asked the first ``lost``."""
    ours = ["ok"] * cases
    theirs = [None] * lost + ours[lost:]
    left_out = {f"c{n}": WHY for n in range(lost)}
    evidence = make.evidence(
        make.engine("a", ours), make.engine("b", theirs, left_out=left_out, **(b or {})), cases=cases
    )
    return without_left_out(judge.judge(evidence)[0], evidence, required=required)


@pytest.mark.parametrize("judge", [check.prompts(), check.text(margin=0.1), check.similarity(at_least=0.5)], ids=str)
def test_up_to_5_of_100_prompts_may_be_left_out_and_are_named(make: Factory, judge: Any) -> None:
    verdict = judged(make, judge, lost=5)

    assert (verdict.outcome, verdict.n) == (Outcome.PASS, 95)
    assert verdict.left_out == (LeftOut(engine="b", reason=WHY, cases=("c0", "c1", "c2", "c3", "c4")),)
    assert f"  left out 5 prompts (c0, c1, c2, …): {WHY}" in block(verdict)


@pytest.mark.parametrize("judge", [check.prompts(), check.text(margin=0.1), check.similarity(at_least=0.5)], ids=str)
def test_below_that_nothing_is_settled(make: Factory, judge: Any) -> None:
    verdict = judged(make, judge, lost=6)

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason.endswith(f"it rests on 94 of 100 prompts: 6 prompts left out: {WHY}")
    assert (verdict.needed, verdict.open) == (None, False)


def test_a_rate_of_one_engine_rests_on_what_it_was_asked(make: Factory) -> None:
    judge = check.schema({}, rate=0.9)
    baseline = make.engine("a", ["1"] * 100)
    evidence = make.evidence(
        baseline, make.engine("b", [None] * 5 + ["1"] * 95, left_out={f"c{n}": WHY for n in range(5)}), cases=100
    )

    ours, theirs = (without_left_out(verdict, evidence) for verdict in judge.judge(evidence))

    assert (ours.outcome, ours.n, ours.left_out) == (Outcome.PASS, 100, ())
    assert (theirs.outcome, theirs.n, len(theirs.left_out)) == (Outcome.PASS, 95, 1)


def test_what_rests_on_too_few_gives_no_advice_about_those_it_has(make: Factory) -> None:
    answers = ["0123456789"] * 16
    again = [f"{'0' if n > 2 else '1'}123456789" for n in range(16)]
    engine = make.engine("b", answers, cold=again, warm=answers, parallel=answers, left_out={"c14": WHY, "c15": WHY})
    evidence = make.evidence(make.engine("a", answers, cold=answers, warm=answers, parallel=answers), engine, cases=16)
    repeat = next(verdict for verdict in check.text(margin=0.05).judge(evidence) if verdict.kind == "text.repeat")
    assert repeat.advice

    verdict = without_left_out(repeat, evidence)

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.advice == ""
    assert verdict.message.endswith(f"it rests on 14 of 16 prompts: 2 prompts left out: {WHY}")


def test_where_two_engines_have_no_prompt_in_common_the_check_is_skipped(make: Factory) -> None:
    left, right = {f"c{n}": "a takes no x" for n in range(5)}, {f"c{n}": "b takes no y" for n in range(5, 10)}
    engines = (
        make.engine("a", [None] * 5 + ["ok"] * 5, left_out=left),
        make.engine("b", ["ok"] * 5, left_out=right),
    )
    evidence = make.evidence(*engines, cases=10)
    verdict = check.prompts().judge(evidence)[0]

    skipped, required = without_left_out(verdict, evidence), without_left_out(verdict, evidence, required=True)

    assert skipped.outcome is Outcome.SKIPPED
    assert skipped.reason == "no prompt is left that both engines can be asked; first: a takes no x"
    assert [part.engine for part in skipped.left_out] == ["a", "b"]
    assert required.outcome is Outcome.ERROR
    assert required.reason.endswith("--parity-required asks for a verdict")


@pytest.mark.parametrize("state", ["error", "incomparable", "lacking"])
def test_an_engine_that_cannot_be_used_at_all_says_only_that(make: Factory, state: str) -> None:
    verdict = judged(make, check.prompts(), lost=6, b={state: "why"})

    assert (verdict.reason, verdict.left_out) == ("why", ())
