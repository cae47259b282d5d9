"""The cases of a run as the page shows them: what was asked, what each engine answered, and where two answers part.

What comes out is JSON that the page's script draws rows from as they come into view. Texts of models and prompts are
there as they were written, but for what is longer than anybody reads: nothing here is markup.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_llmparity.core.compare.answers import (
    contested,
    edit_similarity,
    find_fork,
    lead,
    no_evidence,
    parted,
    turn_of,
)
from pytest_llmparity.core.compare.calls import same_calls
from pytest_llmparity.core.evidence import FLOOR_PHASES
from pytest_llmparity.core.gate.flips import Flips, expected, flips
from pytest_llmparity.core.identity.record import RunRecord, SampleOrigin
from pytest_llmparity.core.prompts.parts import spoken
from pytest_llmparity.core.sample import TORN, Completion, Phase, Sample, TokenLogprob, limited_lower
from pytest_llmparity.core.verdict import SEVERITY, Outcome, Verdict
from pytest_llmparity.core.words import brief, explain
from pytest_llmparity.core.words.nodeids import names_apart
from pytest_llmparity.report.html import edits

LONGEST_ANSWER: Final = 20_000
LONGEST_PROMPT: Final = 4_000
"""Characters of an answer, and of one message, that the page holds; ``samples.jsonl`` has all of them."""
_RIVALS: Final = 4
_GRADES: Final = ("", "near-tie", None, "rank shift", "outside top-k")
_JUDGED: Final = (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)

Origin = Callable[[Sample], SampleOrigin | None]


@dataclass(slots=True)
class _CaseRow:
    """One case of the tests that ask it the same way: its origin, and of every engine the answers and their repeats."""

    case: str
    origin: SampleOrigin
    answers: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    repeats: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    marks: list[dict[str, Any]] = field(default_factory=list)
    turned: dict[str, str] = field(default_factory=dict)


def matrix(record: RunRecord, samples: Sequence[Sample], origin: Origin) -> dict[str, Any]:
    """Return what the page's script is given: engines, tests, verdicts to filter by, and the cases, worst first."""
    engines = [engine.name for engine in record.engines]
    baseline = next((engine.name for engine in record.engines if engine.baseline), engines[0] if engines else "")
    rows = _rows(samples, origin)
    tests = list(dict.fromkeys([*(v.test for v in record.verdicts), *(t for row in rows for t in row.origin.tests)]))
    _mark(rows, record.verdicts)
    turned = {
        place: flips(
            record.verdicts,
            record.failures,
            expected(record.verdicts, samples, origin, baseline=baseline, candidate=name),
            baseline=baseline,
            candidate=name,
        )
        for place, name in enumerate(engines)
        if name != baseline
    }
    _mark_flips(rows, turned)
    texts: dict[str, int] = {}
    ordered = sorted(rows, key=lambda row: (_natural(row.case), row.origin.tests))
    ranked = [(_rank(row, record.verdicts, baseline), row) for row in ordered]
    ranked.sort(key=lambda pair: pair[0], reverse=True)
    taken: dict[str, int] = defaultdict(int)
    return {
        "engines": engines,
        "baseline": engines.index(baseline) if baseline in engines else -1,
        "tests": tests,
        "test_names": list(names_apart(tests).values()),
        "judged": any(of_engine.judged for of_engine in turned.values()),
        "verdicts": [_verdict(verdict, tests, engines) for verdict in record.verdicts],
        "cases": [_case(row, _anchor(row.case, taken), engines, baseline, tests, texts) for _, row in ranked],
        "texts": list(texts),
    }


def _rows(samples: Iterable[Sample], origin: Origin) -> list[_CaseRow]:
    """Gather the answers that are judged into rows, and beside them what the same engine answered when asked again."""
    rows: dict[tuple[tuple[str, ...], str], _CaseRow] = {}
    by_request: dict[tuple[str, str, str], list[_CaseRow]] = defaultdict(list)
    again: list[Sample] = []
    for sample in samples:
        if sample.phase in FLOOR_PHASES:
            again.append(sample)
        if sample.phase is not Phase.MAIN:
            continue
        asked = origin(sample) or SampleOrigin()
        key = (asked.tests, sample.case)
        row = rows.setdefault(key, _CaseRow(sample.case, asked))
        row.answers[sample.engine].append(sample)
        of_request = by_request[sample.engine, sample.case, sample.request_sha256]
        if row not in of_request:
            of_request.append(row)
    for sample in again:
        for row in by_request.get((sample.engine, sample.case, sample.request_sha256), ()):
            row.repeats[sample.engine].append(sample)
    return list(rows.values())


def _mark(rows: Sequence[_CaseRow], verdicts: Sequence[Verdict]) -> None:
    """Note on every row which verdicts name its case, and what they say of it."""
    places = {(test, row.case): row for row in rows for test in row.origin.tests}
    for number, verdict in enumerate(verdicts):
        for difference in verdict.differing:
            row = places.get((verdict.test, difference.case))
            if row is None:
                continue
            mark: dict[str, Any] = {"v": number, "what": difference.what}
            if difference.token is not None:
                mark["at"] = round(difference.token, 1)
            if difference.grade is not None:
                mark["grade"] = difference.grade
            if not difference.counted:
                mark["uncounted"] = True
            row.marks.append(mark)


