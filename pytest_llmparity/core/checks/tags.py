"""Verdicts on the prompts of one tag, beside the one on all of them: which tags are judged, and by what evidence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, TypeVar

from pytest_llmparity.core.checks.designs import Fixed
from pytest_llmparity.core.checks.missing import JUDGED
from pytest_llmparity.core.evidence import Evidence
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.stats.paired import Side
from pytest_llmparity.core.stats.sequential import least_units
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.printable import printable

V = TypeVar("V")
By: TypeAlias = Literal["tag"]
DOCS: Final = "docs/verdicts.md#verdicts-by-tag"
_NAMED: Final = 6
_ANSWERS: Final = 32
"""Tokens of the answers of the table below."""
GROUPS_OF_TAG: Final = (
    *((2.3, 8), (2.6, 12), (3.0, 16), (3.4, 20), (3.85, 24)),
    *((4.8, 40), (5.6, 48), (6.4, 64), (8.0, 96)),
)
"""How many groups of prompts a tag takes, by the forks that the margin allows in an answer of 32 tokens or the horizon.

With fewer, some tag of 16 fails in more than 5 % of runs although none drifts beyond the margin: prompts of a tag whose
hazards differ widely (as gamma variables of shape .5), after Holm's correction (tests/core/checks/test_tags.py).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """The tags of a prompt set by whether their prompts are enough for a verdict of their own.

    Each with the sizes of its groups. A tag that every prompt has is neither: its verdict is that on all of them.
    """

    judged: Mapping[str, Sequence[int]]
    few: Mapping[str, Sequence[int]]

    @property
    def all(self) -> tuple[str, ...]:
        """Every tag that has or could have a verdict of its own."""
        return (*self.judged, *self.few)


def tags_of(prompts: PromptSet, enough: Callable[[Sequence[int]], bool]) -> Tags:
    """Return the tags of a prompt set; ``enough`` says whether groups of these sizes give a verdict of their own.

    A prompt with several tags counts in each of them.
    """
    judged: dict[str, Sequence[int]] = {}
    few: dict[str, Sequence[int]] = {}
    for tag, sizes in prompts.tag_sizes.items():
        if sum(sizes) < len(prompts.cases):
            (judged if enough(sizes) else few)[tag] = sizes
    return Tags(judged=judged, few=few)


def within(evidence: Evidence, tag: str) -> Evidence:
    """Return the evidence of the prompts with a tag alone."""
    return evidence.about(evidence.prompts.of_tag(tag))


def beside(
    whole: Iterable[Verdict], evidence: Evidence, tags: Iterable[str], judge: Callable[[Evidence], Iterable[Verdict]]
) -> Iterable[Verdict]:
    """Yield the verdicts on the prompts of each tag by themselves, of engines whose answers to all prompts were judged.

    What holds for all prompts alike stands with the verdict on them, and not here.
    """
    judged = {verdict.engine for verdict in whole if verdict.outcome in JUDGED}
    for tag in tags if judged else ():
        for verdict in judge(within(evidence, tag)):
            if verdict.engine in judged:
                yield dataclasses.replace(opened(verdict, tag), differs=(), lenience=())


def opened(verdict: Verdict, tag: str) -> Verdict:
    """Return a verdict that says nothing yet, as one on the prompts with a tag."""
    return dataclasses.replace(verdict, kind=f"{verdict.kind}[{printable(tag)}]", tag=tag)


def least_of_tag(margin: float, longest: int, *, sequential: bool = False) -> int | None:
    """Return how many groups of prompts a tag takes for a verdict of its own; ``None`` where that is not known.

    So many that honest engines fail seldom, and that answers without a fork would pass. ``longest`` is the number of
    compared tokens of the longest answer. Sequential evidence holds for any number.

    >>> least_of_tag(0.05, 32), least_of_tag(0.12, 32), least_of_tag(0.005, 32), least_of_tag(0.5, 32)
    (8, 24, 19, None)
    """
    if sequential:
        return least_units(margin, most=longest, alpha=0.05)
    allowed = margin * max(longest, _ANSWERS)  # shorter answers are no safer
    safe = next((groups for forks, groups in GROUPS_OF_TAG if allowed <= forks), None)
    return None if safe is None else max(safe, math.floor(-math.log(0.05) / (margin * longest)) + 1)


def no_tag(prompts: PromptSet, tags: Tags, wanted: str) -> str | None:
    """Say why no tag can be judged by itself, ``None`` where one can; ``wanted`` says what a tag takes."""
    if tags.judged:
        return None
    if not tags.few:
        there = "every prompt has the same tags" if prompts.tag_sizes else "no prompt has a tag"
        return f'by="tag" judges the prompts of each tag beside all of them, and {there}'
    most = max(tags.few, key=lambda tag: (len(tags.few[tag]), sum(tags.few[tag])))
    groups, prompts_of = len(tags.few[most]), sum(tags.few[most])
    size = explain.count(prompts_of, "prompt")
    if groups < prompts_of:
        size += f" in {explain.count(groups, 'group')}"
    return (
        f'by="tag": no tag has prompts enough for a verdict of its own: it takes {wanted} ({DOCS}); the largest is '
        f"{explain.plain(most, 40)} with {size}"
    )


def left_to_all(tags: Tags, wanted: str) -> tuple[str, ...]:
    """Say which tags have no verdict of their own, as a remark; nothing where all have one."""
    if not tags.few:
        return ()
    return (f"too few prompts for a verdict of their own ({wanted}): {_listed(tags.few)}",)


def plan_line(check: str, tags: Tags, wanted: str) -> str:
    """Return for the plan which tags are judged by themselves, and which have too few prompts for that."""
    words = f"{check}: by tag {_listed(tags.judged)}"
    return "; ".join([words, *left_to_all(tags, wanted)])


def _listed(tags: Mapping[str, Sequence[int]]) -> str:
    ordered = sorted(((tag, sum(sizes)) for tag, sizes in tags.items()), key=lambda item: (-item[1], item[0]))
    shown = [f"{explain.plain(tag, 30)} {prompts}" for tag, prompts in ordered[:_NAMED]]
    more = len(ordered) - len(shown)
    return ", ".join(shown) + (f" and {explain.count(more, 'other')}" if more else "")


def shares_below(kept: Iterable[tuple[Case, bool | None]], *, at_least: float, alpha: float) -> str:
    """Return in words which tags' own prompts are shown to keep less than this share, each at its part of the error.

    Prompts of a group are one piece of evidence here as everywhere: a tag of one group shows nothing.
    """
    by_tag = of_tags((case, int(keeps)) for case, keeps in kept if keeps is not None)
    below = {}
    for tag, values in by_tag.items():
        judgement = Fixed(alpha=alpha / len(by_tag)).share(
            [bool(keeps) for _, keeps in values], at_least=at_least, cases=[case for case, _ in values]
        )
        if judgement.outcome is Outcome.FAIL and several_groups(values):
            below[tag] = sum(keeps for _, keeps in values) / len(values)
    return hidden_tags("below what is asked", {tag: -share for tag, share in below.items()})


def gaps_above(differences: Iterable[tuple[Case, int]], *, margin: float, alpha: float, side: Side) -> str:
    """Return in words which tags' own gap is shown to lie above the margin, as :func:`shares_below` does."""
    by_tag = of_tags(differences)
    above = {}
    for tag, values in by_tag.items():
        net = sum(value for _, value in values)
        net, n = net if side == "worse" else abs(net), len(values)
        if net <= n * margin or not several_groups(values):
            continue
        judgement = Fixed(alpha=alpha / len(by_tag)).gap(
            [value for _, value in values], margin=margin, side=side, cases=[case for case, _ in values]
        )
        if judgement.outcome is Outcome.FAIL:
            above[tag] = net / n
    return hidden_tags("above the margin", above)


