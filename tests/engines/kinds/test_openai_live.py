"""Kind ``openai`` against a real server: whatever answers with OpenAI's API, attached to without knowing what it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import Fact, Request
from pytest_llmparity.engines.registry import make
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.transport.exchange import Exchange

if TYPE_CHECKING:
    from tests.engines.live import Served

pytestmark = [pytest.mark.live, pytest.mark.parametrize("served", ["llamacpp"], indirect=True)]

CAPITAL = ({"role": "user", "content": "What is the capital of France?"},)
RENDERED = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
def generic(served: Served) -> Adapter:
    url = served.adapter.base_url
    adapter = make(EngineSpec(name="any", kind="openai", base_url=url), url, environ=os.environ)
    assert adapter.ready() is None
    adapter.warm_up()
    return adapter


@pytest.mark.parametrize("stream", [True, False])
def test_chat_is_answered(stream: bool, generic: Adapter, send: Callable[..., Exchange]) -> None:
    request = Request(case="c", messages=CAPITAL)

    completion = generic.read(send(generic, request, stream=stream), case="c")

    assert (completion.text, completion.finish_reason) == ("The capital of France is Paris.", "stop")
    assert (completion.prompt_tokens, completion.completion_tokens) == (20, 12)
    assert generic.build(request).omitted == ("top_k", "min_p", "repetition_penalty")


def test_raw_prompt_is_the_rendered_chat(generic: Adapter, send: Callable[..., Exchange]) -> None:
    completion = generic.read(send(generic, Request(case="c", prompt=RENDERED)), case="c")

    assert (completion.text, completion.prompt_tokens) == ("The capital of France is Paris.", 20)


def test_prompt_too_long_is_refused(generic: Adapter, send: Callable[..., Exchange]) -> None:
    request = Request(case="c", messages=({"role": "user", "content": "The hotel was clean and quiet. " * 400},))

    with pytest.raises(errors.ContextOverflow):
        generic.read(send(generic, request), case="c")


def test_identity_says_what_the_server_looks_like(generic: Adapter) -> None:
    facts = generic.identity().facts

    assert facts["recognised"] == Fact(value="llamacpp", source="reported", raw="kind llamacpp would fit it")
    assert facts["model"].value == "tiny-F16.gguf"
