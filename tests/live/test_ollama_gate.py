"""A real Ollama against llama.cpp on the same weights: what is equal, what Ollama does otherwise, what is pinned."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.real_ollama import RealOllama, program

if TYPE_CHECKING:
    from tests.live.conftest import LiveRun

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("llamacpp")]

SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("capitals.jsonl", check.prompts(), check.text(margin=0.2), max_tokens=16)
def test_capitals(): ...

@pytest.mark.parity("people.jsonl", check.schema("{schemas}/person.json", agree=0.6), max_tokens=64)
def test_people(): ...

@pytest.mark.parity("long.jsonl", check.prompts(), max_tokens=4)
def test_long(): ...
"""
OLLAMA = """
[engines.{name}]
kind = "ollama"
model = "{model}"
base_url = "{url}"
"""
OWN = """
[engines.own]
kind = "ollama"
route = "native"
model = "{model}"
command = ["{program}"]
context_length = 1024
env = {{LLAMA_ARG_THREADS = "1"}}
"""
CONTEXT = 512


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealOllama]:
    with RealOllama(tmp_path_factory.mktemp("ollama"), {"OLLAMA_CONTEXT_LENGTH": str(CONTEXT)}) as running:
        running.model("F16")
        running.model("Q4_0")
        yield running


def conversation(place: int) -> list[dict[str, str]]:
    """Return a conversation that is longer than the daemon's context and fits llama.cpp's."""
    turn = f"The hotel number {place} was clean and quiet. " * 10
    turns = [{"role": "assistant" if at % 2 else "user", "content": turn} for at in range(7)]
    return [*turns[:-1], {"role": "user", "content": "What was the hotel like?"}]


@pytest.fixture(scope="module")
def run(
    daemon: RealOllama,
    launch: Callable[..., LiveRun],
    gguf: Callable[..., str],
    prompts: Path,
    models: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> LiveRun:
    folder = tmp_path_factory.mktemp("sets")
    capitals, people = (
        [json.loads(line) for line in (prompts / f"{name}.jsonl").read_text("utf-8").splitlines()[:count]]
        for name, count in (("capitals", 12), ("extraction", 8))
    )
    for row in people:
        schema = {"name": "person", "schema": row["expect"]["schema"]}
        row["response_format"] = {"type": "json_schema", "json_schema": schema}
    long = [{"id": f"long-{place}", "messages": conversation(place)} for place in range(6)]
    long += [{"id": f"short-{place}", "messages": conversation(place)[-1:]} for place in range(6)]
    suite = SUITE.format(schemas=prompts.parent / "schemas")
    for name, rows in (("capitals", capitals), ("people", people), ("long", long)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
        suite = suite.replace(f'"{name}.jsonl"', f'"{folder / name}.jsonl"')
    config = gguf("cpp", "F16")
    config += OLLAMA.format(name="f16", model="tiny:f16", url=daemon.url)
    config += OLLAMA.format(name="liar", model="tiny:q4_0", url=daemon.url) + 'pin = {quantization = "F16"}\n'
    config += OWN.format(model=models / "tiny-F16.gguf", program=program())
    started = launch("--engines=cpp,f16,liar,own", "--parity-explain-requests=0", suite=suite, config=config)
    assert started.wait() == 1, started.output
    return started


def message(run: LiveRun, test: str, kind: str, engine: str) -> dict[str, Any]:
    verdict = run.verdicts()[test, kind, engine]
    return {**verdict, "message": " ".join(verdict["message"].split())}


def test_the_same_weights_say_the_same_attached_and_started_from_a_file(run: LiveRun) -> None:
    for engine in ("f16", "own"):
        assert message(run, "test_capitals", "prompts", engine)["outcome"] == "PASS"
        assert message(run, "test_capitals", "text", engine)["outcome"] == "PASS"


def test_forced_alphabetical_order_is_caught_and_named_on_both_routes(run: LiveRun) -> None:
    for engine in ("f16", "own"):
        verdict = message(run, "test_people", "schema.agree", engine)
        assert verdict["outcome"] == "FAIL"
        every = rf"property order: (\d+) of \1 JSON answers of {engine} in another order than declared"
        assert re.search(every, verdict["message"])
        assert "of cpp in another order" not in verdict["message"]


def test_dropped_turns_are_named_with_the_engine_and_its_context(run: LiveRun) -> None:
    verdict = message(run, "test_long", "prompts", "f16")
    assert verdict["outcome"] == "FAIL"
    assert "f16 cut 6 of 12 prompts" in verdict["message"]
    assert f"its context is {CONTEXT} tokens" in verdict["message"]
    assert message(run, "test_long", "prompts", "own")["outcome"] == "PASS"


def test_4_bits_pinned_as_16_are_incomparable(run: LiveRun) -> None:
    verdict = message(run, "test_capitals", "text", "liar")

    assert verdict["outcome"] == "INCOMPARABLE"
    assert "quantization is pinned to F16 but the server has Q4_0" in verdict["message"]
