"""A container runtime that is a small program, for what a real one cannot be made to say on any machine.

Its images, containers and words are files in a folder. A container is a file with the pid of what ``run`` started.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Final

PROGRAM: Final = """#!{python}
import json, os, pathlib, signal, subprocess, sys
home = pathlib.Path({home!r})
words = sys.argv[1:]
with open(home / "asked.jsonl", "a") as asked:
    print(json.dumps({{"argv": words, "env": dict(os.environ)}}), file=asked)
says = json.loads((home / "says.json").read_text())
verbs = ("version", "context", "info", "image", "pull", "run", "inspect", "kill", "rm", "ps")
verb = next((word for word in words if word in verbs), "")
code, out, err = says.get(verb, [0, "", ""])
boxes = home / "boxes"
if verb == "run":
    name = words[words.index("--name") + 1]
    if code == 0:
        told = words[words.index(next(word for word in words if word.startswith("sha256:"))) + 1 :]
        engine = subprocess.Popen([*says["engine"], *told], start_new_session=True)
        (boxes / name).write_text(str(engine.pid))
        signal.signal(signal.SIGTERM, lambda *_: engine.terminate())
        code = engine.wait()
        code = 128 - code if code < 0 else code
elif verb == "kill" and code == 0:
    try:
        os.kill(int((boxes / words[-1]).read_text()), signal.SIGKILL)
    except (OSError, ValueError):
        code, err = 1, "is not running"
elif verb == "rm" and code == 0:
    (boxes / words[-1]).unlink(missing_ok=True)
elif verb == "ps" and code == 0:
    name = words[-1].rpartition("=")[2]
    out = name if (boxes / name).exists() else ""
elif verb == "pull" and code == 0:
    says["image"] = says["pulled"]
    (home / "says.json").write_text(json.dumps(says))
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""
DOCKER: Final = {"Client": {"Version": "28.2.2"}, "Server": {"Version": "20.10.24", "Arch": "amd64"}}
"""What ``docker version`` says, as far as anybody reads it."""
PODMAN: Final = {"Client": {"Version": "4.3.1", "OsArch": "linux/amd64"}}


class FakeRuntime:
    """The program ``name`` in ``folder``. ``says`` has exit code, output and complaints by the command's verb."""

    def __init__(self, folder: Path, name: str = "docker", **says: Any) -> None:
        self.home = folder / f"{name}-home"
        (self.home / "boxes").mkdir(parents=True)
        self.program = folder / name
        self.program.write_text(PROGRAM.format(python=sys.executable, home=str(self.home)))
        self.program.chmod(0o755)
        about = PODMAN if name == "podman" else DOCKER
        self.says: dict[str, Any] = {"version": [0, json.dumps(about), ""], "image": image(), **says}
        self.save()

    def save(self) -> None:
        """Let it say what ``says`` holds now."""
        (self.home / "says.json").write_text(json.dumps(self.says))

    @property
    def asked(self) -> list[dict[str, Any]]:
        """Every command so far: ``argv`` and ``env``."""
        log = self.home / "asked.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    @property
    def boxes(self) -> list[str]:
        """The containers there are."""
        return os.listdir(self.home / "boxes")


def image(**about: Any) -> list[Any]:
    """Return what ``image inspect`` answers about an image that is there."""
    known = {"Id": "sha256:" + 64 * "1", "RepoDigests": [], "Architecture": "amd64", **about}
    return [0, json.dumps([known]), ""]
