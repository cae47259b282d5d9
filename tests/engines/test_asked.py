"""What each kind sends, field by field, over each of its routes: held against a table that a person reviewed.

``asked.toml`` says of every request below what its body has beside that of the plain one, or why it is refused before
anything is sent; so an adapter that refuses everything, or drops a field without a word, is not the adapter described
there. A field that a body lacks and the plain one has is ``null``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.core.errors import ParameterNotHonoured
from pytest_llmparity.core.sample import Request, Sampling
from pytest_llmparity.engines.registry import kinds
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.testing import LoopbackEngine

Attach = Callable[..., Adapter]
Start = Callable[..., LoopbackEngine]

TABLE: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("asked.toml").read_text("utf-8"))
WAYS = [(kind, route) for kind, adapter in kinds().items() for route in adapter.routes]

QUESTION = ({"role": "user", "content": "How long does a refund take?"},)
PIECES = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}},
]
CALLED = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"b": 1}'}}
GIVEN: dict[str, Any] = {
    "the question": list(QUESTION),
    "the image": [{"role": "user", "content": PIECES}],
    "the call": [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [CALLED]},
        {"role": "tool", "tool_call_id": "call_1", "content": "30 days"},
    ],
    "the tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"b": {}, "a": {}}}}}],
    "the tool": {"type": "function", "function": {"name": "f"}},
    "the schema": {"type": "object", "properties": {"zeta": {"type": "string"}, "alpha": {"type": "string"}}},
}
"""What users wrote: it stands in the table by its name, where it is sent as it was written."""
GIVEN["the format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": GIVEN["the schema"]}}

NEUTRAL = Sampling(max_tokens=17)


def chat(**fields: Any) -> Request:
    return Request(**{"case": "c", "messages": QUESTION, "sampling": NEUTRAL, **fields})


def raw(**fields: Any) -> Request:
    return Request(**{"case": "c", "messages": None, "prompt": "Once upon", "sampling": NEUTRAL, **fields})


def sampled(**values: Any) -> Request:
    return chat(sampling=Sampling(**{"max_tokens": 17, **values}))


TOOLS = tuple(GIVEN["the tools"])
PLAIN = {"chat": chat(), "raw": raw()}
REQUESTS: dict[str, Request] = {
    "max_tokens": sampled(max_tokens=19),
    "temperature": sampled(temperature=0.5),
    "top_p": sampled(top_p=0.9),
    "top_k": sampled(top_k=41),
    "min_p": sampled(min_p=0.125),
    "repetition_penalty": sampled(repetition_penalty=1.25),
    "presence_penalty": sampled(presence_penalty=0.375),
    "frequency_penalty": sampled(frequency_penalty=0.625),
    "seed": sampled(seed=3),
    "stop": sampled(stop=("END",)),
    "tools": chat(tools=TOOLS),
    "tool_choice_auto": chat(tools=TOOLS, tool_choice="auto"),
    "tool_choice_none": chat(tools=TOOLS, tool_choice="none"),
    "tool_choice_required": chat(tools=TOOLS, tool_choice="required"),
    "tool_choice_named": chat(tools=TOOLS, tool_choice=GIVEN["the tool"]),
    "json_schema": chat(response_format=GIVEN["the format"]),
    "json_object": chat(response_format={"type": "json_object"}),
    "text_format": chat(response_format={"type": "text"}),
    "schema_and_tools": chat(response_format=GIVEN["the format"], tools=TOOLS),
    "logprobs_chosen": chat(top_logprobs=0),
    "logprobs_3": chat(top_logprobs=3),
    "logprobs_100": chat(top_logprobs=100),
    "logprobs_sampled": chat(top_logprobs=3, sampling=Sampling(max_tokens=17, temperature=0.5)),
    "logprobs_and_tools": chat(top_logprobs=3, tools=TOOLS),
    "image": chat(messages=tuple(GIVEN["the image"])),
    "earlier_call": chat(messages=tuple(GIVEN["the call"])),
    "raw_logprobs_3": raw(top_logprobs=3),
    "raw_json_schema": raw(response_format=GIVEN["the format"]),
    "raw_tools": raw(tools=TOOLS),
}


def told(adapter: Adapter) -> dict[str, str]:
    """Return what an adapter makes of every request, as the table says it.

    A route may take chats or raw prompts alone.
    """
    rows, plain = {}, {}
    for name, request in PLAIN.items():
        try:
            built = adapter.build(request)
        except ParameterNotHonoured as error:
            rows[name] = f"refused: {error}"
            continue
        plain[name] = json.loads(built.body)
        rows[name] = f"{built.path} {shown(plain[name])}"
        rows[f"{name}_omitted"] = " ".join(built.omitted)
        rows[f"{name}_whole"] = changes(plain[name], json.loads(adapter.build(request, stream=False).body))
    for name, request in REQUESTS.items():
        of = "chat" if request.prompt is None else "raw"
        if of not in plain:
            continue
        try:
            body = json.loads(adapter.build(request).body)
        except ParameterNotHonoured as error:
            rows[name] = f"refused: {error}"
        else:
            rows[name] = changes(plain[of], body)
    return rows


def changes(plain: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """Return the fields of a body that are not as in the plain one; those it lacks are ``null``."""
    left = {name: body.get(name) for name in (*plain, *body) if body.get(name) != plain.get(name)}
    for name in ("options", "generation_config"):
        if name in left and name in plain:
            inner = [json.loads(value) if isinstance(value, str) else value for value in (plain[name], body[name])]
            left[name] = json.loads(changes(*inner))
    return shown(left)


def shown(value: Mapping[str, Any]) -> str:
    """Return fields as JSON text, what users wrote by its name."""
    return json.dumps({name: next((key for key in GIVEN if GIVEN[key] == part), part) for name, part in value.items()})


@pytest.mark.parametrize(("kind", "route"), WAYS, ids=[f"{kind}-{route}" for kind, route in WAYS])
def test_every_field_of_a_request_is_sent_or_refused_as_reviewed(
    kind: str, route: str, start: Start, attach: Attach
) -> None:
    adapter = attach(start("30 days", poses_as=kind).base_url, kind, route=route, model="tiny")
    rows = TABLE[f"{kind}-{route}"]
    sent = told(adapter)

    assert sent.keys() == rows.keys()
    for name, expected in rows.items():
        if expected.startswith("refused: "):
            assert sent[name].startswith("refused: cand"), name
            assert expected.removeprefix("refused: ") in sent[name], name
        else:
            assert sent[name] == expected, name
