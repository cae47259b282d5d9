"""Variants of a configured engine: the same table with some keys of another value, such as another version.

``llmparity bisect`` makes them and hands them to the pytest it starts, so that nobody writes a table for each version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pytest_llmparity.core.errors import ConfigError, UsageError

_PINNED: Final[Mapping[str, tuple[str, ...]]] = {
    "requires": ("version", "build", "configuration"),
    "python": ("version", "build", "configuration"),
    "command": ("version", "build", "configuration"),
    "model": ("model", "digest", "quantization", "bits_per_weight", "tensor_types", "format", "configuration"),
    "revision": ("revision", "digest", "configuration"),
    "context_length": ("context_length", "configuration"),
    "slots": ("slots", "configuration"),
    "args": ("configuration",),
    "image": ("version", "build", "image_digest"),
}
"""What a pin says of an engine by the key that decides it: where the key is another one, so is that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """The engine ``of`` with other values of some ``keys``, as the configuration would write them.

    ``label`` is what people call it: a version, a file, a name. ``name`` is what the configuration calls it. Pins that
    these keys contradict are not held.
    """

    name: str
    label: str
    of: str
    keys: Mapping[str, Any]

    def applied(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """Return the engine's table as it is written with these keys in it."""
        gone = {pin for key in self.keys for pin in _PINNED.get(key, ())}
        values = {**table, **self.keys}
        if isinstance(pins := table.get("pin"), dict) and "pin" not in self.keys:
            values["pin"] = {name: value for name, value in pins.items() if name not in gone}
        return values


def to_text(variants: Sequence[Variant]) -> str:
    """Return variants as one line of JSON, which :func:`from_text` reads."""
    tables = {variant.name: {"of": variant.of, "keys": dict(variant.keys)} for variant in variants}
    return json.dumps(tables, separators=(",", ":"))


def from_text(text: str) -> list[Variant]:
    """Read what :func:`to_text` wrote; raises ``UsageError`` where it is something else."""
    try:
        tables = json.loads(text)
        return [Variant(name=name, label=name, of=str(t["of"]), keys=dict(t["keys"])) for name, t in tables.items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UsageError("the variants of an engine that pytest was given cannot be read") from None


def add_to(content: Any, variants: Sequence[Variant], *, source: str) -> Any:
    """Return a configuration, as TOML reads it, with the tables of variants; ``ConfigError`` without their engine."""
    engines = content.get("engines") if isinstance(content, dict) else None
    if not variants or not isinstance(engines, dict):
        return content
    tables = dict(engines)
    for variant in variants:
        if not isinstance(table := engines.get(variant.of), dict):
            raise ConfigError(f"{source}: there is no engine {variant.of!r}, of which {variant.name!r} is a variant")
        tables[variant.name] = variant.applied(table)
    return {**content, "engines": tables}
