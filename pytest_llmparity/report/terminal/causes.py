"""What stands below a verdict in the summary: answers, the cause of drift and the experiments that showed it or not."""

from __future__ import annotations

from typing import Final

from pytest_llmparity.core.compare.shift import Shape
from pytest_llmparity.core.verdict import Experiment, Verdict
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.experiments import experiment_line
from pytest_llmparity.core.words.explain import whole
from pytest_llmparity.core.words.printable import hanging, printable, wrapped

SHOWN: Final = 12
"""Lines that say which answers were wrong or different: three cases with both answers, and what is counted."""


def evidence(verdict: Verdict, *, width: int) -> list[str]:
    """Return which answers were wrong or different, in the words that stand below a verdict that fails its test."""
    shown = verdict.details[: whole(verdict.details, SHOWN)]
    return [part for line in shown for part in hanging(f"    {printable(line)}", width)]


class Causes:
    """Writes the lines below the verdicts of one summary; experiments that verdicts on a pair share are told once."""

    def __init__(self, *, width: int, shapes: bool = False) -> None:
        self._width, self._shapes = width, shapes
        self._told: dict[tuple[str, str, str | None], tuple[str, frozenset[str]]] = {}

    def lines(self, verdict: Verdict) -> list[str]:
        """Return the lines below a verdict, each experiment with its numbers and its cost; none where nobody looked.

        Of a second verdict on the same pair in the same test only the experiments that the first one did not have.
        """
        lines = self._shape(verdict)
        lines += [
            line
            for text in explain.explained(verdict)
            for line in wrapped(printable(text.strip()), self._width, head="    " + " " * _indent(text), indent=" " * 8)
        ]
        if verdict.explanation is None or not verdict.explanation.experiments:
            return lines
        pair = (verdict.test, verdict.engine, verdict.baseline)
        made = verdict.explanation.experiments
        if pair not in self._told or not self._told[pair][1] & {experiment.removed for experiment in made}:
            self._told.setdefault(pair, (verdict.kind, frozenset(experiment.removed for experiment in made)))
            return [*lines, f"    {explain.experiments(verdict.explanation)}:", *self._each(made, verdict.unit)]
        first, told = self._told[pair]
        further = [experiment for experiment in made if experiment.removed not in told]
        same = explain.count(len(made) - len(further), "experiment")
        words = f"{same} as of {first} above, the numbers of {verdict.kind} are in run.json (--parity-report json)"
        lines += wrapped(words, self._width, head="    ", indent=" " * 8)
        return [*lines, "    and:", *self._each(further, verdict.unit)] if further else lines

    def _shape(self, verdict: Verdict) -> list[str]:
        """Return where a shift sits, for who asks for it."""
        words = "" if verdict.shape is None or not self._shapes else shape(verdict.shape)
        head = "    shape of the shift: "
        return wrapped(printable(words), self._width, head=head, indent=" " * 8) if words else []

    def _each(self, experiments: tuple[Experiment, ...] | list[Experiment], unit: str) -> list[str]:
        return [
            line
            for experiment in experiments
            for line in wrapped(printable(experiment_line(experiment, unit)), self._width, head=" " * 6, indent=" " * 8)
        ]


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())


def shape(of_shift: Shape) -> str:
    """Return where a shift sits, in words that name no cause; what is not known is left out.

    >>> shape(Shape(positions=64, quarters=(0.271, 0.061, None, None), first=0.4, rest=0.06, slope=1.234))
    'by quarter of the answer 0.271, 0.061, -, - nats; first token 0.4, others 0.06; leads 1.23 times as large'
    """

    def bare(value: float | None) -> str:
        return "-" if value is None else explain.nats(value).removesuffix(" nats")

    parts = []
    if any(value is not None for value in of_shift.quarters):
        parts.append(f"by quarter of the answer {', '.join(map(bare, of_shift.quarters))} nats")
    pairs = (
        ("first token {}, others {}", of_shift.first, of_shift.rest),
        ("tokens seen before {}, others {}", of_shift.seen, of_shift.unseen),
        ("shorter prompts {}, longer {}", of_shift.short, of_shift.long),
    )
    parts += [words.format(bare(a), bare(b)) for words, a, b in pairs if a is not None and b is not None]
    if of_shift.slope is not None:
        parts.append(f"leads {explain.number(of_shift.slope, '')} times as large")
    if of_shift.missing:
        names = ", ".join(explain.quote(token) for token in of_shift.missing[:3])
        parts.append(f"never listed {names}{', …' if len(of_shift.missing) > 3 else ''}")
    return "; ".join(parts)
