"""Runs and their samples on disk: gathered once, judged as often as wanted, never lost to a crash.

Several pytest processes write at once; what one that is killed had put is there afterwards. A run never reads another
run's samples, except to resume an unfinished one, to replay, and to reuse a noise floor (:meth:`Store.reusable_floor`).
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
import os
import platform
import secrets as random_source
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from pytest_llmparity.core.errors import StoreError
from pytest_llmparity.core.evidence import FLOOR_PHASES
from pytest_llmparity.core.sample import Identity, Phase, Sample, TokenLogprob
from pytest_llmparity.core.words.masking import Mask
from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.core.words.printable import printable
from pytest_llmparity.store import ownership
from pytest_llmparity.store.database import (
    PUT_SAMPLE,
    PUT_TOKENS,
    SAMPLE_COLUMNS,
    SCHEMA,
    Database,
    identity_from,
    readable,
    row_of,
    sample_from,
    token_rows,
)
from pytest_llmparity.store.documents import Documents
from pytest_llmparity.store.folder import file_system_of, local_folder
from pytest_llmparity.store.looks import Looks
from pytest_llmparity.store.ownership import NAMED, TIMED, alive, claim, hold
from pytest_llmparity.store.packing import UseTokens, pack

FILE_NAME = "samples.sqlite"
FORMAT = 4
GATHERED = "gathered"
"""Name of the run's document that says: gathering has ended, this is what happened."""
JUDGED = "judged"
"""Name of the run's document that says: a session has judged and reported it to its end."""


class Key(NamedTuple):
    """What makes a sample of one engine in one run the same sample."""

    request_sha256: str
    case: str
    phase: Phase
    repeat: int
    concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHandle:
    """The run a session writes to.

    ``resumed``: it goes on where an interrupted one stopped. ``retried``: gathering had ended, and what failed or is
    missing is asked (again); all else is kept. ``kept``: gathering had ended, nothing is asked, only judged.
    """

    id: str
    resumed: bool = False
    retried: bool = False
    kept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """One run in the store. ``started`` and ``finished`` are seconds since the epoch, ``None``: not finished."""

    id: str
    plan_hash: str
    session: str
    started: float
    finished: float | None
    host: str
    version: str


def key_of(sample: Sample) -> Key:
    """Return the key the store files this sample under."""
    return Key(sample.request_sha256, sample.case, sample.phase, sample.repeat, sample.concurrency)


