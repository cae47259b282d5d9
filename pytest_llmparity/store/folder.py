"""The folder in which our files of a project lie: made private, kept out of git, locked while one works there."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import psutil

from pytest_llmparity.core.errors import StoreError, advice

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


@contextlib.contextmanager
def once(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock of this name in a ``with`` block; whoever comes meanwhile waits, and a process that ends lets go.

    So work is done by the first process of a pytest run to come, while the others wait. A file lock, so that it works
    where no engine is started and no keeper can be (Windows). Raises ``StoreError`` when the folder cannot be written.
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