def _mark_flips(rows: Sequence[_CaseRow], turned: Mapping[int, Flips]) -> None:
    """Note on every row on which engines, by their places, its case is wrong and was right, or the other way round."""
    places: dict[tuple[str, str], list[_CaseRow]] = defaultdict(list)
    for row in rows:
        for test in ("", *row.origin.tests):  # an answer that failed is of no test
            places[test, row.case].append(row)
    for place, of_engine in turned.items():
        for way, cases in (("better", of_engine.improvements), ("worse", of_engine.regressions)):
            for flip in cases:
                for row in places[flip.test, flip.case]:
                    row.turned[str(place)] = way


def _rank(row: _CaseRow, verdicts: Sequence[Verdict], baseline: str) -> tuple[float, ...]:
    """Return what rows are sorted by, the worst being the greatest."""
    counted = [mark for mark in row.marks if "uncounted" not in mark]
    outcome = max((SEVERITY.index(verdicts[mark["v"]].outcome) for mark in counted), default=-1)
    silent = sum(_answer(samples) is None for samples in row.answers.values())
    grade = max((_GRADES.index(mark.get("grade")) for mark in counted), default=0)
    ours = _answer(row.answers.get(baseline, ()))
    apart = 0.0
    for name, samples in row.answers.items():
        theirs = _answer(samples)
        if name != baseline and ours is not None and theirs is not None and not _same(ours, theirs):
            apart = max(apart, 1.0 + (1.0 - edit_similarity(ours.text[:2000], theirs.text[:2000])))
    return (float(outcome), float(silent), float(grade), float(len(counted)), apart, float(len(row.marks)))


def _verdict(verdict: Verdict, tests: Sequence[str], engines: Sequence[str]) -> dict[str, Any]:
    causes = [] if verdict.explanation is None else [cause.layer for cause in verdict.explanation.causes]
    return {
        "test": tests.index(verdict.test),
        "kind": verdict.kind,
        "engine": engines.index(verdict.engine) if verdict.engine in engines else -1,
        "pair": verdict.baseline is not None,
        "outcome": verdict.outcome.value,
        "bad": verdict.outcome.fails_test,
        "causes": causes or ([explain.plain(verdict.cause, 60)] if verdict.cause else []),
        "says": brief.one_line([verdict]) if verdict.outcome is not Outcome.PASS else explain.headline(verdict),
    }


def _case(
    row: _CaseRow,
    anchor: str,
    engines: Sequence[str],
    baseline: str,
    tests: Sequence[str],
    texts: dict[str, int],
) -> dict[str, Any]:
    asked = row.origin
    content: dict[str, Any] = {
        "id": row.case,
        "at": anchor,
        "tests": [tests.index(test) for test in asked.tests],
        "asked": _asked(asked, texts),
        "answers": [],
        "pairs": {},
    }
    if asked.tags:
        content["tags"] = list(asked.tags)
    if asked.group and asked.group != row.case:
        content["group"] = asked.group
    if row.marks:
        content["marks"] = row.marks
    if row.turned:
        content["turned"] = row.turned
    ours = _answer(row.answers.get(baseline, ()))
    for place, name in enumerate(engines):
        theirs = _answer(row.answers.get(name, ()))
        same = name != baseline and ours is not None and theirs is not None and _same(ours, theirs)
        shown = _shown(row.answers.get(name, ()), row.repeats.get(name, ()), same=same)
        content["answers"].append(shown)
        if name != baseline and ours is not None and theirs is not None and not same:
            content["pairs"][str(place)] = pair(ours, theirs)
    return content


def _asked(asked: SampleOrigin, texts: dict[str, int]) -> list[list[Any]]:
    """Return role and text of each message; a text that several prompts share is written down once."""
    if asked.messages is None:
        return [] if asked.prompt is None else [["prompt", _index_of(asked.prompt, texts)]]
    return [
        [str(message.get("role", "")), _index_of(_content(message), texts), *_beside(message)]
        for message in asked.messages
    ]


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        return ""
    parts = (part for part in content if isinstance(part, Mapping))
    return "\n".join(str(part["text"]) if "text" in part else spoken(part) for part in parts)


def _beside(message: Mapping[str, Any]) -> list[Any]:
    """Return the calls of a message of the conversation so far, if it has any."""
    calls = message.get("tool_calls") or ()
    functions = [call.get("function", {}) for call in calls if isinstance(call, Mapping)]
    named = [[str(function.get("name", "")), str(function.get("arguments", ""))] for function in functions]
    return [named] if named else []


def _index_of(text: str, texts: dict[str, int]) -> int:
    if len(text) > LONGEST_PROMPT:
        half = LONGEST_PROMPT // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half:,} characters are not shown …\n{text[-half:]}"
    return texts.setdefault(text, len(texts))


