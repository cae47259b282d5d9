"""Samples become lines of a golden, each distinct answer once with its counts, and lines become samples again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from pytest_llmparity.core.evidence import FLOOR_PHASES
from pytest_llmparity.core.golden import records
from pytest_llmparity.core.golden.records import Answer, Call, Line, LogprobsLine, Tokens, Wanted
from pytest_llmparity.core.sample import Completion, Phase, Sample, TokenLogprob, ToolCall, limited_lower

PHASES: Final = (Phase.MAIN, *FLOOR_PHASES)
"""The phases a golden keeps, what is judged first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """One case's line, with its logprobs where it has any; ``silent``: an application came to it and asked nothing."""

    line: Line
    logprobs: LogprobsLine | None = None
    silent: bool = False


def fold(
    case: str,
    wanted: Wanted,
    samples: Sequence[Sample],
    *,
    lock: str,
    valid: Callable[[Completion], bool] | None = None,
) -> Folded | None:
    """Return the line of a case by an engine's samples, ``None`` where its first question has no answer.

    ``valid`` says whether an answer fits the schema of the case, if it has one. Failures among the repeats are left
    out: what is not there is not measured.
    """
    kept = (sample for sample in samples if sample.phase in PHASES)
    ordered = sorted(kept, key=lambda sample: (PHASES.index(sample.phase), sample.repeat))
    if not ordered or ordered[0].phase is not Phase.MAIN or ordered[0].completion is None:
        return None
    distinct: dict[Answer, list[tuple[Phase, Completion]]] = {}
    for sample in ordered:
        if sample.completion is not None:
            answer = _answer(sample.completion, valid, first=ordered[0].completion)
            distinct.setdefault(answer, []).append((sample.phase, sample.completion))
    answers = [
        msgspec.structs.replace(answer, **Counter(phase.value for phase, _ in given))
        for answer, given in distinct.items()
    ]
    places: Counter[Phase] = Counter()
    tokens: dict[tuple[str, records.Written], list[str]] = {}
    for answer, given in distinct.items():
        for phase, completion in given:
            if completion.logprobs:
                written = records.written(completion.logprobs)
                tokens.setdefault((answer.digest, written), []).append(_name(phase, places[phase]))
            places[phase] += 1
    hashes = {"lock": lock, "prompt": wanted.prompt, "sampling": wanted.sampling}
    line = Line(id=case, answers=tuple(answers), **hashes)
    if not tokens:
        calls = [completion.calls for given in distinct.values() for _, completion in given]
        return Folded(line=line, silent=all(made is not None and not made for made in calls))
    with_names = tuple(
        Tokens(of=tuple(of), answer=of_answer, tokens=content) for (of_answer, content), of in tokens.items()
    )
    return Folded(line=line, logprobs=LogprobsLine(id=case, answers=with_names, **hashes))


def unfold(
    line: Line,
    logprobs: LogprobsLine | None,
    *,
    engine: str,
    sha256: str,
    concurrency: int,
    max_tokens: int,
) -> Iterator[Sample]:
    """Yield the samples a line stands for, as if ``engine`` had just answered the request with this hash.

    Logprobs of another recording than the line's are none of its answers, and neither are those of another answer: a
    merge takes each file by itself.
    """
    ours = logprobs is not None and (logprobs.lock, logprobs.prompt) == (line.lock, line.prompt)
    tokens = _by_name(logprobs) if logprobs is not None and ours else {}
    places: Counter[Phase] = Counter()
    for answer in line.answers:
        completion, digest = _completion(answer, max_tokens), answer.digest
        for phase in PHASES:
            for _ in range(getattr(answer, phase.value)):
                place = places[phase]
                places[phase] += 1
                yield Sample(
                    engine=engine,
                    case=line.id,
                    phase=phase,
                    repeat=place,
                    concurrency=concurrency,
                    request_sha256=sha256,
                    completion=msgspec.structs.replace(
                        completion, logprobs=tokens.get((_name(phase, place), digest), ())
                    ),
                )


def _name(phase: Phase, place: int) -> str:
    return phase.value if place == 0 else f"{phase.value}.{place}"


def _by_name(logprobs: LogprobsLine) -> Mapping[tuple[str, str], Sequence[TokenLogprob]]:
    """Return tokens by which answer of a case has them and the hash of its words."""
    by_name: dict[tuple[str, str], Sequence[TokenLogprob]] = {}
    for tokens in logprobs.answers:
        by_name |= dict.fromkeys(((name, tokens.answer) for name in tokens.of), records.read(tokens))
    return by_name


def _answer(completion: Completion, valid: Callable[[Completion], bool] | None, *, first: Completion) -> Answer:
    shorter = limited_lower(completion, first)
    return Answer(
        text=completion.text,
        reasoning=completion.reasoning,
        tool_calls=tuple(Call(name=call.name, arguments=call.arguments) for call in completion.tool_calls),
        finish=completion.finish_reason,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        reasoning_tokens=completion.reasoning_tokens,
        valid=None if valid is None or shorter else valid(completion),
        normalised=completion.normalised,
        limit=completion.max_tokens if shorter else None,
        turns=tuple(_answer(turn, None, first=turn) for turn in completion.turns),
        results=completion.results,
        stopped=completion.stopped,
        choices=tuple(_answer(choice, None, first=choice) for choice in completion.choices),
        counted=completion.counted,
    )


def _completion(answer: Answer, max_tokens: int) -> Completion:
    return Completion(
        text=answer.text,
        reasoning=answer.reasoning,
        tool_calls=tuple(ToolCall(name=call.name, arguments=call.arguments) for call in answer.tool_calls),
        finish_reason=answer.finish,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        reasoning_tokens=answer.reasoning_tokens,
        normalised=answer.normalised,
        max_tokens=max_tokens if answer.limit is None else answer.limit,
        turns=tuple(_completion(turn, max_tokens) for turn in answer.turns),
        results=answer.results,
        stopped=answer.stopped,
        choices=tuple(_completion(choice, max_tokens) for choice in answer.choices),
        counted=answer.counted,
    )
