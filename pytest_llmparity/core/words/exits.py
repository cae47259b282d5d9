"""How the commands of ``llmparity`` end: one rule of exit codes, and what each command says with them.

``docs/exit-codes.md`` shows the same; a test holds them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OK: Final = 0
WRONG: Final = 1
OPEN: Final = 2
FAULT: Final = 3
REFUSED: Final = 4
INTERRUPTED: Final = 130
UNREAD: Final = 141

RULE: Final[Mapping[int, str]] = {
    OK: "done, and all is as it should be; a list may be empty",
    WRONG: "done, and something is not as it should be",
    OPEN: "done, and the answers do not settle it (INCONCLUSIVE)",
    FAULT: "a fault of this program, shown with its traceback",
    REFUSED: "not done, and the message says why: a mistake in what was asked, a name that is not there, something "
    "that cannot be read, written or asked",
    INTERRUPTED: "interrupted",
    UNREAD: "whoever read the output stopped reading (`| head`)",
}
"""What every code means, whichever command ends with it."""

OF_DECISION: Final[Mapping[str, int]] = {"SHIP": OK, "HOLD": WRONG, "INCONCLUSIVE": OPEN}
"""The code of a decision, of ``llmparity gate`` as of ``--parity-policy``."""

_DAMAGED: Final = "a stored run cannot be read: it is named, and the others are shown"

OF_COMMAND: Final[Mapping[str, Mapping[int, str]]] = {
    "init": {
        OK: "configuration, prompts and test are written or stand there, and the configuration has every engine found"
    },
    "import": {OK: "the prompt file is written"},
    "doctor": {OK: "nothing is wrong with the engines", WRONG: "something is"},
    "lock": {
        OK: "the lock is written, or with --check is as the engines are",
        WRONG: "an engine is not there or cannot be locked, or with --check is another one than the lock says",
    },
    "calibrate": {OK: "the shift is measured, and in the lock"},
    "golden": {OK: "written, shown, removed or nothing to remove", WRONG: "diff: answers differ"},
    "record": {OK: "the recording is written"},
    "gate": {OK: "SHIP, or decisions are shown", WRONG: "HOLD", OPEN: "INCONCLUSIVE"},
    "bisect": {
        OK: "the last version passes, and none is known that does not",
        WRONG: "the first bad version is named",
        OPEN: "it is one of several, or no version is known that does not pass and the last one is open",
    },
    "history": {OK: "the runs are shown", WRONG: _DAMAGED},
    "runs": {OK: "the runs are shown, kept or released", WRONG: _DAMAGED},
    "merge": {OK: "the merged run passed", WRONG: "a test failed"},
    "report": {OK: "shown, written or compared"},
    "serve": {OK: "stopped by Ctrl-C", WRONG: "the engine ended by itself"},
}
"""What the first codes mean of each command. The others mean the same of all; ``merge`` may end with pytest's."""

PAGE: Final = "docs/exit-codes.md"


def told(command: str) -> str:
    """Return what stands at the end of a command's help.

    >>> told("doctor")
    'Exit codes: 0 nothing is wrong with the engines; 1 something is; 4 not done, and why. See docs/exit-codes.md.'
    """
    own = "; ".join(f"{code} {meaning}" for code, meaning in OF_COMMAND[command].items())
    return f"Exit codes: {own}; {REFUSED} not done, and why. See {PAGE}."
