"""``--parity-policy``: the policy is held against the suite before anybody is asked, and decides when all is judged."""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.core.errors import ConfigError, UsageError
from pytest_llmparity.core.gate.policy import Policy, Ruled
from pytest_llmparity.core.identity.record import DecisionRecord, RunRecord
from pytest_llmparity.core.prompts.arms import as_declared
from pytest_llmparity.core.sample import to_json
from pytest_llmparity.core.words.exits import OF_DECISION
from pytest_llmparity.core.words.printable import printable
from pytest_llmparity.plugin.repeats import gate_of
from pytest_llmparity.report import json, junit
from pytest_llmparity.report.release import gate, kept
from pytest_llmparity.report.workflow import github
from pytest_llmparity.run.judge.decided import Decided, decided_of
from pytest_llmparity.run.judge.recorded import DECISIONS, WholeRun
from pytest_llmparity.store import decisions

if TYPE_CHECKING:
    from pytest_llmparity.run.session import Session

_ORDER = tuple(Ruled)


class Deciding:
    """Decides about the candidates of one run; ``silent``: ``llmparity gate`` started it, and says it itself."""

    def __init__(self, policy: Policy, *, silent: bool) -> None:
        self.policy = policy
        self.silent = silent
        self.made: list[Decided] = []
        self._records: tuple[DecisionRecord, ...] = ()
        self.trouble = ""
        self._kept = False

    def header(self) -> str:
        """Return the line that says by what is decided, and what checks are held to."""
        policy = self.policy
        held = "; ".join(f"{limit}{'' if limit.test == '*' else f' in {limit.test}'}" for limit in policy.limits)
        return printable(f"policy: {policy.source} (sha256 {policy.short}){f', holds {held}' if held else ''}")

    def refuse_unfit(self, session: Session, items: Sequence[pytest.Item]) -> None:
        """Raise ``pytest.UsageError`` for a rule or limit that names nothing of the suite, before anybody is asked.

        Under xdist it is refused after the run: no process that could say so knows the tests before.
        """
        declared = {each.test: each for each in session.gates.declarations()}
        for item in items:
            runs = item.get_closest_marker("parity") and not item.get_closest_marker("skip")
            if runs and gate_of(item) not in declared:
                return  # its marker cannot be used, which its set-up will tell
        names: dict[str, list[str]] = {gate_of(item): [] for item in items}
        names |= {test: [check.kind for check in each.checks] for test, each in declared.items()}
        tags = {
            test: [tag for case in as_declared(each.prompts).cases for tag in case.tags]
            for test, each in declared.items()
        }
        try:
            self.policy.refuse_idle(names, declared=True, tags=tags)
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from None

    def decide(self, session: Session, record: RunRecord, tests: Mapping[str, str]) -> RunRecord:
        """Return the record of a run with what the policy makes of each candidate; ``tests`` has why each failed."""
        whole = WholeRun(record=record, samples=session.samples(), origin=session.origin(record.verdicts), tests=tests)
        candidates = [engine.name for engine in record.engines if not engine.baseline]
        try:
            self.made = [
                decided_of(
                    session.store(), whole, self.policy, root=session.root, baseline=session.baseline, candidate=c
                )
                for c in candidates
            ]
        except UsageError as error:
            self.trouble = f"nothing is decided: {error}"
            return record
        self._records = tuple(kept.kept(each.decision) for each in self.made)
        return dataclasses.replace(record, decisions=self._records)

    def keep(self, session: Session, record: RunRecord) -> None:
        """Write down what was decided, for reports of the run and for ``llmparity gate --history``."""
        if session.first_judged:  # any other replay leaves the verdicts of its run as they are
            content = {
                "sha256": self.policy.sha256,
                "limits": self.policy.limits_sha256,
                "policy": self.policy.source,
                "decisions": [to_json(each) for each in record.decisions],
            }
            session.store().put_document(record.run, DECISIONS, content)
        now = datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")
        for each in [] if self.silent else self.made:
            line = kept.record(each.decision, each.whole, decided=now, root=session.root)
            decisions.append(session.root / ".llmparity", line)
        self._kept = True

    def tell_junit(self, config: pytest.Config) -> None:
        """Give a JUnit report the decisions as properties of its suite.

        pytest has written the file by now: decisions need what the last worker hands back, so it is written again.
        """
        places = json.here(config.rootpath, ())  # a policy may have been named by an absolute path
        properties = [pair for decision in self._records for pair in junit.of_decision(decision)]
        shortened = [(name, places.shorten(value)) for name, value in properties]
        for plugin in config.pluginmanager.get_plugins() if shortened else ():
            kind = type(plugin)
            # pytest gives no other way to its writer at the end; a plugin of somebody's may have what it has.
            if (kind.__module__, kind.__name__) == ("_pytest.junitxml", "LogXML"):
                for name, value in shortened:
                    plugin.add_global_property(name, value)
                plugin.pytest_sessionfinish()

    def lines(self, *, width: int) -> list[str]:
        """Return the decisions in words."""
        if self.silent:
            return []
        decisions = zip(self._records, self.made, strict=True)
        return [line for decision, each in decisions for line in ("", *gate.message(decision, each.whole, width=width))]

    def tell_workflow(self, root: Path) -> None:
        """Give a workflow of GitHub the decisions, below the summary of the run."""
        for decision, each in [] if self.silent else zip(self._records, self.made, strict=True):
            message = gate.message(decision, each.whole)
            github.add_decision(gate.shared(message, each.whole, root=root), os.environ)

    def exit_code(self, exitstatus: int) -> int:
        """Return the exit code of the worst decision; where there is none a mistake was made, of which 4 tells."""
        if self.silent or exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return exitstatus
        if not self.made:
            self.trouble = self.trouble or "nothing is decided: no test asked the engines anything"
            return pytest.ExitCode.USAGE_ERROR
        return OF_DECISION[max((each.decision.outcome for each in self.made), key=_ORDER.index)]

    def unwritten(self, exitstatus: int) -> int:
        """Return the exit code where something could not be written: neither that of SHIP nor that of HOLD.

        What ``llmparity gate`` started only has to keep what it decides on, for the report is not the decision.
        """
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or (self.silent and self._kept):
            return exitstatus
        why = "the decision was not told in full" if self._kept else "the decision could not be kept"
        self.trouble = f"nothing is decided: {why}, so it counts as none"
        return pytest.ExitCode.USAGE_ERROR
