"""What every adapter promises, held for every kind in ``registry.kinds()`` and every route it has.

A kind is picked up by itself; what it does otherwise than the others stands in the small tables below. It is asked
through ``PosingEngine(poses_as=KIND)``, and what it declares is held against its recordings. The live engines go
through ``test_live.py``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import msgspec
import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import IDENTITY, NEUTRAL, Completion, Request, Sampling
from pytest_llmparity.engines.kinds.ollama import native
from pytest_llmparity.engines.registry import facts, kinds, make
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.start.readiness import free_port
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.settings.selection import KINDS
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.testing import Fault, Replay, Reply
from pytest_llmparity.testing.server import Call, Hangup, LoopbackServer
from pytest_llmparity.transport.client import Client
from pytest_llmparity.transport.exchange import Exchange
from tests.doubles.dialects import DIALECTS
from tests.doubles.posing import PosingEngine
from tests.doubles.routes import recognise

Attach = Callable[..., Adapter]
Send = Callable[..., Exchange]
Start = Callable[..., PosingEngine]
KEY = "sk-test-0123456789"

ASKED = ({"role": "user", "content": "How long does a refund take?"},)
TOOLS = ({"type": "function", "function": {"name": "f", "parameters": {"properties": {"b": {}, "a": {}}}}},)
SCHEMA = {"type": "object", "properties": {"zeta": {"type": "string"}, "alpha": {"type": "string"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}


class Way(NamedTuple):
    """One kind, asked over one of its routes."""

    kind: str
    route: str

    def __str__(self) -> str:
        return self.kind if self.route == "openai" else f"{self.kind}-{self.route}"


ADAPTERS = kinds()
WAYS = [Way(kind, route) for kind, adapter in ADAPTERS.items() for route in adapter.routes]

# ---- where kinds differ ---------------------------------------------------------------------------------------------

OWN_FIELDS: dict[str, set[str]] = {
    "ollama": {"options", "raw", "truncate", "shift", "num_ctx", "num_batch", *native.OPTIONS.values()},
    "sglang": {"return_meta_info"},
    "transformers": {"generation_config", "do_sample"},
}
"""Fields of a body, at any depth of ours, that only this kind has, beside its allow-list and constants."""

DEFAULT_IS_NEUTRAL: dict[str, set[str]] = {
    "ollama": {"min_p", "repetition_penalty"},
    "tgi": {"top_p", "top_k", "min_p", "presence_penalty", "repetition_penalty"},
}
"""Sampling left out and not recorded, because the server is known to leave it off by itself."""

STREAMS_WITHOUT: dict[str, set[str]] = {
    "litellm": {"server"},
    "llamacpp-python": {"prompt_tokens", "completion_tokens", "server"},
    "sglang": {"server", "cached_tokens"},
    "tgi": {"server"},
}
"""What only an unstreamed answer of this kind carries."""

FINAL_503 = {"mlx"}
"""Kinds whose 503 says that the server will never be ready."""

WHOLE_WITHOUT: dict[str, set[str]] = {"llamacpp-responses": {"server", "cached_tokens"}, "vllm-responses": {"server"}}
"""What only a streamed answer over this way carries."""

TIMED = {
    *("llamacpp", "vllm", "sglang", "ollama-native", "tgi", "llamacpp-python", "litellm", "litellm-responses"),
    *(f"{kind}-completions" for kind in ("llamacpp", "vllm", "tgi", "llamacpp-python", "litellm")),
}
"""Ways that report the server's own timings."""

FILES = {"llamacpp": "tiny-Q4_0.gguf", "llamacpp-python": "tiny-Q4_0.gguf", "ollama": "tiny-Q4_0.gguf"}
"""Which file a kind is started with; the others take a folder."""


# ---- doubles ---------------------------------------------------------------------------------------------------------


class Answering(LoopbackServer):
    """Answers everything by one function."""

    def __init__(self, how: Callable[[Call], None]) -> None:
        super().__init__()
        self.how = how

    def answer(self, call: Call) -> None:
        self.how(call)


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    chosen = request.param
    assert isinstance(chosen, Way)
    return chosen


