"""Both readers against real servers, plain and with TLS, whatever way the bytes come: every body as it was sent.

The reason is CPython's issue 156275 (https://github.com/python/cpython/issues/156275): asyncio's TLS wrote records into
a copy of the buffer it was lent, so answers of other prompts came out of it with the right length and no error.
``LLMPARITY_TORTURE`` multiplies the number of examples; ``-s`` shows how much was compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import httpx
import pytest
import trustme
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pytest_llmparity.core.errors import ProtocolError
from pytest_llmparity.transport import Client
from tests.transport.torture import Delivery, TortureServer, deliveries

pytestmark = pytest.mark.slow

TIMES = int(os.environ.get("LLMPARITY_TORTURE", "1"))
ENDLESS = settings(max_examples=15 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))

Reader = Literal["kernel", "transport"]


@dataclass(slots=True)
class Bench:
    """One server, our client and httpx on kept connections, in one loop; counts what it compared."""

    runner: asyncio.Runner
    server: TortureServer
    make: Callable[[], Client]
    client: Client
    other: httpx.AsyncClient
    exchanges: int = 0
    size: int = 0

    def ask(self, asked: list[Delivery], *, at_once: bool) -> None:
        """Ask for every delivery and compare what comes with what was sent and with what httpx reads."""
        self.runner.run(self._ask(asked, at_once=at_once))

    async def _ask(self, asked: list[Delivery], *, at_once: bool) -> None:
        self.server.deliveries[:] = asked
        if at_once:
            answers = list(await asyncio.gather(*(self.client.send("GET", f"/{n}") for n in range(len(asked)))))
        else:
            answers = [await self.client.send("GET", f"/{n}") for n in range(len(asked))]
        for number, (delivery, exchange) in enumerate(zip(asked, answers, strict=True)):
            theirs = await self.other.get(f"{self.server.url}/{number}")
            assert exchange.headers["x-seed"] == str(delivery.seed)
            assert exchange.body == delivery.body
            assert exchange.body == theirs.content
            self.exchanges += 1
            self.size += len(exchange.body)


KINDS = [
    pytest.param(("kernel", None), marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux only"), id="kernel"),
    pytest.param(("transport", None), id="transport"),
    pytest.param(("transport", ssl.TLSVersion.TLSv1_2), id="tls1.2"),
    pytest.param(("transport", ssl.TLSVersion.TLSv1_3), id="tls1.3"),
]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module", params=KINDS)
def bench(
    request: pytest.FixtureRequest, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    reader: Reader
    reader, version = request.param
    context = bundle = None
    if version is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = version
        authority.issue_cert("127.0.0.1").configure_cert(context)
        bundle = tmp_path_factory.mktemp("tls") / "ca.pem"
        authority.cert_pem.write_to_path(str(bundle))
    with asyncio.Runner() as runner:
        bench = runner.run(started(runner, TortureServer(context), reader, bundle))
        yield bench
        runner.run(stopped(bench))
    counted = f"{bench.exchanges} exchanges, {bench.size} bytes, {bench.server.connections} connections"
    sys.stdout.write(f"\n{reader}, {version.name if version else 'plain'}: {counted}\n")


async def started(runner: asyncio.Runner, server: TortureServer, reader: Reader, bundle: Path | None) -> Bench:
    await server.start()
    verify = ssl.create_default_context(cafile=bundle) if bundle else False
    other = httpx.AsyncClient(trust_env=False, verify=verify, timeout=60)
    make = partial(Client, server.url, reader=reader, ca_bundle=bundle)
    return Bench(runner, server, make, make(), other)


async def stopped(bench: Bench) -> None:
    await bench.client.aclose()
    await bench.other.aclose()
    await bench.server.stop()


@ENDLESS
@given(asked=deliveries(), at_once=st.booleans())
@example(asked=[Delivery(seed=n, size=300, records=(-300,)) for n in range(4)], at_once=False)
@example(
    asked=[*(Delivery(seed=n, size=2_000_000) for n in range(3)), Delivery(seed=9, size=260_000, framing="close")],
    at_once=False,
)
def test_every_body_is_what_was_sent_wherever_it_is_cut(bench: Bench, asked: list[Delivery], at_once: bool) -> None:
    bench.ask(asked, at_once=at_once)


SURPLUS = Delivery(seed=77, size=12, framing="length").answer()


@settings(ENDLESS, max_examples=15 * TIMES)
@given(
    asked=deliveries(),
    surplus=st.sampled_from([SURPLUS, SURPLUS[:9], b"\r\n\r\n", b"x", SURPLUS * 3]),
    apart=st.booleans(),
)
def test_bytes_nobody_asked_for_are_never_an_answer(
    bench: Bench, asked: list[Delivery], surplus: bytes, apart: bool
) -> None:
    """A surplus in the answer's own segment is an error of that answer or closes the connection, never the next one."""
    bench.runner.run(_with_surplus(bench, [replace(delivery, surplus=surplus, apart=apart) for delivery in asked]))


