"""How far an image has come, of runtimes that only say so at a terminal.

Docker and podman tell bytes to a terminal alone: in a pipe Docker names layers as they begin and end, and podman as
they begin (seen with Docker 20.10, client 28.2, and podman 4.3.1). So the client that fetches an image runs at a
pseudoterminal, under :func:`main` as a program of its own, whose output are plain lines: those of the client, and one
like ``3 of 7 layers, 1200 of 5400 bytes`` as often as that changes.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from pytest_llmparity.core.ports import Layers

TOLD_EVERY_S: Final = 0.5
"""How often a line says how far it is, at most."""
_ROOT: Final = str(Path(__file__).resolve().parents[3])
_PROGRAM: Final = (
    f"import sys; sys.path.append({_ROOT!r}); from pytest_llmparity.engines.start.pulling import main; main()"
)
_SIZE: Final = struct.pack("HHHH", 50, 160, 0, 0)
"""Rows and columns of the terminal: podman draws nothing at one without columns."""
_CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_LAYER: Final = re.compile(r"(?:Copying blob (?:sha256:)?)?([0-9a-f]{12})[0-9a-f]*:? +(.*)")
"""``ID: STATUS …`` of Docker, ``Copying blob ID …`` of podman."""
_SIZES: Final = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?) ?([kKMGT]?i?)B? ?/ ?(\d+(?:\.\d+)?) ?([kKMGT]?i?)B")
_TOLD: Final = re.compile(r"^(\d+) of (\d+) layers, (\d+) of (\d+) bytes$", re.MULTILINE)
_HELD: Final = 4096
_TAIL: Final = 4096


class Pull:
    """What a client says at a terminal while it fetches an image, line by line."""

    def __init__(self) -> None:
        self._sizes: dict[str, tuple[float, float]] = {}
        self._done: set[str] = set()

    def take(self, line: str) -> bool:
        """Take note of a line; ``False`` for one that is not about a layer."""
        layer = _LAYER.fullmatch(line)
        if layer is None:
            return line.startswith("Copying config")
        name, state = layer.groups()
        self._sizes.setdefault(name, (0.0, 0.0))
        if (sizes := _SIZES.search(state)) and not state.startswith("Extracting"):
            have, unit, of, whole_unit = sizes.groups()
            self._sizes[name] = (_bytes(have, unit or whole_unit), _bytes(of, whole_unit))
        elif state.startswith(("Download complete", "Pull complete", "Already exists", "done", "skipped")):
            self._sizes[name] = (self._sizes[name][1], self._sizes[name][1])
        if state.startswith(("Pull complete", "Already exists", "done", "skipped")):
            self._done.add(name)
        return True

    @property
    def layers(self) -> Layers:
        """How much has come. Bytes are those of layers that have begun to come."""
        have, of = (round(sum(size[part] for size in self._sizes.values())) for part in (0, 1))
        return Layers(done=len(self._done), of=len(self._sizes), size=have, of_size=of)


def _bytes(number: str, unit: str) -> float:
    power = " KMGT".index(unit[:1].upper() or " ")
    return float(number) * float((1024 if unit.endswith("i") else 1000) ** power)


def command(argv: Sequence[str]) -> list[str]:
    """Return the command line that runs a client's own at a pseudoterminal."""
    return [sys.executable, "-I", "-c", _PROGRAM, *argv]


def main() -> NoReturn:
    """Be the program: run the command line in our arguments, and end as it does."""

    def tell(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    code = run(sys.argv[1:], tell)
    sys.exit(code if code >= 0 else 128 - code)


def run(argv: Sequence[str], tell: Callable[[str], None], *, every_s: float = TOLD_EVERY_S) -> int:
    """Run a command line at a pseudoterminal; ``tell`` gets its lines. Returns its exit code, negative for a signal."""
    import fcntl  # Windows has none of these, and starts no engines
    import pty
    import termios

    child, terminal = pty.fork()
    if child == 0:
        try:
            fcntl.ioctl(0, termios.TIOCSWINSZ, _SIZE)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # podman asks a terminal which registry a short name means
            os.execvp(argv[0], list(argv))  # noqa: S606 - words, not a shell's text
        except BaseException as error:  # noqa: BLE001 - this is the child: nothing of ours may go on in it
            os.write(2, f"{error}\n".encode())
            os._exit(127)
    pull, held, told_at, shown = Pull(), "", 0.0, _line(Layers(0, 0, 0, 0))
    with contextlib.suppress(OSError):  # Linux' end of a terminal nobody writes to any more
        while read := os.read(terminal, 65536):
            *lines, held = re.split(r"[\r\n]+", held + read.decode("utf-8", "replace"))
            held = held[-_HELD:]
            for line in (_CONTROL.sub("", line).strip() for line in lines):
                if line and not pull.take(line):
                    tell(line)
            if time.monotonic() - told_at >= every_s and (now := _line(pull.layers)) != shown:
                tell(now)
                told_at, shown = time.monotonic(), now
    rest = _CONTROL.sub("", held).strip()
    if rest and not pull.take(rest):
        tell(rest)
    if (now := _line(pull.layers)) != shown:
        tell(now)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def how_far(log: Path) -> Layers | None:
    """Return what the output of :func:`main` said last of how far it is; ``None`` where that is nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            last = file.read().decode("utf-8", "replace")
    except OSError:
        return None
    counts = _TOLD.findall(last)
    return Layers(*map(int, counts[-1])) if counts else None


def client_words(text: str) -> str:
    """Return lines of that output without those that say how far it is."""
    return "\n".join(line for line in text.splitlines() if not _TOLD.match(line))


def _line(layers: Layers) -> str:
    return f"{layers.done} of {layers.of} layers, {layers.size} of {layers.of_size} bytes"
