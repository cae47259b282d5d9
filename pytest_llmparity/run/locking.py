"""Live engines held against ``llmparity.lock``."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os.path
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pytest_llmparity import lockfile
from pytest_llmparity.core.checks.drift.ladders import unmeasured
from pytest_llmparity.core.errors import DesignError, LockError
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.golden.updating import apart
from pytest_llmparity.core.identity import lock
from pytest_llmparity.core.identity.agreed import Agreed, without_folders
from pytest_llmparity.core.identity.canaries import Canaries, Change, Seen, compare, recorded
from pytest_llmparity.core.identity.lock import Locked, Setting, Value
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.sample import IDENTITY, Fact, Identity, Sampling
from pytest_llmparity.engines.played import header_of
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.probe import canaries
from pytest_llmparity.settings.selection import parse_engines
from pytest_llmparity.settings.specification import EngineSpec, Settings

_ROOT: Final = "{root}"


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
        self._names = [spec.name for spec in settings.asked]
        self._of_replica = {each.name: spec for spec in settings.asked for each in spec.each}
        self._heard = [spec.name for spec in settings.recordable]
        self._baseline = settings.baseline
        self._live: dict[str, Locked] = {}
        self._read: tuple[Mapping[str, Locked] | None, str] | None = None

    def hold(self, spec: EngineSpec, identity: Identity, kind: str) -> Held:
        """Return what is wrong with a live engine, and what is worth a note.

        Every replica of an engine is held against the one entry that the lock has of it.
        """
        if spec.recording is not None:
            return self._of_recording(spec)
        name, spec = spec.name, self._of_replica.get(spec.name, spec)
        live = entry(spec, identity, kind=kind, plugin="", root=str(self._root))
        if name == spec.name:
            self._live[name] = live
        engines, broken = self._engines()
        if broken or engines is None:
            missing = (
                broken
                or f"there is no {lock.NAME} in {self._root}, and this run is frozen; {self._renew(*self._heard)}"
            )
            return self._sorted(missing) if broken or self._frozen else Held()
        unlocked = [name for name in self._heard if name not in engines]
        locked = engines.get(spec.name)
        if locked is None:
            return self._sorted(
                f"it is not in {lock.NAME}, and this run is frozen; {self._renew(*unlocked)}", quiet=True
            )
        differences = lock.differences(locked, live)
        notes = tuple(
            f"it was locked on another machine: {difference}"
            for difference in differences
            if difference.machine and not difference.untold
        )
        if untold := ", ".join(
            f"{difference.field} (locked: {difference.locked})" for difference in differences if difference.untold
        ):
            notes += (f"it does not tell now what {lock.NAME} holds, so that is neither equal nor different: {untold}",)
        if self._frozen and (blind := lock.unseen(dataclasses.replace(live, canaries=locked.canaries))):
            notes += (f"it {blind}",)
        apart = "; ".join(str(difference) for difference in differences if difference.fails)
        if not apart:
            return Held(notes=notes)
        held = self._sorted(f"it differs from {lock.NAME}: {apart}; {self._renew(spec.name)}")
        return Held(held.wrong, held.notes + notes)

    def _of_recording(self, spec: EngineSpec) -> Held:
        """Return in what the recorded engine is another one than the lock has under its name by now."""
        about = header_of(spec)
        self._live[spec.name] = about.locked
        now = self.locked(about.engine)
        if now is None or not (differing := apart(about.locked, now)):
            return Held()
        words = "; ".join(map(str, differing))
        return Held(
            wrong=(f"it was recorded from another {about.engine} than {lock.NAME} has now: {words}; record it anew",)
        )

    def locked(self, name: str) -> Locked | None:
        """Return what the lock keeps of an engine, ``None`` where it is not there or the lock cannot be read."""
        engines, _ = self._engines()
        return None if engines is None else engines.get(name)

    def canaries(self, name: str) -> Canaries | None:
        """Return what the lock keeps of an engine's answers, ``None`` where it keeps none that tell anything."""
        locked = self.locked(name)
        return None if locked is None or locked.canaries is None or locked.canaries.restless else locked.canaries

    @property
    def seen(self) -> Mapping[str, Locked]:
        """The live engines held so far, as the lock would keep them."""
        return dict(self._live)

    @property
    def most_canaries(self) -> int:
        """How many requests the canaries of one engine of this run take at most."""
        return canaries.MOST if any(map(self.canaries, self._heard)) else 0

    def heard(self, spec: EngineSpec, seen: Seen, *, stopped: bool) -> Held:
        """Return what a live engine's canaries say that is wrong, or worth a note.

        Where a hard stop of ours left them unasked (``stopped``) that they cannot be compared refuses nobody.
        """
        if seen.change is Change.UNCHANGED:
            return Held()
        renew = self._renew(spec.name)
        if seen.change is not Change.UNKNOWN:
            return self._sorted(f"its canaries do not answer as {lock.NAME} says: {seen}; {renew}")
        doctor = f"llmparity doctor {self._spelt(spec.name)} says what it gives now"
        sentence = f"its canaries cannot be compared with those of {lock.NAME}: {seen.numbers}; {doctor}; {renew}"
        return Held(notes=(sentence,)) if stopped else self._sorted(sentence)

    def agreed(self) -> Agreed:
        """Return what the lock says of drift, nothing where it cannot be read: :meth:`hold` tells why."""
        try:
            return lockfile.agreed(self._path)
        except LockError:
            return Agreed()

    def require_margins(self, checks: Sequence[Check], prompts: PromptSet, sampling: Sampling) -> None:
        """Raise ``DesignError`` where the lock has no margin for some candidate, ``LockError`` where it is broken.

        Some of ``checks`` takes one, on ``prompts`` asked with ``sampling``. Whether a ladder is of this model is known
        only later, so one that fits these prompts is enough.
        """
        agreed, baseline = lockfile.agreed(self._path), self._baseline or ""
        if baseline not in self._names:  # a golden, which brings a margin of its own
            return
        for text in (str(check) for check in checks if check.needs().ladder):
            unfit = [unmeasured(ladder, prompts, sampling) for ladder in agreed.ladders]
            if not all(unfit):
                continue
            why = f"{'; '.join(dict.fromkeys(unfit))}. " if unfit else ""
            given = f"check.{text[:-1]}{'' if text.endswith('(') else ', '}margin=0.05)".replace("(, ", "(")
            raise DesignError(
                f"check.{text} has no margin: how often answers part depends on the prompts and the model, so there is "
                f"none for all. {why}Give a share of tokens, such as {given}; or, with the unquantised GGUF file of "
                "the model, measure its copies on these prompts: llmparity calibrate --ladder FILE --prompts PROMPTS "
                f"(then commit {lock.NAME}); or hold engines with logprobs by check.logprobs()"
            )
        if not any(check.needs().accepted for check in checks):
            return
        if agreed.ladders:  # whether one is of this model is known when the engines are there
            return
        without = [name for name in self._names if name != baseline and agreed.margin(baseline, name) is None]
        if without:
            words = f"llmparity calibrate {self._spelt(baseline)} {self._spelt(without[0])}"
            check = next(str(check) for check in checks if check.needs().accepted)
            given = f"check.{check[:-1]}{'' if check.endswith('(') else ', '}shift=0.06)".replace("(, ", "(")
            # A text check has a margin of its own: the lock says which of its forks are near-ties.
            taken = "shift" if check.startswith("text(") else "margin"
            raise DesignError(
                f"check.{check} takes its {taken} from {lock.NAME}, which has none for {' and '.join(without)} "
                f"against {baseline}; measure the pair with: {words} (then commit the file), or give a number of nats, "
                f"such as {given}"
            )

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

    def _renew(self, *names: str) -> str:
        return f"if that is meant, run: llmparity lock {' '.join(map(self._spelt, names))}"

    def _spelt(self, name: str) -> str:
        """Return an engine as it was selected, for a command line."""
        return shlex.quote(self._texts.get(name, name))

    def _engines(self) -> tuple[Mapping[str, Locked] | None, str]:
        if self._read is None:
            try:
                self._read = lockfile.read(self._path), ""
            except LockError as error:
                self._read = None, str(error)
        return self._read


