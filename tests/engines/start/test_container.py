"""The command line that starts an engine in a container, kind by kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.core.errors import LaunchError
from pytest_llmparity.engines import registry
from pytest_llmparity.engines.registry import adapter_for
from pytest_llmparity.engines.start.container import Box, contained
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.start.runtimes import Image, Runtime
from pytest_llmparity.settings.specification import EngineSpec

MODELS = Path(__file__).parents[3] / "fixtures/models/tiny"
GGUF = MODELS / "tiny-F16.gguf"
ID = "sha256:" + 64 * "1"


def spec(kind: str = "llamacpp", path: Path | None = GGUF, **keys: Any) -> EngineSpec:
    model = keys.pop("model", None) or (path.name if path is not None else None)
    return EngineSpec(
        **{
            "name": "boxed",
            "kind": kind,
            "launch": "container",
            "image": "i:1",
            "model": model,
            "model_path": path,
            **keys,
        }
    )


def launched(spec: EngineSpec, workdir: Path, *, runtime: str = "docker", **environ: str) -> Launch:
    """Return the launch of the runtime's client, as a run makes it."""
    kind = adapter_for(spec.kind or "")
    box = Box(
        runtime=Runtime(argv=("/bin/docker",), name=runtime, version="1", architecture="amd64"),
        image=Image(id=ID, digest=ID, architecture="amd64"),
        name="llmparity-boxed-1",
        run="llmparity-xyz",
        port=8123,
        cache=kind.hub_models and spec.model_path is None,
        secrets=tuple(spec.env_from),
        shm_size=kind.shm_size,
    )
    return contained(kind.launch(spec, 8123, workdir, environ=environ), spec, box, environ)


def inside(launch: Launch) -> list[str]:
    """Return what is told to the image."""
    return list(launch.argv[launch.argv.index(ID) + 1 :])


def options(launch: Launch, name: str) -> list[str]:
    """Return the values of an option of ``run``."""
    words = launch.argv[: launch.argv.index(ID)]
    return [words[place + 1] for place, word in enumerate(words) if word == name]


def hub(folder: Path, *models: str) -> dict[str, str]:
    for model in models:
        (folder / f"hub/models--{model.replace('/', '--')}/snapshots/abc").mkdir(parents=True)
    return {"HF_HUB_CACHE": str(folder / "hub")}


def test_it_is_published_on_loopback_and_listens_where_its_network_is(tmp_path: Path) -> None:
    launch = launched(spec(), tmp_path)

    assert options(launch, "--publish") == ["127.0.0.1:8123:8123"]
    assert inside(launch)[inside(launch).index("--host") + 1] == "0.0.0.0"


@pytest.mark.parametrize("network", [("--network", "host"), ("--net=host",)])
def test_on_the_machines_own_network_nothing_is_published_and_it_listens_on_loopback(
    tmp_path: Path, network: tuple[str, ...]
) -> None:
    launch = launched(spec(run_args=network), tmp_path)

    assert options(launch, "--publish") == []
    assert inside(launch)[inside(launch).index("--host") + 1] == "127.0.0.1"


def test_a_model_that_is_a_file_is_mounted_read_only_under_its_name(tmp_path: Path) -> None:
    launch = launched(spec(), tmp_path)

    assert options(launch, "--mount") == [f"type=bind,source={GGUF},target=/llmparity/tiny-F16.gguf,readonly"]
    assert inside(launch)[:2] == ["--model", "/llmparity/tiny-F16.gguf"]


def test_a_file_of_several_is_mounted_with_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    first = folder / "big-00001-of-00002.gguf"
    first.write_bytes(GGUF.read_bytes())

    launch = launched(spec(path=first, context_length=512), tmp_path)

    assert options(launch, "--mount") == [f"type=bind,source={folder},target=/llmparity/parts,readonly"]
    assert inside(launch)[1] == "/llmparity/parts/big-00001-of-00002.gguf"


def test_a_folder_whose_files_are_links_is_mounted_with_what_they_lead_to(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--q--w/snapshots/abc"
    blobs = tmp_path / "models--q--w/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "1").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/1")

    launch = launched(spec("vllm", snapshot), tmp_path)

    assert options(launch, "--mount") == [
        f"type=bind,source={tmp_path / 'models--q--w'},target=/llmparity/models--q--w,readonly"
    ]
    assert inside(launch)[:2] == ["serve", "/llmparity/models--q--w/snapshots/abc"]


def test_links_that_lead_all_over_the_machine_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").symlink_to("/etc/hostname")

    with pytest.raises(LaunchError, match="holds links that lead out of it"):
        launched(spec("vllm", folder), tmp_path)


