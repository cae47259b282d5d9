"""Golden answers in a terminal: what there is, what stands in one, and where two of them differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pytest_llmparity.core.golden.folding import PHASES
from pytest_llmparity.core.golden.records import Answer, Golden, Line, Way
from pytest_llmparity.core.golden.updating import apart
from pytest_llmparity.core.sample import Sampling, to_json
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.printable import elide, pad, printable

WIDTH: Final = 100
_BEFORE: Final = 24
"""Characters that are shown before the place where two texts part."""
_AFTER: Final = 56


def overview(goldens: Mapping[str, Mapping[str, Golden]]) -> Iterator[str]:
    """Yield a line for every golden, by set and engine."""
    for prompt_set, by_engine in goldens.items():
        yield f"golden/{prompt_set}"
        width = max((len(engine) for engine in by_engine), default=0)
        for engine, golden in by_engine.items():
            yield printable(f"  {pad(engine, width)}  {', '.join(_about(golden))}")


def _about(golden: Golden) -> Iterator[str]:
    provenance = golden.provenance
    yield f"{provenance.kind} {provenance.version or ''}".rstrip()
    if (quantization := provenance.identity.get("quantization")) is not None:
        yield str(quantization.value)
    yield f"{golden.size} recorded {provenance.recorded}"
    repeated = sum(line.floor for line in _all(golden))
    yield f"{repeated} with a noise floor" if repeated else "no noise floor"
    yield "logprobs" if golden.logprobs else "no logprobs"
    yield from dict.fromkeys(map(_way, provenance.asked))


def _way(way: Way) -> str:
    """Return how prompts were asked, as far as it is not how everything is."""
    usual = to_json(Sampling())
    given = [f"{name} {value}" for name, value in way.sampling.items() if value != usual.get(name) and value != ()]
    return " ".join(["asked", str(way.concurrency), "at once", *(["with", ", ".join(given)] if given else [])])


def cases(golden: Golden) -> Iterator[str]:
    """Yield a line for every case: its first answer, and how many others it has."""
    width = min(max((len(printable(line.id)) for line in _all(golden)), default=0), 30)
    for line in _all(golden):
        others = len(line.answers) - 1
        more = f" (+{explain.count(others, 'other answer')})" if others else ""
        head = f"  {pad(elide(printable(line.id), width), width)}  "
        yield elide(f"{head}{_first_words(line.answers[0])}{more}", WIDTH)


def whole(line: Line, *, engine: str, prompt_set: str) -> Iterator[str]:
    """Yield all that stands in one line of an engine's golden answers to a set, escaped."""
    yield printable(
        f"{engine}, golden/{prompt_set}: {line.id}  (prompt {line.prompt}, sampling {line.sampling}, lock {line.lock})"
    )
    for answer in line.answers:
        yield printable(f"  {_counts(answer)}: ended by {answer.finish or 'nothing said'}, {_tokens(answer)}")
        for number, turn in enumerate(answer.turns, start=1):
            given = f"{turn.text}{_calls(turn)}".strip()
            yield printable(f"    turn {number} | {given} -> {', '.join(turn.results)}")
        for number, choice in enumerate(answer.choices, start=1):
            yield printable(f"    choice {number} | {choice.text}{_calls(choice)}")
        if answer.stopped is not None:
            yield printable(f"    no answer ({answer.stopped.kind}): {answer.stopped.words}")
        if answer.reasoning:
            yield from (f"    reasoning | {printable(text)}" for text in answer.reasoning.split("\n"))
        yield from (f"    | {printable(text)}" for text in answer.text.split("\n") if answer.text)
        yield from (f"    calls {printable(f'{call.name}({call.arguments})')}" for call in answer.tool_calls)
        if answer.valid is not None:
            yield f"    {'fits' if answer.valid else 'does not fit'} the schema of its case"


def _counts(answer: Answer) -> str:
    counts = [(phase, getattr(answer, phase.value)) for phase in PHASES]
    shown = [phase.value if number == 1 else f"{number} {phase.value}" for phase, number in counts if number]
    return ", ".join(shown)


