"""Entry of the keeper process: a small program that owns every engine process, and outlives pytest just long enough.

Run by path (``python -I process.py``) with one line of JSON on its standard input: ``{"owner": PID, "token":
TEXT, "directory": PATH}``. It listens on ``directory/socket``, writes ``ready`` and a newline to its standard output,
and serves until it is closed or its owner is gone; then no process it ever started is left and the directory is
removed. Modules of the keeper import nothing but the standard library, and only its light parts: it is up in about a
tenth of a second.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    """Serve one owner until the end."""
    # Run by path and isolated, nothing but the standard library can be imported yet. Ours comes last, so that what
    # lies beside this package can hide nothing.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from pytest_llmparity.keeper.server import Server

    line = b""
    while not line.endswith(b"\n"):  # unbuffered: the rest of standard input is watched as a pipe
        byte = os.read(0, 1)
        if not byte:
            return
        line += byte
    order = json.loads(line)
    server = Server(owner=order["owner"], token=order["token"], directory=order["directory"])
    os.write(1, b"ready\n")
    os.dup2(2, 1)
    server.serve()


if __name__ == "__main__":
    main()
