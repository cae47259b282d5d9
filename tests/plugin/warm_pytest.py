"""Pytest as a process of its own that has imported all before it begins: a fork of one that did nothing but import.

A run of two gates spends most of its time on imports. Run as a script with ``fork`` and the number of a socket, this
imports what a run does and then, for each connection, forks: the fork gets its own session, folder, environment and
files, is pytest, or a worker of xdist, from its first line to the interpreter's last, and dies of signals as any.
Run in place of the Python of a worker, or of that of ``python -m pytest``, it asks for such a fork. Only where forks
after imports are safe, which they are not on macOS.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import secrets
import select
import shlex
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

MODULES = (
    *("pytest", "xdist.plugin", "xdist.looponfail", "pytest_asyncio.plugin", "pytest_timeout", "anyio.pytest_plugin"),
    *("pytest_llmparity.check", "pytest_llmparity.plugin.door", "httpx", "httpcore", "httpcore2", "openai", "yaml"),
    *("numpy", "scipy.special", "rapidfuzz.distance", "jsonschema_rs", "sqlite3", "psutil", "gguf", "platformdirs"),
    *("pytest_llmparity.core.gate.policy", "pytest_llmparity.core.checks.drift.text"),
    *("pytest_llmparity.core.checks.drift.logprobs", "pytest_llmparity.core.checks.prompts"),
)
"""What a run with engines imports, as far as it is installed."""
UNSEEN = ("rerunfailures", "hypothesispytest")
"""Plugins that only runs of their own process see: one keeps a socket open, the other imports itself when a run ends,
which costs each process as much as a gate."""
IDLE = (
    *("anyio", "doctest", "faulthandler", "legacypath", "pastebin", "platformdirs", "recwarn", "repeat", "setuponly"),
    *("setupplan", "stepwise", "subtests", "timeout", "unittest", "xdist.looponfail"),
)
"""Plugins without a part in what is tested; tests/plugin/test_loading.py runs gates beside them. Each costs every run
a millisecond or two."""
HIDING = "_check_for_wrapped_fixture"
"""With it pytest 9.2 looks for fixtures that decorators hide among 2,000 names of its plugins: a quarter of a start."""
MESSAGE_SIZE = 1 << 20
SAFE = sys.platform == "linux"
IGNORED = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
"""What was imported before pytest began cannot be rewritten, and nobody here reads the package's own assertions."""


def remember_installed() -> None:
    """Read what is installed beside this Python once for all runs: each would read a hundred files four times.

    What a test puts into a folder of its own is read anew.
    """
    from functools import cached_property  # here, as what asks for a fork imports this file too
    from importlib import metadata

    class Remembered(metadata.Distribution):
        def __init__(self, installed: metadata.Distribution) -> None:
            self._installed = installed

        def read_text(self, filename: str) -> str | None:
            return self._installed.read_text(filename)

        def locate_file(self, path: str | os.PathLike[str]) -> Any:
            return self._installed.locate_file(path)

        @cached_property
        def metadata(self) -> Any:
            return self._installed.metadata

        @cached_property
        def entry_points(self) -> Any:
            return self._installed.entry_points

        @cached_property
        def files(self) -> Any:
            return self._installed.files

        @cached_property
        def _normalized_name(self) -> Any:
            """Return what the folder's name says without being opened: who looks for entry points asks all for it."""
            return getattr(self._installed, "_normalized_name", None) or self._installed.name

    read = metadata.distributions
    kept: dict[str, list[metadata.Distribution]] = {}

    def distributions(**context: Any) -> Iterator[metadata.Distribution]:
        if context:
            yield from read(**context)
            return
        for place in sys.path:
            if not place.startswith(sys.prefix):
                yield from read(path=[place])
                continue
            if place not in kept:
                kept[place] = [Remembered(each) for each in read(path=[place])]
            yield from kept[place]

    metadata.distributions = distributions


def keep_imported() -> None:
    """Let a run keep what it imported of this Python and of the package, and forget what is its project's own.

    pytester forgets all of it, so that every run would import anew what it needs when it is used first, checks among
    them. And numpy and yaml cannot be imported twice, nor may the httpcore that a client rests on, whose errors it
    would no longer know.
    """
    from _pytest import pytester

    ours = (sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]))

    class Snapshot:
        def __init__(self, preserve: Callable[[str], bool] | None = None) -> None:
            self._saved = dict(sys.modules)

        def restore(self) -> None:
            for name in sys.modules.keys() - self._saved.keys():
                if not (getattr(sys.modules[name], "__file__", None) or "").startswith(ours):
                    del sys.modules[name]
            sys.modules.update(self._saved)

    setattr(pytester, "SysModulesSnapshot", Snapshot)  # noqa: B010 - mypy knows it as a class of pytest's


