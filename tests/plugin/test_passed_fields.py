"""Fields of a request that nobody here knows: sent as they are, and said where an engine may have dropped them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmparity.core.evidence import Needs
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Sampling
from pytest_llmparity.run.ledger import unread_fields
from pytest_llmparity.run.plan import Unit

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench


def test_further_fields_are_sent_to_every_engine_and_told_where_they_may_be_dropped(bench: Bench) -> None:
    bench.prompts(extra_body={"reasoning_effort": "low"})
    bench.gate("check.text(margin=0.05), extra_body={'chat_template_kwargs': {'enable_thinking': False}}")
    engines = [bench.engine(), bench.engine()]

    result = bench.run(engines=engines)

    for engine in engines:
        bodies = bench.asked(engine)
        assert bodies
        assert all(body["chat_template_kwargs"] == {"enable_thinking": False} for body in bodies)
        assert all(body["reasoning_effort"] == "low" for body in bodies)
    lines = " ".join(result.stdout.str().split())
    assert "a: chat_template_kwargs, reasoning_effort sent as given; fields it does not know are dropped" in lines


def test_an_engine_that_refuses_unknown_fields_is_told_of() -> None:
    case = Case(id="a", prompt="?", extra_body={"top_a": 1})
    prompts = PromptSet(name="p", cases=(case,))
    unit = Unit(prompts=prompts, sampling=Sampling(), concurrency=1, repeats=1, needs=Needs())

    (told,) = unread_fields("a", [unit], Capabilities(unknown_fields="refused"))

    assert told == "a: top_a sent as given; a request with a field that it does not know is refused as a whole"
    assert list(unread_fields("a", [unit], Capabilities())) == []


def test_fields_that_are_sent_anyway_are_an_error_of_the_test(bench: Bench) -> None:
    bench.gate("check.prompts(), extra_body={'temperature': 1}")

    result = bench.run(engines=[bench.engine()])

    result.stdout.fnmatch_lines(["*extra_body of the parity marker: has temperature, which is sent anyway*"])
    assert result.ret != 0
