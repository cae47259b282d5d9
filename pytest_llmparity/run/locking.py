"""Live engines held against ``llmparity.lock``."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pytest_llmparity import lockfile
from pytest_llmparity.core import lock
from pytest_llmparity.core.errors import LockError
from pytest_llmparity.core.lock import Locked
from pytest_llmparity.core.sample import Identity
from pytest_llmparity.core.selection import parse_engines
from pytest_llmparity.core.settings import EngineSpec, Settings


class Held(NamedTuple):
    """Why an engine may not be used, and what the reader should know: a sentence each, without the engine's name."""

    wrong: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Guard:
    """Holds engines against the lock file in ``root``, which is read when the first one is there.

    In a frozen run whatever differs is wrong, and so is an engine that is not in the lock, or a lock that is not there.
    In any other run a difference is a note. Facts of the machine, and those that nobody tells now, are notes in both.
    """

    def __init__(self, root: Path, settings: Settings) -> None:
        self._path = root / lock.NAME
        self._root = root
        self._frozen = settings.frozen
        self._texts = {entry.name: entry.text for entry in parse_engines(settings.selection)}
        self._names = [spec.name for spec in settings.engines]
        self._live: dict[str, Locked] = {}
        self._read: tuple[Mapping[str, Locked] | None, str] | None = None

    def hold(self, spec: EngineSpec, identity: Identity, kind: str) -> Held:
        """Return what is wrong with a live engine, and what is worth a note."""
        live = lock.entry(spec, identity, kind=kind, plugin="", root=str(self._root))
        self._live[spec.name] = live
        engines, broken = self._engines()
        if broken or engines is None:
            missing = broken or f"there is no {lock.NAME} in {self._root}, and this run is frozen; {self._renew(spec)}"
            return self._sorted(missing) if broken or self._frozen else Held()
        locked = engines.get(spec.name)
        if locked is None:
            return self._sorted(f"it is not in {lock.NAME}, and this run is frozen; {self._renew(spec)}", quiet=True)
        found = lock.differences(locked, live)
        notes = tuple(f"it was locked on another machine: {one}" for one in found if one.machine and not one.untold)
        if untold := ", ".join(f"{one.field} (locked: {one.locked})" for one in found if one.untold):
            notes += (f"it does not tell now what {lock.NAME} holds, so that is neither equal nor different: {untold}",)
        if self._frozen and (blind := lock.unseen(live)):
            notes += (f"it {blind}",)
        apart = "; ".join(str(one) for one in found if one.fails)
        if not apart:
            return Held(notes=notes)
        held = self._sorted(f"it differs from {lock.NAME}: {apart}; {self._renew(spec)}")
        return Held(held.wrong, held.notes + notes)

    def fingerprint(self) -> str:
        """Return a text that changes with what engines are held against: the lock file's bytes, and if it binds."""
        try:
            content = hashlib.sha256(self._path.read_bytes()).hexdigest()
        except OSError as error:
            content = type(error).__name__
        return f"{'frozen' if self._frozen else 'open'}/{content}"

    def twins(self) -> list[str]:
        """Return what sets engines apart that say the same of themselves, of those seen so far."""
        return lock.twins({name: self._live[name] for name in self._names if name in self._live})

    def _sorted(self, sentence: str, *, quiet: bool = False) -> Held:
        if self._frozen:
            return Held(wrong=(sentence,))
        return Held() if quiet else Held(notes=(sentence,))

    def _renew(self, spec: EngineSpec) -> str:
        return f"if that is meant, run: llmparity lock {shlex.quote(self._texts.get(spec.name, spec.name))}"

    def _engines(self) -> tuple[Mapping[str, Locked] | None, str]:
        if self._read is None:
            try:
                self._read = lockfile.read(self._path), ""
            except LockError as error:
                self._read = None, str(error)
        return self._read
