"""One event loop in a thread of its own: asynchronous inside, synchronous for everyone above."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import CancelledError, Future, wait
from typing import Any, TypeVar

T = TypeVar("T")

_SETTLE_S = 5.0
"""Cancelled work is waited for so long."""
_SLICE_S = 0.2
"""Whoever waits for another thread looks so often whether a signal came."""


class Beside:
    """Does one thing, once, in a thread of its own that keeps nobody from ending.

    An interpreter that ends in the middle of an import may stumble over it, so :meth:`end` waits for a few seconds.
    """

    def __init__(self, work: Callable[[], None], *, name: str) -> None:
        self._thread = threading.Thread(target=work, name=name, daemon=True)

    def begin(self) -> None:
        """Begin, unless it has begun."""
        if self._thread.ident is None:
            self._thread.start()

    def end(self) -> None:
        """Wait until it is done, if it was begun."""
        if self._thread.is_alive():
            self._thread.join(_SETTLE_S)


class LoopThread:
    """Runs coroutines in a background thread and waits for them; Ctrl-C cancels what is running.

    The thread starts with the first :meth:`run`. Tests that run a loop of their own never meet this one.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what the coroutine returns. If the waiting thread is interrupted, the coroutine is cancelled first."""
        future = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            return result_of(future)
        except BaseException:
            if not future.done():
                future.cancel()
                self._settle()
            raise

    def close(self) -> None:
        """Cancel what is left, stop the loop and join the thread. Safe to call twice."""
        with self._guard:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_SETTLE_S)  # a daemon: work that does not end when it is cancelled keeps nobody

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._guard:
            if self._loop is None:
                self._loop = _new_loop()
                self._thread = threading.Thread(
                    target=self._serve, args=(self._loop,), name="llmparity-loop", daemon=True
                )
                self._thread.start()
            return self._loop

    def _settle(self) -> None:
        """Wait until cancelled work has run its ``finally`` blocks, so that samples in flight are committed."""
        try:
            asyncio.run_coroutine_threadsafe(_others_done(), self._started()).result(_SETTLE_S)
        except (TimeoutError, CancelledError):
            return

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            pending = asyncio.all_tasks(loop)
            for task in pending:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


def result_of(future: Future[T]) -> T:
    """Return what a future brings. Unlike ``future.result()`` it can be interrupted at any moment.

    CPython looks for signals before it waits for a lock and when one ends the waiting. One that comes in between, or is
    delivered to another thread, would not be seen before the future is done.
    """
    while not future.done():
        wait((future,), timeout=_SLICE_S)
    return future.result()


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop; ``OSError`` where there are not the file descriptors for one.

    They are tried first: a loop that asyncio left half made prints a traceback when it is collected.
    """
    with contextlib.ExitStack() as tried:
        for _ in range(3):  # its selector, and the two ends of the pipe that wakes it
            tried.enter_context(open(os.devnull, "rb"))
    return asyncio.new_event_loop()


async def _others_done() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    await asyncio.gather(*others, return_exceptions=True)


async def all_of(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do everything at the same time; the first error ends the rest and is raised as it is.

    What stumbles beside it stumbles over the same thing, a full disk or a keeper that is gone; callers know its type.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors


async def outside(work: Callable[[], T]) -> T:
    """Return what a function that blocks returns, called in a thread of its own.

    Whoever waits may be cancelled: then the thread is left behind.
    """
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: Future[T]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(done.set)

    result = in_thread(work, name="llmparity-outside")
    result.add_done_callback(tell)
    await done.wait()
    return result.result()


def in_thread(work: Callable[[], T], *, name: str) -> Future[T]:
    """Return what will come of a function that is called in a thread of its own.

    A daemon: the interpreter does not wait for it before it ends.
    """
    result: Future[T] = Future()

    def call() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            result.set_exception(error)

    threading.Thread(target=call, name=name, daemon=True).start()
    return result
