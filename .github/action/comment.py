"""Comments on the pull request what the run came to. A comment that cannot be written is told, and fails nothing."""

from __future__ import annotations

import os
import subprocess
import sys


def main() -> int:
    """Write the comment, of the run there was or of none."""
    run, code = os.environ.get("RUN", ""), os.environ.get("CODE", "")
    command = [sys.executable, "-m", "pytest_llmparity", "report", "--comment", os.environ["NAME"]]
    # What pytest's other codes end is not kept as a judged run; with a decision the code is that of the decision.
    judged = run and (code in ("0", "1") or os.environ.get("DECISION", ""))
    command += [run] if judged else ["--instead", f"pytest ended with exit code {code or '?'}: see the log of the job"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    print(*done.stdout.splitlines()[-1:])  # the rest is the summary, which the step before has shown
    if done.returncode:
        print("::warning::the comment in the pull request could not be written, see above")
    return 0


if __name__ == "__main__":
    sys.exit(main())
