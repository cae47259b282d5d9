"""Which runtime is taken and what it is asked, with the words of Docker 28.2 and podman 4.3.1."""

from __future__ import annotations

import contextlib
import json
import platform
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.core.errors import LaunchError
from pytest_llmparity.engines.start.runtimes import image_of, pull_of, runtime_of
from pytest_llmparity.settings.specification import EngineSpec
from tests.doubles.runtime import FakeRuntime, image

NO_DAEMON = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n"
NO_PERMISSION = (
    "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: "
    'Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.50/version": dial unix /var/run/docker.sock: connect: '
    "permission denied\n"
)
DIGEST = "sha256:" + 64 * "a"
HERE = "sha256:" + 64 * "0"
"""Digest of an image as it was built on this machine."""


def spec(**keys: Any) -> EngineSpec:
    return EngineSpec(**{"name": "boxed", "launch": "container", "image": "llama:test", **keys})


def environ(folder: Path) -> dict[str, str]:
    return {"PATH": str(folder)}


def test_docker_is_taken_where_both_answer(tmp_path: Path) -> None:
    FakeRuntime(tmp_path, "podman")
    docker = FakeRuntime(tmp_path, "docker")

    runtime = runtime_of(spec(runtime_args=("--debug",)), environ(tmp_path))

    assert str(runtime) == "docker 20.10.24"
    assert runtime.argv == (str(docker.program), "--debug")


def test_podman_is_taken_where_dockers_daemon_does_not_run(tmp_path: Path) -> None:
    FakeRuntime(tmp_path, "docker", version=[1, '{"Client":{"Version":"28.2.2"},"Server":null}', NO_DAEMON])
    FakeRuntime(tmp_path, "podman")

    assert str(runtime_of(spec(), environ(tmp_path))) == "podman 4.3.1"


def test_a_program_that_is_called_docker_and_is_podman_is_told_by_what_it_says(tmp_path: Path) -> None:
    says = FakeRuntime(tmp_path, "podman").says["version"]
    FakeRuntime(tmp_path, "docker", version=says)

    assert runtime_of(spec(), environ(tmp_path)).name == "podman"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (NO_DAEMON, "Is the docker daemon running?"),
        (NO_PERMISSION, "you may not use its socket: join the group docker, or use podman"),
    ],
)
def test_a_runtime_that_does_not_answer_is_told_in_its_words_with_what_helps(
    tmp_path: Path, words: str, told: str
) -> None:
    FakeRuntime(tmp_path, "docker", version=[1, '{"Server":null}', words])

    with pytest.raises(LaunchError) as error:
        runtime_of(spec(), environ(tmp_path))

    assert told in str(error.value)
    assert "podman is not on PATH" in str(error.value)


def test_a_program_that_answers_as_neither_does_is_refused(tmp_path: Path) -> None:
    components = [{"Name": "containerd", "Version": "v1.7.18"}]
    words = json.dumps({"Client": {"Version": "v1.7.6", "Arch": "amd64"}, "Server": {"Components": components}})
    nerdctl = FakeRuntime(tmp_path, "nerdctl", version=[0, words, ""])

    with pytest.raises(LaunchError, match="neither Docker's nor podman's"):
        runtime_of(spec(runtime=str(nerdctl.program)), environ(tmp_path))


def test_the_variables_of_an_image_are_known(tmp_path: Path) -> None:
    FakeRuntime(tmp_path, "docker", image=image(Config={"Env": ["PATH=/bin", "LLAMA_ARG_CACHE_TYPE_K=q8_0", "ODD"]}))
    runtime = runtime_of(spec(), environ(tmp_path))

    known = image_of(spec(), runtime, environ(tmp_path))

    assert known is not None
    assert known.env == {"PATH": "/bin", "LLAMA_ARG_CACHE_TYPE_K": "q8_0", "ODD": ""}


def test_one_that_is_named_and_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"/nowhere/docker is not there"):
        runtime_of(spec(runtime="/nowhere/docker"), environ(tmp_path))


@pytest.mark.parametrize("endpoint", ["tcp://10.0.0.1:2375", "ssh://me:secret@far"])
def test_a_docker_whose_context_is_another_machine_is_refused_because_loopback_is_not_ours(
    tmp_path: Path, endpoint: str
) -> None:
    FakeRuntime(tmp_path, "docker", context=[0, f'"{endpoint}"\n', ""])

    with pytest.raises(
        LaunchError, match=r"Docker goes by (tcp|ssh)://(10|far).* starts containers on another machine"
    ):
        runtime_of(spec(runtime_args=("--context", "far")), environ(tmp_path))


@pytest.mark.parametrize("args", [("-H", "tcp://h:1"), ("-H=tcp://h:1",), ("-Htcp://h:1",), ("--host=ssh://h",), ()])
def test_one_that_knows_no_contexts_is_told_by_its_arguments_and_variable(
    tmp_path: Path, args: tuple[str, ...]
) -> None:
    FakeRuntime(tmp_path, "docker", context=[1, "", "docker: 'context' is not a docker command.\n"])
    told = environ(tmp_path) | ({} if args else {"DOCKER_HOST": "tcp://h:1"})

    with pytest.raises(LaunchError, match=r"Docker goes by (tcp|ssh)://h"):
        runtime_of(spec(runtime_args=args), told)


@pytest.mark.parametrize("endpoint", ["unix:///var/run/docker.sock", "npipe:////./pipe/docker_engine", ""])
def test_a_docker_of_this_machine_is_taken_whatever_a_variable_that_it_does_not_go_by_says(
    tmp_path: Path, endpoint: str
) -> None:
    FakeRuntime(tmp_path, "docker", context=[0, f'"{endpoint}"\n', ""])

    assert runtime_of(spec(runtime_args=("--context=here",)), environ(tmp_path)).name == "docker"