@pytest.fixture(params=[True, False], ids=["streamed", "whole"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def pose(way: Way, start: Start, attach: Attach) -> Callable[..., tuple[PosingEngine, Adapter]]:
    """Starts a server of the kind that says something, and makes the adapter around it."""

    def pose_as(
        answer: str | Reply | Fault | None = "30 days", *, key: bool = False, **options: Any
    ) -> tuple[PosingEngine, Adapter]:
        engine = start(answer, poses_as=way.kind, **options)
        fields = {"api_key_env": "KEY"} if key else {}
        return engine, attach(engine.base_url, way.kind, route=way.route, **fields)

    return pose_as


Pose = Callable[..., tuple[PosingEngine, Adapter]]


@pytest.fixture
def answering(way: Way, attach: Attach) -> Iterator[Callable[[Callable[[Call], None]], Adapter]]:
    """Makes the adapter around a server that answers everything by one function."""
    running: list[Answering] = []

    def serve(how: Callable[[Call], None]) -> Adapter:
        running.append(Answering(how).start())
        return attach(running[-1].base_url, way.kind, route=way.route)

    yield serve
    for server in running:
        server.stop()


def asking(**fields: Any) -> Request:
    return Request(**{"case": "refund-3", "messages": ASKED, **fields})


def begin(adapter: Adapter) -> None:
    """Do what a run does before the first prompt."""
    reason = adapter.ready()
    assert reason is None, reason
    adapter.load()
    adapter.warm_up()


def words(value: object) -> Iterator[tuple[str, object]]:
    """Yield every field of a body of ours, also those inside its options and inside JSON text; not what users wrote."""
    if isinstance(value, str) and value.startswith("{"):
        value = json.loads(value)
    if not isinstance(value, Mapping):
        return
    for name, content in value.items():
        yield name, content
        if name in ("options", "generation_config"):
            yield from words(content)


# ---- the kind itself ------------------------------------------------------------------------------------------------


def test_the_core_knows_the_kinds_that_are_there() -> None:
    assert {kind: facts(adapter) for kind, adapter in ADAPTERS.items()} == dict(KINDS)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_kind_is_what_it_is_registered_as_and_has_a_double(kind: str) -> None:
    adapter = ADAPTERS[kind]

    assert adapter.kind == kind
    assert adapter.fields.keys() <= set(Sampling.__dataclass_fields__)
    assert "openai" in adapter.routes
    assert kind in DIALECTS


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_server_of_the_kind_is_recognised_by_its_url(kind: str, start: Start) -> None:
    assert recognise(start(poses_as=kind).base_url) == kind


@pytest.mark.parametrize("kind", ADAPTERS)
def test_what_can_be_unloaded_has_a_way_to(kind: str) -> None:
    adapter = ADAPTERS[kind]

    assert (adapter.unload is not Adapter.unload) is adapter.unloads


# ---- readiness ------------------------------------------------------------------------------------------------------


def test_a_server_that_answers_is_ready_and_warms_up_with_few_tokens(way: Way, pose: Pose) -> None:
    engine, adapter = pose()

    begin(adapter)

    body = dict(words(engine.requests[-1].json))
    limit = body.get("max_tokens", body.get("num_predict", body.get("max_output_tokens")))
    assert limit == (16 if way.route == "responses" else 1)
    assert adapter.openai_base_url == engine.base_url + "/v1"
    assert adapter.api_key == "EMPTY"


def test_nothing_listening_is_not_yet_ready(way: Way, attach: Attach) -> None:
    url = f"http://127.0.0.1:{free_port()}"

    assert attach(url, way.kind, route=way.route).ready() == f"nothing listens at {url}"


def test_a_server_that_loads_is_not_ready(way: Way, answering: Callable[[Callable[[Call], None]], Adapter]) -> None:
    adapter = answering(lambda call: call.send(503, b'{"error":{"code":503,"message":"Loading model"}}'))

    if way.kind in FINAL_503:
        with pytest.raises(errors.LaunchError):
            adapter.ready()
    else:
        reason = adapter.ready()
        assert reason is not None
        assert "503" in reason


def test_a_server_without_a_word_is_not_yet_ready(answering: Callable[[Callable[[Call], None]], Adapter]) -> None:
    def hang_up(call: Call) -> None:
        raise Hangup

    reason = answering(hang_up).ready()

    assert reason is not None
    assert "did not end as HTTP does" in reason


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_a_final_no(status: int, answering: Callable[[Callable[[Call], None]], Adapter]) -> None:
    adapter = answering(lambda call: call.send(status, b'{"error":"no"}'))

    with pytest.raises(errors.NotAuthorised, match="api_key_env"):
        begin(adapter)


def test_a_missing_key_is_told_before_the_first_prompt(pose: Pose) -> None:
    _, adapter = pose(api_key=KEY)

    with pytest.raises(errors.NotAuthorised, match="api_key_env"):
        begin(adapter)


def test_the_right_key_opens_the_server(pose: Pose) -> None:
    engine, adapter = pose(api_key=KEY, key=True)

    begin(adapter)

    assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in engine.requests)
    assert adapter.api_key == KEY


def test_a_warm_up_takes_an_empty_answer_and_raises_a_refusal(pose: Pose) -> None:
    engine, adapter = pose(Fault.empty())
    begin(adapter)

    engine.script = Fault.missing()
    with pytest.raises(errors.ModelMissing):
        adapter.warm_up()


def test_memory_is_given_back_or_the_reason_is_told(way: Way, pose: Pose) -> None:
    engine, adapter = pose()
    if ADAPTERS[way.kind].unloads:
        begin(adapter)
        adapter.unload()
        assert not engine.loaded
        adapter.restore()
        begin(adapter)
        assert engine.loaded
    else:
        with pytest.raises(errors.LaunchError, match="residency"):
            adapter.unload()


# ---- identity -------------------------------------------------------------------------------------------------------


def test_an_identity_names_known_fields_with_legal_sources_and_plain_values(way: Way, pose: Pose) -> None:
    _, adapter = pose()
    begin(adapter)

    identity = adapter.identity()

    assert identity.get("kind") == way.kind
    assert set(identity.facts) <= set(IDENTITY)
    for name, fact in identity.facts.items():
        assert fact.source in ("reported", "file", "declared"), name
        assert isinstance(fact.value, (str, int, float, bool)), name
        assert fact.value != "", name
        assert not isinstance(fact.value, float) or math.isfinite(fact.value), name
    assert adapter.identity() == identity


def test_limits_are_sentences(pose: Pose) -> None:
    _, adapter = pose()

    for limit in adapter.limits():
        assert len(limit) > 20
        assert limit.isprintable()
        assert not limit.startswith(" ")


def test_an_identity_never_holds_the_key(pose: Pose) -> None:
    _, adapter = pose(api_key=KEY, key=True)
    begin(adapter)

    assert KEY not in repr(adapter.identity())
    assert KEY not in repr(adapter.limits())


def test_a_server_that_is_gone_is_only_what_was_declared(way: Way, attach: Attach) -> None:
    identity = attach(f"http://127.0.0.1:{free_port()}", way.kind, route=way.route).identity()

    assert identity.facts["kind"].value == way.kind
    assert {fact.source for fact in identity.facts.values()} == {"declared"}


# ---- requests: which fields they have, kind by kind, is held by test_asked.py ---------------------------------------


def spoken(adapter: Adapter, request: Request) -> Request:
    """Return the request as its route takes it, with the token limit that it has."""
    return dataclasses.replace(adapter.own(request), sampling=request.sampling)


def built(adapter: Adapter, request: Request, *, stream: bool = True) -> dict[str, Any]:
    wire = adapter.build(spoken(adapter, request), stream=stream)
    assert wire.sha256 == hashlib.sha256(wire.body).hexdigest()
    body = json.loads(wire.body.decode("utf-8"))
    assert isinstance(body, dict)
    return body


def tried(adapter: Adapter, request: Request) -> tuple[bytes, str]:
    """Return the body and nothing, or nothing and why the request is refused before it is sent."""
    try:
        return adapter.build(spoken(adapter, request), stream=False).body, ""
    except errors.ParameterNotHonoured as refused:
        return b"", f"{refused.engine} {refused.case} {refused}"


def test_equal_requests_have_equal_bytes_whatever_the_case(pose: Pose, stream: bool) -> None:
    _, adapter = pose()
    request = asking(top_logprobs=2)

    first, again = (adapter.build(spoken(adapter, request), stream=stream) for _ in range(2))

    assert first == again
    other = dataclasses.replace(request, case="other")
    assert adapter.build(spoken(adapter, other), stream=stream).body == first.body


def test_a_body_holds_no_field_that_is_not_known(way: Way, pose: Pose, stream: bool) -> None:
    _, adapter = pose()
    known = {"model", "messages", "prompt", "tools", "tool_choice", "response_format", "logprobs", "top_logprobs"}
    known |= {"stream", "stream_options", *adapter.fields.values(), *adapter.constants}
    known |= OWN_FIELDS.get(way.kind, set())
    if way.route == "responses":
        known |= {"input", "store", "text", "include", "max_output_tokens"}
    requests = [asking(top_logprobs=1), asking(tools=TOOLS), asking(messages=None, prompt="raw", top_logprobs=0)]

    for request in requests:
        if tried(adapter, request)[1]:
            assert way.route in ("responses", "completions")
            continue
        assert {name for name, _ in words(built(adapter, request, stream=stream))} <= known


def test_a_neutral_sampling_parameter_is_sent_or_recorded_as_left_out(way: Way, pose: Pose) -> None:
    _, adapter = pose()
    wire = adapter.build(spoken(adapter, asking()), stream=False)
    sent = dict(words(json.loads(wire.body)))
    left_out = {*wire.omitted, *DEFAULT_IS_NEUTRAL.get(way.kind, ())}

    assert set(wire.omitted) <= {*NEUTRAL, *(["seed"] if way.route == "responses" else [])}
    for name, value in NEUTRAL.items():
        spelled = {adapter.fields.get(name, name), native.OPTIONS[name]} & sent.keys()
        # SGLang's own word for a top_k that is off is -1.
        assert name in left_out if not spelled else sent[spelled.pop()] in (value, -1), name


def test_a_sampled_request_leaves_nothing_to_unknown_defaults(pose: Pose) -> None:
    _, adapter = pose()

    body, refused = tried(adapter, asking(sampling=Sampling(temperature=0.7)))

    if refused:
        assert "temperature" in refused or "top_k" in refused or "seed" in refused
    else:
        omitted = adapter.build(spoken(adapter, asking(sampling=Sampling(temperature=0.7)))).omitted
        assert set(omitted) <= {"presence_penalty", "frequency_penalty"}  # what the server does not read at all
        assert 0.7 in dict(words(json.loads(body))).values()


def test_a_stream_is_asked_for_where_it_may_be(pose: Pose) -> None:
    _, adapter = pose()
    tools = () if adapter.spec.route == "completions" else (asking(tools=TOOLS, top_logprobs=1),)
    for request in (asking(), asking(top_logprobs=1), *tools):
        assert built(adapter, request)["stream" if adapter.can_stream(request) else "model"]
        assert not built(adapter, request, stream=False).get("stream")


def test_tools_and_schemas_keep_the_order_they_were_declared_in(way: Way, pose: Pose) -> None:
    _, adapter = pose()
    if way.route == "completions":
        with pytest.raises(errors.ParameterNotHonoured, match="has messages"):
            adapter.build(asking(tools=TOOLS))
        return
    body, refused = tried(adapter, asking(response_format=FORMAT))

    assert b'"properties":{"b":{},"a":{}}' in adapter.build(asking(tools=TOOLS)).body
    assert "response_format" in refused or 0 < body.index(b'"zeta"') < body.index(b'"alpha"')


def test_fields_that_are_passed_through_go_out_as_they_are(pose: Pose) -> None:
    further = {"chat_template_kwargs": {"b": 1, "a": [None, 0.5]}, "options": {"num_gpu": 1}}
    _, adapter = pose()

    bare, passed = built(adapter, asking()), built(adapter, asking(extra_body=further))

    assert json.dumps(passed["chat_template_kwargs"]) == json.dumps(further["chat_template_kwargs"])
    assert passed == bare | further | {"options": bare.get("options", {}) | further["options"]}


def test_no_field_of_ours_gives_way_to_one_that_is_passed_through(pose: Pose) -> None:
    _, adapter = pose()
    bare = built(adapter, asking())
    options = bare.get("options", {})

    for name in bare.keys() - {"options"}:
        with pytest.raises(errors.ParameterNotHonoured, match=f"has {name}, which is sent to"):
            built(adapter, asking(extra_body={name: 1}))
    for name in options:
        with pytest.raises(errors.ParameterNotHonoured, match=rf"has options\.{name}, which is sent to"):
            adapter.build(asking(extra_body={"options": {name: 1}}))


def test_a_raw_prompt_goes_out_as_it_is_and_without_tools(way: Way, pose: Pose) -> None:
    _, adapter = pose()
    text = "<|im_start|>user\nné \u2028<|im_end|>"
    if way.route == "responses":
        with pytest.raises(errors.ParameterNotHonoured, match="takes no raw prompt"):
            adapter.build(asking(messages=None, prompt=text))
        return

    body = built(adapter, asking(messages=None, prompt=text))

    assert body["prompt"] == text
    assert "messages" not in body
    with pytest.raises(errors.ParameterNotHonoured, match="tools with a raw prompt"):
        adapter.build(asking(messages=None, prompt=text, tools=TOOLS))


def test_any_text_goes_out_as_utf8(pose: Pose) -> None:
    _, adapter = pose()

    body = built(adapter, asking(messages=({"role": "user", "content": "a\ud800 é 😀"},)))

    turns = body.get("messages", body.get("input"))
    assert (body["prompt"] if turns is None else turns[0]["content"]) == "a\ud800 é 😀"


# ---- answers --------------------------------------------------------------------------------------------------------


def test_an_answer_is_the_same_streamed_or_whole(way: Way, pose: Pose, send: Send) -> None:
    thought = "" if way.route == "completions" else "refund policy"
    _, adapter = pose(Reply(text="30 days, says the agent.", reasoning=thought), took_ms=12.0)

    streamed, whole = (send(adapter, asking(), stream=stream) for stream in (True, False))
    completion = adapter.read(whole, case="refund-3")

    assert (completion.text, completion.reasoning, completion.finish_reason) == (
        "30 days, says the agent.",
        thought,
        "stop",
    )
    assert (completion.prompt_tokens, completion.completion_tokens) == ((7, 7) if thought else (6, 5))
    assert completion.normalised == ()
    without = STREAMS_WITHOUT.get(way.kind, set()) | WHOLE_WITHOUT.get(str(way), set())
    lost = {name: getattr(Completion(text=""), name) for name in without}
    alike = [msgspec.structs.replace(each, **lost) for each in (adapter.read(streamed, case="refund-3"), completion)]
    assert alike[0] == alike[1]


def test_tokens_end_where_events_that_carry_tokens_end(way: Way, pose: Pose, send: Send) -> None:
    raw = way.route == "completions"  # which has a text and nothing beside it
    reply = Reply(text="30 days, says", reasoning="refund policy", tool_calls=[("f", "{}")])
    _, adapter = pose("30 days, says" if raw else reply)

    streamed, whole = (send(adapter, asking(), stream=stream) for stream in (True, False))
    ends = adapter.read(streamed, case="c").token_ends

    assert len(ends) == (3 if raw else 6)
    assert list(ends) == sorted(set(ends))
    assert ends[-1] < len(streamed.body)
    for end in ends:
        assert streamed.body[:end].endswith(b"\n")
    assert adapter.read(whole, case="c").token_ends == ()


def test_the_server_s_own_timings_are_in_milliseconds(way: Way, pose: Pose, send: Send) -> None:
    _, adapter = pose("30 days", took_ms=12.0)

    completion = adapter.read(send(adapter, asking(), stream=False), case="c")

    assert set(completion.server.values()) == ({12.0} if str(way) in TIMED else set())


def test_tool_calls_arrive_streamed_or_whole(way: Way, pose: Pose, stream: bool, send: Send) -> None:
    if way.route == "completions":
        pytest.skip("this route has no tools")
    calls = [("get_weather", '{"city": "Lisbon", "at": "noon"}'), ("get_time", "{}")]
    _, adapter = pose(Reply(tool_calls=calls))

    completion = adapter.read(send(adapter, asking(tools=TOOLS), stream=stream), case="c")

    assert [(call.name, list(json.loads(call.arguments).items())) for call in completion.tool_calls] == [
        (name, list(json.loads(arguments).items())) for name, arguments in calls
    ]
    assert (completion.text, completion.finish_reason) == ("", "tool_calls")


def test_a_raw_prompt_is_answered(way: Way, pose: Pose, stream: bool, send: Send) -> None:
    if way.route == "responses":
        pytest.skip("this route takes none")
    _, adapter = pose("Paris it is")

    completion = adapter.read(send(adapter, asking(messages=None, prompt="raw text"), stream=stream), case="c")

    assert (completion.text, completion.finish_reason) == ("Paris it is", "stop")


def test_length_and_stop_are_told_apart(way: Way, pose: Pose, stream: bool, send: Send) -> None:
    _, adapter = pose("one two three four")
    if way == Way("litellm", "responses"):
        with pytest.raises(errors.ParameterNotHonoured, match="makes max_output_tokens=16 of max_tokens=2"):
            adapter.build(asking(sampling=Sampling(max_tokens=2)))
        return
    cut = adapter.read(send(adapter, asking(sampling=Sampling(max_tokens=2)), stream=stream), case="c")

    assert (cut.text, cut.finish_reason) == ("one two", "length")
    ending = asking(sampling=Sampling(stop=(" three",)))
    if way.route == "responses" and "stop" not in adapter.responses_fields:
        with pytest.raises(errors.ParameterNotHonoured, match="has no field for stop"):
            adapter.build(ending)
        return
    stopped = adapter.read(send(adapter, ending, stream=stream), case="c")
    assert (stopped.text, stopped.finish_reason) == ("one two", "stop")


def test_reasoning_never_mixes_with_the_text(way: Way, pose: Pose, stream: bool, send: Send) -> None:
    if way.route == "completions":
        pytest.skip("this route has no such channel")
    _, adapter = pose(Reply(text="4", reasoning="two and two"))

    completion = adapter.read(send(adapter, asking(), stream=stream), case="c")

    assert (completion.text, completion.reasoning) == ("4", "two and two")


def test_logprobs_are_bytes_with_alternatives_best_first(way: Way, pose: Pose, send: Send) -> None:
    _, adapter = pose("30 days, then")

    completion = adapter.read(send(adapter, asking(top_logprobs=1)), case="c")

    if adapter.on_route().logprobs is False:
        assert completion.logprobs == ()
        return
    assert b"".join(token.token for token in completion.logprobs) == b"30 days, then"
    assert {token.logprob for token in completion.logprobs} == {-0.25}
    for token in completion.logprobs:
        assert token.top[0] == (token.token, -0.25)
        assert token.top[1:] in ((), ((b" otherwise", -2.25),))  # where an engine takes no request for one alone


# ---- what goes wrong -----------------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[Fault, type[errors.EngineError], str]] = {
    "400": (Fault.refuse(400), errors.BadRequest, "refused by the script"),
    "401": (Fault.refuse(401), errors.NotAuthorised, "api_key_env"),
    "404": (Fault.missing(), errors.ModelMissing, "odel"),
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


def test_a_fault_is_the_same_typed_error(pose: Pose, stream: bool, send: Send) -> None:
    engine, adapter = pose()

    for name, (fault, error, message) in FAULTS.items():
        engine.script = fault
        answer = send(adapter, asking(), stream=stream)
        with pytest.raises(error) as caught:
            adapter.read(answer, case=name)
        assert type(caught.value) is error, name
        assert message in str(caught.value), name
        assert (caught.value.engine, caught.value.case) == ("cand", name)
        assert caught.value.retry_after_s == (7.0 if name == "429" else None), name


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Fault.half_stream(clean=True), errors.ProtocolError), (Fault.error_event(), errors.ServerFailure)],
    ids=["half", "error"],
)
def test_a_stream_that_breaks_off_is_no_answer(
    fault: Fault, error: type[errors.EngineError], pose: Pose, send: Send
) -> None:
    _, adapter = pose(fault)
    answer = send(adapter, asking())

    with pytest.raises(error) as caught:
        adapter.read(answer, case="c")

    assert type(caught.value) is error


