"""Engines that could not be used, each told once a run, and what was said of gates that failed, told once more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from pytest_llmparity.core.identity.record import EngineRecord, RunRecord
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.explain import failure_text
from pytest_llmparity.core.words.nodeids import names_apart
from pytest_llmparity.core.words.printable import hanging, printable, wrapped

_COMMAND = "reproduce: "
_NAMED: Final = 3
"""Tests whose verdicts are named before the rest is counted."""


def troubles(verdicts: Sequence[Verdict], engines: Sequence[EngineRecord], *, width: int) -> list[str]:
    """Return every reason why an engine could not be used, in full and once, with the verdicts that follow from it."""
    logs = {engine.name: _log(engine) for engine in engines}
    lines: list[str] = []
    by_reason = _by_reason(verdicts)
    names_of = names_apart(verdict.test for verdict in verdicts)
    for (name, reason), blocked in by_reason.items():
        error = blocked[0].outcome is Outcome.ERROR
        lines += _trouble(name, reason, log=logs.get(name, "") if error else None, width=width)
        lines += wrapped(f"    and so {_counted(blocked, names_of)}", width, indent="      ")
    told = {name for name, _ in by_reason}
    concerned = {name for blocked in by_reason.values() for v in blocked for name in (v.engine, v.baseline)} - told
    for engine in engines:  # another one of the pair was named first: this one is to be mended too
        if engine.unusable is not None and engine.name in concerned:
            log = None if engine.incomparable else logs[engine.name]
            lines += _trouble(engine.name, engine.unusable, log=log, width=width)
    return lines


def _trouble(name: str, reason: str, *, log: str | None, width: int) -> list[str]:
    """Return why one engine could not be used; ``log`` is where its log is, ``None`` where it is no error of its."""
    word = "incomp." if log is None else "ERROR"
    first, *more = [printable(line) for line in reason.split("\n") if line.strip()] or ["no reason was given"]
    lines = wrapped(f"{printable(name)}: {word}  {first}", width, indent="    ")
    lines += [part for line in more for part in hanging(f"    {line}", width)]
    return lines + (wrapped(f"    its log: {printable(log)}", width, indent="      ") if log else [])


def _by_reason(verdicts: Sequence[Verdict]) -> Mapping[tuple[str, str], list[Verdict]]:
    blocked: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.blocked_by:
            blocked[verdict.blocked_by, verdict.reason].append(verdict)
    return blocked


def _counted(verdicts: Sequence[Verdict], names_of: Mapping[str, str]) -> str:
    """Count the verdicts in words, and name what they are about test by test."""
    kinds: dict[str, dict[str, None]] = defaultdict(dict)
    for verdict in verdicts:
        kinds[names_of[verdict.test]][verdict.kind] = None
    named = [f"{', '.join(of_test)} of {test}" for test, of_test in list(kinds.items())[:_NAMED]]
    unnamed = [f"and {explain.count(len(kinds) - _NAMED, 'more test')}"] if len(kinds) > _NAMED else []
    return printable(f"{explain.counted(len(verdicts), 'verdict')}: {'; '.join([*named, *unnamed])}")


def _log(engine: EngineRecord) -> str:
    return f".llmparity/logs/{engine.log}" if engine.log else engine.log_hint


def failed(record: RunRecord, *, width: int) -> list[str]:
    """Return the text of each test that has a verdict which fails it, below its name; what is a command stays whole."""
    tests: dict[str, list[Verdict]] = {}
    for verdict in record.verdicts:
        tests.setdefault(verdict.test, []).append(verdict)
    lines: list[str] = []
    for test, verdicts in tests.items():
        if not any(verdict.outcome.fails_test for verdict in verdicts):
            continue
        lines += [f"failed: {printable(test)}"]
        for line in failure_text(verdicts, reproduce=record.reproduce.get(test, "")).split("\n"):
            shown = f"  {printable(line)}"
            lines += [shown] if line.startswith(_COMMAND) else hanging(shown, width)
        lines.append("")
    return lines
