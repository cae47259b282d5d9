"""What the operating system refuses, in words that say what to do about it. Pure."""

from __future__ import annotations

import errno
from collections.abc import Collection

_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
_USED_UP = _NO_DESCRIPTORS | {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM}
_ADVICE = {
    errno.EMFILE: "this process has no file descriptor left: raise its limit (ulimit -n 4096), or lower concurrency",
    errno.ENFILE: "this machine has no file descriptor left: close other programs, or raise the system's limit",
    errno.ELOOP: "it is a symbolic link where a file of our own belongs: delete the link",
    errno.EACCES: "permission denied: make it yours and writable",
    errno.EPERM: "the operation is not permitted: make it yours and writable",
    errno.EROFS: "the file system is read-only: run from a checkout that can be written",
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "the disk quota is used up: make room",
    errno.ENOMEM: "this machine has no memory left",
}


def advice(error: OSError) -> str:
    """Return what the operating system refused and the next step.

    >>> advice(OSError(28, "No space left on device"))
    'the disk is full: make room'
    """
    known = _ADVICE.get(error.errno or 0)
    return known or error.strerror or str(error) or type(error).__name__


def no_descriptors(error: BaseException | None) -> OSError | None:
    """Return the error of the system behind this one that says no file descriptor is left, ``None`` if none does."""
    return _behind(error, _NO_DESCRIPTORS)


def of_machine(error: BaseException | None) -> OSError | None:
    """Return the error of the system behind this one that says the machine has no more of something, else ``None``."""
    return _behind(error, _USED_UP)


def _behind(error: BaseException | None, numbers: Collection[int]) -> OSError | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in numbers:
            return error
        error = error.__cause__ or error.__context__
    return None
