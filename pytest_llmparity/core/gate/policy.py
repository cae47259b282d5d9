"""Which verdicts a release needs, what checks are held to, and what an open verdict means: a file that is committed.

The first rule that names a verdict says whether it is required or advisory; what no rule names is ``otherwise``.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from pytest_llmparity.core.errors import ConfigError
from pytest_llmparity.core.gate import NO_FILE, limits
from pytest_llmparity.core.gate.limits import Limit, pattern, some
from pytest_llmparity.core.verdict import Verdict
from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.core.words.nodeids import name_of_test, names_of_test
from pytest_llmparity.core.words.problems import Strict, describe, given

BROKEN_TEST: Final = "test"
"""What a rule's ``check`` calls a test that failed for another reason than a verdict."""
_HINTS: Final = {
    "required": 'write [[rule]] with level = "required", and test or check',
    "advisory": 'write [[rule]] with level = "advisory", and test or check',
    "margin": 'write [[limit]] with check = "text" and margin = 0.03',
    "limits": 'write [[limit]] with check = "text" and margin = 0.03',
    "gate": 'write [[rule]] with test = "…"',
}
_SHOWN: Final = 12
_TAG: Final = re.compile(r"\[(.+)\]$", re.DOTALL)
"""The tag in the name of a check, as in ``text[poem]``."""


C = TypeVar("C")


class Ruled(enum.StrEnum):
    """What is decided, by one verdict or by all: in the order of how little it takes to overrule it."""

    SHIP = "SHIP"
    INCONCLUSIVE = "INCONCLUSIVE"
    HOLD = "HOLD"


Level = Literal["required", "advisory"]
Open = Literal["inconclusive", "hold", "ship"]


class Rule(Strict):
    """One rule: verdicts of tests and checks of these names are required, or they are advisory.

    In a pattern ``*`` stands for any text and ``?`` for one character. ``test`` names a test by its node id, by that
    without the file, or by its own name. ``check`` names what was judged: ``schema.rate``, ``text[poem]``, or all of
    one check, ``schema``; ``test`` is a test that failed for another reason than a verdict.
    """

    level: Level
    test: Annotated[str, Field(min_length=1)] = "*"
    check: Annotated[str, Field(min_length=1)] = "*"

    @model_validator(mode="after")
    def _names_something(self) -> Rule:
        if not self.model_fields_set & {"test", "check"}:
            raise ValueError("names neither test nor check; what no rule names is otherwise = …")
        return self

    def __str__(self) -> str:
        names = [f"{key} = {given(getattr(self, key))}" for key in ("test", "check") if key in self.model_fields_set]
        return " and ".join(names)

    def fits(self, test: str, checks: Iterable[str]) -> bool:
        """Whether it names a verdict of this test whose check has these names."""
        return self.fits_test(test) and self.fits_check(checks)

    def fits_test(self, test: str) -> bool:
        """Whether it names verdicts of this test, given by its node id."""
        return any(map(pattern(self.test).fullmatch, names_of_test(test)))

    def fits_check(self, checks: Iterable[str]) -> bool:
        """Whether it names a check that has these names."""
        return any(map(pattern(self.check).fullmatch, checks))

    def may_fit_check(self, kinds: Iterable[str]) -> bool:
        """Whether it may name what checks of these kinds will judge: before they have, only the kind is known."""
        head = re.split(r"[.\[]", self.check, maxsplit=1)[0]
        return any(map(pattern(head).fullmatch, (*kinds, BROKEN_TEST)))


