"""How experiments ask: what their answers are before they are compared."""

from __future__ import annotations

from pytest_llmparity.core.sample import Completion, TokenLogprob
from pytest_llmparity.run.explain.asking import _without_its_end


def test_the_end_token_that_whole_answers_alone_list_is_no_position() -> None:
    record = TokenLogprob(token=b"Yes", logprob=-0.1, top=((b"Yes", -0.1), (b"No", -3.0)))
    end = TokenLogprob(token=b"", logprob=-0.1, top=((b"", -0.1), (b"!", -4.0)))
    streamed = Completion(text="Yes", finish_reason="stop", logprobs=(record,))
    whole = Completion(text="Yes", finish_reason="stop", logprobs=(record, end))

    assert _without_its_end(whole) == streamed
    assert _without_its_end(streamed) is streamed
