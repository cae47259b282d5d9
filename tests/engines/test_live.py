"""The adapters against real engines that serve the tiny model: llama.cpp (xllamacpp) and, where there is one, vLLM."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import Completion, Request, Sampling
from pytest_llmparity.core.settings import EngineSpec
from pytest_llmparity.engines.base import Adapter
from pytest_llmparity.engines.readiness import free_port, wait_ready
from pytest_llmparity.engines.registry import adapter_for, make
from pytest_llmparity.transport.exchange import Exchange

Send = Callable[..., Exchange]

pytestmark = pytest.mark.live

CAPITAL = ({"role": "user", "content": "What is the capital of France?"},)
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
    "required": ["name", "age", "city"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
TOOLS = (
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    },
)


def unavailable(engine: str, why: str) -> None:
    """Skip, or fail where the run says that this engine has to be there."""
    if engine in os.environ.get("LLMPARITY_REQUIRE_LIVE", "").split(","):
        pytest.fail(f"{engine} is required by LLMPARITY_REQUIRE_LIVE, but {why}")
    pytest.skip(why)


@contextlib.contextmanager
def running(spec: EngineSpec, workdir: Path) -> Iterator[Adapter]:
    """Start an engine as its adapter says, wait until it is ready, stop its whole session at the end."""
    port = free_port()
    assert spec.kind is not None
    launch = adapter_for(spec.kind).launch(spec, port, workdir)
    env = {k: v for k, v in os.environ.items() if not any(fnmatch(k, pattern) for pattern in launch.scrub)}
    log = workdir / "engine.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            launch.argv,
            cwd=launch.cwd,
            env=env | dict(launch.env),
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def alive() -> str | None:
        if process.poll() is None:
            return None
        return f"exit status {process.returncode}: {log.read_text('utf-8', 'replace')[-2000:]}"

    try:
        adapter = make(spec, f"http://127.0.0.1:{port}", environ=os.environ)
        wait_ready(adapter, alive, launch.deadline_s)
        adapter.warm_up()
        yield adapter
    finally:
        process.send_signal(launch.stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(launch.grace_s)
        with contextlib.suppress(ProcessLookupError):  # nothing of the session may be left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def llamacpp(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapter]:
    if shutil.which("llama-server") is None and importlib.util.find_spec("xllamacpp") is None:
        unavailable("llamacpp", "there is neither llama-server nor xllamacpp")
    file = models / "tiny-F16.gguf"
    spec = EngineSpec(
        name="f16", kind="llamacpp", launch="process", model=str(file), model_path=file, context_length=512, slots=2
    )
    with running(spec, tmp_path_factory.mktemp("llamacpp")) as adapter:
        yield adapter


@pytest.fixture(scope="module")
def vllm(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapter]:
    python = os.environ.get("LLMPARITY_VLLM_PYTHON", "")
    if not python:
        unavailable("vllm", "LLMPARITY_VLLM_PYTHON does not name an interpreter that has vLLM")
    spec = EngineSpec(
        name="bf16",
        kind="vllm",
        launch="process",
        model="tiny",
        model_path=models,
        python=python,
        context_length=1024,
        args=("--dtype", "bfloat16", "--enforce-eager", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    )
    with running(spec, tmp_path_factory.mktemp("vllm")) as adapter:
        yield adapter


@pytest.fixture(params=["llamacpp", "vllm"])
def served(request: pytest.FixtureRequest) -> Adapter:
    adapter = request.getfixturevalue(request.param)
    assert isinstance(adapter, Adapter)
    return adapter


@pytest.fixture
def ask(served: Adapter, send: Send) -> Callable[..., Completion]:
    def ask_one(stream: bool = True, **fields: object) -> Completion:
        request = Request(case="c", **fields)  # type: ignore[arg-type]
        return served.parse(send(served, request, stream=stream), case="c")

    return ask_one


@pytest.mark.parametrize("stream", [True, False])
def test_chat_with_logprobs(stream: bool, ask: Callable[..., Completion]) -> None:
    found = ask(stream, messages=CAPITAL, top_logprobs=3)

    assert (found.text, found.finish_reason) == ("The capital of France is Paris.", "stop")
    assert (found.prompt_tokens, found.completion_tokens) == (20, 12)
    assert found.logprobs[0].token == b"The"
    assert len(found.logprobs[0].top) == 3
    assert b"".join(token.token for token in found.logprobs).startswith(found.text.encode())


def test_chosen_token_alone(ask: Callable[..., Completion]) -> None:
    assert ask(messages=CAPITAL, top_logprobs=0).logprobs[0].logprob == pytest.approx(0, abs=0.01)


def test_raw_prompt_is_the_rendered_chat(ask: Callable[..., Completion]) -> None:
    raw = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"

    found = ask(prompt=raw, top_logprobs=2)

    assert (found.text, found.prompt_tokens) == ("The capital of France is Paris.", 20)
    assert len(found.logprobs[0].top) == 2


def test_schema_is_forced(ask: Callable[..., Completion]) -> None:
    question = "Extract name, age, city as JSON: Maria Lopez, 34, a nurse from Lisbon."

    found = ask(messages=({"role": "user", "content": question},), response_format=FORMAT)

    assert found.text == '{"name": "Maria Lopez", "age": 34, "city": "Lisbon"}'


@pytest.mark.parametrize("top", [None, 1])
def test_tool_is_called(top: int | None, ask: Callable[..., Completion]) -> None:
    question = ({"role": "user", "content": "What is the weather in Lisbon?"},)

    found = ask(messages=question, tools=TOOLS, top_logprobs=top)

    assert [(call.name, call.arguments) for call in found.tool_calls] == [("get_weather", '{"city": "Lisbon"}')]


def test_every_sampling_parameter_is_taken(ask: Callable[..., Completion]) -> None:
    sampling = Sampling(
        temperature=0.7,
        top_k=3,
        top_p=0.9,
        min_p=0.05,
        repetition_penalty=1.05,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        stop=(" of",),
    )

    assert ask(messages=CAPITAL, sampling=sampling).text == "The capital"


def test_length_is_said(ask: Callable[..., Completion]) -> None:
    found = ask(messages=CAPITAL, sampling=Sampling(max_tokens=3))

    assert (found.text, found.finish_reason, found.completion_tokens) == ("The capital of", "length", 3)


def test_prompt_too_long_is_refused(ask: Callable[..., Completion]) -> None:
    with pytest.raises(errors.ContextOverflow):
        ask(messages=({"role": "user", "content": "The hotel was clean and quiet. " * 400},))


def test_identity(served: Adapter) -> None:
    identity = served.identity()

    expected = {"llamacpp": ("tiny-F16.gguf", "F16", 512), "vllm": ("tiny", "BF16", 1024)}[served.kind]
    assert tuple(identity.get(name) for name in ("model", "quantization", "context_length")) == expected
    assert identity.facts["context_length"].source == "reported"
    assert str(identity.get("digest")).startswith("sha256:")
    assert identity.get("version")
    assert identity.get("template_sha256")


def test_llamacpp_slots_are_reported(llamacpp: Adapter) -> None:
    assert llamacpp.identity().get("slots") == 2


def test_model_that_is_broken_ends_the_start_with_the_log(tmp_path: Path, models: Path) -> None:
    file = tmp_path / "half.gguf"
    whole = (models / "tiny-Q4_0.gguf").read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    spec = EngineSpec(
        name="half", kind="llamacpp", launch="process", model=str(file), model_path=file, context_length=128
    )

    with pytest.raises(errors.LaunchError, match="half did not start: exit status 1"), running(spec, tmp_path):
        pass
