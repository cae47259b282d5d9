from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.similarity import _from_where_they_part, scored
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.report.terminal.causes import evidence

if TYPE_CHECKING:
    from tests.core.conftest import Answer, Factory

TEXT = "You get your money back within 30 days if the item is unused."
CLOSE = "You get your money back within 30 days when the item is unused."
NUMBER = "You get your money back within 14 days if the item is unused."
NEGATED = "You do not get your money back within 30 days if the item is unused."
STRANGER = "Once upon a time a fox lived in a wood and liked to sing."


class Letters:
    """An embedder that only looks at the first letter: *close* texts are those that begin alike."""

    name = "letters"

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return [[1.0, 0.0] if text[:1] == "Y" else [0.0, 1.0] for text in texts]


class Nonsense(Letters):
    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return [[float("nan")] for _ in texts]


def judge(
    make: Factory, theirs: Sequence[Answer], at_least: float | None = 0.8, embedder: Letters | None = None
) -> Verdict:
    n = len(theirs)
    evidence = make.evidence(make.engine("base", [TEXT] * n), make.engine("cand", theirs), cases=n, embedder=embedder)
    (verdict,) = check.similarity(at_least=at_least).judge(evidence)
    return verdict


def test_close_answers_with_the_same_facts_pass(make: Factory) -> None:
    verdict = judge(make, [CLOSE] * 64)

    assert verdict.outcome is Outcome.PASS
    assert verdict.message == (
        "PASS similarity, cand against base: 100 % of answers are alike, at least 95.43 %, at least 90 % asked, "
        "64 prompts"
    )
    assert verdict.details[0] == (
        "alike: no other number or negation, edit similarity at least 0.800 (as given, uncalibrated)"
    )


@pytest.mark.parametrize("wrong", [NUMBER, NEGATED])
@pytest.mark.parametrize("embedder", [None, Letters()])
def test_another_number_or_a_flipped_negation_never_passes_on_closeness(
    make: Factory, wrong: str, embedder: Letters | None
) -> None:
    verdict = judge(make, [wrong] * 30 + [TEXT] * 34, at_least=0.01, embedder=embedder)

    assert verdict.outcome is Outcome.FAIL
    assert verdict.estimate == pytest.approx(34 / 64)
    assert verdict.details[1].startswith("30 with another number or negation, 0 below the limit")
    assert verdict.details[2].startswith("first: c0: ")
    assert verdict.details[3].startswith("  base 'You get")


def test_answers_below_the_limit_fail_and_the_first_is_shown(make: Factory) -> None:
    unlike = STRANGER
    verdict = judge(make, [unlike] * 64, at_least=0.9)

    assert verdict.outcome is Outcome.FAIL
    assert any(line.startswith("  cand 'Once upon") for line in verdict.details)


def test_up_to_three_answers_are_shown_where_the_share_stays_open_too(make: Factory) -> None:
    failed = judge(make, [STRANGER] * 64, at_least=0.9)
    few = judge(make, [STRANGER] * 5 + [TEXT] * 59, at_least=0.9)

    assert few.outcome is Outcome.INCONCLUSIVE
    for verdict in (failed, few):
        shown = [line.split(":")[1].strip() for line in verdict.details if line.startswith(("first: ", "and: "))]
        assert shown == ["c0", "c1", "c2"]
        below = "\n".join(evidence(verdict, width=80))
        assert below.count("cand 'Once upon") == 3, "the summary shows them whole"


def test_answers_that_begin_alike_are_shown_from_where_they_part() -> None:
    alike = "the same words at the beginning, for longer than a line has room, "

    for ours, theirs in ((f"{alike}then 12", f"{alike}then 13"), (f"{alike}then", alike), (alike, f"{alike}then")):
        shown = _from_where_they_part(ours, theirs)
        assert shown[0] != shown[1]
        assert all(text.startswith("…'") and "room, " in text for text in shown)
    assert _from_where_they_part("12 apples", "13 apples") == ("'12 apples'", "'13 apples'")


def test_the_limit_applies_to_embeddings_where_there_are_any(make: Factory) -> None:
    same_words = CLOSE
    passed = judge(make, [same_words] * 64, at_least=0.99, embedder=Letters())
    assert passed.outcome is Outcome.PASS
    assert "cosine of letters at least 0.990" in passed.details[0]
    assert judge(make, [same_words] * 64, at_least=0.99).outcome is Outcome.FAIL
    assert judge(make, [STRANGER] * 64, at_least=0.5, embedder=Letters()).outcome is Outcome.FAIL


def test_an_embedder_that_gives_no_number_shows_nothing_to_be_close() -> None:
    assert scored([("a", "b"), ("a", "a")], Nonsense()) == [-1.0, 1.0]


def test_without_a_number_the_limit_is_what_the_baseline_scores_against_itself(make: Factory) -> None:
    main = [TEXT] * 64
    again = [CLOSE] * 32
    baseline = make.engine("base", main, cold=again, warm=again)
    for answer, outcome in ((CLOSE, Outcome.PASS), (STRANGER, Outcome.FAIL)):
        (verdict,) = check.similarity().judge(make.evidence(baseline, make.engine("cand", [answer] * 64)))
        assert verdict.outcome is outcome
        assert "5 % quantile of 64 repeats of base" in verdict.details[0]


