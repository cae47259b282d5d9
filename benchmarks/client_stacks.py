"""Compare HTTP clients on the same paced streams: CPU per chunk, and how wrong the latencies they report are.

python benchmarks/client_stacks.py [--streams 1,8,64,256] [--clients kernel,transport,openai,httpx,aiohttp]
                                   [--repetitions 1] [--realtime]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

TOKENS = 128
FIRST_MS, GAP_MS = 50, 10
MAX_SERVER_GAP_MS = 11.0  # the server's own p99 gap; above it the machine was too busy to judge any client
CLIENTS = ("kernel", "transport", "openai", "httpx", "aiohttp")
REQUEST = {
    "model": "mock",
    "messages": [{"role": "user", "content": "Say something about parity. " * 8}],
    "max_tokens": TOKENS,
    "stream": True,
    "stream_options": {"include_usage": True},
}
PAYLOAD = json.dumps(REQUEST).encode()
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer x"}
SENT = re.compile(rb'"id":"chatcmpl-(\d+)","object":"[a-z.]+","created":(\d+),"model":"mock","choices":\[\{')


@dataclass
class Answer:
    """One request: when the client's user would start the clock, and (client's stamp, bytes) of what came."""

    start_ns: int
    parts: list[tuple[int, bytes]] = field(default_factory=list)


@dataclass
class Truth:
    """One answer's token events: the client's stamps beside the server's."""

    start_ns: int
    arrived_ns: int
    client_ns: list[int]
    server_ns: list[int]


Ask = Callable[[], Awaitable[Answer]]


@contextlib.asynccontextmanager
async def ours(url: str, reader: str) -> AsyncIterator[Ask]:
    from pytest_llmparity.transport import Client

    async with Client(url, headers=HEADERS, reader="kernel" if reader == "kernel" else "transport") as client:

        async def ask() -> Answer:
            exchange = await client.send("POST", "/v1/chat/completions", PAYLOAD)
            start, parts = 0, []
            for read in exchange.reads:
                parts.append((read.arrived_ns, exchange.body[start : read.end]))
                start = read.end
            return Answer(exchange.sent_ns, parts)

        yield ask


@contextlib.asynccontextmanager
async def openai_client(url: str, _: str) -> AsyncIterator[Ask]:
    import openai

    async with openai.AsyncOpenAI(base_url=url + "/v1", api_key="x", max_retries=0) as client:

        async def ask() -> Answer:
            answer = Answer(time.perf_counter_ns())
            stream = await client.chat.completions.create(**REQUEST)  # type: ignore[call-overload]
            async for chunk in stream:
                now_ns = time.perf_counter_ns()
                if chunk.choices:
                    # What the SDK decoded, back in the form the others are judged by; a hundredth of its own work.
                    event = b'"id":"%s","object":"x","created":%d,"model":"mock","choices":[{'
                    answer.parts.append((now_ns, event % (chunk.id.encode(), chunk.created)))
            return answer

        yield ask


@contextlib.asynccontextmanager
async def httpx_client(url: str, _: str) -> AsyncIterator[Ask]:
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=600, headers=HEADERS, trust_env=False) as client:

        async def ask() -> Answer:
            answer = Answer(time.perf_counter_ns())
            async with client.stream("POST", url + "/v1/chat/completions", content=PAYLOAD) as response:
                async for piece in response.aiter_raw():
                    answer.parts.append((time.perf_counter_ns(), piece))
            return answer

        yield ask


@contextlib.asynccontextmanager
async def aiohttp_client(url: str, _: str) -> AsyncIterator[Ask]:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:

        async def ask() -> Answer:
            answer = Answer(time.perf_counter_ns())
            async with session.post(url + "/v1/chat/completions", data=PAYLOAD) as response:
                async for piece in response.content.iter_any():
                    answer.parts.append((time.perf_counter_ns(), piece))
            return answer

        yield ask


STACKS = {
    "kernel": ours,
    "transport": ours,
    "openai": openai_client,
    "httpx": httpx_client,
    "aiohttp": aiohttp_client,
}


def decode(answer: Answer) -> Truth:
    """Find the token events; an event carries the stamp of the part that brought its end."""
    pending, client_ns, server_ns, arrived_ns = b"", [], [], 0
    for stamp, piece in answer.parts:
        pending += piece
        consumed = 0
        for match in SENT.finditer(pending):
            client_ns.append(stamp)
            arrived_ns = int(match[1])
            server_ns.append(int(match[2]))
            consumed = match.end()
        pending = pending[consumed:]
    return Truth(answer.start_ns, arrived_ns, client_ns, server_ns)


async def drive(ask: Ask, streams: int, requests: int) -> list[Answer]:
    """Keep ``streams`` requests under way until ``requests`` have been answered (closed loop, all start at once)."""
    answers: list[Answer] = []
    left = iter(range(requests))

    async def stream() -> None:
        for _ in left:
            answers.append(await ask())

    await asyncio.gather(*(stream() for _ in range(streams)))
    return answers


