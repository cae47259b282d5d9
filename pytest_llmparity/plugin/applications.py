"""Tests with ``check.value``: pytest collects each once, and leaves it to the gathering to call them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypedDict

import pytest

from pytest_llmparity.run.application import parameters_of

_OURS = ("engine", "parity_engine", "case")
_HIDDEN = getattr(pytest, "HIDDEN_PARAM", "values")
"""What names the one set of arguments that such a test has: nothing, from pytest 8.4 on."""


class Called(TypedDict, total=False):
    """What is called, with which of its arguments."""

    function: Callable[..., object]
    arguments: Mapping[str, object]


def is_application(node: pytest.Item | pytest.Collector) -> bool:
    """Whether the closest of a test's markers has a check of values."""
    closest = node.get_closest_marker("parity")
    return closest is not None and any(getattr(arg, "kind", None) == "value" for arg in closest.args)


def called(item: pytest.Item) -> Called:
    """Return what is called of a test, nothing where it is no application."""
    if not isinstance(item, pytest.Function) or not is_application(item):
        return {}
    callspec = getattr(item, "callspec", None)
    return {"function": item.obj, "arguments": dict(callspec.params) if callspec is not None else {}}


def parametrize(metafunc: pytest.Metafunc) -> bool:
    """Give an application's ``engine`` and ``case`` a value, so that pytest looks for no fixtures; tell whether it is.

    They are none: the gathering calls it with its own, before the first test.
    """
    if not is_application(metafunc.definition):
        return False
    names = [name for name in _OURS if name in metafunc.fixturenames]
    takes = parameters_of(metafunc.function)  # of the test itself under a decorator, as pytest reads it
    names = [name for name in names if name in takes]
    if names:
        metafunc.parametrize(names, [[None] * len(names)], ids=[_HIDDEN])
    return True
