from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.base import left_out, required
from pytest_llmparity.core.checks.prompts import PromptsCheck
from pytest_llmparity.core.evidence import Check, Needs
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.prompts import Case, PromptSet

SCHEMA = check.schema({"type": "object"}, rate=0.9)
FORCED = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
TOOLS = ({"type": "function", "function": {"name": "f"}},)
UNABLE = Capabilities(json_schema=False, tools=False, logprobs=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Probabilities(PromptsCheck):
    """A check that reads logprobs."""

    def needs(self) -> Needs:
        return Needs(top_logprobs=5, capabilities=frozenset({"logprobs"}))


def prompts(**row: Any) -> PromptSet:
    messages = ({"role": "user", "content": "hi"},)
    return PromptSet(name="p", cases=(Case(id="a", messages=messages), Case(id="b", messages=messages, **row)))


@pytest.mark.parametrize(
    ("judge", "row", "names"),
    [
        (SCHEMA, {}, ()),
        (SCHEMA, {"response_format": {"type": "json_object"}}, ()),
        (SCHEMA, {"response_format": FORCED}, ("json_schema",)),
        (SCHEMA, {"response_format": FORCED, "tools": TOOLS}, ("json_schema", "tools")),
        (check.text(margin=0.05), {"response_format": FORCED}, ()),
        (check.text(margin=0.05), {"tools": TOOLS}, ("tools",)),
        (check.latency(e2e_p50="1s"), {"tools": TOOLS}, ("tools",)),
        (Probabilities(), {}, ("logprobs",)),
    ],
)
def test_a_check_needs_what_its_cases_ask_for(judge: Check, row: dict[str, Any], names: tuple[str, ...]) -> None:
    assert required(judge, prompts(**row).cases[1]) == names


def test_what_is_missing_is_said_by_case_with_how_it_is_known() -> None:
    forced = prompts(response_format=FORCED)
    confirmed = UNABLE.corrected({"json_schema": False})

    assert left_out("mlx", SCHEMA, forced, can=confirmed, declares=UNABLE) == {
        "b": "mlx does not enforce response_format (declared, confirmed by a probe)"
    }
    assert left_out("mlx", SCHEMA, prompts(), can=UNABLE, declares=UNABLE) == {}
    nothing = "mlx reports no logprobs (declared)"
    assert left_out("mlx", Probabilities(), forced, can=UNABLE, declares=UNABLE) == {"a": nothing, "b": nothing}


def test_what_nobody_knows_is_judged() -> None:
    nobody = Capabilities()

    assert left_out("a", SCHEMA, prompts(response_format=FORCED), can=nobody, declares=nobody) == {}


def test_a_promise_that_is_not_kept_is_judged() -> None:
    declares = Capabilities(json_schema=True)
    can = declares.corrected({"json_schema": False})

    assert left_out("a", SCHEMA, prompts(response_format=FORCED), can=can, declares=declares) == {}
