from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from pytest_llmparity.core.errors import EngineSelectionError, Unreachable
from pytest_llmparity.core.sample import Fact
from pytest_llmparity.engines.recognise import OTHERS, kind_of
from pytest_llmparity.engines.registry import adapter_for, known, make
from pytest_llmparity.engines.start.readiness import free_port
from pytest_llmparity.settings.selection import KINDS
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.testing import LoopbackEngine, Replay
from pytest_llmparity.testing.server import Call, Hangup, LoopbackServer
from tests.doubles.routes import recognise

Start = Callable[..., LoopbackEngine]


class Routes(LoopbackServer):
    """Answers GET by a table and keeps what was asked; what is not in it is 404, a number is a status."""

    def __init__(self, routes: Mapping[str, object], headers: Mapping[str, str]) -> None:
        super().__init__()
        self.routes = routes
        self.headers = headers
        self.asked: list[str] = []

    def answer(self, call: Call) -> None:
        self.asked.append(call.path)
        reply = self.routes.get(call.path, 404)
        if isinstance(reply, int):
            call.send(reply, b"{}", self.headers)
        else:
            call.send(200, reply if isinstance(reply, bytes) else json.dumps(reply).encode(), self.headers)


class Counting(Replay):
    """A replay that keeps what was asked."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked: list[str] = []

    def answer(self, call: Call) -> None:
        self.asked.append(call.path)
        super().answer(call)


Serve = Callable[..., Routes]


@pytest.fixture
def serve() -> Iterator[Serve]:
    running: list[Routes] = []

    def serve_one(routes: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Routes:
        running.append(Routes(routes, headers or {}).start())
        return running[-1]

    yield serve_one
    for server in running:
        server.stop()


def listing(*entries: dict[str, object]) -> dict[str, object]:
    return {"/v1/models": {"data": list(entries)}}


def owned(owner: str, **more: object) -> dict[str, object]:
    return listing({"id": "m", "owned_by": owner, **more})


OLLAMA_API = {"/api/version": {"version": "0.33"}, "/api/tags": {"models": []}}
LOCALAI = {"/.well-known/localai.json": {"version": "v4", "endpoints": {}}}
RAY = {"model_id": "m", "max_request_context_length": 8192}

TELLS: dict[str, tuple[dict[str, object], dict[str, str], str, int]] = {
    "llamacpp-owner": (owned("llamacpp"), {}, "llamacpp", 1),
    "llamacpp-header": (listing({"id": "m"}), {"server": "llama.cpp"}, "llamacpp", 1),
    "llamacpp-loading": ({"/v1/models": 503}, {"server": "llama.cpp"}, "llamacpp", 1),
    "llamacpp-props": ({"/props": {"build_info": "b1-abc"}}, {}, "llamacpp", 3),
    "vllm": (owned("vllm"), {}, "vllm", 1),
    "sglang-owner": (owned("sglang") | OLLAMA_API, {}, "sglang", 1),
    "sglang-info": ({"/server_info": {"sglang_version": "1"}} | OLLAMA_API, {}, "sglang", 4),
    "ollama-root": (owned("library") | {"/": b"Ollama is running"}, {}, "ollama", 2),
    "ollama-empty": (listing() | {"/": b"Ollama is running"}, {}, "ollama", 2),
    "ollama-api": (OLLAMA_API, {}, "ollama", 8),
    "tgi": (owned("google/gemma") | {"/info": {"model_sha": "abc"}}, {}, "tgi", 5),
    "lmstudio-v1": (owned("organization_owner") | {"/api/v1/models": {"models": []}}, {}, "lmstudio", 8),
    "lmstudio-v0": ({"/api/v0/models": {"data": []}}, {}, "lmstudio", 9),
    "litellm-header": (owned("vllm"), {"x-litellm-version": "1"}, "litellm", 1),
    "litellm-page": (owned("openai") | {"/": b"<html><title>LiteLLM API - Swagger UI</title>"}, {}, "litellm", 2),
    "litellm-bare": (owned("openai") | {"/health/liveliness": "I'm alive!"}, {}, "litellm", 11),
    "llamacpp-python": (owned("me"), {"openai-processing-ms": "3"}, "llamacpp-python", 1),
    "transformers": (listing({"id": "Qwen/Qwen3", "owned_by": "Qwen"}) | {"/load_model": 405}, {}, "transformers", 10),
    "transformers-4": (listing({"id": "Q/q", "owned_by": "Q"}), {"server": "uvicorn"}, "transformers", 11),
    "mlx": (listing({"id": "m"}), {"server": "BaseHTTP/0.6 Python/3.11"}, "mlx", 11),
    "koboldcpp-owner": (owned("koboldcpp") | OLLAMA_API, {}, "koboldcpp", 1),
    "koboldcpp-header": ({"/v1/models": 503}, {"server": "KoboldCppServer 1"}, "koboldcpp", 1),
    "llama-swap": (owned("llama-swap"), {}, "llama-swap", 1),
    "localai": (listing({"id": "m"}) | LOCALAI | OLLAMA_API, {}, "localai", 6),
    "localai-as-ollama": (listing({"id": "m"}) | LOCALAI | {"/": b"Ollama is running"}, {}, "localai", 6),
    "ray-serve": (owned("organization-owner", metadata=RAY), {}, "ray-serve", 1),
    "openai.com": (owned("system"), {"openai-version": "2020-10-01"}, "hosted", 1),
    "openrouter": (listing({"id": "a/b", "pricing": {}}), {}, "hosted", 1),
    "hub-router": (listing({"id": "Qwen/Qwen3", "owned_by": "Qwen"}), {}, "openai", 11),
    "nothing": ({}, {}, "openai", 11),
    "other": (owned("acme"), {}, "openai", 11),
    "http.server": (owned("acme"), {"server": "BaseHTTP/0.6"}, "openai", 11),
    "garbage": ({"/v1/models": b"<html>"}, {}, "openai", 11),
}
"""Routes and headers of a server, what it is, and how many requests it takes to see that."""


@pytest.mark.parametrize("name", TELLS)
def test_server_is_recognised_by_its_first_tell(name: str, serve: Serve) -> None:
    routes, headers, seen, requests = TELLS[name]
    server = serve(routes, headers)

    assert recognise(server.base_url) == seen
    assert len(server.asked) == len(set(server.asked)) == requests


def test_every_kind_and_every_other_look_has_a_tell() -> None:
    assert {seen for _, _, seen, _ in TELLS.values()} == {*KINDS, *OTHERS}


RECORDED = {
    "llamacpp": ("llamacpp", 1),
    "vllm": ("vllm", 1),
    "sglang": ("sglang", 4),  # several servers in one folder; the first list of models was asked for without a key
    "ollama": ("ollama", 2),
    "ollama-paths": ("openai", 11),  # holds no list of models and no root: nothing to tell by
    "mlx": ("mlx", 11),
    "transformers": ("transformers", 10),
    "llamacpp-python": ("llamacpp-python", 1),
    "litellm": ("litellm", 11),
}
"""By folder of fixtures/wire: what it is recognised as, and after how many requests."""


@pytest.mark.parametrize("folder", RECORDED)
def test_recorded_engines_are_recognised(folder: str, wire: Path) -> None:
    if not (wire / folder).is_dir():
        pytest.skip(f"no recordings of {folder} here")
    seen, requests = RECORDED[folder]
    with Counting(wire / folder) as replay:
        assert recognise(replay.base_url + "/") == seen
        assert len(replay.asked) == requests


def test_every_folder_of_recordings_is_looked_at(wire: Path) -> None:
    assert {folder.name for folder in wire.iterdir() if folder.is_dir()} <= set(RECORDED)


def test_server_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="nothing answers"):
        recognise(f"http://127.0.0.1:{free_port()}")


def test_route_that_breaks_the_connection_is_no_tell() -> None:
    class Moody(LoopbackServer):
        def answer(self, call: Call) -> None:
            if call.path == "/v1/models":
                call.send(404, b"{}")
            else:
                raise Hangup

    with Moody() as server:
        assert recognise(server.base_url) == "openai"


# ---- what is made of it ---------------------------------------------------------------------------------------------


def test_bare_url_gets_the_adapter_of_what_answers(start: Start) -> None:
    engine = start(poses_as="vllm")
    adapter = make(EngineSpec(name="x", base_url=engine.base_url), engine.base_url, environ={})

    assert (adapter.kind, adapter.recognised, adapter.model) == ("vllm", "vllm", "loopback")


@pytest.mark.parametrize("kind", [None, "openai"])
@pytest.mark.parametrize("name", ["localai", "koboldcpp-owner", "llama-swap", "ray-serve", "openrouter", "vllm"])
def test_what_is_asked_as_openai_says_what_it_looks_like(name: str, kind: str | None, serve: Serve) -> None:
    routes, headers, seen, _ = TELLS[name]
    server = serve(routes, headers)

    adapter = make(EngineSpec(name="x", kind=kind, base_url=server.base_url), server.base_url, environ={})
    facts = adapter.identity().facts

    assert adapter.kind == (kind or kind_of(seen))
    if adapter.kind == "openai":
        words = OTHERS.get(seen, "kind vllm would fit it")
        assert facts["recognised"] == Fact(value=seen, source="reported", raw=words)
        assert server.asked.count("/props") <= 1  # a bare URL is not looked at twice


def test_server_that_gives_nothing_away_has_no_such_fact(serve: Serve) -> None:
    server = serve(owned("acme"))

    facts = make(EngineSpec(name="x", kind="openai"), server.base_url, environ={}).identity().facts

    assert "recognised" not in facts


def test_ray_serve_tells_the_context_of_a_request(serve: Serve) -> None:
    server = serve(owned("organization-owner", metadata=RAY))

    facts = make(EngineSpec(name="x", kind="openai"), server.base_url, environ={}).identity().facts

    assert facts["context_length"] == Fact(value=8192, source="reported", raw="max_request_context_length")


def test_several_models_and_none_named_is_an_error_that_lists_them(serve: Serve) -> None:
    url = serve(listing({"id": "a"}, {"id": "b"})).base_url
    adapter = make(EngineSpec(name="x", kind="openai", base_url=url), url, environ={})

    with pytest.raises(EngineSelectionError, match=r"serves 2 models \(a, b\).*#MODEL"):
        _ = adapter.model


def test_no_model_at_all_is_an_error(serve: Serve) -> None:
    url = serve({"/v1/models": {"data": []}}).base_url
    adapter = make(EngineSpec(name="x", kind="openai", base_url=url), url, environ={})

    with pytest.raises(EngineSelectionError, match=rf"{url}/v1/models lists no model.*{url}/v1#MODEL"):
        _ = adapter.model


def test_a_missing_list_of_models_is_not_called_an_empty_one(serve: Serve) -> None:
    url = serve({}).base_url
    adapter = make(EngineSpec(name="x", kind="openai", base_url=url), url, environ={})

    with pytest.raises(EngineSelectionError, match=r"be told: GET /v1/models says 404.*#MODEL.*correct base_url"):
        _ = adapter.model


def test_kinds_and_the_nearest_one() -> None:
    assert set(known()) == set(KINDS)
    assert adapter_for("vllm").kind == "vllm"
    with pytest.raises(EngineSelectionError, match="\\(did you mean 'vllm'\\?\\); known are"):
        adapter_for("vlm")
    with pytest.raises(EngineSelectionError, match="kind 'openai'"):
        adapter_for("zzz")
