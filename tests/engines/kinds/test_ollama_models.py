"""How the adapter of Ollama gets a model in, loads it, lets it go and starts a daemon, held against a double."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import Completion, Request
from pytest_llmparity.engines.facts import files
from pytest_llmparity.engines.kinds.ollama import KEEP_ALIVE, OllamaAdapter, about
from pytest_llmparity.engines.kinds.ollama import models as ollama_models
from pytest_llmparity.engines.registry import make
from pytest_llmparity.engines.start.readiness import free_port, wait_ready
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.control import Control
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.testing import Replay
from pytest_llmparity.testing.server import Call
from pytest_llmparity.transport.exchange import Exchange
from tests.doubles.ollama_daemon import GO, Model, OllamaDaemon, as_started

Attach = Callable[..., Adapter]
Send = Callable[..., Exchange]

REPO = Path(__file__).parents[3]
CHAT = ({"role": "user", "content": "Hi"},)


def values(adapter: Adapter) -> dict[str, object]:
    return {name: fact.value for name, fact in adapter.identity().facts.items()}


# ---- the model -----------------------------------------------------------------------------------------------------


def test_daemon_is_ready_when_it_says_its_version(daemon: OllamaDaemon, ask: Attach) -> None:
    assert ask().ready() is None
    daemon.refuse["/api/version"] = (503, b"")
    assert ask().ready() == "GET /api/version says 503"


def test_only_model_of_a_daemon_needs_no_name(daemon: OllamaDaemon, attach: Attach) -> None:
    adapter = attach(daemon.base_url, "ollama", model=None)

    adapter.load()

    assert adapter.model == "tiny:latest"
    assert adapter.openai_base_url == daemon.base_url + "/v1"


def test_missing_model_is_an_error_with_the_command_that_fetches_it(ask: Attach) -> None:
    for act in (ask(model="qwen3:8b").load, ask(model="qwen3:8b").warm_up):
        with pytest.raises(errors.ModelMissing, match=r"qwen3:8b.*ollama pull qwen3:8b") as caught:
            act()

        assert caught.value.status == 404


def test_missing_model_is_pulled_only_when_downloads_are_allowed(daemon: OllamaDaemon, ask: Attach) -> None:
    daemon.registry = {"qwen3"}
    adapter = ask(model="qwen3", download=True)

    adapter.load()
    adapter.load()

    assert daemon.asked("/api/pull") == [{"model": "qwen3", "stream": False}]
    assert values(adapter)["model"] == "qwen3:latest"


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (None, "could not pull 'nope' (200): pull model manifest: file does not exist"),
        ((500, b'{"error":"disk full"}'), "(500): disk full"),
        ((200, b'{"status":"pulling"}'), '(200): {"status":"pulling"}'),
        ((200, b"<html>"), "an HTML page"),
    ],
)
def test_failed_pull_says_why(refused: tuple[int, bytes] | None, words: str, daemon: OllamaDaemon, ask: Attach) -> None:
    daemon.refuse |= {} if refused is None else {"/api/pull": refused}

    with pytest.raises(errors.LaunchError) as caught:
        ask(model="nope", download=True).load()

    assert words in str(caught.value)


def test_model_is_made_from_a_file_once(daemon: OllamaDaemon, models: Path) -> None:
    path = models / "tiny-Q4_0.gguf"
    adapter = as_started(daemon, path)
    adapter.load()
    adapter.load()

    sha = "sha256:" + files.sha256(path)
    assert daemon.blobs == {sha: path.read_bytes()}
    assert daemon.asked("/api/create") == [
        {"model": "tiny-q4_0:own", "files": {"tiny-Q4_0.gguf": sha}, "license": ollama_models.MADE_FROM + sha}
    ]
    assert json.loads(adapter.build(Request(case="c", messages=CHAT)).body)["model"] == "tiny-q4_0:own"


def test_changed_file_is_made_into_a_model_again_and_known_bytes_are_not_sent_twice(
    daemon: OllamaDaemon, tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    for content in (b"GGUF one", b"GGUF two!", b"GGUF one"):
        path.write_bytes(content)
        as_started(daemon, path).load()

    sent = [method for method, where, _ in daemon.calls if where.startswith("/api/blobs/")]
    assert sent == ["HEAD", "POST", "HEAD", "POST", "HEAD"]
    assert len(daemon.asked("/api/create")) == 3
    assert daemon.models["m:own"].blob == "sha256:" + files.sha256(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("blob_wrong_digest", "did not take 'm.gguf' (400): digest mismatch"),
        ("create_missing_blob", "did not take 'm.gguf' (500): open /usr/share"),
    ],
)
def test_recorded_refusals_of_a_file_are_repeated(name: str, words: str, wire: Path, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with Replay(wire / "ollama-paths") as replay:
        control = Control(engine="own", base_url=f"{replay.base_url}/@{name}", headers={})

        with pytest.raises(errors.LaunchError) as caught:
            ollama_models.make(control, "m:own", tmp_path / "m.gguf", timeout_s=5.0)

    assert words in str(caught.value)


def test_recorded_steps_of_making_a_model_end_in_success(wire: Path) -> None:
    with Replay(wire / "ollama-paths") as replay:
        made, missing = (
            Control(engine="own", base_url=f"{replay.base_url}/@{name}", headers={})
            for name in ("create_from", "create_missing_blob")
        )
        ollama_models.pull(made, "tiny-hot", timeout_s=5.0)

        with pytest.raises(errors.LaunchError, match="no such file or directory"):
            ollama_models.pull(missing, "broken", timeout_s=5.0)
        assert made.head("/").status == 200


def test_recorded_blob_that_is_not_there(wire: Path) -> None:
    with Replay(wire / "ollama-paths") as replay:
        control = Control(engine="own", base_url=replay.base_url, headers={})

        assert control.head("/api/blobs/sha256:" + "0" * 64).status == 404


def test_model_that_cannot_be_made_says_why(daemon: OllamaDaemon, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    daemon.refuse["/api/create"] = (200, b'{"status":"parsing GGUF"}\n{"error":"unknown architecture"}\n')

    with pytest.raises(errors.LaunchError, match=r"own: Ollama could not make 'm:own' from 'm.gguf' \(200\): unknown"):
        as_started(daemon, tmp_path / "m.gguf").load()


def test_file_cannot_be_served_by_a_daemon_that_is_not_ours(ask: Attach, models: Path) -> None:
    path = models / "tiny-F16.gguf"

    with pytest.raises(errors.LaunchError, match=r"ollama create NAME, with FROM tiny-F16\.gguf"):
        ask(model=str(path), model_path=path).load()


@pytest.mark.parametrize(
    ("file", "name"), [("Qwen 2.5 (Q4).gguf", "qwen-2.5-q4"), ("...gguf", "model"), ("a" * 90 + ".gguf", "a" * 80)]
)
def test_name_of_a_files_model_is_one_ollama_allows(file: str, name: str) -> None:
    assert ollama_models.name_for(Path("/x") / file, "own") == f"{name}:own"


@pytest.mark.parametrize(
    ("route", "fields"),
    [
        ("openai", {}),
        ("native", {"options": {"num_ctx": 512, "num_batch": 512}, "shift": False}),
    ],
)
def test_warm_up_loads_with_the_options_of_every_later_request(
    route: str, fields: dict[str, Any], daemon: OllamaDaemon, ask: Attach, send: Send
) -> None:
    adapter = ask(route, context_length=512)
    adapter.warm_up()
    for request in (Request(case="c", messages=CHAT), Request(case="c", prompt="x"), Request(case="d", messages=CHAT)):
        send(adapter, request)

    assert daemon.asked("/api/generate")[0] == {"model": "tiny", "keep_alive": KEEP_ALIVE, **fields}
    assert daemon.launches == 1
    assert [held[2] for held in daemon.loaded.values()] == [KEEP_ALIVE]
    assert values(adapter)["context_length"] == 1024


def test_started_daemon_keeps_its_model(daemon: OllamaDaemon, models: Path) -> None:
    adapter = as_started(daemon, models / "tiny-Q4_0.gguf")
    adapter.load()
    adapter.warm_up()

    assert daemon.asked("/api/generate")[0] == {"model": "tiny-q4_0:own", "keep_alive": -1}


def test_weights_loaded_under_another_name_are_loaded_again_under_ours(daemon: OllamaDaemon, ask: Attach) -> None:
    daemon.models["go:latest"] = Model(go=GO)
    ask(model="go").warm_up()

    ask().warm_up()

    assert [name for name, _, _ in daemon.loaded.values()] == ["tiny:latest"]
    assert daemon.launches == 2


def test_model_in_the_cloud_is_never_loaded_here_and_needs_no_process(ask: Attach) -> None:
    class Clouded(OllamaDaemon):
        def _load(self, name: str, model: Model, body: dict[str, Any]) -> None:
            if not model.more.get("remote_host"):
                super()._load(name, model, body)

    cloud = Model(more={"remote_host": "https://ollama.com"})
    with Clouded({"tiny:latest": Model(), "big:cloud": cloud}) as daemon:
        spec = EngineSpec(name="t", kind="ollama", model="tiny", base_url=daemon.base_url)
        make(spec, daemon.base_url, environ={}).warm_up()
        big = dataclasses.replace(spec, name="c", model="big:cloud")

        make(big, daemon.base_url, environ={}).warm_up()

        assert [body["keep_alive"] for body in daemon.asked("/api/generate")] == ["30m", "30m"], "nothing was released"


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        ({"model": "twin"}, True),
        ({"model": "tiny"}, False),
        ({"model": "other"}, False),
        ({"model": "absent"}, False),
        ({"model": None}, False),
        ({"model": "twin", "kind": "openai"}, False),
        ({"model": "twin", "base_url": "http://127.0.0.2:1"}, False),
    ],
)
def test_two_models_over_the_same_weights_of_one_daemon_share_a_process(other: dict[str, Any], shared: bool) -> None:
    with OllamaDaemon({"tiny:latest": Model(), "twin:latest": Model(), "other:latest": Model(blob="b")}) as daemon:
        spec = EngineSpec(name="a", kind="ollama", model="tiny", base_url=daemon.base_url)
        adapter = make(spec, daemon.base_url, environ={})
        local = daemon.base_url.replace("127.0.0.1", "localhost")

        why = adapter.shares_with(dataclasses.replace(spec, name="b", **{"base_url": local} | other))

        assert (why is not None) is shared
        assert not shared or (why or "").startswith("a (tiny) and b (twin) have the same weights on one Ollama")


def test_dead_llama_server_is_told_from_a_dead_daemon(daemon: OllamaDaemon, ask: Attach) -> None:
    refusal = b'{"error":"llama-server process has terminated: signal: illegal instruction"}'
    daemon.refuse["/api/generate"] = (500, refusal)

    with pytest.raises(errors.ServerFailure, match=r"illegal instruction.*Ollama itself is alive") as caught:
        ask().warm_up()

    assert (caught.value.engine, caught.value.case, caught.value.status) == ("cand", "warm-up", 500)


def test_unload_waits_until_the_model_is_gone(wire: Path) -> None:
    waited: list[float] = []
    with Replay(wire / "ollama") as replay:
        control = Control(engine="cand", base_url=replay.base_url, headers={})
        ollama_models.release(
            control,
            "tiny:q4_k_m",
            gone=lambda now: not about.entry(now, "tiny:q4_k_m"),
            pause=waited.append,
        )

    assert len(waited) == 1  # ps first shows it still


def test_unloaded_model_is_not_loaded(daemon: OllamaDaemon, ask: Attach) -> None:
    adapter = ask()
    adapter.warm_up()

    adapter.unload()

    assert daemon.loaded == {}
    assert values(adapter)["context_length"] == 1024, "as it was when we loaded it"
    assert "context_length" not in values(ask())


def test_facts_are_those_of_the_model_while_it_was_loaded_whoever_evicts_it() -> None:
    with OllamaDaemon({"tiny:latest": Model(), "other:latest": Model(blob="b")}) as daemon:
        daemon.room = 1
        spec = EngineSpec(name="t", kind="ollama", model="tiny", base_url=daemon.base_url)
        adapters = [
            make(dataclasses.replace(spec, model=model), daemon.base_url, environ={}) for model in daemon.models
        ]

        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda adapter: adapter.warm_up(), adapters))

        assert len(daemon.loaded) == 1
        assert [values(adapter)["context_length"] for adapter in adapters] == [1024, 1024]


def test_model_that_somebody_else_evicted_at_once_is_loaded_again() -> None:
    class Contended(OllamaDaemon):
        """Somebody asks for another model right after the first load."""

        def _generate(self, call: Call, body: dict[str, Any]) -> None:
            super()._generate(call, body)
            if self.launches == 1:
                self._load("other:latest", self.models["other:latest"], {})

    with Contended({"tiny:latest": Model(), "other:latest": Model(blob="b")}) as daemon:
        daemon.room = 1
        spec = EngineSpec(name="t", kind="ollama", model="tiny", base_url=daemon.base_url)
        adapter = make(spec, daemon.base_url, environ={})

        adapter.warm_up()

        assert values(adapter)["context_length"] == 1024


def test_model_that_stays_loaded_is_an_error(daemon: OllamaDaemon) -> None:
    daemon.loaded["x"] = ("tiny:latest", None, None)
    daemon.unloads = False
    control = Control(engine="cand", base_url=daemon.base_url, headers={})
    clock = iter((0.0, 1.0, 99.0))

    with pytest.raises(errors.LaunchError, match=r"still holds 'tiny' 30 s after keep_alive 0.*ollama stop tiny"):
        ollama_models.release(
            control,
            "tiny",
            gone=lambda now: not about.entry(now, "tiny"),
            clock=lambda: next(clock),
            pause=lambda seconds: None,
        )


def test_unknown_model_cannot_be_unloaded(ask: Attach) -> None:
    with pytest.raises(errors.LaunchError, match=r"did not unload 'nope' \(404\): model 'nope' not found"):
        ask(model="nope").unload()


# ---- start ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """An ``ollama`` that serves the double."""
    path = tmp_path / "bin" / "ollama"
    path.parent.mkdir()
    path.write_text(
        f"#!{sys.executable}\n"
        "import os, signal, sys\n"
        f"sys.path.insert(0, {str(REPO)!r})\n"
        "from tests.doubles.ollama_daemon import OllamaDaemon\n"
        "assert sys.argv[1:] == ['serve'], sys.argv\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "port = int(os.environ['OLLAMA_HOST'].rpartition(':')[2])\n"
        "with OllamaDaemon({}, port=port):\n"
        "    signal.sigwait([signal.SIGTERM])\n"
    )
    path.chmod(0o755)
    return path


def test_daemon_is_started_with_a_port_and_a_store_of_its_own(program: Path, tmp_path: Path, models: Path) -> None:
    path = models / "tiny-F16.gguf"
    spec = EngineSpec(name="own", kind="ollama", model=str(path), model_path=path, launch="process", slots=2)

    launch = OllamaAdapter.launch(spec, 4711, tmp_path, environ={"PATH": str(program.parent)})

    assert launch.argv == (str(program), "serve")
    assert launch.env == {
        "OLLAMA_HOST": "127.0.0.1:4711",
        "OLLAMA_MODELS": str(tmp_path / "ollama"),
        "OLLAMA_NUM_PARALLEL": "2",
        "OLLAMA_CONTEXT_LENGTH": "4096",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_NOPRUNE": "1",
        "OLLAMA_NO_CLOUD": "1",
    }
    assert (launch.cwd, launch.deadline_s, launch.stop_signal) == (tmp_path, 60.0, signal.SIGTERM)
    inherited = ("LLAMA_ARG_CTX_SIZE", "OLLAMA_GO_TEMPLATE", "OLLAMA_KV_CACHE_TYPE", "OLLAMA_MODELS", "HOME")
    scrubbed = [name for name in inherited if any(fnmatch(name, pattern) for pattern in launch.scrub)]
    assert scrubbed == ["LLAMA_ARG_CTX_SIZE", "OLLAMA_GO_TEMPLATE", "OLLAMA_KV_CACHE_TYPE"]


def test_model_with_a_name_is_looked_for_in_the_accounts_own_store(program: Path, tmp_path: Path) -> None:
    spec = EngineSpec(
        name="own",
        kind="ollama",
        model="qwen3:8b",
        launch="process",
        command=(str(program), "start"),
        args=("--verbose",),
        env={"OLLAMA_NO_CLOUD": "0", "OLLAMA_GO_TEMPLATE": "1"},
        context_length=2048,
        start_timeout_s=5.0,
    )

    launch = OllamaAdapter.launch(spec, 4711, tmp_path, environ={})

    assert launch.argv == (str(program), "start", "--verbose")
    assert "OLLAMA_MODELS" not in launch.env
    assert (launch.env["OLLAMA_NO_CLOUD"], launch.env["OLLAMA_GO_TEMPLATE"]) == ("0", "1")
    assert (launch.env["OLLAMA_CONTEXT_LENGTH"], launch.env["OLLAMA_NUM_PARALLEL"]) == ("2048", "4")
    assert launch.deadline_s == 5.0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "give model ="),
        ({"model": "x", "model_path": Path("/nowhere")}, "is no file"),
        ({"model": "qwen3"}, "'ollama' is not on PATH. Install Ollama"),
        ({"model": "qwen3", "command": ("/nowhere/ollama",)}, "'/nowhere/ollama' is not on PATH"),
    ],
)
def test_what_cannot_be_started_says_what_to_do(fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    spec = EngineSpec(name="own", kind="ollama", launch="process", **fields)

    with pytest.raises(errors.LaunchError) as caught:
        OllamaAdapter.launch(spec, 4711, tmp_path, environ={"PATH": str(tmp_path)})

    assert words in str(caught.value)
    assert caught.value.engine == "own"


def test_started_program_serves_the_file_and_ends_when_told(
    program: Path, tmp_path: Path, models: Path, send: Send
) -> None:
    path, port = models / "tiny-Q4_K_M.gguf", free_port()
    spec = EngineSpec(
        name="own", kind="ollama", model=str(path), model_path=path, launch="process", command=(str(program),)
    )
    launch = OllamaAdapter.launch(spec, port, tmp_path)
    process = subprocess.Popen(launch.argv, env=dict(os.environ) | dict(launch.env), cwd=launch.cwd)
    try:
        adapter = make(spec, f"http://127.0.0.1:{port}", environ={})
        wait_ready(adapter, lambda: None if process.poll() is None else "it ended", launch.deadline_s)
        adapter.load()
        adapter.warm_up()
        answer = adapter.read(send(adapter, Request(case="c", messages=CHAT)), case="c")
        seen = values(adapter)
    finally:
        process.send_signal(launch.stop_signal)
        ended = process.wait(timeout=launch.grace_s)

    assert ended == 0
    assert answer.text == "The capital is Paris."
    assert (seen["model"], seen["version"], seen["quantization"]) == ("tiny-q4_k_m:own", "0.33.0", "Q4_K_M")


# ---- engines that do not fit beside each other ----------------------------------------------------------------------


def beside(daemon: OllamaDaemon, model: str, **keys: Any) -> EngineSpec:
    """Return another engine of the same run."""
    keys = {"name": "b", "kind": "ollama", "launch": "attach", "base_url": daemon.base_url, "model": model, **keys}
    return EngineSpec(**keys)


def test_what_is_in_memory_is_told_around_a_timed_block(attach: Attach) -> None:
    with OllamaDaemon({"tiny:latest": Model(), "other:latest": Model(blob="b")}) as daemon:
        adapter = attach(daemon.base_url, "ollama", model="tiny")
        question = adapter.residence()
        assert question is not None
        told = [adapter.resident(adapter.control.get(question.path))]
        adapter.warm_up()
        told.append(adapter.resident(adapter.control.get(question.path)))
        daemon.refuse[question.path] = (500, b"")
        told.append(adapter.resident(adapter.control.get(question.path)))

    assert told == [False, True, None]


def test_a_daemon_with_room_for_one_is_told_by_who_is_gone(attach: Attach) -> None:
    with OllamaDaemon({"tiny:latest": Model(), "other:latest": Model(blob="b")}) as daemon:
        for model in ("other", "tiny"):
            attach(daemon.base_url, "ollama", model=model).warm_up()
        adapter = attach(daemon.base_url, "ollama", model="tiny")
        assert adapter.crowds_out(beside(daemon, "other")) is None
        daemon.loaded = {key: value for key, value in daemon.loaded.items() if value[0] == "tiny:latest"}
        assert adapter.crowds_out(beside(daemon, "other")) == "the daemon has room for one of their models at a time"
        assert adapter.crowds_out(beside(daemon, "other", base_url="http://127.0.0.1:1")) is None
        assert adapter.crowds_out(beside(daemon, "other", kind="vllm")) is None


def test_two_routes_of_one_model_load_it_in_turn(attach: Attach) -> None:
    with OllamaDaemon() as daemon:
        adapter = attach(daemon.base_url, "ollama", model="tiny")
        assert "load options" in str(adapter.crowds_out(beside(daemon, "tiny:latest", route="native")))
        assert adapter.crowds_out(beside(daemon, "tiny:latest")) is None


@pytest.mark.parametrize(("duration_ms", "loaded"), [(2.5, False), (257.4, True), (None, False)])
def test_an_answer_says_itself_that_it_waited_for_a_load(
    attach: Attach, duration_ms: float | None, loaded: bool
) -> None:
    server = {} if duration_ms is None else {"load_duration": duration_ms}
    assert attach("http://127.0.0.1:1", "ollama", model="tiny").met_load(Completion(text="a", server=server)) is loaded
