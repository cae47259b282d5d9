"""The engine processes one keeper owns: starting, noticing their end, ending whole trees. Part of the keeper process.

An engine's log is copied so that no key is ever in the file; without a key to hide the engine writes the file itself.
Standard library only: the keeper must be up within a fraction of a second (see ``server``).
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_llmparity.core.words.hiding import TextMask
from pytest_llmparity.keeper import tree
from pytest_llmparity.keeper.removal import Removal

KILL_LIMIT_S = 10.0
"""How long a tree is killed again before the keeper gives up on it: a process inside a hung driver never ends."""
REMOVAL_LIMIT_S = 30.0
"""How long a container is removed again before the keeper gives up on it."""
_SWEEP_S = 0.02
"""Between two looks at a tree; it is gone when two in a row find nothing, because a process in the middle of exec
shows no environment and so no marker."""
_PIECE = 65536
_TURN = 16
"""Pieces that are copied before others get their turn."""


class EngineProcess:
    """The process of one engine, by name. ``state`` is one of starting, ready, failed, exited, stopped.

    ``ending`` is true from the moment its processes are asked to go until none is left, or until they are given up as
    ``stuck``. ``kill_at`` is when asking
    turns into killing, ``starter`` whoever must announce it (an object of the caller's). ``log`` is there where what
    it writes is copied, ``removal`` where it is a runtime's client and has a container, which goes before it is
    killed and after it has ended: the container is the engine.
    """

    def __init__(
        self,
        name: str,
        *,
        marker: str,
        stop_signal: int,
        grace_s: float,
        starter: object,
        removal: Removal | None = None,
    ) -> None:
        self.name = name
        self.marker = marker
        self.stop_signal = stop_signal
        self.grace_s = grace_s
        self.starter: object | None = starter
        self.removal = removal
        self.state = "starting"
        self.process: subprocess.Popen[bytes] | None = None
        self.log: CopiedLog | None = None
        self.returncode: int | None = None
        self.info: dict[str, object] = {}
        self.reason: str | None = None
        self.ending = False
        self.stuck = False
        self.clear_since: float | None = None
        self.kill_at = 0.0
        self.give_up_at = 0.0

    def wire(self) -> dict[str, object]:
        """Return what the client's ``EngineState`` is made of."""
        return {
            "name": self.name,
            "state": self.state,
            "pid": None if self.process is None else self.process.pid,
            "returncode": self.returncode,
            "info": self.info,
            "reason": self.reason,
            "container": "" if self.removal is None else self.removal.told,
        }

    @property
    def limit_s(self) -> float:
        """How long what is killed may take to be gone before it is given up."""
        return KILL_LIMIT_S if self.removal is None else KILL_LIMIT_S + REMOVAL_LIMIT_S

    @property
    def leaves(self) -> bool:
        """Whether there may be a container of it."""
        return self.removal is not None and not self.removal.done

    @property
    def runs(self) -> bool:
        """Whether its first process is there and was not reaped."""
        return self.process is not None and self.returncode is None


class EngineProcesses:
    """All engines of one keeper. ``label`` is part of every marker and unique to this keeper."""

    def __init__(self, *, label: str, adopts: bool) -> None:
        self._label = label
        self._adopts = adopts
        self._engines: dict[str, EngineProcess] = {}
        self._started = 0

    def get(self, name: str) -> EngineProcess | None:
        """Return the engine of this name, ``None`` when it was never started."""
        return self._engines.get(name)

    def all(self) -> list[EngineProcess]:
        """Return every engine that was ever started, the latest of each name."""
        return list(self._engines.values())

    def start(
        self,
        name: str,
        *,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        log: str,
        secrets: Mapping[str, str],
        stop_signal: int,
        grace_s: float,
        starter: object,
        removal: Mapping[str, Sequence[Any]] | None = None,
    ) -> EngineProcess:
        """Start a process under this name and return its engine; one that cannot be started is ``failed``.

        ``removal`` has the commands of a :class:`Removal` by the names of its arguments. Where there are ``secrets``
        (name to value) whoever watches must copy :attr:`EngineProcess.log`.
        """
        self._started += 1
        marker = f"{self._label}.{self._started}"
        engine = EngineProcess(
            name,
            marker=marker,
            stop_signal=stop_signal,
            grace_s=grace_s,
            starter=starter,
            removal=None if removal is None else Removal(**removal, env=env),
        )
        self._engines[name] = engine
        mask = TextMask(secrets)
        try:
            written = open_log(log)
            if mask.longest:
                engine.log = CopiedLog(written, mask)
                written = engine.log.entrance
            try:
                engine.process = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.DEVNULL,
                    stdout=written,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env={**env, tree.MARKER: marker},
                    start_new_session=True,
                )
            finally:
                os.close(written)
        except (OSError, ValueError) as error:
            engine.removal = None  # nobody was asked for a container
            engine.state = "failed"
            engine.reason = mask.torn(f"{name} could not be started: {error}")
        return engine

    def fail(self, engine: EngineProcess, reason: str) -> None:
        """Call an engine failed and end what runs of it."""
        engine.state, engine.reason = "failed", reason
        self.end(engine, engine.grace_s)

    def end(self, engine: EngineProcess, grace_s: float) -> None:
        """Ask an engine to go; what is left after ``grace_s`` seconds, or once its first process is gone, is killed."""
        kill_at = time.monotonic() + grace_s
        if engine.ending:
            engine.kill_at = min(engine.kill_at, kill_at)
            engine.give_up_at = engine.kill_at + engine.limit_s
            return
        if engine.process is not None and (engine.runs or engine.leaves):
            engine.ending, engine.clear_since = True, None
            engine.kill_at = kill_at
            engine.give_up_at = kill_at + engine.limit_s
            if engine.removal is not None:
                engine.removal.asked = True  # nobody wonders why it ended
            if engine.runs:
                tree.send(engine.process.pid, engine.stop_signal)

    def reap(self) -> None:
        """Take note of every child that has ended, adopted ones included."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for engine in self._engines.values():
                if engine.process is not None and engine.process.pid == pid and engine.returncode is None:
                    engine.returncode = engine.process.returncode = os.waitstatus_to_exitcode(status)
                    if engine.log is not None:
                        engine.log.flush()  # before anybody is told of its end and reads its last words
                    self._ended(engine)
                elif engine.removal is not None and engine.removal.pid == pid:
                    engine.removal.ended(os.waitstatus_to_exitcode(status), time.monotonic())
                    if not engine.runs and not engine.ending:
                        self._ended(engine)

    def sweep(self, now: float) -> None:
        """Kill what should be gone by now; ``ending`` turns false for engines of which nothing is left."""
        for engine in self._engines.values():
            if engine.removal is not None:
                engine.removal.expire(now)
            if not engine.ending or (engine.runs and now < engine.kill_at):
                continue
            if engine.removal is not None and engine.leaves and now <= engine.give_up_at - KILL_LIMIT_S:
                engine.removal.advance(now)
                continue
            left = tree.kill_all(lambda engine=engine: self._members(engine))  # type: ignore[misc]
            if left or engine.runs:
                engine.clear_since = None
            elif engine.clear_since is None:
                engine.clear_since = now
            elif now - engine.clear_since >= _SWEEP_S:
                killed = engine.returncode is not None and engine.returncode < 0
                if engine.removal is not None and killed and engine.removal.check_again():
                    continue  # a client that was killed may have asked for a container a moment before
                engine.ending = False
                if engine.removal is not None and engine.leaves:
                    engine.stuck = True
                    engine.reason = (
                        f"{engine.name}: its container could not be removed ({engine.removal.words}); "
                        f"remove it with: {engine.removal.by_hand()}"
                    )
                continue
            if now > engine.give_up_at:
                engine.ending, engine.stuck = False, True
                engine.reason = f"{engine.name}: processes {sorted(left)} do not end, even when killed"

    def left(self, name: str) -> set[int]:
        """Return every process there is of an engine; of one that is ending at least its first, until all are gone."""
        engine = self._engines.get(name)
        if engine is None or engine.process is None or not (engine.runs or engine.ending or engine.stuck):
            return set()
        return self._members(engine) or ({engine.process.pid} if engine.ending or engine.leaves else set())

    def deadlines(self, now: float) -> list[float]:
        """Return when :meth:`sweep` has to be called next."""
        ending = [self._deadline(engine, now) for engine in self._engines.values() if engine.ending]
        removals = [engine.removal for engine in self._engines.values() if engine.removal is not None]
        return ending + [removal.deadline(now) for removal in removals if removal.pid is not None]

    def _deadline(self, engine: EngineProcess, now: float) -> float:
        if engine.runs and now < engine.kill_at:
            return engine.kill_at
        if engine.removal is None or not engine.leaves or now > engine.give_up_at - KILL_LIMIT_S:
            return now + _SWEEP_S
        return min(max(engine.removal.deadline(now), now + _SWEEP_S), engine.give_up_at)

    def kill_everything(self, limit_s: float) -> None:
        """Kill every descendant of this process, whoever started it, and wait for up to ``limit_s`` seconds."""
        until = time.monotonic() + limit_s
        while tree.kill_all(self._everything) and time.monotonic() < until:
            self.reap()
            time.sleep(_SWEEP_S)
        self.reap()

    def _ended(self, engine: EngineProcess) -> None:
        """Take note that an engine's first process has ended; why its container did is asked before anybody is told."""
        if engine.removal is not None and not engine.removal.asked and not engine.ending:
            engine.removal.ask(time.monotonic())
            if engine.removal.pid is not None:
                return
        code = engine.returncode or 0
        if engine.state in ("starting", "ready"):
            how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
            before = " before it was ready" if engine.state == "starting" else ""
            engine.state, engine.reason = "exited", f"{engine.name} {how}{before}"
        if not engine.ending:  # its workers may hold memory, a GPU or a port
            engine.ending, engine.clear_since = True, None
            engine.kill_at = time.monotonic()
            engine.give_up_at = engine.kill_at + engine.limit_s

    def _members(self, engine: EngineProcess) -> set[int]:
        if engine.process is None:
            return set()
        return tree.members(
            tree.read_table(),
            main=engine.process.pid,
            marker=engine.marker,
            keeper=os.getpid(),
            adopts=self._adopts,
            marker_of=tree.marker_of,
        )

    def _everything(self) -> set[int]:
        return tree.descendants(tree.read_table(), [os.getpid()])


