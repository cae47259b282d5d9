"""Real engines that serve the tiny model, one at a time: how each is started here and what it can do.

A plugin of the tests: whoever asks for ``served`` shares one start of an engine with all others that do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.engines.registry import adapter_for, make
from pytest_llmparity.engines.start.readiness import free_port, wait_ready
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.settings.specification import EngineSpec, Route
from tests.real_ollama import program
from tests.unavailable import unavailable

MODELS = Path(__file__).parents[2] / "fixtures/models/tiny"
PYTHONS: Mapping[str, str] = {
    "litellm": "LLMPARITY_LITELLM_PYTHON",
    "llamacpp-python": "LLMPARITY_LLAMACPP_PYTHON_PYTHON",
    "mlx": "LLMPARITY_MLX_PYTHON",
    "transformers": "LLMPARITY_TRANSFORMERS_PYTHON",
    "vllm": "LLMPARITY_VLLM_PYTHON",
}
"""The variables that name interpreters with an engine in them."""
WAYS = ("llamacpp", *sorted(PYTHONS), "ollama", "ollama-native")
"""The kinds that are started here, with the route behind it where it is not the first one of its kind."""
FORKING = Path(__file__).parent / "forking"
"""A folder that makes engine cores of vLLM on the CPU forks of their servers where ``PYTHONPATH`` has it."""
FORKS: Mapping[str, str] = {"PYTHONPATH": str(FORKING)}
"""The environment of such a vLLM: it imports nothing anew. ``tests/live/test_vllm_gate`` starts that of users."""

PROXY = """
model_list:
  - model_name: tiny
    litellm_params: {{model: openai/tiny-F16.gguf, api_base: "{upstream}/v1", api_key: none}}
  - model_name: broken
    litellm_params: {{model: openai/tiny-F16.gguf, api_base: "http://127.0.0.1:{nobody}/v1", api_key: none}}
litellm_settings:
  fallbacks: [{{"broken": ["tiny"]}}]
  cache: true
  cache_params: {{type: local}}
