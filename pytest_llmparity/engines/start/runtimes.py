"""Docker and podman, asked by their command lines: which one answers, and what it knows of an image.

Seen with podman 4.3.1 and Docker 20.10 (client 28.2) on Linux. A Docker on macOS or Windows was not tried.
"""

from __future__ import annotations

import json
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_llmparity.settings.specification import EngineSpec

KNOWN: Final = ("docker", "podman")
"""What ``runtime = "auto"`` tries, in this order."""
ANSWER_S: Final = 30.0
"""What a runtime gets to say what it is or knows; one whose daemon hangs answers never."""
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_ELSEWHERE: Final = re.compile(r"(tcp|ssh|https?)://")
_NAMES_IT: Final = {"docker": ("DOCKER_HOST", ("-H", "--host")), "podman": ("CONTAINER_HOST", ("--url",))}
"""The variable and the options by which each is told the address of the one that starts containers."""
SHORT: Final = len("-H")
_UNKNOWN: Final = re.compile(r"no such image|image not known|no such object|not found", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A runtime that answered. ``argv`` is how each of its command lines begins.

    ``name`` is ``docker`` or ``podman``, whose words for GPUs are not the same. ``architecture`` is that of the machine
    it runs containers on (``amd64``), empty where it does not say.
    """

    argv: tuple[str, ...]
    name: str
    version: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def command(self, *words: str) -> str:
        """Return a command line of it as a person types it, without the folders of its program."""
        program = self.argv[0].rpartition("/")[2]
        return shlex.join([program, *self.argv[1:], *words])


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that is there. ``id`` names it for the runtime; ``digest`` is what people pin.

    The digest is that of its repository, which is the same on every machine; of an image that was built or imported
    here, and never pushed, Docker has none, and it is that of its configuration, the id. ``env`` are the variables that
    a container of it has unless it is given others.
    """

    id: str
    digest: str
    architecture: str
    env: Mapping[str, str] = field(default_factory=dict)


def runtime_of(spec: EngineSpec, environ: Mapping[str, str]) -> Runtime:
    """Return the runtime of an engine: the named one, else the first that answers.

    ``LaunchError`` says of each that was tried why it cannot be used: it is not there, its daemon does not run, one
    has no permission.
    """
    wanted = spec.runtime or "auto"
    refused = []
    for name in KNOWN if wanted == "auto" else (wanted,):
        path = shutil.which(name, path=environ.get("PATH"))
        if path is None:
            refused.append(f"{name} is not {'there' if '/' in name else 'on PATH'}")
            continue
        runtime, why = _asked([path, *spec.runtime_args], environ)
        if runtime is not None:
            _refuse_elsewhere(spec, runtime, environ)
            return runtime
        refused.append(f"{name} does not answer: {why}")
    advice = "Install Docker or podman, start its daemon, or name the program by runtime."
    raise spec.launch_error(f"there is no container runtime for its image. {'; '.join(refused)}. {advice}")


def _asked(argv: list[str], environ: Mapping[str, str]) -> tuple[Runtime | None, str]:
    """Return the runtime behind a command line, or why it is none."""
    code, out, err = run([*argv, "version", "--format", "{{json .}}"], environ)
    try:
        about = json.loads(out)
    except ValueError:
        about = {}
    if code != 0 or not isinstance(about, dict):
        return None, _advised(err)
    client, server = about.get("Client") or {}, about.get("Server") or {}
    if "OsArch" in client:  # podman's word; it needs no server
        architecture = str(client["OsArch"]).rpartition("/")[2]
        version = str(client.get("Version") or "")
        return Runtime(argv=tuple(argv), name="podman", version=version, architecture=architecture), ""
    if not server:
        return None, _advised(err)
    if not {"Version", "Arch"} <= server.keys():
        return None, "what it says of its server is neither Docker's nor podman's (nerdctl is not served)"
    return Runtime(argv=tuple(argv), name="docker", version=server["Version"], architecture=server["Arch"]), ""


def _advised(err: str) -> str:
    """Return a runtime's own words, and what helps where they are known."""
    words = last_line(err) or "it says nothing"
    if "permission denied" in err.lower():
        return f"{words} (you may not use its socket: join the group docker, or use podman, which needs no daemon)"
    return words


def _refuse_elsewhere(spec: EngineSpec, runtime: Runtime, environ: Mapping[str, str]) -> None:
    """Refuse a runtime that starts containers on another machine, or may: our loopback is not its.

    Docker is asked which address it goes by, whatever it has it from (``-H``, ``--context``, ``DOCKER_HOST``, ``docker
    context use``). podman is asked whether it only talks to a service, which is on this machine for certain where its
    address is a socket (``--url``, ``CONTAINER_HOST``).
    """
    variable, options = _NAMES_IT[runtime.name]
    given = [_value_of(spec.runtime_args, option) for option in options] + [environ.get(variable, "")]
    address = next((text for text in given if text), "")
    if runtime.name == "docker":
        code, out, _ = run(
            [*runtime.argv, "context", "inspect", "--format", "{{json .Endpoints.docker.Host}}"], environ
        )
        address = out.strip().strip('"') if code == 0 and out.strip() else address
        why = f"Docker goes by {_origin(address)}"
    else:
        _, out, _ = run([*runtime.argv, "info", "--format", "{{.Host.ServiceIsRemote}}"], environ)
        if out.strip() == "true" and not address and platform.system() == "Linux":
            address = "ssh://"  # of a connection that its own configuration names
        why = f"podman only talks to a service ({', '.join((*options, '--connection', variable))})"
    if _ELSEWHERE.match(address):
        raise spec.launch_error(
            f"{why}, which starts containers on another machine as far as can be told, and an engine is published on "
            "that machine's loopback only. Let the runtime be this machine's, or start the engine there and give its "
            "base_url."
        )


def _value_of(words: Sequence[str], option: str) -> str:
    """Return what the arguments of a runtime say by an option, an empty text where they do not."""
    for place, word in enumerate(words):
        if word == option:
            return next(iter(words[place + 1 :]), "")
        if word.startswith(f"{option}=") or (len(option) == SHORT and word.startswith(option)):
            return word.removeprefix(option).removeprefix("=")
    return ""


def _origin(address: str) -> str:
    """Return an address without a name or password before its host."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def image_of(spec: EngineSpec, runtime: Runtime, environ: Mapping[str, str]) -> Image | None:
    """Return the image that an engine names, ``None`` where it is not on this machine.

    ``LaunchError`` where the runtime cannot tell, or the image is for other processors and nothing emulates them.
    """
    assert spec.image is not None
    code, out, err = run([*runtime.argv, "image", "inspect", spec.image], environ)
    if code != 0:
        if _UNKNOWN.search(err):
            return None
        raise spec.launch_error(f"{runtime.name} cannot tell whether it has {spec.image}: {_advised(err)}")
    (about, *_) = json.loads(out)
    image = Image(
        id=str(about["Id"]),
        digest=_digest(spec.image, about, pinned=str(spec.pin.get("image_digest", ""))),
        architecture=str(about.get("Architecture") or ""),
        env=dict(str(entry).partition("=")[::2] for entry in (about.get("Config") or {}).get("Env") or ()),
    )
    here = runtime.architecture or _ARCHITECTURES.get(platform.machine(), platform.machine())
    asked = any(word.partition("=")[0] == "--platform" for word in spec.run_args)
    if image.architecture and here and image.architecture != here and not asked:
        raise spec.launch_error(
            f"{spec.image} is for {image.architecture} and this machine is {here}. Fetch the one for it with: "
            f"{runtime.command('pull', '--platform', f'linux/{here}', spec.image)} "
            f'(or give run_args = ["--platform", "linux/{image.architecture}"] where that is emulated)'
        )
    return image


def pull_of(spec: EngineSpec, runtime: Runtime) -> str:
    """Return the command that fetches an engine's image, for a person."""
    return runtime.command("pull", spec.image or "")


def _digest(name: str, about: Mapping[str, Any], *, pinned: str = "") -> str:
    """Return the digest of an image in the repository that it is named by, else its own.

    podman lists every digest under which it ever got the same image beside every repository of it, in the order of
    their letters. Of several the one that is ``pinned`` counts; else, of an image that was built or imported here too,
    one that is not of that, which ``Digest`` is; else ``Digest``.
    """
    _, at, digest = name.partition("@")
    if at:
        return digest
    repository = re.sub(r":[^:/]+$", "", name).removeprefix("docker.io/")
    digests = [str(entry) for entry in about.get("RepoDigests") or ()]
    ours = [entry for entry in digests if f"/{entry.partition('@')[0]}".endswith(f"/{repository}")]
    own = str(about.get("Digest") or about["Id"])
    several = [entry.rpartition("@")[2] for entry in ours] or [own]
    if pinned in several:
        return pinned
    if len(several) > 1 and own in several:
        made_here = any(entry.startswith("localhost/") for entry in digests) and not repository.startswith("localhost/")
        several = [digest for digest in several if digest != own] if made_here else [own]
    return several[0] if ":" in several[0] else f"sha256:{several[0]}"


def run(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[int, str, str]:
    """Run a short command of a runtime; return its exit code and what it wrote, -1 where it does not end or start."""
    try:
        ended = subprocess.run(
            list(argv),
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ANSWER_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return (
            -1,
            "",
            f"no answer within {ANSWER_S:g} s" if isinstance(error, subprocess.TimeoutExpired) else str(error),
        )
    return ended.returncode, ended.stdout.decode("utf-8", "replace"), ended.stderr.decode("utf-8", "replace")


def last_line(text: str) -> str:
    """Return the last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Run '")]
    return lines[-1].removeprefix("Error: ") if lines else ""
