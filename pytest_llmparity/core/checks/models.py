"""Answers held against a pydantic model: an answer fits when the model validates it, in strict JSON mode."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

from pytest_llmparity.core.errors import DesignError


class Adapter(Protocol):
    """What ``pydantic.TypeAdapter`` offers."""

    def validate_json(self, data: bytes, /, *, strict: bool) -> object:
        """Return the value, or raise ``ValidationError``."""

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of what is accepted."""


@runtime_checkable
class ModelClass(Protocol):
    """What the classes derived from ``pydantic.BaseModel`` offer."""

    def model_validate_json(self, json_data: bytes, /, *, strict: bool) -> object:
        """Return the value, or raise ``ValidationError``."""

    def model_json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of what is accepted."""


def adapted(kind: type, name: str) -> Adapter:
    """Return a type (a dataclass, a ``TypedDict``) as pydantic validates it; ``DesignError`` where it cannot."""
    from pydantic import TypeAdapter

    try:
        return cast("Adapter", TypeAdapter(kind))
    except Exception as error:  # pydantic raises many kinds, NameError among them
        raise DesignError(f"schema({name}): pydantic cannot validate by it: {_first(error)}") from error


def schema_of(model: ModelClass | Adapter, name: str) -> str:
    """Return the JSON Schema of a model as text; ``{}`` where pydantic has no words for one of its types.

    The schema is not what answers are held against, so it may say less than the model. Raises ``DesignError`` for a
    model that pydantic cannot use at all, such as one that names a class it does not know.
    """
    from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

    describe = model.model_json_schema if isinstance(model, ModelClass) else model.json_schema
    try:
        return json.dumps(describe(), allow_nan=False)
    except (PydanticInvalidForJsonSchema, TypeError, ValueError):
        return "{}"
    except PydanticUserError as error:
        raise DesignError(f"schema({name}): pydantic cannot validate by it: {_first(error)}") from error


def problem_of(model: ModelClass | Adapter, body: str) -> str | None:
    """Return why a model refuses a JSON text, ``None`` when it validates in strict mode.

    Whatever a validator of the user raises is a refusal with its own words, never a crash.
    """
    from pydantic import ValidationError

    validate: Callable[..., object] = (
        model.model_validate_json if isinstance(model, ModelClass) else model.validate_json
    )
    try:
        validate(body.encode("utf-8", "replace"), strict=True)
    except ValidationError as refused:
        first, *others = refused.errors(include_url=False, include_context=False, include_input=False)
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        more = f" (and {len(others)} more)" if others else ""
        return f"${place}: {first['msg']}{more}"
    except Exception as error:  # noqa: BLE001 - code of the user, which may raise anything
        return f"its validator raised {_first(error)}"
    return None


def name_of(kind: object) -> str:
    """Return a type as its user would say it, the same in every run: no address of an object in it."""
    if isinstance(kind, type) and not hasattr(kind, "__args__"):
        return kind.__name__
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(kind)).replace("typing.", "")


def _first(error: Exception) -> str:
    words = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
