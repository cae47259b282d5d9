from __future__ import annotations

import dataclasses
import json

import pytest

from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.examination import (
    Examination,
    PromptFit,
    on_capabilities,
    on_context,
    on_prompts,
    on_sampling,
    on_template,
)
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.sample import Fact, Identity

ENGINE = EngineRecord(name="a", kind="k")
FIT = PromptFit(prompts="tickets", case="t1", words=100, answer=64)


def sampling(**values: object) -> Identity:
    return Identity(facts={"sampling_defaults": Fact(value=json.dumps(values), source="reported")})


def test_an_engine_is_well_without_an_error_and_anything_wrong() -> None:
    assert Examination(engine=ENGINE, advice=("do this",)).well
    assert not Examination(engine=dataclasses.replace(ENGINE, error="down")).well
    assert not Examination(engine=ENGINE, wrong=("a lie",)).well


def test_sampling_that_is_not_neutral_is_told() -> None:
    told = list(on_sampling(sampling(temperature=0.6, top_k=20, top_p=1, do_sample=True, mirostat=2)))

    assert told == [
        "an application that leaves its sampling out gets temperature 0.6, top_k 20; parity sends its own values, "
        "so send yours too"
    ]


@pytest.mark.parametrize(
    "identity",
    [
        Identity(),
        sampling(temperature=1, top_k=0, top_p=1.0, repetition_penalty=1, do_sample=True),
        Identity(facts={"sampling_defaults": Fact(value="not JSON", source="reported")}),
    ],
    ids=["unknown", "neutral", "broken"],
)
def test_nothing_special_needs_no_word(identity: Identity) -> None:
    assert list(on_sampling(identity)) == []


@pytest.mark.parametrize(("wanted", "seen", "remarks"), [(128, 256, 1), (256, 256, 0), (None, 256, 0), (128, None, 0)])
def test_another_context_than_was_asked_for_is_told(wanted: int | None, seen: int | None, remarks: int) -> None:
    assert len(list(on_context(wanted, seen))) == remarks


def test_what_a_server_does_asks_for_something_of_whoever_writes_prompts() -> None:
    can = Capabilities(overflow="middle cut", schema_order=False, stream_equal=False, seed=False)

    cut, order, stream, seed = on_capabilities(can, 4096)

    assert cut.startswith("it cuts the middle out of a conversation that does not fit its context (4096 tokens)")
    assert "alphabetical" in order
    assert "streamed" in stream
    assert "temperature 0" in seed
    assert "(4096" not in next(on_capabilities(can, None))
    assert list(on_capabilities(Capabilities(overflow="refused", schema_order=True, seed=True), 4096)) == []


@pytest.mark.parametrize(
    ("alone", "with_system", "remark"),
    [
        (None, None, ""),
        (9, 14, ""),
        (9, None, ""),
        (30, 15, "brings a system prompt of its own: a one-word message is 30 tokens, and 15 with"),
        (15, 15, "brings a system prompt of its own"),
        (36, 42, "puts 35 tokens round a one-word message"),
        (36, None, "puts 35 tokens round a one-word message"),
    ],
)
def test_a_template_that_writes_more_than_roles_is_noticed(
    alone: int | None, with_system: int | None, remark: str
) -> None:
    told = list(on_template(alone, with_system))

    assert len(told) == bool(remark)
    assert remark in "".join(told)


@pytest.mark.parametrize(
    ("fit", "context", "remark"),
    [
        ({"tokens": 120}, 4096, ""),
        ({"tokens": 120}, None, ""),
        ({"tokens": 1000}, 1024, "has 1000 tokens, which leaves 24 of a context of 1024 for an answer of 64"),
        ({"tokens": 2000}, 1024, "which leaves 0 of a context of 1024"),
        ({"tokens": 90}, 4096, "was cut: 90 tokens were read of a prompt of 100 words"),
        ({}, 4096, "does not say how many tokens it has"),
        ({"failed": "dev answered 400"}, 4096, "gets no answer: dev answered 400"),
    ],
)
def test_the_longest_prompt_is_held_against_the_context(
    fit: dict[str, object], context: int | None, remark: str
) -> None:
    told = list(on_prompts(dataclasses.replace(FIT, **fit), context))  # type: ignore[arg-type]

    assert len(told) == bool(remark)
    assert remark in "".join(told)
    assert all(text.startswith("t1, the longest of tickets,") for text in told)
