from __future__ import annotations

from pytest_llmparity.core import late

# pytester forgets modules that a run inside this process imported, and numpy cannot be imported twice.
late.load()