@pytest.mark.parametrize("kind", ["vllm", "sglang", "tgi", "transformers"])
def test_a_model_that_is_a_name_comes_from_the_mounted_cache(tmp_path: Path, kind: str) -> None:
    environ = hub(tmp_path, "q/w")

    launch = launched(spec(kind, None, model="q/w"), tmp_path, **environ)

    assert options(launch, "--mount") == [f"type=bind,source={tmp_path / 'hub'},target=/llmparity/hub,readonly"]
    assert launch.env["HF_HUB_CACHE"] == "/llmparity/hub"
    assert launch.env["HF_HUB_OFFLINE"] == "1"
    assert "q/w" in inside(launch)


def test_the_cache_is_written_to_where_a_model_may_be_downloaded(tmp_path: Path) -> None:
    environ = {"HF_HUB_CACHE": str(tmp_path / "hub")}

    launch = launched(spec("vllm", None, model="q/w", download=True), tmp_path, **environ)

    assert options(launch, "--mount") == [f"type=bind,source={tmp_path / 'hub'},target=/llmparity/hub"]
    assert "HF_HUB_OFFLINE" not in launch.env


def test_a_comma_in_a_path_is_no_end_of_a_field(tmp_path: Path) -> None:
    folder = tmp_path / "a,b"
    folder.mkdir()
    file = folder / "m.gguf"
    file.write_bytes(GGUF.read_bytes())

    (mount,) = options(launched(spec(path=file), tmp_path), "--mount")

    assert mount == f'type=bind,"source={file}",target=/llmparity/m.gguf,readonly'


def test_no_value_of_a_variable_is_on_the_command_line_but_those_that_steer_the_client(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"env": {"OMP_NUM_THREADS": "1", "PATH": "/opt/bin"}, "env_from": {"HF_TOKEN": "MY_TOKEN"}}

    launch = launched(spec(**keys), tmp_path)

    assert set(options(launch, "--env")) >= {"OMP_NUM_THREADS", "HF_TOKEN", "PATH=/opt/bin"}
    assert launch.env["OMP_NUM_THREADS"] == "1"
    assert "PATH" not in launch.env
    assert not any("OMP_NUM_THREADS=" in word for word in launch.argv)


def test_a_secret_cannot_be_called_as_what_the_client_goes_by(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="docker itself goes by DOCKER_HOST"):
        launched(spec(env_from={"DOCKER_HOST": "MINE"}), tmp_path)


@pytest.mark.parametrize(
    ("gpus", "runtime", "words"),
    [
        ("all", "docker", ["--gpus", "all"]),
        (2, "docker", ["--gpus", "2"]),
        ("0,3", "docker", ["--gpus", '"device=0,3"']),
        ("all", "podman", ["--device", "nvidia.com/gpu=all"]),
        (2, "podman", ["--device", "nvidia.com/gpu=0", "--device", "nvidia.com/gpu=1"]),
        ("3", "podman", ["--device", "nvidia.com/gpu=3"]),
    ],
)
def test_each_runtime_is_asked_for_gpus_in_its_words(
    tmp_path: Path, gpus: str | int, runtime: str, words: list[str]
) -> None:
    launch = launched(spec(gpus=gpus), tmp_path, runtime=runtime)

    assert " ".join(words) in " ".join(launch.argv)


def test_shared_memory_volumes_labels_and_arguments_stand_before_the_image(tmp_path: Path) -> None:
    launch = launched(spec(shm_size="8g", volumes=("/srv:/srv:ro",), run_args=("--ipc=host",)), tmp_path)

    assert options(launch, "--shm-size") == ["8g"]
    assert options(launch, "--volume") == ["/srv:/srv:ro"]
    assert launch.argv[:4] == ("/bin/docker", "run", "--name", "llmparity-boxed-1")
    assert "--label=pytest-llmparity.run=llmparity-xyz" in launch.argv
    assert launch.argv.index("--ipc=host") < launch.argv.index(ID)


