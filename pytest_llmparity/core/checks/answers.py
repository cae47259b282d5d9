"""Answers that must be right: how many are, whether both engines are right alike, and which cases flip between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import ClassVar, Final

import msgspec

from pytest_llmparity.core.checks.base import Pairing
from pytest_llmparity.core.checks.limits import LimitedCheck, within
from pytest_llmparity.core.checks.missing import JUDGED, Missing, Silence, describe, gap_shown
from pytest_llmparity.core.checks.schema.contract import name_of, silent
from pytest_llmparity.core.checks.schema.contracts import Contracts, files_of
from pytest_llmparity.core.checks.shares import Best, besides, gap_judged, share_judged
from pytest_llmparity.core.compare.answers import digest, no_evidence, speechless
from pytest_llmparity.core.compare.calls import in_words
from pytest_llmparity.core.diagnosis import layers
from pytest_llmparity.core.evidence import EngineEvidence, Evidence, Needs
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.right.expected import kept, why_wrong
from pytest_llmparity.core.right.extract import QUICK, SLOW, Extract, Patience, extracted, wanted
from pytest_llmparity.core.sample import Completion, Phase
from pytest_llmparity.core.stats.paired import Side
from pytest_llmparity.core.verdict import Difference, Outcome, Verdict
from pytest_llmparity.core.words import explain

RATE: Final = "answers.rate"
GAP: Final = "answers.gap"
FLIPS: Final = "answers.flips"
REPEATS: Final = 2
"""Answers to each prompt that flips take: the second says how often an engine flips by itself."""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, held against what its case expects: ``wrong`` says why it is not right, empty where it is.

    ``answer`` is ``None`` of a failed request. ``unread`` says why nothing could be read where a value is expected.
    """

    wrong: str = ""
    answer: Completion | None = None
    unread: str = ""

    @property
    def right(self) -> bool:
        """Whether it is what was expected."""
        return not self.wrong

    @property
    def answered(self) -> bool:
        """Whether there is an answer."""
        return self.answer is not None

    @property
    def cut(self) -> bool:
        """Whether the token limit was reached before it said anything: what it would have said is not known."""
        return self.answer is not None and self.answer.cut and speechless(self.answer)

    @property
    def text(self) -> str:
        """The answer in words."""
        return "" if self.answer is None else in_words(self.answer)


