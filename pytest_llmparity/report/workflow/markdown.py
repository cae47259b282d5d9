"""The run as Markdown that a pull request and the summary of a workflow show: the verdict first, details folded away.

What a model wrote stands in fenced lines that each begin with a sign of ours, or escaped in a sentence: nothing of it
becomes markup, a link or a mention. The text is never longer than such a summary may be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pytest_llmparity.core.compare.calls import in_words
from pytest_llmparity.core.identity.record import DecisionRecord, EngineRecord, RunRecord, SampleOrigin
from pytest_llmparity.core.sample import Completion, Phase, Sample
from pytest_llmparity.core.verdict import Difference, Outcome, Verdict
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.experiments import experiment_line
from pytest_llmparity.core.words.printable import printable
from pytest_llmparity.report import json as json_report
from pytest_llmparity.report import overview
from pytest_llmparity.report.release import gate

FILE: Final = "summary.md"
LIMIT: Final = 1024 * 1024 - 4096
"""Bytes a text may have: GitHub refuses a step's summary of more than 1 MiB, and others write into it too."""
CASES: Final = 5
"""Cases of a verdict that are shown with both answers."""
_SHOWN: Final = 400
_NONE: Final = "-"
_LEAD: Final = 40
_ALERTS: Final[Mapping[Outcome, str]] = {
    Outcome.PASS: "TIP",
    Outcome.SKIPPED: "NOTE",
    Outcome.INCONCLUSIVE: "WARNING",
}
_GRADES: Final = ("outside top-k", "rank shift", None, "near-tie")
_MARKUP: Final = re.compile(r"[\\`*_\[\]~|$]")
_ENTITY: Final = re.compile(r"[&<>@#]|:(?=//)|(?<=www)\.", re.IGNORECASE)

Origin = Callable[[Sample], SampleOrigin | None]


def write(
    record: RunRecord, samples: Iterable[Sample], folder: Path, *, root: Path | None = None, origin: Origin
) -> Path:
    """Write the text into ``folder``, which is made when it is not there; return where it is.

    It appears whole or not at all; ``root`` is the project's folder, left out of paths. Raises ``UsageError`` when it
    cannot be written.
    """
    text = to_markdown(record, samples, root=root, origin=origin)
    json_report.put(folder, {FILE: [text]})
    return folder / FILE


def to_markdown(
    record: RunRecord,
    samples: Iterable[Sample],
    *,
    root: Path | None = None,
    origin: Origin = lambda sample: None,
    limit: int = LIMIT,
    decided: bool = True,
) -> str:
    """Return the run as Markdown of at most ``limit`` bytes; what does not fit any more is left out and counted.

    ``decided``: with what stands behind each decision. Where that is told beside the text, it has their sentences only.
    """
    places = json_report.here(root, json_report.files_of(record))
    answers = _answers(samples, origin)
    text, left_out = "", 0
    for must, part in _parts(record, answers, places, decided=decided):
        if must or len((text + part).encode("utf-8", "replace")) <= limit - 200:
            text += part
        else:
            left_out += 1
    if left_out:
        text += f"\n{explain.count(left_out, 'part')} left out: the text would be longer than a summary may be.\n"
    clean: str = json_report.clean(text)
    encoded = clean.encode()
    return clean if len(encoded) <= limit else encoded[:limit].decode("utf-8", "ignore")


