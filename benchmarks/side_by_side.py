"""Two paced engines asked by the plugin, by a loop and by tasks with the openai client, by a bare client: one run.

python -m benchmarks.side_by_side [--prompts 200] [--concurrency 16] [--tokens 64] [--no-loop]

The engines are two processes of ``mock_sse.c``: first token after 50 ms, then one every 10 ms. Each measurement has two
of its own, which say at their end how late they sent.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_llmparity.core.checks.arguments import HORIZON
from pytest_llmparity.core.evidence import FLOOR_STAGES
from pytest_llmparity.store.runs import Store

HERE = Path(__file__).resolve().parent
FIRST_MS, GAP_MS = 50, 10
FLOOR = FLOOR_STAGES[0]
PLUGIN = ("-p", "llmparity")
LATE_US = 1000
"""Mean lateness above which a measurement does not count: a tenth of the pace."""

BARE = """
import asyncio, json, sys, time
from pytest_llmparity.transport import Client
urls, phases, concurrency = json.load(sys.stdin)
async def engine(url):
    async with Client(url, headers={"content-type": "application/json"}) as client:
        for bodies in phases:
            left = iter(bodies)
            async def stream():
                for body in left:
                    await client.send("POST", "/v1/chat/completions", body.encode())
            await asyncio.gather(*(stream() for _ in range(concurrency)))
async def both():
    await asyncio.gather(*map(engine, urls))
began = time.perf_counter()
asyncio.run(both())
print(time.perf_counter() - began)
"""
LOOP = """
import json, openai, pytest
PROMPTS = [json.loads(line)["messages"] for line in open("prompts.jsonl")]
@pytest.mark.parametrize("url", URLS)
def test_all(url):
    with openai.OpenAI(base_url=url + "/v1", api_key="x", max_retries=0) as client:
        for messages in PROMPTS:
            answer = client.chat.completions.create(
                model="mock", messages=messages, max_tokens={tokens}, temperature=0
            )
            assert answer.choices[0].message.content.startswith(" token")
