"""What one run gathered, judged: which answers a check reads, looks counted, verdicts settled as one family."""

from __future__ import annotations

import dataclasses
import operator
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec

from pytest_llmparity.core.checks.base import LOST, asked_for, left_out, worded
from pytest_llmparity.core.checks.family import settle, with_notes, without_left_out
from pytest_llmparity.core.collecting import seldom_collected
from pytest_llmparity.core.errors import NotAsked
from pytest_llmparity.core.evidence import Check, EngineEvidence, Evidence
from pytest_llmparity.core.identity.agreed import Agreed
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.ports import Embedder
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.prompts.arms import as_declared
from pytest_llmparity.core.prompts.portion import ALL, Portion
from pytest_llmparity.core.sample import Phase, Sample
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain
from pytest_llmparity.run.course import Course
from pytest_llmparity.run.judge import golden
from pytest_llmparity.run.judge.questions import completed, question_of
from pytest_llmparity.run.ledger import RunState
from pytest_llmparity.run.parity import EngineRows, Row
from pytest_llmparity.run.plan import Declaration, Unit, unit_of, wires_name
from pytest_llmparity.run.timed.phase import timed_of
from pytest_llmparity.settings.specification import Settings
from pytest_llmparity.store.database import readable
from pytest_llmparity.store.runs import Store

BySort: TypeAlias = Mapping[Phase, Mapping[str, Sequence[Sample]]]
"""Samples of one engine by phase and case."""
Pair: TypeAlias = tuple[str, str | None]
"""The engine a verdict is about and the baseline it is held against, if any."""
ALPHA = 0.05
"""Error rate of every one-sided bound before it is divided for repeated looks."""
AGREED = "agreed"
"""Name of a run's document that has what the lock said of drift."""
MOST_LOOKS = 1000
"""More looks than anybody has; the bounds of a thousand are at no error rate that a number can hold."""
LOOKED = "looked/"
"""How the names begin of a run's documents that say how many looks a question had before this run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """How many looks each question had before this run, by what was looked ``at``: the document's form."""

    at: str
    earlier: Mapping[str, Annotated[int, msgspec.Meta(ge=0, le=MOST_LOOKS)]]


