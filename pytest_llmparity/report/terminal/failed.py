"""What pytest says of each gate that failed, once more from the run that is stored."""

from __future__ import annotations

from pytest_llmparity.core.identity.record import RunRecord
from pytest_llmparity.core.verdict import Verdict
from pytest_llmparity.core.words.failing import failure_text
from pytest_llmparity.core.words.printable import hanging, printable

_COMMAND = "reproduce: "


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
