"""Whether an answer is the one that a prompt file says is right: a text, pieces of it, a tool that is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_llmparity.core.prompts import Expect
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.core.words import explain

_SHOWN = 40


def kept(expect: Expect | None) -> dict[str, Any]:
    """Return what a run notes of what a case expects, as JSON builtins: schemas are a check's business."""
    if expect is None:
        return {}
    values = {"answer": expect.answer, "tool": expect.tool, "contains": list(expect.contains)}
    return {key: value for key, value in values.items() if value}


def is_right(expect: Mapping[str, Any], answer: Completion) -> bool:
    """Return whether an answer is as :func:`kept` says: the text but for white space around it, pieces, the tool."""
    text = answer.text.strip()
    right = "answer" not in expect or text == expect["answer"].strip()
    right = right and all(piece in answer.text for piece in expect.get("contains", ()))
    return right and ("tool" not in expect or any(call.name == expect["tool"] for call in answer.tool_calls))


def in_words(expect: Mapping[str, Any]) -> str:
    """Return what is expected in a few words."""
    if "answer" in expect:
        return explain.quote(expect["answer"], _SHOWN)
    if "contains" in expect:
        return ", ".join(explain.quote(piece, _SHOWN) for piece in expect["contains"][:3])
    return f"a call of {explain.plain(expect['tool'], _SHOWN)}"
