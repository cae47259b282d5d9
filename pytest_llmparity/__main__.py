"""``llmparity``, and ``python -m pytest_llmparity``: an interruption is answered in words from the first import on."""

from __future__ import annotations

import sys


def run() -> int:
    """Run the command line of this process and return its exit code."""
    try:
        from pytest_llmparity.cli import main

        return main()
    except KeyboardInterrupt:  # while modules are imported, or the command line is read
        sys.stderr.write("llmparity: interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(run())
