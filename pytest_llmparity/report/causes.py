"""The cause of a verdict's drift and the experiments that showed it, or did not, as lines of the summary."""

from __future__ import annotations

from pytest_llmparity.core.verdict import Verdict
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.printable import printable, wrapped


def causes(verdict: Verdict, *, width: int) -> list[str]:
    """Return the lines below a verdict, each experiment with its numbers and its cost; none where nobody looked."""
    lines = [
        line
        for text in explain.explained(verdict)
        for line in wrapped(printable(text.strip()), width, head="    " + " " * _indent(text), indent=" " * 8)
    ]
    if verdict.explanation is not None and verdict.explanation.experiments:
        lines.append(f"    {explain.experiments(verdict.explanation)}:")
        for experiment in verdict.explanation.experiments:
            lines += wrapped(
                printable(explain.experiment(experiment, verdict.unit)), width, head=" " * 6, indent=" " * 8
            )
    return lines


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())
