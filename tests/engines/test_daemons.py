from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.errors import EngineSelectionError
from pytest_llmparity.engines import daemons
from pytest_llmparity.settings.specification import EngineSpec
from tests.doubles.posing import PosingEngine

NAMED = EngineSpec(name="a", kind="ollama", model="qwen3:8b", launch="process", daemon=True)
STUDIO = EngineSpec(name="b", kind="lmstudio", model="gemma", launch="attach", daemon=True)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("gpu-1", "http://gpu-1:11434"),
        ("gpu-1:80", "http://gpu-1:80"),
        ("http://gpu-1", "http://gpu-1:80"),
        ("https://gpu-1", "https://gpu-1:443"),
        ("https://gpu-1:8443/ollama/", "https://gpu-1:8443/ollama"),
        (":11500", "http://127.0.0.1:11500"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:11500", "http://127.0.0.1:11500"),
        ("http://0.0.0.0:11500", "http://127.0.0.1:11500"),
        ("::", "http://[::1]:11434"),
        ("[::]:11500", "http://[::1]:11500"),
        ("::1", "http://[::1]:11434"),
        ("[fe80::2]:11500", "http://[fe80::2]:11500"),
        ("gpu-1:99999", "http://gpu-1:11434"),
        (' "127.0.0.1:11500" ', "http://127.0.0.1:11500"),
    ],
)
def test_every_spelling_of_the_address_of_an_ollama(host: str, url: str) -> None:
    assert daemons.ollama_address(host) == url


@given(st.text(max_size=30) | st.text("[]:./0a@h", max_size=12))
def test_any_text_is_an_address_or_a_selection_error(host: str) -> None:
    try:
        url = daemons.ollama_address(host)
    except EngineSelectionError as error:
        message = str(error)
    else:
        assert urlsplit(url).hostname
        return
    assert "OLLAMA_HOST" in message


@pytest.mark.parametrize(
    ("asked", "listed", "there"),
    [
        ("qwen3:8b", "qwen3:8b", True),
        ("qwen3", "qwen3:latest", True),
        ("Qwen3:8B", "qwen3:8b", True),
        ("library/qwen3:8b", "qwen3:8b", True),
        ("hf.co/org/m-GGUF", "hf.co/org/m-GGUF:latest", True),
        ("qwen3", "qwen3:8b", False),
        ("qwen3:8b", "other/qwen3:8b", False),
    ],
)
def test_what_counts_as_the_same_model_of_an_ollama(asked: str, listed: str, there: bool) -> None:
    assert daemons.has(daemons.Running(kind="ollama", base_url="", models=(listed,)), asked) is there


def test_a_daemon_that_has_the_model_is_attached_to_and_held_to_the_context() -> None:
    with PosingEngine("ok", poses_as="ollama", model="qwen3:8b") as daemon:
        asked = dataclasses.replace(NAMED, context_length=4096)
        (spec,) = daemons.settle([asked], {"OLLAMA_HOST": daemon.base_url})

        assert (spec.launch, spec.base_url, spec.daemon) == ("attach", daemon.base_url, True)
        assert spec.pin == {"context_length": 4096}


def test_what_another_process_found_is_not_looked_for_again() -> None:
    with PosingEngine("ok", poses_as="ollama", model="qwen3:8b") as daemon:
        (there, other) = daemons.settle(
            [NAMED, dataclasses.replace(NAMED, name="c")], {}, decided={"a": daemon.base_url}
        )
        assert not daemon.requests

        assert (there.launch, other.launch) == ("attach", "process")
        assert daemons.from_text(daemons.to_text([there, other])) == {"a": daemon.base_url}


def test_what_cannot_be_started_says_of_each_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with PosingEngine("ok", poses_as="lmstudio", model="chat") as studio:
        monkeypatch.setattr(daemons, "LMSTUDIO", studio.base_url)
        with pytest.raises(EngineSelectionError) as caught:
            daemons.settle([STUDIO, dataclasses.replace(STUDIO, name="c", model="phi")], {})

        first, second = str(caught.value).splitlines()
        assert f"b (lmstudio:gemma): the lmstudio at {studio.base_url} has no such model; it has chat. Fetch" in first
        assert "lms get phi" in second


def test_our_own_ollama_names_the_one_that_has_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    with PosingEngine("ok", poses_as="ollama", model="qwen3:8b") as daemon:
        assert daemons.holder("ollama", "qwen3:8b", {"OLLAMA_HOST": daemon.base_url}) == daemon.base_url
        assert daemons.holder("ollama", "nobody", {"OLLAMA_HOST": daemon.base_url}) == ""


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        yield int(listener.getsockname()[1])


def test_what_is_running_is_offered_within_a_total(silent: int) -> None:
    with (
        PosingEngine("ok", poses_as="ollama", model="qwen3:8b") as ollama,
        PosingEngine("ok", poses_as="vllm", model="org/m") as vllm,
    ):
        began = time.monotonic()
        ports = (int(vllm.base_url.rpartition(":")[2]), silent)
        text = daemons.offer(["ollama", "vllm", "tgi"], {"OLLAMA_HOST": ollama.base_url}, ports=ports, total_s=1.0)

        assert time.monotonic() - began < 5
        assert f"vllm at {vllm.base_url}: org/m" in text
        assert f"--engines ollama:qwen3:8b,vllm:org/m@{vllm.base_url}" in text
        assert "Not found with a model: tgi." in text


def test_nothing_running_says_where_it_was_looked() -> None:
    text = daemons.offer(["ollama"], {"OLLAMA_HOST": "127.0.0.1:9"}, ports=(9,), total_s=1.0)

    assert text == "Nothing was found running here (asked: 127.0.0.1:9)."
