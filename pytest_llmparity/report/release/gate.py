"""A decision as a message to whoever releases: what to do, on what grounds, what changed, and which cases turned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from pytest_llmparity.core.compare.calls import in_words
from pytest_llmparity.core.identity.lock import Difference
from pytest_llmparity.core.identity.record import Broken, Change, DecisionRecord, Ground, Turned
from pytest_llmparity.core.sample import IDENTITY, Completion, Phase
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.nodeids import names_apart
from pytest_llmparity.core.words.printable import printable, wrapped
from pytest_llmparity.report import json
from pytest_llmparity.run.judge.recorded import WholeRun

WIDTH: Final = 100
LISTED: Final = 5
"""Cases of one kind that are listed with both answers; the others are counted."""
_SHOWN: Final = 60
_LEAD: Final = 12
_DIGITS: Final = 19
_LONG: Final = 64
_PASSED: Final = Outcome.PASS.value
_SHIP: Final = "SHIP"
_REQUIRED: Final = "required"
SHORT: Final = 12
"""Digits of a policy's hash that are shown."""

Answers = Mapping[tuple[str, str], Completion]


class Entry(NamedTuple):
    """One verdict or test in words, and its cause where one was shown."""

    words: str
    cause: str


class Section(NamedTuple):
    """What of a decision stands below one title."""

    title: str
    entries: list[Entry]


class Way(NamedTuple):
    """The cases that turned one way: a ``title``, the worst of them, and how many there are."""

    title: str
    cases: tuple[Turned, ...]
    total: int


def message(decision: DecisionRecord, whole: WholeRun, *, width: int = WIDTH) -> list[str]:
    """Return the decision in words, bounded in length; every text of a model or a server is escaped."""
    lines = [*wrapped(printable(f"{decision.outcome}: {decision.advice}"), width, indent="  "), ""]
    if decision.flips is not None:
        answers = _answers(whole, [case for way in ways(decision) for case in way.cases[:LISTED]])
        lines += _grounds(decision, width)
        lines += ["", *_changed(decision, width)]
        lines += ["", *_behaviour(decision, whole, answers, width), ""]
    lines += _provenance(decision, whole, width)
    return [line.rstrip() for line in lines]


def of(decision: DecisionRecord, alone: str) -> list[Ground]:
    """Return the required verdicts that speak for one outcome."""
    return [ground for ground in decision.verdicts if (ground.level, ground.alone) == (_REQUIRED, alone)]


def sections(decision: DecisionRecord) -> list[Section]:
    """Return what did not pass below titles: what decided, what the policy excuses, and what only advises."""
    required = [test for test in decision.broken if test.level == _REQUIRED]
    excused = [ground for ground in of(decision, _SHIP) if ground.outcome != _PASSED]
    advisory = [ground for ground in decision.verdicts if ground.level != _REQUIRED and ground.outcome != _PASSED]
    failed = [test for test in decision.broken if test.level != _REQUIRED]
    beside = f" on {decision.baseline}, which is in use already,"
    names = names_in(decision)
    every = [
        Section("Against it:", _entries(names, of(decision, "HOLD"))),
        Section("Open:", _entries(names, of(decision, "INCONCLUSIVE"))),
        *(
            Section(f"Failed{where} for another reason than a verdict:", _entries(names, broken=of_tests))
            for alone, where in (("HOLD", ""), ("INCONCLUSIVE", beside))
            if (of_tests := [test for test in required if test.alone == alone])
        ),
        Section("Shipped by the policy all the same:", _entries(names, excused)),
        Section("Advisory, so it decides nothing:", _entries(names, advisory, failed)),
    ]
    return [section for section in every if section.entries]


def names_in(decision: DecisionRecord) -> dict[str, str]:
    """Return how each test of a decision is called in all that is told of it, by node id: no two alike."""
    cases = (*decision.regressions, *decision.improvements, *decision.changed_cases)
    judged = (*(ground.test for ground in decision.verdicts), *(broken.test for broken in decision.broken))
    return names_apart((*judged, *(case.test for case in cases)))


def _entries(names: Mapping[str, str], grounds: Iterable[Ground] = (), broken: Iterable[Broken] = ()) -> list[Entry]:
    entries = [Entry(f"{ground.outcome}  {_in_short(ground, names)}", ground.cause or "") for ground in grounds]
    return [*entries, *(Entry(f"{names[test.test]}: {test.why}", "") for test in broken)]


def _grounds(decision: DecisionRecord, width: int) -> list[str]:
    """Return the verdicts that decided, those that passed in one line, and the advisory ones that did not pass."""
    lines: list[str] = []
    for title, entries in sections(decision):
        lines.append(title)
        for words, cause in entries:
            lines += wrapped(printable(words), width, head="  ", indent="    ")
            lines += wrapped(printable(f"cause: {cause}"), width, head="    ", indent="      ") if cause else []
    passed = [ground for ground in decision.verdicts if ground.outcome == _PASSED]
    names = names_in(decision)
    if shown := in_one_line(passed, names):
        lines += wrapped(printable(f"Passed: {shown}"), width, indent="  ")
        lines += _remarked(passed, names, width)
    return lines