class WarmPytest:
    """A running pytest, as far as ``subprocess.Popen`` is asked for here."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._code: int | None = None
        self.pid = self._next()

    def _next(self) -> int:
        message = self._link.recv(64).decode()
        if not message:
            raise EOFError("whoever waits for the warm process is gone")
        return int(message)

    def poll(self) -> int | None:
        """Return the exit code, the negative number of a signal, or ``None`` while it runs."""
        with contextlib.suppress(TimeoutError, BlockingIOError):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, or the negative number of the signal that ended it, once it has ended."""
        if self._code is None:
            self._link.settimeout(timeout)
            self._code = self._next()
            self._link.close()
        return self._code

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, if it still runs."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that forks; it ends with whoever holds this, and imports when somebody first asks for a fork.

    With the address of another one its forks come from that, which somebody else holds. ``python`` is what xdist is to
    start as the Python of a worker; forks of pytest have it as ``WARM_PYTHON``.
    """

    def __init__(self, address: str = "") -> None:
        self.address = address or f"warm-pytest-{os.getpid()}-{secrets.token_hex(8)}"
        self.python = shlex.join([sys.executable, "-ISE", __file__, self.address])
        self._process: subprocess.Popen[bytes] | None = None
        if address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(f"\0{self.address}")
            listening.listen()
            argv = [sys.executable, __file__, "fork", str(listening.fileno())]
            self._process = subprocess.Popen(
                argv, pass_fds=[listening.fileno()], stdin=subprocess.PIPE, start_new_session=True
            )

    def fork(
        self,
        args: Sequence[str],
        folder: Path,
        stdin: int,
        stdout: int,
        *,
        stderr: int | None = None,
        environ: Mapping[str, str] | None = None,
        module: str = "pytest",
        python: Path | None = None,
    ) -> WarmPytest:
        """Return a new pytest with these arguments, which reads and writes these open files.

        It has this process's environment, or ``environ``. With another ``module`` it is that one, as ``python -m``, and
        may have a program of :meth:`program` for its own Python, by which each pytest that it starts is a fork.
        """
        inherited = os.environ if environ is None else environ
        env = {**inherited, "WARM_PYTHON": self.python}
        wanted = {"module": module, "args": list(args), "folder": str(folder), "env": env}
        if python is not None:
            wanted["python"] = str(python)
        return fork(self.address, wanted, [stdin, stdout, stdout if stderr is None else stderr])

    def program(self, path: Path) -> Path:
        """Write a program that takes the place of Python: ``-m pytest`` is a fork, all else Python itself."""
        path.write_text(f'#!/bin/sh\nexec {self.python} "$@"\n')
        path.chmod(0o700)
        return path

    def pytest_xdist_setupnodes(self, specs: Sequence[Any]) -> None:
        """Let workers be forks too, of a run that has this as a plugin."""
        for spec in specs:
            spec.python = self.python

    def close(self) -> None:
        """Let it end, where nobody else holds it: what it forked goes on."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def fork(address: str, wanted: Mapping[str, Any], files: Sequence[int]) -> WarmPytest:
    """Return a fork of a nursery that becomes what is wanted, with these standard files."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.connect(f"\0{address}")
    socket.send_fds(link, [json.dumps(wanted).encode()], files)
    return WarmPytest(link)


def narrow() -> None:
    """Let pytest's own plugins show hooks and fixtures only: each run looks at 2,000 names of theirs, twice."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("_pytest.", "xdist.", "pytest_asyncio.")):
            shown = [key for key, value in vars(module).items() if key.startswith("pytest_") or of_fixture(value)]
            setattr(module, "__dir__", shown.copy)  # noqa: B010 - a module has no such attribute for mypy


def of_fixture(value: object) -> bool:
    """Tell whether this is what pytest, or its plugin for coroutines, makes of a function that is a fixture."""
    return type(value).__module__ == "_pytest.fixtures" or hasattr(value, "_pytestfixturefunction")


def seeing_none(*_: object) -> None:
    """Take the place of what looks for hidden fixtures."""


def leave_out(names: Sequence[str] = (*UNSEEN, *IDLE)) -> list[str]:
    """Return the words that leave plugins out; those of a project's file leave out what has been registered before."""
    return [word for name in names for word in ("-p", f"no:{name}")]


