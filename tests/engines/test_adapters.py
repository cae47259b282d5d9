from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import pytest
import trustme

from pytest_llmparity.core import errors
from pytest_llmparity.core.ports import AdapterProtocol
from pytest_llmparity.engines import registry
from pytest_llmparity.engines.kinds.llamacpp import LlamaCppAdapter
from pytest_llmparity.engines.kinds.vllm import VllmAdapter
from pytest_llmparity.engines.start.readiness import free_port
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.control import MAX_BYTES, Control, resolve_headers
from pytest_llmparity.settings.specification import EngineSpec, EnvRef
from pytest_llmparity.testing import LoopbackEngine, Replay
from pytest_llmparity.testing.server import Call, LoopbackServer

Attach = Callable[..., Adapter]
Start = Callable[..., LoopbackEngine]


class Answering(LoopbackServer):
    """Answers everything by one function."""

    def __init__(self, how: Callable[[Call], None]) -> None:
        super().__init__()
        self.how = how

    def answer(self, call: Call) -> None:
        self.how(call)


@pytest.fixture
def answering() -> Iterator[Callable[[Callable[[Call], None]], str]]:
    running: list[Answering] = []

    def serve(how: Callable[[Call], None]) -> str:
        running.append(Answering(how).start())
        return running[-1].base_url

    yield serve
    for server in running:
        server.stop()


def test_adapter_is_what_the_core_calls_an_engine(attach: Attach) -> None:
    engine: AdapterProtocol = attach("http://127.0.0.1:1")

    assert (engine.name, engine.kind) == ("cand", "openai")


def test_kind_without_reports_of_its_own_is_what_was_declared() -> None:
    adapter = Adapter(EngineSpec(name="cand", model="m"), "http://127.0.0.1:1", {})

    assert set(adapter.identity().facts) == {"kind", "model"}


# ---- readiness -----------------------------------------------------------------------------------------------------


def test_vllm_is_warmed_up_for_logprobs_too(start: Start, attach: Attach) -> None:
    engine = start(poses_as="vllm")

    attach(engine.base_url + "/", "vllm").warm_up()

    assert engine.requests[0].json["top_logprobs"] == 1


@pytest.mark.parametrize(("status", "ready"), [(404, True), (405, True), (500, False)])
def test_generic_server_may_lack_the_list_of_models(
    status: int, ready: bool, attach: Attach, answering: Callable[[Callable[[Call], None]], str]
) -> None:
    url = answering(lambda call: call.send(status, b"{}"))

    assert (attach(url).ready() is None) is ready


def test_another_server_on_our_port_is_noticed(start: Start, models: Path) -> None:
    llamacpp = start(poses_as="llamacpp", model="/models/other.gguf")
    vllm = start(poses_as="vllm", model="other")
    launched = EngineSpec(name="cand", launch="process", model="x", model_path=models / "tiny-F16.gguf")

    with pytest.raises(errors.LaunchError, match=r"'/models/other.gguf' instead of 'tiny-F16.gguf'"):
        LlamaCppAdapter(launched, llamacpp.base_url, {}).ready()
    with pytest.raises(errors.LaunchError, match="'other' instead of 'tiny'"):
        VllmAdapter(dataclasses.replace(launched, model_path=models), vllm.base_url, {}).ready()


def test_our_own_server_is_accepted(start: Start, models: Path) -> None:
    llamacpp = start(poses_as="llamacpp", model="/models/tiny-F16.gguf")
    vllm = start(poses_as="vllm", model="tiny")
    launched = EngineSpec(name="cand", launch="process", model="x", model_path=models / "tiny-F16.gguf")

    assert LlamaCppAdapter(launched, llamacpp.base_url, {}).ready() is None
    assert VllmAdapter(dataclasses.replace(launched, model_path=models), vllm.base_url, {}).ready() is None


# ---- identity ------------------------------------------------------------------------------------------------------


