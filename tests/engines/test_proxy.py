"""The fault proxy: what it changes of requests and answers, and that everything else passes as it is."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pytest_llmparity.testing import FaultProxy, LoopbackEngine, proxy
from tests.doubles.posing import PosingEngine

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "My name is Ada."},
    {"role": "assistant", "content": "Hello, Ada."},
    {"role": "user", "content": "What is my name?"},
]
SCHEMA = {"type": "object", "properties": {"b": {"type": "object", "properties": {"z": {}, "y": {}}}, "a": {}}}


def ask(base_url: str, path: str = "/v1/chat/completions", **body: Any) -> tuple[int, str]:
    connection = http.client.HTTPConnection(base_url.removeprefix("http://"), timeout=30)
    try:
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def behind(change: proxy.Change, **body: Any) -> Mapping[str, Any]:
    """Return what an engine behind a proxy with this change is asked."""
    with LoopbackEngine("Ada.") as engine, FaultProxy(engine.base_url, change) as changed:
        status, text = ask(changed.base_url, model="loopback", messages=TURNS, **body)
        assert status == 200, text
        return engine.requests[0].json


def texts(stream: str) -> list[str]:
    """Return the pieces of text in a chat's stream."""
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    pieces = [choice["delta"].get("content") for event in events for choice in event["choices"]]
    return [piece for piece in pieces if piece]


def test_messages_are_changed_before_the_engine_sees_them() -> None:
    assert behind(proxy.hidden_system("Rhyme."))["messages"] == [{"role": "system", "content": "Rhyme."}, *TURNS]
    assert behind(proxy.oldest_dropped(1))["messages"] == [TURNS[0], TURNS[3]]
    assert behind(proxy.middle_cut(8))["messages"][1]["content"] == "My nAda."


def test_fields_are_set_and_left_out_whatever_was_asked() -> None:
    assert behind(proxy.overridden(temperature=0.8), temperature=0.0)["temperature"] == 0.8
    assert "stop" not in behind(proxy.without("stop"), stop=["."])
    assert behind(proxy.defaulting(min_p=0.3))["min_p"] == 0.3
    assert behind(proxy.defaulting(min_p=0.3), min_p=0)["min_p"] == 0


@pytest.mark.parametrize(
    ("asked", "limit"), [({"max_tokens": 32}, 4), ({"max_completion_tokens": 32}, 4), ({}, 4), ({"max_tokens": 2}, 2)]
)
def test_an_answer_is_capped_below_what_was_asked_and_never_above(asked: dict[str, int], limit: int) -> None:
    sent = behind(proxy.capped(4), **asked)

    assert sent["max_tokens"] == limit
    assert "max_completion_tokens" not in sent


def test_properties_are_sorted_in_every_schema() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}

    asked = behind(proxy.reordered_properties(), response_format=wanted)["response_format"]["json_schema"]["schema"]

    assert list(asked["properties"]) == ["a", "b"]
    assert list(asked["properties"]["b"]["properties"]) == ["y", "z"]


def test_a_chat_in_another_template_is_a_raw_prompt_and_answered_as_a_chat() -> None:
    change = proxy.another_template(lambda messages: " / ".join(message["content"] for message in messages))
    with LoopbackEngine("It is Ada.") as engine, FaultProxy(engine.base_url, change) as changed:
        body: dict[str, Any] = {"model": "loopback", "messages": TURNS, "max_tokens": 8}
        whole = json.loads(ask(changed.base_url, **body)[1])
        stream = ask(changed.base_url, **body, stream=True)[1]

        assert [received.path for received in engine.requests] == ["/v1/completions"] * 2
        assert engine.requests[0].json["prompt"] == "Be brief. / My name is Ada. / Hello, Ada. / What is my name?"

    assert whole["choices"][0]["message"]["content"] == "It is Ada."
    assert "".join(texts(stream)) == "It is Ada."


class Rendering(LoopbackEngine):
    """An engine that tells how it renders a chat."""

    def asked(self, path: str, body: Mapping[str, Any]) -> object | None:
        return {"prompt": "<s>rendered"} if path == "/apply-template" else None


def test_a_doubled_bos_stands_before_what_the_engine_renders() -> None:
    with Rendering("Ada.") as engine, FaultProxy(engine.base_url, proxy.doubled_bos("<s>")) as changed:
        ask(changed.base_url, model="loopback", messages=TURNS)

        assert engine.requests[0].json["prompt"] == "<s><s>rendered"


