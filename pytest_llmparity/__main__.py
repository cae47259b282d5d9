"""``python -m pytest_llmparity`` is ``llmparity``."""

from __future__ import annotations

import sys

from pytest_llmparity.cli import main

if __name__ == "__main__":
    sys.exit(main())