def test_llamacpp_reports_itself_and_the_file_adds_its_digest(start: Start, models: Path) -> None:
    file = models / "tiny-Q4_K_M.gguf"
    engine = start(poses_as="llamacpp", model=file.name, quantization="Q4_K - Medium", context_length=512, slots=2)
    launched = EngineSpec(name="cand", launch="process", model=str(file), model_path=file)

    identity = LlamaCppAdapter(launched, engine.base_url, {}).identity()

    facts = {name: (fact.value, fact.source) for name, fact in identity.facts.items()}
    assert facts["quantization"] == ("Q4_K_M", "reported")
    assert identity.facts["quantization"].raw == "Q4_K - Medium"
    assert facts["digest"] == ("sha256:" + hashlib.sha256(file.read_bytes()).hexdigest(), "file")
    assert (facts["context_length"], facts["slots"]) == ((512, "reported"), (2, "reported"))
    assert facts["model"] == ("tiny-Q4_K_M.gguf", "reported")
    assert facts["version"][0] == importlib.metadata.version("xllamacpp")
    assert identity.facts["version"].raw == "xllamacpp"


def test_llamacpp_that_is_gone_is_known_by_its_file_only(models: Path) -> None:
    file = models / "tiny-Q8_0.gguf"
    spec = EngineSpec(name="cand", launch="process", model=str(file), model_path=file, command=("llama-server",))

    facts = LlamaCppAdapter(spec, f"http://127.0.0.1:{free_port()}", {}).identity().facts

    assert {name: fact.source for name, fact in facts.items()} == {
        "kind": "declared",
        "model": "declared",
        "kv_cache": "declared",
        "prefix_cache": "declared",
        "device": "file",
        "digest": "file",
        "format": "file",
        "quantization": "file",
        "bits_per_weight": "file",
        "tensor_types": "file",
        "template_sha256": "file",
        "tokenizer_sha256": "file",
    }
    assert (facts["quantization"].value, facts["format"].value) == ("Q8_0", "gguf")


def test_llamacpp_reports_the_sampling_of_requests_that_say_nothing(
    attach: Attach, answering: Callable[[Callable[[Call], None]], str], wire: Path
) -> None:
    with Replay(wire / "llamacpp") as replay:
        fact = attach(replay.base_url, "llamacpp").identity().facts["sampling_defaults"]

    told = json.loads(str(fact.value))
    assert fact.source == "reported"
    assert (told["temperature"], told["top_k"], told["top_p"], told["repetition_penalty"]) == (0.8, 40, 0.95, 1)
    assert "n_predict" not in told


