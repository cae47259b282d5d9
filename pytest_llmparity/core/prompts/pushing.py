"""Prompts that push against a schema: one for each thing a schema can ask, with the answer that would break it.

Each is asked with its schema to be forced. The constraint is narrow, so that a model that is not forced seldom keeps it
by luck, and the prompt asks for something else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.prompts.arms import response_format
from pytest_llmparity.core.sample import Sampling

TOKENS: Final = 120
"""Tokens of an answer: enough for all that fit, and for many that do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """One thing that a schema asks (``name``), the schema that asks it, and the answer that its prompt asks for.

    ``spelled`` is that answer as text, where JSON can be written otherwise than Python does.
    """

    name: str
    schema: Mapping[str, Any]
    wanted: object
    spelled: str = ""

    @property
    def case(self) -> Case:
        """The prompt with its schema to be forced."""
        return Case(
            id=self.name,
            messages=({"role": "user", "content": f"Answer exactly this JSON and nothing else: {self.text}"},),
            response_format=response_format(self.schema),
            sampling={"max_tokens": TOKENS},
        )

    @property
    def text(self) -> str:
        """The answer that the prompt asks for."""
        return self.spelled or json.dumps(self.wanted, ensure_ascii=False)

    @property
    def sampling(self) -> Sampling:
        """How it is asked: greedily."""
        return Sampling(max_tokens=TOKENS)


def _object(properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    required = {"required": list(properties), "additionalProperties": False}
    return {"type": "object", "properties": dict(properties), **required, **more}


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"const": "bottom"}
    for _ in range(levels):
        schema = _object({"a": schema})
    return schema


