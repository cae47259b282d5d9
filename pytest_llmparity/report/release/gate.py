"""A decision as a message to whoever releases: what to do, on what grounds, what changed, and which cases turned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pytest_llmparity.core.compare.answers import in_words
from pytest_llmparity.core.gate.deciding import BrokenTest, Decision, Ruling
from pytest_llmparity.core.gate.flips import Flip, Flips
from pytest_llmparity.core.gate.policy import Ruled
from pytest_llmparity.core.identity.lock import Difference
from pytest_llmparity.core.identity.record import DecisionRecord
from pytest_llmparity.core.sample import IDENTITY, Completion, Phase, to_json
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.printable import printable, wrapped
from pytest_llmparity.report import json
from pytest_llmparity.run.judge.recorded import Told

FORMAT: Final = 1
WIDTH: Final = 100
LISTED: Final = 5
"""Cases of one kind that are listed with both answers; the others are counted."""
KEPT: Final = 50
"""Cases of one kind that a stored decision names."""
_SHOWN: Final = 60
_LEAD: Final = 12
_DIGITS: Final = 19
_LONG: Final = 64

Answers = Mapping[tuple[str, str], Completion]


def message(decision: Decision, told: Told, *, width: int = WIDTH) -> list[str]:
    """Return the decision in words, bounded in length; every text of a model or a server is escaped."""
    flips = decision.flips
    answers = _answers(told, [*flips.regressions[:LISTED], *flips.improvements[:LISTED], *flips.changed[:LISTED]])
    lines = [*wrapped(f"{decision.outcome}: {_advice(decision)}", width, indent="  "), ""]
    lines += _grounds(decision, width)
    lines += ["", *_changed(decision, told, width)]
    lines += ["", *_behaviour(decision, told, answers, width)]
    lines += ["", *_provenance(decision, told, width)]
    return [line.rstrip() for line in lines]


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


def _grounds(decision: Decision, width: int) -> list[str]:
    """Return the verdicts that decided, those that passed in one line, and the advisory ones that did not pass."""
    lines: list[str] = []
    for ruled, title in ((Ruled.HOLD, "Against it:"), (Ruled.INCONCLUSIVE, "Open:")):
        if rulings := decision.of(ruled):
            lines += [title, *(line for ruling in rulings for line in _ruling(ruling, width))]
    required = [test for test in decision.broken if test.level == "required"]
    for ruled, where in ((Ruled.HOLD, ""), (Ruled.INCONCLUSIVE, f" on {decision.baseline}, which is in use already,")):
        if failing := [test for test in required if test.ruled is ruled]:
            lines += [f"Failed{where} for another reason than a verdict:", *(_broken(test) for test in failing)]
    if excused := [r for r in decision.of(Ruled.SHIP) if r.verdict.outcome is not Outcome.PASS]:
        lines += ["Shipped by the policy all the same:", *(line for r in excused for line in _ruling(r, width))]
    advisory = [r for r in decision.rulings if r.level == "advisory" and r.verdict.outcome is not Outcome.PASS]
    failed = [test for test in decision.broken if test.level == "advisory"]
    if advisory or failed:
        lines += ["Advisory, so it decides nothing:", *(line for r in advisory for line in _ruling(r, width))]
        lines += [_broken(test) for test in failed]
    if passed := [r.verdict for r in decision.rulings if r.verdict.outcome is Outcome.PASS]:
        kinds: dict[str, list[str]] = {}
        for verdict in passed:
            kinds.setdefault(_test(verdict.test), []).append(verdict.kind)
        shown = [f"{test} ({', '.join(dict.fromkeys(names))})" for test, names in kinds.items()]
        more = f" and {len(shown) - LISTED} more tests" if len(shown) > LISTED else ""
        lines += wrapped(printable(f"Passed: {', '.join(shown[:LISTED])}{more}"), width, indent="  ")
        lines += _noted(passed, width)
    return lines


def _noted(passed: Sequence[Verdict], width: int) -> list[str]:
    """Return what is to be known of verdicts that passed, each sentence once."""
    whose: dict[str, dict[str, None]] = {}
    for verdict in passed:
        for remark in explain.remarks(verdict, of_reader=False):
            whose.setdefault(remark, {})[f"{verdict.kind} of {_test(verdict.test)}"] = None
    lines = [f"{', '.join(list(names)[:LISTED])}: {remark}" for remark, names in whose.items()]
    shown = [line for text in lines for line in wrapped(printable(text), width, head="  ", indent="    ")]
    return ["Passed, and to be known all the same:", *shown] if shown else []


def _ruling(ruling: Ruling, width: int) -> list[str]:
    verdict = ruling.verdict
    head, _, rest = explain.headline(verdict).partition("\n")[0].partition(": ")
    words = f"{verdict.outcome}  {_test(verdict.test)}, {verdict.kind}: {rest or head}"
    lines = wrapped(printable(words), width, head="  ", indent="    ")
    if verdict.cause:
        lines += wrapped(printable(f"cause: {verdict.cause}"), width, head="    ", indent="      ")
    return lines


def _broken(test: BrokenTest) -> str:
    return printable(f"  {_test(test.test)}: {test.why}")


def _test(node: str) -> str:
    return node.rpartition("::")[2] if "[" not in node else node.partition("::")[2]


def _changed(decision: Decision, told: Told, width: int) -> list[str]:
    """Return what the two engines differ in, as they tell it."""
    title = f"What changed from {decision.baseline} to {decision.candidate}:"
    by_field = {
        difference.field: difference for difference in reversed(decision.apart)
    }  # what it says, before settings
    known = [d for d in decision.apart if d is by_field[d.field] and not _one_sided(d)]
    lines = [line for difference in known for line in difference_lines(difference, width)]
    if not lines:
        lines = ["  nothing that they tell"]
    if untold := [difference.field for difference in decision.apart if _one_sided(difference)]:
        lines += wrapped(f"told by one of them only: {', '.join(untold)}", width, head="  ", indent="    ")
    if decision.alike:
        lines += wrapped(f"the same: {', '.join(decision.alike)}", width, head="  ", indent="    ")
    causes = dict.fromkeys(r.verdict.cause for r in decision.rulings if r.verdict.cause)
    if causes and decision.outcome is not Ruled.SHIP:
        shown = "; ".join(filter(None, causes))
        lines += wrapped(printable(f"shown to be the cause: {shown}"), width, head="  ", indent="    ")
    return [title, *lines]


def _one_sided(difference: Difference) -> bool:
    """Whether it is a fact, no setting, that only one of the two engines tells."""
    return difference.field in IDENTITY and (difference.locked is None or difference.live is None)


def difference_lines(difference: Difference, width: int) -> list[str]:
    """Return in what two engines differ in one fact, wrapped."""
    sides = [_value(difference.field, side) for side in (difference.locked, difference.live)]
    where = " (the machine)" if difference.machine else ""
    return wrapped(f"{difference.field}{where}: {sides[0]} -> {sides[1]}", width, head="  ", indent="    ")


def _value(field: str, value: str | None) -> str:
    if value is None:
        return "none"
    if field in ("digest", "spec") or field.endswith("sha256"):
        return printable(value[:_DIGITS])
    return explain.plain(value, _LONG)


def _behaviour(decision: Decision, told: Told, answers: Answers, width: int) -> list[str]:
    """Return how many cases turned and in what way, and the worst of each kind with both answers."""
    flips = decision.flips
    lines = wrapped(f"What changed in the answers: {_counts(flips)}.", width, indent="  ")
    for title, cases in (
        ("Regressions", flips.regressions),
        ("Improvements", flips.improvements),
        ("Answered otherwise", flips.changed),
    ):
        if cases:
            lines += [f"{title}, the gravest first:"]
            was = "before: " if title == "Improvements" else ""
            lines += [line for flip in cases[:LISTED] for line in _flip(flip, decision, answers, width, was=was)]
            if len(cases) > LISTED:
                run = f"llmparity report {told.record.run} --html"
                lines += [f"  and {len(cases) - LISTED} more, all of them with both answers: {run}"]
    return lines


def _counts(flips: Flips) -> str:
    """Return how many cases turned, and in what way."""
    turned = {
        "right before and wrong now": len(flips.regressions),
        "wrong before and right now": len(flips.improvements),
        "changed and right on both": flips.changed_right,
        "wrong on both": flips.wrong_on_both,
    }
    changed = explain.count(len(flips.changed), "case")
    if not any(turned.values()):
        return f"{changed} answered otherwise, and no check says which answer is right" if flips.changed else "nothing"
    counts = [f"{count} {words}" for words, count in turned.items() if count or words in tuple(turned)[:2]]
    return ", ".join([*counts, f"{len(flips.changed)} changed and unjudged"])


def _flip(flip: Flip, decision: Decision, answers: Answers, width: int, *, was: str) -> list[str]:
    tests = {ruling.verdict.test for ruling in decision.rulings}
    beside = [_test(flip.test) if len(tests) > 1 else "", "" if flip.what == "text" else f"{was}{flip.what}"]
    if flip.token is not None:
        beside.append(f"parts after {explain.count(int(flip.token), 'token')}")
    beside += [flip.grade or "", "" if flip.counted else "not counted"]
    words = printable(f"{explain.plain(flip.case, 40)}  {explain.plain(', '.join(filter(None, beside)), 160)}")
    head = wrapped(words, width, head="  ", indent="    ")
    sides = (decision.baseline, decision.candidate)
    given = [answers.get((name, flip.case)) for name in sides]
    if given[0] is None and given[1] is None:
        return head
    wide = max(map(len, sides))
    return [*head, *(f"    {name:{wide}}  {_quoted(text, flip)}" for name, text in zip(sides, given, strict=True))]


def _quoted(answer: Completion | None, flip: Flip) -> str:
    if answer is None:
        return "no answer"
    begin = max(0, (flip.char or 0) - _LEAD)
    return ("…" if begin else "") + explain.quote(in_words(answer)[begin:], _SHOWN)


def _answers(told: Told, flips: Iterable[Flip]) -> dict[tuple[str, str], Completion]:
    """Return by engine and case the first answers to the cases that are shown."""
    wanted = {flip.case: flip.test for flip in flips}
    first: dict[tuple[str, str], Completion] = {}
    for sample in told.samples:
        if sample.phase is not Phase.MAIN or sample.completion is None or sample.case not in wanted:
            continue
        origin, test = told.origin(sample), wanted[sample.case]
        if test and origin is not None and origin.tests and test not in origin.tests:
            continue
        first.setdefault((sample.engine, sample.case), sample.completion)
    return first


def _provenance(decision: Decision, told: Told, width: int) -> list[str]:
    policy = decision.policy
    lines = wrapped(printable(f"Policy: {policy.source} (sha256 {policy.short})."), width, indent="  ")
    lines += [f"Run: {told.record.run}. The whole of it: llmparity report {told.record.run} --html"]
    return lines


def kept(decision: Decision) -> DecisionRecord:
    """Return the decision as the reports of its run have it."""
    return DecisionRecord(
        outcome=decision.outcome.value,
        baseline=decision.baseline,
        candidate=decision.candidate,
        advice=_advice(decision),
        policy=decision.policy.source,
        sha256=decision.policy.sha256,
    )


def shared(lines: Sequence[str], told: Told, *, root: Path) -> list[str]:
    """Return the message for others: without the folders of this machine."""
    places = json.here(root, json.files_of(told.record))
    return [str(places.shorten(line)) for line in lines]


def record(
    decision: Decision, told: Told, *, decided: str, root: Path | None = None, suite: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the decision as JSON builtins, as it is stored and as ``--json`` writes it; ``decided`` is when.

    Like ``run.json`` it holds no folders of this machine, and what is infinite is ``None``.
    """
    flips = decision.flips
    content = {
        "format": FORMAT,
        "decided": decided,
        "version": told.record.version,
        "outcome": decision.outcome.value,
        "baseline": decision.baseline,
        "candidate": decision.candidate,
        "run": told.record.run,
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
    shortened: dict[str, Any] = json.here(root, json.files_of(told.record)).shorten(json.clean(content))
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


def history(decisions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each stored decision; what cannot be shown of one is left out."""
    lines = []
    for decision in decisions:
        flips = decision.get("flips") or {}
        turned = f"{flips.get('regressions', '?')} worse, {flips.get('improvements', '?')} better"
        changes = "; ".join(
            f"{change.get('field')} {_value(str(change.get('field')), change.get('baseline'))} -> "
            f"{_value(str(change.get('field')), change.get('candidate'))}"
            for change in _worth_telling(decision.get("changed") or [])
        )
        policy = str((decision.get("policy") or {}).get("sha256", ""))[:12]
        parts = [
            str(decision.get("decided", ""))[:16].replace("T", " "),
            f"{decision.get('outcome')!s:12}",
            f"{decision.get('baseline')} -> {decision.get('candidate')}",
            f"{turned}, {flips.get('changed', '?')} changed",
            changes,
            f"policy {policy}",
            f"run {decision.get('run')}",
        ]
        lines.append(printable("  ".join(part for part in parts if part)))
    return lines


def _worth_telling(changes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the changes that a line has room for: what an engine is, before how it was started."""
    order = ("kind", "version", "build", "quantization", "template_sha256", "context_length", "args")
    known = [change for change in changes if change.get("field") in order]
    return sorted(known, key=lambda change: order.index(str(change.get("field"))))[:3]
