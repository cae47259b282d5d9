"""The run in a terminal: plain lines of at most ``width`` columns, without colour and without foreign control bytes.

Nothing here knows pytest: the door writes the lines under a title of its own.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pytest_llmparity.core.errors import NotAsked
from pytest_llmparity.core.evidence import FLOOR_PHASES
from pytest_llmparity.core.identity.record import EngineRecord, RunRecord
from pytest_llmparity.core.sample import Completion, Phase, Sample
from pytest_llmparity.core.verdict import SEVERITY, Outcome, Verdict
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.nodeids import names_apart
from pytest_llmparity.core.words.printable import WIDTH, cells, elide, hanging, pad, printable, wrapped_after
from pytest_llmparity.report import overview
from pytest_llmparity.report.terminal.ahead import engine_lines
from pytest_llmparity.report.terminal.causes import Causes, evidence
from pytest_llmparity.report.terminal.troubles import troubles
from pytest_llmparity.run.judge.judging import ALPHA

WORDS: Final[Mapping[Outcome, str]] = {
    Outcome.PASS: "pass",
    Outcome.FAIL: "FAIL",
    Outcome.INCONCLUSIVE: "inconcl.",
    Outcome.INCOMPARABLE: "incomp.",
    Outcome.ERROR: "ERROR",
    Outcome.SKIPPED: "skip",
}
"""What fails a test is in capitals."""

UNSENT: Final = NotAsked.__name__
"""Failures of prompts that were never sent: no answer of theirs is missing."""
_MISSING: Final = {
    "missing": (Phase.MAIN,),
    "of the noise floor missing": FLOOR_PHASES,
    "of timed requests missing": (Phase.TIMED,),
}
"""How an answer that never came is called, and the phases in which it is that."""
_NARROW: Final = 19
"""Columns an engine gets at least; those for which that is not there move to a grid of their own below."""


def summary(record: RunRecord, *, verbose: bool = False, width: int = WIDTH) -> list[str]:
    """Return the end of a session: engines, grid, a sentence per engine, latency, what stayed open, notes.

    ``verbose`` adds every fact of every engine, and gives each quantity of a check its own row and each verdict its
    own sentence.
    """
    blocks = [
        engine_lines(record.engines, width=width),
        [line for engine in record.engines for line in _facts(engine, width=width)] if verbose else [],
        [
            *grid(record.verdicts, [engine.name for engine in record.engines], verbose=verbose, width=width),
            *([] if verbose else shared_rows(record.verdicts, width=width)),
        ],
        troubles(record.verdicts, record.engines, width=width),
        conclusions(record.verdicts, [engine.name for engine in record.engines], verbose=verbose, width=width),
        overview.failed(record.errors, width=width),
        overview.latency(record.latency, width=width),
        open_questions(record.verdicts, width=width),
        unjudged(record.verdicts, width=width),
        remarked(record.verdicts, width=width),
        _missing(record, width=width),
        [
            line
            for note in [*(record.unshown if verbose else ()), *_ending(record)]
            for part in note.split("\n")
            for line in wrapped_after("", printable(part), width=width)
        ],
    ]
    lines: list[str] = []
    for block in blocks:
        if block:
            lines += ["", *block] if lines else block
    return lines


def grid(verdicts: Sequence[Verdict], engines: Sequence[str], *, verbose: bool, width: int = WIDTH) -> list[str]:
    """Return checks as rows, grouped by test, and engines as columns; more engines than fit follow in further grids.

    A cell holds the worst outcome of that check on that engine, its estimate, the bound that decided and how many
    prompts (requests) it rests on, in several lines where engines are many or the terminal is narrow.
    """
    if not verdicts:
        return []
    rows: dict[str, dict[str, dict[str, list[Verdict]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for verdict in verdicts:
        rows[verdict.test][_label(verdict, verdicts, verbose=verbose)][verdict.engine].append(verdict)
    names = [name for name in dict.fromkeys([*engines, *(v.engine for v in verdicts)]) if _seen(name, verdicts)]
    label = max(cells(printable(text)) + 2 for checks in rows.values() for text in checks)
    label = max(min(label, width - _NARROW - 2), len("check"))
    wide = {
        name: max(
            min(cells(printable(name)), 16),
            *(
                len(" ".join(_cell(by_engine.get(name, []))))
                for checks in rows.values()
                for by_engine in checks.values()
            ),
        )
        for name in names
    }
    lines: list[str] = []
    for shown in _fitting(names, wide, room=width - label):
        columns = _columns({name: wide[name] for name in shown}, room=width - label)
        heads = "".join(f"  {pad(printable(name), columns[name])}" for name in shown)
        lines += ([""] if lines else []) + [(pad("check", label) + heads).rstrip()]
        for test, checks in rows.items():
            lines.append(elide(printable(test), width))
            for row_name, by_engine in checks.items():
                parts = [_broken(_cell(by_engine.get(name, [])), columns[name]) for name in shown]
                for row in range(max(map(len, parts))):
                    here = [part[row] if row < len(part) else "" for part in parts]
                    line = "".join(f"  {pad(text, columns[name])}" for text, name in zip(here, shown, strict=True))
                    lines.append((pad("" if row else f"  {printable(row_name)}", label) + line).rstrip())
    return lines


def shared_rows(verdicts: Sequence[Verdict], *, width: int = WIDTH) -> list[str]:
    """Return which verdicts share a row of the short grid, of which it shows the worst; no line where none do."""
    kinds: dict[str, dict[str, None]] = defaultdict(dict)
    for verdict in verdicts:
        row = verdict.quantity.partition(".")[0]
        kinds[row][f"{verdict.quantity} by tag" if verdict.tag else verdict.kind] = None
    shared = [list(of_row) for of_row in kinds.values() if len(of_row) > 1]
    names = "; ".join(f"{', '.join(others)} and {last}" for *others, last in shared)
    words = f"of several verdicts in a row the worst is shown, -v shows each: {names}"
    return wrapped_after("", printable(words), width=width) if shared else []


def _fitting(names: Iterable[str], wide: Mapping[str, int], *, room: int) -> list[list[str]]:
    """Divide engines, which want columns so ``wide``, into as many as fit beside each other in ``room`` columns."""
    parts: list[list[str]] = [[]]
    left = room
    for name in names:
        least = 2 + min(wide[name], _NARROW)
        if parts[-1] and least > left:
            parts.append([])
            left = room
        parts[-1].append(name)
        left -= least
    return parts


def _columns(wide: Mapping[str, int], *, room: int) -> dict[str, int]:
    """Return the columns each engine gets: what it wants while there is room, the rest in equal shares."""
    columns = {}
    room -= 2 * len(wide)
    for place, name in enumerate(sorted(wide, key=lambda name: wide[name])):
        columns[name] = min(wide[name], room // (len(wide) - place))
        room -= columns[name]
    return columns


def _broken(parts: Sequence[str], width: int) -> list[str]:
    """Return a cell's parts in as few lines of at most ``width`` columns as they need."""
    lines: list[str] = []
    for word in [word for part in parts for word in ([part] if len(part) <= width else part.split())]:
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def conclusions(verdicts: Sequence[Verdict], engines: Sequence[str], *, verbose: bool, width: int = WIDTH) -> list[str]:
    """Return what each engine's verdicts come to, in words: one line per failure, else that it passes.

    Of verdicts that an engine's trouble left without anything to judge only whose it is: ``troubles`` tells the rest.
    """
    lines: list[str] = []
    causes = Causes(width=width, shapes=verbose)
    names = names_apart(verdict.test for verdict in verdicts)
    for name in dict.fromkeys([*engines, *(verdict.engine for verdict in verdicts)]):
        own = [v for v in verdicts if v.engine == name and v.outcome is not Outcome.SKIPPED]
        bad = sorted((v for v in own if v.outcome.fails_test), key=lambda v: SEVERITY.index(v.outcome), reverse=True)
        asked_for = [v for v in own if v.explanation is not None and not v.outcome.fails_test]  # by --parity-explain
        worded = [v for v in (own if verbose else [*bad, *asked_for]) if not v.blocked_by]
        sentences = {(WORDS[v.outcome], _finding(v, names), v.cause or ""): v for v in reversed(worded)}
        for (word, finding, _), verdict in reversed(sentences.items()):
            lines += wrapped_after(f"{printable(name)}: {word}  ", finding, width=width)
            lines += causes.lines(verdict)
        for other, n in Counter(v.blocked_by for v in own if v.blocked_by not in ("", name)).items():
            judged = explain.counted(n, "verdict")
            lines += wrapped_after(
                f"{printable(name)}: ", printable(f"{judged} not judged because of {other}"), width=width
            )
        left_open = sum(v.outcome is Outcome.INCONCLUSIVE for v in own)
        passed = explain.count(len(own) - left_open, "verdict")
        if own and not bad:
            words = f"passes  {passed}"
            if left_open:
                settled = f"{passed} passed, " if left_open < len(own) else ""
                words = f"not settled  {settled}{left_open} inconclusive"
            few = [verdict for verdict in own if verdict.outcome is Outcome.PASS and explain.mix(verdict)]
            if few:
                words += explain.mix(min(few, key=lambda verdict: verdict.groups))
            lines += wrapped_after(f"{printable(name)}: ", words, width=width)
    return lines