@dataclass(frozen=True, kw_only=True)
class Judging:
    """Judges the tests of one run by what the store held when this was made.

    ``records`` and ``samples`` are of the engines that count, ``incomplete`` says why something is missing, ``only``
    are the case ids the run was restricted to, ``root`` is the project's folder, left out of the places of checks. With
    ``required`` a check that an engine lacks a capability for is an error instead of skipped. ``courses`` says of every
    unit of a sequential run, by its key, in which order it was asked and how far. ``agreed`` is what the lock said of
    drift when the run was gathered, ``portion`` to which of the prompts it kept.
    """

    store: Store
    run: str
    root: Path
    baseline: str
    records: Mapping[str, EngineRecord]
    samples: Mapping[str, Sequence[Sample]]
    incomplete: str | None
    embedder: Callable[[], Embedder | None]
    only: Sequence[str] = ()
    required: bool = False
    courses: Mapping[str, Course] = field(default_factory=dict)
    agreed: Agreed = field(default_factory=Agreed)
    portion: Portion = ALL
    _wires: dict[tuple[str, str], Mapping[str, str]] = field(default_factory=dict, init=False, repr=False)
    _paid: dict[tuple[str, str], Mapping[Pair, int]] = field(default_factory=dict, init=False, repr=False)
    _selected: dict[str, dict[str, BySort]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    @seldom_collected()
    def of(
        cls,
        store: Store,
        run: str,
        state: RunState,
        *,
        settings: Settings,
        root: Path,
        embedder: Callable[[], Embedder | None],
    ) -> Judging:
        """Return the judging of what a run holds; ``state`` is what its gathering wrote down so far.

        With engines selected only they count, in their order; without, all the run has.
        """
        records = dict(state.engines)
        if settings.engines:
            records = {spec.name: records[spec.name] for spec in settings.engines if spec.name in records}
        baseline = settings.baseline or state.baseline or next(iter(records), "")
        return cls(
            store=store,
            run=run,
            root=root,
            baseline=baseline,
            records={name: dataclasses.replace(e, baseline=name == baseline) for name, e in records.items()},
            samples={name: store.get(run, name) for name in records},
            incomplete=state.incomplete,
            embedder=embedder,
            only=settings.cases,
            required=settings.required,
            courses=courses(store, run),
            agreed=store.document(run, AGREED, Agreed) or Agreed(),
            portion=state.portion,
        )

    @seldom_collected()
    def judge(self, declaration: Declaration, check: Check) -> list[Verdict]:
        """Return the verdicts of one check of a test, as the check alone sees them."""
        alone = len(self.records) < 2
        if check.pairwise and alone:
            name = next(iter(self.records), "")
            return [self._asked_for(_alone(declaration, check, name))]
        looks = self._looks(declaration, check)
        # Mostly all were looked at as often; where they were not, each verdict is taken from the judging at its own.
        judged = {count: self._judged(declaration, check, looks=count) for count in sorted(set(looks.values()))}
        verdicts = next(iter(judged.values()), [])  # of a run that holds no engine there are none
        return [judged[looks[v.engine, v.baseline]][place] for place, v in enumerate(verdicts)]

    def _judged(self, declaration: Declaration, check: Check, *, looks: int) -> list[Verdict]:
        """Return the verdicts of a check that was looked at so often before with fewer prompts and left open."""
        alone = len(self.records) < 2
        evidence = self.evidence(declaration, check, alpha=ALPHA / 2**looks)
        verdicts = [without_left_out(verdict, evidence, required=self.required) for verdict in check.judge(evidence)]
        verdicts = [with_notes(self._asked_for(verdict) if alone else verdict, evidence) for verdict in verdicts]
        part = self.portion.in_words(as_declared(declaration.prompts))
        remarks = (f"{part} ({self.portion})",) if part else ()
        return [
            dataclasses.replace(v, where=self._relative(v.where), looks=looks, remarks=(*remarks, *v.remarks))
            for v in verdicts
        ]

    def _asked_for(self, verdict: Verdict) -> Verdict:
        """Return the verdict of one engine, an ERROR where its check was skipped for want of another one to compare."""
        if not self.required or verdict.outcome is not Outcome.SKIPPED:
            return verdict
        reason = f"{verdict.reason or verdict.message}, and --parity-required asks for a verdict"
        return worded(dataclasses.replace(verdict, outcome=Outcome.ERROR, reason=reason))

    def settle(self, declaration: Declaration, further: Sequence[Verdict] = ()) -> list[Verdict]:
        """Return the verdicts of a test's declared checks and ``further`` ones of its body, settled as one family."""
        verdicts = [verdict for check in declaration.checks for verdict in self.judge(declaration, check)]
        outdated = golden.outdated(declaration, self.records.values(), self._unit(declaration).key)
        return settle([*verdicts, *further, *outdated], ALPHA)

    def remember(self, declaration: Declaration, settled: Sequence[Verdict]) -> None:
        """Count this as a look at every question it answered or left open."""
        course = self.courses.get(self._unit(declaration).key)
        for (check, pair), outcome in _looked(settled).items():
            (about, _), continued = self._series(declaration, check), course is not None and course.continued
            at = _looked_at(declaration, course)
            known, question = self._question(*pair, about=about, at=at, continued=continued)
            if known != question:  # an engine tells more of itself now
                self.store.same_question(*about, known, question)
            self.store.look(*about, question, at, outcome, continued=continued)

    def rows(self, declaration: Declaration) -> Mapping[str, EngineRows]:
        """Return the answers of a test's main phase by engine and case; what is missing says why."""
        unit = self._unit(declaration)
        rows: dict[str, EngineRows] = {}
        for name, engine in self.records.items():
            chosen = self._samples_of(name, unit).get(Phase.MAIN, {})
            lacks, refused = engine.left_out.get(unit.key), engine.refused.get(unit.key)
            skipped = f"not asked, every check is skipped: {lacks}" if lacks else refused and f"not asked: {refused}"
            lonely = engine.lonely.get(unit.key)
            skipped = skipped or (lonely and f"not asked: {lonely}")
            why = engine.error or engine.incomparable or skipped or self._unasked(unit) or "it was not gathered"
            apart = {case: f"not asked: {reason}" for case, reason in engine.unasked.get(unit.key, {}).items()}
            rows[name] = EngineRows(
                name,
                {
                    case.id: Row(name, case.id, chosen.get(case.id, ()), missing=apart.get(case.id, why))
                    for case in unit.prompts.cases
                },
                unselected={
                    **{case.id: str(self.portion) for case in declaration.prompts.rest},
                    **dict.fromkeys(declaration.prompts.by_id.keys() - unit.prompts.by_id.keys(), "--parity-case"),
                },
            )
        return rows

    def _unasked(self, unit: Unit) -> str | None:
        """Say why cases of a unit were not asked, ``None`` where a hard stop or a sequential test is not the reason."""
        course = self.courses.get(unit.key)
        if course is None or course.cut or not course.asked:
            return self.incomplete
        return f"not asked, the sequential test had settled after {max(course.asked.values())} prompts"

    def _unit(self, declaration: Declaration) -> Unit:
        """Return the unit a declaration's samples were gathered as; its prompts are the selected ones."""
        return unit_of(declaration, only=self.only)

    def evidence(self, declaration: Declaration, check: Check, *, alpha: float = ALPHA) -> Evidence:
        """Return the evidence that one check of a test judges; with a course the cases stand in its order."""
        unit, prompts = self._unit(declaration), asked_for(check, declaration.prompts)
        course = self.courses.get(unit.key)
        names = [self.baseline, *(name for name in self.records if name != self.baseline)]
        return Evidence(
            test=declaration.test,
            prompts=prompts if course is None else self._in_order(prompts, course),
            sampling=declaration.sampling,
            concurrency=declaration.concurrency,
            baseline=self.baseline,
            engines={name: self._of_engine(name, unit, prompts, check) for name in names if name in self.records},
            alpha=alpha,
            incomplete=self.incomplete if course is None or course.cut or not course.asked else None,
            embedder=self.embedder(),
            sequential=course is not None,
            agreed=self.agreed,
        )

    def _in_order(self, prompts: PromptSet, course: Course) -> PromptSet:
        with readable(self.run, "the order of its prompts"):
            return in_order(prompts, course)

    def _of_engine(self, name: str, unit: Unit, prompts: PromptSet, check: Check) -> EngineEvidence:
        """Return the evidence that one check judges of one engine: its answers to exactly the requests of the unit.

        A capability the check needs and the engine lacks keeps a case from being judged there, also where the engine's
        route has no word for it; where that is every case and something must be judged, it is an error.
        """
        record, total = self.records[name], len(prompts.cases)
        lacks = left_out(name, check, prompts, can=record.capabilities, declares=record.declares)
        unasked = record.unasked.get(unit.key, {})
        apart = {**{case: why for case, why in unasked.items() if case in prompts.by_id}, **lacks}
        nothing_left = next(iter(apart.values()), None) if len(apart) == total else None
        lacking = record.left_out.get(unit.key, nothing_left)
        gathered = self._samples_of(name, unit)
        if total < len(unit.prompts.cases):  # the check reads one arm of them
            gathered = {
                phase: {case: samples for case, samples in by_case.items() if case in prompts.by_id}
                for phase, by_case in gathered.items()
            }
        answers = judged_samples(gathered, apart, self._asked_in_waves(name, unit))
        answers, unsent = never_asked(answers, total)
        lacking = lacking or golden.lacking(record, check, unit.key)
        must = f"{lacking}, and --parity-required asks for a verdict" if lacking and self.required else None
        must = must or (golden.unrecorded(record, unit.key) if self.required else None)
        return EngineEvidence(
            name=name,
            kind=record.kind,
            identity=record.identity,
            quantization=record.quantization,
            samples=answers,
            incomparable=record.incomparable or (None if lacking else record.refused.get(unit.key)),
            error=record.error or unsent or must,
            untimed=timed_of(self.store, self.run, name, unit).error,
            lacking=lacking,
            left_out=apart,
            capabilities=record.capabilities,
            declares=record.declares,
            route=record.route_check.sentence(name) if record.route_check else "",
            golden=record.golden,
            recording=record.recording,
        )

    def _asked_in_waves(self, name: str, unit: Unit) -> Sequence[str] | None:
        """Return the cases of an engine's whole waves in the order of a sequential run, ``None`` of a fixed design."""
        course = self.courses.get(unit.key)
        if course is None:
            return None
        asked = course.asked.get(name, 0)
        if self.records[name].golden is not None:  # it has all answers: those count that the others were asked
            asked = max(course.asked.values(), default=0)
        return course.ids[:asked]

    def _looks(self, declaration: Declaration, check: Check) -> Mapping[Pair, int]:
        """How often every question was looked at with fewer prompts and left open (docs/verdicts.md, Looking again).

        Asked once: a test that is run again in this process looks at the same answers.
        """
        asked = (declaration.test, str(check))
        if asked not in self._paid:
            self._paid[asked] = self._looked_before(declaration, check)
        return self._paid[asked]

    def _looked_before(self, declaration: Declaration, check: Check) -> Mapping[Pair, int]:
        """Return how many looks there were when this run was first judged with these prompts, whatever came later."""
        course = self.courses.get(self._unit(declaration).key)
        at, name = _looked_at(declaration, course), f"{LOOKED}{declaration.test}\n{check}"
        pairs: list[Pair] = [(engine, None) for engine in self.records]
        pairs += [(engine, self.baseline) for engine in self.records if engine != self.baseline]
        kept = self.store.document(self.run, name, _Looked)
        earlier = dict(kept.earlier) if kept is not None and kept.at == at else {}
        asked = {pair: question_of(self._engines(*pair)) for pair in pairs}
        unknown = {question: pair for pair, question in asked.items() if question not in earlier}
        if unknown:
            continued = course is not None and course.continued
            own, other = self._series(declaration, str(check))
            for question, pair in unknown.items():
                known, _ = self._question(*pair, about=own, at=at, continued=continued)
                earlier[question] = self.store.looks(*own, known, at, continued=continued)
                known, _ = self._question(*pair, about=other, at=at, continued=False)
                earlier[question] += self.store.looks(*other, known, at)
            self.store.put_document(self.run, name, {"at": at, "earlier": earlier})
        return {pair: earlier[question] for pair, question in asked.items()}

    def _series(self, declaration: Declaration, check: str) -> tuple[tuple[str, str], tuple[str, str]]:
        """Return under which test and check looks at these prompts are counted, and under which those they pay for too.

        A sample and the whole are looked at in turn, so each counts its own, or the same prompts would be another look
        every day; what one left open is one more look for the other. Prompts with a tag are another question.
        """
        tags = f" of {' or '.join(self.portion.tags)}" if declaration.prompts.rest and self.portion.tags else ""
        whole, sampled = (declaration.test, f"{check}{tags}"), (declaration.test, f"{check}{tags} (sample)")
        is_sample = any(map(self.portion.has, declaration.prompts.rest))
        return (sampled, whole) if is_sample else (whole, sampled)

    def _engines(self, engine: str, baseline: str | None) -> list[EngineRecord]:
        return [self.records[name] for name in (baseline, engine) if name is not None]

    def _question(
        self, engine: str, baseline: str | None, *, about: tuple[str, str], at: str, continued: bool
    ) -> tuple[str, str]:
        """Return what a verdict of this pair is about, by its earlier name and by that of now.

        Which engines they are counts, not only what they are called.
        """
        return completed(
            question_of(self._engines(engine, baseline)),
            self.store.questions(*about),
            lambda text: self.store.looks(*about, text, at, continued=continued),
        )

    def _samples_of(self, name: str, unit: Unit) -> BySort:
        """Return an engine's samples of a unit; all checks of a test read them, so the last unit's are remembered."""
        key = unit.key
        if key not in self._selected:
            self._selected.clear()
            self._selected[key] = {}
        if name not in self._selected[key]:
            places = timed_of(self.store, self.run, name, unit).places
            ours = [s for s in self.samples.get(name, ()) if s.phase is not Phase.TIMED or s.repeat in places]
            self._selected[key][name] = select(ours, self._wire(name, unit), concurrency=unit.concurrency)
        return self._selected[key][name]

    def _wire(self, name: str, unit: Unit) -> Mapping[str, str]:
        """Return the sha256 of the requests whose samples belong to this unit, by case."""
        key = (name, unit.key)
        if key not in self._wires:
            self._wires[key] = self.store.document(self.run, wires_name(name, unit.key), dict[str, str]) or {}
        return self._wires[key]

    def _relative(self, where: str) -> str:
        """Return ``file:line`` without this machine's folders."""
        path, _, line = where.rpartition(":")
        return f"{os.path.relpath(path, self.root)}:{line}" if path else where


def courses(store: Store, run: str) -> dict[str, Course]:
    """Return the courses of a sequential run's units by their keys; a run of a fixed design has none."""
    return store.kept_documents(run, Course)


def _looked_at(declaration: Declaration, course: Course | None) -> str:
    """Return what is looked at; sequentially the same prompts are another design, and another look."""
    digest = declaration.prompts.digest
    return digest if course is None else f"sequential/{digest}"


def _looked(verdicts: Sequence[Verdict]) -> dict[tuple[str, Pair], Outcome]:
    """Return one outcome per check and engine or pair: a check with several limits is open while one of them is."""
    outcomes: dict[tuple[str, Pair], Outcome] = {}
    for verdict in verdicts:
        if verdict.outcome in (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE):
            pair = (verdict.engine, verdict.baseline)
            if outcomes.get((verdict.check, pair)) is not Outcome.INCONCLUSIVE:
                outcomes[verdict.check, pair] = verdict.outcome
    return outcomes


def _alone(declaration: Declaration, check: Check, engine: str) -> Verdict:
    """Return the verdict of a check that compares engines where there is one."""
    return Verdict(
        test=declaration.test,
        check=str(check),
        kind=check.kind,
        engine=engine,
        baseline=None,
        outcome=Outcome.SKIPPED,
        message=f"{check.kind} compares engines and only {engine} is selected",
        reason=f"it compares engines and only {engine} is selected",
        where=check.where,
    )


# samples become evidence ---------------------------------------------------------------------------------------------


def judged_samples(by_phase: BySort, apart: Collection[str], in_waves: Sequence[str] | None) -> BySort:
    """Return the samples that a check may read: those of all cases but the ones that are set apart.

    Of a sequential run they are in the main phase those of the cases ``in_waves``, in this order.
    """
    kept = by_phase
    if apart:
        kept = {
            phase: {case: samples for case, samples in by_case.items() if case not in apart}
            for phase, by_case in by_phase.items()
        }
    if in_waves is None:
        return kept
    main = kept.get(Phase.MAIN, {})
    return {**kept, Phase.MAIN: {case: main[case] for case in in_waves if case in main}}


def never_asked(chosen: BySort, cases: int) -> tuple[BySort, str | None]:
    """Take prompts that were never sent out of what is judged; say so where they are too many to judge the rest."""
    main = chosen.get(Phase.MAIN, {})
    unsent = {
        case: failure
        for case, samples in main.items()
        if (failure := samples[0].failure) is not None and failure.kind == NotAsked.__name__
    }
    first = next(iter(unsent.values()), None)
    if first is None:
        return chosen, None
    sent = {**chosen, Phase.MAIN: {case: samples for case, samples in main.items() if case not in unsent}}
    if len(unsent) <= LOST * cases:
        return sent, None
    why = first.message.removeprefix("not asked: ")
    return sent, f"{len(unsent)} of {explain.count(cases, 'prompt')} were not asked: {why}"


def in_order(prompts: PromptSet, course: Course) -> PromptSet:
    """Return the set with its cases in the order they are asked."""
    return dataclasses.replace(prompts, cases=tuple(prompts.by_id[id] for id in course.ids if id in prompts.by_id))


def select(
    samples: Iterable[Sample], wires: Mapping[str, str], *, concurrency: int
) -> dict[Phase, dict[str, list[Sample]]]:
    """Return by phase and case the samples that answer exactly these requests at this concurrency.

    ``wires`` maps case ids to the sha256 of the request's body.
    """
    by_phase: dict[Phase, dict[str, list[Sample]]] = {}
    for sample in sorted(samples, key=operator.attrgetter("repeat")):
        if wires.get(sample.case) != sample.request_sha256:
            continue
        if sample.concurrency != concurrency:
            continue
        by_case = by_phase.setdefault(sample.phase, {})
        if sample.case in by_case:
            by_case[sample.case].append(sample)
        else:
            by_case[sample.case] = [sample]
    return by_phase