Marks = Mapping[str, Mark]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersCheck(LimitedCheck):
    """Holds every answer against what its case says is right (``expect``), and engines against each other.

    Made by ``check.answers()``. ``extract`` says what of a text is the answer
    (:func:`~pytest_llmparity.core.right.extract.extracted`). Each limit that is set gives verdicts of its own kind:

    - ``answers.rate``: per engine, the share of right answers is at least ``rate`` (Clopper-Pearson).
    - ``answers.gap``: per candidate, the difference in that share on the same cases is at most ``gap`` (exact
      unconditional test); ``side="worse"`` counts only a worse candidate.
    - ``answers.flips``: per candidate, cases that are right on one engine and wrong on the other, less those that are
      right once and wrong once on the baseline alone, are at most ``flips`` (the same test, on the same cases). Two
      engines with equal rates may flip on every tenth case (Dutta et al. 2024, *Accuracy is Not All You Need*,
      arXiv 2407.09141). Each case is asked twice, of every engine, since all are asked alike; of the candidate the
      first answer counts.

    Marks are those of first answers. Cases an engine failed to answer are not right; in a pair, cases the baseline did
    not answer are left out. An answer that its token limit cut before it said anything counts neither way. Where
    ``extract`` finds nothing in any answer of a pair, nothing is settled. Of cases of one ``group`` one counts where
    there are groups enough, else all of them, as fewer. ``schemas`` holds the schema files that cases name, by name,
    once :meth:`resolve` has read them.
    """

    kind: ClassVar[str] = "answers"
    reads_last: ClassVar[bool] = True
    gaps: ClassVar[frozenset[str]] = frozenset({"gap", "flips"})
    extract: Extract | None = None
    rate: float | None = None
    gap: float | None = None
    flips: float | None = None
    side: Side = "either"
    schemas: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __str__(self) -> str:
        given = [] if self.extract is None else [f"extract={_named(self.extract)}"]
        given += [f"{limit}={value:g}" for limit, value in self.limits().items()]
        given += [f"side={self.side!r}"] if self.side != "either" else []
        given += [f'by="{self.by}"'] if self.by else []
        return f"answers({', '.join(given)})"

    def limits(self) -> dict[str, float]:
        """Return the limits that are set, by name."""
        given = {"rate": self.rate, "gap": self.gap, "flips": self.flips}
        return {limit: value for limit, value in given.items() if value is not None}

    def needs(self) -> Needs:
        """Return what to gather: the main phase, twice where flips are counted."""
        return Needs(repeats=1 if self.flips is None else REPEATS)

    def prompt_problem(self, prompts: PromptSet) -> str | None:
        """Return which cases say of no answer that it is right, or expect what ``extract`` finds no value in.

        ``None`` where there are none.
        """
        silent_cases = [case for case in prompts.cases if case.expect is None or not _says(case)]
        if silent_cases:
            first = silent_cases[0]
            return (
                f"{len(silent_cases)} of {explain.count(len(prompts.cases), 'prompt')} "
                f"{'does' if len(prompts.cases) == 1 else 'do'} not say what is right; the first is "
                f'{explain.plain(first.id, 40)}: give it expect = {{"answer": …}}, or '
                "contains, tool or schema"
            )
        for case in prompts.cases:
            answer = case.expect.answer if case.expect is not None else None
            if answer is not None and (right := wanted(answer, self.extract)).problem:
                return (
                    f"{explain.plain(case.id, 40)} expects {explain.quote(answer, 40)}, and "
                    f"extract={_named(self.extract)} finds {right.problem}"
                )
        return None

    def resolve(self, prompts: PromptSet, read: Callable[[str], str]) -> AnswersCheck:
        """Return the check with the schemas that cases expect read; ``read`` turns a path into text.

        Raises ``DesignError`` for one that cannot be used.
        """
        schemas = files_of(prompts, read)
        return dataclasses.replace(self, schemas=schemas) if schemas else self

    def verdicts(self, evidence: Evidence) -> Iterable[Verdict]:
        """Return the verdicts of each limit that is set: ``rate`` per engine, ``gap`` and ``flips`` per candidate."""
        marking = _Marking(self.extract, self.schemas)
        marks = {name: marking.of(engine, evidence.prompts) for name, engine in evidence.engines.items()}
        again = marking.again(evidence.engines[evidence.baseline], evidence.prompts) if self.flips is not None else {}
        verdicts = self.by_limit(evidence, lambda limit, part: self._limit_verdicts(limit, marks, again, part))
        return [_too_slow(verdict, self.extract, marking.patience) for verdict in verdicts]

    def _limit_verdicts(
        self, limit: str, marks: Mapping[str, Marks], again: Marks, evidence: Evidence
    ) -> Iterable[Verdict]:
        """Return the verdicts of one limit, on the prompts of this evidence."""
        some = within(evidence, marks)
        if limit == "rate":
            return self.each_engine(
                evidence,
                RATE,
                lambda opened, engine: (
                    _silent(opened, engine, some[engine.name], evidence)
                    or self._rate(opened, evidence, engine, some[engine.name])
                ),
            )

        def judge(opened: Verdict, candidate: EngineEvidence, pairing: Pairing) -> Iterable[Verdict]:
            opened = dataclasses.replace(opened, differs=layers.layers(evidence, candidate))
            second = again if opened.kind == FLIPS else None
            pair = _Pair(pairing, some[evidence.baseline], some[candidate.name], second, evidence)
            return [self._flips(opened, pair) if opened.kind == FLIPS else self._gap(opened, pair)]

        return self.each_pairing(evidence, GAP if limit == "gap" else FLIPS, judge)

    def _rate(self, verdict: Verdict, evidence: Evidence, engine: EngineEvidence, marks: Marks) -> Verdict:
        assert self.rate is not None
        at_least = self.rate
        cases = evidence.prompts.cases
        asked = [case for case in cases if case.id in marks]
        marked = [case for case in asked if not marks[case.id].cut]
        right = [marks[case.id].right for case in marked]
        silence = Silence()
        for case in asked:
            if (answer := marks[case.id].answer) is not None and marks[case.id].cut:
                silence.add({engine.name: answer})
        verdict = dataclasses.replace(
            verdict,
            measures="of answers are right",
            requests=len(asked),
            details=(*_wrong(engine.name, marked, marks), *silence.limits()),
            differing=tuple(
                Difference(
                    case=case.id,
                    what=explain.plain(mark.wrong, 120),
                    candidate_sha256=digest(mark.text) if mark.answered else None,
                )
                for case in marked
                if not (mark := marks[case.id]).right
            ),
        )
        unasked = len(cases) - len(engine.left_out) - len(asked)
        stopped = evidence.incomplete or "" if unasked else ""
        reasons = tuple(silence.limits())
        missing = Missing(
            of=len(asked), used=len(right), reasons=reasons, stopped=stopped, sequential=evidence.sequential
        )
        return share_judged(
            verdict,
            evidence,
            right,
            at_least=at_least,
            cases=marked,
            about=asked,
            missing=missing,
            best=Best(asked, [marks[case.id].cut or marks[case.id].right for case in asked]),
        )

    def _gap(self, verdict: Verdict, pair: _Pair) -> Verdict:
        assert self.gap is not None
        evidence, cases = pair.evidence, pair.cases
        differences = [pair.ours[case.id].right - pair.theirs[case.id].right for case in cases]
        only = {evidence.baseline: differences.count(1), verdict.engine: differences.count(-1)}
        net = "" if evidence.single or not cases else ", net"
        verdict = dataclasses.replace(
            verdict,
            measures=f"of answers are right on one engine only{net}" if cases else "",
            requests=2 * len(cases),
            details=(
                "right on " + "; on ".join(f"{name} only: {n}" for name, n in only.items()),
                *_wrong(verdict.engine, cases, pair.theirs),
                *pair.missing.reasons,
            ),
            differing=pair.one_sided,
        )
        return pair.judged(verdict, differences, margin=self.gap, side=self.side, extract=self.extract)

    def _flips(self, verdict: Verdict, pair: _Pair) -> Verdict:
        assert self.flips is not None
        evidence, cases = pair.evidence, pair.cases
        across = [pair.ours[case.id].right != pair.theirs[case.id].right for case in cases]
        within = [pair.ours[case.id].right != pair.again[case.id].right for case in cases]
        differences = [a - b for a, b in zip(across, within, strict=True)]
        verdict = dataclasses.replace(
            verdict,
            measures=f"of answers flip, less what {evidence.baseline} flips by itself" if cases else "",
            requests=2 * REPEATS * len(cases),
            details=(
                f"{sum(across)} of {explain.count(len(cases), 'prompt')} flip between the engines, {sum(within)} when "
                f"{evidence.baseline} is asked again",
                *_wrong(verdict.engine, cases, pair.theirs),
                *pair.missing.reasons,
            ),
            differing=pair.one_sided,
        )
        return pair.judged(verdict, differences, margin=self.flips, side="worse", extract=self.extract)


