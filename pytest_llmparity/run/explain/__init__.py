"""The experiments that show a cause, and which verdicts they are made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.verdict import Explanation, Outcome, Verdict
from pytest_llmparity.settings.specification import Settings

KINDS: Final = ("text", "logprobs", "schema.gap", "schema.agree", "answers.gap", "answers.flips", "tools.agree")
"""Verdicts on a pair whose drift experiments can take away."""
SINGLE: Final = "experiments take several prompts, and this is one answer: give prompts to a parity marker"
UNTRIED: Final = {
    "prompts": "experiments compare answers; put check.text() beside check.prompts()",
    "similarity": "experiments count answers that part; put check.text() beside check.similarity()",
    "distribution": "sampled answers are others whenever they are asked; put check.text() on greedy ones beside it",
    "latency": "experiments look for what changes answers, and not for what takes time",
    "value": "experiments ask engines, and not what an application makes of their answers",
    "text.repeat": "experiments make two engines alike, and this is one engine against itself",
}
"""Why no experiment is made where a verdict of a kind fails."""
_JUDGED: Final = (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)


def may_fail(checks: Sequence[Check]) -> bool:
    """Whether experiments are made where one of these checks of a test fails, or where one of the test's body may."""
    kinds = {kind.partition(".")[0] for kind in KINDS}
    return not checks or any(check.pairwise and check.kind in kinds for check in checks)


def any_due(verdicts: Sequence[Verdict], settings: Settings) -> bool:
    """Whether anything is to be found out, or said, of what causes these verdicts."""
    if due(verdicts, settings) or rendering_due(verdicts, settings):
        return True
    return any(untried(verdict, settings) for verdict in verdicts)


def rendering_due(verdicts: Sequence[Verdict], settings: Settings) -> bool:
    """Whether it is looked how engines render a prompt in which they do not agree."""
    return bool(settings.explain_requests) and any(v.kind == "prompts" and v.outcome is Outcome.FAIL for v in verdicts)


UNSHOWN: Final = (
    "the drift stays with everything made equal that could be; templates, BOS tokens and system prompts could not: "
    "neither engine tells how it renders these chats, or they cannot be sent raw with their tools or schemas"
)
UNSURE: Final = (
    "with everything made equal the drift is no longer above the margin, and {groups} of prompts are too few to show "
    "that it went away by that; give prompts of more groups"
)
VANISHED: Final = "the drift is not there any more when the same prompts are asked again"
WITHIN: Final = (
    "asked again, these prompts drift by no more than the check allows, so that nothing can be shown to take it away"
)


def due(verdicts: Sequence[Verdict], settings: Settings) -> list[Verdict]:
    """Return the verdicts whose cause is looked for: those that fail, or all with ``--parity-explain``.

    One on the prompts of a tag where it fails alone: else its cause is that of the verdict on all of them.
    """
    if not settings.explain_requests:
        return []
    failed = {(v.check, v.kind, v.engine) for v in verdicts if v.outcome is Outcome.FAIL}

    def wanted(verdict: Verdict) -> bool:
        if verdict.tag:
            alone = (verdict.check, quantity_of(verdict), verdict.engine) not in failed
            return alone and verdict.outcome is Outcome.FAIL
        return verdict.outcome in (_JUDGED if settings.explain else (Outcome.FAIL,))

    return [v for v in verdicts if quantity_of(v) in KINDS and v.baseline is not None and wanted(v)]


def untried(verdict: Verdict, settings: Settings) -> Explanation | None:
    """Return why no experiment was made for a verdict that fails, where ``--parity-explain`` asks for all of them."""
    kind = quantity_of(verdict)
    if not (settings.explain and settings.explain_requests) or verdict.outcome is not Outcome.FAIL or kind in KINDS:
        return None
    if (why := UNTRIED.get(kind) or UNTRIED.get(kind.partition(".")[0])) is None:
        alone = f"experiments make two engines alike, and this verdict is about {verdict.engine} alone"
        why = f"no experiment is made for {kind}" if verdict.baseline is not None else alone
    return Explanation(note=why)


def quantity_of(verdict: Verdict) -> str:
    """Return the kind of a verdict, of one on a tag's prompts that of the verdict beside it on all of them."""
    return verdict.kind.partition("[")[0] if verdict.tag else verdict.kind