def test_a_prompt_beyond_the_context_is_told_as_such(way: Way, pose: Pose, stream: bool, send: Send) -> None:
    if DIALECTS[way.kind].too_long is None:
        pytest.skip(f"{way.kind} answers prompts of any length")
    _, adapter = pose(context_length=3)
    answer = send(adapter, asking(), stream=stream)

    with pytest.raises(errors.ContextOverflow, match="Raise context_length") as caught:
        adapter.read(answer, case="c")

    assert type(caught.value) is errors.ContextOverflow


def test_a_lone_surrogate_is_replaced_and_recorded(pose: Pose, stream: bool, send: Send) -> None:
    _, adapter = pose(Reply(text="a\ud800b"))

    completion = adapter.read(send(adapter, asking(), stream=stream), case="c")

    assert (completion.text, completion.normalised) == ("a\ufffdb", ("lone surrogate replaced",))


def test_odd_text_is_read_whole(pose: Pose, stream: bool, send: Send) -> None:
    text = "né 😀\u2028 \x1b[2J\x07 ok"
    _, adapter = pose(Reply(text=text))

    assert adapter.read(send(adapter, asking(), stream=stream), case="c").text == text


@pytest.mark.parametrize("way", [Way("openai", "openai"), Way("ollama", "native")], ids=str, indirect=True)
def test_five_megabytes_are_read_whole(pose: Pose, stream: bool, send: Send) -> None:
    """Hold it once for each of the two readers that all kinds share."""
    _, adapter = pose(Reply(text="x" * 5_000_000))

    assert adapter.read(send(adapter, asking(), stream=stream), case="c").text == "x" * 5_000_000


