from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core import errors
from pytest_llmparity.engines.wire.refusals import (
    SHOWN_CHARS,
    errorless,
    read_refusal,
    refusal_of,
    refused,
    retry_after,
    shown,
)


def error(status: int, body: object, headers: dict[str, str] | None = None) -> errors.EngineError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return refused(read_refusal(raw), status=status, headers=headers or {}, engine="cand", case="refund-3")


def nested(message: str, **fields: object) -> dict[str, object]:
    return {"error": {"message": message, **fields}}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, nested("'messages' is required", type="invalid_request_error", code=400), errors.BadRequest),
        (400, nested("too many tokens", type="exceed_context_size_error"), errors.ContextOverflow),
        (400, nested("This model's maximum context length is 1024 tokens."), errors.ContextOverflow),
        (400, nested("no", code="context_length_exceeded"), errors.ContextOverflow),
        (422, {"error": "Input validation error", "error_type": "validation"}, errors.BadRequest),
        (413, nested("longer than the model's context length"), errors.ContextOverflow),
        (400, {"error": "the prompt is longer than the context length currently available"}, errors.ContextOverflow),
        (400, nested("top_k is not supported", param="top_k"), errors.UnsupportedParameter),
        (
            422,
            {
                "detail": [
                    {"loc": ["body", "top_k"], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"}
                ]
            },
            errors.UnsupportedParameter,
        ),
        (
            400,
            nested("Input length (1018 tokens) exceeds the maximum allowed length (1018 tokens)."),
            errors.ContextOverflow,
        ),
        (
            400,
            {"error": "The number of tokens to keep from the initial prompt is greater than the context length."},
            errors.ContextOverflow,
        ),
        (401, {"error": "Unauthorized"}, errors.NotAuthorised),
        (403, b"Forbidden", errors.NotAuthorised),
        (404, nested("The model `x` does not exist.", type="NotFoundError"), errors.ModelMissing),
        (404, {"detail": "Not Found"}, errors.AnswerError),
        (404, nested("File Not Found"), errors.AnswerError),
        (404, b"<html><head><title>404</title></head></html>", errors.AnswerError),
        (404, b"", errors.AnswerError),
        (408, b"", errors.Timeout),
        (418, b"", errors.AnswerError),
        (424, {"error": "Request failed during generation", "error_type": "generation"}, errors.ServerFailure),
        (429, nested("maximum context length of your plan"), errors.Overloaded),
        (500, nested("boom"), errors.ServerFailure),
        (501, nested("not implemented"), errors.ServerFailure),
        (503, nested("Loading model", type="unavailable_error"), errors.Overloaded),
        (503, nested("EngineCore encountered an issue. EngineDeadError"), errors.EngineDied),
        (500, {"object": "error", "message": "EngineDeadError", "code": 500}, errors.EngineDied),
        (302, b"", errors.ProtocolError),
    ],
)
def test_every_refusal_is_one_typed_error(status: int, body: object, kind: type[errors.EngineError]) -> None:
    refusal = error(status, body)

    assert type(refusal) is kind
    assert (refusal.engine, refusal.case, refusal.status) == ("cand", "refund-3", status)
    assert str(refusal).startswith(f"cand answered {status} to case 'refund-3': ")


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
        "You passed 5000 input tokens. However, the model's context length is only 4096 tokens.",
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        "Input tokens exceed the configured limit of 272000 tokens.",
        "The input token count (40000) exceeds the maximum number of tokens allowed (32767).",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 199000 + 4096 > 200000",
        "Requested tokens (5000) exceed context window of 4096",
        "litellm.ContextWindowExceededError: BadRequestError",
        "Prompt length 5000 is greater than max_seq_len 4096",
        "Input prompt is too big compared to KV size. Please try increasing KV size.",
        "Reached context length of 4096 tokens, but this model does not currently support mid-generation overflow",
        "Please reduce the length of the messages or completion.",
        "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
        "the input length exceeds the context length",
    ],
)
@pytest.mark.parametrize("status", [400, 413, 500, 503])
def test_a_prompt_that_does_not_fit_is_known_by_any_server_s_words_under_any_status(words: str, status: int) -> None:
    assert type(error(status, {"error": words})) is errors.ContextOverflow


@pytest.mark.parametrize("words", ["Rate limit exceeded", "max_tokens must be positive", "the model is too large"])
def test_other_limits_are_no_context(words: str) -> None:
    assert not isinstance(error(400, nested(words)), errors.ContextOverflow)