def answer_lines(samples: Iterable[Sample], *, width: int = WIDTH) -> list[str]:
    """Return every answer in full, or why there is none, under its case: what ``--parity-case`` is asked for."""
    by_case: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.phase is Phase.MAIN:
            by_case[sample.case].append(sample)
    lines: list[str] = []
    for case, of_case in by_case.items():
        lines.append(printable(case))
        for sample in of_case:
            lines += wrapped_after("  ", f"{printable(sample.engine)}: {_answer(sample)}", width=width)
    return lines


def _answer(sample: Sample) -> str:
    if sample.completion is None:
        return printable(sample.failure.message if sample.failure is not None else "no answer")
    last = sample.completion
    given = [f"{_words(turn)} -> {', '.join(turn.results)}; " for turn in last.turns]
    ended = last.finish_reason or "no finish reason"
    if last.stopped is not None:
        ended = f"{last.stopped.kind}: {last.stopped.words}"
    return f"{printable(''.join(given))}{printable(_words(last))}  ({printable(ended)})"


def _words(answer: Completion) -> str:
    calls = [f"{call.name}({call.arguments})" for call in answer.tool_calls]
    return " ".join(part for part in (answer.text, *calls) if part)


def open_questions(verdicts: Sequence[Verdict], *, width: int = WIDTH) -> list[str]:
    """Return what was inconclusive, how many prompts in all would settle it, and what earlier looks cost it."""
    names = names_apart(verdict.test for verdict in verdicts)
    undecided = [verdict for verdict in verdicts if verdict.outcome is Outcome.INCONCLUSIVE]
    if not undecided:
        return []
    lines = ["inconclusive:"]
    for verdict in undecided:
        lines += wrapped_after("  ", f"{printable(verdict.engine)}: {_finding(verdict, names)}", width=width)
        if settling := explain.settling(verdict):
            lines += wrapped_after("    ", settling, width=width)
        lines += evidence(verdict, width=width)
        differing = explain.differing(verdict.differs) if verdict.differs else []
        lines += [part for line in differing for part in hanging(f"  {printable(line)}", width)]
        if verdict.alpha < ALPHA:
            look = 1 + round(math.log2(ALPHA / verdict.alpha))
            words = f"look {look} at this question, so judged at {100 * verdict.alpha:g} % instead of {100 * ALPHA:g} %"
            lines += wrapped_after("    ", words, width=width)
    return lines