"""
TASKS = """
import asyncio, json, openai
PROMPTS = [json.loads(line)["messages"] for line in open("prompts.jsonl")]
async def engine(url):
    slots = asyncio.Semaphore({concurrency})
    async with openai.AsyncOpenAI(base_url=url + "/v1", api_key="x", max_retries=0) as client:
        async def ask(messages, tokens):
            async with slots:
                stream = await client.chat.completions.create(
                    model="mock", messages=messages, max_tokens=tokens, temperature=0, stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        for first, last, tokens in {phases!r}:
            answers = await asyncio.gather(*(ask(messages, tokens) for messages in PROMPTS[first:last]))
            assert all(answer.startswith(" token") for answer in answers)
async def both():
    await asyncio.gather(*map(engine, URLS))
def test_all():
    asyncio.run(both())
"""
GATE = """
import pytest
from pytest_llmparity import check
@pytest.mark.parity("prompts.jsonl", {check}, max_tokens={tokens}, concurrency={concurrency})
def test_gate(parity_run): ...
"""


@dataclass
class Engines:
    """The addresses of two engines, and, once they have ended, how late they sent: mean and most, in microseconds."""

    urls: list[str]
    mean_us: float = 0.0
    most_us: float = 0.0


@dataclass
class Row:
    """One measurement: seconds of a whole process, those it had a processor, and requests sent to the two engines.

    ``sending`` is the part of a bare client's seconds in which it sends: the rest is its start.
    """

    name: str
    seconds: float
    cpu: float
    requests: int
    engines: Engines
    sending: float = 0.0


@contextlib.contextmanager
def engines(binary: str, tokens: int) -> Iterator[Engines]:
    """Run two engines."""
    argv = [binary, str(tokens), str(FIRST_MS * 1000), str(GAP_MS * 1000)]
    running = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    ports = [process.stdout.readline().strip() for process in running if process.stdout is not None]
    lent = Engines([f"http://127.0.0.1:{port}" for port in ports])
    try:
        yield lent
    finally:
        for process in running:
            _, mean_us, most_us = process.communicate()[0].split()
            lent.mean_us, lent.most_us = max(lent.mean_us, float(mean_us)), max(lent.most_us, float(most_us))


def timed(argv: Sequence[str], **more: Any) -> tuple[subprocess.CompletedProcess[str], float, float]:
    """Run a process to its end; return it, how long it took, and how long it had a processor.

    Engines that still run are not in its processor time: only children that have ended are.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.run(argv, check=False, text=True, **more)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return process, took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run_pytest(folder: Path, *arguments: str) -> tuple[float, float]:
    """Run pytest in a process of its own; return how long it took, and how long it had a processor.

    Of the plugins that are installed it has this one at most: those of our own test suite take half a second.
    """
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environ = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    process, took, cpu = timed(argv, cwd=folder, capture_output=True, env=environ)
    if process.returncode:
        raise SystemExit(process.stdout + process.stderr)
    return took, cpu


def phases_of(prompts: int, tokens: int, *, floor: bool) -> list[tuple[int, int, int]]:
    """Return what the plugin asks in which order, phase by phase: from which prompt to which, and for how many tokens.

    A floor's answers need the tokens that are compared, and no more.
    """
    if not floor:
        return [(0, prompts, tokens)]
    again, few = (0, FLOOR, min(HORIZON, tokens)), (0, FLOOR, tokens)
    return [again, few, again, again, (FLOOR, prompts, tokens)]  # cold, answers, warm, parallel, the others' answers


def bare(binary: str, rows: Sequence[dict[str, Any]], options: argparse.Namespace, *, floor: bool) -> Row:
    """Send what the plugin sends, without it: the same bodies at the same concurrency, nothing read or stored.

    Its process is started as pytest is, and needs nothing but the client.
    """
    more = {"model": "mock", "temperature": 0, "stream": True}
    phases = [
        [json.dumps({"messages": row["messages"], "max_tokens": tokens, **more}) for row in rows[first:last]]
        for first, last, tokens in phases_of(len(rows), options.tokens, floor=floor)
    ]
    with engines(binary, options.tokens) as lent:
        given = json.dumps([lent.urls, phases, options.concurrency])
        process, took, cpu = timed([sys.executable, "-c", BARE], input=given, stdout=subprocess.PIPE)
    name = "bare client, the same requests with the floor" if floor else "bare client, the same requests"
    return Row(name, took, cpu, 2 * sum(map(len, phases)), lent, sending=float(process.stdout))


def gate(binary: str, folder: Path, options: argparse.Namespace, check: str, name: str) -> Row:
    """Let the plugin ask them."""
    place = folder / name
    place.mkdir()
    (place / "prompts.jsonl").write_text((folder / "prompts.jsonl").read_text())
    (place / "pytest.ini").touch()
    text = GATE.format(check=check, tokens=options.tokens, concurrency=options.concurrency)
    (place / "test_gate.py").write_text(text)
    with engines(binary, options.tokens) as lent:
        selection = ",".join(f"{name}=openai:mock@{url}" for name, url in zip("ab", lent.urls, strict=True))
        took, cpu = run_pytest(place, *PLUGIN, "--engines", selection)
    with Store.open(place / ".llmparity") as store:
        (run,) = store.runs()
        answered = [sample.completion is not None for name in "ab" for sample in store.get(run.id, name)]
    assert all(answered), f"{answered.count(False)} requests had no answer"
    return Row(f"pytest --engines, {check}", took, cpu, len(answered), lent)


def without_plugin(
    binary: str, folder: Path, options: argparse.Namespace, written: str, name: str
) -> tuple[float, float, Engines]:
    """Run a test that asks with the openai client, without the plugin; return its times, and the engines."""
    place = folder / name
    place.mkdir()
    (place / "prompts.jsonl").write_text((folder / "prompts.jsonl").read_text())
    (place / "pytest.ini").touch()
    with engines(binary, options.tokens) as lent:
        (place / "test_all.py").write_text(written.replace("URLS", repr(lent.urls)))
        took, cpu = run_pytest(place)
    return took, cpu, lent


def tasks(binary: str, folder: Path, options: argparse.Namespace, *, floor: bool) -> Row:
    """Ask both engines at once, so many requests at a time, in a test without the plugin: what a user would write."""
    phases = phases_of(options.prompts, options.tokens, floor=floor)
    written = TASKS.format(concurrency=options.concurrency, phases=phases)
    took, cpu, lent = without_plugin(binary, folder, options, written, "tasks-floor" if floor else "tasks")
    name = "pytest, openai client, asyncio tasks" + (", the same requests with the floor" if floor else "")
    return Row(name, took, cpu, 2 * sum(last - first for first, last, _ in phases), lent)


def loop(binary: str, folder: Path, options: argparse.Namespace) -> Row:
    """Ask one by one in a test without the plugin."""
    took, cpu, lent = without_plugin(binary, folder, options, LOOP.format(tokens=options.tokens), "loop")
    return Row("pytest, openai client, a loop", took, cpu, 2 * options.prompts, lent)


def start_of_pytest(folder: Path) -> float:
    """Return how long pytest with the plugin takes for one empty test."""
    place = folder / "empty"
    place.mkdir()
    (place / "pytest.ini").touch()
    (place / "test_empty.py").write_text("def test_nothing(): ...\n")
    return run_pytest(place, *PLUGIN)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--no-loop", action="store_true", help="leave out the loop, which takes minutes")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = [
        {"id": f"c{n}", "messages": [{"role": "user", "content": f"question {n}"}]} for n in range(options.prompts)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder, binary = Path(name), f"{name}/mock_sse"
        subprocess.run(["cc", "-O2", "-o", binary, str(HERE / "mock_sse.c")], check=True)
        (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
        start_s = start_of_pytest(folder)
        measured = [
            bare(binary, rows, options, floor=False),
            tasks(binary, folder, options, floor=False),
            gate(binary, folder, options, "check.similarity(at_least=0.5)", "plain"),
            bare(binary, rows, options, floor=True),
            tasks(binary, folder, options, floor=True),
            gate(binary, folder, options, "check.text(margin=0.05)", "floor"),
        ]
        if not options.no_loop:
            measured.append(loop(binary, folder, options))
    table(measured, start_s, options)


def table(measured: Sequence[Row], start_s: float, options: argparse.Namespace) -> None:
    """Print the measurements, and how they compare."""
    answer_s = (FIRST_MS + GAP_MS * (options.tokens - 1)) / 1000
    print(f"{options.prompts} prompts x 2 engines, {options.tokens} tokens ({answer_s:.2f} s an answer), concurrency")
    print(f"{options.concurrency}; pytest for one empty test: {start_s:.2f} s\n")
    print("| what | s | CPU s | requests | engines late, mean / most us |")
    print("|---|---|---|---|---|")
    for row in measured:
        late = " (too late)" if row.engines.mean_us > LATE_US else ""
        print(
            f"| {row.name}{late} | {row.seconds:.2f} | {row.cpu:.2f} | {row.requests} | {row.engines.mean_us:.0f} / "
            f"{row.engines.most_us:.0f} |"
        )
    for bare_row, tasks_row, row in (measured[:3], measured[3:6]):
        over, running = row.seconds / bare_row.seconds - 1, row.seconds / bare_row.sending - 1
        without = (row.seconds - start_s) / bare_row.sending - 1
        print(f"\n{row.name}:")
        print(f"  {over:+.1%} over the bare client as a process, {running:+.1%} over one that runs already")
        print(f"  {without:+.1%} over one that runs already, without pytest's own start")
        print(f"  {row.seconds / tasks_row.seconds - 1:+.0%} over a test of asyncio tasks")
        if len(measured) > 6:
            print(f"  {measured[6].seconds / row.seconds:.1f} x as fast as the loop")


if __name__ == "__main__":
    main()