def test_llamacpp_without_an_answer_samples_as_its_file_asks(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_float32("general.sampling.temp", 0.6)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    spec = EngineSpec(name="cand", launch="process", model="m", model_path=file)

    fact = LlamaCppAdapter(spec, "http://127.0.0.1:1", {}).from_files()["sampling_defaults"]

    assert (fact.value, fact.source) == ('{"temperature": 0.6}', "file")


@pytest.mark.parametrize(
    ("args", "env", "value"),
    [
        ((), {}, "F16"),
        (("-ctk", "q8_0"), {}, "Q8_0/F16"),
        (("-ctk", "q8_0", "--cache-type-v=q8_0"), {}, "Q8_0"),
        ((), {"LLAMA_ARG_CACHE_TYPE_V": "q4_0"}, "F16/Q4_0"),
    ],
)
def test_llamacpp_s_cache_is_of_the_type_it_is_started_with(
    args: tuple[str, ...], env: dict[str, str], value: str, models: Path
) -> None:
    file = models / "tiny-F16.gguf"
    spec = EngineSpec(name="cand", launch="process", model="m", model_path=file, args=args, env=env)

    fact = LlamaCppAdapter(spec, "http://127.0.0.1:1", {}).from_files()["kv_cache"]

    assert (fact.value, fact.source) == (value, "declared")


def test_build_number_of_llama_server_is_its_version(
    attach: Attach, answering: Callable[[Callable[[Call], None]], str]
) -> None:
    url = answering(lambda call: call.send(200, b'{"build_info": "b9123-abcdef", "total_slots": 0}'))

    facts = attach(url, "llamacpp").identity().facts

    assert facts["version"].value == "b9123-abcdef"
    assert "slots" not in facts


@pytest.mark.parametrize(
    ("args", "value", "source"),
    [
        ((), "BF16", "file"),
        (("--dtype", "auto"), "BF16", "file"),
        (("--dtype=half",), "F16", "declared"),
        (("--dtype", "float"), "F32", "declared"),
        (("--dtype", "bfloat16", "--quantization", "fp8"), "FP8", "declared"),
        (("-q", "awq"), "AWQ", "declared"),
        (("--dtype",), "BF16", "file"),
    ],
)
def test_vllm_quantisation_follows_files_and_arguments(
    args: tuple[str, ...], value: str, source: str, models: Path
) -> None:
    spec = EngineSpec(name="cand", launch="process", model="tiny", model_path=models, args=args)

    fact = VllmAdapter(spec, "http://127.0.0.1:1", {}).from_files()["quantization"]

    assert (fact.value, fact.source) == (value, source)


def test_vllm_chooses_by_the_device_what_single_precision_checkpoints_are_served_as(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"torch_dtype": "float32"}')
    spec = EngineSpec(name="cand", launch="process", model="x", model_path=tmp_path)

    assert "quantization" not in VllmAdapter(spec, "http://127.0.0.1:1", {}).from_files()


GPTQ = '{"quantization_config": {"quant_method": "gptq", "bits": 4}, "dtype": "float16"}'


@pytest.mark.parametrize(
    ("kind", "args", "value"),
    [
        ("vllm", ("--dtype", "half"), "GPTQ_INT4"),
        ("vllm", ("--quantization", "gptq_marlin"), "GPTQ_INT4"),
        ("vllm", ("-q", "awq"), "AWQ"),
        ("sglang", ("--quantization", "gptq", "--dtype", "bfloat16"), "GPTQ_INT4"),
        ("tgi", ("--dtype", "bfloat16"), "GPTQ_INT4"),
    ],
)
def test_arguments_that_say_less_than_a_quantised_checkpoint_leave_it_its_bits(
    kind: str, args: tuple[str, ...], value: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(GPTQ)
    spec = EngineSpec(name="cand", kind=kind, launch="process", model="x", model_path=tmp_path, args=args)

    adapter = registry.make(spec, "http://127.0.0.1:1", environ={})

    assert adapter.from_files()["quantization"].value == value


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ("gptq_marlin", ("GPTQ_INT4", "file", "gptq, 4 bits; reported: gptq_marlin")),
        ("awq_marlin", ("AWQ", "reported", "awq_marlin")),
    ],
)
def test_the_method_a_server_reports_does_not_hide_the_bits_its_files_tell(
    reported: str, expected: tuple[str, str, str], tmp_path: Path, answering: Callable[[Callable[[Call], None]], str]
) -> None:
    (tmp_path / "config.json").write_text(GPTQ)
    told = json.dumps({"vllm_config": {"model_config": {"quantization": reported, "dtype": "torch.float16"}}}).encode()
    url = answering(lambda call: call.send(200, told if call.path.startswith("/server_info") else b"{}"))
    spec = EngineSpec(name="cand", kind="vllm", launch="process", model="x", model_path=tmp_path)

    fact = registry.make(spec, url, environ={}).identity().facts["quantization"]

    assert (fact.value, fact.source, fact.raw) == expected


