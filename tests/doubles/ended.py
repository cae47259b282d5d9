"""A process that is quicker than who started it."""

from __future__ import annotations

import subprocess
from typing import Any


class Ended(subprocess.Popen[bytes]):
    """A process that has ended before anybody can tell it something."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wait()
