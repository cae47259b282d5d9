"""Taking values out of decoded JSON of any shape: what is not of the wanted kind is empty, never an error."""

from __future__ import annotations

import re
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


_VLLM_FINGERPRINT = re.compile(r"(vllm-.+)-([0-9a-f]{8})")


def fingerprint(told: str) -> tuple[str, str]:
    """Return what a ``system_fingerprint`` says of the build, and of what the server was started with.

    vLLM's is ``vllm-VERSION[-PARALLELISM]-HASH``, and the hash is of its whole configuration, a local folder's path in
    it (vllm/entrypoints/serve/utils/fingerprint.py): no build, and no weights either. Any other is taken for a build.

    >>> fingerprint("vllm-0.32.0-tp2-4f842c8d"), fingerprint("b10566-0c1e57098")
    (('vllm-0.32.0-tp2', '4f842c8d'), ('b10566-0c1e57098', ''))
    """
    found = _VLLM_FINGERPRINT.fullmatch(told)
    return (found[1], found[2]) if found else (told, "")
