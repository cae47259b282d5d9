"""Canaries: greedy answers of an engine, kept in the lock, by which it is known again however little it tells.

With logprobs the shift between then and now says how far it moved, in nats; without, it is counted how many answers
part. ``docs/lock.md``, *Canaries*, has what either can and cannot see.
"""

from __future__ import annotations

import enum
import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_llmparity.core.compare.shift import Logprobs, find_shift
from pytest_llmparity.core.sample import Completion, TokenLogprob

TOKENS: Final = 24
"""Longest answer of a canary."""
ALTERNATIVES: Final = 5
"""Alternatives per token that are asked for."""
SAME: Final = 0.005
"""Nats up to which an engine is unchanged, where its own repeats are not further apart than a third of this."""
OF_FLOOR: Final = 3.0
"""How many times what an engine differed from itself when it was recorded is no change."""
KERNELS: Final = 0.01
"""Nats below which other arithmetic explains it: no requantisation was seen to move so little."""
ROUNDED: Final = 0.1
"""Nats from which it is other weights: rounding in 16 bits was not seen to move so far.

What else acts on every token does, with the same weights: a KV cache in 4 bits (0.27) and RoPE scaled by 0.97 (0.19).
Below lie both: of the tiny model Q8_0 (0.04), a cache in 8 bits (0.015) and BF16 for F16 (0.03), of SmolLM2-135M vLLM
in BF16 (0.055 to 0.081) and BF16 for F16 (0.016 to 0.027); its Q8_0 is at 0.104 to 0.166 (60 draws of 12 prompts each).
"""
SEEN: Final = 0.02
"""Nats that no limit exceeds for an engine's own noise where that can be: half of what Q8_0 in place of F16 moved."""
ROOM: Final = 1.5
"""Times an engine's own noise that its limit is at the least: less would cry wolf."""
PARTED: Final = 1
"""Answers that may part where there are no logprobs, beyond those that did when they were recorded."""
_RESTLESS: Final = "so many may: it did not answer its own repeats alike when they were kept"
_LOST: Final = "the lock has logprobs, and half of the answers or more have none to compare now"
_FIGURES: Final = 4