def _parts(
    record: RunRecord,
    answers: Mapping[tuple[str, str, str], Completion],
    places: json_report.Places,
    *,
    decided: bool,
) -> Iterator[tuple[bool, str]]:
    """Give the text in parts, each with whether it must be there."""

    def escaped(text: str) -> str:
        return escape(places.shorten(text))

    outcome = overview.worst(record.verdicts, record.errors)
    names = " · ".join(escaped(engine.name) for engine in record.engines)
    sentence = overview.sentence(record.verdicts, record.errors, strict=record.strict)
    yield True, f"### LLM parity: {outcome}{f' — {names}' if names else ''}\n\n"
    yield (
        True,
        f"> [!{_ALERTS.get(outcome, 'CAUTION')}]\n> {escaped(sentence)}\n\n",
    )
    if record.decisions:
        yield True, "".join(f"- **Decision** {escaped(overview.decided(d))}\n" for d in record.decisions) + "\n"
    for decision in record.decisions if decided else ():
        if decision.flips is not None:
            yield False, _decision(decision, escaped)
    if record.errors:
        listed = [f"- **{Outcome.ERROR}** {escaped(test)}: {escaped(why)}\n" for test, why in record.errors.items()]
        yield False, f"**Failed outside of their checks**\n\n{''.join(listed)}\n"
    if beside := [
        f"- **Hidden by a {Outcome.PASS}** {escaped(f'{verdict.kind}, {explain.pair(verdict)}: {text}')}\n"
        for verdict in record.verdicts
        for text in explain.hidden(verdict)
    ]:
        yield True, f"{''.join(beside)}\n"
    passed = {Outcome.PASS, Outcome.SKIPPED}
    tests = dict.fromkeys(verdict.test for verdict in record.verdicts)
    own = {test: [verdict for verdict in record.verdicts if verdict.test == test] for test in tests}
    quiet = [test for test in tests if {verdict.outcome for verdict in own[test]} <= passed]
    for test in tests:
        if test not in quiet:
            yield False, _gate(test, own[test], escaped)
    if quiet and len(quiet) == len(tests) == 1:
        yield False, _gate(quiet[0], own[quiet[0]], escaped)
    elif quiet:
        skipped = any(verdict.outcome is Outcome.SKIPPED for test in quiet for verdict in own[test])
        title = f"{explain.count(len(quiet), 'gate')} passed{', some of it skipped' if skipped else ''}"
        yield False, _folded(title, "".join(_gate(test, own[test], escaped) for test in quiet))
    for verdict in overview.in_order(record.verdicts):
        if verdict.outcome not in (Outcome.PASS, Outcome.SKIPPED):
            yield False, _finding(verdict, record, answers, places)
    if record.latency or record.unshown:
        yield False, _folded("Latency", _latency(record, escaped))
    if record.engines:
        yield False, _folded("Engines", _engines(record.engines, escaped))
    if record.notes:
        yield False, _folded("Notes", "".join(f"- {escaped(note)}\n" for note in record.notes))
    when = f"run `{record.run}`, " if re.fullmatch(r"[\w.-]+", record.run) else ""
    yield True, f"<sub>{when}{record.requests} requests, pytest-llmparity {escaped(record.version)}</sub>\n"


def _decision(decision: DecisionRecord, escaped: Callable[[str], str]) -> str:
    """Return on what grounds a decision was made, what changed between the engines, and which cases turned."""
    ours, theirs = escaped(decision.baseline), escaped(decision.candidate)
    lines: list[str] = []
    for title, entries in gate.sections(decision):
        lines += [f"**{escaped(title)}**", ""]
        lines += [f"- {escaped(e.words)}{f'; cause: {escaped(e.cause)}' if e.cause else ''}" for e in entries] + [""]
    lines += [f"**What changed from {ours} to {theirs}**", ""]
    if changes := gate.changes(decision):
        lines += [f"| fact | {ours} | {theirs} |", "| --- | --- | --- |"]
        for change in changes:
            sides = (gate.value(change.field, side) for side in (change.baseline, change.candidate))
            lines.append(f"| {' | '.join(map(escaped, (gate.named(change), *sides)))} |")
        lines.append("")
    beside = [] if changes else ["nothing that they tell"]
    for words, names in (("told by one of them only", gate.untold(decision)), ("the same", decision.same)):
        beside += [f"{words}: {', '.join(names)}"] if names else []
    beside += [f"shown to be the cause: {cause}" for cause in gate.causes(decision)]
    lines += [*(f"- {escaped(words)}" for words in beside), ""]
    lines += [f"**What changed in the answers**: {escaped(gate.counts(decision))}.", ""]
    for title, cases, total in gate.ways(decision):
        lines += [f"{title}, the gravest first:", ""]
        for case in cases[: gate.LISTED]:
            how = gate.how(case, decision, title=title)
            lines.append(f"- {escaped(case.case)}{f': {escaped(how)}' if how else ''}")
        lines += [f"- and {total - gate.LISTED} more"] if total > gate.LISTED else []
        lines.append("")
    title = f"{decision.candidate}: {decision.outcome}, its grounds, what changed, and which cases turned"
    return _folded(title, "\n".join(lines))


