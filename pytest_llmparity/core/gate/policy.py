"""Which verdicts a release needs, and what one that stayed open means for it: a small file that is committed.

The first rule that names a verdict says whether it is required or advisory; what no rule names is ``otherwise``.
"""

from __future__ import annotations

import enum
import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from pytest_llmparity.core.errors import ConfigError
from pytest_llmparity.core.verdict import Verdict
from pytest_llmparity.core.words.problems import Strict, describe, given

BROKEN_TEST: Final = "test"
"""What a rule's ``check`` calls a test that failed for another reason than a verdict."""
NO_FILE: Final = "every check is required"
"""How a decision names the policy that is in force without a file."""
_HINTS: Final = {
    "required": 'write [[rule]] with level = "required", and test or check',
    "advisory": 'write [[rule]] with level = "advisory", and test or check',
    "margin": "margins are the suite's: give them to its checks",
    "gate": 'write [[rule]] with test = "…"',
}
_SHOWN: Final = 12


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
        return any(map(_pattern(self.test).fullmatch, _names_of_test(test)))

    def fits_check(self, checks: Iterable[str]) -> bool:
        """Whether it names a check that has these names."""
        return any(map(_pattern(self.check).fullmatch, checks))

    def may_fit_check(self, kinds: Iterable[str]) -> bool:
        """Whether it may name what checks of these kinds will judge: before they have, only the kind is known."""
        head = re.split(r"[.\[]", self.check, maxsplit=1)[0]
        return any(map(_pattern(head).fullmatch, (*kinds, BROKEN_TEST)))


class PolicyTable(Strict):
    """What a policy file may hold."""

    inconclusive: Open = "inconclusive"
    skipped: Open = "inconclusive"
    otherwise: Level = "required"
    rule: tuple[Rule, ...] = Field(default=(), strict=False)

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

    @property
    def short(self) -> str:
        """The hash as it is shown."""
        return self.sha256[:_SHOWN]

    def level(self, test: str, checks: Sequence[str]) -> Level:
        """Return whether a verdict is required: what the first rule says that names it."""
        return next((rule.level for rule in self.rules if rule.fits(test, checks)), self.otherwise)

    def refuse_idle(self, tests: Mapping[str, Iterable[str]], *, declared: bool) -> None:
        """Raise ``ConfigError`` for each rule that names nothing of these tests, given with their checks' names.

        ``declared`` ones have not run: of their checks only the kinds are known.
        """
        idle = [
            f"rule {number} ({rule}) {_why_idle(rule, tests, declared=declared)}"
            for number, rule in enumerate(self.rules, 1)
            if not _works(rule, tests, declared=declared)
        ]
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


def _works(rule: Rule, tests: Mapping[str, Iterable[str]], *, declared: bool) -> bool:
    if declared:
        return any(rule.fits_test(test) and rule.may_fit_check(kinds) for test, kinds in tests.items())
    return any(rule.fits(test, [name]) for test, names in tests.items() for name in names)


def _why_idle(rule: Rule, tests: Mapping[str, Iterable[str]], *, declared: bool) -> str:
    named = [test for test in tests if rule.fits_test(test)]
    if not named:
        return f"names no test of the suite; it has {_some(_names_of_test(test)[-1] for test in tests)}"
    known = dict.fromkeys(name for test in named for name in tests[test])
    judges = "has" if declared else "judged"
    return f"names no check of {_some(_names_of_test(test)[-1] for test in named)}, which {judges} {_some(known)}"


def _some(names: Iterable[str], limit: int = 6) -> str:
    each = list(dict.fromkeys(names))
    more = f" and {len(each) - limit} more" if len(each) > limit else ""
    return (", ".join(each[:limit]) + more) or "none"


def _names_of_test(test: str) -> tuple[str, str, str]:
    """Return a node id, what of it stands behind the file, and the test's own name with its parameters."""
    inside = test.partition("::")[2] or test
    plain, bracket, parameters = inside.partition("[")
    return test, inside, f"{plain.rpartition('::')[2]}{bracket}{parameters}"


def _pattern(text: str) -> re.Pattern[str]:
    """Return a pattern in which only ``*`` and ``?`` are special: names of tests and tags have brackets."""
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in re.sub(r"\*+", "*", text))
    return re.compile("".join(parts), re.DOTALL)
