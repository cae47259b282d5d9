"""Draws what a run on a real Ollama and a real vLLM printed: docs/terminal.svg, at the top of the README.

LLMPARITY_OLLAMA=ollama LLMPARITY_VLLM_PYTHON=~/vllm/bin/python python docs/terminal.py run
python docs/terminal.py picture docs/terminal.txt        # draws the kept output again, asks nobody

The first starts a daemon of its own on a 4-bit copy of the tiny model of this repository and vLLM on the whole one, and
runs the command that the picture shows in a project of its own. What it printed is kept in docs/terminal.txt, coloured;
pytest's lines about the platform and other plugins are left out, and how long it took, which says more of a machine.
"""

from __future__ import annotations

import io
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).parents[1]
PRINTED = ROOT / "docs/terminal.txt"
PICTURE = ROOT / "docs/terminal.svg"
COMMAND = ["pytest", "--engines", "ollama,vllm"]
COLUMNS = 96
LEFT_OUT = re.compile(
    r"(collecting |platform |rootdir: |configfile: |plugins: |asyncio: |hypothesis profile |cachedir: )"
)
TOOK = re.compile(r" in \d+\.\d+s( \([\d:]+\))?")
THEME = TerminalTheme(
    (18, 22, 30),
    (214, 220, 228),
    [
        (70, 77, 90),
        (255, 123, 114),
        (126, 211, 133),
        (229, 192, 96),
        (112, 174, 255),
        (210, 150, 255),
        (90, 204, 214),
        (214, 220, 228),
    ],
    [
        (125, 134, 148),
        (255, 148, 140),
        (150, 226, 156),
        (240, 207, 122),
        (140, 192, 255),
        (222, 172, 255),
        (124, 220, 228),
        (255, 255, 255),
    ],
)
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SUITE = """
import pytest
from pytest_llmparity import check


@pytest.mark.parity("tickets.jsonl", check.prompts(), check.text(margin=0.05), max_tokens=24)
def test_same_answers(parity_run): ...


@pytest.mark.parity("people.jsonl", check.schema("person.json", rate=0.9, agree=0.9), max_tokens=64)
def test_people_fit_the_schema(parity_run): ...
"""
CONFIG = """
[engines.ollama]
kind = "ollama"
model = "{model}"
base_url = "{url}"

[engines.vllm]
kind = "vllm"
python = "{python}"
model = "tiny"
context_length = 1024
slots = 8
args = ["--dtype", "bfloat16", "--enforce-eager", "--num-gpu-blocks-override", "128"]
env = {{ TORCHDYNAMO_DISABLE = "1", OMP_NUM_THREADS = "1" }}
"""


def run() -> str:
    """Return what the command prints on a terminal, in a project of its own on both engines."""
    sys.path.insert(0, str(ROOT))
    from tests.real_ollama import RealOllama

    with tempfile.TemporaryDirectory(prefix="llmparity-") as name:
        folder = Path(name)
        daemon_folder = folder / "daemon"
        project = folder / "project"
        daemon_folder.mkdir()
        project.mkdir()
        for prompts, called in (("mixed", "tickets"), ("extraction", "people")):
            lines = (ROOT / f"fixtures/prompts/{prompts}.jsonl").read_text("utf-8").splitlines(keepends=True)
            (project / f"{called}.jsonl").write_text("".join(lines[:: 3 if prompts == "mixed" else 2]), "utf-8")
        shutil.copy(ROOT / "fixtures/schemas/person.json", project)
        (project / "test_support.py").write_text(SUITE, "utf-8")
        (project / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n", "utf-8")
        with RealOllama(daemon_folder, {"OLLAMA_CONTEXT_LENGTH": "1024", "LLAMA_ARG_THREADS": "1"}) as daemon:
            python = os.environ["LLMPARITY_VLLM_PYTHON"]
            (project / "tiny").symlink_to(ROOT / "fixtures/models/tiny")
            text = CONFIG.format(model=daemon.model("Q4_0"), url=daemon.url, python=python)
            (project / "llmparity.toml").write_text(text, "utf-8")
            return on_terminal([sys.executable, "-m", *COMMAND, "-p", "no:cacheprovider"], project)


def on_terminal(command: list[str], folder: Path) -> str:
    """Return what a command prints where it believes that a person watches, but for bars that move."""
    mine, its = pty.openpty()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("LLMPARITY_", "CI"))}
    environ |= {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    child = subprocess.Popen(command, cwd=folder, env=environ, stdout=its, stderr=subprocess.DEVNULL)
    os.close(its)
    parts = []
    try:
        while part := os.read(mine, 65536):
            parts.append(part)
    except OSError:  # it has closed its end
        pass
    child.wait()
    os.close(mine)
    return b"".join(parts).decode("utf-8", "replace").replace("\r\n", "\n")


def shown(printed: str) -> list[str]:
    """Return the lines of the picture."""
    lines = [TOOK.sub("", line.rpartition("\r")[2]) for line in printed.splitlines()]
    return [line for line in lines if not LEFT_OUT.match(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line))]


def picture(printed: str) -> None:
    """Draw it."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(f"\x1b[1m$ {' '.join(COMMAND)}\x1b[0m"))
    for line in shown(printed):
        console.print(Text.from_ansi(line), soft_wrap=False)
    drawn = console.export_svg(title="", theme=THEME, unique_id="terminal")
    drawn = re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL)  # a picture asks nobody for its letters
    PICTURE.write_text(drawn.replace("Fira Code, monospace", FONTS), "utf-8")


def main(arguments: list[str]) -> None:
    """Run and draw, or draw again."""
    if arguments[:1] == ["run"]:
        PRINTED.write_text("\n".join(shown(run())) + "\n", "utf-8")
    picture(PRINTED.read_text("utf-8"))


if __name__ == "__main__":
    main(sys.argv[1:])
