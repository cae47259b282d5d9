"""Takes the workflows out of docs/workflows.md as files, and checks them as those who run them would.

python docs/workflows.py write FOLDER     # .github/workflows/NAME.yml and .gitlab-ci.yml below it
python docs/workflows.py check            # check-jsonschema and zizmor, both offline
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).parent / "workflows.md"
FENCE = re.compile(r"^```yaml (?P<kind>workflow|gitlab) (?P<name>\S+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMIT = "0" * 40 + " # v0.0.0"
"""What stands for a commit of this repository while a workflow is checked."""
SCHEMAS = {"workflow": "vendor.github-workflows", "gitlab": "vendor.gitlab-ci"}


def workflows() -> dict[str, tuple[str, str]]:
    """Return kind and text of every workflow of the page, by the path it has in a repository."""
    folders = {"workflow": ".github/workflows/", "gitlab": ""}
    return {
        f"{folders[match['kind']]}{match['name']}": (match["kind"], match["body"])
        for match in FENCE.finditer(PAGE.read_text("utf-8"))
    }


def write(folder: Path) -> dict[str, list[Path]]:
    """Write the workflows below a folder, and return the files by their kind."""
    files: dict[str, list[Path]] = {kind: [] for kind in SCHEMAS}
    for name, (kind, text) in workflows().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub(r"(uses: ORG/[\w-]+@)COMMIT", rf"\g<1>{COMMIT}", text), "utf-8")
        files[kind].append(path)
    return files


def check() -> int:
    """Return 0 where nobody finds anything wrong with any workflow."""
    with tempfile.TemporaryDirectory(prefix="llmparity-workflows-") as folder:
        files = write(Path(folder))
        commands = [
            ["check-jsonschema", "--builtin-schema", SCHEMAS[kind], *map(str, paths)] for kind, paths in files.items()
        ]
        commands.append(["zizmor", "--offline", "--no-progress", "--collect=workflows", folder])
        codes = [subprocess.run(command, check=False).returncode for command in commands]
    return max(codes)


if __name__ == "__main__":
    if sys.argv[1:] == ["check"]:
        sys.exit(check())
    write(Path(sys.argv[2]))
