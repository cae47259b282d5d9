"""Both engines read the same text, the baseline's answers, and say what they would go on with.

Answers that have parted say nothing of each other any more; next tokens behind the same text can be compared at any
place of it, the end as well as the beginning.
"""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pytest_llmparity.core.compare.shift import find_shift
from pytest_llmparity.core.diagnosis.removals import Asked
from pytest_llmparity.core.identity.ladder import Ladder
from pytest_llmparity.core.sample import Completion, Request
from pytest_llmparity.run.explain.asking import Pair, completion

READ: Final = "the baseline's answers read by both, the next token asked for at {places} places of each"
PROMPTS: Final = 6
"""Prompts whose answers are read, of as many groups."""
FEWEST: Final = 4
"""Prompts whose next tokens may name a layer: the median of fewer is that of one answer, and has no bounds."""
PLACES: Final = 4
"""Places of an answer at which the next token is asked for: the middle of each quarter."""
LITTLE: Final = 6.0
"""Times less than the finest copy of a model that next tokens move by where they speak for arithmetic: those of weights
of 8 bits were seen to move by a quarter of it at the least (0.0094 nats where the rung of other prompts is 0.036)."""
ALTERNATIVES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """How far next tokens moved where both read the same: nats in all, early and late in answers, ``prompts`` read."""

    nats: float
    early: float
    late: float
    prompts: int

    def layer(self, ladder: Ladder | None) -> str:
        """Return ``arithmetic`` where next tokens move by next to nothing beside the model's finest copy, else nothing.

        Nor where too few were read or no ladder tells. That they move far shows no weights: a KV cache of 4 bits and a
        RoPE that is scaled move them as far (``benchmarks/next_tokens.py``).
        """
        if ladder is None or self.prompts < FEWEST:
            return ""
        return "arithmetic" if self.nats * LITTLE < min(rung.shift for rung in ladder.rungs) else ""


def untold(pair: Pair) -> str:
    """Return why next tokens of a pair cannot be compared, empty where they can."""
    for adapter in pair.adapters:
        if adapter.can.logprobs is not True:
            return f"{adapter.name} gives no logprobs"
        if adapter.can.raw_prompt is False:
            return f"{adapter.name} takes no raw prompts as they are"
    return ""


def read(pair: Pair) -> Read | None:
    """Return what both engines say of next tokens, ``None`` where nothing can be compared.

    Raises ``Spent`` when no request is left.
    """
    requests: dict[str, Asked] = {}
    half: dict[str, bool] = {}
    groups: set[str] = set()
    answers = pair.answers(())[pair.baseline.name]
    for case in pair.cases:
        answer, asked = completion(answers.get(case.id)), pair.requests[case.id]
        if len(groups) == PROMPTS or case.group in groups or answer is None or answer.reasoning or asked.tools:
            continue
        beginnings = begun(answer)
        prompt = pair.render(asked) if beginnings else None
        if not prompt:
            continue
        groups.add(case.group)
        for place, text in enumerate(beginnings):
            key = f"{case.id}/{place}"
            half[key] = 2 * place >= len(beginnings)
            requests[key] = Asked(request=_next(asked, prompt + text))
    pair.refuse_beyond(2 * len(requests))  # half of it would show nothing
    ours, theirs = (pair.ask(adapter, requests) for adapter in pair.adapters)
    moved: dict[str, float] = {}
    for key in requests:
        a, b = completion(ours.get(key)), completion(theirs.get(key))
        if a is not None and b is not None and (shift := find_shift(a, b)) is not None:
            moved[key] = shift.least
    early, late = ([nats for key, nats in moved.items() if half[key] is of] for of in (False, True))
    if not early or not late:
        return None
    return Read(
        nats=statistics.median(moved.values()),
        early=statistics.median(early),
        late=statistics.median(late),
        prompts=len({key.rpartition("/")[0] for key in moved}),
    )


def begun(answer: Completion) -> Sequence[str]:
    """Return the beginnings of an answer up to the middle of each quarter of its tokens, or words; none of short ones.

    >>> begun(Completion(text="a b c d e f g h"))
    ['a', 'a b c', 'a b c d e', 'a b c d e f g']
    """
    spelled = [entry.token for entry in answer.logprobs if entry.token]
    text = answer.text.encode("utf-8", "surrogatepass")
    pieces = spelled if b"".join(spelled) == text else [w.encode() for w in re.findall(r"\s*\S+", answer.text)]
    if len(pieces) < PLACES:
        return []
    ends = [(2 * quarter + 1) * len(pieces) // (2 * PLACES) for quarter in range(PLACES)]
    try:
        return [b"".join(pieces[:end]).decode() for end in ends]
    except UnicodeDecodeError:  # a character is not whole there
        return []


def _next(asked: Request, text: str) -> Request:
    sampling = dataclasses.replace(asked.sampling, max_tokens=1, stop=())
    return Request(
        case=asked.case, prompt=text, sampling=sampling, top_logprobs=ALTERNATIVES, extra_body=asked.extra_body
    )
