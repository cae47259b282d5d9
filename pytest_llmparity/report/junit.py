"""A verdict as properties of a JUnit test case, and a decision as properties of the suite.

The names are public: ``llmparity.KIND.ENGINE.FIELD`` with KIND as in the JSON report (``text``, ``schema.gap``,
``latency.ttft_p50``, ``text[poem]``) and FIELD one of ``outcome estimate lower upper margin unit n groups floor
baseline cause``, and ``llmparity.portion`` where a test was asked a part of its prompts (``60 of 300 prompts, sample
of tag refund``); of a decision ``llmparity.decision.CANDIDATE.FIELD`` with FIELD one of ``outcome baseline advice
policy sha256``. What is not known has no property.
"""

from __future__ import annotations

from typing import Final

from pytest_llmparity.core.identity.record import DecisionRecord
from pytest_llmparity.core.verdict import Verdict
from pytest_llmparity.core.words.printable import printable

PORTION: Final = "llmparity.portion"
"""The property of a test case that was asked a part of its prompts: which part."""


def ours(name: str) -> bool:
    """Tell whether a property is this plugin's."""
    return name.startswith("llmparity.")


def properties(verdict: Verdict) -> list[tuple[str, str]]:
    """Return name and value of each property; texts only, because xdist and XML carry nothing else safely.

    >>> from pytest_llmparity.core.verdict import Outcome
    >>> properties(Verdict(test="t", check="text()", kind="text", engine="q4", baseline=None, outcome=Outcome.ERROR))
    [('llmparity.text.q4.outcome', 'ERROR'), ('llmparity.text.q4.n', '0')]
    """
    fields: dict[str, str | float | None] = {
        "outcome": verdict.outcome.value,
        "estimate": verdict.estimate,
        "lower": verdict.lower,
        "upper": verdict.upper,
        "margin": verdict.margin,
        "unit": verdict.unit or None,
        "n": verdict.n,
        "groups": verdict.groups or None,
        "floor": verdict.floor,
        "baseline": verdict.baseline,
        "cause": verdict.cause,
    }
    stem = f"llmparity.{verdict.kind}.{verdict.engine}"
    return [(printable(f"{stem}.{field}"), _text(value)) for field, value in fields.items() if value is not None]


def of_decision(decision: DecisionRecord) -> list[tuple[str, str]]:
    """Return name and value of each property of the suite that says what was decided about a candidate."""
    stem = f"llmparity.decision.{decision.candidate}"
    fields = ("outcome", "baseline", "advice", "policy", "sha256")
    return [(printable(f"{stem}.{field}"), _text(getattr(decision, field))) for field in fields]


def _text(value: str | float) -> str:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, int):
        return str(value)
    return f"{float(value):.6g}"
