"""The store's file: its tables, how runs, engines and samples lie in them, and the file opened, read and written.

Several processes write at once. WAL mode, so that a reader never waits; every write is one ``BEGIN IMMEDIATE``
transaction, so that it waits for its turn instead of failing half way. What a process that is killed had committed is
there afterwards. What a run writes down beside its samples, its documents, lies in the table that was named ``notes``
when the format was made.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sqlite3
import struct
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import filelock
import msgspec

from pytest_llmparity.core.errors import StoreError, advice
from pytest_llmparity.core.sample import Completion, Failure, Identity, Phase, Sample, Timing, from_json
from pytest_llmparity.core.words.printable import elide, printable
from pytest_llmparity.store.folder import refuse_link
from pytest_llmparity.store.packing import (
    WIDTH,
    ReadTokens,
    StoredTokens,
    encoded,
    numbers,
    pack,
    pack_tokens,
    unpack,
)

T = TypeVar("T")

BUSY_S = 60.0
"""How long a write waits for another process before it gives up."""

CHEAP_BYTES = 64 * 2**20
"""How much may be copied to make a file smaller."""
_INCREMENTAL = 2
"""SQLite's number of the mode in which a file can be made smaller page by page."""


def _make_private(path: Path) -> None:
    """Make a file, unless it is there, that nobody else can read, whatever the mask of this process."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if sys.platform != "win32":
                os.fchmod(file, 0o600)
        finally:
            os.close(file)
    except OSError as error:
        raise StoreError(f"{path} cannot be used: {advice(error)}") from error


class Database:
    """An open file of one format; safe to use from several threads. All methods raise ``StoreError``.

    ``schema`` makes the tables of an empty file, ``format`` is kept in its ``user_version``; a file of another format
    is refused. ``busy_s`` is how long a write waits for other processes.
    """

    def __init__(self, path: Path, *, schema: str, format: int, busy_s: float = BUSY_S) -> None:
        self.path = path
        self._busy_s = busy_s
        self._lock = threading.RLock()
        # Two processes that turn WAL on at once would see "database is locked" without any waiting.
        refuse_link(path)
        refuse_link(path.with_suffix(".lock"))
        with self._translated(), filelock.FileLock(path.with_suffix(".lock"), timeout=busy_s, mode=0o600):
            _make_private(path)  # SQLite gives the files it puts beside this one the same mode
            self._db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(schema, format)
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        with self._lock:
            self._db.close()

    def read(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of one query."""
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise StoreError(self._advice(error)) from error

    def each(self, query: str, values: Sequence[object] = ()) -> Generator[tuple[Any, ...]]:
        """Yield the rows of one query one by one; whoever else uses this object waits until the last was taken.

        Who may stop before the last one closes it: it would hold the file, and end after that was closed.
        """
        with self._lock, self._translated(), contextlib.closing(self._db.execute(query, values)) as rows:
            yield from rows

    def within(self, table: str, column: str, row: int, use: Callable[[sqlite3.Blob], T]) -> T | None:
        """Return what a function makes of one large value, of which it may read a part; ``None`` without the row."""
        with self._lock:
            try:
                with self._db.blobopen(table, column, row, readonly=True) as blob:
                    return use(blob)
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorname", "") == "SQLITE_ERROR" and not self.read(
                    f"SELECT 1 FROM {table} WHERE rowid = ?",  # noqa: S608 - our own names
                    (row,),
                ):
                    return None
                raise StoreError(self._advice(error)) from error

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock of the file for a block: all of it is written, or nothing when it raises."""
        with self._lock, self._translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.rollback()
                raise
            self._db.commit()

    def shrink(self) -> None:
        """Give freed space back to the file system where that is cheap; else what is written next takes it.

        A file that was made to shrink gives back what is free; an older one is copied whole, so only a small one.
        """
        with self._lock, self._translated():
            ((mode,), (pages,), (free,), (size,)) = (
                self._db.execute(f"PRAGMA {pragma}").fetchone()
                for pragma in ("auto_vacuum", "page_count", "freelist_count", "page_size")
            )
            if mode == _INCREMENTAL:
                self._db.executescript("PRAGMA incremental_vacuum;")  # ``execute`` would give back one page
            elif (pages - free) * size <= CHEAP_BYTES:
                with contextlib.suppress(sqlite3.OperationalError):  # another process is at it
                    self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # the file itself; waits for nobody

    def _prepare(self, schema: str, format: int) -> None:
        (held,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if held != format and (held or tables):
            message = (
                f"{self.path} has format {held}, this version reads format {format}; "
                f"delete {self.path.parent} (runs can be gathered again) or use the version that wrote it"
            )
            raise StoreError(message)
        if not held:
            self._db.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")  # only before the first table
        (mode,) = self._db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            message = (
                f"the file system of {self.path.parent} cannot hold a shared database; use a folder on a local disk"
            )
            raise StoreError(message)
        # Survives the death of any process; only a power cut may take the last few samples.
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        if not held:
            self._db.executescript(f"BEGIN IMMEDIATE; {schema} PRAGMA user_version = {format}; COMMIT;")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except filelock.Timeout as error:
            message = f"another process has been opening {self.path} for {self._busy_s:g} s; end it, then run again"
            raise StoreError(message) from error
        except sqlite3.Error as error:
            raise StoreError(self._advice(error)) from error
        except OSError as error:
            raise StoreError(f"{self.path} cannot be used: {advice(error)}") from error

    def _advice(self, error: sqlite3.Error) -> str:
        code = getattr(error, "sqlite_errorname", "")
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return f"another process has held {self.path} for {self._busy_s:g} s ({error}); end it, then run again"
        if code.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            return f"{self.path} is damaged or no database ({error}); delete it, runs can be gathered again"
        if code.startswith("SQLITE_CANTOPEN"):
            return (
                f"{self.path} cannot be opened ({error}); make sure the folder can be written, and that this process "
                "has file descriptors left (ulimit -n)"
            )
        return f"{self.path} cannot be used: {error}; make sure the disk is not full and the folder can be written"


# what may stand in it that we did not write ---------------------------------------------------------------------------

DAMAGED: Final = (
    *(msgspec.MsgspecError, sqlite3.Error, KeyError, TypeError, AttributeError, ValueError, RecursionError),
    *(OverflowError, IndexError, struct.error),
)
"""The errors of values that have another type, form or size than what we wrote."""


@contextlib.contextmanager
def readable(run: str, part: str = "") -> Iterator[None]:
    """Read a run in a block: what is not as we wrote it ends in ``StoreError``, which names it."""
    try:
        yield
    except StoreError:
        raise
    except DAMAGED as error:
        raise StoreError(unreadable(run, part, error)) from error


def unreadable(run: str, part: str, error: BaseException) -> str:
    """Return the sentence for a run that cannot be read."""
    if isinstance(error, RecursionError):
        why = "it is nested too deeply"
    elif isinstance(error, KeyError):
        why = f"there is no {error}"
    else:
        why = str(error) or type(error).__name__
    within = f" ({part})" if part else ""
    return (
        f"run {printable(run)} cannot be read{printable(within)}: {elide(printable(why), 200)}; its store is damaged, "
        "or another program wrote it: gather the run again"
    )


# its tables, and what lies in them ------------------------------------------------------------------------------------

SCHEMA = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY, plan_hash TEXT NOT NULL, session TEXT NOT NULL UNIQUE, started REAL NOT NULL, finished REAL,
    host TEXT NOT NULL, version TEXT NOT NULL, resumed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE holders (
    run TEXT NOT NULL REFERENCES runs, pid INTEGER NOT NULL, born REAL NOT NULL, PRIMARY KEY (run, pid, born)
) WITHOUT ROWID;
CREATE TABLE engines (
    run TEXT NOT NULL REFERENCES runs, name TEXT NOT NULL, spec_hash TEXT NOT NULL, identity BLOB NOT NULL,
    earlier INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (run, name)
) WITHOUT ROWID;
CREATE TABLE samples (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL REFERENCES runs, engine TEXT NOT NULL, request_sha256 TEXT NOT NULL, case_id TEXT NOT NULL,
    phase TEXT NOT NULL, repeat INTEGER NOT NULL, concurrency INTEGER NOT NULL, completion BLOB, ends BLOB,
    spelled BLOB, failure BLOB, timing BLOB, attempts INTEGER NOT NULL, omitted TEXT NOT NULL,
    prefix TEXT NOT NULL,
    UNIQUE (run, engine, request_sha256, case_id, phase, repeat, concurrency)
);
CREATE TABLE tokens (
    number INTEGER PRIMARY KEY REFERENCES samples ON DELETE CASCADE, content BLOB NOT NULL
);
CREATE TRIGGER another_answer AFTER UPDATE OF completion ON samples BEGIN
    DELETE FROM tokens WHERE number = NEW.number;
END;
CREATE TABLE notes (
    run TEXT NOT NULL REFERENCES runs, name TEXT NOT NULL, content BLOB NOT NULL, PRIMARY KEY (run, name)
) WITHOUT ROWID;
CREATE TABLE probes (key TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE looks (
    test TEXT NOT NULL, check_name TEXT NOT NULL, pair TEXT NOT NULL, prompt_digest TEXT NOT NULL,
    outcome TEXT NOT NULL, earlier INTEGER NOT NULL, PRIMARY KEY (test, check_name, pair)
) WITHOUT ROWID;
"""

