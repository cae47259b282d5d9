"""Every adapter against every way a loopback engine can go wrong, through the client the product gathers with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import Request
from pytest_llmparity.engines.base import Adapter
from pytest_llmparity.testing import Fault, LoopbackEngine, Reply
from pytest_llmparity.transport.exchange import Exchange

Attach = Callable[..., Adapter]
Send = Callable[..., Exchange]
Start = Callable[..., LoopbackEngine]

KINDS = ["llamacpp", "vllm", "openai"]
REQUEST = Request(case="refund-3", messages=({"role": "user", "content": "When?"},), top_logprobs=1)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[True, False], ids=["streamed", "whole"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_answer_is_the_same_streamed_or_whole(kind: str, start: Start, attach: Attach, send: Send) -> None:
    engine = start(Reply(text="30 days, says the agent.", reasoning="refund policy"))
    adapter = attach(engine.base_url, kind)

    streamed, whole = (send(adapter, REQUEST, stream=stream) for stream in (True, False))
    found = adapter.parse(streamed, case="refund-3")

    assert found == adapter.parse(whole, case="refund-3")
    assert (found.text, found.reasoning) == ("30 days, says the agent.", "refund policy")
    assert (found.prompt_tokens, found.completion_tokens, len(found.logprobs)) == (2, 7, 5)
    assert (found.logprobs[1].token, found.logprobs[1].logprob) == (b" days,", -0.25)
    assert len(adapter.token_ends(streamed)) == 7
    assert adapter.token_ends(whole) == ()
    assert adapter.token_ends(streamed)[-1] < len(streamed.body)


def test_tool_calls_arrive_streamed_or_whole(kind: str, stream: bool, start: Start, attach: Attach, send: Send) -> None:
    engine = start(Reply(tool_calls=[("get_weather", '{"city": "Lisbon"}'), ("get_time", "{}")]))
    adapter = attach(engine.base_url, kind)

    found = adapter.parse(send(adapter, REQUEST, stream=stream), case="c")

    assert [(call.name, call.arguments) for call in found.tool_calls] == [
        ("get_weather", '{"city": "Lisbon"}'),
        ("get_time", "{}"),
    ]
    assert found.finish_reason == "tool_calls"


def test_raw_prompt_is_answered(kind: str, stream: bool, start: Start, attach: Attach, send: Send) -> None:
    adapter = attach(start("Paris it is").base_url, kind)

    answer = send(adapter, Request(case="c", prompt="raw text", top_logprobs=1), stream=stream)

    found = adapter.parse(answer, case="c")
    assert (found.text, found.prompt_tokens, len(found.logprobs)) == ("Paris it is", 2, 3)


FAULTS: dict[str, tuple[Fault, type[errors.EngineError], str]] = {
    "400": (Fault.refuse(400), errors.BadRequest, "refused by the script"),
    "401": (Fault.refuse(401), errors.NotAuthorised, "api_key_env"),
    "404": (Fault.refuse(404), errors.ModelMissing, "GET /v1/models"),
    "429": (Fault.busy(9, retry_after="7"), errors.Overloaded, "too many requests"),
    "500": (Fault.refuse(500), errors.ServerFailure, "its log"),
    "503": (Fault.refuse(503), errors.Overloaded, "still loading"),
    "html": (Fault.html(), errors.ProtocolError, "titled “Bad gateway”"),
    "html-502": (Fault.html(502), errors.ServerFailure, "titled “Bad gateway”"),
    "truncated": (Fault.truncated_json(), errors.ProtocolError, "stops being JSON"),
    "empty": (Fault.empty(), errors.EmptyAnswer, "finish reason stop"),
    "utf8": (Fault.invalid_utf8(), errors.ProtocolError, "is not UTF-8 (0xff)"),
    "no-body": (Fault.refuse(500, b""), errors.ServerFailure, "nothing"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_a_typed_error(name: str, kind: str, stream: bool, start: Start, attach: Attach, send: Send) -> None:
    fault, error, said = FAULTS[name]
    adapter = attach(start(fault).base_url, kind)
    answer = send(adapter, REQUEST, stream=stream)

    with pytest.raises(error) as caught:
        adapter.parse(answer, case="refund-3")

    assert type(caught.value) is error
    assert said in str(caught.value)
    assert (caught.value.engine, caught.value.case) == ("cand", "refund-3")
    assert caught.value.retry_after_s == (7.0 if name == "429" else None)


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Fault.half_stream(clean=True), errors.ProtocolError), (Fault.error_event(), errors.ServerFailure)],
    ids=["half", "error"],
)
def test_stream_that_breaks_off_is_no_answer(
    fault: Fault, error: type[errors.EngineError], kind: str, start: Start, attach: Attach, send: Send
) -> None:
    adapter = attach(start(fault).base_url, kind)
    answer = send(adapter, REQUEST)

    with pytest.raises(error):
        adapter.parse(answer, case="c")


@pytest.mark.parametrize("fault", [Fault.half_stream(), Fault.close()], ids=["half", "close"])
def test_connection_that_breaks_is_told_by_the_transport(
    fault: Fault, start: Start, attach: Attach, send: Send
) -> None:
    with pytest.raises(errors.ProtocolError):
        send(attach(start(fault).base_url), REQUEST)


def test_server_that_hangs_up_at_once_is_no_answer(start: Start, attach: Attach, send: Send) -> None:
    engine = start("x")
    engine.accepting = False

    with pytest.raises(errors.EngineError):
        send(attach(engine.base_url), REQUEST)


def test_busy_server_answers_the_same_request_later(start: Start, attach: Attach, send: Send) -> None:
    engine = start(Fault.busy(2, status=503, retry_after=None, then=Reply(text="at last")))
    adapter = attach(engine.base_url)

    statuses = [send(adapter, REQUEST).status for _ in range(3)]

    assert statuses == [503, 503, 200]
    assert adapter.parse(send(adapter, REQUEST), case="c").text == "at last"


ODD: dict[str, tuple[Reply, dict[str, Any]]] = {
    "surrogate": (Reply(text="a\ud800b"), {"text": "a\ufffdb", "normalised": ("lone surrogate replaced",)}),
    "control": (Reply(text="\x1b[2J\x07"), {"text": "\x1b[2J\x07", "normalised": ()}),
    "nan": (Reply(text="a", logprob=math.nan), {"text": "a"}),
    "unicode": (Reply(text="né 😀\u2028 ok"), {"text": "né 😀\u2028 ok"}),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_text_is_read_whole(name: str, stream: bool, start: Start, attach: Attach, send: Send) -> None:
    reply, expected = ODD[name]
    adapter = attach(start(reply).base_url)

    found = adapter.parse(send(adapter, REQUEST, stream=stream), case="c")

    assert {field: getattr(found, field) for field in expected} == expected
    assert found.logprobs[0].logprob == (None if name == "nan" else -0.25)


def test_answer_of_five_megabytes_is_read_whole(stream: bool, start: Start, attach: Attach, send: Send) -> None:
    adapter = attach(start(Reply(text="x" * 5_000_000)).base_url)
    request = Request(case="c", messages=({"role": "user", "content": "much"},))

    assert adapter.parse(send(adapter, request, stream=stream), case="c").text == "x" * 5_000_000


def test_key_is_sent_and_an_echo_of_it_is_only_text(start: Start, attach: Attach, send: Send) -> None:
    engine = start(Fault.echo_key(), api_key="sk-test-0123456789")
    adapter = attach(engine.base_url, api_key_env="KEY")

    assert adapter.parse(send(adapter, REQUEST), case="c").text == "you sent Bearer sk-test-0123456789"
    assert adapter.api_key == "sk-test-0123456789"
    refused = send(attach(engine.base_url), REQUEST)
    assert refused.status == 401


def test_prompt_beyond_the_context_is_told_as_such(start: Start, attach: Attach, send: Send) -> None:
    adapter = attach(start(context_length=3).base_url)
    answer = send(adapter, Request(case="c", messages=({"role": "user", "content": "one two three four"},)))

    with pytest.raises(errors.ContextOverflow, match="Raise context_length"):
        adapter.parse(answer, case="c")
