"""An engine's log, copied by the keeper so that no key is ever in the file. Standard library only (``process``).

Without a key to hide nothing is copied: the engine writes the file itself.
"""

from __future__ import annotations

import os

from pytest_llmparity.core.words.hiding import TextMask

_PIECE = 65536
_TURN = 16
"""Pieces that are copied before others get their turn."""


def open_log(path: str) -> int:
    """Return a descriptor that appends to an emptied log nobody else can read; whoever starts the engine empties it."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(log, 0o600)
        os.ftruncate(log, 0)
    except BaseException:
        os.close(log)
        raise
    return log


class CopiedLog:
    """What an engine and everything it started write, on its way into ``sink`` (a descriptor, closed at the end).

    ``entrance`` is for the engine's process, to be closed by whoever has started it.
    """

    def __init__(self, sink: int, mask: TextMask) -> None:
        self._sink = sink
        self._mask = mask
        self._held = b""
        self._source, self.entrance = os.pipe()
        os.set_blocking(self._source, False)
        self.open = True

    def fileno(self) -> int:
        """Let a selector watch it."""
        return self._source

    def copy(self) -> bool:
        """Copy what has come, some of it where it is very much; tell whether more can come."""
        for _ in range(_TURN):
            try:
                data = os.read(self._source, _PIECE)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._held += data
            text = self._held.decode("utf-8", "surrogateescape")
            safe = self._mask.safe(text)
            self._write(text[:safe])
            self._held = text[safe:].encode("utf-8", "surrogateescape")
        return True

    def flush(self) -> None:
        """Copy everything there is, the beginning of what might have become a key too."""
        if self.open:
            self.copy()  # a pipe holds less than one turn
        self._write(self._held.decode("utf-8", "surrogateescape"))
        self._held = b""

    def close(self) -> None:
        """Copy what there is and let go; closing twice does nothing."""
        if self.open:
            self.flush()
            self.open = False
            os.close(self._source)
            os.close(self._sink)

    def _write(self, text: str) -> None:
        data = self._mask.torn(text).encode("utf-8", "surrogateescape")
        try:
            while data:
                data = data[os.write(self._sink, data) :]
        except OSError:
            pass  # a full disk: the engine must not wait for it, as it would not had it written there itself