class _Marking:
    """Holds answers against what cases expect; a schema is read once however many cases name it."""

    def __init__(self, extract: Extract | None, schemas: Mapping[str, str]) -> None:
        self.patience = Patience()
        self._extract = extract
        self._contracts = Contracts(files=schemas)

    def of(self, engine: EngineEvidence, prompts: PromptSet) -> dict[str, Mark]:
        """Return the mark of each case's first answer; where it failed it is wrong, whatever came after it."""
        marks: dict[str, Mark] = {}
        for case, samples in engine.samples.get(Phase.MAIN, {}).items():
            for sample in samples[:1]:
                if sample.completion is not None:
                    marks[case] = self._mark(prompts.by_id[case], sample.completion)
                elif sample.failure is not None:
                    marks[case] = Mark(wrong=f"no answer: {describe(engine.name, case, sample.failure)}")
        return marks

    def again(self, engine: EngineEvidence, prompts: PromptSet) -> dict[str, Mark]:
        """Return the mark of each case's second answer, where there is one."""
        marks: dict[str, Mark] = {}
        for case, samples in engine.samples.get(Phase.MAIN, {}).items():
            for sample in samples[1:2]:
                if sample.completion is not None:
                    marks[case] = self._mark(prompts.by_id[case], sample.completion)
        return marks

    def _mark(self, case: Case, answer: Completion) -> Mark:
        asked = case.expect is not None and case.expect.schema is not None
        contract = self._contracts.of(case) if asked else None
        fits = None if contract is None else lambda completion: contract.hold(completion).problem
        expect = kept(case.expect)
        given = extracted(answer.text, self._extract, patience=self.patience) if "answer" in expect else None
        wrong = why_wrong(expect, answer, extract=self._extract, fits=fits, given=given)
        return Mark(wrong=wrong, answer=answer, unread="" if given is None else given.problem)