# ---- launching ------------------------------------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path) -> str:
    file = tmp_path / "my-server"
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return str(file)


def starting(kind: str, models: Path, tmp_path: Path, **fields: Any) -> EngineSpec:
    """Return what starts a kind on the tiny model, as the configuration would."""
    path = models / FILES[kind] if kind in FILES else models
    spec: dict[str, Any] = {"name": "cand", "kind": kind, "launch": "process", "model": "tiny", "api_key_env": "KEY"}
    if ADAPTERS[kind].local_model:
        spec["model_path"] = path
    if kind == "litellm":
        (tmp_path / "litellm.yaml").write_text("model_list: []\n")
        spec["args"] = ("--config", str(tmp_path / "litellm.yaml"))
    return EngineSpec(**{**spec, **fields})


STARTED = [kind for kind, adapter in ADAPTERS.items() if facts(adapter).starts]
ATTACHED = [kind for kind in ADAPTERS if kind not in STARTED]
ENVIRON = {"PATH": "", "KEY": KEY, "HOME": "/nowhere"}


@pytest.mark.parametrize("kind", STARTED)
def test_a_launch_is_text_on_loopback_without_a_secret(kind: str, models: Path, tmp_path: Path, program: str) -> None:
    def launch() -> Launch:
        spec = starting(kind, models, tmp_path, command=(program,))
        return ADAPTERS[kind].launch(spec, 8123, tmp_path, environ=ENVIRON)

    launched = launch()
    told = [*launched.argv, *launched.env.values()]

    assert all(isinstance(part, str) for part in told)
    assert launched.argv[0] == program
    assert "8123" in launched.argv or "127.0.0.1:8123" in told
    assert "127.0.0.1" in launched.argv or "127.0.0.1:8123" in told
    assert not any("0.0.0.0" in part for part in told)
    assert KEY not in " ".join(launched.argv)
    assert launched.deadline_s > 0
    assert launched.grace_s > 0