# its log -------------------------------------------------------------------------------------------------------------


def open_log(path: str) -> int:
    """Return a descriptor that appends to an emptied log nobody else can read; whoever starts the engine empties it."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(log, 0o600)
        os.ftruncate(log, 0)
    except BaseException:
        os.close(log)
        raise
    return log


class CopiedLog:
    """What an engine and everything it started write, on its way into ``sink`` (a descriptor, closed at the end).

    ``entrance`` is for the engine's process, to be closed by whoever has started it.
    """

    def __init__(self, sink: int, mask: TextMask) -> None:
        self._sink = sink
        self._mask = mask
        self._held = b""
        self._source, self.entrance = os.pipe()
        os.set_blocking(self._source, False)
        self.open = True

    def fileno(self) -> int:
        """Let a selector watch it."""
        return self._source

    def copy(self) -> bool:
        """Copy what has come, some of it where it is very much; tell whether more can come."""
        for _ in range(_TURN):
            try:
                piece = os.read(self._source, _PIECE)
            except BlockingIOError:
                return True
            if not piece:
                return False
            self._held += piece
            text = self._held.decode("utf-8", "surrogateescape")
            safe = self._mask.safe(text)
            self._write(text[:safe])
            self._held = text[safe:].encode("utf-8", "surrogateescape")
        return True

    def flush(self) -> None:
        """Copy everything there is, the beginning of what might have become a key too."""
        if self.open:
            self.copy()  # a pipe holds less than one turn
        self._write(self._held.decode("utf-8", "surrogateescape"))
        self._held = b""

    def close(self) -> None:
        """Copy what there is and let go; closing twice does nothing."""
        if self.open:
            self.flush()
            self.open = False
            os.close(self._source)
            os.close(self._sink)

    def _write(self, text: str) -> None:
        unwritten = self._mask.torn(text).encode("utf-8", "surrogateescape")
        try:
            while unwritten:
                unwritten = unwritten[os.write(self._sink, unwritten) :]
        except OSError:
            pass  # a full disk: the engine must not wait for it, as it would not had it written there itself
