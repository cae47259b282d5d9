from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from pytest_llmparity.core.errors import EngineSelectionError, Unreachable
from pytest_llmparity.core.selection import KINDS
from pytest_llmparity.core.settings import EngineSpec
from pytest_llmparity.engines.probe import models, recognise
from pytest_llmparity.engines.readiness import free_port
from pytest_llmparity.engines.registry import adapter_for, kinds, make
from pytest_llmparity.testing import LoopbackEngine, Replay
from pytest_llmparity.testing.server import Call, Hangup, LoopbackServer

Start = Callable[..., LoopbackEngine]


class Routes(LoopbackServer):
    """Answers GET by a table; what is not in it is 404."""

    def __init__(self, routes: Mapping[str, object], headers: Mapping[str, str]) -> None:
        super().__init__()
        self.routes = routes
        self.headers = headers

    def answer(self, call: Call) -> None:
        found = self.routes.get(call.path)
        if found is None:
            call.send(404, b"{}", self.headers)
        else:
            call.send(200, found if isinstance(found, bytes) else json.dumps(found).encode(), self.headers)


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    running: list[Routes] = []

    def serve_one(routes: Mapping[str, object], headers: Mapping[str, str] | None = None) -> str:
        running.append(Routes(routes, headers or {}).start())
        return running[-1].base_url

    yield serve_one
    for server in running:
        server.stop()


def listing(*entries: dict[str, object]) -> dict[str, object]:
    return {"/v1/models": {"data": list(entries)}}


TELLS: dict[str, tuple[dict[str, object], dict[str, str], str]] = {
    "llamacpp-owner": (listing({"id": "m", "owned_by": "llamacpp"}), {}, "llamacpp"),
    "llamacpp-header": (listing({"id": "m"}), {"server": "llama.cpp"}, "llamacpp"),
    "llamacpp-props": ({"/props": {"build_info": "b1-abc"}}, {}, "llamacpp"),
    "vllm": (listing({"id": "m", "owned_by": "vllm"}), {}, "vllm"),
    "sglang-owner": (listing({"id": "m", "owned_by": "sglang"}) | {"/api/tags": {"models": []}}, {}, "sglang"),
    "sglang-info": ({"/server_info": {"sglang_version": "1"}, "/api/version": {"version": "1"}}, {}, "sglang"),
    "ollama-root": ({"/": b"Ollama is running"}, {}, "ollama"),
    "ollama-api": ({"/api/version": {"version": "0.33"}, "/api/tags": {"models": []}}, {}, "ollama"),
    "tgi": ({"/info": {"model_sha": "abc"}}, {}, "tgi"),
    "lmstudio-v1": ({"/api/v1/models": {"models": []}}, {}, "lmstudio"),
    "lmstudio-v0": ({"/api/v0/models": {"data": []}}, {}, "lmstudio"),
    "litellm": (listing({"id": "m", "owned_by": "vllm"}), {"x-litellm-version": "1"}, "litellm"),
    "llama-cpp-python": (listing({"id": "m", "owned_by": "me"}), {}, "llama-cpp-python"),
    "transformers": (listing({"id": "Qwen/Qwen3", "owned_by": "Qwen"}), {}, "transformers"),
    "mlx": (listing({"id": "m"}), {"server": "BaseHTTP/0.6 Python/3.11"}, "mlx"),
    "openai-header": (listing({"id": "m"}), {"openai-processing-ms": "3"}, "openai"),
    "nothing": ({}, {}, "openai"),
    "other": (listing({"id": "m", "owned_by": "acme"}), {}, "openai"),
    "garbage": ({"/v1/models": b"<html>"}, {}, "openai"),
}


@pytest.mark.parametrize("name", TELLS)
def test_server_is_recognised_by_its_tell(name: str, serve: Callable[..., str]) -> None:
    routes, headers, kind = TELLS[name]

    assert recognise(serve(routes, headers)) == kind


@pytest.mark.parametrize("kind", ["llamacpp", "vllm"])
def test_recorded_engines_are_recognised(kind: str, wire: Path) -> None:
    with Replay(wire / kind) as replay:
        assert recognise(replay.base_url + "/") == kind


def test_server_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="nothing answers"):
        recognise(f"http://127.0.0.1:{free_port()}", name="cand")


def test_route_that_breaks_the_connection_is_no_tell() -> None:
    class Moody(LoopbackServer):
        def answer(self, call: Call) -> None:
            if call.path == "/v1/models":
                call.send(404, b"{}")
            else:
                raise Hangup

    with Moody() as server:
        assert recognise(server.base_url) == "openai"


def test_models_are_listed_in_the_servers_order(serve: Callable[..., str]) -> None:
    url = serve(listing({"id": "b"}, {"id": "a"}, {"name": "no id"}))

    assert models(url) == ("b", "a")
    assert models(serve({})) == ()


def test_bare_url_gets_the_adapter_of_what_answers(start: Start) -> None:
    engine = start(poses_as="vllm")
    adapter = make(EngineSpec(name="x", base_url=engine.base_url), engine.base_url, environ={})

    assert (adapter.kind, adapter.recognised, adapter.model) == ("vllm", "", "loopback")


def test_several_models_and_none_named_is_an_error_that_lists_them(serve: Callable[..., str]) -> None:
    url = serve(listing({"id": "a"}, {"id": "b"}))
    adapter = make(EngineSpec(name="x", kind="openai", base_url=url), url, environ={})

    with pytest.raises(EngineSelectionError, match=r"serves 2 models \(a, b\).*#MODEL"):
        _ = adapter.model


def test_no_model_at_all_is_an_error(serve: Callable[..., str]) -> None:
    url = serve({})
    adapter = make(EngineSpec(name="x", kind="openai", base_url=url), url, environ={})

    with pytest.raises(EngineSelectionError, match=r"serves 0 models \(none\)"):
        _ = adapter.model


def test_kinds_and_the_nearest_one() -> None:
    assert set(kinds()) == set(KINDS)
    assert adapter_for("vllm").kind == "vllm"
    with pytest.raises(EngineSelectionError, match="Did you mean 'vllm'"):
        adapter_for("vlm")
    with pytest.raises(EngineSelectionError, match="kind 'openai'"):
        adapter_for("zzz")
