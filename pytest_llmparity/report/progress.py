"""A progress bar per engine while its image is fetched and while it is asked; a line now and then in a log."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, TextIO

from pytest_llmparity.core.ports import Layers
from pytest_llmparity.core.words.printable import printable

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn, TaskID

LINE_EVERY_S: Final = 30.0
"""How often a line says how far a run is where nobody watches a terminal."""


class Silent:
    """Shows nothing. Satisfies ``core.ports.Progress``."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def fetch(self, engine: str, layers: Layers | None) -> None:
        """Show nothing."""

    def begin(self, engine: str, total: int) -> None:
        """Show nothing."""

    def more(self, engine: str, count: int) -> None:
        """Show nothing."""

    def advance(self, engine: str) -> None:
        """Show nothing."""

    def experiments(self, pair: str, sent: int, most: int) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""


class Lines(Silent):
    """Writes a line now and then, for logs of machines and for processes that own no terminal.

    An image has gigabytes and experiments may send hundreds of requests; a job that is silent for minutes may be taken
    for one that hangs. Satisfies ``core.ports.Progress``.
    """

    def __init__(
        self,
        stream: TextIO,
        uncaptured: Callable[[], AbstractContextManager[None]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._uncaptured = uncaptured
        self._clock = clock
        self._guard = threading.RLock()  # engines start in threads, and capture is lifted for one at a time
        self._told_at: dict[str, float] = {}
        self._ended: dict[str, int] = {}
        self._totals: dict[str, int] = {}

    def fetch(self, engine: str, layers: Layers | None) -> None:
        """Write a line, at the beginning and then every :data:`LINE_EVERY_S` seconds."""
        with self._guard:
            image = f"{engine}: fetching its image"
            if layers is None:
                self._told_at.pop(image, None)
            else:
                self._tell(image, f"{image}{_come(layers)}")

    def begin(self, engine: str, total: int) -> None:
        """Begin to count; the first line comes after :data:`LINE_EVERY_S` seconds."""
        with self._guard:
            self._ended[engine], self._totals[engine] = 0, total
            self._told_at[engine] = self._clock()

    def more(self, engine: str, count: int) -> None:
        """Count so many more."""
        with self._guard:
            self._totals[engine] = self._totals.get(engine, 0) + count

    def advance(self, engine: str) -> None:
        """Write a line every :data:`LINE_EVERY_S` seconds while one engine is asked."""
        with self._guard:
            if engine in self._ended:
                self._ended[engine] += 1
                self._tell(engine, f"{engine}: {self._ended[engine]} of {self._totals[engine]} requests")

    def experiments(self, pair: str, sent: int, most: int) -> None:
        """Write a line, at the beginning and then every :data:`LINE_EVERY_S` seconds."""
        with self._guard:
            self._tell(f"{pair}: experiments", _experiments(pair, sent, most))

    def end(self) -> None:
        """Count anew from here on."""
        with self._guard:
            self._told_at, self._ended, self._totals = {}, {}, {}

    def _tell(self, subject: str, line: str) -> None:
        """Write a line, unless one about the same was written a moment ago."""
        if subject not in self._told_at or self._clock() - self._told_at[subject] >= LINE_EVERY_S:
            self._told_at[subject] = self._clock()
            with self._uncaptured():
                self._stream.write(f"{printable(line)}\n")
                self._stream.flush()


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
        self._fetches: dict[str, TaskID] = {}

    def say(self, text: str) -> None:
        """Write a line, above the bars where there are some."""
        line = printable(text)
        with self._saying:  # engines start in threads, and capture is lifted for one at a time
            if self._bars is not None:
                self._bars.console.print(line, markup=False, highlight=False)
                return
            with self._uncaptured():
                self._stream.write(f"{line}\n")
                self._stream.flush()

    def begin(self, engine: str, total: int) -> None:
        """Draw a bar for one engine."""
        with self._saying:
            self._tasks[engine] = self._drawn().add_task(engine, total=total)

    def fetch(self, engine: str, layers: Layers | None) -> None:
        """Draw how much of an engine's image has come: in bytes where they are told, else in layers."""
        with self._saying:
            if layers is None:
                self._take_away(engine)
                return
            bars = self._drawn()
            if engine not in self._fetches:
                self._fetches[engine] = bars.add_task(f"{engine}: its image", total=None)
            size, of = (layers.size, layers.of_size) if layers.of_size else (layers.done, layers.of)
            bars.update(self._fetches[engine], completed=size, total=of or None, words=_come(layers).removeprefix(": "))

    def _take_away(self, engine: str) -> None:
        task = self._fetches.pop(engine, None)
        if self._bars is not None and task is not None:
            self._bars.remove_task(task)
            if not self._fetches and not self._tasks:
                self.end()

    def _drawn(self) -> RichProgress:
        """Return the bars, drawn if they are not yet."""
        if self._bars is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._open.enter_context(self._uncaptured())
            self._bars = self._open.enter_context(
                Progress(
                    TextColumn("{task.description}"),
                    BarColumn(bar_width=24),
                    _counts(),
                    TimeRemainingColumn(),
                    console=Console(file=self._stream),
                    transient=True,
                )
            )
        return self._bars

    def more(self, engine: str, count: int) -> None:
        """Make one engine's bar longer."""
        if self._bars is not None and engine in self._tasks:
            task = self._tasks[engine]
            self._bars.update(task, total=(self._bars.tasks[task].total or 0) + count)

    def advance(self, engine: str) -> None:
        """Move one engine's bar."""
        if self._bars is not None and engine in self._tasks:
            self._bars.advance(self._tasks[engine])

    def experiments(self, pair: str, sent: int, most: int) -> None:
        """Draw how many requests experiments have sent; nobody knows how many of those allowed it will take.

        Which pair they are on is said above: two names may leave no room for a number.
        """
        with self._saying:
            if pair not in self._tasks:
                self._tasks[pair] = self._drawn().add_task("experiments", total=None, words="")
            self._drawn().update(self._tasks[pair], words=f"{sent} requests, {most} at most")

    def end(self) -> None:
        """Take the bars away."""
        self._open.close()
        self._bars, self._tasks, self._fetches = None, {}, {}


def _counts() -> ProgressColumn:
    """Return the column that counts: requests, or what its bar says in words."""
    from rich.progress import MofNCompleteColumn, Task
    from rich.text import Text

    class Counts(MofNCompleteColumn):
        def render(self, task: Task) -> Text:
            words = task.fields.get("words")
            return super().render(task) if words is None else Text(words)

    return Counts()


def _experiments(pair: str, sent: int, most: int) -> str:
    """Return what experiments are made for, and how many requests they have sent.

    >>> _experiments("q4 against f16", 0, 400)
    'q4 against f16: experiments that show a cause, at most 400 requests'
    >>> _experiments("q4 against f16", 96, 400)
    'q4 against f16: experiments that show a cause, 96 requests of at most 400'
    """
    words = f"{pair}: experiments that show a cause"
    return f"{words}, {sent} requests of at most {most}" if sent else f"{words}, at most {most} requests"


def _come(layers: Layers) -> str:
    """Return how much of an image has come, as the end of a sentence; nothing where nobody knows.

    >>> _come(Layers(2, 7, 61_040_000, 2_500_000_000)), _come(Layers(0, 0, 0, 0))
    (': 2 of 7 layers, 61.0 MB of 2.5 GB', '')
    """
    if not layers.of:
        return ""
    from rich.filesize import decimal

    size = f", {decimal(layers.size)} of {decimal(layers.of_size)}" if layers.of_size else ""
    return f": {layers.done} of {layers.of} layers{size}"