def test_answers_lose_white_space_or_think_aloud_unless_told_not_to() -> None:
    body: dict[str, Any] = {"model": "loopback", "messages": TURNS}
    with LoopbackEngine("  It is Ada. ") as engine:
        with FaultProxy(engine.base_url, proxy.stripped()) as changed:
            whole = json.loads(ask(changed.base_url, **body)[1])["choices"][0]["message"]["content"]
            stream = texts(ask(changed.base_url, **body, stream=True)[1])
        with FaultProxy(engine.base_url, proxy.thinking_aloud("Hm.", opening="<r>", closing="</r>")) as changed:
            aloud = "".join(texts(ask(changed.base_url, **body, stream=True)[1]))
            quiet = "".join(texts(ask(changed.base_url, **body, stream=True, reasoning_effort="none")[1]))

    assert whole == "It is Ada."
    assert "".join(stream).startswith("It is Ada.")
    assert len(stream) > 1, "a stream stays one"
    assert aloud == "<r>\nHm.\n</r>\n\n" + quiet


def test_what_no_change_is_about_passes_as_it_is() -> None:
    with PosingEngine("Ada.", poses_as="llamacpp") as engine, FaultProxy(engine.base_url) as nothing:
        for path in ("/health", "/props", "/v1/models", "/nowhere"):
            assert ask(nothing.base_url, path) == ask(engine.base_url, path)
        refused = ask(nothing.base_url, model="loopback", messages=TURNS, top_logprobs=-1, logprobs=True)

        assert refused == ask(engine.base_url, model="loopback", messages=TURNS, top_logprobs=-1, logprobs=True)
        assert nothing.received[0]["messages"] == TURNS


@pytest.mark.parametrize("change", [proxy.overridden(seed=1), proxy.hidden_system("Rhyme.")])
def test_a_body_that_is_not_json_ends_only_its_own_connection(change: proxy.Change) -> None:
    with LoopbackEngine("Ada.") as engine, FaultProxy(engine.base_url, change) as changed:
        connection = http.client.HTTPConnection(changed.base_url.removeprefix("http://"), timeout=30)
        connection.request("POST", "/v1/chat/completions", "{")
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            connection.getresponse()

        assert ask(changed.base_url, model="loopback", messages=TURNS)[0] == 200


def test_texts_become_the_tokens_of_their_pieces_and_tokens_pass_as_they_are() -> None:
    class Tokenising(PosingEngine):
        def asked(self, path: str, body: Mapping[str, Any]) -> object | None:
            if path == "/apply-template":
                return {"prompt": "<|s|>Hello there"}
            return {"tokens": [len(body["content"])]} if path == "/tokenize" else None

    with (
        Tokenising("Ada.", poses_as="llamacpp") as engine,
        FaultProxy(engine.base_url, proxy.another_tokenizer(4)) as changed,
    ):
        ask(changed.base_url, model="loopback", messages=TURNS)
        ask(changed.base_url, "/v1/completions", model="loopback", prompt="Hi you")
        ask(changed.base_url, "/v1/completions", model="loopback", prompt=[7])
        prompts = [request.json["prompt"] for request in engine.requests if "prompt" in request.json]

    assert prompts == [[5, 4, 4, 3], [4, 2], [7]]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_request_right_behind_another_is_alone(stream: bool) -> None:
    with LoopbackEngine("Ada.") as engine, FaultProxy(engine.base_url, proxy.crowded(seed=7)) as changed:
        for _ in range(50):
            ask(changed.base_url, model="loopback", messages=TURNS, stream=stream)
        asked = [request.json for request in engine.requests]

    assert len(asked) == 50
    assert not any("seed" in request for request in asked)


def test_a_request_is_held_back_for_another_that_comes_soon() -> None:
    """The first of two waits for the second, however soon either is answered; one that nobody joins waits in vain."""
    with LoopbackEngine("Ada.") as engine, FaultProxy(engine.base_url, proxy.crowded(20, seed=7)) as changed:
        with ThreadPoolExecutor(2) as both:
            for _ in range(2):
                both.submit(ask, changed.base_url, model="loopback", messages=TURNS)
        asked = [request.json for request in engine.requests]

    assert [request.get("seed") for request in asked] == [7, 7]
    assert "seed" not in behind(proxy.crowded(0.01, seed=7))


def test_a_request_was_beside_another_that_is_answered_before_it_is_changed() -> None:
    crowded = proxy.crowded(seed=7)
    crowded.begun()
    assert behind(crowded)["seed"] == 7

    assert crowded.asked({}, chat=True, post=lambda path, body: {})["seed"] == 7


def test_a_request_beside_another_is_changed_and_one_alone_is_not() -> None:
    crowded = proxy.crowded(seed=7)
    assert "seed" not in behind(crowded)
    crowded.begun()
    assert behind(crowded)["seed"] == 7
    crowded.ended()
    assert "seed" not in behind(crowded)