def canaries_of(
    adapter: Adapter, kept: Canaries | None, *, record: bool, plugin: str
) -> tuple[Canaries | None, Seen | None]:
    """Ask an engine its canaries: return what the lock keeps of them, and how they compare with ``kept`` ones.

    Those that answer as they did stay to the byte. To ``record`` others the engine is asked twice more, warm and in
    parallel, for what it differs from itself; without, none are kept that there were not. None are kept of an engine
    without logprobs that did not answer its own repeats alike.
    """
    kept = None if kept is None or kept.restless else kept
    if kept is None and not record:
        return None, None
    first = canaries.ask(adapter)
    seen = None if kept is None else compare(kept, first)
    if seen is not None and (seen.change is Change.UNCHANGED or not record):
        return kept, seen
    if not first:
        return None, seen
    passes = [first, canaries.ask(adapter), canaries.ask(adapter, at_once=canaries.AT_ONCE)]
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    made = recorded(passes, date=today, plugin=plugin, prompt_set=canaries.SET)
    return (made if made.answers and not made.restless else None), seen


def entry(spec: EngineSpec, identity: Identity, *, kind: str, plugin: str, root: str) -> Locked:
    """Return the entry that the lock keeps of an engine; ``root`` is the absolute folder of the project.

    ``slots`` of an engine that we start without the configuration saying how many follows from the run, and is left
    out. A model named by an absolute path of the server's machine keeps its last part.
    """
    facts = {
        name: Fact(value=_model(fact.value) if name == "model" else fact.value, source=fact.source)
        for name, fact in sorted(identity.facts.items())
        if name in IDENTITY and name != "kind" and not (name == "slots" and _free_slots(spec))
    }
    return Locked(kind=kind, plugin=plugin, identity=facts, launch=_launch(spec, root))


