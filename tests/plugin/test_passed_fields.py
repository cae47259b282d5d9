"""Fields of a request that nobody here knows: sent as they are, and said where an engine may have dropped them."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def test_fields_that_are_sent_anyway_are_an_error_of_the_test(bench: Bench) -> None:
    bench.gate("check.prompts(), extra_body={'temperature': 1}")

    result = bench.run(engines=[bench.engine()])

    result.stdout.fnmatch_lines(["*extra_body of the parity marker: has temperature, which is sent anyway*"])
    assert result.ret != 0
