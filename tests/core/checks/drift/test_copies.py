"""What the ladder of the demo makes of the copies that it was measured on: their recorded answers, judged by it."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.draws import Drawn, Pair, remembered
from pytest_llmparity import check, lockfile
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.verdict import Outcome, Verdict

AGREED = lockfile.agreed(Path(__file__).parents[4] / "fixtures/demo/llmparity.lock")
NEAR_TIES = check.text(margin=0.05, ignore="near-ties")


@pytest.fixture(scope="module")
def mixed() -> Iterator[Drawn]:
    """Return the recorded answers, with the prompts in the groups of their file."""
    with remembered():
        yield Drawn.of("tiny", grouped=True)


def judged(
    mixed: Drawn, candidate: str, asked: Check, *, baseline: str = "f16", declared: str | None = None
) -> Verdict:
    """Return the first verdict on all 144 prompts; of a candidate that says that it is another class."""
    if declared is not None:
        other = dataclasses.replace(mixed.engines[candidate], name="other", quantization=declared)
        mixed.engines, candidate = {**mixed.engines, "other": other}, "other"
    prompts = PromptSet(name="mixed", cases=tuple(mixed.sets["mixed"]))
    return mixed.verdicts(
        Pair(baseline=baseline, candidate=candidate, prompts="mixed"), prompts, [asked], agreed=AGREED
    )[0]


def grades(verdict: Verdict) -> Counter[str | None]:
    """Return how many forks that count have which grade."""
    return Counter(difference.grade for difference in verdict.differing if difference.counted)


@pytest.mark.slow
def test_a_copy_of_4_bits_does_not_pass_by_near_ties_of_its_own_class(mixed: Drawn) -> None:
    coarse, fine = (judged(mixed, name, NEAR_TIES) for name in ("q4_0", "q8_0"))

    assert coarse.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)
    assert coarse.reason.endswith("were allowed for 8-bit copies: they do not explain its forks")
    assert fine.outcome is Outcome.PASS


def test_more_prompts_are_no_advice_where_the_shift_withholds_the_pass(mixed: Drawn) -> None:
    """What is left forks at 3.9 % of tokens, so that more of the same would pass but for the shift."""
    text = judged(mixed, "q4_0", check.text(margin=0.05, ignore="near-ties", shift=0.06))

    assert (text.outcome, text.needed) == (Outcome.INCONCLUSIVE, None)
    assert text.message.endswith("and near-ties of 0.06 nats were accepted: they do not explain its forks")


def test_half_of_the_forks_of_4_bits_are_near_ties_by_what_8_bits_may_do(mixed: Drawn) -> None:
    """48 of the 81 are first words of stories, between which the model hardly decides."""
    coarse, fine = (judged(mixed, name, check.text(margin=0.05)) for name in ("q4_0", "q8_0"))

    assert grades(coarse).total() == 81
    assert grades(coarse)["near-tie"] <= 41
    assert grades(fine) == {"near-tie": 43}


def test_arithmetic_of_bf16_leaves_near_ties_alone_and_4_bits_do_not(mixed: Drawn) -> None:
    """By the shift of the honest pair: the issue's figures, 49 of 49 and 9 of 80, were of this baseline."""
    by_arithmetic = check.text(margin=0.05, ignore="near-ties", shift=0.03)
    honest, coarse = (judged(mixed, name, by_arithmetic, baseline="vllm-bf16") for name in ("ollama-f16", "q4_0"))

    assert honest.outcome is Outcome.PASS
    assert honest.remarks[0].startswith("51 of 51 forks near-ties")
    assert coarse.outcome is Outcome.FAIL
    assert coarse.remarks[0].startswith("13 of 81 forks near-ties")


CLASSES = ("Q8_0", "Q6_K", "Q4_K_M", "Q4_0")


MEASURABLE = {"text": {"Q8_0"}, "logprobs": {"Q8_0", "Q4_K_M"}}
"""Classes whose margin the ladder knows for these prompts: the others lie too near their neighbours."""


@pytest.mark.parametrize("asked", [check.text(), check.logprobs()], ids=str)
@pytest.mark.parametrize(("declared", "real"), list(itertools.combinations(CLASSES, 2)))
def test_a_copy_that_declares_a_finer_class_fails_where_that_has_a_margin(
    mixed: Drawn, declared: str, real: str, asked: Check
) -> None:
    known = declared in MEASURABLE[asked.kind]

    outcome = judged(mixed, real.lower(), asked, declared=declared).outcome

    assert outcome is (Outcome.FAIL if known else Outcome.INCOMPARABLE)


@pytest.mark.parametrize("asked", [check.text(), check.logprobs()], ids=str)
def test_an_honest_copy_passes_where_its_class_has_a_margin(mixed: Drawn, asked: Check) -> None:
    outcomes = {name: judged(mixed, name.lower(), asked).outcome for name in CLASSES}

    assert outcomes == {
        name: Outcome.PASS if name in MEASURABLE[asked.kind] else Outcome.INCOMPARABLE for name in CLASSES
    }


def test_an_honest_copy_passes_by_tag_where_copies_hardly_part_on_some_tags(mixed: Drawn) -> None:
    """Q6_K forks as seldom as Q8_0 where text is copied or sums are made: no margin there tells them apart."""
    prompts = PromptSet(name="mixed", cases=tuple(mixed.sets["mixed"]))
    pair = Pair(baseline="f16", candidate="q8_0", prompts="mixed")
    text, *others = mixed.verdicts(pair, prompts, [check.text(by="tag")], agreed=AGREED)

    assert text.outcome is Outcome.PASS
    assert not [verdict for verdict in others if verdict.outcome is Outcome.INCOMPARABLE]
    left = [remark.split(",")[0] for remark in text.remarks if "left to the verdict on all" in remark]
    assert left == ["no margin for copying", "no margin for arithmetic"]
