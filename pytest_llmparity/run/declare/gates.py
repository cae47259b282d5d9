"""The gates of a run: a marker becomes a declaration (files found, impossible designs refused), all of them a plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pytest_llmparity.core.checks.alone.stream import StreamCheck
from pytest_llmparity.core.checks.answers import AnswersCheck
from pytest_llmparity.core.checks.base import Misused
from pytest_llmparity.core.checks.drift.floor import planned
from pytest_llmparity.core.checks.latency import LatencyCheck
from pytest_llmparity.core.checks.schema import SchemaCheck
from pytest_llmparity.core.errors import DesignError, UsageError
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.prompts.arms import as_declared
from pytest_llmparity.core.prompts.portion import ALL, Portion
from pytest_llmparity.core.sample import Sampling
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.explain import plain
from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.run.declare.applications import application_of, inputs_of, refuse_mixed, takes_values
from pytest_llmparity.run.declare.marker import (
    THINKING,
    positive,
    refuse_unknown,
    sampling_in,
    with_extra,
    with_thinking,
)
from pytest_llmparity.run.declare.prompts import find, load_prompts, place, text_of
from pytest_llmparity.run.golden.requests import REQUESTS, SPARED, partly_asked, requests_document
from pytest_llmparity.run.judge.asked import ASKED, asked_by
from pytest_llmparity.run.locking import Guard
from pytest_llmparity.run.plan import Declaration, Plan, make_plan, unit_of
from pytest_llmparity.run.shards.dealing import of_shard, part_lines
from pytest_llmparity.settings.sources import SIGNATURE
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
        """Keep and return what a test's marker declares; ``UsageError`` if it cannot be used.

        ``called`` is the function. Raises ``Untagged`` where the portion of the prompts that this run asks holds none
        of its.
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
                in_turn=settings.engines_and_changes,
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

    def write_down(self, store: Store, run: str) -> None:
        """Write down what a run asks, for which tests; what a run of the same plan noted stays, if it asked more."""
        if store.has_document(run, REQUESTS) and (self.partly or not partly_asked(store, run)):
            return
        cases = self._settings.cases
        store.put_document(run, ASKED, asked_by(self.declarations(), only=cases))
        store.put_document(run, REQUESTS, requests_document(self.declarations(), only=cases, partly=self.partly))
        store.put_document(run, SPARED, requests_document(self.skipped))

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
        """Return the plan of what is asked of every engine, the same in every process."""
        settings = self._settings
        plan = make_plan(self.declarations(), only=settings.cases, engines=settings.company)
        if self._untagged or any(declared.prompts.rest for declared in self._declared.values()):
            plan = dataclasses.replace(plan, portion=settings.portion)
        return plan if settings.shard is None else of_shard(plan, settings.shard)

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
        return (
            power_in_turn(declaration, *self._settings.engines_and_changes)
            if self._settings.engines_and_changes
            else []
        )


def _refuse_unknown(
    option: str, asked: Sequence[str], known: Collection[str], noun: str, *, or_none: bool = False
) -> None:
    """Raise ``UsageError`` for what is asked for and not known; ``or_none``: also where nothing is."""
    unknown = [name for name in asked if name not in known]
    if unknown and (known or or_none):
        hint = nearest(unknown[0], known) if known else ", and none has a tag"
        raise UsageError(f"{option} {plain(unknown[0], 60)}: no selected test has {noun}{hint}")


class Untagged(UsageError):
    """No prompt of a set has a tag that is asked for: the test has nothing to ask. ``prompts`` is the whole set."""

    def __init__(self, prompts: PromptSet, portion: Portion) -> None:
        tags = " or ".join(map(explain.plain, portion.tags))
        super().__init__(f"no prompt of {explain.plain(prompts.name, 60)} has the tag {tags} (--parity-tag)")
        self.prompts = prompts


