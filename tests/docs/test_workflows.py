"""The workflows that users copy: what they call exists, with these options, and is pinned as ours are."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_llmparity.cli import _parser
from pytest_llmparity.settings.selection import parse_engines
from pytest_llmparity.settings.sources import OPTIONS

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
PAGE = (ROOT / "docs/workflows.md").read_text("utf-8")
PINNED = re.compile(r"uses: (?P<action>[\w./-]+)@(?P<commit>[0-9a-f]{40}) # (?P<version>v\d+\.\d+\.\d+)")


def script() -> Any:
    spec = importlib.util.spec_from_file_location("workflows_of_the_docs", ROOT / "docs/workflows.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WORKFLOWS: dict[str, tuple[str, str]] = script().workflows()
ON_GITHUB = [name for name, (kind, _) in WORKFLOWS.items() if kind == "workflow"]


def pins(text: str) -> set[tuple[str, ...]]:
    return {match.group("action", "commit", "version") for match in PINNED.finditer(text)}


def steps(name: str) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(WORKFLOWS[name][1])["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


def commands() -> Iterator[list[str]]:
    """Yield every command of a shell on the page that is pytest's or ours, as words."""
    for name, (kind, text) in WORKFLOWS.items():
        content = yaml.safe_load(text)
        lines = content["parity"]["script"] if kind == "gitlab" else [step.get("run", "") for step in steps(name)]
        for line in "\n".join(lines).replace("||\n", "\n").splitlines():
            words = shlex.split(line.strip().partition(" || ")[0].partition(" >> ")[0])
            if words and words[0] in ("pytest", "llmparity"):
                yield words


