"""What ``check.schema()`` is given as its target, as the fields of a check: a model, a path, or a schema."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from pytest_llmparity.core.checks.schema.contract import Adapter, Contract, ModelClass, adapted, name_of, schema_of
from pytest_llmparity.core.errors import DesignError


@runtime_checkable
class JsonModel(Protocol):
    """A pydantic model class, or anything else that can describe itself as JSON Schema."""

    def model_json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema."""


def read_target(target: object) -> dict[str, Any]:
    """Return the fields of a ``SchemaCheck`` that say what answers are held against.

    None at all for ``None``: each prompt has its own schema. Raises ``DesignError`` for what is no target, and for a
    schema that cannot be used (a file is read later).
    """
    if target is None:
        return {}
    if isinstance(target, (str, Path)):
        return {"name": repr(str(target)), "path": str(target)}
    if (model := _model(target)) is not None:
        name, validator = model
        return {"name": name, "text": schema_of(validator, name), "model": validator}
    if isinstance(target, Mapping):
        name, document = str(target.get("title", "{…}")), target
    elif isinstance(target, type) and isinstance(target, JsonModel):
        name, document = target.__name__, target.model_json_schema()
    else:
        raise DesignError(
            f"schema({target!r}): the target is a pydantic model class, a TypeAdapter, a dataclass, a path to a JSON "
            "Schema or a schema as a dict; without one each prompt's expect.schema counts"
        )
    try:
        content = json.dumps(document, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DesignError(f"schema({name}): the schema is not JSON: {error}") from error
    except RecursionError as error:
        raise DesignError(f"schema({name}): the schema is nested too deeply") from error
    Contract.from_text(content, name)
    return {"name": name, "text": content}


def _model(target: object) -> tuple[str, ModelClass | Adapter] | None:
    """Return name and validator of what pydantic validates by; ``None`` for anything else.

    pydantic is imported only for a type it did not make itself: who gives a schema or a path does not pay for it.
    """
    if isinstance(target, type) and isinstance(target, ModelClass):
        return target.__name__, target
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(target, pydantic.TypeAdapter):
        return name_of(getattr(target, "_type", "TypeAdapter")), cast("Adapter", target)
    typed_dict = hasattr(target, "__required_keys__")  # typing's own test does not know those of typing_extensions
    if isinstance(target, type) and (dataclasses.is_dataclass(target) or typed_dict):
        return target.__name__, adapted(target, target.__name__)
    return None
