"""What a keeper that was killed leaves: its folder with the socket, containers, and processes that carry its marker.

Its own pytest clears that away at its end. Where that was killed too, whoever starts the next keeper does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec

PREFIX: Final = "llmparity-"
"""How the names of keepers' folders begin."""
SOCKET: Final = "socket"
OWNER: Final = "owner"
"""The file beside the socket that says whose keeper it is."""
SWEEP_S: Final = 10.0
"""What clearing up after others may cost a start, however much there is."""
CLEAR_S: Final = 30.0
"""What clearing up after one's own keeper may cost."""
_CONNECT_S: Final = 0.2
_LAST_S: Final = 3.0
"""What of the time is kept for processes and for a look at what is left."""
_KILLED_S: Final = 1.0

Command = Annotated[list[str], msgspec.Meta(min_length=1)]


class RemovalEntry(msgspec.Struct, frozen=True, kw_only=True):
    """How a container is removed: ``commands`` do it, ``left`` prints something as long as it is there.

    ``env`` has those of :data:`STEERING` with which its runtime was asked for it.
    """

    commands: list[Command]
    left: Command
    env: dict[str, str]


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """The process a keeper lives for. ``began`` tells it from a later one of the same ``pid``.

    ``host`` and ``boot`` are of the machine, ``namespace`` is where its pid counts (Linux).
    """

    pid: int
    began: str
    host: str
    boot: str
    namespace: str


def note_owner(folder: Path) -> None:
    """Note in the folder of a new keeper that it belongs to this process. ``OSError`` where that cannot be written."""
    (folder / OWNER).write_bytes(msgspec.json.encode(_this_process()))


def sweep(folders: Sequence[Path] | None = None) -> list[str]:
    """Clear away after keepers of this user that are no more; return the names of their folders.

    They are looked for in ``folders``, by default where :meth:`Keeper.spawn` makes them. A folder is touched only where
    it says who its owner was, that was on this machine since it was booted, it is no more, and nobody listens at the
    socket. What cannot be removed now, as a daemon does not run, stays with its folder, for the next time. It takes
    :data:`SWEEP_S` at most and raises nothing: a leftover hinders no start.
    """
    until = time.monotonic() + SWEEP_S
    try:
        places = folders or {Path(tempfile.gettempdir()), Path("/tmp")}  # noqa: S108 - where spawn makes them
        here = _this_process()
        left = [folder for place in places for folder in sorted(place.glob(f"{PREFIX}*")) if _is_left(folder, here)]
        return [folder.name for folder in _cleared(left, until)] if left else []
    except Exception:  # noqa: BLE001 - whatever it is, the engines of this run can be started
        return []


def clear(folder: Path) -> bool:
    """Remove containers and processes of a keeper that is no more, then its folder; return whether all of it is gone.

    ``False`` where a container stays, or may stay as its note cannot be read; the folder does too then.
    """
    return bool(_cleared([folder], time.monotonic() + CLEAR_S))


# whose it is ---------------------------------------------------------------------------------------------------------


def _this_process() -> Owner:
    """Return this process as the owner of a keeper; what the system does not tell is empty."""
    boot = namespace = ""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        with contextlib.suppress(OSError):
            namespace = os.readlink("/proc/self/ns/pid")
    else:  # never tried; after a change of the clock it is another one, and what was left stays
        import psutil

        boot = str(psutil.boot_time())
    began = _began(os.getpid()) or ""
    return Owner(pid=os.getpid(), began=began, host=socket.gethostname(), boot=boot, namespace=namespace)


def _began(pid: int) -> str | None:
    """Return when a process began, as its system counts; ``None`` where there is none that runs.

    Linux' own count of ticks since the boot (proc_pid_stat(5)): seconds since 1970 move with the clock.
    """
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in (b"Z", b"X") else fields[19].decode("ascii")
    else:
        import psutil

        try:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else repr(process.create_time())
        except psutil.NoSuchProcess:
            return None
        except psutil.Error as error:
            raise PermissionError(str(error)) from error


