from __future__ import annotations

import doctest
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pytest_llmparity import check
from pytest_llmparity.core.errors import DesignError, UsageError
from pytest_llmparity.core.stats.paired import Side, gap_needed
from pytest_llmparity.core.stats.shares import least_perfect, share_needed


class Reply(BaseModel):
    answer: str


loose: Any = check
"""The same functions, for calls a type checker would refuse."""


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: loose.text(margin=5), r"text\(margin=5\): margin is a share: 0.05 is 5 %"),
        (lambda: loose.text(margin=0), "margin is a share, above 0 and at most 1"),
        (lambda: loose.text(margin=-0.1), r"text\(margin=-0.1\): margin is a share, above 0"),
        (lambda: loose.text(margin=500), r"text\(margin=500\): margin is a share, above 0"),
        (lambda: loose.text(margin=float("nan")), "margin is a share, a number above 0 and at most 1"),
        (lambda: loose.text(margin="5%"), r"text\(margin='5%'\): margin is a share, a number"),
        (lambda: loose.text(margin=True), "margin is a share, a number"),
        (lambda: loose.text(horizon=0), "a horizon is a whole number of tokens from 1 up"),
        (lambda: loose.text(horizon=16.0), "a horizon is a whole number of tokens"),
        (lambda: loose.text(horizon=64), "a ladder belongs to a horizon of 32 tokens; give margin= too"),
        (lambda: loose.schema(Reply), "needs at least one limit: rate=0.98, gap=0.05, agree=0.95 or arms=0.05"),
        (lambda: loose.schema(Reply, rate=98), "rate is a share: 0.98 is 98 %"),
        (lambda: loose.schema(Reply, gap=1.0), "a gap of 100 % accepts everything"),
        (lambda: loose.schema(Reply, gap=0.05, side="better"), 'side is "either" or "worse"'),
        (lambda: loose.schema(42, rate=0.9), "the target is a pydantic model class, a TypeAdapter"),
        (lambda: loose.schema(Reply(answer="x"), rate=0.9), "the target is a pydantic model class"),
        (lambda: loose.schema({"type": "nope"}, rate=0.9), "is not a usable JSON Schema"),
        (lambda: loose.schema({"title": "T", "x": {1, 2}}, rate=0.9), r"schema\(T\): the schema is not JSON"),
        (lambda: loose.schema({"$ref": "https://example.com/x"}, rate=0.9), "nothing is fetched"),
        (lambda: loose.similarity(at_least=85), "at_least is a share: 0.85 is 85 %"),
        (loose.latency, "needs at least one budget"),
        (lambda: loose.latency(ttft_p50="fast"), "a budget is"),
        (lambda: loose.latency(success_rate=99), "success_rate is a share: 0.99 is 99 %"),
        (lambda: loose.latency(e2e_p50=1, n=0), "n is a whole number of requests from 1 up"),
    ],
)
def test_a_wrong_argument_is_refused_where_it_is_written(call: Any, words: str) -> None:
    with pytest.raises(DesignError, match=words) as caught:
        call()
    assert isinstance(caught.value, UsageError)


@pytest.mark.parametrize("name", check.__all__)
def test_arguments_are_keywords_only(name: str) -> None:
    parameters = inspect.signature(getattr(check, name)).parameters.values()
    assert all(p.kind is p.KEYWORD_ONLY or p.name == "target" for p in parameters)


def test_a_check_knows_where_it_was_written_and_equals_its_twin_written_elsewhere() -> None:
    line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
    first = check.text(margin=0.1)
    second = check.text(margin=0.1)

    assert first.where == f"{__file__}:{line}"
    assert second.where == f"{__file__}:{line + 1}"
    assert first == second
    assert hash(first) == hash(second)
    for other in (
        check.prompts(),
        check.similarity(),
        check.latency(e2e_p50=1),
        check.schema(Reply, rate=0.9),
        check.schema("x.json", rate=0.9),
    ):
        assert other.where.startswith(__file__)


