"""The public test doubles: what their users rely on."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.sample import Request, Sampling
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.settings.selection import KINDS
from pytest_llmparity.testing import Fault, Replay, Reply
from pytest_llmparity.testing.script import babble, drifted, prompt_of, split_tokens
from pytest_llmparity.testing.server import LoopbackServer
from pytest_llmparity.transport.client import Client
from pytest_llmparity.transport.exchange import Exchange
from tests.doubles.abilities import Abilities
from tests.doubles.dialects import DIALECTS
from tests.doubles.posing import PosingEngine

Attach = Callable[..., Adapter]
Send = Callable[..., Exchange]
Start = Callable[..., PosingEngine]


def ask(text: str, **sampling: object) -> Request:
    return Request(
        case="c",
        messages=({"role": "user", "content": text},),
        sampling=Sampling(**sampling),  # type: ignore[arg-type]
    )


def call(base_url: str, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(base_url.removeprefix("http://"), timeout=5)
    try:
        connection.request(method, path, body or None)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


# ---- the loopback engine -------------------------------------------------------------------------------------------


def test_same_prompt_gets_the_same_text_from_equal_engines(start: Start, attach: Attach, send: Send) -> None:
    first, second = (attach(start().base_url) for _ in range(2))

    texts = [adapter.read(send(adapter, ask("hello")), case="c").text for adapter in (first, first, second)]

    assert len(set(texts)) == 1
    assert texts[0] != first.read(send(first, ask("good bye")), case="c").text


def test_drift_is_repeatable_and_noise_is_not(start: Start, attach: Attach, send: Send) -> None:
    def text(engine: PosingEngine) -> str:
        adapter = attach(engine.base_url)
        return adapter.read(send(adapter, ask("hello", max_tokens=40)), case="c").text

    plain, drifting, noisy = start(), start(drift=0.2, seed=1), start(noise=0.5)

    assert text(drifting) == text(drifting) != text(plain)
    assert text(noisy) != text(noisy)


def test_function_decides_by_the_request(start: Start, attach: Attach, send: Send) -> None:
    def answer(request: Mapping[str, object]) -> str | Reply | Fault:
        return "json" if "response_format" in request else "text"

    adapter = attach(start(answer).base_url)
    formatted = Request(case="c", messages=(), response_format={"type": "json_object"})

    assert adapter.read(send(adapter, formatted), case="c").text == "json"
    assert adapter.read(send(adapter, ask("x")), case="c").text == "text"


@pytest.mark.parametrize("stream", [True, False])
def test_length_and_stop_strings_are_honoured(stream: bool, start: Start, attach: Attach, send: Send) -> None:
    adapter = attach(start("one two three four").base_url)

    cut = adapter.read(send(adapter, ask("x", max_tokens=2), stream=stream), case="c")
    stopped = adapter.read(send(adapter, ask("x", stop=(" three", "nowhere")), stream=stream), case="c")

    assert (cut.text, cut.finish_reason, cut.completion_tokens) == ("one two", "length", 2)
    assert (stopped.text, stopped.finish_reason) == ("one two", "stop")


def test_what_was_asked_is_kept(start: Start, attach: Attach, send: Send) -> None:
    engine = start("x")
    send(attach(engine.base_url), ask("hello"))

    (request,) = engine.requests
    assert (request.path, request.json["messages"][0]["content"]) == ("/v1/chat/completions", "hello")
    assert json.loads(request.body) == request.json
    assert request.headers["content-type"] == "application/json"
    assert engine.count == 1


def test_most_requests_at_once_are_counted(start: Start) -> None:
    engine = start(Reply(text="x", first_delay_s=0.2))

    async def four() -> None:
        async with Client(engine.base_url) as client:
            await asyncio.gather(*(client.send("POST", "/v1/chat/completions", b"{}") for _ in range(4)))

    asyncio.run(four())
    assert (engine.peak, engine.count) == (4, 4)


def test_tokens_are_paced(start: Start) -> None:
    engine = start("one two three four", token_delay_s=0.03)

    async def exchanged() -> Exchange:
        async with Client(engine.base_url) as client:
            return await client.send("POST", "/v1/chat/completions", b'{"stream":true}')

    exchange = asyncio.run(exchanged())
    assert exchange.done_ns - exchange.headers_ns >= 4 * 25_000_000


def test_applications_talk_to_it_through_the_openai_package(start: Start) -> None:
    engine = start("one two three")

    with openai.OpenAI(base_url=engine.base_url + "/v1", api_key="EMPTY", max_retries=0) as client:
        whole = client.chat.completions.create(
            model="x", messages=[{"role": "user", "content": "hi"}], max_completion_tokens=2
        )
        chunks = client.chat.completions.create(
            model="x", messages=[{"role": "user", "content": "hi"}], stream=True, stop=" three"
        )
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("one two", "length")
    assert streamed == "one two"


def test_broken_request_is_refused(start: Start) -> None:
    assert call(start("x").base_url, "POST", "/v1/chat/completions", b"{broken")[0] == 400


def test_unknown_routes_are_missing(start: Start) -> None:
    engine = start("x")

    assert call(engine.base_url, "GET", "/v1/nothing")[0] == 404
    assert call(engine.base_url, "POST", "/health")[0] == 404
    assert call(engine.base_url, "GET", "/health?now")[0] == 200


def test_script_may_be_changed_while_it_runs(start: Start, attach: Attach, send: Send) -> None:
    engine = start("before")
    adapter = attach(engine.base_url)
    send(adapter, ask("x"))
    engine.script = "after"

    assert adapter.read(send(adapter, ask("x")), case="c").text == "after"


@pytest.mark.parametrize("fault", [Fault.hang(), Fault.hang(2)], ids=["mute", "midway"])
def test_stopping_ends_hanging_answers_and_the_port_is_free(fault: Fault) -> None:
    with PosingEngine(fault) as engine, socket.create_connection(("127.0.0.1", engine.port), timeout=5) as client:
        client.sendall(b'POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 15\r\n\r\n{"stream":true}')
        if fault.count:
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        port = engine.port
        engine.stop()
        with contextlib.suppress(ConnectionResetError):  # a reset ends the connection as well as a close does
            while client.recv(65536):
                pass

    with PosingEngine(port=port) as again:
        assert again.port == port


def test_a_server_without_an_answer_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="answer"):
        LoopbackServer()  # type: ignore[abstract]


def test_engine_poses_as_every_kind_and_no_other() -> None:
    assert set(DIALECTS) == set(KINDS)
    assert all(dialect.after for dialect in DIALECTS.values())
    with pytest.raises(ValueError, match="poses_as is 'vlm'; expected one of: litellm, llamacpp"):
        PosingEngine(poses_as="vlm")


def test_engine_is_locked_but_for_the_routes_its_kind_leaves_open(start: Start) -> None:
    engine = start(poses_as="vllm", api_key="sk-1")

    answers = {path: call(engine.base_url, "GET", path)[0] for path in ("/health", "/version", "/v1/models")}

    assert answers == {"/health": 200, "/version": 200, "/v1/models": 401}


def test_control_question_with_a_broken_body_is_none(start: Start) -> None:
    assert call(start(poses_as="ollama").base_url, "POST", "/api/show", b"{broken")[0] == 404


def test_engine_that_was_not_started_says_so() -> None:
    engine = PosingEngine()
    engine.stop()

    with pytest.raises(RuntimeError, match="use it in a with statement"):
        _ = engine.base_url


# ---- text ----------------------------------------------------------------------------------------------------------


@given(text=st.text())
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(split_tokens(text)) == text


@given(seed=st.integers(), drift=st.floats(0, 1))
def test_drift_changes_words_not_their_number(seed: int, drift: float) -> None:
    tokens = split_tokens("the harbour was quiet")

    out = drifted(tokens, "p", drift=drift, seed=seed)

    assert len(out) == len(tokens)
    assert (out == tokens) if drift == 0 else True


def test_share_of_changed_words_is_the_drift() -> None:
    tokens = ["word"] * 10_000

    changed = sum(new != "word" for new in drifted(tokens, "p", drift=0.05, seed=3))

    assert 400 < changed < 600  # 500 expected, standard deviation 22


def test_certain_drift_changes_every_word() -> None:
    assert all(new != old for new, old in zip(drifted(["the"] * 200, "p", drift=1, seed=0), ["the"] * 200, strict=True))


def test_babble_goes_its_own_way_after_a_fork() -> None:
    plain, drifting = babble("p", length=60), babble("p", length=60, drift=0.1, seed=1)
    fork = next(place for place in range(60) if plain[place] != drifting[place])

    assert plain[:fork] == drifting[:fork]
    assert sum(a != b for a, b in zip(plain[fork:], drifting[fork:], strict=True)) > (60 - fork) * 0.7
    assert babble("p", length=0) == []


def test_prompt_is_raw_text_or_the_messages() -> None:
    assert prompt_of({"prompt": "raw"}) == "raw"
    assert prompt_of({"messages": [{"role": "user", "content": "hi"}, 3]}) == "user: hi"
    assert prompt_of({}) == ""


# ---- recordings ----------------------------------------------------------------------------------------------------


def record(folder: Path, name: str, method: str, path: str, body: object, response: dict[str, object]) -> None:
    recording = {"name": name, "request": {"method": method, "path": path, "body": body}, "response": response}
    (folder / f"{name}.json").write_text(json.dumps(recording))


def whole(text: str) -> dict[str, object]:
    return {"status": 200, "headers": {"Content-Length": "9", "X-A": "b"}, "pieces": [[1.0, text[:1]], [2.0, text[1:]]]}


def test_request_is_answered_by_its_recording(wire: Path) -> None:
    body = json.loads((wire / "vllm/v1_chat_stream.json").read_text())["request"]["body"]

    with Replay(wire / "vllm") as replay:
        status, answer = call(replay.base_url, "POST", "/v1/chat/completions", json.dumps(body, indent=3).encode())
        broken = call(replay.base_url, "POST", "/v1/chat/completions", b"{not json")

    assert status == 200
    assert answer.endswith(b"data: [DONE]\n\n")
    assert broken[0] == 400


def test_pieces_arrive_as_they_were_recorded(wire: Path) -> None:
    pieces = json.loads((wire / "llamacpp/v1_chat_stream.json").read_text())["response"]["pieces"]

    async def exchanged(base_url: str) -> Exchange:
        async with Client(base_url + "/@v1_chat_stream", reader="transport") as client:
            return await client.send("POST", "/v1/chat/completions", b"{}")

    with Replay(wire / "llamacpp", paced=True) as replay:
        exchange = asyncio.run(exchanged(replay.base_url))

    assert exchange.body == "".join(text for _, text in pieces).encode()
    assert exchange.done_ns - exchange.sent_ns >= pieces[-1][0] * 1_000_000


def test_equal_requests_are_answered_in_order_the_last_again(tmp_path: Path) -> None:
    record(tmp_path, "a", "GET", "/x", None, whole("first"))
    record(tmp_path, "b", "GET", "/x", None, whole("second"))

    with Replay(tmp_path, paced=True) as replay:
        answers = [call(replay.base_url, "GET", "/x")[1] for _ in range(3)]

    assert answers == [b"first", b"second", b"second"]


def test_connection_that_broke_breaks_again(tmp_path: Path) -> None:
    record(tmp_path, "a", "GET", "/x", None, {"error": "ConnectionReset"})

    with Replay(tmp_path) as replay, pytest.raises(http.client.RemoteDisconnected):
        call(replay.base_url, "GET", "/x")


def test_request_without_a_recording_is_missing(tmp_path: Path) -> None:
    record(tmp_path, "a", "GET", "/x", None, whole("first"))

    with Replay(tmp_path) as replay:
        assert call(replay.base_url, "POST", "/x", b"{}")[0] == 404
        assert call(replay.base_url, "GET", "/@none/x")[0] == 404


def test_folder_without_recordings_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no recordings"):
        Replay(tmp_path)


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"type": "object", "properties": {"b": {"const": 7}, "a": {"enum": ["x", "y"]}}}, {"b": 7, "a": "x"}),
        ({"type": "array", "items": {"type": "integer"}}, [1]),
        ({"type": "object", "properties": {"n": {"type": "null"}, "f": {"type": "number"}}}, {"n": None, "f": 0.5}),
        ({"type": "boolean"}, False),
    ],
)
def test_a_forced_schema_leaves_no_choice(start: Start, schema: object, answer: object) -> None:
    engine = start("something else", abilities=Abilities(schema="forced"))

    assert json.loads(forced_text(engine, "hello", schema)) == answer
    assert forced_text(engine, "hello", None) == "something else"


def test_a_forced_text_depends_on_the_prompt(start: Start) -> None:
    engine = start(abilities=Abilities(schema="forced"))

    assert forced_text(engine, "one prompt", {"type": "string"}) != forced_text(
        engine, "another prompt", {"type": "string"}
    )


def forced_text(engine: PosingEngine, text: str, schema: object) -> str:
    shape = {"json_schema": {"name": "x", "schema": schema}} if schema else {"type": "json_object"}
    body = {"messages": [{"role": "user", "content": text}], "response_format": shape}
    _, answer = call(engine.base_url, "POST", "/v1/chat/completions", json.dumps(body).encode())
    return str(json.loads(answer)["choices"][0]["message"]["content"])
