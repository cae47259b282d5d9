"""What the adapters read from every recording of a real engine; ``recorded/FOLDER.toml`` says what that is."""

from __future__ import annotations

import asyncio
import contextlib
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.testing import Replay
from pytest_llmparity.transport.client import Client
from pytest_llmparity.transport.exchange import Exchange

EXPECTED: dict[str, dict[str, Any]] = {
    file.stem: tomllib.loads(file.read_text("utf-8"))
    for file in sorted(Path(__file__).with_name("recorded").glob("*.toml"))
}
"""By folder of ``fixtures/wire``: ``kind``, ``route``; ``answers``, ``errors`` and ``hangups`` by recording."""


def listed(part: str) -> list[tuple[str, str]]:
    return [(folder, name) for folder, content in EXPECTED.items() for name in content.get(part, {})]


@pytest.fixture(scope="module")
def replays(wire: Path) -> Iterator[dict[str, Replay]]:
    with contextlib.ExitStack() as stack:
        yield {folder: stack.enter_context(Replay(wire / folder)) for folder in EXPECTED}


@pytest.fixture
def adapter_of(replays: dict[str, Replay], attach: Callable[..., Adapter]) -> Callable[..., Adapter]:
    """Makes the adapter that is to read a recording: the folder's, on the route the recording's table names."""

    def make_one(folder: str, expected: dict[str, Any]) -> Adapter:
        kind, route = EXPECTED[folder]["kind"], expected.get("route", "openai")
        return attach(replays[folder].base_url, kind, model="tiny", route=route)

    return make_one


def fetch(replay: Replay, name: str) -> Exchange:
    async def exchange() -> Exchange:
        async with Client(f"{replay.base_url}/@{name}") as client:
            return await client.send("POST", "/v1/chat/completions", b"{}")

    return asyncio.run(exchange())


def text_and_calls(completion: Completion) -> str:
    calls = "".join(f"{call.name}({call.arguments})" for call in completion.tool_calls)
    return completion.text + calls


@pytest.mark.parametrize("folder", [folder for folder, content in EXPECTED.items() if content.get("answers")])
def test_recorded_answers(folder: str, replays: dict[str, Replay], adapter_of: Callable[..., Adapter]) -> None:
    wanted, read = {}, {}

    for name, expected in EXPECTED[folder]["answers"].items():
        adapter, exchange = adapter_of(folder, expected), fetch(replays[folder], name)
        completion = adapter.read(exchange, case=name)
        wanted[name] = {
            "said": expected["said"],
            "finish": expected["finish"],
            "prompt_tokens": expected.get("prompt_tokens"),
            "completion_tokens": expected.get("completion_tokens"),
            "counted": expected.get("counted"),
            "choices": expected.get("choices", []),
            "logprobs": expected.get("logprobs", 0),
            "events": expected.get("events", 0),
            "reasoning": expected.get("reasoning", ""),
            "normalised": tuple(expected.get("normalised", ())),
            "fingerprint": expected.get("fingerprint", ""),
            "cached_tokens": expected.get("cached_tokens"),
            "not told by the server": set(),
        }
        read[name] = {
            "said": text_and_calls(completion),
            "finish": completion.finish_reason,
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "counted": completion.counted,
            "choices": [text_and_calls(choice) for choice in completion.choices],
            "logprobs": len(completion.logprobs),
            "events": len(adapter.read(exchange, case=name).token_ends),
            "reasoning": completion.reasoning,
            "normalised": completion.normalised,
            "fingerprint": completion.fingerprint,
            "cached_tokens": completion.cached_tokens,
            "not told by the server": set(expected.get("server", ())) - completion.server.keys(),
        }

    assert read == wanted