@pytest.mark.parametrize(
    ("kind", "path", "entry", "begins"),
    [
        ("llamacpp", GGUF, None, ["--model", "/llmparity/tiny-F16.gguf"]),
        ("llamacpp-python", GGUF, "python3", ["-m", "llama_cpp.server", "--model", "/llmparity/tiny-F16.gguf"]),
        ("vllm", MODELS, "vllm", ["serve", "/llmparity/tiny"]),
        ("sglang", MODELS, "python3", ["-m", "sglang.launch_server", "--model-path", "/llmparity/tiny"]),
        ("tgi", MODELS, None, ["--model-id", "/llmparity/tiny", "--hostname", "0.0.0.0"]),
        ("transformers", MODELS, "transformers", ["serve", "tiny"]),
        ("mlx", MODELS, "mlx_lm.server", ["--model", "/llmparity/tiny"]),
        ("ollama", GGUF, None, ["serve"]),
    ],
)
def test_each_kind_is_started_as_its_images_are(
    tmp_path: Path, kind: str, path: Path, entry: str | None, begins: list[str]
) -> None:
    launch = launched(spec(kind, path), tmp_path)

    assert options(launch, "--entrypoint") == ([] if entry is None else [entry])
    assert inside(launch)[: len(begins)] == begins


def test_a_proxys_configuration_is_mounted(tmp_path: Path) -> None:
    config = tmp_path / "litellm.yaml"
    config.write_text("model_list: []\n")
    wanted = spec("litellm", None, model="tiny", args=("--config", str(config)))

    launch = launched(wanted, tmp_path / ".llmparity")

    assert options(launch, "--mount") == [f"type=bind,source={config},target=/llmparity/litellm.yaml,readonly"]
    assert inside(launch)[:2] == ["--config", "/llmparity/litellm.yaml"]


def test_transformers_runs_beside_its_folder_whose_name_requests_carry(tmp_path: Path) -> None:
    assert options(launched(spec("transformers", MODELS), tmp_path), "--workdir") == ["/llmparity"]


def test_ollamas_own_store_is_seen_by_a_name_and_not_by_a_file(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()

    by_name = launched(spec("ollama", None, model="qwen3:8b"), tmp_path, OLLAMA_MODELS=str(store))
    by_file = launched(spec("ollama"), tmp_path, OLLAMA_MODELS=str(store))

    assert options(by_name, "--mount") == [f"type=bind,source={store},target=/llmparity/ollama,readonly"]
    assert by_name.env["OLLAMA_MODELS"] == "/llmparity/ollama"
    assert by_name.env["OLLAMA_HOST"] == "0.0.0.0:8123"
    assert options(by_file, "--mount") == []
    assert "OLLAMA_MODELS" not in by_file.env


def test_a_command_is_a_program_in_the_image(tmp_path: Path) -> None:
    launch = launched(spec(command=("/opt/llama-server", "--verbose")), tmp_path)

    assert options(launch, "--entrypoint") == ["/opt/llama-server"]
    assert inside(launch)[:2] == ["--verbose", "--model"]


def test_it_is_removed_by_its_name_and_looked_for_by_its_label(tmp_path: Path) -> None:
    removal = launched(spec(), tmp_path).removal

    assert removal is not None
    assert [command[1] for command in removal.commands] == ["kill", "rm"]
    assert {command[-1] for command in removal.commands} == {"llmparity-boxed-1"}
    assert removal.left[-1] == "label=pytest-llmparity.name=llmparity-boxed-1"


@pytest.mark.parametrize(
    ("kind", "keys", "size"),
    [
        ("vllm", {}, ["8g"]),
        ("vllm", {"shm_size": "2g"}, ["2g"]),
        ("vllm", {"run_args": ("--ipc=host",)}, []),
        ("vllm", {"run_args": ("--shm-size", "4g")}, ["4g"]),
        ("transformers", {}, []),
    ],
)
def test_shared_memory_is_what_the_kind_needs_unless_it_is_given(
    tmp_path: Path, kind: str, keys: dict[str, Any], size: list[str]
) -> None:
    assert options(launched(spec(kind, MODELS, **keys), tmp_path), "--shm-size") == size


@pytest.mark.parametrize(
    ("kind", "variable", "value", "field", "known"),
    [
        ("llamacpp", "LLAMA_ARG_CACHE_TYPE_K", "q8_0", "kv_cache", "Q8_0/F16"),
        ("ollama", "OLLAMA_KV_CACHE_TYPE", "q4_0", "kv_cache", "q4_0"),
        ("vllm", "VLLM_ATTENTION_BACKEND", "TRITON_ATTN", "attention", "TRITON_ATTN"),
    ],
)
def test_what_is_declared_counts_the_variables_of_the_image_under_those_of_the_engine(
    kind: str, variable: str, value: str, field: str, known: str
) -> None:
    values = []
    for env in ({}, {variable: "f32"}):
        adapter = registry.make(spec(kind, env=env), "http://127.0.0.1:1", environ={})
        adapter.image_env = {variable: value}
        values.append((adapter.served() | adapter.declared() | adapter.from_files())[field].value)

    assert values[0] == known
    assert "32" in str(values[1])