def _shown(samples: Sequence[Sample], repeats: Sequence[Sample], *, same: bool) -> dict[str, Any] | None:
    """Return one engine's answer; where it is the ``same`` as the baseline's, only what may differ all the same."""
    if not samples:
        return None
    answer = _answer(samples)
    if answer is None:
        failure = next(sample.failure for sample in samples if sample.failure is not None)
        return {"failed": failure.kind, "why": failure.message[:LONGEST_PROMPT]}
    content: dict[str, Any] = {"same": True} if same else {"text": answer.text[:LONGEST_ANSWER]}
    if not same and len(answer.text) > LONGEST_ANSWER:
        content["more"] = len(answer.text) - LONGEST_ANSWER
    if not same and answer.tool_calls:
        content["calls"] = [[call.name, call.arguments[:LONGEST_PROMPT]] for call in answer.tool_calls]
    if not same and answer.turns:
        content["turns"] = [
            [
                turn.text[:LONGEST_PROMPT],
                [[call.name, call.arguments[:LONGEST_PROMPT]] for call in turn.tool_calls],
                [result[:LONGEST_PROMPT] for result in turn.results],
            ]
            for turn in answer.turns
        ]
    if answer.stopped is not None:
        content["stopped"] = f"{answer.stopped.kind}: {answer.stopped.words}"
    if answer.reasoning:
        content["reasoning"] = answer.reasoning[:LONGEST_PROMPT]
    if answer.finish_reason != "stop":
        content["end"] = answer.finish_reason
    if answer.completion_tokens is not None:
        content["tokens"] = answer.completion_tokens
    answered = [choice for s in samples if s.completion is not None for choice in (s.completion, *s.completion.choices)]
    if len(answered) > 1:
        content["of"] = [len({other.text for other in answered}), len(answered)]
    again = [sample for sample in repeats if sample.completion is not None]
    if again:
        content["again"] = len(again)
    if other := [s.phase.value for s in again if s.completion is not None and not _same(answer, s.completion)]:
        content["unlike"] = list(dict.fromkeys(other))
    return content


def pair(ours: Completion, theirs: Completion) -> dict[str, Any]:
    """Return how two answers that are not the same differ."""
    content: dict[str, Any] = {}
    texts = ours.text[:LONGEST_ANSWER], theirs.text[:LONGEST_ANSWER]
    if texts[0] != texts[1]:
        content["unit"], content["pieces"] = edits.by_tokens(ours, theirs, texts)
        if (characters := edits.by_characters(*texts)) is not None:
            content["characters"] = characters
        fork = find_fork(ours, theirs, horizon=1_000_000_000)
        if fork.byte is not None and fork.char is not None:
            content["char"] = edits.units(ours.text[: fork.char])
            content["token"] = None if fork.token is None else round(fork.token, 1)
            content["guessed"] = fork.unit != "tokens"
            if fork.grade:
                content["grade"] = fork.grade
            if (tokens := contested(ours.logprobs, theirs.logprobs, fork.byte)) is not None:
                content["fork"] = [_contested(*tokens), _contested(*tokens[::-1])]
    if ours.turns or theirs.turns:
        content["turn"] = parted(ours, theirs)
    if rows := edits.fields(*turn_of(ours, theirs)):
        content["fields"] = rows
    if not (ours.turns or theirs.turns) and no_evidence(ours, theirs):
        content["silent"] = True
    return content


def _contested(chosen: TokenLogprob, rival: TokenLogprob) -> dict[str, Any]:
    """Return one engine's token at the fork, its alternatives, and by how many nats it leads the other's token."""
    ahead = lead(chosen, rival.token) if chosen.top and chosen.logprob is not None else None
    listed = [(token, logprob) for token, logprob in chosen.top if token != chosen.token][:_RIVALS]
    if not any(token == rival.token for token, _ in listed):
        listed += [(token, logprob) for token, logprob in chosen.top if token == rival.token]
    return {
        "token": _spelled(chosen.token),
        "logprob": None if chosen.logprob is None else round(chosen.logprob, 4),
        "lead": None if ahead is None else round(ahead, 4),
        "others": [[_spelled(token), round(logprob, 4)] for token, logprob in listed],
    }


def _spelled(token: bytes) -> str:
    return token.decode("utf-8", "backslashreplace")


def _answer(samples: Sequence[Sample]) -> Completion | None:
    return next((sample.completion for sample in samples if sample.completion is not None), None)


def _same(ours: Completion, theirs: Completion) -> bool:
    if ours.turns or theirs.turns:
        return not parted(ours, theirs)
    if limited_lower(theirs, ours):
        return not theirs.tool_calls and ours.text.startswith(theirs.text.rstrip(TORN))
    return ours.text == theirs.text and same_calls(ours.tool_calls, theirs.tool_calls)


def _anchor(case: str, taken: dict[str, int]) -> str:
    """Return what a link to a case ends with: its id, and a number where another test asks a case of this id."""
    taken[case] += 1
    return case if taken[case] == 1 else f"{case}~{taken[case]}"


def _natural(text: str) -> list[tuple[int, str]]:
    """Return a key that sorts ``case-2`` before ``case-10``."""
    return [
        (int(part), "") if part.isascii() and part.isdigit() and len(part) < 10 else (-1, part)
        for part in re.split(r"(\d+)", text)
    ]
