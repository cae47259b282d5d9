"""Work that one of the processes of a pytest run does: the first to come, while the others wait until it is done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from pytest_llmparity.core.errors import StoreError, advice
from pytest_llmparity.store.database import own_folder, refuse_link


@contextlib.contextmanager
def once(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock of this name in a ``with`` block; whoever comes meanwhile waits, and a process that ends lets go.

    A file lock, so that it works where no engine is started and no keeper can be (Windows). Raises ``StoreError``
    when the folder cannot be written.
    """
    path = refuse_link(own_folder(folder) / f"{name}.lock")
    lock = filelock.FileLock(path)
    try:
        lock.acquire()
    except OSError as error:
        raise StoreError(f"{folder} cannot hold the lock {path.name}: {advice(error)}") from error
    try:
        yield
    finally:
        lock.release()
    # The work is done, so nobody who waits for this file or makes it anew has anything left to do.
    with contextlib.suppress(OSError):
        path.unlink()
