"""What takes long to import is imported when it is used, and not by whoever writes a check."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pytest_llmparity.core import late

HEAVY = ("numpy", "scipy", "rapidfuzz", "jsonschema_rs", "pydantic", "httpx", "openai", "sqlite3", "asyncio")


def imported_by(*steps: str) -> list[set[str]]:
    """Return which of the heavy ones a fresh process has imported after each of these steps.

    What it begins with does not count: what measures coverage in every process is there before.
    """
    look = f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules and name not in before]))"
    code = "\n".join(["import json, sys", "before = set(sys.modules)", *(f"{step}\n{look}" for step in steps)])
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [set(json.loads(line)) for line in process.stdout.splitlines()]


@pytest.mark.slow
def test_each_step_imports_what_it_needs_and_writing_checks_nothing_that_takes_long() -> None:
    checks = "check.text(margin=0.05), check.similarity(at_least=0.5), check.prompts(), check.latency(ttft_p95='1 s')"
    written, first_number, all_at_once = imported_by(
        f"from pytest_llmparity import check\n{checks}",
        "from pytest_llmparity.core.stats.shares import clopper_pearson\nclopper_pearson(1, 20, 0.05)",
        "from pytest_llmparity.core.late import load\nload()",
    )

    assert written == set()
    assert first_number == {"numpy", "scipy"}
    assert all_at_once == {*HEAVY[:4]}


def test_they_are_what_they_stand_for() -> None:
    import numpy
    from scipy import special

    assert late.np.log1p is numpy.log1p
    assert late.special.bdtr is special.bdtr
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(numpy, "log1p", len)
        assert late.np.log1p is len
    assert late.np.log1p is numpy.log1p
    assert not hasattr(late.np, "__wrapped__")  # who asks any object for this does not import numpy


@pytest.mark.slow
def test_one_that_is_missing_is_told_to_whoever_uses_it() -> None:
    code = """
import sys
sys.modules["jsonschema_rs"] = None
from pytest_llmparity.core import late
late.load()
try:
    late.jsonschema_rs.validator_for
except ImportError as error:
    print(error)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "jsonschema_rs" in process.stdout