_DEEP: Final = 12
_LARGE: Final = 200
_CANARIES: Final = (
    Canary(name="type", schema=_object({"n": {"type": "integer"}}), wanted={"n": "many"}),
    Canary(name="required", schema=_object({"a": {"type": "integer"}, "b": {"type": "integer"}}), wanted={"b": 1}),
    Canary(name="additionalProperties", schema=_object({"a": {"type": "integer"}}), wanted={"a": 1, "extra": 2}),
    Canary(name="enum", schema=_object({"colour": {"enum": ["qoph", "zayin"]}}), wanted={"colour": "red"}),
    Canary(name="const", schema=_object({"code": {"const": "x7-q2"}}), wanted={"code": "hello"}),
    Canary(
        name="pattern",
        schema=_object({"id": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"}}),
        wanted={"id": "order 12"},
    ),
    Canary(
        name="minLength, maxLength",
        schema=_object({"word": {"type": "string", "minLength": 30, "maxLength": 31}}),
        wanted={"word": "yes"},
    ),
    Canary(
        name="format",
        schema=_object({"day": {"type": "string", "format": "date"}}),
        wanted={"day": "tomorrow"},
    ),
    Canary(
        name="bounds of an integer",
        schema=_object({"n": {"type": "integer", "minimum": 4711, "maximum": 4713}}),
        wanted={"n": 5},
    ),
    Canary(
        name="bounds of a number",
        schema=_object({"n": {"type": "number", "minimum": 47.5, "maximum": 47.75}}),
        wanted={"n": 5.5},
    ),
    Canary(name="multipleOf", schema=_object({"n": {"type": "integer", "multipleOf": 97}}), wanted={"n": 101}),
    Canary(
        name="multipleOf, three digits",
        schema=_object({"n": {"type": "integer", "multipleOf": 97, "minimum": 100, "maximum": 999}}),
        wanted={"n": 101},
    ),
    Canary(
        name="multipleOf, one of three",
        schema=_object({"n": {"type": "integer", "multipleOf": 2, "minimum": 4711, "maximum": 4713}}),
        wanted={"n": 4711},
    ),
    Canary(
        name="minItems, maxItems",
        schema=_object({"list": {"type": "array", "items": {"type": "integer"}, "minItems": 5, "maxItems": 6}}),
        wanted={"list": [1]},
    ),
    Canary(
        name="uniqueItems",
        schema=_object(
            {
                "list": {
                    "type": "array",
                    "items": {"enum": [1, 2, 3, 4, 5, 6]},
                    "minItems": 5,
                    "maxItems": 6,
                    "uniqueItems": True,
                }
            }
        ),
        wanted={"list": [1, 1, 1, 1, 1]},
    ),
    Canary(
        name="uniqueItems, of words",
        schema=_object(
            {
                "list": {
                    "type": "array",
                    "items": {"enum": ["a", "b"]},
                    "minItems": 2,
                    "maxItems": 2,
                    "uniqueItems": True,
                }
            }
        ),
        wanted={"list": ["a", "a"]},
    ),
    Canary(
        name="white space in an array",
        schema=_object({"list": {"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 2}}),
        wanted={"list": [1]},
        spelled='{"list": [' + "\n" * 30 + "1" + "\n" * 30 + "]}",
    ),
    Canary(
        name="prefixItems",
        schema=_object(
            {
                "pair": {
                    "type": "array",
                    "prefixItems": [{"const": "x7"}, {"type": "boolean"}],
                    "items": False,
                    "minItems": 2,
                }
            }
        ),
        wanted={"pair": [1, 2, 3]},
    ),
    Canary(
        name="contains",
        schema=_object(
            {"list": {"type": "array", "items": {"type": "string"}, "contains": {"const": "zayin"}, "maxItems": 3}}
        ),
        wanted={"list": ["a", "b"]},
    ),
    Canary(
        name="anyOf",
        schema=_object({"v": {"anyOf": [{"const": "zayin"}, {"type": "integer", "minimum": 4711, "maximum": 4713}]}}),
        wanted={"v": "red"},
    ),
    Canary(
        name="oneOf",
        schema=_object({"v": {"oneOf": [_object({"left": {"const": 1}}), _object({"right": {"const": 2}})]}}),
        wanted={"v": {"left": 1, "right": 2}},
    ),
    Canary(
        name="allOf",
        schema=_object({"n": {"allOf": [{"type": "integer", "minimum": 4711}, {"maximum": 4713}]}}),
        wanted={"n": 5},
    ),
    Canary(name="not", schema=_object({"n": {"enum": [5, 7], "not": {"const": 5}}}), wanted={"n": 5}),
    Canary(
        name="if, then",
        schema={
            **_object({"kind": {"const": "zayin"}, "n": {"type": "integer"}}),
            "if": {"properties": {"kind": {"const": "zayin"}}},
            "then": {"properties": {"n": {"minimum": 4711, "maximum": 4713}}},
        },
        wanted={"kind": "zayin", "n": 5},
    ),
    Canary(
        name="patternProperties",
        schema={
            "type": "object",
            "patternProperties": {"^x[0-9]$": {"type": "integer"}},
            "additionalProperties": False,
            "minProperties": 1,
        },
        wanted={"colour": "red"},
    ),
    Canary(
        name="patternProperties, a key twice",
        schema={
            "type": "object",
            "patternProperties": {"^x[67]$": {"enum": [1, 2]}},
            "additionalProperties": False,
            "minProperties": 2,
        },
        wanted={"x6": 2},
        spelled='{"x6": 1, "x6": 2}',
    ),
    Canary(
        name="minProperties",
        schema={"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 4},
        wanted={"a": 1},
    ),
    Canary(
        name="nested $ref",
        schema={
            **_object({"inner": {"$ref": "#/$defs/middle"}}),
            "$defs": {"middle": _object({"leaf": {"$ref": "#/$defs/leaf"}}), "leaf": {"const": "x7-q2"}},
        },
        wanted={"inner": {"leaf": "hello"}},
    ),
    Canary(
        name="recursive $ref",
        schema={
            **_object({"tree": {"$ref": "#/$defs/tree"}}),
            "$defs": {
                "tree": _object(
                    {
                        "value": {"const": "zayin"},
                        "below": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 1},
                    }
                )
            },
        },
        wanted={"tree": {"value": "red", "below": [{"value": "blue", "below": []}]}},
    ),
    Canary(name="unicode", schema=_object({"größe": {"enum": ["äußerst groß", "日本語"]}}), wanted={"größe": "klein"}),
    Canary(
        name="order of properties",
        schema=_object({"zulu": {"type": "integer"}, "mike": {"type": "integer"}, "alfa": {"type": "integer"}}),
        wanted={"alfa": 1, "mike": 2, "zulu": 3},
    ),
    Canary(name="very deep", schema=_nested(_DEEP), wanted={"a": {"a": "bottom"}}),
    Canary(
        name="very large",
        schema={
            "type": "object",
            "properties": {f"p{n}": {"enum": ["zayin"]} for n in range(_LARGE)},
            "required": ["p199"],
            "additionalProperties": False,
        },
        wanted={"p199": "red"},
    ),
)


def canaries() -> Sequence[Canary]:
    """Return the prompts that push against a schema, in the order in which they are shown."""
    return _CANARIES