@pytest.mark.skipif(platform.system() != "Linux", reason="elsewhere podman is always a service of a virtual machine")
@pytest.mark.parametrize(
    ("args", "variable", "refused"),
    [
        (("--remote",), "", True),
        (("--connection", "far"), "", True),
        (("--url", "ssh://far/podman.sock"), "", True),
        ((), "tcp://far:1", True),
        (("--url=unix:///run/podman.sock",), "", False),
        ((), "unix:///run/podman.sock", False),
    ],
)
def test_a_podman_that_talks_to_a_service_is_taken_by_a_socket_only(
    tmp_path: Path, args: tuple[str, ...], variable: str, refused: bool
) -> None:
    FakeRuntime(tmp_path, "podman", info=[0, "true\n", ""])
    told = environ(tmp_path) | ({"CONTAINER_HOST": variable} if variable else {})

    with contextlib.ExitStack() as stack:
        if refused:
            stack.enter_context(
                pytest.raises(LaunchError, match=r"podman only talks to a service \(--url, --connection")
            )
        assert runtime_of(spec(runtime_args=args), told).name == "podman"


@pytest.mark.parametrize(
    ("name", "about", "digest"),
    [
        (f"vllm/vllm-openai@{DIGEST}", {}, DIGEST),
        ("vllm/vllm-openai:v1", {"RepoDigests": [f"vllm/vllm-openai@{DIGEST}"]}, DIGEST),
        (
            "vllm/vllm-openai:v1",
            {"RepoDigests": [f"mirror.local/v@sha256:{64 * 'b'}", f"docker.io/vllm/vllm-openai@{DIGEST}"]},
            DIGEST,
        ),
        ("docker.io/vllm/vllm-openai:v1", {"RepoDigests": [f"vllm/vllm-openai@{DIGEST}"]}, DIGEST),
        # What another repository calls this image is not its name.
        ("llama:test", {"RepoDigests": [f"ollama@sha256:{64 * 'b'}"], "Digest": DIGEST}, DIGEST),
        ("llama:test", {"RepoDigests": [], "Digest": DIGEST}, DIGEST),
        (
            "r.local/llama:v1",
            {
                "RepoDigests": [
                    f"{of}@{digest}" for of in ("localhost/llama", "r.local/llama") for digest in (HERE, DIGEST)
                ],
                "Digest": HERE,
            },
            DIGEST,
        ),
        (
            "r.local/llama:v1",
            {"RepoDigests": [f"r.local/llama@{HERE}", f"r.local/llama@{DIGEST}"], "Digest": DIGEST},
            DIGEST,
        ),
        ("llama:test", {"RepoDigests": []}, "sha256:" + 64 * "1"),
        ("llama:test", {"RepoDigests": None, "Id": 64 * "c"}, "sha256:" + 64 * "c"),
    ],
)
def test_the_digest_is_the_repositorys_else_the_images_own(
    tmp_path: Path, name: str, about: dict[str, Any], digest: str
) -> None:
    FakeRuntime(tmp_path, "docker", image=image(**about))
    runtime = runtime_of(spec(), environ(tmp_path))

    known = image_of(spec(image=name), runtime, environ(tmp_path))

    assert known is not None
    assert known.digest == digest


@pytest.mark.parametrize(
    "words",
    [
        "Error response from daemon: no such image: nosuch:image: No such image: nosuch:image\n",
        "Error: inspecting object: nosuch:image: image not known\n",
    ],
)
def test_an_image_that_is_not_there_is_none_and_has_a_command_that_fetches_it(tmp_path: Path, words: str) -> None:
    FakeRuntime(tmp_path, "docker", image=[1, "[]", words])
    runtime = runtime_of(spec(runtime_args=("--context", "my own")), environ(tmp_path))

    assert image_of(spec(), runtime, environ(tmp_path)) is None
    assert pull_of(spec(), runtime) == "docker --context 'my own' pull llama:test"


def test_a_runtime_that_cannot_tell_is_no_missing_image(tmp_path: Path) -> None:
    words = 'Error: database storage graph driver "" does not match our storage graph driver "vfs"\n'
    FakeRuntime(tmp_path, "podman", image=[125, "", words])
    runtime = runtime_of(spec(), environ(tmp_path))

    with pytest.raises(LaunchError, match="podman cannot tell whether it has llama:test: database storage"):
        image_of(spec(), runtime, environ(tmp_path))


def test_an_image_for_other_processors_is_refused_unless_they_are_asked_for(tmp_path: Path) -> None:
    FakeRuntime(tmp_path, "docker", image=image(Architecture="arm64"))
    runtime = runtime_of(spec(), environ(tmp_path))

    with pytest.raises(LaunchError, match=r"is for arm64 and this machine is amd64.*--platform linux/amd64 llama:test"):
        image_of(spec(), runtime, environ(tmp_path))
    assert image_of(spec(run_args=("--platform=linux/arm64",)), runtime, environ(tmp_path)) is not None


def test_of_several_digests_of_a_repository_the_pinned_one_counts(tmp_path: Path) -> None:
    digests = [f"r.local/llama@{digest}" for digest in (HERE, DIGEST)]
    FakeRuntime(tmp_path, "docker", image=image(RepoDigests=digests, Digest=HERE))
    pinned = spec(image="r.local/llama:v1", pin={"image_digest": DIGEST})

    known = image_of(pinned, runtime_of(spec(), environ(tmp_path)), environ(tmp_path))

    assert known is not None
    assert known.digest == DIGEST
