"""Verdicts by tag: which tags are judged, how a FAIL among them is corrected, and how often chance makes one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity import check
from pytest_llmparity.core.checks.base import Pair
from pytest_llmparity.core.checks.drift.compared import tags_above
from pytest_llmparity.core.checks.family import settle, weights_of
from pytest_llmparity.core.checks.tags import GROUPS_OF_TAG, gaps_above, least_of_tag, shares_below, tags_of
from pytest_llmparity.core.compare.answers import Compared, Fork
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.core.stats.hazard import hazard
from pytest_llmparity.core.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from tests.core.conftest import Factory

SAME = "a" * 32


def forked(at: int) -> str:
    return SAME[:at] + "b" * (32 - at)


def tagged(*sizes: tuple[str, int], group: int = 1) -> list[Case]:
    """So many cases with each tag, every ``group`` of them from one template."""
    tags = [tag for tag, size in sizes for _ in range(size)]
    return [Case(id=f"c{index}", prompt="x", tags=(tag,), group=f"g{index // group}") for index, tag in enumerate(tags)]


def judge(
    make: Factory, cases: Sequence[Case], theirs: Sequence[str], *, asked: Any, again: Sequence[str] | None = None
) -> dict[str, Verdict]:
    """Judge a candidate that said ``theirs`` beside a baseline that says ``SAME``, and ``again`` the second time."""
    ours = [make.cut(SAME)] * len(cases)
    repeats = ours if again is None else [make.cut(text) for text in again]
    answers = [make.cut(text) for text in theirs]
    baseline = make.engine("base", ours, cold=repeats, warm=repeats, parallel=repeats)
    candidate = make.engine("cand", answers, cold=answers, warm=answers, parallel=answers)
    verdicts = settle(asked.judge(make.evidence(baseline, candidate, cases=cases)), 0.05)
    return {verdict.kind: verdict for verdict in verdicts}


# text ----------------------------------------------------------------------------------------------------------------


def test_a_tag_that_drifts_fails_although_all_prompts_together_pass(make: Factory) -> None:
    cases = tagged(("poem", 12), ("json", 200))
    verdicts = judge(make, cases, [forked(1)] * 12 + [SAME] * 200, asked=check.text(margin=0.05, by="tag"))

    assert list(verdicts) == ["text", "text.repeat", "text[poem]", "text[json]"]
    assert verdicts["text"].outcome is Outcome.PASS
    assert "by themselves above the margin: poem 50 %" in verdicts["text"].message
    poem = verdicts["text[poem]"]
    assert (poem.outcome, poem.tag, poem.quantity, poem.n, poem.family) == (Outcome.FAIL, "poem", "text", 12, 4)
    assert poem.message.startswith("FAIL text[poem], cand against base: 50 % of tokens fork, at least ")
    assert [difference.case for difference in poem.differing] == [f"c{index}" for index in range(12)]
    assert verdicts["text[json]"].outcome is Outcome.PASS


def test_a_case_counts_in_each_of_its_tags(make: Factory) -> None:
    cases = [
        Case(
            id=f"c{index}", prompt="x", tags=("long", "poem") if index < 10 else ("long",) if index < 20 else ("short",)
        )
        for index in range(40)
    ]
    verdicts = judge(make, cases, [SAME] * 40, asked=check.text(margin=0.05, by="tag"))

    assert {kind: verdict.n for kind, verdict in verdicts.items() if verdict.tag} == {
        "text[long]": 20,
        "text[poem]": 10,
        "text[short]": 20,
    }


def test_tags_without_prompts_enough_are_named_and_stay_with_all_prompts(make: Factory) -> None:
    cases = tagged(("prose", 40), ("poem", 7), ("joke", 3))
    verdicts = judge(make, cases, [SAME] * 50, asked=check.text(margin=0.05, by="tag"))

    assert list(verdicts) == ["text", "text.repeat", "text[prose]"]
    assert verdicts["text"].remarks == (
        "too few prompts for a verdict of their own (8 groups of prompts at a margin of 5 % over 32 tokens): "
        "poem 7, joke 3",
    )


def test_prompts_of_one_template_are_one_group_of_a_tag() -> None:
    asked = check.text(margin=0.05, by="tag")
    problem = asked.tag_problem(PromptSet(name="s", cases=tuple(tagged(("poem", 28), ("json", 28), group=4))))

    assert problem == (
        'by="tag": no tag has prompts enough for a verdict of its own: it takes 8 groups of prompts at a margin of 5 % '
        "over 32 tokens (docs/verdicts.md#verdicts-by-tag); the largest is poem with 28 prompts in 7 groups"
    )


@pytest.mark.parametrize(
    ("margin", "sizes", "words"),
    [
        (0.12, [("a", 12), ("b", 12)], "it takes 24 groups of prompts at a margin of 12 % over 32 tokens"),
        (0.5, [("a", 500), ("b", 12)], "a smaller margin, because at a margin of 50 % over 32 tokens few prompts fail"),
        (0.05, [("a", 64)], "and every prompt has the same tags"),
    ],
)
def test_designs_that_would_cry_wolf_are_refused_with_the_number_that_would_not(
    margin: float, sizes: list[tuple[str, int]], words: str
) -> None:
    prompts = PromptSet(name="s", cases=tuple(tagged(*sizes)))

    assert words in (check.text(margin=margin, by="tag").tag_problem(prompts) or "")
    assert check.text(margin=margin).tag_problem(prompts) is None


def test_without_tags_there_is_nothing_to_judge_by() -> None:
    prompts = PromptSet(name="s", cases=tuple(Case(id=f"c{index}", prompt="x") for index in range(40)))

    for asked in (check.text(by="tag"), check.similarity(at_least=0.5, by="tag"), check.schema({}, rate=0.9, by="tag")):
        assert (asked.tag_problem(prompts) or "").endswith("and no prompt has a tag")
        assert str(asked).endswith('by="tag")')


def test_the_plan_names_the_tags_that_are_judged() -> None:
    prompts = PromptSet(name="s", cases=tuple(tagged(("prose", 40), ("poem", 7))))

    assert check.text(margin=0.05, by="tag").tag_line(prompts) == (
        'text(margin=0.05, by="tag"): by tag prose 40; too few prompts for a verdict of their own '
        "(8 groups of prompts at a margin of 5 % over 32 tokens): poem 7"
    )
    assert check.text().tag_line(prompts) == check.prompts().tag_line(prompts) == ""
    assert check.schema({}, rate=0.9, gap=0.05, by="tag").tag_line(prompts).count("\n") == 1


def test_a_baseline_that_differs_from_itself_on_such_prompts_leaves_their_verdict_open(make: Factory) -> None:
    cases = tagged(("poem", 16), ("json", 16))
    drifting = [forked(1)] * 16 + [SAME] * 16
    asked = check.text(margin=0.05, by="tag")
    repeats_itself = judge(make, cases, drifting, asked=asked)
    noisy_on_poems = judge(make, cases, drifting, asked=asked, again=drifting)
    noisy_elsewhere = judge(make, cases, drifting, asked=asked, again=[SAME] * 16 + [forked(1)] * 16)

    assert repeats_itself["text[poem]"].outcome is Outcome.FAIL
    assert noisy_on_poems["text[poem]"].outcome is Outcome.INCONCLUSIVE
    assert "baseline too noisy" in noisy_on_poems["text[poem]"].reason
    assert noisy_elsewhere["text[poem]"].outcome is Outcome.FAIL, "16 poems were repeated without a fork"


def test_a_tag_is_not_judged_by_answers_that_are_missing(make: Factory) -> None:
    cases = tagged(("poem", 10), ("json", 190))
    ours = [make.cut(SAME)] * 200
    theirs: list[Any] = [*[make.failure()] * 3, *ours[3:]]
    verdicts = check.text(margin=0.05, by="tag").judge(
        make.evidence(make.engine("base", ours), make.engine("cand", theirs), cases=cases)
    )
    by_kind = {verdict.kind: verdict for verdict in verdicts}

    assert by_kind["text"].outcome is Outcome.PASS
    assert by_kind["text[poem]"].outcome is Outcome.ERROR
    assert by_kind["text[json]"].outcome is Outcome.PASS


def test_another_word_for_by_is_refused_where_it_is_written() -> None:
    for make_one in (
        lambda: check.text(by="group"),  # type: ignore[arg-type]
        lambda: check.schema({}, rate=0.9, by="tags"),  # type: ignore[arg-type]
        lambda: check.similarity(by=True),  # type: ignore[arg-type]
    ):
        with pytest.raises(DesignError, match='by must be "tag"'):
            make_one()


@pytest.mark.parametrize("sequential", [False, True])
def test_in_a_sequential_run_a_tag_has_its_turn_group_by_group(make: Factory, sequential: bool) -> None:
    cases = tagged(("poem", 40), ("json", 40), group=2)
    ours = [make.cut(SAME)] * 80
    theirs = [make.cut(forked(1))] * 40 + ours[40:]
    evidence = make.evidence(
        make.engine("base", ours, cold=ours, warm=ours, parallel=ours),
        make.engine("cand", theirs, cold=theirs, warm=theirs, parallel=theirs),
        cases=cases,
        sequential=sequential,
    )
    verdicts = {verdict.kind: verdict for verdict in settle(check.text(margin=0.05, by="tag").judge(evidence), 0.05)}

    assert {kind: verdicts[kind].outcome for kind in ("text[poem]", "text[json]")} == {
        "text[poem]": Outcome.FAIL,
        "text[json]": Outcome.PASS,
    }
    assert verdicts["text[poem]"].groups == 20
    assert verdicts["text[poem]"].n == (20 if sequential else 40)
    assert ("sequential, all 40 prompts asked" in verdicts["text[json]"].message) == sequential


# contracts -----------------------------------------------------------------------------------------------------------


def test_a_schema_is_held_by_tag_where_a_limit_has_prompts_enough(make: Factory) -> None:
    cases = tagged(("order", 60), ("refund", 140), ("other", 12))
    good, bad = "{}", "no"
    ours: list[Completion | Any] = [make.completion(good)] * 212
    theirs = [make.completion(bad if index < 12 else good) for index in range(212)]
    asked = check.schema({"type": "object"}, rate=0.9, gap=0.05, agree=0.8, by="tag")
    evidence = make.evidence(make.engine("base", ours), make.engine("cand", theirs), cases=cases)
    verdicts = {(v.kind, v.engine): v for v in asked.judge(evidence)}

    assert verdicts["schema.gap", "cand"].outcome is not Outcome.FAIL
    assert verdicts["schema.gap[order]", "cand"].outcome is Outcome.FAIL
    assert verdicts["schema.gap[order]", "cand"].estimate == pytest.approx(0.2)
    assert verdicts["schema.gap[refund]", "cand"].outcome is Outcome.PASS
    assert verdicts["schema.rate[order]", "base"].outcome is Outcome.PASS
    assert verdicts["schema.rate[order]", "cand"].details[0].startswith("12 of 60 answers of cand do not fit")
    assert not any("other" in kind for kind, _ in verdicts)
    assert "too few prompts for a verdict of their own (59 groups of prompts for gap=0.05): other 12" in (
        verdicts["schema.gap", "cand"].remarks
    )


def test_a_pass_of_a_contract_names_the_tags_that_would_not_pass_alone(make: Factory) -> None:
    cases = tagged(("order", 20), ("refund", 280))
    ours = [make.completion("{}")] * 300
    theirs = [make.completion("no" if index < 11 else "{}") for index in range(300)]
    asked = check.schema({"type": "object"}, rate=0.9, gap=0.08, agree=0.9)
    evidence = make.evidence(make.engine("base", ours), make.engine("cand", theirs), cases=cases)
    verdicts = {(v.kind, v.engine): v for v in asked.judge(evidence)}

    below, above = "by themselves below what is asked: order 45 %", "by themselves above the margin: order 55 %"
    for kind, words in (("schema.rate", below), ("schema.agree", below), ("schema.gap", above)):
        assert verdicts[kind, "cand"].outcome is Outcome.PASS
        assert verdicts[kind, "cand"].message.endswith(words)
        assert words in verdicts[kind, "cand"].remarks
    assert verdicts["schema.rate", "base"].remarks == ()


def test_similarity_is_held_by_tag_with_the_limit_of_all_prompts(make: Factory) -> None:
    cases = tagged(("fact", 30), ("poem", 120))
    ours = [make.completion("The answer is yes.")] * 150
    theirs = [
        make.completion("Nothing alike at all, 7." if index < 9 else "The answer is yes.") for index in range(150)
    ]
    evidence = make.evidence(make.engine("base", ours), make.engine("cand", theirs), cases=cases)
    verdicts = {v.kind: v for v in check.similarity(at_least=0.8, by="tag").judge(evidence)}

    assert list(verdicts) == ["similarity", "similarity[fact]", "similarity[poem]"]
    assert verdicts["similarity"].message.endswith("by themselves below what is asked: fact 70 %") or (
        verdicts["similarity"].outcome is not Outcome.PASS
    )
    assert verdicts["similarity[fact]"].outcome is Outcome.FAIL
    assert verdicts["similarity[fact]"].differs == ()
    assert verdicts["similarity[poem]"].outcome is Outcome.PASS


# the family ----------------------------------------------------------------------------------------------------------


def verdict(kind: str, tag: str = "", p_fail: float | None = 0.5) -> Verdict:
    return Verdict(
        test="t", check="c", kind=kind, tag=tag, engine="b", baseline="a", outcome=Outcome.PASS, p_fail=p_fail
    )


@given(st.integers(1, 16))
def test_the_tags_of_a_check_weigh_together_what_all_prompts_weigh(tags: int) -> None:
    of_tags = [verdict(f"text[t{index}]", f"t{index}") for index in range(tags)]
    weights = weights_of([verdict("text"), verdict("text.repeat"), *of_tags])

    assert weights[:2] == [1.8, 0.2]
    assert math.fsum(weights[2:]) == pytest.approx(1.8)


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=3), min_size=1, max_size=12), st.integers(1, 5))
def test_every_tag_is_judged_or_named_unless_all_prompts_have_it(tags: list[list[str]], least: int) -> None:
    prompts = PromptSet(
        name="s", cases=tuple(Case(id=f"c{index}", prompt="x", tags=tuple(of)) for index, of in enumerate(tags))
    )
    split = tags_of(prompts, lambda sizes: len(sizes) >= least)
    everywhere = {tag for tag in "abc" if all(tag in of for of in tags)}

    assert set(split.judged) | set(split.few) | everywhere == {tag for of in tags for tag in of} | everywhere
    assert not set(split.judged) & set(split.few)
    for tag in split.judged:
        assert len(prompts.of_tag(tag).cases) >= least


# sizes ---------------------------------------------------------------------------------------------------------------

DRAWS = 250
SLACK = 3 * math.sqrt(0.05 * 0.95 / DRAWS)


def mean_rate(target: float, *, shape: float, horizon: int) -> float:
    """Return the mean of gamma rates of prompts that fork at ``target`` of the tokens at risk."""
    family = np.random.default_rng(1).gamma(shape, 1 / shape, 4_000)

    def excess(mean: float) -> float:
        rates = np.clip(mean * family, 1e-9, 1.0)
        forks = 1.0 - (1.0 - rates) ** horizon
        return float(forks.mean() / (forks / rates).mean()) - target

    return float(scipy.optimize.brentq(excess, target / 2, 100.0))


def failing(tags: int, prompts: int, *, margin: float, drift: float, horizon: int = 32) -> tuple[float, float]:
    """Return how often some tag fails after the family's correction, and how often a tag passes."""
    rng = np.random.default_rng(9)
    failed = passed = 0
    mean = mean_rate(drift, shape=0.5, horizon=horizon)
    for _ in range(DRAWS):
        verdicts = [verdict("text", p_fail=1.0), verdict("text.repeat", p_fail=1.0)]
        for tag in range(tags):
            first = rng.geometric(np.clip(mean * rng.gamma(0.5, 2.0, prompts), 1e-9, 1.0))
            result = hazard(
                (first <= horizon).tolist(),
                np.minimum(first, float(horizon)).tolist(),
                list(map(str, range(prompts))),
                margin=margin,
            )
            passed += result.upper < margin
            of_tag = verdict(f"text[t{tag}]", f"t{tag}", p_fail=result.p_fail)
            verdicts.append(of_tag)
        weights = weights_of(verdicts)
        p = [judged.p_fail or 0.0 for judged in verdicts]
        failed += any(value * sum(weights) / weight < 0.05 for value, weight in zip(p, weights, strict=True))
    return failed / DRAWS, passed / (DRAWS * tags)


