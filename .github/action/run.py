"""Runs the suite and says in the step's outputs how it ended. All comes in by variables, nothing is a shell's."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

CODES = {"SHIP": 0, "INCONCLUSIVE": 2, "HOLD": 1}
"""Exit codes of a decision by --parity-policy, the gravest last; without one 2 says that pytest was interrupted."""
SEVERITY = ("SKIPPED", "PASS", "INCONCLUSIVE", "FAIL", "INCOMPARABLE", "ERROR")


def main() -> int:
    """Run pytest, write outcome, decision, run and report-path, and return pytest's exit code."""
    out = Path(os.environ["OUT"])
    (out / "run.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest"]
    command += ["--engines", engines] if (engines := os.environ.get("ENGINES", "").strip()) else []
    command += ["--parity-profile", profile] if (profile := os.environ.get("PROFILE", "").strip()) else []
    command += ["--parity-required", "--parity-report", "html,json,md", "--parity-out", str(out)]
    command += ["--junitxml", str(out / "junit.xml"), *shlex.split(os.environ.get("ARGS", ""))]
    print("$", shlex.join(command), flush=True)
    code = subprocess.run(command, check=False).returncode
    report = json.loads((out / "run.json").read_text("utf-8")) if (out / "run.json").is_file() else {}
    outcomes = [verdict["outcome"] for verdict in report.get("verdicts", ())]
    decided = [decision["outcome"] for decision in report.get("decisions", ())]
    decision = max(decided, key=tuple(CODES).index, default="")
    decision = decision if CODES.get(decision) == code else ""  # pytest ended otherwise, so nothing is decided
    outcomes += ["ERROR"] * ((code not in (0, 1) and not decision) or bool(report.get("errors")))
    outcome = max(outcomes, key=SEVERITY.index, default="ERROR" if code == 1 else "SKIPPED")
    with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as outputs:
        outputs.write(f"outcome={outcome}\ndecision={decision}\ncode={code}\n")
        outputs.write(f"run={report.get('run', '')}\nreport-path={out}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