def _is_left(folder: Path, here: Owner) -> bool:
    """Tell whether this is the folder of a keeper that is no more, nor its owner; in any doubt it is not."""
    try:
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
            return False
        owner = msgspec.json.decode((folder / OWNER).read_bytes(), type=Owner)
        if not owner.boot or not owner.began:
            return False
        if (owner.host, owner.boot, owner.namespace) != (here.host, here.boot, here.namespace):
            return False  # its pid is another process here, and a socket of another machine always refuses
        return _began(owner.pid) != owner.began and _refuses(folder / SOCKET)
    except (OSError, ValueError, msgspec.MsgspecError):
        return False


def _refuses(path: Path) -> bool:
    """Tell whether there is a socket on which nobody listens; a keeper's listens as soon as it has this name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(_CONNECT_S)
        try:
            line.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False


# clearing away -------------------------------------------------------------------------------------------------------


def _cleared(folders: Sequence[Path], until: float) -> list[Path]:
    """Remove what keepers left in these folders, by ``until``; return those of which nothing is left.

    Every container gets an equal share of the time, so that one whose daemon hangs keeps no other.
    """
    removals = [(folder, removal) for folder in folders for removal in _removals(folder)]
    stay = {folder for folder, removal in removals if removal is None}
    boxes = [(folder, removal) for folder, removal in removals if removal is not None]
    for number, (_, removal) in enumerate(boxes):
        ends = _share(until - _LAST_S, len(boxes) - number)
        for command in removal.commands:
            _run(command, removal.env, ends)
    _kill({folder.name for folder in folders}, until - _LAST_S + _KILLED_S)
    for number, (folder, removal) in enumerate(boxes):  # now that no client is there that asks for one
        listed = _run(removal.left, removal.env, _share(until, len(boxes) - number))
        if listed is None or listed.strip():
            stay.add(folder)
    cleared = [folder for folder in folders if folder not in stay]
    for folder in cleared:
        shutil.rmtree(folder, ignore_errors=True)
    return cleared


def _removals(folder: Path) -> list[RemovalEntry | None]:
    """Return how a keeper's containers are removed; ``None`` stands for an entry that cannot be read."""
    from pytest_llmparity.keeper.server import REMOVALS

    try:
        lines = (folder / REMOVALS).read_bytes().splitlines()
    except FileNotFoundError:  # it never started a container
        return []
    except OSError:
        return [None]
    return [_removal(line) for line in lines if line]


def _removal(line: bytes) -> RemovalEntry | None:
    try:
        return msgspec.json.decode(line, type=RemovalEntry)
    except (ValueError, msgspec.MsgspecError):
        return None


def _share(until: float, parts: int) -> float:
    """Return when the first of so many ends that have the same part of the time."""
    now = time.monotonic()
    return now + max(0.0, until - now) / parts


def _run(command: Sequence[str], env: Mapping[str, str], until: float) -> str | None:
    """Return what a command prints; ``None`` where it fails, is not there or takes longer than ``until``."""
    from pytest_llmparity.keeper.removal import STEERING

    environ = {name: value for name, value in os.environ.items() if name not in STEERING}
    try:
        with tempfile.TemporaryFile() as printed:  # a pipe would be held by what a killed command has started
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={**environ, **env},
                start_new_session=True,
            )
            try:
                code = process.wait(max(0.0, until - time.monotonic()))
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait(_KILLED_S)
            printed.seek(0)
            return printed.read().decode("utf-8", "replace") if code == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def _kill(labels: Collection[str], until: float) -> None:
    """Kill every process of this user that carries the marker of one of these keepers; it is looked once at least."""
    import psutil

    from pytest_llmparity.keeper.tree import MARKER

    while True:
        ours = []
        for other in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):  # gone, or another user's
                if other.environ().get(MARKER, "").rpartition(".")[0] in labels:
                    other.kill()
                    ours.append(other)
        if not ours or time.monotonic() > until:
            return
        psutil.wait_procs(ours, timeout=min(_KILLED_S, max(0.0, until - time.monotonic())))