def unjudged(verdicts: Sequence[Verdict], *, width: int = WIDTH) -> list[str]:
    """Return why checks were skipped, each reason once, and which checks of which tests it concerns."""
    skipped = [verdict for verdict in verdicts if verdict.outcome is Outcome.SKIPPED and verdict.reason]
    names = names_apart(verdict.test for verdict in verdicts)
    return _each_once("skipped:", ((verdict.reason, verdict) for verdict in skipped), names, width=width)


def remarked(verdicts: Sequence[Verdict], *, width: int = WIDTH) -> list[str]:
    """Return what a reader should know of verdicts whatever they came to, each thing once, with the checks concerned.

    What could not be asked of an engine, for one: a PASS does not speak for it.
    """
    judged = [v for v in verdicts if v.outcome in (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)]
    remarks = ((remark, verdict) for verdict in judged for remark in explain.remarks(verdict, of_reader=False))
    return _each_once("noted:", remarks, names_apart(verdict.test for verdict in verdicts), width=width)


def _each_once(
    title: str, remarks: Iterable[tuple[str, Verdict]], names: Mapping[str, str], *, width: int
) -> list[str]:
    """Return what is told of verdicts below a title, each sentence once, with the checks it concerns."""
    by_sentence: dict[str, dict[str, None]] = defaultdict(dict)
    for sentence, verdict in remarks:
        by_sentence[sentence][f"{verdict.kind} of {names[verdict.test]}"] = None
    lines = [
        line
        for sentence, checks in by_sentence.items()
        for line in wrapped_after("  ", printable(f"{sentence}: {', '.join(checks)}"), width=width)
    ]
    return [title, *lines] if lines else []


