"""A test's node id taken apart, in one way for the whole package: parameters may hold ``::`` too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def names_of_test(test: str) -> tuple[str, str, str]:
    """Return a node id, what of it stands behind the file, and the test's own name with its parameters.

    >>> names_of_test("tests/test_app.py::TestBot::test_bot[a::b]")[1:]
    ('TestBot::test_bot[a::b]', 'test_bot[a::b]')
    """
    inside = test.partition("::")[2] or test
    plain, bracket, parameters = inside.partition("[")
    return test, inside, f"{plain.rpartition('::')[2]}{bracket}{parameters}"


def name_of_test(test: str) -> str:
    """Return a test's own name with its parameters, without file and class, of its node id."""
    return names_of_test(test)[-1]


def names_apart(tests: Iterable[str]) -> dict[str, str]:
    """Return how tests are called beside each other, by node id: no two alike.

    By its own name; one whose name another has too with its class, and with its file where that has both.

    >>> names_apart(["t.py::TestA::test_x", "t.py::TestB::test_x", "t.py::test_y"]).values()
    dict_values(['TestA::test_x', 'TestB::test_x', 'test_y'])
    """
    names = {test: names_of_test(test) for test in tests}
    own, inside = Counter(of[2] for of in names.values()), Counter(of[1] for of in names.values())
    return {
        test: name if own[name] == 1 else with_class if inside[with_class] == 1 else test
        for test, (_, with_class, name) in names.items()
    }