def run(
    pytester: pytest.Pytester, nursery: Callable[[], Nursery], *args: str, left_out: Sequence[str] = (*UNSEEN, *IDLE)
) -> pytest.RunResult:
    """Run pytest in this process; workers of xdist, which are processes of their own, come from the nursery."""
    plugins: list[Nursery] = []
    if SAFE and any(arg.startswith("-n") for arg in args):
        plugins.append(nursery())
        args = (*IGNORED, *args)
    import pytest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"_pytest.fixtures.FixtureManager.{HIDING}", seeing_none, raising=False)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", *leave_out(left_out), *args, plugins=plugins)


def forked(listening: socket.socket) -> Mapping[str, Any] | None:
    """Return what is asked for, in each fork, and ``None`` in the process that forks, when its holder is gone."""
    while True:
        ready, _, _ = select.select([listening.fileno(), 0], [], [])
        if 0 in ready:
            return None
        link, _ = listening.accept()
        if os.fork() == 0:
            break
        link.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    listening.close()
    message, files, _, _ = socket.recv_fds(link, MESSAGE_SIZE, 3)
    pid = os.fork()
    if pid:  # waits for the other, and says how it ended
        for file in (*files, 0):
            os.close(file)
        with contextlib.suppress(OSError):  # nobody may wait for it any more
            link.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):
            link.send(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    link.close()
    os.setsid()
    for standard, file in enumerate(files):
        os.dup2(file, standard)
        os.close(file)
    wanted: Mapping[str, Any] = json.loads(message)
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    sys.path[0] = wanted["folder"]
    return wanted


def reap(*_: object) -> None:
    """Take leave of those that waited for a pytest, so that what they cost counts."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def modules_of_pytest() -> list[str]:
    """Return the modules of the plugins that pytest brings: none of a pytest that lists them elsewhere.

    Its forks then import them themselves, which takes longer and is no reason to run no test.
    """
    with contextlib.suppress(ImportError, AttributeError, TypeError):
        return [f"_pytest.{plugin}" for plugin in importlib.import_module("_pytest.config").default_plugins]
    return []


def nurse(listening: socket.socket) -> int:
    """Import once somebody asks, then fork until nobody does any more; each fork becomes what was asked for."""
    ready, _, _ = select.select([listening.fileno(), 0], [], [])
    if 0 in ready:
        return 0
    for name in (*MODULES, *modules_of_pytest()):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    remember_installed()
    importlib.import_module("importlib.metadata").entry_points()
    for installed in importlib.import_module("importlib.metadata").distributions():
        if any(point.group == "pytest11" for point in installed.entry_points):
            _ = installed.files, installed.metadata
    with contextlib.suppress(ImportError, AttributeError):  # a pytest that is another inside starts without it
        manager = importlib.import_module("_pytest.fixtures").FixtureManager
        if hasattr(manager, HIDING):
            setattr(manager, HIDING, seeing_none)
    gc.collect()
    gc.freeze()  # else each fork looks for garbage among all that it shares, and has a copy of it by that
    signal.signal(signal.SIGCHLD, reap)
    wanted = forked(listening)
    if wanted is None:
        return 0
    if "code" in wanted:  # as ``python -c`` does
        sys.argv = ["-c"]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(wanted["code"], main.__dict__)
        return 0
    module = wanted["module"]
    sys.executable = wanted.get("python", sys.executable)
    sys.argv = [module, *(IGNORED if module == "pytest" else ()), *wanted["args"]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def instead(address: str, words: Sequence[str]) -> int:
    """Have what Python would be with these words forked in place of this process, and return its exit code.

    That is ``-m pytest``, or a worker of xdist; anything else becomes Python itself.
    """
    if list(words[:2]) == ["-m", "pytest"]:
        wanted: dict[str, Any] = {"module": "pytest", "args": words[2:]}
    elif words[0] == "-u":
        wanted = {"code": words[-1]}
    else:
        os.execv(sys.executable, [sys.executable, *words])
    warm = fork(address, {**wanted, "folder": os.getcwd(), "env": dict(os.environ)}, [0, 1, 2])
    for file in (0, 1):
        os.close(file)
    code_of_exit = warm.wait()
    return code_of_exit if code_of_exit >= 0 else 128 - code_of_exit


if __name__ == "__main__":
    if sys.argv[1] == "fork":
        sys.exit(nurse(socket.socket(fileno=int(sys.argv[2]))))
    os._exit(instead(sys.argv[1], sys.argv[2:]))
