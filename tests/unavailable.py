"""What a test of a real engine does where that engine is not there."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def unavailable(engine: str, why: str) -> NoReturn:
    """Skip, or fail where the run says that this engine has to be there."""
    if engine in os.environ.get("LLMPARITY_REQUIRE_LIVE", "").split(","):
        pytest.fail(f"{engine} is required by LLMPARITY_REQUIRE_LIVE, but {why}")
    pytest.skip(why)
