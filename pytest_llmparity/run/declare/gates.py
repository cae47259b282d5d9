"""The gates of a run: what its tests declare, and what is asked for them."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pytest_llmparity.core.checks.drift.floor import planned
from pytest_llmparity.core.errors import DesignError, UsageError
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.words.explain import plain
from pytest_llmparity.run.declare import Untagged, declare, power_in_turn, refuse_unjudged
from pytest_llmparity.run.golden.requests import REQUESTS, SPARED, note, partly_asked
from pytest_llmparity.run.judge.asked import ASKED, asked_by
from pytest_llmparity.run.locking import Guard
from pytest_llmparity.run.plan import Declaration, Plan, make_plan, unit_of
from pytest_llmparity.run.shards.dealing import of_shard, part_lines
from pytest_llmparity.settings.specification import Settings
from pytest_llmparity.store.runs import Store

C = TypeVar("C")


class Gates:
    """What the tests with a marker declare, by the id of the test, in collection order.

    ``partly`` is set where there are tests with a marker that were not selected, or that cannot be read.
    """

    def __init__(self, settings: Settings, *, root: Path, lock: Guard) -> None:
        self.partly = False
        self._settings = settings
        self._root = root
        self._lock = lock
        self._declared: dict[str, Declaration] = {}
        self._untagged: dict[str, PromptSet] = {}
        self._skipped: dict[str, Declaration] = {}

    def __getitem__(self, test: str) -> Declaration:
        return self._declared[test]

    def declare(
        self, test: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, folder: Path, **called: Any
    ) -> Declaration:
        """Take note of one test's marker; raises ``UsageError`` when it cannot be used. ``called`` is the function.

        ``Untagged`` where the portion of the prompts that this run asks holds none of its.
        """
        settings = self._settings
        try:
            declared = declare(
                test,
                [self.held(test, value) for value in args],
                kwargs,
                folders=(folder, self._root),
                concurrency=settings.concurrency,
                engines=len(settings.engines),
                sequential=settings.in_waves,
                in_turn=settings.turns,
                portion=settings.portion,
                margins=self._lock.require_margins if settings.holds_pairs else None,
                **called,
            )
        except Untagged as error:
            self._untagged[test], self.partly = error.prompts, True
            raise
        self.partly = self.partly or bool(declared.prompts.rest)
        if declared.needs().timed and (placed := [spec.name for spec in settings.placed]):
            raise DesignError(
                f"latency is not timed on a cluster, where {' and '.join(placed)} would be measured on machines of "
                "their own, beside what else runs there; run this test with --parity-executor local, or attach to them"
            )
        if settings.required and not settings.cases:
            refuse_unjudged(declared, [spec.name for spec in settings.engines])
        self._declared[test] = declared
        return declared

    def held(self, test: str, check: C) -> C:
        """Return a check of a test as the policy holds it, as it is where none does; so is what is no check."""
        return check if self._settings.policy is None else self._settings.policy.held(test, check)

    def spare(self, test: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, folder: Path) -> None:
        """Take note of a test that is skipped: its golden answers are not left over. Nothing of it is asked."""
        folders, concurrency = (folder, self._root), self._settings.concurrency
        self._skipped[test] = declare(test, args, kwargs, folders=folders, concurrency=concurrency, engines=2)

    @property
    def skipped(self) -> Collection[Declaration]:
        """What the tests that are skipped declare."""
        return self._skipped.values()

    @property
    def in_part(self) -> bool:
        """Whether there are gates, or cases of them, that this run does not ask."""
        settings = self._settings
        return self.partly or bool(self._skipped or settings.cases) or settings.shard is not None

    def note(self, store: Store, run: str) -> None:
        """Write down what a run asks, for which tests; what a run of the same plan noted stays, if it asked more."""
        if store.has_document(run, REQUESTS) and (self.partly or not partly_asked(store, run)):
            return
        cases = self._settings.cases
        store.put_document(run, ASKED, asked_by(self.declarations(), only=cases))
        store.put_document(run, REQUESTS, note(self.declarations(), only=cases, partly=self.partly))
        store.put_document(run, SPARED, note(self.skipped))

    def refuse_unknown(self) -> None:
        """Raise ``UsageError`` for a case or a tag that is asked for and that no test has."""
        sets = [declaration.prompts for declaration in (*self._declared.values(), *self._skipped.values())]
        cases = [case for prompts in (*sets, *self._untagged.values()) for case in (*prompts.cases, *prompts.rest)]
        asked = [case for declaration in self._declared.values() for case in declaration.prompts.cases]
        _refuse_unknown("--parity-case", self._settings.cases, {case.id for case in asked}, "a case of this id")
        if cases:
            tags = {tag for case in cases for tag in case.tags}
            _refuse_unknown("--parity-tag", self._settings.portion.tags, tags, "a prompt with this tag", or_none=True)

    def declarations(self) -> list[Declaration]:
        """Return what the tests declared, in collection order."""
        return list(self._declared.values())

    def plan(self) -> Plan:
        """Return what is asked of every engine, the same in every process."""
        settings = self._settings
        plan = make_plan(self.declarations(), only=settings.cases, engines=settings.company)
        if self._untagged or any(declared.prompts.rest for declared in self._declared.values()):
            plan = dataclasses.replace(plan, portion=settings.portion)
        return of_shard(plan, settings.shard)

    def floor_lines(self, declaration: Declaration) -> list[str]:
        """Return what the plan says of the noise floor that is measured for one test."""
        settings = self._settings
        unit = unit_of(declaration, only=settings.cases, engines=settings.company)
        if settings.shard is not None:
            return part_lines(self.plan(), unit)
        return planned(
            unit.needs,
            cases=len(unit.prompts.cases),
            concurrency=unit.concurrency,
            tokens=unit.longest,
            grows=unit.floor_grows,
        )

    def timed_lines(self, declaration: Declaration) -> list[str]:
        """Return what the plan says of relative latency budgets where engines are loaded in turn to be timed."""
        return power_in_turn(declaration, *self._settings.turns) if self._settings.turns else []


def _refuse_unknown(
    option: str, asked: Sequence[str], known: Collection[str], what: str, *, or_none: bool = False
) -> None:
    """Raise ``UsageError`` for what is asked for and not known; ``or_none``: also where nothing is."""
    unknown = [name for name in asked if name not in known]
    if unknown and (known or or_none):
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"; the nearest is {near[0]!r}" if near else "" if known else ", and none has a tag"
        raise UsageError(f"{option} {plain(unknown[0], 60)}: no selected test has {what}{hint}")