def _label(verdict: Verdict, verdicts: Sequence[Verdict], *, verbose: bool) -> str:
    """Name a row by the quantity or its check; by the check as written where a test has two of one kind."""
    kind = verdict.quantity.partition(".")[0]
    short = verdict.kind if verbose else kind
    twins = {v.check for v in verdicts if v.test == verdict.test and v.quantity.partition(".")[0] == kind}
    return f"{short} {verdict.check}" if len(twins) > 1 else short


def _seen(engine: str, verdicts: Sequence[Verdict]) -> bool:
    return any(engine in (verdict.engine, verdict.baseline) for verdict in verdicts)


def _cell(verdicts: Sequence[Verdict]) -> list[str]:
    if not verdicts:
        return ["-"]
    worst = max(verdicts, key=lambda verdict: SEVERITY.index(verdict.outcome))
    parts = explain.cell(worst, WORDS[worst.outcome])
    several = len({verdict.tag for verdict in verdicts}) > 1
    return [*parts, f"[{printable(worst.tag)}]"] if worst.tag and several else parts


def _finding(verdict: Verdict, names: Mapping[str, str]) -> str:
    """Say what a verdict found: quantity, estimate, margin; the reason where there is no number."""
    test = printable(names[verdict.test])
    if verdict.estimate is None or verdict.outcome in (Outcome.INCOMPARABLE, Outcome.ERROR):
        first, more, _ = (verdict.reason or verdict.message).partition("\n")
        reason = printable(first) + (" …" if more else "")  # a log's tail is in the failure's own text
        return f"{printable(verdict.kind)}  {reason}  ({test})" if reason else f"{printable(verdict.kind)}  ({test})"
    per = "/token" if verdict.unit == "forks/token" else ""
    parts = [f"{explain.number(verdict.estimate, verdict.unit)}{per}"]
    if verdict.outcome is Outcome.INCONCLUSIVE and verdict.lower is not None and verdict.upper is not None:
        low, high = (explain.number(bound, verdict.unit) for bound in (verdict.lower, verdict.upper))
        parts.append(f"between {low} and {high}")
    if verdict.margin is not None:
        limit = explain.number(verdict.margin, verdict.unit)
        parts.append(f"at least {limit} asked" if verdict.side == "at_least" else f"margin {limit}")
    if part := explain.parting(verdict):
        parts.append(f"{part} of prompts part")
    parts += filter(None, [explain.shift(verdict)])
    if verdict.reason:
        parts.append(printable(verdict.reason))
    return f"{printable(verdict.kind)}  {', '.join(parts)}{explain.mix(verdict)}  ({test})"


def _missing(record: RunRecord, *, width: int) -> list[str]:
    """Say how many answers never came, by engine and error: those that are judged, and apart from them the others."""
    lines: list[str] = []
    for engine in dict.fromkeys(failure.engine for failure in record.failures):
        failed = [failure for failure in record.failures if failure.engine == engine]
        sent = [failure for failure in failed if failure.kind != UNSENT]
        unsent, parts = len(failed) - len(sent), []
        for words, phases in _MISSING.items():
            kinds = Counter(failure.kind for failure in sent if failure.phase in phases)
            reasons = ", ".join(f"{printable(kind)} {n}" for kind, n in kinds.most_common())
            parts += [f"{explain.count(kinds.total(), 'answer')} {words} ({reasons})"] if kinds else []
        parts += [f"{explain.count(unsent, 'prompt')} not asked"] if unsent else []
        lines += wrapped_after(f"{printable(engine)}: ", ", ".join(parts), width=width)
    return lines


def _ending(record: RunRecord) -> list[str]:
    sent = []
    if record.requests:
        requests = explain.count(record.requests, "request")
        retries = f" and {explain.count(record.retries, 'retry', 'retries')}" if record.retries else ""
        sent = [f"run {record.run}: {requests} sent in all, probes{retries} included{_by_experiments(record)}"]
    if record.replayed:
        sent = [f"run {record.run}: nobody was asked, the answers are those that were stored"]
    return [*record.notes, *sent]


def _by_experiments(record: RunRecord) -> str:
    """Return how many requests experiments took besides, empty where there were none."""
    requests = sum(v.explanation.requests for v in record.verdicts if v.explanation is not None)
    return f"; experiments took {requests} more" if requests else ""


def _facts(engine: EngineRecord, *, width: int) -> list[str]:
    """Return everything known of an engine's identity, with who says so, and what its canaries say of it."""
    known = [f"{name} {fact.value} ({fact.source})" for name, fact in sorted(engine.identity.facts.items())]
    known += [f"by its canaries {engine.canaries}"] if engine.canaries else []
    return wrapped_after(f"{printable(engine.name)} is: ", printable(", ".join(known)), width=width) if known else []
