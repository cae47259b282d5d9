"""What a policy holds the suite's checks to, in place of their own arguments: margins, slices and budgets."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, model_validator

from pytest_llmparity.core.checks.latency import LatencyCheck, parse_budget
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.core.words.nodeids import name_of_test, names_of_test
from pytest_llmparity.core.words.problems import Strict, given

Share = Annotated[float, Field(gt=0, le=1)]
Budget = Annotated[str, Field(min_length=1)] | Annotated[float, Field(gt=0)]
C = TypeVar("C")

TAKES: Final[Mapping[str, tuple[str, ...]]] = {
    "text": ("margin", "by"),
    "logprobs": ("shift",),
    "similarity": ("at_least", "by"),
    "schema": ("rate", "gap", "agree", "by"),
    "answers": ("rate", "gap", "flips", "by"),
    "tools": ("trigger", "names", "rate", "agree", "by"),
    "value": ("agree", "rate", "gap", "drift", "by"),
    "latency": (
        *(f"{metric}_{rank}" for metric in ("ttft", "tpot", "e2e") for rank in ("p50", "p95", "p99")),
        "success_rate",
    ),
}
"""The keys that each check takes: its arguments of these names."""


class Limit(Strict):
    """One limit: what the checks of one kind are held to, in the tests it names, in place of what the suite says.

    ``test`` is a pattern as a rule has it. The other keys are arguments of the check, which has to be there already.
    """

    check: Literal["text", "logprobs", "similarity", "schema", "answers", "tools", "value", "latency"]
    test: Annotated[str, Field(min_length=1)] = "*"
    margin: Share | None = None
    shift: Annotated[float, Field(gt=0)] | None = None
    at_least: Share | None = None
    rate: Share | None = None
    gap: Annotated[float, Field(gt=0, lt=1)] | None = None
    agree: Share | None = None
    trigger: Share | None = None
    names: Share | None = None
    drift: Annotated[float, Field(gt=0, lt=1)] | None = None
    flips: Annotated[float, Field(gt=0, lt=1)] | None = None
    by: Literal["tag"] | None = None
    ttft_p50: Budget | None = None
    ttft_p95: Budget | None = None
    ttft_p99: Budget | None = None
    tpot_p50: Budget | None = None
    tpot_p95: Budget | None = None
    tpot_p99: Budget | None = None
    e2e_p50: Budget | None = None
    e2e_p95: Budget | None = None
    e2e_p99: Budget | None = None
    success_rate: Share | None = None

    @model_validator(mode="after")
    def _sets_what_its_check_takes(self) -> Limit:
        takes, keys = TAKES[self.check], self.keys
        if not keys:
            raise ValueError(f"sets nothing; {self.check} takes {', '.join(takes)}")
        if foreign := [key for key in keys if key not in takes]:
            raise ValueError(
                f"{self.check} takes no {foreign[0]}{nearest(foreign[0], takes)}; it takes {', '.join(takes)}"
            )
        for name in keys if self.check == "latency" else ():
            if name != "success_rate":
                try:
                    parse_budget(name, keys[name])
                except DesignError as error:
                    raise ValueError(str(error)) from None
        return self

    @property
    def keys(self) -> dict[str, Any]:
        """What it sets, by the check's arguments."""
        named = self.model_fields_set - {"check", "test"}
        return {name: getattr(self, name) for name in type(self).model_fields if name in named}

    def __str__(self) -> str:
        return f"{self.check} {', '.join(f'{name}={given(value)}' for name, value in self.keys.items())}"

    def fits(self, test: str, kind: str) -> bool:
        """Whether it is about checks of this kind in a test, given by its node id."""
        return kind == self.check and any(map(pattern(self.test).fullmatch, names_of_test(test)))


def held(limits: Iterable[Limit], test: str, check: C) -> C:
    """Return a check of a test as the limits want it; of several that set the same key the first counts."""
    kind = getattr(check, "kind", "")
    keys: dict[str, Any] = {}
    for limit in limits:
        if limit.fits(test, kind):
            keys = {**limit.keys, **keys}
    if not keys or not dataclasses.is_dataclass(check):
        return check
    if isinstance(check, LatencyCheck):
        keys = _budgets(check, keys)
    changed: C = dataclasses.replace(check, **keys)  # type: ignore[type-var]  # a dataclass that is no class
    return changed


def _budgets(check: LatencyCheck, keys: Mapping[str, Any]) -> dict[str, Any]:
    new = {name: parse_budget(name, value) for name, value in keys.items() if name != "success_rate"}
    kept = [new.pop(budget.name, budget) for budget in check.budgets]
    others = {name: value for name, value in keys.items() if name == "success_rate"}
    return {**others, "budgets": (*kept, *new.values())}


def idle(limits: Sequence[Limit], tests: Mapping[str, Iterable[str]]) -> list[str]:
    """Say of each limit that no check of these tests takes, given with their kinds, why that is."""
    kinds = {test: [kind.partition(".")[0] for kind in of_test] for test, of_test in tests.items()}
    return [
        f"limit {number} ({limit}) {_why_idle(limit, kinds)}"
        for number, limit in enumerate(limits, 1)
        if not any(limit.fits(test, kind) for test, of_test in kinds.items() for kind in of_test)
    ]


def _why_idle(limit: Limit, tests: Mapping[str, Sequence[str]]) -> str:
    named = [test for test in tests if any(map(pattern(limit.test).fullmatch, names_of_test(test)))]
    own = {test: name_of_test(test) for test in tests}
    if not named:
        close = nearest(name_of_test(limit.test), own.values())
        return f"names no test of the suite{close}; it has {some(own.values())}"
    kinds = dict.fromkeys(kind for test in named for kind in tests[test])
    return f"names no check of {some(own[test] for test in named)}, which has {some(kinds)}"


def pattern(text: str) -> re.Pattern[str]:
    """Return a pattern in which only ``*`` and ``?`` are special: names of tests and tags have brackets."""
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in re.sub(r"\*+", "*", text))
    return re.compile("".join(parts), re.DOTALL)


def some(names: Iterable[str], limit: int = 6) -> str:
    """Return the first of these names, and how many more there are."""
    each = list(dict.fromkeys(names))
    more = f" and {len(each) - limit} more" if len(each) > limit else ""
    return (", ".join(each[:limit]) + more) or "none"
