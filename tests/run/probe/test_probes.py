"""Probes tell what a server does with what it is sent, from its answers alone, and know when they know nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.engines import registry
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.control import Control
from pytest_llmparity.run.probe.overflow import (
    ANSWER_TOKENS,
    FIT,
    OVERFLOW,
    OVERFLOW_TOKENS,
    VERIFIED_TOKENS,
    conversation,
)
from pytest_llmparity.run.probe.preflight import PROBES
from pytest_llmparity.run.probe.probes import (
    LOGPROBS,
    OFFERED,
    RAW,
    SECRET,
    SEED,
    STREAM,
    STRUCTURED,
    UNKNOWN,
    UNKNOWN_FIELDS,
    Probe,
    Probed,
    probe,
)
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.testing import Fault, LoopbackEngine, Reply
from pytest_llmparity.testing.script import prompt_of
from tests.doubles.abilities import Abilities
from tests.plugin.reported.wire import Answer, counts, document, message, serving

if TYPE_CHECKING:
    from tests.run.conftest import Project


@pytest.fixture
def ask(project: Project) -> Callable[..., Probed]:
    """Ask one probe of an engine, as a kind that declares so."""

    def run(engine: LoopbackEngine, tried: Probe, *, kind: str = "openai", overflow: Any = None, **more: Any) -> Probed:
        adapter = adapter_of(project, engine, kind)
        return probe(adapter, {"it": tried}, declares=Capabilities(overflow=overflow), **more)

    return run


def adapter_of(project: Project, engine: LoopbackEngine, kind: str = "openai") -> Adapter:
    spec = project.attached("a", engine, kind=kind)
    return registry.make(spec, engine.base_url, environ={})


def streams_other(request: Mapping[str, Any]) -> str:
    return "one way" if request.get("stream") else "another way"


@pytest.mark.parametrize(
    ("tried", "abilities", "expected"),
    [
        (UNKNOWN_FIELDS, Abilities(), {"unknown_fields": "dropped"}),
        (UNKNOWN_FIELDS, Abilities(unknown_fields="refused"), {"unknown_fields": "refused"}),
        (LOGPROBS, Abilities(), {"logprobs": True, "token_ids": False}),
        (LOGPROBS, Abilities(logprobs="dropped"), {"logprobs": False}),
        (LOGPROBS, Abilities(logprobs="refused"), {"logprobs": False}),
        (STRUCTURED, Abilities(), {"json_schema": False}),
        (STRUCTURED, Abilities(schema="forced"), {"json_schema": True, "schema_order": True}),
        (STRUCTURED, Abilities(schema="sorted"), {"json_schema": True, "schema_order": False}),
        (STRUCTURED, Abilities(schema="refused"), {"json_schema": False}),
        (OFFERED, Abilities(), {"tools": False}),
        (OFFERED, Abilities(tools="taken"), {"tools": True}),
        (OFFERED, Abilities(tools="refused"), {"tools": False}),
        (RAW, Abilities(), {"raw_prompt": True}),
        (RAW, Abilities(raw_prompt="wrapped"), {"raw_prompt": False}),
        (RAW, Abilities(raw_prompt="refused"), {"raw_prompt": False}),
        (STREAM, Abilities(), {"stream_equal": True, "reasons": False}),
        (SEED, Abilities(), {"seed": True}),
        (PROBES["images"], Abilities(), {"images": True}),
        (PROBES["images"], Abilities(media="dropped"), {"images": False}),
        (PROBES["audio"], Abilities(), {"audio": True}),
        (PROBES["audio"], Abilities(media="dropped"), {"audio": False}),
        (PROBES["audio"], Abilities(media="refused"), {"audio": False}),
    ],
)
def test_what_a_server_does_is_found_out(
    project: Project, ask: Callable[..., Probed], tried: Probe, abilities: Abilities, expected: dict[str, object]
) -> None:
    engine = project.engine(abilities=abilities)

    result = ask(engine, tried)

    assert result.values == expected
    assert result.settled == ["it"]
    assert ("not supported" in result.notes.get("it", "")) is ("refused" in str(abilities)), "in the server's words"
    assert result.requests == engine.count <= tried.requests


def test_probes_are_tiny_and_ask_nothing_that_is_known_to_end_a_server(project: Project) -> None:
    engine = project.engine(poses_as="llamacpp", context_length=4096)

    result = probe(adapter_of(project, engine, "llamacpp"), PROBES, declares=Capabilities(), context=4096)

    asked = [received.json for received in engine.requests]
    assert result.requests == len(asked) <= sum(each.requests for each in PROBES.values())
    assert max(request["max_tokens"] for request in asked) <= 96
    assert {request.get("top_logprobs", 5) for request in asked} <= {1, 5}, "no vocabulary is smaller"
    assert {prompt_of(request).count(" ") < 1200 for request in asked} == {True}
    assert [request[UNKNOWN] for request in asked if UNKNOWN in request] == [True]


def test_logprobs_that_are_not_those_of_the_answers_tokens_are_found_by_a_second_answer(
    project: Project, ask: Callable[..., Probed]
) -> None:
    filtered = project.engine(Reply(text="all is well in the harbour", lead=-1.0))

    result = ask(filtered, LOGPROBS)

    assert result.values["logprobs"] is True
    assert "do not have the chosen token as the best one in 12 of 12 places" in str(result.values["odd_logprobs"])
    assert result.requests == filtered.count == LOGPROBS.requests


def test_one_odd_answer_is_no_finding(project: Project, ask: Callable[..., Probed]) -> None:
    engine = project.engine(lambda request: Reply(text="well", lead=-1.0 if "harbour" in prompt_of(request) else 2.0))

    result = ask(engine, LOGPROBS)

    assert result.values == {"logprobs": True, "token_ids": False}
    assert (result.requests, result.settled) == (2, ["it"])


def test_an_answer_that_streams_otherwise_is_a_finding(project: Project, ask: Callable[..., Probed]) -> None:
    assert ask(project.engine(streams_other), STREAM).values == {"stream_equal": False, "reasons": False}


def test_a_difference_of_two_answers_that_were_given_together_is_no_finding(
    project: Project, ask: Callable[..., Probed]
) -> None:
    streamed: list[str] = []

    def answer(request: Mapping[str, Any]) -> str:
        if request.get("stream"):
            streamed.append("batched" if not streamed else "alone")
        return streamed[-1] if request.get("stream") else "alone"

    engine = project.engine(answer)

    assert ask(engine, STREAM).values == {"stream_equal": True, "reasons": False}
    assert [bool(received.json.get("stream")) for received in engine.requests][2:] == [False, True], "each alone"


def test_a_stream_that_differs_is_a_finding_whatever_being_asked_together_changed(
    project: Project, ask: Callable[..., Probed]
) -> None:
    whole: list[str] = []

    def answer(request: Mapping[str, Any]) -> str:
        if request.get("stream"):
            return "streamed"
        whole.append("alone" if whole else "batched")
        return whole[-1]

    result = ask(project.engine(answer), STREAM)

    assert result.values == {"stream_equal": False, "reasons": False}
    assert result.requests == STREAM.requests


def test_a_server_that_takes_one_request_at_a_time_is_asked_one_at_a_time(project: Project) -> None:
    engine = project.engine(lambda request: "well, yes")
    refused: list[Fault] = []

    def answer(request: Mapping[str, Any]) -> str | Fault:
        if request.get("stream") and not refused:
            refused.append(Fault.refuse(429))
            return refused[0]
        return "well, yes"

    engine.script = answer
    result = probe(adapter_of(project, engine), {"it": STREAM, "fields": UNKNOWN_FIELDS}, declares=Capabilities())

    assert result.values == {"stream_equal": True, "reasons": False, "unknown_fields": "dropped"}
    assert (result.settled, result.notes) == (["it", "fields"], {})


def test_an_engine_that_does_not_repeat_itself_proves_nothing_about_streams(
    project: Project, ask: Callable[..., Probed]
) -> None:
    result = ask(project.engine(noise=0.5), STREAM)

    assert (result.values, result.settled) == ({}, ["it"])
    assert "two unstreamed greedy answers" in result.notes["it"]


def test_a_seed_that_is_ignored_is_found_out(project: Project, ask: Callable[..., Probed]) -> None:
    engine = project.engine(noise=0.5)

    assert ask(engine, SEED).values == {"seed": False}
    assert [received.json["temperature"] for received in engine.requests] == [1.0, 1.0]
    assert {received.json["seed"] for received in engine.requests} == {7}


def test_a_kind_that_can_sample_is_asked_in_its_own_words(project: Project, ask: Callable[..., Probed]) -> None:
    engine = project.engine(poses_as="llamacpp")

    assert ask(engine, SEED, kind="llamacpp").values == {"seed": True}
    assert {(asked.json["temperature"], asked.json["top_k"]) for asked in engine.requests} == {(1.0, 0)}


def test_answers_that_no_seed_changes_prove_nothing_about_seeds(project: Project, ask: Callable[..., Probed]) -> None:
    result = ask(project.engine("always the same"), SEED)

    assert result.values == {}
    assert "different seeds are the same" in result.notes["it"]


def test_a_temperature_among_options_is_changed_there(project: Project) -> None:
    class Nested(registry.adapter_for("openai")):  # type: ignore[misc]  # a class made at run time
        def _sampling_fields(self, request: Any) -> Any:
            fields, omitted = super()._sampling_fields(request)
            return {"options": fields}, omitted

    engine = project.engine()
    adapter = Nested(project.attached("a", engine, kind="openai"), engine.base_url, {})

    probe(adapter, {"seed": SEED}, declares=Capabilities())

    assert {received.json["options"]["temperature"] for received in engine.requests} == {1.0}
    assert not any("temperature" in received.json for received in engine.requests)


def schema_answer(text: str, **rest: Any) -> Callable[[Mapping[str, Any]], Reply]:
    return lambda request: Reply(text=text, **rest)


@pytest.mark.parametrize(
    ("text", "finish", "expected", "note"),
    [
        ('{\n\n"zone" :\n"vq7rk2mx",\n\n\n', "length", {"json_schema": True, "schema_order": True}, ""),
        ('{\n\n"area": "hw4tz9bd",\n\n\n', "length", {"json_schema": True, "schema_order": False}, ""),
        ('{\n\n\n\n "zone"  \n', "length", {}, "the answer to a schema was cut after"),
        ("\n\n\n", "length", {}, "the answer to a schema was cut after"),
        ('{"zone": "harbour", "area": "old town"}', "stop", {"json_schema": False}, ""),
        ("Hello! How can I help", "length", {"json_schema": False}, ""),
        ('```json\n{"zone": "vq7rk2mx", "area": "hw4tz9bd"}\n```', "stop", {"json_schema": False}, ""),
    ],
)
def test_a_forced_answer_is_told_from_a_guess_even_where_it_was_cut(
    project: Project, ask: Callable[..., Probed], text: str, finish: str, expected: dict[str, object], note: str
) -> None:
    result = ask(project.engine(schema_answer(text, finish_reason=finish)), STRUCTURED)

    assert result.values == expected
    assert note in result.notes.get("it", "")


@pytest.mark.parametrize("without_const", [Fault.refuse(400), "well"], ids=["refused", "ignored"])
@pytest.mark.parametrize(
    ("plain", "expected", "note"),
    [
        ('{"vq7rk2mx": "harbour', {}, "a schema's properties are forced, its const is not"),
        ('{"hw4tz9bd": "harbour', {}, "a schema's properties are forced, its const is not"),
        ("{\n\n\n", {}, "the answer to a schema was cut after"),
        ('{"place": "harbour"}', {"json_schema": False}, ""),
    ],
)
def test_const_alone_decides_nothing(
    project: Project,
    ask: Callable[..., Probed],
    without_const: Any,
    plain: str,
    expected: dict[str, object],
    note: str,
) -> None:
    def answer(request: Mapping[str, Any]) -> Any:
        knows = "const" not in str(request["response_format"])
        return Reply(text=plain, finish_reason="length") if knows else without_const

    result = ask(project.engine(answer), STRUCTURED)

    assert result.values == expected
    assert note in result.notes.get("it", "")


def test_what_the_run_may_no_longer_send_is_left_open_without_a_word(project: Project) -> None:
    engine = project.engine()
    may = iter([True, True, False])

    result = probe(
        adapter_of(project, engine),
        {"stream": STREAM, "tools": OFFERED},
        declares=Capabilities(),
        take=lambda: next(may),
    )

    assert (result.settled, result.notes) == (["stream"], {})
    assert engine.count == result.requests == 2


def test_the_names_the_schema_forces_stand_in_reverse_alphabetical_order(
    project: Project, ask: Callable[..., Probed]
) -> None:
    engine = project.engine()
    ask(engine, STRUCTURED)

    sent, _ = (received.json["response_format"]["json_schema"]["schema"] for received in engine.requests)
    assert list(sent["properties"]) == list(SECRET) == sorted(SECRET, reverse=True)
    assert not any(secret in prompt_of(engine.requests[0].json) for secret in SECRET.values())


def test_a_function_that_is_called_was_offered(project: Project, ask: Callable[..., Probed]) -> None:
    engine = project.engine(Reply(tool_calls=[("get_tide", "{}")]), abilities=Abilities(usage=False))

    assert ask(engine, OFFERED).values == {"tools": True}


@pytest.mark.parametrize("prompt", [0, 7], ids=["no count", "one count for all"])
def test_counts_that_say_nothing_leave_it_open_whether_functions_are_taken(project: Project, prompt: int) -> None:
    def answer(body: Mapping[str, Any]) -> Answer:
        return document(message({"content": "Hello."}, use=counts(prompt, 2)))

    with serving(answer) as server:
        spec = EngineSpec(name="a", kind="openai", model="m", base_url=f"http://127.0.0.1:{server.port}")
        result = probe(registry.make(spec, spec.base_url or "", environ={}), {"it": OFFERED}, declares=Capabilities())

    assert (result.values, result.settled) == ({}, ["it"])
    assert "count" in result.notes["it"] or "not say how many" in result.notes["it"]


def test_a_call_that_the_token_limit_cut_was_offered(project: Project) -> None:
    """Ollama answers 500 to it (v0.33.0, both routes)."""
    words = 'llama-server returned invalid tool call arguments for "get_tide": unexpected end of JSON input'

    def answer(body: Mapping[str, Any]) -> Answer:
        if body.get("tools"):
            return document({"error": {"message": words, "type": "api_error", "param": None, "code": None}}, 500)
        return document(message({"content": "Hello."}, use=counts(7, 2)))

    with serving(answer) as server:
        spec = EngineSpec(name="a", kind="openai", model="m", base_url=f"http://127.0.0.1:{server.port}")
        result = probe(registry.make(spec, spec.base_url or "", environ={}), {"it": OFFERED}, declares=Capabilities())

    assert (result.values, result.requests) == ({"tools": True}, 2)


@pytest.mark.parametrize("tried", [OFFERED, RAW, FIT], ids=["tools", "raw prompt", "context"])
def test_a_server_that_does_not_count_tokens_leaves_it_open(
    project: Project, ask: Callable[..., Probed], tried: Probe
) -> None:
    result = ask(project.engine("well", abilities=Abilities(usage=False)), tried)

    assert (result.values, result.settled) == ({}, ["it"])
    assert "not say how many tokens" in result.notes["it"]


def test_an_empty_answer_to_an_unknown_field_was_no_refusal(project: Project, ask: Callable[..., Probed]) -> None:
    assert ask(project.engine(Fault.empty()), UNKNOWN_FIELDS).values == {"unknown_fields": "dropped"}


@pytest.mark.parametrize("tried", [UNKNOWN_FIELDS, LOGPROBS, STRUCTURED, OFFERED, RAW, SEED, STREAM, FIT, OVERFLOW])
def test_a_probe_that_fails_settles_nothing(project: Project, ask: Callable[..., Probed], tried: Probe) -> None:
    result = ask(project.engine(Fault.refuse(500)), tried, overflow="refused", context=512)

    assert (result.values, result.settled) == ({}, [])
    assert "500" in result.notes["it"]


@pytest.mark.parametrize("status", [None, 401, 503], ids=["gone", "refuses us", "busy"])
def test_a_server_that_is_gone_is_not_asked_on(project: Project, status: int | None) -> None:
    engine = project.engine(Fault.refuse(status or 500))
    adapter = adapter_of(project, engine)
    if status is None:
        engine.stop()

    result = probe(adapter, PROBES, declares=Capabilities())

    assert list(result.notes) == ["streaming"]
    both = "unstreamed and streamed, which are asked side by side, and the first of them alone where that may be why"
    assert result.requests == (3 if status == 503 else 2), both


def test_a_probe_an_adapter_cannot_put_into_words_is_settled_without_a_request(
    project: Project, ask: Callable[..., Probed]
) -> None:
    class Wordless(registry.adapter_for("openai")):  # type: ignore[misc]  # a class made at run time
        fields: ClassVar[Mapping[str, str]] = {"max_tokens": "max_tokens"}

    engine = project.engine()
    adapter = Wordless(project.attached("a", engine, kind="openai"), engine.base_url, {})

    result = probe(adapter, {"seed": SEED}, declares=Capabilities())

    assert (result.settled, result.requests, engine.count) == (["seed"], 0, 0)
    assert "no field for" in result.notes["seed"]


# the context ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("context", "least"), [(512, 400), (VERIFIED_TOKENS, 800), (100_000, 800), (None, 800)])
def test_the_context_is_verified_as_far_as_is_cheap(
    project: Project, ask: Callable[..., Probed], context: int | None, least: int
) -> None:
    engine = project.engine(context_length=context or 4096)

    seen = ask(engine, FIT, context=context).values["context_length"]

    assert isinstance(seen, int)
    assert least < seen <= min(context or VERIFIED_TOKENS, VERIFIED_TOKENS)
    assert engine.count == 2


@pytest.mark.parametrize(("tried", "waits"), [(FIT, 300.0), (OVERFLOW, 300.0), (LOGPROBS, 60.0)])
def test_a_prompt_that_fills_the_context_is_read_as_long_as_a_request_may_take(
    project: Project, tried: Probe, waits: float
) -> None:
    """An engine without a GPU reads so many tokens for minutes, and a Timeout would end every probe after it."""
    waited: list[float] = []

    class Watched(Control):
        def post(self, path: str, body: bytes, *, timeout_s: float, **more: Any) -> Any:
            waited.append(timeout_s)
            return super().post(path, body, timeout_s=timeout_s, **more)

    class Asked(registry.adapter_for("openai")):  # type: ignore[misc]  # a class made at run time
        @property
        def control(self) -> Control:
            return Watched(engine=self.name, base_url=self.base_url, headers={})

    engine = project.engine(context_length=512)
    adapter = Asked(project.attached("a", engine, kind="openai"), engine.base_url, {})

    result = probe(adapter, {"it": tried}, declares=Capabilities(overflow="refused"), context=512)

    assert result.settled == ["it"]
    assert set(waited) == {waits}, "300 s is what a request may take"


def test_a_second_step_that_does_not_fit_leaves_the_first(project: Project, ask: Callable[..., Probed]) -> None:
    def answer(request: Mapping[str, Any]) -> str | Fault:
        many = len(prompt_of(request).split()) > 600
        return Fault.refuse(400, b'{"error":{"message":"maximum context length exceeded"}}') if many else "well"

    values = ask(project.engine(answer), FIT, context=1024).values

    assert 254 <= int(str(values["context_length"])) < 600
    assert values["overflow"] == "refused", "seen in passing"


def test_a_context_smaller_than_it_says_is_noticed(project: Project, ask: Callable[..., Probed]) -> None:
    refuses = project.engine(context_length=100)
    cuts = project.engine(context_length=100, abilities=Abilities(overflow="end"))

    refused = ask(refuses, FIT, context=1024)
    assert refused.values == {"overflow": "refused"}
    assert "does not fit" in refused.notes["it"]
    assert "it was cut before" in ask(cuts, FIT, context=1024).notes["it"]


@pytest.mark.parametrize(
    ("abilities", "overflow", "requests"),
    [
        (Abilities(), "refused", 1),
        (Abilities(overflow="oldest"), "oldest turns dropped", 3),
        (Abilities(overflow="middle"), "middle cut", 4),
        (Abilities(overflow="end"), "end cut", 4),
        (Abilities(overflow="ignored"), "answered uncut", 1),
    ],
)
def test_what_becomes_of_a_conversation_that_does_not_fit(
    project: Project, ask: Callable[..., Probed], abilities: Abilities, overflow: str, requests: int
) -> None:
    engine = project.engine(context_length=200, abilities=abilities)

    result = ask(engine, OVERFLOW, context=200, overflow="refused")

    assert result.values == {"overflow": overflow}
    assert engine.count == requests


def test_dropped_turns_are_told_by_counts_where_two_answers_to_one_prompt_differ(
    project: Project, ask: Callable[..., Probed]
) -> None:
    engine = project.engine(noise=0.9, context_length=200, abilities=Abilities(overflow="oldest"))

    result = ask(engine, OVERFLOW, context=200, overflow="oldest turns dropped")

    assert (result.values, engine.count) == ({"overflow": "oldest turns dropped"}, 3)


def test_a_refusal_seen_while_the_context_was_verified_is_not_asked_for_again(project: Project) -> None:
    engine = project.engine(context_length=600)
    both = {"context": FIT, "overflow": OVERFLOW}

    result = probe(adapter_of(project, engine), both, declares=Capabilities())

    assert (result.values["overflow"], engine.count) == ("refused", 2)


def test_a_server_without_a_limit_is_sent_more_than_its_model_was_trained_for(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = project.engine(context_length=9000)
    adapter = adapter_of(project, engine)
    monkeypatch.setattr(adapter, "trained_context", lambda: 300)

    result = probe(adapter, {"overflow": OVERFLOW}, declares=Capabilities(overflow="answered uncut"))

    assert (result.values, engine.count) == ({"overflow": "answered uncut"}, 1)


def test_a_refusal_in_words_nobody_knows_is_one(project: Project, ask: Callable[..., Probed]) -> None:
    engine = project.engine(Fault.refuse(422, b'{"detail":"no"}'))

    assert ask(engine, OVERFLOW, context=200, overflow="refused").values == {"overflow": "refused"}


@pytest.mark.parametrize(
    ("context", "overflow", "note"),
    [
        (200, None, "it may break"),
        (None, "refused", "the context is not known"),
        (OVERFLOW_TOKENS + 1, "refused", "too many to fill for a probe"),
    ],
)
def test_a_context_is_not_overfilled_where_that_is_dear_or_dangerous(
    project: Project, ask: Callable[..., Probed], context: int | None, overflow: str | None, note: str
) -> None:
    engine = project.engine()

    result = ask(engine, OVERFLOW, context=context, overflow=overflow)

    assert note in result.notes["it"]
    assert engine.count == 0


def test_a_cut_that_leaves_no_trace_is_left_open(project: Project, ask: Callable[..., Probed]) -> None:
    cuts = Abilities(overflow="middle")
    mute = project.engine("always the same", context_length=200, abilities=cuts)
    noisy = project.engine(noise=0.9, context_length=200, abilities=cuts)
    uncounted = project.engine("well", context_length=200, abilities=Abilities(overflow="end", usage=False))

    def note(engine: LoopbackEngine) -> str:
        return ask(engine, OVERFLOW, context=200, overflow="refused").notes["it"]

    assert "neither its beginning nor its end" in note(mute)
    assert "two answers to it differ" in note(noisy)
    assert "does not say how many tokens of it were read" in note(uncounted)


def test_where_logprobs_are_known_they_tell_what_a_weak_model_does_not(project: Project) -> None:
    engine = project.engine(
        lambda request: Reply(text="well", logprob=-(sum(prompt_of(request).encode()) % 97) - 0.5),
        context_length=200,
        abilities=Abilities(overflow="oldest"),
    )
    both = {"logprobs": LOGPROBS, "overflow": OVERFLOW}

    result = probe(adapter_of(project, engine), both, declares=Capabilities(overflow="refused"), context=200)

    assert result.values["overflow"] == "oldest turns dropped"
    assert all(received.json["logprobs"] for received in engine.requests)


def test_a_conversation_is_as_long_as_asked_and_no_message_is_most_of_it() -> None:
    messages = conversation(900)

    lengths = [len(message["content"].split()) for message in messages]
    assert sum(lengths) >= 900
    assert max(lengths) < 900 / 4
    assert [message["role"] for message in messages] == ["user", "assistant"] * 4 + ["user"]
    assert min(lengths) > ANSWER_TOKENS
