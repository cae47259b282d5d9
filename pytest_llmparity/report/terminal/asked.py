"""What a test sent its engine, for whoever looks why it failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pytest_llmparity.core.checks.value.pair import fork_lines
from pytest_llmparity.core.sample import ApplicationCall
from pytest_llmparity.core.values.calls import first_difference
from pytest_llmparity.core.words.explain import count, plain
from pytest_llmparity.core.words.printable import printable

_SHOWN: Final = 5
_LENGTH: Final = 200


def asked(
    engine: str, calls: Sequence[ApplicationCall], *, other: str = "", others: Sequence[ApplicationCall] = ()
) -> list[str]:
    """Return the last calls of one engine, and where they part from those of an``other`` one, if it was called."""
    skipped = max(0, len(calls) - _SHOWN)
    lines = [f"{count(len(calls), 'call')} of {engine}" + (f", the last {_SHOWN}:" if skipped else ":")]
    for number, call in enumerate(calls[skipped:], start=1 + skipped):
        status = f"HTTP {call.status}" if call.status else "no answer"
        lines += [f"  {number}. {call.path}: {status}", f"    asked    {plain(call.request, _LENGTH)}"]
        lines.append(f"    answered {plain(call.answer, _LENGTH) or 'nothing'}")
    if other:
        parted = fork_lines(first_difference(others, calls), (other, engine))
        lines += parted or [f"the calls of {other} were the same, and answered alike"]
    return [printable(line) for line in lines]