@pytest.mark.parametrize(
    ("args", "changed"),
    [
        ((), {}),
        (("--generation-config", "auto"), {"temperature": 0.6, "top_k": 20}),
        (("--override-generation-config", '{"top_k": 3}'), {"top_k": 3}),
        (("--override-generation-config", "{"), None),
        (("--override-generation-config", "[1]"), None),
    ],
)
def test_vllm_samples_as_it_was_started_to(
    args: tuple[str, ...], changed: dict[str, float] | None, tmp_path: Path
) -> None:
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.6, "top_k": 20}')
    spec = EngineSpec(name="cand", launch="process", model="x", model_path=tmp_path, args=args)
    own = {"temperature": 1, "top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1}

    facts = VllmAdapter(spec, "http://127.0.0.1:1", {}).from_files()

    if changed is None:
        assert "sampling_defaults" not in facts
    else:
        told = json.loads(str(facts["sampling_defaults"].value))
        assert told == {**own, "presence_penalty": 0, "frequency_penalty": 0, **changed}


@pytest.mark.parametrize(
    ("args", "missing"),
    [((), set()), (("--chat-template", "x.jinja"), {"template_sha256"}), (("--tokenizer=y",), {"tokenizer_sha256"})],
)
def test_vllm_s_folder_says_nothing_of_what_is_read_from_elsewhere(
    args: tuple[str, ...], missing: set[str], models: Path
) -> None:
    spec = EngineSpec(name="cand", launch="process", model="tiny", model_path=models, args=args)

    facts = VllmAdapter(spec, "http://127.0.0.1:1", {}).from_files()

    assert {"template_sha256", "tokenizer_sha256"} - facts.keys() == missing


def test_vllm_reads_the_snapshot_the_hub_has_of_its_model(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "hub/models--a--b/snapshots" / ("ab" * 20)
    shutil.copytree(models, folder, ignore=shutil.ignore_patterns("*.gguf", "*.py"))
    note = tmp_path / "hub/models--a--b/refs/main"
    note.parent.mkdir()
    note.write_text("ab" * 20 + "\n")
    spec = EngineSpec(name="cand", launch="process", model="a/b", env={"HF_HOME": str(tmp_path)})

    facts = VllmAdapter(spec, "http://127.0.0.1:1", {}).from_files()
    pinned = VllmAdapter(dataclasses.replace(spec, revision="ab" * 20), "http://127.0.0.1:1", {}).from_files()
    other = VllmAdapter(dataclasses.replace(spec, revision="v2"), "http://127.0.0.1:1", {}).from_files()

    assert facts["revision"].value == "ab" * 20
    assert facts["digest"] == pinned["digest"]
    assert other == {}
    note.unlink()
    note.mkdir()
    assert VllmAdapter(spec, "http://127.0.0.1:1", {}).from_files() == {}


@pytest.mark.parametrize(
    ("launch", "path", "configuration"),
    [("process", True, None), ("process", False, "4f842c8d"), ("attach", True, "4f842c8d")],
)
def test_vllm_s_fingerprint_is_its_build_and_apart_from_that_its_settings_path_and_all(
    launch: str, path: bool, configuration: str | None, models: Path, answering: Callable[[Callable[[Call], None]], str]
) -> None:
    answer = {"choices": [{"message": {"content": "Hi"}}], "system_fingerprint": "vllm-0.32.0-tp2-4f842c8d"}
    url = answering(lambda call: call.send(200, json.dumps(answer).encode()))
    spec = EngineSpec(name="c", launch=launch, model="tiny", model_path=models if path else None)  # type: ignore[arg-type]
    adapter = VllmAdapter(spec, url, {})
    adapter.warm_up()

    identity = adapter.identity()

    assert (identity.get("build"), identity.get("configuration")) == ("vllm-0.32.0-tp2", configuration)


DEV_MODE = {
    "vllm_config": {
        "model_config": {
            "dtype": "torch.bfloat16",
            "quantization": None,
            "revision": "abc",
            "generation_config": "vllm",
            "override_generation_config": {"top_k": 7},
        },
        "attention_config": {"backend": "FLASH_ATTN"},
        "parallel_config": {"tensor_parallel_size": 2, "pipeline_parallel_size": 1},
        "cache_config": {"enable_prefix_caching": True},
        "scheduler_config": {"enable_chunked_prefill": False},
        "speculative_config": {"method": "ngram", "model": "ngram", "num_speculative_tokens": 4},
    },
    "system_env": {
        "nvidia_gpu_models": "GPU 0: NVIDIA H200\nGPU 1: NVIDIA H200 (UUID: GPU-x)",
        "nvidia_driver_version": "570.1",
        "cpu_info": "Architecture:   x86_64\nModel name:   AMD EPYC\nModel:   1\nFlags:   fpu avx2",
    },
}


@pytest.mark.parametrize(("caches", "limits"), [("True", 1), ("False", 0), (None, 0)])
def test_a_prefix_cache_of_vllm_is_a_limit(
    attach: Attach, answering: Callable[[Callable[[Call], None]], str], caches: str | None, limits: int
) -> None:
    def how(call: Call) -> None:
        told = f'vllm:cache_config_info{{block_size="16",enable_prefix_caching="{caches}",engine="0"}} 1.0\n'
        call.send(404 if caches is None else 200, told.encode() if caches else b"")

    sentences = attach(answering(how), "vllm").limits()

    assert len(sentences) == limits
    assert all("the prefix cache is on" in limit for limit in sentences)


def test_what_llama_cpp_and_openai_servers_change_is_told(attach: Attach) -> None:
    attached = attach("http://127.0.0.1:1", "llamacpp")
    started = LlamaCppAdapter(dataclasses.replace(attached.spec, launch="process"), attached.base_url, {})

    assert any("--no-cache-prompt" in limit for limit in attached.limits())
    assert not any("--no-cache-prompt" in limit for limit in started.limits())
    assert any("top_k, min_p and repetition_penalty" in limit for limit in attach("http://127.0.0.1:1").limits())


def test_vllm_in_dev_mode_and_its_metrics_are_read(
    attach: Attach, answering: Callable[[Callable[[Call], None]], str]
) -> None:
    answers = {"/server_info?config_format=json": DEV_MODE}

    def how(call: Call) -> None:
        if call.path == "/metrics":
            call.send(200, b'# HELP\nvllm:cache_config_info{block_size="16",cache_dtype="fp8",engine="0"} 1.0\n')
        else:
            call.send(200, json.dumps(answers.get(call.path, {})).encode())

    facts = attach(answering(how), "vllm").identity().facts

    assert (facts["quantization"].value, facts["quantization"].source) == ("BF16", "reported")
    assert (facts["kv_cache"].value, facts["revision"].value) == ("fp8", "abc")
    assert facts["attention"].value == "FLASH_ATTN"
    arrangement = ("speculative", "tensor_parallel", "pipeline_parallel", "prefix_cache", "chunked_prefill")
    assert [facts[name].value for name in arrangement] == ["ngram x4", 2, 1, "on", "off"]
    assert facts["device"].value == "2 x NVIDIA H200 (driver 570.1); AMD EPYC (avx2)"
    assert json.loads(str(facts["sampling_defaults"].value))["top_k"] == 7


@pytest.mark.parametrize(("model", "adapters"), [("tiny", "none"), ("sql", "sql rank 8"), ("gone", None)])
def test_vllm_lists_its_adapters_as_models(
    attach: Attach,
    answering: Callable[[Callable[[Call], None]], str],
    tmp_path: Path,
    model: str,
    adapters: str | None,
) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    listed = [  # as vLLM 0.32.0 answered with --enable-lora --lora-modules sql=FOLDER
        {"id": "tiny", "root": "/models/tiny", "parent": None, "max_model_len": 512},
        {"id": "sql", "root": str(tmp_path), "parent": "tiny", "max_model_len": None},
    ]

    def how(call: Call) -> None:
        call.send(200, json.dumps({"data": listed} if call.path == "/v1/models" else {}).encode())

    known = attach(answering(how), "vllm", model=model).identity()

    assert known.get("adapters") == adapters
    assert known.get("context_length") == (512 if adapters else None)


@pytest.mark.parametrize(
    ("build", "sizes"),
    [("vllm-0.32.0-tp2-pp4", (2, 4)), ("vllm-0.32.0-dp2-ep", (None, None)), ("vllm-0.32.0", (None, None))],
)
def test_the_fingerprint_of_vllm_tells_how_often_it_is_split(
    attach: Attach,
    answering: Callable[[Callable[[Call], None]], str],
    build: str,
    sizes: tuple[int | None, int | None],
) -> None:
    answer = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
        "system_fingerprint": f"{build}-1a943a1f",
    }

    def how(call: Call) -> None:
        listed = {"data": [{"id": "tiny", "parent": None, "max_model_len": 512}]}
        call.send(200, json.dumps(listed if call.method == "GET" else answer).encode())

    adapter = attach(answering(how), "vllm", model="tiny")
    adapter.warm_up()

    known = adapter.identity()
    assert (known.get("tensor_parallel"), known.get("pipeline_parallel")) == sizes


def test_generic_server_tells_its_model_context_and_fingerprint(
    start: Start, attach: Attach, answering: Callable[[Callable[[Call], None]], str]
) -> None:
    adapter = attach(start("Hi").base_url)
    adapter.warm_up()
    assert adapter.identity().get("build") == "loopback"

    url = answering(lambda call: call.send(200, b'{"data":[{"id":"loopback","context_window":8192}]}'))
    facts = attach(url).identity().facts
    assert (facts["model"].source, facts["context_length"].value) == ("reported", 8192)


def test_llama_server_from_path_does_not_take_the_version_of_the_package(
    start: Start, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "llama-server"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    file = models / "tiny-F16.gguf"
    launched = EngineSpec(name="cand", launch="process", model=str(file), model_path=file)

    assert "version" not in LlamaCppAdapter(launched, start(poses_as="llamacpp").base_url, {}).identity().facts


def test_package_that_is_not_installed_gives_no_version(
    start: Start, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    file = models / "tiny-F16.gguf"
    launched = EngineSpec(name="cand", launch="process", model=str(file), model_path=file)

    assert "version" not in LlamaCppAdapter(launched, start(poses_as="llamacpp").base_url, {}).identity().facts


def test_entry_of_our_model_is_found_among_others(
    attach: Attach, answering: Callable[[Callable[[Call], None]], str]
) -> None:
    entries = [{"id": "other", "max_model_len": 1}, {"id": "loopback", "max_model_len": 2}]
    url = answering(lambda call: call.send(200, json.dumps({"data": entries}).encode()))

    assert attach(url, model="loopback").identity().get("context_length") == 2
    assert attach(url, model="third").identity().get("context_length") is None


# ---- headers and control calls -------------------------------------------------------------------------------------


def test_headers_are_read_from_the_environment() -> None:
    spec = EngineSpec(name="e", api_key_env="KEY", headers={"X-Team": "search", "X-Token": EnvRef("TOKEN")})

    assert resolve_headers(spec, {"KEY": " k1 ", "TOKEN": "t1"}) == {
        "authorization": "Bearer k1",
        "x-team": "search",
        "x-token": "t1",
    }


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, r"api_key_env names the environment variable KEY, which is not set"),
        ({"KEY": "  "}, "is not set"),
        ({"KEY": "a\nb"}, "no HTTP header can carry"),
        ({"KEY": "clé"}, "no HTTP header can carry"),
        ({"KEY": "k"}, r"headers.X-Token names the environment variable TOKEN"),
    ],
)
def test_unusable_variable_is_named_and_its_value_is_not(environ: dict[str, str], message: str) -> None:
    spec = EngineSpec(name="e", api_key_env="KEY", headers={"X-Token": EnvRef("TOKEN")})

    with pytest.raises(errors.ConfigError, match=message) as caught:
        resolve_headers(spec, environ)

    assert "clé" not in str(caught.value)


