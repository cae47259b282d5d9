"""A test that is an application: called with every input on every engine, and what it returns is the answer."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import WireRequest

CALL: Final = "CALL"
"""The method of a request that is no HTTP request: the application is called."""
ENGINE_NAMES: Final = ("engine", "parity_engine")
CASE: Final = "case"


def parameters_of(function: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    """Return what a function takes, its annotations unread: they may name what only type checkers import.

    Python evaluates them when it is asked for a signature, from 3.14 on, unless they are asked for as text.
    """
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(function, annotation_format=Format.STRING).parameters
    return inspect.signature(function).parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """What one test calls for every input.

    ``arguments`` are further ones of the function, from the test's parameters. ``code`` is a hash of the code that it
    reaches by import: an interrupted gathering goes on only with the same. What identifies an answer is the test and
    the input alone, so that golden answers and replays outlive a change of the code they are there to judge.
    """

    test: str
    function: Callable[..., object] = field(compare=False, repr=False)
    arguments: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)
    code: str = ""

    def request(self, case: Case) -> WireRequest:
        """Return one call as requests are named in the store."""
        body = json.dumps({"application": self.test, "input": case.prompt}).encode()
        return WireRequest(path="", body=body, sha256=hashlib.sha256(body).hexdigest(), method=CALL)

    def call(self, engine: object, case: Case) -> object:
        """Return what the application returns, or the coroutine that will: the input is its own to change."""
        given: dict[str, Any] = {CASE: json.loads(case.prompt or "null"), **dict.fromkeys(ENGINE_NAMES, engine)}
        takes = parameters_of(self.function)
        return self.function(**{name: value for name, value in given.items() if name in takes}, **self.arguments)