KEY_COLUMNS: Final = "run, engine, request_sha256, case_id, phase, repeat, concurrency"
_CONTENT: Final = ("completion", "ends", "spelled", "failure", "timing", "attempts", "omitted", "prefix")
SAMPLE_COLUMNS: Final = f"{KEY_COLUMNS}, {', '.join(_CONTENT)}"
PUT_SAMPLE: Final = (
    f"INSERT INTO samples ({SAMPLE_COLUMNS}) VALUES ({', '.join('?' * 15)})"  # noqa: S608 - our own names
    f" ON CONFLICT ({KEY_COLUMNS}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _CONTENT)}"
)
"""Takes a :func:`row_of`. A sample that is replaced keeps its number, by which whoever judges it reads its tokens."""
PUT_TOKENS: Final = (
    f"INSERT OR REPLACE INTO tokens (number, content) SELECT number, ? FROM samples"  # noqa: S608 - our own names
    f" WHERE ({KEY_COLUMNS}) = (?, ?, ?, ?, ?, ?, ?)"
)
"""Takes a row of :func:`token_rows`."""

_BESIDES: Final = tuple(name for name in Completion.__struct_fields__ if name not in ("logprobs", "token_ends"))
_BLANK: Final = Completion(text="")
_ANSWER: Final = msgspec.json.Decoder(Completion)
_PHASES: Final = {str(phase): phase for phase in Phase}