def test_field_and_reason_of_a_validation_error_are_named() -> None:
    message = str(error(422, {"detail": [{"loc": ["body", "top_k"], "msg": "Extra inputs are not permitted"}]}))

    assert "Extra inputs are not permitted (field body.top_k)" in message


def test_full_stop_of_the_server_is_not_doubled() -> None:
    assert "is full. It is busy" in str(error(503, nested("The request queue is full.")))


def test_request_without_a_case_is_named_as_one() -> None:
    refusal = refused(read_refusal(b""), status=500, headers={}, engine="cand", case=None)

    assert str(refusal).startswith("cand answered 500 to a request: nothing.")


def test_html_is_told_by_its_title() -> None:
    assert "titled “Bad gateway”" in str(error(502, b"<!doctype html><title>Bad gateway</title>"))
    assert read_refusal(b"<html>").message == "an HTML page, not an API's answer"


def test_error_without_a_message_is_shown_whole() -> None:
    assert refusal_of({"error": {"cause": "why"}}) is not None
    assert '{"cause": "why"}' in str(error(500, {"error": {"cause": "why"}}))


@pytest.mark.parametrize(
    "wrap",
    [lambda text: {"error": text}, lambda text: nested(text, type="invalid_request_error")],
    ids=["text", "object"],
)
def test_error_of_the_server_behind_is_read_out_of_the_message(wrap: Callable[[str], dict[str, object]]) -> None:
    behind = json.dumps(nested("request (2829 tokens) is too much", type="exceed_context_size_error", code=400))

    refusal = error(400, wrap(behind))

    assert type(refusal) is errors.ContextOverflow
    assert str(refusal).startswith("cand answered 400 to case 'refund-3': request (2829 tokens) is too much. ")


def test_status_of_the_server_behind_counts_where_the_one_before_says_none() -> None:
    refusal = refusal_of({"error": json.dumps(nested("boom", code=503))})

    assert refusal is not None
    assert (refusal.message, refusal.status) == ("boom", 503)


@pytest.mark.parametrize("text", ['{"error": "half', '{"message": {}}', 'no such field in {"message": "hi"}'])
def test_message_that_only_looks_like_an_error_stays_as_it_is(text: str) -> None:
    refusal = refusal_of({"error": text})

    assert refusal is not None
    assert refusal.message == text


@pytest.mark.parametrize("value", [{"choices": []}, [], "x", None, {"error": None}, {"error": ""}])
def test_what_is_no_error_is_not_read_as_one(value: object) -> None:
    assert refusal_of(value) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        (
            {"retry-after": "Sat, 21 Nov 2026 10:00:30 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"},
            30.0,
        ),
        ({"retry-after": "Sat, 21 Nov 2026 09:00:00 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 0.0),
        ({"retry-after": "Sat, 21 Nov 2020 09:00:00 -0000"}, 0.0),
        ({"retry-after": "Sat, 99 Nov 2026 10:00:30 GMT"}, None),
    ],
)
def test_retry_after_in_seconds_or_as_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds
    assert error(429, b"busy", headers).retry_after_s == seconds


@given(text=st.text(alphabet=st.characters(), max_size=2000))
def test_shown_text_cannot_steer_a_terminal(text: str) -> None:
    safe = shown(text)

    assert len(safe) <= SHOWN_CHARS
    assert safe.isprintable()
    safe.encode("utf-8")


def test_shown_escapes_rather_than_drops() -> None:
    assert shown("\x1b[2Jred\r\n\u202eevil") == "\\x1b[2Jred \\u202eevil"
    assert shown("x" * 400) == "x" * (SHOWN_CHARS - 1) + "…"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "detail", "loc", "msg", "type"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(value=JSON, status=st.integers(300, 599))
def test_any_json_is_a_typed_error(value: Any, status: int) -> None:
    assert isinstance(error(status, value), errors.EngineError)


@given(body=st.binary(max_size=60), status=st.integers(300, 599))
def test_any_bytes_are_a_typed_error(body: bytes, status: int) -> None:
    assert isinstance(error(status, body), errors.EngineError)


WORDS = st.sampled_from(["error", "\\u0065rror", "errors", "message", "object", "delta", "index", "choices", "content"])
PARTS = st.recursive(
    WORDS | st.integers(0, 500),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(WORDS, PARTS, max_size=3), st.none() | st.lists(st.dictionaries(WORDS, PARTS, max_size=3)))
def test_no_error_is_looked_for_only_where_there_is_none(chunk: dict[str, Any], choices: list[Any] | None) -> None:
    text = json.dumps(chunk if choices is None else chunk | {"choices": choices}).replace("\\\\", "\\")
    value = json.loads(text)

    if errorless(value, text):
        assert refusal_of(value) is None
