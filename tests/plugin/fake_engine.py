"""A small engine that is started as a process in place of ``llama-server``, and goes wrong as it is told.

``FAKE_STARTS`` names a file that gets a line for every start, ``FAKE_REQUESTS`` one that gets the messages of every
request. ``FAKE_BEHAVIOUR`` is one of ``exit`` (says why and ends), ``taken`` (the first start finds its port taken),
``mute`` (never becomes ready), ``die:N`` (ends at the N-th request), ``drift``, ``slow`` (takes a third of a second to
answer), ``slow drift``; anything else works.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2]))  # run by path, where only the package may be installed

from tests.doubles.posing import PosingEngine


def say(*words: str) -> None:
    sys.stderr.write(" ".join(words) + "\n")


def main() -> int:
    """Serve until killed, or go wrong."""
    parser = argparse.ArgumentParser()
    for name in ("--alias", "--port", "--ctx-size", "--parallel"):
        parser.add_argument(name, required=True)
    flags, _ = parser.parse_known_args()
    starts = Path(os.environ["FAKE_STARTS"])
    with starts.open("a") as out:
        out.write(f"{os.getpid()}\n")
    behaviour, _, number = os.environ["FAKE_BEHAVIOUR"].partition(":")
    say("fake engine", behaviour or "works")
    if behaviour == "exit":
        say("loading the model\nerror: the weights are \x1b[31mbroken\x1b[0m, giving up")
        return 7
    if behaviour == "taken" and len(starts.read_text().split()) == 1:
        other = socket.create_server(("127.0.0.1", int(flags.port)))
        other.listen()
    if behaviour == "mute":
        signal.pause()
    engine = PosingEngine(
        model=flags.alias,
        poses_as="llamacpp",
        port=int(flags.port),
        context_length=int(flags.ctx_size) // int(flags.parallel),
        slots=int(flags.parallel),
        quantization="Q4_0",
        drift=0.2 if "drift" in behaviour else 0.0,
        first_delay_s=0.3 if "slow" in behaviour else 0.0,
    )

    def last_words(request: Mapping[str, Any]) -> None:
        if engine.count >= int(number):
            say("cuda error: out of memory")
            os._exit(9)

    def note(request: Mapping[str, Any]) -> None:
        with Path(os.environ["FAKE_REQUESTS"]).open("a") as out:
            out.write(f"{json.dumps(request.get('messages') or request.get('prompt'))}\n")

    if "FAKE_REQUESTS" in os.environ:
        engine.script = note  # type: ignore[assignment]  # None babbles, as without a script
    if behaviour == "die":
        engine.script = last_words  # type: ignore[assignment]  # None babbles, as without a script
    with engine:
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
