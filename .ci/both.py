"""Run tests in two steps, as tox does: those without live engines, then those with, whatever came of the first.

``python .ci/both.py SELECTION [ARGUMENT...]``: pytest gets ``SELECTION`` (empty: all) in ``-m`` and every further
argument. A step in which a path that was named has no test is no failure; that neither step has one is.
"""

from __future__ import annotations

import subprocess
import sys

NO_TESTS = 5
"""The code by which pytest says that it ran no test."""
STEPS = (("not live", ("-n", "2", "--dist", "worksteal")), ("live", ("-n", "3", "--dist", "loadscope")))


def code_of(codes: list[int]) -> int:
    """Return the code that steps with these codes have together: that of the first which failed."""
    ran = [code for code in codes if code != NO_TESTS]
    return next((code for code in ran if code), 0) if ran else NO_TESTS


def main(selection: str, *arguments: str) -> int:
    """Run both steps and return their code."""
    codes = []
    for tests, workers in STEPS:
        marks = f"{tests} and {selection}" if selection else tests
        codes.append(subprocess.run(["pytest", *workers, "-m", marks, *arguments], check=False).returncode)
    return code_of(codes)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
