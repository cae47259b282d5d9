"""How large an answer may be: far above what real ones have, far below what breaks a run."""

from __future__ import annotations

import pytest

from pytest_llmparity.core.sample import Completion, Request, Sampling, ToolCall
from pytest_llmparity.core.sizes import MOST_WIRE_BYTES, beyond, wire_bytes


def asked(max_tokens: int, top_logprobs: int | None = None) -> Request:
    return Request(case="c", prompt="p", sampling=Sampling(max_tokens=max_tokens), top_logprobs=top_logprobs)


def test_the_limit_of_an_answer_grows_with_what_was_asked() -> None:
    assert wire_bytes(asked(64), sent=1000) == 2**20 + 16_000 + 64 * 2048
    assert wire_bytes(asked(64, 5), sent=0) == 2**20 + 64 * (2048 + 6 * 512)
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
    ("completion", "what"),
    [
        (Completion(text="x" * (64 * 512 + 1)), "32769 bytes of text"),
        (Completion(text="\N{ROCKET}" * (64 * 128 + 1)), "32772 bytes of text"),
        (Completion(text="", tool_calls=(ToolCall(name="f", arguments="x" * 40_000),)), "40001 bytes of tool calls"),
    ],
)
def test_what_they_cannot_hold_is_none(completion: Completion, what: str) -> None:
    said = beyond(completion, 64)

    assert said is not None
    assert said.startswith(what)
    assert "max_tokens = 64 can hold 32768 at most" in said
