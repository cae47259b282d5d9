"""What an application returns: how often it returns at all, and whether its values agree between engines."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import ClassVar, Final

from pytest_llmparity.core.checks.base import Pairing
from pytest_llmparity.core.checks.designs import design_of
from pytest_llmparity.core.checks.limits import LimitedCheck, within
from pytest_llmparity.core.checks.missing import Missing, describe, gap_shown, rare, there
from pytest_llmparity.core.checks.schema.contract import name_of, silent
from pytest_llmparity.core.checks.shares import Best, besides, gap_judged, share_judged
from pytest_llmparity.core.checks.value.pair import Held, Key, Values, call_fork, held, nothing_of
from pytest_llmparity.core.compare.answers import digest
from pytest_llmparity.core.compare.fields import EVERYTHING, Fields
from pytest_llmparity.core.diagnosis import layers
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import EngineEvidence, Evidence, Needs
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.stats.paired import Side
from pytest_llmparity.core.values.calls import CallFork
from pytest_llmparity.core.verdict import Difference, Outcome, Verdict
from pytest_llmparity.core.words import explain

KIND: Final = "value"
RATE: Final = "value.rate"
GAP: Final = "value.gap"
AGREE: Final = "value.agree"
DRIFT: Final = "value.drift"
REPEATS: Final = 2
"""Runs of each input that drift takes: the second says how often the application differs from itself."""
_SHOWN: Final = 3
_NOT_OF_ENGINES: Final = ("finish reason",)
"""How layers begin that say nothing of engines where answers are values of an application."""


def refuse_arguments(*, key: object, fields: Sequence[str], exceptions: object) -> None:
    """Raise ``DesignError`` for what cannot say what is compared of a value."""
    for name, given in (("key", key), ("exceptions", exceptions)):
        if given is not None and not (callable(given) if name == "key" else isinstance(given, bool)):
            takes = "a function of a value" if name == "key" else "True or False"
            raise DesignError(f"value({name}={given!r}): {name} is {takes}")
    if key is not None and fields:
        raise DesignError("value(): key and fields both say what is compared; give one of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueCheck(LimitedCheck):
    """Compares what a test returns, which is the application itself, between engines.

    Made by ``check.value()``. ``key`` says what of a value is compared
    (:func:`~pytest_llmparity.core.checks.value.pair.held`), else ``fields`` do. Each limit gives verdicts of its own:

    - ``value.rate``: per engine, the share of inputs with which the application returns, and raises nothing, is at
      least ``rate`` (Clopper-Pearson).
    - ``value.gap``: per candidate, the difference in that share on the same inputs is at most ``gap`` (exact
      unconditional test).
    - ``value.agree``: per candidate, the share of inputs with which both engines give equal values is at least
      ``agree`` (Clopper-Pearson).
    - ``value.drift``: per candidate, inputs with which values differ between the engines, less those with which they
      differ when the baseline is given the input again, are at most ``drift`` (the test of ``gap``, on the same
      inputs). Each input is given twice, to every engine, since all are asked alike.

    An exception is no value: where both engines raise they do not agree, unless ``exceptions`` is set. Where nothing
    was returned at all (every run raised, or returned ``None`` or something empty) nothing is settled, whatever is set.
    """

    kind: ClassVar[str] = KIND
    gaps: ClassVar[frozenset[str]] = frozenset({"gap", "drift"})
    rate: float | None = None
    gap: float | None = None
    agree: float | None = None
    drift: float | None = None
    side: Side = "either"
    exceptions: bool = False
    fields: Fields = EVERYTHING
    key: Key | None = field(default=None, repr=False)

    def __str__(self) -> str:
        parts = [f"{limit}={value:g}" for limit, value in self.limits().items()]
        parts += [f"side={self.side!r}"] if self.side != "either" else []
        parts += ["exceptions=True"] if self.exceptions else []
        parts += [f"key={_named(self.key)}"] if self.key is not None else []
        parts += [f"fields={list(self.fields.read)!r}"] if self.fields.read else []
        if self.fields.within is not None:
            parts.append(f"tolerance={self.fields.within:g}")
        elif self.fields.tolerance:
            parts.append(f"tolerance={dict(self.fields.tolerance)!r}")
        parts += [f"unordered={list(self.fields.unordered)!r}"] if self.fields.unordered else []
        parts += [f'by="{self.by}"'] if self.by else []
        return f"value({', '.join(parts)})"

    def limits(self) -> dict[str, float]:
        """Return the limits that are set, by name."""
        given = {"rate": self.rate, "gap": self.gap, "agree": self.agree, "drift": self.drift}
        return {limit: value for limit, value in given.items() if value is not None}

    def needs(self) -> Needs:
        """Return what to gather: the main phase, twice where drift is counted."""
        return Needs(repeats=1 if self.drift is None else REPEATS)

    def verdicts(self, evidence: Evidence) -> Iterable[Verdict]:
        """Return the verdicts of each limit: ``rate`` per engine, ``gap``, ``agree`` and ``drift`` per candidate."""
        runs = {name: self._runs(engine, 0) for name, engine in evidence.engines.items()}
        again = self._runs(evidence.engines[evidence.baseline], 1) if self.drift is not None else {}
        return self.by_limit(evidence, lambda limit, part: self._limit_verdicts(limit, runs, again, part))

    def _runs(self, engine: EngineEvidence, repeat: int) -> dict[str, Held]:
        """Return what the application came to with each input, the first or the second time."""
        runs: dict[str, Held] = {}
        for case, samples in engine.samples.get(Phase.MAIN, {}).items():
            for sample in samples[repeat : repeat + 1]:
                if sample.completion is not None:
                    runs[case] = held(sample.completion, self.key)
                elif sample.failure is not None and not repeat:
                    runs[case] = Held(unread=f"no run: {describe(engine.name, case, sample.failure)}")
        return runs

    def _limit_verdicts(
        self, limit: str, runs: Mapping[str, Mapping[str, Held]], again: Mapping[str, Held], evidence: Evidence
    ) -> Iterable[Verdict]:
        """Return the verdicts of one limit, on the inputs of this evidence."""
        some = within(evidence, runs)
        if limit == "rate":
            return self.each_engine(
                evidence,
                RATE,
                lambda opened, engine: (
                    silent(opened, engine, some[engine.name], evidence)
                    or self._rate(opened, evidence, engine, some[engine.name])
                ),
            )

        def judge(opened: Verdict, candidate: EngineEvidence, pairing: Pairing) -> Iterable[Verdict]:
            lines = layers.layers(evidence, candidate)
            opened = dataclasses.replace(
                opened, differs=tuple(line for line in lines if not line.startswith(_NOT_OF_ENGINES))
            )
            values = Values(
                pairing,
                evidence,
                some[evidence.baseline],
                some[candidate.name],
                limit=limit,
                again=again if limit == "drift" else None,
                fields=self.fields,
                exceptions=self.exceptions,
            )
            return [{"gap": self._gap, "agree": self._agree, "drift": self._drift}[limit](opened, evidence, values)]

        return self.each_pairing(evidence, f"{KIND}.{limit}", judge)

    def _rate(self, verdict: Verdict, evidence: Evidence, engine: EngineEvidence, runs: Mapping[str, Held]) -> Verdict:
        assert self.rate is not None
        cases = [case for case in evidence.prompts.cases if case.id in runs]
        kept = [runs[case.id].returned for case in cases]
        verdict = dataclasses.replace(
            verdict,
            measures="of runs return a value",
            requests=len(cases),
            details=tuple(_raised(engine.name, cases, runs)),
            differing=tuple(
                Difference(
                    case=case.id,
                    what=explain.plain(f"raised {run.outcome.text}" if run.outcome else run.unread, 120),
                    candidate_sha256=digest(run.outcome.text) if run.outcome else None,
                )
                for case in cases
                if not (run := runs[case.id]).returned
            ),
        )
        unasked = len(evidence.prompts.cases) - len(engine.left_out) - len(cases)
        stopped = evidence.incomplete or "" if unasked else ""
        missing = Missing(of=len(cases), used=len(cases), stopped=stopped, sequential=evidence.sequential)
        of_cases = [runs[case.id] for case in cases]
        done = share_judged(
            verdict,
            evidence,
            kept,
            at_least=self.rate,
            cases=cases,
            about=cases,
            missing=missing,
            remarks=_unasked(of_cases),
        )
        return _of_something(done, nothing_of(of_cases, EVERYTHING))

    def _gap(self, verdict: Verdict, evidence: Evidence, values: Values) -> Verdict:
        assert self.gap is not None
        differences = [ours.returned - theirs.returned for _, ours, theirs in values.compared]
        names = (evidence.baseline, verdict.engine)
        only = dict(zip(names, (differences.count(1), differences.count(-1)), strict=True))
        verdict = dataclasses.replace(
            verdict,
            measures="of inputs return on one engine only" + ("" if evidence.single else ", net"),
            requests=2 * len(values.compared),
            details=(
                "returns on " + "; on ".join(f"{name} only: {n}" for name, n in only.items()),
                *_raised(verdict.engine, [c for c, _, _ in values.compared], {c.id: b for c, _, b in values.compared}),
                *values.missing.reasons,
            ),
            differing=tuple(
                values.difference(case, a, b, f"returns on {names[0 if a.returned else 1]} only")
                for case, a, b in values.compared
                if a.returned != b.returned
            ),
        )
        return gap_shown(
            self._difference(verdict, evidence, values, differences, margin=self.gap, side=self.side),
            sum(ours.returned or theirs.returned for _, ours, theirs in values.compared),
            len(values.compared),
            margin=self.gap,
            predicate="inputs return on either engine",
            nothing="no input returns on either engine, so how many more return on one of them is not shown",
        )

    def _drift(self, verdict: Verdict, evidence: Evidence, values: Values) -> Verdict:
        assert self.drift is not None
        across = [bool(values.differing[case.id]) for case, _, _ in values.compared]
        within = [bool(values.within.get(case.id)) for case, _, _ in values.compared]
        verdict = dataclasses.replace(
            verdict,
            measures=f"of values differ, less what differs on {evidence.baseline} by itself",
            requests=2 * REPEATS * len(values.compared),
            details=(
                f"{sum(across)} of {explain.count(len(across), 'value')} differ between the engines, {sum(within)} "
                f"when the application is run again on {evidence.baseline}",
                *values.example((evidence.baseline, verdict.engine)),
                *there(*values.seen, "value"),
                *values.missing.reasons,
            ),
            differing=_differing(values),
        )
        differences = [a - b for a, b in zip(across, within, strict=True)]
        return self._difference(verdict, evidence, values, differences, margin=self.drift, side="worse")

    def _difference(
        self,
        verdict: Verdict,
        evidence: Evidence,
        values: Values,
        differences: Sequence[int],
        *,
        margin: float,
        side: Side,
    ) -> Verdict:
        """Return the verdict on a difference of shares over the inputs that were compared."""
        cases = [case for case, _, _ in values.compared]
        done = gap_judged(
            verdict,
            evidence,
            differences,
            margin=margin,
            side=side,
            cases=cases,
            rest=besides(values.cases, cases),
            about=values.cases,
            missing=values.missing,
            remarks=(*values.empty, *rare(*values.seen, "value")),
        )
        return _of_something(done, values.nothing)

    def _agree(self, verdict: Verdict, evidence: Evidence, values: Values) -> Verdict:
        assert self.agree is not None
        at_least, n = self.agree, len(values.compared)
        groups = len({case.group for case in values.cases})
        design = design_of(evidence, asked=len(values.cases), groups_asked=groups)
        kept = [not values.differing[case.id] if case.id in values.differing else None for case in values.cases]
        paths = Counter(path for of_case in values.differing.values() for path in of_case)
        most = []
        for path, times in paths.most_common(_SHOWN):
            equal = [
                path not in values.differing[case.id] if case.id in values.differing else None for case in values.cases
            ]
            least = design.share(equal, at_least=at_least, cases=values.cases).lower
            bound = "" if not least or evidence.single else f", equal in at least {explain.percent(least)}"
            differs = "differs in " if path.startswith("$") else ""
            most.append(f"{explain.plain(path, 80)}{' ' if differs else ': '}{differs}{times} of {n}{bound}")
        same = {run.outcome.text for _, *both in values.compared for run in both if run.outcome}
        alike = ["every value is the same, whatever the input"] if len(same) == 1 and n > 1 else []
        verdict = dataclasses.replace(
            verdict,
            measures="of values are equal",
            requests=2 * n,
            details=(
                *most,
                *values.example((evidence.baseline, verdict.engine)),
                *there(*values.seen, "value"),
                *values.missing.reasons,
            ),
            differing=_differing(values),
        )
        done = share_judged(
            verdict,
            evidence,
            kept,
            at_least=at_least,
            cases=values.cases,
            about=values.cases,
            missing=values.missing,
            best=Best(values.cases, [keeps is not False for keeps in kept]),
            remarks=(*alike, *values.empty, *rare(*values.seen, "value")),
        )
        return _of_something(done, values.nothing)


def _of_something(verdict: Verdict, nothing: str) -> Verdict:
    """Return a verdict without numbers, and no PASS, where nothing was returned; a FAIL stands."""
    if not nothing or verdict.outcome not in (Outcome.PASS, Outcome.INCONCLUSIVE):
        return verdict
    without = dataclasses.replace(verdict, estimate=None, lower=None, upper=None, p_pass=None, p_fail=None)
    return dataclasses.replace(without, outcome=Outcome.INCONCLUSIVE, reason=nothing, needed=None, advice="")


def _differing(values: Values) -> tuple[Difference, ...]:
    return tuple(
        values.difference(case, ours, theirs, _difference_in_words(values.differing[case.id], call_fork(ours, theirs)))
        for case, ours, theirs in values.compared
        if values.differing[case.id]
    )


def _difference_in_words(paths: Sequence[str], fork: CallFork | None) -> str:
    """Say in what two runs differ, and where that began."""
    return ", ".join(paths) + (f"; {fork.words}" if fork is not None else "")


def _raised(engine: str, cases: Sequence[Case], runs: Mapping[str, Held]) -> list[str]:
    """Count the runs on an engine that did not return, by what they raised, and show the first."""
    bad = [(case.id, runs[case.id]) for case in cases if not runs[case.id].returned]
    if not bad:
        return []
    kinds = Counter(run.raised or "no run" for _, run in bad)
    by_kind = ", ".join(f"{explain.plain(kind, 40)} {n}" for kind, n in kinds.most_common(_SHOWN))
    case, run = bad[0]
    text = run.outcome.text if run.outcome else run.unread
    return [
        f"{len(bad)} of {explain.count(len(cases), 'run')} on {engine} return nothing: {by_kind}",
        f"  first: {explain.plain(case, 40)}: {explain.plain(text, 120)}",
    ]


def _unasked(runs: Sequence[Held]) -> list[str]:
    """Count the runs that returned and asked their engine nothing, or came to nothing, which a rate counts as kept."""
    unasked = sum(run.returned and run.calls == () for run in runs)
    nothing = sum(run.comparable and not run.something for run in runs)
    total = explain.count(len(runs), "run")
    return [
        *([f"{unasked} of {total} asked the engine nothing"] if unasked else []),
        *([f"{nothing} of {total} returned None or something empty"] if nothing else []),
    ]


def _named(key: Key | None) -> str:
    """Return a function as its user wrote it, the same in every run: no address of an object in it."""
    name = name_of(getattr(key, "__qualname__", None) or type(key))
    code = getattr(key, "__code__", None)
    if code is None or not name.endswith("<lambda>"):
        return name
    return f"<lambda> at {PurePath(code.co_filename).name}:{code.co_firstlineno}"  # all of a module have one name
