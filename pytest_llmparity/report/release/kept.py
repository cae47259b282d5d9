"""A decision as the reports of its run have it, and as a line of the decisions that outlive their runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from pytest_llmparity.core.gate.deciding import Decision, Ruling
from pytest_llmparity.core.gate.flips import Flip
from pytest_llmparity.core.gate.policy import Ruled
from pytest_llmparity.core.identity.record import KEPT, Broken, Change, Counts, DecisionRecord, Ground, Turned
from pytest_llmparity.core.sample import to_json
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain
from pytest_llmparity.report import json
from pytest_llmparity.run.judge.recorded import WholeRun

FORMAT: Final = 1


def kept(decision: Decision) -> DecisionRecord:
    """Return the decision as the reports of its run have it."""
    flips = decision.flips
    return DecisionRecord(
        outcome=decision.outcome.value,
        baseline=decision.baseline,
        candidate=decision.candidate,
        advice=_advice(decision),
        policy=decision.policy.source,
        sha256=decision.policy.sha256,
        verdicts=tuple(map(_ground, decision.rulings)),
        broken=tuple(
            Broken(test=test.test, why=test.why, level=test.level, alone=test.ruled.value) for test in decision.broken
        ),
        changed=tuple(
            Change(
                field=difference.field,
                baseline=difference.locked,
                candidate=difference.live,
                machine=difference.machine,
            )
            for difference in decision.apart
        ),
        same=decision.alike,
        flips=Counts(
            regressions=len(flips.regressions),
            improvements=len(flips.improvements),
            changed=len(flips.changed),
            changed_right=flips.changed_right,
            wrong_on_both=flips.wrong_on_both,
        ),
        regressions=_worst(flips.regressions),
        improvements=_worst(flips.improvements),
        changed_cases=_worst(flips.changed),
    )


def _ground(ruling: Ruling) -> Ground:
    verdict = ruling.verdict
    return Ground(
        test=verdict.test,
        kind=verdict.kind,
        outcome=verdict.outcome.value,
        level=ruling.level,
        alone=ruling.ruled.value,
        says=explain.headline(verdict).partition("\n")[0],
        cause=verdict.cause,
        remarks=tuple(explain.remarks(verdict, of_reader=False)),
    )


def _worst(flips: Iterable[Flip]) -> tuple[Turned, ...]:
    """Return the worst of the cases that turned one way."""
    return tuple(
        Turned(
            test=flip.test,
            case=flip.case,
            what=flip.what,
            checks=flip.checks,
            token=flip.token,
            char=flip.char,
            grade=flip.grade,
            counted=flip.counted,
        )
        for flip in list(flips)[:KEPT]
    )


def _advice(decision: Decision) -> str:
    """Return what to do, in one sentence."""
    ours, theirs = decision.baseline, decision.candidate
    broken = [test for test in decision.broken if test.level == "required" and test.ruled is Ruled.HOLD]
    if decision.outcome is Ruled.SHIP:
        passed = decision.of(Ruled.SHIP)
        excused = sum(r.verdict.outcome is not Outcome.PASS for r in passed)
        words = f"{theirs} may replace {ours}. {_of_required(len(passed) - excused, decision)} passed"
        words += f"; the policy excuses {explain.count(excused, 'other')}." if excused else "."
        return f"{words}{_but(decision)}"
    if decision.outcome is Ruled.HOLD:
        against = decision.of(Ruled.HOLD)
        parts = [f"{_of_required(len(against), decision)} {'speaks' if len(against) == 1 else 'speak'} against it"]
        if broken:
            failed = "a test fails" if len(broken) == 1 else f"{explain.counted(len(broken), 'test')} fail"
            parts = [*parts[: bool(against)], f"{failed} for another reason than a verdict"]
        return f"{theirs} should not replace {ours}. {_capital(', and '.join(parts))}."
    still = decision.of(Ruled.INCONCLUSIVE)
    if still:
        return (
            f"nothing speaks against {theirs} in place of {ours}, and not enough for it. "
            f"{_of_required(len(still), decision)} {'is' if len(still) == 1 else 'are'} open."
        )
    if any(test.level == "required" for test in decision.broken):
        return f"a test fails on {ours} by itself, which says nothing of {theirs} in place of it."
    return f"no required check passed, so nothing speaks for {theirs} in place of {ours}."


def _but(decision: Decision) -> str:
    """Return what the verdicts hide that passed, as a sentence behind the advice to ship."""
    tags = {text: r.verdict.kind for r in reversed(decision.rulings) for text in explain.hidden(r.verdict)}
    shown = [f"of {kind} the prompts of some tags are {text}" for text, kind in reversed(tags.items())]
    return f" But {'; '.join(shown)}." if shown else ""


def _capital(text: str) -> str:
    """Return a text with its first letter a capital."""
    return text[:1].upper() + text[1:]


def _of_required(count: int, decision: Decision) -> str:
    total = sum(ruling.level == "required" for ruling in decision.rulings)
    if count == total:
        words = "the one required verdict" if total == 1 else f"all {explain.counted(total, 'required verdict')}"
        return _capital(words)
    return f"{count} of {explain.count(total, 'required verdict')}"


def record(
    decision: Decision, whole: WholeRun, *, decided: str, root: Path | None = None, suite: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the decision as JSON builtins, as it is stored and as ``--json`` writes it; ``decided`` is when.

    Like ``run.json`` it holds no folders of this machine, and what is infinite is ``None``.
    """
    flips = decision.flips
    content = {
        "format": FORMAT,
        "decided": decided,
        "version": whole.record.version,
        "outcome": decision.outcome.value,
        "baseline": decision.baseline,
        "candidate": decision.candidate,
        "run": whole.record.run,
        "suite": list(suite),
        "policy": {"source": decision.policy.source, "sha256": decision.policy.sha256},
        "advice": _advice(decision),
        "verdicts": [_verdict(ruling) for ruling in decision.rulings],
        "broken": [{"test": test.test, "why": test.why, "level": test.level} for test in decision.broken],
        "changed": [
            {"field": difference.field, "baseline": difference.locked, "candidate": difference.live}
            for difference in decision.apart
        ],
        "same": list(decision.alike),
        "flips": {
            "regressions": len(flips.regressions),
            "improvements": len(flips.improvements),
            "changed": len(flips.changed),
            "changed_right": flips.changed_right,
            "wrong_on_both": flips.wrong_on_both,
        },
        "regressions": [_case(flip) for flip in flips.regressions[:KEPT]],
        "improvements": [_case(flip) for flip in flips.improvements[:KEPT]],
        "changed_cases": [_case(flip) for flip in flips.changed[:KEPT]],
    }
    shortened: dict[str, Any] = json.here(root, json.files_of(whole.record)).shorten(json.clean(content))
    return shortened


def _verdict(ruling: Ruling) -> dict[str, Any]:
    verdict: Verdict = ruling.verdict
    numbers = to_json(
        {name: getattr(verdict, name) for name in ("estimate", "lower", "upper", "margin", "unit", "n", "cause")}
    )
    return {
        "test": verdict.test,
        "kind": verdict.kind,
        "outcome": verdict.outcome.value,
        "level": ruling.level,
        "alone": ruling.ruled.value,
        **numbers,
        "says": explain.headline(verdict).partition("\n")[0],
    }


def _case(flip: Flip) -> dict[str, Any]:
    return {
        "test": flip.test,
        "case": flip.case,
        "what": flip.what,
        "checks": list(flip.checks),
        "token": flip.token,
        "grade": flip.grade,
    }
