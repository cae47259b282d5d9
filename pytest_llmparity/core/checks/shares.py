"""Verdicts on a share of cases and on a difference of two shares, whatever the cases are shares of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from pytest_llmparity.core.checks.designs import design_of, groups_counted
from pytest_llmparity.core.checks.missing import Missing, rested
from pytest_llmparity.core.checks.tags import gaps_above, shares_below, warned
from pytest_llmparity.core.evidence import Evidence
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.stats.paired import Side
from pytest_llmparity.core.verdict import Verdict


class Best(NamedTuple):
    """What would be kept of which cases if everything that is missing spoke for PASS."""

    cases: Sequence[Case]
    kept: Sequence[bool]


def share_judged(
    verdict: Verdict,
    evidence: Evidence,
    kept: Sequence[bool | None],
    *,
    at_least: float,
    cases: Sequence[Case],
    about: Sequence[Case],
    missing: Missing,
    best: Best | None = None,
    remarks: Sequence[str] = (),
    otherwise: str = "",
) -> Verdict:
    """Return a verdict on the share of cases that are kept, as the design of the evidence judges it.

    ``kept`` stands beside ``cases``; ``None`` says nothing. ``about`` are all cases it speaks of, those asked.
    A PASS names the tags that it hides, and what rests on too little is taken back: a FAIL stands where it is one by
    ``best`` too. ``remarks`` stand behind what a sequential run says of groups, ``otherwise`` is the reason where the
    judgement has none.
    """
    groups = len({case.group for case in about})
    design = design_of(evidence, asked=len(about), groups_asked=groups)
    judgement = design.share(kept, at_least=at_least, cases=cases)
    done = dataclasses.replace(
        verdict.judged(judgement),
        remarks=(*groups_counted(judgement, groups, evidence.prompts.groups), *remarks),
        reason=judgement.reason or otherwise,
    )
    if not evidence.single:
        done = warned(done, shares_below(zip(cases, kept, strict=True), at_least=at_least, alpha=evidence.alpha))
    if best is None:
        return rested(done, missing)
    return rested(done, missing, best=lambda: design.share(best.kept, at_least=at_least, cases=best.cases))


def gap_judged(
    verdict: Verdict,
    evidence: Evidence,
    differences: Sequence[int],
    *,
    margin: float,
    side: Side,
    cases: Sequence[Case],
    rest: Sequence[Case],
    about: Sequence[Case],
    missing: Missing,
    remarks: Sequence[str] = (),
    by_tag: bool = True,
) -> Verdict:
    """Return a verdict on a difference of shares (``Design.gap``), as :func:`share_judged` does on a share.

    ``rest`` are cases that say nothing, at the best no difference. Without ``by_tag`` a PASS names no tags.
    """
    groups = len({case.group for case in about})
    design = design_of(evidence, asked=len(about), groups_asked=groups)
    judgement = design.gap(differences, margin=margin, side=side, cases=cases)
    of_groups = groups_counted(judgement, groups, evidence.prompts.groups)
    done = dataclasses.replace(verdict.judged(judgement), remarks=(*of_groups, *remarks))
    if by_tag and not evidence.single:
        values = zip(cases, differences, strict=True)
        done = warned(done, gaps_above(values, margin=margin, alpha=evidence.alpha, side=side))
    everything, best = [*cases, *rest], [*differences, *[0] * len(rest)]
    return rested(done, missing, best=lambda: design.gap(best, margin=margin, side=side, cases=everything))


def besides(about: Sequence[Case], cases: Sequence[Case]) -> list[Case]:
    """Return the cases a judgement is about that say nothing: all but these."""
    ids = {case.id for case in cases}
    return [case for case in about if case.id not in ids]
