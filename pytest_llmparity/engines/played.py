"""A recording in place of an engine: its answers come from a server of ours, through the adapter of its kind.

What is asked, how answers are read and what is refused is the kind's own. Who the engine is and what it can do was told
when it was recorded; nothing but what was asked then can be asked of it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

import pytest_llmparity
from pytest_llmparity.core.errors import EngineSelectionError, NotRecorded, RecordingError
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.recorded.playing import Answers, Purpose
from pytest_llmparity.core.recording import MISSING, Header, Question, question
from pytest_llmparity.core.sample import Completion, Fact, Identity, Phase, WireRequest, from_json
from pytest_llmparity.core.words.printable import elide, printable
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.control import Reply
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.store import recordings

PLAYER: Final = "pytest_llmparity.testing.player"
_BOOT: Final = "import importlib, sys; sys.path.append(sys.argv[1]); importlib.import_module(sys.argv[2]).main()"
"""What the player's process runs; it takes the folder our package lies in, and the module."""
_ROOT: Final = str(Path(pytest_llmparity.__file__).resolve().parents[1])


def described(specs: Sequence[EngineSpec], kinds: Collection[str]) -> tuple[EngineSpec, ...]:
    """Return the specs, those of recordings with what their files say; ``EngineSelectionError`` names a broken one.

    ``kinds`` are those there are.
    """
    return tuple(spec if spec.recording is None else _described(spec, spec.recording, kinds) for spec in specs)


def _described(spec: EngineSpec, path: Path, kinds: Collection[str]) -> EngineSpec:
    try:
        recordings.place(path.parent.parent, path.stem)
        about = recordings.read(path).header
    except RecordingError as error:
        raise EngineSelectionError(f"--engines: {spec.name}: {error}") from None
    if about.kind not in kinds:
        raise EngineSelectionError(
            f"--engines: {spec.name}: {recordings.named(path)}:1: there is no kind of engine "
            f"{elide(printable(about.kind), 40)!r} here; there are: {', '.join(kinds)}"
        )
    return dataclasses.replace(
        spec,
        kind=about.kind,
        model=about.model,
        route=about.route,
        api=about.api,
        context_length=about.context_length,
        recorded_as=recordings.digest(path),
        origins={**spec.origins, **dict.fromkeys(("kind", "model", "route", "context_length"), recordings.named(path))},
    )


def in_words(spec: EngineSpec) -> str:
    """Return how fast a recording is played."""
    if spec.pace == 1:
        return "at the pace it was recorded with"
    return "as fast as it goes" if spec.pace == 0 else f"{spec.pace:g} times as fast as it was recorded"


@functools.lru_cache(maxsize=32)
def _header(path: Path, recorded_as: str) -> Header:
    """Return a recording's header; ``recorded_as`` tells one file of this name from the next."""
    return recordings.header(path)


def header_of(spec: EngineSpec) -> Header:
    """Return whose answers a recording has; ``RecordingError`` where its file is gone."""
    assert spec.recording is not None
    return _header(spec.recording, spec.recorded_as)


@functools.lru_cache(maxsize=8)
def _answers(path: Path, recorded_as: str) -> Answers:
    return Answers(recordings.read(path).exchanges, bodiless=True)


def answers_of(spec: EngineSpec) -> Answers:
    """Return for what a recording has answers, without these."""
    assert spec.recording is not None
    return _answers(spec.recording, spec.recorded_as)


def _asked(wire: WireRequest) -> Question:
    return question(wire.method, wire.path, json.loads(wire.body) if wire.body else None)


