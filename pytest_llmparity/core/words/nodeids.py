"""A test's node id taken apart, in one way for the whole package: parameters may hold ``::`` too."""

from __future__ import annotations


def names_of_test(test: str) -> tuple[str, str, str]:
    """Return a node id, what of it stands behind the file, and the test's own name with its parameters.

    >>> names_of_test("tests/test_app.py::TestBot::test_bot[a::b]")[1:]
    ('TestBot::test_bot[a::b]', 'test_bot[a::b]')
    """
    inside = test.partition("::")[2] or test
    plain, bracket, parameters = inside.partition("[")
    return test, inside, f"{plain.rpartition('::')[2]}{bracket}{parameters}"


def own_name(test: str) -> str:
    """Return a test's own name with its parameters, without file and class, of its node id."""
    return names_of_test(test)[-1]