class _Pair:
    """The marks of a pair of engines: ``ours`` and ``again`` are the baseline's, the latter of its second answers.

    ``cases`` are those that the baseline answered and the candidate was asked, without answers that say nothing about
    each other; with ``again`` only those it answered twice. ``missing`` is what a verdict on them does not rest on.
    """

    def __init__(self, pairing: Pairing, ours: Marks, theirs: Marks, again: Marks | None, evidence: Evidence) -> None:
        self.ours, self.theirs, self.again = ours, theirs, again or {}
        self.evidence = evidence
        self.cases: list[Case] = []
        self._pairing = pairing
        silence, once, failed = Silence(), 0, 0
        lost = {case.id for case in pairing.lost}
        for case in pairing.cases:
            if case.id not in ours or case.id not in theirs:
                continue
            mine, other = ours[case.id].answer, theirs[case.id].answer
            second = self.again[case.id].answer if case.id in self.again else None
            if mine is None:
                failed += case.id not in lost
            elif ours[case.id].cut if other is None else no_evidence(mine, other):
                silence.add({evidence.baseline: mine} | ({} if other is None else {pairing.candidate: other}))
            elif again is not None and second is None:
                once += 1
            elif second is not None and self.again[case.id].cut:
                silence.add({evidence.baseline: second})
            else:
                self.cases.append(case)
        also = silence.reasons()
        if failed:
            also.append(f"the first answer of {evidence.baseline} to {explain.count(failed, 'prompt')} failed")
        if once:
            also.append(f"{explain.count(once, 'prompt')} answered only once by {evidence.baseline}")
        self.missing = pairing.missing(evidence, used=len(self.cases), also=also)

    @property
    def one_sided(self) -> tuple[Difference, ...]:
        """The cases that are right on one engine only, as reports list them."""
        return tuple(
            Difference(
                case=case.id,
                what=f"{right_only_on(self.evidence.baseline if ours.right else self._pairing.candidate)}: "
                f"{explain.plain(theirs.wrong or ours.wrong, 100)}",
                baseline_sha256=digest(ours.text),
                candidate_sha256=digest(theirs.text) if theirs.answered else None,
            )
            for case in self.cases
            if (ours := self.ours[case.id]).right != (theirs := self.theirs[case.id]).right
        )

    def unread(self, extract: Extract | None) -> str:
        """Say that what says what the answer is found it in none of either engine, empty where it did in one."""
        every = [
            mark
            for case in self.cases
            if extract is not None and case.expect is not None and case.expect.answer is not None
            for mark in (self.ours[case.id], self.theirs[case.id])
            if mark.answered
        ]
        if not every or any(not mark.unread for mark in every):
            return ""
        return (
            f"extract={_named(extract)} found nothing in any of {explain.count(len(every), 'answer')}, so none was "
            f"compared; first: {explain.plain(every[0].unread, 100)}"
        )

    def judged(
        self, verdict: Verdict, differences: Sequence[int], *, margin: float, side: Side, extract: Extract | None
    ) -> Verdict:
        """Return the verdict on a difference of shares over these cases."""
        pairing, evidence, cases = self._pairing, self.evidence, self.cases
        if why := self.unread(extract):
            return dataclasses.replace(
                verdict, outcome=Outcome.INCONCLUSIVE, n=len(cases), reason=why, open=evidence.sequential
            )
        done = gap_judged(
            verdict,
            evidence,
            differences,
            margin=margin,
            side=side,
            cases=cases,
            rest=besides(pairing.cases, cases),
            about=pairing.cases,
            missing=self.missing,
        )
        return gap_shown(
            done,
            sum(self.ours[case.id].right or self.theirs[case.id].right for case in cases),
            len(cases),
            margin=margin,
            predicate="answers are right on either engine",
            nothing="no answer of either engine is right, so how many turn is not shown",
        )


