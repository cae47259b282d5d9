"""What is kept of an application's calls, and when the engine answered none of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_llmparity.core.sample import ApplicationCall, Completion, Phase, Sample
from pytest_llmparity.core.values.calls import LONGEST, answer_of, request_of, unanswered
from pytest_llmparity.core.words.masking import Mask

KEY = "sk-review-0123456789abcdef"


def calls(*statuses: int) -> list[ApplicationCall]:
    return [ApplicationCall(path="/", request=str(n), status=status, answer="") for n, status in enumerate(statuses)]


@pytest.mark.parametrize(
    ("statuses", "place"),
    [
        ((), None),
        ((200,), None),
        ((500, 500), 1),
        ((0,), 0),
        ((400,), 0),
        ((499, 499), 1),
        ((0, 200), None),  # asked again, and answered
        ((400, 200), None),  # asked otherwise, and answered
        ((200, 400), None),  # the application knows what it made of that
        ((200, 0), 1),
        ((200, 500, 500), 1),
    ],
)
def test_a_run_none_of_whose_calls_was_answered_is_the_engine_s_failure(
    statuses: tuple[int, ...], place: int | None
) -> None:
    made = calls(*statuses)

    assert unanswered(made) is (None if place is None else made[place])


def events(*parts: dict[str, Any]) -> bytes:
    return "".join(f"event: {part.get('type')}\ndata: {json.dumps(part)}\n\n" for part in parts).encode()


ANTHROPIC = {"id": "msg_1", "type": "message", "content": [
    {"type": "thinking", "thinking": "hm"},
    {"type": "text", "text": "Hi"},
    {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {"n": 1}},
]}  # fmt: skip
ANTHROPIC_STREAM = events(
    {"type": "message_start", "message": {"id": "msg_1", "type": "message", "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "H"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "i"}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "name": "find", "input": {}}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"n":'}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": " 1}"}},
)  # fmt: skip
RESPONSES = {"id": "resp_1", "created_at": 7, "output": [
    {"type": "reasoning", "id": "rs_1", "content": [{"type": "reasoning_text", "text": "hm"}]},
    {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "Hi"}]},
    {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "find", "arguments": '{"n": 1}'},
]}  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(ANTHROPIC).encode(),
        ANTHROPIC_STREAM,
        json.dumps(RESPONSES).encode(),
        events({"type": "response.created", "response": {}}, {"type": "response.completed", "response": RESPONSES}),
    ],
    ids=["messages", "messages, streamed", "responses", "responses, streamed"],
)
def test_what_was_said_and_called_is_read_of_every_known_shape(body: bytes) -> None:
    assert answer_of(body) == 'Hi\n[call] find {"n": 1}'


@pytest.mark.parametrize(
    "shape",
    [
        {"data": [{"embedding": [0.5]}]},
        {"error": {"message": "no such model", "request_id": "*"}},
        {"output": [{"type": "image", "id": "*"}]},
    ],
)
def test_ids_and_times_of_unknown_shapes_are_no_difference(shape: dict[str, Any]) -> None:
    bodies = [
        json.dumps({"id": name, "created": len(name), "created_at": len(name), **shape}).replace('"*"', f'"{name}"')
        for name in ("one", "three")
    ]

    assert answer_of(bodies[0].encode()) == answer_of(bodies[1].encode())
    assert len(answer_of(bodies[0].encode())) > 10


def test_several_choices_are_told_apart_and_reasoning_alone_is_kept() -> None:
    two = b'{"choices":[{"message":{"content":"a"}},{"message":{"content":"b"}}]}'
    assert answer_of(two) == "[choice 1] a\n[choice 2] b"
    thinks = b'{"choices":[{"message":{"content":null,"reasoning_content":"abc"}}]}'
    assert answer_of(thinks) == "[reasoning] abc"


@pytest.mark.parametrize("inside", range(8, len(KEY), 4))
def test_a_key_that_is_cut_at_the_end_of_what_is_kept_is_hidden(inside: int) -> None:
    text = request_of(f"{'x' * (LONGEST - inside)}{KEY}{'y' * 50}".encode())
    call = ApplicationCall(path="/", request=text, status=200, answer=text)
    completion = Completion(text="1", finish_reason="returned", calls=(call,))
    sample = Sample(
        engine="a", case="c", phase=Phase.MAIN, repeat=0, concurrency=1, request_sha256="", completion=completion
    )

    masked = Mask({"TOP_SECRET": KEY}).sample(sample).completion

    assert masked is not None
    assert masked.calls is not None
    for kept in (masked.calls[0].request, masked.calls[0].answer):
        assert KEY[:8] not in kept
        assert "«TOP_SECRET»… (" in kept
