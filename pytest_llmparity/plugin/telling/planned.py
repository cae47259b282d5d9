"""What is said before the first test: which engines are compared, and what will be asked of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.core.evidence import FLOOR_PHASES
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.prompts.arms import as_declared
from pytest_llmparity.core.words.explain import count
from pytest_llmparity.core.words.printable import printable, uncommanded
from pytest_llmparity.report.terminal import ahead
from pytest_llmparity.run.course import WAVE
from pytest_llmparity.run.explain import may_fail
from pytest_llmparity.run.gather.lanes import describe, lanes_of
from pytest_llmparity.run.plan import floor_cases, requests_of_unit
from pytest_llmparity.run.probe.preflight import most_requests, some_requests
from pytest_llmparity.run.records import record_of
from pytest_llmparity.settings.specification import Settings

if TYPE_CHECKING:
    from pytest_llmparity.run.plan import Declaration, Plan
    from pytest_llmparity.run.session import Session


def configured(settings: Settings) -> list[EngineRecord]:
    """Return the selected engines as they are configured: nobody has asked them anything yet."""
    return [
        dataclasses.replace(record_of(spec, baseline=settings.baseline), quantization=None) for spec in settings.engines
    ]


def header(session: Session) -> list[str]:
    """Return one line per selected engine, as configured, and what starting them runs."""
    settings = session.settings
    unknown = {spec.name: spec.base_url or "" for spec in settings.asked if spec.kind is None}
    lines = ahead.engine_lines(configured(settings), why=settings.baseline_source, unasked=unknown)
    by_engine = [ahead.header_lines(spec) for spec in settings.engines]
    lines += [session.mask.text(line) for of_engine in by_engine for line in of_engine]
    return list(map(uncommanded, lines))


def plan_lines(session: Session, problems: Mapping[str, str], *, detailed: bool) -> list[str]:
    """Return the plan: requests to each engine and in all, and tokens; in detail also every gate with its power.

    ``problems`` says of each gate that cannot run why; in short its first line, which its set-up tells whole.
    """
    plan = session.gates.plan()
    hopeless = [
        f"  {test} cannot run: {problem}"
        if detailed
        else printable(f"{test} cannot run: {problem.partition(chr(10))[0]}")
        for test, problem in problems.items()
    ]
    if not plan.units:
        return list(map(uncommanded, hopeless))
    lines = _asked(session, plan, detailed=detailed)
    for declaration in session.gates.declarations():
        lines += _power(session, declaration, detailed=detailed)
    return list(map(uncommanded, lines + hopeless))


def _asked(session: Session, plan: Plan, *, detailed: bool) -> list[str]:
    """Return what the run asks of each engine and in all."""
    settings, gates = session.settings, session.gates.declarations()
    portion = settings.portion
    if settings.mode == "replay":
        of_engines = " and has these engines" if settings.engines else ""
        run = settings.replay_run or f"the newest run that asked what is selected{of_engines}"
        return [f"replay of {run}: nothing is asked"]
    if settings.goldens and not settings.asked:
        return ["plan: golden answers are held against each other: nobody is asked"]
    compared = [] if settings.cases else [c.pairwise for each in gates for c in each.checks]
    lines = []
    if settings.company == 1 and any(compared):  # first: whoever reads it may not want the rest to be asked
        lines += ahead.alone_lines(settings.engines[0].name, sum(compared), len(compared))
    lines += [
        ahead.plan_line(
            requests=plan.requests,
            tokens=plan.tokens,
            engines=[spec.name for spec in settings.in_turn()],
            residency=settings.residency,
            asked=describe(lanes_of(settings), settings),
            wave=WAVE if session.settings.in_waves else None,
        )
    ]
    lines += ahead.portion_lines(
        dict.fromkeys(
            f"{each.prompts.name}: {part}" for each in gates if (part := portion.in_words(as_declared(each.prompts)))
        ),
        str(portion),
    )
    lines += ahead.placed_lines([spec for spec in settings.recordable if spec.launched], settings.executor)
    several = [spec for spec in settings.recordable if spec.replicas > 1]
    floors = [unit for unit in plan.units if unit.needs.floor and unit.part is None and unit.application is None]
    if several and floors:
        repeated = sum(floor_cases(unit)[1] for unit in floors)
        lines.append(ahead.replicas_line((1 + len(FLOOR_PHASES)) * repeated, several))
    runs = [requests_of_unit(unit)[1] for unit in plan.units if unit.application is not None]
    if runs:
        lines.append(ahead.runs_line(sum(runs), len(settings.asked)))
    contexts = [spec.context_length for spec in settings.recordable]
    if settings.recordable and (asked := most_requests(plan.units, contexts) + session.canaries):
        lines.append(ahead.probe_line(asked, len(settings.recordable)))
    if searches := _searches(session):
        planned = 0 if settings.in_waves else plan.requests[0] * len(settings.recordable)  # waves may end at any time
        lines.append(ahead.experiments_line(settings, planned=planned, several=searches > 1))
    two_ways = [spec.name for spec in settings.asked if spec.route != "openai"]
    if two_ways:
        lines.append(ahead.route_line(2 * len(some_requests(plan.units)), two_ways))
    return lines


def _searches(session: Session) -> int:
    """Return how many times experiments may be made: for every pair of engines that can be asked, of every test."""
    settings = session.settings
    live = [spec.name for spec in settings.recordable]
    if settings.shard or settings.cases or settings.residency != "together" or settings.baseline not in live:
        return 0
    tests = sum(may_fail(declaration.checks) for declaration in session.gates.declarations())
    return tests * (len(live) - 1) if settings.explain_requests else 0


def _power(session: Session, declaration: Declaration, *, detailed: bool) -> list[str]:
    """Return what the checks of one test can show with its prompts; in short only where that is too little."""
    sequential, prompts = session.settings.in_waves, as_declared(declaration.prompts)
    tokens, checks = prompts.most_tokens(declaration.sampling), declaration.checks
    weak = [check.weakness(sizes=prompts.group_sizes, sequential=sequential, tokens=tokens) for check in checks]
    weak += session.gates.timed_lines(declaration)
    if not detailed:
        return [f"power: {declaration.test}: {line}" for line in weak if line]
    cases, groups = len(prompts.cases), prompts.groups
    lines = [f"  {declaration.test}: {count(cases, 'case')} in {count(groups, 'group')}"]
    power = [check.power(cases=cases, groups=groups, sequential=sequential, tokens=tokens) for check in checks]
    lines += [f"    {line}" for line in power]
    of_tags = [check.tag_line(prompts, sequential=sequential, tokens=tokens) for check in checks]
    lines += [f"    {line}" for line in (*of_tags, *weak) if line]
    return [*lines, *(f"    {line}" for line in session.gates.floor_lines(declaration))]


def unrunnable(problems: Mapping[str, str]) -> list[str]:
    """Return which tests cannot run and why, by their node ids; nothing where all can."""
    if not problems:
        return []
    lines = [f"  {printable(test)}: {printable(why.partition(chr(10))[0])}" for test, why in problems.items()]
    return [f"{count(len(problems), 'test')} cannot run, and a run would end with exit code 1:", *lines]


def told_ahead(session: pytest.Session, problems: Mapping[str, str]) -> list[str]:
    """Give a collection the exit code of its run, and return which of its tests cannot run."""
    session.exitstatus = exit_code_ahead(int(session.exitstatus), problems)
    return unrunnable(problems)


def exit_code_ahead(exitstatus: int, problems: Mapping[str, str]) -> int:
    """Return the exit code of a collection in which some tests cannot run: that of a run, whose set-ups would fail."""
    return pytest.ExitCode.TESTS_FAILED if problems and exitstatus == pytest.ExitCode.OK else exitstatus
