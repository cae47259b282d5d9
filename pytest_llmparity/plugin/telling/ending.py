"""What is told when the session ends: verdicts of all processes, reports, the summary, the exit status that counts."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from pytest_llmparity.core.errors import LLMParityError
from pytest_llmparity.core.identity.record import EngineRecord, RunRecord
from pytest_llmparity.core.sample import from_json, to_json
from pytest_llmparity.core.values.calls import Asked
from pytest_llmparity.core.verdict import Verdict
from pytest_llmparity.core.words.explain import count
from pytest_llmparity.core.words.printable import WIDTH, printable, uncommanded, wrapped
from pytest_llmparity.plugin import repeats, shards, xdist
from pytest_llmparity.plugin.options import engines_typed, verbosity
from pytest_llmparity.plugin.telling import planned
from pytest_llmparity.report import files, terminal
from pytest_llmparity.report.workflow import github
from pytest_llmparity.run.judge import recorded
from pytest_llmparity.run.session import Session
from pytest_llmparity.settings.root import as_typed
from pytest_llmparity.settings.specification import HOURS_S

if TYPE_CHECKING:
    from pytest_llmparity.plugin.release.deciding import Deciding

V = TypeVar("V")

ASKED = "llmparity_asked"
"""Name in a report of what its test sent engines that are recorded."""

UNUSED = (
    "no collected test uses the engines that were named: none has a parity marker or takes parity, engine, engines or "
    "another fixture of llmparity"
)


class Tally:
    """What came of the tests of a run, in whichever process each of them ran.

    ``commands`` run each test again, ``used`` tells whether any of them used this plugin, ``misuse`` says what on the
    command line no test of a worker has, so that none was run, ``unjudged`` has why each
    failed where no verdict says so, ``asked`` what plain tests sent engines that are recorded. ``planned`` are
    the lines of the plan and ``told`` says whether they were shown, ``taken`` is where fixtures named as ours are,
    ``engines`` what workers found out about engines, by name. ``reached`` has, of each process that collected tests,
    whether any of them is for engines; where tests were left out one of those may be.
    """

    def __init__(self, session: Session) -> None:
        self.commands: dict[str, str] = {}
        self.used = False
        self.misuse = ""
        self.unjudged = repeats.Unjudged()
        self.planned: list[str] = []
        self.told = False
        self.taken: set[str] = set()
        self.reached: list[bool] = []
        self.engines: dict[str, EngineRecord] = {}
        self.asked: list[Asked] = []
        self._session = session
        self._verdicts: dict[str, list[Verdict]] = {}
        self._places: dict[str, int] = {}

    @property
    def verdicts(self) -> list[Verdict]:
        """Every verdict so far: of each gate those of its last attempt, gates in the order they ended first.

        Once they are arranged, gates are in the order of their collection.
        """
        return [verdict for of_gate in self._verdicts.values() for verdict in of_gate]

    def collected(self, ids: Sequence[str]) -> None:
        """Take the node ids of the tests in the order in which a worker collected them; the first worker's counts.

        A test that was collected twice (``--keep-duplicates``) is where it came first, as without workers.
        """
        for nodeid in ids:  # one that was started again adds nothing: places of gates that ended stay as they are
            self._places.setdefault(nodeid, len(self._places))

    def arrange(self) -> None:
        """Put what workers came to, each at its own pace, into the order of collection: that of a run without them.

        What has no place among the tests, such as a file that could not be collected, stays before them.
        """
        if not self._places:
            return
        self._arrange(self._verdicts)
        self._arrange(self.commands)
        self._arrange(self.unjudged)
        self.asked.sort(key=lambda asked: self._place(asked.test))

    def _arrange(self, by_test: dict[str, V]) -> None:
        ordered = sorted(by_test.items(), key=lambda of_test: self._place(of_test[0]))
        by_test.clear()
        by_test.update(ordered)

    def _place(self, test: str) -> int:
        return self._places.get(test, -1)

    def receive(self, carried: Mapping[str, Any], *, ran: str) -> None:
        """Take a test's verdicts out of its report; those of an earlier attempt at it no longer count.

        ``ran`` is the node id of what was run: a gate that pytest-repeat multiplies is several, none of its name.
        """
        self.used = self.used or carried["used"]
        if carried["verdicts"] is None:
            return
        if carried["run"]:
            self._session.adopt(carried["run"])
        if ran in self._places:
            self._places[carried["test"]] = min(self._places.get(carried["test"], self._places[ran]), self._places[ran])
        self._verdicts[carried["test"]] = [from_json(Verdict, fields) for fields in carried["verdicts"]]
        self.commands[carried["test"]] = carried["again"]

    def hear(self, report: pytest.TestReport) -> None:
        """Take out of a report why its test failed, and what it sent engines that are recorded."""
        self.unjudged.settle(report)
        if sent := getattr(report, ASKED, None):
            self.asked += [from_json(Asked, each) for each in sent]

    def ended(self, handed_back: Mapping[str, Any]) -> None:
        """Take what a worker planned and gathered: under xdist nobody else collects tests."""
        if handed_back["run"]:
            self._session.adopt(handed_back["run"])
        self.misuse = self.misuse or handed_back["misuse"]
        self.planned = self.planned or handed_back["plan"]
        self.taken |= set(handed_back["taken"])
        self.reached += handed_back["reached"]
        self.engines |= {name: from_json(EngineRecord, fields) for name, fields in handed_back["engines"].items()}


class Ending:
    """Ends the session of one process; ``summary`` and ``notes`` are what the terminal is shown then.

    ``problems`` says of each gate that cannot run why, ``deciding`` decides by a policy, where there is one.
    """

    def __init__(
        self,
        config: pytest.Config,
        session: Session,
        tally: Tally,
        deciding: Deciding | None,
        *,
        problems: Mapping[str, str],
    ) -> None:
        self.summary: list[str] = []
        self.notes: list[str] = []
        self._config = config
        self._session = session
        self._settings = session.settings
        self._tally = tally
        self._deciding = deciding
        self._problems = problems

    def finish(self, exitstatus: int) -> int:
        """Write the reports, keep the summary, stop every engine; return the exit status that counts.

        A worker leaves reports and summary to the controller. ``exitstatus`` is pytest's own.
        """
        try:
            if xdist.is_worker(self._config):
                taken = sorted(self._tally.taken)
                found_out = {name: to_json(record) for name, record in self._session.found_out().items()}
                given = {
                    "run": self._session.run,
                    "plan": self._tally.planned,
                    "taken": taken,
                    "reached": self._tally.reached,
                    "engines": found_out,
                    "misuse": self._tally.misuse,
                }
                xdist.hand_back(self._config, given)
            elif self._config.option.collectonly:
                exitstatus = self._told_ahead(exitstatus)
            else:
                self._tally.arrange()
                self._tally.unjudged.end(exitstatus)
                self._report()
                self.summary += self._kept() if exitstatus == pytest.ExitCode.INTERRUPTED else []
        except (LLMParityError, OSError) as error:
            if exitstatus == pytest.ExitCode.OK and (self._settings.reports or self._settings.history):
                exitstatus = pytest.ExitCode.TESTS_FAILED
            self.summary.append(f"llmparity: the report could not be written: {error}")
            if self._deciding is not None and not xdist.is_worker(self._config):
                exitstatus = self._deciding.unwritten(exitstatus)
                self.summary += [self._deciding.trouble] if self._deciding.trouble else []
        else:
            if not xdist.is_worker(self._config) and not self._config.option.collectonly:
                exitstatus = self._whole(exitstatus)
            if self._tally.misuse and not xdist.is_worker(self._config):
                self.summary.append(f"ERROR: {self._tally.misuse}; nothing was asked")
                exitstatus = pytest.ExitCode.USAGE_ERROR
        finally:
            self.summary += self._session.close()
            self.summary = list(map(uncommanded, self.summary))
        return exitstatus

    def _kept(self) -> list[str]:
        """Say of a run that was stopped that it goes on, where it does."""
        try:
            run = self._session.kept()
            timed = bool(run) and self._session.store().times_again(run)
        except (LLMParityError, OSError):  # a store that cannot be read goes on with nothing
            return []
        if not run:
            return []
        line = (
            f"stopped: what was answered is kept in run {run}, and the same command goes on with it (within "
            f"{HOURS_S // 3600:g} hours of its beginning, later with --parity-resume)"
            f"{'; what was timed is timed again' if timed else ''}"
        )
        return wrapped(line, WIDTH, indent="  ")

    def _told_ahead(self, exitstatus: int) -> int:
        """Say after ``--collect-only`` which tests cannot run, and return the exit status a run would have for that."""
        self.summary += planned.unrunnable(self._problems)
        return planned.exit_code_ahead(exitstatus, self._problems)

    def _whole(self, exitstatus: int) -> int:
        """Take note that everything was judged and reported; return the exit status that counts."""
        judged = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if exitstatus == pytest.ExitCode.OK and self._judged_nothing():
            self.summary.append("nothing was judged in this run, and --parity-required asks for a verdict")
            exitstatus = pytest.ExitCode.TESTS_FAILED
        if judged and self._settings.update_golden:
            exitstatus = self._record_golden(exitstatus)
        if judged:
            try:
                removed = self._session.conclude(self._tally.verdicts, self._tally.commands, self._tally.unjudged)
                self.summary += removed if verbosity(self._config) > 0 else []
            except (LLMParityError, OSError) as error:
                self.summary.append(f"llmparity: the store of runs could not be tidied: {error}")
        if self._deciding is not None:
            exitstatus = self._deciding.exit_code(exitstatus)
            self.summary += [self._deciding.trouble] if self._deciding.trouble else []
        return exitstatus

    def _judged_nothing(self) -> bool:
        """Whether a run that must judge something settled nothing, read no answer and ran no test on an engine."""
        partly = self._settings.cases or self._settings.shard
        return self._settings.required and not self._tally.used and not partly

    def _report(self) -> None:
        """Report what there is; a report that was asked for is written even where no gate got as far as a verdict."""
        self.summary += [] if self._tally.told else self._tally.planned
        self.summary += [
            f"the fixture engine is this suite's own ({place}); that of llmparity is parity_engine too"
            for place in sorted(self._tally.taken)
        ]
        if self._tally.reached and not any(self._tally.reached) and engines_typed(self._config):
            self.summary += wrapped(UNUSED, WIDTH)
        self.summary += self._keep_asked()
        if not (self._tally.verdicts or self._session.run or self._settings.reports):
            return
        record = self._session.record(self._tally.verdicts, self._tally.commands, self._tally.unjudged)
        if self._settings.shard is not None:
            self.summary += terminal.summary(record, verbose=verbosity(self._config) > 0)
            self.summary += shards.lines(self._session)
            return
        if not self._session.run:
            known = self._tally.engines | self._session.found_out()
            engines = [known.get(spec.name, spec) for spec in planned.configured(self._settings)]
            record = dataclasses.replace(record, engines=tuple(engines))
        if self._deciding is not None and self._session.run:
            record = self._deciding.decide(self._session, record, self._tally.unjudged)
            self._deciding.keep(self._session, record)
            self._deciding.tell_junit(self._config)
        elif self._session.run and self._session.first_judged:
            recorded.forget_decisions(self._session.store(), self._session.run)
        record = dataclasses.replace(record, strict=self._settings.inconclusive == "fail")
        self._config.hook.pytest_llmparity_report(config=self._config, record=record)
        if self._settings.cases:
            self.summary += terminal.answer_lines(self._session.samples())
        self.summary += terminal.summary(record, verbose=verbosity(self._config) > 0)
        self.summary += self._write(record)
        self._tell_workflow(record)
        self.summary += self._keep_in_history(record)
        if self._deciding is not None:
            self.summary += self._deciding.lines(width=WIDTH)

    def _record_golden(self, exitstatus: int) -> int:
        """Write what the engines answered as golden, where that was asked for; a run that wrote something fails."""
        from pytest_llmparity.run.recording import writing

        try:
            lines, wrote = writing.of_session(self._session)
        except (LLMParityError, OSError) as error:
            lines, wrote = [f"golden: nothing was written: {self._session.mask.text(str(error))}"], True
        for line in lines:
            self.summary += wrapped(printable(line), WIDTH, indent="  ")
        return pytest.ExitCode.TESTS_FAILED if wrote and exitstatus == pytest.ExitCode.OK else exitstatus

    def _keep_asked(self) -> list[str]:
        """Store with the run what plain tests sent, and say where it is."""
        asked = self._tally.asked
        if not asked:
            return []
        from pytest_llmparity.run.application.plain import CALLS, Told

        places = ["calls.jsonl"] if "json" in self._settings.reports else []
        if self._session.run:
            self._session.store().put_document(self._session.run, CALLS, to_json(Told(asked=tuple(asked))))
            places.insert(0, "the store, with the run")
        calls = count(sum(len(each.calls) for each in asked), "call")
        tests = count(len({each.test for each in asked}), "test")
        kept = f"in {' and '.join(places)}"
        if not places:
            kept = "nowhere: this run has no gate, and --parity-report=json was not asked for"
        return wrapped(f"recorded: {calls} of {tests}, kept {kept}", WIDTH)

    def _write(self, record: RunRecord) -> list[str]:
        if not self._settings.reports:
            return []
        written = files.write(
            self._settings.reports,
            record,
            self._session.samples(),
            self._settings.out,
            root=self._config.rootpath,
            origin=self._session.origin(self._tally.verdicts),
            history=self._session.history(record) if "html" in self._settings.reports and self._session.run else (),
            asked=self._tally.asked,
        )
        return [f"report: {self._place(path)}" for path in written]

    def _keep_in_history(self, record: RunRecord) -> list[str]:
        """Add the run to the file that the settings name; say so where it was added."""
        path = self._session.add_to_history(record)
        return [] if path is None else [f"history: run {record.run} is kept in {self._place(path)}"]

    def _place(self, path: Path) -> str:
        """Return where a file is, as seen from where pytest was started."""
        return as_typed(path, self._config.invocation_params.dir)

    def _tell_workflow(self, record: RunRecord) -> None:
        """Give a workflow of GitHub what it shows by itself; nobody asked for it, so it fails no run."""
        self.notes = github.commands(record.verdicts, os.environ, root=self._config.rootpath)
        try:
            github.add_summary(
                record,
                self._session.samples(),
                os.environ,
                root=self._config.rootpath,
                origin=self._session.origin(self._tally.verdicts),
            )
            if self._deciding is not None:
                self._deciding.tell_workflow(self._config.rootpath)
        except OSError as error:
            self.summary.append(f"the summary of the workflow's step could not be written: {error}")
