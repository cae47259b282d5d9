"""A progress bar per engine while gathering; silent when nobody watches."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TextIO

from pytest_llmparity.core.words.printable import printable

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


class Silent:
    """Shows nothing. Satisfies ``core.ports.Progress``."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def begin(self, engine: str, total: int) -> None:
        """Show nothing."""

    def more(self, engine: str, count: int) -> None:
        """Show nothing."""

    def advance(self, engine: str) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""


class Bars:
    """Draws one bar per engine on a terminal, with pytest's capture lifted by ``uncaptured``.

    Only for the controlling process. Satisfies ``core.ports.Progress``.
    """

    def __init__(self, stream: TextIO, uncaptured: Callable[[], AbstractContextManager[None]]) -> None:
        self._stream = stream
        self._uncaptured = uncaptured
        self._saying = threading.Lock()
        self._open = contextlib.ExitStack()
        self._bars: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}

    def say(self, text: str) -> None:
        """Write a line, above the bars where there are some."""
        line = printable(text)
        if self._bars is not None:
            self._bars.console.print(line, markup=False, highlight=False)
            return
        with self._saying, self._uncaptured():  # engines start in threads, and capture is lifted for one at a time
            self._stream.write(f"{line}\n")
            self._stream.flush()

    def begin(self, engine: str, total: int) -> None:
        """Draw a bar for one engine."""
        if self._bars is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._open.enter_context(self._uncaptured())
            self._bars = self._open.enter_context(
                Progress(
                    TextColumn("{task.description}"),
                    BarColumn(bar_width=24),
                    MofNCompleteColumn(),
                    TimeRemainingColumn(),
                    console=Console(file=self._stream),
                    transient=True,
                )
            )
        self._tasks[engine] = self._bars.add_task(engine, total=total)

    def more(self, engine: str, count: int) -> None:
        """Make one engine's bar longer."""
        if self._bars is not None and engine in self._tasks:
            task = self._tasks[engine]
            self._bars.update(task, total=(self._bars.tasks[task].total or 0) + count)

    def advance(self, engine: str) -> None:
        """Move one engine's bar."""
        if self._bars is not None and engine in self._tasks:
            self._bars.advance(self._tasks[engine])

    def end(self) -> None:
        """Take the bars away."""
        self._open.close()
        self._bars, self._tasks = None, {}
