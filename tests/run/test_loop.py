"""The loop thread gives results and errors back, and leaves nothing running."""

from __future__ import annotations

import asyncio
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


def test_an_interrupted_wait_cancels_the_work_and_runs_its_cleanup(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = LoopThread()
    started, cleaned = threading.Event(), threading.Event()

    async def work() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    class Interrupted:
        """A future whose waiter gets Ctrl-C once the work has begun."""

        def __init__(self, future: asyncio.Future[None]) -> None:
            self._future = future

        def result(self) -> None:
            started.wait(5)
            raise KeyboardInterrupt

        def done(self) -> bool:
            return self._future.done()

        def cancel(self) -> bool:
            return self._future.cancel()

    real = asyncio.run_coroutine_threadsafe
    first = iter([True])
    monkeypatch.setattr(
        asyncio,
        "run_coroutine_threadsafe",
        lambda coro, where: Interrupted(real(coro, where)) if next(first, False) else real(coro, where),  # type: ignore[arg-type]
    )
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run(work())

        assert cleaned.wait(5)
    finally:
        monkeypatch.undo()
        loop.close()
