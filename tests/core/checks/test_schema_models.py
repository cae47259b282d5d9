"""Pydantic means pydantic: an answer fits when the model validates it, in strict JSON mode."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, TypeAdapter, model_validator
from typing_extensions import TypedDict

from pytest_llmparity import check
from pytest_llmparity.core.checks.schema import SchemaCheck
from pytest_llmparity.core.checks.schema.contract import Contract
from pytest_llmparity.core.errors import DesignError

if TYPE_CHECKING:
    from tests.core.conftest import Factory


def mailbox(value: str) -> str:
    if "@" not in value:
        raise ValueError("is no address")
    return value


class Colour(Enum):
    RED = "red"


class Bill(BaseModel):
    due: datetime
    amount: Decimal
    mail: Annotated[str, AfterValidator(mailbox)]


class Aliased(BaseModel):
    total: int = Field(alias="grandTotal", gt=0)


class Rule(BaseModel):
    model_config = ConfigDict(extra="forbid")
    low: int
    high: int

    @model_validator(mode="after")
    def _ordered(self) -> Rule:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


class Crashes(BaseModel):
    n: int

    @model_validator(mode="after")
    def _crash(self) -> Crashes:
        known: dict[int, Crashes] = {}
        return known[self.n]


class Opaque:
    """Pydantic knows no JSON Schema of it."""


class Arbitrary(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    n: int
    more: Opaque | None = None


@dataclasses.dataclass
class Point:
    x: int
    on: date


class Person(TypedDict):
    name: str


class Tickets(RootModel[list[Literal["open", "closed"]]]): ...


BILL = '{"due": "2026-03-01T09:00:00Z", "amount": %s, "mail": "a@b"}'


@pytest.mark.parametrize(
    ("target", "answer", "problem"),
    [
        (Bill, BILL % '"19.90"', None),
        (Bill, BILL % "19.90", None),
        (Bill, BILL.replace("2026-03-01T09:00:00Z", "next Tuesday") % 1, "$.due: Input should be a valid datetime"),
        (Bill, BILL.replace("a@b", "the desk") % 1, "$.mail: Value error, is no address"),
        (Aliased, '{"grandTotal": 3}', None),
        (Aliased, '{"total": 3}', "$.grandTotal: Field required"),
        (Aliased, '{"grandTotal": "3"}', "$.grandTotal: Input should be a valid integer"),
        (Rule, '{"low": 1, "high": 2}', None),
        (Rule, '{"low": 3, "high": 2}', "$: Value error, low is above high"),
        (Rule, '{"low": 1, "high": 2, "more": 1, "yet": 2}', "Extra inputs are not permitted (and 1 more)"),
        (Crashes, '{"n": 1}', "its validator raised KeyError: 1"),
        (Arbitrary, '{"n": 1}', None),
        (Tickets, '["open", "shut"]', "$[1]: Input should be 'open' or 'closed'"),
        (TypeAdapter(list[int]), "[1, 2]", None),
        (TypeAdapter(list[int]), '[1, "2"]', "$[1]: Input should be a valid integer"),
        (TypeAdapter(Colour), '"red"', None),
        (Point, '{"x": 1, "on": "2026-03-01"}', None),
        (Point, '{"x": 1, "on": "soon"}', "$.on: Input should be a valid date"),
        (Person, '{"name": "A"}', None),
        (Person, '{"name": 1}', "$.name: Input should be a valid string"),
    ],
)
def test_an_answer_fits_when_pydantic_validates_it(
    make: Factory, target: Any, answer: str, problem: str | None
) -> None:
    checked = check.schema(target, rate=0.5)
    assert checked.text is not None

    held = Contract.from_text(checked.text, checked.name, model=checked.model).hold(make.completion(answer))

    assert held.value == json.loads(answer)
    if problem is None:
        assert held.problem is None
    else:
        assert held.problem is not None
        assert problem in held.problem


def test_a_validator_that_asks_for_the_end_of_the_run_is_obeyed(make: Factory) -> None:
    def stop(value: int) -> int:
        raise KeyboardInterrupt

    checked = check.schema(TypeAdapter(Annotated[int, AfterValidator(stop)]), rate=0.5)

    with pytest.raises(KeyboardInterrupt):
        checked.judge(make.evidence(make.engine("a", ["1"]), cases=1))


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (lambda: check.schema(Bill, rate=0.9), "schema(Bill, rate=0.9)"),
        (lambda: check.schema(Point, rate=0.9), "schema(Point, rate=0.9)"),
        (lambda: check.schema(TypeAdapter(list[int]), gap=0.1), "schema(list[int], gap=0.1)"),
        (lambda: check.schema(TypeAdapter(Bill), gap=0.1), "schema(Bill, gap=0.1)"),
        (
            lambda: check.schema(TypeAdapter(Annotated[str, AfterValidator(mailbox)]), gap=0.1, lenient=True),
            "schema(Annotated[str, AfterValidator(func=<function mailbox>)], gap=0.1, lenient=True)",
        ),
    ],
)
def test_a_check_is_named_the_same_in_every_process(made: Callable[[], SchemaCheck], shown: str) -> None:
    assert str(made()) == shown
    assert " at 0x" not in repr(made())


def test_a_type_pydantic_cannot_use_is_refused_where_it_is_written() -> None:
    class Unknown(BaseModel):
        other: Missing  # type: ignore[name-defined]  # noqa: F821 - what this is about

    @dataclasses.dataclass
    class Holds:
        opaque: Opaque

    for target in (Unknown, Holds):
        with pytest.raises(DesignError, match=f"schema\\({target.__name__}\\): pydantic cannot validate by it"):
            check.schema(target, rate=0.9)


@pytest.mark.slow
def test_declaring_checks_imports_no_pydantic() -> None:
    code = (
        "import sys\nfrom pytest_llmparity import check\ncheck.schema({'type': 'object'}, rate=0.9)\n"
        "check.schema('x.json', gap=0.1)\nprint('pydantic' in sys.modules)"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout == "False\n"