def of_pytest(words: list[str]) -> argparse.Namespace:
    """Parse the words by the plugin's own options and the few of pytest's that workflows give."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--engines", type=lambda text: parse_engines([text]))
    parser.add_argument("--junitxml")
    parser.add_argument("-n")
    parser.add_argument("-m")
    parser.add_argument("paths", nargs="*")
    for option in OPTIONS:
        if option.metavar:
            parser.add_argument(option.flag, type=option.read)
        else:
            parser.add_argument(option.flag, action="store_true")
    return parser.parse_args([word.replace("$SHARD", "2").replace("$UPDATE", "all") for word in words])


def test_the_page_has_a_workflow_for_each_purpose() -> None:
    assert sorted(WORKFLOWS) == [
        *(f".github/workflows/{name}.yml" for name in ("golden", "gpu", "parity", "release", "shards")),
        ".gitlab-ci.yml",
    ]


@pytest.mark.parametrize("name", ON_GITHUB)
def test_actions_are_pinned_by_the_hashes_of_our_own_workflows(name: str) -> None:
    ours = set[tuple[str, ...]]()
    for path in (*(ROOT / ".github/workflows").glob("*.yml"), ROOT / "action.yml"):
        ours |= pins(path.read_text("utf-8"))
    text = WORKFLOWS[name][1]

    assert pins(text) <= ours
    assert text.count("uses:") == len(PINNED.findall(text)) + text.count("uses: ORG/pytest-llmparity@COMMIT\n")


def test_snippets_of_other_pages_are_pinned_alike() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        text = page.read_text("utf-8")
        assert len(re.findall(r"uses: actions/", text)) == len(PINNED.findall(text)), page


@pytest.mark.parametrize("name", ON_GITHUB)
def test_no_workflow_may_more_than_its_jobs_say(name: str) -> None:
    workflow = yaml.safe_load(WORKFLOWS[name][1])

    assert workflow["permissions"] == {}
    assert all({"permissions", "timeout-minutes"} <= job.keys() for job in workflow["jobs"].values())


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_commands_have_options_that_there_are(words: list[str]) -> None:
    if words[0] == "pytest":
        of_pytest(words[1:])  # ends the process where it cannot be read
        return
    ours, behind = words[1:], list[str]()
    if "--" in ours:
        ours, behind = ours[: ours.index("--")], ours[ours.index("--") + 1 :]

    _parser().parse_args(ours)
    of_pytest(behind)


# what steps do --------------------------------------------------------------------------------------------------------


class Job:
    """The steps of a job that are scripts, run in a clone, with programs beside it that answer as they are told."""

    def __init__(self, folder: Path, workflow: str) -> None:
        self.clone, self.remote, self.programs = folder / "clone", folder / "remote.git", folder / "bin"
        self.summary, self.called = folder / "summary.md", folder / "called.txt"
        self.steps = {step.get("name", step.get("run")): step["run"] for step in steps(workflow) if "run" in step}
        self.programs.mkdir()
        self.git("init", "--quiet", "--bare", str(self.remote), cwd=folder)
        self.git("init", "--quiet", "--initial-branch=main", str(self.clone), cwd=folder)
        (self.clone / "golden").mkdir()
        (self.clone / "golden/prod.jsonl").write_text("old\n")
        self.git("add", ".")
        self.git("-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "--quiet", "--message=begun")
        self.git("remote", "add", "origin", str(self.remote))

    def git(self, *words: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            ["git", *words], cwd=cwd or self.clone, capture_output=True, text=True, check=True, env=self._environ()
        )
        return done.stdout

    def program(self, name: str, script: str) -> None:
        """Put a program on the path that writes down how it was called, and then does this."""
        path = self.programs / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> "{self.called}"\n{script}\n')
        path.chmod(0o755)

    def run(self, step: str, **environ: str) -> int:
        """Run a step as GitHub does on Linux; return how it ended."""
        command = ["bash", "-e", "-c", self.steps[step]]
        return subprocess.run(command, cwd=self.clone, env=self._environ() | environ, check=False).returncode

    def _environ(self) -> dict[str, str]:
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        home = str(self.clone.parent)  # nobody's own configuration of git
        return {"PATH": path, "HOME": home, "GIT_CONFIG_NOSYSTEM": "1", "GITHUB_STEP_SUMMARY": str(self.summary)}


@pytest.fixture
def nightly(tmp_path: Path) -> Job:
    job = Job(tmp_path, ".github/workflows/golden.yml")
    job.program("gh", '[ "$2" != view ]')
    return job


ASK = "Ask, and write what is answered otherwise"
WROTE = "echo new > golden/prod.jsonl; exit 1"


@pytest.mark.parametrize(
    ("pytest_does", "code"), [(WROTE, 0), ("exit 0", 0), ("exit 1", 1), ("exit 4", 4)], ids=["wrote", "same", "1", "4"]
)
def test_the_nightly_job_fails_where_nothing_could_be_recorded(nightly: Job, pytest_does: str, code: int) -> None:
    nightly.program("pytest", pytest_does)

    assert nightly.run(ASK, UPDATE="changed") == code


def test_what_was_recorded_is_shown_and_proposed(nightly: Job) -> None:
    nightly.program("pytest", WROTE)

    codes = [nightly.run(step, UPDATE="all") for step in (ASK, "Say what changed", "Propose it")]

    assert codes == [0, 0, 0]
    assert "golden/prod.jsonl | 2 +-" in nightly.summary.read_text()
    assert nightly.git("show", "origin/golden/refresh:golden/prod.jsonl") == "new\n"
    called = nightly.called.read_text()
    assert "--parity-update-golden all " in called
    assert "gh pr create --head golden/refresh " in called


def test_nothing_is_proposed_where_nothing_changed(nightly: Job) -> None:
    nightly.program("pytest", "exit 0")

    assert [nightly.run(step, UPDATE="changed") for step in (ASK, "Say what changed", "Propose it")] == [0, 0, 0]
    assert "gh" not in nightly.called.read_text()


def test_models_are_fetched_that_are_not_there(tmp_path: Path) -> None:
    (script_of_page,) = re.findall(r"^```sh script models.sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    job = Job(tmp_path, ".github/workflows/golden.yml")
    (job.clone / "models.sha256").write_text("0a  models/there.gguf\n0b  models/not.gguf\n")
    (job.clone / "models").mkdir()
    (job.clone / "models/there.gguf").touch()
    (job.clone / "models.sh").write_text(script_of_page)
    job.program("curl", "")
    job.steps["fetch"] = "bash models.sh"

    assert job.run("fetch", MODELS="https://models.example.org/c0ffee") == 0
    assert job.called.read_text() == (
        "curl --fail --location --silent --show-error --output models/not.gguf "
        "https://models.example.org/c0ffee/not.gguf\n"
    )


def test_every_purpose_has_commands_that_were_read() -> None:
    assert {(words[0], words[1]) for words in commands() if words[0] == "llmparity"} == {
        ("llmparity", verb) for verb in ("golden", "gate", "merge", "report")
    }
    assert sum(words[0] == "pytest" for words in commands()) == 3


@pytest.mark.parametrize("name", [name for name in ON_GITHUB if "ORG/pytest-llmparity@" in WORKFLOWS[name][1]])
def test_the_action_is_given_inputs_that_it_has(name: str) -> None:
    for step in steps(name):
        if step.get("uses", "").startswith("ORG/"):
            assert step["with"].keys() <= ACTION["inputs"].keys()
            of_pytest(["--engines", step["with"]["engines"], *shlex.split(step["with"]["args"])])


def test_the_tables_of_the_page_have_every_input_and_output() -> None:
    page = PAGE.partition("## The action")[2].partition("\n## ")[0]
    inputs, outputs = page.split("| output |")

    def named(table: str) -> set[str]:
        rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
        return {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}

    assert named(inputs) == set(ACTION["inputs"])
    assert named(outputs) == set(ACTION["outputs"])


def test_the_script_writes_them_where_they_belong(tmp_path: Path) -> None:
    files = script().write(tmp_path)

    assert {kind: len(paths) for kind, paths in files.items()} == {"workflow": 5, "gitlab": 1}
    assert not re.search("uses: .*@COMMIT", (tmp_path / ".github/workflows/parity.yml").read_text())