def test_a_model_is_captured_as_text_when_the_check_is_written() -> None:
    asked = check.schema(Reply, rate=0.98, gap=0.05, agree=0.95)

    assert str(asked) == "schema(Reply, rate=0.98, gap=0.05, agree=0.95)"
    assert asked.text is not None
    assert '"answer"' in asked.text
    assert asked.path is None
    assert hash(asked) == hash(check.schema(Reply, rate=0.98, gap=0.05, agree=0.95))


def test_anything_that_describes_itself_as_json_schema_is_a_model() -> None:
    @dataclass
    class Own:
        @classmethod
        def model_json_schema(cls) -> dict[str, Any]:
            return {"type": "object"}

    assert check.schema(Own, rate=0.9).name == "Own"


def test_a_schema_may_be_a_dict_or_a_path() -> None:
    assert check.schema({"title": "Invoice", "type": "object"}, rate=0.9).name == "Invoice"
    assert check.schema({"type": "object"}, rate=0.9).name == "{…}"
    assert check.schema(Path("a") / "b.json", rate=0.9).path == str(Path("a") / "b.json")


def test_the_example_in_the_module_runs() -> None:
    assert doctest.testmod(check).failed == 0


def test_what_would_settle_an_open_share_is_the_first_number_that_does() -> None:
    assert share_needed(60, 60, 0.98, 0.05) == 149
    assert share_needed(0, 20, 0.2, 0.05) == 20
    assert share_needed(95, 100, 0.95, 0.05) is None
    assert least_perfect(0.9, 0.05) == 29
    assert least_perfect(0.5, 0.5) == 2  # one case has a chance of exactly one half: not below it


def test_what_would_settle_an_open_gap() -> None:
    needed = gap_needed(1, 0, 64, 0.05, 0.05, "either")
    assert needed is not None
    assert 64 < needed < 200
    assert gap_needed(5, 0, 100, 0.05, 0.05, "either") is None
    worse = gap_needed(0, 10, 64, 0.05, 0.05, "worse")
    assert worse == 65, "what is settled already has no number below that of the next case"


@pytest.mark.parametrize("counts", [(1.0, 0.4), (2.5, 0.0), (0.5, 1.2), (3.0, 2.0)])
@pytest.mark.parametrize("side", ["either", "worse"])
def test_what_would_settle_a_gap_of_cases_that_go_together_is_more_than_there_are(
    counts: tuple[float, float], side: Side
) -> None:
    needed = gap_needed(*counts, 8, 0.2, 0.05, side)

    assert needed is None or needed > 8


@pytest.mark.parametrize(
    ("b", "c", "n", "margin", "side"),
    [(30, 30, 60, 0.15, "worse"), (10, 10, 20, 0.05, "either"), (1, 1, 2, 0.3, "worse")],
)
def test_what_would_settle_a_gap_of_which_every_case_is_discordant(
    b: int, c: int, n: int, margin: float, side: Side
) -> None:
    needed = gap_needed(b, c, n, margin, 0.05, side)

    assert needed is not None
    assert needed > n


def test_an_unknown_argument_is_answered_with_those_there_are() -> None:
    with pytest.raises(
        TypeError,
        match=r"'e2e_p96' \(did you mean 'e2e_p9.'\?\); it takes ttft_p50, .*e2e_p99, success_rate, n, cached$",
    ):
        loose.latency(e2e_p96="1s")
    with pytest.raises(TypeError, match=r"'margn' \(did you mean 'margin'\?\); it takes margin, horizon"):
        loose.text(margn=0.1)


def test_a_check_that_is_not_there_is_answered_with_the_nearest_and_all_there_are() -> None:
    with pytest.raises(
        AttributeError, match=r"no check\.txt \(did you mean 'text'\?\); there are: answers, .*, value$"
    ):
        loose.txt(margin=0.1)
