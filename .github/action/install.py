"""Installs the package as it stands in this action, and what the suite needs beside it. All comes in by variables."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys


def main() -> int:
    """Return pip's exit code."""
    extras = os.environ.get("EXTRAS", "").strip()
    package = os.environ["PACKAGE"] + (f"[{extras}]" if extras else "")
    words = shlex.split(os.environ.get("REQUIREMENTS", ""))
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", package, *words]
    print("$", shlex.join(command), flush=True)
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
