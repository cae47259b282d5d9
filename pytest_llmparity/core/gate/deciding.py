"""The decision: what a policy makes of a run's verdicts about one candidate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pytest_llmparity.core.gate.flips import Flips
from pytest_llmparity.core.gate.policy import BROKEN_TEST, Level, Policy, Ruled, names_of
from pytest_llmparity.core.identity.lock import Difference
from pytest_llmparity.core.verdict import SEVERITY, Outcome, Verdict

_ORDER: Final = tuple(Ruled)
_OPEN: Final = {"inconclusive": Ruled.INCONCLUSIVE, "hold": Ruled.HOLD, "ship": Ruled.SHIP}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """One verdict under a policy: its ``level``, and what the decision would be if it were the only one."""

    verdict: Verdict
    level: Level
    ruled: Ruled


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenTest:
    """A test that failed for another reason than a verdict: ``why`` is its first line.

    ``ruled`` is what the decision would be if it were the only one: of a test that ran on the baseline alone not HOLD.
    """

    test: str
    why: str
    level: Level
    ruled: Ruled = Ruled.HOLD


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is decided about a candidate, and on what grounds.

    ``rulings`` have the gravest first, required ones before advisory ones. ``apart`` is what the two engines differ in,
    as the lock tells it; ``alike`` names the facts in which both are known to be the same.
    """

    outcome: Ruled
    baseline: str
    candidate: str
    policy: Policy
    rulings: tuple[Ruling, ...] = ()
    broken: tuple[BrokenTest, ...] = ()
    flips: Flips = field(default_factory=Flips)
    apart: tuple[Difference, ...] = ()
    alike: tuple[str, ...] = ()

    def of(self, ruled: Ruled, level: Level = "required") -> list[Ruling]:
        """Return the rulings of one level that speak for one outcome."""
        return [ruling for ruling in self.rulings if ruling.ruled is ruled and ruling.level == level]


def decide(
    policy: Policy,
    verdicts: Iterable[Verdict],
    *,
    baseline: str,
    candidate: str,
    tests: Mapping[str, str] | None = None,
    flips: Flips | None = None,
    apart: Iterable[Difference] = (),
    alike: Iterable[str] = (),
) -> Decision:
    """Return the decision about a candidate; ``ConfigError`` where a rule of the policy names nothing that happened.

    Verdicts on the baseline alone and on other engines decide nothing. ``tests`` has every test of the run, and why it
    failed where that is another reason than a verdict, else nothing.
    """
    about = [v for v in verdicts if v.engine == candidate and v.baseline in (None, baseline)]
    names: dict[str, list[str]] = {test: [] for test in tests or {}}
    for verdict in about:
        names.setdefault(verdict.test, []).extend(names_of(verdict))
    for known in names.values():
        known.append(BROKEN_TEST)
    policy.refuse_idle(names, declared=False)
    rulings = [
        Ruling(
            verdict=verdict,
            level=policy.level(verdict.test, names_of(verdict)),
            ruled=_ruled(policy, verdict, baseline=baseline),
        )
        for verdict in about
    ]
    rulings.sort(key=_gravity)
    broken = tuple(
        BrokenTest(
            test=test,
            why=why,
            level=policy.level(test, [BROKEN_TEST]),
            ruled=Ruled.INCONCLUSIVE if _ran_on(test, baseline, candidate) == baseline else Ruled.HOLD,
        )
        for test, why in (tests or {}).items()
        if why
    )
    required = [ruling for ruling in rulings if ruling.level == "required"]
    says = [ruling.ruled for ruling in required] + [test.ruled for test in broken if test.level == "required"]
    if not any(ruling.verdict.outcome is Outcome.PASS for ruling in required):
        says.append(Ruled.INCONCLUSIVE)  # nothing that is required speaks for it
    return Decision(
        outcome=max(says, key=_ORDER.index),
        baseline=baseline,
        candidate=candidate,
        policy=policy,
        rulings=tuple(rulings),
        broken=broken,
        flips=flips or Flips(),
        apart=tuple(apart),
        alike=tuple(alike),
    )


def _ran_on(test: str, *engines: str) -> str:
    """Return the one engine of these that the parameters of a test name; empty where they name none, or several."""
    parameters = f"-{test.partition('[')[2].removesuffix(']')}-"
    named = []
    for engine in sorted(engines, key=len, reverse=True):  # dev-2 is not dev
        if f"-{engine}-" in parameters:
            named.append(engine)
            parameters = parameters.replace(f"-{engine}-", "--")
    return named[0] if len(named) == 1 else ""


def _ruled(policy: Policy, verdict: Verdict, *, baseline: str) -> Ruled:
    """Return what one verdict makes of the decision if it is required.

    Where the baseline is what could not be used, nothing is known of the candidate.
    """
    if verdict.outcome.fails_test:
        return Ruled.INCONCLUSIVE if verdict.blocked_by == baseline else Ruled.HOLD
    if verdict.outcome is Outcome.INCONCLUSIVE:
        return _OPEN[policy.inconclusive]
    skipped = verdict.outcome is Outcome.SKIPPED and not verdict.advises
    return _OPEN[policy.skipped] if skipped else Ruled.SHIP


def _gravity(ruling: Ruling) -> tuple[int, ...]:
    advisory = ruling.level == "advisory"
    return (advisory, -_ORDER.index(ruling.ruled), -SEVERITY.index(ruling.verdict.outcome))
