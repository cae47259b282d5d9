from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.alone.reasoning import ReasoningCheck
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.core.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from tests.core.conftest import Answer, Factory

N = 64


def thinking(make: Factory, words: str = "hm " * 10, text: str = "yes", **more: Any) -> Completion:
    return make.completion(text, **{"reasoning": words, "completion_tokens": 33, **more})


def judged(make: Factory, checked: ReasoningCheck, *answers: Answer) -> list[Verdict]:
    return checked.judge(make.evidence(make.engine("a", answers), cases=len(answers)))


def test_each_engine_is_judged_by_itself_whatever_its_channel(make: Factory) -> None:
    hidden = make.completion("yes", reasoning_tokens=12)
    tagged = thinking(make, normalised=("<think> moved to reasoning",))
    base = make.engine("a", [thinking(make)] * 40 + [hidden] * 12 + [tagged] * 12)
    other = make.engine("b", ["yes"] * N)

    ours, theirs = check.reasoning(present=True).judge(make.evidence(base, other))

    assert (ours.outcome, ours.kind, ours.n, ours.baseline) == (Outcome.PASS, "reasoning.present", N, None)
    assert ours.lower == pytest.approx(0.05 ** (1 / N))
    assert ours.details == (
        "a reasons in 64 of 64 answers, for 30 tokens in the middle one and 30 in the longest",
        "it stood in the text, between tags, in 12 of them",
    )
    assert theirs.outcome is Outcome.FAIL
    assert theirs.details == ("64 of 64 answers of b not as wanted; first: c0: does not reason",)
    assert theirs.message.startswith("FAIL reasoning.present, b: 0 % of answers reason")


def test_what_must_not_reason_fails_where_it_does(make: Factory) -> None:
    assert [verdict.outcome for verdict in judged(make, check.reasoning(present=False), *["yes"] * N)] == [Outcome.PASS]
    (verdict,) = judged(make, check.reasoning(present=False), *[thinking(make)] * N)
    assert verdict.outcome is Outcome.FAIL
    assert "first: c0: reasons for about 30 tokens" in verdict.details[0]


def test_tokens_are_the_servers_count_else_estimated_aloud(make: Factory) -> None:
    counted = thinking(make, reasoning_tokens=25)

    (told,) = judged(make, check.reasoning(most_tokens=25), *[counted] * N)
    (estimated,) = judged(make, check.reasoning(most_tokens=30), *[thinking(make)] * N)
    (longer,) = judged(make, check.reasoning(most_tokens=29), *[thinking(make)] * N)

    assert (told.outcome, told.kind, told.remarks) == (Outcome.PASS, "reasoning.tokens", ())
    assert estimated.outcome is Outcome.PASS
    assert estimated.remarks == (
        "the tokens of the reasoning in 64 answers of a are estimated by its share of the characters, because the "
        "server does not count them",
    )
    assert longer.outcome is Outcome.FAIL


def test_what_a_limit_cut_says_nothing_of_its_length_unless_it_is_too_long(make: Factory) -> None:
    cut = thinking(make, text="", finish_reason="length", completion_tokens=30)

    (unknown,) = judged(make, check.reasoning(most_tokens=40), *[cut] * N)
    (too_long,) = judged(make, check.reasoning(most_tokens=20), *[cut] * N)
    (there,) = judged(make, check.reasoning(present=True), *[cut] * N)

    assert unknown.outcome is Outcome.INCONCLUSIVE
    assert "the token limit was reached in the reasoning of 64 answers of a: raise max_tokens" in unknown.reason
    assert too_long.outcome is Outcome.FAIL
    assert there.outcome is Outcome.PASS


@pytest.mark.parametrize("checked", [check.reasoning(present=False), check.reasoning(present=True, most_tokens=9)])
def test_engines_that_say_nothing_or_fail_never_pass(make: Factory, checked: ReasoningCheck) -> None:
    wordless, gone = make.completion(" "), make.failure("ServerFailure", "HTTP 500")
    cut = make.completion("", finish_reason="length", completion_tokens=1)

    for answer in (wordless, gone, cut, None):
        verdicts = judged(make, checked, *[answer] * N)
        assert Outcome.PASS not in {verdict.outcome for verdict in verdicts}
        assert verdicts


def test_answers_without_counts_or_without_reasoning_settle_no_length(make: Factory) -> None:
    (uncounted,) = judged(make, check.reasoning(most_tokens=40), *[thinking(make, completion_tokens=None)] * N)
    (nobody,) = judged(make, check.reasoning(most_tokens=40), *["yes"] * N)

    assert uncounted.outcome is Outcome.INCONCLUSIVE
    assert "a says of 64 answers not how many tokens it has" in uncounted.reason
    assert (nobody.outcome, nobody.reason) == (
        Outcome.INCONCLUSIVE,
        "no answer of a reasons, so how long it reasons is not shown",
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "needs at least one of present=True, present=False and most_tokens=200"),
        ({"present": "yes"}, "present is True or False"),
        ({"most_tokens": 0}, "most_tokens is a whole number from 1 up"),
        ({"present": False, "most_tokens": 9}, "what must not reason has no tokens to count"),
        ({"present": True, "rate": 95}, "rate is a share: 0.95 is 95 %"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(DesignError, match=words):
        check.reasoning(**arguments)


def test_it_is_shown_as_it_was_written_and_says_what_it_takes() -> None:
    checked = check.reasoning(present=True, most_tokens=400, rate=0.9, by="tag")

    assert str(checked) == 'reasoning(present=True, most_tokens=400, rate=0.9, by="tag")'
    assert not checked.pairwise
    assert "rate=0.9 takes at least 29 prompts" in (checked.problem(cases=8, groups=8, engines=1) or "")