def in_one_line(passed: Sequence[Ground], names: Mapping[str, str]) -> str:
    """Return the kinds of verdicts by their tests; ``names`` are those of the tests."""
    kinds: dict[str, list[str]] = {}
    for ground in passed:
        kinds.setdefault(names[ground.test], []).append(ground.kind)
    shown = [f"{test} ({', '.join(dict.fromkeys(of_test))})" for test, of_test in kinds.items()]
    more = f" and {len(shown) - LISTED} more tests" if len(shown) > LISTED else ""
    return f"{', '.join(shown[:LISTED])}{more}"


def _remarked(passed: Sequence[Ground], names_of: Mapping[str, str], width: int) -> list[str]:
    """Return what is to be known of verdicts that passed, each sentence once."""
    whose: dict[str, dict[str, None]] = {}
    for ground in passed:
        for remark in ground.remarks:
            whose.setdefault(remark, {})[f"{ground.kind} of {names_of[ground.test]}"] = None
    lines = [f"{', '.join(list(names)[:LISTED])}: {remark}" for remark, names in whose.items()]
    shown = [line for text in lines for line in wrapped(printable(text), width, head="  ", indent="    ")]
    return ["Passed, and to be known all the same:", *shown] if shown else []


def _in_short(ground: Ground, names: Mapping[str, str]) -> str:
    """Return what was found by one verdict, and of which test."""
    head, _, rest = ground.says.partition(": ")
    return f"{names[ground.test]}, {ground.kind}: {rest or head}"


def changes(decision: DecisionRecord) -> list[Change]:
    """Return what both engines tell and in which they differ, each field once: what an engine says, before settings."""
    by_field = {change.field: change for change in reversed(decision.changed)}
    return [change for change in decision.changed if change is by_field[change.field] and not _one_sided(change)]


def untold(decision: DecisionRecord) -> list[str]:
    """Return the facts that only one of the two engines tells."""
    return [change.field for change in decision.changed if _one_sided(change)]


def _one_sided(change: Change) -> bool:
    """Whether it is a fact, no setting, that only one of the two engines tells."""
    return change.field in IDENTITY and (change.baseline is None or change.candidate is None)


def causes(decision: DecisionRecord) -> list[str]:
    """Return what was shown to be the cause of what speaks against the candidate."""
    known = dict.fromkeys(ground.cause for ground in decision.verdicts if ground.cause)
    return [] if decision.outcome == _SHIP else [cause for cause in known if cause]


def _changed(decision: DecisionRecord, width: int) -> list[str]:
    """Return what the two engines differ in, as they tell it."""
    title = f"What changed from {decision.baseline} to {decision.candidate}:"
    lines = [line for change in changes(decision) for line in _change_lines(change, width)]
    if not lines:
        lines = ["  nothing that they tell"]
    if names := untold(decision):
        lines += wrapped(f"told by one of them only: {', '.join(names)}", width, head="  ", indent="    ")
    if decision.same:
        lines += wrapped(f"the same: {', '.join(decision.same)}", width, head="  ", indent="    ")
    if shown := causes(decision):
        words = printable(f"shown to be the cause: {'; '.join(shown)}")
        lines += wrapped(words, width, head="  ", indent="    ")
    return [title, *lines]


def difference_lines(difference: Difference, width: int) -> list[str]:
    """Return in what two engines differ in one fact, wrapped."""
    change = Change(
        field=difference.field, baseline=difference.locked, candidate=difference.live, machine=difference.machine
    )
    return _change_lines(change, width)


def _change_lines(change: Change, width: int) -> list[str]:
    sides = [value(change.field, side) for side in (change.baseline, change.candidate)]
    return wrapped(f"{named(change)}: {sides[0]} -> {sides[1]}", width, head="  ", indent="    ")


def named(change: Change) -> str:
    """Return the name of a field, with a mark where it is one of the machine."""
    return f"{change.field}{' (the machine)' if change.machine else ''}"


def value(field: str, text: str | None) -> str:
    """Return what an engine tells of a field as it is shown: of a digest its beginning."""
    if text is None:
        return "none"
    if field in ("digest", "spec") or field.endswith("sha256"):
        return printable(text[:_DIGITS])
    return explain.plain(text, _LONG)


def ways(decision: DecisionRecord) -> list[Way]:
    """Return the cases that turned, by the way they did."""
    if (flips := decision.flips) is None:
        return []
    return [
        way
        for way in (
            Way("Regressions", decision.regressions, flips.regressions),
            Way("Improvements", decision.improvements, flips.improvements),
            Way("Answered otherwise", decision.changed_cases, flips.changed),
        )
        if way.total
    ]


