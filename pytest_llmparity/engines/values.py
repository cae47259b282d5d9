"""Taking values out of decoded JSON of any shape: what is not of the wanted kind is empty, never an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def count(value: object) -> int | None:
    """Return a number of things, ``None`` for anything that is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


def string(value: object) -> str:
    """Return a text, empty for anything else."""
    return value if isinstance(value, str) else ""


def mapping(value: object) -> Mapping[str, Any]:
    """Return an object, empty for anything else."""
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> Sequence[Any]:
    """Return a list, empty for anything else."""
    return value if isinstance(value, list) else ()


def mappings(value: object) -> list[Mapping[str, Any]]:
    """Return the objects of a list."""
    return [item for item in sequence(value) if isinstance(item, dict)]


def valid(text: str) -> str:
    """Join surrogate pairs that two chunks shared and replace lone ones by U+FFFD, so the text is valid Unicode."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