def identity_from(packed: bytes) -> Identity:
    """Return an identity as :func:`pack` wrote it."""
    return from_json(Identity, unpack(packed))


def row_of(run: str, sample: Sample) -> tuple[object, ...]:
    """Return the values of :data:`SAMPLE_COLUMNS`; the token records themselves are not among them."""
    completion = sample.completion
    tokens = () if completion is None else tuple(completion.logprobs)
    spelled = b"".join(token.token for token in tokens)
    alike = completion is None or spelled == encoded(completion.text)
    return (
        *_key_of(run, sample),
        None if completion is None else _pack_completion(completion),
        numbers(itertools.accumulate(len(token.token) for token in tokens)) if tokens else None,
        spelled if tokens and not alike else None,
        *(None if part is None else pack(part) for part in (sample.failure, sample.timing)),
        sample.attempts,
        json.dumps(sample.omitted),
        sample.prefix,
    )


def token_rows(run: str, samples: Iterable[Sample]) -> list[tuple[object, ...]]:
    """Return the values of :data:`PUT_TOKENS` for every sample that has token records."""
    return [
        (pack_tokens(sample.completion.logprobs), *_key_of(run, sample))
        for sample in samples
        if sample.completion is not None and sample.completion.logprobs
    ]


def _key_of(run: str, sample: Sample) -> tuple[object, ...]:
    """Return the values of :data:`KEY_COLUMNS`."""
    asked = (sample.request_sha256, sample.case, str(sample.phase), sample.repeat, sample.concurrency)
    return (run, sample.engine, *asked)


def sample_from(row: tuple[Any, ...], read: ReadTokens) -> Sample:
    """Return the sample from its number and the values of :data:`SAMPLE_COLUMNS`, but for the run.

    ``read`` is called with its number when somebody asks for its tokens, see :class:`StoredTokens`.
    """
    number, engine, sha, case, phase, repeat, concurrency, packed, ends, spelled, *others = row
    failure, timing, attempts, omitted, prefix = others
    _refuse_other_types((sha, case, prefix, omitted), (repeat, concurrency, attempts), ends, spelled)
    completion = None if packed is None else _completion_from(packed)
    if completion is not None and ends:
        tokens = StoredTokens(read, number, ends, completion.text if spelled is None else spelled)
        msgspec.structs.force_setattr(
            completion, "logprobs", tokens
        )  # nobody else has it yet; a copy takes as long as reading it
    return Sample(
        engine=engine,
        case=case,
        phase=_PHASES[phase],
        repeat=repeat,
        concurrency=concurrency,
        request_sha256=sha,
        completion=completion,
        failure=None if failure is None else from_json(Failure, unpack(failure)),
        timing=None if timing is None else from_json(Timing, unpack(timing)),
        attempts=attempts,
        omitted=() if omitted == "[]" else msgspec.convert(json.loads(omitted), tuple[str, ...]),
        prefix=prefix,
    )


def _refuse_other_types(texts: Iterable[object], counts: Iterable[object], ends: Any, spelled: Any) -> None:
    """Raise ``ValueError`` for a row that SQLite kept though we never wrote it: its columns take every type."""
    if not all(type(text) is str for text in texts):
        raise ValueError("a text of an answer is none")
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("a count of an answer is none")
    for part in (ends, spelled):
        if part is not None and type(part) is not bytes:
            raise ValueError("the tokens of an answer are no bytes")
    if ends is not None and len(ends) % WIDTH:
        raise ValueError("it is not said where the tokens of an answer end")


def _pack_completion(completion: Completion) -> bytes:
    """Return an answer without its token records; what has its default is not written down."""
    values = {name: getattr(completion, name) for name in _BESIDES}
    return pack({name: value for name, value in values.items() if name == "text" or value != getattr(_BLANK, name)})


def _completion_from(packed: bytes) -> Completion:
    try:
        return _ANSWER.decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return from_json(Completion, unpack(packed))
