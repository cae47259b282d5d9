"""A decision about a candidate, made of a run that is in the store: nobody is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pytest_llmparity.core.errors import ConfigError, GoldenError, StoreError, UsageError
from pytest_llmparity.core.gate import NO_FILE
from pytest_llmparity.core.gate.deciding import Decision, decide
from pytest_llmparity.core.gate.flips import expected, flips
from pytest_llmparity.core.gate.policy import Policy
from pytest_llmparity.core.identity import lock
from pytest_llmparity.core.identity.lock import Difference, Locked
from pytest_llmparity.core.identity.record import EngineRecord, RunRecord
from pytest_llmparity.core.sample import IDENTITY
from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.run.golden.requests import asked_in, engines_in
from pytest_llmparity.run.judge.recorded import DECISIONS, Ruling, WholeRun, stored
from pytest_llmparity.run.ledger import RunState, read_state
from pytest_llmparity.store.golden import files
from pytest_llmparity.store.runs import Store

_NAMES = frozenset({"model", "configuration"})
"""Facts that may differ where nothing that acts does; their being equal says as little."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision, and the run it was made on as a report tells it."""

    decision: Decision
    whole: WholeRun


class OtherLimits(ConfigError):
    """A run was judged by other limits than the policy has that decides about it, so its verdicts are none of that."""


def decided(
    store: Store, run: str, policy: Policy, *, root: Path, baseline: str | None, candidate: str | None
) -> Decided:
    """Return the decision that a policy comes to on a stored run.

    Without a name the ``baseline`` is the run's, the ``candidate`` its only other engine. Raises ``UsageError`` for
    engines that it does not have, ``ConfigError`` for a policy with a rule that names nothing of it, ``OtherLimits``
    for one whose limits are not those it was judged by, ``StoreError`` where it was not judged to its end, or asked
    a part of what its tests ask.
    """
    whole = stored(store, run, root=root)
    if chosen := (read_state(store, run) or RunState()).chosen:
        raise StoreError(
            f"run {run} decides nothing: {chosen}, and a decision is about whole runs; run the suite whole"
        )
    _refuse_other_limits(store, run, policy)
    return decided_of(store, whole, policy, root=root, baseline=baseline, candidate=candidate)


def decided_of(
    store: Store, whole: WholeRun, policy: Policy, *, root: Path, baseline: str | None, candidate: str | None
) -> Decided:
    """Return the decision that a policy comes to on a run as it was just judged; raises as :func:`decided`."""
    run = whole.record.run
    before, after = _two(whole.record, baseline, candidate)
    locks = [_locked(store, run, engine, root) for engine in (before, after)]
    ours, theirs = locks
    if ours is None or theirs is None:  # of an engine that was never there, only what is configured may be known
        ours, theirs = (Locked(kind=e.kind, plugin="", identity=e.identity.facts) for e in (before, after))
    verdicts = whole.record.verdicts
    decision = decide(
        policy,
        verdicts,
        baseline=before.name,
        candidate=after.name,
        tests=whole.tests,
        flips=flips(
            verdicts,
            whole.record.failures,
            expected(verdicts, whole.samples, whole.origin, baseline=before.name, candidate=after.name),
            baseline=before.name,
            candidate=after.name,
        ),
        apart=[difference for difference in lock.differences(ours, theirs) if difference.live or difference.locked],
        alike=_alike(ours, theirs),
    )
    return Decided(decision=decision, whole=whole)


def changed_between(store: Store, before: str, after: str, engine: str) -> list[Difference]:
    """Return in what an engine differs from one stored run to another, as the lock tells it; facts both of them tell.

    Nothing where one of the runs did not come to know it.
    """
    ours, theirs = (engines_in(store, run)[0].get(engine) for run in (before, after))
    if ours is None or theirs is None:
        return []
    changed = [d for d in lock.differences(ours, theirs) if d.live is not None and d.locked is not None]
    return list({difference.field: difference for difference in reversed(changed)}.values())[::-1]


def _refuse_other_limits(store: Store, run: str, policy: Policy) -> None:
    """Raise ``OtherLimits`` for a run that was judged by other limits than a policy has."""
    noted = store.document(run, DECISIONS, Ruling) or Ruling()
    if policy.sha256 == noted.sha256 or policy.limits_sha256 == (noted.limits if noted.sha256 else ""):
        return
    again = f"pytest --parity-mode replay={run} --parity-policy"
    if not noted.sha256 or noted.limits == "":
        raise OtherLimits(
            f"{policy.source} holds checks to limits while answers are judged, and run {run} was judged without them; "
            f"judge it again and decide, nobody is asked: {again} {policy.source}"
        )
    by_file = policy.source != NO_FILE
    raise OtherLimits(
        f"run {run} was judged by the limits of {noted.policy or 'another policy'}, and "
        f"{f'those of {policy.source} are others' if by_file else 'no policy is named'}; name that one with --policy, "
        f"or judge the run again and decide, nobody is asked: {again} "
        f"{policy.source if by_file else 'FILE (an empty file leaves checks as the suite has them)'}"
    )


def _two(record: RunRecord, baseline: str | None, candidate: str | None) -> tuple[EngineRecord, EngineRecord]:
    engines = {engine.name: engine for engine in record.engines}
    if unknown := [name for name in (baseline, candidate) if name is not None and name not in engines]:
        close = nearest(unknown[0], engines)
        raise UsageError(f"run {record.run} has no engine {unknown[0]}{close}; it has {', '.join(engines) or 'none'}")
    ours = engines[baseline] if baseline else next((engine for engine in engines.values() if engine.baseline), None)
    if ours is None:
        raise UsageError(f"run {record.run} has no baseline; name one with --baseline: {', '.join(engines)}")
    if not ours.baseline:
        held = next((engine.name for engine in engines.values() if engine.baseline), "none")
        raise UsageError(f"run {record.run} held its engines against {held}, not against {ours.name}")
    others: Sequence[EngineRecord] = [engine for engine in engines.values() if engine.name != ours.name]
    if candidate:
        others = [engine for engine in others if engine.name == candidate]
    if len(others) != 1:
        names = ", ".join(engine.name for engine in others) or "no other engine"
        raise UsageError(f"one candidate is decided about, and run {record.run} has {names}; name it with --candidate")
    return ours, others[0]


def _locked(store: Store, run: str, engine: EngineRecord, root: Path) -> Locked | None:
    """Return an engine as the lock keeps it, of a golden as it was recorded when the run read it.

    Runs of an older version did not note that: of those the golden tells that is there now.
    """
    noted = engines_in(store, run)[0].get(engine.name)
    if noted is not None or engine.launch != "golden":
        return noted
    for unit in (asked_in(store, run) or {}).values():
        try:
            golden = files.read(root, unit.set, engine.golden or "", logprobs=False)
        except GoldenError:
            continue
        if golden is not None:
            return golden.provenance.locked
    return None


def _alike(ours: Locked, theirs: Locked) -> list[str]:
    """Return the facts that both engines tell and in which they are the same."""
    return [
        name
        for name in IDENTITY
        if name not in _NAMES
        and name in ours.identity
        and name in theirs.identity
        and ours.identity[name].value == theirs.identity[name].value
    ]
