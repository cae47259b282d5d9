"""Gathering of a sequential run: wave by wave on all engines, until nothing is open or everything was asked."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence

from pytest_llmparity.core.checks.family import settle, weights_of
from pytest_llmparity.core.errors import LLMParityError
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import Phase, to_json
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.run.course import cases_of, course_of, waves
from pytest_llmparity.run.gather.asking import Asking
from pytest_llmparity.run.judge.judging import ALPHA, Judging, courses
from pytest_llmparity.run.ledger import Ledger, RunState
from pytest_llmparity.run.plan import Declaration, Plan, Unit, step_of, unit_of
from pytest_llmparity.store.ownership import KEPT
from pytest_llmparity.store.runs import Store


class Waves:
    """Asks the units of a plan in waves.

    ``judging`` reads what the store holds of a run by now, ``ledger`` has its state, ``engines`` is how many are
    selected. What was asked and in which
    order is written down after every wave, so that a run that was interrupted or extended goes on in the same order.
    """

    def __init__(
        self,
        *,
        run: str,
        store: Store,
        plan: Plan,
        declarations: Sequence[Declaration],
        engines: int,
        judging: Callable[[str, RunState], Judging],
        ledger: Ledger,
        asking: Asking,
    ) -> None:
        self._run = run
        self._store = store
        self._declarations = declarations
        self._engines = engines
        self._judging = judging
        self._ledger = ledger
        self._asking = asking
        earlier = courses(store, run)
        self._units = plan.units
        self._courses = {unit.key: course_of(unit, earlier) for unit in plan.units}
        self.open = False

    def anew(self) -> None:
        """Take note that answers of the earlier gathering were dropped: nothing is continued."""
        self._courses = {key: dataclasses.replace(course, continued=False) for key, course in self._courses.items()}

    def orders(self) -> list[tuple[Unit, Sequence[Case]]]:
        """Return every unit with the order in which its cases are asked."""
        return [(unit, self._order(unit)) for unit in self._units]

    def _order(self, unit: Unit) -> Sequence[Case]:
        return cases_of(unit, self._courses[unit.key], 0, None)

    def go(self, unit: Unit, names: Sequence[str], *, whole: bool = False) -> None:
        """Ask one unit of these engines, to the end if it must be ``whole``.

        First the cases that measure the noise floor of any engine, at least so many as for the first look, and the
        floor; from then on only engines about which something is open are asked on. Those of the unit's tests that no
        check can settle early need every case.
        """
        whole = whole or not all(self._early(declaration) for declaration in self._of(unit))
        begin, active = 0, list(names)
        if not self._asking.floor(active, unit, self._order(unit)):
            self._write_down(unit, cut=True)
            return
        for end in waves(unit, self._asking.measured(active, unit)):
            step = step_of(unit, Phase.MAIN, cases_of(unit, self._courses[unit.key], begin, end))
            if begin and not whole and any(self._asking.missing(name, step) for name in active):
                wanting = self._wanting(unit)
                active = [name for name in active if name in wanting]
                if not active:
                    break
            if not self._asking.ask(active, step):
                self._write_down(unit, cut=True)
                return
            self._write_down(unit, asked=dict.fromkeys(active, end))
            begin = end
        self.open = self.open or (not whole and self._left_open(unit))

    def _of(self, unit: Unit) -> list[Declaration]:
        return [declaration for declaration in self._declarations if unit_of(declaration).key == unit.key]

    def _early(self, declaration: Declaration) -> bool:
        """Whether a test has a check that can be settled before every case was asked."""
        return any(check.sequential and not (check.pairwise and self._engines < 2) for check in declaration.checks)

    def _write_down(self, unit: Unit, *, asked: Mapping[str, int] | None = None, cut: bool = False) -> None:
        course = self._courses[unit.key]
        course = dataclasses.replace(course, asked={**course.asked, **(asked or {})}, cut=cut)
        self._courses[unit.key] = course
        self._store.put_document(self._run, KEPT + unit.key, to_json(course))

    def _wanting(self, unit: Unit) -> set[str]:
        """Return the engines that must be asked on: some verdict about them is open and would gain by it.

        One that counts a prompt of each group gains nothing once every group has had its turn.
        """
        open_ones = [v for v in self._verdicts(unit) if v.open and v.outcome in (Outcome.INCONCLUSIVE, Outcome.ERROR)]
        tags = unit.prompts.tag_sizes
        gaining = [v for v in open_ones if v.groups != (len(tags.get(v.tag, ())) if v.tag else unit.prompts.groups)]
        return {name for verdict in gaining for name in (verdict.engine, verdict.baseline) if name is not None}

    def _left_open(self, unit: Unit) -> bool:
        """Whether more prompts than there are could settle something."""
        return any(verdict.open and verdict.outcome is Outcome.INCONCLUSIVE for verdict in self._verdicts(unit))

    def _verdicts(self, unit: Unit) -> list[Verdict]:
        """Return how the unit's tests stand; one that cannot be judged has nothing open, and says so when it runs."""
        judging, verdicts = self._judging(self._run, self._ledger.state()), []
        for declaration in self._of(unit):
            with contextlib.suppress(LLMParityError):
                verdicts += self._settled(judging, declaration)
        return verdicts

    def _settled(self, judging: Judging, declaration: Declaration) -> list[Verdict]:
        """Judge one test as it stands, corrected for the verdicts that are still to come.

        Those are of the timed phase, and of engines that are not asked before the present one has gone.
        """
        verdicts: list[Verdict] = []
        to_come = 0.0
        for check in declaration.checks:
            of_check = judging.judge(declaration, check)
            to_come += len(of_check) if check.needs().timed else 0
            verdicts += of_check
        weights = zip(verdicts, weights_of(verdicts), strict=True)
        tested = sum(weight for verdict, weight in weights if verdict.p_fail is not None)
        to_come += tested * (self._engines - len(judging.records))
        return settle(verdicts, ALPHA, to_come=to_come)
