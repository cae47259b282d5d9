"""vLLM's own routes: sleep mode, asked for at level 1 and believed only where it frees something, and tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from pytest_llmparity.core.errors import LaunchError
from pytest_llmparity.core.sample import Request
from pytest_llmparity.engines.kinds.vllm import VllmAdapter
from pytest_llmparity.settings.specification import EngineSpec
from tests.doubles.posing import PosingEngine
from tests.doubles.sleeping import Vllm


@pytest.fixture
def vllm() -> Iterator[Callable[..., tuple[Vllm, VllmAdapter]]]:
    with ExitStack() as stack:

        def start(*args: object, **kwargs: Any) -> tuple[Vllm, VllmAdapter]:
            server = stack.enter_context(Vllm(*args, **kwargs))
            spec = EngineSpec(name="big", kind="vllm", model="loopback", base_url=server.base_url)
            return server, VllmAdapter(spec, server.base_url, {})

        yield start


Start = Callable[..., tuple[Vllm, VllmAdapter]]


class Tokenising(PosingEngine):
    """A vLLM whose tokens are characters; ``bos`` is put before raw prompts and stands in its chat template."""

    def __init__(self, bos: str = "", *, lossy: bool = False) -> None:
        super().__init__("Paris.", poses_as="vllm")
        self._bos = bos
        self._lossy = lossy

    def asked(self, path: str, body: Mapping[str, Any]) -> object | None:
        if path == "/tokenize":
            chat = "".join(f"<{m['role']}> {m['content']}" for m in body.get("messages", ()))
            return {"tokens": [ord(c) for c in self._bos + (chat or body["prompt"])]}
        if path == "/detokenize":
            text = "".join(map(chr, body["tokens"]))
            return {"prompt": text.replace(" ", "") if self._lossy else text}
        return None


@pytest.mark.parametrize(
    ("engine", "rendered"),
    [(Tokenising(), "<user> Hi"), (Tokenising("\u0001"), "<user> Hi"), (Tokenising(lossy=True), None)],
    ids=["as it is", "without the BOS token that raw prompts get", "not where the text has other tokens"],
)
def test_a_chat_is_told_as_the_text_that_has_its_tokens(engine: Tokenising, rendered: str | None) -> None:
    with engine:
        spec = EngineSpec(name="big", kind="vllm", model="loopback", base_url=engine.base_url)
        adapter = VllmAdapter(spec, engine.base_url, {})
        before = engine.count

        assert adapter.rendered(Request(case="c", messages=({"role": "user", "content": "Hi"},))) == rendered

    assert engine.count == before, "nothing is generated"


def test_a_vllm_without_these_routes_does_not_tell(vllm: Start) -> None:
    _, adapter = vllm()

    assert adapter.rendered(Request(case="c", messages=({"role": "user", "content": "Hi"},))) is None


def test_it_sleeps_at_the_level_it_wakes_up_whole_from(vllm: Start) -> None:
    server, adapter = vllm()

    adapter.unload()
    adapter.unload()
    adapter.load()
    adapter.load()

    assert server.told == ["/sleep?level=1&mode=wait", "/wake_up"]
    assert server.asleep is False


@pytest.mark.parametrize(
    ("start", "why"),
    [
        ({"dev": False}, "it has no /sleep"),
        ({"asleep": "perhaps"}, "it has no /sleep"),
        ({"config": {"device_config": {"device": "cpu"}}}, "on the CPU /sleep frees nothing"),
        ({"config": {"device_config": {"device_type": "cpu"}}}, "on the CPU /sleep frees nothing"),
        (
            {"config": {"model_config": {"enable_sleep_mode": False}}},
            "without --enable-sleep-mode /sleep frees nothing",
        ),
    ],
    ids=["no development mode", "says no truth value", "CPU", "CPU in other words", "not enabled"],
)
def test_where_sleeping_frees_nothing_it_is_told_how_to_start_vllm(
    vllm: Start, start: dict[str, object], why: str
) -> None:
    server, adapter = vllm(**start)

    with pytest.raises(LaunchError) as caught:
        adapter.unload()

    assert caught.value.engine == "big"
    assert f"big: this vLLM cannot give its memory back: {why}. On a GPU, start it with --enable-sleep-mode" in str(
        caught.value
    )
    assert server.told == []


@pytest.mark.parametrize("config", ["VllmConfig(model=…)", {}, {"device_config": None}, None])
def test_a_server_that_does_not_tell_its_configuration_is_put_to_sleep(vllm: Start, config: object) -> None:
    server, adapter = vllm(config)

    adapter.unload()

    assert server.asleep is True


def test_a_server_that_cannot_be_put_to_sleep_or_woken_is_told_with_its_reason(vllm: Start) -> None:
    server, adapter = vllm()
    server.status = 500

    with pytest.raises(LaunchError, match=r"big cannot be put to sleep: POST /sleep.* says 500 \(CUDA out of memory\)"):
        adapter.unload()
    server.asleep = True
    with pytest.raises(LaunchError, match=r"big cannot be woken: POST /wake_up says 500 \(CUDA out of memory\)"):
        adapter.load()


def test_a_server_that_only_says_yes_is_not_believed(vllm: Start) -> None:
    server, adapter = vllm(stuck=True)

    with pytest.raises(LaunchError, match="vLLM answered /sleep and does not sleep"):
        adapter.unload()
    server.asleep = True
    with pytest.raises(LaunchError, match="vLLM answered /wake_up and still sleeps"):
        adapter.load()


@pytest.mark.parametrize(("before", "left"), [(False, False), (True, True)])
def test_it_is_left_as_it_was_found(vllm: Start, before: bool, left: bool) -> None:
    server, adapter = vllm(asleep=before)

    adapter.restore()
    adapter.load()
    adapter.unload()
    adapter.restore()

    assert server.asleep is left


def test_a_server_without_sleep_mode_is_awake(vllm: Start) -> None:
    server, adapter = vllm(dev=False)

    adapter.load()
    adapter.restore()

    assert server.told == []
