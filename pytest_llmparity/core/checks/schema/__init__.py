"""Answers that must fit a JSON Schema: how many do, whether both engines do alike, and whether their values agree."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

from pytest_llmparity.core.checks.limits import LimitedCheck, within
from pytest_llmparity.core.checks.missing import Missing, Silence, gap_shown, rare, there
from pytest_llmparity.core.checks.schema.arms import (
    ALL,
    ARMS,
    CONSTRAINT,
    FORCED,
    FREE_ARM,
    Arm,
    Arms,
    unequal,
    without_answers,
)
from pytest_llmparity.core.checks.schema.contract import (
    Adapter,
    Contract,
    ModelClass,
    Reading,
    forgiven,
    invalid,
    silent,
    wrong,
)
from pytest_llmparity.core.checks.schema.contracts import Contracts, files_of, schemaless
from pytest_llmparity.core.checks.schema.pair import PairReadings
from pytest_llmparity.core.checks.shares import Best, besides, gap_judged, share_judged
from pytest_llmparity.core.checks.tags import beside, left_to_all
from pytest_llmparity.core.compare.answers import speechless
from pytest_llmparity.core.compare.fields import EVERYTHING, Fields
from pytest_llmparity.core.compare.order import KeyOrders
from pytest_llmparity.core.diagnosis import layers
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import EngineEvidence, Evidence, Needs, Tokens
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.prompts.arms import in_both, of_arm
from pytest_llmparity.core.stats.paired import Side
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain

RATE: Final = "schema.rate"
GAP: Final = "schema.gap"
AGREE: Final = "schema.agree"
_SHOWN_FIELDS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaCheck(LimitedCheck):
    """Validates every answer against one JSON Schema, or its prompt's own, and compares values between engines.

    Made by ``check.schema()``. ``name`` is how the user wrote the target, ``text`` the schema as JSON text (``None``
    until :meth:`resolve` has read ``path``). Without a ``name`` each prompt's ``expect.schema`` counts, ``files`` has
    the texts of those that are paths. Each limit that is set gives verdicts of its own kind:

    - ``schema.rate``: per engine, the share of answers that fit is at least ``rate`` (Clopper-Pearson).
    - ``schema.gap``: per candidate, the difference in that share on the same cases is at most ``gap`` (exact
      unconditional test). ``side="either"`` counts both directions, ``"worse"`` only a worse candidate.
    - ``schema.agree``: per candidate, the share of cases whose parsed values are equal (order of keys aside) is at
      least ``agree``. An answer that is not JSON equals nothing. ``fields`` says what of the values is compared.
    - ``schema.arms``: per engine, the share of answers that are right in the free arm and wrong in the constrained one,
      less the reverse, is at most ``arms`` (the same test as a gap's). Every prompt is then asked in both arms
      (``core.prompts.arms``); the other limits hold for each of them, ``schema.free.rate`` for the free one, and
      ``schema.constraint`` says per engine what became of the constraint (:mod:`core.checks.schema.arms`).

    With a ``model`` an answer fits when pydantic validates it in strict JSON mode. An answer that ``json.loads``
    refuses fits nothing and equals nothing, unless ``lenient`` reads what stands in a code block, behind reasoning or
    between words; either way such answers are counted by engine.

    Of cases of one ``group`` one counts where there are groups enough to settle a limit by these alone, and always in
    a sequential run; else all of them count, as fewer (``Judgement.effective``). Cases the engine failed to answer do
    not fit; in a pair, cases the baseline did not answer are left out. ``by="tag"`` adds, for each limit, a verdict on
    the prompts of each tag that has enough of them to keep it.
    """

    kind: ClassVar[str] = "schema"
    reads_last: ClassVar[bool] = True
    gaps: ClassVar[frozenset[str]] = frozenset({"gap", "arms"})
    name: str = ""
    text: str | None = None
    path: str | None = None
    rate: float | None = None
    gap: float | None = None
    agree: float | None = None
    arms: float | None = None
    side: Side = "either"
    lenient: bool = False
    fields: Fields = EVERYTHING
    model: ModelClass | Adapter | None = field(default=None, repr=False)
    files: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __str__(self) -> str:
        limits = [f"{limit}={value:g}" for limit, value in self.limits().items()]
        if self.side != "either":
            limits.append(f"side={self.side!r}")
        if self.lenient:
            limits.append("lenient=True")
        if self.fields.read:
            limits.append(f"fields={list(self.fields.read)!r}")
        if self.fields.tolerance:
            limits.append(f"tolerance={dict(self.fields.tolerance)!r}")
        if self.fields.unordered:
            limits.append(f"unordered={list(self.fields.unordered)!r}")
        if self.by:
            limits.append(f'by="{self.by}"')
        return f"schema({', '.join([*([self.name] if self.name else []), *limits])})"

    @property
    def pairwise(self) -> bool:
        """True when only limits between engines are set."""
        return not {"rate", "arms"} & self.limits().keys()

    def resolve(
        self, read: Callable[[str], str], *, within: Sequence[Path] = (), prompts: PromptSet | None = None
    ) -> SchemaCheck:
        """Return the check with its schemas read: ``read`` turns a path into text; others come back unchanged.

        An absolute path is named from the first folder of ``within`` it lies in, else by the file alone: the name goes
        into reports and is the key of earlier looks, which must be the same on every machine.

        Raises ``DesignError`` when the text is not JSON or not a schema, or refers to another document.
        """
        if not self.name:
            return self if prompts is None else dataclasses.replace(self, files=files_of(prompts, read))
        if self.path is None or self.text is not None:
            return self
        named = dataclasses.replace(self, name=repr(_portable(Path(self.path), within)))
        return named.with_schema(read(self.path))

    def with_schema(self, text: str) -> SchemaCheck:
        """Return the check with this schema; ``DesignError`` when it cannot be used."""
        Contract.from_text(text, self.name)
        return dataclasses.replace(self, text=text)

    def needs(self) -> Needs:
        """Return what to gather: the main phase; where a case asks for a schema, an engine that enforces it."""
        return Needs(capabilities=frozenset({"json_schema"}), arms=self.arms is not None)

    def prompt_problem(self, prompts: PromptSet) -> str | None:
        """Return which prompts lack a schema of their own or expect what no schema allows, ``None`` where none does."""
        problem = None if self.name else schemaless(prompts)
        if problem is None and self.arms is not None:
            problem = unequal(prompts, self.contracts(), self.fields)
        return problem

    def power(self, *, cases: int, groups: int, sequential: bool = False, tokens: Tokens = ()) -> str:
        """Return one line for the plan: how many prompts each limit takes, and by which draft answers are judged."""
        line = super(SchemaCheck, self).power(cases=cases, groups=groups, sequential=sequential, tokens=tokens)
        whole = self.contracts().whole
        return line if whole is None else line.replace(f"{self}:", f"{self}, by {whole.dialect}:", 1)

    def in_both(self, prompts: PromptSet) -> PromptSet:
        """Return the prompts in both arms; ``DesignError`` where there is no schema that an engine could be sent."""
        contracts = self.contracts(sent=True)
        if self.model is not None and not contracts.schema:
            raise DesignError(f"{self}: arms= sends the schema to the engines, and pydantic has none for {self.name}")
        return in_both(prompts, lambda case: contracts.of(case).schema)

    def contracts(self, *, lenient: bool = False, sent: bool = False) -> Contracts:
        """Return the contracts of the answers; ``sent``: of the schema as engines are told it, without a model."""
        lenient = lenient or self.lenient
        if not self.name:
            return Contracts(files=self.files, lenient=lenient)
        if self.text is None:
            raise DesignError(f"{self}: the schema {self.path!r} was never read")
        model = None if sent else self.model
        return Contracts(Contract.from_text(self.text, self.name, model=model, lenient=lenient))

    def verdicts(self, evidence: Evidence) -> Iterable[Verdict]:
        """Return the verdicts of each limit that is set: ``rate`` per engine, ``gap`` and ``agree`` per candidate.

        Where both arms were asked these stand for each of them, and behind them what the arms say together.
        """
        limits = self.limits()
        allowed = limits.pop("arms", None)
        if allowed is None:
            yield from self._of_arm(evidence, limits, ALL)
            return
        if not any(case.arm for case in evidence.prompts.cases):
            raise DesignError(f"{self}: arms= asks every prompt twice, so it belongs into the parity marker")
        sent, loose = (self.contracts(sent=True, lenient=lenient) for lenient in (False, True))
        free = self.contracts(lenient=True)
        of_arms = Arms(evidence, held=self.contracts(), sent=sent, loose=loose, free=free, fields=self.fields)
        forced = dataclasses.replace(FORCED, refusing=of_arms.refusing)
        for arm in (forced, FREE_ARM):
            yield from self._of_arm(evidence.about(of_arm(evidence.prompts, arm.name)), limits, arm)
        for kind, judge in ((CONSTRAINT, of_arms.constraint), (ARMS, of_arms.difference)):
            for opened in self.each_engine(of_arms.constrained, kind, functools.partial(judge, margin=allowed)):
                yield dataclasses.replace(opened, arm=FORCED.name)

    def _of_arm(self, evidence: Evidence, limits: Mapping[str, float], arm: Arm) -> Iterable[Verdict]:
        """Return the verdicts of some limits on the answers of one arm."""
        contract = self.contracts()
        remarks = tuple(
            f"format {word!r} is known to no JSON Schema draft of this validator and was not checked"
            for word in contract.unknown_formats(evidence.prompts.cases)
        )
        orders = KeyOrders()
        readings = {name: contract.read(engine, evidence.prompts) for name, engine in evidence.engines.items()}
        lenience = {name: forgiven(name, read) for name, read in readings.items()}
        of_tags: list[Verdict] = []
        pairs: dict[str, _Compared] = {}
        for limit in limits:
            whole = list(self._limit_verdicts(limit, evidence, contract, readings, orders, arm, pairs))
            left: tuple[str, ...] = ()
            if self.by and not evidence.single:
                tags = self.tags(evidence.prompts, limit, evidence.sequential)
                left = left_to_all(tags, self.wanted(limit, evidence.sequential))
                judge = functools.partial(self._of_tag, limit, contract, readings, orders, arm)
                of_tags += beside(whole, evidence, tags.judged, judge)
            for opened in whole:
                verdict = dataclasses.replace(opened, arm=arm.name)
                if verdict.baseline is None and limit != "rate":  # a pair that is none: nothing was read for it
                    yield verdict
                    continue
                names = [name for name in (verdict.baseline, verdict.engine) if name is not None]
                parts = tuple(part for name in names for part in lenience[name])
                yield dataclasses.replace(verdict, lenience=parts, remarks=(*verdict.remarks, *remarks, *left))
        for verdict in of_tags:
            yield dataclasses.replace(verdict, arm=arm.name)

    def _of_tag(
        self,
        limit: str,
        contract: Contracts,
        readings: Mapping[str, Mapping[str, Reading]],
        orders: KeyOrders,
        arm: Arm,
        evidence: Evidence,
    ) -> Iterable[Verdict]:
        """Return the verdicts of one limit on some of the prompts, which have been read."""
        some = within(evidence, readings)
        return self._limit_verdicts(limit, evidence, contract, some, orders, arm)

    def _limit_verdicts(
        self,
        limit: str,
        evidence: Evidence,
        contract: Contracts,
        readings: Mapping[str, Mapping[str, Reading]],
        orders: KeyOrders,
        arm: Arm,
        pairs: dict[str, _Compared] | None = None,
    ) -> Iterable[Verdict]:
        """Return the verdicts of one limit; ``pairs`` keeps what another limit compares too, ``None`` on a tag."""
        if limit == "rate":
            yield from self.each_engine(
                evidence,
                arm.kind(RATE),
                lambda opened, engine: (
                    (None if engine.name in arm.refusing else silent(opened, engine, readings[engine.name], evidence))
                    or self._rate(opened, evidence, engine, readings[engine.name], contract, orders, arm)
                ),
            )
            return
        known: dict[str, _Compared] = {} if pairs is None else pairs

        def judge(opened: Verdict, candidate: EngineEvidence) -> Iterable[Verdict]:
            if candidate.name not in known:
                differs: tuple[str, ...] = ()
                if pairs is not None:
                    parsed = _parsed(readings)
                    differs = layers.layers(evidence, candidate, schema=contract.schema, parsed=parsed, orders=orders)
                known[candidate.name] = (PairReadings(evidence, candidate, readings, self.fields), differs)
            pair, differs = known[candidate.name]
            if (refused := pair.unanswered(opened)) is not None:
                return [without_answers(refused, evidence, candidate, arm)]
            opened = dataclasses.replace(opened, differs=differs)
            return [self._gap(opened, evidence, pair) if limit == "gap" else self._agree(opened, evidence, pair)]

        yield from self.each_pair(evidence, arm.kind(GAP if limit == "gap" else AGREE), judge)

    def _rate(
        self,
        verdict: Verdict,
        evidence: Evidence,
        engine: EngineEvidence,
        readings: Mapping[str, Reading],
        contract: Contracts,
        orders: KeyOrders,
        arm: Arm,
    ) -> Verdict:
        assert self.rate is not None
        cases = evidence.prompts.cases
        read = [case for case in cases if case.id in readings]
        kept = [readings[case.id].problem is None for case in read]
        values = [(readings[case.id].value, contract.of(case).schema) for case in read if readings[case.id].parsed]
        order = layers.order_line(engine.name, values, orders)
        silence = Silence()
        for answer in engine.answers().values():
            if speechless(answer):
                silence.add({engine.name: answer})
        verdict = dataclasses.replace(
            verdict,
            measures=f"of {arm.words}answers fit {'the' if self.name else 'their'} schema",
            requests=len(kept),
            differs=(*layers.enforcement(engine, cases), *([order] if order else [])),
            details=(*invalid(engine.name, cases, readings), *silence.limits()),
            differing=wrong(read, readings),
        )
        unasked = len(cases) - len(engine.left_out) - len(kept)
        missing = Missing(of=len(kept), used=len(kept), stopped=evidence.incomplete or "" if unasked else "")
        return share_judged(
            verdict,
            evidence,
            kept,
            at_least=self.rate,
            cases=read,
            about=read,
            missing=missing,
            otherwise=order,
        )

    def _gap(self, verdict: Verdict, evidence: Evidence, pair: PairReadings) -> Verdict:
        assert self.gap is not None
        margin, spoken = self.gap, pair.spoken
        differences = [(ours.problem is None) - (theirs.problem is None) for _, ours, theirs in spoken]
        only = {evidence.baseline: differences.count(1), verdict.engine: differences.count(-1)}
        missing = pair.missing(spoken)
        net = "" if evidence.single or not spoken else ", net"
        verdict = dataclasses.replace(
            verdict,
            measures=f"of answers fit on one engine only{net}" if spoken else "",
            requests=2 * len(spoken),
            details=(
                "fits on " + "; on ".join(f"{name} only: {n}" for name, n in only.items()),
                *invalid(verdict.engine, evidence.prompts.cases, {case.id: theirs for case, _, theirs in spoken}),
                *missing.reasons,
            ),
            differing=tuple(
                pair.difference(case, only_on(evidence.baseline if fits > 0 else verdict.engine))
                for (case, _, _), fits in zip(spoken, differences, strict=True)
                if fits
            ),
        )
        used = [case for case, _, _ in spoken]
        done = gap_judged(
            verdict,
            evidence,
            differences,
            margin=margin,
            side=self.side,
            cases=used,
            rest=besides(pair.cases, used),
            about=pair.cases,
            missing=missing,
        )
        return gap_shown(
            done,
            sum(ours.problem is None or theirs.problem is None for _, ours, theirs in spoken),
            len(spoken),
            margin=margin,
            predicate="answers fit on either engine",
            nothing="no answer of either engine fits, so how many more fit on one of them is not shown",
        )

    def _agree(self, verdict: Verdict, evidence: Evidence, pair: PairReadings) -> Verdict:
        assert self.agree is not None
        at_least, design, cases = self.agree, pair.design, pair.cases
        told = pair.told
        fields = {case.id: pair.differing(case, ours, theirs) for case, ours, theirs in told}
        paths = Counter(path for names in fields.values() for path in sorted(names))
        kept = [not fields[case.id] if case.id in fields else None for case in pair.cases]
        n, missing = len(told), pair.missing(told)
        order = "; ".join(line for line in verdict.differs if line.startswith(layers.PROPERTY_ORDER))
        most = []
        for path, times in paths.most_common(_SHOWN_FIELDS):
            equal = [path not in fields[case.id] if case.id in fields else None for case in cases]
            least = design.share(equal, at_least=at_least, cases=cases).lower
            bound = "" if not least or evidence.single else f", equal in at least {explain.percent(least)}"
            most.append(f"{explain.plain(path, 60)} differs in {times} of {n}{bound}")
        seen, answers = pair.seen
        verdict = dataclasses.replace(
            verdict,
            measures="of answers have equal values",
            requests=2 * n,
            details=(*most, *pair.example(), *there(seen, answers, "answer"), *missing.reasons),
            differing=tuple(
                pair.difference(case, ", ".join(sorted(fields[case.id]))) for case, _, _ in told if fields[case.id]
            ),
        )
        done = share_judged(
            verdict,
            evidence,
            kept,
            at_least=at_least,
            cases=cases,
            about=pair.cases,
            missing=missing,
            best=Best(cases, [keeps is not False for keeps in kept]),
            remarks=rare(seen, answers, "answer"),
            otherwise=order,
        )
        unseen = [explain.plain(path, 60) for path, times in seen.items() if not times]
        if done.outcome is not Outcome.PASS or (answers and not unseen):
            return done
        reason = f"no answer of either engine has {' or '.join(unseen)}"
        if not answers:
            reason = "no answer of either engine is JSON, so no value was compared"
        return dataclasses.replace(done, outcome=Outcome.INCONCLUSIVE, reason=reason, needed=None, advice="")

    def limits(self) -> dict[str, float]:
        """Return the limits that are set, by name."""
        given = {"rate": self.rate, "gap": self.gap, "agree": self.agree, "arms": self.arms}
        return {limit: value for limit, value in given.items() if value is not None}


_Compared: TypeAlias = tuple[PairReadings, tuple[str, ...]]
"""A pair's readings, and the layers in which the two engines differ."""


def _parsed(readings: Mapping[str, Mapping[str, Reading]]) -> dict[str, dict[str, Any]]:
    """Return the values of each engine's answers that are JSON as a whole."""
    return {
        name: {case: whole for case, reading in read.items() if (whole := reading.whole) is not None}
        for name, read in readings.items()
    }


def only_on(engine: str) -> str:
    """Return how a case is listed of two engines of which one alone gave an answer that fits."""
    return f"fits on {engine} only"


def _portable(path: Path, folders: Sequence[Path]) -> str:
    if not path.is_absolute():
        return str(path)
    for folder in folders:
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return path.name
