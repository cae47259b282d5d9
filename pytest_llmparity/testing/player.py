"""The process that plays a recording in place of an engine: ``FILE PORT PACE``, until it is ended."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from pytest_llmparity.core.errors import LLMParityError
from pytest_llmparity.testing.replay import Replay


def main() -> None:
    """Play the recording of the command line; a file that cannot be used is told and ends it with status 1."""
    file, port, pace = sys.argv[-3:]
    try:
        player = Replay(Path(file), paced=float(pace) > 0, pace=float(pace) or 1.0, port=int(port))
    except LLMParityError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the log of an engine
        raise SystemExit(1) from None
    with player:
        print(f"plays {Path(file).name} at {player.base_url}", flush=True)  # noqa: T201 - the log of an engine
        threading.Event().wait()  # SIGTERM keeps its default action: there is nothing to save
