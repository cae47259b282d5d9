"""Taking values out of decoded JSON of any shape: what is not of the wanted kind is empty, never an error.

And making facts of them, each with its source.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_llmparity.core.identity.quantization import normalise
from pytest_llmparity.core.sample import Fact, Source


def decoded(text: str | bytes) -> object:
    """Return the value of a JSON text, ``None`` for a text that is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


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


def names(listing: Mapping[str, Any], holder: str = "data", name: str = "id") -> list[str]:
    """Return the names in a list of models as ``/v1/models`` has it, in its order; entries without one are left out.

    >>> names({"data": [{"id": "a"}, {"id": 7}, "b"]})
    ['a']
    """
    return [entry[name] for entry in mappings(listing.get(holder)) if string(entry.get(name))]


def facts(values: Mapping[str, object], *, source: Source = "reported", raw: str = "") -> dict[str, Fact]:
    """Return a fact of each value that says something: a number or a text, neither 0 nor empty.

    >>> facts({"version": "1.2", "slots": None, "build": ""})
    {'version': Fact(value='1.2', source='reported', raw='')}
    """
    return {
        name: Fact(value=value, source=source, raw=raw)
        for name, value in values.items()
        if value and (isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value)))
    }


def quantization(raw: object, *, source: Source = "reported") -> dict[str, Fact]:
    """Return the fact of a quantisation under whatever name a server or a flag has for it; none for no name."""
    name = string(raw)
    return {"quantization": Fact(value=normalise(name), source=source, raw=name)} if name else {}


def valid(text: str) -> str:
    """Join surrogate pairs that two chunks shared and replace lone ones by U+FFFD, so the text is valid Unicode."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


_VLLM_FINGERPRINT = re.compile(r"(vllm-.+)-([0-9a-f]{8})")


def fingerprint(text: str) -> tuple[str, str]:
    """Return what a ``system_fingerprint`` says of the build, and of what the server was started with.

    vLLM's is ``vllm-VERSION[-PARALLELISM]-HASH``, and the hash is of its whole configuration, a local folder's path in
    it (vllm/entrypoints/serve/utils/fingerprint.py): no build, and no weights either. Any other is taken for a build.

    >>> fingerprint("vllm-0.32.0-tp2-4f842c8d"), fingerprint("b10566-0c1e57098")
    (('vllm-0.32.0-tp2', '4f842c8d'), ('b10566-0c1e57098', ''))
    """
    parts = _VLLM_FINGERPRINT.fullmatch(text)
    return (parts[1], parts[2]) if parts else (text, "")
