"""The candidate's file of weights served by the baseline's kind, which tells its engine from its weights."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from pytest_llmparity.core.errors import EngineError
from pytest_llmparity.core.sample import Sample
from pytest_llmparity.engines.facts import gguf
from pytest_llmparity.engines.start import memory
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.explain.asking import Pair
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.settings.specification import EngineSpec

ROOM: Final = 1.2
"""Times its file's size that an engine takes in memory at the least: cache and buffers stand beside the weights."""


class SameFile:
    """A third engine that is started as the baseline is, with the candidate's file; stopped when it has answered.

    ``why`` says why there is none, empty where there may be.
    """

    def __init__(self, fleet: Fleet, adapters: tuple[Adapter, Adapter]) -> None:
        self.baseline, self.candidate = adapters
        self._fleet = fleet
        self._answers: dict[frozenset[str], Mapping[str, Sample]] = {}
        self._lock = threading.Lock()
        self.file = weights_of(self.candidate)
        self.why = self._refused()

    def answers(self, pair: Pair, removed: Collection[str]) -> Mapping[str, Sample] | None:
        """Return what the candidate's file answers on the baseline's engine with these things taken away.

        ``None`` where it could not be started; ``why`` says so then. ``Spent`` when no more requests may be sent.
        """
        key = frozenset(removed)
        with self._lock:
            if not self.why and key not in self._answers:
                pair.refuse_beyond(len(pair.cases))  # before anything is loaded
                with self._fleet.beside(self._spec()) as started:
                    if started.adapter is None or started.record.incomparable:
                        self.why = _first_line(started.record.error or started.record.incomparable or "")
                        return None
                    asked = pair.ask(started.adapter, pair.requests_without(key))
                    self._answers[key] = pair.compared(asked, key)
            return self._answers.get(key)

    def _refused(self) -> str:
        """Return why the baseline's kind is not started with the candidate's file, empty where it can be."""
        ours, theirs = self.baseline, self.candidate
        mine = weights_of(ours)
        if not ours.spec.launched:
            return f"{ours.name} was not started from here, so nothing is started as it was"
        if self.file is None:
            return f"the file of {theirs.name}'s weights is not known on this machine"
        if mine is None or is_gguf(mine) != is_gguf(self.file):
            return f"{ours.kind} as {ours.name} was started does not serve {self.file.name}"
        if mine.resolve() == self.file.resolve():
            return f"both serve {mine.name}"
        size, free = size_of(self.file), memory.available()
        if size * ROOM > free:
            return f"{self.file.name} takes {memory.shown(size)}, and {memory.shown(free)} of memory are free"
        return ""

    def _spec(self) -> EngineSpec:
        assert self.file is not None
        return dataclasses.replace(
            self.baseline.spec,
            name=f"{self.baseline.name}+{self.candidate.name}",
            model=str(self.file),
            model_path=self.file,
            pin={},
            recorder=None,
        )


def weights_of(adapter: Adapter) -> Path | None:
    """Return the file or folder of weights that an engine serves, where it lies on this machine and can be read."""
    try:
        path = adapter.weights_file()
    except EngineError:
        return None
    try:
        return path if path is not None and path.exists() else None
    except OSError:
        return None


def is_gguf(path: Path) -> bool:
    """Whether a file is a GGUF file, whatever its name: Ollama's have none."""
    try:
        gguf.read_header(path)
    except (gguf.NotWhole, OSError):
        return False
    return True


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    return path.stat().st_size


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0]
