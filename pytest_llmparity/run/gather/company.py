"""Whom an engine can be compared with: without anybody only what is judged of it alone is worth asking. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from pytest_llmparity.core.evidence import EngineEvidence, Evidence, Needs, union
from pytest_llmparity.core.identity.agreed import Agreed
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.run.plan import Unit
from pytest_llmparity.settings.specification import EngineSpec, Settings


class Company:
    """The engines of a run, and what each is asked by what is known of the others so far.

    ``records`` are those known by now. ``unusable`` has engines that certainly give no answers though they have no
    record yet, and why.
    """

    def __init__(self, settings: Settings, records: Mapping[str, EngineRecord]) -> None:
        self._engines = [spec.name for spec in settings.engines]
        self._baseline = settings.baseline or ""
        self._hurried = {spec.name for spec in settings.asked if spec.pace != 1}
        """Recordings that are not played at their own pace: what they take says nothing."""
        live = [spec.name for spec in settings.asked if spec.name not in self._hurried]
        self._timed_beside = settings.recorded or (len(live) > 1 and self._baseline in live)
        """Whether times of two engines can be compared: golden answers have none. Who is recorded will be."""
        self._records = records
        self.unusable: dict[str, str] = {}
        self._unheld: dict[tuple[str, str], str] = {}

    def hold(self, units: Iterable[Unit], agreed: Agreed) -> list[str]:
        """Find the candidates that some units cannot judge whatever they answer, by what the lock holds of drift now.

        They are not asked these units from here on. Return each reason once, behind the candidate's name.
        """
        baseline = self._records.get(self._baseline)
        candidates = [self._records[name] for name in self._engines if name in self._records and name != self._baseline]
        reasons: dict[str, None] = {}
        if baseline is None or baseline.unusable:
            return []
        for unit in units:
            for candidate in candidates:
                refusals = [] if candidate.unusable else beforehand(unit, baseline, candidate, agreed)
                reasons |= dict.fromkeys(f"{candidate.name}: {why}" for why in refusals if why)
                if refusals and all(refusals):
                    self._unheld[candidate.name, unit.key] = refusals[0]
        return list(reasons)

    def needs(self, name: str, unit: Unit) -> Needs | None:
        """Return the samples that a unit needs of an engine; ``None``: none, as whom it is compared with is away."""
        needs = unit.needs if self._alone(name, unit) is None else needs_alone(unit)
        if needs is not None and name in self._hurried:
            return dataclasses.replace(needs, timed=0, timed_relative=False)
        if needs is None or not needs.timed or self._timed_beside or not unit.checks:
            return needs
        timed = max((check.needs().timed for check in unit.checks if not check.pairwise), default=0)
        return dataclasses.replace(needs, timed=timed, timed_relative=False)

    def lonely(self, name: str, units: Iterable[Unit]) -> dict[str, str]:
        """Return why an engine is not asked some of the units at all, by their keys."""
        reasons = {unit.key: self._alone(name, unit) for unit in units if self.needs(name, unit) is None}
        return {key: why for key, why in reasons.items() if why is not None}

    def _alone(self, name: str, unit: Unit) -> str | None:
        """Say why nothing of a unit can be compared on an engine, ``None`` where something can."""
        if (unheld := self._unheld.get((name, unit.key))) is not None:
            return unheld
        unusable = dict(self.unusable) | {other: why for (other, key), why in self._unheld.items() if key == unit.key}
        for other, record in self._records.items():
            why = record.unusable or record.refused.get(unit.key) or record.left_out.get(unit.key)
            if why is not None:
                unusable[other] = why
        return alone(name, baseline=self._baseline, engines=self._engines, unusable=unusable)


def alone(name: str, *, baseline: str, engines: Sequence[str], unusable: Mapping[str, str]) -> str | None:
    """Return why nothing of an engine can be compared, ``None`` where something can or nobody else is selected.

    ``unusable`` has the engines that certainly give no answers, and why.

    >>> alone("b", baseline="a", engines=["a", "b"], unusable={"a": "no key"})
    'the baseline a cannot be used (no key)'
    """
    others = [other for other in engines if other != name] if name == baseline else [baseline]
    if name == baseline and not others:
        return None
    reasons = [unusable[other] for other in others if other in unusable]
    if len(reasons) < len(others):
        return None
    who = ", ".join(others)
    first = reasons[0].partition("\n")[0]
    if name == baseline:
        return f"no engine is left to compare it with ({who} cannot be used; {first})"
    return f"the baseline {who} cannot be used ({first})"


def beforehand(unit: Unit, baseline: EngineRecord, candidate: EngineRecord, agreed: Agreed) -> list[str]:
    """Return of every check that compares why it cannot judge a pair whatever it answers, empty where it can."""
    evidence = Evidence(
        test="",
        prompts=unit.prompts,
        sampling=unit.sampling,
        concurrency=unit.concurrency,
        baseline=baseline.name,
        engines={record.name: _identified(record) for record in (baseline, candidate)},
        agreed=agreed,
    )
    return [check.beforehand(evidence, evidence.engines[candidate.name]) for check in unit.checks if check.pairwise]


def _identified(record: EngineRecord) -> EngineEvidence:
    return EngineEvidence(
        name=record.name,
        kind=record.kind,
        identity=record.identity,
        quantization=record.quantization,
        golden=record.golden,
    )


def needs_alone(unit: Unit) -> Needs | None:
    """Return what an engine that nobody can be compared with is asked of a unit; ``None``: nothing, nothing is judged.

    A unit whose rows are only read is asked as ever.
    """
    if not unit.checks:
        return unit.needs
    wanted = [check.needs() for check in unit.checks if not check.pairwise]
    return dataclasses.replace(union(wanted), top_logprobs=unit.needs.top_logprobs) if wanted else None


def selves(specs: Sequence[EngineSpec]) -> list[str]:
    """Return a sentence for every two engines that are one server, model and route: they are compared with themselves.

    >>> specs = [EngineSpec(name=n, kind="vllm", base_url="http://h", launch="attach", model="m") for n in "ab"]
    >>> selves(specs)
    ['a and b are the same server and model: what they differ in is what it differs from itself']
    """
    attached = [spec for spec in specs if spec.launch == "attach"]
    return [
        f"{spec.name} and {other.name} are the same server and model: "
        "what they differ in is what it differs from itself"
        for place, spec in enumerate(attached)
        for other in attached[place + 1 :]
        if (spec.base_url, spec.model, spec.route) == (other.base_url, other.model, other.route)
    ]
