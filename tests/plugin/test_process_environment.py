"""What an engine's process is started with: a command as text, its own keys and nobody else's; the header says so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

FAKE = Path(__file__).parent / "fake_engine.py"
READS = """
from pathlib import Path

def test_environment(engine):
    pid = Path("a.starts").read_text().split()[-1]
    variables = Path(f"/proc/{pid}/environ").read_text().split("\\0")
    print("has", sorted(v.partition("=")[0] for v in variables if v.endswith("horse-battery")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_gets_its_own_keys_and_no_other_engines(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OWN", "MINE", "OTHER", "UNSELECTED"):
        monkeypatch.setenv(f"{name}_KEY", f"{name}-horse-battery")
    other = bench.engine("ok")
    bench.configure(
        bench.process("a", command=f"{sys.executable} '{FAKE}'", api_key_env="OWN_KEY")
        + 'PASSED_ON = { env = "MINE_KEY" }\n'
        + f'[engines.b]\nkind = "openai"\nbase_url = "{other.base_url}"\napi_key_env = "OTHER_KEY"\n'
        + '[engines.c]\nkind = "openai"\nbase_url = "http://h"\nheaders = { x-key = { env = "UNSELECTED_KEY" } }\n'
    )
    bench.pytester.makepyfile(READS)

    result = bench.run("--engines=a,b", "-k[a]", "-s")

    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(
        ["a: runs the command*", "*fake_engine.py", "*has ?'MINE_KEY', 'OWN_KEY', 'PASSED_ON'?"]
    )