def _launch(spec: EngineSpec, root: str) -> dict[str, Setting]:
    shown: dict[str, Setting | None] = {
        "launch": spec.launch,
        "route": spec.route,
        "model": _file(str(spec.model_path), root) if spec.model_path is not None else str(_model(spec.model or "")),
        "revision": spec.revision,
        "image": spec.image,
        "run_args": tuple(portable(text, root) for text in spec.run_args),
        "volumes": tuple(_volume(volume, root) for volume in spec.volumes),
        "gpus": spec.gpus,
        "shm_size": spec.shm_size,
        "requires": tuple(portable(text, root) for text in spec.requires),
        "python": _file(spec.python, root) if spec.python else None,
        "command": (_file(spec.command[0], root), *(portable(text, root) for text in spec.command[1:]))
        if spec.command
        else None,
        "args": tuple(portable(text, root) for text in spec.args),
        "env": tuple(sorted({*spec.env, *spec.env_from})),
        "context_length": spec.context_length,
        "slots": spec.slots,
    }
    kept = {name: value for name, value in shown.items() if value is not None and value not in ("", ())}
    hidden = {
        "env": {name: portable(value, root) for name, value in spec.env.items()}
        | {name: {"env": variable} for name, variable in spec.env_from.items()},
        "indexes": spec.extra_index_urls,
        "limits": [_file(str(path), root) for path in (spec.constraints, spec.overrides) if path is not None],
    }
    text = json.dumps([kept, hidden], sort_keys=True)
    return {**kept, "spec": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()}


def portable(text: str, root: str) -> str:
    """Return a text in which the project's folder is written ``{root}``."""
    return re.sub(rf"(?<![\w./-]){re.escape(root.rstrip('/'))}(?=/|$)", _ROOT, text)


def _file(path: str, root: str) -> str:
    """Return a file as the lock names it: relative to the project, outside of it by its name alone."""
    inside = os.path.normpath(path).removeprefix(root.rstrip("/") + "/")
    return inside if not os.path.isabs(inside) else os.path.basename(inside)


def _volume(volume: str, root: str) -> str:
    """Return a volume as the lock names it: a folder of this machine as :func:`_file` does."""
    source, _, place = volume.partition(":")
    return f"{_file(source, root)}:{place}"


def _model(value: Value) -> Value:
    """Return a model's name without the folders of the server's machine."""
    return without_folders(value) if isinstance(value, str) else value


def _free_slots(spec: EngineSpec) -> bool:
    return spec.launched and spec.slots is None
