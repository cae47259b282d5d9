from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_llmparity.core.sample import Request
from pytest_llmparity.engines.registry import make
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.testing.script import Fault, Reply
from pytest_llmparity.transport.client import Client
from pytest_llmparity.transport.exchange import Exchange
from tests.doubles.ollama_daemon import OllamaDaemon
from tests.doubles.posing import PosingEngine

REPO = Path(__file__).parents[2]

Send = Callable[..., Exchange]
Start = Callable[..., PosingEngine]


@pytest.fixture(scope="session")
def models() -> Path:
    return REPO / "fixtures/models/tiny"


@pytest.fixture(scope="session")
def wire() -> Path:
    return REPO / "fixtures/wire"


@pytest.fixture(scope="session")
def send() -> Iterator[Send]:
    """Sends what an adapter builds, through the client the product gathers with, in one loop for all tests."""
    with asyncio.Runner() as runner:

        def send_one(adapter: Adapter, request: Request, *, stream: bool = True) -> Exchange:
            spoken = dataclasses.replace(adapter.own(request), sampling=request.sampling)
            built = adapter.build(spoken, stream=stream)

            async def exchange() -> Exchange:
                headers = {"content-type": "application/json", **adapter.headers}
                async with Client(adapter.base_url, headers=headers) as client:
                    return await client.send(built.method, built.path, built.body)

            return runner.run(exchange())

        yield send_one


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts loopback engines that end with the test."""
    running: list[PosingEngine] = []

    def start_one(answer: str | Reply | Fault | None = None, **options: object) -> PosingEngine:
        engine = PosingEngine(answer, **options)  # type: ignore[arg-type]
        running.append(engine)
        return engine.start()

    yield start_one
    for engine in running:
        engine.stop()


@pytest.fixture
def attach() -> Callable[..., Adapter]:
    """Makes the adapter of a kind around a URL."""

    def attach_to(base_url: str, kind: str | None = "openai", **fields: object) -> Adapter:
        options: dict[str, object] = {"name": "cand", "model": "loopback", **fields}
        spec = EngineSpec(kind=kind, base_url=base_url, **options)  # type: ignore[arg-type]
        return make(spec, base_url, environ={"KEY": "sk-test-0123456789"})

    return attach_to


@pytest.fixture
def daemon() -> Iterator[OllamaDaemon]:
    """A double of the Ollama daemon that has one model, ``tiny``."""
    with OllamaDaemon() as running:
        yield running


@pytest.fixture
def ask(daemon: OllamaDaemon, attach: Callable[..., Adapter]) -> Callable[..., Adapter]:
    """Makes an adapter around that daemon."""

    def on(route: str = "openai", model: str = "tiny", **fields: object) -> Adapter:
        return attach(daemon.base_url, "ollama", model=model, route=route, **fields)

    return on
