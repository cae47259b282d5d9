"""What the hooks of one pytest process share: the session, what each test declared, the verdicts so far."""

from __future__ import annotations

import contextlib
import inspect
import os
import shlex
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import pytest

from pytest_llmparity.core.errors import KeeperError, LLMParityError, MachineError, UsageError, advice
from pytest_llmparity.core.gate import PLUGIN, VARIANTS_OPTION
from pytest_llmparity.core.sample import ApplicationCall, to_json
from pytest_llmparity.core.verdict import SEVERITY, Outcome, Verdict
from pytest_llmparity.core.words.brief import one_line
from pytest_llmparity.core.words.explain import explained, failure_text, pair
from pytest_llmparity.core.words.printable import printable_lines
from pytest_llmparity.embedding import default_embedder
from pytest_llmparity.engines import daemons
from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.plugin import applications, repeats, shards, xdist
from pytest_llmparity.plugin.options import given_to, verbosity
from pytest_llmparity.plugin.placing import CLUSTER, Placing
from pytest_llmparity.plugin.telling import planned
from pytest_llmparity.plugin.telling.ending import ASKED, Ending, Tally
from pytest_llmparity.plugin.telling.harmless import harmless, shorten
from pytest_llmparity.report import junit
from pytest_llmparity.report.progress import Bars, Lines, Silent
from pytest_llmparity.run.declare.gates import Untagged
from pytest_llmparity.run.parity import ParityFailure, ParityRun
from pytest_llmparity.run.session import Session
from pytest_llmparity.settings.specification import Settings
from pytest_llmparity.settings.variants import to_text