def warned(verdict: Verdict, hidden: str) -> Verdict:
    """Return a PASS that names what it hides, in its headline and as a remark; others as they are."""
    if verdict.outcome is not Outcome.PASS or not hidden:
        return verdict
    reason = "; ".join(filter(None, [verdict.reason, hidden]))
    return dataclasses.replace(verdict, reason=reason, remarks=(*verdict.remarks, hidden))


def hidden_tags(words: str, values: Mapping[str, float]) -> str:
    """Return the words about tags that a PASS hides, the worst first; empty where there is none."""
    shown = ", ".join(
        f"{explain.plain(tag, 30)} {explain.number(abs(value), 'share')}"
        for tag, value in sorted(values.items(), key=lambda item: (-item[1], item[0]))
    )
    return f"by themselves {words}: {shown}" if shown else ""


def of_tags(items: Iterable[tuple[Case, V]]) -> dict[str, list[tuple[Case, V]]]:
    """Return what is known of cases by tag; a case with several counts in each of them."""
    by_tag: dict[str, list[tuple[Case, V]]] = {}
    for case, value in items:
        for tag in dict.fromkeys(case.tags):
            by_tag.setdefault(tag, []).append((case, value))
    return by_tag


def several_groups(items: Iterable[tuple[Case, V]]) -> bool:
    """Whether cases come from more than one group: those of one go together, and show nothing of others."""
    return len({case.group for case, _ in items}) > 1
