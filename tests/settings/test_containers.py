"""What may stand beside an image, and what is refused with a sentence."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from pytest_llmparity.core.errors import ConfigError, UsageError
from pytest_llmparity.settings.configuration import Places, parse_config, select
from pytest_llmparity.settings.given.contradictions import check_placed
from pytest_llmparity.settings.selection import parse_engines
from pytest_llmparity.settings.specification import EngineSpec

BOXED = 'kind = "llamacpp"\nmodel = "m.gguf"\nimage = "llama:test"\n'


def spec_of(text: str, folder: Path = Path("/work")) -> EngineSpec:
    config = parse_config(f"[engines.a]\n{text}", source="llmparity.toml", table=())
    there = ("m.gguf", "models")
    places = Places(folders=(folder,), exists=lambda path: path.name in there, home=None)
    (spec,) = select(parse_engines(["a"]), config, places=places, config_places=places, recordings=folder)
    return spec


def test_an_image_means_a_container() -> None:
    spec = spec_of(
        BOXED
        + 'runtime = "podman"\nruntime_args = ["--storage-driver", "vfs"]\nrun_args = ["--ipc=host"]\ngpus = 2\n'
        + 'shm_size = "8g"\nvolumes = ["./models:/models:ro", "cache:/root/.cache"]\ncommand = ["llama-server"]\n'
    )

    assert spec.launch == "container"
    assert spec.launched
    assert spec.volumes == ("/work/models:/models:ro", "cache:/root/.cache")
    assert (spec.gpus, spec.shm_size, spec.command) == (2, "8g", ("llama-server",))
    assert spec.model_path == Path("/work/m.gguf")


def test_a_program_of_the_image_is_no_path_of_this_machine() -> None:
    assert spec_of(BOXED + 'command = "./llama-server --verbose"').command == ("./llama-server", "--verbose")


def test_a_name_of_ollamas_with_an_image_is_no_daemon_that_is_running() -> None:
    spec = spec_of('kind = "ollama"\nmodel = "qwen3:8b"\nimage = "ollama/ollama:0.12"')

    assert not spec.daemon


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            BOXED + 'requires = "x==1"',
            "requires runs the engine with a Python of this machine, and an image brings its own",
        ),
        (BOXED + 'python = "python3"', "has python and image"),
        (BOXED + 'launch = "process"', "has launch 'process' and an image"),
        ('kind = "llamacpp"\nmodel = "m.gguf"\nlaunch = "container"', "has launch 'container' and no image"),
        ('kind = "llamacpp"\nmodel = "m.gguf"\nrun_args = ["-e"]', "has run_args, which only say how an image is run"),
        ('base_url = "http://h:1"\nimage = "i:1"', "has image, which only an engine we start can use, and a base_url"),
        ('kind = "lmstudio"\nmodel = "m"\nimage = "i:1"', "an engine of kind 'lmstudio' is attached to, never started"),
        (BOXED + 'volumes = ["nowhere/x:/x"]', "volumes is 'nowhere/x', which is not there"),
        (BOXED + 'volumes = ["/x"]', "a volume is written FOLDER:/PLACE"),
        (BOXED + "gpus = 0", "write 'all', how many (2), or which ones ('0,1')"),
        (BOXED + 'gpus = "first"', "write 'all'"),
        (BOXED + 'shm_size = "much"', "write a size such as '8g'"),
        (BOXED.replace("llama:test", "llama test"), "an image is written NAME:TAG or NAME@sha256:"),
        (BOXED.replace("llama:test", "-v"), "an image is written"),
        (BOXED.replace("llama:test", "llama@sha256:12"), "an image is written"),
    ],
)
def test_a_wrong_container_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        spec_of(text)

    assert words in str(error.value)


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ('"-p", "8000:8000"', "published by us, on loopback only"),
        ('"-p8000:8000"', "published by us, on loopback only"),
        ('"--publish=0.0.0.0:80:80"', "published by us, on loopback only"),
        ('"-P"', "published by us, on loopback only"),
        ('"-P=true"', "published by us, on loopback only"),
        ('"-dp", "0.0.0.0:80:80"', "engine's log"),
        ('"-qp", "0.0.0.0:80:80"', "published by us, on loopback only"),
        ('"-qp80:80"', "published by us, on loopback only"),
        ('"-qp=80:80"', "published by us, on loopback only"),
        ('"-itp", "80:80"', "nobody sits at it"),
        ('"-dit"', "engine's log"),
        ('"-qP"', "published by us, on loopback only"),
        ('"--network", "pasta:-t,8080"', "published by us, on loopback only"),
        ('"--net=pasta:--ipv4-only,--tcp-ports,auto"', "published by us, on loopback only"),
        ('"--pod", "mine"', "a pod has ports of its own"),
        ('"--pod=new:mine"', "a pod has ports of its own"),
        ('"--name", "mine"', "we name it"),
        ('"-d"', "engine's log"),
        ('"--rm"', "how it ended"),
        ('"--restart=always"', "not started again"),
        ('"--entrypoint", "sh"', "said by command"),
    ],
)
def test_what_is_ours_has_no_place_among_the_arguments_of_run(word: str, why: str) -> None:
    with pytest.raises(ConfigError) as error:
        spec_of(BOXED + f"run_args = [{word}]")

    assert why in str(error.value)


@pytest.mark.parametrize(
    "words",
    ['"-e", "HF_TOKEN=hf_x"', '"--env=HF_TOKEN=hf_x"', '"-eHF_TOKEN=hf_x"', '"-qe", "HF_TOKEN=hf_x"'],
)
def test_a_key_is_never_on_a_command_line(words: str) -> None:
    with pytest.raises(ConfigError) as error:
        spec_of(BOXED + f"run_args = [{words}]")

    assert "HF_TOKEN as literal text (not shown)" in str(error.value)
    assert "hf_x" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            '"-e", "LETTERS=sk-abcdef"',
            "has LETTERS as literal text (not shown), which everybody on the machine can read; "
            'write env = { LETTERS = { env = "VARIABLE" } }',
        ),
        ('"--label=x=sk-abcdef"', "holds what looks like a key (not shown)"),
    ],
)
def test_what_looks_like_a_key_is_none_the_less_one_whatever_it_is_called(words: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        spec_of(BOXED + f"run_args = [{words}]")

    assert told in str(error.value)
    assert "sk-" not in str(error.value)


def test_what_is_no_key_may_be_there() -> None:
    words = ("-e", "OMP_NUM_THREADS=4", "--env", "HF_TOKEN", "--privileged", "--pid=host", "-v/p:/d", "-qm4g", "-utipd")

    assert spec_of(BOXED + f"run_args = {list(words)}").run_args == words


@pytest.mark.parametrize(
    ("keys", "refused"),
    [
        ('gpus = "all"', "names the GPUs of its container by gpus"),
        ('run_args = ["--gpus=all"]', "by run_args"),
        ('num_gpus = 1\nrun_args = ["--device", "nvidia.com/gpu=all"]', "by run_args"),
        ('gpus = "all"\nnum_gpus = 1', ""),
        ("", ""),
    ],
)
def test_on_a_cluster_the_gpus_of_a_container_are_those_it_is_given_there(keys: str, refused: str) -> None:
    spec = spec_of(BOXED + keys)
    check_placed([spec], executor="local", residency="together")

    with contextlib.ExitStack() as stack:
        if refused:
            stack.enter_context(pytest.raises(UsageError, match=refused))
        check_placed([spec], executor="ray", residency="together")