def _gate(test: str, verdicts: Sequence[Verdict], escaped: Callable[[str], str]) -> str:
    """Return the verdicts of one test as a table, the worst first."""
    lines = [f"**{escaped(test)}**", ""]
    lines += ["| outcome | check | engine | result | bound | margin | noise floor | n |"]
    lines += ["| --- | --- | --- | ---: | --- | --- | ---: | ---: |"]
    for verdict in overview.in_order(verdicts):
        numberless = verdict.estimate is None or verdict.outcome in (Outcome.INCOMPARABLE, Outcome.ERROR)
        cells = [
            f"**{verdict.outcome}**" if verdict.outcome.fails_test else str(verdict.outcome),
            verdict.kind,
            explain.pair(verdict),
            "" if numberless else explain.number(verdict.estimate or 0.0, verdict.unit),
            "" if numberless else explain.bounds(verdict),
            explain.limit(verdict).removeprefix("margin "),
            explain.floor(verdict),
            explain.size(verdict).removeprefix("n "),
        ]
        shown = [cells[0], *(escaped(cell) or _NONE for cell in cells[1:])]
        lines.append(f"| {' | '.join(shown)} |")
    # What of a verdict that did not pass is to be known stands below it.
    quiet = [verdict for verdict in verdicts if verdict.outcome is Outcome.PASS]
    remarks = [(v, remark) for v in quiet for remark in explain.remarks(v, of_reader=False) if remark not in v.reason]
    lines += [""] if remarks else []
    lines += [f"- {escaped(f'{verdict.kind}, {explain.pair(verdict)}: {remark}')}" for verdict, remark in remarks]
    return "\n".join([*lines, "", ""])


def _finding(
    verdict: Verdict,
    record: RunRecord,
    answers: Mapping[tuple[str, str, str], Completion],
    places: json_report.Places,
) -> str:
    """Return one verdict that did not pass: its cause, what stands behind it, the worst cases, how to run it again."""
    head = (verdict.message or explain.headline(verdict)).partition("\n")[0]
    parts = [f"- **{escape(places.shorten(line.strip()))}**\n" for line in explain.explained(verdict)]
    lines = [*(verdict.message or "").split("\n")[1:], *verdict.details, *explain.remarks(verdict), *verdict.differs]
    if lines:
        parts.append(fenced([f"  {line}" for line in places.shorten(lines)]))
    if verdict.explanation is not None:
        tried = [experiment_line(each, verdict.unit) for each in verdict.explanation.experiments]
        parts += [f"- {escape(places.shorten(line))}\n" for line in tried]
    worst = sorted(verdict.differing, key=_severity)
    parts += [_case(verdict, difference, answers) for difference in worst[:CASES]]
    if more := len(worst) - CASES:
        parts.append(f"\nand {explain.count(more, 'more case')}\n" if more > 0 else "")
    where = f" at {escape(places.shorten(verdict.where))}" if verdict.where else ""
    parts.append(f"\ncheck: {escape(verdict.check)}{where}\n")
    if command := record.reproduce.get(verdict.test):
        parts.append(f"\n{fenced([places.shorten(command)], language='console')}")
    return _folded(places.shorten(head), "\n".join(parts))