def declare(
    test: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    folders: Sequence[Path],
    concurrency: int,
    engines: int,
    sequential: bool = False,
    in_turn: tuple[int, int] | None = None,
    margins: Callable[[Sequence[Check], PromptSet, Sampling], None] | None = None,
    function: Callable[..., object] | None = None,
    arguments: Mapping[str, object] = MappingProxyType({}),
    portion: Portion = ALL,
) -> Declaration:
    """Return the declaration that one marker makes.

    ``folders`` are searched in order for relative paths (the test file's folder, then the root). ``concurrency`` is
    what holds when the marker names none, ``engines`` how many are selected, ``sequential`` how the answers will be
    judged, ``in_turn`` how many engines are loaded and how often the one in memory may change, where one is at a time.
    ``margins`` refuses checks, on these prompts so asked, that take a margin from where there is none: it is said
    first, because how many prompts a check takes depends on it. ``function`` is the test's and ``arguments`` what its
    parameters give it: with ``check.value`` it is called. ``portion`` says which of the prompts are asked;
    :class:`Untagged` where that is none.
    Raises ``UsageError`` for arguments the marker does not take, ``PromptSetError`` for the prompt file and
    ``DesignError`` for a check that can never settle.
    """
    refuse_unknown(kwargs)
    if not args:
        raise UsageError(f"the parity marker of {test} names no prompt file; write {SIGNATURE}")
    for value in args[1:]:
        if isinstance(value, Misused):  # whatever else is wrong may come of it
            with_schemas(value, folders, PromptSet(name="", cases=()))
    application = None
    if takes_values(args[1:]):
        refuse_mixed(test, args[1:], kwargs)
        prompts = inputs_of(test, args[0], folders)
        if function is not None:
            application = application_of(test, function, arguments, root=folders[-1])
    else:
        prompts = with_extra(load_prompts(args[0], folders, test=test), kwargs.get("extra_body"))
        prompts = with_thinking(prompts, {name: kwargs.get(name) for name in THINKING})
    whole, prompts = prompts, portion.of(prompts)
    if not prompts.cases:
        raise Untagged(whole, portion)
    checks = tuple(_check(value, folders, prompts) for value in args[1:])
    declaration = Declaration(
        test=test,
        prompts=prompts,
        checks=checks,
        sampling=sampling_in(kwargs),
        concurrency=positive(kwargs, "concurrency", concurrency),
        repeats=max(positive(kwargs, "repeats", 1), *(check.needs().repeats for check in checks), 1),
        application=application,
    )
    if margins is not None and any(check.needs().accepted or check.needs().ladder for check in checks):
        margins(checks, prompts, declaration.sampling)
    cases, groups, tokens = len(prompts.cases), prompts.groups, prompts.most_tokens(declaration.sampling)
    problems = [
        f"{problem}: {check} at {place(check.where, folders[-1])}"
        for check in checks
        if not (check.pairwise and engines < 2)
        and (
            problem := check.prompt_problem(prompts)
            or check.problem(cases=cases, groups=groups, engines=engines, sequential=sequential, tokens=tokens)
            or check.tag_problem(prompts, sequential=sequential, tokens=tokens)
        )
    ]
    problems += [
        f"{check} ({check.where}): {needs.timed} timed requests cannot keep concurrency={declaration.concurrency} busy"
        f"{' in two blocks of time, and one settles nothing' if needs.timed_blocks > 1 else ''}: "
        f"give n={needs.timed_blocks * declaration.concurrency} or more, or a lower concurrency"
        for check in checks
        if 0 < (needs := check.needs()).timed < needs.timed_blocks * declaration.concurrency
    ]
    if in_turn is not None:
        loaded, changes = in_turn
        problems += [
            f"{check} ({check.where}): {problem}"
            for check in checks
            if isinstance(check, LatencyCheck)
            and (problem := check.problem_in_turn(engines=loaded, changes=changes, concurrency=declaration.concurrency))
        ]
    problems += [
        f"{check} ({check.where}): {problem}"
        for check in checks
        if check.needs().sampled and (problem := _not_drawn(declaration))
    ]
    problems += [why] if (why := _copies(declaration)) else []
    if len({check.needs().timed_cached for check in checks if check.needs().timed}) > 1:
        problems.append("latency(cached=True) beside a latency check without it: give them a test each")
    problems += [f"{check} ({check.where}): {problem}" for check in checks if (problem := _beside_arms(check, checks))]
    if problems and prompts.rest:
        problems.append(f"this run asks {portion.in_words(prompts)} ({portion})")
    if problems:
        raise DesignError("\n".join(problems))
    both = next((c for c in checks if isinstance(c, (SchemaCheck, StreamCheck)) and c.needs().arms), None)
    return declaration if both is None else dataclasses.replace(declaration, prompts=both.in_both(prompts))


def _beside_arms(check: Check, checks: Sequence[Check]) -> str:
    """Say why a check cannot stand beside one that asks for both arms, empty where it can, or there is none."""
    needs = check.needs()
    both = [each for each in checks if each.needs().arms]
    if not both or check is both[0]:
        return ""
    if needs.arms:
        return "one check of a test asks for both arms; give the other one a test of its own"
    if needs.floor or needs.timed or needs.sampled or needs.top_logprobs is not None:
        return (
            f"it repeats, times or draws answers, which {both[0]} would have done for both arms; give them a test each"
        )
    return ""


