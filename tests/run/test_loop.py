"""The loop thread gives results and errors back, and leaves nothing running."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading

import pytest

from pytest_llmparity.run.loop import LoopThread


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def fail() -> None:
    raise ValueError("no")


def test_results_and_errors_come_back() -> None:
    loop = LoopThread()
    try:
        assert loop.run(double(21)) == 42
        with pytest.raises(ValueError, match="no"):
            loop.run(fail())
        assert loop.run(double(1)) == 2
    finally:
        loop.close()


async def test_it_serves_a_caller_that_has_a_loop_of_its_own() -> None:
    loop = LoopThread()
    try:
        assert await asyncio.to_thread(lambda: loop.run(double(4))) == 8
    finally:
        loop.close()


def test_closing_twice_and_closing_unused_are_fine() -> None:
    loop = LoopThread()
    loop.close()
    loop.run(double(1))
    loop.close()
    loop.close()

    assert not [t for t in threading.enumerate() if t.name == "llmparity-loop"]


def test_an_interrupted_wait_cancels_the_work_and_runs_its_cleanup() -> None:
    """The signal is delivered to the loop's own thread: Ctrl-C may be, and ends nobody's waiting by itself then."""
    loop = LoopThread()
    cleaned = threading.Event()

    async def work() -> None:
        try:
            asyncio.get_running_loop().call_later(0.1, signal.pthread_kill, threading.get_ident(), signal.SIGINT)
            await asyncio.sleep(60)
        finally:
            cleaned.set()

    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run(work())

        assert cleaned.is_set()
    finally:
        loop.close()


def test_work_that_does_not_end_when_it_is_cancelled_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_llmparity.run.loop._SETTLE_S", 0.05)
    loop = LoopThread()
    ends = threading.Event()

    async def work() -> None:
        asyncio.get_running_loop().call_soon(signal.pthread_kill, threading.get_ident(), signal.SIGINT)
        while not ends.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        loop.run(work())
    loop.close()

    [left] = [thread for thread in threading.enumerate() if thread.name == "llmparity-loop"]
    ends.set()
    left.join()
