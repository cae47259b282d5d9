"""What is written down about a run beside its samples: part of the store. Whoever reads it is told the type of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pytest_llmparity.core.errors import StoreError
from pytest_llmparity.core.words.masking import Mask
from pytest_llmparity.core.words.printable import elide
from pytest_llmparity.store.database import Database, readable
from pytest_llmparity.store.ownership import KEPT
from pytest_llmparity.store.packing import pack, refuse_deep, unpack

T = TypeVar("T")


class Documents:
    """The documents of runs, and what probes found. Whoever inherits opens the file."""

    path: Path
    mask: Mask
    _file: Database

    def put_document(self, run: str, name: str, content: Mapping[str, Any]) -> None:
        """Write down something about the run that other processes and a replay must know; builtins only, masked."""
        packed = pack(self.mask.value(content))
        with self._file.write() as db:
            db.execute("INSERT OR REPLACE INTO notes (run, name, content) VALUES (?, ?, ?)", (run, name, packed))

    def has_document(self, run: str, name: str) -> bool:
        """Whether something was written down under this name, whatever stands in it."""
        return bool(self._file.read("SELECT 1 FROM notes WHERE run = ? AND name = ?", (run, name)))

    def raw_document(self, run: str, name: str) -> dict[str, Any] | None:
        """Return what was written down under this name, ``None`` when nothing was; ``StoreError`` where it is no JSON.

        Its values are whatever the file holds: :meth:`document` is for whoever uses them. A resumed run starts empty,
        but for names that begin with :data:`KEPT`.
        """
        return self.document(run, name, dict[str, Any])

    def document(self, run: str, name: str, kind: type[T]) -> T | None:
        """Return what was written down under this name as a value of a type, ``None`` when nothing was.

        ``StoreError`` where something else stands there: a store may be damaged, or made by somebody else.
        """
        rows = self._file.read("SELECT content FROM notes WHERE run = ? AND name = ?", (run, name))
        return self._as(run, name, rows[0][0], kind) if rows else None

    def kept_documents(self, run: str, kind: type[T]) -> dict[str, T]:
        """Return the documents that outlive a resumption, by the rest of their names; raises as :meth:`document`."""
        query = "SELECT name, content FROM notes WHERE run = ? AND substr(name, 1, ?) = ?"
        rows = self._file.read(query, (run, len(KEPT), KEPT))
        return {name.removeprefix(KEPT): self._as(run, name, content, kind) for name, content in rows}

    def put_probes(self, key: str, content: Mapping[str, Any]) -> None:
        """Remember, across runs, what probes of one server found; builtins only, masked."""
        packed = pack(self.mask.value(content))
        with self._file.write() as db:
            db.execute("INSERT OR REPLACE INTO probes (key, content) VALUES (?, ?)", (key, packed))

    def probes(self, key: str) -> dict[str, Any] | None:
        """Return what was remembered under this key, ``None`` when nothing was."""
        rows = self._file.read("SELECT content FROM probes WHERE key = ?", (key,))
        return dict(unpack(rows[0][0])) if rows else None

    def _as(self, run: str, name: str, content: object, kind: type[T]) -> T:
        with readable(run, elide(name, 60)):
            if not isinstance(content, bytes):
                raise StoreError(f"run {run} in {self.path} cannot be read ({name}): it holds no bytes")
            refuse_deep(content)
            return msgspec.convert(unpack(content), kind, builtin_types=(bytes,))