def refuse_unjudged(declaration: Declaration, engines: Sequence[str]) -> None:
    """Raise ``DesignError`` where nothing of a test that must be judged can be: known before anybody is asked."""
    if len(engines) == 1 and declaration.checks and all(check.pairwise for check in declaration.checks):
        raise DesignError(
            f"every check of this test compares engines and only {engines[0]} is selected, so nothing can be judged, "
            "and --parity-required asks for a verdict; select another engine with --engines, or add a check that "
            "judges one alone, such as check.schema(Ticket, rate=0.98)"
        )


def power_in_turn(declaration: Declaration, engines: int, changes: int) -> list[str]:
    """Return what the plan says of a test's relative latency budgets where engines are loaded in turn to be timed."""
    checks = [check for check in declaration.checks if isinstance(check, LatencyCheck)]
    at_once = declaration.concurrency
    lines = (check.power_in_turn(engines=engines, changes=changes, concurrency=at_once) for check in checks)
    return [line for of_check in lines for line in of_check]


def undeclared(check: Check, declaration: Declaration, *, in_turn: bool = False) -> str:
    """Say what a check in a test's body needs that its marker does not give, empty where it gives all of it.

    It gives samples and prompts, of which a check may take no others than those that say what is right.
    ``in_turn``: engines are in memory one at a time, so that they are timed against each other only where it is asked.
    """
    wanted, declared = check.needs(), declaration.needs()
    missing = sorted(phase.value for phase in wanted.phases - declared.phases)
    if wanted.timed > declared.timed:
        missing.append(f"{wanted.timed} timed requests per engine")
    if in_turn and wanted.timed_relative and not declared.timed_relative:
        missing.append("timed requests of engines that are loaded in turn")
    if wanted.arms and not declared.arms:
        missing.append("both arms of each prompt")
    if wanted.repeats > declaration.repeats:
        missing.append(f"{wanted.repeats} answers to each prompt")
    if missing:
        return (
            f"{check} needs samples that nobody declared ({', '.join(missing)}); "
            f"add check.{check} to the parity marker of {declaration.test}"
        )
    if why := check.prompt_problem(as_declared(declaration.prompts)):
        return f"{check}: {why}"
    why = _not_drawn(declaration) if wanted.sampled else ""
    return f"{check}: {why}" if why else ""


def _not_drawn(declaration: Declaration) -> str:
    """Say which case would be answered alike each time it is asked, empty where there is none."""
    for case in declaration.prompts.cases:
        temperature = case.sampling.get("temperature", declaration.sampling.temperature)
        if not temperature or temperature <= 0 or case.sampling.get("seed", declaration.sampling.seed) is not None:
            return (
                f"it compares answers that are drawn, and prompt {case.id} is asked at temperature "
                f"{temperature or 0:g} or with a seed, which repeats them; give "
                'sampling={"temperature": 0.8, "seed": None}'
            )
    return ""


def _copies(declaration: Declaration) -> str:
    """Say which case asks for several choices that are one answer, empty where there is none."""
    default = declaration.sampling.temperature
    for case in declaration.prompts.cases:
        if case.n > 1 and case.sampling.get("temperature", default) <= 0:
            return (
                f"prompt {explain.plain(case.id, 40)} asks for n = {case.n} choices at temperature 0, which are one "
                f"answer {case.n} times, and vLLM refuses them: give it a temperature (where a request logged none, "
                "OpenAI's API took 1), or leave n out"
            )
    return ""


def with_schemas(check: Check, folders: Sequence[Path], prompts: PromptSet) -> Check:
    """Return the check with the files that it or its cases name read; ``DesignError`` where it could not be made."""
    if isinstance(check, Misused):
        raise DesignError(f"{check.misuse} ({place(check.where, folders[-1])})")
    if isinstance(check, SchemaCheck):
        return check.resolve(
            lambda path: text_of(find(path, folders, noun="schema"), path), within=folders, prompts=prompts
        )
    if isinstance(check, AnswersCheck):
        return check.resolve(prompts, lambda path: text_of(find(path, folders, noun="schema"), path))
    return check


def _check(value: object, folders: Sequence[Path], prompts: PromptSet) -> Check:
    if not callable(getattr(value, "judge", None)) or not callable(getattr(value, "needs", None)):
        raise UsageError(f"{value!r} is no check; after the prompt file come checks such as check.text(); {SIGNATURE}")
    return with_schemas(value, folders, prompts)  # type: ignore[arg-type]  # duck-typed above: Check is a protocol
