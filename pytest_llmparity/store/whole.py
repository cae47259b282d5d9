"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path


def replace(path: Path, parts: Iterable[str], *, shared: bool = False) -> None:
    """Write a file in one step: for this account only, or ``shared`` by everybody who has the project.

    What UTF-8 cannot say becomes a question mark. Raises ``OSError``, and leaves what stood there.
    """
    # In the same folder, because only there a rename is atomic.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.writelines(parts)
        if shared:
            Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