class Change(enum.StrEnum):
    """What an engine is, compared with what was recorded of it."""

    UNCHANGED = "unchanged"
    ARITHMETIC = "other arithmetic"
    EITHER = "other weights or arithmetic"
    WEIGHTS = "other weights"
    PROMPT = "another prompt"
    ANSWERS = "other answers"
    UNKNOWN = "not comparable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """One answer: its text, and how many tokens its prompt has by the server's count.

    Of every token the second best one, and how many nats it stands behind; no tokens where there are no logprobs.
    """

    text: str
    prompt_tokens: int | None = None
    tokens: tuple[str, ...] = ()
    seconds: tuple[str, ...] = ()
    leads: tuple[float, ...] = ()

    @classmethod
    def of(cls, answer: Completion, *, logprobs: bool) -> Canary:
        """Return what is kept of an answer; tokens up to the first that has no second best one."""
        text = answer.text.encode("utf-8", "replace").decode()
        kept: list[tuple[str, str, float]] = []
        for entry in answer.logprobs if logprobs else ():
            others = [(token, logprob) for token, logprob in entry.top if token != entry.token]
            if entry.logprob is None or not others or not math.isfinite(entry.logprob - others[0][1]):
                break
            kept.append((_spelt(entry.token), _spelt(others[0][0]), round(entry.logprob - others[0][1], _FIGURES)))
        tokens, seconds, leads = zip(*kept, strict=True) if kept else ((), (), ())
        return cls(text=text, prompt_tokens=answer.prompt_tokens, tokens=tokens, seconds=seconds, leads=leads)

    def completion(self) -> Completion:
        """Return the canary as an answer that another one can be held against."""
        logprobs = [
            TokenLogprob(token=_bytes(token), logprob=0.0, top=((_bytes(token), 0.0), (_bytes(second), -lead)))
            for token, second, lead in zip(self.tokens, self.seconds, self.leads, strict=True)
        ]
        return Completion(text=self.text, finish_reason="stop", logprobs=tuple(logprobs))


def limit_of(noise: float) -> float:
    """Return the nats up to which an engine is unchanged: three times its own noise, but no more than sees 8 bits.

    Of an engine that is noisier than that it is what its noise takes, see :func:`blind_by`.
    """
    return max(SAME, min(OF_FLOOR * noise, max(SEEN, ROOM * noise)))


def blind_by(noise: float) -> str:
    """Say what an engine's own noise keeps its logprobs from seeing, empty where it hides nothing that is known."""
    if limit_of(noise) <= SEEN:
        return ""
    return f"differs from itself by {noise:.3g} nats, so that weights in 8 bits in place of 16 may not be seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Canaries:
    """The canaries of one engine by case. ``date`` is when they were recorded, ``plugin`` the version that did.

    ``floor`` is how far the engine's own repeats were apart, in nats, ``None`` where it gave no logprobs; ``unstable``
    counts the answers that parted among them.
    """

    date: str
    plugin: str
    prompt_set: str
    floor: float | None
    unstable: int
    answers: Mapping[str, Canary]

    @property
    def logprobs(self) -> bool:
        """Whether its answers have logprobs."""
        return self.floor is not None

    @property
    def limit(self) -> float:
        """Nats up to which the engine is unchanged, by its own noise (:func:`limit_of`)."""
        return limit_of(self.floor or 0.0)

    @property
    def blind(self) -> str:
        """Say what an engine's own noise keeps its logprobs from seeing, empty where it hides nothing that is known."""
        return blind_by(self.floor or 0.0)

    def __str__(self) -> str:
        if self.logprobs:
            return f"{len(self.answers)} with logprobs, the same up to {self.limit:.3g} nats"
        return f"{len(self.answers)} without logprobs, the same while {self.may_part} at most part"

    @property
    def may_part(self) -> int:
        """How many of its answers may part where the engine is unchanged."""
        return PARTED + self.unstable

    @property
    def restless(self) -> bool:
        """Whether they tell nothing: no logprobs, and all answers may part where the engine is unchanged."""
        return not self.logprobs and self.may_part >= len(self.answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How an engine's answers compare with its canaries: what that means, and the numbers it rests on.

    ``nats`` is ``None`` where logprobs could not be compared. ``parted`` of ``of`` answers have another text.
    """

    change: Change
    nats: float | None = None
    parted: int = 0
    of: int = 0
    counts: str = ""

    def __str__(self) -> str:
        return f"{self.change} ({self.numbers})"

    @property
    def numbers(self) -> str:
        """The numbers alone: nats, where logprobs could be compared, and answers."""
        answers = self.counts or f"{self.parted} of {self.of} answers part"
        return answers if self.nats is None else f"{self.nats:.4f} nats, {answers}"


def recorded(passes: Sequence[Mapping[str, Completion]], *, date: str, plugin: str, prompt_set: str) -> Canaries:
    """Return the canaries of an engine that was asked them several times; the first answers are kept.

    Cases without an answer are left out, and so are answers without text, such as those of a model that is still
    thinking: they would be the same of any weights; and those that were asked again and never answered: whether they
    would have parted is not known. Logprobs that cannot be compared count as none, and so do those of an engine that
    was asked again and gave none then: what it differs from itself is not known.
    """
    first, *again = passes
    repeated = set(first).intersection(itertools.chain.from_iterable(again)) if again else first
    first = {case: answer for case, answer in first.items() if case in repeated and answer.text.strip()}
    logprobs = comparable(first.values())
    answers = {case: Canary.of(answer, logprobs=logprobs) for case, answer in sorted(first.items())}
    logprobs = logprobs and all(canary.leads for canary in answers.values())
    floors = [nats for repeat in again if (nats := _shift(answers, repeat)) is not None] if logprobs else []
    logprobs = logprobs and bool(floors or not again)
    logprobs = logprobs and all(map(math.isfinite, floors))  # a limit of three times infinity would hold nothing
    unstable = {case for repeat in again for case in answers if case in repeat and _parts(answers[case], repeat[case])}
    return Canaries(
        date=date,
        plugin=plugin,
        prompt_set=prompt_set,
        floor=round(max(floors, default=0.0), 6) if logprobs else None,
        unstable=len(unstable),
        answers=answers,
    )


def compare(canaries: Canaries, live: Mapping[str, Completion]) -> Seen:
    """Return what an engine's answers of now, held against its canaries, show to have changed."""
    both = {case: canary for case, canary in canaries.answers.items() if case in live}
    if len(both) * 2 <= len(canaries.answers):
        return Seen(change=Change.UNKNOWN, counts=f"{len(both)} of {len(canaries.answers)} were answered")
    parted = sum(_parts(canary, live[case]) for case, canary in both.items())
    nats = _shift(both, live) if canaries.floor is not None and comparable(live.values()) else None
    counts = _other_counts(both, live)
    if counts:
        change = Change.PROMPT
    elif nats is not None and nats > canaries.limit:
        change = Change.ARITHMETIC if nats < KERNELS else Change.EITHER if nats < ROUNDED else Change.WEIGHTS
    elif parted > canaries.may_part:  # whatever logprobs say: what acts behind them moves the text alone
        change = Change.ANSWERS
    elif canaries.logprobs and nats is None:
        change = Change.UNKNOWN
        counts = f"{_LOST}; {parted} of {len(both)} answers part"
    elif canaries.restless or (nats is None and canaries.may_part >= len(both)):
        change = Change.UNKNOWN
        counts = f"{parted} of {len(both)} answers part, and {_RESTLESS}"
    else:
        change = Change.UNCHANGED
    return Seen(change=change, nats=nats, parted=parted, of=len(both), counts=counts)


def comparable(answers: Iterable[Completion]) -> bool:
    """Tell whether answers have logprobs by which a shift can be measured."""
    seen = Logprobs.of(answers)
    return seen.tokens > 0 and not seen.trouble


def _shift(canaries: Mapping[str, Canary], live: Mapping[str, Completion]) -> float | None:
    """Return the median shift, ``None`` where half of the answers or more have none: a few do not speak for all."""
    shifts = [
        shift.most
        for case, canary in canaries.items()
        if case in live and (shift := find_shift(canary.completion(), live[case])) is not None
    ]
    return statistics.median(shifts) if 2 * len(shifts) > len(canaries) else None


def _parts(canary: Canary, answer: Completion) -> bool:
    return canary.text != answer.text.encode("utf-8", "replace").decode()


def _other_counts(canaries: Mapping[str, Canary], live: Mapping[str, Completion]) -> str:
    """Say that prompts have another length now, where that is so of most of them."""
    counts = [
        (before, now)
        for case, canary in canaries.items()
        if (before := canary.prompt_tokens) is not None and (now := live[case].prompt_tokens) is not None
    ]
    others = [pair for pair in counts if pair[0] != pair[1]]
    if 2 * len(others) <= len(counts):
        return ""
    return f"the first prompt has {others[0][1]} tokens instead of {others[0][0]}"


def _spelt(token: bytes) -> str:
    """Return a token as text; pieces of a character as digits."""
    try:
        text = token.decode()
    except UnicodeDecodeError:
        return f"hex:{token.hex()}"
    return f"hex:{token.hex()}" if text.startswith("hex:") else text


def _bytes(token: str) -> bytes:
    return bytes.fromhex(token.removeprefix("hex:")) if token.startswith("hex:") else token.encode()