class Store(Looks, Documents):
    """The run store in one folder; safe to use from several threads and processes at once.

    ``secrets`` maps names to values that are replaced by ``«NAME»`` before anything is written. ``now`` gives seconds
    since the epoch. Use :meth:`open`, which prepares the folder; close it, or use it in a ``with`` statement.
    """

    def __init__(
        self, path: Path, *, secrets: Mapping[str, str] | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self.mask = Mask(secrets or {})
        self._now = now
        self._file = Database(path, schema=SCHEMA, format=FORMAT)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        secrets: Mapping[str, str] | None = None,
        now: Callable[[], float] = time.time,
        file_system: Callable[[Path], str] = file_system_of,
    ) -> Store:
        """Open the store in ``folder``, which is made (and kept out of git) when it is not there.

        Raises ``StoreError`` when the folder cannot be written, lies on a network file system, or holds a store of
        another format.
        """
        return cls(local_folder(folder, file_system) / FILE_NAME, secrets=secrets, now=now)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        self._file.close()

    # -- runs ---------------------------------------------------------------------------------------------------------

    def begin(
        self,
        *,
        plan_hash: str,
        session: str,
        version: str,
        resume: Literal["auto", "resume", "fresh", "retry", "judged"] = "auto",
        max_age_s: float = 6 * 3600,
        whole: Callable[[Mapping[str, Any], float], bool] = lambda state, began: False,
    ) -> RunHandle:
        """Return this session's run: the one it has (another xdist worker began it), an unfinished one, or a new one.

        ``auto`` and ``resume`` go on with the newest run of the same plan and version on this host that no living
        process holds, if it is unfinished: ``auto`` if it began less than ``max_age_s`` ago, ``resume`` however old it
        is; without one ``resume`` raises ``StoreError``. Of a resumed run the answers stay; timings, timed samples and
        failures are dropped, because the first two are evidence only when taken in one go and the last are asked again.

        A run whose gathering had ended is unfinished until it was judged: whoever went on with it was killed. If no
        answer failed and ``whole`` says of what its gathering wrote down that nothing is missing, it is only judged.
        Else its failures are asked again, and timed phases of which an answer failed; so it is with ``retry``, which
        takes the newest run of the plan however old, judged or not, and raises ``StoreError`` where there is none.
        ``judged`` is as ``auto``, but for a run that was judged already and has all its answers: it is judged again.
        ``whole`` is told, beside what was written down, when the run began, in seconds since the epoch.
        """
        with self._file.write() as db:
            row = db.execute("SELECT id, resumed FROM runs WHERE session = ?", (session,)).fetchone()
            if row is not None:
                hold(db, row[0])
                return RunHandle(id=row[0], resumed=bool(row[1]))
            oldest = max_age_s if resume in ("auto", "judged") else math.inf
            earlier = None
            if resume != "fresh":
                earlier = self._earlier(plan_hash, version, oldest, judged_too=resume in ("retry", "judged"))
            if earlier is not None and resume == "judged" and self.has_document(earlier, JUDGED):
                if self._as_it_is(db, earlier, whole):
                    claim(db, earlier, session)
                    return RunHandle(id=earlier, kept=True)
                earlier = None
            if earlier is not None:
                return self._go_on(db, earlier, session, whole)
            if resume == "retry":
                message = (
                    f"no run in {self.path.parent} has answers to ask again: there is none of this plan and version "
                    "on this host; run again without --parity-retry-failed"
                )
                raise StoreError(message)
            if resume == "resume":
                message = (
                    f"no run in {self.path.parent} can be resumed: none of this plan and version on this host is "
                    "unfinished and free; run again without --parity-resume"
                )
                raise StoreError(message)
            fresh = self._new_id()
            while db.execute("SELECT 1 FROM runs WHERE id = ?", (fresh,)).fetchone():
                fresh = self._new_id()  # another one of this second
            db.execute(
                "INSERT INTO runs (id, plan_hash, session, started, host, version) VALUES (?, ?, ?, ?, ?, ?)",
                (fresh, plan_hash, session, self._now(), platform.node(), version),
            )
            hold(db, fresh)
            return RunHandle(id=fresh, resumed=False)

    def finish(self, run: str) -> None:
        """Mark the run as finished: it is never resumed."""
        with self._file.write() as db:
            db.execute("UPDATE runs SET finished = ? WHERE id = ?", (self._now(), run))

    def runs(self) -> list[RunInfo]:
        """Return every run, oldest first."""
        query = "SELECT id, plan_hash, session, started, finished, host, version FROM runs ORDER BY started, id"
        return [
            RunInfo(id=i, plan_hash=p, session=s, started=a, finished=f, host=h, version=v)
            for i, p, s, a, f, h, v in self._file.read(query)
        ]

    def info(self, run: str) -> RunInfo:
        """Return one run; ``StoreError`` where it is not there names the nearest, and the newest that are."""
        by_id = {info.id: info for info in self.runs()}
        if run not in by_id:
            raise StoreError(
                f"there is no run {printable(run)} in {self.path.parent}{nearest(run, by_id)}; the newest are: "
                f"{', '.join([*by_id][-5:]) or 'none'}"
            )
        return by_id[run]

    def answered(self, session: str) -> dict[str, str]:
        """Return which engines have answers in the run of a session that stay when it goes on, with that run's id."""
        return dict(self._file.read(ownership.ANSWERED, (session, Phase.TIMED)))

    def times_again(self, run: str) -> bool:
        """Whether what was timed in a run is timed again when it goes on."""
        return bool(self._file.read(ownership.UNTIMED, (run, Phase.TIMED))) or self._timed_badly(run)

    def latest(
        self, plan_hash: str | None = None, *, without: Collection[str] = (), ended: Collection[str] = ()
    ) -> RunInfo | None:
        """Return the newest run (of a plan), finished ones before unfinished; ``None`` when there is none.

        Runs whose ids are in ``without`` do not count, those in ``ended`` count as finished.
        """
        runs = [run for run in self.runs() if plan_hash in (None, run.plan_hash) and run.id not in without]
        done = {run.id for run in runs if run.finished is not None} | set(ended)
        return max(runs, key=lambda run: (run.id in done, run.started, run.id), default=None)

    # -- which of them stay -------------------------------------------------------------------------------------------

    def name(self, run: str, *, kept: bool) -> None:
        """Take note that a person wants a run kept, or no longer; ``StoreError`` where there is no such run."""
        self.info(run)
        if kept:
            self.put_document(run, NAMED, {})
            return
        with self._file.write() as db:
            db.execute("DELETE FROM notes WHERE run = ? AND name = ?", (run, NAMED))

    def named(self) -> set[str]:
        """Return the runs that a person named."""
        return {run for (run,) in self._file.read("SELECT run FROM notes WHERE name = ?", (NAMED,))}

    def hold(self, run: str) -> None:
        """Take note that this process reads a run, so that no other one removes it meanwhile."""
        with self._file.write() as db:
            hold(db, run)

    def release(self, run: str) -> None:
        """Take note that this process uses a run no longer."""
        with self._file.write() as db:
            db.execute("DELETE FROM holders WHERE run = ? AND pid = ?", (run, os.getpid()))

    def prune(self, keep: int, *, spare: str | None = None) -> list[str]:
        """Remove all but the newest runs and give their space back; return the removed ones, oldest first.

        ``spare`` stays, however long ago it began, and so does what a person named or a process may still use: runs
        that a living one holds, that were interrupted before they were judged, or that another host has not judged.
        """
        query = (
            "SELECT id, host, finished IS NOT NULL, EXISTS (SELECT 1 FROM notes WHERE run = id AND name = ?)"
            " FROM runs ORDER BY started DESC, id DESC LIMIT -1 OFFSET ?"
        )
        with self._file.write() as db:
            needed = {*self.named(), spare}
            old = [
                run
                for run, host, finished, judged in db.execute(query, (JUDGED, keep)).fetchall()
                if (judged or (finished and host == platform.node())) and not (run in needed or self._held(run))
            ]
            for table, column in (
                ("samples", "run"),
                ("notes", "run"),
                ("engines", "run"),
                ("holders", "run"),
                ("runs", "id"),
            ):
                db.executemany(f"DELETE FROM {table} WHERE {column} = ?", [(run,) for run in old])  # noqa: S608
        if old:
            self._file.shrink()
        return old[::-1]

    # -- engines ------------------------------------------------------------------------------------------------------

    def put_engine(self, run: str, name: str, spec_hash: str, identity: Identity) -> bool:
        """Record who answers under this name; return whether samples of a resumed run had to be dropped.

        They are dropped when the engine they came from had another spec or reported other values than this one.
        """
        identity = self.mask.identity(identity)
        with self._file.write() as db:
            query = "SELECT spec_hash, identity, earlier FROM engines WHERE run = ? AND name = ?"
            row = db.execute(query, (run, name)).fetchone()
            other = (
                row is not None
                and bool(row[2])
                and (row[0], _values(identity_from(row[1]))) != (spec_hash, _values(identity))
            )
            if other:
                # Also what its replicas answered for themselves; no engine has an @ in its name.
                db.execute(
                    "DELETE FROM samples WHERE run = ? AND (engine = ? OR substr(engine, 1, ?) = ?)",
                    (run, name, len(name) + 1, f"{name}@"),
                )
                # What was timed beside it compares with nothing any more: the phase is measured again on all.
                db.execute("DELETE FROM samples WHERE run = ? AND phase = ?", (run, Phase.TIMED))
                db.execute("DELETE FROM notes WHERE run = ? AND substr(name, 1, ?) = ?", (run, len(TIMED), TIMED))
            db.execute(
                "INSERT OR REPLACE INTO engines (run, name, spec_hash, identity) VALUES (?, ?, ?, ?)",
                (run, name, spec_hash, pack(identity)),
            )
        return other

    # -- samples ------------------------------------------------------------------------------------------------------

    def put(self, run: str, samples: Sequence[Sample]) -> None:
        """Write samples in one transaction, secrets masked; a sample with a key that is there replaces it."""
        masked = [self.mask.sample(sample) for sample in samples]
        rows, tokens = [row_of(run, sample) for sample in masked], token_rows(run, masked)
        with self._file.write() as db:
            db.executemany(PUT_SAMPLE, rows)
            db.executemany(PUT_TOKENS, tokens)

    def forget(self, run: str, engine: str, keys: Iterable[Key]) -> None:
        """Remove samples of an engine, so that they are missing."""
        where = "run = ? AND engine = ? AND request_sha256 = ? AND case_id = ? AND phase = ? AND repeat = ?"
        query = f"DELETE FROM samples WHERE {where} AND concurrency = ?"  # noqa: S608 - our own names
        with self._file.write() as db:
            db.executemany(query, [(run, engine, *key) for key in keys])

    def get(self, run: str, engine: str, *, phases: Collection[Phase] | None = None) -> list[Sample]:
        """Return an engine's samples of these phases (``None``: all), sorted by phase, case and repeat."""
        return self._samples(run, engine, tuple(Phase) if phases is None else phases)

    def have(self, run: str, engine: str) -> set[Key]:
        """Return the keys of what is there, failures included."""
        query = "SELECT request_sha256, case_id, phase, repeat, concurrency FROM samples WHERE run = ? AND engine = ?"
        return {
            Key(sha, case, Phase(phase), rep, conc)
            for sha, case, phase, rep, conc in self._file.read(query, (run, engine))
        }

    def reusable_floor(
        self,
        *,
        spec_hash: str,
        identity: Identity,
        concurrency: int,
        version: str,
        wanted: Mapping[Key, int] | None = None,
    ) -> list[Sample]:
        """Return the noise floor another run measured on this very engine, or nothing.

        It is the newest one on this host with equal spec, identity, concurrency and version of this package; an
        identity with a value the server did not report itself proves nothing and gives nothing. With ``wanted`` a run
        counts only when it has all of these keys, and only they come back: none of an answer that was cut at fewer
        tokens than are wanted of it. The caller puts them into its own run: checks read one run.
        """
        identity = self.mask.identity(identity)
        facts = [fact for name, fact in identity.facts.items() if name != "kind"]  # the kind is ours, not the server's
        if not facts or any(fact.source != "reported" for fact in facts):
            return []
        query = (
            "SELECT e.run, e.name, e.identity FROM engines e JOIN runs r ON r.id = e.run"
            " WHERE e.spec_hash = ? AND r.version = ? AND r.host = ? ORDER BY r.started DESC, r.id DESC"
        )
        for run, name, known in self._file.read(query, (spec_hash, version, platform.node())):
            with readable(run, f"who answered as {name}"):
                if identity_from(known) != identity:
                    continue
            samples = {
                key_of(sample): sample
                for sample in self._samples(run, name, FLOOR_PHASES)
                if sample.concurrency == concurrency and sample.completion is not None
            }
            if wanted is not None:
                whole = all(key in samples and _reaches(samples[key], tokens) for key, tokens in wanted.items())
                samples = {key: samples[key] for key in wanted} if whole else {}
            if samples:
                return list(samples.values())
        return []

    # -- inside -------------------------------------------------------------------------------------------------------

    def _new_id(self) -> str:
        """Return a short id that sorts by time (UTC) and can be read aloud."""
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(self._now()))
        return f"{stamp}-{random_source.token_hex(2)}"

    def _go_on(
        self, db: sqlite3.Connection, run: str, session: str, whole: Callable[[Mapping[str, Any], float], bool]
    ) -> RunHandle:
        """Take over an earlier run; what of it is kept depends on how far it came."""
        ((finished,),) = db.execute("SELECT finished FROM runs WHERE id = ?", (run,))
        if finished is None or not self.has_document(run, GATHERED):
            ownership.take_over(db, run, session)
            return RunHandle(id=run, resumed=True)
        if self._as_it_is(db, run, whole):
            claim(db, run, session)
            return RunHandle(id=run, kept=True)
        ownership.take_over_again(db, run, session, timed_again=self._timed_badly(run))
        return RunHandle(id=run, retried=True)

    def _as_it_is(self, db: sqlite3.Connection, run: str, whole: Callable[[Mapping[str, Any], float], bool]) -> bool:
        """Whether a run can be judged without asking anybody: it was gathered to its end, and nothing is missing."""
        ((began, finished),) = db.execute("SELECT started, finished FROM runs WHERE id = ?", (run,))
        state = self.raw_document(run, GATHERED)
        if state is None or finished is None:
            return False
        ((failed,),) = db.execute("SELECT count(*) FROM samples WHERE run = ? AND failure IS NOT NULL", (run,))
        with readable(run, GATHERED):
            return not failed and whole(state, began)

    def _timed_badly(self, run: str) -> bool:
        """Whether an answer of a timed phase failed, or a whole phase did."""
        failed = self._file.read(
            "SELECT count(*) FROM samples WHERE run = ? AND phase = ? AND failure IS NOT NULL", (run, Phase.TIMED)
        )
        query = "SELECT name FROM notes WHERE run = ? AND substr(name, 1, ?) = ?"
        phases = [self.raw_document(run, name) or {} for (name,) in self._file.read(query, (run, len(TIMED), TIMED))]
        return bool(failed[0][0]) or any(phase.get("error") for phase in phases)

    def _earlier(self, plan_hash: str, version: str, max_age_s: float, *, judged_too: bool) -> str | None:
        query = (
            "SELECT id, started, finished FROM runs WHERE plan_hash = ? AND version = ? AND host = ?"
            " ORDER BY started DESC, id DESC"
        )
        for run, started, finished in self._file.read(query, (plan_hash, version, platform.node())):
            if self._now() - started >= max_age_s:
                return None
            judged = finished is not None and self.has_document(run, JUDGED)
            if judged:
                return str(run) if judged_too else None
            if not self._held(run):
                return str(run)
        return None

    def _held(self, run: str) -> bool:
        """Whether a living process writes or reads a run."""
        holders = self._file.read("SELECT pid, born FROM holders WHERE run = ?", (run,))
        return any(alive(pid, born) for pid, born in holders)

    def _samples(self, run: str, engine: str, phases: Iterable[Phase]) -> list[Sample]:
        wanted = [str(phase) for phase in phases]
        # By number first, as they lie in the file: in the order of the key every row would be a page somewhere else.
        query = (
            f"SELECT number, {SAMPLE_COLUMNS.removeprefix('run, ')} FROM samples WHERE number IN"  # noqa: S608
            f" (SELECT number FROM samples WHERE run = ? AND engine = ? AND phase IN ({', '.join('?' * len(wanted))}))"
        )
        read = functools.partial(self._tokens, run)
        part = f"an answer of {engine}"
        with contextlib.closing(self._file.each(query, (run, engine, *wanted))) as rows, readable(run, part):
            samples = [sample_from(row, read) for row in rows]
        return sorted(samples, key=operator.attrgetter("phase", "case", "repeat", "concurrency", "request_sha256"))

    def _tokens(self, run: str, number: int, use: UseTokens) -> list[TokenLogprob | None]:
        """Return what is made of one answer's token records; ``StoreError`` where another process removed it."""
        with readable(run, "the tokens of an answer"):
            records = self._file.within("tokens", "content", number, use)
        if records is None:
            message = (
                f"an answer of run {run} was removed from {self.path} while it was judged; do not delete the folder or "
                "resume a run that another process judges, and run again"
            )
            raise StoreError(message)
        return records


def _reaches(sample: Sample, tokens: int) -> bool:
    """Whether an answer was not cut before it had so many tokens."""
    answer = sample.completion
    return answer is not None and (not answer.cut or answer.max_tokens is None or answer.max_tokens >= tokens)


def _values(identity: Identity) -> dict[str, object]:
    """Return the facts by which an engine is the same one: not a probe's, which may see less on a busy day."""
    return {name: fact.value for name, fact in identity.facts.items() if fact.source != "probed"}
