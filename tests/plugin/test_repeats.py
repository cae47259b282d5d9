"""A test that pytest-repeat multiplies is one gate, whose last repetition speaks for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmparity.plugin.repeats import gate_of, is_last


@pytest.mark.parametrize(
    ("node", "id", "gate", "last"),
    [
        ("t.py::test_it[1-3]", "1-3", "t.py::test_it", False),
        ("t.py::test_it[x-1-2-3-3]", "x-1-2-3-3", "t.py::test_it[x-1-2]", True),
    ],
)
def test_a_repetition_stands_for_its_gate(node: str, id: str, gate: str, last: bool) -> None:
    callspec = SimpleNamespace(params={"__pytest_repeat_step_number": 0}, id=id)
    item: Any = SimpleNamespace(nodeid=node, callspec=callspec)
    parameters_alone: Any = SimpleNamespace(nodeid=node, callspec=SimpleNamespace(params={}, id=id))

    assert (gate_of(item), is_last(item)) == (gate, last)
    assert (gate_of(parameters_alone), is_last(parameters_alone)) == (node, True)