class Played(Adapter):
    """What is other than usual about an engine whose answers are played; stands before the adapter of its kind."""

    deadline_s: ClassVar[float] = 60.0

    def __init__(self, spec: EngineSpec, base_url: str, headers: Mapping[str, str]) -> None:
        super().__init__(spec, base_url, headers)
        self._timed: dict[str, list[tuple[int, bool, Question]]] = {}
        """The questions that are timed, by the key of the unit that asks them."""
        self._paths: dict[str, list[str]] = {}

    @classmethod
    def wire_model(cls, spec: EngineSpec) -> str:
        """Return what the recorded requests called the model."""
        return spec.model or ""

    @classmethod
    def launch(cls, spec: EngineSpec, port: int, workdir: Path, *, environ: Mapping[str, str] = os.environ) -> Launch:
        """Say how to start the player on a loopback port."""
        argv = [sys.executable, "-P", "-c", _BOOT, _ROOT, PLAYER, str(spec.recording), str(port), f"{spec.pace:g}"]
        return cls.started(spec, workdir, argv)

    @property
    def ours(self) -> bool:
        """No: the files and the machine of the recorded engine are not here."""
        return False

    @property
    def about(self) -> str:
        """Whose answers these are, as a note of the run says it."""
        path, spec = recordings.named(self.spec.recording or Path()), self.spec
        return f"{self.name}: plays {path}, the answers of {header_of(spec).whose}, {in_words(spec)}"

    def ready(self) -> str | None:
        """Return ``None`` when the player listens, else why not yet."""
        reply = self._reached("/health")
        return reply if isinstance(reply, str) else None

    def load(self) -> None:
        """Nothing to do: there is no model."""

    def warm_up(self) -> None:
        """Nothing to do: there is no model."""

    def identity(self) -> Identity:
        """Return what the engine was when it was recorded."""
        facts = header_of(self.spec).locked.identity
        return Identity(facts={"kind": Fact(value=self.kind, source="declared")} | dict(facts))

    def capabilities(self) -> Capabilities:
        """Return what the engine could do when it was recorded, probes included."""
        return from_json(Capabilities, dict(header_of(self.spec).capabilities))

    def residence(self) -> WireRequest | None:
        """Return ``None``: nothing was noted of its memory."""
        return None

    def limits(self) -> tuple[str, ...]:
        """Return nothing: no server is there that could drop anything."""
        return ()

    def addressed(self, path: str, purpose: Purpose) -> str:
        """Return the path with what the request is for, by which the player knows the answer."""
        return purpose.path(path)

    def has(self, wire: WireRequest, purpose: Purpose) -> bool:
        """Tell whether a request was recorded for a purpose."""
        return bool(answers_of(self.spec).asked_as(purpose, _asked(wire)))

    def untimed(self, unit: str, wires: Sequence[WireRequest], *, concurrency: int, cached: bool) -> str | None:
        """Say why these requests, in the order of asking, have no timed answers; ``None`` where each has its own.

        Those are the ``unit``'s from then on: no other one is given them.
        """
        taken: Counter[tuple[int, bool, Question]] = Counter()
        for other, keys in self._timed.items():
            if other != unit:
                taken.update(keys)
        keys, paths, short = [], [], 0
        for wire in wires:
            key = concurrency, cached, _asked(wire)
            there = answers_of(self.spec).timed(key[2], concurrency=concurrency, cached=cached)
            short += taken[key] >= len(there)
            purpose = Purpose(phase=Phase.TIMED, concurrency=concurrency, cached=cached, repeat=taken[key])
            paths.append(purpose.path(wire.path))
            keys.append(key)
            taken[key] += 1
        if not short:
            self._timed[unit], self._paths[unit] = keys, paths
            return None
        cache = ", with a cache that may hold them" if cached else ""
        return (
            f"{self.name} is a recording, and of the {len(wires)} timed answers that are asked for at concurrency "
            f"{concurrency}{cache}, it has {len(wires) - short}"
        )

    def timed_paths(self, unit: str) -> Sequence[str]:
        """Return the paths of the timed requests of a unit, each of which names an answer of its own."""
        return self._paths[unit]

    def read(self, answer: Answer, *, case: str) -> Completion:
        """Read an answer; ``NotRecorded`` where the recording has none to this request."""
        if MISSING in answer.headers:
            path, asked = recordings.named(self.spec.recording or Path()), header_of(self.spec)
            raise NotRecorded(
                f"not in {path} as it is asked now: llmparity record {asked.engine} --suite PATH (what is asked is "
                f"the prompt, its sampling, logprobs and streaming; case {elide(printable(case), 60)})",
                engine=self.name,
                case=case,
                status=answer.status,
            )
        return super().read(answer, case=case)

    def _impostor(self, reply: Reply) -> str | None:
        return None


def played(kind: type[Adapter]) -> type[Adapter]:
    """Return the adapter of a kind around a player."""
    return type(f"Played{kind.__name__}", (Played, kind), {})