def _case(verdict: Verdict, difference: Difference, answers: Mapping[tuple[str, str, str], Completion]) -> str:
    """Return a case with both answers, from a little before they part on."""
    sides = [(verdict.test, name, difference.case) for name in (verdict.baseline, verdict.engine) if name is not None]
    lines = []
    for sign, (key, name) in zip("-+", ((side, side[1]) for side in sides), strict=False):
        answer = answers.get(key)
        begin = max(0, (difference.char or 0) - _LEAD)
        text = "no answer" if answer is None else in_words(answer)
        shown = ("…" if begin else "") + text[begin : begin + _SHOWN] + ("…" if len(text) > begin + _SHOWN else "")
        first, *others = shown.split("\n")
        lines += [f"{sign} {name}: {first}", *(f"{sign} {line}" for line in others)]
    beside = [difference.what] if difference.what != "text" else []
    if difference.token is not None:
        beside.append(f"after {explain.count(int(difference.token), 'token')}")
    beside += [difference.grade] if difference.grade else []
    words = f" ({escape(', '.join(beside))})" if beside else ""
    return f"\n{escape(difference.case)}{words}\n\n{fenced(lines, language='diff')}"


def _severity(difference: Difference) -> tuple[bool, int, float]:
    grade = difference.grade if difference.grade in _GRADES else None
    return (not difference.counted, _GRADES.index(grade), difference.token or 0.0)


def _latency(record: RunRecord, escaped: Callable[[str], str]) -> str:
    lines = ["| engine | metric | p50 | p95 | p99 | n |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for row in record.latency:
        values = " | ".join(explain.number(value, row.unit) for value in (row.p50, row.p95, row.p99))
        lines.append(f"| {escape(row.engine)} | {row.metric} | {values} | {row.n} |")
    notes = [f"- {escaped(note)}" for note in record.unshown]
    return "\n".join([*(lines if record.latency else ()), *(["", *notes] if notes else ())]) + "\n"


def _engines(engines: Sequence[EngineRecord], escaped: Callable[[str], str]) -> str:
    lines = [
        "| engine | kind | version | model | weights | context | |",
        "| --- | --- | --- | --- | --- | ---: | --- |",
    ]
    for engine in engines:
        model = json_report.without_folder(engine.model)
        cells: list[Any] = [engine.name, engine.kind, engine.version, model, engine.quantization, engine.context_length]
        beside = "baseline" if engine.baseline else ""
        shown = [escaped(str(cell)) if cell is not None else _NONE for cell in cells]
        lines.append(f"| {' | '.join(shown)} | {beside} |")
    notes = [f"- {escaped(engine.name)}: {escaped(note)}" for engine in engines for note in engine.notes]
    return "\n".join([*lines, "", *notes]) + "\n"


def _answers(samples: Iterable[Sample], origin: Origin) -> dict[tuple[str, str, str], Completion]:
    """Return the first answer by test, engine and case."""
    answers: dict[tuple[str, str, str], Completion] = {}
    for sample in samples:
        if sample.phase is Phase.MAIN and sample.completion is not None:
            for test in (origin(sample) or SampleOrigin()).tests:
                answers.setdefault((test, sample.engine, sample.case), sample.completion)
    return answers


def escape(text: str) -> str:
    r"""Return foreign text on one line that Markdown shows as it is: no markup, no mention, no reference to an issue.

    >>> escape("*all* of <b>it</b>, @somebody")
    '\\*all\\* of &#60;b&#62;it&#60;/b&#62;, &#64;somebody'
    """
    return _entities(_MARKUP.sub(lambda match: "\\" + match[0], printable(text)))


def fenced(lines: Iterable[str], *, language: str = "text") -> str:
    """Return foreign lines between fences that none of them can close."""
    shown = [printable(line) for line in lines]
    longest = max((len(run) for line in shown for run in re.findall(r"`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}{language}", *shown, fence]) + "\n"


def _folded(title: str, body: str) -> str:
    """Return a part that is folded away below its title, a line of HTML in which backslashes stand for themselves."""
    return f"<details><summary>{_entities(printable(title))}</summary>\n\n{body}\n</details>\n\n"


def _entities(text: str) -> str:
    return _ENTITY.sub(lambda match: f"&#{ord(match[0])};", text)
