"""Whether what a request says of reasoning does anything: the probes of effort and of the switch."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.run.probe.probes import QUESTION, Probe, Prober, Undecided, asking

TOKENS: Final = 24
"""Tokens of each answer: whether one reasons is seen in its first."""
EFFORTS: Final = ("none", "low", "high")


def _changes(prober: Prober, field: str, told: Sequence[Mapping[str, Any]]) -> Mapping[str, object]:
    """Ask without a word of reasoning and with each of these: one that differs in anything was read.

    A no is said only where every answer and every count of the prompt is the same. Answers of an engine that does not
    repeat itself say nothing: the length of the prompt and whether it reasons at all do.
    """
    plain = prober.ask(asking(QUESTION, max_tokens=TOKENS))
    asked = [prober.ask_where_taken(asking(QUESTION, max_tokens=TOKENS, thinking=thinking)) for thinking in told]
    answers = [answer for answer in asked if answer is not None]
    if not answers:
        return {field: False}
    prober.refusal = ""  # of some values, which other ones are taken beside
    if any(_shape(answer) != _shape(plain) for answer in answers):
        return {field: True}
    if all(_words(answer) == _words(plain) for answer in answers):
        return {field: False}
    again = prober.ask(asking(QUESTION, max_tokens=TOKENS))
    if _words(again) != _words(plain):
        raise Undecided("the engine does not repeat its answers, so one that differs proves nothing")
    return {field: True}


def _shape(answer: Completion) -> tuple[object, ...]:
    return answer.prompt_tokens, bool(answer.reasoning or answer.reasoning_tokens)


def _words(answer: Completion) -> tuple[str, str]:
    return answer.text, answer.reasoning


def uses(case: Case, name: str) -> bool:
    """Whether a case says of reasoning what a probe is about."""
    if name == "reasoning effort":
        return "reasoning_effort" in case.thinking
    return "enable_thinking" in (case.thinking.get("chat_template_kwargs") or {})


EFFORT: Final = Probe(
    fields=("reasoning_effort",),
    requests=len(EFFORTS) + 2,
    run=functools.partial(
        _changes, field="reasoning_effort", told=[{"reasoning_effort": effort} for effort in EFFORTS]
    ),
)
SWITCH: Final = Probe(
    fields=("thinking_switch",),
    requests=4,
    run=functools.partial(
        _changes,
        field="thinking_switch",
        told=[{"chat_template_kwargs": {"enable_thinking": value}} for value in (False, True)],
    ),
)
