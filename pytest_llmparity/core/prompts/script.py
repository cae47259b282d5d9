"""A conversation whose tools are scripted: what each call is given, what an engine is asked next, and when it ends.

A case says under ``tool_results`` by the name of a tool what it returns: a JSON value, the same for every call, or a
list of entries. An entry ``{"arguments": {…}, "result": …}`` answers every call whose arguments have these values, one
without ``arguments`` answers one call, in the order of the list. A call that fits entries with arguments is given the
first of them.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_llmparity.core.compare.json import diff_values, parse_json
from pytest_llmparity.core.prompts import NO_TOOL
from pytest_llmparity.core.sample import Completion, Request, Stopped, ToolCall
from pytest_llmparity.core.words import explain

ID: Final = "call{:05d}"
"""The ids of calls: ours, counted through a conversation. Servers make theirs up anew each time, and templates that
write them into the prompt would ask something else each time; some of those take nine letters and digits only."""

NO_WORDS: Final = Stopped(kind="no words", words="it was given the results and said nothing")


class Script:
    """The results of one conversation's calls: those that answer one call are used up in it."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._used: Counter[str] = Counter()

    def results(self, answer: Completion, turn: int) -> tuple[str, ...] | Stopped | None:
        """Return what the calls of an answer are given, or why the conversation stops with it.

        ``turn`` is which answer it is, from 1. ``None`` where it answers in words, its first says nothing, or its token
        limit cut it in a call or before it said anything.
        """
        calls = answer.tool_calls
        if not calls:
            return NO_WORDS if turn > 1 and not answer.text.strip() and not answer.cut else None
        if answer.cut and _arguments(calls[-1]) is None:
            return None
        if turn >= self._request.max_turns:
            called = ", ".join(explain.plain(call.name, 30) for call in calls[:4])
            return Stopped(kind="no end", words=f"it still calls {called} after {explain.count(turn, 'turn')}")
        given = []
        for call in calls:
            arguments = _arguments(call)
            name = explain.plain(call.name, 40)
            if arguments is None:
                return Stopped(kind="broken call", words=f"the arguments of {name} are no JSON object")
            result = self._result(call.name, arguments)
            if result is None:
                words = f"nothing is scripted for {name}({explain.plain(call.arguments, 80)})"
                return Stopped(kind="no result", words=words)
            given.append(result)
        return tuple(given)

    def _result(self, name: str, arguments: Mapping[str, Any]) -> str | None:
        """Return the result of a call as text, ``None`` where nothing is scripted for it."""
        if name not in self._request.tool_results:
            return None
        scripted = self._request.tool_results[name]
        if not isinstance(scripted, (list, tuple)):
            return _text(scripted)
        for entry in scripted:
            if "arguments" in entry and _holds(arguments, entry["arguments"]):
                return _text(entry["result"])
        in_order = [entry for entry in scripted if "arguments" not in entry]
        place = self._used[name]
        if place >= len(in_order):
            return None
        self._used[name] += 1
        return _text(in_order[place]["result"])


def next_request(request: Request, answer: Completion, results: Sequence[str]) -> Request:
    """Return what is asked after an answer whose calls were given these results.

    Its text and calls stand there as the model wrote them, what it reasoned does not. A ``tool_choice`` that leaves no
    choice is for the first turn: with it no conversation would end.
    """
    messages = list(request.messages or ())
    first = 1 + sum(message.get("role") == "tool" for message in messages)
    ids = [ID.format(number) for number in range(first, first + len(results))]
    calls = [
        {
            "id": id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments.strip() or "{}"},
        }
        for id, call in zip(ids, answer.tool_calls, strict=True)
    ]
    messages.append({"role": "assistant", "content": answer.text, "tool_calls": calls})
    messages += [
        {"role": "tool", "tool_call_id": id, "content": result} for id, result in zip(ids, results, strict=True)
    ]
    free = request.tool_choice in (None, NO_TOOL, "auto")
    return dataclasses.replace(request, messages=messages, tool_choice=request.tool_choice if free else "auto")


def _arguments(call: ToolCall) -> Mapping[str, Any] | None:
    """Return the arguments of a call, ``None`` where they are no JSON object; nothing at all is none of any."""
    parsed = parse_json(call.arguments if call.arguments.strip() else "{}")
    return parsed.value if parsed.error is None and isinstance(parsed.value, Mapping) else None


def _holds(arguments: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether arguments have these values, as JSON: 1 and 1.0 are one number."""
    return all(name in arguments and not diff_values(value, arguments[name]) for name, value in wanted.items())


def _text(result: object) -> str:
    """Return a result as a tool's message holds it: a text as it is, any other value as JSON."""
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
