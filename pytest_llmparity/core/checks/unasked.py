"""A verdict on fewer prompts than were declared: what was left out of it and why, and whether enough is left."""

from __future__ import annotations

import dataclasses
from typing import Any

from pytest_llmparity.core.checks.gathered import finish
from pytest_llmparity.core.checks.missing import COUNTING, Missing
from pytest_llmparity.core.evidence import Evidence
from pytest_llmparity.core.verdict import LeftOut, Outcome, Verdict
from pytest_llmparity.core.words import explain


def told(verdict: Verdict, evidence: Evidence, *, required: bool = False) -> Verdict:
    """Return the verdict with the prompts that one of its engines cannot be asked named, whatever its outcome.

    Where they are more than 5 % of the set, a statistical PASS or FAIL and an exact PASS become INCONCLUSIVE: they
    speak for other prompts than were declared. Checks that count them among what is missing have judged that
    themselves. Where nothing is left the check is SKIPPED, an ERROR if ``required``.
    """
    names = (verdict.baseline, verdict.engine)
    engines = [evidence.engines[name] for name in names if name is not None and name in evidence.engines]
    missing = {case: (engine.name, why) for engine in reversed(engines) for case, why in engine.left_out.items()}
    if not missing or any(engine.error or engine.incomparable or engine.lacking for engine in engines):
        return verdict
    by_reason: dict[tuple[str, str], list[str]] = {}
    for case in evidence.prompts.cases:
        if case.id in missing:
            by_reason.setdefault(missing[case.id], []).append(case.id)
    left_out = tuple(LeftOut(engine=e, reason=why, cases=tuple(cases)) for (e, why), cases in by_reason.items())
    verdict = dataclasses.replace(verdict, left_out=left_out)
    total, lost = len(evidence.prompts.cases), sum(len(part.cases) for part in left_out)
    first = left_out[0].reason
    if lost == total:
        outcome = Outcome.ERROR if required else Outcome.SKIPPED
        wanted = ", and --parity-required asks for a verdict" if required else ""
        reason = f"no prompt is left that both engines can be asked; first: {first}{wanted}"
        return finish(verdict, outcome=outcome, reason=reason, estimate=None)
    exact_failure = verdict.outcome is Outcome.FAIL and verdict.p_fail is None
    settled = verdict.outcome in (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)
    enough = Missing(of=total, used=total - lost).enough
    if verdict.kind in COUNTING or enough or exact_failure or not settled:
        return verdict
    left = explain.count(lost, "prompt")
    reason = f"it rests on {total - lost} of {explain.count(total, 'prompt')}: {left} left out: {first}"
    before = verdict.reason if verdict.outcome is Outcome.INCONCLUSIVE else ""
    changes: dict[str, Any] = {"needed": None, "open": False}
    reason = "; ".join(filter(None, [before, reason]))
    return finish(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason, **changes)
