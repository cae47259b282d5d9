"""Run tests in two steps, as tox does: those without live engines, then those with, whatever came of the first.

``python .ci/both.py SELECTION [ARGUMENT...]``: pytest gets ``SELECTION`` (empty: all) in ``-m`` and every further
argument. Where arguments narrow what is run, a step that has no test of it is no failure; that neither has one is.
Who interrupts or ends this ends the step that runs, which stops its engines first, and the other one is not begun.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

NO_TESTS = 5
"""The code by which pytest says that it ran no test."""
INTERRUPTED = 130
"""The code of a command that was interrupted, as shells have it."""
# Engines that answer on a real model come last, a thread each: what one start of an engine serves stays in one worker.
# Of three workers one mostly waits, for a process, a start or an end, so that two cores are busy.
STEPS = (("not live", ("-n", "3", "--dist", "worksteal")), ("live", ("-n", "3", "--dist", "loadscope")))


def code_of(codes: Sequence[int], *, narrowed: bool) -> int:
    """Return the code that steps with these codes have together: that of the first which failed."""
    failed = [code for code in codes if code and not (narrowed and code == NO_TESTS)]
    if failed:
        return failed[0]
    return NO_TESTS if all(code == NO_TESTS for code in codes) else 0


class Steps:
    """Steps one after another, and whether somebody ended them."""

    def __init__(self) -> None:
        self.ended = False
        self._running: subprocess.Popen[bytes] | None = None

    def run(self, command: Sequence[str]) -> int:
        """Return the exit code of a command."""
        child = self._running = subprocess.Popen(command)
        if self.ended:
            child.send_signal(signal.SIGINT)
        code = child.wait()
        self._running = None
        return code

    def interrupt(self, number: int, frame: object) -> None:
        """Wait for the command that runs and begin no other: the terminal interrupted it as well."""
        self.ended = True

    def end(self, number: int, frame: object) -> None:
        """Interrupt the command that runs, which nobody else did; tox ends us so where an interrupt takes long."""
        self.ended = True
        if self._running is not None:
            self._running.send_signal(signal.SIGINT)


def main(selection: str, *arguments: str) -> int:
    """Run both steps and return their code."""
    steps = Steps()
    signal.signal(signal.SIGINT, steps.interrupt)
    signal.signal(signal.SIGTERM, steps.end)
    codes = []
    for tests, workers in STEPS:
        marks = f"{tests} and {selection}" if selection else tests
        codes.append(steps.run(["pytest", *workers, "-m", marks, *arguments]))
        if steps.ended:
            return INTERRUPTED
    return code_of(codes, narrowed=bool(arguments))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
