"""Turns what pydantic found wrong with a user's file into sentences: which key, what was given, what is allowed."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from pytest_llmparity.core.words.keys import looks_secret
from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.core.words.printable import elide, printable

_EXPECTED = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table of keys and values",
    "model_type": "a table of keys and values",
    "model_attributes_type": "a table of keys and values",
    "string_too_short": "text that is not empty",
}


class Strict(BaseModel):
    """Base of every model of a file: unknown keys, other types, NaN and infinity are errors; values cannot change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def listed(value: object) -> object:
    """Return a text as a list of one, anything else as it is: what may be several may be written as one."""
    return [value] if isinstance(value, str) else value


def given(value: object) -> str:
    """Return a value as a file would write it, on one line and cut; what looks like a key is described instead."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = str(value)
    if looks_secret(text.strip('"')):
        return "a value that looks like a key (not shown)"
    return elide(printable(text), 60)


TOLD: Final = 50
"""How many things that are wrong with one entry are put into a sentence each."""


def describe(
    error: ValidationError, model: type[BaseModel], *, prefix: tuple[str, ...] = (), hints: Mapping[str, str]
) -> list[str]:
    """Return one sentence per thing pydantic found, in its order: dotted key, what was given, what is allowed.

    ``prefix`` goes before every key. ``hints`` maps an unknown key to advice that replaces the list of known keys.
    Beyond :data:`TOLD` of them only the place is said: nobody is shown more, and a row may have 100,000 wrong keys.
    """
    faults = error.errors(include_url=False)
    rest = [f"{dotted((*prefix, *item['loc']))} is wrong too" for item in faults[TOLD:]]
    return [*(_sentence(item, model, prefix, hints) for item in faults[:TOLD]), *rest]


def _sentence(item: Any, model: type[BaseModel], prefix: tuple[str, ...], hints: Mapping[str, str]) -> str:
    place = tuple(part for part in item["loc"] if part != "[key]")
    where = dotted((*prefix, *place))
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(where, str(place[-1]), known_keys(model, place[:-1]), hints)
    if kind == "missing":
        return f"{where} is missing"
    if kind == "value_error":
        return f"{where} {context['error']}".strip()
    if kind == "literal_error":
        close = nearest(value, re.findall(r"'([^']*)'", context["expected"])) if isinstance(value, str) else ""
        return f"{where} is {given(value)}; allowed: {context['expected']}{close}"
    return f"{where or 'this'} is {given(value)}; expected {_expected(kind, context)}"


def _unknown(where: str, key: str, known: Iterable[str], hints: Mapping[str, str]) -> str:
    if key.lower() in hints:
        return f"{where} is not a key: {hints[key.lower()]}"
    names = sorted(known)
    if looks_secret(where):
        where = "a name that looks like a key (not shown)"
    return f"{where} is not a key{nearest(key, names)}; known here: {', '.join(names)}"


def _expected(kind: str, context: Mapping[str, Any]) -> str:
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    for word, sign in (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most")):
        if word in context:
            return f"a number {sign} {context[word]}"
    if "min_length" in context:
        return f"at least {context['min_length']} of them"
    if "max_length" in context:
        return f"at most {context['max_length']} of them"
    return kind.replace("_", " ")


def dotted(place: Iterable[str | int]) -> str:
    """Return a place in a file as it is said: ``engines.vllm.args[0]``; parts that are no bare key are quoted."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", part) is not None
            text += ("." if text else "") + (part if bare else json.dumps(elide(printable(part), 60)))
    return text


def known_keys(model: type[BaseModel], place: Iterable[str | int]) -> list[str]:
    """Return the keys the table at ``place`` may hold, by walking down the model's annotations."""
    here: Any = model
    for part in place:
        here = _model_inside(here)
        if isinstance(here, type) and issubclass(here, BaseModel) and part in here.model_fields:
            here = here.model_fields[str(part)].annotation
    here = _model_inside(here)
    if not isinstance(here, type) or not issubclass(here, BaseModel):
        return []
    return [field.alias or name for name, field in here.model_fields.items()]


def _model_inside(annotation: Any) -> Any:
    """Return the model inside an annotation: itself, a dict's value type, a list's item, the ``X`` of ``X | None``."""
    if isinstance(annotation, type):
        return annotation
    for argument in reversed(typing.get_args(annotation)):
        inner = _model_inside(argument)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return inner
    return annotation
