"""What a keeper that was killed leaves: its folder with the socket, containers, and processes that carry its marker.

Its own pytest clears that away at its end. Where that was killed too, whoever starts the next keeper does.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PREFIX: Final = "llmparity-"
"""How the names of keepers' folders begin."""
SOCKET: Final = "socket"
COMMAND_S: Final = 30.0
"""What one command of a runtime gets; one whose daemon hangs answers never."""
_AGAIN_S: Final = 0.2
_CLEARINGS: Final = 10


def sweep(folders: Sequence[Path] | None = None) -> list[str]:
    """Clear away after keepers of this user that are no more; return the names of their folders.

    They are looked for in ``folders``, by default where :meth:`Keeper.spawn` makes them. What cannot be removed now, as
    a daemon does not run, stays with its folder, for the next time.
    """
    places = folders or {Path(tempfile.gettempdir()), Path("/tmp")}  # noqa: S108 - where spawn makes them
    refused = [folder for place in places for folder in place.glob(f"{PREFIX}*") if _refuses(folder)]
    if not refused:
        return []
    time.sleep(_AGAIN_S)  # one that is just starting has its socket and does not listen yet
    return [folder.name for folder in refused if _refuses(folder) and clear(folder)]


def clear(folder: Path) -> bool:
    """Remove containers and processes of a keeper that is no more, then its folder.

    ``False`` where a container stays; its folder does too then.
    """
    from pytest_llmparity.keeper.server import REMOVALS

    gone = True
    with contextlib.suppress(FileNotFoundError):  # it never started a container
        for line in (folder / REMOVALS).read_text("utf-8").splitlines():
            gone = _removed(json.loads(line)) and gone
    _kill(folder.name)
    if gone:
        shutil.rmtree(folder, ignore_errors=True)
    return gone


def _refuses(folder: Path) -> bool:
    """Tell whether this is a folder of ours with a socket on which nobody listens."""
    try:
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(COMMAND_S)
            line.connect(str(folder / SOCKET))
    except ConnectionRefusedError:
        return True
    except OSError:  # no socket, or one we may not ask
        return False
    return False


def _removed(removal: dict[str, list[list[str]] | list[str]]) -> bool:
    """Run the commands that remove a container; tell whether it is gone."""
    for command in removal["commands"]:
        _run(list(command))
    ended = _run([str(word) for word in removal["left"]])
    return ended is not None and ended.returncode == 0 and not ended.stdout.strip()


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes] | None:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_S, check=False, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _kill(label: str) -> None:
    """Kill every process of this user that carries the marker of a keeper."""
    import psutil

    from pytest_llmparity.keeper.tree import MARKER

    for _ in range(_CLEARINGS):
        ours = []
        for other in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):  # gone, or another user's
                if other.environ().get(MARKER, "").rpartition(".")[0] == label:
                    other.kill()
                    ours.append(other)
        if not ours:
            break
        psutil.wait_procs(ours, timeout=1.0)