async def work(name: str, streams: int, url: str) -> dict[str, float]:
    """Measure one client in this process; a first wave opens connections and warms code, and is dropped."""
    async with STACKS[name](url, name) as ask:
        await drive(ask, streams, streams)
        gc.collect()
        cpu_s = time.process_time()
        answers = await drive(ask, streams, 2 * streams)
        truths = [decode(answer) for answer in answers]
        cpu_s = time.process_time() - cpu_s
    return judge(truths, cpu_s)


def judge(truths: Sequence[Truth], cpu_s: float) -> dict[str, float]:
    """Turn stamps into errors, milliseconds; refuse answers that lost events."""
    if any(len(truth.client_ns) != TOKENS for truth in truths):
        raise SystemExit("an answer lost token events")
    first, between, server_gaps = [], [], []
    for truth in truths:
        reported = truth.client_ns[0] - truth.start_ns
        first.append((reported - (truth.server_ns[0] - truth.arrived_ns)) / 1e6)
        for n in range(1, TOKENS):
            gap = truth.server_ns[n] - truth.server_ns[n - 1]
            server_gaps.append(gap / 1e6)
            between.append(abs(truth.client_ns[n] - truth.client_ns[n - 1] - gap) / 1e6)
    return {
        "cpu_us": cpu_s * 1e6 / (len(truths) * TOKENS),
        "ttft_p50": quantile(first, 0.5),
        "ttft_p99": quantile(first, 0.99),
        "itl_p50": quantile(between, 0.5),
        "itl_p99": quantile(between, 0.99),
        "server_gap_p99": quantile(server_gaps, 0.99),
    }


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[max(ceil(share * len(values)), 1) - 1]


# ------------------------------------------------------------------------------------- the process that runs the others


def place(pid: int, core: int, *, realtime: bool) -> None:
    """Put a process on one core and, if asked, ahead of everything that is not real-time."""
    os.sched_setaffinity(pid, {core})
    if realtime:
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(10))


@contextlib.contextmanager
def server(*, realtime: bool) -> Iterator[str]:
    """Build the paced server, run it on the last core this process may use, lend its URL."""
    with tempfile.TemporaryDirectory() as folder:
        binary = f"{folder}/mock_sse"
        subprocess.run(["cc", "-O2", "-o", binary, str(HERE / "mock_sse.c")], check=True)
        argv = [binary, str(TOKENS), str(FIRST_MS * 1000), str(GAP_MS * 1000)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            place(running.pid, max(os.sched_getaffinity(0)), realtime=realtime)
            yield f"http://127.0.0.1:{int(running.stdout.readline())}"
            running.kill()


def measure(name: str, streams: int, url: str, *, realtime: bool) -> dict[str, float]:
    """Run one client in a fresh process on the first core this process may use."""
    argv = [sys.executable, __file__, "--worker", name, str(streams), url]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        place(child.pid, min(os.sched_getaffinity(0)), realtime=realtime)
        output, _ = child.communicate(timeout=180)
    if child.returncode:
        raise SystemExit(f"{name} at {streams} streams failed")
    result: dict[str, float] = json.loads(output)
    return result


def table(rows: dict[tuple[str, int], list[dict[str, float]]], clients: Sequence[str], levels: Sequence[int]) -> None:
    """Print medians over repetitions, and CPU as a multiple of the first client's."""
    print("| streams | client | CPU us/chunk | x | TTFT error p50 / p99 ms | ITL error p50 / p99 ms |")
    print("|---|---|---|---|---|---|")
    for streams in levels:
        base = 0.0
        for name in clients:
            runs = rows[name, streams]
            value = {key: statistics.median(row[key] for row in runs) for key in runs[0]}
            base = base or value["cpu_us"]
            late = " (server late)" if value["server_gap_p99"] > MAX_SERVER_GAP_MS else ""
            print(
                f"| {streams} | {name}{late} | {value['cpu_us']:.1f} | {value['cpu_us'] / base:.1f} "
                f"| {value['ttft_p50']:.2f} / {value['ttft_p99']:.2f} "
                f"| {value['itl_p50']:.3f} / {value['itl_p99']:.2f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", default="1,8,64,256")
    parser.add_argument("--clients", default=",".join(CLIENTS))
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--realtime", action="store_true", help="SCHED_FIFO for client and server (needs the right)")
    parser.add_argument("--worker", nargs=3, metavar=("CLIENT", "STREAMS", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, streams, url = options.worker
        print(json.dumps(asyncio.run(work(name, int(streams), url))))
        return
    levels, clients = [int(level) for level in options.streams.split(",")], options.clients.split(",")
    rows: dict[tuple[str, int], list[dict[str, float]]] = {}
    with server(realtime=options.realtime) as url:
        for _ in range(options.repetitions):
            for streams in levels:
                for name in clients:  # side by side in time, so that a busy minute hits them all
                    rows.setdefault((name, streams), []).append(measure(name, streams, url, realtime=options.realtime))
    table(rows, clients, levels)


if __name__ == "__main__":
    main()
