"""The two steps of a run of tox: a path whose tests are all in one of them is no failure of the other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BOTH = Path(__file__).parents[2] / ".ci/both.py"
STUB = """#!{python}
import sys
print(*sys.argv[1:], sep="|")
sys.exit({live} if sys.argv[sys.argv.index("-m") + 1].startswith("live") else {other})
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "live", "code"), [(0, 0, 0), (0, 5, 0), (5, 0, 0), (5, 5, 5), (1, 5, 1), (5, 1, 1), (0, 1, 1), (2, 1, 2)]
)
def test_a_step_without_tests_is_no_failure_unless_both_have_none(
    tmp_path: Path, other: int, live: int, code: int
) -> None:
    stub = tmp_path / "pytest"
    stub.write_text(STUB.format(python=sys.executable, other=other, live=live))
    stub.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    ended = subprocess.run(
        [sys.executable, str(BOTH), "not slow", "tests/core", "-k", "a b"],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.stdout.splitlines() == [
        "-n|2|--dist|worksteal|-m|not live and not slow|tests/core|-k|a b",
        "-n|3|--dist|loadscope|-m|live and not slow|tests/core|-k|a b",
    ]
    assert ended.returncode == code