async def _with_surplus(bench: Bench, asked: list[Delivery]) -> None:
    bench.server.deliveries[:] = asked
    await bench.client.aclose()
    bench.client = bench.make()
    for number, delivery in enumerate(asked):
        try:
            exchange = await bench.client.send("GET", f"/{number}")
        except ProtocolError:
            continue
        assert exchange.headers["x-seed"] == str(delivery.seed)
        assert exchange.body == delivery.body or delivery.framing == "close"  # there a surplus is part of the body
        bench.exchanges += 1
        bench.size += len(exchange.body)


@pytest.mark.parametrize("turns", range(5))
def test_a_second_answer_is_seen_before_the_connection_is_used_again(bench: Bench, turns: int) -> None:
    """It arrives while nothing is asked, and the next request is written at once or some turns of the loop later."""
    bench.runner.run(_second_answer(bench, turns))


async def _second_answer(bench: Bench, turns: int) -> None:
    bench.server.deliveries[:] = [Delivery(seed=1, size=100), Delivery(seed=2, size=100)]
    async with bench.make() as client:
        first = await client.send("GET", "/0")
        bench.server.send_unasked(SURPLUS)
        for _ in range(turns):
            await asyncio.sleep(0)
        second = await client.send("GET", "/1")
        third = await client.send("GET", "/0")

    assert [exchange.headers["x-seed"] for exchange in (first, second, third)] == ["1", "2", "1"]
    assert [exchange.reused for exchange in (first, second, third)] == [False, False, False]


def test_a_request_that_a_kept_connection_ends_without_a_byte_is_asked_once_more(bench: Bench) -> None:
    """Whether it ends in order or not; a fresh connection that ends so is told, and nothing is asked twice there."""
    bench.runner.run(_hung_up(bench))


async def _hung_up(bench: Bench) -> None:
    server = bench.server
    server.deliveries[:] = [Delivery(seed=n, size=100) for n in range(3)]
    server.asked.clear()
    server.hangs_up = {1, 3, 4}
    async with bench.make() as client:
        exchanges = [await client.send("GET", f"/{n}") for n in range(2)]
        with pytest.raises(ProtocolError, match="accepted the connection and closed it without a byte"):
            await client.send("GET", "/2")
    server.hangs_up = set()

    assert [exchange.headers["x-seed"] for exchange in exchanges] == ["0", "1"]
    assert not exchanges[1].reused
    assert server.asked == ["/0", "/1", "/1", "/2", "/2"]


def test_an_answer_that_was_another_request_s_is_known_afterwards(bench: Bench) -> None:
    """A second answer that comes while the next request is under way looks like its answer, until that comes too."""
    bench.runner.run(_ahead_of_us(bench))


async def _ahead_of_us(bench: Bench) -> None:
    bench.server.deliveries[:] = [Delivery(seed=n, size=100) for n in range(3)]
    async with bench.make() as client:
        for number in range(3):
            assert (await client.send("GET", f"/{number}")).headers["x-seed"] == str(number)
        assert await client.part()
        await client.send("GET", "/0")
        asking = asyncio.create_task(client.send("GET", "/1"))
        await asyncio.sleep(0)
        bench.server.send_unasked(SURPLUS)
        with contextlib.suppress(ProtocolError):  # where both came in one read
            exchange = await asking
            assert (exchange.headers["x-seed"], exchange.reused) == ("77", True)

        assert not await client.part()
        again = [await client.send("GET", f"/{number}") for number in (1, 2)]

    assert [(exchange.headers["x-seed"], exchange.reused) for exchange in again] == [("1", False), ("2", False)]