@pytest.mark.parametrize("folder", [folder for folder, content in EXPECTED.items() if content.get("errors")])
def test_recorded_refusals(folder: str, replays: dict[str, Replay], adapter_of: Callable[..., Adapter]) -> None:
    for name, expected in EXPECTED[folder]["errors"].items():
        error = getattr(errors, expected["error"])
        adapter = adapter_of(folder, expected)

        with pytest.raises(error) as caught:
            adapter.read(fetch(replays[folder], name), case=name)

        assert type(caught.value) is error, name
        assert expected["words"] in str(caught.value), name
        assert (caught.value.engine, caught.value.case) == ("cand", name)


@pytest.mark.parametrize(("folder", "name"), listed("hangups"))
def test_recorded_hangup_ends_the_exchange(folder: str, name: str, replays: dict[str, Replay]) -> None:
    expected = EXPECTED[folder]["hangups"][name]

    with pytest.raises(getattr(errors, expected["error"])) as caught:
        fetch(replays[folder], name)

    assert expected["words"] in str(caught.value)


@pytest.mark.parametrize("folder", EXPECTED)
def test_no_recording_is_left_out(folder: str, wire: Path) -> None:
    names = {file.stem for file in (wire / folder).glob("*.json")}
    control = set(EXPECTED[folder].get("control", ()))  # read by tests of identity, not as answers
    parts = [EXPECTED[folder].get(part, {}).keys() for part in ("answers", "errors", "hangups")]

    assert names == control.union(*parts)


def test_every_folder_of_recordings_is_read(wire: Path) -> None:
    assert {folder.name for folder in wire.iterdir() if folder.is_dir()} == set(EXPECTED)


def test_logprobs_of_both_engines_name_the_same_tokens(
    replays: dict[str, Replay], attach: Callable[..., Adapter]
) -> None:
    logprobs = {
        kind: attach(replay.base_url, kind, model="tiny").read(fetch(replay, "v1_chat_logprobs"), case="c").logprobs
        for kind, replay in replays.items()
        if kind in ("llamacpp", "vllm")
    }

    ends = {kind: tokens[-1].token for kind, tokens in logprobs.items()}
    assert ends == {"llamacpp": b"", "vllm": b"<|im_end|>"}  # llama.cpp reports the end token without its text
    assert [token.token for token in logprobs["llamacpp"][:-1]] == [token.token for token in logprobs["vllm"][:-1]]
    assert all(len(token.top) == 5 for tokens in logprobs.values() for token in tokens)
    assert [token.id for token in logprobs["llamacpp"][:2]] == [437, 395]
    for mine, theirs in zip(logprobs["llamacpp"], logprobs["vllm"], strict=True):
        assert mine.logprob == pytest.approx(theirs.logprob, abs=0.01)  # BF16 against F16 arithmetic


def test_identity_of_recorded_llamacpp(replays: dict[str, Replay], attach: Callable[..., Adapter]) -> None:
    facts = attach(replays["llamacpp"].base_url, "llamacpp", model="tiny-F16.gguf").identity().facts

    assert {
        name: fact.value for name, fact in facts.items() if name not in ("template_sha256", "sampling_defaults")
    } == {
        "kind": "llamacpp",
        "model": "tiny-F16.gguf",
        "quantization": "F16",
        "build": "b0-unknown",
        "context_length": 1024,
        "slots": 1,
        "format": "gguf",
        "speculative": "off",
    }
    assert {fact.source for name, fact in facts.items() if name != "kind"} == {"reported"}


def test_identity_of_recorded_vllm(replays: dict[str, Replay], attach: Callable[..., Adapter]) -> None:
    facts = attach(replays["vllm"].base_url, "vllm", model="tiny", revision="abc").identity().facts

    assert {name: (fact.value, fact.source) for name, fact in facts.items()} == {
        "kind": ("vllm", "declared"),
        "revision": ("abc", "declared"),
        "model": ("tiny", "reported"),
        "version": ("0.32.0", "reported"),
        "context_length": (1024, "reported"),
        "adapters": ("none", "reported"),
    }