def right_only_on(engine: str) -> str:
    """Return how the line of a case begins that one of two engines alone answered rightly."""
    return f"right on {engine} only"


def _named(extract: Extract | None) -> str:
    """Return what extracts as its user wrote it, the same in every run: no address of an object in it."""
    if extract is None or isinstance(extract, str):
        return repr(extract)
    name = name_of(getattr(extract, "__qualname__", None) or type(extract))
    code = getattr(extract, "__code__", None)
    if code is None or not name.endswith("<lambda>"):
        return name
    return f"<lambda> at {PurePath(code.co_filename).name}:{code.co_firstlineno}"  # all of a module have one name


def _too_slow(verdict: Verdict, extract: Extract | None, patience: Patience) -> Verdict:
    """Return the ERROR of a check whose regular expression was given up, which read some answers and others not."""
    if not patience.unread or verdict.outcome not in JUDGED:
        return verdict
    reason = (
        f"extract={_named(extract)} takes more than {QUICK} s on each of {SLOW} answers, so the "
        f"{explain.count(patience.unread, 'answer')} behind them were not read: write it without repetitions of "
        "repetitions"
    )
    return dataclasses.replace(verdict, outcome=Outcome.ERROR, reason=reason, p_pass=None, p_fail=None, open=False)


def _silent(verdict: Verdict, engine: EngineEvidence, marks: Marks, evidence: Evidence) -> Verdict | None:
    """Return the verdict when an engine answered nothing at all, or nothing before it was asked again."""
    refused = silent(verdict, engine, marks, evidence)
    if refused is None or not marks or engine.failures():
        return refused
    reason = f"no first answer at all; first: {next(iter(marks.values())).wrong}"
    return dataclasses.replace(verdict, outcome=Outcome.ERROR, reason=reason)


def _says(case: Case) -> bool:
    assert case.expect is not None
    return bool(kept(case.expect)) or case.expect.schema is not None


def _wrong(engine: str, cases: Sequence[Case], marks: Marks) -> list[str]:
    """Count the answers of an engine that are not right, and show the first."""
    bad = [(case.id, marks[case.id]) for case in cases if not marks[case.id].right]
    if not bad:
        return []
    case, mark = bad[0]
    lines = [
        f"{len(bad)} of {explain.count(len(cases), 'answer')} of {engine} {'is' if len(bad) == 1 else 'are'} not "
        f"right; first: "
        f"{explain.plain(case, 40)}: {explain.plain(mark.wrong, 120)}"
    ]
    return [*lines, f"  it answered {explain.quote(mark.text)}"] if mark.text else lines