def test_a_baseline_of_which_few_repeats_differ_gives_no_limit_that_anybody_keeps(make: Factory) -> None:
    baseline = make.engine("base", [TEXT] * 64, cold=[CLOSE] + [TEXT] * 31)
    (verdict,) = check.similarity().judge(make.evidence(baseline, make.engine("cand", [TEXT] * 64)))

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason == (
        "no limit: fewer than one in twenty of 32 repeats of base differ, so their 5 % quantile is 1, which no honest "
        "copy keeps; give at_least="
    )


def test_a_baseline_that_repeats_itself_word_for_word_gives_no_scale(make: Factory) -> None:
    baseline = make.engine("base", [TEXT] * 64, cold=[TEXT] * 32)
    (verdict,) = check.similarity().judge(make.evidence(baseline, make.engine("cand", [TEXT] * 64)))

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason == "no limit: base repeats itself word for word, which gives no scale; give at_least="


def test_few_repeats_give_no_quantile(make: Factory) -> None:
    baseline = make.engine("base", [TEXT] * 64, cold=[CLOSE])
    (verdict,) = check.similarity().judge(make.evidence(baseline, make.engine("cand", [TEXT] * 64)))

    assert "base has 1 repeated answer and a 5 % quantile takes 20; give at_least=" in verdict.message


def test_failed_answers_are_not_alike_and_none_at_all_is_an_error(make: Factory) -> None:
    verdict = judge(make, [make.failure()] * 3 + [TEXT] * 61)
    assert (verdict.n, verdict.estimate) == (64, 61 / 64)
    words = "{} prompts of 64 without two answers; first: cand on c0: Timeout: no first byte within 60 s"
    assert words.format(3) in verdict.details

    verdict = judge(make, [make.failure()] * 4 + [TEXT] * 60)
    assert (verdict.outcome, verdict.reason) == (Outcome.ERROR, words.format(4))
    assert judge(make, [make.failure()] * 64).outcome is Outcome.ERROR


def test_a_hard_stop_and_pins_and_one_engine_alone(make: Factory) -> None:
    asked = check.similarity(at_least=0.5)
    cut = make.evidence(make.engine("base", [TEXT] * 60), make.engine("cand", [TEXT] * 60), incomplete="out of time")
    assert asked.judge(cut)[0].outcome is Outcome.INCONCLUSIVE
    few = make.evidence(
        *(make.engine(name, [TEXT] * 20 + [None]) for name in ("base", "cand")), cases=21, incomplete="out of time"
    )
    (verdict,) = asked.judge(few)
    assert (verdict.outcome, verdict.reason, verdict.needed) == (Outcome.INCONCLUSIVE, "out of time", None)
    assert verdict.message.endswith("20 prompts; out of time")
    pinned = make.evidence(make.engine("base", [TEXT]), make.engine("cand", incomparable="pinned otherwise"), cases=1)
    assert asked.judge(pinned)[0].outcome is Outcome.INCOMPARABLE
    assert asked.judge(make.evidence(make.engine("base", [TEXT]), cases=1))[0].outcome is Outcome.SKIPPED


@pytest.mark.parametrize(
    ("answer", "outcome", "words"),
    [
        (CLOSE, Outcome.PASS, "edit similarity 0.937, at least 0.800 asked (single)"),
        (STRANGER, Outcome.FAIL, "number 30 only in the baseline (single)"),
        (NUMBER, Outcome.FAIL, "number 30 → 14 (single)"),
    ],
)
def test_a_single_question_passes_or_fails_without_a_bound(
    make: Factory, answer: str, outcome: Outcome, words: str
) -> None:
    evidence = make.evidence(make.engine("base", [TEXT]), make.engine("cand", [answer]), cases=1, single=True)
    (verdict,) = check.similarity(at_least=0.8).judge(evidence)

    assert (verdict.outcome, verdict.p_fail) == (outcome, None)
    assert verdict.message.endswith(words)


def test_what_it_needs_and_says() -> None:
    given, calibrated = check.similarity(at_least=0.85), check.similarity()

    assert given.needs().phases == {Phase.MAIN}
    assert Phase.PARALLEL in calibrated.needs().phases
    assert (str(given), str(calibrated)) == ("similarity(at_least=0.85)", "similarity()")
    assert (given.kind, given.pairwise) == ("similarity", True)
    assert given.problem(cases=28, groups=28, engines=2) == (
        "28 prompts can never show that 90 % of answers are alike, not even if all are equal; it takes 29"
    )
    assert given.problem(cases=29, groups=29, engines=2) is None
    assert given.power(cases=64, groups=32).endswith("64 prompts alike; they come from 32 groups, one of each counts")
    assert given.power(cases=64, groups=8).endswith("from 8 groups, all count as fewer: it takes 29 groups")
    assert given.power(cases=64, groups=64) == "similarity(at_least=0.85): at least 90 % of 64 prompts alike"