def _behaviour(decision: DecisionRecord, whole: WholeRun, answers: Answers, width: int) -> list[str]:
    """Return how many cases turned and in what way, and the worst of each kind with both answers."""
    lines = wrapped(f"What changed in the answers: {counts(decision)}.", width, indent="  ")
    for title, cases, total in ways(decision):
        lines += [f"{title}, the gravest first:"]
        lines += [line for case in cases[:LISTED] for line in _case_lines(case, decision, answers, width, title=title)]
        if total > LISTED:
            run = f"llmparity report {whole.record.run} --html"
            lines += _with_command(f"  and {total - LISTED} more, all of them with both answers:", run, width)
    return lines


def counts(decision: DecisionRecord) -> str:
    """Return how many cases turned, and in what way."""
    flips = decision.flips
    if flips is None:
        return "not known"
    turned = {
        "right before and wrong now": flips.regressions,
        "wrong before and right now": flips.improvements,
        "changed and right on both": flips.changed_right,
        "wrong on both": flips.wrong_on_both,
    }
    changed = explain.count(flips.changed, "case")
    if not any(turned.values()):
        return f"{changed} answered otherwise, and no check says which answer is right" if flips.changed else "nothing"
    shown = [f"{count} {words}" for words, count in turned.items() if count or words in tuple(turned)[:2]]
    return ", ".join([*shown, f"{flips.changed} changed and unjudged"])


def how(case: Turned, decision: DecisionRecord, *, title: str) -> str:
    """Return how a case turned in a few words, with its test where there are several; empty where nothing is to say."""
    several = len({case.test, *(ground.test for ground in decision.verdicts)}) > 1
    was = "before: " if title == "Improvements" else ""
    parts = [names_in(decision)[case.test] if several else "", "" if case.what == "text" else f"{was}{case.what}"]
    if case.token is not None:
        parts.append(f"parts after {explain.count(int(case.token), 'token')}")
    parts += [case.grade or "", "" if case.counted else "not counted"]
    return explain.plain(", ".join(filter(None, parts)), 160)


def _case_lines(case: Turned, decision: DecisionRecord, answers: Answers, width: int, *, title: str) -> list[str]:
    words = printable(f"{explain.plain(case.case, 40)}  {how(case, decision, title=title)}")
    head = wrapped(words, width, head="  ", indent="    ")
    sides = (decision.baseline, decision.candidate)
    given = [answers.get((name, case.case)) for name in sides]
    if given[0] is None and given[1] is None:
        return head
    wide = max(map(len, sides))
    return [*head, *(f"    {name:{wide}}  {_quoted(text, case)}" for name, text in zip(sides, given, strict=True))]


def _quoted(answer: Completion | None, case: Turned) -> str:
    if answer is None:
        return "no answer"
    begin = max(0, (case.char or 0) - _LEAD)
    return ("…" if begin else "") + explain.quote(in_words(answer)[begin:], _SHOWN)


def _answers(whole: WholeRun, cases: Iterable[Turned]) -> dict[tuple[str, str], Completion]:
    """Return by engine and case the first answers to the cases that are shown."""
    wanted = {case.case: case.test for case in cases}
    first: dict[tuple[str, str], Completion] = {}
    for sample in whole.samples:
        if sample.phase is not Phase.MAIN or sample.completion is None or sample.case not in wanted:
            continue
        origin, test = whole.origin(sample), wanted[sample.case]
        if test and origin is not None and origin.tests and test not in origin.tests:
            continue
        first.setdefault((sample.engine, sample.case), sample.completion)
    return first


def _provenance(decision: DecisionRecord, whole: WholeRun, width: int) -> list[str]:
    words = printable(f"Policy: {decision.policy} (sha256 {decision.sha256[:SHORT]}).")
    lines = wrapped(words, width, indent="  ")
    run = whole.record.run
    return [*lines, *_with_command(f"Run: {run}. The whole of it:", f"llmparity report {run} --html", width)]


def _with_command(words: str, command: str, width: int) -> list[str]:
    """Return words with a command behind them, below them where it does not fit: it stays whole."""
    return [f"{words} {command}"] if len(words) + len(command) < width else [words, f"    {command}"]


def shared(lines: Sequence[str], whole: WholeRun, *, root: Path) -> list[str]:
    """Return the message for others: without the folders of this machine."""
    places = json.here(root, json.files_of(whole.record))
    return [str(places.shorten(line)) for line in lines]


def history(decisions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each stored decision; what cannot be shown of one is left out."""
    lines = []
    for decision in decisions:
        flips = decision.get("flips") or {}
        turned = f"{flips.get('regressions', '?')} worse, {flips.get('improvements', '?')} better"
        differences = "; ".join(
            f"{change.get('field')} {value(str(change.get('field')), change.get('baseline'))} -> "
            f"{value(str(change.get('field')), change.get('candidate'))}"
            for change in _worth_telling(decision.get("changed") or [])
        )
        policy = str((decision.get("policy") or {}).get("sha256", ""))[:SHORT]
        parts = [
            str(decision.get("decided", ""))[:16].replace("T", " "),
            f"{decision.get('outcome')!s:12}",
            f"{decision.get('baseline')} -> {decision.get('candidate')}",
            f"{turned}, {flips.get('changed', '?')} changed",
            differences,
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