def _tokens(answer: Answer) -> str:
    known = [
        f"{number} {of}"
        for number, of in ((answer.prompt_tokens, "of the prompt"), (answer.completion_tokens, "of the answer"))
        if number is not None
    ]
    return f"tokens: {', '.join(known)}" if known else "no token counts"


def differences(first: Golden, second: Golden, *, names: tuple[str, str]) -> tuple[list[str], bool]:
    """Return how two goldens of one set differ, and whether they do; the second may be what a run answered."""
    lines: list[str] = []
    engines = [str(difference) for difference in apart(first.provenance.locked, second.provenance.locked)]
    lines += [printable(f"  {text}") for text in engines]
    both = [(line, second.lines[key]) for key, line in sorted(first.lines.items()) if key in second.lines]
    other = [pair for pair in both if pair[0].prompt != pair[1].prompt]
    parted = [
        pair
        for pair in both
        if pair[0].prompt == pair[1].prompt
        and pair[1].answers[0].words not in {answer.words for answer in pair[0].answers}
    ]
    alone = [
        (names[0], sorted(line.id for key, line in first.lines.items() if key not in second.lines)),
        (names[1], sorted(line.id for key, line in second.lines.items() if key not in first.lines)),
    ]
    for ours, theirs in parted:
        lines += _parted(ours, theirs, names)
    lines += [printable(f"  {ours.id}: answers to another prompt") for ours, _ in other]
    lines += [f"  only {name}: {_some(ids)}" for name, ids in alone if ids]
    same = len(both) - len(other) - len(parted)
    counts = f"{explain.count(same, 'case')} alike, {len(parted)} answered otherwise"
    lines.append(f"  {counts}{f', {len(other)} asked otherwise' if other else ''}")
    return lines, bool(parted or other or any(ids for _, ids in alone))


def _parted(ours: Line, theirs: Line, names: tuple[str, str]) -> list[str]:
    width = max(map(len, names))
    pair = [line.answers[0] for line in (ours, theirs)]
    if pair[0].text == pair[1].text:
        shown = [_beside_text(answer, other) for answer, other in zip(pair, reversed(pair), strict=True)]
    else:
        place = _parts(pair[0].text, pair[1].text)
        begin = max(0, place - _BEFORE)
        shown = [
            ("…" if begin else "") + printable(answer.text[begin : place + _AFTER]) + f" ({printable(answer.finish)})"
            for answer in pair
        ]
    return [
        printable(f"  {ours.id}"),
        *(f"    {pad(name, width)}  {text}" for name, text in zip(names, shown, strict=True)),
    ]


def _beside_text(answer: Answer, other: Answer) -> str:
    """Return what an answer has otherwise than one of the same text, and that text where it is all there is."""
    shown = []
    turns = [turn.words for turn in answer.turns], [turn.words for turn in other.turns]
    if turns[0] != turns[1]:
        alike = (place for place, (a, b) in enumerate(zip(*turns, strict=False)) if a != b)
        place = next(alike, min(map(len, turns)))
        turn = (*answer.turns, answer)[place]
        shown.append(f"turn {place + 1}: {turn.text}{_calls(turn)}".strip())
    if answer.tool_calls != other.tool_calls:
        shown.append(_calls(answer).strip() or "no tool call")
    if answer.reasoning != other.reasoning:
        place = _parts(answer.reasoning, other.reasoning)
        begin = max(0, place - _BEFORE)
        words = answer.reasoning[begin : place + _AFTER]
        shown.append(f"reasoning {'…' if begin else ''}{words}" if answer.reasoning else "no reasoning")
    if answer.finish != other.finish:
        shown.append(f"ended by {answer.finish or 'nothing said'}")
    return printable("; ".join(shown))


def _parts(first: str, second: str) -> int:
    """Return the place where two texts part."""
    parting = (place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return next(parting, min(len(first), len(second)))


def _calls(answer: Answer) -> str:
    return "".join(f" {call.name}({call.arguments})" for call in answer.tool_calls)


def _first_words(answer: Answer) -> str:
    return printable(f"{answer.text}{_calls(answer)}".strip() or "(nothing)")


def _all(golden: Golden) -> list[Line]:
    return [line for _, line in sorted(golden.lines.items())]


def _some(ids: Iterable[str]) -> str:
    names = [explain.plain(case, 40) for case in ids]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
