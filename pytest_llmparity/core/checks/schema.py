"""Answers that must fit a JSON Schema: how many do, whether both engines do alike, and whether their values agree."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pytest_llmparity.core.checks import gathered
from pytest_llmparity.core.checks.contract import Contract, Reading
from pytest_llmparity.core.checks.lenience import wrapped
from pytest_llmparity.core.checks.missing import Missing, Silence
from pytest_llmparity.core.checks.models import Adapter, ModelClass
from pytest_llmparity.core.checks.sequence import numbers
from pytest_llmparity.core.checks.shares import gap_needed, judge_cases, least_perfect, proven
from pytest_llmparity.core.compare.answers import cut_in_call, digest, same_calls, speechless, written_out
from pytest_llmparity.core.diagnosis import layers
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import EngineEvidence, Evidence, Needs
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.stats import sequential
from pytest_llmparity.core.stats.paired import Side, gap, min_cases
from pytest_llmparity.core.verdict import Difference, Outcome, Verdict
from pytest_llmparity.core.words import explain

_SHOWN_FIELDS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaCheck:
    """Validates every answer against one JSON Schema and compares the values between engines.

    Made by ``check.schema()``. ``name`` is how the user wrote the target, ``text`` the schema as JSON text (``None``
    until :meth:`resolve` has read ``path``). Each limit that is set gives verdicts of its own kind:

    - ``schema.rate``: per engine, the share of answers that fit is at least ``rate`` (Clopper-Pearson).
    - ``schema.gap``: per candidate, the difference in that share on the same cases is at most ``gap`` (exact
      unconditional test). ``side="either"`` counts both directions, ``"worse"`` only a worse candidate.
    - ``schema.agree``: per candidate, the share of cases whose parsed values are equal (order of keys aside) is at
      least ``agree``. An answer that is not JSON equals nothing.

    With a ``model`` an answer fits when pydantic validates it in strict JSON mode. An answer that ``json.loads``
    refuses fits nothing and equals nothing, unless ``lenient`` reads what stands in a code block, behind reasoning or
    between words; either way such answers are counted by engine.

    Every case counts as one piece of evidence, whatever its ``group``: of rows made from one template the bounds claim
    to know more than they do. Cases the engine failed to answer do not fit; in a pair, cases the baseline did not
    answer are left out.
    """

    name: str
    text: str | None = None
    path: str | None = None
    rate: float | None = None
    gap: float | None = None
    agree: float | None = None
    side: Side = "either"
    lenient: bool = False
    model: ModelClass | Adapter | None = field(default=None, repr=False)
    where: str = field(default="", compare=False)

    @property
    def kind(self) -> str:
        """Short name."""
        return "schema"

    @property
    def pairwise(self) -> bool:
        """True when only the limits between engines are set."""
        return self.rate is None

    @property
    def sequential(self) -> bool:
        """Every limit has a sequential test."""
        return True

    def __str__(self) -> str:
        limits = [f"{limit}={value:g}" for limit, value in self._limits().items()]
        if self.side != "either":
            limits.append(f"side={self.side!r}")
        if self.lenient:
            limits.append("lenient=True")
        return f"schema({', '.join([self.name, *limits])})"

    def resolve(self, read: Callable[[str], str], *, within: Sequence[Path] = ()) -> SchemaCheck:
        """Return the check with its schema read: ``read`` turns the path into text; others come back unchanged.

        An absolute path is named from the first folder of ``within`` it lies in, else by the file alone: the name goes
        into reports and is the key of earlier looks, which must be the same on every machine.

        Raises ``DesignError`` when the text is not JSON or not a schema, or refers to another document.
        """
        if self.path is None or self.text is not None:
            return self
        named = dataclasses.replace(self, name=repr(_portable(Path(self.path), within)))
        return named.with_schema(read(self.path))

    def with_schema(self, text: str) -> SchemaCheck:
        """Return the check with this schema; ``DesignError`` when it cannot be used."""
        Contract.from_text(text, self.name)
        return dataclasses.replace(self, text=text)

    def needs(self) -> Needs:
        """The main phase; where a case asks for a schema, an engine that enforces it."""
        return Needs(capabilities=frozenset({"json_schema"}))

    def problem(self, *, cases: int, groups: int, engines: int, sequential: bool = False) -> str | None:
        """Refuse limits that not even perfect answers could be shown to keep, all of them at once."""
        problems = []
        for limit, needed in self._least(sequential=sequential).items():
            value = self._limits()[limit]
            if needed is None:
                problems.append(f"no number of prompts can show {limit}={value:g}; ask for less, such as {limit}=0.98")
            elif cases < needed:
                problems.append(
                    f"{limit}={value:g} takes at least {needed} prompts even if every answer is right, "
                    f"and there {'is' if cases == 1 else 'are'} {cases}"
                )
        return "; ".join(problems) or None

    def power(self, *, cases: int, groups: int, sequential: bool = False) -> str:
        """How many prompts each limit takes at the least."""
        least = ", ".join(f"{limit} {n or 'never'}" for limit, n in self._least(sequential=sequential).items())
        return f"{self}: {explain.count(cases, 'prompt')}; at least needed: {least}"

    def judge(self, evidence: Evidence) -> list[Verdict]:
        """Verdicts of each limit that is set: ``rate`` per engine, ``gap`` and ``agree`` per candidate."""
        if self.text is None:
            raise DesignError(f"{self}: the schema {self.path!r} was never read")
        contract = Contract.from_text(self.text, self.name, model=self.model, lenient=self.lenient)
        remarks = tuple(
            f"format {word!r} is known to no JSON Schema draft of this validator and was not checked"
            for word in contract.unknown_formats
        )
        readings = {name: contract.read(engine) for name, engine in evidence.engines.items()}
        verdicts: list[Verdict] = []
        forgiven = {name: wrapped(name, found) for name, found in readings.items()}
        if self.rate is not None:
            for name, engine in evidence.engines.items():
                start = gathered.start(self, evidence, engine, kind="schema.rate", alone=True)
                start = dataclasses.replace(start, lenience=forgiven[name], remarks=remarks)
                refused = gathered.blocked(start, engine) or _silent(start, engine, readings[name], evidence)
                verdicts.append(refused or self._rate(start, evidence, readings[name], contract))
        for limit, judge_pair in (("gap", self._gap), ("agree", self._agree)):
            if self._limits().get(limit) is None:
                continue
            kind = f"schema.{limit}"
            verdicts += gathered.alone(self, evidence, kind)
            baseline = evidence.engines[evidence.baseline]
            for candidate, opened in gathered.candidates(self, evidence, kind):
                both = _Both(evidence, candidate, readings)
                pair = (*forgiven[baseline.name], *forgiven[candidate.name])
                start = dataclasses.replace(opened, lenience=pair, remarks=remarks)
                refused = gathered.blocked(start, baseline, candidate) or both.silent(start, candidate)
                if refused is None:
                    differs = layers.layers(evidence, candidate, schema=contract.schema)
                    refused = judge_pair(dataclasses.replace(start, differs=differs), evidence, both)
                verdicts.append(refused)
        return verdicts

    def _limits(self) -> dict[str, float]:
        given = {"rate": self.rate, "gap": self.gap, "agree": self.agree}
        return {limit: value for limit, value in given.items() if value is not None}

    def _least(self, *, sequential: bool) -> dict[str, int | None]:
        return {
            limit: min_cases(value, 0.05)
            if limit == "gap" and not sequential
            else least_perfect(1.0 - value if limit == "gap" else value, 0.05, sequential=sequential)
            for limit, value in self._limits().items()
        }

    def _rate(
        self, verdict: Verdict, evidence: Evidence, readings: Mapping[str, Reading], contract: Contract
    ) -> Verdict:
        assert self.rate is not None
        engine = evidence.engines[verdict.engine]
        kept = [readings[case.id].problem is None for case in evidence.prompts.cases if case.id in readings]
        n = len(kept)
        order = layers.order_line(verdict.engine, [(r.value, contract.schema) for r in readings.values() if r.parsed])
        enforced = layers.enforcement(engine, evidence.prompts.cases)
        changes = {"reason": order} | judge_cases(kept, at_least=self.rate, evidence=evidence)
        silence = Silence()
        for answer in evidence.engines[verdict.engine].answers().values():
            if speechless(answer):
                silence.add({verdict.engine: answer})
        changes |= {
            "measures": "of answers fit the schema",
            "requests": n,
            "differs": (*enforced, *([order] if order else [])),
            "details": (*_invalid(verdict.engine, evidence.prompts.cases, readings), *silence.limits()),
        }
        done = gathered.finish(verdict, **changes)
        return gathered.settled(done, evidence, absent=len(evidence.prompts.cases) - len(engine.left_out) - n)

    def _gap(self, verdict: Verdict, evidence: Evidence, both: _Both) -> Verdict:
        assert self.gap is not None
        rows = both.spoken
        differences = [(ours.problem is None) - (theirs.problem is None) for _, ours, theirs in rows]
        only_ours, only_theirs = differences.count(1), differences.count(-1)
        changes: dict[str, Any] = {
            "unit": "share",
            "margin": self.gap,
            "side": self.side,
            "n": len(rows),
            "requests": 2 * len(rows),
            "details": (
                f"fits on {evidence.baseline} only: {only_ours}; on {verdict.engine} only: {only_theirs}",
                *_invalid(verdict.engine, evidence.prompts.cases, {case.id: theirs for case, _, theirs in rows}),
                *both.missing(rows).reasons,
            ),
            "differing": tuple(
                both.difference(case, f"fits on {evidence.baseline if fits > 0 else verdict.engine} only")
                for (case, _, _), fits in zip(rows, differences, strict=True)
                if fits
            ),
        }
        if not rows:
            return gathered.rested(gathered.finish(verdict, **changes), both.missing(rows))
        if evidence.single:
            parted = only_ours + (only_theirs if self.side == "either" else 0)
            changes |= {"outcome": Outcome.FAIL if parted else Outcome.PASS, "estimate": float(parted)}
            return gathered.finish(verdict, **changes, measures="of answers fit on one engine only", reason="single")
        changes["measures"] = "of answers fit on one engine only, net"
        changes |= self._gap_of(differences, evidence, asked=both.asked)

        def proven() -> float | None:
            unknown = [0] * (both.asked - len(rows))
            best = self._gap_of([*differences, *unknown], evidence, asked=both.asked)
            return float(best["p_fail"]) if best["outcome"] is Outcome.FAIL else None

        done = gathered.rested(gathered.finish(verdict, **changes), both.missing(rows), proven=proven)
        return gathered.settled(done, evidence, absent=both.absent)

    def _gap_of(self, differences: Sequence[int], evidence: Evidence, *, asked: int) -> dict[str, Any]:
        """Return the verdict fields that follow from 1 where only the baseline fits, -1 where only the other does."""
        assert self.gap is not None
        if evidence.sequential:
            return numbers(
                sequential.gap(differences, margin=self.gap, alpha=evidence.alpha, side=self.side),
                evidence,
                asked=asked,
            )
        b, c, n = differences.count(1), differences.count(-1), len(differences)
        result = gap(b, c, n, margin=self.gap, alpha=evidence.alpha, side=self.side)
        changes: dict[str, Any] = dataclasses.asdict(result)
        if result.upper < self.gap:
            return changes | {"outcome": Outcome.PASS}
        if result.lower > self.gap:
            return changes | {"outcome": Outcome.FAIL}
        needed = gap_needed(b, c, n, self.gap, evidence.alpha, self.side)
        return changes | {"outcome": Outcome.INCONCLUSIVE, "needed": needed}

    def _agree(self, verdict: Verdict, evidence: Evidence, both: _Both) -> Verdict:
        assert self.agree is not None
        paths: Counter[str] = Counter()
        fields = {case.id: both.differing(case, ours, theirs) for case, ours, theirs in both.rows}
        for names in fields.values():
            paths.update(names)
        kept = [not fields[case.id] if case.id in fields else None for case in both.cases]
        n, missing = len(both.rows), both.missing(both.rows)
        order = "; ".join(line for line in verdict.differs if line.startswith(layers.PROPERTY_ORDER))
        details = [
            f"{explain.plain(path, 60)} differs in {times} of {n}" for path, times in paths.most_common(_SHOWN_FIELDS)
        ]
        details += [*both.example(), *missing.reasons]
        changes = {"reason": order} | judge_cases(kept, at_least=self.agree, evidence=evidence)
        changes |= {"measures": "of answers have equal values", "requests": 2 * n, "details": tuple(details)}
        changes["differing"] = tuple(
            both.difference(case, ", ".join(sorted(fields[case.id]))) for case, _, _ in both.rows if fields[case.id]
        )
        at_least = self.agree
        done = gathered.rested(
            gathered.finish(verdict, **changes),
            missing,
            proven=lambda: proven(kept, at_least=at_least, evidence=evidence),
        )
        return gathered.settled(done, evidence, absent=both.absent)


class _Both:
    """Readings of a pair over the cases the baseline answered and the candidate was asked.

    ``rows`` are without pairs that say nothing (neither text nor a call); where both answers call tools the calls are
    compared. ``spoken`` are those of the rows that a schema can be held against on at least one engine.
    """

    def __init__(
        self, evidence: Evidence, candidate: EngineEvidence, readings: Mapping[str, Mapping[str, Reading]]
    ) -> None:
        ours, theirs = readings[evidence.baseline], readings[candidate.name]
        self._evidence = evidence
        self._gathered = gathered.gather(evidence, candidate)
        self._pairs = {pair.case.id: pair for pair in self._gathered.pairs}
        self._silence = Silence()
        self.cases = self._gathered.cases
        self.rows: list[tuple[Case, Reading, Reading]] = []
        for case in self.cases:
            if case.id not in ours or not ours[case.id].answered or case.id not in theirs:
                continue
            pair = self._pairs.get(case.id)
            silent = pair is not None and speechless(pair.baseline) and speechless(pair.candidate)
            if pair is not None and (silent or cut_in_call(pair.baseline, pair.candidate)):
                self._silence.add({evidence.baseline: pair.baseline, candidate.name: pair.candidate})
                continue
            self.rows.append((case, ours[case.id], theirs[case.id]))
        self.spoken = [row for row in self.rows if not self._both_call(row[0])]
        self.absent = self._gathered.absent
        self._answered = any(theirs.answered for _, _, theirs in self.rows) or bool(self._pairs)

    @property
    def asked(self) -> int:
        """How many cases this is about."""
        return self._gathered.asked

    def missing(self, rows: Sequence[tuple[Case, Reading, Reading]]) -> Missing:
        """Return what a verdict on these rows does not rest on."""
        also = self._silence.reasons()
        if calls := len(self.rows) - len(rows):
            also.append(f"both answers to {explain.count(calls, 'prompt')} call tools, which no schema is held against")
        return self._gathered.missing(self._evidence, used=len(rows), also=also)

    def differing(self, case: Case, ours: Reading, theirs: Reading) -> set[str]:
        """Return the paths that differ, ``tool calls`` where both answers call tools otherwise; empty if none does."""
        if self._both_call(case):
            pair = self._pairs[case.id]
            return set() if same_calls(pair.baseline.tool_calls, pair.candidate.tool_calls) else {"tool calls"}
        return ours.differing(theirs)

    def difference(self, case: Case, what: str) -> Difference:
        """Return a case as reports list it."""
        pair = self._pairs.get(case.id)
        if pair is None:
            return Difference(case=case.id, what=what)
        texts = (pair.baseline.text, pair.candidate.text)
        if pair.baseline.tool_calls or pair.candidate.tool_calls:
            texts = written_out(pair.baseline, pair.candidate)
        return Difference(case=case.id, what=what, baseline_sha256=digest(texts[0]), candidate_sha256=digest(texts[1]))

    def _both_call(self, case: Case) -> bool:
        pair = self._pairs.get(case.id)
        return pair is not None and bool(pair.baseline.tool_calls and pair.candidate.tool_calls)

    def silent(self, verdict: Verdict, candidate: EngineEvidence) -> Verdict | None:
        """Return a verdict when there is no pair of answers at all."""
        if self._answered:
            return None
        return gathered.unanswered(verdict, self._gathered, self._evidence)

    def example(self) -> list[str]:
        """Show the first case whose values differ: path and both values."""
        for case, ours, theirs in self.rows:
            for difference in () if self._both_call(case) else ours.differences(theirs)[:1]:
                return [
                    f"first: {explain.plain(case.id, 40)} at {explain.plain(difference.path, 60)}: "
                    f"{explain.quote(_value(difference.baseline))} and {explain.quote(_value(difference.candidate))}"
                ]
        return []


def _portable(path: Path, folders: Sequence[Path]) -> str:
    if not path.is_absolute():
        return str(path)
    for folder in folders:
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return path.name


def _value(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:  # a field that is not there
        return repr(value)


def _silent(
    verdict: Verdict, engine: EngineEvidence, readings: Mapping[str, Reading], evidence: Evidence
) -> Verdict | None:
    if any(reading.answered for reading in readings.values()):
        return None
    for case, failure in engine.failures().items():
        reason = gathered.describe(engine, case, failure)
        return gathered.finish(verdict, outcome=Outcome.ERROR, reason=f"no answer at all; first: {reason}")
    reason = evidence.incomplete or "no answer was gathered"
    outcome = Outcome.ERROR if evidence.incomplete is None else Outcome.INCONCLUSIVE
    return gathered.finish(verdict, outcome=outcome, reason=reason)


def _invalid(engine: str, cases: Sequence[Case], readings: Mapping[str, Reading]) -> list[str]:
    """Count the answers of an engine that do not fit, and show the first."""
    bad = [(case.id, readings[case.id]) for case in cases if case.id in readings and readings[case.id].problem]
    lines: list[str] = []
    if bad:
        case, reading = bad[0]
        lines.append(
            f"{len(bad)} of {explain.count(len(readings), 'answer')} of {engine} do not fit; first: "
            f"{explain.plain(case, 40)}: {explain.plain(str(reading.problem), 120)}"
        )
        if reading.text:
            lines.append(f"  it answered {explain.quote(reading.text)}")
    return lines
