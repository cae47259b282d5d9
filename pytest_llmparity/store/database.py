"""One SQLite file that several processes write at once: opening it, reading, writing, and its errors in words.

WAL mode, so that a reader never waits; every write is one ``BEGIN IMMEDIATE`` transaction, so that it waits for its
turn instead of failing half way. What a process that is killed had committed is there afterwards.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import stat
import struct
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import filelock
import msgspec
import psutil

from pytest_llmparity.core.errors import StoreError, advice
from pytest_llmparity.core.words.printable import elide, printable

T = TypeVar("T")

BUSY_S = 60.0
"""How long a write waits for another process before it gives up."""

CHEAP_BYTES = 64 * 2**20
"""How much may be copied to make a file smaller."""
_INCREMENTAL = 2
"""SQLite's number of the mode in which a file can be made smaller page by page."""

NETWORK_FILE_SYSTEMS = frozenset(
    {
        *("9p", "afpfs", "afs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs3", "nfs4", "panfs"),
        *("smb2", "smb3", "smbfs", "webdav"),
        *("fuse.ceph", "fuse.glusterfs", "fuse.gvfsd-fuse", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
    }
)
"""WAL keeps its index in memory that all processes share, which these cannot offer between machines."""


def file_system_of(folder: Path) -> str:
    """Return the kind of file system an existing folder lies on (``ext4``, ``nfs4``, ``apfs``), ``""`` if unknown.

    Asks the operating system's mount table; Windows calls a share by the file system behind it, so there only what
    the table marks as remote is known, and becomes ``smbfs``.
    """
    place = folder.resolve()
    kind, depth = "", -1
    for mount in psutil.disk_partitions(all=True):
        point = Path(mount.mountpoint)
        # A later mount on the same folder covers the earlier one, hence >=.
        if place.is_relative_to(point) and len(point.parts) >= depth:
            remote = "remote" in mount.opts.split(",")
            kind, depth = "smbfs" if remote else mount.fstype.lower(), len(point.parts)
    return kind


def own_folder(folder: Path) -> Path:
    """Return the folder our files of a project live in, made and kept out of git.

    Raises ``StoreError`` if it cannot be made or written, or belongs to another user, who could read what is written
    there and put files in our way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if sys.platform != "win32" and (owner := folder.stat().st_uid) != os.geteuid():
            message = (
                f"{folder} belongs to another user (id {owner}, this process has {os.geteuid()}), and what a run "
                "writes there belongs to whoever runs it; run as that user, or remove the folder"
            )
            raise StoreError(message)
        if stat.S_IMODE(folder.stat().st_mode) & 0o077:  # made by an earlier version: answers are nobody else's
            with contextlib.suppress(PermissionError):  # another user's, which is told elsewhere
                folder.chmod(0o700)
        ignore = refuse_link(folder / ".gitignore")
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
    except OSError as error:
        message = f"the run store needs a folder it can write: {folder} ({advice(error)}); make it writable"
        raise StoreError(message) from error
    return folder


def refuse_link(path: Path) -> Path:
    """Return the path of a file of ours; ``StoreError`` where it is a link: what is written would go astray."""
    if path.is_symlink():
        message = f"{path} is a symbolic link, and a file of our own belongs there; delete the link, then run again"
        raise StoreError(message)
    return path


def local_folder(folder: Path, file_system: Callable[[Path], str] = file_system_of) -> Path:
    """Return the folder, made and kept out of git, ready to hold a database.

    Raises ``StoreError`` when it cannot be written or lies on a network file system.
    """
    own_folder(folder)
    kind = file_system(folder)
    if kind in NETWORK_FILE_SYSTEMS:
        message = (
            f"the run store {folder} lies on a network file system ({kind}), where the writes of two processes can "
            f"destroy it; run from a checkout on a local disk, or make {folder.name} a link to a folder on one"
        )
        raise StoreError(message)
    return folder


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
                self._db.execute(f"PRAGMA {what}").fetchone()
                for what in ("auto_vacuum", "page_count", "freelist_count", "page_size")
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

DEEPEST: Final = 100
"""How deep JSON in a store may be nested. What we write is flatter, but for schemas and arguments of tools."""
DAMAGED: Final = (
    *(msgspec.MsgspecError, sqlite3.Error, KeyError, TypeError, AttributeError, ValueError, RecursionError),
    *(OverflowError, IndexError, struct.error),
)
"""The errors of values that have another type, form or size than what we wrote."""


@contextlib.contextmanager
def readable(run: str, what: str = "") -> Iterator[None]:
    """Read a run in a block: what is not as we wrote it ends in ``StoreError``, which names it."""
    try:
        yield
    except StoreError:
        raise
    except DAMAGED as error:
        raise StoreError(unreadable(run, what, error)) from error


def unreadable(run: str, what: str, error: BaseException) -> str:
    """Return the sentence for a run that cannot be read."""
    if isinstance(error, RecursionError):
        why = "it is nested too deeply"
    elif isinstance(error, KeyError):
        why = f"there is no {error}"
    else:
        why = str(error) or type(error).__name__
    within = f" ({what})" if what else ""
    return (
        f"run {printable(run)} cannot be read{printable(within)}: {elide(printable(why), 200)}; its store is damaged, "
        "or another program wrote it: gather the run again"
    )


def refuse_deep(packed: bytes) -> None:
    """Raise ``ValueError`` for JSON that is nested deeper than :data:`DEEPEST`."""
    if packed.count(b"[") + packed.count(b"{") <= DEEPEST:
        return
    left = _TEXT.sub(b"", packed).translate(_ONE_KIND, delete=_NO_BRACKETS)
    for _ in range(DEEPEST):
        left = left.replace(b"[]", b"")
    if left:
        raise ValueError(f"nested deeper than {DEEPEST} levels, or cut off")


_TEXT: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
