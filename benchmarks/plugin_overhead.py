"""What the installed but unused plugin costs a pytest run, in milliseconds: pairs of runs with and without it.

python benchmarks/plugin_overhead.py [--python PYTHON] [--pairs 15]

PYTHON is an interpreter that has pytest and this package installed.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEST = "def test_nothing():\n    pass\n"
KINDS = {"collect only": ["--collect-only"], "one test": []}


def seconds(python: str, arguments: list[str], folder: str) -> tuple[float, float]:
    """Run pytest once; returns wall and CPU seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    argv = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)} failed:\n{done.stdout}{done.stderr}")
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, type=os.path.abspath)  # its runs have a folder of their own
    parser.add_argument("--pairs", type=int, default=15)
    options = parser.parse_args()
    without = ["-p", "no:llmparity"]
    print("| run | without, median ms | plugin adds, median ms (quartiles) | of it CPU ms |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_nothing.py").write_text(TEST, encoding="utf-8")
        Path(folder, "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # no configuration from further up
        listed = [options.python, "-m", "pytest", "--markers"]
        if "parity" not in subprocess.run(listed, cwd=folder, capture_output=True, text=True, check=True).stdout:
            raise SystemExit(f"{options.python} has no pytest-llmparity installed")
        for kind, arguments in KINDS.items():
            for extra in ([], without):  # compiles and caches what either run needs
                seconds(options.python, [*arguments, *extra], folder)
            walls, more_wall, more_cpu = [], [], []
            for pair in range(options.pairs):
                runs = {}
                for with_it in (True, False) if pair % 2 else (False, True):
                    runs[with_it] = seconds(options.python, [*arguments, *([] if with_it else without)], folder)
                walls.append(runs[False][0] * 1e3)
                more_wall.append((runs[True][0] - runs[False][0]) * 1e3)
                more_cpu.append((runs[True][1] - runs[False][1]) * 1e3)
            low, middle, high = statistics.quantiles(more_wall, n=4)
            print(
                f"| {kind} | {statistics.median(walls):.0f} | {middle:+.0f} ({low:+.0f} to {high:+.0f}) "
                f"| {statistics.median(more_cpu):+.0f} |"
            )


if __name__ == "__main__":
    main()
