"""How large an answer may be, far above what real ones have, and how small one that reached its limit."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.sample import Completion, Request, Sampling, TokenLogprob, ToolCall
from pytest_llmparity.core.sizes import MOST_WIRE_BYTES, beyond, short_of_limit, wire_bytes


def asked(max_tokens: int, top_logprobs: int | None = None) -> Request:
    return Request(case="c", prompt="p", sampling=Sampling(max_tokens=max_tokens), top_logprobs=top_logprobs)


def test_the_limit_of_an_answer_grows_with_what_was_asked() -> None:
    assert wire_bytes(asked(64), sent=1000) == 2**20 + 16_000 + 64 * 2048
    assert wire_bytes(asked(64, 5), sent=0) == 2**20 + 64 * (2048 + 6 * 512)
    assert wire_bytes(dataclasses.replace(asked(64), n=4), sent=0) == 2**20 + 4 * 64 * 2048
    assert wire_bytes(asked(10**6), sent=0) == MOST_WIRE_BYTES < 40_000_000


@pytest.mark.parametrize(
    "completion",
    [
        Completion(text="x" * (64 * 512)),
        Completion(text="ok", reasoning="x" * 10**6),
        Completion(text="\ud800"),
        Completion(text="", tool_calls=(ToolCall(name="f", arguments="{}"),)),
    ],
)
def test_what_tokens_can_hold_is_an_answer(completion: Completion) -> None:
    assert beyond(completion, 64) is None


@pytest.mark.parametrize(
    ("completion", "size"),
    [
        (Completion(text="x" * (64 * 512 + 1)), "32769 bytes of text"),
        (Completion(text="\N{ROCKET}" * (64 * 128 + 1)), "32772 bytes of text"),
        (Completion(text="", tool_calls=(ToolCall(name="f", arguments="x" * 40_000),)), "40001 bytes of tool calls"),
        (Completion(text="ok", choices=(Completion(text="x" * 40_000),)), "40000 bytes of text"),
    ],
)
def test_what_they_cannot_hold_is_none(completion: Completion, size: str) -> None:
    reason = beyond(completion, 64)

    assert reason is not None
    assert reason.startswith(size)
    assert "max_tokens = 64 can hold 32768 at most" in reason


def cut(text: str, tokens: int | None = None, *, limit: int | None = 32, **fields: object) -> Completion:
    """An answer that says it was ended by its length."""
    made = Completion(text=text, finish_reason="length", completion_tokens=tokens, max_tokens=limit)
    return msgspec.structs.replace(made, **fields)


STORY = "the heron sleeps in the harbour and nobody knows why it does not wake up at night when ships come in so loudly"
WHOLE = cut(STORY, 32)


@pytest.mark.parametrize(
    "answer",
    [
        cut("the heron", 2),
        cut("the heron", 2, completion_tokens=None, logprobs=(TokenLogprob(token=b"the heron", logprob=-0.1),)),
        cut("the heron"),
        cut(STORY[:40]),
        cut(STORY[:90], 26),
        cut("", 0),
        cut("Yes", 12, reasoning="I was asked whether it sleeps"),
        cut(STORY[:60], 15, limit=64, reasoning="I was asked whether it sleeps"),
        cut(STORY[:60], 14, reasoning_tokens=5),
        cut(STORY[:28], counted=20, choices=(cut(STORY[:28]),) * 3),
    ],
    ids=[
        *("counted", "token records", "nobody counted", "a third", "26 of 32", "nothing", "reasoning counted with it"),
        *("reasoning counted with a long text", "hidden reasoning counted with it", "all choices are fewer"),
    ],
)
def test_an_answer_well_short_of_its_limit_was_ended_by_something_else(answer: Completion) -> None:
    assert short_of_limit(answer, WHOLE)


@pytest.mark.parametrize(
    ("answer", "beside"),
    [
        (WHOLE, WHOLE),
        (cut("the heron", 2, limit=None), WHOLE),
        (cut("the heron", 2, finish_reason="stop"), WHOLE),
        (cut("the heron", 2, limit=2), WHOLE),
        (cut(STORY, 31), WHOLE),
        (cut(STORY, 27), WHOLE),
        (cut(STORY[:60]), WHOLE),
        (cut(STORY), cut(STORY)),
        (cut(STORY, 8), cut(STORY, 32, logprobs=(TokenLogprob(token=b"the", logprob=-0.1),))),
        (cut("Yes, it does.", 4, reasoning_tokens=28), WHOLE),
        (cut("Yes, it does.", 4, reasoning="I was asked whether it sleeps, and where, and " * 2), WHOLE),
        (cut("", 32, reasoning="I was asked whether it sleeps"), WHOLE),
        (cut("", None, tool_calls=(ToolCall(name="f", arguments='{"a'),)), WHOLE),
    ],
    ids=[
        *(
            "at its limit",
            "no limit known",
            "stop",
            "a limit of its own",
            "without its end",
            "an eighth is not counted",
        ),
        *("longer tokens than beside it", "counted by neither", "events are counted", "reasoning is counted apart"),
        *("reasoning is not counted", "all of it reasoning", "a call nobody counted"),
    ],
)
def test_engines_that_count_otherwise_reached_their_limit(answer: Completion, beside: Completion) -> None:
    assert not short_of_limit(answer, beside)


THOUGHT = "they ask me about the heron and I have to think of what it does at night, when it sleeps, and whether ships "


@pytest.mark.parametrize("words", [12, 40, 110])
def test_reasoning_that_is_counted_with_the_text_fills_no_limit_twice(words: int) -> None:
    """256 tokens, four bytes each; the baseline thinks as long and goes on to the limit."""
    text, whole = ("heron " * 400)[: 5 * words], ("heron " * 400)[: 1024 - len(THOUGHT)]
    short = cut(text, (len(text) + len(THOUGHT)) // 4, limit=256, reasoning=THOUGHT)
    baseline = cut(whole, 256, limit=256, reasoning=THOUGHT)

    assert short_of_limit(short, baseline)
    assert short_of_limit(short, cut(whole, 256, limit=256))
    assert not short_of_limit(baseline, short)


def test_reasoning_that_is_not_counted_is_added() -> None:
    apart = cut("heron " * 30, 45, limit=90, reasoning="heron " * 30)

    assert not short_of_limit(apart, cut("heron " * 60, 90, limit=90))
    assert not short_of_limit(cut("heron " * 30, 45, limit=90, reasoning_tokens=45), apart)


def choices_of(text: str, counted: int) -> Completion:
    return cut(text, counted=counted, choices=(cut(text),) * 3)


def test_choices_that_end_early_are_short_of_their_limit() -> None:
    """Four choices of which nobody knows how many tokens each has: 128 of four times 32, and 32 of as many."""
    whole, short = choices_of(STORY, 128), choices_of(STORY[:28], 32)

    assert short_of_limit(short, whole)
    assert not short_of_limit(whole, short)
    assert not short_of_limit(choices_of(STORY, 32), choices_of(STORY, 32)), "those of the first may be counted"


@given(st.text(max_size=40), st.text(max_size=40), st.integers(0, 64), st.integers(1, 64))
def test_what_reached_its_limit_by_the_servers_count_is_never_short_of_it(
    text: str, reasoning: str, more: int, limit: int
) -> None:
    answer = cut(text, limit + more, limit=limit, reasoning=reasoning)

    assert not short_of_limit(answer, WHOLE)
    assert not short_of_limit(answer, cut(text + "x"))