class PolicyTable(Strict):
    """What a policy file may hold."""

    inconclusive: Open = "inconclusive"
    skipped: Open = "inconclusive"
    otherwise: Level = "required"
    rule: tuple[Rule, ...] = Field(default=(), strict=False)
    limit: tuple[Limit, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _requires_something(self) -> PolicyTable:
        if self.otherwise == "advisory" and not any(rule.level == "required" for rule in self.rule):
            raise ValueError("the policy requires nothing, so it would ship anything")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy that was read and found right. ``source`` is its file as messages name it; ``sha256`` is of its bytes.

    Without a file the hash is that of no bytes at all.
    """

    source: str = NO_FILE
    sha256: str = hashlib.sha256(b"").hexdigest()
    inconclusive: Open = "inconclusive"
    skipped: Open = "inconclusive"
    otherwise: Level = "required"
    rules: tuple[Rule, ...] = ()
    limits: tuple[Limit, ...] = ()

    @property
    def short(self) -> str:
        """The hash as it is shown."""
        return self.sha256[:_SHOWN]

    @property
    def limits_sha256(self) -> str:
        """What answers are held to while they are judged, as one hash; empty where that is what the suite says."""
        text = json.dumps([limit.model_dump(mode="json", exclude_unset=True) for limit in self.limits])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() if self.limits else ""

    def level(self, test: str, checks: Sequence[str]) -> Level:
        """Return whether a verdict is required: what the first rule says that names it."""
        return next((rule.level for rule in self.rules if rule.fits(test, checks)), self.otherwise)

    def held(self, test: str, check: C) -> C:
        """Return a check of a test as this policy holds it."""
        return limits.held(self.limits, test, check)

    def refuse_idle(
        self,
        tests: Mapping[str, Iterable[str]],
        *,
        declared: bool,
        tags: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """Raise ``ConfigError`` for each rule that names nothing of these tests, given with their checks' names.

        ``declared`` ones have not run: of their checks only the kinds are known. ``tags`` has by test those of its
        prompts, where they are known.
        """
        idle = [
            f"rule {number} ({rule}) {why}"
            for number, rule in enumerate(self.rules, 1)
            if (why := _idle(rule, tests, declared=declared, tags=tags or {}))
        ]
        idle += limits.idle(self.limits, {test: [name.partition("[")[0] for name in tests[test]] for test in tests})
        if idle:
            raise ConfigError("\n".join(f"{self.source}: {sentence}" for sentence in idle))


def parse_policy(content: bytes, *, source: str) -> Policy:
    """Read a policy; ``ConfigError`` has every problem at once, each naming file, key and what is allowed."""
    try:
        value: dict[str, Any] = tomllib.loads(content.decode("utf-8-sig"))
        table = PolicyTable.model_validate(value)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{source}: not TOML: {error}") from None
    except ValidationError as error:
        sentences = describe(error, PolicyTable, hints=_HINTS)
        raise ConfigError("\n".join(f"{source}: {sentence}" for sentence in sentences)) from None
    return Policy(
        source=source,
        sha256=hashlib.sha256(content).hexdigest(),
        inconclusive=table.inconclusive,
        skipped=table.skipped,
        otherwise=table.otherwise,
        rules=table.rule,
        limits=table.limit,
    )


def names_of(verdict: Verdict) -> tuple[str, ...]:
    """Return the names by which a rule may know a verdict's check, the exact one first.

    >>> names_of(
    ...     Verdict(
    ...         test="t", check="c", kind="schema.rate[poem]", tag="poem", engine="e", baseline=None, outcome="PASS"
    ...     )
    ... )
    ('schema.rate[poem]', 'schema.rate', 'schema')
    """
    return tuple(dict.fromkeys((verdict.kind, verdict.quantity, verdict.quantity.partition(".")[0])))


def _idle(
    rule: Rule, tests: Mapping[str, Iterable[str]], *, declared: bool, tags: Mapping[str, Collection[str]]
) -> str:
    """Say why a rule names nothing, empty where it does."""
    if not _works(rule, tests, declared=declared):
        return _why_idle(rule, tests, declared=declared)
    tag = _TAG.search(rule.check)
    named = [test for test in tags if rule.fits_test(test)]
    known = list(dict.fromkeys(each for test in named for each in tags[test]))
    if tag is None or not named or any(map(pattern(tag[1]).fullmatch, known)):
        return ""
    return (
        f"names no tag of the prompts of {some(name_of_test(test) for test in named)}{nearest(tag[1], known)}; "
        f"they have {some(known)}"
    )


def _works(rule: Rule, tests: Mapping[str, Iterable[str]], *, declared: bool) -> bool:
    if declared:
        return any(rule.fits_test(test) and rule.may_fit_check(kinds) for test, kinds in tests.items())
    return any(rule.fits(test, [name]) for test, names in tests.items() for name in names)


def _why_idle(rule: Rule, tests: Mapping[str, Iterable[str]], *, declared: bool) -> str:
    named = [test for test in tests if rule.fits_test(test)]
    if not named:
        own = [name_of_test(test) for test in tests]
        return f"names no test of the suite{nearest(name_of_test(rule.test), own)}; it has {some(own)}"
    known = dict.fromkeys(name for test in named for name in tests[test])
    judges = "has" if declared else "judged"
    return (
        f"names no check of {some(name_of_test(test) for test in named)}{nearest(rule.check, known)}, which "
        f"{judges} {some(known)}"
    )
