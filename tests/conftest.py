"""Shared by every test: pytest's own harness for plugins, and real engines where they are."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.internal import charmap
from hypothesis.internal.intervalsets import IntervalSet
from platformdirs import user_cache_path

pytest_plugins = ["pytester", "tests.real_ollama", "tests.engines.live", "tests.plugin.nursery"]

# Packages that stand beside the tests, benchmarks and fixtures, are looked for last: what is tested is the wheel that
# was installed, and never the package's source.
if (root := str(Path(__file__).parents[1])) not in sys.path:
    sys.path.append(root)

from tests.marked import LIVE, demanded, has_none_of  # noqa: E402  # it is found by the line above
from tests.rewritten import rewrite_together  # noqa: E402

MEMORY, ROOM = Path("/dev/shm"), 2 * 2**30
"""Where files are in memory, and the bytes that must be free there; the folders of three runs take a tenth of it."""

# A busy machine must not fail a property because one example took long; a build that failed must fail again. What is
# drawn there is the same every time, so more of it finds no more; between two edits it is new examples each time.
settings.register_profile("daily", deadline=None, max_examples=25)
settings.register_profile("ci", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("ci" if os.environ.get("CI") else "daily")

# To learn which characters UTF-8 has, Hypothesis tries each: four seconds of every worker in a fresh clone.
ALL = IntervalSet([(0, 0xD7FF), (0xE000, sys.maxunicode)])
of_codec = charmap.intervals_from_codec
# Newer ones ask besides for those that do not come back as they were, which are none.
UTF_8 = ALL if of_codec.__annotations__["return"] is IntervalSet else (ALL, IntervalSet())
setattr(charmap, "intervals_from_codec", lambda name: UTF_8 if name == "utf-8" else of_codec(name))  # noqa: B010

# A job in the background ignores Ctrl-C, under nohup a hang-up too, and so would what its tests start and interrupt.
for interruption, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(interruption) is signal.SIG_IGN:
        signal.signal(interruption, handler)

# A run inside a test is not the workflow's own: nothing of it belongs into the step's summary or beside its code.
for variable in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
    os.environ.pop(variable, None)

# Where byte code is forbidden, as in many images, each of hundreds of processes would compile all that it imports.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(user_cache_path("pytest-llmparity") / "bytecode")


def pytest_configure(config: pytest.Config) -> None:
    """Let tests without real engines write to memory: for each store they would wait ten times for a disk.

    Real engines need the memory, and what is made for them is large. Where programs may not lie there, none do.
    """
    if "not live" in demanded(config.option.markexpr) and sys.platform == "linux" and MEMORY.is_dir():
        memory = os.statvfs(MEMORY)
        room = memory.f_bavail * memory.f_frsize
        if room >= ROOM and not memory.f_flag & os.ST_NOEXEC and os.access(MEMORY, os.W_OK):
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collect no garbage while tests are collected, and none of them later: all of it stays.

    To look through it was a tenth of the collection, and some libraries collect garbage in every call. In a fresh clone
    each of several workers rewrites a part of the files first, which takes as long as the rest of a collection.
    """
    config = session.config
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS and hasattr(config, "workerinput"):
        files = [path for path in Path(__file__).parent.rglob("test_*.py") if not pytest_ignore_collect(path, config)]
        worker = int(config.workerinput["workerid"].removeprefix("gw"))
        rewrite_together(config, files, worker, config.workerinput["workercount"])
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files without a test of what is asked for, real engines or all else: importing them takes longer."""
    asked = config.option.markexpr
    if not demanded(asked) or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return None
    if not collection_path.name.startswith("test_") or collection_path.suffix != ".py":
        return None
    return True if has_none_of(asked, collection_path.read_text("utf-8")) else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep what one start of a real engine serves in one worker (``--dist loadscope``)."""
    if config.getoption("dist") != "loadscope":
        return None
    from tests.lanes import Lanes

    return Lanes(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each of several workers begin with its part of what is slow, so that all end with what is quick.

    Each gets a part of the list as long as any other's (``worksteal``), and takes from the ends of others' parts later.
    Refuses live tests in a file that ``pytest -m live`` would not look into.
    """
    for path in {item.path for item in items if item.get_closest_marker("live")}:
        if LIVE not in path.read_text("utf-8"):
            raise pytest.UsageError(f"{path.name} has live tests and must spell their marker pytest.{LIVE}")
    workers: int = getattr(config, "workerinput", {}).get("workercount", 1)
    if workers == 1 or all(item.get_closest_marker("live") for item in items):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    quick = [item for item in items if not item.get_closest_marker("slow")]
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        first = slow[worker::workers]
        room = max(0, (len(items) - len(ordered)) // (workers - worker) - len(first))
        ordered += [*first, *quick[:room]]
        del quick[:room]
    items[:] = ordered