@pytest.mark.parametrize("kind", STARTED)
def test_what_tells_a_server_where_to_listen_is_known_before_it_is_started(
    kind: str, models: Path, tmp_path: Path, program: str
) -> None:
    """A configuration that gives it again is refused: the last one would win, and nobody would find the server."""
    spec = starting(kind, models, tmp_path, command=(program,))

    launch = ADAPTERS[kind].launch(spec, 8123, tmp_path, environ=ENVIRON)

    where = {"8123", "127.0.0.1", "127.0.0.1:8123"}
    told = {option for option, value in itertools.pairwise(launch.argv) if value in where}
    told |= {name for name, value in launch.env.items() if value in where}
    assert told
    assert told <= set(KINDS[kind].listens)


@pytest.mark.parametrize("kind", STARTED)
def test_arguments_variables_and_the_deadline_are_the_user_s(
    kind: str, models: Path, tmp_path: Path, program: str
) -> None:
    spec = starting(kind, models, tmp_path, command=(program,), env={"A": "b"}, start_timeout_s=42.0)
    spec = dataclasses.replace(spec, args=(*spec.args, "--mine"))

    launch = ADAPTERS[kind].launch(spec, 8123, tmp_path, environ=ENVIRON)

    assert launch.argv[-1] == "--mine"
    assert launch.env["A"] == "b"
    assert launch.deadline_s == 42.0


