"""Whether an answer is the one that a prompt file says is right: a text, pieces of it, a tool called, a schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from pytest_llmparity.core.compare.answers import speechless
from pytest_llmparity.core.prompts import NO_TOOL, Expect
from pytest_llmparity.core.right import Extracted
from pytest_llmparity.core.right.extract import Extract, extracted, same, shown, wanted
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.core.words import explain

Fits: TypeAlias = Callable[[Completion], str | None]
"""Says why an answer does not fit a schema, ``None`` where it does."""

_SHOWN = 40


def kept(expect: Expect | None) -> dict[str, Any]:
    """Return what a run notes of what a case expects, as JSON builtins: schemas are a check's business."""
    if expect is None:
        return {}
    values = {"answer": expect.answer, "tool": expect.tool, "contains": list(expect.contains)}
    return {key: value for key, value in values.items() if value}


def is_right(expect: Mapping[str, Any], answer: Completion) -> bool:
    """Return whether an answer is as :func:`kept` says: the text but for white space around it, pieces, the tool."""
    return not why_wrong(expect, answer)


def why_wrong(
    expect: Mapping[str, Any],
    answer: Completion,
    *,
    extract: Extract | None = None,
    fits: Fits | None = None,
    given: Extracted | None = None,
) -> str:
    """Say what of an answer is not as :func:`kept` says, empty where all is.

    ``extract`` says what of the text is the answer (:func:`~pytest_llmparity.core.right.extract.extracted`); ``fits``
    holds it against the case's schema. ``given`` is what was extracted where it has been already.
    """
    if not expect and fits is None:
        return "its prompt does not say what is right"
    if "answer" in expect:
        given = extracted(answer.text, extract) if given is None else given
        right = wanted(expect["answer"], extract)
        if given.problem:
            return f"{explain.plain(given.problem, 100)}; expected {shown(right.value)}"
        if not same(given.value, right.value):
            return f"{shown(given.value)}, expected {shown(right.value)}"
    for piece in expect.get("contains", ()):
        if piece not in answer.text:
            return f"no {explain.quote(piece, _SHOWN)} in it"
    if "tool" in expect and (called := _wrong_call(expect["tool"], answer)):
        return f"{called}, expected {explain.plain(expect['tool'], _SHOWN)}"
    why = fits(answer) if fits is not None else None
    return "" if why is None else f"does not fit its schema: {why}"


def _wrong_call(tool: str, answer: Completion) -> str:
    """Say what an answer calls where that is not what is expected, empty where it is.

    Where no call is expected an answer is: one that says nothing, or ended to call and has no call, is not right.
    """
    names = _names(answer)
    if names if tool == NO_TOOL else tool not in names:
        return f"calls {', '.join(explain.plain(name, _SHOWN) for name in names[:3]) or 'no tool'}"
    if tool == NO_TOOL and answer.finish_reason == "tool_calls":
        return "ended to call a tool and has no call"
    return "says nothing" if tool == NO_TOOL and speechless(answer) else ""


def _names(answer: Completion) -> list[str]:
    """Return the names of the tools that an answer, or any turn of a conversation, calls."""
    return [call.name for turn in answer.conversation for call in turn.tool_calls]


def in_words(expect: Mapping[str, Any]) -> str:
    """Return what is expected in a few words."""
    if "answer" in expect:
        return explain.quote(expect["answer"], _SHOWN)
    if "contains" in expect:
        return ", ".join(explain.quote(piece, _SHOWN) for piece in expect["contains"][:3])
    if expect["tool"] == NO_TOOL:
        return "no call"
    return f"a call of {explain.plain(expect['tool'], _SHOWN)}"