class Door:
    """One per pytest process in which engines are selected."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.broken: str | None = None
        self._concluded: dict[str, list[Verdict]] = {}
        self._problems: dict[str, str] = {}
        self._runs: dict[str, ParityRun] = {}
        self._handed: dict[str, str] | None = xdist.shared(config)
        self._token = self._handed["token"] if self._handed else uuid.uuid4().hex
        self._declared: set[str] = set()
        self._untagged: dict[str, str] = {}
        self._briefly: dict[str, str] = {}
        self._heard: dict[str, dict[str, tuple[ApplicationCall, ...]]] = {}
        self.placing = _placing(config, settings, self._token, self._handed)
        self.session = Session(
            settings,
            root=config.rootpath,
            token=self._token,
            keeper=self._keeper,
            version=metadata.version("pytest-llmparity"),
            progress=_progress(config),
            embedder=default_embedder,
            elsewhere=None if self.placing is None else self.placing.cluster,
            part=list if self.placing is None else self.placing.close,
        )
        self.tally = Tally(self.session)
        self._deciding = None
        gated, records = (config.getoption(f"parity_{name}", None) is not None for name in ("gate_run", "recorder"))
        if settings.policy is not None or (gated and not records):
            from pytest_llmparity.core.gate.policy import Policy
            from pytest_llmparity.plugin.release.deciding import Deciding

            self._deciding = Deciding(settings.policy or Policy(), silent=gated)
        self.ending = Ending(config, self.session, self.tally, self._deciding, problems=self._problems)

    # before the tests ------------------------------------------------------------------------------------------------

    def share(self) -> dict[str, str]:
        """Return what a worker of xdist needs; the keeper is spawned here, in the controller."""
        known = {"token": self._token, "attached": daemons.to_text(self.settings.engines)}
        known |= {} if self.placing is None else self.placing.share()
        try:
            return known | {"keeper": self.session.keeper().address}
        except LLMParityError as error:  # engines that are only attached to need no keeper: workers tell who does
            return known | {"trouble": str(error)}

    def prepare(self, items: Sequence[pytest.Item]) -> None:
        """Read the markers of the tests that will run; what is wrong with one is told by its own set-up.

        A test marked ``skip`` will not run. Whether ``skipif`` holds is known at set-up only, so such tests are read.
        """
        for item in items:
            marker = item.get_closest_marker("parity")
            gate = repeats.gate_of(item)
            if marker is None or gate in self._declared or gate in self._untagged:
                continue
            if item.get_closest_marker("skip"):
                self._spare(gate, item, marker)
                continue
            self._declared.add(gate)
            try:
                self.session.gates.declare(
                    gate, marker.args, marker.kwargs, folder=item.path.parent, **applications.called(item)
                )
            except Untagged as error:
                self._declared.discard(gate)
                self._untagged[gate] = str(error)
            except LLMParityError as error:
                self._problems[gate] = str(error)
        if items:
            self._refuse_unfit()
        if self._deciding is not None and items and not xdist.is_worker(self.config):
            self._deciding.refuse_unfit(self.session, items)
        if xdist.is_worker(self.config) and not self.tally.misuse and xdist.plans(self.config):
            self.tally.planned = self.plan_lines(detailed=verbosity(self.config) > 0)
            xdist.tell_plan(self.config, self.tally.planned)

    def collected(self, ids: Sequence[str], plan: Sequence[str]) -> None:
        """Take the tests that a worker of xdist collected, and show its plan, which nobody has been asked yet."""
        self.tally.collected(ids)
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if plan and reporter is not None and not self.tally.told:
            self.tally.told = True
            if reporter.isatty:  # there xdist rewrites the line of its status in place: it has no end yet
                reporter.write_line("")
            for line in plan:
                reporter.write_line(line)

    def _refuse_unfit(self) -> None:
        """Raise ``pytest.UsageError`` for a case or tag no test has, unless a test of which nothing is known may.

        So does a replay for engines that no stored run has.
        """
        try:
            if not self._problems:
                self.session.refuse_unfit()
        except UsageError as error:
            if not xdist.is_worker(self.config):
                raise pytest.UsageError(str(error)) from None
            self.tally.misuse = str(error)  # the controller ends with it; no test of this worker runs

    def _spare(self, gate: str, item: pytest.Item, marker: pytest.Mark) -> None:
        """Take note of what a skipped test would ask, as far as it can be read: it will be asked another day."""
        try:
            self.session.gates.spare(gate, marker.args, marker.kwargs, folder=item.path.parent)
        except LLMParityError:
            self.session.gates.partly = True

    def gather(self) -> None:
        """Gather what the tests declared; an error of ours becomes the set-up error of every gate."""
        if self.tally.misuse:
            return
        try:
            self.session.gather()
        except LLMParityError as error:
            self.broken = self.session.mask.text(str(error))
        except OSError as error:
            self.broken = self.session.mask.text(str(_machine(error)))

    def header(self) -> list[str]:
        """Return one line per selected engine, as configured, and what starting them runs."""
        by = [self._deciding.header()] if self._deciding is not None and self.settings.policy is not None else []
        return planned.header(self.session) + by

    def plan_lines(self, *, detailed: bool) -> list[str]:
        """Return the plan: requests to each engine and in all, and tokens; in detail also every gate with its power."""
        return planned.plan_lines(self.session, self._problems, detailed=detailed)

    # around one test -------------------------------------------------------------------------------------------------

    def attempt(self, item: pytest.Item) -> str | None:
        """Begin a test, which may have run before; say why this gate cannot run at all, ``None`` when it can.

        One that a shard leaves to the judge of all shards ends here.
        """
        gate = repeats.gate_of(item)
        self._runs.pop(gate, None)
        self._concluded.pop(gate, None)
        if self.tally.misuse:
            return self.tally.misuse
        if gate in self._problems:
            return self._problems[gate]
        if (gate in self._declared or gate in self._untagged) and self.broken:
            return self.broken
        if gate in self._untagged:
            pytest.skip(self._untagged[gate])
        shards.set_aside(self.session, item, gate=gate in self._declared)
        return None

    def run_of(self, item: pytest.Item) -> ParityRun | None:
        """Return what this test gathered, ``None`` for a test without a marker."""
        gate = repeats.gate_of(item)
        if gate not in self._declared:
            return None
        if gate not in self._runs:
            self._runs[gate] = self.session.parity_run(gate, reproduce=self._reproduce(item))
        return self._runs[gate]

    def conclude(self, item: pytest.Item, parity_run: ParityRun) -> list[Verdict]:
        """Settle one test's verdicts, hand them to properties and observers, and return them."""
        __tracebackhide__ = True
        gate = repeats.gate_of(item)
        try:
            verdicts = self._concluded[gate] = self.session.settle(gate, parity_run)
        except LLMParityError as error:
            pytest.fail(str(error), pytrace=False)
        item.user_properties[:] = [(name, value) for name, value in item.user_properties if not junit.ours(name)]
        if verdicts and repeats.is_last(item) and (part := self.session.part_of(gate)):
            item.user_properties.append((junit.PORTION, part))
        for verdict in verdicts:
            if repeats.is_last(item):
                item.user_properties.extend(junit.properties(verdict))
            self.config.hook.pytest_llmparity_check_finished(item=item, verdict=verdict)
        if verdicts:
            worst = max((verdict.outcome for verdict in verdicts), key=SEVERITY.index)
            item.user_properties.append((xdist.OUTCOME, worst.value))
        return verdicts

    def defuse(self, error: BaseException) -> None:
        """Escape control sequences in an assertion's text and in ours: both repeat what a model wrote.

        Other exceptions belong to the code that raised them, which may read their arguments.
        """
        if not isinstance(error, (AssertionError, pytest.fail.Exception, LLMParityError)):
            return
        error.args = tuple(printable_lines(arg) if isinstance(arg, str) else arg for arg in error.args)
        if isinstance(error, pytest.fail.Exception) and error.msg:
            error.msg = printable_lines(error.msg)

    def fails(self, verdicts: Sequence[Verdict]) -> bool:
        """Tell whether these verdicts fail their test."""
        strict = self.settings.inconclusive == "fail"
        return any(v.outcome.fails_test or (strict and v.outcome is Outcome.INCONCLUSIVE) for v in verdicts)

    def raise_outcome(self, item: pytest.Item, verdicts: Sequence[Verdict], parity_run: ParityRun) -> None:
        """Fail or skip a gate whose body has ended; a gate that judged nothing and read nothing fails."""
        __tracebackhide__ = True
        if self.fails(verdicts):
            self._briefly[item.nodeid] = one_line(verdicts)
            pytest.fail(self.explain(item, verdicts), pytrace=False)
        outcomes = {verdict.outcome for verdict in verdicts}
        if verdicts and self.settings.required and all(verdict.rests_on_nothing for verdict in verdicts):
            reasons = "; ".join(dict.fromkeys(verdict.reason or verdict.message for verdict in verdicts))
            pytest.fail(f"nothing was judged, and --parity-required asks for a verdict: {reasons}", pytrace=False)
        if Outcome.INCONCLUSIVE in outcomes and self.settings.inconclusive == "skip":
            pytest.skip(self.explain(item, verdicts).partition("\n")[0])
        if self.settings.required and any(verdict.advises for verdict in verdicts):
            return  # advice is all that was asked for, and it was given
        if outcomes <= {Outcome.SKIPPED} and not parity_run.touched:
            if verdicts:
                pytest.skip("; ".join(dict.fromkeys(verdict.message for verdict in verdicts)))
            if self.settings.cases:
                pytest.skip("--parity-case gathers rows and gives no verdict, and this test reads no row")
            pytest.fail(
                "this parity test judged nothing and read no answer; add a check to its marker, such as check.text(), "
                "or read rows from parity_run",
                pytrace=False,
            )

    def annotate(self, error: BaseException, item: pytest.Item, verdicts: Sequence[Verdict]) -> None:
        """Add to the error of a test's body what its verdicts say, where they fail it and the error has not said so."""
        if isinstance(error, ParityFailure):
            in_error = {(v.check, v.kind, v.engine, v.where) for v in error.verdicts}
            for verdict in (v for v in verdicts if (v.check, v.kind, v.engine, v.where) in in_error):
                if why := explained(verdict):  # found out since the error was raised
                    error.add_note("\n".join([f"{verdict.kind}, {pair(verdict)}:", *(f"  {line}" for line in why)]))
            verdicts = [v for v in verdicts if (v.check, v.kind, v.engine, v.where) not in in_error]
        if self.fails(verdicts):
            command = "" if isinstance(error, ParityFailure) else self._reproduce(item)
            error.add_note(failure_text(verdicts, reproduce=command))

    def explain(self, item: pytest.Item, verdicts: Sequence[Verdict]) -> str:
        """Return the failure text of one test, its headline first."""
        text = failure_text(verdicts, reproduce=self._reproduce(item))
        if self.settings.inconclusive != "fail" or any(verdict.outcome.fails_test for verdict in verdicts):
            return text
        headline, line, others = text.partition("\n")
        return f"{headline} (open, which fails by --parity-inconclusive fail){line}{others}"

    def _reproduce(self, item: pytest.Item) -> str:
        """Return the command that repeats this test with the same selection, wherever the selection came from."""
        inside = repeats.gate_of(item).partition("::")[2]
        here = self.config.invocation_params.dir
        words = ["pytest", f"{os.path.relpath(item.path, here)}::{inside}"]
        # Whole paths, as pytest read them: a test may have gone to another folder since.
        if self.config.option.inifilename is not None and self.config.inipath is not None:
            words += ["-c", os.path.relpath(self.config.inipath, here)]
        if self.config.option.rootdir is not None:
            words += ["--rootdir", os.path.relpath(self.config.rootpath, here)]
        given = given_to(self.config)
        for value in given.engines[0]:
            words += ["--engines", value]
        for option in ("baseline", "config", "profile"):
            if given.value(option) is not None:
                words += [f"--parity-{option}", str(given.value(option))]
        if given.variants:
            words += ["-p", PLUGIN, VARIANTS_OPTION, to_text(given.variants)]
        words += self.settings.portion.words
        for option in ("frozen", "sequential"):
            if getattr(self.settings, option):
                words.append(f"--parity-{option}")
        if self.settings.mode == "replay":
            words += ["--parity-mode", f"replay={self.session.run}"]
        return shlex.join(words)

    def notice(self, function: Callable[..., object]) -> None:
        """Take note of a fixture named as ours that was set up: what a suite means by it may be a database."""
        code = getattr(inspect.unwrap(function), "__code__", None)
        if code is not None and not function.__module__.startswith("pytest_llmparity."):
            path = os.path.relpath(code.co_filename, self.config.rootpath)
            self.tally.taken.add(f"{path}:{code.co_firstlineno}")

    def overhear(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Put into a report what the test sent engines that are recorded; a person sees it where the test failed."""
        asked = self.session.asked(item.nodeid)
        if asked:
            setattr(report, ASKED, [to_json(each) for each in asked])
        heard = self._heard.setdefault(item.nodeid, {})
        for each in asked:
            heard[each.engine] = (*heard.get(each.engine, ()), *each.calls)
        if report.failed and heard:
            report.sections += [(f"calls of {engine}", text) for engine, text in self._calls(item, heard)]

    def _calls(self, item: pytest.Item, heard: Mapping[str, tuple[ApplicationCall, ...]]) -> Iterator[tuple[str, str]]:
        """Yield what was sent to each engine, beside what the same test sent another one, if it ran before."""
        from pytest_llmparity.report.terminal.asked import asked

        callspec = getattr(item, "callspec", None)
        name = None if callspec is None else callspec.params.get("llmparity_engine_name")
        for engine, calls in heard.items():
            others = [other.name for other in self.settings.engines if name == engine != other.name]
            elsewhere = ((o, self._heard.get(item.nodeid.replace(f"[{name}", f"[{o}"), {}).get(o, ())) for o in others)
            other, of_other = next(((o, made) for o, made in elsewhere if made), ("", ()))
            yield engine, "\n".join(asked(engine, calls, other=other, others=of_other))

    # after the tests -------------------------------------------------------------------------------------------------

    def tidy(self, item: pytest.Item, report: pytest.TestReport, error: BaseException | None) -> None:
        """Take out of what pytest will print of a test whatever a CI service would execute.

        The line of a test of ours in the short summary says why it failed, numbers first, and is one line: on a CI
        service pytest would print the whole text there once more.
        """
        self.overhear(item, report)
        if report.failed:
            words = self._briefly.pop(item.nodeid, "") or getattr(error, "brief", "")
            if repeats.gate_of(item) in self._declared or "llmparity_door" in getattr(item, "fixturenames", ()):
                shorten(report.longrepr, words)
            repeats.say_why(report, error, judged=bool(words))
        report.longrepr, report.sections = harmless(report.longrepr), harmless(report.sections)

    def carry(self, item: pytest.Item, *, judged: bool) -> dict[str, Any]:
        """Return what travels with a test's report from a worker to the controller: builtins only.

        ``judged`` tells that the test was run, also where it was expected to fail. It used this plugin if it settled
        something, read an answer, or ran on an engine.
        """
        gate = repeats.gate_of(item)
        verdicts, parity_run = self._concluded.get(gate), self._runs.get(gate)
        used = any(verdict.outcome is not Outcome.SKIPPED or verdict.advises for verdict in verdicts or ())
        used = used or (parity_run is not None and parity_run.touched and not verdicts)
        used = used or (parity_run is None and "llmparity_door" in getattr(item, "fixturenames", ()))
        carried = None if verdicts is None else [to_json(verdict) for verdict in verdicts]
        command = self._reproduce(item) if carried else ""
        return {"run": self.session.run, "test": gate, "verdicts": carried, "used": judged and used, "again": command}

    def _keeper(self) -> Keeper:
        if self._handed and "trouble" in self._handed:
            raise KeeperError(self._handed["trouble"])
        if self._handed:
            return Keeper.connect(self._handed["keeper"])
        return Keeper.spawn(self.config.rootpath / ".llmparity")


def _machine(error: OSError) -> MachineError:
    """Return what the operating system refused as an error of ours; what was gathered by then is in the store."""
    return MachineError(
        f"this machine stopped the run: {advice(error)}; what was answered is kept, run again to go on (anything timed "
        "is timed again)"
    )


def _progress(config: pytest.Config) -> Bars | Silent:
    """Draw bars where a person watches a terminal and this process owns it; elsewhere write a line now and then.

    So does a worker of xdist: its standard error is that of the process that started it.
    """
    capture = config.pluginmanager.getplugin("capturemanager")
    if not sys.__stderr__ or verbosity(config) < 0:
        return Silent()
    lifted = contextlib.nullcontext if capture is None else capture.global_and_fixture_disabled
    owned = sys.__stderr__.isatty() and not xdist.is_worker(config)
    return (Bars if owned else Lines)(sys.__stderr__, lifted)


def _placing(config: pytest.Config, settings: Settings, token: str, handed: dict[str, str] | None) -> Placing | None:
    """Return the cluster that engines of this run are placed on, ``None`` where they run on this machine.

    Joined before anything is collected, unless nothing will be asked or another process of the run did.
    """
    if not settings.placed:
        return None
    placing = Placing(
        settings, token=token, workdir=config.rootpath / ".llmparity", address=(handed or {}).get(CLUSTER)
    )
    if handed is None and not config.option.collectonly:
        config.add_cleanup(placing.leave)
        placing.refuse_unfit()
    return placing
