"""JSON Schemas of the files people write, made from the models that read them.

The files under ``pytest_llmparity/schemas`` are these texts; editors use them, and a test keeps them current.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from pydantic import BaseModel

from pytest_llmparity.core.gate.policy import PolicyTable
from pytest_llmparity.core.golden.records import Line, LogprobsLine, Provenance
from pytest_llmparity.core.history.entries import Entry
from pytest_llmparity.core.prompts.entries import PromptEntry
from pytest_llmparity.core.recording import Exchanged, Header
from pytest_llmparity.settings.file import ConfigTable


def prompts() -> str:
    """Return the schema of one entry of a prompt file."""
    return _text(PromptEntry)


def configuration() -> str:
    """Return the schema of ``llmparity.toml`` and of ``[tool.llmparity]``."""
    return _text(ConfigTable)


def golden() -> str:
    """Return the schema of the lines of a golden file: the first, the others, and those with logprobs."""
    lines = (Provenance, Line, LogprobsLine)
    return _of_lines(lines, "A line of golden/SET/ENGINE.jsonl, or of the ENGINE.logprobs.jsonl beside it.")


def recording() -> str:
    """Return the schema of the lines of a recording: the first, and the others."""
    return _of_lines((Header, Exchanged), "A line of recordings/NAME.jsonl.")


def history() -> str:
    """Return the schema of a line of a history file."""
    return _of_lines((Entry,), "A line of the file that --parity-history names: what a run came to.")


def policy() -> str:
    """Return the schema of a policy of ``llmparity gate``."""
    return _text(PolicyTable)


FILES: Mapping[str, Callable[[], str]] = {
    "prompts.schema.json": prompts,
    "llmparity.schema.json": configuration,
    "golden.schema.json": golden,
    "policy.schema.json": policy,
    "history.schema.json": history,
    "recording.schema.json": recording,
}
"""File name to the function that writes its text."""


_NULLABLE = frozenset({"Seed", "Content", "Tool Calls", "Refusal", "Annotations"})
"""Titles of the keys in which null is a value, so that it stays in the schema."""


def _of_lines(lines: tuple[type, ...], description: str) -> str:
    """Return the schema of a file with lines of these types; some versions of msgspec keep docstrings indented."""
    any_of, parts = msgspec.json.schema_components(lines, ref_template="#/$defs/{name}")
    for part in parts.values():
        if "description" in part:
            part["description"] = inspect.cleandoc(part["description"])
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "description": description,
        "anyOf": list(any_of),
        "$defs": parts,
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _text(model: type[BaseModel]) -> str:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_plain(model.model_json_schema())}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _plain(value: Any, *, names: bool = False) -> Any:
    """Drop what says nothing: made-up titles, ``default: null``, and null beside the real type (a key is left out).

    ``names`` is true for a table of properties or definitions, whose keys are the user's words.
    """
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if names:
        return {key: _plain(item) for key, item in value.items()}
    kept = {
        key: item for key, item in value.items() if key != "title" and (key, item) != ("additionalProperties", True)
    }
    if kept.get("default", 0) is None:
        del kept["default"]
    members = [item for item in kept.get("anyOf", ()) if item != {"type": "null"} or value.get("title") in _NULLABLE]
    if len(members) == 1:
        del kept["anyOf"]
        return _plain({**members[0], **kept})
    if members:
        kept["anyOf"] = members
    return {key: _plain(item, names=key in ("properties", "$defs")) for key, item in kept.items()}