"""
"""A proxy that would answer from its cache and fall back to another model if it were let."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A running engine. ``can`` is what its kind declares, and what is known of this one where the kind says nothing.

    ``uncounted`` is how many tokens of a finished answer it leaves out of its count.
    """

    adapter: Adapter
    can: Capabilities
    uncounted: int = 0


def python_of(kind: str) -> str:
    """Return the interpreter that has an engine, or end the test as :func:`unavailable` says."""
    variable = PYTHONS[kind]
    return os.environ.get(variable, "") or unavailable(kind, f"{variable} does not name an interpreter that has {kind}")


@contextlib.contextmanager
def running(spec: EngineSpec, workdir: Path) -> Iterator[Adapter]:
    """Start an engine as its adapter says, wait until it is ready, stop its whole session at the end."""
    port = free_port()
    assert spec.kind is not None
    launch = adapter_for(spec.kind).launch(spec, port, workdir)
    env = {k: v for k, v in os.environ.items() if not any(fnmatch(k, pattern) for pattern in launch.scrub)}
    log = workdir / f"{spec.name}.log"
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
        adapter.load()
        adapter.warm_up()
        yield adapter
    finally:
        process.send_signal(launch.stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(launch.grace_s)
        with contextlib.suppress(ProcessLookupError):  # nothing of the session may be left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def gguf(kind: str, name: str, file: str, **fields: object) -> EngineSpec:
    """Return the spec of a process that serves one GGUF file of the tiny model."""
    path = MODELS / file
    return EngineSpec(name=name, kind=kind, launch="process", model=str(path), model_path=path, **fields)  # type: ignore[arg-type]


def folder(kind: str, **fields: object) -> EngineSpec:
    """Return the spec of a process that serves the folder of the tiny model, run by the interpreter that has it."""
    python = python_of(kind)
    return EngineSpec(
        name="hf",
        kind=kind,
        launch="process",
        model="tiny",
        model_path=MODELS,
        python=python,
        **fields,  # type: ignore[arg-type]
    )


def half(kind: str, workdir: Path, **fields: object) -> EngineSpec:
    """Return the spec of a process that is given half a GGUF file."""
    file = workdir / "half.gguf"
    whole = (MODELS / "tiny-Q4_0.gguf").read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    spec = gguf(kind, "half", file.name, context_length=128, **fields)
    return dataclasses.replace(spec, model=str(file), model_path=file)


def start(spec: EngineSpec, workdir: Path) -> None:
    """Start an engine that is expected not to start, and stop it."""
    with running(spec, workdir):
        pass


@contextlib.contextmanager
def llamacpp(workdir: Path) -> Iterator[Served]:
    if shutil.which("llama-server") is None and importlib.util.find_spec("xllamacpp") is None:
        unavailable("llamacpp", "there is neither llama-server nor xllamacpp")
    spec = gguf("llamacpp", "f16", "tiny-F16.gguf", context_length=512, slots=2, args=("--threads", "1"))
    with running(spec, workdir) as adapter:
        yield Served(adapter=adapter, can=adapter.declares)


@contextlib.contextmanager
def llamacpp_python(workdir: Path) -> Iterator[Served]:
    threads = ("--n_threads", "1", "--n_threads_batch", "1")
    python = python_of("llamacpp-python")
    spec = gguf("llamacpp-python", "lib", "tiny-F16.gguf", context_length=512, python=python, args=threads)
    with running(spec, workdir) as adapter:
        can = adapter.declares.corrected({"tools": False})  # the default chat format leaves calls in the text
        yield Served(adapter=adapter, can=can, uncounted=1)


@contextlib.contextmanager
def vllm(workdir: Path) -> Iterator[Served]:
    args = (
        *("--dtype", "bfloat16", "--enforce-eager", "--num-gpu-blocks-override", "128"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    )
    # Of a start nearly all is importing vLLM, once per process that is no fork. Here the worker is in the engine core,
    # which then takes every core if it is let. Nor is anything compiled for the few tokens that are asked for.
    env = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1", **FORKS}
    with running(folder("vllm", context_length=1024, slots=8, args=args, env=env), workdir) as adapter:
        yield Served(adapter=adapter, can=adapter.declares.corrected({"tools": True}))


@contextlib.contextmanager
def mlx(workdir: Path) -> Iterator[Served]:
    with running(folder("mlx"), workdir) as adapter:
        # mlx-lm does not see by the tiny model's template that it calls tools.
        yield Served(adapter=adapter, can=adapter.declares.corrected({"tools": False}))


@contextlib.contextmanager
def transformers(workdir: Path) -> Iterator[Served]:
    spec = folder("transformers", args=("--dtype", "float32"), env={"OMP_NUM_THREADS": "1"})
    with running(spec, workdir) as adapter:
        # It knows how Qwen and Gemma call tools, not how the tiny model does.
        yield Served(adapter=adapter, can=adapter.declares.corrected({"tools": False, "seed": True}))


@contextlib.contextmanager
def litellm(workdir: Path) -> Iterator[Served]:
    """Serve the proxy in front of a llama.cpp."""
    python = python_of("litellm")
    upstream = gguf("llamacpp", "behind", "tiny-F16.gguf", context_length=512, slots=1, args=("--threads", "1"))
    with running(upstream, workdir) as behind:
        (workdir / "proxy.yaml").write_text(PROXY.format(upstream=behind.base_url, nobody=free_port()))
        config = str(workdir / "proxy.yaml")
        spec = EngineSpec(
            name="proxy", kind="litellm", launch="process", model="tiny", python=python, args=("--config", config)
        )
        with running(spec, workdir) as adapter:
            can = {"logprobs": True, "json_schema": True, "tools": True, "raw_prompt": True, "overflow": "refused"}
            yield Served(adapter=adapter, can=adapter.declares.corrected(can))


@contextlib.contextmanager
def ollama(workdir: Path, route: Route = "openai") -> Iterator[Served]:
    spec = gguf(
        *("ollama", "f16", "tiny-F16.gguf"),
        context_length=512,
        slots=2,
        route=route,
        command=(program(),),
        env={"LLAMA_ARG_THREADS": "1"},  # more of them wait for each other on a small machine
    )
    with running(spec, workdir) as adapter:
        yield Served(adapter=adapter, can=adapter.capabilities())


STARTS: Mapping[str, Callable[..., contextlib.AbstractContextManager[Served]]] = {
    "litellm": litellm,
    "llamacpp": llamacpp,
    "llamacpp-python": llamacpp_python,
    "mlx": mlx,
    "ollama": ollama,
    "transformers": transformers,
    "vllm": vllm,
}


@pytest.fixture(scope="session", params=WAYS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real engine of each kind in turn, over each of its routes: pytest ends one before it starts the next."""
    kind = request.param.removesuffix("-native")
    route = {} if kind == request.param else {"route": "native"}
    with STARTS[kind](tmp_path_factory.mktemp(request.param), **route) as running:
        yield running