@pytest.mark.slow
@pytest.mark.parametrize(("tags", "margin"), [(16, 0.05), (8, 0.07), (8, 0.12), (4, 0.2)])
def test_engines_that_drift_as_much_as_is_accepted_fail_by_a_tag_in_one_run_of_twenty(tags: int, margin: float) -> None:
    """As many prompts as a tag takes at the least, hazards that differ widely, 250 seeded draws, 3 SE of slack."""
    least = least_of_tag(margin, 32)
    assert least is not None

    failed, passed = failing(tags, least, margin=margin, drift=margin)

    assert failed <= 0.05 + SLACK
    assert passed <= 0.05 + 0.03 + SLACK, "a tag passes by itself, as few groups do: up to three points in excess"


def paired(tag: str, group: str, place: int, first: int, horizon: int = 32) -> tuple[Pair, Compared]:
    case = Case(id=f"{group}-{place}", prompt="x", tags=(tag,), group=group)
    fork = Fork(forked=first <= horizon, at_risk=float(min(first, horizon)))
    completion = Completion(text="x")
    return Pair(case=case, baseline=completion, candidate=completion), Compared(fork=fork, baseline="x", candidate="x")


@pytest.mark.slow
@pytest.mark.parametrize("per_template", [1, 4, 12])
def test_a_tag_is_seldom_named_behind_a_pass_by_the_chance_of_a_template(per_template: int) -> None:
    """8 tags of 12 prompts, every one of which drifts exactly as much as is accepted, prompts of a template alike."""
    rng, named = np.random.default_rng(3), {"text": 0, "shares": 0}
    mean = mean_rate(0.05, shape=1.0, horizon=32)
    for _ in range(DRAWS):
        pairs, kept = [], []
        for tag, template in itertools.product(range(8), range(12 // per_template)):
            rate = float(np.clip(mean * rng.exponential(), 1e-9, 1.0))
            breaks = bool(rng.random() < 0.05)
            for place in range(per_template):
                pairs.append(paired(f"t{tag}", f"g{tag}-{template}", place, int(rng.geometric(rate))))
                kept.append((pairs[-1][0].case, not breaks))
        named["text"] += bool(tags_above(pairs, margin=0.05, alpha=0.05))
        named["shares"] += bool(shares_below(kept, at_least=0.95, alpha=0.05))

    assert {kind: times / DRAWS for kind, times in named.items() if times / DRAWS > 0.05 + SLACK} == {}


def test_a_tag_of_one_group_shows_nothing_and_one_of_several_does() -> None:
    of_one, of_twelve = ([f"g{place}" for place in range(n)] * (12 // n) for n in (1, 12))
    text, kept, gaps = {}, {}, {}
    for name, groups in (("one", of_one), ("twelve", of_twelve)):
        pairs = [paired("poem", group, place, 1) for place, group in enumerate(groups)]
        text[name] = tags_above(pairs, margin=0.05, alpha=0.05)
        kept[name] = shares_below([(pair.case, False) for pair, _ in pairs], at_least=0.99, alpha=0.05)
        gaps[name] = gaps_above([(pair.case, 1) for pair, _ in pairs], margin=0.02, alpha=0.05, side="worse")

    assert text == {"one": "", "twelve": "by themselves above the margin: poem 100 %"}
    assert kept == {"one": "", "twelve": "by themselves below what is asked: poem 0 %"}
    assert gaps == {"one": "", "twelve": "by themselves above the margin: poem 100 %"}


@pytest.mark.slow
def test_half_as_many_prompts_at_a_wide_margin_would_cry_wolf() -> None:
    """8 tags of 12 prompts at 12 %: why such a design is refused."""
    failed, _ = failing(8, 12, margin=0.12, drift=0.12)

    assert failed > 0.1


def test_more_is_asked_where_answers_fork_more_often() -> None:
    allowed, groups = zip(*GROUPS_OF_TAG, strict=True)

    assert list(allowed) == sorted(allowed)
    assert list(groups) == sorted(groups)
    assert [least_of_tag(margin, 32) for margin in (0.05, 0.07, 0.12, 0.2, 0.3)] == [8, 8, 24, 64, None]
    assert least_of_tag(0.05, 128) == 64
    assert least_of_tag(0.12, 16) == least_of_tag(0.12, 32), "shorter answers are no safer"
    assert (least_of_tag(0.12, 32, sequential=True) or 99) < 24, "sequential evidence holds for any number"