@pytest.mark.parametrize("kind", STARTED)
def test_nothing_is_downloaded_unless_asked_for(kind: str, models: Path, tmp_path: Path, program: str) -> None:
    if kind in ("ollama", "litellm"):
        pytest.skip("fetches nothing from the hub at its start")
    spec = starting(kind, models, tmp_path, command=(program,))

    launch = ADAPTERS[kind].launch(spec, 8123, tmp_path, environ=ENVIRON)
    asked = ADAPTERS[kind].launch(dataclasses.replace(spec, download=True), 8123, tmp_path, environ=ENVIRON)

    assert launch.env["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in asked.env


@pytest.mark.parametrize("kind", STARTED)
@pytest.mark.parametrize("field", [{"command": ("no-such-server",)}, {"python": "no-such-python"}], ids=str)
def test_a_missing_program_is_named_with_what_to_do(
    kind: str, field: dict[str, Any], models: Path, tmp_path: Path
) -> None:
    spec = starting(kind, models, tmp_path, **field)

    with pytest.raises(errors.LaunchError, match=r"cand: .*no-such") as caught:
        ADAPTERS[kind].launch(spec, 8123, tmp_path, environ=ENVIRON)

    assert caught.value.engine == "cand"


@pytest.mark.parametrize("kind", ATTACHED)
def test_what_is_only_attached_to_says_how(kind: str, tmp_path: Path) -> None:
    with pytest.raises(errors.LaunchError, match="base_url"):
        ADAPTERS[kind].launch(EngineSpec(name="cand", kind=kind, launch="process"), 8123, tmp_path)


# ---- recordings -----------------------------------------------------------------------------------------------------

RECORDED = [file.stem for file in sorted(Path(__file__).with_name("recorded").glob("*.toml")) if file.stem in ADAPTERS]
"""Kinds with a folder of recordings of their own, which holds the calls that every engine was asked."""


@dataclasses.dataclass(frozen=True)
class Recorded:
    """The recordings of one kind, read with its adapter."""

    kind: str
    replay: Replay

    def read(self, name: str) -> tuple[int, Completion]:
        """Return the HTTP status and the completion of a recording, or raise what the adapter makes of it."""
        if name not in self.replay.recordings:
            pytest.skip(f"{name} was not recorded of {self.kind}")
        spec = EngineSpec(name="cand", kind=self.kind, model="tiny")
        adapter = make(spec, f"{self.replay.base_url}/@{name}", environ={})

        async def exchange() -> Exchange:
            async with Client(adapter.base_url) as client:
                return await client.send("POST", "/v1/chat/completions", b"{}")

        answer = asyncio.run(exchange())
        return answer.status, adapter.read(answer, case=name)

    def declares(self, name: str) -> object:
        """Return one declared capability of the kind."""
        return getattr(ADAPTERS[self.kind].declares, name)


@pytest.fixture(scope="module", params=RECORDED)
def recorded(request: pytest.FixtureRequest, wire: Path) -> Iterator[Recorded]:
    kind = str(request.param)
    with Replay(wire / kind) as replay:
        yield Recorded(kind, replay)


SCHEMA_CALL = {"llamacpp-python": "v1_chat_json_object_schema"}
"""Recordings of the request that this kind's adapter makes of a schema."""


@pytest.mark.parametrize("name", ["v1_chat", "v1_chat_tools", "v1_chat_schema"])
def test_a_recorded_answer_is_the_same_streamed_or_whole(name: str, recorded: Recorded) -> None:
    if name == "v1_chat_schema":
        name = SCHEMA_CALL.get(recorded.kind, name)
    whole, streamed = recorded.read(name)[1], recorded.read(f"{name}_stream")[1]

    assert (streamed.text, streamed.finish_reason) == (whole.text, whole.finish_reason)
    assert [(call.name, call.arguments) for call in streamed.tool_calls] == [
        (call.name, call.arguments) for call in whole.tool_calls
    ]


def test_a_recorded_cut_is_told_from_a_recorded_end(recorded: Recorded) -> None:
    assert recorded.read("v1_chat_length")[1].finish_reason == "length"
    assert recorded.read("v1_chat_stop")[1].finish_reason == "stop"


def test_declared_logprobs_were_seen(recorded: Recorded) -> None:
    completion = recorded.read("v1_chat_logprobs")[1]

    if recorded.declares("logprobs") is not None:
        assert bool(completion.logprobs) is recorded.declares("logprobs")
    if recorded.declares("token_ids") is not None:
        ids = bool(completion.logprobs) and completion.logprobs[0].id is not None
        assert ids is recorded.declares("token_ids")


def test_a_declared_schema_was_enforced(recorded: Recorded) -> None:
    if recorded.declares("json_schema") is not True:
        pytest.skip("declares no schema")
    properties = {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}}
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    text = recorded.read(SCHEMA_CALL.get(recorded.kind, "v1_chat_schema"))[1].text

    assert jsonschema_rs.is_valid(schema, json.loads(text))
    if recorded.declares("schema_order") is not None:
        assert (list(json.loads(text)) == list(properties)) is recorded.declares("schema_order")


def test_declared_tools_were_called(recorded: Recorded) -> None:
    if recorded.declares("tools") is True:
        assert recorded.read("v1_chat_tools")[1].tool_calls[0].name == "get_weather"


def test_a_declared_raw_prompt_was_answered(recorded: Recorded) -> None:
    if recorded.declares("raw_prompt") is True:
        assert recorded.read("v1_completions_raw")[1].text


def test_an_unknown_field_was_treated_as_declared(recorded: Recorded) -> None:
    wanted = recorded.declares("unknown_fields")
    if wanted == "dropped":
        assert recorded.read("v1_chat_unknown_field")[0] == 200
    elif wanted == "refused":
        with pytest.raises(errors.BadRequest):
            recorded.read("v1_chat_unknown_field")


def test_a_prompt_that_does_not_fit_was_treated_as_declared(recorded: Recorded) -> None:
    wanted = recorded.declares("overflow")
    if wanted == "refused":
        with pytest.raises(errors.ContextOverflow):
            recorded.read("v1_chat_too_long")
    elif wanted == "answered uncut":
        assert recorded.read("v1_chat_too_long")[0] == 200
