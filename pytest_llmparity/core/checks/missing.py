"""What a verdict does not rest on, why, and the rule that too little leaves nothing settled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pytest_llmparity.core.compare.answers import speechless
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.core.words import explain

ONE_OF: Final = 20
"""At most one prompt of so many may be missing from a verdict; beyond that nothing is settled, a proven FAIL aside."""


COUNTING: Final = frozenset({"text", "similarity", "schema.gap", "schema.agree", "prompts"})
"""Kinds of verdict that count prompts which cannot be asked among what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """The prompts a verdict is about (``of``), how many of them it rests on (``used``), and what became of the rest.

    ``reasons`` are clauses, each with its number: *the token limit was reached in the reasoning of 40 answers of a:
    raise max_tokens*; ``left_out`` those about prompts that cannot be asked, which every verdict names anyway.
    ``hopeful``: further prompts of a sequential run may still make it enough.
    """

    of: int
    used: int
    reasons: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    sequential: bool = False
    noun: str = "prompt"

    @property
    def enough(self) -> bool:
        """Whether what is there may be judged."""
        return self.used > 0 and ONE_OF * (self.of - self.used) <= self.of

    @property
    def hopeful(self) -> bool:
        """Whether a sequential run should go on for want of evidence: while half of its prompts give some."""
        return self.sequential and 2 * self.used >= self.of > 0

    @property
    def reason(self) -> str:
        """Why nothing is settled."""
        words = (
            f"it rests on {self.used} of {explain.count(self.of, self.noun)}" if self.used else "nothing was compared"
        )
        return ": ".join(filter(None, [words, "; ".join((*self.reasons, *self.left_out))]))


@dataclass(slots=True)
class Silence:
    """Counts pairs of answers that say nothing about each other, by why."""

    thinking: Counter[str] = field(default_factory=Counter)
    early: Counter[str] = field(default_factory=Counter)
    calling: Counter[str] = field(default_factory=Counter)
    wordless: int = 0

    def add(self, answers: Mapping[str, Completion]) -> None:
        """Count one pair, given as the two answers by their engines' names."""
        limited = False
        for name, answer in answers.items():
            if answer.cut and answer.tool_calls:
                self.calling[name] += 1
                limited = True
            elif answer.cut and (speechless(answer) or not any(map(speechless, answers.values()))):
                (self.thinking if answer.reasoning else self.early)[name] += 1
                limited = True
        self.wordless += not limited

    def reasons(self) -> list[str]:
        """Return one clause per kind, with numbers."""
        found = self.limits()
        if self.wordless:
            found.append(f"neither text nor a tool call in both answers to {explain.count(self.wordless, 'prompt')}")
        return found

    def limits(self) -> list[str]:
        """Return the clauses about token limits alone."""
        found = []
        if self.thinking:
            found.append(f"the token limit was reached in the reasoning of {_of(self.thinking)}: raise max_tokens")
        if self.early:
            found.append(f"the token limit was reached before any text of {_of(self.early)}: raise max_tokens")
        if self.calling:
            found.append(f"the token limit was reached in a tool call of {_of(self.calling)}: raise max_tokens")
        return found


def _of(numbers: Mapping[str, int]) -> str:
    (first, n), *rest = numbers.items()
    return " and ".join([f"{explain.count(n, 'answer')} of {first}", *(f"{n} of {name}" for name, n in rest)])
