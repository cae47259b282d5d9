"""Node ids are taken apart in one place: a parameter may hold what stands between file, class and test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pytest_llmparity
from pytest_llmparity.core.words.nodeids import name_of_test, names_apart, names_of_test

PACKAGE = Path(pytest_llmparity.__file__).parent
CUTS = re.compile(r"""(?:rpartition|split|rsplit)\((["'])::\1""")
"""How an end of a node id would be cut off by hand. The first ``::`` is always the file's: ``partition`` is right."""


@pytest.mark.parametrize(
    ("test", "inside", "name"),
    [
        ("t.py::test_x", "test_x", "test_x"),
        ("t.py::test_x[a::b]", "test_x[a::b]", "test_x[a::b]"),
        ("a[1]/t.py::TestX::TestY::test_x[a[0]::b]", "TestX::TestY::test_x[a[0]::b]", "test_x[a[0]::b]"),
        ("test_x[a-b]", "test_x[a-b]", "test_x[a-b]"),
        ("", "", ""),
    ],
)
def test_a_name_is_cut_before_its_parameters_only(test: str, inside: str, name: str) -> None:
    assert names_of_test(test) == (test, inside, name)
    assert name_of_test(test) == name


def test_tests_beside_each_other_have_names_of_their_own() -> None:
    tests = (
        "a.py::TestX::test_x[1]",
        "a.py::TestY::test_x[1]",
        "b.py::TestY::test_x[1]",
        "b.py::test_y",
        "b.py::test_z",
    )

    assert names_apart(tests) == {
        "a.py::TestX::test_x[1]": "TestX::test_x[1]",
        "a.py::TestY::test_x[1]": "a.py::TestY::test_x[1]",
        "b.py::TestY::test_x[1]": "b.py::TestY::test_x[1]",
        "b.py::test_y": "test_y",
        "b.py::test_z": "test_z",
    }
    assert names_apart(2 * tests[-1:]) == {"b.py::test_z": "test_z"}, "a test that is named twice is one"


def test_nothing_else_cuts_node_ids() -> None:
    sources = [path for pattern in ("*.py", "*.js") for path in PACKAGE.rglob(pattern)]
    cutting = {path.relative_to(PACKAGE).as_posix() for path in sources if CUTS.search(path.read_text("utf-8"))}

    # The second takes classes apart that stand before the parameters, which it has cut off already.
    assert cutting <= {"core/words/nodeids.py", "run/declare/applications.py"}
    assert "core/words/nodeids.py" in cutting, "the pattern finds what it is about"