def control(base_url: str, **fields: Path | str) -> Control:
    return Control(engine="cand", base_url=base_url, headers={}, **fields)  # type: ignore[arg-type]


def test_control_never_shows_its_headers() -> None:
    shown = repr(Control(engine="cand", base_url="http://127.0.0.1:1", headers={"authorization": "Bearer sk-1"}))

    assert "sk-1" not in shown


def test_control_call_has_a_deadline(answering: Callable[[Callable[[Call], None]], str]) -> None:
    url = answering(lambda call: call.wait(None))

    with pytest.raises(errors.Timeout, match=r"did not answer GET .*/health in 0.05 s"):
        control(url).get("/health", timeout_s=0.05)


def test_control_call_has_a_limit(answering: Callable[[Callable[[Call], None]], str]) -> None:
    url = answering(lambda call: call.send(200, b"x" * (MAX_BYTES + 1)))

    with pytest.raises(errors.ProtocolError, match=f"more than {MAX_BYTES} bytes"):
        control(url).get("/metrics")


def test_proxy_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(errors.Unreachable):
        control("http://127.0.0.1:1", proxy=f"http://127.0.0.1:{free_port()}").get("/health")


def test_garbage_is_no_answer(answering: Callable[[Callable[[Call], None]], str]) -> None:
    url = answering(lambda call: call.send(200, b"{broken"))

    assert control(url).ask("/props") == {}
    assert control(f"http://127.0.0.1:{free_port()}").ask("/props") == {}


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("no certificate")

    with pytest.raises(errors.LaunchError, match=r"ca\.pem' cannot be read as certificates"):
        control("https://127.0.0.1:1", ca_bundle=bundle).get("/")


def test_private_authority_is_used_for_https(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(bundle)

    with pytest.raises(errors.Unreachable):
        control(f"https://127.0.0.1:{free_port()}", ca_bundle=bundle).get("/")
