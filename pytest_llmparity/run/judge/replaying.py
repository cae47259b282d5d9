"""Which stored run is replayed: one that is named, or the newest of these engines that asked what these tests ask."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence

from pytest_llmparity.core.errors import StoreError, UsageError
from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.run.judge.asked import ASKED, tests_of, units_of
from pytest_llmparity.run.ledger import RunState, read_state
from pytest_llmparity.run.plan import Declaration, unit_of
from pytest_llmparity.settings.specification import Settings
from pytest_llmparity.store.runs import RunInfo, Store


def to_replay(store: Store, settings: Settings, declarations: Sequence[Declaration], *, folder: str) -> str:
    """Return the id of the run to replay, held so that nobody removes it; ``folder`` is what the store's is called.

    Raises ``StoreError`` where there is none, or where it cannot be judged by what is selected, and ``UsageError``
    where it has other engines than those that were named.
    """
    engines = dict.fromkeys(name for name in (*(spec.name for spec in settings.engines), settings.baseline) if name)

    @functools.cache
    def answers(run: str) -> int:
        return _answers(store, run, declarations)

    newest = None if settings.replay_run else _newest_whole(store, answers=answers, engines=engines)
    wanted = newest.id if newest else settings.replay_run
    if wanted is None:
        shards = any((read_state(store, info.id) or RunState()).shard for info in store.runs())
        only = "shards" if shards else "runs of --parity-case"
        none = f"only {only} are" if store.runs() else "no run is"
        yet = "" if store.runs() else " yet"
        judge = ", or judge the shards: llmparity merge" if shards else ""
        raise StoreError(f"{none} stored in {folder}{yet}; run once without --parity-mode replay{judge}")
    store.info(wanted)
    store.hold(wanted)
    state = read_state(store, wanted)
    if state is None:
        raise StoreError(f"run {wanted} was interrupted while gathering; only a run that ended can be replayed")
    if state.shard:
        raise StoreError(f"run {wanted} is {state.shard}; llmparity merge puts the shards together and judges them")
    named = settings.replay_run is not None
    unfit = bool(declarations) and not answers(wanted)
    if unfit and not named:
        raise StoreError(_others_run(store, wanted, named=False))
    if unknown := [name for name in engines if name not in state.engines]:
        raise UsageError(_other_engines(wanted, state, unknown, settings, engines))
    if unfit:
        raise StoreError(_others_run(store, wanted, named=True))
    return wanted


def _answers(store: Store, run: str, declarations: Sequence[Declaration]) -> int:
    """Return of how many selected tests a run asked the prompts, in the way they ask them now.

    Of a run that wrote down nothing about it, it is taken to be all of them.
    """
    if not store.has_document(run, ASKED):
        return len(declarations)
    units = units_of(store, run)
    return sum(unit_of(declaration).key in units for declaration in declarations)


def _newest_whole(store: Store, *, answers: Callable[[str], int], engines: Collection[str]) -> RunInfo | None:
    """Return the newest run to replay of those that answer most, finished ones first.

    Where any run of these engines answers something, others do not count. Runs of ``--parity-case`` and shards asked
    too little, whatever they answer.
    """
    states = {run.id: read_state(store, run.id) or RunState() for run in store.runs()}
    left_open = {run for run, state in states.items() if state.open}
    answered = {run: answers(run) for run, state in states.items() if not (state.cases or state.shard)}
    of_engines = {run: count for run, count in answered.items() if all(name in states[run].engines for name in engines)}
    if any(of_engines.values()) or not any(answered.values()):
        answered = of_engines or answered
    most = max(answered.values(), default=0)
    others = {run for run in states if answered.get(run, -1) < most}
    return store.latest(without=others, ended=left_open)


def _other_engines(
    run: str, state: RunState, unknown: Sequence[str], settings: Settings, engines: Collection[str]
) -> str:
    """Return the sentence that refuses a replay because the run holds no answer of engines that were named."""
    close, has = nearest(unknown[0], state.engines), ", ".join(state.engines)
    if settings.replay_run is not None:
        return f"run {run} has no engine {', '.join(unknown)}{close}; it has {has}"
    every = f"{'the engine' if len(engines) == 1 else 'all of the engines'} {', '.join(engines)}"
    named_by = "--engines" if settings.engines else settings.baseline_source or "--parity-baseline"
    return (
        f"no stored run that asked what the selected tests ask has {every}; the newest that did, {run}, has "
        f"{has}{close}; run once without --parity-mode replay, or leave out {named_by}"
    )


def _others_run(store: Store, run: str, *, named: bool) -> str:
    """Return the sentence that refuses a replay because the run holds no answer to what the selected tests ask."""
    tests = tests_of(store, run)
    names = ", ".join(tests[:3]) + (f" and {len(tests) - 3} more" if len(tests) > 3 else "")
    whose = f"run {run}" if named else f"no stored run asked what the selected tests ask; the newest, {run},"
    portion = (read_state(store, run) or RunState()).portion
    part = f" (it was gathered with {portion})" if portion else ""
    ask = f"asked other prompts, or in another way{f', for {names}' if tests else ''}{part}"
    return f"{whose} {ask}; run once without --parity-mode replay, or name one of llmparity runs"
